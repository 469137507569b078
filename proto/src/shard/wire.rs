//! Everything as bytes, in the form that is asked for, and back from any form that was ever written. What does not decode
//! to a value that the types allow is an error, never a default.

mod command;
mod journal;
mod message;
mod turn;

use std::borrow::Cow;

use bytes::Bytes;
use prost::Message as _;

use super::json::{self, Row};
use super::{
    Attachment, Beginning, CheckError, Command, Envelope, Format, Piece, Step, Suspension, Tenant, TurnRecord,
};

#[allow(missing_docs, unused_qualifications, clippy::all)]
pub(super) mod pb {
    include!(concat!(env!("OUT_DIR"), "/caxton.shard.v1.rs"));
}

/// Why something cannot be written down.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// It does not keep its limits.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// It cannot be said in JSON, which the cluster still writes.
    #[error(
        "it cannot be written as JSON, the form that all nodes of the cluster read; it can once all run this version"
    )]
    Json(#[source] serde_json::Error),
    /// It was written, and what was written does not read back.
    #[error("what was written of it cannot be read back, so it is not kept")]
    Unreadable(#[source] DecodeError),
}

/// Why bytes are not what they should be.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A newer build wrote them.
    #[error("it was written in format {found}, and this build reads up to {}; use a newer build", Format::NEWEST)]
    Version {
        /// The format in which it was written.
        found: u32,
    },
    /// They are not protobuf.
    #[error("it is not protobuf")]
    Protobuf(#[from] prost::DecodeError),
    /// They begin as JSON does and are not, or not of the right kind.
    #[error("it is not JSON of the right kind")]
    Json(#[from] serde_json::Error),
    /// A field is absent or has a value that it cannot have.
    #[error("its field `{field}` is absent or has an impossible value")]
    Field {
        /// The field's name.
        field: &'static str,
    },
}

impl DecodeError {
    /// Whether a newer build could read them. Otherwise no build can, and every reader comes to the same end.
    pub fn is_newer(&self) -> bool {
        matches!(self, DecodeError::Version { .. })
    }
}

pub(super) fn field(field: &'static str) -> DecodeError {
    DecodeError::Field { field }
}

/// The format of a message of shard.proto, which the first format has none of.
pub(super) fn known(version: u32) -> Result<Format, DecodeError> {
    match Format::of(version) {
        Format::JSON => Err(field("version")),
        format if format.is_known() => Ok(format),
        _ => Err(DecodeError::Version { found: version }),
    }
}

/// Whether the bytes are of the first format. No message of shard.proto begins like that: it would be a group's tag.
pub(super) fn is_json(bytes: &[u8]) -> bool {
    bytes.first() == Some(&b'{')
}

impl Command {
    /// The bytes of the entry that says this, in `format`. They were read back before they are given.
    pub fn encode(&self, format: Format) -> Result<Bytes, EncodeError> {
        self.check()?;
        let entry = if format == Format::JSON {
            json::entry_of(self)?.into()
        } else {
            let (tenant, term) = (Tenant::CONVERSATIONS, self.term().unwrap_or_default());
            // What needs a later reader says so when there is such a thing.
            Envelope { version: Format::PROTOBUF, tenant, term, body: command::body_of(self) }.encode()
        };
        Command::decode(&entry).map_err(EncodeError::Unreadable)?;
        Ok(entry)
    }

    /// Reads an entry of the conversations.
    pub fn decode(entry: &Bytes) -> Result<Command, DecodeError> {
        Command::of(&Envelope::decode(entry)?)
    }

    /// Reads what an envelope of the conversations holds.
    pub fn of(envelope: &Envelope) -> Result<Command, DecodeError> {
        if envelope.tenant != Tenant::CONVERSATIONS {
            return Err(field("tenant"));
        }
        if envelope.version == Format::JSON {
            return json::read(&envelope.body);
        }
        command::read(&envelope.body, envelope.term)
    }
}

fn encode_row<'a>(row: &impl Row, entry: &'a [u8]) -> Result<Cow<'a, [u8]>, EncodeError> {
    // Nodes of the first format read rows too: those of a snapshot.
    if is_json(entry) { json::to_vec(row).map(Cow::Owned) } else { Ok(Cow::Borrowed(entry)) }
}

fn decode_row<T: Row>(bytes: &[u8]) -> Result<T, DecodeError> {
    if is_json(bytes) {
        return json::read(bytes);
    }
    T::of(Command::decode(&Bytes::copy_from_slice(bytes))?).ok_or(field("body"))
}

impl TurnRecord {
    /// What SQLite holds of the record that `entry` said: the entry itself, or in the first format the record alone.
    pub fn encode_row<'a>(&self, entry: &'a [u8]) -> Result<Cow<'a, [u8]>, EncodeError> {
        encode_row(self, entry)
    }

    /// Reads a row.
    pub fn decode_row(bytes: &[u8]) -> Result<TurnRecord, DecodeError> {
        decode_row(bytes)
    }
}

impl Suspension {
    /// What SQLite holds of the suspension that `entry` said: the entry itself, or in the first format the suspension alone.
    pub fn encode_row<'a>(&self, entry: &'a [u8]) -> Result<Cow<'a, [u8]>, EncodeError> {
        encode_row(self, entry)
    }

    /// Reads a row.
    pub fn decode_row(bytes: &[u8]) -> Result<Suspension, DecodeError> {
        decode_row(bytes)
    }
}

impl Piece {
    /// What SQLite holds of the piece that `entry` said, where that is text: in the first format. Otherwise it is bytes.
    pub fn row_text(&self, entry: &[u8]) -> Option<&str> {
        std::str::from_utf8(&self.content).ok().filter(|_| is_json(entry))
    }
}

/// The bytes of a document.
fn document(body: pb::document::Body) -> Vec<u8> {
    pb::Document { version: Format::PROTOBUF.number(), body: Some(body) }.encode_to_vec()
}

fn read_document(bytes: &[u8]) -> Result<pb::document::Body, DecodeError> {
    let pb::Document { version, body } = pb::Document::decode(bytes)?;
    known(version)?;
    body.ok_or(field("body"))
}

macro_rules! document {
    ($type:ident, $body:ident, $what:literal) => {
        impl $type {
            #[doc = concat!("The bytes of ", $what, " as a document, in `format`. They were read back before they are given.")]
            pub fn encode(&self, format: Format) -> Result<Vec<u8>, EncodeError> {
                self.check()?;
                let bytes = match format {
                    Format::JSON => json::to_vec(self)?,
                    _ => document(pb::document::Body::$body(self.into())),
                };
                $type::decode(&bytes).map_err(EncodeError::Unreadable)?;
                Ok(bytes)
            }

            #[doc = concat!("Reads a document that is ", $what, ".")]
            pub fn decode(bytes: &[u8]) -> Result<$type, DecodeError> {
                if is_json(bytes) {
                    return json::read(bytes);
                }
                match read_document(bytes)? {
                    pb::document::Body::$body(it) => it.try_into(),
                    _ => Err(field("body")),
                }
            }
        }
    };
}

document!(Beginning, Beginning, "the beginning of a turn");
document!(Step, Step, "a step of a turn");
document!(Attachment, File, "a file of an answer");
