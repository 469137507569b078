//! Floor 1: groups of replicated logs over openraft and RocksDB, and the deploy log's state.
//!
//! openraft's types do not leave this crate, so that its version can move. Standing alone is a group of one voter:
//! nothing here asks whether there are others. An acknowledged command is on disk on a majority of the voters.

#![warn(missing_docs)]

pub mod machine;

mod group_id;

pub mod group;

pub mod deploy_log;

pub mod identity;

pub mod archive;

mod codec;

mod entries;

mod store;

mod log;

mod snapshot;

mod due;

mod applier;

mod network;

mod types;

mod type_config;

mod work;

#[cfg(test)]
mod suite;

pub use archive::{ArchiveError, GroupState, StateArchive};
pub use group::{
    Applied, Birth, ChangeError, Group, Groups, Lag, Members, OpenGroupError, ProposeError, ReadError, Role, Status,
    Timers,
};
pub use group_id::GroupId;
pub use identity::{
    IDENTITY_FILE, IdentityError, NodeIdentity, Origin, adopt_identity, begin_again, identity, known_identity,
    mint_node,
};
pub use machine::{Entry, FrozenState, Machine, MachineError};
pub use network::receive::AnswerError;
pub use network::{Alone, Transport, TransportError};
pub use store::{ClaimError, Disk, OpenError, Store, SyncCallback, cut_unwritten_ends};
