//! Moves what SQLite wrote into its log (the file beside the database) on to the database, beside the one that writes.
//!
//! SQLite would do it inside a commit, every few thousand pages, with two syncs: whoever waited for that commit, and all
//! behind it, waited tens of milliseconds. Here another connection does it on a thread of its own, and a commit only
//! counts. A commit still does it itself when the log has become very long, so that it is never without a bound.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tracing::warn;

/// After so many commits the pages are moved: about four times a second where a thousand turns end in one.
const COMMITS_BETWEEN: u32 = 256;
/// While pages are moved others are written; so often the rest is moved too, so that the log can begin anew.
const PASSES_MAX: usize = 4;
/// A log of so many pages is moved by the commit that finds it, in pages of 4 KiB.
pub const PAGES_MAX: u32 = 32_000;

/// Who moves one database's pages.
pub struct Mover {
    file: PathBuf,
    state: Mutex<Moving>,
}

#[derive(Default)]
struct Moving {
    commits: u32,
    thread: Option<JoinHandle<()>>,
}

impl Mover {
    /// For the database in `file`.
    pub fn new(file: &Path) -> Mover {
        Mover { file: file.to_owned(), state: Mutex::default() }
    }

    /// A transaction was committed.
    pub fn committed(&self) {
        let mut moving = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        moving.commits += 1;
        let busy = moving.thread.as_ref().is_some_and(|thread| !thread.is_finished());
        if moving.commits < COMMITS_BETWEEN || busy {
            return;
        }
        moving.commits = 0;
        let file = self.file.clone();
        let run = move || {
            if let Err(error) = move_pages(&file) {
                warn!(file = %file.display(), %error, "the pages of a database were not moved out of its log; a commit will");
            }
        };
        match std::thread::Builder::new().name("sqlite-pages".to_owned()).spawn(run) {
            Ok(thread) => moving.thread = Some(thread),
            Err(error) => warn!(%error, "no thread for moving a database's pages; a commit will"),
        }
    }

    /// Waits until nothing is being moved.
    pub fn settle(&self) {
        let thread = self.state.lock().unwrap_or_else(PoisonError::into_inner).thread.take();
        // One that panicked has moved nothing, which is no harm.
        thread.map(JoinHandle::join);
    }
}

impl Drop for Mover {
    fn drop(&mut self) {
        self.settle();
    }
}

fn move_pages(file: &Path) -> rusqlite::Result<()> {
    let connection = Connection::open(file)?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    for _ in 0..PASSES_MAX {
        let pages = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
        let (written, moved) = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], pages)?;
        if moved >= written {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_moved_after_so_many_commits_and_the_log_begins_anew() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("a.db");
        let writer = Connection::open(&file).expect("opened");
        writer.pragma_update(None, "journal_mode", "WAL").expect("a log");
        writer.pragma_update(None, "wal_autocheckpoint", PAGES_MAX).expect("set");
        writer.execute_batch("CREATE TABLE t (x)").expect("a table");
        let (mover, log) = (Mover::new(&file), file.with_extension("db-wal"));
        let size = |path: &Path| std::fs::metadata(path).expect("is there").len();
        let write = |commits: u32| {
            for _ in 0..commits {
                writer.execute("INSERT INTO t VALUES (randomblob(3000))", []).expect("written");
                mover.committed();
            }
            mover.settle();
        };
        write(COMMITS_BETWEEN - 1);
        let (before, longest) = (size(&file), size(&log));
        write(1);
        assert!(size(&file) > before + u64::from(COMMITS_BETWEEN) * 3_000, "nothing was moved");
        // What is written from now on is written over what was moved.
        write(COMMITS_BETWEEN / 2);
        assert!(size(&log) < longest + longest / 4, "{} after {longest}", size(&log));
        let rows: u32 = writer.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).expect("a count");
        assert_eq!(rows, COMMITS_BETWEEN + COMMITS_BETWEEN / 2);
    }
}
