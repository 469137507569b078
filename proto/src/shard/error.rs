//! Why something cannot be written down, and why bytes are not what they should be.

use super::{CheckError, Format};

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
    /// A format that not every member reads yet is needed.
    #[error(
        "it needs format {needed}, and the cluster still writes {format}; it can be kept once all nodes run this version"
    )]
    Newer {
        /// The oldest format that can say it.
        needed: Format,
        /// The one that is written.
        format: Format,
    },
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
