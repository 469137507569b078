//! What was said, to be shown: in one conversation, or in all of a workspace as it comes.

use caxton_proto::WorkspaceId;
use caxton_proto::acl::{Content, MessageId, Performative};
use caxton_proto::mailbox::decode_message;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use crate::picture::Arrow;
use crate::tables::{given, last, stored};

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
    /// All after the number that was asked for, up to this one, are in `events`.
    pub reached: u64,
    /// The number of its oldest event that is kept.
    pub oldest: u64,
    /// The number of its newest event.
    pub newest: u64,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The conversation that it belongs to.
    pub conversation: String,
    /// Its number in the conversation, from 1.
    pub number: u64,
    /// Its position among all events of the workspace, from 1; 0 for one that is older than positions are.
    pub position: u64,
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
    /// What it says, as long as somebody has yet to deal with it or a topic keeps it.
    pub content: Option<Content>,
}

/// What is read of an event: its own columns, its conversation's id, and its message while that is kept.
const EVENT: &str = "SELECT e.number, e.at_ms, e.sender, e.receivers, e.performative, e.id, e.position, c.id, m.body
    FROM agent_conversation_event e JOIN agent_conversation c ON c.conversation = e.conversation
    LEFT JOIN mailbox_message m ON m.workspace = c.workspace AND m.id = e.id";

fn event(row: &Row<'_>) -> Result<Event> {
    let body: Option<Vec<u8>> = row.get(8)?;
    Ok(Event {
        conversation: row.get(7)?,
        number: given(row.get(0)?),
        position: given(row.get(6)?),
        at_ms: row.get(1)?,
        sender: row.get(2)?,
        receivers: row.get::<_, String>(3)?.split('\n').map(str::to_owned).collect(),
        performative: Performative::from_number(row.get(4)?).unwrap_or(Performative::Inform),
        id: MessageId::from_bytes(row.get(5)?),
        content: body.and_then(|body| decode_message(&body).ok()).and_then(|of| of.message.content),
    })
}

/// What was said in a workspace after an event's position, `most` messages of it, in their order.
pub fn events(db: &Connection, workspace: &WorkspaceId, after: u64, most: usize) -> Result<Vec<Event>> {
    let sql = format!("{EVENT} WHERE e.workspace = ?1 AND e.position > ?2 ORDER BY e.position LIMIT ?3");
    let mut statement = db.prepare_cached(&sql)?;
    statement.query_map(params![workspace.as_str(), stored(after), most as i64], event)?.collect()
}

/// The position of the newest event of a workspace, 0 where there is none.
pub fn newest_event(db: &Connection, workspace: &WorkspaceId) -> Result<u64> {
    Ok(given(last(db, &format!("events/{workspace}"))?))
}

/// A conversation with the events after a number, `most` of them.
pub fn conversation(
    db: &Connection,
    workspace: &WorkspaceId,
    id: &str,
    after: u64,
    most: usize,
) -> Result<Option<Conversation>> {
    let sql = "SELECT conversation, protocol, initiator, open, deadline_ms, events,
        (SELECT min(number) FROM agent_conversation_event e WHERE e.conversation = c.conversation)
        FROM agent_conversation c WHERE workspace = ?1 AND id = ?2";
    let read = |row: &Row<'_>| {
        let conversation = Conversation {
            protocol: row.get(1)?,
            initiator: row.get(2)?,
            open: row.get(3)?,
            deadline_ms: row.get(4)?,
            participants: Vec::new(),
            events: Vec::new(),
            reached: after,
            oldest: given(row.get::<_, Option<i64>>(6)?.unwrap_or_default()),
            newest: given(row.get(5)?),
        };
        Ok((row.get::<_, i64>(0)?, conversation))
    };
    let found = db.prepare_cached(sql)?.query_row(params![workspace.as_str(), id], read).optional()?;
    let Some((row, mut conversation)) = found else { return Ok(None) };
    let sql = "SELECT participant, state FROM agent_conversation_party WHERE conversation = ?1 ORDER BY participant";
    let mut statement = db.prepare_cached(sql)?;
    let parties = statement.query_map([row], |row| Ok((row.get(0)?, row.get(1)?)))?;
    conversation.participants = parties.collect::<Result<_>>()?;
    let sql = format!("{EVENT} WHERE e.conversation = ?1 AND e.number > ?2 ORDER BY e.number LIMIT ?3");
    let mut statement = db.prepare_cached(&sql)?;
    let events = statement.query_map(params![row, stored(after), most as i64], event)?;
    conversation.events = events.collect::<Result<_>>()?;
    conversation.reached = conversation.events.last().map_or(after.min(conversation.newest), |last| last.number);
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
