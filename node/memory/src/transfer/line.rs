//! What a line of an import brings, why one cannot be read, and what is noted about a file.

use std::collections::BTreeMap;

use caxton_proto::memory::{NewEntity, NewMemory, NewRelation};

use super::{LINE_BYTES_MAX, VERSION};

/// What a line of an import brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A memory.
    Memory(NewMemory),
    /// An entity.
    Entity(NewEntity),
    /// A relation.
    Relation(NewRelation),
}

/// Why a line cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// It is too long.
    #[error("the line has {bytes} bytes, and {LINE_BYTES_MAX} is the most; split it")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// It is no JSON.
    #[error("the line is no JSON; an import has one document a line, or one list")]
    Json(#[from] serde_json::Error),
    /// A newer build wrote the file.
    #[error("the file is of version {found}, and this build reads up to {VERSION}; use a newer build")]
    Version {
        /// The file's version.
        found: u32,
    },
    /// It is none of the documents that are known.
    #[error("the line is no memory, entity or relation, nor one of the MCP memory server, mem0 or LangGraph")]
    Unknown,
    /// A field has a value that it cannot have.
    #[error("the field `{field}` is absent or has a value that it cannot have")]
    Field {
        /// Which field.
        field: &'static str,
    },
}

/// What of a file had no place here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Fields that are not known, and how often each was there.
    pub unknown_fields: BTreeMap<String, u64>,
}
