//! The SQLite file of one shard: how it is opened, who writes and who reads.
//!
//! One connection writes, what the log's entries say in one transaction together with the last one's index; any number read
//! beside it. Nothing here is synced by itself: what a crash or a power cut takes away, the log gives back.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tracing::{info, warn};

use super::writer::Writer;

/// After how many pages SQLite's log is moved into the database. Both are synced then, and an fsync of the replicated log
/// has to wait for as long as that takes: a few milliseconds for these, and 40 for sixteen times as many.
const CHECKPOINT_PAGES: i32 = 1_000;
/// The log keeps so many pages of its file, which it writes over again and again.
const LOG_PAGES_KEPT: i64 = 4_000;
/// Bytes of a page.
const PAGE_BYTES: i64 = 4_096;
/// Connections for readers that are kept open.
const READERS_KEPT: usize = 4;
/// The layout that this program writes. A file of another one is made anew from the group's snapshot and its log.
const SCHEMA: i64 = 2;
/// Statements that a connection keeps ready.
const STATEMENTS_KEPT: usize = 32;

/// Rows that can be long lie one after the other in the order in which they came (they have a row's number). Without one they
/// would lie in the order of their keys, each of more than a kilobyte with a page of its own.
const TABLES: &str = "
CREATE TABLE applied (one INTEGER PRIMARY KEY CHECK (one = 1), number INTEGER NOT NULL);
INSERT INTO applied VALUES (1, 0);
CREATE TABLE conversation (
    workspace TEXT NOT NULL, id TEXT NOT NULL, title TEXT NOT NULL, agent TEXT NOT NULL, turns INTEGER NOT NULL,
    input INTEGER NOT NULL, output INTEGER NOT NULL, created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL,
    PRIMARY KEY (workspace, id)) WITHOUT ROWID;
CREATE INDEX conversation_by_time ON conversation (workspace, updated_ms DESC, id);
CREATE TABLE turn (
    workspace TEXT NOT NULL, conversation TEXT NOT NULL, number INTEGER NOT NULL, turn TEXT NOT NULL,
    body BLOB NOT NULL, PRIMARY KEY (workspace, conversation, number));
CREATE UNIQUE INDEX turn_by_id ON turn (workspace, turn);
CREATE TABLE waiting (
    workspace TEXT NOT NULL, turn TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (workspace, turn));
CREATE TABLE piece (
    workspace TEXT NOT NULL, turn TEXT NOT NULL, kind INTEGER NOT NULL, number INTEGER NOT NULL,
    ends INTEGER NOT NULL, text TEXT NOT NULL, PRIMARY KEY (workspace, turn, kind, number));
CREATE TABLE day (
    day INTEGER NOT NULL, workspace TEXT NOT NULL, agent TEXT NOT NULL, tokens INTEGER NOT NULL, cost INTEGER NOT NULL,
    PRIMARY KEY (day, workspace, agent)) WITHOUT ROWID;
";

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// SQLite says no.
    #[error("the database {} cannot be opened", file.display())]
    Database {
        /// The file.
        file: PathBuf,
        /// Why not.
        #[source]
        source: rusqlite::Error,
    },
    /// The folder, or a damaged file that was to be put aside.
    #[error("{} cannot be used", file.display())]
    File {
        /// It.
        file: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// An open file.
pub struct Database {
    file: PathBuf,
    writer: Writer,
    readers: Mutex<Vec<Connection>>,
}

impl Database {
    /// Opens, or creates, the file. One that is damaged is put aside: the group's snapshot and its log make it anew.
    pub fn open(file: &Path) -> Result<Database, OpenError> {
        Database::open_with(file, CHECKPOINT_PAGES)
    }

    fn open_with(file: &Path, checkpoint_pages: i32) -> Result<Database, OpenError> {
        let at = |source| OpenError::File { file: file.to_owned(), source };
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder).map_err(at)?;
        }
        let database = |source| OpenError::Database { file: file.to_owned(), source };
        let layout = |it: &Connection| it.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0));
        let prepared = prepare(file).and_then(|writer| layout(&writer).map(|found| (writer, found)));
        let writer = match prepared {
            Ok((writer, SCHEMA)) => writer,
            Ok((other, found)) => {
                drop(other);
                info!(file = %file.display(), found, "a database of another layout is made anew from the log");
                remove_log(file).and_then(|()| std::fs::remove_file(file)).map_err(at)?;
                prepare(file).map_err(database)?
            }
            Err(error) if is_damaged(&error) => {
                let aside = file.with_extension("damaged");
                warn!(file = %file.display(), aside = %aside.display(), %error, "a damaged database is put aside and made anew from the log");
                std::fs::rename(file, aside).and_then(|()| remove_log(file)).map_err(at)?;
                prepare(file).map_err(database)?
            }
            Err(error) => return Err(database(error)),
        };
        let writer = Writer::start(file, writer, checkpoint_pages).map_err(at)?;
        Ok(Database { file: file.to_owned(), writer, readers: Mutex::default() })
    }

    /// Who writes.
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// A connection that only reads, of its own, and sees what was written before this call.
    pub fn connection(&self) -> rusqlite::Result<Connection> {
        self.writer.commit()?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.file, flags)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
        connection.pragma_update(None, "cache_size", -1024)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        Ok(connection)
    }

    /// Reads a few rows: what is not committed yet, too.
    pub fn read<R, E: From<rusqlite::Error>>(&self, read: impl FnOnce(&Connection) -> Result<R, E>) -> Result<R, E> {
        if self.writer.is_ahead() { self.writer.read(read) } else { self.read_beside(read) }
    }

    /// Reads many rows: what was written is committed first, so that nobody has to wait for this reader.
    pub fn scan<R, E: From<rusqlite::Error>>(&self, read: impl FnOnce(&Connection) -> Result<R, E>) -> Result<R, E> {
        self.writer.commit()?;
        self.read_beside(read)
    }

    /// Reads with a connection that is kept for the next reader.
    fn read_beside<R, E: From<rusqlite::Error>>(&self, read: impl FnOnce(&Connection) -> Result<R, E>) -> Result<R, E> {
        let kept = self.readers().pop();
        let connection = match kept {
            Some(connection) => connection,
            None => self.connection()?,
        };
        let result = read(&connection);
        let mut readers = self.readers();
        if readers.len() < READERS_KEPT {
            readers.push(connection);
        }
        result
    }

    fn readers(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn prepare(file: &Path) -> rusqlite::Result<Connection> {
    let is_new = !file.exists();
    let connection = Connection::open(file)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    // A file that a power cut leaves half made is damaged, and made anew.
    connection.pragma_update(None, "synchronous", if is_new { "OFF" } else { "NORMAL" })?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", LOG_PAGES_KEPT * PAGE_BYTES)?;
    connection.pragma_update(None, "cache_size", -4096)?;
    // Otherwise SQLite makes a statement anew whenever it is given other values.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found == 0 {
        connection.execute_batch(&format!("BEGIN; {TABLES} PRAGMA user_version = {SCHEMA}; COMMIT;"))?;
    }
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    Ok(connection)
}

/// Removes SQLite's log of a file, and the index of it.
fn remove_log(file: &Path) -> io::Result<()> {
    for end in ["db-wal", "db-shm"] {
        match std::fs::remove_file(file.with_extension(end)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn is_damaged(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMITS: u64 = 2_000;

    fn commit_often(database: &Database, numbers: std::ops::Range<u64>) {
        let text = "x".repeat(PAGE_BYTES as usize);
        for number in numbers {
            let row = "INSERT INTO piece VALUES ('team', 'turn', 0, ?1, 0, ?2)";
            let values = rusqlite::params![number.cast_signed(), text];
            let written = database.writer().write(|it| it.execute(row, values));
            written.and_then(|_| database.writer().commit()).expect("written");
        }
    }

    #[test]
    fn the_log_is_moved_while_the_writer_goes_on() {
        let dir = tempfile::tempdir().expect("a folder");
        let [file, alone] = ["shard-1.db", "shard-2.db"].map(|name| dir.path().join(name));
        let pages = |file: &Path| file.metadata().expect("there").len() / PAGE_BYTES.cast_unsigned();
        let log_of = |file: &Path| file.with_extension("db-wal");
        let database = Database::open_with(&file, 100).expect("opened");
        commit_often(&database, 0..COMMITS);
        while pages(&file) < COMMITS {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        commit_often(&database, COMMITS..2 * COMMITS);
        let count = |it: &Connection| it.query_row("SELECT count(*) FROM piece", [], |row| row.get::<_, i64>(0));
        assert_eq!(database.read(count).expect("read"), 2 * COMMITS.cast_signed());
        // The control: nobody moves it.
        let control = Database::open_with(&alone, i32::MAX).expect("opened");
        commit_often(&control, 0..2 * COMMITS);
        assert!(pages(&alone) < 100, "{} pages where nobody moves them", pages(&alone));
        // What was moved gave its place to what came after it.
        let [log, whole_log] = [&file, &alone].map(|file| pages(&log_of(file)));
        assert!(log < whole_log * 3 / 4, "{log} pages in the log, and {whole_log} where nobody moves them");
    }

    #[test]
    fn a_damaged_file_and_one_of_another_layout_are_made_anew() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("shard-1.db");
        std::fs::write(&file, [7; 8_192]).expect("written");
        let database = Database::open(&file).expect("made anew");
        assert!(file.with_extension("damaged").exists());
        let applied = |it: &Connection| it.query_row("SELECT number FROM applied", [], |row| row.get::<_, i64>(0));
        let becomes = |database: Database, layout: i64| {
            let change = |it: &mut Connection| {
                it.execute("UPDATE applied SET number = 7", [])?;
                it.pragma_update(None, "user_version", layout)
            };
            database.writer().alone(change).expect("written");
        };
        becomes(database, SCHEMA);
        let database = Database::open(&file).expect("opened");
        assert_eq!(database.read(applied).expect("read"), 7, "what it has of this layout is kept");
        drop(database);
        for other in [SCHEMA - 1, SCHEMA + 1] {
            becomes(Database::open(&file).expect("opened"), other);
            let database = Database::open(&file).expect("made anew");
            assert_eq!(database.read(applied).expect("read"), 0, "the log is to fill it in");
        }
    }
}
