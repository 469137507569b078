//! How a group reaches its other nodes: openraft's requests become messages ([`wire`]), which a [`Transport`] carries to a
//! node by its id. Who a node is and where it listens is the transport's business, and so is that a sender is who it
//! says: a message is believed as far as [`receive`] can check it against that.

mod follower;
pub mod receive;
pub mod send;
pub mod wire;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use caxton_proto::NodeId;
use openraft::error::{
    Fatal, InstallSnapshotError, NetworkError, PayloadTooLarge, RPCError, RaftError, ReplicationClosed, StreamingError,
    Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, SnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::{BasicNode, OptionalSend, Snapshot};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use self::follower::Follower;
use self::wire::{MESSAGE_BYTES_MAX, WireError};
use crate::group_id::GroupId;
use crate::type_config::{RaftEntry, TypeConfig};
use crate::types::{LogId, Vote};

/// How long a leader waits at first before it tries a node again that it could not reach; twice as long each time.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// How long it waits at most.
const BACKOFF_MAX: Duration = Duration::from_millis(800);

type RpcError<E = RaftError<u64>> = RPCError<u64, BasicNode, E>;

/// Carries messages between the nodes of a cluster. The node implements it over its peer connections.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Sends one message to node `to` and waits for its answer, at most `within`. The other side hands the message to
    /// [`Groups::answer`](crate::Groups::answer) and sends back what that returns; its error becomes
    /// [`TransportError::Refused`]. A message has at most [`MESSAGE_BYTES_MAX`] bytes.
    async fn call(&self, to: NodeId, message: Bytes, within: Duration) -> Result<Bytes, TransportError>;

    /// Names nodes whose process has ended, as far as the transport can see: their connections were closed, and nobody
    /// listens where they were. A hint: a group that is led by one of them looks for another leader sooner.
    fn gone(&self) -> Option<broadcast::Receiver<NodeId>> {
        None
    }
}

/// Why a message got no answer.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The node cannot be reached now, or did not answer in time. It may have got the message. The next attempts wait
    /// longer and longer.
    #[error("node {node} cannot be reached")]
    Unreachable {
        /// The node that the message was for.
        node: NodeId,
        /// What went wrong on the way to it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The node is there and does not want the message.
    #[error("the other node refuses the message: {why}")]
    Refused {
        /// Why, as it says.
        why: String,
    },
}

/// The transport of a node that has nobody to talk to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

/// There is no connection to any node.
#[derive(Debug, thiserror::Error)]
#[error("this node stands alone")]
struct StandsAlone;

#[async_trait]
impl Transport for Alone {
    async fn call(&self, to: NodeId, _message: Bytes, _within: Duration) -> Result<Bytes, TransportError> {
        Err(TransportError::Unreachable { node: to, source: StandsAlone.into() })
    }
}

/// What a group's connections share.
pub struct Links {
    pub group: GroupId,
    pub node: NodeId,
    pub transport: Arc<dyn Transport>,
    /// The last entry that the log had when this process opened it.
    found: Option<LogId>,
    /// The vote of the leader that gave this node leave to stand while its own lease still holds.
    leave: Mutex<Option<Vote>>,
    /// The vote of a leader whose process has ended: its lease holds nobody back.
    given_up: Mutex<Option<Vote>>,
    /// When a leader last sent something.
    led: watch::Sender<Option<Instant>>,
    /// The vote of the leader that is not there: it sends nothing, or is this node and no majority answers it.
    absent: watch::Sender<Option<Vote>>,
    /// When each node last answered.
    heard: Mutex<BTreeMap<u64, Instant>>,
    /// Who is sent entries, when this node leads.
    followers: Mutex<BTreeMap<u64, Follower>>,
}

impl Links {
    pub fn new(group: GroupId, node: NodeId, transport: Arc<dyn Transport>, found: Option<LogId>) -> Links {
        let (leave, given_up, led) = (Mutex::default(), Mutex::default(), watch::Sender::default());
        let (heard, followers, absent) = (Mutex::default(), Mutex::default(), watch::Sender::default());
        Links { group, node, transport, found, leave, given_up, led, absent, heard, followers }
    }

    /// What a leader in `term` has to have applied before it answers a read. One that was restarted goes on in its term
    /// and may have acknowledged, in its life before, more than it knows to be committed in this one.
    pub fn found_in(&self, term: u64) -> u64 {
        self.found.filter(|found| found.leader_id.term >= term).map_or(0, |found| found.index)
    }

    /// The leader with `vote` is gone.
    pub fn give_up(&self, vote: Vote) {
        *self.given_up.lock().unwrap_or_else(PoisonError::into_inner) = Some(vote);
    }

    /// Whether the leader with `vote` is gone.
    pub fn is_given_up(&self, vote: &Vote) -> bool {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner).as_ref() == Some(vote)
    }

    /// A leader sent something: whatever was thought of it, it is there.
    pub fn is_led(&self) {
        self.led.send_replace(Some(Instant::now()));
        *self.given_up.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.set_absent(None);
    }

    /// The leader with this vote is not there, or, with nothing, whoever leads is.
    pub fn set_absent(&self, vote: Option<Vote>) {
        self.absent.send_if_modified(|known| std::mem::replace(known, vote) != vote);
    }

    /// The vote of the leader that is not there.
    pub fn absent(&self) -> watch::Receiver<Option<Vote>> {
        self.absent.subscribe()
    }

    /// How long ago a leader last sent something, if one ever did.
    pub fn unled(&self) -> Option<Duration> {
        self.led.borrow().map(|at| at.elapsed())
    }

    /// Waits until a leader sends something.
    pub async fn led_again(&self) {
        // It cannot be closed: it is here.
        _ = self.led.subscribe().changed().await;
    }

    /// The leader with `vote` wants this node to lead after it.
    pub fn give_leave(&self, vote: Vote) {
        *self.leave.lock().unwrap_or_else(PoisonError::into_inner) = Some(vote);
    }

    /// The leave that this node has for an election: it holds for the term right after that of the leader who gave it.
    fn leave(&self, election: &Vote) -> Option<Vote> {
        let leave = *self.leave.lock().unwrap_or_else(PoisonError::into_inner);
        leave.filter(|leave| leave.leader_id.term.checked_add(1) == Some(election.leader_id.term))
    }

    /// A connection begins to send entries to a node.
    fn follows(&self, node: u64) -> Follower {
        let follower = Follower::default();
        self.followers.lock().unwrap_or_else(PoisonError::into_inner).insert(node, follower.clone());
        follower
    }

    /// Whether this node has sent entries to anyone.
    pub fn has_followers(&self) -> bool {
        !self.followers.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Sends `entries`, which the leader with `vote` has just put into its log, to those who have all before them.
    pub fn send_ahead(self: &Arc<Self>, vote: &Vote, entries: &[RaftEntry]) {
        for (node, follower) in self.followers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            follower.send_ahead(self, *node, vote, entries);
        }
    }

    fn heard(&self, node: u64) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).insert(node, Instant::now());
    }

    /// How long ago a node last answered, if it ever did.
    pub fn silence(&self, node: u64) -> Option<Duration> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner).get(&node).copied();
        heard.map(|at| at.elapsed())
    }

    /// Whether a majority of this node and the `others` that vote, itself included, has answered it within `patience`.
    pub fn is_followed(&self, others: &[NodeId], patience: Duration) -> bool {
        let answers = |node: &&NodeId| self.silence(node.0).is_some_and(|silence| silence <= patience);
        others.iter().filter(answers).count() >= others.len().div_ceil(2)
    }
}

/// Makes the connections of a group.
pub struct Peers(pub Arc<Links>);

impl RaftNetworkFactory<TypeConfig> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, _node: &BasicNode) -> Peer {
        Peer { links: Arc::clone(&self.0), node: target, follower: None }
    }
}

/// Another node of a group.
pub struct Peer {
    links: Arc<Links>,
    node: u64,
    /// What it was sent, once it was sent something: openraft makes connections for other things as well.
    follower: Option<Follower>,
}

/// Why a request got no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("the answer of node {node:x} is of no use")]
    Answer {
        node: u64,
        #[source]
        source: WireError,
    },
}

impl<E: std::error::Error> From<CallError> for RpcError<E> {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Transport(TransportError::Unreachable { .. }) => RPCError::Unreachable(Unreachable::new(&error)),
            CallError::Transport(TransportError::Refused { .. }) | CallError::Answer { .. } => {
                RPCError::Network(NetworkError::new(&error))
            }
        }
    }
}

impl Peer {
    /// Sends a message and reads the answer, which `useful` finds possible.
    async fn call<A>(
        &self,
        message: Bytes,
        within: Duration,
        read: impl FnOnce(&[u8]) -> Result<A, WireError>,
        useful: impl FnOnce(&A) -> bool,
    ) -> Result<A, CallError> {
        let answer = self.links.transport.call(NodeId(self.node), message, within).await?;
        let answer = read(&answer).and_then(|it| if useful(&it) { Ok(it) } else { Err(WireError::Shape) });
        let answer = answer.map_err(|source| CallError::Answer { node: self.node, source })?;
        self.links.heard(self.node);
        Ok(answer)
    }
}

impl RaftNetwork<TypeConfig> for Peer {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RpcError> {
        let follower = self.follower.get_or_insert_with(|| self.links.follows(self.node)).clone();
        let within = option.hard_ttl();
        if follower.is_commit_only(&rpc) {
            follower.tell_later(&self.links, self.node, rpc, within);
            return Ok(AppendEntriesResponse::Success);
        }
        let sent = rpc.entries.last().map(|entry| entry.log_id).or(rpc.prev_log_id);
        if let Some(answers) = follower.begin(&rpc, within)
            && let Some(answer) = follower::heard(self.node, rpc.vote, answers).await
        {
            let answer = answer?;
            self.links.heard(self.node);
            follower.answered(rpc.vote, sent, &answer);
            let commit = AppendEntriesRequest { prev_log_id: sent, entries: Vec::new(), ..rpc };
            if follower.is_commit_only(&commit) {
                follower.tell_later(&self.links, self.node, commit, within);
            }
            return Ok(answer);
        }
        let message = wire::append(self.links.group, &rpc);
        if message.len() > MESSAGE_BYTES_MAX && rpc.entries.len() > 1 {
            return Err(RPCError::PayloadTooLarge(PayloadTooLarge::new_entries_hint(rpc.entries.len() as u64 / 2)));
        }
        // openraft takes an answer that cannot be for its own mistake, and would panic.
        let useful = |answer: &AppendEntriesResponse<u64>| match answer {
            AppendEntriesResponse::Success => true,
            AppendEntriesResponse::PartialSuccess(matching) => *matching >= rpc.prev_log_id && *matching <= sent,
            AppendEntriesResponse::Conflict => rpc.prev_log_id.is_some(),
            AppendEntriesResponse::HigherVote(vote) => *vote > rpc.vote,
        };
        follower.sends(&rpc, message.len());
        let answer = self.call(message, within, wire::take_append_answer, useful).await?;
        follower.answered(rpc.vote, sent, &answer);
        Ok(answer)
    }

    /// Never called: [`RaftNetwork::full_snapshot`] sends snapshots in chunks of our own.
    async fn install_snapshot(
        &mut self,
        _rpc: InstallSnapshotRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, RpcError<RaftError<u64, InstallSnapshotError>>> {
        let error = TransportError::Refused { why: "snapshots travel in chunks".to_owned() };
        Err(CallError::from(error).into())
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<TypeConfig, Fatal<u64>>> {
        send::snapshot(self, vote, snapshot, cancel).await
    }

    async fn vote(&mut self, rpc: VoteRequest<u64>, option: RPCOption) -> Result<VoteResponse<u64>, RpcError> {
        let leave = self.links.leave(&rpc.vote);
        let message = wire::vote(self.links.group, &rpc, leave.as_ref());
        Ok(self.call(message, option.hard_ttl(), wire::take_vote_answer, |_| true).await?)
    }

    fn backoff(&self) -> Backoff {
        let waits = std::iter::successors(Some(BACKOFF_MIN), |wait| Some((*wait * 2).min(BACKOFF_MAX)));
        Backoff::new(waits)
    }
}
