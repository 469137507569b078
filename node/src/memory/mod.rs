//! What workspaces remember: a tenant of the shards, and an index that each node makes of it for itself.
//!
//! - [`tenant`]: the tables in a shard's file, and what the log's commands do to them.
//! - [`keeper`]: the index of one shard, which is loaded at the start and follows what is applied; vectors are made here, and
//!   none crosses a wire.
//! - [`journal`]: what changed of it that a backend beside the node does not have yet.
//! - [`recall`]: what of it comes into a prompt, and how it is marked as data there.
//!
//! What is written is on a majority's disk when it is acknowledged, and the next search on the node that leads the shard
//! finds it.

pub mod journal;
mod keeper;
pub mod recall;
mod tenant;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use caxton_memory::proto::{Action, Command, DecodeError, Forget, MemoryId, Outcome, Retain, Rule, Scope};
use caxton_memory::{Filter, Found, GraphQuery, GraphView, Memory, Mode, Path, Permit};
use caxton_proto::memory::EntityId;
use caxton_proto::shard::Envelope;
use caxton_proto::{Format, WorkspaceId};
use caxton_raft::{Machine, ProposeError};
use rusqlite::Connection;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use self::journal::Journal;
pub use self::keeper::{Keeper, Keepers, Progress};
pub use self::tenant::MemoryTenant;
use crate::shard::tenant::{Refusal, Stop};
use crate::shard::{Shard, Shards, State, WriteError};

/// An entry of the log is at most this long, in bytes; the log itself takes 1 MiB.
pub const ENTRY_BYTES_MAX: usize = 900 << 10;

/// Words of a search that a backend is asked for.
const WORDS_MAX: usize = 256;
/// How long it is waited for that the cluster says that all of its members read what is written.
const RAISED_WAIT: Duration = Duration::from_secs(5);

/// Why something could not be remembered, found or forgotten.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The tables or the cache of vectors could not be read.
    #[error("what is remembered cannot be read")]
    Read(#[from] rusqlite::Error),
    /// The log did not take it, or nobody knows whether it did.
    #[error("what is to be remembered could not be recorded")]
    Propose(#[from] ProposeError),
    /// No replica can apply it; nothing was changed.
    #[error("it cannot be recorded as it is")]
    Refused(#[source] Refusal),
    /// This program cannot read what it wrote itself: a defect.
    #[error("it cannot be read by this program")]
    Unreadable(#[source] Stop),
    /// What became of it cannot be read: a defect.
    #[error("what became of it cannot be read")]
    Outcome(#[from] DecodeError),
    /// One entry of the log cannot hold it.
    #[error("it has {bytes} bytes at once, and {ENTRY_BYTES_MAX} is the most; send it in parts")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// The workspace was deleted; nothing was changed.
    #[error("the workspace was deleted")]
    Deleted,
    /// A member of the cluster runs a program that knows no memories.
    #[error("a node of the cluster runs an older program, which remembers nothing; upgrade all of them first")]
    OlderMembers,
    /// The backend that the workspace's file names cannot be searched.
    #[error("the memory backend `{backend}` cannot be searched: {problem}")]
    Backend {
        /// Its name, as the workspace's file has it.
        backend: String,
        /// What is wrong, with its causes.
        problem: String,
    },
}

impl From<WriteError> for MemoryError {
    fn from(error: WriteError) -> MemoryError {
        match error {
            WriteError::Propose(error) => MemoryError::Propose(error),
            WriteError::Refused(refusal) => MemoryError::Refused(refusal),
            WriteError::Unreadable(stop) => MemoryError::Unreadable(stop),
            WriteError::Deleted => MemoryError::Deleted,
            WriteError::Read(error) => MemoryError::Read(error),
        }
    }
}

/// What is remembered in all shards of this node. A clone is a handle on the same.
#[derive(Clone)]
pub struct Memories {
    shards: Shards,
    keepers: Keepers,
}

/// What is remembered in one shard. A clone is a handle on the same.
#[derive(Clone)]
pub struct ShardMemories {
    shard: Shard,
    keeper: Arc<Keeper>,
}

/// What to search for. The vector of its text is made on the way.
#[derive(Debug, Clone)]
pub struct SearchOrder {
    /// A question or a few words, of any length.
    pub text: String,
    /// By words, by meaning, or by both.
    pub mode: Mode,
    /// Which of the memories that the permit lets through.
    pub filter: Filter,
    /// What was true at this time, in milliseconds since 1970; nothing finds what was ever true.
    pub as_of_ms: Option<i64>,
    /// The time by which recency is counted, in milliseconds since 1970.
    pub now_ms: i64,
    /// How many hits at most.
    pub limit: usize,
    /// How well a memory itself has to fit, from 0 to 1.
    pub min_similarity: f32,
    /// Only these, as candidates that a backend found; nothing searches all.
    pub among: Option<Arc<[MemoryId]>>,
}

impl SearchOrder {
    /// A search by words and meaning for `limit` memories that are true now.
    pub fn new(text: impl Into<String>, now_ms: i64, limit: usize) -> SearchOrder {
        let (mode, filter) = (Mode::Both, Filter::default());
        let as_of_ms = Some(now_ms);
        SearchOrder { text: text.into(), mode, filter, as_of_ms, now_ms, limit, min_similarity: 0.0, among: None }
    }
}

/// What a search found, with the memories themselves beside the hits, in their order.
#[derive(Debug, Clone)]
pub struct FoundMemories {
    /// Scores and parts, and what was searched by.
    pub found: Found,
    /// The memory of each hit.
    pub memories: Vec<Memory>,
    /// What a backend had to do with it; nothing where the workspace has none.
    pub backend: Option<BackendPart>,
}

/// What a backend had to do with an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendPart {
    /// Its name, as the workspace's file has it.
    pub name: String,
    /// It found the candidates; otherwise the node's own index answered in its place.
    pub answered: bool,
    /// Why it did not answer, or what it does not search by.
    pub note: Option<String>,
}

impl Memories {
    /// Those in these shards, of which [`MemoryTenant`] is a tenant with these keepers.
    pub fn new(shards: Shards, keepers: Keepers) -> Memories {
        Memories { shards, keepers }
    }

    /// Those of a workspace's shard.
    pub fn of(&self, workspace: &WorkspaceId) -> ShardMemories {
        self.in_shard(self.shards.of(workspace))
    }

    /// Those of every shard.
    pub fn all(&self) -> impl Iterator<Item = ShardMemories> + '_ {
        self.shards.all().iter().map(|shard| self.in_shard(shard))
    }

    fn in_shard(&self, shard: &Shard) -> ShardMemories {
        ShardMemories { keeper: self.keepers.of(shard.id()), shard: shard.clone() }
    }
}

impl ShardMemories {
    /// The shard that they are in.
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// Keeps the index up with what is applied, until it is stopped.
    pub async fn keep_up(self, stop: CancellationToken) {
        self.keeper.run(self.shard, stop).await;
    }

    /// How far the index is.
    pub fn progress(&self) -> Progress {
        self.keeper.progress()
    }

    /// The full-text table said that it is damaged: it is looked at, and made anew if that is so.
    pub fn doubt_text(&self) {
        self.keeper.doubt_text();
    }

    /// Reads from the tables, away from the threads that serve.
    pub async fn read<R: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<R> + Send + 'static,
    ) -> Result<R, MemoryError> {
        Ok(self.shard.read(move |state| state.database().scan(read)).await?)
    }

    /// What changed of the workspaces that a backend follows.
    pub fn journal(&self) -> &Journal {
        self.keeper.journal()
    }

    /// Names the model that makes the vectors, by the beginning of its hash, and how many numbers they have.
    pub fn model(&self) -> (String, usize) {
        self.keeper.model()
    }

    /// The words and the vector of what is searched for, as far as it is searched by them, made away from the threads that
    /// serve.
    pub async fn needles_of(&self, text: String, mode: Mode) -> (Vec<String>, Option<Vec<f32>>) {
        let keeper = Arc::clone(&self.keeper);
        let needles = move |_: &Arc<State>| {
            let words = (mode != Mode::Meaning).then(|| caxton_memory::first_words(&text, WORDS_MAX));
            let vector = (mode != Mode::Words).then(|| keeper.vector_of(&text));
            (words.unwrap_or_default(), vector)
        };
        self.shard.read(needles).await
    }

    /// The vectors of texts: those that are kept, and the others made and kept.
    pub async fn vectors(&self, texts: Vec<String>) -> Result<Vec<Vec<f32>>, MemoryError> {
        let keeper = Arc::clone(&self.keeper);
        Ok(self.shard.read(move |_| keeper.vectors(&texts)).await?)
    }

    /// The last entry of the shard's log that is applied here.
    pub async fn applied(&self) -> u64 {
        self.shard.read_few(|state| Machine::applied(&**state)).await
    }

    /// Searches what the permit lets through, and reads what was found.
    pub async fn search(&self, permit: Permit, order: SearchOrder) -> Result<FoundMemories, MemoryError> {
        let keeper = Arc::clone(&self.keeper);
        let began = Instant::now();
        let found = self.shard.read(move |state| keeper.search(state.database(), &permit, &order)).await?;
        let outcome = if found.memories.is_empty() { "empty" } else { "found" };
        metrics::histogram!("caxton_memory_search_duration_seconds", "outcome" => outcome)
            .record(began.elapsed().as_secs_f64());
        Ok(found)
    }

    /// Searches the conversations that memories come from: ids with their scores, and the best memory of each.
    pub async fn search_conversations(
        &self,
        permit: Permit,
        order: SearchOrder,
    ) -> Result<Vec<(String, f32, Memory)>, MemoryError> {
        let keeper = Arc::clone(&self.keeper);
        Ok(self.shard.read(move |state| keeper.search_conversations(state.database(), &permit, &order)).await?)
    }

    /// The part of the graph around some entities.
    pub async fn subgraph(
        &self,
        permit: Permit,
        from: Vec<EntityId>,
        query: GraphQuery,
    ) -> Result<GraphView, MemoryError> {
        let keeper = Arc::clone(&self.keeper);
        let look = move |index: &caxton_memory::Index| index.subgraph(&permit, &from, &query);
        Ok(self.shard.read(move |state| keeper.look(state.database(), look)).await?)
    }

    /// A shortest way from one entity to another, if there is one within the limits.
    pub async fn path(
        &self,
        permit: Permit,
        (from, to): (EntityId, EntityId),
        query: GraphQuery,
    ) -> Result<Option<Path>, MemoryError> {
        let keeper = Arc::clone(&self.keeper);
        let look = move |index: &caxton_memory::Index| index.path(&permit, &from, &to, &query);
        Ok(self.shard.read(move |state| keeper.look(state.database(), look)).await?)
    }

    /// Forgets all of a scope, and the sources elsewhere that name its conversation or person, in as many entries as it takes.
    pub async fn forget_scope(&self, workspace: &WorkspaceId, scope: Scope, actor: &str) -> Result<(), MemoryError> {
        let action = Action::Forget(Forget::Scope(scope));
        let (workspace, time_ms, actor) = (workspace.clone(), crate::time::now_ms().cast_signed(), actor.to_owned());
        let command = Command { workspace, time_ms, actor, permit: None, action };
        loop {
            match self.write_now(&command).await {
                Ok(Outcome::Removed(removed)) if removed.more => {}
                // Nothing can be remembered yet where older members are.
                Ok(_) | Err(MemoryError::OlderMembers) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Deletes what is beyond the rules, in as many entries as it takes; gives how many memories and how many of their bytes.
    /// Where older members are nothing can have been remembered, and nothing is deleted.
    pub async fn retain(&self, workspace: &WorkspaceId, rules: Vec<Rule>) -> Result<(u64, u64), MemoryError> {
        let (workspace, time_ms) = (workspace.clone(), crate::time::now_ms().cast_signed());
        let action = Action::Retain(Retain { rules });
        let command = Command { workspace, time_ms, actor: "retention".to_owned(), permit: None, action };
        let mut total = (0, 0);
        loop {
            match self.write_now(&command).await {
                Ok(Outcome::Removed(removed)) => {
                    for gone in &removed.gone {
                        debug!(workspace = %command.workspace, memory = ?gone.id, rule = gone.rule, "a memory is beyond a rule of retention");
                    }
                    total = (total.0 + removed.memories, total.1 + removed.bytes);
                    if !removed.more {
                        return Ok(total);
                    }
                }
                Ok(_) | Err(MemoryError::OlderMembers) => return Ok(total),
                Err(error) => return Err(error),
            }
        }
    }

    /// Has a command applied: it is on a majority's disk, and applied here, when this returns. What it refuses is in the
    /// outcome. A cluster that has just begun says a moment later that all its members read it, which is waited for.
    pub async fn write(&self, command: &Command) -> Result<Outcome, MemoryError> {
        // Where it does not come to be, the write says so.
        _ = self.shard.writes(Format::PROTOBUF, RAISED_WAIT).await;
        self.write_now(command).await
    }

    /// The same, which waits for nobody: where older members are, it is an error at once.
    pub async fn write_now(&self, command: &Command) -> Result<Outcome, MemoryError> {
        // Older members would neither apply it nor keep it in their snapshots.
        if self.shard.format() < Format::PROTOBUF {
            return Err(MemoryError::OlderMembers);
        }
        let body = Bytes::from(command.encode());
        if body.len() > ENTRY_BYTES_MAX {
            return Err(MemoryError::TooLong { bytes: body.len() });
        }
        let version = Format::PROTOBUF.number();
        let entry = Envelope { version, tenant: Envelope::MEMORY, term: 0, body }.encode();
        let answer = self.shard.propose(&command.workspace, entry).await?;
        Ok(Outcome::decode(&answer.body)?)
    }
}
