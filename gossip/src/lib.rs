//! Who is there, and what they say of themselves: chitchat over sealed datagrams.
//!
//! Gossip suggests and Raft decides: nothing here may be the ground of a vote, an ownership or a write. A member's facts
//! are hints that can be old, and a member that looks dead may be alive.

#![warn(missing_docs)]

pub mod generation;

mod last_lives;

pub mod member;

pub mod change;

mod gossip;

mod seal;

mod network;

#[cfg(test)]
#[path = "../../tests/simulation/seed.rs"]
mod seed;

#[cfg(test)]
#[path = "../../tests/simulation/trace.rs"]
mod trace;

#[cfg(test)]
mod simulation;

pub use change::Change;
pub use generation::{Generation, GenerationError};
pub use gossip::{Gossip, JoinError, Rekeyer, Settings};
pub use member::{Fact, Member, Members};
pub use seal::{Key, Keys};
