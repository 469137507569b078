//! Takes a node out of the cluster: it goes when no group counts it any more, and not before.
//!
//! The log says which node is being taken out, one at a time ([`RetireNode`]). The leaders of the groups see it there, take
//! its vote and its lead from it ([`policy`](super::policy)), and it follows on meanwhile. The node that leads the deploy
//! log asks each group until none counts on the node, sees that what is deployed is on those that stay, and only then
//! proposes that it is out. Whoever leads the deploy log next goes on where the one before stopped.

use std::collections::BTreeSet;
use std::time::Duration;

use caxton_proto::log::cluster::{Command, Outcome, RemoveNode, RetireNode, Retirement};
use caxton_proto::{Digest, NodeId, WorkspaceId};
use caxton_raft::deploy_log::{self, DeployLog};
use caxton_raft::{GroupId, Role};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{Cluster, ClusterError};
use crate::errors::chain;
use crate::replicas::{EnsureError, Replicas};
use crate::time::now_ms;

/// How long a node is being taken out after somebody last asked for it; then it stays.
const RETIRE_FOR_MS: u64 = 60_000;
/// What has to be left of that when the node goes, because the clocks of nodes differ.
const CLOCKS_DIFFER_MS: u64 = 10_000;
/// How long one request waits for the node to be out. Whoever asks again goes on waiting.
const REQUEST_WAIT: Duration = Duration::from_secs(5);
/// How often the groups are asked: they change without telling the deploy log.
const TICK: Duration = Duration::from_millis(200);

/// Sees that the node that is being taken out goes.
pub struct Retirements {
    pub cluster: Cluster,
    /// Which node is being taken out, the deploy log says.
    pub log: DeployLog,
    /// Brings content to those that stay.
    pub replicas: Replicas,
}

impl Retirements {
    /// Works until it is stopped.
    pub async fn run(self, stop: CancellationToken) {
        let (mut status, mut applied) = (self.log.status(), self.log.applied());
        // Whose content is on those that stay.
        let mut safe_without = None;
        loop {
            let leads = status.borrow_and_update().role == Role::Leader;
            applied.borrow_and_update();
            let retirement = self.log.read(|state| state.cluster().retirement().cloned());
            let due = retirement.filter(|it| leads && now_ms() < it.until_ms && it.node != self.cluster.own());
            if let Some(retirement) = &due {
                let step = self.step(retirement, &mut safe_without);
                if stop.run_until_cancelled(step).await.is_none() {
                    return;
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = status.changed() => if changed.is_err() { return },
                changed = applied.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(TICK), if due.is_some() => {}
            }
        }
    }

    async fn step(&self, retirement: &Retirement, safe_without: &mut Option<NodeId>) {
        let Retirement { node, until_ms, actor } = retirement.clone();
        for (id, group) in self.cluster.groups() {
            match group.counts(node).await {
                Ok(false) => {}
                Ok(true) => return debug!(%node, group = id.0, "the group still counts the node"),
                Err(error) => return debug!(%node, group = id.0, error = chain(&error), "the group cannot be asked"),
            }
        }
        if *safe_without != Some(node) {
            if !self.spread().await {
                return;
            }
            *safe_without = Some(node);
        }
        if now_ms().saturating_add(CLOCKS_DIFFER_MS) >= until_ms {
            return debug!(%node, "nobody asks for the node to be taken out any more");
        }
        let remove = RemoveNode { node, retired: true, time_ms: now_ms(), actor: actor.clone() };
        match self.cluster.propose(Command::RemoveNode(remove)).await {
            Ok(Outcome::NodeRemoved) => info!(%node, actor, "a node was taken out: no group counts it any more"),
            Ok(outcome) => debug!(%node, ?outcome, "a node was not taken out"),
            Err(error) => debug!(%node, error = chain(&error), "a node was not taken out yet"),
        }
    }

    /// Brings the content of every kept revision to a majority of those that vote without the node; says whether it is
    /// there. What no node has any more holds nobody back.
    async fn spread(&self) -> bool {
        let Some(group) = self.cluster.groups().get(&deploy_log::GROUP) else { return false };
        let voters: BTreeSet<NodeId> = group.members().borrow().voters.clone();
        for (workspace, root) in self.kept() {
            match self.replicas.fetch_all(&workspace, root).await {
                Ok(_) => {}
                Err(error @ (EnsureError::Nowhere { .. } | EnsureError::List(_) | EnsureError::Node(_))) => {
                    warn!(%workspace, %root, error = chain(&error), "content of a kept revision is on no node");
                    continue;
                }
                Err(error) => {
                    warn!(%workspace, %root, error = chain(&error), "a kept revision is not complete on this node yet");
                    return false;
                }
            }
            if let Err(error) = self.replicas.spread(&workspace, root, &voters).await {
                warn!(%workspace, %root, error = chain(&error), "a kept revision is not on a majority yet");
                return false;
            }
        }
        true
    }

    fn kept(&self) -> Vec<(WorkspaceId, Digest)> {
        let kept: BTreeSet<(WorkspaceId, Digest)> = self.log.read(|state| {
            let roots = state.workspaces().flat_map(|(id, workspace)| {
                workspace.kept().map(|deployment| (id.clone(), deployment.root)).collect::<Vec<_>>()
            });
            roots.collect()
        });
        kept.into_iter().collect()
    }
}

impl Cluster {
    /// Takes a node out for good and returns once no group counts it any more and it is out. It stays when nobody asks
    /// for a minute and it is not out by then.
    ///
    /// # Errors
    ///
    /// [`ClusterError::Retires`] when it takes longer than a request may wait, because groups count the node still or
    /// another one goes first: whoever asks again waits on.
    pub async fn remove(&self, node: NodeId, actor: &str) -> Result<(), ClusterError> {
        let waited = tokio::time::timeout(REQUEST_WAIT, self.out(node, actor)).await;
        waited.unwrap_or_else(|_| Err(self.still_retires(node)))
    }

    /// Asks for the node to be taken out, again when that is forgotten, and waits until it is.
    async fn out(&self, node: NodeId, actor: &str) -> Result<(), ClusterError> {
        let mut applied = self.log().applied();
        let mut asked = false;
        loop {
            applied.borrow_and_update();
            let departure = self.departure();
            if node == self.own() && departure.out.is_cancelled() {
                // Its own log need not have it: nobody brings that any more.
                departure.told.cancel();
                return Ok(());
            }
            let (belongs, departed, retiring) = self.log().read(|state| {
                let cluster = state.cluster();
                (cluster.member(node).is_some(), cluster.is_departed(node), cluster.retiring(now_ms()))
            });
            if departed && node != self.own() {
                return Ok(());
            }
            // A node that goes says that it is out when it knows that nobody refuses it for nothing.
            if departed {
                _ = tokio::time::timeout(TICK, departure.out.cancelled()).await;
                continue;
            }
            if !belongs {
                return Err(ClusterError::NoSuchNode { node });
            }
            // After the first time, what the log says is waited for on whichever node leads it.
            if !asked || retiring.is_none() {
                let time_ms = now_ms();
                let until_ms = time_ms.saturating_add(RETIRE_FOR_MS);
                let retire = RetireNode { node, until_ms, time_ms, actor: actor.to_owned() };
                match self.propose(Command::RetireNode(retire)).await {
                    Ok(Outcome::NodeRetires) => {
                        if !asked {
                            info!(%node, actor, "a node is being taken out");
                        }
                        asked = true;
                    }
                    Ok(Outcome::AnotherRetires(_)) => {}
                    Ok(Outcome::NodeRemoved) => return Ok(()),
                    Ok(Outcome::NoSuchNode) => return Err(ClusterError::NoSuchNode { node }),
                    Ok(Outcome::LastNode) => return Err(ClusterError::LastNode),
                    Ok(_) => return Err(ClusterError::Unexpected),
                    // It leads no more, perhaps because it is the one that goes: the next leader goes on.
                    Err(_) if asked => {}
                    Err(error) => return Err(error),
                }
            }
            // Whichever comes first: the log moves, or it is time to look again.
            _ = tokio::time::timeout(TICK * 2, applied.changed()).await;
        }
    }

    /// What a node that is to be taken out waits for.
    fn still_retires(&self, node: NodeId) -> ClusterError {
        let other = self.log().read(|state| state.cluster().retiring(now_ms())).filter(|other| *other != node);
        let counts = |group: &caxton_raft::Group| {
            group.members().borrow().voters.contains(&node)
                || group.status().borrow().leader.is_none_or(|it| it == node)
        };
        let counting = self.groups().iter().filter(|(_, group)| counts(group)).map(|(id, _)| *id);
        ClusterError::Retires { node, first: other, counting: counting.collect() }
    }
}

/// What a node that is to be taken out waits for, in words.
pub(super) fn waits_for(first: Option<NodeId>, counting: &[GroupId]) -> String {
    match (first, counting) {
        (Some(first), _) => format!("node {first} is being taken out, and goes first"),
        (None, []) => "what is deployed is brought to those that stay".to_owned(),
        (None, [one]) => format!("group {} still counts on it", one.0),
        (None, many) => {
            let many: Vec<String> = many.iter().map(|id| id.0.to_string()).collect();
            format!("groups {} still count on it", many.join(", "))
        }
    }
}
