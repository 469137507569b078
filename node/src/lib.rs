//! The Caxton node: everything between an HTTP request or a command line and the replicated log.

#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::disallowed_methods))]

pub mod cli;

pub mod client;

pub mod api;

pub mod config;

pub mod authn;

pub mod authz;

pub mod secrets;

pub mod trust;

pub mod tls;

pub mod files;

mod addresses;

pub mod time;

pub mod text;

pub mod recalled;

pub mod errors;

pub mod telemetry;

pub mod tasks;

pub mod edge;

pub mod app;

pub mod node;

pub mod deploy;

pub mod agent;

pub mod activity;

pub mod conversations;

pub mod memory;

pub mod memory_backend;

pub mod mailbox;

pub mod shard;

pub mod invoke;

pub mod chat;

pub mod llm;

pub mod artifacts;

pub mod peers;

pub mod replicas;

pub mod cluster;

pub mod backup;

pub mod catalog;

pub mod tools;

pub mod capability;

pub mod templates;
