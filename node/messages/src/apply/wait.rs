//! Turns that wait for answers: what comes in the conversation of a wait is kept for its turn, and for nobody else.

use caxton_proto::acl::{Address, Body, Message, Performative};
use caxton_proto::mailbox::{Await, Fate, Outcome, Reason, Receipt, Submission};
use rusqlite::{OptionalExtension, Result, Row, params};

use super::{About, Run, quoted};
use crate::circle::{Wait, circle};
use crate::tables::{count, given, state};

/// What a message is to a wait in its conversation.
enum Answer {
    /// It answers nothing, as a question does.
    Nothing,
    /// The platform says that the conversation's deadline has passed; the wait has one of its own.
    Notice,
    /// Its sender will do what was asked, and will say more.
    Agreement(String),
    /// Its sender, or whoever the platform answers for, has answered.
    Final(String),
    /// The platform says who did not answer by the conversation's deadline.
    Silence(Vec<String>),
}

impl Answer {
    fn of(message: &Message) -> Answer {
        let Some(sender) = &message.sender else { return Answer::Nothing };
        match message.performative {
            Performative::Agree => Answer::Agreement(sender.to_string()),
            Performative::AcceptProposal
            | Performative::Confirm
            | Performative::Disconfirm
            | Performative::Failure
            | Performative::Inform
            | Performative::NotUnderstood
            | Performative::Propose
            | Performative::Refuse
            | Performative::RejectProposal => match sender {
                Address::Platform => Answer::of_platform(message),
                sender => Answer::Final(sender.to_string()),
            },
            Performative::Cancel
            | Performative::Cfp
            | Performative::Propagate
            | Performative::Proxy
            | Performative::QueryIf
            | Performative::QueryRef
            | Performative::Request
            | Performative::RequestWhen
            | Performative::RequestWhenever
            | Performative::Subscribe => Answer::Nothing,
        }
    }

    /// The platform names whom it answers for, or who was silent.
    fn of_platform(message: &Message) -> Answer {
        if message.performative == Performative::Inform {
            return Answer::Notice;
        }
        let Some(Body::Json(text)) = message.content.as_ref().map(|content| &content.body) else {
            return Answer::Nothing;
        };
        let said: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
        if let Some(receiver) = said["receiver"].as_str() {
            return Answer::Final(receiver.to_owned());
        }
        let silent = said["silent"].as_array().map(|all| all.iter().filter_map(|name| name.as_str()));
        silent.map_or(Answer::Nothing, |names| Answer::Silence(names.map(str::to_owned).collect()))
    }
}

impl Run<'_> {
    /// Sends what a turn asks, and begins to wait for the answers; a wait that is known changes nothing.
    pub(super) fn wait(&self, wait: &Await) -> Result<Outcome> {
        let repeated = |one: &Submission| Receipt { id: one.id, fate: Fate::Duplicate(one.id) };
        let sql = "SELECT wait FROM agent_wait WHERE workspace = ?1 AND turn = ?2 AND way = ?3";
        let known = self
            .db
            .prepare_cached(sql)?
            .query_row(params![self.workspace(), wait.turn, wait.way], |row| row.get::<_, i64>(0));
        if known.optional()?.is_some() {
            return Ok(Outcome::Sent(wait.submissions.iter().map(repeated).collect()));
        }
        let sql = "SELECT count(*) FROM agent_wait WHERE workspace = ?1";
        let found: i64 = self.db.prepare_cached(sql)?.query_row([self.workspace()], |row| row.get(0))?;
        if found >= self.limits.waits_max {
            let what = "calls that wait for answers in the workspace".to_owned();
            let (found, most) = (given(found), given(self.limits.waits_max));
            return Ok(Outcome::Refused(Reason::Limit { what, found, most }));
        }
        if let Some(agents) = self.circle_with(wait)? {
            return Ok(Outcome::Refused(Reason::Circle { agents }));
        }
        // All of it, or nothing.
        self.db.execute_batch("SAVEPOINT wait")?;
        let mut receipts = Vec::with_capacity(wait.submissions.len());
        for submission in &wait.submissions {
            let fate = self.accept(submission)?;
            if let Fate::Refused(reason) = fate {
                self.db.execute_batch("ROLLBACK TO wait; RELEASE wait")?;
                return Ok(Outcome::Refused(reason));
            }
            receipts.push(Receipt { id: submission.id, fate });
        }
        self.db.execute_batch("RELEASE wait")?;
        let row = count(self.db, "wait")?;
        let mut awaited: Vec<String> = Vec::with_capacity(wait.awaited.len());
        for name in wait.awaited.iter().map(ToString::to_string) {
            if !awaited.contains(&name) {
                awaited.push(name);
            }
        }
        let sql = "INSERT INTO agent_wait (wait, workspace, owner, turn, way, conversation, awaited, missing, until_ms)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        self.db.prepare_cached(sql)?.execute(params![
            row,
            self.workspace(),
            wait.owner.to_string(),
            wait.turn,
            wait.way,
            wait.conversation,
            awaited.join("\n"),
            awaited.len() as i64,
            wait.until_ms
        ])?;
        Ok(Outcome::Sent(receipts))
    }

    /// The agents that would wait for each other with one more wait.
    fn circle_with(&self, wait: &Await) -> Result<Option<Vec<String>>> {
        let sql = "SELECT owner, awaited FROM agent_wait WHERE workspace = ?1 AND missing > 0 ORDER BY wait";
        let mut statement = self.db.prepare_cached(sql)?;
        let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
        let rows = statement.query_map([self.workspace()], read)?;
        let mut waits: Vec<Wait<String>> = Vec::new();
        for row in rows {
            let (owner, awaited) = row?;
            waits.extend(awaited.lines().map(|of| (owner.clone(), of.to_owned())));
        }
        waits.extend(wait.awaited.iter().map(|of| (wait.owner.to_string(), of.to_string())));
        Ok(circle(&waits))
    }

    /// The wait for which a message is kept that comes to somebody: the oldest one that still misses an answer of its sender.
    /// Everything else is delivered as any other message. A wait that is over takes nothing more, because its turn may have been
    /// told the answers already.
    pub(super) fn awaited_by(&self, to: &Address, of: &Submission) -> Result<Option<i64>> {
        let Some(conversation) = of.message.conversation_id.as_deref() else { return Ok(None) };
        let said = Answer::of(&of.message);
        if matches!(said, Answer::Nothing) {
            return Ok(None);
        }
        let sql = "SELECT wait, awaited, missing FROM agent_wait WHERE workspace = ?1 AND owner = ?2
            AND conversation = ?3 AND missing > 0 ORDER BY wait";
        let mut statement = self.db.prepare_cached(sql)?;
        let values = params![self.workspace(), to.to_string(), conversation];
        let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?));
        let open: Vec<(i64, String, i64)> = statement.query_map(values, read)?.collect::<Result<_>>()?;
        for (wait, awaited, missing) in open {
            let mut names: Vec<&str> = awaited.lines().collect();
            let left = match &said {
                Answer::Nothing => continue,
                Answer::Notice => missing,
                Answer::Agreement(sender) => {
                    if !names.contains(&sender.as_str()) || self.agreed(wait, sender)? {
                        continue;
                    }
                    missing
                }
                Answer::Final(sender) => {
                    let Some(at) = names.iter().position(|name| name == sender) else { continue };
                    names.remove(at);
                    missing - 1
                }
                Answer::Silence(silent) => {
                    missing - names.iter().filter(|name| silent.iter().any(|it| it == *name)).count() as i64
                }
            };
            let sql = "UPDATE agent_wait SET awaited = ?2, missing = ?3 WHERE wait = ?1";
            self.db.prepare_cached(sql)?.execute(params![wait, names.join("\n"), left])?;
            return Ok(Some(wait));
        }
        Ok(None)
    }

    /// Whether somebody's agreement is kept for a wait; one of each is enough.
    fn agreed(&self, wait: i64, sender: &str) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM mailbox_delivery WHERE wait = ?1 AND sender = ?2)";
        self.db.prepare_cached(sql)?.query_row(params![wait, sender], |row| row.get(0))
    }

    /// Ends the waits whose time is over, whoever is still missing; how many.
    pub(super) fn end_waits(&self, most: i64) -> Result<i64> {
        let sql = "UPDATE agent_wait SET missing = 0 WHERE wait IN (SELECT wait FROM agent_wait
            WHERE workspace = ?1 AND missing > 0 AND until_ms <= ?2 ORDER BY until_ms, wait LIMIT ?3)";
        let ended = self.db.prepare_cached(sql)?.execute(params![self.workspace(), self.now_ms, most])?;
        Ok(ended as i64)
    }

    /// Ends a wait. What was kept for it is gone where the turn has it, and is delivered otherwise.
    pub(super) fn resume(&self, owner: &Address, turn: &str, way: &str, taken: bool) -> Result<Outcome> {
        let sql =
            "DELETE FROM agent_wait WHERE workspace = ?1 AND turn = ?2 AND way = ?3 AND owner = ?4 RETURNING wait";
        let values = params![self.workspace(), turn, way, owner.to_string()];
        let found: Option<i64> = self.db.prepare_cached(sql)?.query_row(values, |row| row.get(0)).optional()?;
        let Some(wait) = found else { return Ok(Outcome::Stale) };
        let mut moved = Vec::new();
        for of in self.deliveries("wait = ?2", wait, i64::MAX)? {
            let sql = "UPDATE mailbox_delivery SET wait = NULL WHERE delivery = ?1";
            self.db.prepare_cached(sql)?.execute([of.delivery])?;
            if of.state != state::AWAITED {
                continue;
            }
            match taken {
                true => self.remove(&of)?,
                false => {
                    let (attempts, due_ms, expires_ms) = (of.attempts, of.due_ms, of.expires_ms);
                    let change =
                        super::deliver::Change { state: state::READY, attempts, due_ms, expires_ms, reason: None };
                    self.change(&of, &change)?;
                }
            }
            moved.push(given(of.delivery));
        }
        Ok(Outcome::Moved(moved))
    }

    /// Tells the sender of a message that waits for an answer that none will come, and ends its part of the conversation.
    pub(super) fn tell_of_failure(&self, of: &Submission, owner: &Address, reason: &str) -> Result<()> {
        let message = &of.message;
        let performative = match message.performative {
            Performative::Request
            | Performative::RequestWhen
            | Performative::RequestWhenever
            | Performative::QueryIf
            | Performative::QueryRef
            | Performative::Subscribe
            | Performative::Proxy
            | Performative::AcceptProposal => Performative::Failure,
            Performative::Cfp | Performative::Propose => Performative::Refuse,
            Performative::Agree
            | Performative::Cancel
            | Performative::Confirm
            | Performative::Disconfirm
            | Performative::Failure
            | Performative::Inform
            | Performative::NotUnderstood
            | Performative::Propagate
            | Performative::Refuse
            | Performative::RejectProposal => return Ok(()),
        };
        let sender = match &message.sender {
            Some(sender @ (Address::Agent(_) | Address::Elsewhere { .. } | Address::Subject(_))) => sender,
            Some(_) | None => return Ok(()),
        };
        let own = of.id.to_string();
        let conversation = message.conversation_id.as_deref().unwrap_or(&own);
        // A participant's part ends. Of a proposal it is the initiator's, whose deadline goes on.
        if message.performative != Performative::Propose {
            self.end_part(conversation, owner, performative)?;
        }
        let (number, to) = (of.id, owner.to_string());
        let about = About {
            key: &[number.as_bytes().as_slice(), to.as_bytes()].concat(),
            conversation,
            protocol: message.protocol.as_deref(),
            in_reply_to: message.reply_with.as_deref(),
        };
        let content = format!("{{\"message\":\"{own}\",\"receiver\":{},\"reason\":{}}}", quoted(&to), quoted(reason));
        self.tell_anywhere(sender, performative, &about, content)
    }
}
