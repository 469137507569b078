//! How full mailboxes are, for whoever watches a node.

use rusqlite::{Connection, Result, Row};

use crate::tables::given;

/// The mailboxes of one workspace, taken together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Depth {
    /// The workspace's name.
    pub workspace: String,
    /// Deliveries that wait, are under way or are tried again.
    pub waiting: u64,
    /// Bytes of all that lies there.
    pub bytes: u64,
    /// How long ago the oldest message was sent that waits for its first attempt, in milliseconds; 0 where none does.
    pub oldest_ms: u64,
    /// Dead letters by the kind of their reason, in the order of [`DEAD_KINDS`].
    pub dead: [u64; DEAD_KINDS.len()],
}

/// The kinds of reasons for which a delivery is a dead letter: its last attempt failed, it expired, or it could never succeed.
pub const DEAD_KINDS: [&str; 3] = ["attempts", "expired", "refused"];

/// The mailboxes of each workspace that has any. It reads what is counted and the first of each lane, and no message.
pub fn depths(db: &Connection, now_ms: i64) -> Result<Vec<Depth>> {
    let sql = "SELECT workspace, sum(held - dead), sum(bytes) FROM mailbox GROUP BY workspace ORDER BY workspace";
    let read = |row: &Row<'_>| {
        let (workspace, waiting, bytes) = (row.get(0)?, given(row.get(1)?), given(row.get(2)?));
        Ok(Depth { workspace, waiting, bytes, ..Depth::default() })
    };
    let mut depths: Vec<Depth> = db.prepare_cached(sql)?.query_map([], read)?.collect::<Result<_>>()?;
    let sql = "SELECT b.workspace, min(d.sent_ms) FROM mailbox_lane l JOIN mailbox b ON b.mailbox = l.mailbox
        JOIN mailbox_delivery d ON d.delivery = (SELECT x.delivery FROM mailbox_delivery x WHERE x.mailbox = l.mailbox
            AND x.state = 0 AND x.sender = l.sender AND x.priority = l.priority ORDER BY x.delivery LIMIT 1)
        WHERE l.waiting > 0 GROUP BY b.workspace";
    let mut statement = db.prepare_cached(sql)?;
    let oldest = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))?;
    for (workspace, sent_ms) in oldest.collect::<Result<Vec<_>>>()? {
        let Some(of) = depths.iter_mut().find(|of| of.workspace == workspace) else { continue };
        of.oldest_ms = given(now_ms.saturating_sub(sent_ms));
    }
    let sql = "SELECT workspace, CASE WHEN reason = 'it expired' THEN 1 WHEN reason LIKE '% attempts failed; the last: %' THEN 0
        ELSE 2 END, count(*) FROM mailbox_delivery WHERE state = 3 GROUP BY 1, 2";
    let mut statement = db.prepare_cached(sql)?;
    let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, u8>(1)?, given(row.get(2)?)));
    for (workspace, kind, count) in statement.query_map([], read)?.collect::<Result<Vec<_>>>()? {
        let Some(of) = depths.iter_mut().find(|of| of.workspace == workspace) else { continue };
        if let Some(dead) = of.dead.get_mut(usize::from(kind)) {
            *dead = count;
        }
    }
    Ok(depths)
}
