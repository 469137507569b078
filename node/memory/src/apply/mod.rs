//! What a command does to the tables: a function of the tables and the command, the same on every node.
//!
//! It reads no clock and draws no number, and orders by ids and times, never by the numbers of rows. A command that makes
//! no sense changes nothing and is answered with a refusal; an error is the disk's. The caller holds the transaction.

mod edit;
mod forget;
mod remember;
pub(crate) mod rows;

use caxton_proto::WorkspaceId;
use caxton_proto::memory::{Action, Command, EntityId, MemoryId, Outcome, RelationId, Scope};
use rusqlite::{Connection, Result};

pub use remember::OBSERVATIONS_MAX;
pub use rows::{Memory, MemoryEntity, MemoryRelation};

/// What a command did.
#[derive(Debug)]
pub struct Applied {
    /// What its proposer hears.
    pub outcome: Outcome,
    /// What an index has to hear, in this order, once the transaction is committed.
    pub changes: Vec<Change>,
}

/// A change of a row, for an index.
#[derive(Debug, Clone)]
pub enum Change {
    /// A memory is new, or has changed.
    Put {
        /// Its workspace.
        workspace: WorkspaceId,
        /// The number of its scope.
        place: i64,
        /// The memory.
        memory: Box<Memory>,
    },
    /// A memory is gone.
    Drop {
        /// Its workspace.
        workspace: WorkspaceId,
        /// Its id.
        id: MemoryId,
    },
    /// An entity is new, or has changed.
    PutEntity {
        /// Its workspace.
        workspace: WorkspaceId,
        /// The number of its scope.
        place: i64,
        /// The entity.
        entity: Box<MemoryEntity>,
    },
    /// An entity is gone, and with it every relation that begins or ends there.
    DropEntity {
        /// Its workspace.
        workspace: WorkspaceId,
        /// Its id.
        id: EntityId,
    },
    /// A relation is new, or has changed.
    PutRelation {
        /// Its workspace.
        workspace: WorkspaceId,
        /// The number of its scope.
        place: i64,
        /// The relation.
        relation: Box<MemoryRelation>,
    },
    /// A relation is gone.
    DropRelation {
        /// Its workspace.
        workspace: WorkspaceId,
        /// Its id.
        id: RelationId,
    },
}

/// Carries a command out, within the transaction that the connection is in.
pub fn apply(db: &Connection, command: &Command) -> Result<Applied> {
    let mut run = Run { db, command, changes: Vec::new() };
    let outcome = match command.check() {
        Err(reason) => Outcome::Refused(reason.alone()),
        Ok(()) => match &command.action {
            Action::Remember { entities, memories, relations } => run.remember(entities, memories, relations)?,
            Action::Edit(edit) => run.edit(edit)?,
            Action::Undo { memory } => run.undo(memory)?,
            Action::Forget(forget) => run.forget(forget)?,
            Action::EndRelations { relations, valid_to_ms } => run.end_relations(relations, *valid_to_ms)?,
            Action::Retain(retain) => run.retain(retain)?,
        },
    };
    Ok(Applied { outcome, changes: run.changes })
}

/// One command on its way through the tables.
struct Run<'a> {
    db: &'a Connection,
    command: &'a Command,
    changes: Vec<Change>,
}

impl Run<'_> {
    fn workspace(&self) -> &WorkspaceId {
        &self.command.workspace
    }

    fn may(&self, scope: &Scope) -> bool {
        self.command.permit.as_ref().is_none_or(|permit| permit.contains(scope))
    }

    fn put(&mut self, place: i64, memory: Memory) {
        self.changes.push(Change::Put { workspace: self.workspace().clone(), place, memory: Box::new(memory) });
    }

    fn put_relation(&mut self, place: i64, relation: MemoryRelation) {
        let relation = Box::new(relation);
        self.changes.push(Change::PutRelation { workspace: self.workspace().clone(), place, relation });
    }
}
