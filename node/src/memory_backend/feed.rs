//! Sees to it that the backends of a shard's workspaces have everything that is remembered: at least once, and newer versions in
//! the place of older ones. Only the node that leads the shard does so.
//!
//! Where the backend says how far it is and what changed since is noted without a gap, it is told those changes. Otherwise
//! everything is compared by digests, and it is told what differs and what is gone. What it was told counts once it has said
//! that it has it; its position is kept in the backend itself, so that the next leader goes on from there.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use caxton_memory::proto::{EntityId, MemoryId, RelationId};
use caxton_memory::{Filter, Memory, Permit, Touched};
use caxton_proto::WorkspaceId;
use caxton_raft::Role;
use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::document::{Document, EntityNode, Position, RelationEdge, digest_of};
use super::state::Entry;
use super::{BackendError, GraphChanges, MemoryBackend, MemoryBackends};
use crate::errors::chain;
use crate::memory::journal::NOTED_MAX;
use crate::memory::{MemoryError, ShardMemories};
use crate::shard::Shard;
use crate::telemetry::labels::bounded;

/// How often it is looked whether something was missed, where nothing happens.
const IDLE: Duration = Duration::from_secs(30);
/// The pause while something is wrong or under way.
const SOON: Duration = Duration::from_millis(500);
/// How long the backend of a workspace that was deleted may take to delete what it has.
const PARTING: Duration = Duration::from_secs(600);
/// How long an election is waited for.
const ELECTION: Duration = Duration::from_secs(5);
/// Things that are taken from the notes at once.
const TAKEN_AT_ONCE: usize = 500;
/// Where more than this changed since the backend's position, everything is compared.
const CAUGHT_UP_MAX: usize = 2_000;
/// Memories of one request, and their bytes, about.
const SENT_AT_ONCE: usize = 100;
const SENT_BYTES: usize = 2 << 20;
/// Rows that are read at once while everything is compared.
const ROWS: usize = 256;
/// How many more things than twice what there is a backend may list, and how much of a digest counts.
const LISTED_MORE_MAX: usize = 100_000;
const DIGEST_CHARS_MAX: usize = 64;
/// A position that moves while nothing changes of the workspace is kept this often.
const POSITION_EVERY: Duration = Duration::from_secs(30);

/// What changed, as the tables have it.
#[derive(Default)]
struct Changes {
    memories: Vec<Memory>,
    gone: Vec<MemoryId>,
    graph: GraphChanges,
}

/// Feeds the backends of one shard's workspaces.
pub struct Feeder {
    backends: MemoryBackends,
    memories: ShardMemories,
    shard: Shard,
    source: String,
}

impl Feeder {
    /// For one shard.
    pub fn new(backends: MemoryBackends, memories: ShardMemories) -> Feeder {
        let shard = memories.shard().clone();
        let source = format!("{}/{}", backends.0.parts.cluster, shard.id().0);
        Feeder { backends, memories, shard, source }
    }

    /// Feeds until it is stopped. Each backend is looked after by itself: one that is slow holds up no other.
    pub async fn run(self, stop: CancellationToken) {
        let mut changed = self.backends.0.parts.catalogs.changed();
        let mut status = self.shard.group().status();
        let mut followed: HashMap<WorkspaceId, Arc<Entry>> = HashMap::new();
        let (this, mut busy, mut running) = (&self, HashSet::new(), FuturesUnordered::new());
        let (mut due, mut missed): (HashSet<WorkspaceId>, HashSet<WorkspaceId>) = Default::default();
        let (mut stale, mut next, mut parting) = (true, Instant::now(), Vec::new());
        loop {
            let leads = status.borrow_and_update().role == Role::Leader;
            if stale {
                changed.borrow_and_update();
                let follow = self.follow(leads, &mut followed, &mut parting);
                stale = stop.run_until_cancelled(follow).await.unwrap_or(false);
                due.extend(followed.keys().cloned());
            }
            // What is being fed is waited for, so that nothing is told a backend after it was emptied.
            for entry in parting.extract_if(.., |entry| busy.insert(entry.workspace.clone())) {
                running.push(async move { (part(&entry).await, entry.workspace.clone()) }.boxed());
            }
            if !leads {
                followed.values().for_each(|entry| entry.waits());
                due.clear();
            }
            for workspace in due.drain() {
                let Some(entry) = followed.get(&workspace).cloned() else { continue };
                if busy.insert(workspace.clone()) {
                    running.push(async move { (this.look_after(&entry).await, workspace) }.boxed());
                } else {
                    missed.insert(workspace);
                }
            }
            let all_are_due = tokio::select! {
                () = stop.cancelled() => return,
                Some((again, workspace)) = running.next() => {
                    busy.remove(&workspace);
                    if again {
                        next = next.min(Instant::now() + SOON);
                    }
                    if missed.remove(&workspace) {
                        due.insert(workspace);
                    }
                    false
                }
                () = self.memories.journal().news(), if leads => true,
                () = tokio::time::sleep_until(next) => {
                    next = Instant::now() + if stale { SOON } else { IDLE };
                    true
                }
                changed = changed.changed() => {
                    if changed.is_err() { return }
                    stale = true;
                    true
                }
                changed = status.changed() => {
                    if changed.is_err() { return }
                    true
                }
            };
            if all_are_due {
                due.extend(followed.keys().cloned());
            }
        }
    }

    /// Sees which backends there are now. Says whether some could not be seen.
    async fn follow(
        &self,
        leads: bool,
        followed: &mut HashMap<WorkspaceId, Arc<Entry>>,
        parting: &mut Vec<Arc<Entry>>,
    ) -> bool {
        let (entries, unseen) = self.entries().await;
        let named: HashSet<WorkspaceId> = entries.iter().map(|entry| entry.workspace.clone()).collect();
        for (workspace, entry) in followed.extract_if(|workspace, _| !named.contains(workspace)) {
            self.backends.entries().remove(&workspace);
            if leads && self.backends.0.parts.catalogs.get(&workspace).is_none() {
                parting.push(entry);
            }
        }
        self.memories.journal().keep_only(&named);
        for entry in entries {
            let before = followed.insert(entry.workspace.clone(), Arc::clone(&entry));
            // What was given to another backend is not noted any more.
            if !before.is_some_and(|before| Arc::ptr_eq(&before, &entry)) {
                self.begin_notes(&entry.workspace, leads).await;
            }
        }
        unseen
    }

    /// The backends of the workspaces of this shard, and whether some could not be seen.
    async fn entries(&self) -> (Vec<Arc<Entry>>, bool) {
        let parts = &self.backends.0.parts;
        let all = parts.catalogs.all();
        let own = all.iter().map(|catalog| &catalog.workspace);
        let (mut entries, mut unseen) = (Vec::new(), false);
        for workspace in own.filter(|workspace| parts.memories.of(workspace).shard().id() == self.shard.id()) {
            match self.backends.entry(workspace).await {
                Ok(entry) => entries.extend(entry),
                Err(error) => {
                    unseen = true;
                    warn!(%workspace, reason = %chain(&error), "a workspace's memory backend is not known");
                }
            }
        }
        (entries, unseen)
    }

    /// Feeds one backend; says whether there is more to do soon.
    async fn look_after(&self, entry: &Entry) -> bool {
        let (workspace, backend) = (&entry.workspace, entry.name());
        if entry.rests().is_some() {
            return true;
        }
        let fed = self.feed(entry).await;
        let behind = self.memories.journal().behind(workspace).map_or(NOTED_MAX, |behind| behind);
        let label = bounded("workspace", workspace.as_str());
        metrics::gauge!("caxton_memory_backend_behind", "workspace" => label.clone()).set(behind as f64);
        match fed {
            Ok(()) => {
                entry.succeeded();
                metrics::gauge!("caxton_memory_backend_up", "workspace" => label).set(1.0);
                false
            }
            Err(BackendError::NotLeader) => {
                self.memories.journal().put_back(workspace);
                entry.waits();
                true
            }
            Err(error) => {
                self.memories.journal().put_back(workspace);
                metrics::gauge!("caxton_memory_backend_up", "workspace" => label).set(0.0);
                metrics::counter!("caxton_memory_backend_failures_total", "backend" => entry.label()).increment(1);
                let problem = chain(&error).to_string();
                if entry.failed(problem.clone()) {
                    warn!(%workspace, backend, problem, "a memory backend is not fed, which is tried again");
                }
                true
            }
        }
    }

    /// The workspace's file still names this backend.
    fn still_named(&self, entry: &Entry) -> Result<(), BackendError> {
        let is_named = self.backends.entries().get(&entry.workspace).is_some_and(|it| std::ptr::eq(&**it, entry));
        if is_named { Ok(()) } else { Err(BackendError::NotLeader) }
    }

    /// This node still leads the shard in this term, and the workspace's file still names this backend.
    fn goes_on(&self, entry: &Entry, term: u64) -> Result<(), BackendError> {
        let status = self.shard.group().status();
        let leads = {
            let status = status.borrow();
            status.role == Role::Leader && status.term == term
        };
        if leads { self.still_named(entry) } else { Err(BackendError::NotLeader) }
    }

    async fn feed(&self, entry: &Entry) -> Result<(), BackendError> {
        let term = self.shard.lead(ELECTION).await.map_err(|_| BackendError::NotLeader)?;
        let (backend, workspace) = (entry.backend()?, &entry.workspace);
        if entry.wants_sync() {
            entry.fills(0, Some(false));
            backend.prepare().await?;
            backend.clear().await?;
            entry.sync_begun();
            info!(%workspace, backend = entry.name(), "a memory backend was emptied, and is filled anew");
            self.compare(entry, backend, term).await?;
        } else if !entry.is_met(term) {
            self.meet(entry, backend, term).await?;
        }
        let journal = self.memories.journal();
        loop {
            self.goes_on(entry, term)?;
            let at = self.memories.applied().await;
            let Some(taken) = journal.take(workspace, TAKEN_AT_ONCE) else {
                self.compare(entry, backend, term).await?;
                continue;
            };
            // What comes after this look is noted under a later entry.
            let is_all = taken.len() < TAKEN_AT_ONCE;
            if taken.is_empty() {
                return self.keep_position(entry, backend, (term, at)).await;
            }
            self.give(entry, backend, taken).await?;
            journal.given(workspace);
            if is_all {
                self.set_position(entry, backend, (term, at)).await?;
            }
        }
    }

    /// Finds out where a backend stands, and has everything compared where that is not known for certain.
    async fn meet(&self, entry: &Entry, backend: &Arc<dyn MemoryBackend>, term: u64) -> Result<(), BackendError> {
        let workspace = &entry.workspace;
        backend.prepare().await?;
        let position = backend.position().await?;
        let own = self.position(0);
        if let Some(position) = &position
            && position.source != own.source
        {
            return Err(BackendError::Foreign { found: position.source.clone(), own: own.source });
        }
        let (journal, applied) = (self.memories.journal(), self.memories.applied().await);
        let position = position.filter(|position| position.form == own.form && position.index <= applied);
        let noted = journal.since(workspace).zip(journal.behind(workspace));
        match (&position, noted) {
            (Some(position), Some((since, behind))) if position.index >= since && behind <= CAUGHT_UP_MAX => {
                entry.follows(term, position.index);
                Ok(())
            }
            _ => {
                entry.fills(0, position.is_some().then_some(true));
                self.compare(entry, backend, term).await
            }
        }
    }

    fn position(&self, index: u64) -> Position {
        Position::new(&self.source, &self.memories.model().0, index)
    }

    async fn set_position(
        &self,
        entry: &Entry,
        backend: &Arc<dyn MemoryBackend>,
        (term, at): (u64, u64),
    ) -> Result<(), BackendError> {
        backend.set_position(&self.position(at)).await?;
        entry.follows(term, at);
        Ok(())
    }

    /// Keeps a position that moved though nothing changed of the workspace, now and then.
    async fn keep_position(
        &self,
        entry: &Entry,
        backend: &Arc<dyn MemoryBackend>,
        (term, at): (u64, u64),
    ) -> Result<(), BackendError> {
        match entry.positioned() {
            Some((position, when)) if position == at || when.elapsed() < POSITION_EVERY => Ok(()),
            _ => self.set_position(entry, backend, (term, at)).await,
        }
    }

    async fn begin_notes(&self, workspace: &WorkspaceId, leads: bool) -> u64 {
        let journal = self.memories.journal();
        let beginning = journal.begin(workspace);
        let since = self.memories.applied().await;
        journal.begun(workspace, beginning, (since, leads));
        since
    }

    /// Gives a backend what was touched, as the tables have it now.
    async fn give(
        &self,
        entry: &Entry,
        backend: &Arc<dyn MemoryBackend>,
        touched: Vec<Touched>,
    ) -> Result<(), BackendError> {
        let everything = Permit::everything(entry.workspace.clone());
        let read = move |rows: &rusqlite::Connection| look_up(rows, &everything, touched);
        let Changes { memories, gone, graph } = self.memories.read(read).await?;
        let version = graph.version;
        // Entities come first: memories are about them.
        backend.change_graph(&graph).await?;
        self.still_named(entry)?;
        self.send(entry, backend, (memories, version)).await?;
        for ids in gone.chunks(SENT_AT_ONCE) {
            backend.delete(ids, version).await?;
        }
        Ok(())
    }

    /// Sends memories that were read at an entry of the log, in as many requests as it takes.
    async fn send(
        &self,
        entry: &Entry,
        backend: &Arc<dyn MemoryBackend>,
        (memories, version): (Vec<Memory>, u64),
    ) -> Result<(), BackendError> {
        let workspace = &entry.workspace;
        let model = self.memories.model().0;
        for some in memories.chunks(SENT_AT_ONCE) {
            let texts = some.iter().map(caxton_memory::searchable).collect();
            let vectors = self.memories.vectors(texts).await?;
            let (mut documents, mut bytes) = (Vec::with_capacity(some.len()), 0);
            for (memory, vector) in some.iter().zip(vectors) {
                let document = Document::new(workspace, memory, vector, (version, &model));
                if bytes + document.bytes() > SENT_BYTES && !documents.is_empty() {
                    backend.upsert(&std::mem::take(&mut documents)).await?;
                    bytes = 0;
                }
                bytes += document.bytes();
                documents.push(document);
            }
            backend.upsert(&documents).await?;
            // What was deleted or named otherwise meanwhile is told nothing more.
            self.still_named(entry)?;
        }
        Ok(())
    }

    /// Compares everything, and tells the backend what it lacks and what is gone.
    async fn compare(&self, entry: &Entry, backend: &Arc<dyn MemoryBackend>, term: u64) -> Result<(), BackendError> {
        let workspace = &entry.workspace;
        let everything = Permit::everything(workspace.clone());
        let permit = everything.clone();
        let stats = self.memories.read(move |rows| caxton_memory::stats(rows, &permit)).await?;
        entry.fills(stats.iter().map(|scope| scope.memories).sum(), None);
        let total = stats
            .iter()
            .map(|scope| usize::try_from(scope.memories).unwrap_or(usize::MAX))
            .fold(0, usize::saturating_add);
        let (at, mut pages) = (self.begin_notes(workspace, true).await, 0_usize);
        let mut known: HashMap<MemoryId, String> = HashMap::new();
        let mut after: Option<String> = None;
        loop {
            self.goes_on(entry, term)?;
            let page = backend.list(after.as_deref()).await?;
            known.extend(
                page.documents.into_iter().map(|(id, digest)| (id, digest.chars().take(DIGEST_CHARS_MAX).collect())),
            );
            pages += 1;
            // It has what it was told, and what was forgotten since: one that lists for ever is not heard to its end.
            let most = total.saturating_mul(2).saturating_add(LISTED_MORE_MAX);
            if known.len() > most || pages > most {
                return Err(BackendError::Unable("it lists more than it was ever told; empty it by hand"));
            }
            match page.next {
                // A backend that goes round in circles is not followed.
                Some(next) if after.as_ref() != Some(&next) => after = Some(next),
                Some(_) | None => break,
            }
        }
        self.compare_graph(entry, backend, (term, at)).await?;
        let (model, mut told) = (self.memories.model().0, 0_u64);
        let mut after = None;
        loop {
            self.goes_on(entry, term)?;
            let permit = everything.clone();
            let read = move |rows: &rusqlite::Connection| {
                let version = applied(rows)?;
                Ok((version, caxton_memory::list(rows, &permit, &Filter::default(), None, after, ROWS)?))
            };
            let (version, page) = self.memories.read(read).await?;
            let all = page.memories.len() as u64;
            let differs = |memory: &Memory| known.remove(&memory.what.id) != Some(digest_of(workspace, memory, &model));
            let lacking: Vec<Memory> = page.memories.into_iter().filter(differs).collect();
            told += lacking.len() as u64;
            self.send(entry, backend, (lacking, version)).await?;
            entry.compared(all);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        // What is left was not met: it is gone, unless it moved while the pages were read.
        let left: Vec<MemoryId> = known.into_keys().collect();
        for ids in left.chunks(SENT_AT_ONCE) {
            self.goes_on(entry, term)?;
            let touched = ids.iter().map(|id| Touched::Memory(workspace.clone(), *id)).collect();
            self.give(entry, backend, touched).await?;
        }
        self.set_position(entry, backend, (term, at)).await?;
        let (name, gone) = (entry.name(), left.len());
        info!(%workspace, backend = name, told, gone, "a memory backend has everything that is remembered");
        Ok(())
    }

    async fn compare_graph(
        &self,
        entry: &Entry,
        backend: &Arc<dyn MemoryBackend>,
        (term, at): (u64, u64),
    ) -> Result<(), BackendError> {
        let everything = Permit::everything(entry.workspace.clone());
        let mut after: Option<(String, EntityId)> = None;
        loop {
            self.goes_on(entry, term)?;
            let (permit, from) = (everything.clone(), after.clone());
            let read = move |rows: &rusqlite::Connection| {
                let from = from.as_ref().map(|(name, id)| (name.as_str(), *id));
                Ok((applied(rows)?, caxton_memory::entities(rows, &permit, from, ROWS)?))
            };
            let (version, entities) = self.memories.read(read).await?;
            let last = entities.last().map(|last| (last.what.name.clone(), last.what.id()));
            let entities: Vec<EntityNode> = entities.iter().map(EntityNode::from).collect();
            let all = entities.len() < ROWS;
            backend.change_graph(&GraphChanges { version, entities, ..GraphChanges::default() }).await?;
            after = last;
            if all {
                break;
            }
        }
        let mut after: Option<[u8; 16]> = None;
        loop {
            self.goes_on(entry, term)?;
            let permit = everything.clone();
            let read = move |rows: &rusqlite::Connection| {
                Ok((applied(rows)?, caxton_memory::relations(rows, &permit, after, ROWS)?))
            };
            let (version, relations) = self.memories.read(read).await?;
            after = relations.last().map(|last| *last.what.id.as_bytes());
            let relations: Vec<RelationEdge> = relations.iter().map(RelationEdge::from).collect();
            let all = relations.len() < ROWS;
            backend.change_graph(&GraphChanges { version, relations, ..GraphChanges::default() }).await?;
            if all {
                break;
            }
        }
        backend.drop_older_graph(at).await
    }
}

/// The workspace was deleted: so is what its backend has of it, as far as that can be reached. There is nothing more to do soon.
async fn part(entry: &Entry) -> bool {
    let (workspace, backend) = (&entry.workspace, entry.name());
    let parted = async { entry.backend()?.part().await };
    let late = |_| Err(BackendError::Unable("it takes too long"));
    let parted = tokio::time::timeout(PARTING, parted).await.unwrap_or_else(late);
    match parted {
        Ok(()) => info!(%workspace, backend, "what a memory backend had of a deleted workspace is gone"),
        Err(error) => {
            let problem = chain(&error).to_string();
            warn!(%workspace, backend, problem, "what a memory backend has of a deleted workspace stays there; delete it by hand");
        }
    }
    false
}

/// The last entry that the tables have, or an older one.
fn applied(rows: &rusqlite::Connection) -> rusqlite::Result<u64> {
    let number: i64 = rows.query_row("SELECT number FROM applied", [], |row| row.get(0))?;
    Ok(number.unsigned_abs())
}

fn look_up(rows: &rusqlite::Connection, permit: &Permit, touched: Vec<Touched>) -> rusqlite::Result<Changes> {
    let mut changes = Changes::default();
    changes.graph.version = applied(rows)?;
    for it in touched {
        match it {
            Touched::Memory(_, id) => match caxton_memory::get(rows, permit, &id)? {
                Some(memory) => changes.memories.push(memory),
                None => changes.gone.push(id),
            },
            Touched::Entity(_, id) => match caxton_memory::entity(rows, permit, &id)? {
                Some(entity) => changes.graph.entities.push(EntityNode::from(&entity)),
                None => changes.graph.gone_entities.push(id),
            },
            Touched::Relation(_, id) => match caxton_memory::relation(rows, permit, &id)? {
                Some(relation) => changes.graph.relations.push(RelationEdge::from(&relation)),
                None => changes.graph.gone_relations.push(RelationId::from_bytes(*id.as_bytes())),
            },
        }
    }
    Ok(changes)
}

impl From<rusqlite::Error> for BackendError {
    fn from(error: rusqlite::Error) -> BackendError {
        BackendError::Memory(MemoryError::Read(error))
    }
}
