//! The content-addressed store: what deployed files, chunk lists and tree nodes are made of, by SHA-256.
//!
//! A workspace sees its own blobs only: every key starts with its name, so that knowing a digest opens nothing. A blob
//! is checked against its digest when it comes in and each time it is read; a damaged one is an error that names it.
//! The calls block on the disk: async code makes them from blocking threads.

mod rows;
pub mod space;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use bytes::{Bytes, BytesMut};
use caxton_proto::chunk::ChunkList;
use caxton_proto::tree::File;
use caxton_proto::{Digest, WorkspaceId};
use rocksdb::{BlockBasedOptions, Cache, DB, DBCompressionType, DBRecoveryMode, Options, WriteBatch, WriteOptions};
use tokio::sync::watch;
use tracing::{error, info, warn};

use self::rows::{BLOB, ROW, Row, each, key, mark_damaged, prefix, prefix_end, rows, workspace_of};
pub use space::{DiskFull, Space};

use crate::time::now_ms;

/// What RocksDB gathers in memory before it writes a table, in bytes.
const WRITE_BUFFER_BYTES: usize = 2 << 20;
/// RocksDB's cache of blocks, in bytes.
const CACHE_BYTES: usize = 8 << 20;
/// Values from this size on live in blob files, which compactions do not rewrite.
const BLOB_FILE_MIN_BYTES: u64 = 4 << 10;
/// How many files RocksDB keeps open.
const OPEN_FILES_MAX: i32 = 256;
/// How many rows are deleted in one batch.
const COLLECT_BATCH: usize = 1_024;
/// A collection that frees at least this much has its tables rewritten, which gives the space back.
const COMPACT_BYTES_MIN: u64 = 16 << 20;

/// The store could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("the artifact store {} cannot be opened; if it is damaged, restore it from a backup, or move it away and deploy \
    every workspace again", dir.display())]
pub struct OpenError {
    pub dir: PathBuf,
    /// What RocksDB says, which names the file.
    #[source]
    pub source: rocksdb::Error,
}

/// Blobs could not be stored; none of them was.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// A blob's content is not what its digest names.
    #[error("a blob was sent as {digest}, and its content has the digest {found}")]
    Mismatch {
        /// What it was sent as.
        digest: Digest,
        /// What it is.
        found: Digest,
    },
    /// Too little space would be left.
    #[error(transparent)]
    Full(#[from] DiskFull),
    /// The store failed.
    #[error("the artifact store could not be written")]
    Store(#[source] rocksdb::Error),
    /// The store could not be opened again after a failure.
    #[error("the artifact store is closed")]
    Closed,
}

/// A blob could not be read.
#[derive(Debug, thiserror::Error)]
pub enum GetError {
    /// It is there, and is not what its digest names.
    #[error("the artifact {digest} of workspace `{workspace}` is damaged on this node's disk")]
    Corrupt {
        /// Whose it is.
        workspace: WorkspaceId,
        digest: Digest,
        /// What RocksDB says, when it saw the damage first.
        #[source]
        source: Option<rocksdb::Error>,
    },
    /// It is not there.
    #[error("the artifact {digest} of workspace `{workspace}` is not on this node")]
    Missing {
        /// Whose it would be.
        workspace: WorkspaceId,
        digest: Digest,
    },
    /// The store failed.
    #[error("the artifact store could not be read")]
    Store(#[source] rocksdb::Error),
    /// The store could not be opened again after a failure.
    #[error("the artifact store is closed")]
    Closed,
}

/// What a collection removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CollectionTotals {
    /// How many blobs.
    pub blobs: u64,
    /// How many bytes they had.
    pub bytes: u64,
}

/// While it lives, nothing is removed from the store.
#[must_use]
pub struct RemovalHold(Artifacts);

impl Drop for RemovalHold {
    fn drop(&mut self) {
        self.0.0.held.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A handle on the store; clones are handles on the same one.
#[derive(Clone)]
pub struct Artifacts(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    space: Space,
    /// Nothing only when opening it again failed.
    db: RwLock<Option<DB>>,
    /// RocksDB met a full disk and refuses writes until it is opened again.
    stuck: AtomicBool,
    /// Held shared while blobs are put, and alone while a batch is removed: a blob that is found present during a put
    /// must not be removed before its row is renewed. Locked after `db`, always.
    removing: RwLock<()>,
    /// How many keep everything that is there.
    held: AtomicUsize,
    /// Dropped last: tells that the store is closed.
    closed: watch::Sender<()>,
}

impl Artifacts {
    /// Opens the store in `dir`, and makes it when there is none. `space` watches the disk that holds it.
    pub fn open(dir: &Path, space: Space) -> Result<Artifacts, OpenError> {
        let db = open(dir)?;
        Ok(Artifacts(Arc::new(Inner {
            dir: dir.to_owned(),
            space,
            db: RwLock::new(Some(db)),
            stuck: AtomicBool::new(false),
            removing: RwLock::new(()),
            held: AtomicUsize::new(0),
            closed: watch::Sender::default(),
        })))
    }

    /// Ends once the last handle is gone and the store is closed.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut open = self.0.closed.subscribe();
        async move { while open.changed().await.is_ok() {} }
    }

    /// The space of the disk under the store.
    pub fn space(&self) -> &Space {
        &self.0.space
    }

    /// Stores `blobs`, all or none; they are on disk when this returns.
    ///
    /// A blob that is there already has its age renewed, which keeps it from being collected before the deployment
    /// that it was sent for is proposed.
    pub fn put(&self, workspace: &WorkspaceId, blobs: Vec<(Digest, Bytes)>) -> Result<(), PutError> {
        for (digest, blob) in &blobs {
            let found = Digest::of(blob);
            if found != *digest {
                return Err(PutError::Mismatch { digest: *digest, found });
            }
        }
        if blobs.is_empty() {
            return Ok(());
        }
        let wanted = blobs.iter().map(|(_, blob)| blob.len() as u64).sum();
        self.0.space.check(wanted)?;
        match self.write(workspace, &blobs, wanted) {
            // Met by something in the background some time ago, and there is room now.
            Err(PutError::Full(_)) if self.0.space.check(wanted).is_ok() => self.write(workspace, &blobs, wanted),
            written => written,
        }
    }

    fn write(&self, workspace: &WorkspaceId, blobs: &[(Digest, Bytes)], wanted: u64) -> Result<(), PutError> {
        self.unstick()?;
        let guard = self.db();
        let db = guard.as_ref().ok_or(PutError::Closed)?;
        let _shared = self.0.removing.read().unwrap_or_else(PoisonError::into_inner);
        let names: Vec<_> = blobs.iter().map(|(digest, _)| *digest).collect();
        let rows = rows(db, workspace, &names).map_err(PutError::Store)?;
        let mut batch = WriteBatch::default();
        let uploaded_ms = now_ms();
        for ((digest, blob), row) in blobs.iter().zip(rows) {
            let new = Row { uploaded_ms, bytes: blob.len() as u32, damaged: false };
            batch.put(key(ROW, workspace, digest), new.encode());
            if row.is_none_or(|row| row.damaged) {
                batch.put(key(BLOB, workspace, digest), blob);
            }
        }
        db.write_opt(batch, &synced()).map_err(|error| self.refusal(error, wanted))
    }

    /// The blob `digest`, checked; `None` when the workspace has none.
    pub fn get(&self, workspace: &WorkspaceId, digest: &Digest) -> Result<Option<Bytes>, GetError> {
        let guard = self.db();
        let db = guard.as_ref().ok_or(GetError::Closed)?;
        let damaged = |source| GetError::Corrupt { workspace: workspace.clone(), digest: *digest, source };
        let found = match db.get_pinned(key(BLOB, workspace, digest)) {
            Ok(None) => return Ok(None),
            Ok(Some(blob)) if Digest::of(&blob) == *digest => return Ok(Some(Bytes::copy_from_slice(&blob))),
            Ok(Some(_)) => damaged(None),
            Err(error) if error.kind() == rocksdb::ErrorKind::Corruption => damaged(Some(error)),
            Err(error) => return Err(GetError::Store(error)),
        };
        error!(%workspace, %digest, "an artifact is damaged");
        mark_damaged(db, workspace, digest);
        Err(found)
    }

    /// The blob `digest`, checked; its absence is an error.
    pub fn need(&self, workspace: &WorkspaceId, digest: &Digest) -> Result<Bytes, GetError> {
        let missing = || GetError::Missing { workspace: workspace.clone(), digest: *digest };
        self.get(workspace, digest)?.ok_or_else(missing)
    }

    /// The content of `file`, its chunks joined.
    pub fn read_file(&self, workspace: &WorkspaceId, file: &File) -> Result<Bytes, GetError> {
        let Some(list) = &file.chunks else { return self.need(workspace, &file.digest) };
        let damaged = |digest| GetError::Corrupt { workspace: workspace.clone(), digest, source: None };
        let chunks = ChunkList::decode(&self.need(workspace, list)?).map_err(|_| damaged(*list))?;
        let mut content = BytesMut::with_capacity(chunks.bytes() as usize);
        for chunk in &chunks.0 {
            content.extend_from_slice(&self.need(workspace, &chunk.digest)?);
        }
        if content.len() as u64 == file.bytes { Ok(content.freeze()) } else { Err(damaged(*list)) }
    }

    /// The sizes of the blobs that are there, in the order of `digests`. One known to be damaged counts as absent, so
    /// that it is sent again.
    pub fn sizes(&self, workspace: &WorkspaceId, digests: &[Digest]) -> Result<Vec<Option<u32>>, GetError> {
        let guard = self.db();
        let db = guard.as_ref().ok_or(GetError::Closed)?;
        let rows = rows(db, workspace, digests).map_err(GetError::Store)?;
        Ok(rows.into_iter().map(|row| row.filter(|row| !row.damaged).map(|row| row.bytes)).collect())
    }

    /// Those of `digests` that are not there, each once, in their order.
    pub fn missing(&self, workspace: &WorkspaceId, digests: &[Digest]) -> Result<Vec<Digest>, GetError> {
        let sizes = self.sizes(workspace, digests)?;
        let mut seen = HashSet::new();
        let absent = digests.iter().zip(sizes).filter(|(_, size)| size.is_none()).map(|(digest, _)| *digest);
        Ok(absent.filter(|digest| seen.insert(*digest)).collect())
    }

    /// Removes what is not in `live` and was put before `older_than_ms` (Unix time).
    ///
    /// The age keeps what a client has sent for a deployment that it has not proposed yet. Allowed on a full disk,
    /// because it is what makes room.
    pub fn collect(
        &self,
        workspace: &WorkspaceId,
        live: &HashSet<Digest>,
        older_than_ms: u64,
    ) -> Result<CollectionTotals, GetError> {
        let guard = self.db();
        let db = guard.as_ref().ok_or(GetError::Closed)?;
        let mut dead = Vec::new();
        let is_dead = |digest: &Digest, row: Row| row.uploaded_ms < older_than_ms && !live.contains(digest);
        let show = |digest: Digest, row: Row| dead.extend(is_dead(&digest, row).then_some(digest));
        each(db, workspace, show).map_err(GetError::Store)?;
        let mut collected = CollectionTotals::default();
        for names in dead.chunks(COLLECT_BATCH) {
            let _alone = self.0.removing.write().unwrap_or_else(PoisonError::into_inner);
            if self.0.held.load(Ordering::Acquire) > 0 {
                // The next collection finds them again.
                return Ok(collected);
            }
            // Read again under the lock: a put may have renewed some of them meanwhile.
            let rows = rows(db, workspace, names).map_err(GetError::Store)?;
            let mut batch = WriteBatch::default();
            for (digest, row) in names.iter().zip(rows) {
                if let Some(row) = row.filter(|row| row.uploaded_ms < older_than_ms) {
                    batch.delete(key(BLOB, workspace, digest));
                    batch.delete(key(ROW, workspace, digest));
                    collected.blobs += 1;
                    collected.bytes += u64::from(row.bytes);
                }
            }
            // Not synced: what a power cut brings back, the next collection removes.
            db.write(batch).map_err(GetError::Store)?;
        }
        if collected.bytes >= COMPACT_BYTES_MIN {
            db.flush().map_err(GetError::Store)?;
            db.compact_range(Some(prefix(BLOB, workspace)), Some(prefix_end(BLOB, workspace)));
        }
        Ok(collected)
    }

    /// Keeps everything that is there until the answer is dropped. Waits while a collection removes a batch.
    pub fn hold(&self) -> RemovalHold {
        let _alone = self.0.removing.write().unwrap_or_else(PoisonError::into_inner);
        self.0.held.fetch_add(1, Ordering::AcqRel);
        RemovalHold(self.clone())
    }

    /// The names of all blobs of a workspace that are whole as far as is known.
    pub fn names(&self, workspace: &WorkspaceId) -> Result<Vec<Digest>, GetError> {
        let guard = self.db();
        let db = guard.as_ref().ok_or(GetError::Closed)?;
        let mut names = Vec::new();
        let show = |digest, row: Row| names.extend((!row.damaged).then_some(digest));
        each(db, workspace, show).map_err(GetError::Store)?;
        Ok(names)
    }

    /// The workspaces that have blobs.
    pub fn workspaces(&self) -> Result<Vec<WorkspaceId>, GetError> {
        let guard = self.db();
        let db = guard.as_ref().ok_or(GetError::Closed)?;
        let mut rows = db.raw_iterator();
        let mut found: Vec<WorkspaceId> = Vec::new();
        rows.seek([ROW]);
        while let Some(workspace) = rows.key().and_then(workspace_of) {
            rows.seek(prefix_end(ROW, &workspace));
            found.push(workspace);
        }
        rows.status().map_err(GetError::Store)?;
        Ok(found)
    }

    /// Writes out what is in memory, so that the next start has no log to replay.
    pub fn flush(&self) {
        if let Some(Err(error)) = self.db().as_ref().map(DB::flush) {
            warn!(%error, "the artifact store was not flushed; its log keeps what was stored");
        }
    }

    fn db(&self) -> RwLockReadGuard<'_, Option<DB>> {
        self.0.db.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a failed write means; a full disk is remembered, because RocksDB refuses all writes after it.
    fn refusal(&self, error: rocksdb::Error, wanted: u64) -> PutError {
        if !is_no_space(&error) {
            return PutError::Store(error);
        }
        warn!(%error, "the artifact store met a full disk");
        self.0.stuck.store(true, Ordering::Release);
        PutError::Full(self.0.space.met_end(wanted))
    }

    /// Opens the store again after it met a full disk. RocksDB would come back by itself, but in its own time.
    fn unstick(&self) -> Result<(), PutError> {
        if !self.0.stuck.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut db = self.0.db.write().unwrap_or_else(PoisonError::into_inner);
        if !self.0.stuck.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        // Closed first: RocksDB locks its folder.
        drop(db.take());
        match open(&self.0.dir) {
            Ok(opened) => {
                info!("the artifact store works again after a full disk");
                *db = Some(opened);
                Ok(())
            }
            Err(error) => {
                self.0.stuck.store(true, Ordering::Release);
                // Opening writes, and a disk that is full to the last byte takes nothing; reads go on without that.
                *db = DB::open_for_read_only(&options(), &self.0.dir, false).ok();
                Err(self.refusal(error.source, 0))
            }
        }
    }
}

fn open(dir: &Path) -> Result<DB, OpenError> {
    if let Err(error) = caxton_raft::cut_unwritten_ends(dir) {
        warn!(%error, "it cannot be seen whether the artifact store's log ends in what the power went before");
    }
    DB::open(&options(), dir).map_err(|source| OpenError { dir: dir.to_owned(), source })
}

fn options() -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(CACHE_BYTES));
    table.set_cache_index_and_filter_blocks(true);
    table.set_bloom_filter(10.0, false);
    let mut options = Options::default();
    options.create_if_missing(true);
    // The default mode opens a log with a flipped bit without a word, and drops what follows it.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_keep_log_file_num(2);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_enable_blob_files(true);
    options.set_min_blob_size(BLOB_FILE_MIN_BYTES);
    options.set_blob_compression_type(DBCompressionType::Lz4);
    options.set_enable_blob_gc(true);
    options.set_blob_gc_age_cutoff(1.0);
    options.set_block_based_table_factory(&table);
    options
}

fn synced() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}

fn is_no_space(error: &rocksdb::Error) -> bool {
    error.as_ref().contains("No space left on device")
}

#[cfg(test)]
mod tests;
