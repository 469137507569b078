//! The cluster: who belongs and who leads, join tokens, taking nodes out, handing over, keys and backups.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use caxton_proto::NodeId;
use caxton_proto::log::cluster::KeyKind;
use caxton_raft::GroupId;
use tokio::sync::mpsc;
use tracing::info;

use crate::api::cluster::ClusterStatus;
use crate::artifacts::DiskFull;
use crate::authz::{BackUpCluster, ClusterPermit, ManageCluster, ReadCluster};
use crate::backup::key::RecoveryKey;
use crate::backup::write::{BackupError, Source};
use crate::cluster::keyring::{Keyring, RotateError};
use crate::cluster::{self, ClusterError};
use crate::trust::join_token::JoinToken;

/// How long a join token is good unless told.
const TTL: Duration = Duration::from_secs(60 * 60);
/// How long a join token is good at most.
const TTL_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How many nodes may join by one token at most.
const USES_MAX: u32 = 64;
/// How long the keys before are good unless told.
const OVERLAP: Duration = Duration::from_secs(24 * 60 * 60);
/// How long the keys before are good at most.
const OVERLAP_MAX: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// A join token that was made.
pub struct IssuedJoinToken {
    /// The token, which is shown once.
    pub token: JoinToken,
    /// When it expires, in milliseconds since 1970.
    pub expires_ms: u64,
    /// How many nodes may join by it.
    pub uses: u32,
    /// Where nodes can join, as `HOST:PORT`.
    pub join_at: Vec<String>,
}

/// Why a join token was not made.
#[derive(Debug, thiserror::Error)]
pub enum JoinTokenError {
    /// It would be good for too long, or for too many nodes, or for none.
    #[error(
        "a join token is good for 1 to {} seconds and 1 to {USES_MAX} nodes, and {ttl_s} seconds and {uses} nodes were asked for",
        TTL_MAX.as_secs()
    )]
    Limits {
        /// Seconds that were asked for.
        ttl_s: u64,
        /// Nodes that were asked for.
        uses: u32,
    },
    /// The disk has too little space for new work.
    #[error(transparent)]
    Full(#[from] DiskFull),
    /// The cluster did not make it.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// Why a rotation was not begun or finished.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// Both keys would be good for too long, or not at all.
    #[error("both keys are good for 1 to {} seconds, and {overlap_s} were asked for", OVERLAP_MAX.as_secs())]
    Overlap {
        /// Seconds that were asked for.
        overlap_s: u64,
    },
    /// Nothing is being rotated.
    #[error("no rotation is under way")]
    None,
    /// The keyring refused it.
    #[error(transparent)]
    Rotate(#[from] RotateError),
}

/// The cluster, for those who may see or change it.
pub struct Cluster {
    cluster: cluster::Cluster,
    keyring: Keyring,
    backups: Source,
}

impl Cluster {
    /// This cluster, with the keys that its nodes hold and what backups are written from.
    pub fn new(cluster: cluster::Cluster, keyring: Keyring, backups: Source) -> Cluster {
        Cluster { cluster, keyring, backups }
    }

    /// The nodes and the groups, as this node sees them.
    pub fn status(&self, _permit: &ClusterPermit<ReadCluster>) -> ClusterStatus {
        self.cluster.status()
    }

    /// Makes a token by which nodes join: for an hour and one node unless told.
    pub async fn issue_join_token(
        &self,
        permit: &ClusterPermit<ManageCluster>,
        ttl: Option<Duration>,
        uses: Option<u32>,
    ) -> Result<IssuedJoinToken, JoinTokenError> {
        let (ttl, uses) = (ttl.unwrap_or(TTL), uses.unwrap_or(1));
        if ttl.is_zero() || ttl > TTL_MAX || !(1..=USES_MAX).contains(&uses) {
            return Err(JoinTokenError::Limits { ttl_s: ttl.as_secs(), uses });
        }
        self.backups.artifacts.space().check(0)?;
        let (token, expires_ms) = self.cluster.issue(ttl, uses, permit.subject()).await?;
        info!(id = token.id, uses, actor = permit.subject(), "join token issued");
        Ok(IssuedJoinToken { token, expires_ms, uses, join_at: self.cluster.join_addresses() })
    }

    /// Takes a node out for good.
    pub async fn remove(&self, permit: &ClusterPermit<ManageCluster>, node: NodeId) -> Result<(), ClusterError> {
        self.cluster.remove(node, permit.subject()).await
    }

    /// Lets another node lead a group, or every group that this node leads where none is named: the node `to`, or whichever is
    /// near enough. Says who leads each of them now.
    pub async fn hand_over(
        &self,
        _permit: &ClusterPermit<ManageCluster>,
        group: Option<GroupId>,
        to: Option<NodeId>,
    ) -> Result<Vec<(GroupId, NodeId)>, ClusterError> {
        let groups = group.map_or_else(|| self.cluster.leads(), |group| vec![group]);
        let mut moved = Vec::with_capacity(groups.len());
        for group in groups {
            moved.push((group, self.cluster.hand_over(group, to).await?));
        }
        Ok(moved)
    }

    /// Gives keys that all nodes hold successors. Both are good for a while, a day unless told; says for how long.
    pub async fn rotate(
        &self,
        permit: &ClusterPermit<ManageCluster>,
        kinds: &[KeyKind],
        overlap: Option<Duration>,
    ) -> Result<Duration, RotationError> {
        let overlap = overlap.unwrap_or(OVERLAP);
        if overlap.is_zero() || overlap > OVERLAP_MAX {
            return Err(RotationError::Overlap { overlap_s: overlap.as_secs() });
        }
        for kind in kinds {
            self.keyring.rotate(*kind, overlap, permit.subject()).await?;
        }
        Ok(overlap)
    }

    /// Finishes the rotations of these keys, or of all that are under way where none is named; says of which.
    pub async fn finish_rotation(
        &self,
        permit: &ClusterPermit<ManageCluster>,
        kinds: &[KeyKind],
    ) -> Result<Vec<KeyKind>, RotationError> {
        let kinds = if kinds.is_empty() { self.keyring.open() } else { kinds.to_vec() };
        if kinds.is_empty() {
            return Err(RotationError::None);
        }
        for kind in &kinds {
            self.keyring.finish(*kind, permit.subject()).await?;
        }
        Ok(kinds)
    }

    /// Writes an archive of the whole cluster, with its keys sealed under `key`; gives it piece by piece.
    pub async fn back_up(
        &self,
        permit: &ClusterPermit<BackUpCluster>,
        key: RecoveryKey,
    ) -> Result<mpsc::Receiver<io::Result<Bytes>>, BackupError> {
        info!(target: "caxton::audit", actor = permit.subject(), key = key.id(), "a backup was asked for");
        self.backups.clone().begin(key).await
    }
}
