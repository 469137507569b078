//! Moves SQLite's log into the database beside the connection that writes: a commit that did it would keep every turn of
//! the shard waiting for as long as tens of megabytes take to be synced, read and written again.
//!
//! SQLite lets one connection move what another has committed while that one goes on. So a thread does it, again and
//! again until little is left; that rest it moves while nobody writes, after which the log begins anew. See "Checkpointing"
//! in <https://www.sqlite.org/wal.html>.

use std::path::Path;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::Connection;
use tracing::warn;

/// So few pages of the log are moved while nobody writes.
const REST_PAGES: i64 = 200;
/// How often the log is moved while it grows, before the rest is, whatever is left.
const PASSES_MAX: usize = 4;
/// The pause after the log could not be moved to its end: a reader still needs it.
const PAUSE: Duration = Duration::from_secs(1);

/// The thread that moves the log of one database.
pub struct Checkpointer(Option<JoinHandle<()>>);

impl Checkpointer {
    /// Starts the thread for the database in `file`, which is called when a commit of `writer` leaves more than `pages_max`
    /// in the log. It ends when the writer is told to call nobody any more.
    pub fn start(file: &Path, writer: &Arc<Mutex<Connection>>, pages_max: i32) -> rusqlite::Result<Checkpointer> {
        let connection = Connection::open(file)?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        let (wanted, calls): (SyncSender<()>, _) = mpsc::sync_channel(1);
        let hook = move |_: &mut rusqlite::hooks::Wal, pages: i32| {
            if pages >= pages_max {
                // It may have been called already.
                _ = wanted.try_send(());
            }
            Ok(())
        };
        lock(writer).wal_hook(Some(hook))?;
        let thread = thread::Builder::new().name("checkpoint".into());
        let writer = Arc::downgrade(writer);
        let thread = thread.spawn(move || run(&connection, &writer, &calls));
        let thread = thread.inspect_err(|error| warn!(%error, "no thread to move a shard's log: it grows")).ok();
        Ok(Checkpointer(thread))
    }

    /// Waits for the thread, after the writer was told to call nobody any more.
    pub fn end(&mut self) {
        if let Some(thread) = self.0.take() {
            // One that panicked has said so.
            _ = thread.join();
        }
    }
}

fn run(connection: &Connection, writer: &Weak<Mutex<Connection>>, calls: &Receiver<()>) {
    while calls.recv().is_ok() {
        match move_log(connection, writer) {
            Ok(0) => {}
            Ok(_) => thread::sleep(PAUSE),
            Err(error) => {
                warn!(%error, "a shard's log could not be moved into its database; it is tried again");
                thread::sleep(PAUSE);
            }
        }
    }
}

/// Moves the log; says how many pages are left in it.
fn move_log(connection: &Connection, writer: &Weak<Mutex<Connection>>) -> rusqlite::Result<i64> {
    for _ in 0..PASSES_MAX {
        if checkpoint(connection)? <= REST_PAGES {
            break;
        }
    }
    match writer.upgrade() {
        Some(writer) => checkpoint(&lock(&writer)),
        None => Ok(0),
    }
}

/// Moves what nobody has to wait for; says how many pages are left.
fn checkpoint(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        let (all, moved): (i64, i64) = (row.get(1)?, row.get(2)?);
        Ok(all - moved)
    })
}

fn lock(connection: &Mutex<Connection>) -> std::sync::MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}
