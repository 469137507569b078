//! The deploy log: group 0, whose commands are deployments and tokens. A handle is cheap to clone.

mod deletions;
mod secrets;
pub mod state;

pub mod cluster;

use std::io::{self, Read, Write};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use caxton_proto::Format;
use caxton_proto::log::{CheckError, Command, DecodeError, Outcome, SnapshotReader, SnapshotWriter};
pub use cluster::Cluster;
pub use secrets::Secrets;
pub use state::{State, Workspace};
use tokio::sync::watch;

use crate::group::{self, Birth, Group, Groups, OpenGroupError, ReadError, Status};
use crate::group_id::GroupId;
use crate::machine::{Entry, FrozenState, Machine, MachineError};

/// The deploy log's group.
pub const GROUP: GroupId = GroupId(0);
/// How long a command waits for the format that it needs: a cluster that has just begun raises it within a second.
const RAISED_WAIT: Duration = Duration::from_secs(5);

/// The deploy log on this node.
#[derive(Clone)]
pub struct DeployLog {
    group: Group,
    machine: Arc<DeployMachine>,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The command's index in the log.
    pub index: u64,
    /// What became of it.
    pub outcome: Outcome,
}

/// Why it is not known what became of a command.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    /// The command does not keep its limits; it was not proposed.
    #[error("the command cannot go into the deploy log")]
    Invalid(#[from] CheckError),
    /// Not every node of the cluster can read the command; it was not proposed.
    #[error(
        "the command needs format {needs}, and the cluster writes format {in_force} until all its nodes read a newer one"
    )]
    TooNew {
        /// The oldest format whose readers understand it.
        needs: Format,
        /// The format that the cluster writes.
        in_force: Format,
    },
    /// What was written of the command does not read back; it was not proposed.
    #[error("the command's own bytes cannot be read back")]
    Unreadable(#[source] DecodeError),
    /// The log did not take it, or did not answer.
    #[error(transparent)]
    Group(#[from] group::ProposeError),
    /// The log's leader answered in a format that this node does not know.
    #[error("the deploy log's answer is of no use")]
    Answer(#[source] DecodeError),
}

impl DeployLog {
    /// Opens the deploy log: the newest snapshot and the log after it. How one begins that never had an entry, `birth`
    /// says.
    pub async fn open(groups: &Groups, birth: Birth) -> Result<DeployLog, OpenGroupError> {
        let machine = Arc::new(DeployMachine::default());
        let group = groups.open(GROUP, Arc::clone(&machine) as Arc<dyn Machine>, birth).await?;
        Ok(DeployLog { group, machine })
    }

    /// The group, for its members and its leader.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Proposes a command and waits until it is applied. When the caller stops waiting, or on
    /// [`group::ProposeError::Unavailable`], the command may still be applied later.
    pub async fn propose(&self, command: &Command) -> Result<Answer, ProposeError> {
        command.check()?;
        let (needs, in_force) = (command.format(), self.format());
        // The command that raises it comes first, and looks by itself at who belongs to the cluster.
        let raises = matches!(command, Command::Cluster(caxton_proto::log::cluster::Command::RaiseFormat(_)));
        if needs > in_force && !raises && !self.reaches(needs).await {
            return Err(ProposeError::TooNew { needs, in_force });
        }
        let bytes = command.encode();
        Command::decode(&bytes).map_err(ProposeError::Unreadable)?;
        let applied = self.group.propose(bytes.into()).await?;
        let outcome = Outcome::decode(&applied.response).map_err(ProposeError::Answer)?;
        Ok(Answer { index: applied.index, outcome })
    }

    /// Whether this format is written, now or in a moment: a cluster that has just begun raises it by itself once its nodes have
    /// said what they read.
    async fn reaches(&self, format: Format) -> bool {
        let mut applied = self.applied();
        let raised = async {
            loop {
                applied.borrow_and_update();
                if self.format() >= format {
                    return true;
                }
                if applied.changed().await.is_err() {
                    return false;
                }
            }
        };
        tokio::time::timeout(RAISED_WAIT, raised).await.unwrap_or(false)
    }

    /// The format in which this node writes what others have to read, in this log and in the shards'. It may be behind, and
    /// then it is one that all nodes read as well.
    pub fn format(&self) -> Format {
        self.read(|state| state.cluster().format())
    }

    /// Reads the state as it is on this node, which may be behind. `read` must be short: commands wait for it.
    pub fn read<R>(&self, read: impl FnOnce(&State) -> R) -> R {
        self.machine.read(read)
    }

    /// Reads a state that has every command which was acknowledged before this call.
    pub async fn current<R>(&self, read: impl FnOnce(&State) -> R) -> Result<R, ReadError> {
        self.group.read_index().await?;
        Ok(self.machine.read(read))
    }

    /// The index of the last command in the state; wakes whoever follows the log.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.group.applied()
    }

    /// Who leads, and whether the log still works.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.group.status()
    }

    /// Stops taking part in the group.
    pub async fn shutdown(&self) {
        self.group.shutdown().await;
    }
}

/// The machine of the deploy log's group.
#[derive(Default)]
struct DeployMachine {
    state: RwLock<State>,
}

impl DeployMachine {
    fn read<R>(&self, read: impl FnOnce(&State) -> R) -> R {
        // A reader that panicked has changed nothing.
        read(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Machine for DeployMachine {
    fn apply(&self, entries: &[Entry]) -> Result<Vec<Bytes>, MachineError> {
        let commands = entries.iter().map(|entry| {
            let command = Command::decode(&entry.command);
            command.map_err(|error| MachineError::new(format!("cannot read command {}", entry.index), error))
        });
        let commands: Vec<Command> = commands.collect::<Result<_, _>>()?;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let outcomes: Vec<Outcome> =
            entries.iter().zip(&commands).map(|(entry, command)| state.apply(entry.index, command)).collect();
        drop(state);
        Ok(outcomes.iter().map(|outcome| outcome.encode().into()).collect())
    }

    fn freeze(&self) -> Result<FrozenState, MachineError> {
        let state = self.read(State::clone);
        Ok(Box::new(move |out| write_snapshot(&state, out)))
    }

    fn restore(&self, from: &mut dyn Read) -> Result<(), MachineError> {
        let state = read_snapshot(from)?;
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        Ok(())
    }

    fn applied(&self) -> u64 {
        self.read(State::applied)
    }
}

/// Writes `state` as a snapshot.
pub fn write_snapshot(state: &State, out: &mut dyn Write) -> io::Result<()> {
    let mut writer = SnapshotWriter::new(out, state.cluster().format(), state.applied(), state.forgotten())?;
    for record in state.records() {
        writer.write(&record)?;
    }
    writer.finish()
}

/// Reads a state that [`write_snapshot`] wrote.
pub fn read_snapshot(from: &mut dyn Read) -> Result<State, MachineError> {
    let failed = |error: DecodeError| MachineError::new("cannot read the snapshot", error);
    let mut reader = SnapshotReader::new(from).map_err(failed)?;
    let mut state = State::from_snapshot(reader.applied(), reader.forgotten());
    while let Some(record) = reader.next_record().map_err(failed)? {
        state.put(record).map_err(|what| failed(DecodeError::Order { what }))?;
    }
    Ok(state)
}
