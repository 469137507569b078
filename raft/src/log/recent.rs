//! The end of a group's log in memory: what was appended is read again at once, once for each follower and once to be
//! applied, and a database takes longer to find it than to keep it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use openraft::EntryPayload;

use crate::type_config::RaftEntry;
use crate::types::Batch;

/// Entries that are kept at most.
const ENTRIES_MAX: usize = 256;
/// Bytes of commands that are kept at most, unless one entry has more.
const BYTES_MAX: usize = 512 << 10;

/// The last entries of a log, without a gap.
#[derive(Default)]
pub struct Recent(Mutex<Tail>);

#[derive(Default)]
struct Tail {
    entries: VecDeque<RaftEntry>,
    bytes: usize,
}

impl Recent {
    /// These were appended, and can be read from the store.
    pub fn append(&self, entries: &[RaftEntry]) {
        let mut tail = self.tail();
        for entry in entries {
            if tail.entries.back().is_some_and(|last| last.log_id.index + 1 != entry.log_id.index) {
                *tail = Tail::default();
            }
            tail.bytes += bytes_of(entry);
            tail.entries.push_back(entry.clone());
            while tail.entries.len() > ENTRIES_MAX || tail.bytes > BYTES_MAX && tail.entries.len() > 1 {
                tail.drop_first();
            }
        }
    }

    /// Everything from `index` on is about to be taken back.
    pub fn truncate(&self, index: u64) {
        let mut tail = self.tail();
        while tail.entries.back().is_some_and(|last| last.log_id.index >= index) {
            let last = tail.entries.pop_back();
            tail.bytes -= last.as_ref().map_or(0, bytes_of);
        }
    }

    /// Everything up to `index` is about to be dropped.
    pub fn purge(&self, index: u64) {
        let mut tail = self.tail();
        while tail.entries.front().is_some_and(|first| first.log_id.index <= index) {
            tail.drop_first();
        }
    }

    /// The entries from `from` up to `to`, without `to`, until there are `bytes_max` of them, but at least one. Nothing
    /// where the store has to be asked.
    pub fn read(&self, from: u64, to: u64, bytes_max: usize) -> Option<Vec<RaftEntry>> {
        let tail = self.tail();
        let skip = from.checked_sub(tail.entries.front()?.log_id.index)?;
        let mut bytes = 0;
        let wanted = tail.entries.iter().skip(usize::try_from(skip).ok()?);
        let wanted = wanted.take_while(|entry| {
            let more = entry.log_id.index < to && bytes < bytes_max;
            bytes += bytes_of(entry);
            more
        });
        let entries: Vec<RaftEntry> = wanted.cloned().collect();
        (!entries.is_empty()).then_some(entries)
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tail {
    fn drop_first(&mut self) {
        let first = self.entries.pop_front();
        self.bytes -= first.as_ref().map_or(0, bytes_of);
    }
}

fn bytes_of(entry: &RaftEntry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(Batch(commands)) => commands.iter().map(|command| command.len()).sum::<usize>().max(1),
        EntryPayload::Blank | EntryPayload::Membership(_) => 1,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use openraft::CommittedLeaderId;

    use super::*;
    use crate::types::LogId;

    fn entry(index: u64, bytes: usize) -> RaftEntry {
        let payload = EntryPayload::Normal(Batch(vec![Bytes::from(vec![0; bytes])]));
        RaftEntry { log_id: LogId::new(CommittedLeaderId::new(1, 1), index), payload }
    }

    fn indexes(recent: &Recent, from: u64, to: u64, bytes_max: usize) -> Option<Vec<u64>> {
        Some(recent.read(from, to, bytes_max)?.iter().map(|entry| entry.log_id.index).collect())
    }

    #[test]
    fn what_was_appended_is_read_and_what_is_not_there_is_left_to_the_store() {
        let recent = Recent::default();
        assert_eq!(indexes(&recent, 0, u64::MAX, usize::MAX), None);
        recent.append(&[entry(5, 10), entry(6, 10), entry(7, 10)]);
        for (from, to, bytes_max, expected) in [
            (5, u64::MAX, usize::MAX, Some(vec![5, 6, 7])),
            (6, 7, usize::MAX, Some(vec![6])),
            (5, 8, 11, Some(vec![5, 6])),
            (5, 8, 1, Some(vec![5])),
            (4, 8, usize::MAX, None),
            (8, 9, usize::MAX, None),
        ] {
            assert_eq!(indexes(&recent, from, to, bytes_max), expected, "{from} to {to}, {bytes_max} bytes");
        }
        recent.truncate(7);
        recent.append(&[entry(7, 10)]);
        recent.purge(5);
        assert_eq!(indexes(&recent, 5, 9, usize::MAX), None);
        assert_eq!(indexes(&recent, 6, 9, usize::MAX), Some(vec![6, 7]));
        // After a snapshot the log goes on elsewhere.
        recent.append(&[entry(20, 10)]);
        assert_eq!(indexes(&recent, 7, 30, usize::MAX), None);
        assert_eq!(indexes(&recent, 20, 30, usize::MAX), Some(vec![20]));
        recent.truncate(0);
        assert_eq!(indexes(&recent, 20, 30, usize::MAX), None);
    }

    #[test]
    fn no_more_is_kept_than_the_limits_say_and_one_long_entry_still_is() {
        let recent = Recent::default();
        recent.append(&(0..1_000).map(|index| entry(index, 1)).collect::<Vec<_>>());
        assert_eq!(
            indexes(&recent, 1_000 - ENTRIES_MAX as u64, 2_000, usize::MAX).map(|all| all.len()),
            Some(ENTRIES_MAX)
        );
        assert_eq!(indexes(&recent, 999 - ENTRIES_MAX as u64, 2_000, usize::MAX), None);
        recent.append(&[entry(1_000, BYTES_MAX)]);
        assert_eq!(indexes(&recent, 999, 2_000, usize::MAX), None);
        assert_eq!(indexes(&recent, 1_000, 2_000, usize::MAX), Some(vec![1_000]));
        assert_eq!(recent.tail().bytes, BYTES_MAX);
    }
}
