//! A group's log, vote and marks in the [`Store`], under keys that start with the group's number.
//!
//! Appended entries can be read at once, and openraft hears that they are on disk after the fsync that covers them; a
//! leader's are on the way to its followers meanwhile. A vote, a truncation and a purge are on disk before they return.

mod recent;

use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{ErrorSubject, ErrorVerb, OptionalSend, RaftLogReader};
use rocksdb::WriteBatch;

use self::recent::Recent;
use crate::codec::{self, Damage};
use crate::entries;
use crate::group_id::GroupId;
use crate::network::Links;
use crate::store::{Scan, Store, StoreError};
use crate::type_config::{RaftEntry, TypeConfig};
use crate::types::{LogId, Membership, StorageError, Vote, storage_error};

const AHEAD: u8 = b'a';
const COMMITTED: u8 = b'c';
const ENTRY: u8 = b'e';
const PURGED: u8 = b'p';
const VOTE: u8 = b'v';

/// How many bytes of entries one read returns at least before it stops, if more than one was asked for.
const READ_BYTES: usize = 1 << 20;

/// One group's part of the store.
#[derive(Clone)]
pub struct LogStore {
    store: Store,
    group: GroupId,
    recent: Arc<Recent>,
    ahead: Option<Arc<SendsAhead>>,
}

/// What a log needs to send a leader's entries while the disk syncs them.
struct SendsAhead {
    links: Arc<Links>,
    /// The last term that the log says, or will say, entries were sent ahead in.
    begun: AtomicU64,
    /// The last term of which that is on disk.
    marked: AtomicU64,
    /// The vote that was saved last, so that the store is not asked for it at every entry.
    vote: Mutex<Option<Vote>>,
}

impl SendsAhead {
    /// The vote under which this node leads, if it does.
    fn leads(&self) -> Option<Vote> {
        let saved = *self.vote.lock().unwrap_or_else(PoisonError::into_inner);
        saved.filter(|vote| leads(vote, self.links.node.0))
    }
}

impl LogStore {
    pub fn new(store: Store, group: GroupId) -> LogStore {
        LogStore { store, group, recent: Arc::default(), ahead: None }
    }

    /// Sends entries over `links` while the disk syncs them, when this node leads.
    pub fn sending_ahead(self, links: Arc<Links>) -> LogStore {
        let (begun, marked) = (AtomicU64::new(0), AtomicU64::new(0));
        let ahead = SendsAhead { links, begun, marked, vote: Mutex::default() };
        LogStore { ahead: Some(Arc::new(ahead)), ..self }
    }

    /// A leader that sent entries ahead in its term, and was restarted, may have lost them where a follower has them. It
    /// gives up its term, so that it never numbers others the same.
    pub async fn stand_again(&self, node: u64) -> Result<(), StoreError> {
        let Some(vote) = self.vote()?.filter(|vote| leads(vote, node)) else {
            return Ok(());
        };
        let term = vote.leader_id.term;
        if self.sent_ahead_in()? != Some(term) {
            return Ok(());
        }
        let mut batch = WriteBatch::default();
        self.put_vote(&mut batch, &Vote::new(term + 1, node));
        self.write_synced(batch).await
    }

    /// The last term in which entries were sent ahead.
    fn sent_ahead_in(&self) -> Result<Option<u64>, StoreError> {
        let key = self.key(AHEAD);
        let Some(value) = self.store.get(&key)? else {
            return Ok(None);
        };
        let read = || {
            let mut fields = codec::unseal(&key, &value)?;
            let term = fields.u64()?;
            fields.end()?;
            Ok(term)
        };
        read().map(Some).map_err(|damage| self.store.damaged(&key, damage))
    }

    fn put_sent_ahead_in(&self, batch: &mut WriteBatch, term: u64) {
        let key = self.key(AHEAD);
        batch.put(key, codec::seal(&key, |out| out.extend(term.to_le_bytes())));
    }

    /// Sends a leader's new entries. The first time in a term, it only says on disk that the next ones will be.
    fn send_ahead(&self, ahead: &SendsAhead, entries: &[RaftEntry]) -> Result<(), StoreError> {
        if !ahead.links.has_followers() {
            return Ok(());
        }
        let Some(vote) = ahead.leads() else { return Ok(()) };
        let term = vote.leader_id.term;
        if ahead.marked.load(Ordering::Acquire) == term {
            ahead.links.send_ahead(&vote, entries);
        } else if ahead.begun.swap(term, Ordering::Relaxed) != term {
            let (mark, mut batch) = (self.ahead.clone(), WriteBatch::default());
            self.put_sent_ahead_in(&mut batch, term);
            self.store.write(batch)?;
            self.store.synced_then(move |result| {
                if let (Ok(()), Some(mark)) = (result, mark) {
                    mark.marked.store(term, Ordering::Release);
                }
            });
        }
        Ok(())
    }

    /// Reads the whole log once: every entry must be whole, and none missing between those that were purged and the last.
    /// Returns the last purged entry.
    pub fn check(&self) -> Result<Option<LogId>, StoreError> {
        let purged = self.log_id(PURGED)?;
        self.log_id(COMMITTED)?;
        self.vote()?;
        self.sent_ahead_in()?;
        let mut next = purged.map(|purged| purged.index + 1);
        self.scan(0, u64::MAX, |entry, _| {
            if next.is_some_and(|next| next != entry.log_id.index) {
                return Err(Damage::Shape);
            }
            next = Some(entry.log_id.index + 1);
            Ok(Scan::On)
        })?;
        Ok(purged)
    }

    fn key(&self, kind: u8) -> [u8; 5] {
        let [a, b, c, d] = self.group.0.to_be_bytes();
        [a, b, c, d, kind]
    }

    fn entry_key(&self, index: u64) -> [u8; 13] {
        let mut key = [0; 13];
        key[..5].copy_from_slice(&self.key(ENTRY));
        key[5..].copy_from_slice(&index.to_be_bytes());
        key
    }

    fn scan(
        &self,
        from: u64,
        to: u64,
        mut take: impl FnMut(RaftEntry, usize) -> Result<Scan, Damage>,
    ) -> Result<(), StoreError> {
        self.store.scan(&self.entry_key(from), &self.entry_key(to), |key, value| {
            take(entries::entry(key, value)?, value.len())
        })
    }

    fn log_id(&self, kind: u8) -> Result<Option<LogId>, StoreError> {
        let key = self.key(kind);
        let Some(value) = self.store.get(&key)? else {
            return Ok(None);
        };
        let read = || {
            let mut fields = codec::unseal(&key, &value)?;
            let log_id = codec::take_optional_log_id(&mut fields)?;
            fields.end()?;
            Ok(log_id)
        };
        read().map_err(|damage| self.store.damaged(&key, damage))
    }

    fn put_log_id(&self, batch: &mut WriteBatch, kind: u8, log_id: Option<&LogId>) {
        let key = self.key(kind);
        batch.put(key, codec::seal(&key, |out| codec::put_optional_log_id(out, log_id)));
    }

    fn vote(&self) -> Result<Option<Vote>, StoreError> {
        let key = self.key(VOTE);
        let Some(value) = self.store.get(&key)? else {
            return Ok(None);
        };
        let vote = codec::unseal(&key, &value).and_then(codec::take_vote);
        vote.map(Some).map_err(|damage| self.store.damaged(&key, damage))
    }

    fn last(&self) -> Result<Option<LogId>, StoreError> {
        let Some((key, value)) = self.store.last(&self.entry_key(0), &self.entry_key(u64::MAX))? else {
            return self.log_id(PURGED);
        };
        let entry = entries::entry(&key, &value).map_err(|damage| self.store.damaged(&key, damage))?;
        Ok(Some(entry.log_id))
    }

    /// Reads entries until there are `bytes_max` of them, but at least one.
    fn read(&self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<RaftEntry>, StoreError> {
        if let Some(entries) = self.recent.read(from, to, bytes_max) {
            return Ok(entries);
        }
        let (mut entries, mut bytes) = (Vec::new(), 0);
        self.scan(from, to, |entry, len| {
            entries.push(entry);
            bytes += len;
            Ok(if bytes < bytes_max { Scan::On } else { Scan::Enough })
        })?;
        Ok(entries)
    }

    /// The groups that have something in the store.
    pub fn groups(store: &Store) -> Result<Vec<GroupId>, StoreError> {
        let (mut groups, mut from) = (Vec::new(), Some(0u32));
        while let Some(group) = from {
            from = None;
            store.scan(&group.to_be_bytes(), &[0xff; 4], |key, _| {
                let number = key.first_chunk().copied().map(u32::from_be_bytes).ok_or(Damage::Shape)?;
                groups.push(GroupId(number));
                from = number.checked_add(1);
                Ok(Scan::Enough)
            })?;
        }
        Ok(groups)
    }

    /// Says that the log begins after `last`, which a snapshot covers.
    pub fn begin_after(&self, batch: &mut WriteBatch, last: &LogId) {
        self.put_log_id(batch, PURGED, Some(last));
    }

    /// Puts an entry in its place.
    pub fn put(&self, batch: &mut WriteBatch, entry: &RaftEntry) {
        let key = self.entry_key(entry.log_id.index);
        batch.put(key, codec::seal(&key, |out| entries::put_entry(out, entry)));
    }

    /// Puts a vote in the place of the one before.
    pub fn put_vote(&self, batch: &mut WriteBatch, vote: &Vote) {
        let key = self.key(VOTE);
        batch.put(key, codec::seal(&key, |out| codec::put_vote(out, vote)));
    }

    /// The last entry that there is, or was.
    pub fn last_entry(&self) -> Result<Option<LogId>, StoreError> {
        self.last()
    }

    /// The last entry that is known to be on a majority.
    pub fn committed(&self) -> Result<Option<LogId>, StoreError> {
        self.log_id(COMMITTED)
    }

    /// The term of the last vote.
    pub fn term(&self) -> Result<u64, StoreError> {
        Ok(self.vote()?.map_or(0, |vote| vote.leader_id.term))
    }

    /// The members that the newest entry about them names.
    pub fn members(&self) -> Result<Option<Membership>, StoreError> {
        let mut members = None;
        self.scan(0, u64::MAX, |entry, _| {
            if let openraft::EntryPayload::Membership(found) = entry.payload {
                members = Some(found);
            }
            Ok(Scan::On)
        })?;
        Ok(members)
    }

    async fn write_synced(&self, batch: WriteBatch) -> Result<(), StoreError> {
        self.store.write(batch)?;
        self.store.synced().await
    }
}

/// Whether `vote` is that of `node` as a leader.
fn leads(vote: &Vote, node: u64) -> bool {
    vote.committed && vote.leader_id.voted_for == Some(node)
}

fn read_error(error: StoreError) -> StorageError {
    storage_error(ErrorSubject::Logs, ErrorVerb::Read, &error)
}

fn write_error(error: StoreError) -> StorageError {
    storage_error(ErrorSubject::Logs, ErrorVerb::Write, &error)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<RaftEntry>, StorageError> {
        let from = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(index) => index + 1,
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        self.read(from, to, usize::MAX).map_err(read_error)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<RaftEntry>, StorageError> {
        self.read(start, end, READ_BYTES).map_err(read_error)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let last_purged_log_id = self.log_id(PURGED).map_err(read_error)?;
        let last_log_id = self.last().map_err(read_error)?;
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let mut batch = WriteBatch::default();
        self.put_vote(&mut batch, vote);
        let saved = self.write_synced(batch).await;
        saved.map_err(|error| storage_error(ErrorSubject::Vote, ErrorVerb::Write, &error))?;
        if let Some(ahead) = &self.ahead {
            *ahead.vote.lock().unwrap_or_else(PoisonError::into_inner) = Some(*vote);
        }
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        self.vote().map_err(|error| storage_error(ErrorSubject::Vote, ErrorVerb::Read, &error))
    }

    /// Not synced: it only spares a restart the wait for a leader to say again what is committed.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        let mut batch = WriteBatch::default();
        self.put_log_id(&mut batch, COMMITTED, committed.as_ref());
        self.store.write(batch).map_err(write_error)
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        self.log_id(COMMITTED).map_err(read_error)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut batch = WriteBatch::default();
        let entries: Vec<RaftEntry> = entries.into_iter().collect();
        for entry in &entries {
            self.put(&mut batch, entry);
        }
        self.store.write(batch).map_err(write_error)?;
        self.recent.append(&entries);
        if let Some(ahead) = &self.ahead {
            self.send_ahead(ahead, &entries).map_err(write_error)?;
        }
        let then = move |result| callback.log_io_completed(result);
        // A leader sends its entries meanwhile; who follows has to wait for its own disk.
        match &self.ahead {
            Some(ahead) if ahead.leads().is_none() => self.store.synced_soon(then),
            Some(_) | None => self.store.synced_then(then),
        }
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.recent.truncate(log_id.index);
        let mut batch = WriteBatch::default();
        batch.delete_range(self.entry_key(log_id.index), self.entry_key(u64::MAX));
        self.write_synced(batch).await.map_err(write_error)
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.recent.purge(log_id.index);
        let mut batch = WriteBatch::default();
        self.put_log_id(&mut batch, PURGED, Some(&log_id));
        batch.delete_range(self.entry_key(0), self.entry_key(log_id.index + 1));
        self.write_synced(batch).await.map_err(write_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_leader_that_sent_ahead_does_not_go_on_in_its_term() {
        let dir = tempfile::tempdir().unwrap();
        let log = LogStore::new(Store::open(dir.path()).unwrap(), GroupId(3));
        let stand_again = async |vote: Vote, sent_ahead_in: u64| {
            let mut batch = WriteBatch::default();
            log.put_vote(&mut batch, &vote);
            log.put_sent_ahead_in(&mut batch, sent_ahead_in);
            log.store.write(batch).unwrap();
            log.stand_again(1).await.unwrap();
            log.vote().unwrap().unwrap()
        };
        assert_eq!(stand_again(Vote::new_committed(7, 1), 7).await, Vote::new(8, 1));
        for (vote, why) in [
            (Vote::new_committed(7, 2), "another node leads"),
            (Vote::new(7, 1), "it never led"),
            (Vote::new_committed(9, 1), "it has sent nothing ahead in this term"),
        ] {
            assert_eq!(stand_again(vote, 7).await, vote, "{why}");
        }
    }
}
