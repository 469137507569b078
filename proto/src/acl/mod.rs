//! Messages between agents, with the fields and performatives of FIPA ACL (SC00061G, SC00037J), as JSON and as protobuf.
//!
//! A message that a stranger wrote becomes a [`Message`] by [`Message::from_json`], and is one that [`Message::check`] takes
//! before anybody acts on it. The sender is stamped by the node that takes it in: what the text says of it does not count.

mod address;
mod check;
mod json;
mod performative;
pub(crate) mod wire;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

pub use address::{ADDRESS_BYTES_MAX, Address, InvalidAddress, Pattern, Subject, TOPIC_LEVELS_MAX, Topic};
pub use check::{
    CONTENT_BYTES_MAX, CONTENT_DEPTH_MAX, CheckError, DOCUMENT_BYTES_MAX, EXTENSIONS_MAX, RECEIVERS_MAX, TIME_MAX_MS,
    TOKEN_BYTES_MAX, VALUE_BYTES_MAX,
};
pub use json::{JsonError, Note};
pub use performative::{InvalidPerformative, Performative};

use crate::Digest;

/// A message with the 13 fields that FIPA names, and extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it does.
    pub performative: Performative,
    /// Who sends it, as the node stamped it; absent before that.
    pub sender: Option<Address>,
    /// Who receives it, each once.
    pub receivers: Vec<Address>,
    /// Who receives the replies; the sender where it is empty.
    pub reply_to: Vec<Address>,
    /// What it says.
    pub content: Option<Content>,
    /// The language in which the content is written.
    pub language: Option<String>,
    /// How the content is encoded in that language.
    pub encoding: Option<String>,
    /// The ontology that gives the content's symbols their meaning.
    pub ontology: Option<String>,
    /// The interaction protocol that the sender follows.
    pub protocol: Option<String>,
    /// The conversation that it belongs to.
    pub conversation_id: Option<String>,
    /// What a reply to it says in `in_reply_to`.
    pub reply_with: Option<String>,
    /// What the message that it answers said in `reply_with`.
    pub in_reply_to: Option<String>,
    /// By when a reply is wanted, in milliseconds since 1970.
    pub reply_by_ms: Option<i64>,
    /// Fields that FIPA does not name, by names that begin with `X-`.
    pub extensions: BTreeMap<String, String>,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// What it is, as a media type.
    pub media_type: String,
    /// The content itself, or where it is.
    pub body: Body,
}

/// The content of a message, or where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Text that stands for itself.
    Text(String),
    /// A JSON value, as the text that was written.
    Json(String),
    /// Bytes of any kind.
    Bytes(Vec<u8>),
    /// A blob of the workspace, for what is too large to be in a message.
    Artifact {
        /// The blob's SHA-256.
        digest: Digest,
        /// How many bytes it has.
        bytes: u64,
    },
}

impl Content {
    /// Text of the type `text/plain`.
    pub fn text(text: impl Into<String>) -> Content {
        Content { media_type: "text/plain".to_owned(), body: Body::Text(text.into()) }
    }

    /// The text of a JSON value, of the type `application/json`.
    pub fn json(text: impl Into<String>) -> Content {
        Content { media_type: "application/json".to_owned(), body: Body::Json(text.into()) }
    }

    /// How many bytes it has within the message.
    pub fn bytes(&self) -> usize {
        match &self.body {
            Body::Text(text) | Body::Json(text) => text.len(),
            Body::Bytes(bytes) => bytes.len(),
            Body::Artifact { .. } => 0,
        }
    }
}

impl Message {
    /// A message with nothing but a performative and receivers.
    pub fn new(performative: Performative, receivers: impl IntoIterator<Item = Address>) -> Message {
        Message {
            performative,
            sender: None,
            receivers: receivers.into_iter().collect(),
            reply_to: Vec::new(),
            content: None,
            language: None,
            encoding: None,
            ontology: None,
            protocol: None,
            conversation_id: None,
            reply_with: None,
            in_reply_to: None,
            reply_by_ms: None,
            extensions: BTreeMap::new(),
        }
    }

    /// The same message from this sender, whoever it said it was from.
    pub fn stamped(mut self, sender: Address) -> Message {
        self.sender = Some(sender);
        self
    }

    /// A reply: it copies protocol, conversation and language, names what it replies to, and goes to `reply-to`, else to the
    /// sender.
    pub fn reply(&self, performative: Performative, content: Option<Content>) -> Message {
        let to =
            if self.reply_to.is_empty() { self.sender.clone().into_iter().collect() } else { self.reply_to.clone() };
        Message {
            content,
            language: self.language.clone(),
            ontology: self.ontology.clone(),
            protocol: self.protocol.clone(),
            conversation_id: self.conversation_id.clone(),
            in_reply_to: self.reply_with.clone(),
            ..Message::new(performative, to)
        }
    }
}

/// Identifies a message within its workspace: 16 bytes that the node draws, written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId([u8; 16]);

/// The text or the bytes are no message's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message's id is 32 hexadecimal digits (16 bytes)")]
pub struct InvalidMessageId;

impl MessageId {
    /// The id of 16 bytes that were drawn or read elsewhere.
    pub const fn from_bytes(bytes: [u8; 16]) -> MessageId {
        MessageId(bytes)
    }

    /// The 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The id of what the platform itself says about a message, by what it is about: the same on every replica.
    pub fn derived(parts: &[&[u8]]) -> MessageId {
        let lengths: Vec<[u8; 8]> = parts.iter().map(|part| (part.len() as u64).to_le_bytes()).collect();
        let digest = Digest::of_parts(lengths.iter().zip(parts).flat_map(|(length, part)| [length.as_slice(), part]));
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest.as_bytes()[..16]);
        MessageId(bytes)
    }
}

impl TryFrom<&[u8]> for MessageId {
    type Error = InvalidMessageId;
    fn try_from(bytes: &[u8]) -> Result<MessageId, InvalidMessageId> {
        bytes.try_into().map(MessageId).map_err(|_| InvalidMessageId)
    }
}

impl FromStr for MessageId {
    type Err = InvalidMessageId;
    fn from_str(text: &str) -> Result<MessageId, InvalidMessageId> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| InvalidMessageId)?;
        Ok(MessageId(bytes))
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// How urgent a message is, from 0 to 7, the most urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

impl Priority {
    /// The most urgent.
    pub const MOST: Priority = Priority(7);

    /// A priority from 0 to 7.
    pub fn new(number: u64) -> Option<Priority> {
        u8::try_from(number).ok().filter(|number| *number <= Priority::MOST.0).map(Priority)
    }

    /// Its number, from 0 to 7.
    pub fn number(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Priority {
        Priority(4)
    }
}

#[cfg(test)]
pub(crate) mod strategies;

#[cfg(test)]
mod tests;
