//! Tools in a sandbox: load WebAssembly, call it with a fresh instance each time, grant nothing that is not named.
//!
//! [`Sandbox::load`] makes a [`Tool`] of bytes; [`Tool::call`] gives a result and a record of the call. Nothing of a
//! call outlives it, and nothing that a tool does reaches a thread that serves: compiling has a process of its own,
//! and guests have threads of their own.

#![warn(missing_docs)]

mod agent;
mod audit;
mod base64;
mod budget;
mod command;
mod compile;
mod component;
mod core_module;
mod definitions;
mod engine;
pub mod examples;
mod exchange;
mod grants;
mod guest;
mod imports;
mod limits;
mod loaded;
pub mod mcp;
pub mod network;
mod places;
mod pool;
mod remark;
pub mod resource;
mod reuse;
mod sandbox;
mod schema;
mod scratch;
mod spec;
mod tool;
mod wasi;

pub use agent::{
    AgentCode, AgentLoadError, AgentOutcome, Handling, HandlingError, Incoming, SandboxedAgent, agent_kind,
};
pub use compile::{COMPILE_COMMAND, CompileError, Compiler, compile_child_main};
pub use exchange::{
    AgentHost, HOST_CALLS_MAX, HostAnswer, HostRefusal, MESSAGES_MAX, Question, RECALL_MAX, STATE_BYTES_MAX,
    STATE_KEY_BYTES_MAX, STATE_KEYS_MAX,
};
pub use grants::Grants;
pub use limits::{CompileLimits, Limits, Quota};
pub use loaded::SandboxedTool;
pub use remark::Remark;
pub use sandbox::{LoadError, NoPlace, Sandbox, Settings};
pub use schema::Schema;
pub use scratch::clear as clear_scratch;
pub use spec::Spec;
pub use tool::{
    CallContext, CallError, CallReport, CallResult, Calling, Content, Definitions, Ended, FinishedCall, Kind, Tool,
    ToolDefinition, TraceContext,
};
