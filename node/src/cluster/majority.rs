//! Whether a group can decide anything: when too few of its voters are there it has no leader and gets none, and whoever
//! asks hears which nodes are missing, since when, and what to do.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use caxton_proto::NodeId;
use caxton_raft::GroupId;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::Cluster;
use crate::time::{now_ms, rfc3339};

/// A node that was heard of within this is there.
const THERE_MS: u64 = 5_000;
/// How often a node looks whether a majority is there.
const EVERY: Duration = Duration::from_secs(1);
/// How long a group is without a leader before the log says that its majority is missing: an election takes a while.
const SAY_AFTER: Duration = Duration::from_secs(3);
/// How often it says so again.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// A voter that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    pub node: NodeId,
    /// Where it was last, if anybody ever said so.
    pub address: String,
    /// When it was last heard of, in milliseconds since 1970; nothing when it was not since this node started.
    pub heard_ms: Option<u64>,
}

/// A group has no leader, because too few of its voters are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostMajority {
    pub group: GroupId,
    /// How many vote in it.
    pub voters: usize,
    /// Those that are missing.
    pub missing: Vec<Missing>,
    /// When this node started, in milliseconds since 1970.
    pub started_ms: u64,
}

impl fmt::Display for LostMajority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LostMajority { group, voters, missing, started_ms } = self;
        let what = if group.0 == 0 { "the deploy log".to_owned() } else { format!("shard {}", group.0) };
        write!(f, "{what} has lost its majority: {} of its {voters} voters do not answer", missing.len())?;
        for (at, Missing { node, address, heard_ms }) in missing.iter().enumerate() {
            let (between, place) = (if at == 0 { ": " } else { "; " }, if address.is_empty() { "?" } else { address });
            write!(f, "{between}node {node} ({place}), ")?;
            match heard_ms {
                Some(heard_ms) => write!(f, "last heard of at {}", rfc3339(*heard_ms))?,
                None => write!(f, "not heard of since this node started at {}", rfc3339(*started_ms))?,
            }
        }
        Ok(())
    }
}

impl LostMajority {
    /// What to type.
    pub fn help(&self) -> String {
        format!(
            "start them again where they were; {} of {} have to run. If their disks are lost for good, stop this node and go on with what it has: `caxton recover --data-dir DIR` shows that, and changes nothing",
            self.voters / 2 + 1,
            self.voters
        )
    }
}

impl Cluster {
    /// Whether this node has heard of another one just now.
    pub(super) fn is_there(&self, node: NodeId) -> bool {
        let heard = self.peers().heard_ms(node).is_some_and(|heard| now_ms().saturating_sub(heard) <= THERE_MS);
        node == self.own() || heard || self.gossips(node)
    }

    /// Why a group has no leader, when that is because too few of its voters are there.
    pub fn lost_majority(&self, id: GroupId) -> Option<LostMajority> {
        let group = self.groups().get(&id)?;
        if group.status().borrow().leader.is_some() {
            return None;
        }
        let voters = group.members().borrow().voters.clone();
        let missing: Vec<NodeId> = voters.iter().copied().filter(|node| !self.is_there(*node)).collect();
        if voters.len() - missing.len() > voters.len() / 2 {
            return None;
        }
        let peers = self.peers();
        let missing = missing.into_iter().map(|node| Missing {
            node,
            address: peers.book().address(node).unwrap_or_default(),
            heard_ms: peers.heard_ms(node),
        });
        let (voters, started_ms) = (voters.len(), self.started_ms());
        Some(LostMajority { group: id, voters, missing: missing.collect(), started_ms })
    }

    /// Says in the log when a majority is lost and when it is back, and while it lasts once a minute, until it is stopped.
    pub async fn watch_majorities(self, stop: CancellationToken) {
        let mut lost: BTreeMap<GroupId, Instant> = BTreeMap::new();
        let mut said: Option<Instant> = None;
        while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
            let now: Vec<LostMajority> = self.groups().keys().filter_map(|id| self.lost_majority(*id)).collect();
            lost.retain(|id, _| now.iter().any(|it| it.group == *id));
            for it in &now {
                lost.entry(it.group).or_insert_with(Instant::now);
            }
            let lasts = lost.values().any(|since| since.elapsed() >= SAY_AFTER);
            match now.first() {
                Some(first) if lasts && said.is_none_or(|said| said.elapsed() >= SAY_EVERY) => {
                    error!(groups = now.len(), help = first.help(), "{first}");
                    said = Some(Instant::now());
                }
                Some(_) => {}
                None => {
                    if said.take().is_some() {
                        info!("every group has a majority of its voters again");
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_majority_is_told_with_names_times_and_what_to_type() {
        let missing = |node, address: &str, heard_ms| Missing { node: NodeId(node), address: address.into(), heard_ms };
        let lost = LostMajority {
            group: GroupId(0),
            voters: 3,
            missing: vec![missing(0xa, "10.0.0.2:7412", Some(1_000)), missing(0xb, "", None)],
            started_ms: 0,
        };
        assert_eq!(
            lost.to_string(),
            format!(
                "the deploy log has lost its majority: 2 of its 3 voters do not answer: node {} (10.0.0.2:7412), last heard of at {}; node {} (?), not heard of since this node started at {}",
                NodeId(0xa),
                rfc3339(1_000),
                NodeId(0xb),
                rfc3339(0)
            )
        );
        assert!(lost.help().contains("2 of 3 have to run") && lost.help().contains("caxton recover"));
    }
}
