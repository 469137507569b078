//! What workspaces remember, for the people of whom it is and for those who may see everybody's.
//!
//! Whoever holds [`UseMemory`] reaches what is remembered of themselves and reads what the workspace shares; with
//! [`ManageMemory`] it is every scope of the workspace. The tables check once more what a command may change.

use std::sync::Arc;

use bytes::Bytes;
use caxton_memory::proto::{
    Action, Command, Edit, EntityId, Fate, Forget, ITEMS_MAX, MemoryId, NewEntity, NewMemory, NewRelation, Outcome,
    Refusal, RelationId, Remembered, Removed, Scope,
};
use caxton_memory::transfer::{Line, LineError, Reader, Report};
use caxton_memory::{Edited, Filter, GraphQuery, GraphView, Memory, Page, Path, PhraseError, Stats, transfer};
use caxton_proto::WorkspaceId;
use tokio::sync::{Semaphore, mpsc};

use crate::artifacts::DiskFull;
use crate::authz::{ManageMemory, Permit, UseMemory};
use crate::invoke::{Freshness, Invoker};
use crate::memory::{BackendPart, ENTRY_BYTES_MAX, FoundMemories, MemoryError, Progress, SearchOrder, ShardMemories};
use crate::memory_backend::BackendState;
use crate::tasks::Jobs;

/// Memories that one entry of the log forgets.
const FORGOTTEN_AT_ONCE: usize = 1_000;
/// Bytes of memories that an import puts into one entry of the log.
const IMPORTED_BYTES: usize = ENTRY_BYTES_MAX / 2;
/// Pieces of an export that wait to be sent.
const PIECES_WAITING: usize = 8;
/// Bytes of a piece of an export.
const PIECE_BYTES: usize = 64 << 10;
/// Exports that are read at once: each holds a thread while its reader takes its time.
const EXPORTS_MAX: usize = 8;
/// Lines of an import whose mistakes are told.
const MISTAKES_TOLD: usize = 20;

/// Why something was not remembered, found, changed or forgotten.
#[derive(Debug, thiserror::Error)]
pub enum MemoriesError {
    /// The shard's log, its tables or the cache of vectors.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Whether this node is up to date is not known.
    #[error(transparent)]
    Current(#[from] caxton_raft::ReadError),
    /// Nothing that the asker may see has the id.
    #[error("nothing that you may see in workspace `{workspace}` has the id {id}")]
    None {
        workspace: WorkspaceId,
        /// The id that was asked for.
        id: String,
    },
    /// The tables refuse it.
    #[error("{0}")]
    Refused(Refusal),
    /// The request cannot be one.
    #[error("{problem}")]
    Invalid {
        /// What is wrong.
        problem: String,
        /// What to do.
        help: &'static str,
    },
    /// The disk is full.
    #[error(transparent)]
    Full(#[from] DiskFull),
    /// Too many exports are being read.
    #[error("{EXPORTS_MAX} exports are being read, which is the most")]
    Busy,
    /// The node's operator does not let workspaces share memories.
    #[error("this node shares no memories between workspaces, so that nothing can be kept in the scope `global`")]
    Global,
}

/// Things to keep together.
#[derive(Debug, Default)]
pub struct Keeping {
    /// Entities, which come first.
    pub entities: Vec<NewEntity>,
    pub memories: Vec<NewMemory>,
    /// Relations, which come last.
    pub relations: Vec<NewRelation>,
}

/// What is to be forgotten.
#[derive(Debug)]
pub enum Forgetting {
    Memories(Vec<MemoryId>),
    /// These entities, with their observations and relations.
    Entities(Vec<EntityId>),
    Relations(Vec<RelationId>),
    /// All of a scope, and the sources elsewhere that name its conversation or person.
    Scope(Scope),
    /// The memories that a filter lets through.
    Matching(Box<Filter>),
}

/// What was forgotten, or would be.
#[derive(Debug, Default)]
pub struct Forgotten {
    /// How many memories.
    pub memories: u64,
    /// How many entities.
    pub entities: u64,
    /// How many relations.
    pub relations: u64,
    /// The bytes of the memories' texts and metadata.
    pub bytes: u64,
    /// The first of the memories.
    pub ids: Vec<MemoryId>,
}

/// What became of the lines of an import.
#[derive(Debug, Default)]
pub struct Imported {
    /// Memories, entities and relations that are new.
    pub stored: u64,
    /// Those that were known.
    pub known: u64,
    /// Lines and things that were not kept, and why: the first of them, by line from 1.
    pub mistakes: Vec<(u64, String)>,
    /// How many were not kept.
    pub refused: u64,
    /// Fields that have no place here.
    pub report: Report,
}

/// What all workspaces remember.
pub struct Memories {
    invoker: Invoker,
    jobs: Jobs,
    exports: Arc<Semaphore>,
}

/// What somebody may read.
fn readable(permit: &Permit<UseMemory>) -> caxton_memory::Permit {
    let workspace = permit.workspace().clone();
    match permit.also(ManageMemory) {
        Ok(_) => caxton_memory::Permit::everything(workspace),
        Err(_) => caxton_memory::Permit::of(workspace, [own(permit), Scope::Workspace]),
    }
}

/// What somebody may change; nothing stands for every scope.
fn changeable(permit: &Permit<UseMemory>) -> Option<Vec<Scope>> {
    permit.also(ManageMemory).is_err().then(|| vec![own(permit)])
}

/// The scope of whoever asks.
pub fn own(permit: &Permit<UseMemory>) -> Scope {
    Scope::Subject(permit.subject().to_owned())
}

impl Memories {
    /// Those of which `invoker` has the state.
    pub fn new(invoker: Invoker) -> Memories {
        Memories { invoker, jobs: Jobs::default(), exports: Arc::new(Semaphore::new(EXPORTS_MAX)) }
    }

    async fn of(
        &self,
        permit: &Permit<UseMemory>,
        freshness: Freshness,
    ) -> Result<(ShardMemories, caxton_memory::Permit), MemoriesError> {
        self.invoker.current(permit.workspace(), freshness).await?;
        Ok((self.invoker.memories().of(permit.workspace()), readable(permit)))
    }

    /// A page of memories in the order in which they were changed.
    pub async fn list(
        &self,
        permit: &Permit<UseMemory>,
        filter: Filter,
        as_of_ms: Option<i64>,
        (after, limit): (Option<(i64, MemoryId)>, usize),
        freshness: Freshness,
    ) -> Result<Page, MemoriesError> {
        let (memories, readable) = self.of(permit, freshness).await?;
        let list = move |rows: &_| caxton_memory::list(rows, &readable, &filter, as_of_ms, after, limit);
        Ok(memories.read(list).await?)
    }

    /// Searches by words and meaning.
    pub async fn search(
        &self,
        permit: &Permit<UseMemory>,
        order: SearchOrder,
        freshness: Freshness,
    ) -> Result<FoundMemories, MemoriesError> {
        let (_, readable) = self.of(permit, freshness).await?;
        Ok(self.invoker.memory_backends().search(permit.workspace(), readable, order).await?)
    }

    /// Searches the conversations that memories come from.
    pub async fn search_conversations(
        &self,
        permit: &Permit<UseMemory>,
        order: SearchOrder,
        freshness: Freshness,
    ) -> Result<Vec<(String, f32, Memory)>, MemoriesError> {
        let (memories, readable) = self.of(permit, freshness).await?;
        Ok(memories.search_conversations(readable, order).await?)
    }

    /// Searches for phrases and beginnings of words: memories with their scores.
    pub async fn phrases(
        &self,
        permit: &Permit<UseMemory>,
        order: SearchOrder,
        freshness: Freshness,
    ) -> Result<Vec<(Memory, f64)>, MemoriesError> {
        let (memories, readable) = self.of(permit, freshness).await?;
        let find = move |rows: &rusqlite::Connection| {
            let SearchOrder { text, filter, as_of_ms, limit, .. } = &order;
            match caxton_memory::phrases(rows, &readable, filter, text, *as_of_ms, *limit) {
                Ok(hits) => {
                    let memory = |(id, score)| Ok(caxton_memory::get(rows, &readable, &id)?.map(|it| (it, score)));
                    let found: rusqlite::Result<Vec<_>> =
                        hits.into_iter().filter_map(|hit| memory(hit).transpose()).collect();
                    found.map(Ok)
                }
                Err(error @ PhraseError::Syntax(_)) => Ok(Err(error.to_string())),
                Err(PhraseError::Database(error)) => Err(error),
            }
        };
        let help = "for instance \"two words\", begin*, tea AND NOT coffee";
        let found = memories.read(find).await;
        if let Err(MemoryError::Read(_)) = &found {
            memories.doubt_text();
        }
        found?.map_err(|problem| MemoriesError::Invalid { problem, help })
    }

    /// A memory, and what it was before each edit.
    pub async fn show(
        &self,
        permit: &Permit<UseMemory>,
        id: MemoryId,
        freshness: Freshness,
    ) -> Result<(Memory, Vec<Edited>), MemoriesError> {
        let (memories, readable) = self.of(permit, freshness).await?;
        let read = move |rows: &_| {
            let found = caxton_memory::get(rows, &readable, &id)?;
            Ok((found, caxton_memory::history(rows, &readable, &id)?))
        };
        let (found, history) = memories.read(read).await?;
        let none = || MemoriesError::None { workspace: permit.workspace().clone(), id: id.to_string() };
        Ok((found.ok_or_else(none)?, history))
    }

    /// Keeps things. What became of each is in the answer; nothing is kept twice.
    pub async fn keep(&self, permit: &Permit<UseMemory>, keeping: Keeping) -> Result<Remembered, MemoriesError> {
        let Keeping { entities, memories, relations } = keeping;
        let scopes = entities.iter().map(|it| &it.scope);
        let mut scopes = scopes.chain(memories.iter().map(|it| &it.scope)).chain(relations.iter().map(|it| &it.scope));
        if scopes.any(|scope| *scope == Scope::Global) && !self.invoker.shares_memories() {
            return Err(MemoriesError::Global);
        }
        self.invoker.has_space()?;
        match self.write(permit, Action::Remember { entities, memories, relations }).await? {
            Outcome::Remembered(kept) => Ok(kept),
            other => Err(strange(&other)),
        }
    }

    /// Changes a memory; gives the number of the edit.
    pub async fn edit(&self, permit: &Permit<UseMemory>, edit: Edit) -> Result<u64, MemoriesError> {
        let id = edit.memory;
        self.invoker.has_space()?;
        let number = self.edited(self.write(permit, Action::Edit(edit)).await?)?;
        tracing::info!(workspace = %permit.workspace(), subject = permit.subject(), memory = %id, number, "a memory was edited");
        Ok(number)
    }

    /// Takes the last edit of a memory back.
    pub async fn undo(&self, permit: &Permit<UseMemory>, memory: MemoryId) -> Result<u64, MemoriesError> {
        let number = self.edited(self.write(permit, Action::Undo { memory }).await?)?;
        tracing::info!(workspace = %permit.workspace(), subject = permit.subject(), %memory, number, "an edit was taken back");
        Ok(number)
    }

    fn edited(&self, outcome: Outcome) -> Result<u64, MemoriesError> {
        match outcome {
            Outcome::Edited { number, .. } => Ok(number),
            other => Err(strange(&other)),
        }
    }

    /// Forgets, or says what would be forgotten: with a dry run only by ids and filters.
    pub async fn forget(
        &self,
        permit: &Permit<UseMemory>,
        what: Forgetting,
        dry_run: bool,
    ) -> Result<Forgotten, MemoriesError> {
        let forgotten = match what {
            Forgetting::Matching(filter) => self.forget_matching(permit, *filter, dry_run).await?,
            _ if dry_run => {
                let problem = "a dry run goes with a filter".to_owned();
                return Err(MemoriesError::Invalid { problem, help: "say `filter`, or leave `dry_run` out" });
            }
            Forgetting::Memories(ids) => self.removed(permit, Forget::Memories(ids)).await?,
            Forgetting::Entities(ids) => self.removed(permit, Forget::Entities(ids)).await?,
            Forgetting::Scope(scope) => self.removed(permit, Forget::Scope(scope)).await?,
            Forgetting::Relations(relations) => {
                match self.write(permit, Action::EndRelations { relations, valid_to_ms: None }).await? {
                    Outcome::Ended { relations } => Forgotten { relations, ..Forgotten::default() },
                    other => return Err(strange(&other)),
                }
            }
        };
        if !dry_run {
            let Forgotten { memories, entities, relations, .. } = &forgotten;
            let (workspace, subject) = (permit.workspace(), permit.subject());
            tracing::info!(%workspace, subject, memories, entities, relations, "memories were forgotten");
        }
        Ok(forgotten)
    }

    async fn forget_matching(
        &self,
        permit: &Permit<UseMemory>,
        filter: Filter,
        dry_run: bool,
    ) -> Result<Forgotten, MemoriesError> {
        let mut forgotten = Forgotten::default();
        let (mut after, mut unchangeable) = (None, 0_u64);
        let changeable = changeable(permit);
        loop {
            let page = (after, FORGOTTEN_AT_ONCE);
            let page = self.list(permit, filter.clone(), None, page, Freshness::Current).await?;
            let (may, not): (Vec<_>, Vec<_>) = page
                .memories
                .into_iter()
                .partition(|it| changeable.as_ref().is_none_or(|scopes| scopes.contains(&it.what.scope)));
            unchangeable += not.len() as u64;
            let ids: Vec<MemoryId> = may.iter().map(|it| it.what.id).collect();
            if dry_run {
                let bytes = |it: &Memory| it.what.text.len() + it.what.metadata.as_ref().map_or(0, String::len);
                forgotten.memories += ids.len() as u64;
                forgotten.bytes += may.iter().map(bytes).sum::<usize>() as u64;
            } else if !ids.is_empty() {
                let gone = self.removed(permit, Forget::Memories(ids.clone())).await?;
                forgotten.memories += gone.memories;
                forgotten.bytes += gone.bytes;
            }
            forgotten.ids.extend(ids.into_iter().take(FORGOTTEN_AT_ONCE.saturating_sub(forgotten.ids.len())));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if forgotten.memories == 0 && unchangeable > 0 {
            let problem = format!("{unchangeable} memories match, and none of them is yours to forget");
            return Err(MemoriesError::Invalid { problem, help: "a deployer may forget those of others" });
        }
        Ok(forgotten)
    }

    async fn removed(&self, permit: &Permit<UseMemory>, forget: Forget) -> Result<Forgotten, MemoriesError> {
        let mut forgotten = Forgotten::default();
        loop {
            let Removed { memories, entities, relations, bytes, gone, more } = match self
                .write(permit, Action::Forget(forget.clone()))
                .await
            {
                Ok(Outcome::Removed(removed)) => removed,
                Ok(other) => return Err(strange(&other)),
                // What is asked for again after a part of it went may be gone by now.
                Err(MemoriesError::Refused(_)) if forgotten.memories + forgotten.relations > 0 => return Ok(forgotten),
                Err(error) => return Err(error),
            };
            forgotten.memories += memories;
            forgotten.entities += entities;
            forgotten.relations += relations;
            forgotten.bytes += bytes;
            forgotten.ids.extend(gone.into_iter().map(|gone| gone.id));
            if !more {
                return Ok(forgotten);
            }
        }
    }

    /// Says that a relation is true no longer.
    pub async fn end_relation(
        &self,
        permit: &Permit<UseMemory>,
        relation: RelationId,
        valid_to_ms: i64,
    ) -> Result<(), MemoriesError> {
        let action = Action::EndRelations { relations: vec![relation], valid_to_ms: Some(valid_to_ms) };
        match self.write(permit, action).await? {
            Outcome::Ended { .. } => Ok(()),
            other => Err(strange(&other)),
        }
    }

    /// The part of the graph around some entities.
    pub async fn subgraph(
        &self,
        permit: &Permit<UseMemory>,
        from: Vec<EntityId>,
        query: GraphQuery,
        freshness: Freshness,
    ) -> Result<GraphView, MemoriesError> {
        let (memories, readable) = self.of(permit, freshness).await?;
        Ok(memories.subgraph(readable, from, query).await?)
    }

    /// A shortest way from one entity to another, if there is one within the limits.
    pub async fn path(
        &self,
        permit: &Permit<UseMemory>,
        ends: (EntityId, EntityId),
        query: GraphQuery,
        freshness: Freshness,
    ) -> Result<Option<Path>, MemoriesError> {
        let (memories, readable) = self.of(permit, freshness).await?;
        Ok(memories.path(readable, ends, query).await?)
    }

    /// How much is kept in each scope, and how far this node's index is.
    pub async fn stats(
        &self,
        permit: &Permit<UseMemory>,
        freshness: Freshness,
    ) -> Result<(Vec<Stats>, Progress), MemoriesError> {
        let (memories, readable) = self.of(permit, freshness).await?;
        let stats = memories.read(move |rows| caxton_memory::stats(rows, &readable)).await?;
        let progress = memories.clone();
        let progress = crate::tasks::blocking(move || progress.progress()).await;
        let none = Progress { loading: true, pending: 0, bytes: 0 };
        Ok((stats, progress.unwrap_or(none)))
    }

    /// How far the workspace's memory backend is, where it has one.
    pub async fn backend(&self, permit: &Permit<UseMemory>) -> Result<Option<BackendState>, MemoriesError> {
        Ok(self.invoker.memory_backends().state(permit.workspace()).await?)
    }

    /// What the workspace's memory backend has to do with a search that only the node's own index can do.
    pub async fn passed_over(
        &self,
        permit: &Permit<UseMemory>,
        why: &str,
    ) -> Result<Option<BackendPart>, MemoriesError> {
        Ok(self.invoker.memory_backends().passed_over(permit.workspace(), why).await?)
    }

    /// Has the workspace's memory backend emptied and filled anew, behind this.
    pub async fn sync(&self, permit: &Permit<ManageMemory>) -> Result<BackendState, MemoriesError> {
        let workspace = permit.workspace();
        self.invoker.current(workspace, Freshness::Current).await?;
        let state = self.invoker.memory_backends().sync(workspace).await?.ok_or_else(|| MemoriesError::Invalid {
            problem: format!("workspace `{workspace}` has no memory backend: the node's own index needs none"),
            help: "name one under [memory] in caxton.toml and deploy it; docs/memory.md says how",
        })?;
        tracing::info!(%workspace, subject = permit.subject(), backend = state.name, "a memory backend is to be filled anew");
        Ok(state)
    }

    /// Everything that the permit reaches as lines, in pieces that come as they are taken. One that is cut short ends with an
    /// error.
    pub async fn export(
        &self,
        permit: &Permit<UseMemory>,
        filter: Filter,
    ) -> Result<mpsc::Receiver<Result<Bytes, std::io::Error>>, MemoriesError> {
        let place = Arc::clone(&self.exports).try_acquire_owned().map_err(|_| MemoriesError::Busy)?;
        let (memories, readable) = self.of(permit, Freshness::Current).await?;
        let (sender, receiver) = mpsc::channel(PIECES_WAITING);
        let failed = sender.clone();
        let write = move |rows: &rusqlite::Connection| {
            let mut piece = Vec::with_capacity(PIECE_BYTES);
            let mut line = |line: &str| {
                piece.extend_from_slice(line.as_bytes());
                piece.push(b'\n');
                if piece.len() < PIECE_BYTES {
                    return Ok(());
                }
                let full = std::mem::replace(&mut piece, Vec::with_capacity(PIECE_BYTES));
                // Nobody reads any more.
                sender.blocking_send(Ok(full.into())).map_err(|_| rusqlite::Error::InvalidQuery)
            };
            let written = transfer::export::<rusqlite::Error>(rows, &readable, &filter, &mut line);
            let last = written.map(|()| Bytes::from(piece)).map_err(std::io::Error::other);
            _ = sender.blocking_send(last);
            Ok(())
        };
        self.jobs.spawn("memory export", async move {
            let _place = place;
            // What goes wrong between rows, the stream has said already; a cut is never taken for the end.
            if let Err(error) = memories.read(write).await {
                _ = failed.send(Err(std::io::Error::other(error))).await;
            }
        });
        Ok(receiver)
    }

    /// Takes lines in: an own export, or one of another system, whose memories go to `scope` unless they name one. Lines that
    /// were taken in before change nothing, so that whoever does not know how far an import came sends it again.
    pub async fn import(
        &self,
        permit: &Permit<UseMemory>,
        scope: Scope,
        label: &str,
        lines: &str,
    ) -> Result<Imported, MemoriesError> {
        let mut reader = Reader::new(scope, label, crate::time::now_ms().cast_signed());
        let mut imported = Imported::default();
        let (mut keeping, mut bytes, mut at) = (Keeping::default(), 0, LineNumbers::default());
        for (number, line) in (1..).zip(lines.lines()) {
            match reader.line(line) {
                Err(error @ LineError::Version { .. }) => {
                    let help = "upgrade this node, or export with an older one";
                    return Err(MemoriesError::Invalid { problem: error.to_string(), help });
                }
                Err(error) => imported.mistake(number, error.to_string()),
                Ok(found) => {
                    for it in found {
                        if is_global(&it) && !self.invoker.shares_memories() {
                            imported.mistake(number, MemoriesError::Global.to_string());
                            continue;
                        }
                        let items = keeping.entities.len() + keeping.memories.len() + keeping.relations.len();
                        if bytes > IMPORTED_BYTES || items >= ITEMS_MAX {
                            let at = std::mem::take(&mut at);
                            self.take_in(permit, std::mem::take(&mut keeping), &at, &mut imported).await?;
                            bytes = 0;
                        }
                        bytes += line.len() + 200;
                        match it {
                            Line::Entity(it) => {
                                keeping.entities.push(it);
                                at.entities.push(number);
                            }
                            Line::Memory(it) => {
                                keeping.memories.push(it);
                                at.memories.push(number);
                            }
                            Line::Relation(it) => {
                                keeping.relations.push(it);
                                at.relations.push(number);
                            }
                        }
                    }
                }
            }
        }
        self.take_in(permit, keeping, &at, &mut imported).await?;
        imported.report = reader.report().clone();
        Ok(imported)
    }

    async fn take_in(
        &self,
        permit: &Permit<UseMemory>,
        keeping: Keeping,
        at: &LineNumbers,
        imported: &mut Imported,
    ) -> Result<(), MemoriesError> {
        if keeping.entities.is_empty() && keeping.memories.is_empty() && keeping.relations.is_empty() {
            return Ok(());
        }
        let kept = self.keep(permit, keeping).await?;
        let entities = kept.entities.into_iter().map(|it| (it.id.to_string(), told(it.fate)));
        let memories = kept.memories.into_iter().map(|it| (it.id.to_string(), told(it.fate)));
        let relations = kept.relations.into_iter().map(|it| (it.id.to_string(), told(it.fate)));
        let numbers = at.entities.iter().chain(&at.memories).chain(&at.relations);
        for (line, (id, fate)) in numbers.zip(entities.chain(memories).chain(relations)) {
            match fate {
                Ok(true) => imported.stored += 1,
                Ok(false) => imported.known += 1,
                Err(refusal) => imported.mistake(*line, format!("{id}: {refusal}")),
            }
        }
        Ok(())
    }

    /// Has a command applied for whoever asks; what it refuses is an error.
    async fn write(&self, permit: &Permit<UseMemory>, action: Action) -> Result<Outcome, MemoriesError> {
        let command = Command {
            workspace: permit.workspace().clone(),
            time_ms: crate::time::now_ms().cast_signed(),
            actor: permit.subject().to_owned(),
            permit: changeable(permit),
            action,
        };
        match self.invoker.memories().of(permit.workspace()).write(&command).await? {
            Outcome::Refused(refusal) => Err(MemoriesError::Refused(refusal)),
            outcome => Ok(outcome),
        }
    }
}

/// The lines, from 1, that things to be kept came from, in the order of the things.
#[derive(Default)]
struct LineNumbers {
    entities: Vec<u64>,
    memories: Vec<u64>,
    relations: Vec<u64>,
}

impl Imported {
    fn mistake(&mut self, line: u64, problem: String) {
        self.refused += 1;
        if self.mistakes.len() < MISTAKES_TOLD {
            self.mistakes.push((line, problem));
        }
    }
}

/// Whether it is new, or why it was refused.
fn told<Id>(fate: Fate<Id>) -> Result<bool, Refusal> {
    match fate {
        Fate::Stored { .. } => Ok(true),
        Fate::Known => Ok(false),
        Fate::Refused(refusal) => Err(refusal),
    }
}

fn is_global(line: &Line) -> bool {
    let scope = match line {
        Line::Entity(it) => &it.scope,
        Line::Memory(it) => &it.scope,
        Line::Relation(it) => &it.scope,
    };
    *scope == Scope::Global
}

/// An outcome that does not belong to what was asked: a defect, which is told and does no harm.
fn strange(outcome: &Outcome) -> MemoriesError {
    tracing::error!(?outcome, "an outcome does not belong to its command; please report it as a defect");
    let problem = "the answer of the memory makes no sense".to_owned();
    MemoriesError::Invalid { problem, help: "please report it as a defect" }
}
