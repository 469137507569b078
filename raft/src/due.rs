//! When a group's next snapshot is due, and how much of the log stays behind it. A snapshot is the whole state, so the more
//! the log has become the longer it is: made after a fixed number of entries, or of bytes, it would cost each of them more and
//! more. Both numbers grow, the one with the log and the other with the snapshot before.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Notify, watch};

use crate::types::LogId;

/// Of a long log, this part is kept before the next snapshot.
const PART: u64 = 16;
/// So many times the shortest wait is the longest, which bounds the log on disk.
const LONGEST: u64 = 16;

/// How much of a log there is at least between two snapshots, and at most behind one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lengths {
    /// Entries between two snapshots, at least, unless they have the bytes.
    pub entries: u64,
    /// Bytes of commands between two snapshots, at least, unless they are that many entries.
    pub bytes: u64,
    /// Entries that stay behind a snapshot, for voters that are a little behind.
    pub kept_entries: u64,
    /// Bytes of commands that stay behind a snapshot.
    pub kept_bytes: u64,
}

/// How long to wait for the next snapshot: a part of `whole`, within bounds.
fn wait_after(whole: u64, shortest: u64) -> u64 {
    (whole / PART).clamp(shortest, shortest.saturating_mul(LONGEST))
}

/// When the next snapshot is due.
pub struct Due {
    lengths: Lengths,
    /// The index at which it is.
    at: u64,
    /// The bytes of commands since the last one.
    bytes: u64,
    /// The bytes at which it is.
    bytes_at: u64,
    /// What is to stay behind the next snapshot.
    tail: Tail,
    signals: Signals,
}

/// What the task that has snapshots made is told.
#[derive(Clone)]
pub struct Signals {
    /// One is due.
    pub wanted: Arc<Notify>,
    /// One was made.
    pub made: Arc<watch::Sender<Option<Completion>>>,
    /// How long the last one is, in bytes.
    pub length: Arc<AtomicU64>,
}

/// A snapshot that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// The last entry in it.
    pub last: Option<LogId>,
    /// The last entry that the log need not keep.
    pub purge: u64,
}

impl Signals {
    /// A snapshot that ends with `last` is on disk, and has so many bytes. The log needs nothing up to `purge`.
    pub fn made(&self, last: Option<LogId>, purge: u64, bytes: u64) {
        self.length.store(bytes, Ordering::Relaxed);
        self.made.send_replace(Some(Completion { last, purge }));
    }
}

impl Due {
    /// After the snapshot that ends with `last` and has so many bytes.
    pub fn new(lengths: Lengths, last: Option<LogId>, bytes: u64) -> Due {
        let lengths = Lengths { entries: lengths.entries.max(1), bytes: lengths.bytes.max(1), ..lengths };
        let (wanted, made) = (Arc::default(), Arc::new(watch::Sender::default()));
        let signals = Signals { wanted, made, length: Arc::new(AtomicU64::new(bytes)) };
        let mut due = Due { lengths, at: 0, bytes: 0, bytes_at: 0, tail: Tail::default(), signals };
        due.begun(last);
        due
    }

    /// What is told when one is due, and when one was made.
    pub fn signals(&self) -> Signals {
        self.signals.clone()
    }

    /// An entry with so many bytes of commands is about to be applied.
    pub fn entry(&mut self, id: &LogId, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.tail.push(id.index, bytes, &self.lengths);
    }

    /// Entries were applied, up to `last`.
    pub fn applied(&mut self, last: Option<LogId>) {
        let last = index(last);
        if last >= self.at || self.bytes >= self.bytes_at {
            self.signals.wanted.notify_one();
            // While another one is being made it is not begun, so it is asked for again.
            self.at = last + self.lengths.entries.div_ceil(PART);
            self.bytes_at = self.bytes.saturating_add(self.lengths.bytes.div_ceil(PART));
        }
    }

    /// A snapshot that ends with `last` is begun. Says the last entry that the log need not keep once it is
    /// on disk, 0 for none.
    pub fn begun(&mut self, last: Option<LogId>) -> u64 {
        let last = index(last);
        self.at = last + wait_after(last, self.lengths.entries);
        self.bytes = 0;
        self.bytes_at = wait_after(self.signals.length.load(Ordering::Relaxed), self.lengths.bytes);
        self.tail.dropped
    }

    /// A snapshot that ends with `last` and has so many bytes was installed: the log begins anew behind it.
    pub fn installed(&mut self, last: Option<LogId>, bytes: u64) {
        self.tail = Tail::default();
        self.signals.length.store(bytes, Ordering::Relaxed);
        self.begun(last);
    }
}

/// The last entries that were applied, as many as may stay behind a snapshot.
#[derive(Default)]
struct Tail {
    /// Their indexes and bytes.
    entries: VecDeque<(u64, u64)>,
    bytes: u64,
    /// The last one that was dropped because there were too many; 0 for none. What was applied before the group was opened is
    /// not known here, and was bounded when the snapshot before was made.
    dropped: u64,
}

impl Tail {
    fn push(&mut self, index: u64, bytes: u64, lengths: &Lengths) {
        self.entries.push_back((index, bytes));
        self.bytes = self.bytes.saturating_add(bytes);
        while self.entries.len() as u64 > lengths.kept_entries || self.bytes > lengths.kept_bytes {
            let Some((dropped, bytes)) = self.entries.pop_front() else { break };
            self.dropped = dropped;
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }
}

fn index(last: Option<LogId>) -> u64 {
    last.map_or(0, |last| last.index)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use openraft::CommittedLeaderId;

    use super::*;

    const LENGTHS: Lengths = Lengths { entries: 32, bytes: 1_000, kept_entries: 4, kept_bytes: 100 };

    fn at(index: u64) -> Option<LogId> {
        Some(LogId::new(CommittedLeaderId::new(1, 0), index))
    }

    async fn is_wanted(due: &Due) -> bool {
        tokio::time::timeout(Duration::ZERO, due.signals.wanted.notified()).await.is_ok()
    }

    fn entry(due: &mut Due, index: u64, bytes: u64) {
        due.entry(&at(index).expect("one"), bytes);
        due.applied(at(index));
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
        let mut due = Due::new(LENGTHS, at(100), 0);
        due.applied(at(131));
        assert!(!is_wanted(&due).await);
        due.applied(at(132));
        assert!(is_wanted(&due).await);
        due.applied(at(133));
        assert!(!is_wanted(&due).await, "it was asked for just now");
        due.applied(at(134));
        assert!(is_wanted(&due).await, "another one was being made");
        due.begun(at(134));
        due.applied(at(165));
        assert!(!is_wanted(&due).await);
    }

    #[tokio::test]
    async fn few_long_entries_make_one_due_as_well_as_many_short_ones() {
        let mut due = Due::new(LENGTHS, at(100), 0);
        entry(&mut due, 101, 999);
        assert!(!is_wanted(&due).await);
        entry(&mut due, 102, 1);
        assert!(is_wanted(&due).await);
        entry(&mut due, 103, 62);
        assert!(!is_wanted(&due).await, "it was asked for just now");
        entry(&mut due, 104, 1);
        assert!(is_wanted(&due).await, "another one was being made");
        due.begun(at(104));
        entry(&mut due, 105, 999);
        assert!(!is_wanted(&due).await);
        // A long state is written less often, and the log becomes sixteen times as long at most.
        for (length, wait) in [(32_000, 2_000), (1 << 40, 16_000)] {
            due.signals().made(at(105), 0, length);
            due.begun(at(105));
            entry(&mut due, 106, wait - 1);
            assert!(!is_wanted(&due).await);
            entry(&mut due, 106, 1);
            assert!(is_wanted(&due).await);
        }
    }

    #[test]
    fn a_snapshot_leaves_entries_behind_it_within_bounds_of_number_and_bytes() {
        let mut due = Due::new(LENGTHS, at(100), 0);
        assert_eq!(due.begun(at(100)), 0, "nothing of the log is known");
        for index in 101..=110 {
            entry(&mut due, index, 10);
        }
        assert_eq!(due.begun(at(110)), 106, "four entries stay");
        entry(&mut due, 111, 75);
        assert_eq!(due.begun(at(111)), 108, "a hundred bytes stay");
        entry(&mut due, 112, 101);
        assert_eq!(due.begun(at(112)), 112, "one that is too long does not stay");
    }
}
