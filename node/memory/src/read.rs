//! Reading from the tables, inside a permit: one memory, pages of many, what they were before, and counts.

use caxton_proto::memory::{EntityId, MemoryId, RelationId, Row, Scope};
use rusqlite::types::Value;
use rusqlite::{Connection, Result, params, params_from_iter};

use crate::apply::rows;
use crate::apply::{Memory, MemoryEntity, MemoryRelation};
use crate::filter::{Filter, Permit, is_true};
use crate::tables;

/// The most rows of a page.
const PAGE_MAX: usize = 1_000;
/// How many rows are read at a time while a filter looks for those that it lets through.
const ROWS: usize = 256;

/// A page of memories, and where the next one begins.
#[derive(Debug, Clone)]
pub struct Page {
    /// The memories, the oldest change first.
    pub memories: Vec<Memory>,
    /// What to give to [`list`] for the next page; nothing at the end.
    pub next: Option<(i64, MemoryId)>,
}

/// A memory before an edit.
#[derive(Debug, Clone, PartialEq)]
pub struct Edited {
    /// The edit's number, from 1.
    pub number: u64,
    /// Who edited.
    pub actor: String,
    /// When.
    pub at_ms: i64,
    /// What the memory was before.
    pub before: Memory,
}

/// How much of a scope is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// The scope.
    pub scope: Scope,
    /// Memories.
    pub memories: u64,
    /// Bytes of their texts and metadata.
    pub bytes: u64,
    /// Entities.
    pub entities: u64,
    /// Relations.
    pub relations: u64,
}

/// Reads a memory, if the permit reaches it.
pub fn get(db: &Connection, permit: &Permit, id: &MemoryId) -> Result<Option<Memory>> {
    let found = rows::by_id(db, permit.workspace(), id)?;
    Ok(found.map(|found| found.value).filter(|memory| permit.allows(&memory.what.scope)))
}

/// What a memory was before each edit, oldest first, if the permit reaches it.
pub fn history(db: &Connection, permit: &Permit, id: &MemoryId) -> Result<Vec<Edited>> {
    let found = rows::by_id(db, permit.workspace(), id)?;
    let Some(found) = found.filter(|found| permit.allows(&found.value.what.scope)) else { return Ok(Vec::new()) };
    let edits: Vec<(i64, String, i64, Vec<u8>)> = db
        .prepare_cached("SELECT number, actor, at_ms, before FROM memory_edit WHERE memory = ?1 ORDER BY number")?
        .query_map([found.row], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
        .collect::<Result<_>>()?;
    // One that cannot be read is left out: it is only what can be taken back.
    let edit = |(number, actor, at_ms, before): (i64, String, i64, Vec<u8>)| {
        let Row { memory: what, changed_ms, untrusted, workspace: _ } = Row::decode(&before).ok()?;
        let before = Memory { what, changed_ms, untrusted };
        Some(Edited { number: number.unsigned_abs(), actor, at_ms, before })
    };
    Ok(edits.into_iter().filter_map(edit).collect())
}

/// The scopes that a permit reaches, with their numbers.
fn reached(db: &Connection, permit: &Permit) -> Result<Vec<(i64, Scope)>> {
    let mut places = tables::places(db, permit.workspace())?;
    places.retain(|(_, scope)| permit.allows(scope));
    Ok(places)
}

/// Numbers of scopes as JSON that a query takes apart.
fn numbers(places: &[(i64, Scope)]) -> String {
    let numbers: Vec<String> = places.iter().map(|(place, _)| place.to_string()).collect();
    format!("[{}]", numbers.join(","))
}

/// The numbers of the scopes that a permit reaches, as JSON that a query takes apart.
fn reach(db: &Connection, permit: &Permit) -> Result<String> {
    Ok(numbers(&reached(db, permit)?))
}

/// Hands out all memories that a permit and a filter let through, scope by scope, each in the order of its changes. An error
/// of `each` ends it.
pub(crate) fn each<E: From<rusqlite::Error>>(
    db: &Connection,
    permit: &Permit,
    filter: &Filter,
    mut each: impl FnMut(Memory) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    for place in reached(db, permit)? {
        let place = std::slice::from_ref(&place);
        let mut next = None;
        loop {
            let page = page(db, place, permit, filter, None, next, PAGE_MAX)?;
            page.memories.into_iter().try_for_each(&mut each)?;
            next = page.next;
            if next.is_none() {
                break;
            }
        }
    }
    Ok(())
}

/// Reads a page of memories in the order in which they were changed: at most `limit` that the filter lets through, after
/// those that end with `after`. With a time, only what was true then.
pub fn list(
    db: &Connection,
    permit: &Permit,
    filter: &Filter,
    as_of_ms: Option<i64>,
    after: Option<(i64, MemoryId)>,
    limit: usize,
) -> Result<Page> {
    page(db, &reached(db, permit)?, permit, filter, as_of_ms, after, limit.clamp(1, PAGE_MAX))
}

fn page(
    db: &Connection,
    places: &[(i64, Scope)],
    permit: &Permit,
    filter: &Filter,
    as_of_ms: Option<i64>,
    after: Option<(i64, MemoryId)>,
    limit: usize,
) -> Result<Page> {
    let wanted = |scope: &Scope| filter.scopes.as_ref().is_none_or(|scopes| scopes.contains(scope));
    let places: Vec<(i64, Scope)> = places.iter().filter(|(_, scope)| wanted(scope)).cloned().collect();
    let reach = numbers(&places);
    let mut page = Page { memories: Vec::new(), next: after };
    loop {
        let (changed_ms, id) = page.next.unwrap_or((i64::MIN, MemoryId::from_bytes([0; 16])));
        let found = rows::memories(
            db,
            // The rows are found in an index before their texts are read.
            "WHERE m.row IN (SELECT row FROM memory WHERE place IN (SELECT value FROM json_each(?1))
             AND (changed_ms, id) > (?2, ?3) ORDER BY changed_ms, id LIMIT ?4) ORDER BY m.changed_ms, m.id",
            params_from_iter([
                Value::from(reach.clone()),
                Value::from(changed_ms),
                Value::from(id.as_bytes().to_vec()),
                Value::from(ROWS as i64),
            ]),
        )?;
        let ended = found.len() < ROWS;
        for memory in found.into_iter().map(|found| found.value) {
            if page.memories.len() == limit {
                return Ok(page);
            }
            page.next = Some((memory.changed_ms, memory.what.id));
            let what = &memory.what;
            let now = as_of_ms.is_none_or(|at| is_true(what.valid_from_ms, what.valid_to_ms, at));
            if now && permit.allows(&what.scope) && filter.allows(what, memory.untrusted) {
                page.memories.push(memory);
            }
        }
        if ended {
            page.next = None;
            return Ok(page);
        }
    }
}

/// Reads entities in the order of their names: at most `limit` after the one of the name and id `after`.
pub fn entities(
    db: &Connection,
    permit: &Permit,
    after: Option<(&str, EntityId)>,
    limit: usize,
) -> Result<Vec<MemoryEntity>> {
    let (name, id) = after.unzip();
    let found = rows::entities(
        db,
        "WHERE e.place IN (SELECT value FROM json_each(?1)) AND (?2 IS NULL OR (e.name, e.id) > (?2, ?3))
         ORDER BY e.name, e.id LIMIT ?4",
        params![reach(db, permit)?, name, id.as_ref().map(EntityId::as_bytes), limit.min(PAGE_MAX) as i64],
    )?;
    Ok(found.into_iter().map(|found| found.value).collect())
}

/// Reads an entity, if the permit reaches it.
pub fn entity(db: &Connection, permit: &Permit, id: &EntityId) -> Result<Option<MemoryEntity>> {
    let found = rows::entity_by_id(db, permit.workspace(), id)?;
    Ok(found.map(|found| found.value).filter(|entity| permit.allows(&entity.what.scope)))
}

/// Reads a relation, if the permit reaches it.
pub fn relation(db: &Connection, permit: &Permit, id: &RelationId) -> Result<Option<MemoryRelation>> {
    let found = rows::relation_by_id(db, permit.workspace(), id)?;
    Ok(found.map(|found| found.value).filter(|relation| permit.allows(&relation.what.scope)))
}

/// Reads relations in the order of their ids: at most `limit` after the one of the id `after`.
pub fn relations(
    db: &Connection,
    permit: &Permit,
    after: Option<[u8; 16]>,
    limit: usize,
) -> Result<Vec<MemoryRelation>> {
    let found = rows::relations(
        db,
        "WHERE r.place IN (SELECT value FROM json_each(?1)) AND (?2 IS NULL OR r.id > ?2) ORDER BY r.id LIMIT ?3",
        params![reach(db, permit)?, after, limit.min(PAGE_MAX) as i64],
    )?;
    Ok(found.into_iter().map(|found| found.value).collect())
}

/// How much is kept in each scope that the permit reaches.
pub fn stats(db: &Connection, permit: &Permit) -> Result<Vec<Stats>> {
    let mut all = Vec::new();
    for (place, scope) in tables::places(db, permit.workspace())?.into_iter().filter(|(_, scope)| permit.allows(scope))
    {
        let count = |sql: &str| -> Result<u64> {
            Ok(db.prepare_cached(sql)?.query_row([place], |row| row.get::<_, i64>(0))?.unsigned_abs())
        };
        all.push(Stats {
            scope,
            memories: count("SELECT count(*) FROM memory WHERE place = ?1")?,
            bytes: count(
                "SELECT coalesce(sum(octet_length(text) + coalesce(octet_length(metadata), 0)), 0) FROM memory WHERE place = ?1",
            )?,
            entities: count("SELECT count(*) FROM memory_entity WHERE place = ?1")?,
            relations: count("SELECT count(*) FROM memory_relation WHERE place = ?1")?,
        });
    }
    Ok(all)
}
