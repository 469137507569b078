//! Everything as bytes, in the form that is asked for, and back from any form that was ever written. What does not decode
//! to a value that the types allow is an error, never a default.

mod command;
mod journal;
mod message;
mod turn;

use bytes::Bytes;
use prost::Message as _;

pub(super) use super::error::{DecodeError, EncodeError, field};
use super::json::{self, Row};
use super::pb;
use super::{Attachment, Beginning, Command, Envelope, Format, Piece, Step, Suspension, TurnRecord};

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

/// Whether an entry, a row or a document is of the first format.
pub(super) fn is_first(version: u32) -> bool {
    version == 0
}

/// A command of the conversations as their shard gives it to them.
#[derive(Debug, Clone, Copy)]
pub struct Written<'a> {
    /// The version of the envelope; 0 where there is none, because the entry is of the first format.
    pub version: u32,
    /// The term of the envelope; without one, the command says it.
    pub term: u64,
    /// What is in the envelope, or the whole entry.
    pub body: &'a [u8],
}

impl Command {
    /// The bytes of the entry that says this, in `format`. They were read back before they are given.
    pub fn encode(&self, format: Format) -> Result<Bytes, EncodeError> {
        self.check()?;
        let needed = readable(self.reader(), format)?;
        let entry = if format == Format::JSON {
            json::entry_of(self)?.into()
        } else {
            let (tenant, term) = (Envelope::CONVERSATIONS, self.term().unwrap_or_default());
            Envelope { version: needed.number(), tenant, term, body: command::body_of(self) }.encode()
        };
        Command::decode(&entry).map_err(EncodeError::Unreadable)?;
        Ok(entry)
    }

    /// Reads an entry of the conversations.
    pub fn decode(entry: &Bytes) -> Result<Command, DecodeError> {
        if is_json(entry) {
            return Command::read(Written { version: 0, term: 0, body: entry });
        }
        let Envelope { version, tenant, term, body } = Envelope::decode(entry)?;
        if tenant != Envelope::CONVERSATIONS {
            return Err(field("tenant"));
        }
        Command::read(Written { version, term, body: &body })
    }

    /// Reads a command.
    pub fn read(written: Written<'_>) -> Result<Command, DecodeError> {
        if is_first(written.version) {
            return json::command_of(written.body);
        }
        known(written.version)?;
        command::read(written.body, written.term)
    }
}

impl Written<'_> {
    /// What SQLite holds of a command: all that is needed to read it again, or in the first format `row`, which nodes of that
    /// format read out of snapshots.
    fn row(self, row: &impl Row) -> Result<Vec<u8>, EncodeError> {
        if is_first(self.version) {
            return json::to_vec(row);
        }
        let body = Bytes::copy_from_slice(self.body);
        let (version, tenant) = (self.version, Envelope::CONVERSATIONS);
        Ok(Envelope { version, tenant, term: self.term, body }.encode().into())
    }
}

fn decode_row<T: Row>(bytes: &[u8]) -> Result<T, DecodeError> {
    if is_json(bytes) {
        return json::read(bytes);
    }
    T::of(Command::decode(&Bytes::copy_from_slice(bytes))?).ok_or(field("body"))
}

impl TurnRecord {
    /// What SQLite holds of the record, which was written like this.
    pub fn encode_row(&self, written: Written<'_>) -> Result<Vec<u8>, EncodeError> {
        written.row(self)
    }

    /// Reads what SQLite holds of a record.
    pub fn decode_row(bytes: &[u8]) -> Result<TurnRecord, DecodeError> {
        decode_row(bytes)
    }
}

impl Suspension {
    /// What SQLite holds of the suspension, which was written like this.
    pub fn encode_row(&self, written: Written<'_>) -> Result<Vec<u8>, EncodeError> {
        written.row(self)
    }

    /// Reads what SQLite holds of a suspension.
    pub fn decode_row(bytes: &[u8]) -> Result<Suspension, DecodeError> {
        decode_row(bytes)
    }
}

impl Piece {
    /// What SQLite holds of the piece, which was written like this, where that is text: in the first format. Otherwise it is
    /// bytes.
    pub fn row_text(&self, written: Written<'_>) -> Option<&str> {
        std::str::from_utf8(&self.content).ok().filter(|_| is_first(written.version))
    }
}

/// The version that says who has to read what is written in `format` and needs a reader of `needed`.
fn readable(needed: Format, format: Format) -> Result<Format, EncodeError> {
    if needed > format { Err(EncodeError::Newer { needed, format }) } else { Ok(needed.max(Format::PROTOBUF)) }
}

/// The bytes of a document.
fn document(version: Format, body: pb::document::Body) -> Vec<u8> {
    pb::Document { version: version.number(), body: Some(body) }.encode_to_vec()
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
                let needed = readable(self.reader(), format)?;
                let bytes = match format {
                    Format::JSON => json::to_vec(self)?,
                    _ => document(needed, pb::document::Body::$body(self.into())),
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

impl Beginning {
    fn reader(&self) -> Format {
        if self.request.is_some() { Format::DELETION } else { Format::JSON }
    }
}

impl Step {
    fn reader(&self) -> Format {
        Format::JSON
    }
}

impl Attachment {
    fn reader(&self) -> Format {
        Format::JSON
    }
}

document!(Beginning, Beginning, "the beginning of a turn");
document!(Step, Step, "a step of a turn");
document!(Attachment, File, "a file of an answer");
