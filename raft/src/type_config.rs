//! openraft's type parameters. They name the snapshot's file, so they stand above it.

use openraft::BasicNode;

use crate::snapshot::SnapshotFile;
use crate::types::{Batch, Replies};

openraft::declare_raft_types!(
    /// What the groups of this crate replicate.
    pub TypeConfig:
        D = Batch,
        R = Replies,
        NodeId = u64,
        Node = BasicNode,
        SnapshotData = SnapshotFile,
);

pub type RaftEntry = openraft::Entry<TypeConfig>;
pub type Raft = openraft::Raft<TypeConfig>;
