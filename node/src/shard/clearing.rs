//! What a shard does about a workspace that the deploy log has deleted: rows go from every tenant, a part with each entry, and
//! then it is noted up to which deletion the workspace is clear.
//!
//! Nothing of a workspace that is gone may come back. So nothing is written of it from the moment in which this node knows of
//! the deletion ([`Deletions`]), and what was on its way by then is in the log before the first of these entries is proposed.
//! A workspace of the same name that was deployed since is written to once the shard is clear of the one before.

use std::sync::Arc;

use bytes::Bytes;
use caxton_proto::shard::{ClearWorkspace, Envelope};
use caxton_proto::{Format, WorkspaceId};
use rusqlite::{Connection, OptionalExtension, params};

use super::tenant::{Answer, ApplyError, Clearance, Command, Content, Effect, Refusal, Table, Tenant, Tenants};

/// How many rows of a table go with one entry: a commit of so many keeps nobody waiting.
pub const ROWS_MAX: u32 = 500;
/// How many notes are kept; the oldest go first. The deploy log remembers as many deletions in all.
const NOTES_MAX: i64 = 10_000;
/// What is answered as long as there may be more.
const MORE: &[u8] = b"more";

/// What the deploy log says of a workspace that was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deletion {
    /// The index of the newest deletion in the deploy log.
    pub index: u64,
    /// A workspace of that name was deployed since.
    pub live: bool,
}

/// Says which workspaces were deleted, as far as this node knows.
#[derive(Clone)]
pub struct Deletions {
    says: Arc<dyn Fn(&WorkspaceId) -> Option<Deletion> + Send + Sync>,
    known: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Deletions {
    /// What this says of a workspace, and up to which index of the deploy log it knows.
    pub fn new(
        says: impl Fn(&WorkspaceId) -> Option<Deletion> + Send + Sync + 'static,
        known: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Deletions {
        Deletions { says: Arc::new(says), known: Arc::new(known) }
    }

    /// Up to which index of the deploy log this node knows of deletions.
    pub fn known(&self) -> u64 {
        (self.known)()
    }

    /// The newest deletion of a workspace; nothing where it never was deleted.
    pub fn of(&self, workspace: &WorkspaceId) -> Option<Deletion> {
        (self.says)(workspace)
    }
}

/// The shard itself as one of its tenants: it keeps up to which deletion each workspace is clear.
pub struct WorkspacesTenant;

const TABLES: &[Table] = &[Table {
    name: "workspace_cleared",
    sql: "CREATE TABLE workspace_cleared (
            workspace TEXT PRIMARY KEY, deletion INTEGER NOT NULL) WITHOUT ROWID, STRICT;",
    content: Content::Rows,
}];

impl Tenant for WorkspacesTenant {
    fn number(&self) -> u32 {
        Envelope::WORKSPACES
    }

    fn name(&self) -> &'static str {
        "workspaces"
    }

    fn commands(&self) -> u32 {
        Format::DELETION.number()
    }

    fn since(&self) -> Format {
        Format::DELETION
    }

    fn layout(&self) -> u32 {
        1
    }

    fn tables(&self) -> &'static [Table] {
        TABLES
    }

    fn check(&self, command: &Command<'_>) -> Result<(), ApplyError> {
        read(command).map(drop)
    }

    fn apply(&self, _: &Command<'_>, _: &Connection) -> Result<Answer, ApplyError> {
        // It concerns the others: the machine calls `apply` of this module instead.
        Err(Refusal::new("a workspace is cleared by the shard as a whole").into())
    }

    fn clear(&self, _: &WorkspaceId, _: u32, _: &Connection) -> Result<Clearance, ApplyError> {
        // Its row says that the workspace is clear.
        Ok(Clearance::Clear)
    }

    fn count(&self, _: &WorkspaceId, _: &Connection) -> rusqlite::Result<Vec<(&'static str, u64)>> {
        Ok(Vec::new())
    }
}

/// The entry that has rows of a workspace go.
pub fn entry(workspace: &WorkspaceId, deletion: u64) -> Bytes {
    let command = ClearWorkspace { workspace: workspace.clone(), deletion, rows_max: ROWS_MAX };
    let (version, tenant) = (Format::DELETION.number(), Envelope::WORKSPACES);
    Envelope { version, tenant, term: 0, body: command.encode().into() }.encode()
}

/// Whether an answer says that the same entry has to be proposed again.
pub fn goes_on(answer: &Answer) -> bool {
    answer.body.as_ref() == MORE
}

/// Up to which deletion a shard is clear of a workspace; 0 where it never was cleared of it.
pub fn cleared(rows: &Connection, workspace: &WorkspaceId) -> rusqlite::Result<u64> {
    let mut find = rows.prepare_cached("SELECT deletion FROM workspace_cleared WHERE workspace = ?1")?;
    let found = find.query_row([workspace.as_str()], |row| row.get::<_, i64>(0)).optional()?;
    Ok(found.map_or(0, i64::cast_unsigned))
}

/// Takes rows of a workspace away from all tenants, and notes it once none is left.
pub(super) fn apply(tenants: &Tenants, command: &Command<'_>, rows: &Connection) -> Result<Answer, ApplyError> {
    let ClearWorkspace { workspace, deletion, rows_max } = read(command)?;
    if cleared(rows, &workspace)? >= deletion {
        return Ok(Effect::Repeated.into());
    }
    let mut clearance = Clearance::Clear;
    for tenant in tenants.iter() {
        clearance = clearance.and(tenant.clear(&workspace, rows_max, rows)?);
    }
    if clearance == Clearance::More {
        return Ok(Answer { effect: Effect::Applied, body: Bytes::from_static(MORE) });
    }
    rows.prepare_cached("INSERT OR REPLACE INTO workspace_cleared VALUES (?1, ?2)")?
        .execute(params![workspace.as_str(), deletion.cast_signed()])?;
    let newest = "DELETE FROM workspace_cleared WHERE workspace NOT IN \
                  (SELECT workspace FROM workspace_cleared ORDER BY deletion DESC, workspace LIMIT ?1)";
    if rows.prepare_cached("SELECT count(*) FROM workspace_cleared")?.query_row([], |row| row.get::<_, i64>(0))?
        > NOTES_MAX
    {
        rows.prepare_cached(newest)?.execute([NOTES_MAX])?;
    }
    Ok(Effect::Applied.into())
}

fn read(command: &Command<'_>) -> Result<ClearWorkspace, ApplyError> {
    ClearWorkspace::decode(command.body)
        .map_err(|error| Refusal::new(format!("it is no command that clears a workspace: {error}")).into())
}
