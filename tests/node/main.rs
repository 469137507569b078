//! Real nodes in this process, on free ports, over their public API.

mod api;
mod approvals;
mod auth;
mod bench;
mod caps;
mod deletion;
mod deploy;
mod events;
mod lifecycle;
mod mailbox;
mod mcp;
mod memory;
mod messages;
mod models;
mod policy;
mod providers;
mod retention;
mod schedules;
mod secrets;
mod sentences;
mod stop;
mod talk;
mod tls;
mod topics;
mod usage;
mod wasm_agents;
