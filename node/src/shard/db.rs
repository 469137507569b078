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

use super::tenant::{Content, Table, Tenant, Tenants};
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
/// The shard itself, where the number of a tenant stands.
pub(super) const SHARD: u32 = 0;
/// Its name beside the tenants'.
pub(super) const SHARD_NAME: &str = "shard";
/// The version of the shard's own tables. Versions of whole files before there were tenants count on in it: 1 and 2.
pub(super) const SHARD_LAYOUT: u32 = 3;
/// Statements that a connection keeps ready.
const STATEMENTS_KEPT: usize = 256;

/// Which layouts a file has. Not in snapshots: it is about this file.
const LAYOUTS: &str = "CREATE TABLE layout (tenant INTEGER PRIMARY KEY, version INTEGER NOT NULL) STRICT;";

/// The shard's own tables: which entry is the last in the file, and which were refused.
pub(super) const SHARD_TABLES: &[Table] = &[
    Table {
        name: "applied",
        sql: "CREATE TABLE applied (one INTEGER PRIMARY KEY CHECK (one = 1), number INTEGER NOT NULL) STRICT;
              INSERT INTO applied VALUES (1, 0);",
        content: Content::Rows,
    },
    Table {
        name: "refused",
        sql: "CREATE TABLE refused (number INTEGER PRIMARY KEY, tenant INTEGER NOT NULL, reason TEXT NOT NULL) STRICT;",
        content: Content::Rows,
    },
];

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// SQLite says no.
    #[error("the database {} cannot be opened", file.display())]
    Database {
        file: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    /// The folder, or a damaged file that was to be put aside.
    #[error("{} cannot be used", file.display())]
    File {
        file: PathBuf,
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
    /// Opens, or creates, the file. One that is damaged is put aside, and one of another layout goes: the group's snapshot
    /// and its log make it anew.
    pub(super) fn open(file: &Path, tenants: &Tenants) -> Result<Database, OpenError> {
        Database::open_with(file, tenants, CHECKPOINT_PAGES)
    }

    fn open_with(file: &Path, tenants: &Tenants, checkpoint_pages: i32) -> Result<Database, OpenError> {
        let at = |source| OpenError::File { file: file.to_owned(), source };
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder).map_err(at)?;
        }
        let database = |source| OpenError::Database { file: file.to_owned(), source };
        let prepared = prepare(file, tenants);
        let is_own = |it: &Connection| has_layout(it, tenants);
        let writer = match prepared.and_then(|writer| is_own(&writer).map(|is_own| (writer, is_own))) {
            Ok((writer, true)) => writer,
            Ok((other, false)) => {
                drop(other);
                info!(file = %file.display(), "a database of another layout is made anew from the log");
                remove_log(file).and_then(|()| std::fs::remove_file(file)).map_err(at)?;
                prepare(file, tenants).map_err(database)?
            }
            Err(error) if is_damaged(&error) => {
                let aside = file.with_extension("damaged");
                warn!(file = %file.display(), aside = %aside.display(), %error, "a damaged database is put aside and made anew from the log");
                std::fs::rename(file, aside).and_then(|()| remove_log(file)).map_err(at)?;
                prepare(file, tenants).map_err(database)?
            }
            Err(error) => return Err(database(error)),
        };
        let writer = Writer::start(file, writer, checkpoint_pages).map_err(at)?;
        Ok(Database { file: file.to_owned(), writer, readers: Mutex::default() })
    }

    pub(super) fn writer(&self) -> &Writer {
        &self.writer
    }

    /// A connection that only reads, of its own, and sees what was written before this call.
    pub(super) fn connection(&self) -> rusqlite::Result<Connection> {
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

    /// Changes what is derived from other rows, in a transaction of its own: it is no entry of the log. Whoever writes waits.
    pub fn mend<R>(&self, mend: impl FnOnce(&Connection) -> rusqlite::Result<R>) -> rusqlite::Result<R> {
        self.writer.alone(|connection| {
            let all = connection.transaction()?;
            let mended = mend(&all)?;
            all.commit()?;
            Ok(mended)
        })
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

fn prepare(file: &Path, tenants: &Tenants) -> rusqlite::Result<Connection> {
    let is_new = !file.exists();
    let connection = Connection::open(file)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    // A file that a power cut leaves half made is damaged, and made anew.
    connection.pragma_update(None, "synchronous", if is_new { "OFF" } else { "NORMAL" })?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", LOG_PAGES_KEPT * PAGE_BYTES)?;
    connection.pragma_update(None, "cache_size", -4096)?;
    // What a savepoint takes back is not worth a file.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // Otherwise SQLite makes a statement anew whenever it is given other values.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found == 0 {
        make_tables(&connection, tenants)?;
    }
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    Ok(connection)
}

/// Makes all tables, and says of which layout they are.
fn make_tables(connection: &Connection, tenants: &Tenants) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN")?;
    connection.execute_batch(LAYOUTS)?;
    for table in SHARD_TABLES.iter().chain(tenants.iter().flat_map(Tenant::tables)) {
        connection.execute_batch(table.sql)?;
    }
    for (tenant, version) in layouts(tenants) {
        connection.execute("INSERT INTO layout VALUES (?1, ?2)", [tenant, version])?;
    }
    connection.execute_batch(&format!("PRAGMA user_version = {SHARD_LAYOUT}; COMMIT;"))
}

/// Whether a file has the tables of these tenants, in these versions.
fn has_layout(connection: &Connection, tenants: &Tenants) -> rusqlite::Result<bool> {
    let own: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if own != i64::from(SHARD_LAYOUT) {
        return Ok(false);
    }
    let mut statement = connection.prepare("SELECT tenant, version FROM layout ORDER BY tenant")?;
    let found = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(found.collect::<rusqlite::Result<Vec<(u32, u32)>>>()? == layouts(tenants))
}

/// The version of each tenant's tables.
fn layouts(tenants: &Tenants) -> Vec<(u32, u32)> {
    tenants.iter().map(|tenant| (tenant.number(), tenant.layout())).collect()
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
    use super::super::notes::notes;
    use super::*;

    const COMMITS: u64 = 2_000;

    fn open(file: &Path) -> Database {
        Database::open(file, &notes(1)).expect("opened")
    }

    fn commit_often(database: &Database, numbers: std::ops::Range<u64>) {
        let text = "x".repeat(PAGE_BYTES as usize);
        for number in numbers {
            let row = "INSERT INTO note VALUES (?1, ?2)";
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
        let database = Database::open_with(&file, &notes(1), 100).expect("opened");
        commit_often(&database, 0..COMMITS);
        while pages(&file) < COMMITS {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        commit_often(&database, COMMITS..2 * COMMITS);
        let count = |it: &Connection| it.query_row("SELECT count(*) FROM note", [], |row| row.get::<_, i64>(0));
        assert_eq!(database.read(count).expect("read"), 2 * COMMITS.cast_signed());
        // The control: nobody moves it.
        let control = Database::open_with(&alone, &notes(1), i32::MAX).expect("opened");
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
        let database = open(&file);
        assert!(file.with_extension("damaged").exists());
        let applied = |it: &Connection| it.query_row("SELECT number FROM applied", [], |row| row.get::<_, i64>(0));
        let becomes = |database: Database, layout: u32| {
            let change = |it: &mut Connection| {
                it.execute("UPDATE applied SET number = 7", [])?;
                it.pragma_update(None, "user_version", layout)
            };
            database.writer().alone(change).expect("written");
        };
        becomes(database, SHARD_LAYOUT);
        let database = open(&file);
        assert_eq!(database.read(applied).expect("read"), 7, "what it has of this layout is kept");
        drop(database);
        for other in [SHARD_LAYOUT - 1, SHARD_LAYOUT + 1] {
            becomes(open(&file), other);
            assert_eq!(open(&file).read(applied).expect("read"), 0, "the log is to fill it in");
        }
        becomes(open(&file), SHARD_LAYOUT);
        let newer = Database::open(&file, &notes(2)).expect("opened");
        assert_eq!(newer.read(applied).expect("read"), 0, "a tenant has another layout");
        becomes(newer, SHARD_LAYOUT);
        let alone = Database::open(&file, &Tenants::new([]).expect("nobody")).expect("opened");
        assert_eq!(alone.read(applied).expect("read"), 0, "a tenant is missing");
    }
}
