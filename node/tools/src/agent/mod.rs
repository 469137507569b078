//! Agents in WebAssembly: one message is handled by a fresh instance, which is given nothing but the node's side of it.
//!
//! [`Sandbox::load_agent`](crate::Sandbox::load_agent) makes a [`SandboxedAgent`] of bytes. Its instances are limited like
//! those of tools, and run on threads of their own, so that agents that wait for tools never keep these from running.

mod asking;
mod command;
mod component;
mod core_module;
mod imports;
mod loaded;
mod outcome;
mod wit;

use crate::tool::Kind;
use wasmparser::{Encoding, Parser, Payload};

pub(crate) use loaded::link;
pub use loaded::{AgentCode, AgentLoadError, SandboxedAgent};
pub use outcome::{AgentOutcome, Handling, HandlingError, Incoming};

/// What an agent's module is, by its bytes: a component, or by its exports a command or a core module. The error says what
/// is missing.
pub fn agent_kind(wasm: &[u8]) -> Result<Kind, String> {
    let mut exports = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.map_err(|error| format!("it is not WebAssembly: {error}"))? {
            Payload::Version { encoding: Encoding::Component, .. } => return Ok(Kind::Component),
            Payload::ExportSection(section) => {
                exports.extend(section.into_iter().filter_map(|export| Some(export.ok()?.name)));
            }
            _ => {}
        }
    }
    match () {
        () if exports.contains(&"handle_message") => Ok(Kind::Core),
        () if exports.contains(&"_start") => Ok(Kind::Command),
        () => Err("it is no component, and exports neither `handle_message` nor `_start`".to_owned()),
    }
}
