//! The node itself: whether it can serve, who it is, what it measures.

use std::time::Instant;

use caxton_raft::NodeIdentity;
use caxton_raft::deploy_log::DeployLog;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;

use crate::artifacts::Artifacts;
use crate::authn::Access;
use crate::authz::{ClusterPermit, Measure};
use crate::catalog::Catalogs;
use crate::cluster::Cluster;

/// Why a node cannot serve, yet or any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// It was asked to stop.
    #[error("the node is stopping")]
    Stopping,
    /// Nobody leads the deploy log, as far as it knows.
    #[error("the deploy log has no leader yet")]
    NoLeader,
    /// A shard has had no leader since the node started.
    #[error("a shard has had no leader yet")]
    ShardUnmet,
    /// A shard has lost its leader for good, as far as the node sees.
    #[error("a shard has had no leader for longer than an election takes, as far as this node sees")]
    ShardLost,
    /// The deploy log does not count the node among its members.
    #[error("the cluster has not brought this node up to date yet")]
    NotAMember,
    /// Revisions that are live are not loaded.
    #[error("what is deployed is still being loaded")]
    Loading,
}

/// What a node says of itself.
pub struct NodeInfo {
    pub node: String,
    /// Its cluster's id.
    pub cluster: String,
    /// Since when it runs, in seconds.
    pub uptime_s: u64,
    /// The newest entry of the deploy log that it has applied.
    pub applied: u64,
}

/// What a [`Node`] looks at.
pub struct Parts {
    /// Who it is.
    pub identity: NodeIdentity,
    /// When it started.
    pub started: Instant,
    /// The deploy log.
    pub log: DeployLog,
    /// The cluster as it sees it.
    pub cluster: Cluster,
    /// What it serves.
    pub catalogs: Catalogs,
    /// What it has on disk.
    pub artifacts: Artifacts,
    /// What it measures.
    pub metrics: PrometheusHandle,
    /// Cancelled when it stops.
    pub stop: CancellationToken,
}

/// This node, for those who look after it.
pub struct Node(Parts);

impl Node {
    /// The node that is made of these parts.
    pub fn new(parts: Parts) -> Node {
        Node(parts)
    }

    /// What it is made of, and what keeps each part from serving; nothing where it serves.
    pub fn components(&self) -> [(&'static str, Option<NotReady>); 4] {
        let Parts { log, cluster, catalogs, .. } = &self.0;
        let when = |holds: bool, why: NotReady| holds.then_some(why);
        let shards = when(!cluster.shards_met(), NotReady::ShardUnmet);
        [
            ("log", when(log.status().borrow().leader.is_none(), NotReady::NoLeader)),
            ("shards", shards.or_else(|| when(cluster.leaderless().is_some(), NotReady::ShardLost))),
            ("membership", when(!cluster.belongs(), NotReady::NotAMember)),
            ("deployments", when(!*catalogs.settled().borrow(), NotReady::Loading)),
        ]
    }

    /// Whether it can serve: the log has a leader, no shard has been without one for longer than elections take, and
    /// everything that was live when it started is loaded.
    pub fn ready(&self) -> Result<(), NotReady> {
        if self.0.stop.is_cancelled() {
            return Err(NotReady::Stopping);
        }
        self.components().into_iter().find_map(|(_, why)| why).map_or(Ok(()), Err)
    }

    /// Who it is, for whoever has a token.
    pub fn info(&self, _access: &Access) -> NodeInfo {
        let Parts { identity, started, log, .. } = &self.0;
        NodeInfo {
            node: identity.node.to_string(),
            cluster: identity.cluster.to_string(),
            uptime_s: started.elapsed().as_secs(),
            applied: *log.applied().borrow(),
        }
    }

    /// What it measures, in Prometheus' text format.
    pub fn metrics(&self, _permit: &ClusterPermit<Measure>) -> String {
        self.read_gauges();
        self.0.metrics.render()
    }

    /// Sets the gauges that are read off rather than counted.
    fn read_gauges(&self) {
        let Parts { started, log, catalogs, artifacts, .. } = &self.0;
        let set = |name: &'static str, value: f64| metrics::gauge!(name).set(value);
        let status = log.status().borrow().clone();
        set("caxton_log_applied_index", *log.applied().borrow() as f64);
        set("caxton_log_term", status.term as f64);
        set("caxton_log_is_leader", f64::from(u8::from(status.role == caxton_raft::Role::Leader)));
        let (workspaces, deployments, tokens) = log.read(|state| {
            let live = state.workspaces().map(|(_, workspace)| workspace.live().0);
            (state.workspaces().len(), live.sum::<u64>(), state.tokens().len())
        });
        set("caxton_workspaces", workspaces as f64);
        metrics::counter!("caxton_deployments_total").absolute(deployments);
        set("caxton_tokens", tokens as f64);
        let agents: usize = catalogs.all().iter().map(|catalog| catalog.agents().len()).sum();
        set("caxton_agents", agents as f64);
        if let Some(free) = artifacts.space().free_bytes() {
            set("caxton_disk_free_bytes", free as f64);
        }
        set("caxton_uptime_seconds", started.elapsed().as_secs_f64());
        read_process(&set);
    }
}

fn read_process(set: &impl Fn(&'static str, f64)) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    if let Some(kib) = resident.and_then(|kib| kib.parse::<f64>().ok()) {
        set("process_resident_memory_bytes", kib * 1024.0);
    }
    let count = |dir: &str| std::fs::read_dir(dir).map(Iterator::count).ok();
    if let Some(fds) = count("/proc/self/fd") {
        set("process_open_fds", fds as f64);
    }
    if let Some(threads) = count("/proc/self/task") {
        set("process_threads", threads as f64);
    }
}
