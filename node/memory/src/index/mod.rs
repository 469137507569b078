//! The index in memory: words, vectors and the graph of each workspace, derived from the tables and the changes since.
//!
//! A text is found by its words as soon as its change is applied, and by its meaning once [`Index::learn`] has its vector.
//! The caller embeds what is [`Index::pending`] away from the threads that serve.

mod episodes;
mod shelf;

use std::collections::{BTreeMap, HashMap};

use caxton_proto::WorkspaceId;
use caxton_proto::memory::{EntityId, MemoryId, RelationId};
use rusqlite::{Connection, Result};

pub(crate) use shelf::{Hot, Shelf};

use crate::apply::rows;
use crate::cache::{self, TextKey};
use crate::filter::Permit;
use crate::graph::{GraphQuery, GraphView, Path};
use crate::model::Model;
use crate::tables::workspace_of;
use crate::vectors;
use crate::words::Words;
use crate::{Memory, MemoryEntity, MemoryRelation, Touched};

/// A text that waits for its vector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// The text's key.
    pub key: TextKey,
    /// The text.
    pub text: String,
}

/// A text that waits, and where it is.
struct Waiting {
    text: Box<str>,
    places: Vec<(WorkspaceId, MemoryId)>,
}

/// A memory with all that can be told of it without an index: who puts it in needs the index for a few microseconds.
pub(crate) struct PreparedMemory {
    pub place: i64,
    pub memory: Memory,
    pub text: Box<str>,
    pub key: TextKey,
    pub counts: HashMap<Box<str>, u32>,
    pub met: Box<[u64]>,
}

impl PreparedMemory {
    fn new(words: &Words, found: rows::Rowed<Memory>) -> PreparedMemory {
        let text = searchable(&found.value).into_boxed_str();
        let met = shelf::met(found.value.what.metadata.as_deref());
        let (key, counts) = (TextKey::of(&text), shelf::counts(words, &text));
        PreparedMemory { place: found.place, memory: found.value, text, key, counts, met }
    }
}

enum Change {
    Entity(WorkspaceId, EntityId, Option<Box<MemoryEntity>>),
    Memory(WorkspaceId, MemoryId, Option<Box<PreparedMemory>>),
    Relation(WorkspaceId, RelationId, Option<Box<MemoryRelation>>),
}

/// What the tables have now of what commands touched. It is read without the index, which may be searched meanwhile.
pub struct Changes(Vec<Change>);

impl Changes {
    /// Reads what was touched, once that is committed.
    pub fn read<'a>(db: &Connection, touched: impl IntoIterator<Item = &'a Touched>) -> Result<Changes> {
        let mut touched: Vec<&Touched> = touched.into_iter().collect();
        // Entities come before the relations between them.
        touched.sort_unstable();
        touched.dedup();
        let words = Words::default();
        let read = |it: &Touched| {
            Ok(match it {
                Touched::Entity(workspace, id) => {
                    let found = rows::entity_by_id(db, workspace, id)?;
                    Change::Entity(workspace.clone(), *id, found.map(|found| Box::new(found.value)))
                }
                Touched::Memory(workspace, id) => {
                    let found = rows::by_id(db, workspace, id)?;
                    Change::Memory(
                        workspace.clone(),
                        *id,
                        found.map(|found| Box::new(PreparedMemory::new(&words, found))),
                    )
                }
                Touched::Relation(workspace, id) => {
                    let found = rows::relation_by_id(db, workspace, id)?;
                    Change::Relation(workspace.clone(), *id, found.map(|found| Box::new(found.value)))
                }
            })
        };
        Ok(Changes(touched.into_iter().map(read).collect::<Result<_>>()?))
    }
}

/// The index of a shard's workspaces.
pub struct Index {
    model: Model,
    words: Words,
    shelves: HashMap<WorkspaceId, Shelf>,
    waiting: BTreeMap<TextKey, Waiting>,
    gone: u64,
}

/// What a memory is embedded and found by: its text, with what it is about before it.
pub fn searchable(memory: &Memory) -> String {
    let what = &memory.what;
    let about = [what.entity.as_deref(), what.name.as_deref()];
    about.into_iter().flatten().fold(String::new(), |all, name| all + name + ": ") + &what.text
}

impl Index {
    /// An empty index.
    pub fn new(model: Model) -> Index {
        Index { model, words: Words::default(), shelves: HashMap::new(), waiting: BTreeMap::new(), gone: 0 }
    }

    /// An index of all that the tables hold. Vectors are taken from the cache, which has a connection of its own; what is
    /// not there is pending.
    pub fn load(db: &Connection, vectors: &Connection, model: Model) -> Result<Index> {
        let (mut index, words) = (Index::new(model), Words::default());
        let mut workspaces = HashMap::new();
        let mut workspace = |place: i64| match workspaces.get(&place) {
            Some(known) => Ok::<WorkspaceId, rusqlite::Error>(WorkspaceId::clone(known)),
            None => {
                let found = workspace_of(db, place)?;
                workspaces.insert(place, found.clone());
                Ok(found)
            }
        };
        const ROWS: i64 = 1_000;
        let mut last = 0;
        loop {
            let found = rows::memories(db, "WHERE m.row > ?1 ORDER BY m.row LIMIT ?2", [last, ROWS])?;
            let Some(end) = found.last() else { break };
            last = end.row;
            for it in found {
                index.put(&workspace(it.place)?, PreparedMemory::new(&words, it));
            }
        }
        last = 0;
        loop {
            let found = rows::entities(db, "WHERE e.row > ?1 ORDER BY e.row LIMIT ?2", [last, ROWS])?;
            let Some(end) = found.last() else { break };
            last = end.row;
            for it in found {
                index.shelf(&workspace(it.place)?).graph.put_entity(&it.value);
            }
        }
        last = 0;
        loop {
            let found = rows::relations(db, "WHERE r.row > ?1 ORDER BY r.row LIMIT ?2", [last, ROWS])?;
            let Some(end) = found.last() else { break };
            last = end.row;
            for it in found {
                index.shelf(&workspace(it.place)?).graph.put_relation(&it.value);
            }
        }
        cache::each(vectors, &model, |key, vector| index.learn(key, &vector))?;
        Ok(index)
    }

    /// Looks again at what commands touched, once that is committed: what the tables have of it now is what counts, so that
    /// doing so twice, or late, does no harm.
    pub fn refresh<'a>(&mut self, db: &Connection, touched: impl IntoIterator<Item = &'a Touched>) -> Result<()> {
        self.take(Changes::read(db, touched)?);
        Ok(())
    }

    /// Takes in what was read of the tables.
    pub fn take(&mut self, changes: Changes) {
        for change in changes.0 {
            match change {
                Change::Entity(workspace, id, found) => {
                    let graph = &mut self.shelf(&workspace).graph;
                    match found {
                        Some(found) => graph.put_entity(&found),
                        None => graph.drop_entity(&id),
                    }
                }
                Change::Memory(workspace, _, Some(found)) => self.put(&workspace, *found),
                Change::Memory(workspace, id, None) => {
                    self.gone += 1;
                    self.shelf(&workspace).remove(&id);
                    self.drop_if_empty(&workspace);
                }
                Change::Relation(workspace, id, found) => {
                    let graph = &mut self.shelf(&workspace).graph;
                    match found {
                        Some(found) => graph.put_relation(&found),
                        None => graph.drop_relation(&id),
                    }
                }
            }
        }
    }

    /// A workspace of which nothing is left takes no room.
    fn drop_if_empty(&mut self, workspace: &WorkspaceId) {
        if self.shelves.get(workspace).is_some_and(Shelf::is_empty) {
            self.shelves.remove(workspace);
        }
    }

    fn shelf(&mut self, workspace: &WorkspaceId) -> &mut Shelf {
        let dimensions = self.model.dimensions;
        self.shelves.entry(workspace.clone()).or_insert_with(|| Shelf::new(dimensions))
    }

    fn put(&mut self, workspace: &WorkspaceId, prepared: PreparedMemory) {
        let dimensions = self.model.dimensions;
        let shelf = self.shelves.entry(workspace.clone()).or_insert_with(|| Shelf::new(dimensions));
        let (key, id) = (prepared.key, prepared.memory.what.id);
        if let Some(text) = shelf.put(prepared) {
            let waiting = self.waiting.entry(key).or_insert_with(|| Waiting { text, places: Vec::new() });
            waiting.places.push((workspace.clone(), id));
        }
    }

    /// Texts that wait for their vectors, at most `most`. Those of memories that are gone are passed over.
    pub fn pending(&mut self, most: usize) -> Vec<Pending> {
        let shelves = &self.shelves;
        let (mut found, mut gone) = (Vec::new(), Vec::new());
        for (key, waiting) in &mut self.waiting {
            if found.len() >= most {
                break;
            }
            waiting.places.retain(|(workspace, id)| shelves.get(workspace).is_some_and(|shelf| shelf.has(id, *key)));
            match waiting.places.is_empty() {
                true => gone.push(*key),
                false => found.push(Pending { key: *key, text: waiting.text.to_string() }),
            }
        }
        for key in gone {
            self.waiting.remove(&key);
        }
        found
    }

    /// How many texts wait for their vectors.
    pub fn pending_count(&self) -> usize {
        self.waiting.len()
    }

    /// Gives the memories of a text its vector. One of another length, or without a direction, is noted as none.
    pub fn learn(&mut self, key: TextKey, vector: &[f32]) {
        let Some(waiting) = self.waiting.remove(&key) else { return };
        let unit = vectors::unit(vector).filter(|unit| unit.len() == self.model.dimensions);
        for (workspace, id) in waiting.places {
            if let (Some(shelf), Some(unit)) = (self.shelves.get_mut(&workspace), &unit) {
                shelf.learn(&id, key, unit);
            }
        }
    }

    /// The part of the graph around some entities, as far as the limits go: with a depth of 1, their neighbours. Entities
    /// that are not there, or outside the permit, are passed over.
    pub fn subgraph(&self, permit: &Permit, from: &[EntityId], query: &GraphQuery) -> GraphView {
        self.of(permit.workspace()).map(|shelf| shelf.graph.subgraph(permit, from, query)).unwrap_or_default()
    }

    /// A shortest way from one entity to another, if there is one within the limits.
    pub fn path(&self, permit: &Permit, from: &EntityId, to: &EntityId, query: &GraphQuery) -> Option<Path> {
        self.of(permit.workspace())?.graph.path(permit, from, to, query)
    }

    /// The model whose vectors it holds.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Whether any memory has a text: what the cache has beside these may go.
    pub fn needs(&self) -> std::collections::HashSet<TextKey> {
        self.shelves.values().flat_map(Shelf::keys).collect()
    }

    /// How many memories it was told of that are gone, since it was made: the cache may have vectors of these.
    pub fn gone(&self) -> u64 {
        self.gone
    }

    /// How many memories of a workspace it holds.
    pub fn len(&self, workspace: &WorkspaceId) -> usize {
        self.shelves.get(workspace).map_or(0, Shelf::live)
    }

    /// The bytes that it takes, about.
    pub fn bytes(&self) -> usize {
        self.shelves.values().map(Shelf::bytes).sum()
    }

    pub(crate) fn words(&self) -> &Words {
        &self.words
    }

    pub(crate) fn of(&self, workspace: &WorkspaceId) -> Option<&Shelf> {
        self.shelves.get(workspace)
    }
}
