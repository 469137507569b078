//! Real nodes in this process, on free ports, over their public API.

mod api;
mod auth;
mod bench;
mod caps;
mod deploy;
mod events;
mod grpc;
mod lifecycle;
mod mailbox;
mod mcp;
mod memory;
mod messages;
mod models;
mod policy;
mod providers;
mod retention;
mod secrets;
mod sentences;
mod stop;
mod tls;
mod wasm_agents;
mod websocket;
