//! Messages between agents: FIPA's interaction protocols as machines, and mailboxes, conversations and topics as tables.
//!
//! The crate does no I/O but on the SQLite connection that it is given, reads no clock and draws no number. [`apply`] carries
//! out a command of the shard's log on the tables, [`clear`] takes a workspace out of them, [`next`] says which deliveries come next, and all else reads.

pub mod protocol;

pub mod circle;

pub mod picture;

mod limits;

mod tables;

mod apply;

mod queue;

mod read;

mod topics;

mod schedules;

mod keys;

mod depth;

pub use apply::{apply, clear, count_mailboxes, count_senders};
pub use caxton_proto::{acl, mailbox};
pub use depth::{DEAD_KINDS, Depth, depths};
pub use keys::{KeptMessage, MessageKey, kept_message, message_key, message_keys, signing_key};
pub use limits::Limits;
pub use queue::{Listed, Listing, Ready, Stage, due, is_started_before, list, next, numbers, old, parked, waiting};
pub use read::{
    AwaitedAnswer, Conversation, EndedWait, Event, arrows, conversation, ended_waits, events, newest_event, roster,
    state,
};
pub use schedules::{Reached, schedules};
pub use tables::TABLES;
pub use topics::{Publication, Replay, Subscription, TopicSummary, replay, subscriptions, topics};
