//! The cluster: which nodes belong to it, how one joins, who votes in the groups of the log, and who leads them.
//!
//! Facts of who belongs are commands of the deploy log; who votes is each group's own membership, which a reconciler on
//! its leader brings in line; what gossip says is a hint. A node that stands alone is a cluster of one: nothing here
//! asks whether there are others.

pub mod policy;

pub mod reconcile;

pub mod spread;

pub mod retire;

pub mod majority;

pub mod keyring;

pub mod join;

pub mod service;

pub mod intake;

pub mod hearsay;

pub mod watch;

pub mod shard_count;

mod format;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use caxton_gossip::{Fact, Members as Heard};
use caxton_proto::NodeId;
use caxton_proto::log::cluster::{Command, IssueJoinToken, NodeFacts, Outcome};
use caxton_proto::log::{self};
use caxton_raft::deploy_log::{self, DeployLog};
use caxton_raft::{ChangeError, Group, GroupId, NodeIdentity, Role};
use tokio::sync::watch::Receiver;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::api::cluster::{ClusterGroup, ClusterKey, ClusterLag, ClusterMember, ClusterStatus};
use crate::errors::chain;
use crate::files::FileError;
use crate::peers::Peers;
use crate::time::{now_ms, rfc3339};
use crate::trust::JoinToken;

/// The file that names the log of this node, so that another one, or none, is noticed.
pub const LOG_MARK_FILE: &str = "raft-id";
/// How long a node that stops tries to hand over what it leads.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a group may be without a leader before the node says that it cannot serve: several elections.
const LEADERLESS_MAX: Duration = Duration::from_secs(10);
/// How long a node that is to lead may take to get its last entries.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause before it is asked again.
const CATCH_UP_PAUSE: Duration = Duration::from_millis(10);

/// The cluster as a node sees it. A clone is a handle on the same.
#[derive(Clone)]
pub struct Cluster(Arc<Inner>);

struct Inner {
    identity: NodeIdentity,
    facts: NodeFacts,
    log: DeployLog,
    groups: BTreeMap<GroupId, Group>,
    peers: Peers,
    /// Nothing where there is no gossip.
    heard: Option<Receiver<Heard>>,
    /// Whether peers can come in.
    open: bool,
    departure: Departure,
    /// When this node started, in milliseconds since 1970.
    started_ms: u64,
    /// Every group has had a leader since this node started.
    met: AtomicBool,
    /// Since when each group that has no leader was seen without.
    unled: Mutex<BTreeMap<GroupId, Instant>>,
}

/// What this node knows of its own way out of the cluster.
#[derive(Debug, Clone, Default)]
pub struct Departure {
    /// Cancelled when it was taken out, as somebody asked.
    pub out: CancellationToken,
    /// Cancelled when somebody who asked it was told so.
    pub told: CancellationToken,
    /// Cancelled when it has nothing more to do.
    pub left: CancellationToken,
}

/// What a cluster is made of.
pub struct Parts {
    /// Who this node is.
    pub identity: NodeIdentity,
    /// What it says of itself.
    pub facts: NodeFacts,
    /// The deploy log.
    pub log: DeployLog,
    /// Every group of the log, the deploy log's too.
    pub groups: BTreeMap<GroupId, Group>,
    /// The way to the others.
    pub peers: Peers,
    /// Who is heard of; nothing where there is no gossip.
    pub heard: Option<Receiver<Heard>>,
    /// Whether peers can come in.
    pub open: bool,
}

/// A change of the cluster was not made.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The log did not take it.
    #[error(transparent)]
    Log(#[from] deploy_log::ProposeError),
    /// A group's leadership was not changed.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// No secret could be drawn.
    #[error("a join token cannot be made")]
    Random(#[from] FileError),
    /// This node takes no peers.
    #[error("this node takes no peers: `cluster.bind` is not set")]
    Closed,
    /// There are too many join tokens.
    #[error("there are as many join tokens as there may be")]
    TooManyTokens,
    /// There is no such node.
    #[error("no node {node} belongs to the cluster")]
    NoSuchNode { node: NodeId },
    /// It is the only node.
    #[error("it is the only node of the cluster")]
    LastNode,
    /// The node is not out yet.
    #[error("node {node} is not out of the cluster yet: {}", retire::waits_for(*.first, .counting))]
    Retires {
        node: NodeId,
        /// Another one that is being taken out, and has to be gone first.
        first: Option<NodeId>,
        /// The groups in which it votes or leads, or that have no leader, as this node sees them.
        counting: Vec<GroupId>,
    },
    /// There is no such group.
    #[error("there is no group {}", group.0)]
    NoSuchGroup { group: GroupId },
    /// Nobody could lead the group.
    #[error("no other voter of group {} is near enough to lead it", group.0)]
    NoHeir { group: GroupId },
    /// The log answered something that does not fit.
    #[error("the log's answer does not fit")]
    Unexpected,
}

impl Cluster {
    /// A cluster of these parts.
    pub fn new(parts: Parts) -> Cluster {
        let Parts { identity, facts, log, groups, peers, heard, open } = parts;
        Cluster(Arc::new(Inner {
            identity,
            facts,
            log,
            groups,
            peers,
            heard,
            open,
            departure: Departure::default(),
            started_ms: now_ms(),
            met: AtomicBool::new(false),
            unled: Mutex::default(),
        }))
    }

    pub fn own(&self) -> NodeId {
        self.0.identity.node
    }

    /// The nodes that belong to the cluster, but this one.
    pub fn others(&self) -> BTreeSet<NodeId> {
        let members: BTreeSet<NodeId> =
            self.0.log.read(|state| state.cluster().members().map(|member| member.facts.node).collect());
        members.into_iter().filter(|node| *node != self.own()).collect()
    }

    /// The way to the other nodes.
    pub fn peers(&self) -> &Peers {
        &self.0.peers
    }

    /// Every group of the log.
    pub fn groups(&self) -> &BTreeMap<GroupId, Group> {
        &self.0.groups
    }

    /// Who leads a group, other than `except`; waits for an election, at most `wait`.
    pub async fn leader(&self, group: GroupId, except: Option<NodeId>, wait: Duration) -> Option<NodeId> {
        let mut status = self.0.groups.get(&group)?.status();
        let led = status.wait_for(|status| status.leader.is_some() && status.leader != except);
        tokio::time::timeout(wait, led).await.ok()?.ok()?.leader
    }

    /// Whether the deploy log counts this node among those that follow it, and so brings it what is deployed.
    pub fn belongs(&self) -> bool {
        let Some(group) = self.0.groups.get(&deploy_log::GROUP) else { return false };
        let members = group.members().borrow().clone();
        members.voters.contains(&self.own()) || members.learners.contains(&self.own())
    }

    /// Whether every group has had a leader since this node started. One that lost its leader later is no reason to
    /// turn away what concerns the others.
    pub fn shards_met(&self) -> bool {
        let met = || self.0.groups.values().all(|group| group.status().borrow().leader.is_some());
        let now = self.0.met.load(Ordering::Relaxed) || met();
        self.0.met.store(now, Ordering::Relaxed);
        now
    }

    /// A group that this node has seen without a leader for longer than any election takes: the node is cut off from those
    /// who have one, or a part of it has stopped, and others serve the group better. To be asked every few seconds.
    pub fn leaderless(&self) -> Option<GroupId> {
        let led = self.0.groups.iter().map(|(id, group)| (*id, group.status().borrow().leader.is_some()));
        let mut unled = self.0.unled.lock().unwrap_or_else(PoisonError::into_inner);
        leaderless(&mut unled, led, Instant::now())
    }

    /// Makes a join token.
    pub async fn issue(&self, ttl: Duration, uses: u32, actor: &str) -> Result<(JoinToken, u64), ClusterError> {
        if !self.0.open {
            return Err(ClusterError::Closed);
        }
        let token = JoinToken::mint(self.0.peers.credentials().pin())?;
        let time_ms = now_ms();
        let expires_ms = time_ms.saturating_add(ttl.as_millis() as u64);
        let (id, hash) = (token.id.clone(), token.hash());
        let issue = IssueJoinToken { id, hash, uses, expires_ms, time_ms, actor: actor.to_owned() };
        match self.propose(Command::IssueJoinToken(issue)).await? {
            Outcome::JoinTokenIssued => Ok((token, expires_ms)),
            Outcome::TooManyJoinTokens => Err(ClusterError::TooManyTokens),
            _ => Err(ClusterError::Unexpected),
        }
    }

    /// Lets another node lead a group that this one leads; says which.
    pub async fn hand_over(&self, id: GroupId, to: Option<NodeId>) -> Result<NodeId, ClusterError> {
        let group = self.0.groups.get(&id).ok_or(ClusterError::NoSuchGroup { group: id })?;
        let voters = group.members().borrow().voters.clone();
        let ready = reconcile::ready(group);
        let retiring = self.0.log.read(|state| state.cluster().retiring(now_ms()));
        let could = |node: &NodeId| *node != self.own() && ready.contains(node) && retiring != Some(*node);
        let near = voters.iter().copied().find(could);
        let to = to.or(near).ok_or(ClusterError::NoHeir { group: id })?;
        let until = Instant::now() + CATCH_UP_TIMEOUT;
        loop {
            match group.hand_over(to).await {
                // What it lacks is on its way.
                Err(ChangeError::Behind { .. }) if Instant::now() < until => {
                    tokio::time::sleep(CATCH_UP_PAUSE).await;
                }
                moved => break moved?,
            }
        }
        info!(group = id.0, %to, "handed over");
        Ok(to)
    }

    /// The groups that this node leads.
    pub fn leads(&self) -> Vec<GroupId> {
        let leads = self.0.groups.iter().filter(|(_, group)| group.status().borrow().role == Role::Leader);
        leads.map(|(id, _)| *id).collect()
    }

    /// Hands over all that this node leads, because it is about to stop. What nobody can take is left to an election.
    pub async fn drain(&self) {
        let until = Instant::now() + DRAIN_TIMEOUT;
        for id in self.leads() {
            match tokio::time::timeout_at(until, self.hand_over(id, None)).await {
                Ok(Ok(_)) | Ok(Err(ClusterError::NoHeir { .. })) => {}
                Ok(Err(error)) => warn!(group = id.0, error = chain(&error), "a group was not handed over"),
                Err(_) => warn!(group = id.0, "a group was not handed over in time"),
            }
        }
    }

    /// This node's way out of the cluster.
    pub fn departure(&self) -> &Departure {
        &self.0.departure
    }

    /// When this node started, in milliseconds since 1970.
    fn started_ms(&self) -> u64 {
        self.0.started_ms
    }

    /// Whether gossip takes the node for alive.
    fn gossips(&self, node: NodeId) -> bool {
        self.0.heard.as_ref().is_some_and(|heard| heard.borrow().contains_key(&node))
    }

    /// The deploy log.
    fn log(&self) -> &DeployLog {
        &self.0.log
    }

    async fn propose(&self, command: Command) -> Result<Outcome, ClusterError> {
        match self.0.log.propose(&log::Command::Cluster(command)).await?.outcome {
            log::Outcome::Cluster(outcome) => Ok(outcome),
            _ => Err(ClusterError::Unexpected),
        }
    }

    /// Where nodes can join.
    pub fn join_addresses(&self) -> Vec<String> {
        // The node that is asked comes first: it is there.
        let own = self.0.facts.peer_address.clone();
        let others = self.0.log.read(|state| {
            state.cluster().members().map(|member| member.facts.peer_address.clone()).collect::<Vec<_>>()
        });
        std::iter::once(own.clone()).chain(others.into_iter().filter(|address| *address != own)).collect()
    }

    /// The nodes and the groups, as this node sees them.
    pub fn status(&self) -> ClusterStatus {
        let heard = self.0.heard.as_ref().map(|heard| heard.borrow().clone());
        let members: Vec<_> = self.0.log.read(|state| state.cluster().members().cloned().collect());
        let member = |member: log::cluster::Member| {
            let log::cluster::Member { facts, joined_ms, join_key: _ } = member;
            let hears = heard.as_ref().and_then(|heard| heard.get(&facts.node));
            let state = match (&heard, hears) {
                _ if facts.node == self.own() => "alive",
                (None, _) => "unknown",
                (Some(_), Some(_)) => "alive",
                (Some(_), None) => "suspect",
            };
            let own = facts.node == self.own();
            let heard_ms = self.0.peers.heard_ms(facts.node).filter(|_| !own);
            ClusterMember {
                node: facts.node.to_string(),
                peer_address: facts.peer_address,
                client_url: facts.client_url,
                version: facts.version,
                format: facts.format.number(),
                joined: rfc3339(joined_ms),
                state: state.to_owned(),
                last_heard: heard_ms.map(rfc3339),
                load: hears.and_then(|hears| hears.fact(&Fact::Load)?.parse().ok()),
            }
        };
        ClusterStatus {
            cluster: self.0.identity.cluster.to_string(),
            node: self.own().to_string(),
            peer_address: self.0.open.then(|| self.0.facts.peer_address.clone()),
            format: self.0.log.format().number(),
            members: members.into_iter().map(member).collect(),
            groups: self.0.groups.iter().map(|(id, group)| group_of(*id, group)).collect(),
            keys: self.0.log.read(|state| state.cluster().keys().map(|key| key_of(state.cluster(), key)).collect()),
        }
    }
}

/// The first group that was without a leader at every look since `LEADERLESS_MAX` and more.
fn leaderless(
    unled: &mut BTreeMap<GroupId, Instant>,
    led: impl Iterator<Item = (GroupId, bool)>,
    now: Instant,
) -> Option<GroupId> {
    for (group, led) in led {
        if led {
            unled.remove(&group);
        } else {
            unled.entry(group).or_insert(now);
        }
    }
    unled.iter().find(|(_, since)| now.duration_since(**since) > LEADERLESS_MAX).map(|(group, _)| *group)
}

fn key_of(cluster: &deploy_log::Cluster, key: &log::cluster::RotatedKey) -> ClusterKey {
    let log::cluster::RotatedKey { rotated, finished_ms } = key;
    let lacking = cluster.lacking(rotated.id).map(|node| node.to_string());
    ClusterKey {
        key: rotated.kind.to_string(),
        id: format!("{:x}", rotated.id),
        rotated: rfc3339(rotated.time_ms),
        until: rfc3339(rotated.until_ms),
        finished: finished_ms.map(rfc3339),
        lacking: lacking.filter(|_| finished_ms.is_none()).collect(),
    }
}

fn group_of(id: GroupId, group: &Group) -> ClusterGroup {
    let status = group.status().borrow().clone();
    let members = group.members().borrow().clone();
    let names = |nodes: BTreeSet<NodeId>| nodes.iter().map(ToString::to_string).collect();
    let lag = group.lag().into_iter().map(|(node, lag)| ClusterLag {
        node: node.to_string(),
        entries: lag.entries,
        silence_ms: lag.silence.map(|silence| silence.as_millis() as u64),
    });
    ClusterGroup {
        group: id.0,
        leader: status.leader.map(|leader| leader.to_string()),
        term: status.term,
        voters: names(members.voters),
        learners: names(members.learners),
        applied: *group.applied().borrow(),
        lag: lag.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_is_without_a_leader_for_long_is_told_and_an_election_is_not() {
        let (start, mut unled) = (Instant::now(), BTreeMap::new());
        let mut look = |after_s: u64, led: [bool; 2]| {
            let groups = led.into_iter().enumerate().map(|(group, led)| (GroupId(group as u32), led));
            leaderless(&mut unled, groups, start + Duration::from_secs(after_s))
        };
        assert_eq!(look(0, [true, false]), None);
        assert_eq!(look(9, [true, false]), None);
        assert_eq!(look(11, [true, false]), Some(GroupId(1)));
        assert_eq!(look(12, [true, true]), None, "it has one again");
        assert_eq!(look(13, [false, false]), None);
        assert_eq!(look(24, [false, true]), Some(GroupId(0)));
    }
}
