//! The state that one shard's log makes, in one SQLite file: what entries do is one transaction together with the index of
//! the last of them, so that no entry is applied twice. It can be rebuilt from the group's snapshot and log, and is
//! therefore committed a little later, and synced only when SQLite moves its own log into the file.
//!
//! An entry that is refused is taken back, whatever it had written by then, and those before and after it stay: entries are
//! applied between savepoints, all that come together between two, and one by one where one of them is refused.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use caxton_proto::WorkspaceId;
use caxton_proto::shard::Envelope;
use caxton_raft::{Entry, FrozenState, GroupId, Machine, MachineError};
use rusqlite::Connection;
use tokio::sync::watch;

use super::clearing;
use super::db::{Database, OpenError};
use super::envelope::{self, Form};
use super::refused::{self, Refused};
use super::tenant::{Answer, ApplyError, Command, Effect, Refusal, Stop, Tenant, Tenants};
use super::{WrittenFormat, snapshot};

/// So many entries, of so many bytes together, are applied on the spot while that is quick: two threads that wake each other
/// take longer than SQLite does.
const AT_ONCE_MAX: usize = 8;
const AT_ONCE_BYTES_MAX: usize = 32 << 10;
/// Whose an entry is that cannot be read.
const NOBODY: (u32, &str) = (0, "unknown");

/// The state of one shard: the rows of all its tenants.
pub struct State {
    shard: GroupId,
    format: WrittenFormat,
    tenants: Tenants,
    database: Database,
    applied: AtomicU64,
    // Dropped last: tells that the database is closed.
    closed: watch::Sender<()>,
}

/// A command and whose it is.
struct TenantCommand<'a> {
    tenant: &'a dyn Tenant,
    command: Command<'a>,
    /// The term without which it counts for nothing, 0 for none or where only the tenant can say.
    under: u64,
}

impl State {
    /// Opens, or creates, the state of a shard in `file`.
    pub fn open(file: &Path, shard: GroupId, format: WrittenFormat, tenants: Tenants) -> Result<Arc<State>, OpenError> {
        let database = Database::open(file, &tenants)?;
        let applied = database.read(|rows| rows.query_row("SELECT number FROM applied", [], |row| row.get(0)));
        let applied: i64 = applied.map_err(|source| OpenError::Database { file: file.to_owned(), source })?;
        let applied = AtomicU64::new(applied.cast_unsigned());
        Ok(Arc::new(State { shard, format, tenants, database, applied, closed: watch::Sender::default() }))
    }

    /// Ends once the last handle is gone and the state is closed.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut open = self.closed.subscribe();
        async move { while open.changed().await.is_ok() {} }
    }

    /// Whether a few rows can be read on the spot.
    pub fn is_quick(&self) -> bool {
        // Whoever reads beside the writer may have to open a connection first.
        self.database.writer().is_ahead() && self.database.writer().is_quick()
    }

    /// The file, to be read.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// The newest entries that were refused, the oldest of them first.
    pub fn refused(&self) -> rusqlite::Result<Vec<Refused>> {
        self.database.scan(refused::all)
    }

    /// Reads an entry that is to be proposed in `term`, as every replica will: what fails here is better not proposed.
    pub fn check(&self, entry: &Bytes, term: u64) -> Result<(), ApplyError> {
        let opened = envelope::open(entry)?;
        let TenantCommand { tenant, command, .. } = self.address(0, term, entry, &opened)?;
        tenant.check(&command)
    }

    fn apply_all(&self, entries: &[Entry]) -> Result<Vec<Bytes>, Stop> {
        let Some(last) = entries.last() else { return Ok(Vec::new()) };
        self.database.writer().write(|rows| {
            let replies = self.apply_together(rows, entries)?;
            rows.prepare_cached("UPDATE applied SET number = ?1")?.execute([last.index.cast_signed()])?;
            self.applied.store(last.index, Ordering::Release);
            Ok(replies.iter().map(refused::encode).collect())
        })
    }

    /// Applies entries, all or none of them; one by one if one of them is refused.
    fn apply_together(&self, rows: &Connection, entries: &[Entry]) -> Result<Vec<Result<Answer, Refusal>>, Stop> {
        let together = between_savepoints(rows, || entries.iter().map(|entry| self.apply_one(rows, entry)).collect());
        match together? {
            Ok(answers) => {
                let answers: Vec<Answer> = answers;
                Ok(answers.into_iter().map(Ok).collect())
            }
            Err(_) => entries.iter().map(|entry| self.apply_or_refuse(rows, entry)).collect(),
        }
    }

    fn apply_or_refuse(&self, rows: &Connection, entry: &Entry) -> Result<Result<Answer, Refusal>, Stop> {
        let applied = between_savepoints(rows, || self.apply_one(rows, entry))?;
        if let Err(refusal) = &applied {
            let opened = envelope::open(&entry.command);
            let addressed = opened
                .ok()
                .and_then(|opened| self.address(entry.index, entry.term, &entry.command, &opened).ok().map(whose));
            let (number, name) = addressed.unwrap_or(NOBODY);
            refused::record(rows, entry.index, number, refusal)?;
            refused::alarm(self.shard.0, entry.index, name, refusal);
        }
        Ok(applied)
    }

    fn apply_one(&self, rows: &Connection, entry: &Entry) -> Result<Answer, ApplyError> {
        let opened = envelope::open(&entry.command)?;
        let TenantCommand { tenant, command, under } =
            self.address(entry.index, entry.term, &entry.command, &opened)?;
        if under != 0 && under != entry.term {
            return Ok(Effect::Fenced.into());
        }
        if tenant.number() == Envelope::WORKSPACES {
            return clearing::apply(&self.tenants, &command, rows);
        }
        tenant.apply(&command, rows)
    }

    /// How much of each kind there is of a workspace, by name, of every tenant.
    pub fn contents(&self, workspace: &WorkspaceId) -> rusqlite::Result<Vec<(&'static str, u64)>> {
        self.database.scan(|rows| {
            let counts = self.tenants.iter().map(|tenant| tenant.count(workspace, rows));
            Ok(counts.collect::<rusqlite::Result<Vec<_>>>()?.concat())
        })
    }

    /// Finds whose command an entry is.
    fn address<'a>(
        &'a self,
        index: u64,
        term: u64,
        entry: &'a Bytes,
        opened: &'a Form,
    ) -> Result<TenantCommand<'a>, ApplyError> {
        let envelope = match opened {
            Form::Enveloped(envelope) => envelope,
            Form::Bare => {
                let legacy = self.tenants.legacy().ok_or_else(|| Refusal::new("it has no envelope"))?;
                return Ok(TenantCommand {
                    tenant: legacy.0,
                    command: Command { version: 0, term, body: entry },
                    under: 0,
                });
            }
        };
        let unknown = Stop::NewerTenant { index, tenant: envelope.tenant };
        let tenant = self.tenants.of(envelope.tenant).ok_or(unknown)?;
        let (found, known) = (envelope.version, tenant.commands());
        if found > known {
            return Err(Stop::NewerCommand { index, tenant: tenant.name(), found, known }.into());
        }
        let command = Command { version: found, term, body: &envelope.body };
        Ok(TenantCommand { tenant, command, under: envelope.term })
    }
}

fn whose(addressed: TenantCommand<'_>) -> (u32, &'static str) {
    (addressed.tenant.number(), addressed.tenant.name())
}

/// Does something that is taken back if it is refused.
fn between_savepoints<T>(
    rows: &Connection,
    act: impl FnOnce() -> Result<T, ApplyError>,
) -> Result<Result<T, Refusal>, Stop> {
    rows.prepare_cached("SAVEPOINT entries")?.execute([])?;
    let done = match act() {
        Ok(done) => Ok(done),
        Err(ApplyError::Refused(refusal)) => {
            rows.prepare_cached("ROLLBACK TO entries")?.execute([])?;
            Err(refusal)
        }
        Err(ApplyError::Stop(stop)) => return Err(stop),
    };
    rows.prepare_cached("RELEASE entries")?.execute([])?;
    Ok(done)
}

impl Machine for State {
    fn apply(&self, entries: &[Entry]) -> Result<Vec<Bytes>, MachineError> {
        self.apply_all(entries).map_err(|error| MachineError::new("an entry of a shard's log cannot be applied", error))
    }

    fn may_block(&self, entries: &[Entry]) -> bool {
        let bytes: usize = entries.iter().map(|entry| entry.command.len()).sum();
        entries.len() > AT_ONCE_MAX || bytes > AT_ONCE_BYTES_MAX || !self.database.writer().is_quick()
    }

    fn freeze(&self) -> Result<FrozenState, MachineError> {
        let frozen = snapshot::freeze(&self.database, &self.tenants, self.format.now());
        frozen.map_err(|error| MachineError::new("the state of a shard cannot be frozen", error))
    }

    fn restore(&self, from: &mut dyn Read) -> Result<(), MachineError> {
        let broken = |error| MachineError::new("a snapshot of a shard cannot be restored", error);
        let restore = |rows: &mut Connection| snapshot::restore(rows, &self.tenants, from);
        let applied = self.database.writer().alone(restore).map_err(broken)?;
        self.applied.store(applied, Ordering::Release);
        Ok(())
    }

    fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
