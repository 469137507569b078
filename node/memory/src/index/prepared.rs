//! A memory with all that can be told of it without an index.

use caxton_proto::WorkspaceId;
use caxton_proto::memory::{MemoryId, Scope};
use rusqlite::{Connection, Params, Result, Row};

use super::episodes::Order;
use crate::Map;
use crate::cache::TextKey;
use crate::filter::Condition;
use crate::tables;
use crate::words::{Counts, Vocabulary};

/// What the index keeps of a memory, beside its text: who puts it in needs the index for a few microseconds.
pub(crate) struct PreparedMemory {
    pub id: MemoryId,
    pub place: i64,
    pub scope: Scope,
    pub kind: String,
    pub entity: Option<String>,
    pub importance: u8,
    pub untrusted: bool,
    pub created_ms: i64,
    pub changed_ms: i64,
    pub valid_from_ms: i64,
    pub valid_to_ms: Option<i64>,
    /// The conversation that it comes from first, and its place there.
    pub origin: Option<(String, Order)>,
    /// What it is embedded and found by: its text, with what it is about before it.
    pub text: Box<str>,
    pub key: TextKey,
    pub counts: Counts,
    /// The numbers of the conditions that its metadata meet, sorted.
    pub met: Box<[u64]>,
}

/// The columns of a memory in the order in which they are read; the last ones are of its first turn, if it comes from any.
const COLUMNS: &str = "SELECT m.place, m.id, m.kind, m.name, m.text, m.metadata, m.importance, m.untrusted, e.name,
    m.created_ms, m.changed_ms, m.valid_from_ms, m.valid_to_ms, s.name, s.position
    FROM memory m LEFT JOIN memory_entity e ON e.row = m.entity
    LEFT JOIN memory_source s ON s.owner = 0 AND s.row = m.row AND s.number = (
        SELECT min(t.number) FROM memory_source t WHERE t.owner = 0 AND t.row = m.row AND t.origin = 1)";

/// Reads memories for an index. Words and places that come again are read once.
#[derive(Default)]
pub(crate) struct Preparing {
    pub vocabulary: Vocabulary,
    places: Map<i64, (WorkspaceId, Scope)>,
}

/// The most words that are known between two memories.
const WORDS_MAX: usize = 1_000_000;

impl Preparing {
    /// Hands out every memory, each with its workspace, in the order of their rows.
    pub fn each(
        &mut self,
        db: &Connection,
        mut each: impl FnMut(&Vocabulary, &WorkspaceId, PreparedMemory),
    ) -> Result<()> {
        let mut statement = db.prepare_cached(&format!("{COLUMNS} ORDER BY m.row"))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if self.vocabulary.len() > WORDS_MAX {
                self.vocabulary = Vocabulary::default();
            }
            let prepared = self.prepare(db, row)?;
            let (workspace, _) = self.place(db, prepared.place)?;
            each(&self.vocabulary, &workspace, prepared);
        }
        Ok(())
    }

    /// The memory of an id in a workspace.
    pub fn by_id(&mut self, db: &Connection, workspace: &WorkspaceId, id: &MemoryId) -> Result<Option<PreparedMemory>> {
        self.find(db, "WHERE m.id = ?1", [id.as_bytes()], workspace)
    }

    fn find(
        &mut self,
        db: &Connection,
        rest: &str,
        params: impl Params,
        workspace: &WorkspaceId,
    ) -> Result<Option<PreparedMemory>> {
        let mut statement = db.prepare_cached(&format!("{COLUMNS} {rest}"))?;
        let mut rows = statement.query(params)?;
        while let Some(row) = rows.next()? {
            if self.place(db, row.get(0)?)?.0 == *workspace {
                return self.prepare(db, row).map(Some);
            }
        }
        Ok(None)
    }

    /// The workspace and the scope of a place.
    pub fn place(&mut self, db: &Connection, place: i64) -> Result<(WorkspaceId, Scope)> {
        if let Some(known) = self.places.get(&place) {
            return Ok(known.clone());
        }
        let found = tables::of_place(db, place)?;
        self.places.insert(place, found.clone());
        Ok(found)
    }

    fn prepare(&mut self, db: &Connection, row: &Row<'_>) -> Result<PreparedMemory> {
        let (place, id) = (row.get(0)?, MemoryId::from_bytes(row.get(1)?));
        let text = |column: usize| row.get_ref(column)?.as_str_or_null().map_err(rusqlite::Error::from);
        let entity = text(8)?;
        let searchable = searchable(entity, text(3)?, text(4)?.unwrap_or_default());
        let created_ms = row.get(9)?;
        let origin = match text(13)? {
            None => None,
            Some(name) => Some((name.to_owned(), (row.get::<_, Option<u32>>(14)?.unwrap_or(0), created_ms, id))),
        };
        Ok(PreparedMemory {
            id,
            place,
            scope: self.place(db, place)?.1,
            kind: row.get(2)?,
            entity: entity.map(str::to_owned),
            importance: row.get(6)?,
            untrusted: row.get(7)?,
            created_ms,
            changed_ms: row.get(10)?,
            valid_from_ms: row.get(11)?,
            valid_to_ms: row.get(12)?,
            origin,
            key: TextKey::of(&searchable),
            counts: self.vocabulary.count(&searchable),
            text: searchable.into(),
            met: met(text(5)?),
        })
    }
}

/// What a memory is embedded and found by: its text, with what it is about before it.
pub(super) fn searchable(entity: Option<&str>, name: Option<&str>, text: &str) -> String {
    [entity, name].into_iter().flatten().fold(String::new(), |all, name| all + name + ": ") + text
}

/// The numbers of the conditions that metadata meet, sorted.
fn met(metadata: Option<&str>) -> Box<[u64]> {
    let mut met: Vec<u64> = metadata.map(Condition::met_by).unwrap_or_default().iter().map(Condition::number).collect();
    met.sort_unstable();
    met.dedup();
    met.into()
}
