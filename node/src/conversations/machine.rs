//! The state that one shard's log makes, in one SQLite file: what entries do is one transaction together with the index of
//! the last of them, so that no entry is applied twice. It can be rebuilt from the group's snapshot and log, and is
//! therefore committed a little later, and synced only when SQLite moves its own log into the file.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use caxton_raft::{Entry, Frozen, Machine, MachineError};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, params};
use tokio::sync::watch;

use super::db::{Database, OpenError};
use super::frozen;
use super::log::{
    Abandon, Command, DecodeError, DocumentKind, EncodeError, Forget, Keep, Suspension, Taken, TurnRecord,
};
use super::read::conversation_of;
use crate::llm::Usage;

const TITLE_CHARS_MAX: usize = 80;
/// So many entries, of so many bytes together, are applied on the spot while that is quick: two threads that wake each other
/// take longer than SQLite does.
const AT_ONCE_MAX: usize = 8;
const AT_ONCE_BYTES_MAX: usize = 32 << 10;
const DAY_MS: u64 = 86_400_000;
/// Days whose use is kept.
const DAYS_KEPT: u64 = 400;

/// The materialised conversations of one shard.
pub struct State {
    database: Database,
    applied: AtomicU64,
    // Dropped last: tells that the database is closed.
    closed: watch::Sender<()>,
}

/// Why an entry cannot be applied.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApplyError {
    #[error(transparent)]
    Database(#[from] rusqlite::Error),
    #[error(transparent)]
    Entry(#[from] DecodeError),
    #[error("a row cannot be written down")]
    Row(#[from] EncodeError),
}

impl State {
    /// Opens, or creates, the state in `file`.
    pub fn open(file: &Path) -> Result<Arc<State>, OpenError> {
        let database = Database::open(file)?;
        let applied = database.read(|rows| rows.query_row("SELECT number FROM applied", [], |row| row.get(0)));
        let applied: i64 = applied.map_err(|source| OpenError::Database { file: file.to_owned(), source })?;
        let applied = AtomicU64::new(applied.cast_unsigned());
        Ok(Arc::new(State { database, applied, closed: watch::Sender::default() }))
    }

    /// Ends once the last handle is gone and the state is closed.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut open = self.closed.subscribe();
        async move { while open.changed().await.is_ok() {} }
    }

    /// Whether a few rows can be read on the spot.
    pub(super) fn is_quick(&self) -> bool {
        // Whoever reads beside the writer may have to open a connection first.
        self.database.writer().is_ahead() && self.database.writer().is_quick()
    }

    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    fn apply_all(&self, entries: &[Entry]) -> Result<Vec<Bytes>, ApplyError> {
        let Some(last) = entries.last() else { return Ok(Vec::new()) };
        self.database.writer().write(|batch| {
            let taken = entries.iter().map(|entry| apply(batch, entry).map(Taken::encode));
            let taken: Vec<Bytes> = taken.collect::<Result<_, _>>()?;
            batch.prepare_cached("UPDATE applied SET number = ?1")?.execute([last.index.cast_signed()])?;
            self.applied.store(last.index, Ordering::Release);
            Ok(taken)
        })
    }
}

impl Machine for State {
    fn apply(&self, entries: &[Entry]) -> Result<Vec<Bytes>, MachineError> {
        self.apply_all(entries)
            .map_err(|error| MachineError::new("an entry of the conversations cannot be applied", error))
    }

    fn may_block(&self, entries: &[Entry]) -> bool {
        let bytes: usize = entries.iter().map(|entry| entry.command.len()).sum();
        entries.len() > AT_ONCE_MAX || bytes > AT_ONCE_BYTES_MAX || !self.database.writer().is_quick()
    }

    fn freeze(&self) -> Result<Frozen, MachineError> {
        frozen::freeze(&self.database).map_err(|error| MachineError::new("the conversations cannot be frozen", error))
    }

    fn restore(&self, from: &mut dyn Read) -> Result<(), MachineError> {
        let broken = |error| MachineError::new("a snapshot of the conversations cannot be restored", error);
        let applied = self.database.writer().alone(|it| frozen::restore(it, from)).map_err(broken)?;
        self.applied.store(applied, Ordering::Release);
        Ok(())
    }

    fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }
}

fn apply(batch: &Connection, entry: &Entry) -> Result<Taken, ApplyError> {
    let command = Command::decode(&entry.command)?;
    if command.term().is_some_and(|term| term != entry.term) {
        return Ok(Taken::Fenced);
    }
    match command {
        Command::Record(turn) => record(batch, &turn, &entry.command),
        Command::Keep(kept) => keep(batch, &kept, &entry.command),
        Command::Suspend(suspension) => suspend(batch, &suspension, &entry.command),
        Command::Abandon(Abandon { workspace, turn, term: _ }) => {
            drop_pieces(batch, workspace.as_str(), &turn, None)?;
            stop_waiting(batch, workspace.as_str(), &turn)?;
            Ok(Taken::Applied)
        }
        Command::Forget(Forget { workspace, conversation }) => {
            forget(batch, workspace.as_str(), &conversation)?;
            Ok(Taken::Applied)
        }
    }
}

fn is_recorded(batch: &Connection, workspace: &str, turn: &str) -> rusqlite::Result<bool> {
    batch.prepare_cached("SELECT 1 FROM turn WHERE workspace = ?1 AND turn = ?2")?.exists([workspace, turn])
}

fn record(batch: &Connection, turn: &TurnRecord, entry: &[u8]) -> Result<Taken, ApplyError> {
    let (workspace, conversation) = (turn.workspace.as_str(), turn.conversation.as_str());
    if is_recorded(batch, workspace, &turn.turn)? {
        return Ok(Taken::Repeated); // Proposed again after an answer that was lost.
    }
    stop_waiting(batch, workspace, &turn.turn)?;
    drop_pieces(batch, workspace, &turn.turn, Some(DocumentKind::Journal))?;
    let old = conversation_of(batch, workspace, conversation)?;
    let number = old.as_ref().map_or(0, |old| old.turns);
    batch
        .prepare_cached("INSERT INTO turn (workspace, conversation, number, turn, body) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![workspace, conversation, number.cast_signed(), turn.turn, turn.encode_row(entry)?])?;
    let time_ms = turn.time_ms.cast_signed();
    match old {
        Some(old) => {
            let Usage { input, output } = add(old.usage, turn.usage.into());
            batch
                .prepare_cached(
                    "UPDATE conversation SET agent = ?3, turns = ?4, input = ?5, output = ?6, \
                     updated_ms = max(updated_ms, ?7) WHERE workspace = ?1 AND id = ?2",
                )?
                .execute(params![
                    workspace,
                    conversation,
                    turn.agent.as_str(),
                    (number + 1).cast_signed(),
                    input.cast_signed(),
                    output.cast_signed(),
                    time_ms
                ])?;
        }
        None => {
            let Usage { input, output } = turn.usage.into();
            batch.prepare_cached("INSERT INTO conversation VALUES (?1, ?2, ?3, ?4, 1, ?5, ?6, ?7, ?7)")?.execute(
                params![
                    workspace,
                    conversation,
                    title_of(turn),
                    turn.agent.as_str(),
                    input.cast_signed(),
                    output.cast_signed(),
                    time_ms
                ],
            )?;
        }
    }
    record_spent(batch, turn)?;
    Ok(Taken::Applied)
}

fn add(mut usage: Usage, more: Usage) -> Usage {
    usage += more;
    usage
}

fn record_spent(batch: &Connection, turn: &TurnRecord) -> rusqlite::Result<()> {
    let day = turn.time_ms / DAY_MS;
    for (agent, spent) in &turn.spent {
        let row = params![
            day.cast_signed(),
            turn.workspace.as_str(),
            agent.as_str(),
            spent.tokens.cast_signed(),
            spent.cost.cast_signed()
        ];
        batch
            .prepare_cached(
                "INSERT INTO day VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO UPDATE \
                 SET tokens = tokens + excluded.tokens, cost = cost + excluded.cost",
            )?
            .execute(row)?;
    }
    let first_kept = day.saturating_sub(DAYS_KEPT).cast_signed();
    batch.prepare_cached("DELETE FROM day WHERE day < ?1")?.execute([first_kept])?;
    Ok(())
}

fn keep(batch: &Connection, keep: &Keep, entry: &[u8]) -> Result<Taken, ApplyError> {
    let workspace = keep.workspace.as_str();
    if is_recorded(batch, workspace, &keep.turn)? {
        return Ok(Taken::Repeated);
    }
    if keep.kind == DocumentKind::Journal {
        // Whoever writes in the journal again has decided, and goes on.
        stop_waiting(batch, workspace, &keep.turn)?;
    }
    let mut insert = batch.prepare_cached("INSERT OR REPLACE INTO piece VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
    for piece in &keep.pieces {
        let bytes = ValueRef::Blob(&piece.content);
        let content =
            ToSqlOutput::Borrowed(piece.row_text(entry).map_or(bytes, |text| ValueRef::Text(text.as_bytes())));
        insert.execute(params![workspace, keep.turn, number_of(keep.kind), piece.number, piece.last, content])?;
    }
    Ok(Taken::Applied)
}

fn suspend(batch: &Connection, waiting: &Suspension, entry: &[u8]) -> Result<Taken, ApplyError> {
    let workspace = waiting.workspace.as_str();
    if is_recorded(batch, workspace, &waiting.turn)? {
        return Ok(Taken::Repeated);
    }
    batch.prepare_cached("INSERT OR REPLACE INTO waiting VALUES (?1, ?2, ?3)")?.execute(params![
        workspace,
        waiting.turn,
        waiting.encode_row(entry)?
    ])?;
    Ok(Taken::Applied)
}

fn stop_waiting(batch: &Connection, workspace: &str, turn: &str) -> rusqlite::Result<()> {
    batch.prepare_cached("DELETE FROM waiting WHERE workspace = ?1 AND turn = ?2")?.execute([workspace, turn])?;
    Ok(())
}

/// Drops what a turn kept: of one kind, or everything.
fn drop_pieces(batch: &Connection, workspace: &str, turn: &str, of: Option<DocumentKind>) -> rusqlite::Result<()> {
    let kinds = of.map_or((0, i64::MAX), |of| (number_of(of), number_of(of)));
    batch
        .prepare_cached("DELETE FROM piece WHERE workspace = ?1 AND turn = ?2 AND kind BETWEEN ?3 AND ?4")?
        .execute(params![workspace, turn, kinds.0, kinds.1])?;
    Ok(())
}

fn forget(batch: &Connection, workspace: &str, conversation: &str) -> rusqlite::Result<()> {
    let both = [workspace, conversation];
    let of_turns = "DELETE FROM piece WHERE workspace = ?1 AND turn IN \
                    (SELECT turn FROM turn WHERE workspace = ?1 AND conversation = ?2)";
    batch.prepare_cached(of_turns)?.execute(both)?;
    batch.prepare_cached("DELETE FROM turn WHERE workspace = ?1 AND conversation = ?2")?.execute(both)?;
    batch.prepare_cached("DELETE FROM conversation WHERE workspace = ?1 AND id = ?2")?.execute(both)?;
    Ok(())
}

/// How the file tells pieces apart. On disk for ever.
pub(super) fn number_of(of: DocumentKind) -> i64 {
    match of {
        DocumentKind::Journal => 0,
        DocumentKind::Files => 1,
    }
}

fn title_of(turn: &TurnRecord) -> String {
    let first = turn.messages.iter().find(|message| matches!(message, caxton_proto::shard::Message::User { .. }));
    let text = first.map(|message| crate::llm::Message::from(message.clone()).text()).unwrap_or_default();
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    line.trim().chars().take(TITLE_CHARS_MAX).collect()
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
