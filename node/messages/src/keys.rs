//! Keys and signed messages, to be read.

use caxton_proto::WorkspaceId;
use caxton_proto::acl::{Address, MessageId};
use caxton_proto::mailbox::{KEY_BYTES, KeyId, Submission, decode_message};
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

/// A key with which a sender signs, or did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageKey {
    /// Who signs with it.
    pub owner: Address,
    /// The id that signatures name it by.
    pub id: KeyId,
    /// The public key.
    pub public: [u8; KEY_BYTES],
    /// The nodes sign with it; else its owner does.
    pub held: bool,
    /// The data key that `sealed` was sealed with.
    pub sealed_with: String,
    /// The seed of a key that is held, the public key of any other, sealed.
    pub sealed: Vec<u8>,
    /// When it was made, in milliseconds since 1970.
    pub made_ms: i64,
    /// What is taken in from this time on it does not verify; absent for the key that its owner signs with.
    pub ends_ms: Option<i64>,
}

const KEY: &str = "SELECT owner, key, public, held, sealed_with, sealed, made_ms, ends_ms FROM mailbox_key";

/// A row that names nobody was not written by `apply`.
fn key(row: &Row<'_>) -> Result<Option<MessageKey>> {
    let Ok(owner) = row.get::<_, String>(0)?.parse() else { return Ok(None) };
    Ok(Some(MessageKey {
        owner,
        id: KeyId::from_bytes(row.get(1)?),
        public: row.get(2)?,
        held: row.get(3)?,
        sealed_with: row.get(4)?,
        sealed: row.get(5)?,
        made_ms: row.get(6)?,
        ends_ms: row.get(7)?,
    }))
}

/// The keys of a workspace, `most` of them after a number of them, or those of one sender.
pub fn message_keys(
    db: &Connection,
    workspace: &WorkspaceId,
    owner: Option<&Address>,
    (after, most): (usize, usize),
) -> Result<Vec<MessageKey>> {
    let sql =
        format!("{KEY} WHERE workspace = ?1 AND (?2 IS NULL OR owner = ?2) ORDER BY owner, number LIMIT ?4 OFFSET ?3");
    let mut statement = db.prepare_cached(&sql)?;
    let values = params![workspace.as_str(), owner.map(Address::to_string), after as i64, most as i64];
    statement.query_map(values, key)?.filter_map(Result::transpose).collect()
}

/// The key that a sender signs with.
pub fn signing_key(db: &Connection, workspace: &WorkspaceId, owner: &Address) -> Result<Option<MessageKey>> {
    let sql = format!("{KEY} WHERE workspace = ?1 AND owner = ?2 AND ends_ms IS NULL");
    let values = params![workspace.as_str(), owner.to_string()];
    Ok(db.prepare_cached(&sql)?.query_row(values, key).optional()?.flatten())
}

/// A key by its id.
pub fn message_key(db: &Connection, workspace: &WorkspaceId, id: KeyId) -> Result<Option<MessageKey>> {
    let sql = format!("{KEY} WHERE workspace = ?1 AND key = ?2");
    let values = params![workspace.as_str(), id.as_bytes()];
    Ok(db.prepare_cached(&sql)?.query_row(values, key).optional()?.flatten())
}

/// A message that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptMessage {
    /// The message with what is around it.
    pub submission: Submission,
    /// When it was taken in, in milliseconds since 1970.
    pub sent_ms: i64,
}

/// A message by its id, as long as it is kept.
pub fn kept_message(db: &Connection, workspace: &WorkspaceId, id: MessageId) -> Result<Option<KeptMessage>> {
    let sql = "SELECT sent_ms, body FROM mailbox_message WHERE workspace = ?1 AND id = ?2";
    let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?));
    let found = db.prepare_cached(sql)?.query_row(params![workspace.as_str(), id.as_bytes()], read).optional()?;
    // Of one that is gone only its key is kept.
    let kept = found.filter(|(_, body)| !body.is_empty());
    Ok(kept.and_then(|(sent_ms, body)| Some(KeptMessage { submission: decode_message(&body).ok()?, sent_ms })))
}
