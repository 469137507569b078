//! Messages as protobuf. What does not decode to a value that the types allow is an error, never a default.

use std::collections::BTreeMap;

use super::{Address, Body, Content, Message, Performative};

#[allow(missing_docs, unused_qualifications, clippy::all, reason = "prost writes it")]
pub(crate) mod pb {
    include!(concat!(env!("OUT_DIR"), "/caxton.messages.v1.rs"));
}

/// The version of commands and outcomes that this build writes, and the newest that it reads.
pub(crate) const FORMAT: u32 = 1;

/// Why bytes are not what they should be.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A newer build wrote them.
    #[error("it was written in version {found} of the format, and this build reads up to {FORMAT}; use a newer build")]
    Version {
        /// The version that wrote them.
        found: u32,
    },
    /// They are not protobuf.
    #[error("it is not protobuf")]
    Protobuf(#[from] prost::DecodeError),
    /// A field is absent or has a value that it cannot have.
    #[error("its field `{field}` is absent or has an impossible value")]
    Field {
        /// The field's name.
        field: &'static str,
    },
}

pub(crate) fn field(field: &'static str) -> DecodeError {
    DecodeError::Field { field }
}

type Result<T> = std::result::Result<T, DecodeError>;

/// An address as it is written.
pub(crate) fn address(text: &str, name: &'static str) -> Result<Address> {
    text.parse().map_err(|_| field(name))
}

fn addresses(all: &[String], name: &'static str) -> Result<Vec<Address>> {
    all.iter().map(|text| address(text, name)).collect()
}

impl From<&Content> for pb::Content {
    fn from(content: &Content) -> Self {
        let body = match &content.body {
            Body::Text(text) => pb::content::Body::Text(text.clone()),
            Body::Json(text) => pb::content::Body::Json(text.clone()),
            Body::Bytes(bytes) => pb::content::Body::Bytes(bytes.clone()),
            Body::Artifact { digest, bytes } => {
                pb::content::Body::Artifact(pb::Artifact { digest: digest.as_bytes().to_vec(), bytes: *bytes })
            }
        };
        Self { media_type: content.media_type.clone(), body: Some(body) }
    }
}

impl TryFrom<pb::Content> for Content {
    type Error = DecodeError;
    fn try_from(content: pb::Content) -> Result<Self> {
        let body = match content.body.ok_or(field("content"))? {
            pb::content::Body::Text(text) => Body::Text(text),
            pb::content::Body::Json(text) => Body::Json(text),
            pb::content::Body::Bytes(bytes) => Body::Bytes(bytes),
            pb::content::Body::Artifact(artifact) => Body::Artifact {
                digest: artifact.digest.as_slice().try_into().map_err(|_| field("digest"))?,
                bytes: artifact.bytes,
            },
        };
        Ok(Content { media_type: content.media_type, body })
    }
}

impl From<&Message> for pb::Message {
    fn from(message: &Message) -> Self {
        let texts = |all: &[Address]| all.iter().map(Address::to_string).collect();
        let extension = |(name, value): (&String, &String)| pb::Extension { name: name.clone(), value: value.clone() };
        Self {
            performative: message.performative.number(),
            sender: message.sender.as_ref().map(Address::to_string),
            receivers: texts(&message.receivers),
            reply_to: texts(&message.reply_to),
            content: message.content.as_ref().map(Into::into),
            language: message.language.clone(),
            encoding: message.encoding.clone(),
            ontology: message.ontology.clone(),
            protocol: message.protocol.clone(),
            conversation_id: message.conversation_id.clone(),
            reply_with: message.reply_with.clone(),
            in_reply_to: message.in_reply_to.clone(),
            reply_by_ms: message.reply_by_ms,
            extensions: message.extensions.iter().map(extension).collect(),
        }
    }
}

impl TryFrom<pb::Message> for Message {
    type Error = DecodeError;
    fn try_from(message: pb::Message) -> Result<Self> {
        let mut extensions = BTreeMap::new();
        for extension in message.extensions {
            if extensions.insert(extension.name, extension.value).is_some() {
                return Err(field("extensions"));
            }
        }
        Ok(Message {
            performative: Performative::from_number(message.performative).ok_or(field("performative"))?,
            sender: message.sender.map(|text| address(&text, "sender")).transpose()?,
            receivers: addresses(&message.receivers, "receivers")?,
            reply_to: addresses(&message.reply_to, "reply_to")?,
            content: message.content.map(TryInto::try_into).transpose()?,
            language: message.language,
            encoding: message.encoding,
            ontology: message.ontology,
            protocol: message.protocol,
            conversation_id: message.conversation_id,
            reply_with: message.reply_with,
            in_reply_to: message.in_reply_to,
            reply_by_ms: message.reply_by_ms,
            extensions,
        })
    }
}
