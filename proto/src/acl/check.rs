//! What a message may hold. Whoever takes one in checks it, and whoever applies it from the log checks it again.

use std::collections::BTreeSet;

use super::{Address, Body, Content, Message};
use crate::shard::json_depth;

/// The most bytes of a message's JSON form: that of the largest message fits, with every character escaped.
pub const DOCUMENT_BYTES_MAX: usize = 4 << 20;
/// The most bytes of content within a message; what is larger is an artifact.
pub const CONTENT_BYTES_MAX: usize = 256 << 10;
/// How deep JSON may be nested, in content and around it.
pub const CONTENT_DEPTH_MAX: usize = 64;
/// The most receivers, and the most addresses for replies.
pub const RECEIVERS_MAX: usize = 64;
/// The most extensions.
pub const EXTENSIONS_MAX: usize = 32;
/// The most bytes of an identifier or a name in a field, and of an extension's name.
pub const TOKEN_BYTES_MAX: usize = 256;
/// The most bytes of an extension's value.
pub const VALUE_BYTES_MAX: usize = 4 << 10;
/// The latest time, about the year 9999, in milliseconds since 1970.
pub const TIME_MAX_MS: i64 = 253_402_300_799_000;

/// Why a message cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// There is too much of something.
    #[error("the message has {found} {what}, and {most} is the most{}", hint(what))]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        found: u64,
        /// How much there may be.
        most: u64,
    },
    /// A field has a value that it cannot have.
    #[error("the message's `{field}` {why}")]
    Field {
        /// The field's name.
        field: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
}

fn hint(what: &str) -> &'static str {
    if what == CONTENT { "; upload it as an artifact and send its digest" } else { "" }
}

const CONTENT: &str = "bytes of content";

type Result = std::result::Result<(), CheckError>;

fn most(what: &'static str, found: usize, most: usize) -> Result {
    if found <= most { Ok(()) } else { Err(CheckError::Limit { what, found: found as u64, most: most as u64 }) }
}

fn wrong(field: &'static str, why: &'static str) -> Result {
    Err(CheckError::Field { field, why })
}

fn token(field: &'static str, text: Option<&String>) -> Result {
    match text {
        Some(text) if text.trim().is_empty() => wrong(field, "is empty: leave it out or give it a value"),
        Some(text) if text.len() > TOKEN_BYTES_MAX => wrong(field, "has more than 256 bytes"),
        Some(text) if text.chars().any(char::is_control) => wrong(field, "has a control character"),
        Some(_) | None => Ok(()),
    }
}

/// The receivers are a set: each is there once.
fn addresses(field: &'static str, what: &'static str, all: &[Address]) -> Result {
    most(what, all.len(), RECEIVERS_MAX)?;
    if all.iter().collect::<BTreeSet<_>>().len() < all.len() {
        return wrong(field, "names somebody twice");
    }
    match all.contains(&Address::Platform) {
        true => wrong(field, "names the platform, to which nobody can write"),
        false => Ok(()),
    }
}

fn media_type(text: &str) -> Result {
    let part =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b));
    let (essence, parameters) = text.split_once(';').map_or((text, ""), |(essence, rest)| (essence, rest));
    let fits = essence.trim_end().split_once('/').is_some_and(|(kind, subtype)| part(kind) && part(subtype));
    let plain = text.len() <= TOKEN_BYTES_MAX && parameters.bytes().all(|b| (0x20..0x7f).contains(&b));
    if fits && plain {
        Ok(())
    } else {
        wrong("content_type", "is no media type, such as text/plain or application/json")
    }
}

impl Content {
    fn check(&self) -> Result {
        media_type(&self.media_type)?;
        most(CONTENT, self.bytes(), CONTENT_BYTES_MAX)?;
        match (&self.body, is_json(&self.media_type)) {
            (Body::Text(_), true) => return wrong("content_type", "says JSON, and the content is text"),
            (Body::Json(_), false) => return wrong("content_type", "does not say JSON, and the content is JSON"),
            (Body::Artifact { bytes, .. }, _) if i64::try_from(*bytes).is_err() => {
                return wrong("content_artifact", "has an impossible number of bytes");
            }
            _ => {}
        }
        match &self.body {
            Body::Json(text) => {
                most("levels of content", json_depth(text.as_bytes()), CONTENT_DEPTH_MAX)?;
                // Its depth is known: parsing recurses.
                match serde_json::from_str::<serde::de::IgnoredAny>(text) {
                    Ok(_) => Ok(()),
                    Err(_) => wrong("content", "is said to be JSON and is not"),
                }
            }
            Body::Text(_) | Body::Bytes(_) | Body::Artifact { .. } => Ok(()),
        }
    }
}

impl Message {
    /// Checks all of it against the limits. A message that has no receiver is refused: nobody would ever see it.
    pub fn check(&self) -> Result {
        addresses("receiver", "receivers", &self.receivers)?;
        if self.receivers.is_empty() {
            return wrong("receiver", "is absent: say who receives it");
        }
        addresses("reply_to", "addresses for replies", &self.reply_to)?;
        let tokens = [
            ("language", &self.language),
            ("encoding", &self.encoding),
            ("ontology", &self.ontology),
            ("protocol", &self.protocol),
            ("conversation_id", &self.conversation_id),
            ("reply_with", &self.reply_with),
            ("in_reply_to", &self.in_reply_to),
        ];
        tokens.into_iter().try_for_each(|(field, text)| token(field, text.as_ref()))?;
        if self.reply_by_ms.is_some_and(|at_ms| !(0..=TIME_MAX_MS).contains(&at_ms)) {
            return wrong("reply_by", "is no time between 1970 and 9999");
        }
        most("extensions", self.extensions.len(), EXTENSIONS_MAX)?;
        for (name, value) in &self.extensions {
            extension(name)?;
            most("bytes in an extension", value.len(), VALUE_BYTES_MAX)?;
        }
        self.content.as_ref().map_or(Ok(()), Content::check)
    }
}

/// An extension's name begins with `X-` and goes on with letters, digits, `-`, `_` and `.`.
fn extension(name: &str) -> Result {
    let rest = name.strip_prefix("X-").unwrap_or_default();
    let plain = rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    match !rest.is_empty() && plain && name.len() <= TOKEN_BYTES_MAX {
        true => Ok(()),
        false => wrong("X-", "has a name with something other than letters, digits, `-`, `_` and `.`"),
    }
}

/// Whether a media type stands for JSON.
pub(super) fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json")
}
