//! The JSON form: one object with FIPA's fields, whose names are read with `_` or `-` and written with `_`.
//!
//! Text stands for itself in `content`, and so does any other JSON value, which is kept as the text that was written. What
//! neither can say is said beside it: `content_type` is its media type, `content_encoding` is `base64` for bytes, and
//! `content_artifact` names a blob. Short names of performatives that FIPA does not have are taken with a note.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde_json::value::RawValue;

use super::check::is_json;
use super::{
    Address, Body, CONTENT_DEPTH_MAX, CheckError, Content, DOCUMENT_BYTES_MAX, InvalidAddress, InvalidPerformative,
    Message, Performative,
};
use crate::shard::json_depth;

/// Why JSON is no message.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// It is too long to be looked at.
    #[error("the message has {bytes} bytes, and {DOCUMENT_BYTES_MAX} is the most; upload large content as an artifact")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// It is nested too deep to be looked at.
    #[error("the message is nested {levels} levels deep, and {CONTENT_DEPTH_MAX} is the most")]
    TooDeep {
        /// How deep it is.
        levels: usize,
    },
    /// It is not JSON, or no object, or has a field twice.
    #[error("the message is not a JSON object: {0}")]
    Json(#[from] serde_json::Error),
    /// A field is absent or cannot be read.
    #[error("the message's `{field}` {why}")]
    Field {
        /// The field's name.
        field: String,
        /// What is wrong with it.
        why: String,
    },
    /// It does not say what it does.
    #[error(transparent)]
    Performative(#[from] InvalidPerformative),
    /// An address is none.
    #[error(transparent)]
    Address(#[from] InvalidAddress),
    /// It breaks a limit.
    #[error(transparent)]
    Check(#[from] CheckError),
}

/// A remark on a message that was taken although it was not written as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The name that was written.
    pub written: String,
    /// The name that FIPA has for it.
    pub meant: Performative,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` was taken for `{}`, which is its name in FIPA ACL", self.written, self.meant)
    }
}

/// The fields of an object in their order, with the texts of their values. One that is there twice is an error.
struct Fields(BTreeMap<String, Box<RawValue>>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Fields;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with a message's fields")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    // Extensions keep their names, whose beginning alone is known.
                    let name = match name.get(..2) {
                        Some("X-" | "x-") => format!("X-{}", &name[2..]),
                        Some(_) | None => name.to_ascii_lowercase().replace('-', "_"),
                    };
                    let shown: String = name.chars().take(40).collect();
                    if fields.insert(name, value).is_some() {
                        return Err(serde::de::Error::custom(format!("`{shown}` is there twice")));
                    }
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Read)
    }
}

fn wrong(field: &str, why: &str) -> JsonError {
    JsonError::Field { field: field.chars().take(40).collect(), why: why.to_owned() }
}

impl Fields {
    /// A field's value; null stands for its absence.
    fn take(&mut self, name: &str) -> Option<Box<RawValue>> {
        self.0.remove(name).filter(|value| value.get() != "null")
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, JsonError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        serde_json::from_str(value.get()).map(Some).map_err(|_| wrong(name, "has to be text"))
    }

    /// One address or a list of them.
    fn addresses(&mut self, names: [&str; 2]) -> Result<Vec<Address>, JsonError> {
        let mut found = Vec::new();
        for name in names {
            let Some(value) = self.take(name) else { continue };
            let list = match serde_json::from_str::<String>(value.get()) {
                Ok(one) => vec![one],
                Err(_) => serde_json::from_str::<Vec<String>>(value.get())
                    .map_err(|_| wrong(name, "has to be an address or a list of addresses"))?,
            };
            for address in list {
                let address: Address = address.parse()?;
                // The receivers are a set.
                if !found.contains(&address) && found.len() <= super::RECEIVERS_MAX {
                    found.push(address);
                }
            }
        }
        Ok(found)
    }

    /// Milliseconds since 1970, or a time as RFC 3339 writes it.
    fn time(&mut self, name: &str) -> Result<Option<i64>, JsonError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        if let Ok(at_ms) = serde_json::from_str::<i64>(value.get()) {
            return Ok(Some(at_ms));
        }
        let text = serde_json::from_str::<String>(value.get()).ok();
        let at = text.and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let why = "has to be a time such as 2026-03-01T12:00:00Z, or milliseconds since 1970";
        at.map(|at| Some(at.as_millisecond())).ok_or_else(|| wrong(name, why))
    }

    fn content(&mut self) -> Result<Option<Content>, JsonError> {
        let media_type = self.text("content_type")?;
        let encoding = self.text("content_encoding")?;
        if let Some(artifact) = self.take("content_artifact") {
            #[derive(serde::Deserialize)]
            #[serde(deny_unknown_fields)]
            struct Artifact {
                digest: crate::Digest,
                bytes: u64,
            }
            if self.take("content").is_some() || encoding.is_some() {
                return Err(wrong("content_artifact", "stands for the content: leave the other out"));
            }
            let artifact: Artifact = serde_json::from_str(artifact.get()).map_err(|_| {
                wrong("content_artifact", "has to be {\"digest\": SHA-256 in hexadecimal, \"bytes\": N}")
            })?;
            let media_type = media_type.unwrap_or_else(|| "application/octet-stream".to_owned());
            let body = Body::Artifact { digest: artifact.digest, bytes: artifact.bytes };
            return Ok(Some(Content { media_type, body }));
        }
        let json = media_type.as_deref().is_some_and(is_json);
        // With a type that says JSON, null is a value.
        let Some(value) = (if json { self.0.remove("content") } else { self.take("content") }) else {
            return match media_type.is_some() || encoding.is_some() {
                true => Err(wrong("content", "is absent, and its type is there")),
                false => Ok(None),
            };
        };
        let text = serde_json::from_str::<String>(value.get()).ok();
        let (usual, body) = match (encoding.as_deref(), text) {
            (Some("base64"), Some(text)) => {
                let bytes = BASE64.decode(text).map_err(|_| wrong("content", "is said to be base64 and is not"))?;
                ("application/octet-stream", Body::Bytes(bytes))
            }
            (Some("base64"), None) => return Err(wrong("content", "has to be text, in base64")),
            (Some(_), _) => return Err(wrong("content_encoding", "has to be base64, or absent")),
            (None, Some(text)) if !json => ("text/plain", Body::Text(text)),
            (None, _) => ("application/json", Body::Json(value.get().to_owned())),
        };
        Ok(Some(Content { media_type: media_type.unwrap_or_else(|| usual.to_owned()), body }))
    }
}

impl Message {
    /// Reads a message and checks it. The bytes may come from anybody: how long and how deep they are is looked at first.
    pub fn from_json(bytes: &[u8]) -> Result<(Message, Vec<Note>), JsonError> {
        if bytes.len() > DOCUMENT_BYTES_MAX {
            return Err(JsonError::TooLong { bytes: bytes.len() });
        }
        let levels = json_depth(bytes);
        // The object around the content is a level of its own.
        if levels > CONTENT_DEPTH_MAX + 1 {
            return Err(JsonError::TooDeep { levels });
        }
        let mut fields: Fields = serde_json::from_slice(bytes)?;
        let name = fields.text("performative")?;
        let name = name.ok_or_else(|| wrong("performative", "is absent: it is the one field that has to be there"))?;
        let (performative, written) = Performative::read(&name)?;
        let sender = fields.text("sender")?.map(|text| text.parse()).transpose()?;
        let message = Message {
            performative,
            sender,
            receivers: fields.addresses(["receiver", "receivers"])?,
            reply_to: fields.addresses(["reply_to", "replyto"])?,
            content: fields.content()?,
            language: fields.text("language")?,
            encoding: fields.text("encoding")?,
            ontology: fields.text("ontology")?,
            protocol: fields.text("protocol")?,
            conversation_id: fields.text("conversation_id")?,
            reply_with: fields.text("reply_with")?,
            in_reply_to: fields.text("in_reply_to")?,
            reply_by_ms: fields.time("reply_by")?,
            extensions: BTreeMap::new(),
        };
        let message = Message { extensions: extensions(fields)?, ..message };
        message.check()?;
        let note = written.map(|written| Note { written, meant: performative });
        Ok((message, note.into_iter().collect()))
    }

    /// The JSON form of a message that [`Message::check`] takes; [`Message::from_json`] reads the same message from it.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let mut bytes = Vec::new();
        let mut serializer = serde_json::Serializer::new(&mut bytes);
        self.write(&mut serializer)?;
        String::from_utf8(bytes).map_err(serde::ser::Error::custom)
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("performative", self.performative.name())?;
        if let Some(sender) = &self.sender {
            map.serialize_entry("sender", &sender.to_string())?;
        }
        for (name, all) in [("receiver", &self.receivers), ("reply_to", &self.reply_to)] {
            match all.as_slice() {
                [] => {}
                [one] => map.serialize_entry(name, &one.to_string())?,
                all => map.serialize_entry(name, &all.iter().map(Address::to_string).collect::<Vec<_>>())?,
            }
        }
        if let Some(content) = &self.content {
            write_content(&mut map, content)?;
        }
        let texts = [
            ("language", &self.language),
            ("encoding", &self.encoding),
            ("ontology", &self.ontology),
            ("protocol", &self.protocol),
            ("conversation_id", &self.conversation_id),
            ("reply_with", &self.reply_with),
            ("in_reply_to", &self.in_reply_to),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                map.serialize_entry(name, text)?;
            }
        }
        if let Some(at_ms) = self.reply_by_ms {
            match jiff::Timestamp::from_millisecond(at_ms) {
                Ok(at) => map.serialize_entry("reply_by", &at.to_string())?,
                Err(_) => map.serialize_entry("reply_by", &at_ms)?,
            }
        }
        for (name, value) in &self.extensions {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

fn write_content<M: SerializeMap>(map: &mut M, content: &Content) -> Result<(), M::Error> {
    let usual = match &content.body {
        Body::Text(text) => {
            map.serialize_entry("content", text)?;
            "text/plain"
        }
        Body::Json(text) => {
            let value: &RawValue = serde_json::from_str(text).map_err(serde::ser::Error::custom)?;
            map.serialize_entry("content", value)?;
            // A text or null that is JSON is told from content that is text, or absent, by its type.
            if text.trim_start().starts_with(['"', 'n']) { "" } else { "application/json" }
        }
        Body::Bytes(bytes) => {
            map.serialize_entry("content", &BASE64.encode(bytes))?;
            map.serialize_entry("content_encoding", "base64")?;
            "application/octet-stream"
        }
        Body::Artifact { digest, bytes } => {
            map.serialize_entry("content_artifact", &serde_json::json!({ "digest": digest, "bytes": bytes }))?;
            "application/octet-stream"
        }
    };
    if content.media_type != usual {
        map.serialize_entry("content_type", &content.media_type)?;
    }
    Ok(())
}

/// What is left are extensions, or mistakes.
fn extensions(fields: Fields) -> Result<BTreeMap<String, String>, JsonError> {
    let mut extensions = BTreeMap::new();
    for (name, value) in fields.0 {
        if !name.starts_with("X-") {
            return match value.get() {
                "null" => continue,
                _ => Err(wrong(&name, "is none of its fields; one of your own begins with X-")),
            };
        }
        // A value that is no text is kept as its JSON.
        let text = serde_json::from_str::<String>(value.get()).unwrap_or_else(|_| value.get().to_owned());
        extensions.insert(name, text);
    }
    Ok(extensions)
}
