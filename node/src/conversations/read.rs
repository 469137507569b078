//! What can be read of a shard's state, on any node that follows it.

use std::sync::Arc;

use caxton_proto::{AgentName, WorkspaceId};
use rusqlite::{Connection, Row, params};

use super::log::{DecodeError, DocumentKind, Suspension, TurnRecord};
use super::rows::{Summary, conversation_of, number, number_of, summary};
use crate::chat::Spent;
use crate::shard::{self, Database};

/// The conversations in the state of one shard.
pub struct State(Arc<shard::State>);

/// The documents that a turn keeps, and where the next piece goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Documents {
    /// The whole ones, in their order.
    pub whole: Vec<Vec<u8>>,
    /// The number of the next piece: after those of the last whole document.
    pub next: u32,
}

/// The state could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The database failed.
    #[error("the conversations cannot be read")]
    Database(#[from] rusqlite::Error),
    /// A row is not what it should be.
    #[error("a stored conversation is damaged; restore the data directory from a backup")]
    Damaged(#[from] DecodeError),
    /// A name is not what it should be.
    #[error("a stored conversation has a damaged name; restore the data directory from a backup")]
    Name(#[from] caxton_proto::InvalidId),
}

impl State {
    /// Those in this state.
    pub(super) fn of(state: &Arc<shard::State>) -> State {
        State(Arc::clone(state))
    }

    fn database(&self) -> &Database {
        self.0.database()
    }

    /// A conversation without its turns.
    pub fn summary(&self, workspace: &WorkspaceId, conversation: &str) -> Result<Option<Summary>, ReadError> {
        self.database().read(|db| Ok(conversation_of(db, workspace.as_str(), conversation)?))
    }

    /// The turns of a conversation, the newest first, until `enough` says so.
    pub fn turns(
        &self,
        workspace: &WorkspaceId,
        conversation: &str,
        mut enough: impl FnMut(&TurnRecord) -> bool,
    ) -> Result<Vec<TurnRecord>, ReadError> {
        self.database().scan(|db| {
            let newest_first = "SELECT body FROM turn WHERE workspace = ?1 AND conversation = ?2 ORDER BY number DESC";
            let mut statement = db.prepare_cached(newest_first)?;
            let mut rows = statement.query([workspace.as_str(), conversation])?;
            let mut turns = Vec::new();
            while let Some(row) = rows.next()? {
                let turn = TurnRecord::decode_row(body(row)?)?;
                let stop = enough(&turn);
                turns.push(turn);
                if stop {
                    break;
                }
            }
            Ok(turns)
        })
    }

    /// At most `most` turns of a conversation after a number, each with its number, counted from 1.
    pub fn turns_after(
        &self,
        workspace: &WorkspaceId,
        conversation: &str,
        after: u64,
        most: usize,
    ) -> Result<Vec<(u64, TurnRecord)>, ReadError> {
        self.database().scan(|db| {
            // The first turn's row has the number 0.
            let sql = "SELECT body, number + 1 FROM turn WHERE workspace = ?1 AND conversation = ?2 AND number >= ?3 \
                ORDER BY number LIMIT ?4";
            let mut statement = db.prepare_cached(sql)?;
            let after = i64::try_from(after).unwrap_or(i64::MAX);
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            let mut rows = statement.query(params![workspace.as_str(), conversation, after, most])?;
            let mut turns = Vec::new();
            while let Some(row) = rows.next()? {
                turns.push((number(row, 1)?, TurnRecord::decode_row(body(row)?)?));
            }
            Ok(turns)
        })
    }

    /// A turn that is over.
    pub fn turn(&self, workspace: &WorkspaceId, turn: &str) -> Result<Option<TurnRecord>, ReadError> {
        let sql = "SELECT body FROM turn WHERE workspace = ?1 AND turn = ?2";
        self.database().read(|db| one(db, sql, [workspace.as_str(), turn], TurnRecord::decode_row))
    }

    /// Conversations, the newest first, from after `cursor`; with the cursor of each.
    pub fn list(
        &self,
        workspace: &WorkspaceId,
        cursor: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, String, Summary)>, ReadError> {
        let (time, id) = cursor.and_then(read_cursor).unwrap_or((i64::MAX, String::new()));
        self.database().scan(|db| {
            let mut statement = db.prepare_cached(
                "SELECT title, agent, turns, input, output, created_ms, updated_ms, id FROM conversation \
                 WHERE workspace = ?1 AND (updated_ms < ?2 OR (updated_ms = ?2 AND id > ?3)) \
                 ORDER BY updated_ms DESC, id LIMIT ?4",
            )?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let mut rows = statement.query(params![workspace.as_str(), time, id, limit])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let (summary, id) = (summary(row)?, row.get::<_, String>(7)?);
                found.push((cursor_of(&summary, &id), id, summary));
            }
            Ok(found)
        })
    }

    /// At most `limit` conversations that are beyond one of the two: those whose last turn was before `before_ms`, and those
    /// that are not among the newest `newest`.
    pub fn beyond(
        &self,
        workspace: &WorkspaceId,
        before_ms: Option<u64>,
        newest: Option<u64>,
        limit: usize,
    ) -> Result<Vec<String>, ReadError> {
        let most = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.database().scan(|db| {
            let mut statement = db.prepare_cached(
                "SELECT id FROM conversation WHERE workspace = ?1 AND (updated_ms < ?2 OR id NOT IN (SELECT id FROM \
                 conversation WHERE workspace = ?1 ORDER BY updated_ms DESC, id LIMIT ?3)) ORDER BY updated_ms, id LIMIT ?4",
            )?;
            let (before, newest) = (before_ms.map_or(0, most), newest.map_or(-1, most));
            let found = statement.query_map(params![workspace.as_str(), before, newest, limit as i64], |row| row.get(0))?;
            Ok(found.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Turns that wait for a person, the oldest first.
    pub fn waiting(&self, workspace: &WorkspaceId) -> Result<Vec<Suspension>, ReadError> {
        self.database().scan(|db| {
            let mut statement = db.prepare_cached("SELECT body FROM waiting WHERE workspace = ?1 ORDER BY turn")?;
            let mut rows = statement.query([workspace.as_str()])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push(Suspension::decode_row(body(row)?)?);
            }
            Ok(found)
        })
    }

    /// A turn that waits for a person.
    pub fn waits(&self, workspace: &WorkspaceId, turn: &str) -> Result<Option<Suspension>, ReadError> {
        let sql = "SELECT body FROM waiting WHERE workspace = ?1 AND turn = ?2";
        self.database().read(|db| one(db, sql, [workspace.as_str(), turn], Suspension::decode_row))
    }

    /// What a turn keeps.
    pub fn kept(&self, workspace: &WorkspaceId, turn: &str, of: DocumentKind) -> Result<Documents, ReadError> {
        self.database().read(|db| {
            let mut statement = db.prepare_cached(
                "SELECT number, ends, text FROM piece WHERE workspace = ?1 AND turn = ?2 AND kind = ?3 ORDER BY number",
            )?;
            let mut rows = statement.query(params![workspace.as_str(), turn, number_of(of)])?;
            let (mut documents, mut content, mut expected) = (Documents::default(), Vec::new(), 0_u32);
            while let Some(row) = rows.next()? {
                // What comes after a gap was never said to be there.
                if row.get::<_, u32>(0)? != expected {
                    break;
                }
                expected += 1;
                // Text where the first format was written.
                content.extend_from_slice(row.get_ref(2)?.as_bytes().map_err(rusqlite::Error::from)?);
                if row.get(1)? {
                    documents.whole.push(std::mem::take(&mut content));
                    documents.next = expected;
                }
            }
            Ok(documents)
        })
    }

    /// Turns that began, are not over, and wait for nobody.
    pub fn underway(&self) -> Result<Vec<(WorkspaceId, String)>, ReadError> {
        self.database().scan(|db| {
            let mut statement = db.prepare_cached(
                "SELECT DISTINCT workspace, turn FROM piece AS p WHERE kind = ?1 AND NOT EXISTS \
                 (SELECT 1 FROM waiting AS w WHERE w.workspace = p.workspace AND w.turn = p.turn)",
            )?;
            let mut rows = statement.query([number_of(DocumentKind::Journal)])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push((row.get::<_, String>(0)?.parse()?, row.get(1)?));
            }
            Ok(found)
        })
    }

    /// What each agent of a workspace used since a day (counted from 1970): the day, the agent and how much, the newest day first.
    pub fn spent_since(&self, workspace: &WorkspaceId, day: u64) -> Result<Vec<(u64, AgentName, Spent)>, ReadError> {
        self.database().scan(|db| {
            let mut statement = db.prepare_cached(
                "SELECT day, agent, tokens, cost FROM day WHERE workspace = ?1 AND day >= ?2 ORDER BY day DESC, agent",
            )?;
            let mut rows = statement.query(params![workspace.as_str(), day.cast_signed()])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let spent = Spent { tokens: number(row, 2)?, cost: number(row, 3)? };
                found.push((number(row, 0)?, row.get::<_, String>(1)?.parse()?, spent));
            }
            Ok(found)
        })
    }

    /// What each agent used on a day, in all workspaces of the shard.
    pub fn spent(&self, day: u64) -> Result<Vec<(WorkspaceId, AgentName, Spent)>, ReadError> {
        self.database().scan(|db| {
            let mut statement = db.prepare_cached("SELECT workspace, agent, tokens, cost FROM day WHERE day = ?1")?;
            let mut rows = statement.query([day.cast_signed()])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let spent = Spent { tokens: number(row, 2)?, cost: number(row, 3)? };
                found.push((row.get::<_, String>(0)?.parse()?, row.get::<_, String>(1)?.parse()?, spent));
            }
            Ok(found)
        })
    }
}

fn body<'a>(row: &'a Row<'_>) -> Result<&'a [u8], ReadError> {
    Ok(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)
}

fn one<T>(
    db: &Connection,
    sql: &str,
    of: [&str; 2],
    read: impl Fn(&[u8]) -> Result<T, DecodeError>,
) -> Result<Option<T>, ReadError> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(of)?;
    rows.next()?.map(|row| Ok(read(body(row)?)?)).transpose()
}

fn cursor_of(summary: &Summary, id: &str) -> Vec<u8> {
    [summary.updated_ms.to_be_bytes().as_slice(), id.as_bytes()].concat()
}

fn read_cursor(cursor: &[u8]) -> Option<(i64, String)> {
    let (time, id) = cursor.split_first_chunk::<8>()?;
    Some((i64::from_be_bytes(*time), String::from_utf8_lossy(id).into_owned()))
}
