//! A group's whole state as a file that can leave the node, and the way back: a store that begins again with one node.
//!
//! Nothing of the log is edited. What came before stays as it is, and two entries follow it: the new members, which are
//! one node, and for the deploy log the command that says so. So all that a later reader finds is what was there, and
//! then that somebody began again. Only for a node that does not run.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use caxton_proto::NodeId;
use openraft::{BasicNode, CommittedLeaderId, EntryPayload};
use rocksdb::WriteBatch;

use crate::group::Group;
use crate::group_id::GroupId;
use crate::log::LogStore;
use crate::snapshot::format::{Header, Reader};
use crate::snapshot::{SnapshotError, Snapshots};
use crate::store::{OpenError, Store, StoreError};
use crate::type_config::RaftEntry;
use crate::types::{Batch, LogId, Membership, Vote, chain};

/// How long a snapshot may take.
const SNAPSHOT_WAIT: Duration = Duration::from_secs(300);

/// Why a state could not be archived, or a store not begin again.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The group made no snapshot.
    #[error("group {} makes no snapshot: {why}", group.0)]
    Snapshot {
        /// The group whose state was to be written down.
        group: GroupId,
        /// Why openraft made none, with all causes.
        why: String,
    },
    /// An archived state is damaged, or not one of this group.
    #[error("the state of group {} is damaged or is none", group.0)]
    Damaged {
        /// The group whose state was expected.
        group: GroupId,
        /// What is wrong with the bytes.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store cannot be read or written.
    #[error("the log's store cannot be read or written")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<StoreError> for ArchiveError {
    fn from(error: StoreError) -> ArchiveError {
        ArchiveError::Store(error.into())
    }
}

/// A group's state at one moment, in a file that stays readable while the group goes on.
#[derive(Debug)]
pub struct StateArchive {
    /// The group whose state it is.
    pub group: GroupId,
    /// The index of the last command in it.
    pub commands: u64,
    /// How many bytes the file has.
    pub bytes: u64,
    /// The file, at its beginning.
    pub file: std::fs::File,
}

impl Group {
    /// Writes all that is applied here to a snapshot, which checks itself when it is read.
    pub async fn archive(&self) -> Result<StateArchive, ArchiveError> {
        match tokio::time::timeout(SNAPSHOT_WAIT, self.archived()).await {
            Ok(archived) => archived,
            Err(_) => Err(self.no_snapshot(format!("it took longer than {SNAPSHOT_WAIT:?}"))),
        }
    }

    async fn archived(&self) -> Result<StateArchive, ArchiveError> {
        let raft = &self.inner.raft;
        let stopped = |_| self.no_snapshot("the group has stopped".to_owned());
        let commands = *self.applied().borrow();
        let mut metrics = raft.metrics();
        loop {
            let wanted = metrics.wait_for(|now| now.last_applied.is_some()).await.map_err(stopped)?.last_applied;
            loop {
                let had = metrics.borrow_and_update().snapshot;
                if had >= wanted {
                    break;
                }
                raft.trigger().snapshot().await.map_err(|error| self.no_snapshot(chain(&error)))?;
                // One that was under way when this began may be older.
                metrics.wait_for(|now| now.snapshot != had).await.map_err(stopped)?;
            }
            let archived = self.newest_snapshot().await?;
            if archived.commands >= commands {
                return Ok(archived);
            }
            // The metrics were a step behind what is applied.
            metrics.changed().await.map_err(stopped)?;
        }
    }

    async fn newest_snapshot(&self) -> Result<StateArchive, ArchiveError> {
        let group = self.inner.links.group;
        let made = self.inner.raft.get_snapshot().await.map_err(|error| self.no_snapshot(chain(&error)))?;
        let snapshot = made.ok_or_else(|| self.no_snapshot("it has nothing to write".to_owned()))?;
        let mut file = snapshot.snapshot.into_file().await;
        let opened = tokio::task::spawn_blocking(move || {
            let (_, header) = Reader::new(io::BufReader::new(&file))?;
            let bytes = file.seek(SeekFrom::End(0))?;
            file.seek(SeekFrom::Start(0))?;
            io::Result::Ok(StateArchive { group, commands: header.commands, bytes, file })
        });
        let opened = opened.await.map_err(|error| self.no_snapshot(error.to_string()))?;
        opened.map_err(|error| self.no_snapshot(error.to_string()))
    }

    fn no_snapshot(&self, why: String) -> ArchiveError {
        ArchiveError::Snapshot { group: self.inner.links.group, why }
    }
}

/// Checks all of an archived state and says its group and the index of its last command. `state` reads the machine's part.
pub fn check(
    from: &mut dyn Read,
    state: impl FnOnce(GroupId, &mut dyn Read) -> Result<(), crate::machine::MachineError>,
) -> io::Result<(GroupId, u64)> {
    let (mut reader, header) = Reader::new(from)?;
    let read = state(GroupId(header.group), &mut reader);
    reader.finish()?;
    read.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, chain(&error)))?;
    Ok((GroupId(header.group), header.commands))
}

/// What a store has of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupState {
    /// The group that the store knows.
    pub group: GroupId,
    /// The index of the last entry of the log, whether it was acknowledged or not.
    pub last: u64,
    /// The last entry that this node knows to be acknowledged.
    pub committed: Option<u64>,
    /// The term of the last vote.
    pub term: u64,
    /// Who voted, as far as the log and the snapshot say.
    pub voters: BTreeSet<NodeId>,
}

/// What there is to do with the groups of a node that does not run.
pub struct Beginning {
    store: Store,
    groups: Vec<Inspection>,
}

struct Inspection {
    state: GroupState,
    log: LogStore,
    last: Option<LogId>,
}

impl Beginning {
    /// Looks at the groups in the store of `dir` and checks all of their logs and snapshots.
    pub fn of(dir: &Path) -> Result<Beginning, ArchiveError> {
        let store = Store::open(dir)?;
        let mut groups = Vec::new();
        for group in LogStore::groups(&store)? {
            groups.push(found(&store, group)?);
        }
        Ok(Beginning { store, groups })
    }

    /// A new store in `dir`, with nothing in it.
    pub fn empty(dir: &Path) -> Result<Beginning, ArchiveError> {
        Ok(Beginning { store: Store::open(dir)?, groups: Vec::new() })
    }

    /// The store that the groups begin in.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Takes over a group's archived state, all of which is checked once more.
    pub fn take(&mut self, group: GroupId, from: &mut dyn Read) -> Result<(), ArchiveError> {
        let damaged = |error: SnapshotError| ArchiveError::Damaged { group, source: error.into() };
        let snapshots = Snapshots::open(&self.store.snapshots_dir(), group).map_err(damaged)?;
        let Header { last, .. } = snapshots.import(from).map_err(damaged)?.header;
        let log = LogStore::new(self.store.clone(), group);
        if let Some(last) = &last {
            let mut batch = WriteBatch::default();
            log.begin_after(&mut batch, last);
            self.store.write(batch)?;
        }
        self.groups.push(found(&self.store, group)?);
        Ok(())
    }

    /// What the store has.
    pub fn groups(&self) -> impl Iterator<Item = &GroupState> {
        self.groups.iter().map(|found| &found.state)
    }

    /// Lets every group begin again with `node` alone; `command` follows in the deploy log. On disk when this returns,
    /// all or nothing.
    pub async fn with(self, node: NodeId, command: Bytes) -> Result<Store, ArchiveError> {
        let mut batch = WriteBatch::default();
        for Inspection { state, log, last } in &self.groups {
            // Later than any that was given.
            let term = state.term.max(last.map_or(0, |last| last.leader_id.term)).saturating_add(1);
            let leader = CommittedLeaderId::new(term, node.0);
            let at = last.map_or(0, |last| last.index + 1);
            let nodes = BTreeMap::from([(node.0, BasicNode::default())]);
            let members = Membership::new(vec![BTreeSet::from([node.0])], nodes);
            log.put(
                &mut batch,
                &RaftEntry { log_id: LogId::new(leader, at), payload: EntryPayload::Membership(members) },
            );
            if state.group == crate::deploy_log::GROUP {
                let payload = EntryPayload::Normal(Batch(vec![command.clone()]));
                log.put(&mut batch, &RaftEntry { log_id: LogId::new(leader, at + 1), payload });
            }
            log.put_vote(&mut batch, &Vote::new(term, node.0));
        }
        self.store.write(batch)?;
        self.store.synced().await?;
        Ok(self.store)
    }
}

fn found(store: &Store, group: GroupId) -> Result<Inspection, ArchiveError> {
    let damaged = |error: SnapshotError| ArchiveError::Damaged { group, source: error.into() };
    let log = LogStore::new(store.clone(), group);
    let purged = log.check()?;
    let snapshots = Snapshots::open(&store.snapshots_dir(), group).map_err(damaged)?;
    let newest = snapshots.newest().map_err(damaged)?;
    let mut voters = BTreeSet::new();
    if let Some(saved) = &newest {
        snapshots
            .load(saved, |state| io::copy(state, &mut io::sink()).map(drop).map_err(copy_error))
            .map_err(damaged)?;
        voters = saved.header.membership.membership().voter_ids().map(NodeId).collect();
    }
    let covered = newest.and_then(|saved| saved.header.last);
    if purged > covered {
        let what = "the log begins after a snapshot that is not there";
        return Err(ArchiveError::Damaged { group, source: what.into() });
    }
    if let Some(members) = log.members()? {
        voters = members.voter_ids().map(NodeId).collect();
    }
    // A snapshot that was installed a moment ago can be ahead of the log.
    let last = log.last_entry()?.max(covered);
    let state = GroupState {
        group,
        last: last.map_or(0, |last| last.index),
        committed: log.committed()?.map(|committed| committed.index),
        term: log.term()?,
        voters,
    };
    Ok(Inspection { state, log, last })
}

fn copy_error(error: io::Error) -> crate::machine::MachineError {
    crate::machine::MachineError::new("the snapshot cannot be read", error)
}
