//! Rows as values: how memories, entities and relations are read from their tables and written to them.

use caxton_proto::WorkspaceId;
use caxton_proto::memory::{
    EntityId, MemoryId, NewEntity, NewMemory, NewRelation, Origin, RelationId, SOURCES_MAX, Source,
};
use rusqlite::{Connection, OptionalExtension, Params, Result, Row, params};

use crate::tables;

/// A memory as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// What the command brought, with what has changed since.
    pub what: NewMemory,
    /// When it was last changed.
    pub changed_ms: i64,
    /// It once had a source that is not trusted, which it does not lose.
    pub untrusted: bool,
}

/// An entity as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryEntity {
    /// What the command brought, with what has changed since.
    pub what: NewEntity,
    /// When it was last changed.
    pub changed_ms: i64,
    /// It once had a source that is not trusted, which it does not lose.
    pub untrusted: bool,
}

/// A relation as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryRelation {
    /// What the command brought, with what has changed since.
    pub what: NewRelation,
    /// When it was last changed.
    pub changed_ms: i64,
    /// It once had a source that is not trusted, which it does not lose.
    pub untrusted: bool,
}

/// Whose sources they are, as a number of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Owner {
    Memory = 0,
    Entity = 1,
    Relation = 2,
}

/// The columns of a memory, in the order in which [`memory`] reads them.
pub(crate) const MEMORY: &str = "SELECT m.row, m.place, m.id, p.scope, p.name, m.kind, m.name, m.text, m.metadata,
    m.importance, m.pinned, m.untrusted, e.name, m.created_ms, m.changed_ms, m.valid_from_ms, m.valid_to_ms, m.replaces
    FROM memory m JOIN memory_place p USING (place) LEFT JOIN memory_entity e ON e.row = m.entity";
/// The columns of an entity, in the order in which [`entity`] reads them.
pub(crate) const ENTITY: &str = "SELECT e.row, e.place, p.scope, p.name, e.name, e.kind, e.metadata, e.untrusted,
    e.created_ms, e.changed_ms FROM memory_entity e JOIN memory_place p USING (place)";
/// The columns of a relation, in the order in which [`relation`] reads them.
pub(crate) const RELATION: &str = "SELECT r.row, r.place, r.id, p.scope, p.name, f.name, r.kind, t.name, r.metadata,
    r.untrusted, r.created_ms, r.changed_ms, r.valid_from_ms, r.valid_to_ms, f.id, t.id
    FROM memory_relation r JOIN memory_place p USING (place)
    JOIN memory_entity f ON f.row = r.from_row JOIN memory_entity t ON t.row = r.to_row";

/// A value with the number of its row and of its place.
#[derive(Debug, Clone)]
pub(crate) struct Rowed<T> {
    pub row: i64,
    pub place: i64,
    pub value: T,
}

fn memory(row: &Row<'_>) -> Result<Rowed<Memory>> {
    let what = NewMemory {
        id: MemoryId::from_bytes(row.get(2)?),
        scope: tables::scope(row.get(3)?, row.get(4)?)?,
        kind: row.get(5)?,
        name: row.get(6)?,
        text: row.get(7)?,
        metadata: row.get(8)?,
        importance: row.get(9)?,
        pinned: row.get(10)?,
        entity: row.get(12)?,
        sources: Vec::new(),
        created_ms: row.get(13)?,
        valid_from_ms: row.get(15)?,
        valid_to_ms: row.get(16)?,
        replaces: row.get::<_, Option<[u8; 16]>>(17)?.map(MemoryId::from_bytes),
    };
    let value = Memory { what, changed_ms: row.get(14)?, untrusted: row.get(11)? };
    Ok(Rowed { row: row.get(0)?, place: row.get(1)?, value })
}

fn entity(row: &Row<'_>) -> Result<Rowed<MemoryEntity>> {
    let what = NewEntity {
        scope: tables::scope(row.get(2)?, row.get(3)?)?,
        name: row.get(4)?,
        kind: row.get(5)?,
        metadata: row.get(6)?,
        sources: Vec::new(),
        created_ms: row.get(8)?,
    };
    let value = MemoryEntity { what, changed_ms: row.get(9)?, untrusted: row.get(7)? };
    Ok(Rowed { row: row.get(0)?, place: row.get(1)?, value })
}

fn relation(row: &Row<'_>) -> Result<Rowed<MemoryRelation>> {
    let what = NewRelation {
        id: RelationId::from_bytes(row.get(2)?),
        scope: tables::scope(row.get(3)?, row.get(4)?)?,
        from: row.get(5)?,
        kind: row.get(6)?,
        to: row.get(7)?,
        metadata: row.get(8)?,
        sources: Vec::new(),
        created_ms: row.get(10)?,
        valid_from_ms: row.get(12)?,
        valid_to_ms: row.get(13)?,
    };
    let value = MemoryRelation { what, changed_ms: row.get(11)?, untrusted: row.get(9)? };
    Ok(Rowed { row: row.get(0)?, place: row.get(1)?, value })
}

/// Memories by a condition that begins with `WHERE`, with their sources.
pub(crate) fn memories(db: &Connection, rest: &str, params: impl Params) -> Result<Vec<Rowed<Memory>>> {
    let mut all = collect(db, MEMORY, rest, params, memory)?;
    for found in &mut all {
        found.value.what.sources = sources(db, Owner::Memory, found.row)?;
    }
    Ok(all)
}

/// Entities by a condition that begins with `WHERE`, with their sources.
pub(crate) fn entities(db: &Connection, rest: &str, params: impl Params) -> Result<Vec<Rowed<MemoryEntity>>> {
    let mut all = collect(db, ENTITY, rest, params, entity)?;
    for found in &mut all {
        found.value.what.sources = sources(db, Owner::Entity, found.row)?;
    }
    Ok(all)
}

/// Relations by a condition that begins with `WHERE`, with their sources.
pub(crate) fn relations(db: &Connection, rest: &str, params: impl Params) -> Result<Vec<Rowed<MemoryRelation>>> {
    let mut all = collect(db, RELATION, rest, params, relation)?;
    for found in &mut all {
        found.value.what.sources = sources(db, Owner::Relation, found.row)?;
    }
    Ok(all)
}

/// Hands out every entity in the order of their rows, without its sources.
pub(crate) fn each_entity(db: &Connection, mut each: impl FnMut(Rowed<MemoryEntity>)) -> Result<()> {
    let mut statement = db.prepare_cached(&format!("{ENTITY} ORDER BY e.row"))?;
    statement.query_map([], entity)?.try_for_each(|found| found.map(&mut each))
}

/// Hands out every relation in the order of their rows, without its sources.
pub(crate) fn each_relation(db: &Connection, mut each: impl FnMut(Rowed<MemoryRelation>)) -> Result<()> {
    let mut statement = db.prepare_cached(&format!("{RELATION} ORDER BY r.row"))?;
    statement.query_map([], relation)?.try_for_each(|found| found.map(&mut each))
}

fn collect<T>(
    db: &Connection,
    columns: &str,
    rest: &str,
    params: impl Params,
    read: fn(&Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    db.prepare_cached(&format!("{columns} {rest}"))?.query_map(params, read)?.collect()
}

/// The memory of an id in a workspace.
pub(crate) fn by_id(db: &Connection, workspace: &WorkspaceId, id: &MemoryId) -> Result<Option<Rowed<Memory>>> {
    // Most ids that are looked for while something is kept are new: a look at the index says so for a tenth of the price.
    let known = "SELECT 1 FROM memory WHERE id = ?1";
    if !db.prepare_cached(known)?.exists([id.as_bytes()])? {
        return Ok(None);
    }
    let found = memories(db, "WHERE m.id = ?1 AND p.workspace = ?2", params![id.as_bytes(), workspace.as_str()])?;
    Ok(found.into_iter().next())
}

/// The entity of an id in a workspace.
pub(crate) fn entity_by_id(
    db: &Connection,
    workspace: &WorkspaceId,
    id: &EntityId,
) -> Result<Option<Rowed<MemoryEntity>>> {
    let found = entities(db, "WHERE e.id = ?1 AND p.workspace = ?2", params![id.as_bytes(), workspace.as_str()])?;
    Ok(found.into_iter().next())
}

/// The relation of an id in a workspace.
pub(crate) fn relation_by_id(
    db: &Connection,
    workspace: &WorkspaceId,
    id: &RelationId,
) -> Result<Option<Rowed<MemoryRelation>>> {
    let found = relations(db, "WHERE r.id = ?1 AND p.workspace = ?2", params![id.as_bytes(), workspace.as_str()])?;
    Ok(found.into_iter().next())
}

/// The row of an entity in a place.
pub(crate) fn entity_row(db: &Connection, place: i64, name: &str) -> Result<Option<i64>> {
    db.prepare_cached("SELECT row FROM memory_entity WHERE place = ?1 AND name = ?2")?
        .query_row(params![place, name], |row| row.get(0))
        .optional()
}

fn sources(db: &Connection, owner: Owner, row: i64) -> Result<Vec<Source>> {
    db.prepare_cached(
        "SELECT origin, name, turn, position, at_ms, untrusted FROM memory_source
         WHERE owner = ?1 AND row = ?2 ORDER BY number",
    )?
    .query_map(params![owner as i64, row], |row| {
        let name = row.get(1)?;
        let origin = match row.get::<_, i64>(0)? {
            1 => Origin::Turn { conversation: name, turn: row.get(2)?, position: row.get(3)? },
            2 => Origin::Agent { agent: name },
            3 => Origin::Subject { subject: name },
            4 => Origin::Tool { tool: name },
            5 => Origin::Import { import: name },
            other => return Err(rusqlite::Error::IntegralValueOutOfRange(0, other)),
        };
        Ok(Source { origin, at_ms: row.get(4)?, untrusted: row.get(5)? })
    })?
    .collect()
}

/// Writes all sources of a row anew.
pub(crate) fn write_sources(db: &Connection, owner: Owner, row: i64, sources: &[Source]) -> Result<()> {
    insert_sources(db, owner, row, sources)?;
    // A source that was forgotten leaves a gap, so that an old number may lie beyond the last new one.
    db.prepare_cached("DELETE FROM memory_source WHERE owner = ?1 AND row = ?2 AND number >= ?3")?.execute(params![
        owner as i64,
        row,
        sources.len() as i64
    ])?;
    Ok(())
}

/// Writes the sources of a row, each over the one of its number.
fn insert_sources(db: &Connection, owner: Owner, row: i64, sources: &[Source]) -> Result<()> {
    let mut insert =
        db.prepare_cached("INSERT OR REPLACE INTO memory_source VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?;
    for (number, source) in sources.iter().enumerate() {
        let (origin, turn, position) = match &source.origin {
            Origin::Turn { turn, position, .. } => (1, Some(turn.as_str()), Some(*position)),
            Origin::Agent { .. } => (2, None, None),
            Origin::Subject { .. } => (3, None, None),
            Origin::Tool { .. } => (4, None, None),
            Origin::Import { .. } => (5, None, None),
        };
        insert.execute(params![
            owner as i64,
            row,
            number as i64,
            origin,
            source.origin.name(),
            turn,
            position,
            source.at_ms,
            source.untrusted
        ])?;
    }
    Ok(())
}

/// Adds those of `new` that `sources` lacks, up to the most that are kept. Says whether any was added.
pub(crate) fn add_sources(sources: &mut Vec<Source>, new: &[Source]) -> bool {
    let before = sources.len();
    for source in new {
        let known = sources.iter().any(|it| it.origin == source.origin);
        if !known && sources.len() < SOURCES_MAX {
            sources.push(source.clone());
        }
    }
    sources.len() > before
}

/// Writes a new memory, and gives its row.
pub(crate) fn insert_memory(db: &Connection, place: i64, entity: Option<i64>, memory: &Memory) -> Result<i64> {
    let what = &memory.what;
    db.prepare_cached(
        "INSERT INTO memory (place, id, kind, name, text, metadata, importance, pinned, untrusted, entity, created_ms,
         changed_ms, valid_from_ms, valid_to_ms, replaces, same)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
    )?
    .execute(params![
        place,
        what.id.as_bytes(),
        what.kind,
        what.name,
        what.text,
        what.metadata,
        what.importance,
        what.pinned,
        memory.untrusted,
        entity,
        what.created_ms,
        memory.changed_ms,
        what.valid_from_ms,
        what.valid_to_ms,
        what.replaces.as_ref().map(MemoryId::as_bytes),
        same_number(&what.text)
    ])?;
    let row = db.last_insert_rowid();
    insert_sources(db, Owner::Memory, row, &what.sources)?;
    Ok(row)
}

/// Puts a memory into the full-text table.
pub(crate) fn insert_text(db: &Connection, row: i64, place: i64, text: &str) -> Result<()> {
    db.prepare_cached("INSERT INTO memory_text (rowid, text, place) VALUES (?1, ?2, ?3)")?.execute(params![
        row,
        text,
        format!("p{place}")
    ])?;
    Ok(())
}

/// Takes a memory out of the full-text table.
pub(crate) fn delete_text(db: &Connection, row: i64) -> Result<()> {
    db.prepare_cached("DELETE FROM memory_text WHERE rowid = ?1")?.execute([row])?;
    Ok(())
}

/// Writes what changed of a memory, but not its place and its entity, which never change.
pub(crate) fn update_memory(db: &Connection, row: i64, memory: &Memory) -> Result<()> {
    let what = &memory.what;
    db.prepare_cached(
        "UPDATE memory SET kind = ?2, name = ?3, text = ?4, metadata = ?5, importance = ?6, pinned = ?7,
         untrusted = ?8, changed_ms = ?9, valid_from_ms = ?10, valid_to_ms = ?11, same = ?12 WHERE row = ?1",
    )?
    .execute(params![
        row,
        what.kind,
        what.name,
        what.text,
        what.metadata,
        what.importance,
        what.pinned,
        memory.untrusted,
        memory.changed_ms,
        what.valid_from_ms,
        what.valid_to_ms,
        same_number(&what.text)
    ])?;
    Ok(())
}

/// Writes a new entity, and gives its row.
pub(crate) fn insert_entity(db: &Connection, place: i64, entity: &MemoryEntity) -> Result<i64> {
    let what = &entity.what;
    db.prepare_cached(
        "INSERT INTO memory_entity (place, id, name, kind, metadata, untrusted, created_ms, changed_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        place,
        EntityId::of(&what.scope, &what.name).as_bytes(),
        what.name,
        what.kind,
        what.metadata,
        entity.untrusted,
        what.created_ms,
        entity.changed_ms
    ])?;
    let row = db.last_insert_rowid();
    insert_sources(db, Owner::Entity, row, &what.sources)?;
    Ok(row)
}

/// Writes a new relation between the rows of two entities, and gives its row.
pub(crate) fn insert_relation(
    db: &Connection,
    place: i64,
    (from, to): (i64, i64),
    relation: &MemoryRelation,
) -> Result<i64> {
    let what = &relation.what;
    db.prepare_cached(
        "INSERT INTO memory_relation (place, id, from_row, kind, to_row, metadata, untrusted, created_ms, changed_ms,
         valid_from_ms, valid_to_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?
    .execute(params![
        place,
        what.id.as_bytes(),
        from,
        what.kind,
        to,
        what.metadata,
        relation.untrusted,
        what.created_ms,
        relation.changed_ms,
        what.valid_from_ms,
        what.valid_to_ms
    ])?;
    let row = db.last_insert_rowid();
    insert_sources(db, Owner::Relation, row, &what.sources)?;
    Ok(row)
}

/// A text as it is compared: without the case of A to Z, runs of spaces, and a full stop at its end. It knows nothing of
/// Unicode, whose tables change: every version of the program has to find the same texts the same.
pub(crate) fn same_text(text: &str) -> String {
    let mut same = String::with_capacity(text.len());
    for word in text.split_ascii_whitespace() {
        if !same.is_empty() {
            same.push(' ');
        }
        same.push_str(word);
    }
    same.make_ascii_lowercase();
    same.truncate(same.trim_end_matches(['.', '!', ' ']).len().max(1).min(same.len()));
    same
}

/// A number by which equal texts are looked up.
fn same_number(text: &str) -> i64 {
    let digest = caxton_proto::Digest::of(same_text(text).as_bytes());
    digest.as_bytes()[..8].iter().fold(0_i64, |number, byte| number << 8 | i64::from(*byte))
}

/// Memories of a place whose text is the same.
pub(crate) fn with_text(db: &Connection, place: i64, text: &str) -> Result<Vec<Rowed<Memory>>> {
    let number = same_number(text);
    let known = "SELECT 1 FROM memory WHERE place = ?1 AND same = ?2";
    if !db.prepare_cached(known)?.exists(params![place, number])? {
        return Ok(Vec::new());
    }
    let mut all = memories(db, "WHERE m.place = ?1 AND m.same = ?2 ORDER BY m.id", params![place, number])?;
    let same = same_text(text);
    all.retain(|found| same_text(&found.value.what.text) == same);
    Ok(all)
}

/// Whether two spans of time have a moment in common.
pub(crate) fn overlap(a: (i64, Option<i64>), b: (i64, Option<i64>)) -> bool {
    b.1.is_none_or(|end| a.0 < end) && a.1.is_none_or(|end| b.0 < end)
}
