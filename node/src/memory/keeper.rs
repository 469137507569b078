//! The index of one shard's memories, in memory: loaded from the tables at the start, and brought up to them before every
//! search.
//!
//! What a command touched is noted while it is applied and looked at again once it is committed, so that it does no harm if
//! it was taken back. Vectors are made here, and kept in a file under `cache/` that can be deleted.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use caxton_embed::Model as SentenceModel;
use caxton_memory::{Changes, Index, Memory, Model, Permit, Query, Touched, cache};
use caxton_raft::GroupId;
use rusqlite::{Connection, Result};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::journal::Journal;
use super::{FoundMemories, SearchOrder};
use crate::shard::{Database, Shard};

/// When more was touched than this, the index is loaded anew.
const TOUCHED_MAX: usize = 100_000;
/// So few rows are looked at again on the connection that writes.
const TOUCHED_FEW: usize = 64;
/// So many changes the index takes at once: whoever searches waits for them, a few microseconds each.
const TAKEN_AT_ONCE: usize = 256;
/// So many texts that wait for their vectors a search embeds before it begins; where more do, it finds them by their words.
const EMBEDDED_FIRST: usize = 16;
/// Texts that the worker embeds before it lets others work.
const EMBEDDED_AT_ONCE: usize = 8;
/// Connections to the cache of vectors that are kept open.
const CONNECTIONS_KEPT: usize = 4;
/// The index is measured at most this often.
const MEASURED_EVERY: Duration = Duration::from_secs(10);
/// The pause after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// The keepers of all shards of a node. A clone is a handle on the same.
#[derive(Clone)]
pub struct Keepers(Arc<Shared>);

struct Shared {
    dir: PathBuf,
    model: SentenceModel,
    keepers: Mutex<BTreeMap<GroupId, Arc<Keeper>>>,
}

impl Keepers {
    /// Keepers that make vectors with this model and keep them in files in `dir`.
    pub fn new(dir: &Path, model: SentenceModel) -> Keepers {
        Keepers(Arc::new(Shared { dir: dir.to_owned(), model, keepers: Mutex::default() }))
    }

    /// The one of a shard.
    pub fn of(&self, shard: GroupId) -> Arc<Keeper> {
        let new = || Arc::new(Keeper::new(shard, &self.0.dir, self.0.model.clone()));
        Arc::clone(lock(&self.0.keepers).entry(shard).or_insert_with(new))
    }
}

/// How far an index is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// It has not been loaded since the start, or since a snapshot came.
    pub loading: bool,
    /// Texts that wait for their vectors: until then they are found by their words.
    pub pending: u64,
    /// Bytes of memory that it takes, about.
    pub bytes: u64,
}

/// What of the tables the index has not seen yet.
#[derive(Default)]
struct Unseen {
    touched: HashSet<Touched>,
    /// All of the tables, because too much was touched or they were filled anew.
    all: bool,
}

/// Keeps the index of one shard.
pub struct Keeper {
    shard: GroupId,
    model: SentenceModel,
    file: PathBuf,
    unseen: Mutex<Unseen>,
    /// What of it a backend has to be told.
    journal: Journal,
    /// Held by who brings the index up to the tables: whoever searches meanwhile waits for it.
    following: Mutex<()>,
    /// Held by who makes vectors.
    embedding: Mutex<()>,
    index: RwLock<Index>,
    connections: Mutex<Vec<Connection>>,
    /// What was done when the cache was swept and the index measured last.
    kept_house: Mutex<House>,
    wake: Notify,
    /// The full-text table was not looked at yet, or somebody has complained of it since.
    text_is_in_doubt: AtomicBool,
}

/// What the keeper did behind the requests.
#[derive(Default)]
struct House {
    /// Memories that were gone when the cache was swept last; none since the index was loaded.
    swept: Option<u64>,
    measured: Option<Instant>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Keeper {
    fn new(shard: GroupId, dir: &Path, model: SentenceModel) -> Keeper {
        let known = Model { hash: model.id(), dimensions: model.dimensions() };
        Keeper {
            shard,
            model,
            file: dir.join(format!("memory-{}.db", shard.0)),
            unseen: Mutex::new(Unseen { touched: HashSet::new(), all: true }),
            journal: Journal::default(),
            following: Mutex::default(),
            embedding: Mutex::default(),
            index: RwLock::new(Index::new(known)),
            connections: Mutex::default(),
            kept_house: Mutex::default(),
            wake: Notify::new(),
            text_is_in_doubt: AtomicBool::new(true),
        }
    }

    /// Notes what a command touched.
    pub(super) fn touch(&self, touched: Vec<Touched>) {
        self.journal.note(&touched);
        let mut unseen = lock(&self.unseen);
        if !unseen.all {
            unseen.touched.extend(touched);
            if unseen.touched.len() > TOUCHED_MAX {
                *unseen = Unseen { touched: HashSet::new(), all: true };
            }
        }
        drop(unseen);
        self.wake.notify_one();
    }

    /// The tables hold something else now.
    pub(super) fn begin_anew(&self) {
        self.journal.reset();
        *lock(&self.unseen) = Unseen { touched: HashSet::new(), all: true };
        self.wake.notify_one();
    }

    /// What changed of the workspaces that a backend follows.
    pub(super) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Names the model that makes the vectors, by the beginning of its hash, and how many numbers they have.
    pub(super) fn model(&self) -> (String, usize) {
        let hash: String = self.model.id()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        (hash, self.model.dimensions())
    }

    /// The vector of what is searched for.
    pub(super) fn vector_of(&self, text: &str) -> Vec<f32> {
        self.model.embed(text).as_slice().to_vec()
    }

    /// The vectors of texts: those that are kept, and the others made and kept.
    pub(super) fn vectors(&self, texts: &[String]) -> Result<Vec<Vec<f32>>> {
        let known = *self.index().model();
        self.with_cache(|connection| {
            let all = connection.unchecked_transaction()?;
            let mut vectors = Vec::with_capacity(texts.len());
            for text in texts {
                let key = cache::TextKey::of(text);
                let vector = match cache::read(connection, &known, key)? {
                    Some(vector) => vector,
                    None => {
                        let vector = self.vector_of(text);
                        cache::write(connection, &known, key, &vector)?;
                        vector
                    }
                };
                vectors.push(vector);
            }
            all.commit()?;
            Ok(vectors)
        })
    }

    /// How far it is.
    pub(super) fn progress(&self) -> Progress {
        let loading = lock(&self.unseen).all;
        let index = self.index();
        Progress { loading, pending: index.pending_count() as u64, bytes: index.bytes() as u64 }
    }

    fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Searches, and reads what was found. The tables decide once more what the permit and the filter let through.
    pub(super) fn search(&self, database: &Database, permit: &Permit, order: &SearchOrder) -> Result<FoundMemories> {
        let mut found = self.searched(database, order, |index, vectors, query| index.search(vectors, permit, query))?;
        let mut memories = Vec::with_capacity(found.hits.len());
        database.read(|rows| {
            let mut hits = Vec::with_capacity(found.hits.len());
            for hit in std::mem::take(&mut found.hits) {
                let memory = caxton_memory::get(rows, permit, &hit.id)?;
                if let Some(memory) = memory.filter(|it| order.filter.allows(&it.what, it.untrusted)) {
                    memories.push(memory);
                    hits.push(hit);
                }
            }
            found.hits = hits;
            Ok::<_, rusqlite::Error>(())
        })?;
        Ok(FoundMemories { found, memories, backend: None })
    }

    /// Searches conversations: their ids and scores, and the best memory of each.
    pub(super) fn search_conversations(
        &self,
        database: &Database,
        permit: &Permit,
        order: &SearchOrder,
    ) -> Result<Vec<(String, f32, Memory)>> {
        let found = self.searched(database, order, |index, _, query| index.search_episodes(permit, query))?;
        database.read(|rows| {
            let mut all = Vec::with_capacity(found.episodes.len());
            for episode in found.episodes {
                let best = caxton_memory::get(rows, permit, &episode.best.id)?;
                all.extend(best.map(|best| (episode.conversation, episode.score, best)));
            }
            Ok(all)
        })
    }

    fn searched<R>(
        &self,
        database: &Database,
        order: &SearchOrder,
        search: impl Fn(&Index, &Connection, &Query<'_>) -> Result<R>,
    ) -> Result<R> {
        self.follow(database)?;
        // What was written a moment ago is found by its meaning too, also where the worker is at it just now.
        if (1..=EMBEDDED_FIRST).contains(&self.index().pending_count()) {
            let _alone = lock(&self.embedding);
            self.embed(EMBEDDED_FIRST)?;
        }
        let vector = match order.mode {
            caxton_memory::Mode::Words => None,
            caxton_memory::Mode::Both | caxton_memory::Mode::Meaning => Some(self.model.embed(&order.text)),
        };
        let query = Query {
            mode: order.mode,
            filter: order.filter.clone(),
            as_of_ms: order.as_of_ms,
            limit: order.limit,
            min_similarity: order.min_similarity,
            among: order.among.as_deref(),
            ..Query::new(&order.text, vector.as_ref().map(|vector| vector.as_slice()), order.now_ms)
        };
        self.with_cache(|cache| search(&self.index(), cache, &query))
    }

    /// Looks at the graph.
    pub(super) fn look<R>(&self, database: &Database, look: impl FnOnce(&Index) -> R) -> Result<R> {
        self.follow(database)?;
        Ok(look(&self.index()))
    }

    /// Brings the index up to what is applied. Whoever comes while another one does so waits: what it wrote may be in it.
    fn follow(&self, database: &Database) -> Result<()> {
        let _alone = lock(&self.following);
        let Unseen { touched, all } = std::mem::take(&mut *lock(&self.unseen));
        let followed = match (all, touched.len()) {
            (true, _) => self.load(database),
            (false, 0) => Ok(()),
            // The rows are read first, and the index is taken for what they say: neither do those that search wait for the
            // disk, nor does the log wait for those that search.
            (false, ..=TOUCHED_FEW) => database.read(|rows| Changes::read(rows, &touched)).map(|changes| {
                self.index_mut().take(changes);
            }),
            (false, _) => self.follow_many(database, touched),
        };
        if followed.is_err() {
            lock(&self.unseen).all = true;
        }
        followed
    }

    fn follow_many(&self, database: &Database, touched: HashSet<Touched>) -> Result<()> {
        let mut touched: Vec<Touched> = touched.into_iter().collect();
        // Entities come before the relations between them, in the whole as in each part.
        touched.sort_unstable();
        touched.chunks(TAKEN_AT_ONCE).try_for_each(|part| {
            let changes = database.scan(|rows| Changes::read(rows, part))?;
            self.index_mut().take(changes);
            Ok(())
        })
    }

    /// Somebody found the full-text table damaged.
    pub(super) fn doubt_text(&self) {
        self.text_is_in_doubt.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// Makes the full-text table anew where it does not go with the memories, or cannot be read.
    fn mend_text(&self, database: &Database) -> Result<()> {
        if database.scan(caxton_memory::is_whole).unwrap_or(false) {
            return Ok(());
        }
        if database.mend(caxton_memory::repair)? {
            warn!(shard = self.shard.0, "the full-text table of what is remembered was damaged and is made anew");
        }
        Ok(())
    }

    fn load(&self, database: &Database) -> Result<()> {
        let known = *self.index().model();
        let loaded = self.with_cache(|cache| database.scan(|rows| Index::load(rows, cache, known)))?;
        *self.index_mut() = loaded;
        lock(&self.kept_house).swept = None;
        Ok(())
    }

    /// Makes vectors of texts that wait for them, at most so many; says whether more wait. Only who holds the lock calls it.
    fn embed(&self, most: usize) -> Result<bool> {
        // Asking first keeps those that search from waiting for each other.
        if self.index().pending_count() == 0 {
            return Ok(false);
        }
        let pending = self.index_mut().pending(most);
        if pending.is_empty() {
            return Ok(false);
        }
        let known = *self.index().model();
        let made = self.with_cache(|connection| {
            let mut made = Vec::with_capacity(pending.len());
            let all = connection.unchecked_transaction()?;
            for it in &pending {
                // Another workspace may have said the same, or an earlier life of this node.
                let vector = match cache::read(connection, &known, it.key)? {
                    Some(vector) => vector,
                    None => {
                        let vector = self.model.embed(&it.text).as_slice().to_vec();
                        cache::write(connection, &known, it.key, &vector)?;
                        vector
                    }
                };
                made.push((it.key, vector));
            }
            all.commit()?;
            Ok(made)
        })?;
        let mut index = self.index_mut();
        for (key, vector) in &made {
            index.learn(*key, vector);
        }
        Ok(index.pending_count() > 0)
    }

    /// Deletes the vectors of texts that nothing has any more, and those of other models.
    fn sweep(&self) -> Result<usize> {
        let (needed, known) = {
            let index = self.index();
            (index.needs(), *index.model())
        };
        self.with_cache(|cache| cache::sweep(cache, &known, |key| needed.contains(&key)))
    }

    /// Uses the cache. A file that turns out to be damaged is made anew, and used once more: it holds nothing that cannot be
    /// made again.
    fn with_cache<R>(&self, mut used: impl FnMut(&Connection) -> Result<R>) -> Result<R> {
        let connection = self.connection()?;
        let result = match used(&connection) {
            Err(error) if is_damage(&error) => {
                drop(connection);
                let anew = self.made_anew(&error)?;
                let result = used(&anew);
                (result, anew)
            }
            result => (result, connection),
        };
        let (result, connection) = result;
        if result.is_ok() {
            self.give_back(connection);
        }
        result
    }

    fn connection(&self) -> Result<Connection> {
        if let Some(kept) = lock(&self.connections).pop() {
            return Ok(kept);
        }
        open(&self.file).or_else(|error| self.made_anew(&error))
    }

    fn made_anew(&self, error: &rusqlite::Error) -> Result<Connection> {
        warn!(%error, file = %self.file.display(), "the cache of memories' vectors is made anew");
        lock(&self.connections).clear();
        // What the index has of it is made anew, too.
        lock(&self.unseen).all = true;
        for end in ["", "-wal", "-shm"] {
            let mut file = self.file.clone().into_os_string();
            file.push(end);
            _ = std::fs::remove_file(file);
        }
        open(&self.file)
    }

    fn give_back(&self, connection: Connection) {
        let mut kept = lock(&self.connections);
        if kept.len() < CONNECTIONS_KEPT {
            kept.push(connection);
        }
    }

    /// One step of the work behind the requests; says whether there is more.
    fn work(&self, database: &Database) -> Result<bool> {
        self.follow(database)?;
        let more = {
            let _alone = lock(&self.embedding);
            self.embed(EMBEDDED_AT_ONCE)?
        };
        let mut house = lock(&self.kept_house);
        if !more && self.text_is_in_doubt.swap(false, Ordering::Relaxed) {
            self.mend_text(database)?;
        }
        let gone = self.index().gone();
        if !more && house.swept != Some(gone) {
            let swept = self.sweep()?;
            debug!(shard = self.shard.0, swept, "vectors of texts that are gone were deleted");
            house.swept = Some(gone);
        }
        if house.measured.is_none_or(|at| at.elapsed() > MEASURED_EVERY) {
            house.measured = Some(Instant::now());
            let Progress { pending, bytes, loading: _ } = self.progress();
            let shard = self.shard.0.to_string();
            metrics::gauge!("caxton_memory_index_bytes", "shard" => shard.clone()).set(bytes as f64);
            metrics::gauge!("caxton_memory_pending_vectors", "shard" => shard).set(pending as f64);
        }
        Ok(more)
    }

    /// Loads the index and makes vectors until it is stopped.
    pub async fn run(self: Arc<Keeper>, shard: Shard, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let keeper = Arc::clone(&self);
            match shard.read(move |state| keeper.work(state.database())).await {
                Ok(true) => tokio::task::yield_now().await,
                Ok(false) => _ = stop.run_until_cancelled(self.wake.notified()).await,
                Err(error) => {
                    warn!(shard = self.shard.0, %error, "the index of what is remembered is behind");
                    _ = stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
                }
            }
        }
    }
}

/// Whether a file of the cache holds something else than was written to it.
fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase))
}

fn open(file: &Path) -> Result<Connection> {
    if let Some(folder) = file.parent() {
        // Where this fails, opening the file says why.
        _ = crate::files::private_dir(folder);
    }
    let connection = Connection::open(file)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    cache::create(&connection)?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use caxton_memory::cache::TextKey;

    use super::*;
    use crate::memory::Keepers;

    #[test]
    fn a_cache_that_is_damaged_in_its_middle_is_made_anew() {
        let dir = tempfile::tempdir().expect("a folder");
        let keeper = Keepers::new(dir.path(), caxton_embed::Model::built_in()).of(caxton_raft::GroupId(1));
        let known = *keeper.index().model();
        let keys: Vec<TextKey> = (0..1_000).map(|number| TextKey::of(&number.to_string())).collect();
        let filled = keeper.with_cache(|cache| {
            let vector = vec![0.5; known.dimensions];
            keys.iter().try_for_each(|key| cache::write(cache, &known, *key, &vector))?;
            cache.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        });
        filled.expect("filled");
        lock(&keeper.connections).clear();
        let mut bytes = std::fs::read(&keeper.file).expect("a file");
        let half = bytes.len() / 2;
        bytes[half..].fill(0xa5);
        std::fs::write(&keeper.file, bytes).expect("damaged");
        let read =
            |cache: &Connection| keys.iter().map(|key| cache::read(cache, &known, *key)).collect::<Result<Vec<_>>>();
        let found = keeper.with_cache(read).expect("it is used");
        assert!(found.iter().all(Option::is_none), "it is empty");
        assert!(lock(&keeper.unseen).all, "what the index has of it is looked at again");
    }
}
