//! Which group of the log a workspace belongs to: its shard. The node that leads the shard's group owns the workspace.
//!
//! The number of shards is fixed when a cluster is born: with another number a workspace would belong to another group,
//! which knows nothing of it.

use std::num::NonZeroU32;

use caxton_proto::{Digest, WorkspaceId};
use caxton_raft::GroupId;

/// How many shards a cluster has.
pub const SHARDS: NonZeroU32 = NonZeroU32::MIN;

/// The group of the workspace's shard. Group 0 is the deploy log's, and no shard's.
pub fn owner_of(workspace: &WorkspaceId, shards: NonZeroU32) -> GroupId {
    let digest = Digest::of(workspace.as_str().as_bytes());
    let bytes = digest.as_bytes();
    let number = bytes[..8].iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    GroupId(1 + (number % u64::from(shards.get())) as u32)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn every_workspace_has_one_shard_and_shards_are_about_equal() {
        let shards = NonZeroU32::new(8).expect("not zero");
        let mut count = BTreeMap::new();
        for number in 0..8_000 {
            let workspace: WorkspaceId = format!("w{number}").parse().expect("a name");
            assert_eq!(owner_of(&workspace, SHARDS), GroupId(1));
            *count.entry(owner_of(&workspace, shards)).or_insert(0) += 1;
        }
        assert_eq!(count.keys().map(|group| group.0).collect::<Vec<_>>(), (1..=8).collect::<Vec<_>>());
        assert!(count.values().all(|count| (850..1_150).contains(count)), "{count:?}");
    }

    #[test]
    fn the_shard_of_a_workspace_never_changes() {
        let shards = NonZeroU32::new(1_000).expect("not zero");
        let of = |name: &str| owner_of(&name.parse().expect("a name"), shards).0;
        // Written down once: another answer would move every workspace of every cluster.
        assert_eq!([of("demo"), of("csv-to-chart")], EXPECTED);
    }

    const EXPECTED: [u32; 2] = [597, 819];
}
