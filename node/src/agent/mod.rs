//! Agents at work: the pure [`turn`], and the [`driver`] that does what it says.

pub mod turn;

pub mod builtin;

pub mod run;

pub mod ledger;

pub mod journal;

pub mod driver;

pub mod events;

pub mod health;

pub mod wanted;

pub mod world;

pub mod attachments;

pub mod module;

mod assemble;

mod durable;

pub use assemble::{Agent, AgentTool, OfferedFunction, Parts};
