//! Conversations: their machines, their deadlines and their events, whose numbers grow.

use caxton_proto::acl::{Address, Message, Performative};
use caxton_proto::mailbox::{Reason, Submission};
use rusqlite::{OptionalExtension, Result, Row, params};

use super::{About, Run, quoted};
use crate::protocol::{Act, Lapse, Machine, Protocol, Role, State, award};
use crate::tables::{count, given};

/// What a message does to its conversation, before anything is written.
pub(super) struct Step {
    row: Option<i64>,
    id: String,
    protocol: Option<String>,
    initiator: String,
    parties: Vec<Party>,
    deadline_ms: Option<i64>,
    /// It is a proposal that came after the deadline.
    pub(super) late: bool,
}

/// A participant's machine, and what an answer to the initiator's cancel says in `in_reply_to`.
#[derive(Clone)]
struct Party {
    participant: String,
    machine: Machine,
    cancel_with: Option<String>,
}

/// A conversation's row.
struct Known {
    row: i64,
    protocol: Option<String>,
    initiator: String,
}

type Allowed<T> = std::result::Result<T, Reason>;

fn not_understood<T>(why: impl Into<String>) -> Allowed<T> {
    Err(Reason::NotUnderstood { why: why.into() })
}

impl Run<'_> {
    /// What a message does to its conversation, or why that does not allow it.
    pub(super) fn step(&self, id: &str, message: &Message) -> Result<Allowed<Step>> {
        let known = self.conversation(id)?;
        let protocol = match self.protocol_of(known.as_ref(), message) {
            Ok(protocol) => protocol,
            Err(reason) => return Ok(Err(reason)),
        };
        let sender = message.sender.as_ref().map(Address::to_string).unwrap_or_default();
        let mut step = Step {
            row: known.as_ref().map(|known| known.row),
            id: id.to_owned(),
            protocol: protocol.map(|protocol| protocol.name().to_owned()),
            initiator: known.map_or_else(|| sender.clone(), |known| known.initiator),
            parties: Vec::new(),
            deadline_ms: None,
            late: false,
        };
        if step.row.is_none()
            && let Some(full) = self.conversations_full()?
        {
            return Ok(Err(full));
        }
        let Some(protocol) = protocol else { return Ok(Ok(step)) };
        let with = match parties_of(&step.initiator, &sender, message) {
            Ok(with) => with,
            Err(reason) => return Ok(Err(reason)),
        };
        let role = if sender == step.initiator { Role::Initiator } else { Role::Participant };
        for participant in with {
            let party = match step.row {
                Some(row) => self.party(row, protocol, &participant)?,
                None => None,
            };
            let fresh = Party { participant, machine: Machine::new(protocol), cancel_with: None };
            match after(party.unwrap_or(fresh), role, message) {
                Ok((party, late)) => {
                    step.late |= late;
                    step.parties.push(party);
                }
                Err(reason) => return Ok(Err(reason)),
            }
        }
        if role == Role::Initiator && message.performative != Performative::Cancel {
            step.deadline_ms = message.reply_by_ms;
        }
        if let Some(row) = step.row {
            let sql = "SELECT count(*) FROM agent_conversation_party WHERE conversation = ?1";
            let found: i64 = self.db.prepare_cached(sql)?.query_row([row], |row| row.get(0))?;
            let found = found + step.parties.len() as i64;
            if found > self.limits.participants_max + caxton_proto::acl::RECEIVERS_MAX as i64 {
                let what = "participants in the conversation".to_owned();
                let most = given(self.limits.participants_max);
                return Ok(Err(Reason::Limit { what, found: given(found), most }));
            }
        }
        Ok(Ok(step))
    }

    /// The protocol of a conversation, which its first message names and every other one keeps to.
    fn protocol_of(&self, known: Option<&Known>, message: &Message) -> Allowed<Option<Protocol>> {
        let named = message.protocol.as_deref().and_then(Protocol::from_name);
        let Some(known) = known else { return Ok(named) };
        let kept = known.protocol.as_deref().and_then(Protocol::from_name);
        match (kept, named) {
            (Some(kept), Some(named)) if kept != named => not_understood(format!(
                "the conversation follows {}, and the message says {}",
                kept.name(),
                named.name()
            )),
            (None, Some(named)) => {
                not_understood(format!("the conversation follows no protocol; begin another one for {}", named.name()))
            }
            (kept, _) => Ok(kept),
        }
    }

    /// Whether no conversation can begin: as many as are kept are under way. One that is over makes room instead.
    fn conversations_full(&self) -> Result<Option<Reason>> {
        let kept = crate::tables::last(self.db, &self.of_workspace("conversations"))?;
        let most = self.limits.conversations_max;
        if kept < most {
            return Ok(None);
        }
        let sql = "SELECT EXISTS (SELECT 1 FROM agent_conversation WHERE workspace = ?1 AND open = 0)";
        let can_forget: bool = self.db.prepare_cached(sql)?.query_row([self.workspace()], |row| row.get(0))?;
        let what = "conversations under way in the workspace".to_owned();
        Ok((!can_forget).then(|| Reason::Limit { what, found: given(kept), most: given(most) }))
    }

    /// Forgets those that have been over for longest, until one more can be kept.
    fn make_room(&self) -> Result<()> {
        let kept = crate::tables::last(self.db, &self.of_workspace("conversations"))?;
        let over = (kept - self.limits.conversations_max + 1).clamp(0, self.limits.tick_max);
        if over > 0 {
            let sql = "SELECT conversation FROM agent_conversation WHERE workspace = ?1 AND open = 0
                ORDER BY changed_ms, conversation LIMIT ?2";
            let mut statement = self.db.prepare_cached(sql)?;
            let oldest = statement.query_map(params![self.workspace(), over], |row| row.get(0))?;
            self.forget(&oldest.collect::<Result<Vec<i64>>>()?)?;
        }
        Ok(())
    }

    fn conversation(&self, id: &str) -> Result<Option<Known>> {
        let sql = "SELECT conversation, protocol, initiator FROM agent_conversation WHERE workspace = ?1 AND id = ?2";
        let read = |row: &Row<'_>| Ok(Known { row: row.get(0)?, protocol: row.get(1)?, initiator: row.get(2)? });
        self.db.prepare_cached(sql)?.query_row(params![self.workspace(), id], read).optional()
    }

    fn party(&self, row: i64, protocol: Protocol, participant: &str) -> Result<Option<Party>> {
        let all = self.parties(row, protocol, Some(participant))?;
        Ok(all.into_iter().next())
    }

    fn parties(&self, row: i64, protocol: Protocol, participant: Option<&str>) -> Result<Vec<Party>> {
        let sql = "SELECT participant, state, cancelling, cancel_with FROM agent_conversation_party
            WHERE conversation = ?1 AND (?2 IS NULL OR participant = ?2) ORDER BY participant";
        let mut statement = self.db.prepare_cached(sql)?;
        let read = |row: &Row<'_>| {
            let state = State::from_name(&row.get::<_, String>(1)?).unwrap_or(State::Failed);
            let machine = Machine { protocol, state, cancelling: row.get(2)? };
            Ok(Party { participant: row.get(0)?, machine, cancel_with: row.get(3)? })
        };
        statement.query_map(params![row, participant], read)?.collect()
    }

    /// Writes what a message does to its conversation.
    pub(super) fn keep_step(&self, step: &Step) -> Result<()> {
        let row = match step.row {
            Some(row) => row,
            None => self.begin(&step.id, step.protocol.as_deref(), &step.initiator)?,
        };
        step.parties.iter().try_for_each(|party| self.keep_party(row, party))?;
        if let Some(deadline_ms) = step.deadline_ms {
            let sql = "UPDATE agent_conversation SET deadline_ms = ?2, awarding = 0 WHERE conversation = ?1";
            self.db.prepare_cached(sql)?.execute(params![row, deadline_ms])?;
        }
        // Without a protocol there is nothing to be over.
        if step.protocol.is_some() { self.close_if_over(row) } else { Ok(()) }
    }

    fn begin(&self, id: &str, protocol: Option<&str>, initiator: &str) -> Result<i64> {
        self.make_room()?;
        let row = count(self.db, "conversation")?;
        count(self.db, &self.of_workspace("conversations"))?;
        let sql =
            "INSERT INTO agent_conversation (conversation, workspace, id, protocol, initiator, events, open, awarding,
            changed_ms) VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6, 0, ?7)";
        let open = protocol.is_some();
        self.db.prepare_cached(sql)?.execute(params![
            row,
            self.workspace(),
            id,
            protocol,
            initiator,
            open,
            self.now_ms
        ])?;
        Ok(row)
    }

    fn keep_party(&self, row: i64, party: &Party) -> Result<()> {
        let sql = "INSERT INTO agent_conversation_party (conversation, participant, state, cancelling, cancel_with)
            VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (conversation, participant) DO UPDATE
            SET state = excluded.state, cancelling = excluded.cancelling, cancel_with = excluded.cancel_with";
        let Party { participant, machine, cancel_with } = party;
        let values = params![row, participant, machine.state.name(), machine.cancelling, cancel_with];
        self.db.prepare_cached(sql)?.execute(values).map(drop)
    }

    /// A conversation in which nobody has anything more to say needs no deadline.
    fn close_if_over(&self, row: i64) -> Result<()> {
        let sql = "SELECT state FROM agent_conversation_party WHERE conversation = ?1";
        let mut statement = self.db.prepare_cached(sql)?;
        let states: Vec<String> = statement.query_map([row], |row| row.get(0))?.collect::<Result<_>>()?;
        let open = states.iter().any(|name| State::from_name(name).is_some_and(|state| !state.is_end()));
        let sql = "UPDATE agent_conversation SET open = ?2, deadline_ms = CASE WHEN ?2 THEN deadline_ms END
            WHERE conversation = ?1";
        self.db.prepare_cached(sql)?.execute(params![row, open]).map(drop)
    }

    /// Notes a message among the events of its conversation, and gives its number.
    pub(super) fn note_event(&self, id: &str, submission: &Submission) -> Result<i64> {
        let sql = "SELECT conversation, events FROM agent_conversation WHERE workspace = ?1 AND id = ?2";
        let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
        let found = self.db.prepare_cached(sql)?.query_row(params![self.workspace(), id], read).optional()?;
        let Some((row, events)) = found else { return Ok(0) };
        let number = events + 1;
        let sql = "UPDATE agent_conversation SET events = ?2, changed_ms = ?3 WHERE conversation = ?1";
        self.db.prepare_cached(sql)?.execute(params![row, number, self.now_ms])?;
        let message = &submission.message;
        let sql =
            "INSERT INTO agent_conversation_event (conversation, number, at_ms, sender, receivers, performative, id,
            workspace, position) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        let position = count(self.db, &self.of_workspace("events"))?;
        let sender = message.sender.as_ref().map(Address::to_string).unwrap_or_default();
        let receivers: Vec<String> = message.receivers.iter().map(Address::to_string).collect();
        self.db.prepare_cached(sql)?.execute(params![
            row,
            number,
            self.now_ms,
            sender,
            receivers.join("\n"),
            message.performative.number(),
            submission.id.as_bytes(),
            self.workspace(),
            position
        ])?;
        let gone = number.saturating_sub(self.limits.events_kept);
        if gone > 0 {
            let sql = "DELETE FROM agent_conversation_event WHERE conversation = ?1 AND number <= ?2";
            self.db.prepare_cached(sql)?.execute(params![row, gone])?;
        }
        Ok(number)
    }

    /// Does what the deadlines that have passed say; how many there were.
    pub(super) fn lapse(&self, most: i64) -> Result<i64> {
        let sql = "SELECT conversation, id, protocol, initiator, awarding FROM agent_conversation
            WHERE deadline_ms IS NOT NULL AND deadline_ms <= ?2 AND +workspace = ?1
            ORDER BY deadline_ms, conversation LIMIT ?3";
        let read = |row: &Row<'_>| {
            let known = Known { row: row.get(0)?, protocol: row.get(2)?, initiator: row.get(3)? };
            Ok((known, row.get::<_, String>(1)?, row.get::<_, bool>(4)?))
        };
        let mut statement = self.db.prepare_cached(sql)?;
        let due = statement.query_map(params![self.workspace(), self.now_ms, most], read)?;
        let due: Vec<(Known, String, bool)> = due.collect::<Result<_>>()?;
        for (known, id, awarding) in &due {
            let sql = "UPDATE agent_conversation SET deadline_ms = NULL WHERE conversation = ?1";
            self.db.prepare_cached(sql)?.execute([known.row])?;
            let Some(protocol) = known.protocol.as_deref().and_then(Protocol::from_name) else { continue };
            let parties = self.parties(known.row, protocol, None)?;
            if *awarding {
                self.reject_rest(known, id, protocol, parties)?
            } else {
                self.lapse_one(known, id, protocol, parties)?
            }
            self.close_if_over(known.row)?;
        }
        Ok(due.len() as i64)
    }

    /// A participant answers no more: its part of the conversation ends as if it had said so.
    pub(super) fn end_part(&self, id: &str, participant: &Address, performative: Performative) -> Result<()> {
        let Some(known) = self.conversation(id)? else { return Ok(()) };
        let Some(protocol) = known.protocol.as_deref().and_then(Protocol::from_name) else { return Ok(()) };
        let Some(party) = self.party(known.row, protocol, &participant.to_string())? else { return Ok(()) };
        let act = Act { role: Role::Participant, performative, answers_cancel: false };
        if let Ok(machine) = party.machine.after(act) {
            self.keep_party(known.row, &Party { machine, ..party })?;
            self.close_if_over(known.row)?;
        }
        Ok(())
    }

    fn lapse_one(&self, known: &Known, id: &str, protocol: Protocol, parties: Vec<Party>) -> Result<()> {
        let (mut bids, mut silent, mut late) = (Vec::new(), Vec::new(), Vec::new());
        for party in parties {
            let (machine, lapse) = party.machine.lapsed();
            match lapse {
                Lapse::Nothing => continue,
                Lapse::Bid => bids.push(quoted(&party.participant)),
                Lapse::NoBid => silent.push(quoted(&party.participant)),
                Lapse::Failure => late.push(quoted(&party.participant)),
            }
            self.keep_party(known.row, &Party { machine, ..party })?;
        }
        let (performative, content) = match (late.is_empty(), protocol.calls_for_proposals()) {
            (false, _) => {
                let content = format!("{{\"reason\":\"the deadline passed\",\"silent\":[{}]}}", late.join(","));
                (Performative::Failure, content)
            }
            (true, true) => {
                let (bids, silent) = (bids.join(","), silent.join(","));
                let content = format!("{{\"event\":\"deadline\",\"proposals\":[{bids}],\"silent\":[{silent}]}}");
                (Performative::Inform, content)
            }
            (true, false) => return Ok(()),
        };
        if !bids.is_empty() {
            let sql = "UPDATE agent_conversation SET deadline_ms = ?2, awarding = 1 WHERE conversation = ?1";
            let until_ms = self.now_ms.saturating_add(self.limits.award_ms);
            self.db.prepare_cached(sql)?.execute(params![known.row, until_ms])?;
        }
        let Ok(initiator) = known.initiator.parse::<Address>() else { return Ok(()) };
        let number = self.now_ms.to_le_bytes();
        let about = About { key: &number, conversation: id, protocol: Some(protocol.name()), in_reply_to: None };
        self.tell(&initiator, performative, &about, content)
    }

    /// The initiator has not awarded in time: who proposed is told so, once.
    fn reject_rest(&self, known: &Known, id: &str, protocol: Protocol, parties: Vec<Party>) -> Result<()> {
        let machines: Vec<(String, Machine)> =
            parties.iter().map(|party| (party.participant.clone(), party.machine)).collect();
        for (participant, performative) in award(&machines, &[]) {
            let machine = Machine { protocol, state: State::Rejected, cancelling: false };
            self.keep_party(known.row, &Party { participant: participant.clone(), machine, cancel_with: None })?;
            let Ok(to) = participant.parse::<Address>() else { continue };
            let number = self.now_ms.to_le_bytes();
            let about = About { key: &number, conversation: id, protocol: Some(protocol.name()), in_reply_to: None };
            let why = "{\"reason\":\"the initiator did not award in time\"}".to_owned();
            self.tell(&to, performative, &about, why)?;
        }
        Ok(())
    }

    /// Deletes conversations in which nothing was said for long, and that are over or have no deadline; how many.
    pub(super) fn forget_conversations(&self, most: i64) -> Result<i64> {
        let before_ms = self.now_ms.saturating_sub(self.limits.conversation_ms);
        let mut forgotten = 0;
        for these in ["open = 0", "open = 1 AND deadline_ms IS NULL"] {
            let sql = format!(
                "SELECT conversation FROM agent_conversation WHERE workspace = ?1 AND {these} AND changed_ms < ?2
                ORDER BY changed_ms, conversation LIMIT ?3"
            );
            let mut statement = self.db.prepare_cached(&sql)?;
            let old = statement.query_map(params![self.workspace(), before_ms, most - forgotten], |row| row.get(0))?;
            let old: Vec<i64> = old.collect::<Result<_>>()?;
            self.forget(&old)?;
            forgotten += old.len() as i64;
        }
        Ok(forgotten)
    }

    fn forget(&self, conversations: &[i64]) -> Result<()> {
        for row in conversations {
            for table in ["agent_conversation_event", "agent_conversation_party", "agent_conversation"] {
                let sql = format!("DELETE FROM {table} WHERE conversation = ?1");
                self.db.prepare_cached(&sql)?.execute([row])?;
            }
        }
        let sql = "UPDATE mailbox_counter SET last = last - ?2 WHERE name = ?1";
        self.db
            .prepare_cached(sql)?
            .execute(params![self.of_workspace("conversations"), conversations.len() as i64])?;
        Ok(())
    }
}

/// With whom a message goes on: the initiator speaks to each receiver, a participant speaks to the initiator.
fn parties_of(initiator: &str, sender: &str, message: &Message) -> Allowed<Vec<String>> {
    let receivers: Vec<String> = message.receivers.iter().map(Address::to_string).collect();
    if sender != initiator {
        return match receivers.iter().any(|receiver| receiver == initiator) {
            true => Ok(vec![sender.to_owned()]),
            false => not_understood(format!("a participant speaks to the initiator, which is {initiator}")),
        };
    }
    let people =
        |address: &Address| matches!(address, Address::Agent(_) | Address::Elsewhere { .. } | Address::Subject(_));
    match message.receivers.iter().all(people) {
        true => Ok(receivers),
        false => not_understood("a protocol is followed with agents and people, and not with topics"),
    }
}

fn after(party: Party, role: Role, message: &Message) -> Allowed<(Party, bool)> {
    let performative = message.performative;
    let answers_cancel = party.machine.cancelling
        && party.cancel_with.as_ref().is_none_or(|with| message.in_reply_to.as_ref() == Some(with));
    let late = party.machine.state == State::Lapsed;
    let machine = party.machine.after(Act { role, performative, answers_cancel })?;
    let cancel_with = match (performative, machine.cancelling) {
        (Performative::Cancel, _) => message.reply_with.clone(),
        (_, true) => party.cancel_with.clone(),
        (_, false) => None,
    };
    Ok((Party { machine, cancel_with, ..party }, late))
}
