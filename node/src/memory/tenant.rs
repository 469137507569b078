//! What is remembered as a tenant of a shard: its tables, and what each command does to them. `caxton_memory` has both; what a
//! command touched, the index looks at again once it is committed.

use std::sync::{Arc, LazyLock};

use caxton_memory::proto::{self, DecodeError};
use caxton_proto::shard::Envelope;
use caxton_proto::{Format, WorkspaceId};
use rusqlite::Connection;

use super::keeper::Keeper;
use crate::shard::tenant::{Answer, ApplyError, Clearance, Command, Content, Effect, Refusal, Stop, Table, Tenant};

static TABLES: LazyLock<Vec<Table>> = LazyLock::new(|| {
    let content = |derived| if derived { Content::Derived } else { Content::Rows };
    let tables = caxton_memory::TABLES.iter();
    tables.map(|table| Table { name: table.name, sql: table.sql, content: content(table.derived) }).collect()
});

/// What a shard remembers, as its tenant number 2.
pub struct MemoryTenant {
    keeper: Arc<Keeper>,
}

impl MemoryTenant {
    /// One whose changes this keeper follows.
    pub fn new(keeper: Arc<Keeper>) -> MemoryTenant {
        MemoryTenant { keeper }
    }
}

impl Tenant for MemoryTenant {
    fn number(&self) -> u32 {
        Envelope::MEMORY
    }

    fn name(&self) -> &'static str {
        "memory"
    }

    fn commands(&self) -> u32 {
        Format::PROTOBUF.number()
    }

    fn layout(&self) -> u32 {
        1
    }

    fn tables(&self) -> &'static [Table] {
        &TABLES
    }

    fn check(&self, command: &Command<'_>) -> Result<(), ApplyError> {
        decode(command).map(drop)
    }

    fn apply(&self, command: &Command<'_>, rows: &Connection) -> Result<Answer, ApplyError> {
        let applied = caxton_memory::apply(rows, &decode(command)?)?;
        // Taken back or not: whoever looks at it again sees what the tables have.
        self.keeper.touch(applied.touched);
        Ok(Answer { effect: Effect::Applied, body: applied.outcome.encode().into() })
    }

    fn clear(&self, workspace: &WorkspaceId, _: u32, rows: &Connection) -> Result<Clearance, ApplyError> {
        // How many go at once is bounded by that command itself.
        let action = proto::Action::Forget(proto::Forget::Everything);
        let (workspace, actor) = (workspace.clone(), "deletion".to_owned());
        let forget = proto::Command { workspace, time_ms: 0, actor, permit: None, action };
        let applied = caxton_memory::apply(rows, &forget)?;
        self.keeper.touch(applied.touched);
        match applied.outcome {
            proto::Outcome::Removed(removed) if removed.more => Ok(Clearance::More),
            proto::Outcome::Removed(_) => Ok(Clearance::Clear),
            other => Err(Refusal::new(format!("what is remembered was not forgotten: {other:?}")).into()),
        }
    }

    fn count(&self, workspace: &WorkspaceId, rows: &Connection) -> rusqlite::Result<Vec<(&'static str, u64)>> {
        let count = |table: &str| {
            let count = format!("SELECT count(*) FROM {table} JOIN memory_place USING (place) WHERE workspace = ?1");
            rows.prepare_cached(&count)?.query_row([workspace.as_str()], |row| row.get::<_, i64>(0))
        };
        let counted = [("memories", "memory"), ("entities", "memory_entity"), ("relations", "memory_relation")];
        counted.into_iter().map(|(name, table)| Ok((name, count(table)?.unsigned_abs()))).collect()
    }

    fn derive(&self, rows: &Connection, _: u32) -> Result<(), ApplyError> {
        caxton_memory::repair(rows)?;
        self.keeper.begin_anew();
        Ok(())
    }
}

fn decode(command: &Command<'_>) -> Result<proto::Command, ApplyError> {
    proto::Command::decode(command.body).map_err(|error| match error {
        error @ DecodeError::Version { .. } => ApplyError::Stop(Stop::Newer(error.into())),
        // Where and how, but not what: a value may be what somebody said.
        error => Refusal::new(format!("it is none of the commands of what is remembered: {error}")).into(),
    })
}

#[cfg(test)]
#[path = "tenant_tests.rs"]
mod tests;
