//! The index in memory: words, vectors and the graph of each workspace, derived from the tables and the changes since.
//!
//! A text is found by its words as soon as its change is applied, and by its meaning once [`Index::learn`] has its vector.
//! The caller embeds what is [`Index::pending`] away from the threads that serve.

mod episodes;
mod shelf;

use std::collections::{BTreeMap, HashMap};

use caxton_proto::WorkspaceId;
use rusqlite::{Connection, Result};

pub(crate) use shelf::{Hot, Shelf};

use crate::apply::rows;
use crate::cache::{self, TextKey};
use crate::snapshot::workspace_of;
use crate::vectors;
use crate::words::Words;
use crate::{Change, Memory};

/// A sentence model by its hash: vectors of two models never meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Model {
    /// The hash of its weights.
    pub hash: [u8; 32],
    /// How many numbers its vectors have.
    pub dimensions: usize,
}

/// What makes vectors.
pub trait Embedder: Send + Sync {
    /// Which model it is.
    fn model(&self) -> Model;
    /// The direction of a text's meaning; its length does not matter.
    fn embed(&self, text: &str) -> Vec<f32>;
}

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
    places: Vec<(WorkspaceId, caxton_proto::memory::MemoryId)>,
}

/// The index of a shard's workspaces.
pub struct Index {
    model: Model,
    words: Words,
    shelves: HashMap<WorkspaceId, Shelf>,
    waiting: BTreeMap<TextKey, Waiting>,
}

/// What a memory is embedded and found by: its text, with what it is about before it.
pub(crate) fn searchable(memory: &Memory) -> String {
    let what = &memory.what;
    let about = [what.entity.as_deref(), what.name.as_deref()];
    about.into_iter().flatten().fold(String::new(), |all, name| all + name + ": ") + &what.text
}

impl Index {
    /// An empty index.
    pub fn new(model: Model) -> Index {
        Index { model, words: Words::default(), shelves: HashMap::new(), waiting: BTreeMap::new() }
    }

    /// An index of all that the tables hold. Vectors are taken from the cache; what is not there is pending.
    pub fn load(db: &Connection, model: Model) -> Result<Index> {
        let mut index = Index::new(model);
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
                index.put(&workspace(it.place)?, it.place, &it.value);
            }
        }
        last = 0;
        loop {
            let found = rows::entities(db, "WHERE e.row > ?1 ORDER BY e.row LIMIT ?2", [last, ROWS])?;
            let Some(end) = found.last() else { break };
            last = end.row;
            for it in found {
                index.shelf(&workspace(it.place)?).graph.put_entity(it.place, &it.value);
            }
        }
        last = 0;
        loop {
            let found = rows::relations(db, "WHERE r.row > ?1 ORDER BY r.row LIMIT ?2", [last, ROWS])?;
            let Some(end) = found.last() else { break };
            last = end.row;
            for it in found {
                index.shelf(&workspace(it.place)?).graph.put_relation(it.place, &it.value);
            }
        }
        cache::each(db, &model, |key, vector| index.learn(key, &vector))?;
        Ok(index)
    }

    /// Takes in what commands changed, in the order in which they did, once it is committed.
    pub fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Put { workspace, place, memory } => self.put(workspace, *place, memory),
                Change::Drop { workspace, id } => {
                    if let Some(shelf) = self.shelves.get_mut(workspace) {
                        shelf.remove(&self.words, id);
                    }
                }
                Change::PutEntity { workspace, place, entity } => {
                    self.shelf(workspace).graph.put_entity(*place, entity);
                }
                Change::DropEntity { workspace, id } => self.shelf(workspace).graph.drop_entity(id),
                Change::PutRelation { workspace, place, relation } => {
                    self.shelf(workspace).graph.put_relation(*place, relation);
                }
                Change::DropRelation { workspace, id } => self.shelf(workspace).graph.drop_relation(id),
            }
        }
    }

    fn shelf(&mut self, workspace: &WorkspaceId) -> &mut Shelf {
        let dimensions = self.model.dimensions;
        self.shelves.entry(workspace.clone()).or_insert_with(|| Shelf::new(dimensions))
    }

    fn put(&mut self, workspace: &WorkspaceId, place: i64, memory: &Memory) {
        let dimensions = self.model.dimensions;
        let shelf = self.shelves.entry(workspace.clone()).or_insert_with(|| Shelf::new(dimensions));
        let text = searchable(memory);
        let key = TextKey::of(&text);
        if shelf.put(&self.words, place, memory, &text, key) {
            let text = text.into_boxed_str();
            let waiting = self.waiting.entry(key).or_insert_with(|| Waiting { text, places: Vec::new() });
            waiting.places.push((workspace.clone(), memory.what.id));
        }
    }

    /// Texts that wait for their vectors, at most `most`. Those of memories that are gone are passed over.
    pub fn pending(&mut self, most: usize) -> Vec<Pending> {
        let shelves = &self.shelves;
        self.waiting.retain(|key, waiting| {
            waiting.places.retain(|(workspace, id)| shelves.get(workspace).is_some_and(|shelf| shelf.has(id, *key)));
            !waiting.places.is_empty()
        });
        let pending = |(key, waiting): (&TextKey, &Waiting)| Pending { key: *key, text: waiting.text.to_string() };
        self.waiting.iter().take(most).map(pending).collect()
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

    /// The model whose vectors it holds.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Whether any memory has a text: what the cache has beside these may go.
    pub fn needs(&self) -> std::collections::HashSet<TextKey> {
        self.shelves.values().flat_map(Shelf::keys).collect()
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
