//! The index in memory: words, vectors and the graph of each workspace, derived from the tables and the changes since.
//!
//! A text is found by its words as soon as its change is applied, and by its meaning once [`Index::learn`] has its vector.
//! The caller embeds what is [`Index::pending`] away from the threads that serve.

mod episodes;
mod prepared;
mod shelf;

use std::collections::{BTreeMap, HashMap};

use caxton_proto::WorkspaceId;
use caxton_proto::memory::{EntityId, MemoryId, RelationId};
use rusqlite::{Connection, Result};

pub(crate) use prepared::PreparedMemory;
pub(crate) use shelf::{Hot, Shelf};

use self::prepared::Preparing;
use crate::apply::rows;
use crate::cache::{self, TextKey};
use crate::filter::Permit;
use crate::graph::{GraphQuery, GraphView, Path};
use crate::keywords::Translation;
use crate::model::Model;
use crate::vectors::{self, Grains};
use crate::words::{Vocabulary, Words};
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

enum Change {
    Entity(WorkspaceId, EntityId, Option<Box<MemoryEntity>>),
    Memory(WorkspaceId, MemoryId, Option<Box<PreparedMemory>>),
    Relation(WorkspaceId, RelationId, Option<Box<MemoryRelation>>),
}

/// What the tables have now of what commands touched. It is read without the index, which may be searched meanwhile.
pub struct Changes {
    all: Vec<Change>,
    vocabulary: Vocabulary,
}

impl Changes {
    /// Reads what was touched, once that is committed.
    pub fn read<'a>(db: &Connection, touched: impl IntoIterator<Item = &'a Touched>) -> Result<Changes> {
        let mut touched: Vec<&Touched> = touched.into_iter().collect();
        // Entities come before the relations between them.
        touched.sort_unstable();
        touched.dedup();
        let mut preparing = Preparing::default();
        let mut read = |it: &Touched| {
            Ok(match it {
                Touched::Entity(workspace, id) => {
                    let found = rows::entity_by_id(db, workspace, id)?;
                    Change::Entity(workspace.clone(), *id, found.map(|found| Box::new(found.value)))
                }
                Touched::Memory(workspace, id) => {
                    let found = preparing.by_id(db, workspace, id)?;
                    Change::Memory(workspace.clone(), *id, found.map(Box::new))
                }
                Touched::Relation(workspace, id) => {
                    let found = rows::relation_by_id(db, workspace, id)?;
                    Change::Relation(workspace.clone(), *id, found.map(|found| Box::new(found.value)))
                }
            })
        };
        let all = touched.into_iter().map(&mut read).collect::<Result<_>>()?;
        Ok(Changes { all, vocabulary: preparing.vocabulary })
    }
}

/// Under which numbers the workspace that memories are put into has the words of a vocabulary. Most that come together are of
/// one workspace.
#[derive(Default)]
struct KnownWords {
    workspace: Option<WorkspaceId>,
    words: usize,
    known: Translation,
}

impl KnownWords {
    fn of(&mut self, vocabulary: &Vocabulary, workspace: &WorkspaceId) -> &mut Translation {
        // One that knows fewer words than before was begun anew.
        if self.workspace.as_ref() != Some(workspace) || vocabulary.len() < self.words {
            *self = KnownWords { workspace: Some(workspace.clone()), ..KnownWords::default() };
        }
        self.words = vocabulary.len();
        &mut self.known
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
    prepared::searchable(what.entity.as_deref(), what.name.as_deref(), &what.text)
}

impl Index {
    /// An empty index.
    pub fn new(model: Model) -> Index {
        Index { model, words: Words::default(), shelves: HashMap::new(), waiting: BTreeMap::new(), gone: 0 }
    }

    /// An index of all that the tables hold. Vectors are taken from the cache, which has a connection of its own; what is
    /// not there is pending.
    pub fn load(db: &Connection, vectors: &Connection, model: Model) -> Result<Index> {
        let (mut index, mut preparing) = (Index::new(model), Preparing::default());
        let mut known = KnownWords::default();
        preparing.each(db, |vocabulary, workspace, prepared| index.put(vocabulary, &mut known, workspace, prepared))?;
        let mut put = Ok(());
        rows::each_entity(db, |found| match preparing.place(db, found.place) {
            Ok((workspace, _)) => index.shelf(&workspace).graph.put_entity(&found.value),
            Err(error) => put = Err(error),
        })?;
        rows::each_relation(db, |found| match preparing.place(db, found.place) {
            Ok((workspace, _)) => index.shelf(&workspace).graph.put_relation(&found.value),
            Err(error) => put = Err(error),
        })?;
        put?;
        cache::each(vectors, &model, |key, grains| index.place(key, Some(&grains)))?;
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
        let (vocabulary, mut known) = (changes.vocabulary, KnownWords::default());
        for change in changes.all {
            match change {
                Change::Entity(workspace, id, found) => {
                    let graph = &mut self.shelf(&workspace).graph;
                    match found {
                        Some(found) => graph.put_entity(&found),
                        None => graph.drop_entity(&id),
                    }
                }
                Change::Memory(workspace, _, Some(found)) => self.put(&vocabulary, &mut known, &workspace, *found),
                Change::Memory(workspace, id, None) => {
                    self.gone += 1;
                    // The last one takes the workspace with it, and so the numbers of its words.
                    known = KnownWords::default();
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

    fn put(
        &mut self,
        vocabulary: &Vocabulary,
        known: &mut KnownWords,
        workspace: &WorkspaceId,
        prepared: PreparedMemory,
    ) {
        let dimensions = self.model.dimensions;
        let shelf = self.shelves.entry(workspace.clone()).or_insert_with(|| Shelf::new(dimensions));
        let (key, id) = (prepared.key, prepared.id);
        if let Some(text) = shelf.put(vocabulary, known.of(vocabulary, workspace), prepared) {
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
        let unit = vectors::unit(vector).filter(|unit| unit.len() == self.model.dimensions);
        self.place(key, unit.as_deref().map(Grains::of).as_ref());
    }

    fn place(&mut self, key: TextKey, grains: Option<&Grains>) {
        let Some(waiting) = self.waiting.remove(&key) else { return };
        for (workspace, id) in waiting.places {
            if let (Some(shelf), Some(grains)) = (self.shelves.get_mut(&workspace), grains) {
                shelf.learn(&id, key, grains);
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
        self.shelves.get(workspace).map_or(0, Shelf::len)
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
