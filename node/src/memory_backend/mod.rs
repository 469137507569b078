//! Systems beside the node that find what a workspace remembers: Qdrant, Neo4j, or a tool, as its caxton.toml says.
//!
//! The log stays the truth. The leader of the workspace's shard feeds the backend ([`feed`]); a search asks it for candidates,
//! whose ids are looked up in the node's own tables and ranked by the node's own index, inside the permit. So a backend can
//! leave something out, and can never show anything that somebody may not read, or that is remembered no longer.
//!
//! - [`document`]: what it is told, what it is asked, and how far it is.
//! - [`qdrant`], [`neo4j`], [`tool`]: how each of them is spoken to.
//! - [`state`]: how far it is and what was wrong last, for whoever searches and whoever looks.
//! - [`feed`]: who sees to it that it has everything.

mod document;
mod error;
pub mod feed;
mod http;
mod neo4j;
mod qdrant;
mod state;
mod tool;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use caxton_memory::Permit;
use caxton_memory::proto::{EntityId, MemoryId, RelationId};
use caxton_proto::WorkspaceId;
use caxton_proto::manifest::backend::{BackendKind, BackendSettings};
use caxton_raft::Role;
use tracing::warn;

use self::document::{Document, EntityNode, Position, RelationEdge, Within};
pub use self::error::BackendError;
use self::http::{Http, Proof};
use self::neo4j::Neo4j;
use self::qdrant::Qdrant;
use self::state::Entry;
pub use self::state::{BackendState, LastFailure, Stage};
use self::tool::ToolBackend;
use crate::catalog::Catalogs;
use crate::errors::chain;
use crate::llm::models::Models;
use crate::memory::{BackendPart, FoundMemories, Memories, MemoryError, SearchOrder, ShardMemories};
use crate::tasks;
use crate::tools::Tools;

/// Candidates of each half of a search, for each hit that is asked for.
const CANDIDATES_PER_HIT: usize = 8;
/// Candidates of each half, at least and at most.
const CANDIDATES_MIN: usize = 100;
const CANDIDATES_MAX: usize = 2_000;
/// So many changes that the backend does not have yet are candidates of every search.
const BEHIND_MAX: usize = 1_000;

/// What a backend is asked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// What is searched for, as it was written.
    pub text: String,
    /// Its words, in small letters and without endings; none where it is not searched by words.
    pub words: Vec<String>,
    /// Its vector; nothing where it is not searched by meaning.
    pub vector: Option<Vec<f32>>,
    /// Which memories may be candidates.
    pub within: Within,
    /// How many candidates each half may give.
    pub limit: usize,
}

/// What a backend found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Candidates {
    /// The memories. Each is looked up before it counts.
    pub ids: Vec<MemoryId>,
    /// What it does not search by, for whoever asked.
    pub note: Option<String>,
}

/// A page of what a backend has.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// Ids with the digests of what was told of them.
    pub documents: Vec<(MemoryId, String)>,
    /// Where the next page begins; nothing at the end.
    pub next: Option<String>,
}

/// What changed of entities and relations.
#[derive(Debug, Clone, Default)]
pub struct GraphChanges {
    /// The entry of the log up to which it was read.
    pub version: u64,
    /// Entities that are there.
    pub entities: Vec<EntityNode>,
    /// Entities that are gone.
    pub gone_entities: Vec<EntityId>,
    /// Relations that are there.
    pub relations: Vec<RelationEdge>,
    /// Relations that are gone.
    pub gone_relations: Vec<RelationId>,
}

/// A system that finds what a workspace remembers. Everything that it is told may be told again.
#[async_trait]
pub trait MemoryBackend: Send + Sync {
    /// Makes what it needs before it can be told anything: a collection, indexes, constraints.
    async fn prepare(&self) -> Result<(), BackendError>;

    /// How far it is, as it was told last; nothing where it was told nothing, or where that cannot be read.
    async fn position(&self) -> Result<Option<Position>, BackendError>;

    /// Keeps how far it is.
    async fn set_position(&self, position: &Position) -> Result<(), BackendError>;

    /// Takes memories in, in the place of older versions of them.
    async fn upsert(&self, documents: &[Document]) -> Result<(), BackendError>;

    /// Forgets memories, but for newer versions of them than `version`.
    async fn delete(&self, ids: &[MemoryId], version: u64) -> Result<(), BackendError>;

    /// Takes changes of the graph in, where it keeps one.
    async fn change_graph(&self, _changes: &GraphChanges) -> Result<(), BackendError> {
        Ok(())
    }

    /// Forgets entities and relations that were told before `version`, where it keeps any.
    async fn drop_older_graph(&self, _version: u64) -> Result<(), BackendError> {
        Ok(())
    }

    /// A page of what it has, after the page that ended with `after`.
    async fn list(&self, after: Option<&str>) -> Result<Listing, BackendError>;

    /// Forgets everything of the workspace.
    async fn clear(&self) -> Result<(), BackendError>;

    /// Forgets everything of a workspace that was deleted, whose secrets went with it.
    async fn part(&self) -> Result<(), BackendError> {
        self.clear().await
    }

    /// Finds candidates for a search.
    async fn search(&self, wanted: &Wanted) -> Result<Candidates, BackendError>;
}

/// What backends are made of.
pub struct Parts {
    /// What is deployed, with the files that name backends.
    pub catalogs: Catalogs,
    /// What is remembered.
    pub memories: Memories,
    /// The node's models, which know where workspaces may go and which keys they have.
    pub models: Arc<Models>,
    /// The tools of workspaces.
    pub tools: Tools,
    /// The cluster, by its id.
    pub cluster: String,
}

/// The backends of all workspaces. A clone is a handle on the same.
#[derive(Clone)]
pub struct MemoryBackends(Arc<Shared>);

struct Shared {
    parts: Parts,
    entries: Mutex<HashMap<WorkspaceId, Arc<Entry>>>,
}

impl MemoryBackends {
    /// Those that the deployed workspaces name.
    pub fn new(parts: Parts) -> MemoryBackends {
        MemoryBackends(Arc::new(Shared { parts, entries: Mutex::default() }))
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<WorkspaceId, Arc<Entry>>> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a workspace's file says of its backend; nothing for the node's own index.
    async fn settings(&self, workspace: &WorkspaceId) -> Result<Option<BackendSettings>, MemoryError> {
        let Some(catalog) = self.0.parts.catalogs.get(workspace) else { return Ok(None) };
        if let Some(parsed) = catalog.parsed_manifest() {
            return Ok(parsed.memory_backend.clone());
        }
        let read = tasks::blocking(move || catalog.manifest()).await;
        let unread = |problem: String| MemoryError::Backend { backend: "caxton.toml".to_owned(), problem };
        let manifest = read.map_err(|error| unread(error.to_string()))?;
        Ok(manifest.map_err(|error| unread(chain(&error).to_string()))?.memory_backend.clone())
    }

    /// The backend of a workspace, made anew where the file says another.
    async fn entry(&self, workspace: &WorkspaceId) -> Result<Option<Arc<Entry>>, MemoryError> {
        let Some(settings) = self.settings(workspace).await? else { return Ok(None) };
        let mut entries = self.entries();
        if let Some(entry) = entries.get(workspace).filter(|entry| entry.settings == settings) {
            return Ok(Some(Arc::clone(entry)));
        }
        let backend = self.make(workspace, &settings);
        let entry = Arc::new(Entry::new(workspace.clone(), settings, backend));
        entries.insert(workspace.clone(), Arc::clone(&entry));
        Ok(Some(entry))
    }

    fn make(
        &self,
        workspace: &WorkspaceId,
        settings: &BackendSettings,
    ) -> Result<Arc<dyn MemoryBackend>, BackendError> {
        let parts = &self.0.parts;
        let http =
            |url, key, proof| Http::new(parts.models.providers(), (workspace, url, key), proof, settings.timeout);
        Ok(match &settings.kind {
            BackendKind::Qdrant { url, api_key, collection } => {
                let http = http(url, api_key.as_ref(), Proof::Header("api-key"))?;
                let (_, dimensions) = parts.memories.of(workspace).model();
                Arc::new(Qdrant::new(http, workspace.clone(), collection.as_deref(), dimensions))
            }
            BackendKind::Neo4j { url, database, user, password } => {
                let http = http(url, Some(password), Proof::Basic(user.clone()))?;
                Arc::new(Neo4j::new(http, workspace.clone(), database))
            }
            BackendKind::Tool { tool } => Arc::new(ToolBackend {
                workspace: workspace.clone(),
                tool: tool.clone(),
                timeout: settings.timeout,
                catalogs: parts.catalogs.clone(),
                tools: parts.tools.clone(),
                last: Mutex::default(),
                parting: AtomicBool::new(false),
            }),
        })
    }

    /// Searches what a permit lets through: with the workspace's backend where it has one, else in the node's own index.
    pub async fn search(
        &self,
        workspace: &WorkspaceId,
        permit: Permit,
        order: SearchOrder,
    ) -> Result<FoundMemories, MemoryError> {
        let memories = self.0.parts.memories.of(workspace);
        let Some(entry) = self.entry(workspace).await? else { return memories.search(permit, order).await };
        let name = entry.name();
        let candidates = self.candidates(&entry, &memories, &permit, &order).await;
        let outcome = if candidates.is_ok() { "answered" } else { "failed" };
        metrics::counter!("caxton_memory_backend_searches_total", "backend" => entry.label(), "outcome" => outcome)
            .increment(1);
        match candidates {
            Ok(Candidates { ids, note }) => {
                let order = SearchOrder { among: Some(ids.into()), ..order };
                let found = memories.search(permit, order).await?;
                Ok(FoundMemories { backend: Some(BackendPart { name, answered: true, note }), ..found })
            }
            Err(error) if entry.settings.falls_back => {
                let problem = chain(&error).to_string();
                warn!(%workspace, backend = name, problem, "a memory backend was not searched, and the node's own index answers");
                let found = memories.search(permit, order).await?;
                Ok(FoundMemories { backend: Some(BackendPart { name, answered: false, note: Some(problem) }), ..found })
            }
            Err(error) => Err(MemoryError::Backend { backend: name, problem: chain(&error).to_string() }),
        }
    }

    /// What a backend has to do with a search that only the node's own index can do.
    pub async fn passed_over(&self, workspace: &WorkspaceId, why: &str) -> Result<Option<BackendPart>, MemoryError> {
        let entry = self.entry(workspace).await?;
        Ok(entry.map(|entry| BackendPart { name: entry.name(), answered: false, note: Some(why.to_owned()) }))
    }

    async fn candidates(
        &self,
        entry: &Entry,
        memories: &ShardMemories,
        permit: &Permit,
        order: &SearchOrder,
    ) -> Result<Candidates, BackendError> {
        let backend = entry.backend()?;
        let leads = memories.shard().group().status().borrow().role == Role::Leader;
        let elsewhere = "another node feeds it, and this one does not know whether it has everything";
        let unsure = if leads { entry.is_ready()? } else { Some(elsewhere.to_owned()) };
        let (words, vector) = memories.needles_of(order.text.clone(), order.mode).await;
        let wanted = Wanted {
            text: order.text.clone(),
            words,
            vector,
            within: Within::of(permit, &order.filter, order.as_of_ms),
            limit: (order.limit * CANDIDATES_PER_HIT).clamp(CANDIDATES_MIN, CANDIDATES_MAX),
        };
        // What it does not have for certain is a candidate by itself, so that what was written is found by the next search.
        let journal = memories.journal();
        let fresh = journal.memories(&entry.workspace, BEHIND_MAX);
        let mut found = backend.search(&wanted).await?;
        let known: BTreeSet<MemoryId> = found.ids.iter().copied().collect();
        let behind = match fresh {
            Some(fresh) => {
                found.ids.extend(fresh.into_iter().filter(|id| !known.contains(id)));
                None
            }
            None if leads => Some("it is behind by many changes, which it may not have found".to_owned()),
            None => None,
        };
        let notes: Vec<String> = [found.note.take(), unsure, behind].into_iter().flatten().collect();
        found.note = (!notes.is_empty()).then(|| notes.join("; "));
        Ok(found)
    }

    /// How far the backend of a workspace is; nothing where it has none.
    pub async fn state(&self, workspace: &WorkspaceId) -> Result<Option<BackendState>, MemoryError> {
        let Some(entry) = self.entry(workspace).await? else { return Ok(None) };
        let memories = self.0.parts.memories.of(workspace);
        let applied = memories.applied().await;
        let leads = memories.shard().group().status().borrow().role == Role::Leader;
        Ok(Some(entry.state(leads, memories.journal().behind(workspace), applied)))
    }

    /// Has the backend of a workspace emptied and filled anew, and says how far it is; nothing where it has none. It is done
    /// behind this, by the node that leads the workspace's shard.
    pub async fn sync(&self, workspace: &WorkspaceId) -> Result<Option<BackendState>, MemoryError> {
        let Some(entry) = self.entry(workspace).await? else { return Ok(None) };
        entry.ask_for_sync();
        self.0.parts.memories.of(workspace).journal().wake();
        self.state(workspace).await
    }
}
