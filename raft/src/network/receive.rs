//! Answers the messages of a group's other nodes. What a message says of its sender is compared with who sent it, and
//! what could not come from a node that keeps the protocol is refused before openraft sees it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use caxton_proto::NodeId;
use openraft::error::{Fatal, RaftError};
use openraft::raft::{AppendEntriesRequest, VoteRequest, VoteResponse};
use openraft::{EntryPayload, ServerState, Snapshot};
use tokio::io::AsyncWriteExt;
use tokio::sync::Mutex;

use super::Links;
use super::wire::{self, Chunk, ChunkAnswer, MESSAGE_BYTES_MAX, Request, TakeOverAnswer};
use crate::group_id::GroupId;
use crate::snapshot::{SnapshotError, SnapshotFile, Snapshots};
use crate::type_config::{Raft, TypeConfig};
use crate::types::{LogId, Membership, Room, Vote, chain};

/// The most bytes of a snapshot that is received.
pub const SNAPSHOT_BYTES_MAX: u64 = 1 << 40;
/// The most sets of voters that count at once.
const JOINT_MAX: usize = 2;

/// Why a message is refused. The sender is told.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// It cannot be read.
    #[error(transparent)]
    Message(Box<dyn std::error::Error + Send + Sync>),
    /// This node does not have the group, or not yet.
    #[error("this node does not have group {}", group.0)]
    UnknownGroup {
        /// The group that the message names.
        group: GroupId,
    },
    /// It says something that its sender cannot say.
    #[error("a message from node {from} makes no sense: {why}")]
    Nonsense {
        /// The node that sent it, as its certificate says.
        from: NodeId,
        /// What about it.
        why: &'static str,
    },
    /// The snapshot that arrived cannot be used, or not be written. Nothing of it was used.
    #[error("the snapshot that arrived cannot be used")]
    Snapshot(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// There is no room on this node's disk; nothing of the message was kept.
    #[error("the disk of this node is full; it takes more once there is space")]
    Full,
    /// The group has stopped on this node.
    #[error("the group has stopped on this node: {why}")]
    Stopped {
        /// What stopped the group, with all causes.
        why: Arc<str>,
    },
}

impl From<Fatal<u64>> for AnswerError {
    fn from(fatal: Fatal<u64>) -> AnswerError {
        AnswerError::Stopped { why: chain(&fatal).into() }
    }
}

impl From<RaftError<u64>> for AnswerError {
    fn from(error: RaftError<u64>) -> AnswerError {
        match error {
            RaftError::APIError(impossible) => match impossible {},
            RaftError::Fatal(fatal) => fatal.into(),
        }
    }
}

fn unusable(error: SnapshotError) -> AnswerError {
    AnswerError::Snapshot(error.into())
}

/// One group's end of the messages that others send.
pub struct Receiver {
    raft: Raft,
    links: Arc<Links>,
    snapshots: Snapshots,
    /// A leader that was heard within this is there.
    lease: Duration,
    /// Whether there is room for what leaders send.
    last_room: Room,
    /// Held across awaits, and by nothing else: the chunks of a snapshot are written one after the other.
    incoming: Mutex<Option<Incoming>>,
}

/// A snapshot of which a part has arrived.
struct Incoming {
    id: String,
    total: u64,
    have: u64,
    file: SnapshotFile,
}

impl Receiver {
    /// A leader that was heard within `lease` is there, and so is one that finds within it that it has a majority.
    pub fn new(raft: Raft, links: Arc<Links>, snapshots: Snapshots, lease: Duration, last_room: Room) -> Receiver {
        Receiver { raft, links, snapshots, lease, last_room, incoming: Mutex::default() }
    }

    pub async fn answer(&self, from: NodeId, request: Request) -> Result<Bytes, AnswerError> {
        let nonsense = |why| AnswerError::Nonsense { from, why };
        if from == self.links.node {
            return Err(nonsense("it comes from this node itself"));
        }
        match request {
            Request::Append(request) => {
                leads(from, &request.vote).and_then(|()| follows(&request)).map_err(nonsense)?;
                self.links.is_led();
                if !request.entries.is_empty() {
                    self.fits(MESSAGE_BYTES_MAX as u64)?;
                }
                Ok(wire::append_answer(&self.raft.append_entries(request).await?))
            }
            Request::Vote { request, leave } => {
                if request.vote.committed || request.vote.leader_id.voted_for != Some(from.0) {
                    return Err(nonsense("it asks for a vote for another node"));
                }
                Ok(wire::vote_answer(&self.vote(request, leave).await?))
            }
            Request::Chunk(chunk) => {
                leads(from, &chunk.vote).and_then(|()| fits(&chunk)).map_err(nonsense)?;
                self.links.is_led();
                self.fits(chunk.total - chunk.offset)?;
                Ok(wire::chunk_answer(&self.chunk(chunk).await?))
            }
            Request::TakeOver { vote, last } => {
                leads(from, &vote).map_err(nonsense)?;
                Ok(wire::take_over_answer(self.take_over(vote, last).await?))
            }
            Request::Canvass => Ok(wire::canvass_answer(self.hears_a_leader().await)),
            Request::Read => {
                // A node that does not lead, or cannot reach a majority, says so.
                let upto = self.raft.ensure_linearizable().await.ok().flatten();
                let found = self.links.found_in(self.raft.metrics().borrow().current_term);
                Ok(wire::read_answer(upto.map(|upto| upto.index.max(found))))
            }
        }
    }

    /// Whether there is room for so many bytes. A write that meets the end of the disk ends the group.
    fn fits(&self, bytes: u64) -> Result<(), AnswerError> {
        if (self.last_room)(bytes) { Ok(()) } else { Err(AnswerError::Full) }
    }

    /// Whether this node leads with a majority behind it, or follows somebody whom it heard a moment ago. A round that is
    /// late on a busy machine is no lost majority: openraft gives it up after one beat.
    async fn hears_a_leader(&self) -> bool {
        let metrics = self.raft.metrics().borrow().clone();
        if metrics.state == ServerState::Leader {
            let voters = metrics.membership_config.membership().voter_ids();
            let others: Vec<NodeId> = voters.filter(|id| *id != self.links.node.0).map(NodeId).collect();
            if self.links.is_followed(&others, self.lease) {
                return true;
            }
            let confirmed = tokio::time::timeout(self.lease, self.raft.ensure_linearizable()).await;
            return confirmed.is_ok_and(|confirmed| confirmed.is_ok());
        }
        !self.links.is_given_up(&metrics.vote) && self.links.unled().is_some_and(|silence| silence < self.lease)
    }

    /// Votes, unless this node has heard from a leader a moment ago. A candidate that has that leader's leave is heard
    /// nevertheless, and so is any candidate when this node has seen that the leader's process has ended: its term is taken
    /// over as a message of that term would have it, which forgets the leader and promises nothing, and then it is asked for
    /// like any other vote.
    async fn vote(&self, request: VoteRequest<u64>, leave: Option<Vote>) -> Result<VoteResponse<u64>, AnswerError> {
        let mine = self.raft.metrics().borrow().vote;
        let free = leave.is_some_and(|leave| leave == mine) || self.links.is_given_up(&mine);
        if free && request.vote > mine {
            // The entry before is one that nobody has: openraft takes the term over, and ends there with a conflict.
            let term = openraft::CommittedLeaderId::new(
                request.vote.leader_id.term,
                request.vote.leader_id.voted_for.unwrap_or_default(),
            );
            let nowhere = LogId::new(term, u64::MAX >> 1);
            let newer = AppendEntriesRequest {
                vote: request.vote,
                prev_log_id: Some(nowhere),
                entries: Vec::new(),
                leader_commit: None,
            };
            self.raft.append_entries(newer).await?;
        }
        Ok(self.raft.vote(request).await?)
    }

    /// Stands for election at once, with the leave of the leader that this node follows.
    async fn take_over(&self, vote: Vote, last: Option<LogId>) -> Result<TakeOverAnswer, AnswerError> {
        let metrics = self.raft.metrics().borrow().clone();
        let voter = metrics.membership_config.membership().voter_ids().any(|id| id == self.links.node.0);
        if metrics.vote != vote || !voter {
            return Ok(TakeOverAnswer::Declines);
        }
        if metrics.last_log_index < last.map(|last| last.index) {
            return Ok(TakeOverAnswer::Behind);
        }
        self.links.give_leave(vote);
        self.raft.trigger().elect().await?;
        Ok(TakeOverAnswer::Stands)
    }

    async fn chunk(&self, chunk: Chunk) -> Result<ChunkAnswer, AnswerError> {
        let mut incoming = self.incoming.lock().await;
        let mine = self.raft.metrics().borrow().vote;
        if mine > chunk.vote {
            return Ok(ChunkAnswer { vote: mine, have: 0 });
        }
        let last = chunk.meta.last_log_id;
        // It was installed before, and the answer was lost; or the log has brought more since.
        if self.raft.with_raft_state(move |state| state.committed >= last).await? {
            *incoming = None;
            return Ok(ChunkAnswer { vote: mine, have: chunk.total });
        }
        let same = |it: &Incoming| it.id == chunk.meta.snapshot_id && it.total == chunk.total;
        let mut arriving = match incoming.take().filter(same) {
            Some(arriving) => arriving,
            None => {
                let file = self.snapshots.receive().await.map_err(unusable)?;
                Incoming { id: chunk.meta.snapshot_id.clone(), total: chunk.total, have: 0, file }
            }
        };
        if arriving.have == chunk.offset {
            // When this fails, what has arrived is dropped: nobody knows how much of the chunk is in the file.
            let written = arriving.file.write_all(&chunk.data).await;
            written.map_err(|error| AnswerError::Snapshot(error.into()))?;
            arriving.have += chunk.data.len() as u64;
        }
        if arriving.have < arriving.total {
            let have = arriving.have;
            *incoming = Some(arriving);
            return Ok(ChunkAnswer { vote: mine, have });
        }
        self.install(chunk, arriving.file).await
    }

    /// Checks a snapshot that is whole and installs it. It has its name on disk before openraft hears of it, because
    /// openraft takes away the log that it covers while it is being installed.
    async fn install(&self, chunk: Chunk, file: SnapshotFile) -> Result<ChunkAnswer, AnswerError> {
        let Chunk { vote, meta, total, .. } = chunk;
        let file = file.accepted(&self.snapshots, &meta).await.map_err(unusable)?;
        let snapshot = Snapshot { meta, snapshot: Box::new(file) };
        let answer = self.raft.install_full_snapshot(vote, snapshot).await?;
        let have = if answer.vote > vote { 0 } else { total };
        Ok(ChunkAnswer { vote: answer.vote, have })
    }
}

/// Only a leader speaks for itself.
fn leads(from: NodeId, vote: &Vote) -> Result<(), &'static str> {
    if vote.committed && vote.leader_id.voted_for == Some(from.0) {
        Ok(())
    } else {
        Err("it speaks for another leader")
    }
}

/// The entries of a request follow each other and the one before them, and are not of a later term than their leader.
fn follows(request: &AppendEntriesRequest<TypeConfig>) -> Result<(), &'static str> {
    let mut before = request.prev_log_id;
    for entry in &request.entries {
        let index = before.map_or(Some(0), |before| before.index.checked_add(1));
        if index != Some(entry.log_id.index) || before > Some(entry.log_id) {
            return Err("its entries do not follow each other");
        }
        if let EntryPayload::Membership(membership) = &entry.payload {
            has_voters(membership)?;
        }
        before = Some(entry.log_id);
    }
    let newest = before.map(|log_id| log_id.leader_id.term);
    if newest > Some(request.vote.leader_id.term) {
        return Err("its entries are of a later term than its leader");
    }
    Ok(())
}

fn has_voters(membership: &Membership) -> Result<(), &'static str> {
    let configs = membership.get_joint_config();
    if configs.is_empty() || configs.len() > JOINT_MAX || configs.iter().any(|voters| voters.is_empty()) {
        return Err("it has members without voters");
    }
    Ok(())
}

/// A chunk is within its snapshot and ends it or brings it further.
fn fits(chunk: &Chunk) -> Result<(), &'static str> {
    let end = chunk.offset.checked_add(chunk.data.len() as u64);
    if chunk.total > SNAPSHOT_BYTES_MAX || end.is_none_or(|end| end > chunk.total) || chunk.data.is_empty() {
        return Err("its part of a snapshot is outside of it");
    }
    if chunk.meta.last_log_id.is_none() {
        return Err("its snapshot is of nothing");
    }
    has_voters(chunk.meta.last_membership.membership())
}
