//! Floor 0: what crosses a wire or survives on disk, as types that cannot hold a wrong value.
//!
//! Nothing here does I/O, reads a clock or draws a random number: every function is a plain function of its
//! arguments, so that a client and a server that share this crate agree by construction.

#![warn(missing_docs)]

pub mod id;

pub mod digest;

pub mod chunk;

pub mod tree;

pub mod plan;

pub mod diagnostic;

pub mod manifest;

pub mod format;

pub mod log;

pub mod memory;

pub mod acl;

pub mod mailbox;

pub mod shard;

pub mod peer;

pub mod refusal;

pub mod v1;

pub mod errors;

pub use digest::Digest;
pub use format::Format;
pub use id::{AgentName, CapabilityName, InvalidId, NodeId, ProviderName, Revision, ToolName, WorkspaceId};
