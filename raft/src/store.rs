//! One RocksDB for all groups of a node: one write-ahead log, so that they share fsyncs. Nothing is on disk before
//! [`Store::synced`] says so, and what was damaged on disk is refused, with the file's name, instead of half read.

mod claim;
mod records;
mod syncer;
mod tail;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rocksdb::{BlockBasedOptions, Cache, DB, DBCompressionType, DBRecoveryMode, LogLevel, Options, WriteBatch};
use tokio::sync::{oneshot, watch};

pub use self::claim::ClaimError;
use self::syncer::Syncer;
use self::tail::Tail;
use crate::codec::Damage;
use crate::work::Work;

/// The folder of the database within the store's folder.
const DB_DIR: &str = "log";
/// The folder of the snapshots within the store's folder.
const SNAPSHOTS_DIR: &str = "snapshots";

const WRITE_BUFFER_BYTES: usize = 8 << 20;
const WRITE_BUFFERS_MAX: i32 = 2;
const WAL_BYTES_MAX: u64 = 64 << 20;
/// A table is on its way to the disk while it is written, so that an fsync of the log never waits for all of one.
const TABLE_STEP_BYTES: u64 = 512 << 10;
const CACHE_BYTES: usize = 2 << 20;
const OPEN_FILES_MAX: i32 = 64;
const BACKGROUND_JOBS_MAX: i32 = 2;
const INFO_LOGS_KEPT: usize = 2;
const INFO_LOG_BYTES_MAX: usize = 1 << 20;
const MANIFEST_STEP_BYTES: usize = 64 << 10;

/// What the groups of one node keep on disk. A handle: clones share the database.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    // Dropped first: its thread holds on to the database.
    disk: Box<dyn Disk>,
    work: Work,
    db: Arc<DB>,
    dir: PathBuf,
    // Dropped last: tells that the database is closed.
    closed: watch::Sender<()>,
}

/// Called once what was written before is on disk, or cannot be.
pub type SyncCallback = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Sees to it that what was written is on disk.
pub trait Disk: Send + Sync + 'static {
    /// Calls `then`, from wherever it likes, once everything that was written before this call is on disk. It keeps the
    /// order of the calls.
    fn sync(&self, then: SyncCallback);

    /// The same for a caller who has nothing else to do meanwhile: it may be done before this returns, as long as nobody
    /// waits for an earlier call.
    fn sync_soon(&self, then: SyncCallback) {
        self.sync(then);
    }

    /// Why nothing can be written any more, if so.
    fn check(&self) -> io::Result<()>;
}

/// Why a store does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be made or read.
    #[error("cannot use the folder {}", dir.display())]
    Folder {
        /// The folder that could not be made or read.
        dir: PathBuf,
        /// What the file system answered.
        #[source]
        source: io::Error,
    },
    /// Another process has it open.
    #[error(
        "the store in {} is in use by another process; stop that one first, or choose another data directory",
        dir.display()
    )]
    InUse {
        /// The store's folder.
        dir: PathBuf,
    },
    /// A file is not what was written.
    #[error(
        "{} is damaged ({what}), and is not used so that no half of it is served; keep a copy, then restore the data \
         directory from a backup, or move it away and start with an empty one",
        names(files)
    )]
    Damaged {
        /// The file; several when it is one of them.
        files: Vec<PathBuf>,
        /// How it shows.
        what: String,
    },
    /// The database does not open for another reason.
    #[error("cannot open the store in {}", dir.display())]
    Database {
        /// The store's folder.
        dir: PathBuf,
        /// What RocksDB answered.
        #[source]
        source: rocksdb::Error,
    },
}

/// Why the store cannot be read or written. It stops the group that asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("{} is damaged ({what}); restore the data directory from a backup", file.display())]
    Damaged { file: PathBuf, what: String },
    #[error("cannot read or write {}", dir.display())]
    Database {
        dir: PathBuf,
        #[source]
        source: rocksdb::Error,
    },
    #[error("cannot write {}", dir.display())]
    Sync {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A key and its value.
pub(crate) type Row = (Vec<u8>, Vec<u8>);

impl Store {
    /// Opens the store in `dir`, which is made if it is not there.
    pub fn open(dir: &Path) -> Result<Store, OpenError> {
        Store::open_with(dir, Work::OnThreads, |db, tail| Ok(Box::new(Syncer::start(db, tail)?)))
    }

    /// Opens it for a simulation: `disk` says when what was written is on disk, and nothing is done on another thread.
    pub fn open_on(dir: &Path, disk: impl Disk) -> Result<Store, OpenError> {
        Store::open_with(dir, Work::OnTheSpot, |_, _| Ok(Box::new(disk)))
    }

    fn open_with(
        dir: &Path,
        work: Work,
        disk: impl FnOnce(Arc<DB>, Tail) -> io::Result<Box<dyn Disk>>,
    ) -> Result<Store, OpenError> {
        let folder = |source| OpenError::Folder { dir: dir.to_owned(), source };
        let db_dir = dir.join(DB_DIR);
        fs::create_dir_all(&db_dir).map_err(folder)?;
        check_records(&db_dir)?;
        cut_unwritten_ends(&db_dir).map_err(folder)?;
        let db = DB::open(&options(), &db_dir).map_err(|error| open_error(&db_dir, error))?;
        let tail = Tail::open(dir).map_err(folder)?;
        check_end(&db, &db_dir, &tail)?;
        let db = Arc::new(db);
        let disk = disk(Arc::clone(&db), tail).map_err(folder)?;
        Ok(Store { inner: Arc::new(Inner { disk, work, db, dir: dir.to_owned(), closed: watch::Sender::default() }) })
    }

    /// Who does what blocks.
    pub(crate) fn work(&self) -> Work {
        self.inner.work
    }

    /// Ends once the last handle is gone and the database is closed, so that the folder can be opened again. What it
    /// waits for holds no handle of its own.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut open = self.inner.closed.subscribe();
        async move { while open.changed().await.is_ok() {} }
    }

    /// The folder in which snapshots are kept.
    pub(crate) fn snapshots_dir(&self) -> PathBuf {
        self.inner.dir.join(SNAPSHOTS_DIR)
    }

    /// Writes a batch, which can be read at once and is on disk after the next [`Store::synced`].
    pub(crate) fn write(&self, batch: WriteBatch) -> Result<(), StoreError> {
        self.inner.disk.check().map_err(|source| self.sync_error(source))?;
        self.inner.db.write(batch).map_err(|error| self.error(error))
    }

    /// Calls `then` from another thread once everything that was written before is on disk.
    pub(crate) fn synced_then(&self, then: impl FnOnce(io::Result<()>) + Send + 'static) {
        self.inner.disk.sync(Box::new(then));
    }

    /// The same for a caller who has nothing else to do meanwhile. It may be called before this returns.
    pub(crate) fn synced_soon(&self, then: impl FnOnce(io::Result<()>) + Send + 'static) {
        self.inner.disk.sync_soon(Box::new(then));
    }

    /// Waits until everything that was written before is on disk.
    pub(crate) async fn synced(&self) -> Result<(), StoreError> {
        let (done, wait) = oneshot::channel();
        // Whoever no longer waits does not need the answer.
        self.synced_then(|result| drop(done.send(result)));
        let ended = |_| io::Error::other("the thread that syncs the log has ended");
        wait.await.map_err(ended).flatten().map_err(|source| self.sync_error(source))
    }

    /// The value under `key`.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.db.get(key).map_err(|error| self.error(error))
    }

    /// Calls `take` for each key from `from` up to `to`, without `to`, in order, until it says that it has enough.
    pub(crate) fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        mut take: impl FnMut(&[u8], &[u8]) -> Result<Scan, Damage>,
    ) -> Result<(), StoreError> {
        let mut options = rocksdb::ReadOptions::default();
        options.set_iterate_upper_bound(to);
        let mut rows = self.inner.db.raw_iterator_opt(options);
        rows.seek(from);
        while let Some((key, value)) = rows.item() {
            match take(key, value).map_err(|damage| self.damaged(key, damage))? {
                Scan::On => rows.next(),
                Scan::Enough => return Ok(()),
            }
        }
        rows.status().map_err(|error| self.error(error))
    }

    /// The last key and value from `from` up to `to`, without `to`.
    pub(crate) fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<Row>, StoreError> {
        let mut options = rocksdb::ReadOptions::default();
        options.set_iterate_upper_bound(to);
        options.set_iterate_lower_bound(from);
        let mut rows = self.inner.db.raw_iterator_opt(options);
        rows.seek_to_last();
        let last = rows.item().map(|(key, value)| (key.to_vec(), value.to_vec()));
        rows.status().map_err(|error| self.error(error))?;
        Ok(last)
    }

    /// The error that says that the value under `key` is damaged.
    pub(crate) fn damaged(&self, key: &[u8], damage: Damage) -> StoreError {
        let what = format!("the value under {}: {damage}", hex::encode(key));
        StoreError::Damaged { file: self.inner.dir.join(DB_DIR), what }
    }

    fn error(&self, error: rocksdb::Error) -> StoreError {
        let dir = self.inner.dir.join(DB_DIR);
        match error.kind() {
            rocksdb::ErrorKind::Corruption => {
                StoreError::Damaged { file: named_file(&dir, error.as_ref()).unwrap_or(dir), what: error.into_string() }
            }
            _ => StoreError::Database { dir, source: error },
        }
    }

    fn sync_error(&self, source: io::Error) -> StoreError {
        StoreError::Sync { dir: self.inner.dir.join(DB_DIR), source }
    }
}

/// Whether a scan goes on.
pub(crate) enum Scan {
    On,
    Enough,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.db.cancel_all_background_work(true);
    }
}

fn options() -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(CACHE_BYTES));
    table.set_cache_index_and_filter_blocks(true);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    // A torn end is what a crash leaves; anything else is damage, and the default mode would open half of it.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_paranoid_checks(true);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_write_buffer_number(WRITE_BUFFERS_MAX);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    options.set_bytes_per_sync(TABLE_STEP_BYTES);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_max_background_jobs(BACKGROUND_JOBS_MAX);
    options.set_manifest_preallocation_size(MANIFEST_STEP_BYTES);
    options.set_skip_stats_update_on_db_open(true);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(INFO_LOGS_KEPT);
    options.set_max_log_file_size(INFO_LOG_BYTES_MAX);
    options
}

fn open_error(dir: &Path, error: rocksdb::Error) -> OpenError {
    let dir = dir.to_owned();
    match error.kind() {
        rocksdb::ErrorKind::Corruption => {
            let mut files = suspects(&dir, error.as_ref());
            if files.is_empty() {
                files.push(dir);
            }
            OpenError::Damaged { files, what: error.into_string() }
        }
        rocksdb::ErrorKind::IOError if error.as_ref().contains("lock") => OpenError::InUse { dir },
        _ => OpenError::Database { dir, source: error },
    }
}

/// Cuts off what the power went before, in the newest write-ahead log and the newest manifest of a RocksDB that is not open: a
/// record that was never on disk, and that RocksDB would take for damage. A folder that is not there has none.
pub fn cut_unwritten_ends(dir: &Path) -> io::Result<()> {
    for file in numbered_files(dir, ".log").pop().into_iter().chain(manifests(dir).pop()) {
        let Some(at) = records::unwritten_end(&file)? else { continue };
        tracing::warn!(file = %file.display(), at, "the power went before the end of this file was written: it is cut off");
        let cut = fs::OpenOptions::new().write(true).open(&file)?;
        cut.set_len(at)?;
        cut.sync_all()?;
    }
    Ok(())
}

/// The manifests of a database, the newest last.
fn manifests(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let is_manifest =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("MANIFEST-"));
    let mut files: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).filter(is_manifest).collect();
    files.sort();
    files
}

/// Refuses a database whose logs would lose whole records without a word.
fn check_records(dir: &Path) -> Result<(), OpenError> {
    fs::read_dir(dir).map_err(|source| OpenError::Folder { dir: dir.to_owned(), source })?;
    for file in numbered_files(dir, ".log").into_iter().chain(manifests(dir)) {
        let found =
            records::whole_after_torn(&file).map_err(|source| OpenError::Folder { dir: file.clone(), source })?;
        if let Some(at) = found {
            let what = format!("a record before byte {at} has a wrong length, and whole ones follow");
            return Err(OpenError::Damaged { files: vec![file], what });
        }
    }
    Ok(())
}

/// A log that ends before what was on disk was cut off: no crash does that.
fn check_end(db: &DB, dir: &Path, tail: &Tail) -> Result<(), OpenError> {
    let (found, marked) = (db.latest_sequence_number(), tail.last().unwrap_or_default());
    if found >= marked {
        return Ok(());
    }
    let what = format!("it ends at write {found}, and {marked} were on disk: its end was cut off");
    Err(OpenError::Damaged { files: vec![dir.to_owned()], what })
}

/// The files of which one is damaged. RocksDB never names a write-ahead log, and names the manifest when it cannot open a
/// table that the manifest lists.
fn suspects(dir: &Path, message: &str) -> Vec<PathBuf> {
    let Some(named) = named_file(dir, message) else {
        return numbered_files(dir, ".log");
    };
    let manifest = named.file_name().is_some_and(|name| name.to_string_lossy().starts_with("MANIFEST"));
    let tables = if manifest { numbered_files(dir, ".sst") } else { Vec::new() };
    std::iter::once(named).chain(tables).collect()
}

/// The file of the database that an error message names.
fn named_file(dir: &Path, message: &str) -> Option<PathBuf> {
    let words = message.split(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | ':' | '"' | '(' | ')'));
    let names = words.filter_map(|word| Path::new(word.trim_end_matches('.')).file_name());
    names.map(|name| dir.join(name)).find(|file| file.is_file())
}

/// The files that hold something and are named by a number and `suffix`.
fn numbered_files(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let is_numbered = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(suffix));
        number.is_some_and(|number| number.bytes().all(|digit| digit.is_ascii_digit()))
            && entry.metadata().is_ok_and(|metadata| metadata.len() > 0)
    };
    let mut files: Vec<_> = entries.filter_map(Result::ok).filter(is_numbered).map(|entry| entry.path()).collect();
    files.sort();
    files
}

fn names(files: &[PathBuf]) -> String {
    files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(" or ")
}
