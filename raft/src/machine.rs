//! What a group replicates: a machine that takes commands in order. Two machines that took the same commands are equal,
//! so `apply` may read no clock, no randomness, no settings and no file that is not its own.

use std::io::{self, Read, Write};

use bytes::Bytes;

/// One command of a group's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Counts the group's commands from 1, without a gap.
    pub index: u64,
    /// The term of the leader that proposed it, which fences what an older leader still tries.
    pub term: u64,
    /// What was proposed.
    pub command: Bytes,
}

/// Why a machine could not take a command or a snapshot. It stops the group: a machine that skipped a command would
/// differ from the others for ever.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct MachineError {
    what: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl MachineError {
    /// What failed, and why.
    pub fn new(what: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> MachineError {
        MachineError { what: what.into(), source: Some(source.into()) }
    }
}

/// Writes the state that a machine had at one moment.
pub type FrozenState = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send>;

/// A state that commands change. A machine may keep its state on disk together with [`Machine::applied`], and is then
/// given no command twice; one that keeps it in memory is rebuilt from the newest snapshot and the log after it.
pub trait Machine: Send + Sync + 'static {
    /// Takes commands in order and answers each of them. Short: it runs on the group's task, unless it
    /// [may block](Machine::may_block).
    fn apply(&self, entries: &[Entry]) -> Result<Vec<Bytes>, MachineError>;

    /// Whether it may have to wait for a disk or a lock when it applies these now: then it does so on a thread for that.
    fn may_block(&self, _entries: &[Entry]) -> bool {
        false
    }

    /// The state as it is now, to be written while further commands are applied. Quick: commands wait for it.
    fn freeze(&self) -> Result<FrozenState, MachineError>;

    /// Replaces the state by one that [`Machine::freeze`] wrote. On an error the state is of no use.
    fn restore(&self, from: &mut dyn Read) -> Result<(), MachineError>;

    /// The index of the last command in the state, 0 for none.
    fn applied(&self) -> u64;
}
