//! What an entry holds and what openraft's types are called here, and the conversions that keep them inside this crate.

use std::sync::Arc;

use bytes::Bytes;
pub use caxton_proto::errors::chain;
use openraft::{AnyError, BasicNode, ErrorSubject, ErrorVerb, StorageIOError};

/// The commands of one log entry. Commands that wait together share an entry, and so an fsync and a round trip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch(pub Vec<Bytes>);

/// The answers to a [`Batch`], whose first command has the index `first`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replies {
    pub first: u64,
    pub replies: Vec<Bytes>,
}

/// Whether so many bytes more may go on the disk.
pub type Room = Arc<dyn Fn(u64) -> bool + Send + Sync>;

pub type LogId = openraft::LogId<u64>;
pub type Vote = openraft::Vote<u64>;
pub type Membership = openraft::Membership<u64, BasicNode>;
pub type StoredMembership = openraft::StoredMembership<u64, BasicNode>;
pub type SnapshotMeta = openraft::SnapshotMeta<u64, BasicNode>;
pub type StorageError = openraft::StorageError<u64>;

/// `error` with its whole chain, as openraft wants it: it stops the group.
pub fn storage_error(
    subject: ErrorSubject<u64>,
    verb: ErrorVerb,
    error: &(dyn std::error::Error + 'static),
) -> StorageError {
    StorageIOError::new(subject, verb, AnyError::error(chain(error))).into()
}
