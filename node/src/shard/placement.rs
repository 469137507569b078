//! Which group of the log a workspace belongs to: its shard. The node that leads the shard's group owns the workspace.
//!
//! The number of shards is fixed when a cluster is born: with another number a workspace would belong to another group,
//! which knows nothing of it. The deploy log says how many there are; a node keeps a copy of that number beside its data,
//! because it has to take part in the shards before it hears from the deploy log's leader.

use std::num::NonZeroU32;
use std::path::Path;

use caxton_proto::log::cluster::{Command, FixShards, Outcome};
use caxton_proto::log::{self};
use caxton_proto::{Digest, WorkspaceId};
use caxton_raft::deploy_log::{DeployLog, ProposeError};
use caxton_raft::{Birth, GroupId};

use crate::files::{FileError, write_private};

/// The file with the copy.
const FILE: &str = "shards";

/// The group of the workspace's shard. Group 0 is the deploy log's, and no shard's.
pub fn owner_of(workspace: &WorkspaceId, shards: NonZeroU32) -> GroupId {
    let digest = Digest::of(workspace.as_str().as_bytes());
    let bytes = digest.as_bytes();
    let number = bytes[..8].iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    GroupId(1 + (number % u64::from(shards.get())) as u32)
}

/// The groups of all shards.
pub fn groups(shards: NonZeroU32) -> impl Iterator<Item = GroupId> {
    (1..=shards.get()).map(GroupId)
}

/// Why it is not known how many shards there are.
#[derive(Debug, thiserror::Error)]
pub enum ShardsError {
    #[error("the number of shards cannot be noted")]
    Note(#[from] FileError),
    /// The deploy log.
    #[error("the deploy log does not say how many shards the cluster has")]
    Log(#[from] ProposeError),
    /// The deploy log says something else than the copy.
    #[error("the deploy log says that the cluster has {log} shards, and this node was started with {copy}")]
    Differs {
        /// What the log says.
        log: NonZeroU32,
        /// What the copy says.
        copy: NonZeroU32,
    },
}

/// How many shards the cluster has, on a node without a copy, which gets one. The node that founds the cluster says so:
/// `wanted`.
pub async fn shards(dir: &Path, log: &DeployLog, birth: Birth, wanted: NonZeroU32) -> Result<NonZeroU32, ShardsError> {
    let said = (*log.applied().borrow() > 0).then(|| log.read(|state| state.cluster().shards()));
    let shards = match (said, birth) {
        (Some(said), _) => said,
        (None, Birth::Founded) => fix(log, wanted).await?,
        (None, Birth::Joined) => heard(log).await,
    };
    note_shards(dir, shards)?;
    Ok(shards)
}

/// Ends when the deploy log contradicts the number that the node was started with.
pub async fn contradicted(log: DeployLog, copy: NonZeroU32) -> ShardsError {
    let log = heard(&log).await;
    if log == copy { std::future::pending().await } else { ShardsError::Differs { log, copy } }
}

/// Puts the number into an empty log; in one that is not, it is what it always was.
async fn fix(log: &DeployLog, count: NonZeroU32) -> Result<NonZeroU32, ShardsError> {
    let command = log::Command::Cluster(Command::FixShards(FixShards { count }));
    match log.propose(&command).await {
        Ok(answer) => match answer.outcome {
            log::Outcome::Cluster(Outcome::ShardsAre(count)) => Ok(count),
            _ => Ok(log.read(|state| state.cluster().shards())),
        },
        // It founded a cluster that others lead now, whose log is on its way.
        Err(ProposeError::Group(
            caxton_raft::ProposeError::NotLeader { .. } | caxton_raft::ProposeError::Unavailable,
        )) => Ok(heard(log).await),
        Err(error) => Err(error.into()),
    }
}

/// What the deploy log says, as soon as it says anything.
async fn heard(log: &DeployLog) -> NonZeroU32 {
    if log.applied().wait_for(|applied| *applied > 0).await.is_err() {
        // The log has stopped, which is told elsewhere.
        std::future::pending::<()>().await;
    }
    log.read(|state| state.cluster().shards())
}

/// Notes how many shards there are.
pub fn note_shards(dir: &Path, shards: NonZeroU32) -> Result<(), FileError> {
    write_private(&dir.join(FILE), format!("{shards}\n").as_bytes())
}

/// The copy, if there is one that can be read.
pub fn known(dir: &Path) -> Option<NonZeroU32> {
    std::fs::read_to_string(dir.join(FILE)).ok()?.trim().parse().ok()
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
            assert_eq!(owner_of(&workspace, NonZeroU32::MIN), GroupId(1));
            *count.entry(owner_of(&workspace, shards)).or_insert(0) += 1;
        }
        assert_eq!(count.keys().copied().collect::<Vec<_>>(), groups(shards).collect::<Vec<_>>());
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

    #[test]
    fn the_copy_is_read_as_it_was_noted_and_nothing_else_is() {
        let dir = tempfile::tempdir().expect("a folder");
        assert_eq!(known(dir.path()), None);
        note_shards(dir.path(), NonZeroU32::new(8).expect("not zero")).expect("noted");
        assert_eq!(known(dir.path()), NonZeroU32::new(8));
        std::fs::write(dir.path().join(FILE), "eight").expect("written");
        assert_eq!(known(dir.path()), None);
    }
}
