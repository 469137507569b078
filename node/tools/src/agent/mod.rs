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

pub(crate) use loaded::link;
pub use loaded::{AgentCode, AgentLoadError, SandboxedAgent};
pub use outcome::{AgentOutcome, Handling, HandlingError, Incoming};
