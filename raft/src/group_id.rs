//! The number of a group, by which everything of it is found: its log's keys, its snapshots' folder, its messages.

/// Names a group within a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u32);
