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

use crate::tables;

pub use remember::OBSERVATIONS_MAX;
pub use rows::{Memory, MemoryEntity, MemoryRelation};

/// What a command did.
#[derive(Debug)]
pub struct Applied {
    /// What its proposer hears.
    pub outcome: Outcome,
    /// What an index has to look at again with [`crate::Index::refresh`], once the transaction is committed.
    pub touched: Vec<Touched>,
}

/// Something that is new, has changed or is gone. The tables say which.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Touched {
    /// An entity of a workspace.
    Entity(WorkspaceId, EntityId),
    /// A memory of a workspace.
    Memory(WorkspaceId, MemoryId),
    /// A relation of a workspace.
    Relation(WorkspaceId, RelationId),
}

/// Carries a command out, within the transaction that the connection is in.
pub fn apply(db: &Connection, command: &Command) -> Result<Applied> {
    let mut run = Run { db, command, place: None, touched: Vec::new() };
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
    Ok(Applied { outcome, touched: run.touched })
}

/// One command on its way through the tables.
struct Run<'a> {
    db: &'a Connection,
    command: &'a Command,
    /// The scope that was written to last, with its number: most commands write to one.
    place: Option<(Scope, i64)>,
    touched: Vec<Touched>,
}

impl Run<'_> {
    fn workspace(&self) -> &WorkspaceId {
        &self.command.workspace
    }

    fn may(&self, scope: &Scope) -> bool {
        self.command.permit.as_ref().is_none_or(|permit| permit.contains(scope))
    }

    /// The number of a scope; a new one where nothing was kept there before.
    fn place_or_new(&mut self, scope: &Scope) -> Result<i64> {
        if let Some((_, place)) = self.place.as_ref().filter(|(known, _)| known == scope) {
            return Ok(*place);
        }
        let place = tables::place_or_new(self.db, self.workspace(), scope)?;
        self.place = Some((scope.clone(), place));
        Ok(place)
    }

    fn touch_memory(&mut self, id: MemoryId) {
        self.touched.push(Touched::Memory(self.workspace().clone(), id));
    }

    fn touch_entity(&mut self, id: EntityId) {
        self.touched.push(Touched::Entity(self.workspace().clone(), id));
    }

    fn touch_relation(&mut self, id: RelationId) {
        self.touched.push(Touched::Relation(self.workspace().clone(), id));
    }
}
