//! When a group makes its next snapshot. A snapshot is the whole state, so the more the log has become the longer it is:
//! made after a fixed number of entries, it would cost each of them more and more. The number grows with the log.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tracing::debug;

use crate::types::{LogId, Raft};

/// Of a long log, this part is kept before the next snapshot.
const PART: u64 = 16;
/// So many times the shortest wait is the longest, which bounds the log on disk.
const LONGEST: u64 = 16;

/// How many entries after one that ends at `last` the next snapshot is made, which is `shortest` or more.
fn wait_after(last: u64, shortest: u64) -> u64 {
    (last / PART).clamp(shortest, shortest.saturating_mul(LONGEST))
}

/// The index at which the next snapshot is due.
pub struct Due {
    shortest: u64,
    at: u64,
    wanted: Arc<Notify>,
}

impl Due {
    /// After the snapshot that ends with `last`, with at least `shortest` entries between two.
    pub fn new(shortest: u64, last: Option<LogId>) -> Due {
        let mut due = Due { shortest: shortest.max(1), at: 0, wanted: Arc::default() };
        due.made(last);
        due
    }

    /// Told when one is due.
    pub fn wanted(&self) -> Arc<Notify> {
        Arc::clone(&self.wanted)
    }

    /// Entries were applied, up to `last`.
    pub fn applied(&mut self, last: Option<LogId>) {
        let last = index(last);
        if last >= self.at {
            self.wanted.notify_one();
            // While another one is being made it is not begun, so it is asked for again.
            self.at = last + self.shortest.div_ceil(PART);
        }
    }

    /// A snapshot that ends with `last` is made, or was installed.
    pub fn made(&mut self, last: Option<LogId>) {
        let last = index(last);
        self.at = last + wait_after(last, self.shortest);
    }
}

fn index(last: Option<LogId>) -> u64 {
    last.map_or(0, |last| last.index)
}

/// Has snapshots made when they are due, in a task that ends with the group.
pub fn start(raft: &Raft, wanted: Arc<Notify>) -> JoinHandle<()> {
    let raft = raft.clone();
    tokio::spawn(async move {
        loop {
            wanted.notified().await;
            if let Err(error) = raft.trigger().snapshot().await {
                debug!(%error, "the group has stopped");
                return;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use openraft::CommittedLeaderId;

    use super::*;

    fn at(index: u64) -> Option<LogId> {
        Some(LogId::new(CommittedLeaderId::new(1, 0), index))
    }

    #[test]
    fn the_longer_the_log_the_longer_is_the_wait_within_bounds() {
        assert_eq!(
            [0, 10, 159, 160, 1_600, 2_560, 1_000_000].map(|last| wait_after(last, 10)),
            [10, 10, 10, 10, 100, 160, 160]
        );
    }

    #[tokio::test]
    async fn a_snapshot_is_asked_for_when_it_is_due_and_again_until_it_is_begun() {
        let mut due = Due::new(32, at(100));
        let wanted = due.wanted();
        let is_wanted = async || tokio::time::timeout(Duration::ZERO, wanted.notified()).await.is_ok();
        due.applied(at(131));
        assert!(!is_wanted().await);
        due.applied(at(132));
        assert!(is_wanted().await);
        due.applied(at(133));
        assert!(!is_wanted().await, "it was asked for just now");
        due.applied(at(134));
        assert!(is_wanted().await, "another one was being made");
        due.made(at(134));
        due.applied(at(165));
        assert!(!is_wanted().await);
    }
}
