//! Between openraft and a group's [`Machine`]: numbers the commands, skips those that the machine already has, and makes
//! and installs snapshots.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use openraft::storage::{RaftStateMachine, Snapshot};
use openraft::{EntryPayload, ErrorSubject, ErrorVerb, OptionalSend, RaftSnapshotBuilder};
use tokio::sync::watch;

use crate::due::{Due, Lengths, Signals};
use crate::group_id::GroupId;
use crate::machine::{Entry, FrozenState, Machine, MachineError};
use crate::snapshot::format::Header;
use crate::snapshot::{Newest, SavedSnapshot, SnapshotError, SnapshotFile, Snapshots};
use crate::type_config::{RaftEntry, TypeConfig};
use crate::types::{Batch, LogId, Replies, SnapshotMeta, StorageError, StoredMembership, storage_error};

/// Applies a group's log to its machine.
pub struct Applier {
    group: GroupId,
    machine: Arc<dyn Machine>,
    snapshots: Snapshots,
    /// The builder replaces it while commands are applied.
    newest: Arc<Newest>,
    last: Option<LogId>,
    membership: StoredMembership,
    /// The index of the last command.
    commands: u64,
    applied: watch::Sender<u64>,
    due: Due,
}

impl Applier {
    /// Restores the newest snapshot, unless the machine kept a newer state itself. `lengths` says when the next one is due.
    pub fn open(
        group: GroupId,
        machine: Arc<dyn Machine>,
        snapshots: Snapshots,
        lengths: Lengths,
    ) -> Result<Applier, SnapshotError> {
        let newest = snapshots.newest()?;
        let (mut last, mut membership, mut commands, mut bytes) = (None, StoredMembership::default(), 0, 0);
        if let Some(saved) = &newest {
            let restore = machine.applied() < saved.header.commands;
            snapshots.load(saved, |state| if restore { machine.restore(state) } else { Ok(()) })?;
            last = saved.header.last;
            membership = saved.header.membership.clone();
            commands = saved.header.commands;
            bytes = saved.bytes()?;
        }
        let newest = Arc::new(Newest::new(snapshots.clone(), newest));
        let (applied, _) = watch::channel(commands);
        let due = Due::new(lengths, last, bytes);
        Ok(Applier { group, machine, snapshots, newest, last, membership, commands, applied, due })
    }

    /// What is told when a snapshot should be made, and when one was.
    pub fn signals(&self) -> Signals {
        self.due.signals()
    }

    /// The index of the last command that the machine has.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// The last entry of the log that is in the snapshot which was restored.
    pub fn last(&self) -> Option<LogId> {
        self.last
    }

    /// Takes entries and answers each.
    async fn take(&mut self, entries: impl IntoIterator<Item = RaftEntry>) -> Result<Vec<Replies>, MachineError> {
        let (mut answers, commands) = self.number(entries);
        if commands.is_empty() {
            return Ok(answers);
        }
        let count = commands.len();
        let replies = if self.machine.may_block(&commands) {
            let machine = Arc::clone(&self.machine);
            let applied = self.snapshots.work().run(move || machine.apply(&commands)).await;
            applied.map_err(|panic| MachineError::new("the machine of this group panicked", panic))??
        } else {
            self.machine.apply(&commands)?
        };
        if replies.len() != count {
            let what = format!("{} answers to {count} commands", replies.len());
            return Err(MachineError::new("the machine of this group is wrong", what));
        }
        // The commands that were skipped are the first ones: nobody waits for their answers.
        let all = answers.iter_mut().flat_map(|answer| answer.replies.iter_mut());
        all.rev().zip(replies.into_iter().rev()).for_each(|(place, reply)| *place = reply);
        Ok(answers)
    }

    /// Numbers the commands and leaves out those that the machine has.
    fn number(&mut self, entries: impl IntoIterator<Item = RaftEntry>) -> (Vec<Replies>, Vec<Entry>) {
        let had = self.machine.applied();
        let (mut answers, mut commands) = (Vec::new(), Vec::new());
        for entry in entries {
            self.last = Some(entry.log_id);
            self.due.entry(&entry.log_id, bytes_of(&entry.payload));
            let mut answer = Replies { first: self.commands + 1, replies: Vec::new() };
            match entry.payload {
                EntryPayload::Blank => (),
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership);
                }
                EntryPayload::Normal(Batch(batch)) => {
                    answer.replies.resize(batch.len(), Bytes::new());
                    for command in batch {
                        self.commands += 1;
                        let term = entry.log_id.leader_id.term;
                        commands.push(Entry { index: self.commands, term, command });
                    }
                }
            }
            answers.push(answer);
        }
        commands.retain(|command| command.index > had);
        (answers, commands)
    }

    fn read_error(&self, error: &(dyn std::error::Error + 'static)) -> StorageError {
        storage_error(ErrorSubject::StateMachine, ErrorVerb::Read, error)
    }

    fn write_error(&self, error: &(dyn std::error::Error + 'static)) -> StorageError {
        storage_error(ErrorSubject::StateMachine, ErrorVerb::Write, error)
    }
}

impl RaftStateMachine<TypeConfig> for Applier {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.last, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Replies>, StorageError>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let answers = self.take(entries).await.map_err(|error| self.write_error(&error))?;
        self.applied.send_if_modified(|applied| std::mem::replace(applied, self.commands) != self.commands);
        self.due.applied(self.last);
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let unique = uuid::Uuid::new_v4().simple();
        let header = Header {
            group: self.group.0,
            id: format!("{unique}"),
            last: self.last,
            membership: self.membership.clone(),
            commands: self.commands,
        };
        let purge = self.due.begun(self.last);
        // Between two batches, so that the state is the one that the header speaks of.
        let state = self.machine.freeze();
        let snapshots = self.snapshots.clone();
        let (newest, signals) = (Arc::clone(&self.newest), self.due.signals());
        Builder { snapshots, newest, header, purge, signals, state: Mutex::new(Some(state)) }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotFile>, StorageError> {
        let file = self.snapshots.receive().await;
        file.map(Box::new).map_err(|error| snapshot_error(ErrorVerb::Write, &error))
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, file: Box<SnapshotFile>) -> Result<(), StorageError> {
        let saved = file.saved(&self.snapshots, meta).await;
        let saved = saved.map_err(|error| snapshot_error(ErrorVerb::Write, &error))?;
        let (machine, snapshots) = (Arc::clone(&self.machine), self.snapshots.clone());
        let newest = Arc::clone(&self.newest);
        let install = self.snapshots.work().run(move || {
            snapshots.load(&saved, |state| machine.restore(state))?;
            newest.replace(saved.clone())?;
            let bytes = saved.bytes()?;
            Ok::<_, SnapshotError>((saved, bytes))
        });
        let saved = install.await.map_err(|error| self.write_error(&error))?;
        let (saved, bytes) = saved.map_err(|error| snapshot_error(ErrorVerb::Write, &error))?;
        self.last = saved.header.last;
        self.membership = saved.header.membership.clone();
        self.commands = saved.header.commands;
        self.applied.send_replace(self.commands);
        // openraft cuts the log by itself: an installed snapshot stands for all of it.
        self.due.installed(self.last, bytes);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        match self.newest.open() {
            Ok(newest) => Ok(newest.map(snapshot)),
            Err(error) => Err(self.read_error(&error)),
        }
    }
}

/// Writes a snapshot while further commands are applied.
pub struct Builder {
    snapshots: Snapshots,
    newest: Arc<Newest>,
    header: Header,
    /// The last entry that the log need not keep once the snapshot is on disk.
    purge: u64,
    signals: Signals,
    /// Never locked: it makes the builder `Sync`, which openraft asks for, whatever the machine froze.
    state: Mutex<Option<Result<FrozenState, MachineError>>>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        let spent = || Err(MachineError::new("a snapshot is built once", "it was asked for again"));
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_else(spent);
        let state = state.map_err(|error| snapshot_error(ErrorVerb::Read, &error))?;
        let (snapshots, newest, header) = (self.snapshots.clone(), Arc::clone(&self.newest), self.header.clone());
        let work = snapshots.work();
        let saved = work.run(move || {
            let made = newest.replace(snapshots.save(header, state)?)?;
            let bytes = made.0.bytes()?;
            Ok::<_, SnapshotError>((made, bytes))
        });
        let saved = saved.await.map_err(|error| snapshot_error(ErrorVerb::Write, &error))?;
        let (made, bytes) = saved.map_err(|error| snapshot_error(ErrorVerb::Write, &error))?;
        self.signals.made(made.0.header.last, self.purge, bytes);
        Ok(snapshot(made))
    }
}

/// How long the commands of an entry are.
fn bytes_of(payload: &EntryPayload<TypeConfig>) -> u64 {
    match payload {
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
        EntryPayload::Normal(Batch(commands)) => commands.iter().map(|command| command.len() as u64).sum(),
    }
}

fn snapshot((saved, file): (SavedSnapshot, SnapshotFile)) -> Snapshot<TypeConfig> {
    Snapshot { meta: saved.header.meta(), snapshot: Box::new(file) }
}

fn snapshot_error(verb: ErrorVerb, error: &(dyn std::error::Error + 'static)) -> StorageError {
    storage_error(ErrorSubject::Snapshot(None), verb, error)
}
