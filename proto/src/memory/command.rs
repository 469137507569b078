//! The commands that change what is remembered, what became of them, and the rows of a snapshot.

use super::{EntityId, MemoryId, NewEntity, NewMemory, NewRelation, RelationId, Scope, ScopeKind};
use crate::WorkspaceId;

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The workspace whose memory it is.
    pub workspace: WorkspaceId,
    /// When it was proposed.
    pub time_ms: i64,
    /// Who asks, for the history.
    pub actor: String,
    /// The scopes in which it may change something; nothing stands for all of the workspace.
    pub permit: Option<Vec<Scope>>,
    /// What to do.
    pub action: Action,
}

/// What a command does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Keep entities, then memories, then relations: each is kept or refused by itself.
    Remember {
        /// The entities to keep, before the memories that name them.
        entities: Vec<NewEntity>,
        /// The memories to keep, in their order.
        memories: Vec<NewMemory>,
        /// The relations between entities to keep.
        relations: Vec<NewRelation>,
    },
    /// Change a memory, and note in its history what it was before.
    Edit(Edit),
    /// Take back a memory's last edit; another one takes back the edit before that.
    Undo {
        /// The memory that it is about.
        memory: MemoryId,
    },
    /// Deletes memories and relations for good.
    Forget(Forget),
    /// Say that relations are true no longer, or never were.
    EndRelations {
        /// The relations that end.
        relations: Vec<RelationId>,
        /// When they ceased to be true; without it they are deleted.
        valid_to_ms: Option<i64>,
    },
    /// Delete what is beyond the rules.
    Retain(Retain),
}

/// A change of a memory; what is absent stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The memory that is changed.
    pub memory: MemoryId,
    /// The new text, where it changes.
    pub text: Option<String>,
    /// The new kind, where it changes.
    pub kind: Option<String>,
    /// Its name; an empty one takes it away.
    pub name: Option<String>,
    /// Its metadata; empty ones take them away.
    pub metadata: Option<String>,
    /// Its importance, from 0 to 100.
    pub importance: Option<u8>,
    /// Whether retention leaves it alone.
    pub pinned: Option<bool>,
    /// From when it is true.
    pub valid_from_ms: Option<i64>,
    /// From when it is no longer true; `Some(None)` makes it true again without an end.
    pub valid_to_ms: Option<Option<i64>>,
}

impl Edit {
    /// A change of nothing yet.
    pub fn of(memory: MemoryId) -> Edit {
        Edit {
            memory,
            text: None,
            kind: None,
            name: None,
            metadata: None,
            importance: None,
            pinned: None,
            valid_from_ms: None,
            valid_to_ms: None,
        }
    }
}

/// What is to be deleted, from every table and index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forget {
    /// These memories, by their ids.
    Memories(Vec<MemoryId>),
    /// Entities, with their observations and relations.
    Entities(Vec<EntityId>),
    /// All of a scope, and the sources elsewhere that name its conversation or subject.
    Scope(Scope),
    /// All of the workspace.
    Everything,
}

/// Rules of retention, and what is beyond any of them goes. Pinned memories stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retain {
    /// The rules, each of which forgets for itself.
    pub rules: Vec<Rule>,
}

/// What of a kind of scope may stay. Numbers and bytes are those of each conversation, agent or subject by itself; the
/// memories that were changed last stay.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule {
    /// Of which kind of scope; nothing stands for any.
    pub scope: Option<ScopeKind>,
    /// Of which kind of memory; nothing stands for any.
    pub kind: Option<String>,
    /// The most milliseconds since it was changed.
    pub age_ms_max: Option<u64>,
    /// The most memories.
    pub count_max: Option<u64>,
    /// The most bytes of their texts and metadata.
    pub bytes_max: Option<u64>,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// What became of each thing to remember.
    Remembered(Remembered),
    /// A memory was changed.
    Edited {
        /// The memory that it is about.
        memory: MemoryId,
        /// The edit's number in the memory's history.
        number: u64,
    },
    /// Things were deleted.
    Removed(Removed),
    /// Relations are true no longer.
    Ended {
        /// How many relations went.
        relations: u64,
    },
    /// The command changed nothing.
    Refused(Refusal),
}

/// What became of each thing to remember, in the order of the command.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Remembered {
    /// What became of each entity, in their order.
    pub entities: Vec<Item<EntityId>>,
    /// What became of each memory, in their order.
    pub memories: Vec<Item<MemoryId>>,
    /// What became of each relation, in their order.
    pub relations: Vec<Item<RelationId>>,
}

/// What became of one thing to remember.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item<Id> {
    /// The id under which it is kept: that of an older one if that says the same.
    pub id: Id,
    /// What became of it.
    pub fate: Fate<Id>,
}

/// What became of one thing to remember.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate<Id> {
    /// It is kept.
    Stored {
        /// What it contradicts, which is true no longer.
        closed: Vec<Id>,
    },
    /// The same was known, and has one more source.
    Known,
    /// It is not kept.
    Refused(Refusal),
}

/// What was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Removed {
    /// How many memories.
    pub memories: u64,
    /// How many entities.
    pub entities: u64,
    /// How many relations.
    pub relations: u64,
    /// The bytes of the memories' texts and metadata.
    pub bytes: u64,
    /// The first of the memories, to be logged.
    pub gone: Vec<Gone>,
    /// There is more than one command may delete: the same again goes on.
    pub more: bool,
}

/// A memory that was deleted, without its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// The id of the memory.
    pub id: MemoryId,
    /// Whose it was.
    pub scope: Scope,
    /// What kind it was.
    pub kind: String,
    /// The bytes of its text and metadata.
    pub bytes: u64,
    /// The rule that it broke, counted from 0; nothing where somebody asked.
    pub rule: Option<u32>,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// Why it cannot be read.
    #[source]
    pub reason: Reason,
    /// The id of what it is about, as 16 bytes, if there is such a thing.
    pub id: Option<[u8; 16]>,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Nothing has the id, within what the asker may see.
    #[error("nothing that you may see has this id; `caxton memory list` shows what there is")]
    NotFound,
    /// Another has the id, or says the same.
    #[error("another memory has this id or says the same; edit that one")]
    Conflict,
    /// It is over a limit.
    #[error("{what}: {found}, and {most} is the most; make it smaller or split it")]
    Limit {
        /// What has too many of them.
        what: String,
        /// How much there was.
        found: u64,
        /// The most that there may be.
        most: u64,
    },
    /// A field has a value that it cannot have.
    #[error("the field `{field}` is empty or has a value that it cannot have")]
    Field {
        /// The field that is at fault.
        field: String,
    },
    /// The command's permit does not reach there.
    #[error("the scope is not one that you may change")]
    NotPermitted,
    /// No edit is left to take back.
    #[error("no edit of this memory is left to take back")]
    NoEdit,
}

impl Reason {
    /// The refusal without an id.
    pub fn alone(self) -> Refusal {
        Refusal { reason: self, id: None }
    }

    /// The refusal, with the id that it is about.
    pub fn about(self, id: &[u8; 16]) -> Refusal {
        Refusal { reason: self, id: Some(*id) }
    }
}

/// A memory as it was before an edit: the bytes that are kept to take it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The workspace whose memory it is.
    pub workspace: WorkspaceId,
    /// The memory, without its sources, which an edit does not change.
    pub memory: NewMemory,
    /// When it had been changed last, in milliseconds since 1970.
    pub changed_ms: i64,
    /// It once had a source that is not trusted.
    pub untrusted: bool,
}
