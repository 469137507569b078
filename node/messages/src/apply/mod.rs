//! What each command does to the tables, within the transaction that the connection is in.

mod clear;
mod conversation;
mod deliver;
mod keys;
mod receive;
mod schedule;
mod send;
mod settle;
mod state;
mod tick;
mod topics;
mod wait;

use caxton_proto::WorkspaceId;
use caxton_proto::acl::{Address, Content, Message, MessageId, Performative};
use caxton_proto::mailbox::{Action, Command, Outcome, Submission};
use rusqlite::{Connection, Result};

pub use self::clear::clear;
use self::deliver::EncodedMessage;
pub use self::deliver::{count_mailboxes, count_senders};
use self::topics::Interest;
use crate::Limits;
use crate::tables::stored;

/// Carries a command out. `term` is that of the leader that proposed it. What the command decides, it decides by the rows
/// alone; an error is one of the database.
pub fn apply(db: &Connection, command: &Command, term: u64, limits: &Limits) -> Result<Outcome> {
    if let Err(reason) = command.check() {
        return Ok(Outcome::Refused(reason));
    }
    let mailboxes_max = command.mailboxes_max.map_or(i64::MAX, stored);
    let run = Run { db, workspace: &command.workspace, now_ms: command.time_ms, term, limits, mailboxes_max };
    match &command.action {
        Action::Send(all) => Ok(Outcome::Sent(all.iter().map(|one| run.send(one)).collect::<Result<_>>()?)),
        Action::Start(all) => Ok(Outcome::Started(run.start(all)?)),
        Action::Settle { delivery, attempt, verdict, submissions, state } => {
            run.settle(*delivery, *attempt, verdict, submissions, state)
        }
        Action::Park { delivery, attempt } => run.park(*delivery, *attempt),
        Action::Await(wait) => run.wait(wait),
        Action::Resume { owner, turn, way, taken } => run.resume(owner, turn, way, *taken),
        Action::Roster { revision, programs } => run.roster(*revision, programs),
        Action::SetKey(key) => run.set_key(key),
        Action::Receive { source, submission } => run.receive(source, submission),
        Action::Tick { term } => run.tick(*term),
        Action::Redrive(all) => Ok(Outcome::Moved(run.redrive(all)?)),
        Action::Drop(all) => Ok(Outcome::Moved(run.drop(all)?)),
        Action::Subscribe { subscriber, name, pattern, filter, after } => {
            run.subscribe(subscriber, name, Interest { pattern, filter, after: *after })
        }
        Action::Fire { schedule, words, tick_ms, submission } => {
            run.fire(schedule, words, *tick_ms, submission.as_deref())
        }
        Action::Unschedule(all) => run.unschedule(all),
        Action::Unsubscribe { subscriber, name } => run.unsubscribe(subscriber, name),
    }
}

/// One command on its way through the tables.
struct Run<'a> {
    db: &'a Connection,
    workspace: &'a WorkspaceId,
    now_ms: i64,
    term: u64,
    limits: &'a Limits,
    mailboxes_max: i64,
}

impl Run<'_> {
    fn workspace(&self) -> &str {
        self.workspace.as_str()
    }

    /// A counter's name within the workspace.
    fn of_workspace(&self, kind: &str) -> String {
        format!("{kind}/{}", self.workspace)
    }

    /// The platform tells somebody something. It comes whether there is room or not: it is about what they did themselves, and
    /// the same on every replica.
    fn tell(&self, to: &Address, performative: Performative, about: &About<'_>, content: String) -> Result<()> {
        // In its own workspace the same is decided by the same rules.
        if matches!(to, Address::Elsewhere { .. }) {
            return Ok(());
        }
        self.tell_anywhere(to, performative, about, content)
    }

    /// The same, also to an agent of another workspace.
    fn tell_anywhere(
        &self,
        to: &Address,
        performative: Performative,
        about: &About<'_>,
        content: String,
    ) -> Result<()> {
        let id = MessageId::derived(&[about.key, about.conversation.as_bytes(), to.to_string().as_bytes()]);
        let mut message = Message::new(performative, [to.clone()]).stamped(Address::Platform);
        message.content = Some(Content::json(content));
        message.protocol = about.protocol.map(str::to_owned);
        message.conversation_id = Some(about.conversation.to_owned());
        message.in_reply_to = about.in_reply_to.map(str::to_owned);
        let submission = Submission::new(id, message);
        if self.known(&submission)?.is_some() {
            return Ok(());
        }
        let encoded = EncodedMessage::of(&submission);
        let row = self.keep(&encoded, 1)?;
        self.deliver(row, &encoded, to, None)?;
        self.note_event(about.conversation, &submission)?;
        Ok(())
    }
}

/// What the platform says something about.
struct About<'a> {
    /// What makes the message's id, with its conversation and its receiver.
    key: &'a [u8],
    conversation: &'a str,
    protocol: Option<&'a str>,
    in_reply_to: Option<&'a str>,
}

/// A text as the text of a JSON value.
fn quoted(text: &str) -> String {
    let mut json = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            c if c.is_control() => json.push(' '),
            c => json.push(c),
        }
    }
    json.push('"');
    json
}
