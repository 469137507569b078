//! Commands and outcomes as bytes.

mod outcome;

use prost::Message as _;

use super::{Action, Await, Command, Filter, KeyId, Outcome, SetKey, Signature, Submission, Verdict};
use crate::acl::wire::{DecodeError, FORMAT, address, field, pb};
use crate::acl::{Message, MessageId, Priority};

type Result<T> = std::result::Result<T, DecodeError>;

fn known(version: u32) -> Result<()> {
    match version {
        0 => Err(field("version")),
        1..=FORMAT => Ok(()),
        found => Err(DecodeError::Version { found }),
    }
}

fn id(bytes: &[u8]) -> Result<MessageId> {
    bytes.try_into().map_err(|_| field("id"))
}

/// A submission as a mailbox's row keeps it.
pub fn encode_message(submission: &Submission) -> Vec<u8> {
    pb::Submission::from(submission).encode_to_vec()
}

/// The submission that a mailbox's row keeps.
pub fn decode_message(bytes: &[u8]) -> Result<Submission> {
    pb::Submission::decode(bytes)?.try_into()
}

impl Command {
    /// The command as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let body = (&self.action).into();
        let workspace = self.workspace.to_string();
        let (time_ms, mailboxes_max) = (self.time_ms, self.mailboxes_max);
        pb::Command { version: FORMAT, workspace, time_ms, mailboxes_max, body: Some(body) }.encode_to_vec()
    }

    /// The command that the bytes stand for.
    pub fn decode(bytes: &[u8]) -> Result<Command> {
        let command = pb::Command::decode(bytes)?;
        known(command.version)?;
        Ok(Command {
            workspace: command.workspace.parse().map_err(|_| field("workspace"))?,
            time_ms: command.time_ms,
            mailboxes_max: command.mailboxes_max,
            action: command.body.ok_or(field("body"))?.try_into()?,
        })
    }
}

impl Outcome {
    /// The outcome as bytes.
    pub fn encode(&self) -> Vec<u8> {
        pb::Outcome { version: FORMAT, body: Some(self.into()) }.encode_to_vec()
    }

    /// The outcome that the bytes stand for.
    pub fn decode(bytes: &[u8]) -> Result<Outcome> {
        let outcome = pb::Outcome::decode(bytes)?;
        known(outcome.version)?;
        outcome.body.ok_or(field("body"))?.try_into()
    }
}

impl From<&Submission> for pb::Submission {
    fn from(submission: &Submission) -> Self {
        Self {
            id: submission.id.as_bytes().to_vec(),
            message: Some((&submission.message).into()),
            priority: submission.priority.number().into(),
            key: submission.key.clone(),
            expires_ms: submission.expires_ms,
            trace: submission.trace.clone(),
            signature: submission.signature.as_ref().map(Into::into),
        }
    }
}

impl From<&Signature> for pb::Signature {
    fn from(of: &Signature) -> Self {
        let Signature { key, signed_ms, bytes } = of;
        Self { key: key.as_bytes().to_vec(), signed_ms: *signed_ms, signature: bytes.to_vec() }
    }
}

impl TryFrom<pb::Signature> for Signature {
    type Error = DecodeError;
    fn try_from(of: pb::Signature) -> Result<Self> {
        Ok(Signature {
            key: key_id(&of.key)?,
            signed_ms: of.signed_ms,
            bytes: of.signature.as_slice().try_into().map_err(|_| field("signature"))?,
        })
    }
}

fn key_id(bytes: &[u8]) -> Result<KeyId> {
    bytes.try_into().map(KeyId::from_bytes).map_err(|_| field("key"))
}

impl TryFrom<pb::Submission> for Submission {
    type Error = DecodeError;
    fn try_from(submission: pb::Submission) -> Result<Self> {
        Ok(Submission {
            id: id(&submission.id)?,
            message: Message::try_from(submission.message.ok_or(field("message"))?)?,
            priority: Priority::new(submission.priority.into()).ok_or(field("priority"))?,
            key: submission.key,
            expires_ms: submission.expires_ms,
            trace: submission.trace,
            signature: submission.signature.map(TryInto::try_into).transpose()?,
        })
    }
}

fn submissions(all: Vec<pb::Submission>) -> Result<Vec<Submission>> {
    all.into_iter().map(TryInto::try_into).collect()
}

impl From<&Action> for pb::command::Body {
    fn from(action: &Action) -> Self {
        match action {
            Action::Send(all) => Self::Send(pb::Send { submissions: all.iter().map(Into::into).collect() }),
            Action::Start(all) => Self::Start(pb::Start { deliveries: all.clone() }),
            Action::Settle { delivery, attempt, verdict, submissions, state } => {
                let verdict = match verdict.clone() {
                    Verdict::Done(note) => pb::settle::Verdict::Done(note),
                    Verdict::Retry(note) => pb::settle::Verdict::Retry(note),
                    Verdict::Dead(note) => pb::settle::Verdict::Dead(note),
                };
                let submissions = submissions.iter().map(Into::into).collect();
                let (delivery, attempt, verdict) = (*delivery, *attempt, Some(verdict));
                let change = |(key, value): (&String, &Option<String>)| pb::StateChange {
                    key: key.clone(),
                    value: value.clone(),
                };
                let state = state.iter().map(change).collect();
                Self::Settle(pb::Settle { delivery, attempt, verdict, submissions, state })
            }
            Action::Park { delivery, attempt } => Self::Park(pb::Park { delivery: *delivery, attempt: *attempt }),
            Action::Await(wait) => Self::Await(pb::Await {
                owner: wait.owner.to_string(),
                turn: wait.turn.clone(),
                way: wait.way.clone(),
                conversation: wait.conversation.clone(),
                awaited: wait.awaited.iter().map(ToString::to_string).collect(),
                until_ms: wait.until_ms,
                submissions: wait.submissions.iter().map(Into::into).collect(),
            }),
            Action::Resume { owner, turn, way, taken } => Self::Resume(pb::Resume {
                owner: owner.to_string(),
                turn: turn.clone(),
                way: way.clone(),
                taken: *taken,
            }),
            Action::Roster { revision, programs } => Self::Roster(pb::Roster {
                revision: *revision,
                programs: programs.iter().map(ToString::to_string).collect(),
            }),
            Action::SetKey(it) => Self::SetKey(pb::SetKey {
                owner: it.owner.to_string(),
                public: it.public.to_vec(),
                held: it.held,
                sealed_with: it.sealed_with.clone(),
                sealed: it.sealed.clone(),
                overlap_ms: it.overlap_ms,
            }),
            Action::Receive { source, submission } => {
                Self::Receive(pb::Receive { source: source.to_string(), submission: Some(submission.as_ref().into()) })
            }
            Action::Tick { term } => Self::Tick(pb::Tick { term: *term }),
            Action::Redrive(all) => Self::Redrive(pb::Redrive { deliveries: all.clone() }),
            Action::Drop(all) => Self::Drop(pb::Drop { deliveries: all.clone() }),
            Action::Subscribe { subscriber, name, pattern, filter, after } => Self::Subscribe(pb::Subscribe {
                subscriber: subscriber.to_string(),
                name: name.clone(),
                pattern: pattern.as_str().to_owned(),
                after: *after,
                conditions: filter.conditions().iter().map(ToString::to_string).collect(),
            }),
            Action::Fire { schedule, words, tick_ms, submission } => Self::Fire(pb::Fire {
                schedule: schedule.clone(),
                words: words.clone(),
                tick_ms: *tick_ms,
                submission: submission.as_deref().map(Into::into),
            }),
            Action::Unschedule(schedules) => Self::Unschedule(pb::Unschedule { schedules: schedules.clone() }),
            Action::Unsubscribe { subscriber, name } => {
                Self::Unsubscribe(pb::Unsubscribe { subscriber: subscriber.to_string(), name: name.clone() })
            }
        }
    }
}

impl TryFrom<pb::command::Body> for Action {
    type Error = DecodeError;
    fn try_from(body: pb::command::Body) -> Result<Self> {
        Ok(match body {
            pb::command::Body::Send(send) => Action::Send(submissions(send.submissions)?),
            pb::command::Body::Start(start) => Action::Start(start.deliveries),
            pb::command::Body::Settle(settle) => Action::Settle {
                delivery: settle.delivery,
                attempt: settle.attempt,
                verdict: match settle.verdict.ok_or(field("verdict"))? {
                    pb::settle::Verdict::Done(note) => Verdict::Done(note),
                    pb::settle::Verdict::Retry(note) => Verdict::Retry(note),
                    pb::settle::Verdict::Dead(note) => Verdict::Dead(note),
                },
                submissions: submissions(settle.submissions)?,
                state: settle.state.into_iter().map(|change| (change.key, change.value)).collect(),
            },
            pb::command::Body::Park(park) => Action::Park { delivery: park.delivery, attempt: park.attempt },
            pb::command::Body::Await(it) => Action::Await(Await {
                owner: address(&it.owner, "owner")?,
                turn: it.turn,
                way: it.way,
                conversation: it.conversation,
                awaited: it.awaited.iter().map(|text| address(text, "awaited")).collect::<Result<_>>()?,
                until_ms: it.until_ms,
                submissions: submissions(it.submissions)?,
            }),
            pb::command::Body::Resume(it) => {
                Action::Resume { owner: address(&it.owner, "owner")?, turn: it.turn, way: it.way, taken: it.taken }
            }
            pb::command::Body::Roster(it) => Action::Roster {
                revision: it.revision,
                programs: it
                    .programs
                    .iter()
                    .map(|name| name.parse().map_err(|_| field("programs")))
                    .collect::<Result<_>>()?,
            },
            pb::command::Body::SetKey(it) => Action::SetKey(SetKey {
                owner: address(&it.owner, "owner")?,
                public: it.public.as_slice().try_into().map_err(|_| field("public"))?,
                held: it.held,
                sealed_with: it.sealed_with,
                sealed: it.sealed,
                overlap_ms: it.overlap_ms,
            }),
            pb::command::Body::Receive(it) => Action::Receive {
                source: it.source.parse().map_err(|_| field("source"))?,
                submission: Box::new(it.submission.ok_or(field("submission"))?.try_into()?),
            },
            pb::command::Body::Tick(tick) => Action::Tick { term: tick.term },
            pb::command::Body::Redrive(all) => Action::Redrive(all.deliveries),
            pb::command::Body::Drop(all) => Action::Drop(all.deliveries),
            pb::command::Body::Subscribe(it) => Action::Subscribe {
                subscriber: address(&it.subscriber, "subscriber")?,
                name: it.name,
                pattern: it.pattern.parse().map_err(|_| field("pattern"))?,
                filter: Filter::of(&it.conditions).map_err(|_| field("conditions"))?,
                after: it.after,
            },
            pb::command::Body::Fire(it) => Action::Fire {
                schedule: it.schedule,
                words: it.words,
                tick_ms: it.tick_ms,
                submission: it.submission.map(|one| Submission::try_from(one).map(Box::new)).transpose()?,
            },
            pb::command::Body::Unschedule(it) => Action::Unschedule(it.schedules),
            pb::command::Body::Unsubscribe(it) => {
                Action::Unsubscribe { subscriber: address(&it.subscriber, "subscriber")?, name: it.name }
            }
        })
    }
}
