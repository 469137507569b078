//! The connection that writes a shard's database, and the thread that commits what it wrote.
//!
//! The rows of a database's newest messages lie in the same few pages, and a commit writes each page that changed: one
//! commit for many messages writes a tenth of what one for each does. Nothing is lost by that, since the replicated log has
//! every entry that is not in a commit. Whoever reads sees what is not committed too, see [`Database::read`].
//!
//! The same thread moves SQLite's own log into the database. A commit that did it would keep the shard's turns waiting while
//! the disk syncs all its pages. It moves them while the writer goes on, and what came meanwhile while nobody writes, after
//! which the log begins anew. See "Checkpointing" in <https://www.sqlite.org/wal.html>.
//!
//! [`Database::read`]: super::db::Database::read

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::hooks::Wal;
use tracing::warn;

/// What was written is committed after so long.
const COMMIT_AFTER: Duration = Duration::from_secs(1);
/// Writing is quick while the last write took less than this. It is as long as other things keep a thread of the runtime.
const QUICK: Duration = Duration::from_micros(200);
/// The pause after the log could not be moved to its end: a reader still needs it.
const PAUSE: Duration = Duration::from_secs(1);

/// The connection that writes, and its thread.
pub struct Writer {
    shared: Arc<Shared>,
    /// Tells the thread that there is something to commit.
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread has too.
struct Shared {
    file: PathBuf,
    /// Gone after a failure: what was written since the last commit is then lost to this process, and only opening the
    /// database again, and the log after it, brings it back.
    connection: Mutex<Option<Connection>>,
    /// Whether a transaction is under way. Changed only by who has the connection.
    underway: AtomicBool,
    /// Whether the last write was. Changed only by who has the connection.
    quick: AtomicBool,
    /// Pages in SQLite's log after the last commit.
    log_pages: Arc<AtomicI32>,
}

/// Something was not committed and is lost to this process.
fn lost() -> rusqlite::Error {
    let what = "an earlier write to this database failed; start the node again, and the replicated log fills it in";
    rusqlite::Error::ToSqlConversionFailure(what.into())
}

impl Writer {
    /// Starts the thread, which moves SQLite's log when a commit leaves at least `pages_max` in it.
    pub fn start(file: &Path, mut connection: Connection, pages_max: i32) -> io::Result<Writer> {
        let log_pages = Arc::new(AtomicI32::new(0));
        let seen = Arc::clone(&log_pages);
        let hook = move |_: &mut Wal, pages: i32| {
            seen.store(pages, Ordering::Relaxed);
            Ok(())
        };
        connection.wal_hook(Some(hook)).map_err(io::Error::other)?;
        let (connection, underway) = (Mutex::new(Some(connection)), AtomicBool::new(false));
        // Nobody knows yet how quick it is.
        let quick = AtomicBool::new(false);
        let shared = Arc::new(Shared { file: file.to_owned(), connection, underway, quick, log_pages });
        let (wake, calls) = mpsc::sync_channel(1);
        let keeper = Keeper { shared: Arc::clone(&shared), pages_max, own: None, not_before: None };
        let thread = thread::Builder::new().name("commits".into()).spawn(move || keeper.run(&calls))?;
        Ok(Writer { shared, wake: Some(wake), thread: Some(thread) })
    }

    /// Writes in the transaction that is under way, or begins one. After an error nothing more can be written or read.
    pub fn write<R, E: From<rusqlite::Error>>(&self, write: impl FnOnce(&Connection) -> Result<R, E>) -> Result<R, E> {
        let mut place = self.shared.lock();
        // Taken out, so that it is gone after an error and after a panic: closing it undoes what was half written.
        let connection = place.take().ok_or_else(lost)?;
        let began = Instant::now();
        let begins = !self.shared.underway.load(Ordering::Relaxed);
        self.shared.underway.store(true, Ordering::Release);
        if begins {
            connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        }
        let written = write(&connection)?;
        *place = Some(connection);
        self.shared.quick.store(began.elapsed() < QUICK, Ordering::Relaxed);
        drop(place);
        if let Some(wake) = self.wake.as_ref().filter(|_| begins) {
            // It may have been called already.
            _ = wake.try_send(());
        }
        Ok(written)
    }

    /// Whether a few rows can be written or read at once: nobody has the connection, and the last write took no time.
    pub fn is_quick(&self) -> bool {
        // A thread that panicked left nothing to write with, which whoever writes finds out at once.
        let is_free = || !matches!(self.shared.connection.try_lock(), Err(TryLockError::WouldBlock));
        self.shared.quick.load(Ordering::Relaxed) && is_free()
    }

    /// Whether something is not committed.
    pub fn is_ahead(&self) -> bool {
        self.shared.underway.load(Ordering::Acquire)
    }

    /// Reads what is not committed too. Writing waits for it.
    pub fn read<R, E: From<rusqlite::Error>>(&self, read: impl FnOnce(&Connection) -> Result<R, E>) -> Result<R, E> {
        read(self.shared.lock().as_ref().ok_or_else(lost)?)
    }

    /// Commits what was written.
    pub fn commit(&self) -> rusqlite::Result<()> {
        self.shared.commit(&mut self.shared.lock())
    }

    /// Does something with the connection while no transaction is under way.
    pub fn alone<R, E: From<rusqlite::Error>>(
        &self,
        act: impl FnOnce(&mut Connection) -> Result<R, E>,
    ) -> Result<R, E> {
        let mut place = self.shared.lock();
        self.shared.commit(&mut place)?;
        act(place.as_mut().ok_or_else(lost)?)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.wake = None;
        let file = self.shared.file.display();
        if self.thread.take().map(JoinHandle::join).is_some_and(|joined| joined.is_err()) {
            warn!(%file, "the thread that commits ended with a panic");
        }
        if let Err(error) = self.commit() {
            warn!(%error, %file, "a database was closed without its last writes; the replicated log has them");
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<Connection>> {
        self.connection.lock().unwrap_or_else(|poisoned| {
            let mut place = poisoned.into_inner();
            *place = None;
            place
        })
    }

    fn commit(&self, place: &mut Option<Connection>) -> rusqlite::Result<()> {
        let connection = place.take().ok_or_else(lost)?;
        if self.underway.load(Ordering::Relaxed) {
            connection.prepare_cached("COMMIT")?.execute([])?;
            self.underway.store(false, Ordering::Release);
        }
        *place = Some(connection);
        Ok(())
    }
}

/// What the thread does.
struct Keeper {
    shared: Arc<Shared>,
    pages_max: i32,
    /// The connection that moves the log while the other one writes.
    own: Option<Connection>,
    /// When the log may be moved again.
    not_before: Option<Instant>,
}

impl Keeper {
    fn run(mut self, calls: &Receiver<()>) {
        // Shards that are written all the time do not all commit in the same moment.
        let mut after = COMMIT_AFTER.mul_f64(RandomState::new().hash_one(&self.shared.file) as f64 / u64::MAX as f64);
        while calls.recv().is_ok() {
            let until = Instant::now() + std::mem::replace(&mut after, COMMIT_AFTER);
            loop {
                match calls.recv_timeout(until.saturating_duration_since(Instant::now())) {
                    Ok(()) => {}
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
            self.commit();
            let due = self.not_before.is_none_or(|moment| Instant::now() >= moment);
            if due && self.shared.log_pages.load(Ordering::Relaxed) >= self.pages_max {
                self.move_log_or_pause();
            }
        }
    }

    fn commit(&self) {
        let mut place = self.shared.lock();
        if place.is_some()
            && let Err(error) = self.shared.commit(&mut place)
        {
            // The next write fails, and stops the group.
            warn!(%error, file = %self.shared.file.display(), "a shard's state could not be committed");
        }
    }

    fn move_log_or_pause(&mut self) {
        self.not_before = match self.move_log() {
            Ok(0) => None,
            Ok(_) => Some(Instant::now() + PAUSE),
            Err(error) => {
                let file = self.shared.file.display();
                warn!(%error, %file, "SQLite's log could not be moved into the database; it is tried again");
                Some(Instant::now() + PAUSE)
            }
        };
    }

    /// Moves the log; says how many pages are left in it.
    fn move_log(&mut self) -> rusqlite::Result<i32> {
        let connection = match &mut self.own {
            Some(connection) => connection,
            none => none.insert(Connection::open(&self.shared.file)?),
        };
        checkpoint(connection)?;
        let mut place = self.shared.lock();
        self.shared.commit(&mut place)?;
        checkpoint(connection)
    }
}

/// Moves what nobody has to wait for; says how many pages are left.
fn checkpoint(connection: &Connection) -> rusqlite::Result<i32> {
    // The function of that name does nothing with a connection that has read nothing yet.
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        let (all, moved): (i32, i32) = (row.get(1)?, row.get(2)?);
        Ok(all - moved)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_is_quick_when_the_last_write_was_and_nobody_else_writes() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("one.db");
        let writer = Writer::start(&file, Connection::open(&file).expect("opened"), 1_000).expect("started");
        assert!(!writer.is_quick(), "nobody knows yet");
        writer.shared.quick.store(true, Ordering::Relaxed);
        assert!(writer.is_quick());
        let busy = writer.read(|_| Ok::<_, rusqlite::Error>(!writer.is_quick())).expect("read");
        assert!(busy, "somebody has the connection");
        let slow = |_: &Connection| {
            thread::sleep(2 * QUICK);
            Ok::<_, rusqlite::Error>(())
        };
        writer.write(slow).expect("written");
        assert!(!writer.is_quick(), "the last one took long");
    }
}
