//! The tables, and the full-text table that is derived from them.
//!
//! A *place* is a scope of a workspace under a number, so that rows, filters and the full-text table name it in a few bytes.

use caxton_proto::WorkspaceId;
use caxton_proto::memory::{Scope, ScopeKind};
use rusqlite::{Connection, OptionalExtension, Result, params};

/// A table, and whether it can be made anew from the others.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// The statements that make it and its indexes.
    pub sql: &'static str,
    /// It holds nothing that other tables do not: [`repair`] fills it.
    pub derived: bool,
}

/// Every table. A text lies in a table with a row's number: ordered by an id of its own, each long row would take a page.
pub const TABLES: &[Table] = &[
    Table {
        name: "memory_place",
        sql: "CREATE TABLE memory_place (
                place INTEGER PRIMARY KEY AUTOINCREMENT, workspace TEXT NOT NULL, scope INTEGER NOT NULL,
                name TEXT NOT NULL, UNIQUE (workspace, scope, name)) STRICT;",
        derived: false,
    },
    Table {
        name: "memory",
        sql: "CREATE TABLE memory (
                row INTEGER PRIMARY KEY, place INTEGER NOT NULL, id BLOB NOT NULL, kind TEXT NOT NULL, name TEXT,
                text TEXT NOT NULL, metadata TEXT, importance INTEGER NOT NULL, pinned INTEGER NOT NULL,
                untrusted INTEGER NOT NULL, entity INTEGER, created_ms INTEGER NOT NULL, changed_ms INTEGER NOT NULL,
                valid_from_ms INTEGER NOT NULL, valid_to_ms INTEGER, replaces BLOB, same INTEGER NOT NULL) STRICT;
              CREATE INDEX memory_by_id ON memory (id);
              CREATE INDEX memory_by_text ON memory (place, same);
              CREATE INDEX memory_by_name ON memory (place, kind, name) WHERE name IS NOT NULL;
              CREATE INDEX memory_by_entity ON memory (entity) WHERE entity IS NOT NULL;
              CREATE INDEX memory_by_time ON memory (place, changed_ms, id);",
        derived: false,
    },
    Table {
        name: "memory_entity",
        sql: "CREATE TABLE memory_entity (
                row INTEGER PRIMARY KEY, place INTEGER NOT NULL, id BLOB NOT NULL, name TEXT NOT NULL,
                kind TEXT NOT NULL, metadata TEXT, untrusted INTEGER NOT NULL, created_ms INTEGER NOT NULL,
                changed_ms INTEGER NOT NULL, UNIQUE (place, name)) STRICT;
              CREATE INDEX memory_entity_by_id ON memory_entity (id);",
        derived: false,
    },
    Table {
        name: "memory_relation",
        sql: "CREATE TABLE memory_relation (
                row INTEGER PRIMARY KEY, place INTEGER NOT NULL, id BLOB NOT NULL, from_row INTEGER NOT NULL,
                kind TEXT NOT NULL, to_row INTEGER NOT NULL, metadata TEXT, untrusted INTEGER NOT NULL,
                created_ms INTEGER NOT NULL, changed_ms INTEGER NOT NULL, valid_from_ms INTEGER NOT NULL,
                valid_to_ms INTEGER) STRICT;
              CREATE INDEX memory_relation_by_id ON memory_relation (id);
              CREATE INDEX memory_relation_by_from ON memory_relation (from_row, kind, to_row);
              CREATE INDEX memory_relation_by_to ON memory_relation (to_row);
              CREATE INDEX memory_relation_by_place ON memory_relation (place);",
        derived: false,
    },
    Table {
        name: "memory_source",
        sql: "CREATE TABLE memory_source (
                owner INTEGER NOT NULL, row INTEGER NOT NULL, number INTEGER NOT NULL, origin INTEGER NOT NULL,
                name TEXT NOT NULL, turn TEXT, position INTEGER, at_ms INTEGER NOT NULL, untrusted INTEGER NOT NULL,
                PRIMARY KEY (owner, row, number)) WITHOUT ROWID, STRICT;
              CREATE INDEX memory_source_by_name ON memory_source (name, origin) WHERE origin IN (1, 3);",
        derived: false,
    },
    Table {
        name: "memory_edit",
        sql: "CREATE TABLE memory_edit (
                memory INTEGER NOT NULL, number INTEGER NOT NULL, actor TEXT NOT NULL, at_ms INTEGER NOT NULL,
                before BLOB NOT NULL, PRIMARY KEY (memory, number)) STRICT;",
        derived: false,
    },
    Table { name: "memory_text", sql: TEXT, derived: true },
];

/// The words of every memory, for phrases. `place` says where it is, as a word.
const TEXT: &str = "CREATE VIRTUAL TABLE memory_text USING fts5(
    text, place, content='', contentless_delete=1, tokenize='porter unicode61 remove_diacritics 2');";

/// Whether the full-text table can be read and has every memory. It only reads; with many memories that takes a while.
pub fn is_whole(db: &Connection) -> Result<bool> {
    let count = |table: &str| db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0));
    if count("memory_text_docsize")? != count("memory")? {
        return Ok(false);
    }
    let found: String = db.query_row("PRAGMA integrity_check(memory_text)", [], |row| row.get(0))?;
    Ok(found == "ok")
}

/// Makes the full-text table anew where it is damaged or does not go with the tables. Says whether it had to be made.
pub fn repair(db: &Connection) -> Result<bool> {
    if matches!(is_whole(db), Ok(true)) {
        return Ok(false);
    }
    drop_text(db)?;
    db.execute_batch(TEXT)?;
    fill_text(db)?;
    Ok(true)
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
fn fill_text(db: &Connection) -> Result<()> {
    db.execute(
        "INSERT INTO memory_text (rowid, text, place) SELECT row, text, 'p' || place FROM memory ORDER BY row",
        [],
    )?;
    Ok(())
}

/// The workspace and the scope of a place.
pub(crate) fn of_place(db: &Connection, place: i64) -> Result<(WorkspaceId, Scope)> {
    let (name, scope): (String, Scope) = db
        .prepare_cached("SELECT workspace, scope, name FROM memory_place WHERE place = ?1")?
        .query_row([place], |row| Ok((row.get(0)?, scope(row.get(1)?, row.get(2)?)?)))?;
    Ok((name.parse().map_err(|_| rusqlite::Error::InvalidColumnName(name))?, scope))
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
