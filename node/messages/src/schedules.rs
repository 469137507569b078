//! How far schedules have come.

use caxton_proto::WorkspaceId;
use rusqlite::{Connection, Result, Row};

/// A schedule that has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// The workspace whose agent has it.
    pub workspace: WorkspaceId,
    /// Its agent's name and its own, with a slash between.
    pub schedule: String,
    /// When it ticks, in words.
    pub words: String,
    /// The last tick that is done, or when it began, in milliseconds since 1970.
    pub reached_ms: i64,
}

/// All schedules of a shard that have begun.
pub fn schedules(db: &Connection) -> Result<Vec<Reached>> {
    let sql = "SELECT workspace, name, words, reached_ms FROM message_schedule ORDER BY workspace, name";
    let read = |row: &Row<'_>| {
        let Ok(workspace) = row.get::<_, String>(0)?.parse() else { return Ok(None) };
        Ok(Some(Reached { workspace, schedule: row.get(1)?, words: row.get(2)?, reached_ms: row.get(3)? }))
    };
    db.prepare_cached(sql)?.query_map([], read)?.filter_map(Result::transpose).collect()
}
