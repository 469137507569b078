//! What a workspace remembers: memories, entities and relations, the commands that change them, and what became of those.
//!
//! The proposer stamps ids, times and sources into a command, because applying one reads no clock and draws no number.
//! Times are milliseconds since 1970; those of validity may lie before it. The bytes stay on disk for years: change them
//! only by adding fields to the .proto file, and keep the golden files of every version that was ever written.

mod check;
mod command;
mod name;
mod wire;

pub use check::{
    ACTOR_BYTES_MAX, CheckError, ITEMS_MAX, KIND_BYTES_MAX, METADATA_BYTES_MAX, METADATA_DEPTH_MAX,
    METADATA_VALUES_MAX, NAME_BYTES_MAX, RULES_MAX, SOURCES_MAX, TEXT_BYTES_MAX, TIME_MAX_MS,
};
pub use command::{
    Action, Command, Edit, Fate, Forget, Gone, Item, Outcome, Reason, Refusal, Remembered, Removed, Retain, Row, Rule,
};
pub use name::{EntityId, InvalidMemoryId, MemoryId, RelationId};
use serde::{Deserialize, Serialize};
pub use wire::DecodeError;

/// Who shares a memory. Nothing is read or changed without a permit that names its scope.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "scope", content = "name")]
pub enum Scope {
    /// One conversation, by its id.
    Conversation(String),
    /// One agent of the workspace, by its name, in all of its conversations.
    Agent(String),
    /// One person, by the subject of their token, with every agent of the workspace.
    Subject(String),
    /// Everybody in the workspace.
    Workspace,
    /// Other workspaces as well, where the operator and both workspaces allow it.
    Global,
}

/// A scope without whose it is, by which retention tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScopeKind {
    /// What a conversation knows, and nobody outside of it.
    Conversation,
    /// What an agent knows, in all of its conversations.
    Agent,
    /// What is known for one person who asks.
    Subject,
    /// The workspace itself.
    Workspace,
    /// What other workspaces may see.
    Global,
}

impl Scope {
    /// Which kind of scope it is.
    pub fn kind(&self) -> ScopeKind {
        match self {
            Scope::Conversation(_) => ScopeKind::Conversation,
            Scope::Agent(_) => ScopeKind::Agent,
            Scope::Subject(_) => ScopeKind::Subject,
            Scope::Workspace => ScopeKind::Workspace,
            Scope::Global => ScopeKind::Global,
        }
    }

    /// Whose it is; empty for the workspace and for all workspaces.
    pub fn name(&self) -> &str {
        match self {
            Scope::Conversation(name) | Scope::Agent(name) | Scope::Subject(name) => name,
            Scope::Workspace | Scope::Global => "",
        }
    }

    /// The scope of a kind and a name, if the two go together: the workspace and all workspaces have no name, the others
    /// need one.
    pub fn from_parts(kind: ScopeKind, name: String) -> Option<Scope> {
        match kind {
            ScopeKind::Workspace => name.is_empty().then_some(Scope::Workspace),
            ScopeKind::Global => name.is_empty().then_some(Scope::Global),
            _ if name.is_empty() => None,
            ScopeKind::Conversation => Some(Scope::Conversation(name)),
            ScopeKind::Agent => Some(Scope::Agent(name)),
            ScopeKind::Subject => Some(Scope::Subject(name)),
        }
    }
}

impl ScopeKind {
    /// The number under which tables keep it, which is also its number in the .proto file.
    pub fn number(self) -> i32 {
        match self {
            ScopeKind::Conversation => 1,
            ScopeKind::Agent => 2,
            ScopeKind::Subject => 3,
            ScopeKind::Workspace => 4,
            ScopeKind::Global => 5,
        }
    }

    /// The kind that a table or a message names by its number.
    pub fn from_number(number: i32) -> Option<ScopeKind> {
        Some(match number {
            1 => ScopeKind::Conversation,
            2 => ScopeKind::Agent,
            3 => ScopeKind::Subject,
            4 => ScopeKind::Workspace,
            5 => ScopeKind::Global,
            _ => return None,
        })
    }
}

/// Where something was learnt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// From what it comes.
    #[serde(flatten)]
    pub origin: Origin,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// It comes from a tool or a stranger: whatever has such a source carries the mark for ever, and grants nothing.
    #[serde(default)]
    pub untrusted: bool,
}

/// From what something was learnt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "from")]
pub enum Origin {
    /// From a turn of a conversation.
    Turn {
        /// The conversation's id.
        conversation: String,
        /// The turn's id.
        turn: String,
        /// Its place among what was said there: neighbours in a conversation explain each other.
        position: u32,
    },
    /// From an agent that decided to keep it.
    Agent {
        /// The agent's name.
        agent: String,
    },
    /// From a person.
    Subject {
        /// The subject of their token.
        subject: String,
    },
    /// From what a tool returned.
    Tool {
        /// The tool's name.
        tool: String,
    },
    /// From a file that was imported.
    Import {
        /// What the file is.
        import: String,
    },
}

impl Origin {
    /// The conversation, agent, subject, tool or import by its name.
    pub fn name(&self) -> &str {
        match self {
            Origin::Turn { conversation: name, .. }
            | Origin::Agent { agent: name }
            | Origin::Subject { subject: name }
            | Origin::Tool { tool: name }
            | Origin::Import { import: name } => name,
        }
    }
}

/// A memory as a command brings it, and as it is kept but for what keeping adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMemory {
    /// Its id, drawn by the proposer or carried by an import.
    pub id: MemoryId,
    /// Who shares it.
    pub scope: Scope,
    /// What kind of memory it is, for instance `fact`, `preference`, `exchange`; the workspace's own word.
    pub kind: String,
    /// What it is about. A memory of the same scope, kind and name with another text contradicts it.
    pub name: Option<String>,
    /// What is remembered.
    pub text: String,
    /// A JSON object, to filter by.
    pub metadata: Option<String>,
    /// From 0 to 100; 50 where nobody says.
    pub importance: u8,
    /// Retention leaves it alone.
    pub pinned: bool,
    /// Where it was learnt: at least one.
    pub sources: Vec<Source>,
    /// When it was first kept.
    pub created_ms: i64,
    /// From when it is true.
    pub valid_from_ms: i64,
    /// From when it is no longer true.
    pub valid_to_ms: Option<i64>,
    /// The memory that it contradicts, and ends.
    pub replaces: Option<MemoryId>,
    /// The entity of the same scope, by name, of which it is an observation.
    pub entity: Option<String>,
}

/// A person, a place or a thing of which observations are kept; its scope and name identify it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEntity {
    /// Who shares it.
    pub scope: Scope,
    /// What it is called.
    pub name: String,
    /// What kind of thing it is.
    pub kind: String,
    /// A JSON object.
    pub metadata: Option<String>,
    /// Where it was learnt: at least one.
    pub sources: Vec<Source>,
    /// When it was first kept.
    pub created_ms: i64,
}

impl NewEntity {
    /// Its id, which its scope and name make.
    pub fn id(&self) -> EntityId {
        EntityId::of(&self.scope, &self.name)
    }
}

/// How one entity relates to another of the same scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRelation {
    /// Its id, drawn by the proposer or carried by an import.
    pub id: RelationId,
    /// Who shares it.
    pub scope: Scope,
    /// The name of the entity that it begins at; one that is not known is made, of the kind `thing`.
    pub from: String,
    /// How they relate.
    pub kind: String,
    /// The name of the entity that it ends at; one that is not known is made, of the kind `thing`.
    pub to: String,
    /// A JSON object.
    pub metadata: Option<String>,
    /// Where it was learnt: at least one.
    pub sources: Vec<Source>,
    /// When it was first kept.
    pub created_ms: i64,
    /// From when it is true.
    pub valid_from_ms: i64,
    /// From when it is no longer true.
    pub valid_to_ms: Option<i64>,
}

#[cfg(test)]
mod tests;
