//! Groups: numbered replicated logs of one node, each with a machine. A command is acknowledged once it is on disk on a
//! majority of the group's voters and applied here.

mod members;
mod prevote;
mod proposer;
pub(crate) mod snapshots;
mod status;
mod suspect;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use caxton_proto::NodeId;
use openraft::error::{CheckIsLeaderError, RaftError};
use openraft::storage::RaftLogStorage;
use openraft::{BasicNode, SnapshotPolicy};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use self::members::{ChangeError, Lag, Members};
use self::proposer::Proposer;
use crate::applier::Applier;
use crate::due::Lengths;
use crate::group_id::GroupId;
use crate::log::LogStore;
use crate::machine::Machine;
use crate::network::receive::{AnswerError, Receiver};
use crate::network::{Links, Peers, Transport, wire};
use crate::snapshot::{SnapshotError, Snapshots};
use crate::store::{Store, StoreError};
use crate::type_config::Raft;
use crate::types::{Room, chain};

/// The most bytes of one command.
pub const COMMAND_BYTES_MAX: usize = 1 << 20;

/// How long to wait for a word of who leads before asking again.
const MOVED_WAIT: Duration = Duration::from_millis(20);

/// How a group begins on a node that never had an entry of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Birth {
    /// With this node as its only voter.
    Founded,
    /// Not before its leader brings the first entry: another node founded it.
    Joined,
}

/// When a group beats, elects and makes snapshots.
#[derive(Debug, Clone)]
pub struct Timers {
    /// How often a leader says that it is there.
    pub heartbeat: Duration,
    /// How long a leader is silent at least before a voter stands for election.
    pub election_min: Duration,
    /// How long at most; each node draws its own between the two. It looks as often as every one and a half heartbeats.
    /// For half of this time a voter that has heard a leader votes for nobody else.
    pub election_max: Duration,
    /// After how many entries of the log the next snapshot is made, at least: with a long log it is a sixteenth of it, but
    /// never more than sixteen times as many.
    pub snapshot_entries: u64,
    /// After how many bytes of commands it is made, at least, if that comes first: with a long snapshot it is a sixteenth of its
    /// length, but never more than sixteen times as many.
    pub snapshot_bytes: u64,
    /// How many entries that are in a snapshot are kept, for voters that are a little behind.
    pub kept_entries: u64,
    /// How many bytes of commands that are in a snapshot are kept, whatever the number of entries.
    pub kept_bytes: u64,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(200),
            election_min: Duration::from_secs(1),
            election_max: Duration::from_millis(1300),
            snapshot_entries: 20_000,
            snapshot_bytes: 64 << 20,
            kept_entries: 500,
            kept_bytes: 16 << 20,
        }
    }
}

impl Timers {
    fn lengths(&self) -> Lengths {
        Lengths {
            entries: self.snapshot_entries,
            bytes: self.snapshot_bytes,
            kept_entries: self.kept_entries,
            kept_bytes: self.kept_bytes,
        }
    }
}

/// The groups of one node. A handle: clones share the store.
#[derive(Clone)]
pub struct Groups {
    store: Store,
    node: NodeId,
    timers: Timers,
    transport: Arc<dyn Transport>,
    receivers: Arc<RwLock<BTreeMap<GroupId, Arc<Receiver>>>>,
    room: Room,
    last_room: Room,
}

/// One group on this node. A handle: clones share the group.
#[derive(Clone)]
pub struct Group {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) raft: Raft,
    proposer: Proposer,
    status: watch::Receiver<Status>,
    members: watch::Receiver<Members>,
    pub(crate) links: Arc<Links>,
    applied: watch::Receiver<u64>,
    /// They end with the group.
    tasks: Vec<JoinHandle<()>>,
    /// How long a caller waits for a group that has no leader.
    leader_wait: Duration,
}

/// What a command got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Counts the group's commands from 1, without a gap.
    pub index: u64,
    /// What the machine answered.
    pub response: Bytes,
}

/// How a group is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// What this node is in it.
    pub role: Role,
    /// Who leads, as far as this node knows: nobody when it hears nothing of the leader, or leads itself and no majority
    /// answers it.
    pub leader: Option<NodeId>,
    /// The newest term that this node has heard of.
    pub term: u64,
    /// Why the group has stopped for good on this node: the node has to stop too.
    pub fatal: Option<Arc<str>>,
}

/// What a node is in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It follows without a vote.
    Learner,
    /// It follows the leader.
    Follower,
    /// It wants to lead.
    Candidate,
    /// It leads: commands are proposed to it, and entries go out from it.
    Leader,
    /// It has stopped.
    Stopped,
}

/// Why a group does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenGroupError {
    /// Its log is damaged or cannot be read.
    #[error("cannot open the log of group {}", group.0)]
    Log {
        /// The group whose log could not be opened.
        group: GroupId,
        /// What is wrong with the log.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Its snapshot is damaged or cannot be read.
    #[error("cannot open the snapshot of group {}", group.0)]
    Snapshot {
        /// The group whose snapshot could not be opened.
        group: GroupId,
        /// What is wrong with the snapshot.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The log begins after a snapshot that is not there.
    #[error(
        "the log of group {} begins after entry {purged}, and the snapshot up to there is not in {}; restore the data \
         directory from a backup",
        group.0,
        dir.display()
    )]
    NoSnapshot {
        /// The group whose log lacks its beginning.
        group: GroupId,
        /// The last entry that the log no longer has.
        purged: u64,
        /// Where the snapshot should be.
        dir: PathBuf,
    },
    /// The timers make no sense together.
    #[error("the timers of the groups make no sense: {why}")]
    Timers {
        /// Which of them do not go together, and how.
        why: String,
    },
    /// It stopped while it started.
    #[error("group {} stopped while it started: {why}", group.0)]
    Start {
        /// The group that did not start.
        group: GroupId,
        /// What openraft answered, with all causes.
        why: String,
    },
}

/// Why a command was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// It is too long; it was not proposed.
    #[error("the command has {bytes} bytes, and {COMMAND_BYTES_MAX} is the most")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// Another node leads, or none; it was not proposed.
    #[error("this node does not lead the group")]
    NotLeader {
        /// Who does, if that is known.
        leader: Option<NodeId>,
    },
    /// The group cannot answer now. The command may still be applied.
    #[error("the group has no leader now; try again in a moment")]
    Unavailable,
    /// The group has stopped on this node. The command may still be applied.
    #[error("the group has stopped: {why}")]
    Fatal {
        /// What stopped the group, with all causes.
        why: Arc<str>,
    },
}

/// Why a current state cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Another node leads.
    #[error("this node does not lead the group")]
    NotLeader {
        /// Who does, if that is known.
        leader: Option<NodeId>,
    },
    /// No majority of the group answers.
    #[error("the group has no leader now, or too few of its voters answer; try again in a moment")]
    Unavailable,
    /// The group has stopped on this node.
    #[error("the group has stopped: {why}")]
    Fatal {
        /// What stopped the group, with all causes.
        why: Arc<str>,
    },
}

impl Groups {
    /// The groups of node `node`, in `store`, whose messages `transport` carries.
    pub fn new(store: Store, node: NodeId, timers: Timers, transport: Arc<dyn Transport>) -> Groups {
        let any: Room = Arc::new(|_| true);
        let (receivers, room, last_room) = (Arc::default(), Arc::clone(&any), any);
        Groups { store, node, timers, transport, receivers, room, last_room }
    }

    /// The same, which make no snapshot where `room` says that it has none. The log is not cut meanwhile, and what runs goes
    /// on; a snapshot that meets the end of the disk would end its group.
    pub fn with_room(mut self, room: impl Fn(u64) -> bool + Send + Sync + 'static) -> Groups {
        self.room = Arc::new(room);
        self
    }

    /// The same, which take nothing more from a leader where `last_room` says that there is no room: a write that meets the end
    /// of the disk would end its group. The leader tries again, and goes on with the others as long as they are a majority.
    pub fn with_last_room(mut self, last_room: impl Fn(u64) -> bool + Send + Sync + 'static) -> Groups {
        self.last_room = Arc::new(last_room);
        self
    }

    /// Ends once the last handle on the store is gone and it is closed: a group's tasks may hold one for a moment after
    /// [`Group::shutdown`].
    pub fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        self.store.closed()
    }

    /// Answers a message that `from` sent. `from` was authenticated by the caller.
    pub async fn answer(&self, from: NodeId, message: Bytes) -> Result<Bytes, AnswerError> {
        let (group, request) = wire::request(&message).map_err(|error| AnswerError::Message(error.into()))?;
        let receiver = self.receivers.read().unwrap_or_else(PoisonError::into_inner).get(&group).cloned();
        receiver.ok_or(AnswerError::UnknownGroup { group })?.answer(from, request).await
    }

    /// Opens a group: restores its machine from the newest snapshot and the log after it, and takes part. How one
    /// begins that never had an entry, `birth` says.
    pub async fn open(&self, group: GroupId, machine: Arc<dyn Machine>, birth: Birth) -> Result<Group, OpenGroupError> {
        let config = Arc::new(self.config()?);
        let (mut log, applier) = self.read(group, machine).await?;
        log.stand_again(self.node.0).await.map_err(|error| OpenGroupError::Log { group, source: error.into() })?;
        let (applied, signals) = (applier.applied(), applier.signals());
        let start = |error: &(dyn std::error::Error + 'static)| OpenGroupError::Start { group, why: chain(error) };
        let found = log.get_log_state().await.map_err(|error| start(&error))?.last_log_id;
        let links = Arc::new(Links::new(group, self.node, Arc::clone(&self.transport), found));
        let snapshots = Snapshots::open(&self.store.snapshots_dir(), group)
            .map_err(|error| OpenGroupError::Snapshot { group, source: error.into() })?
            .working(self.store.work());
        let (peers, log) = (Peers(Arc::clone(&links)), log.sending_ahead(Arc::clone(&links)));
        let raft = Raft::new(self.node.0, config, peers, log, applier).await.map_err(|error| start(&error))?;
        let lease = prevote::lease(&self.timers);
        let receiver =
            Arc::new(Receiver::new(raft.clone(), Arc::clone(&links), snapshots, lease, Arc::clone(&self.last_room)));
        self.receivers.write().unwrap_or_else(PoisonError::into_inner).insert(group, receiver);
        if matches!(birth, Birth::Founded) && !raft.is_initialized().await.map_err(|error| start(&error))? {
            let alone = BTreeMap::from([(self.node.0, BasicNode::default())]);
            raft.initialize(alone).await.map_err(|error| start(&error))?;
        }
        let (status, members, follow) = status::follow(raft.server_metrics(), raft.metrics(), links.absent());
        let leader_wait = self.timers.election_max * 2;
        let proposer = Proposer::start(raft.clone());
        let suspect = suspect::start(&raft, &links, self.timers.heartbeat);
        let gate = prevote::start(&raft, &links, &self.timers);
        let tasks = [follow, snapshots::start(&raft, signals, Arc::clone(&self.room)), gate]
            .into_iter()
            .chain(suspect)
            .collect();
        let inner = Inner { raft, proposer, status, members, applied, tasks, leader_wait, links };
        let group = Group { inner: Arc::new(inner) };
        // Not an error: whoever needs a leader finds out.
        group.led().await;
        Ok(group)
    }

    /// Reads what is on disk, all of which is checked.
    async fn read(&self, group: GroupId, machine: Arc<dyn Machine>) -> Result<(LogStore, Applier), OpenGroupError> {
        let (store, work) = (self.store.clone(), self.store.work());
        let lengths = self.timers.lengths();
        let read = work.run(move || {
            let dir = store.snapshots_dir();
            let log = LogStore::new(store, group);
            let log_error = |error: StoreError| OpenGroupError::Log { group, source: error.into() };
            let snapshot_error = |error: SnapshotError| OpenGroupError::Snapshot { group, source: error.into() };
            let purged = log.check().map_err(log_error)?;
            let snapshots = Snapshots::open(&dir, group).map_err(snapshot_error)?.working(work);
            let applier = Applier::open(group, machine, snapshots, lengths).map_err(snapshot_error)?;
            match purged {
                Some(purged) if applier.last().is_none_or(|last| last.index < purged.index) => {
                    Err(OpenGroupError::NoSnapshot { group, purged: purged.index, dir })
                }
                _ => Ok((log, applier)),
            }
        });
        read.await.map_err(|error| OpenGroupError::Start { group, why: error.to_string() })?
    }

    fn config(&self) -> Result<openraft::Config, OpenGroupError> {
        let Timers { heartbeat, election_min, election_max, kept_entries, .. } = self.timers;
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        // openraft waits for a lease, which is its longest wait, and then for a wait between its shortest and its longest.
        let lease = ms(election_max) / 2;
        let shortest = ms(election_min).saturating_sub(lease).max(ms(heartbeat).saturating_add(1));
        if election_min > election_max || shortest >= lease {
            let why = format!(
                "the longest silence of a leader ({election_max:?}) has to be more than twice the heartbeat ({heartbeat:?}), and more than the shortest ({election_min:?})"
            );
            return Err(OpenGroupError::Timers { why });
        }
        let config = openraft::Config {
            cluster_name: "caxton".into(),
            heartbeat_interval: ms(heartbeat),
            election_timeout_min: shortest,
            election_timeout_max: lease,
            install_snapshot_timeout: ms(election_max * 10),
            snapshot_policy: SnapshotPolicy::Never, // See `snapshots`.
            max_in_snapshot_log_to_keep: kept_entries,
            ..openraft::Config::default()
        };
        config.validate().map_err(|error| OpenGroupError::Timers { why: error.to_string() })
    }
}

impl Group {
    /// Proposes a command and waits until it is applied here. When the caller stops waiting, the command may still be
    /// applied.
    pub async fn propose(&self, command: Bytes) -> Result<Applied, ProposeError> {
        if command.len() > COMMAND_BYTES_MAX {
            return Err(ProposeError::TooLong { bytes: command.len() });
        }
        let until = Instant::now() + self.inner.leader_wait;
        loop {
            self.led().await;
            // What goes into the log of a leader without a majority is neither decided nor refused before that is back.
            if self.inner.status.borrow().leader.is_none() && Instant::now() >= until {
                return Err(ProposeError::NotLeader { leader: None });
            }
            match self.inner.proposer.propose(command.clone()).await {
                // Between two leaders. Nothing was proposed, so it can be again.
                Err(ProposeError::NotLeader { leader: None }) if Instant::now() < until => self.moved().await,
                answer => return answer,
            }
        }
    }

    /// Waits until this node has applied every command that was acknowledged before the call, and returns the index of
    /// the last.
    pub async fn read_index(&self) -> Result<u64, ReadError> {
        let until = Instant::now() + self.inner.leader_wait;
        loop {
            self.led().await;
            match self.linearizable().await {
                Err(ReadError::Unavailable) if Instant::now() < until => self.moved().await,
                answer => return answer,
            }
        }
    }

    async fn linearizable(&self) -> Result<u64, ReadError> {
        match self.inner.raft.ensure_linearizable().await {
            Ok(_) => {
                let links = &self.inner.links;
                let mut metrics = self.inner.raft.metrics();
                let has = metrics
                    .wait_for(|now| now.last_applied.map_or(0, |last| last.index) >= links.found_in(now.current_term));
                match tokio::time::timeout(self.inner.leader_wait, has).await {
                    Ok(Ok(_)) => Ok(*self.inner.applied.borrow()),
                    Ok(Err(_)) | Err(_) => Err(ReadError::Unavailable),
                }
            }
            Err(RaftError::Fatal(fatal)) => Err(ReadError::Fatal { why: chain(&fatal).into() }),
            Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(forward))) => match forward.leader_id {
                Some(leader) => Err(ReadError::NotLeader { leader: Some(NodeId(leader)) }),
                None => Err(ReadError::Unavailable),
            },
            Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_))) => Err(ReadError::Unavailable),
        }
    }

    /// The index of the last command that is applied here.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.inner.applied.clone()
    }

    /// How the group is.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.inner.status.clone()
    }

    /// Who votes and who follows.
    pub fn members(&self) -> watch::Receiver<Members> {
        self.inner.members.clone()
    }

    /// Stops taking part. What was acknowledged stays on disk.
    pub async fn shutdown(&self) {
        // It fails only when the task of the group has panicked, which the status told.
        let _ = self.inner.raft.shutdown().await;
    }

    /// Waits for a word of who leads, or a moment.
    async fn moved(&self) {
        let mut status = self.inner.status.clone();
        status.mark_unchanged();
        let _ = tokio::time::timeout(MOVED_WAIT, status.changed()).await;
    }

    /// Waits a while for a leader. With one there is nothing to wait for.
    async fn led(&self) {
        let mut status = self.inner.status.clone();
        let led = status.wait_for(|status| status.leader.is_some() || status.role == Role::Stopped);
        let _ = tokio::time::timeout(self.inner.leader_wait, led).await;
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
