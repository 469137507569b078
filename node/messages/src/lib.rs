//! Messages between agents: the interaction protocols as machines, and mailboxes as tables.
//!
//! The crate does no I/O but on the SQLite connection that it is given, reads no clock and draws no number.

pub mod protocol;

pub mod waiting;

pub mod picture;

pub use caxton_proto::{acl, mailbox};
