//! The conversations as a tenant of a shard: their tables, and what each command does to them.

use caxton_proto::shard::{self, Envelope};
use caxton_proto::{Format, WorkspaceId};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, params};

use super::log::{Abandon, Command, DecodeError, DocumentKind, Forget, Keep, Suspension, TurnRecord, Written};
use super::rows::{conversation_of, number_of};
use crate::chat::Usage;
use crate::shard::tenant::{
    self, Answer, ApplyError, Clearance, Content, Effect, Legacy, Refusal, Stop, Table, Tenant,
};

const TITLE_CHARS_MAX: usize = 80;
const DAY_MS: u64 = 86_400_000;
/// Days whose use is kept.
const DAYS_KEPT: u64 = 400;

/// Rows that can be long lie one after the other in the order in which they came (they have a row's number). Without one they
/// would lie in the order of their keys, each of more than a kilobyte with a page of its own.
const TABLES: &[Table] = &[
    Table {
        name: "conversation",
        sql: "CREATE TABLE conversation (
                workspace TEXT NOT NULL, id TEXT NOT NULL, title TEXT NOT NULL, agent TEXT NOT NULL,
                turns INTEGER NOT NULL, input INTEGER NOT NULL, output INTEGER NOT NULL, created_ms INTEGER NOT NULL,
                updated_ms INTEGER NOT NULL, PRIMARY KEY (workspace, id)) WITHOUT ROWID, STRICT;
              CREATE INDEX conversation_by_time ON conversation (workspace, updated_ms DESC, id);",
        content: Content::Rows,
    },
    Table {
        name: "turn",
        sql: "CREATE TABLE turn (
                workspace TEXT NOT NULL, conversation TEXT NOT NULL, number INTEGER NOT NULL, turn TEXT NOT NULL,
                body BLOB NOT NULL, PRIMARY KEY (workspace, conversation, number)) STRICT;
              CREATE UNIQUE INDEX turn_by_id ON turn (workspace, turn);",
        content: Content::Rows,
    },
    Table {
        name: "waiting",
        sql:
            "CREATE TABLE waiting (
                workspace TEXT NOT NULL, turn TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (workspace, turn)) STRICT;",
        content: Content::Rows,
    },
    Table {
        name: "piece",
        sql: "CREATE TABLE piece (
                workspace TEXT NOT NULL, turn TEXT NOT NULL, kind INTEGER NOT NULL, number INTEGER NOT NULL,
                ends INTEGER NOT NULL, text ANY NOT NULL, PRIMARY KEY (workspace, turn, kind, number)) STRICT;",
        content: Content::Rows,
    },
    Table {
        name: "day",
        sql: "CREATE TABLE day (
                day INTEGER NOT NULL, workspace TEXT NOT NULL, agent TEXT NOT NULL, tokens INTEGER NOT NULL,
                cost INTEGER NOT NULL, PRIMARY KEY (day, workspace, agent)) WITHOUT ROWID, STRICT;",
        content: Content::Rows,
    },
];

/// What tells the rows of a workspace apart in each table.
const KEYS: [(&str, &str); 5] = [
    ("piece", "turn, kind, number"),
    ("waiting", "turn"),
    ("turn", "conversation, number"),
    ("conversation", "id"),
    ("day", "day, agent"),
];

/// How the tables stood in snapshots before those named their columns. On disk for ever.
const LEGACY: Legacy = Legacy {
    tables: &[
        (
            1,
            "conversation",
            &["workspace", "id", "title", "agent", "turns", "input", "output", "created_ms", "updated_ms"],
        ),
        (2, "turn", &["workspace", "conversation", "number", "turn", "body"]),
        (3, "waiting", &["workspace", "turn", "body"]),
        (4, "piece", &["workspace", "turn", "kind", "number", "ends", "text"]),
        (5, "day", &["day", "workspace", "agent", "tokens", "cost"]),
    ],
};

pub struct ConversationsTenant;

impl Tenant for ConversationsTenant {
    fn number(&self) -> u32 {
        Envelope::CONVERSATIONS
    }

    fn name(&self) -> &'static str {
        "conversations"
    }

    fn commands(&self) -> u32 {
        Format::NEWEST.number()
    }

    fn layout(&self) -> u32 {
        1
    }

    fn tables(&self) -> &'static [Table] {
        TABLES
    }

    fn check(&self, command: &tenant::Command<'_>) -> Result<(), ApplyError> {
        decode(command).map(drop)
    }

    fn apply(&self, command: &tenant::Command<'_>, rows: &Connection) -> Result<Answer, ApplyError> {
        apply(command, rows).map(Answer::from)
    }

    fn clear(&self, workspace: &WorkspaceId, rows_max: u32, rows: &Connection) -> Result<Clearance, ApplyError> {
        let mut clearance = Clearance::Clear;
        for (table, key) in KEYS {
            let delete = format!(
                "DELETE FROM {table} WHERE workspace = ?1 AND ({key}) IN \
                 (SELECT {key} FROM {table} WHERE workspace = ?1 ORDER BY {key} LIMIT ?2)"
            );
            let gone = rows.prepare_cached(&delete)?.execute(params![workspace.as_str(), rows_max])?;
            clearance = clearance.and(Clearance::of(gone, rows_max));
        }
        Ok(clearance)
    }

    fn count(&self, workspace: &WorkspaceId, rows: &Connection) -> rusqlite::Result<Vec<(&'static str, u64)>> {
        let count = |table: &str| {
            let count = format!("SELECT count(*) FROM {table} WHERE workspace = ?1");
            rows.prepare_cached(&count)?.query_row([workspace.as_str()], |row| row.get::<_, i64>(0))
        };
        let counted = [("conversations", "conversation"), ("turns", "turn"), ("approvals", "waiting")];
        counted.into_iter().map(|(name, table)| Ok((name, count(table)?.unsigned_abs()))).collect()
    }

    fn legacy(&self) -> Option<&'static Legacy> {
        Some(&LEGACY)
    }
}

fn written<'a>(command: &tenant::Command<'a>) -> Written<'a> {
    Written { version: command.version, term: command.term, body: command.body }
}

fn decode(command: &tenant::Command<'_>) -> Result<Command, ApplyError> {
    Command::read(written(command)).map_err(|error| match error {
        // Where and how, but not what: a value may be what somebody said.
        DecodeError::Json(error) => {
            let (kind, column) = (error.classify(), error.column());
            Refusal::new(format!("its JSON is none of the conversations' commands ({kind:?} at byte {column})")).into()
        }
        error if error.is_newer() => ApplyError::Stop(Stop::Newer(error.into())),
        error => Refusal::new(format!("it is none of the conversations' commands: {error}")).into(),
    })
}

fn apply(bytes: &tenant::Command<'_>, rows: &Connection) -> Result<Effect, ApplyError> {
    let (written, command) = (written(bytes), decode(bytes)?);
    if command.term().is_some_and(|under| under != bytes.term) {
        return Ok(Effect::Fenced);
    }
    match command {
        Command::Record(turn) => record(rows, &turn, written),
        Command::Keep(kept) => keep(rows, &kept, written),
        Command::Suspend(suspension) => suspend(rows, &suspension, written),
        Command::Abandon(Abandon { workspace, turn, term: _ }) => {
            drop_pieces(rows, workspace.as_str(), &turn, None)?;
            stop_waiting(rows, workspace.as_str(), &turn)?;
            Ok(Effect::Applied)
        }
        Command::Forget(Forget { workspace, conversation }) => {
            forget(rows, workspace.as_str(), &conversation)?;
            Ok(Effect::Applied)
        }
    }
}

/// What was read can be written again.
fn unwritten(_: shard::EncodeError) -> Refusal {
    Refusal::new("it cannot be written down")
}

fn is_recorded(rows: &Connection, workspace: &str, turn: &str) -> rusqlite::Result<bool> {
    rows.prepare_cached("SELECT 1 FROM turn WHERE workspace = ?1 AND turn = ?2")?.exists([workspace, turn])
}

fn record(rows: &Connection, turn: &TurnRecord, written: Written<'_>) -> Result<Effect, ApplyError> {
    let (workspace, conversation) = (turn.workspace.as_str(), turn.conversation.as_str());
    if is_recorded(rows, workspace, &turn.turn)? {
        return Ok(Effect::Repeated); // Proposed again after an answer that was lost.
    }
    stop_waiting(rows, workspace, &turn.turn)?;
    drop_pieces(rows, workspace, &turn.turn, Some(DocumentKind::Journal))?;
    let old = conversation_of(rows, workspace, conversation)?;
    let number = old.as_ref().map_or(0, |old| old.turns);
    rows.prepare_cached("INSERT INTO turn (workspace, conversation, number, turn, body) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![
            workspace,
            conversation,
            whole(number),
            turn.turn,
            turn.encode_row(written).map_err(unwritten)?
        ])?;
    let time_ms = whole(turn.time_ms);
    match old {
        Some(old) => {
            let Usage { input, output } = add(old.usage, turn.usage.into());
            rows.prepare_cached(
                "UPDATE conversation SET agent = ?3, turns = ?4, input = ?5, output = ?6, \
                     updated_ms = max(updated_ms, ?7) WHERE workspace = ?1 AND id = ?2",
            )?
            .execute(params![
                workspace,
                conversation,
                turn.agent.as_str(),
                whole(number.saturating_add(1)),
                whole(input),
                whole(output),
                time_ms
            ])?;
        }
        None => {
            let Usage { input, output } = turn.usage.into();
            rows.prepare_cached("INSERT INTO conversation VALUES (?1, ?2, ?3, ?4, 1, ?5, ?6, ?7, ?7)")?.execute(
                params![
                    workspace,
                    conversation,
                    title_of(turn),
                    turn.agent.as_str(),
                    whole(input),
                    whole(output),
                    time_ms
                ],
            )?;
        }
    }
    record_spent(rows, turn)?;
    Ok(Effect::Applied)
}

/// A count as SQLite holds it. One that does not fit is the largest that does.
fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn add(mut usage: Usage, more: Usage) -> Usage {
    usage += more;
    usage
}

fn record_spent(rows: &Connection, turn: &TurnRecord) -> rusqlite::Result<()> {
    let day = turn.time_ms / DAY_MS;
    for (agent, spent) in &turn.spent {
        let row = params![whole(day), turn.workspace.as_str(), agent.as_str(), whole(spent.tokens), whole(spent.cost)];
        rows.prepare_cached(
            // A sum that does not fit stays at the largest number: SQLite would make a REAL of it.
            "INSERT INTO day VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO UPDATE SET \
                 tokens = iif(tokens > 9223372036854775807 - excluded.tokens, 9223372036854775807, \
                     tokens + excluded.tokens), \
                 cost = iif(cost > 9223372036854775807 - excluded.cost, 9223372036854775807, cost + excluded.cost)",
        )?
        .execute(row)?;
    }
    let first_kept = whole(day.saturating_sub(DAYS_KEPT));
    rows.prepare_cached("DELETE FROM day WHERE day < ?1")?.execute([first_kept])?;
    Ok(())
}

fn keep(rows: &Connection, keep: &Keep, written: Written<'_>) -> Result<Effect, ApplyError> {
    let workspace = keep.workspace.as_str();
    if is_recorded(rows, workspace, &keep.turn)? {
        return Ok(Effect::Repeated);
    }
    if keep.kind == DocumentKind::Journal {
        // Whoever writes in the journal again has decided, and goes on.
        stop_waiting(rows, workspace, &keep.turn)?;
    }
    let mut insert = rows.prepare_cached("INSERT OR REPLACE INTO piece VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
    for piece in &keep.pieces {
        let bytes = ValueRef::Blob(&piece.content);
        let content = piece.row_text(written).map_or(bytes, |text| ValueRef::Text(text.as_bytes()));
        let content = ToSqlOutput::Borrowed(content);
        insert.execute(params![workspace, keep.turn, number_of(keep.kind), piece.number, piece.last, content])?;
    }
    Ok(Effect::Applied)
}

fn suspend(rows: &Connection, suspension: &Suspension, written: Written<'_>) -> Result<Effect, ApplyError> {
    let workspace = suspension.workspace.as_str();
    if is_recorded(rows, workspace, &suspension.turn)? {
        return Ok(Effect::Repeated);
    }
    rows.prepare_cached("INSERT OR REPLACE INTO waiting VALUES (?1, ?2, ?3)")?.execute(params![
        workspace,
        suspension.turn,
        suspension.encode_row(written).map_err(unwritten)?
    ])?;
    Ok(Effect::Applied)
}

fn stop_waiting(rows: &Connection, workspace: &str, turn: &str) -> rusqlite::Result<()> {
    rows.prepare_cached("DELETE FROM waiting WHERE workspace = ?1 AND turn = ?2")?.execute([workspace, turn])?;
    Ok(())
}

/// Drops what a turn kept: of one kind, or everything.
fn drop_pieces(rows: &Connection, workspace: &str, turn: &str, of: Option<DocumentKind>) -> rusqlite::Result<()> {
    let kinds = of.map_or((0, i64::MAX), |of| (number_of(of), number_of(of)));
    rows.prepare_cached("DELETE FROM piece WHERE workspace = ?1 AND turn = ?2 AND kind BETWEEN ?3 AND ?4")?
        .execute(params![workspace, turn, kinds.0, kinds.1])?;
    Ok(())
}

fn forget(rows: &Connection, workspace: &str, conversation: &str) -> rusqlite::Result<()> {
    let both = [workspace, conversation];
    let of_turns = "DELETE FROM piece WHERE workspace = ?1 AND turn IN \
                    (SELECT turn FROM turn WHERE workspace = ?1 AND conversation = ?2)";
    rows.prepare_cached(of_turns)?.execute(both)?;
    rows.prepare_cached("DELETE FROM turn WHERE workspace = ?1 AND conversation = ?2")?.execute(both)?;
    rows.prepare_cached("DELETE FROM conversation WHERE workspace = ?1 AND id = ?2")?.execute(both)?;
    Ok(())
}

/// What a conversation is called: how the sender began it, or how the prompt of an older record does.
fn title_of(turn: &TurnRecord) -> String {
    let said = turn.ending.as_ref().and_then(|ending| ending.request.clone());
    let first = turn.messages.iter().find(|message| matches!(message, shard::Message::User { .. }));
    let prompt = || first.map(|message| crate::chat::Message::from(message.clone()).text()).unwrap_or_default();
    let text = said.unwrap_or_else(prompt);
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    line.trim().chars().take(TITLE_CHARS_MAX).collect()
}

#[cfg(test)]
#[path = "tenant_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "tenant_properties.rs"]
mod properties;
