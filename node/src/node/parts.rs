//! What a node is made of once it is open. Whoever comes from outside meets the edges, which have no more of it than the
//! application.

use std::sync::Arc;

use caxton_raft::NodeIdentity;
use caxton_raft::deploy_log::DeployLog;
use metrics_exporter_prometheus::PrometheusHandle;

use crate::activity::Activity;
use crate::app::post::Post;
use crate::artifacts::Artifacts;
use crate::capability::Router;
use crate::catalog::Catalogs;
use crate::cluster::Cluster;
use crate::cluster::keyring::Keyring;
use crate::config::Config;
use crate::deploy::Deployer;
use crate::invoke::Invoker;
use crate::mailbox::Mailboxes;
use crate::replicas::Replicas;

/// The parts of a node, for those who start it, stop it and test it.
pub struct Parts {
    pub config: Arc<Config>,
    /// Who this node is.
    pub identity: NodeIdentity,
    /// What is deployed, and which tokens there are.
    pub log: DeployLog,
    /// What this node serves.
    pub catalogs: Catalogs,
    pub artifacts: Artifacts,
    /// Brings content here that only other nodes have.
    pub replicas: Replicas,
    pub deployer: Deployer,
    /// Finds the agent that a message is for.
    pub routing: Router,
    /// Brings messages to other workspaces.
    pub post: Post,
    /// What happens in each workspace on this node.
    pub activity: Activity,
    /// What the node measures.
    pub metrics: PrometheusHandle,
    /// The nodes, and who leads what.
    pub cluster: Cluster,
    /// The keys that all nodes hold.
    pub keyring: Keyring,
    pub invoker: Invoker,
    /// What agents and people send each other.
    pub mailboxes: Mailboxes,
}
