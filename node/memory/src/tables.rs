//! The tables, and the full-text table that is derived from them.
//!
//! A *place* is a scope of a workspace under a number, so that rows, filters and the full-text table name it in a few bytes.

use caxton_proto::WorkspaceId;
use caxton_proto::memory::{Scope, ScopeKind};
use rusqlite::{Connection, OptionalExtension, Result, params};

/// Statements that a connection keeps ready; SQLite would parse them anew for every row.
const STATEMENTS_KEPT: usize = 128;

/// A text lies in a table with a row's number: ordered by an id of its own, each long row would take a page.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS memory_place (
    place INTEGER PRIMARY KEY AUTOINCREMENT, workspace TEXT NOT NULL, scope INTEGER NOT NULL, name TEXT NOT NULL,
    UNIQUE (workspace, scope, name));
CREATE TABLE IF NOT EXISTS memory (
    row INTEGER PRIMARY KEY, place INTEGER NOT NULL, id BLOB NOT NULL, kind TEXT NOT NULL, name TEXT,
    text TEXT NOT NULL, metadata TEXT, importance INTEGER NOT NULL, pinned INTEGER NOT NULL,
    untrusted INTEGER NOT NULL, entity INTEGER, created_ms INTEGER NOT NULL, changed_ms INTEGER NOT NULL,
    valid_from_ms INTEGER NOT NULL, valid_to_ms INTEGER, replaces BLOB, same INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS memory_by_id ON memory (id);
CREATE INDEX IF NOT EXISTS memory_by_text ON memory (place, same);
CREATE INDEX IF NOT EXISTS memory_by_name ON memory (place, kind, name) WHERE name IS NOT NULL;
CREATE INDEX IF NOT EXISTS memory_by_entity ON memory (entity) WHERE entity IS NOT NULL;
CREATE INDEX IF NOT EXISTS memory_by_time ON memory (place, changed_ms, id);
CREATE TABLE IF NOT EXISTS memory_entity (
    row INTEGER PRIMARY KEY, place INTEGER NOT NULL, id BLOB NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL,
    metadata TEXT, untrusted INTEGER NOT NULL, created_ms INTEGER NOT NULL, changed_ms INTEGER NOT NULL,
    UNIQUE (place, name));
CREATE INDEX IF NOT EXISTS memory_entity_by_id ON memory_entity (id);
CREATE TABLE IF NOT EXISTS memory_relation (
    row INTEGER PRIMARY KEY, place INTEGER NOT NULL, id BLOB NOT NULL, from_row INTEGER NOT NULL, kind TEXT NOT NULL,
    to_row INTEGER NOT NULL, metadata TEXT, untrusted INTEGER NOT NULL, created_ms INTEGER NOT NULL,
    changed_ms INTEGER NOT NULL, valid_from_ms INTEGER NOT NULL, valid_to_ms INTEGER);
CREATE INDEX IF NOT EXISTS memory_relation_by_id ON memory_relation (id);
CREATE INDEX IF NOT EXISTS memory_relation_by_from ON memory_relation (from_row, kind, to_row);
CREATE INDEX IF NOT EXISTS memory_relation_by_to ON memory_relation (to_row);
CREATE INDEX IF NOT EXISTS memory_relation_by_place ON memory_relation (place);
CREATE TABLE IF NOT EXISTS memory_source (
    owner INTEGER NOT NULL, row INTEGER NOT NULL, number INTEGER NOT NULL, origin INTEGER NOT NULL, name TEXT NOT NULL,
    turn TEXT, position INTEGER, at_ms INTEGER NOT NULL, untrusted INTEGER NOT NULL,
    PRIMARY KEY (owner, row, number)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS memory_source_by_name ON memory_source (name, origin) WHERE origin IN (1, 3);
CREATE TABLE IF NOT EXISTS memory_edit (
    memory INTEGER NOT NULL, number INTEGER NOT NULL, actor TEXT NOT NULL, at_ms INTEGER NOT NULL,
    before BLOB NOT NULL, PRIMARY KEY (memory, number));
";

/// The vectors are a cache, and the full-text table is derived: neither is in a snapshot.
const DERIVED: &str = "
CREATE TABLE IF NOT EXISTS memory_vector (
    model BLOB NOT NULL, text BLOB NOT NULL, vector BLOB NOT NULL, PRIMARY KEY (model, text)) WITHOUT ROWID;
CREATE VIRTUAL TABLE IF NOT EXISTS memory_text USING fts5(
    text, place, content='', contentless_delete=1, tokenize='porter unicode61 remove_diacritics 2');
";

/// The tables that a snapshot fills, in an order in which they can be emptied.
pub(crate) const KEPT: [&str; 6] =
    ["memory_edit", "memory_source", "memory_relation", "memory", "memory_entity", "memory_place"];

/// Makes the tables where they are not there yet, and readies the connection for [`crate::apply`].
pub fn create(db: &Connection) -> Result<()> {
    db.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    db.execute_batch(TABLES)?;
    db.execute_batch(DERIVED)
}

/// Makes what is derived anew where it is damaged or does not go with the tables: the full-text table, and vectors that
/// are cut short. Says whether anything had to be made.
pub fn repair(db: &Connection) -> Result<bool> {
    let checked = || -> Result<bool> {
        db.execute("INSERT INTO memory_text (memory_text) VALUES ('integrity-check')", [])?;
        let count =
            |table: &str| db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0));
        Ok(count("memory_text_docsize")? == count("memory")?)
    };
    let vectors = db.execute("DELETE FROM memory_vector WHERE octet_length(vector) < 6", []);
    let vectors = match vectors {
        Ok(0) => false,
        Ok(_) => true,
        Err(_) => {
            db.execute_batch("DROP TABLE IF EXISTS memory_vector")?;
            true
        }
    };
    let text = matches!(checked(), Ok(true));
    if !text {
        drop_text(db)?;
    }
    db.execute_batch(DERIVED)?;
    if !text {
        fill_text(db)?;
    }
    Ok(vectors || !text)
}

/// Takes the full-text table away, also one whose own tables are damaged so that SQLite cannot drop it as a whole.
fn drop_text(db: &Connection) -> Result<()> {
    if db.execute_batch("DROP TABLE IF EXISTS memory_text").is_ok() {
        return Ok(());
    }
    for part in ["data", "idx", "docsize", "config"] {
        db.execute_batch(&format!("DROP TABLE IF EXISTS memory_text_{part}"))?;
    }
    db.execute_batch(
        "PRAGMA writable_schema = ON; DELETE FROM sqlite_schema WHERE name = 'memory_text'; PRAGMA writable_schema = RESET",
    )
}

/// Fills an empty full-text table from the memories.
pub(crate) fn fill_text(db: &Connection) -> Result<()> {
    db.execute(
        "INSERT INTO memory_text (rowid, text, place) SELECT row, text, 'p' || place FROM memory ORDER BY row",
        [],
    )?;
    Ok(())
}

/// Empties every table but the cache of vectors.
pub(crate) fn clear(db: &Connection) -> Result<()> {
    for table in KEPT {
        db.execute(&format!("DELETE FROM {table}"), [])?;
    }
    drop_text(db)?;
    db.execute_batch(DERIVED)
}

/// The number of a scope of a workspace, if anything was ever kept there.
pub(crate) fn place(db: &Connection, workspace: &WorkspaceId, scope: &Scope) -> Result<Option<i64>> {
    db.prepare_cached("SELECT place FROM memory_place WHERE workspace = ?1 AND scope = ?2 AND name = ?3")?
        .query_row(params![workspace.as_str(), scope.kind().number(), scope.name()], |row| row.get(0))
        .optional()
}

/// The number of a scope of a workspace; a new one where nothing was kept there before.
pub(crate) fn place_or_new(db: &Connection, workspace: &WorkspaceId, scope: &Scope) -> Result<i64> {
    if let Some(place) = place(db, workspace, scope)? {
        return Ok(place);
    }
    db.prepare_cached("INSERT INTO memory_place (workspace, scope, name) VALUES (?1, ?2, ?3)")?.execute(params![
        workspace.as_str(),
        scope.kind().number(),
        scope.name()
    ])?;
    Ok(db.last_insert_rowid())
}

/// The scope of a row that has its number and its name in two columns.
pub(crate) fn scope(kind: i32, name: String) -> Result<Scope> {
    let known = ScopeKind::from_number(kind).and_then(|kind| Scope::from_parts(kind, name));
    known.ok_or(rusqlite::Error::IntegralValueOutOfRange(0, kind.into()))
}

/// The scopes of a workspace in which anything was ever kept, with their numbers.
pub(crate) fn places(db: &Connection, workspace: &WorkspaceId) -> Result<Vec<(i64, Scope)>> {
    db.prepare_cached("SELECT place, scope, name FROM memory_place WHERE workspace = ?1 ORDER BY scope, name")?
        .query_map([workspace.as_str()], |row| Ok((row.get(0)?, scope(row.get(1)?, row.get(2)?)?)))?
        .collect()
}
