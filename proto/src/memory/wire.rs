//! Commands, outcomes and rows as bytes. What does not decode to a value that the types allow is an error, never a default.

mod convert;
mod outcome;

use prost::Message;

use super::{Command, Outcome, Row};

/// The version that this build writes, and the newest that it reads.
const FORMAT: u32 = 1;

#[allow(missing_docs, unused_qualifications, clippy::all, reason = "prost writes it")]
mod pb {
    include!(concat!(env!("OUT_DIR"), "/caxton.memory.v1.rs"));
}

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
        /// The field that is at fault.
        field: &'static str,
    },
}

fn field(field: &'static str) -> DecodeError {
    DecodeError::Field { field }
}

fn known(version: u32) -> Result<(), DecodeError> {
    match version {
        0 => Err(field("version")),
        1..=FORMAT => Ok(()),
        found => Err(DecodeError::Version { found }),
    }
}

impl Command {
    /// The command as bytes.
    pub fn encode(&self) -> Vec<u8> {
        pb::Command::from(self).encode_to_vec()
    }

    /// The command that the bytes stand for.
    pub fn decode(bytes: &[u8]) -> Result<Command, DecodeError> {
        let command = pb::Command::decode(bytes)?;
        known(command.version)?;
        command.try_into()
    }
}

impl Outcome {
    /// The outcome as bytes.
    pub fn encode(&self) -> Vec<u8> {
        pb::Outcome { version: FORMAT, body: Some(self.into()) }.encode_to_vec()
    }

    /// The outcome that the bytes stand for.
    pub fn decode(bytes: &[u8]) -> Result<Outcome, DecodeError> {
        let outcome = pb::Outcome::decode(bytes)?;
        known(outcome.version)?;
        outcome.body.ok_or(field("body"))?.try_into()
    }
}

impl Row {
    /// The row as bytes.
    pub fn encode(&self) -> Vec<u8> {
        pb::Row { version: FORMAT, memory: Some(self.into()) }.encode_to_vec()
    }

    /// The row that the bytes stand for.
    pub fn decode(bytes: &[u8]) -> Result<Row, DecodeError> {
        let row = pb::Row::decode(bytes)?;
        known(row.version)?;
        row.memory.ok_or(field("memory"))?.try_into()
    }
}
