//! Who belongs to a group, how far each is, and changing it. One change at a time, each through joint consensus.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use caxton_proto::NodeId;
use openraft::error::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{BasicNode, ChangeMembers};
use tokio::time::Instant;

use super::{Group, ReadError};
use crate::network::wire::{self, TakeOverAnswer};
use crate::types::chain;

/// How long a voter may take to answer that it stands for election.
const TAKE_OVER_WAIT: Duration = Duration::from_secs(2);
/// How long a leader may take to say up to where its log counts.
const READ_WAIT: Duration = Duration::from_secs(1);
/// The pause before it is asked again.
const RETRY: Duration = Duration::from_millis(50);

/// Who belongs to a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// Who votes; while the voters change, those of before and those of after.
    pub voters: BTreeSet<NodeId>,
    /// Who follows without a vote.
    pub learners: BTreeSet<NodeId>,
}

/// How far a node is behind its leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lag {
    /// How many entries it lacks.
    pub entries: u64,
    /// How long ago it last answered; nothing when it never did.
    pub silence: Option<Duration>,
}

/// Why a group's membership or leader did not change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Another node leads.
    #[error("this node does not lead the group")]
    NotLeader {
        /// Who does, if that is known.
        leader: Option<NodeId>,
    },
    /// No majority answers, or nobody took over in time. The change may still come.
    #[error("too few nodes of the group answer now")]
    Unavailable,
    /// The node is too far behind to lead.
    #[error("node {node} is behind the leader")]
    Behind {
        /// The node that lacks the leader's newest entries.
        node: NodeId,
    },
    /// The node is no voter, or none at all, of this group.
    #[error("node {node} has no such part in the group")]
    Unknown {
        /// The node that is no voter, or no member, of the group.
        node: NodeId,
    },
    /// Another change is under way.
    #[error("another change of the group is under way")]
    InProgress,
    /// The group has stopped on this node.
    #[error("the group has stopped: {why}")]
    Fatal {
        /// What stopped the group, with all causes.
        why: Arc<str>,
    },
}

impl Group {
    /// How far the others are behind; empty where this node does not lead.
    pub fn lag(&self) -> BTreeMap<NodeId, Lag> {
        let metrics = self.inner.raft.metrics().borrow().clone();
        let last = metrics.last_log_index.unwrap_or(0);
        let others = metrics.replication.unwrap_or_default().into_iter();
        let others = others.filter(|(node, _)| *node != self.inner.links.node.0);
        let lag = |(node, matching): (u64, Option<openraft::LogId<u64>>)| {
            let entries = last.saturating_sub(matching.map_or(0, |log_id| log_id.index));
            (NodeId(node), Lag { entries, silence: self.inner.links.silence(node) })
        };
        others.map(lag).collect()
    }

    /// Whether the group still counts on `node`: it votes, also in a membership that is under way, or it leads, or nobody is
    /// known to lead. Asks the leader, so that whatever was decided before the call is known.
    pub async fn counts(&self, node: NodeId) -> Result<bool, ReadError> {
        self.catch_up().await?;
        let metrics = self.inner.raft.metrics().borrow().clone();
        let config = &metrics.membership_config;
        let decided = *config.log_id() <= metrics.last_applied;
        let votes = config.membership().voter_ids().any(|voter| voter == node.0);
        let led_by_another = metrics.current_leader.is_some_and(|leader| leader != node.0);
        Ok(!decided || votes || !led_by_another)
    }

    /// Whether the group on `node` answers now: it is there, and its network is.
    pub async fn answers(&self, node: NodeId) -> bool {
        let links = &self.inner.links;
        links.transport.call(node, wire::canvass(links.group), READ_WAIT).await.is_ok()
    }

    /// Lets a node follow without a vote. Returns once that is decided, and does not wait for the node to catch up.
    pub async fn add_learner(&self, node: NodeId) -> Result<(), ChangeError> {
        let added = self.inner.raft.add_learner(node.0, BasicNode::default(), false).await;
        added.map(drop).map_err(change_error)
    }

    /// Lets exactly `voters` vote. Those who voted before and are not among them follow as learners.
    pub async fn set_voters(&self, voters: BTreeSet<NodeId>) -> Result<(), ChangeError> {
        let voters: BTreeSet<u64> = voters.into_iter().map(|node| node.0).collect();
        self.inner.raft.change_membership(voters, true).await.map(drop).map_err(change_error)
    }

    /// Takes a learner out of the group.
    pub async fn remove(&self, node: NodeId) -> Result<(), ChangeError> {
        let change = ChangeMembers::RemoveNodes(BTreeSet::from([node.0]));
        self.inner.raft.change_membership(change, false).await.map(drop).map_err(change_error)
    }

    /// Waits until this node has applied all that was acknowledged before the call, whoever leads.
    pub async fn catch_up(&self) -> Result<(), ReadError> {
        let (raft, links) = (&self.inner.raft, &self.inner.links);
        let until = Instant::now() + self.inner.leader_wait;
        loop {
            let leader = self.inner.status.borrow().leader;
            let upto = match leader {
                Some(leader) if leader == links.node => return self.read_index().await.map(drop),
                Some(leader) => links.transport.call(leader, wire::read(links.group), READ_WAIT).await.ok(),
                None => None,
            };
            match upto.and_then(|answer| wire::take_read_answer(&answer).ok().flatten()) {
                Some(upto) => {
                    let mut metrics = raft.metrics();
                    let applied = metrics.wait_for(|now| now.last_applied.is_some_and(|last| last.index >= upto));
                    return match tokio::time::timeout(self.inner.leader_wait, applied).await {
                        Ok(Ok(_)) => Ok(()),
                        Ok(Err(_)) | Err(_) => Err(ReadError::Unavailable),
                    };
                }
                None if Instant::now() < until => tokio::time::sleep(RETRY).await,
                None => return Err(ReadError::Unavailable),
            }
        }
    }

    /// Lets the voter `to` lead. Returns once it does. Commands wait meanwhile, so that none is lost on the way.
    pub async fn hand_over(&self, to: NodeId) -> Result<(), ChangeError> {
        let (raft, links) = (&self.inner.raft, &self.inner.links);
        let metrics = raft.metrics().borrow().clone();
        if metrics.current_leader != Some(links.node.0) {
            return Err(ChangeError::NotLeader { leader: metrics.current_leader.map(NodeId) });
        }
        if !metrics.membership_config.membership().voter_ids().any(|voter| voter == to.0) {
            return Err(ChangeError::Unknown { node: to });
        }
        let held = tokio::time::timeout(TAKE_OVER_WAIT, self.inner.proposer.hold()).await;
        let _held = held.map_err(|_| ChangeError::Unavailable)?;
        let metrics = raft.metrics().borrow().clone();
        let message = wire::take_over(links.group, &metrics.vote, metrics.last_applied.as_ref());
        let answer = links.transport.call(to, message, TAKE_OVER_WAIT).await;
        let answer = answer.map_err(|_| ChangeError::Unavailable)?;
        match wire::take_take_over_answer(&answer) {
            Ok(TakeOverAnswer::Stands) => {}
            Ok(TakeOverAnswer::Behind) => return Err(ChangeError::Behind { node: to }),
            Ok(TakeOverAnswer::Declines) | Err(_) => return Err(ChangeError::Unavailable),
        }
        let mut status = self.inner.status.clone();
        let moved = status.wait_for(|status| status.leader == Some(to));
        match tokio::time::timeout(self.inner.leader_wait, moved).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(ChangeError::Unavailable),
        }
    }
}

fn change_error(error: RaftError<u64, ClientWriteError<u64, BasicNode>>) -> ChangeError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            ChangeError::NotLeader { leader: forward.leader_id.map(NodeId) }
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => match error {
            ChangeMembershipError::InProgress(_) => ChangeError::InProgress,
            ChangeMembershipError::EmptyMembership(_) => ChangeError::Unavailable,
            ChangeMembershipError::LearnerNotFound(it) => ChangeError::Unknown { node: NodeId(it.node_id) },
        },
        RaftError::Fatal(fatal) => ChangeError::Fatal { why: chain(&fatal).into() },
    }
}
