//! What was said in a conversation, to be shown.

use caxton_proto::WorkspaceId;
use caxton_proto::acl::{MessageId, Performative};
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use crate::picture::Arrow;
use crate::tables::{given, stored};

/// A conversation between agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// The protocol that it follows.
    pub protocol: Option<String>,
    /// Who began it.
    pub initiator: String,
    /// Somebody has something more to say.
    pub open: bool,
    /// By when, in milliseconds since 1970.
    pub deadline_ms: Option<i64>,
    /// How far it is with each participant.
    pub participants: Vec<(String, String)>,
    /// Its events after the one that was asked for.
    pub events: Vec<Event>,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its number, which grows.
    pub number: u64,
    /// When it was taken in, in milliseconds since 1970.
    pub at_ms: i64,
    /// Who sent it.
    pub sender: String,
    /// Who received it.
    pub receivers: Vec<String>,
    /// What it does.
    pub performative: Performative,
    /// The message's id.
    pub id: MessageId,
}

/// A conversation with the events after a number, `most` of them.
pub fn conversation(
    db: &Connection,
    workspace: &WorkspaceId,
    id: &str,
    after: u64,
    most: usize,
) -> Result<Option<Conversation>> {
    let sql = "SELECT conversation, protocol, initiator, open, deadline_ms FROM agent_conversation
        WHERE workspace = ?1 AND id = ?2";
    let read = |row: &Row<'_>| {
        let (protocol, initiator, open, deadline_ms) = (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
        let (participants, events) = (Vec::new(), Vec::new());
        Ok((row.get::<_, i64>(0)?, Conversation { protocol, initiator, open, deadline_ms, participants, events }))
    };
    let found = db.prepare_cached(sql)?.query_row(params![workspace.as_str(), id], read).optional()?;
    let Some((row, mut conversation)) = found else { return Ok(None) };
    let sql = "SELECT participant, state FROM agent_conversation_party WHERE conversation = ?1 ORDER BY participant";
    let mut statement = db.prepare_cached(sql)?;
    let parties = statement.query_map([row], |row| Ok((row.get(0)?, row.get(1)?)))?;
    conversation.participants = parties.collect::<Result<_>>()?;
    let sql = "SELECT number, at_ms, sender, receivers, performative, id FROM agent_conversation_event
        WHERE conversation = ?1 AND number > ?2 ORDER BY number LIMIT ?3";
    let mut statement = db.prepare_cached(sql)?;
    let events = statement.query_map(params![row, stored(after), most as i64], |row| {
        Ok(Event {
            number: given(row.get(0)?),
            at_ms: row.get(1)?,
            sender: row.get(2)?,
            receivers: row.get::<_, String>(3)?.split('\n').map(str::to_owned).collect(),
            performative: Performative::from_number(row.get(4)?).unwrap_or(Performative::Inform),
            id: MessageId::from_bytes(row.get(5)?),
        })
    })?;
    conversation.events = events.collect::<Result<_>>()?;
    Ok(Some(conversation))
}

/// The arrows of a conversation's picture: one for each receiver of each message.
pub fn arrows(conversation: &Conversation) -> Vec<Arrow> {
    let of = |event: &Event| {
        let (from, label) = (event.sender.clone(), event.performative.name().to_owned());
        let arrow = move |to: &String| Arrow { from: from.clone(), to: to.clone(), label: label.clone() };
        event.receivers.iter().map(arrow).collect::<Vec<_>>()
    };
    conversation.events.iter().flat_map(of).collect()
}
