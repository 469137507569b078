//! All of a workspace goes from the tables, because the workspace was deleted.

use caxton_proto::WorkspaceId;
use rusqlite::{Connection, Result, params};

/// What tells rows apart in a table, and which of them are the workspace's (`?1`).
type Part = (&'static str, &'static str, &'static str);

const OWN: &str = "workspace = ?1";
const OF_MAILBOX: &str = "mailbox IN (SELECT mailbox FROM mailbox WHERE workspace = ?1)";
const OF_CONVERSATION: &str = "conversation IN (SELECT conversation FROM agent_conversation WHERE workspace = ?1)";

/// The tables whose rows go first, because others say whose they are.
const FIRST: [Part; 15] = [
    ("mailbox_lane", "mailbox, sender, priority", OF_MAILBOX),
    ("mailbox_sender", "mailbox, sender", OF_MAILBOX),
    ("agent_conversation_party", "conversation, participant", OF_CONVERSATION),
    ("agent_conversation_event", "conversation, number", OF_CONVERSATION),
    ("mailbox_delivery", "delivery", OWN),
    ("mailbox_key", "workspace, key", OWN),
    ("mailbox_received", "workspace, id", OWN),
    ("topic_publication", "workspace, position", OWN),
    ("mailbox_message", "message", OWN),
    ("topic_subscription", "subscription", OWN),
    ("agent_state", "workspace, agent, key", OWN),
    ("agent_wait", "wait", OWN),
    ("agent_roster", "workspace", OWN),
    ("agent_program", "workspace, agent", OWN),
    ("message_schedule", "workspace, name", OWN),
];
/// Those that go once none of the others has a row of the workspace. A counter has the workspace behind its name.
const LAST: [Part; 3] = [
    ("mailbox", "mailbox", OWN),
    ("agent_conversation", "conversation", OWN),
    ("mailbox_counter", "name", "substr(name, -length(?1) - 1) = '/' || ?1"),
];

/// Takes rows of a workspace away, at most `rows_max` of each table; says whether none is left. Called again and again, it
/// leaves nothing of the workspace, and everything of the others.
pub fn clear(db: &Connection, workspace: &WorkspaceId, rows_max: u32) -> Result<bool> {
    Ok(all(db, &FIRST, workspace, rows_max)? && all(db, &LAST, workspace, rows_max)?)
}

fn all(db: &Connection, parts: &[Part], workspace: &WorkspaceId, rows_max: u32) -> Result<bool> {
    let mut is_clear = true;
    for (table, key, these) in parts {
        let delete = format!(
            "DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE {these} ORDER BY {key} LIMIT ?2)"
        );
        let gone = db.prepare_cached(&delete)?.execute(params![workspace.as_str(), rows_max])?;
        is_clear &= gone < rows_max as usize;
    }
    Ok(is_clear)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_is_cleared() {
        let mut cleared: Vec<&str> = FIRST.iter().chain(&LAST).map(|(table, ..)| *table).collect();
        let mut all: Vec<&str> = crate::TABLES.iter().map(|(name, _)| *name).collect();
        cleared.sort_unstable();
        all.sort_unstable();
        assert_eq!(cleared, all, "a table that is not here keeps what was deleted");
    }
}
