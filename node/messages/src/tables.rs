//! The tables. Their numbers come from a table of counters and not from SQLite, whose own a snapshot would not carry: a replica
//! that was restored has to give the same numbers as the others.

use rusqlite::{Connection, OptionalExtension, Result, params};

/// Every table by its name, with the statements that make it and its indexes. All of them are in snapshots.
pub const TABLES: &[(&str, &str)] = &[
    ("mailbox_counter", "CREATE TABLE mailbox_counter (name TEXT PRIMARY KEY, last INTEGER NOT NULL) STRICT;"),
    (
        "mailbox",
        "CREATE TABLE mailbox (
            mailbox INTEGER PRIMARY KEY, workspace TEXT NOT NULL, owner TEXT NOT NULL, held INTEGER NOT NULL,
            dead INTEGER NOT NULL, bytes INTEGER NOT NULL, served INTEGER NOT NULL, settled_ms INTEGER NOT NULL,
            interval_ms INTEGER NOT NULL, UNIQUE (workspace, owner)) STRICT;
         CREATE INDEX mailbox_waiting ON mailbox (mailbox) WHERE held > dead AND instr(owner, ':') = 0;
         CREATE INDEX mailbox_empty ON mailbox (workspace, mailbox) WHERE held = 0;",
    ),
    (
        "mailbox_message",
        "CREATE TABLE mailbox_message (
            message INTEGER PRIMARY KEY, workspace TEXT NOT NULL, id BLOB NOT NULL, sender TEXT NOT NULL, key TEXT,
            sent_ms INTEGER NOT NULL, held INTEGER NOT NULL, gone_ms INTEGER, body BLOB NOT NULL,
            UNIQUE (workspace, id)) STRICT;
         CREATE UNIQUE INDEX mailbox_message_key ON mailbox_message (workspace, sender, key) WHERE key IS NOT NULL;
         CREATE INDEX mailbox_message_gone ON mailbox_message (workspace, gone_ms) WHERE gone_ms IS NOT NULL;",
    ),
    (
        "mailbox_delivery",
        "CREATE TABLE mailbox_delivery (
            delivery INTEGER PRIMARY KEY, workspace TEXT NOT NULL, mailbox INTEGER NOT NULL, message INTEGER NOT NULL,
            sender TEXT NOT NULL, priority INTEGER NOT NULL, sent_ms INTEGER NOT NULL, bytes INTEGER NOT NULL,
            state INTEGER NOT NULL, attempts INTEGER NOT NULL, round INTEGER NOT NULL, due_ms INTEGER NOT NULL, expires_ms INTEGER,
            term INTEGER NOT NULL, reason TEXT, wait INTEGER DEFAULT NULL) STRICT;
         CREATE INDEX mailbox_delivery_lane ON mailbox_delivery (mailbox, state, sender, priority, delivery);
         CREATE INDEX mailbox_delivery_due ON mailbox_delivery (mailbox, due_ms, delivery) WHERE state = 2;
         CREATE INDEX mailbox_delivery_pause ON mailbox_delivery (due_ms, workspace) WHERE state = 2 AND attempts > 0;
         CREATE INDEX mailbox_delivery_term ON mailbox_delivery (term, workspace) WHERE state = 1;
         CREATE INDEX mailbox_delivery_expires ON mailbox_delivery (expires_ms, workspace)
            WHERE expires_ms IS NOT NULL AND state IN (0, 2);
         CREATE INDEX mailbox_delivery_wait ON mailbox_delivery (wait, delivery) WHERE wait IS NOT NULL;
         CREATE INDEX mailbox_delivery_parked ON mailbox_delivery (delivery) WHERE state = 4;
         CREATE INDEX mailbox_delivery_dead ON mailbox_delivery (workspace, delivery) WHERE state = 3;",
    ),
    (
        "mailbox_lane",
        "CREATE TABLE mailbox_lane (
            mailbox INTEGER NOT NULL, sender TEXT NOT NULL, priority INTEGER NOT NULL, waiting INTEGER NOT NULL,
            served INTEGER NOT NULL, PRIMARY KEY (mailbox, sender, priority)) STRICT;",
    ),
    (
        "mailbox_sender",
        "CREATE TABLE mailbox_sender (
            mailbox INTEGER NOT NULL, sender TEXT NOT NULL, held INTEGER NOT NULL, bytes INTEGER NOT NULL,
            PRIMARY KEY (mailbox, sender)) STRICT;",
    ),
    (
        "mailbox_key",
        "CREATE TABLE mailbox_key (
            workspace TEXT NOT NULL, key BLOB NOT NULL, number INTEGER NOT NULL, owner TEXT NOT NULL, public BLOB NOT NULL,
            held INTEGER NOT NULL, sealed_with TEXT NOT NULL, sealed BLOB NOT NULL, made_ms INTEGER NOT NULL, ends_ms INTEGER,
            PRIMARY KEY (workspace, key)) STRICT;
         CREATE INDEX mailbox_key_owner ON mailbox_key (workspace, owner, number);",
    ),
    (
        "mailbox_received",
        "CREATE TABLE mailbox_received (
            workspace TEXT NOT NULL, id BLOB NOT NULL, number INTEGER NOT NULL, received_ms INTEGER NOT NULL,
            PRIMARY KEY (workspace, id)) STRICT;
         CREATE INDEX mailbox_received_number ON mailbox_received (workspace, number);",
    ),
    (
        "agent_conversation",
        "CREATE TABLE agent_conversation (
            conversation INTEGER PRIMARY KEY, workspace TEXT NOT NULL, id TEXT NOT NULL, protocol TEXT,
            initiator TEXT NOT NULL, events INTEGER NOT NULL, open INTEGER NOT NULL, awarding INTEGER NOT NULL,
            deadline_ms INTEGER, changed_ms INTEGER NOT NULL, UNIQUE (workspace, id)) STRICT;
         CREATE INDEX agent_conversation_deadline ON agent_conversation (deadline_ms, workspace)
            WHERE deadline_ms IS NOT NULL;
         CREATE INDEX agent_conversation_changed ON agent_conversation (workspace, changed_ms) WHERE open = 0;
         CREATE INDEX agent_conversation_endless ON agent_conversation (workspace, changed_ms)
            WHERE open = 1 AND deadline_ms IS NULL;",
    ),
    (
        "agent_conversation_party",
        "CREATE TABLE agent_conversation_party (
            conversation INTEGER NOT NULL, participant TEXT NOT NULL, state TEXT NOT NULL, cancelling INTEGER NOT NULL,
            cancel_with TEXT, PRIMARY KEY (conversation, participant)) STRICT;",
    ),
    (
        "agent_conversation_event",
        "CREATE TABLE agent_conversation_event (
            conversation INTEGER NOT NULL, number INTEGER NOT NULL, at_ms INTEGER NOT NULL, sender TEXT NOT NULL,
            receivers TEXT NOT NULL, performative INTEGER NOT NULL, id BLOB NOT NULL, workspace TEXT NOT NULL DEFAULT '',
            position INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (conversation, number)) STRICT;
         CREATE INDEX agent_conversation_event_position ON agent_conversation_event (workspace, position);",
    ),
    (
        "topic_subscription",
        "CREATE TABLE topic_subscription (
            subscription INTEGER PRIMARY KEY, workspace TEXT NOT NULL, subscriber TEXT NOT NULL, name TEXT NOT NULL,
            pattern TEXT NOT NULL, position INTEGER NOT NULL, missed INTEGER NOT NULL, filter TEXT NOT NULL DEFAULT '',
            held_until_ms INTEGER NOT NULL DEFAULT 0, UNIQUE (workspace, subscriber, name)) STRICT;
         CREATE INDEX topic_subscription_position ON topic_subscription (workspace, position);",
    ),
    (
        "topic_publication",
        "CREATE TABLE topic_publication (
            workspace TEXT NOT NULL, position INTEGER NOT NULL, topic TEXT NOT NULL, message INTEGER NOT NULL,
            PRIMARY KEY (workspace, position)) STRICT;",
    ),
    (
        "agent_state",
        "CREATE TABLE agent_state (
            workspace TEXT NOT NULL, agent TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,
            PRIMARY KEY (workspace, agent, key)) STRICT;",
    ),
    (
        "agent_wait",
        "CREATE TABLE agent_wait (
            wait INTEGER PRIMARY KEY, workspace TEXT NOT NULL, owner TEXT NOT NULL, turn TEXT NOT NULL, way TEXT NOT NULL,
            conversation TEXT NOT NULL, awaited TEXT NOT NULL, missing INTEGER NOT NULL, until_ms INTEGER NOT NULL,
            UNIQUE (workspace, turn, way)) STRICT;
         CREATE INDEX agent_wait_conversation ON agent_wait (workspace, owner, conversation);
         CREATE INDEX agent_wait_until ON agent_wait (until_ms);
         CREATE INDEX agent_wait_over ON agent_wait (wait) WHERE missing <= 0;",
    ),
    (
        "agent_roster",
        "CREATE TABLE agent_roster (workspace TEXT PRIMARY KEY, revision INTEGER NOT NULL) STRICT;",
    ),
    (
        "agent_program",
        "CREATE TABLE agent_program (
            workspace TEXT NOT NULL, agent TEXT NOT NULL, PRIMARY KEY (workspace, agent)) STRICT;",
    ),
    (
        "message_schedule",
        "CREATE TABLE message_schedule (
            workspace TEXT NOT NULL, name TEXT NOT NULL, words TEXT NOT NULL, reached_ms INTEGER NOT NULL,
            PRIMARY KEY (workspace, name)) STRICT;",
    ),
];

/// Where a delivery is, as its table says it.
pub(crate) mod state {
    /// It waits for its first attempt.
    pub(crate) const READY: i64 = 0;
    /// It was given to its receiver.
    pub(crate) const STARTED: i64 = 1;
    /// It waits for another attempt.
    pub(crate) const RETRY: i64 = 2;
    /// It is a dead letter.
    pub(crate) const DEAD: i64 = 3;
    /// The turn that it began was put down.
    pub(crate) const PARKED: i64 = 4;
    /// It is kept for a turn that waits for it.
    pub(crate) const AWAITED: i64 = 5;
}

/// A number of a command as SQLite has it. One that is too large names nothing.
pub(crate) fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number of a row, which is never negative, as commands have it.
pub(crate) fn given(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// The next number of a kind, from 1.
pub(crate) fn count(db: &Connection, name: &str) -> Result<i64> {
    // RETURNING would open a table for what it returns, each time, which takes ten times as long as both of these.
    let sql = "SELECT last FROM mailbox_counter WHERE name = ?1";
    let found: Option<i64> = db.prepare_cached(sql)?.query_row([name], |row| row.get(0)).optional()?;
    let sql = match found {
        Some(_) => "UPDATE mailbox_counter SET last = ?2 WHERE name = ?1",
        None => "INSERT INTO mailbox_counter (name, last) VALUES (?1, ?2)",
    };
    let number = found.unwrap_or_default() + 1;
    db.prepare_cached(sql)?.execute(params![name, number])?;
    Ok(number)
}

/// The last number of a kind, 0 where none was given.
pub(crate) fn last(db: &Connection, name: &str) -> Result<i64> {
    let sql = "SELECT last FROM mailbox_counter WHERE name = ?1";
    Ok(db.prepare_cached(sql)?.query_row([name], |row| row.get(0)).optional()?.unwrap_or_default())
}
