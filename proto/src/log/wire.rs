//! The log's types as bytes. What does not decode to a value that the types allow is an error, never a default.

mod cluster;
mod convert;
mod deletion;
mod secret;
mod snapshot;

use prost::Message;
pub use snapshot::{SnapshotReader, SnapshotRecord, SnapshotWriter};

use super::{Command, Outcome};
use crate::Format;

#[allow(missing_docs, unused_qualifications, clippy::all, reason = "prost writes it")]
pub(super) mod pb {
    include!(concat!(env!("OUT_DIR"), "/caxton.log.v1.rs"));
}

/// Why bytes are not what they should be.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A newer build wrote them.
    #[error(
        "it was written in version {found} of the format, and this build reads up to {}; use a newer build",
        Format::NEWEST
    )]
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
        /// The field that is missing or out of its range.
        field: &'static str,
    },
    /// A snapshot's records are not in the order that they must have, or not as many.
    #[error("its records are out of order: {what}")]
    Order {
        /// What is wrong.
        what: &'static str,
    },
    /// A snapshot could not be read.
    #[error("it cannot be read")]
    Read(#[from] std::io::Error),
}

fn field(field: &'static str) -> DecodeError {
    DecodeError::Field { field }
}

fn known(version: u32) -> Result<(), DecodeError> {
    match version {
        0 => Err(field("version")),
        found if Format::of(found).is_known() => Ok(()),
        found => Err(DecodeError::Version { found }),
    }
}

impl Command {
    /// The oldest format whose readers understand the command.
    pub fn format(&self) -> Format {
        match self {
            Command::Cluster(super::cluster::Command::RaiseFormat(raise)) => raise.format,
            Command::DeleteWorkspace(_) => Format::DELETION,
            Command::IssueToken(issue) if issue.role == super::Role::Metrics => Format::DELETION,
            Command::Deploy(_)
            | Command::IssueToken(_)
            | Command::RevokeToken(_)
            | Command::SetSecret(_)
            | Command::RemoveSecret(_)
            | Command::Cluster(_) => Format::JSON,
        }
    }

    /// The command as bytes.
    pub fn encode(&self) -> Vec<u8> {
        pb::Command { version: self.format().number(), body: Some(self.into()) }.encode_to_vec()
    }

    /// The command that the bytes stand for.
    pub fn decode(bytes: &[u8]) -> Result<Command, DecodeError> {
        let command = pb::Command::decode(bytes)?;
        known(command.version)?;
        command.body.ok_or(field("body"))?.try_into()
    }
}

impl Outcome {
    /// The outcome as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let format = match self {
            Outcome::Cluster(super::cluster::Outcome::FormatIs(format)) => *format,
            Outcome::WorkspaceDeleted { .. } => Format::DELETION,
            _ => Format::JSON,
        };
        pb::Outcome { version: format.number(), body: Some(self.into()) }.encode_to_vec()
    }

    /// The outcome that the bytes stand for.
    pub fn decode(bytes: &[u8]) -> Result<Outcome, DecodeError> {
        let outcome = pb::Outcome::decode(bytes)?;
        known(outcome.version)?;
        outcome.body.ok_or(field("body"))?.try_into()
    }
}
