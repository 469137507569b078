//! Rows of a snapshot, out of a read transaction and into a file: what is kept, and nothing of what is derived from it.

use caxton_proto::WorkspaceId;
use caxton_proto::memory::{DecodeError, Row};
use rusqlite::{Connection, OptionalExtension, params};

use crate::apply::rows::{self, MEMORY};
use crate::apply::{Memory, MemoryEntity, MemoryRelation};
use crate::tables;

/// How many rows are read at a time.
const ROWS: i64 = 512;

/// Why rows cannot be put back.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A row is not one that this build knows.
    #[error("a row of what is remembered cannot be read")]
    Row(#[from] DecodeError),
    /// A row comes before the one that it belongs to.
    #[error("a row of what is remembered comes before the one that it belongs to")]
    Order,
    /// SQLite.
    #[error("what is remembered cannot be written")]
    Database(#[from] rusqlite::Error),
}

/// Hands out every row: entities, memories, their edits, relations. The caller holds a read transaction, so that the rows
/// belong together. An error of `each` ends it.
pub fn snapshot<E: From<rusqlite::Error>>(
    db: &Connection,
    mut each: impl FnMut(Row) -> Result<(), E>,
) -> Result<(), E> {
    let workspace = |place: i64| workspace_of(db, place);
    let mut last = 0;
    loop {
        let found = rows::entities(db, "WHERE e.row > ?1 ORDER BY e.row LIMIT ?2", params![last, ROWS])?;
        let Some(end) = found.last().map(|it| it.row) else { break };
        last = end;
        for it in found {
            let MemoryEntity { what: entity, changed_ms, untrusted } = it.value;
            each(Row::Entity { workspace: workspace(it.place)?, entity, changed_ms, untrusted })?;
        }
    }
    last = 0;
    loop {
        let found = rows::memories(db, "WHERE m.row > ?1 ORDER BY m.row LIMIT ?2", params![last, ROWS])?;
        let Some(end) = found.last().map(|it| it.row) else { break };
        last = end;
        for it in found {
            let (workspace, id) = (workspace(it.place)?, it.value.what.id);
            let Memory { what: memory, changed_ms, untrusted } = it.value;
            each(Row::Memory { workspace: workspace.clone(), memory, changed_ms, untrusted })?;
            for edit in edits(db, it.row)? {
                let Row::Memory { memory: before, changed_ms, .. } = edit.before else { continue };
                let (number, actor, at_ms) = (edit.number, edit.actor, edit.at_ms);
                each(Row::Edit { workspace: workspace.clone(), memory: id, number, actor, at_ms, before, changed_ms })?;
            }
        }
    }
    last = 0;
    loop {
        let found = rows::relations(db, "WHERE r.row > ?1 ORDER BY r.row LIMIT ?2", params![last, ROWS])?;
        let Some(end) = found.last().map(|it| it.row) else { break };
        last = end;
        for it in found {
            let MemoryRelation { what: relation, changed_ms, untrusted } = it.value;
            each(Row::Relation { workspace: workspace(it.place)?, relation, changed_ms, untrusted })?;
        }
    }
    Ok(())
}

/// An edit as the table holds it.
pub(crate) struct KeptEdit {
    pub number: u64,
    pub actor: String,
    pub at_ms: i64,
    pub before: Row,
}

/// The edits of a memory's row, oldest first. One that cannot be read is left out: it is only what can be taken back.
pub(crate) fn edits(db: &Connection, row: i64) -> rusqlite::Result<Vec<KeptEdit>> {
    let found: Vec<(i64, String, i64, Vec<u8>)> = db
        .prepare_cached("SELECT number, actor, at_ms, before FROM memory_edit WHERE memory = ?1 ORDER BY number")?
        .query_map([row], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let edit = |(number, actor, at_ms, before): (i64, String, i64, Vec<u8>)| {
        let before = Row::decode(&before).ok()?;
        Some(KeptEdit { number: number.unsigned_abs(), actor, at_ms, before })
    };
    Ok(found.into_iter().filter_map(edit).collect())
}

/// The workspace of a place.
pub(crate) fn workspace_of(db: &Connection, place: i64) -> rusqlite::Result<WorkspaceId> {
    let name: String = db
        .prepare_cached("SELECT workspace FROM memory_place WHERE place = ?1")?
        .query_row([place], |row| row.get(0))?;
    name.parse().map_err(|_| rusqlite::Error::InvalidColumnName(name))
}

/// Puts rows in the place of all that is there, within the transaction that the connection is in. The cache of vectors
/// stays: it belongs to texts and not to rows. Indexes have to be loaded anew.
pub fn restore<E: From<RestoreError>>(
    db: &Connection,
    rows: impl IntoIterator<Item = Result<Row, E>>,
) -> Result<(), E> {
    let failed = |error: rusqlite::Error| E::from(RestoreError::Database(error));
    tables::clear(db).map_err(failed)?;
    for row in rows {
        put(db, row?).map_err(E::from)?;
    }
    tables::fill_text(db).map_err(failed)
}

fn put(db: &Connection, row: Row) -> Result<(), RestoreError> {
    match row {
        Row::Entity { workspace, entity, changed_ms, untrusted } => {
            let place = tables::place_or_new(db, &workspace, &entity.scope)?;
            rows::insert_entity(db, place, &MemoryEntity { what: entity, changed_ms, untrusted })?;
        }
        Row::Memory { workspace, memory, changed_ms, untrusted } => {
            let place = tables::place_or_new(db, &workspace, &memory.scope)?;
            let entity = match &memory.entity {
                None => None,
                Some(name) => Some(rows::entity_row(db, place, name)?.ok_or(RestoreError::Order)?),
            };
            rows::insert_memory(db, place, entity, &Memory { what: memory, changed_ms, untrusted })?;
        }
        Row::Relation { workspace, relation, changed_ms, untrusted } => {
            let place = tables::place_or_new(db, &workspace, &relation.scope)?;
            let from = rows::entity_row(db, place, &relation.from)?.ok_or(RestoreError::Order)?;
            let to = rows::entity_row(db, place, &relation.to)?.ok_or(RestoreError::Order)?;
            rows::insert_relation(db, place, (from, to), &MemoryRelation { what: relation, changed_ms, untrusted })?;
        }
        Row::Edit { workspace, memory, number, actor, at_ms, before, changed_ms } => {
            let row: Option<i64> = db
                .prepare_cached(&format!("SELECT row FROM ({MEMORY} WHERE m.id = ?1 AND p.workspace = ?2)"))?
                .query_row(params![memory.as_bytes(), workspace.as_str()], |row| row.get(0))
                .optional()?;
            let row = row.ok_or(RestoreError::Order)?;
            let before = Row::Memory { workspace, memory: before, changed_ms, untrusted: false };
            db.prepare_cached("INSERT INTO memory_edit VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
                row,
                i64::try_from(number).unwrap_or(i64::MAX),
                actor,
                at_ms,
                before.encode()
            ])?;
        }
    }
    Ok(())
}
