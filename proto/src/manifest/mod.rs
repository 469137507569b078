//! The files that people write: agents, tools and the workspace, as types that hold only what can run.
//!
//! A reader reports every problem of a file at once, each with its place, and a key that no reader asked for is an
//! error: so a key exists because code reads it, and a misspelt one never goes unnoticed.

pub mod agent;

pub mod prompt;

pub mod tool;

pub mod workspace;

pub mod provider;

pub mod backend;

mod dialect;

pub mod secret;

pub mod address;

pub mod units;

mod limits;

mod read;

pub use agent::AgentManifest;
pub use prompt::Template;
pub use read::locate;
pub use tool::ToolManifest;
pub use workspace::WorkspaceManifest;

/// The largest manifest or prompt file, in bytes.
pub const TEXT_BYTES_MAX: u64 = 256 << 10;

#[cfg(test)]
mod tests;
