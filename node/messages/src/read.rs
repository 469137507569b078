//! What was said, to be shown: in one conversation, or in all of a workspace as it comes. And what waits for answers, and what agents
//! that are programs keep.

use std::collections::{BTreeMap, BTreeSet};

use caxton_proto::acl::{Address, Content, MessageId, Performative};
use caxton_proto::mailbox::{Submission, decode_message};
use caxton_proto::{AgentName, WorkspaceId};
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

/// A turn that waits no longer: all have answered, or its time is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedWait {
    /// The workspace of the agent that waited.
    pub workspace: WorkspaceId,
    /// The agent that waited.
    pub owner: Address,
    /// The turn that was put down.
    pub turn: String,
    /// The calls that lead to the one that waited, each on a line.
    pub way: String,
    /// The conversation in which the answers came.
    pub conversation: String,
    /// Who has not answered.
    pub awaited: Vec<Address>,
    /// Some have not.
    pub timed_out: bool,
    /// The answers, in the order in which they came.
    pub answers: Vec<AwaitedAnswer>,
}

/// An answer that is kept for a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwaitedAnswer {
    /// When it was taken in, in milliseconds since 1970.
    pub sent_ms: i64,
    /// The message with what is around it.
    pub submission: Submission,
}

/// Waits that are over, the oldest first, `most` of them. A tick ends those whose time is over, so that what is read here is
/// all that the turn will ever be told: a clock that is read here would let answers come after that.
pub fn ended_waits(db: &Connection, _now_ms: i64, most: usize) -> Result<Vec<EndedWait>> {
    let sql = "SELECT wait, workspace, owner, turn, way, conversation, awaited FROM agent_wait
        WHERE missing <= 0 ORDER BY wait LIMIT ?1";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query([most as i64])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let (workspace, owner, awaited): (String, String, String) = (row.get(1)?, row.get(2)?, row.get(6)?);
        let (Ok(workspace), Ok(owner)) = (workspace.parse(), owner.parse()) else { continue };
        let sql = "SELECT m.body, m.sent_ms FROM mailbox_delivery d JOIN mailbox_message m ON m.message = d.message
            WHERE d.wait = ?1 AND d.state = 5 ORDER BY d.delivery";
        let mut statement = db.prepare_cached(sql)?;
        let read = |row: &Row<'_>| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, i64>(1)?));
        let bodies = statement.query_map([row.get::<_, i64>(0)?], read)?;
        let bodies: Vec<(Vec<u8>, i64)> = bodies.collect::<Result<_>>()?;
        let answer = |(body, sent_ms): &(Vec<u8>, i64)| {
            Some(AwaitedAnswer { sent_ms: *sent_ms, submission: decode_message(body).ok()? })
        };
        all.push(EndedWait {
            workspace,
            owner,
            turn: row.get(3)?,
            way: row.get(4)?,
            conversation: row.get(5)?,
            awaited: awaited.lines().filter_map(|text| text.parse().ok()).collect(),
            timed_out: !awaited.is_empty(),
            answers: bodies.iter().filter_map(answer).collect(),
        });
    }
    Ok(all)
}

/// The state of an agent that is a program.
pub fn state(db: &Connection, workspace: &WorkspaceId, agent: &str) -> Result<BTreeMap<String, String>> {
    let sql = "SELECT key, value FROM agent_state WHERE workspace = ?1 AND agent = ?2";
    let mut statement = db.prepare_cached(sql)?;
    statement.query_map(params![workspace.as_str(), agent], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// The agents of a workspace that are known to be programs, and the revision of which that is known.
pub fn roster(db: &Connection, workspace: &WorkspaceId) -> Result<(u64, BTreeSet<AgentName>)> {
    let sql = "SELECT revision FROM agent_roster WHERE workspace = ?1";
    let revision = db.prepare_cached(sql)?.query_row([workspace.as_str()], |row| row.get(0)).optional()?;
    let mut statement = db.prepare_cached("SELECT agent FROM agent_program WHERE workspace = ?1")?;
    let agents = statement.query_map([workspace.as_str()], |row| row.get::<_, String>(0))?;
    let agents: Vec<String> = agents.collect::<Result<_>>()?;
    Ok((given(revision.unwrap_or_default()), agents.iter().filter_map(|agent| agent.parse().ok()).collect()))
}
