//! One delivery: its agent handles the message, and what comes of it is settled in one entry with what the agent sends.
//!
//! A program is handed the message itself. A model is given it as a turn, whose key is the delivery's round: an attempt that a node
//! did not bring to an end is gone on with by the next leader, and one that failed is another turn.

mod carry;
mod replies;
mod words;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use caxton_messages::Ready;
use caxton_messages::acl::{Address, Content, Message, MessageId, Performative};
use caxton_messages::mailbox::{Action, NOTE_BYTES_MAX, Outcome, Submission, Verdict};
use caxton_proto::manifest::AgentManifest;
use caxton_proto::{AgentName, WorkspaceId};
use caxton_tools::{AgentOutcome, HandlingError};
use tracing::{debug, warn};

use self::replies::{objection, reply, reply_id, usual_replies};
pub(super) use self::words::now_ms;
use self::words::{conversation, cut, request, said, subject, turn_key};
use super::post::Post;
use crate::activity::line;
use crate::agent::events::Events;
use crate::agent::turn::Failure;
use crate::api::logs::LogLine;
use crate::authn::Access;
use crate::authz::Converse;
use crate::errors::chain;
use crate::invoke::mail::{Mail, MailedTurn, Outgoing};
use crate::invoke::{ClientTurn, InvokeError, Invoker, TurnEnd};
use crate::llm::is_passing_reason;
use crate::mailbox::{MailboxError, ShardMailboxes};

/// The most bytes of a reason that is kept.
const REASON_BYTES_MAX: usize = 500;

/// The first pause before a delivery is tried again that failed for something that passes; it doubles up to the longest.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest of these pauses.
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// So many of these pauses are one attempt: they last about four and a half hours.
const PAUSES_MAX: u32 = 64;
/// How long it is waited for to know whether this node leads.
const LEAD_WAIT: Duration = Duration::from_millis(500);

/// Whose mailbox it is.
pub(super) type Owner = (WorkspaceId, AgentName);

/// Does what deliveries ask for.
pub(super) struct Courier {
    invoker: Invoker,
    mailboxes: ShardMailboxes,
    /// The way to other workspaces.
    post: Post,
    /// How many deliveries pause.
    pausing: Arc<AtomicUsize>,
}

/// A delivery that pauses, until it is dropped.
struct Pause(Arc<AtomicUsize>);

impl Pause {
    fn begin(count: &Arc<AtomicUsize>) -> Pause {
        count.fetch_add(1, Ordering::Relaxed);
        Pause(Arc::clone(count))
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What became of a delivery.
enum Handled {
    /// It has an outcome.
    Over(Settling),
    /// Its turn was put down.
    Waiting,
    /// It failed for something that passes, and is tried again in the same attempt.
    Later {
        reason: String,
        /// Its turn is over, so that the next try is another turn.
        over: bool,
    },
}

/// An outcome, what its agent sends and what it keeps.
struct Settling {
    verdict: Verdict,
    submissions: Vec<Submission>,
    state: BTreeMap<String, Option<String>>,
}

impl Settling {
    fn of(verdict: Verdict) -> Settling {
        Settling { verdict, submissions: Vec::new(), state: BTreeMap::new() }
    }

    fn done(note: &str, submissions: Vec<Submission>) -> Settling {
        Settling { submissions, ..Settling::of(Verdict::Done(note.to_owned())) }
    }
}

impl Courier {
    pub(super) fn new(invoker: Invoker, mailboxes: ShardMailboxes, post: Post) -> Courier {
        Courier { invoker, mailboxes, post, pausing: Arc::default() }
    }

    /// How many deliveries that were started pause, because what they need is not there.
    pub(super) fn pausing(&self) -> usize {
        self.pausing.load(Ordering::Relaxed)
    }

    /// Has an agent handle a delivery that was started, and settles it or puts it down.
    pub(super) async fn give(&self, term: u64, owner: &Owner, ready: Ready) {
        self.note(owner, &ready, line("delivered", ready.submission.message.performative.name()));
        let (mut pauses, mut turn) = (0, 0);
        loop {
            let Some(manifest) = self.manifest(owner) else {
                let gone = Verdict::Retry("its agent was removed when it was to be given the message".to_owned());
                return self.settle(term, owner, &ready, Settling::of(gone)).await;
            };
            let message = &ready.submission.message;
            // What the agent's own file schedules it takes, whatever it takes of others.
            let scheduled = message.sender == Some(Address::Platform) && message.performative == Performative::Request;
            let takes = scheduled || manifest.messages.takes(message.performative);
            let handled =
                match (self.forged(&owner.0, &Address::Agent(owner.1.clone()), &ready).await, &manifest.module) {
                    (Some(Ok(forged)), _) => Handled::Over(forged),
                    (Some(Err(reason)), _) => Handled::Later { reason, over: false },
                    (None, _) if !takes => Handled::Over(self.not_taken(owner, &ready)),
                    (None, Some(_)) => self.hand(owner, &ready).await,
                    (None, None) => self.ask(owner, &ready, manifest.messages.enabled, turn).await,
                };
            let (reason, over) = match handled {
                Handled::Over(settling) => return self.settle(term, owner, &ready, settling).await,
                Handled::Waiting => return self.put_down(term, owner, &ready).await,
                Handled::Later { reason, over } => (reason, over),
            };
            let expired = ready.submission.expires_ms.is_some_and(|at_ms| at_ms <= now_ms());
            if pauses >= PAUSES_MAX || expired {
                return self.settle(term, owner, &ready, Settling::of(Verdict::Retry(reason))).await;
            }
            turn += u32::from(over);
            // What an older leader has tried in this attempt is passed over.
            if !over || !self.has_begun(owner, &ready, turn).await {
                self.pause(owner, &ready, pauses, reason).await;
                pauses += 1;
            }
            if !matches!(self.mailboxes.shard().lead(LEAD_WAIT).await, Ok(leads) if leads == term) {
                return;
            }
        }
    }

    /// What becomes of a message that is not what its sender sent, or of which nobody can know now; nothing of any other.
    async fn forged(
        &self,
        workspace: &WorkspaceId,
        owner: &Address,
        ready: &Ready,
    ) -> Option<Result<Settling, String>> {
        match self.mailboxes.verify(workspace, Some(owner), &ready.submission, ready.sent_ms).await {
            Ok(Ok(_)) => None,
            Ok(Err(forgery)) => {
                warn!(%workspace, %owner, id = %ready.submission.id, reason = %forgery, "a message is not given to its receiver");
                Some(Ok(Settling::of(Verdict::Dead(cut(forgery.to_string(), REASON_BYTES_MAX)))))
            }
            Err(error) => Some(Err(cut(chain(&error).to_string(), REASON_BYTES_MAX))),
        }
    }

    /// Waits before a delivery is tried again.
    async fn pause(&self, owner: &Owner, ready: &Ready, pauses: u32, reason: String) {
        self.pause_as((&owner.0, owner.1.as_str()), ready, pauses, reason).await;
    }

    async fn pause_as(&self, whose: (&WorkspaceId, &str), ready: &Ready, pauses: u32, reason: String) {
        let wait = PAUSE.saturating_mul(1 << pauses.min(16)).min(PAUSE_MAX);
        self.note_as(whose, ready, LogLine { failed: true, ..line("pauses", reason.as_str()) });
        let _pause = Pause::begin(&self.pausing);
        tokio::time::sleep(wait).await;
    }

    async fn put_down(&self, term: u64, owner: &Owner, ready: &Ready) {
        let (workspace, agent) = owner;
        let (delivery, attempt) = (ready.delivery, ready.attempt);
        if let Err(error) = self.mailboxes.write(workspace, term, Action::Park { delivery, attempt }).await {
            warn!(%workspace, %agent, delivery, reason = %chain(&error), "a delivery is not put down");
        }
        // It may have ended in between, when nobody knew that it had been put down.
        self.look(term, owner, ready).await;
    }

    async fn has_begun(&self, owner: &Owner, ready: &Ready, turn: u32) -> bool {
        let known = self.turn(owner, ready, turn).await;
        matches!(known, Ok(MailedTurn::Underway | MailedTurn::Over(_)))
    }

    async fn turn(&self, owner: &Owner, ready: &Ready, turn: u32) -> Result<MailedTurn, InvokeError> {
        let subject = subject(&ready.submission.message);
        self.invoker.mailed_turn(&owner.0, &subject, &turn_key(ready, turn)).await
    }

    /// The last of the turns that an attempt of a delivery began.
    async fn last_turn(&self, owner: &Owner, ready: &Ready) -> Result<MailedTurn, InvokeError> {
        let mut last = self.turn(owner, ready, 0).await?;
        for turn in 1..=PAUSES_MAX {
            if !matches!(&last, MailedTurn::Over(Err(error)) if matches!(failed(error), Handled::Later { .. })) {
                break;
            }
            match self.turn(owner, ready, turn).await? {
                MailedTurn::Nothing => break,
                next @ (MailedTurn::Underway | MailedTurn::Over(_)) => last = next,
            }
        }
        Ok(last)
    }

    /// Settles a delivery whose turn was put down, if that is over. It begins nothing, and what cannot be read now stays as it is.
    pub(super) async fn look(&self, term: u64, owner: &Owner, ready: &Ready) {
        let settling = match self.last_turn(owner, ready).await {
            Ok(MailedTurn::Over(ended)) => match self.ended(owner, ready, ended).await {
                Handled::Over(settling) => settling,
                Handled::Later { reason, over: true } => Settling::of(Verdict::Retry(reason)),
                Handled::Later { .. } | Handled::Waiting => return,
            },
            Ok(MailedTurn::Nothing) => Settling::of(Verdict::Dead("its turn was deleted while it waited".to_owned())),
            Ok(MailedTurn::Underway) => return,
            Err(error) => {
                debug!(workspace = %owner.0, delivery = ready.delivery, reason = %chain(&error), "a turn that was put down is not looked at");
                return;
            }
        };
        self.settle(term, owner, ready, settling).await;
    }

    fn manifest(&self, (workspace, agent): &Owner) -> Option<std::sync::Arc<AgentManifest>> {
        let catalog = self.invoker.catalogs().get(workspace)?;
        catalog.agents().get(agent)?.manifest().ok()
    }

    /// Notes what happened to a message, for people who look.
    fn note(&self, owner: &Owner, ready: &Ready, of: LogLine) {
        self.note_as((&owner.0, owner.1.as_str()), ready, of);
    }

    fn note_as(&self, (workspace, whose): (&WorkspaceId, &str), ready: &Ready, of: LogLine) {
        let message = &ready.submission.message;
        let conversation = message.conversation_id.clone().unwrap_or_else(|| ready.submission.id.to_string());
        let line = LogLine {
            agent: Some(whose.to_owned()),
            from: message.sender.as_ref().map(ToString::to_string),
            conversation: Some(conversation),
            ..of
        };
        self.invoker.activity().note(workspace, line);
    }

    async fn settle(&self, term: u64, owner: &Owner, ready: &Ready, settling: Settling) {
        self.settle_as(term, (&owner.0, owner.1.as_str()), ready, settling).await;
    }

    async fn settle_as(&self, term: u64, whose: (&WorkspaceId, &str), ready: &Ready, settling: Settling) {
        let (workspace, agent) = whose;
        let Settling { verdict, submissions, state } = settling;
        if let Verdict::Retry(reason) | Verdict::Dead(reason) = &verdict {
            self.note_as(whose, ready, LogLine { failed: true, ..line("failed", reason) });
        }
        let (delivery, attempt) = (ready.delivery, ready.attempt);
        let settle = |verdict, submissions, state| {
            let settle = Action::Settle { delivery, attempt, verdict, submissions, state };
            self.mailboxes.write(workspace, term, settle)
        };
        // Where it cannot be written now it is written later, as long as this node leads: nobody else takes the delivery up in
        // this term, and settling it twice is settling it once.
        let written = loop {
            let written = settle(verdict.clone(), submissions.clone(), state.clone()).await;
            let passes =
                matches!(&written, Err(error) if !error.is_of_one() || matches!(error, MailboxError::Unsettled));
            if !passes || !matches!(self.mailboxes.shard().lead(LEAD_WAIT).await, Ok(leads) if leads == term) {
                break written;
            }
            tokio::time::sleep(PAUSE).await;
        };
        // What no entry can hold, or what the tables refuse, would be refused again in each attempt.
        let why = match &written {
            Ok(Outcome::Refused(reason)) => Some(format!("what it sends or keeps was refused: {reason}")),
            Err(error @ MailboxError::TooLong { .. }) => Some(format!("what it sends is too long: {error}")),
            Err(error @ (MailboxError::Signing { .. } | MailboxError::OwnKey { .. })) => {
                Some(format!("what it sends was not sent: {error}"))
            }
            Ok(_) | Err(_) => None,
        };
        let written = match why {
            Some(why) => {
                self.note_as(whose, ready, LogLine { failed: true, ..line("failed", why.as_str()) });
                settle(Verdict::Dead(cut(why, NOTE_BYTES_MAX)), Vec::new(), BTreeMap::new()).await
            }
            None => written,
        };
        match written {
            Ok(outcome) => debug!(%workspace, agent, delivery, ?outcome, "a delivery is settled"),
            // Its next attempt, under whoever leads then, finds the turn by its key.
            Err(error) => warn!(%workspace, agent, delivery, reason = %chain(&error), "a delivery is not settled"),
        }
    }

    /// Its agent does not take what does this, as its file says.
    fn not_taken(&self, owner: &Owner, ready: &Ready) -> Settling {
        let performative = ready.submission.message.performative;
        let why = format!("{} does not take {performative}", owner.1);
        let reply = objection(owner, ready, Performative::NotUnderstood, Content::text(why));
        Settling::done("its agent does not take it", reply.into_iter().collect())
    }

    /// Hands a program the message.
    async fn hand(&self, owner: &Owner, ready: &Ready) -> Handled {
        let (workspace, agent) = owner;
        let mut message = ready.submission.message.clone();
        let own = ready.submission.id.to_string();
        message.conversation_id.get_or_insert(own);
        let mail = Mail {
            agent: agent.clone(),
            subject: subject(&message),
            conversation: conversation(agent, ready),
            key: turn_key(ready, 0),
            message,
        };
        let settling = match self.invoker.handle_mail(workspace, mail).await {
            Ok(Ok(outcome)) => self.sent(owner, ready, outcome),
            Ok(Err(HandlingError::NotUnderstood { why })) => {
                let reply = objection(owner, ready, Performative::NotUnderstood, said(&why));
                Settling::done("it does not understand it", reply.into_iter().collect())
            }
            Ok(Err(HandlingError::Refused { why })) => {
                let reply = objection(owner, ready, Performative::Refuse, said(&why));
                Settling::done("it refuses", reply.into_iter().collect())
            }
            Ok(Err(error @ HandlingError::Call(_))) => {
                Settling::of(Verdict::Retry(cut(error.to_string(), REASON_BYTES_MAX)))
            }
            Err(error) => return failed(&error),
        };
        Handled::Over(settling)
    }

    /// What a program sends and keeps.
    fn sent(&self, owner: &Owner, ready: &Ready, outcome: AgentOutcome) -> Settling {
        let mut submissions = Vec::new();
        for (number, message) in outcome.messages.into_iter().enumerate() {
            match self.submission(owner, ready, &number.to_le_bytes(), message, ready.submission.priority) {
                Ok(submission) => submissions.push(submission),
                Err(why) => return Settling::of(Verdict::Retry(cut(why, REASON_BYTES_MAX))),
            }
        }
        Settling { state: outcome.state, ..Settling::done("handled", submissions) }
    }

    /// A message of the agent's own.
    fn submission(
        &self,
        (workspace, agent): &Owner,
        ready: &Ready,
        number: &[u8],
        message: Message,
        priority: caxton_messages::acl::Priority,
    ) -> Result<Submission, String> {
        let parts = [ready.submission.id.as_bytes().as_slice(), agent.as_str().as_bytes(), b"sends", number];
        let message = message.stamped(Address::Agent(agent.clone()));
        let submission = self.invoker.outgoing_submission(workspace, message, MessageId::derived(&parts), priority)?;
        Ok(Submission { trace: ready.submission.trace.clone(), ..submission })
    }

    /// Has a model answer the message in a turn.
    async fn ask(&self, owner: &Owner, ready: &Ready, with_tools: bool, turn: u32) -> Handled {
        let (workspace, agent) = owner;
        let message = &ready.submission.message;
        let subject = subject(message);
        let access = Access::of_message(&subject, workspace);
        let Ok(permit) = access.permit(Converse, workspace) else {
            let why = format!("{subject} may ask nobody here");
            return Handled::Over(Settling::of(Verdict::Dead(cut(why, REASON_BYTES_MAX))));
        };
        let request = request(agent, ready, with_tools, turn);
        let client = ClientTurn { mailed: true, ..ClientTurn::default() };
        let ended = self.invoker.message(&permit, request, client, Events::none()).await;
        self.ended(owner, ready, ended).await
    }

    /// What the end of a turn means for its delivery.
    async fn ended(&self, owner: &Owner, ready: &Ready, ended: Result<TurnEnd, InvokeError>) -> Handled {
        let workspace = &owner.0;
        let settling = match ended {
            Ok(TurnEnd::Answered(answer)) => match self.invoker.outgoing(workspace, &answer.turn).await {
                Ok(outgoing) => self.answered(owner, ready, &answer.turn, &answer.text, outgoing),
                Err(error) => return failed(&error),
            },
            Ok(TurnEnd::Waiting { .. }) => return Handled::Waiting,
            Ok(TurnEnd::SenderCalls(_)) => {
                Settling::of(Verdict::Dead("its answer was a call for the sender to make".to_owned()))
            }
            Err(error) => return failed(&error),
        };
        Handled::Over(settling)
    }

    /// What a turn sends: what its calls say, and its text where none of them replied.
    fn answered(&self, owner: &Owner, ready: &Ready, turn: &str, text: &str, outgoing: Vec<Outgoing>) -> Settling {
        let replied = outgoing.iter().any(|one| matches!(one, Outgoing::Reply { .. }));
        let mut submissions = Vec::new();
        for one in outgoing {
            let made = match one {
                Outgoing::Message { call, message, priority } => {
                    self.submission(owner, ready, call.as_bytes(), *message, priority).map(Some)
                }
                Outgoing::Reply { call, performative, content } => Ok(reply(owner, ready, performative, content)
                    .map(|reply| Submission { id: reply_id(owner, ready, &call), ..reply })),
            };
            match made {
                Ok(submission) => submissions.extend(submission),
                Err(why) => return Settling::of(Verdict::Retry(cut(why, REASON_BYTES_MAX))),
            }
        }
        if !replied {
            let usual = usual_replies(ready.submission.message.performative);
            submissions.extend(usual.iter().filter_map(|performative| {
                let content = (*performative != Performative::Agree).then(|| said(text));
                reply(owner, ready, *performative, content)
            }));
        }
        Settling::done(&format!("answered in turn {turn}"), submissions)
    }
}

/// What an error means for a delivery.
fn failed(error: &InvokeError) -> Handled {
    let reason = cut(chain(error).to_string(), REASON_BYTES_MAX);
    match error {
        InvokeError::Invalid { .. }
        | InvokeError::KeyReused { .. }
        | InvokeError::OthersConversation { .. }
        | InvokeError::Turn { failure: Failure::Stopped, .. } => Handled::Over(Settling::of(Verdict::Dead(reason))),
        // Whether this node still leads is looked at after a pause: in the same term nobody else takes the delivery up.
        InvokeError::Elsewhere { .. }
        | InvokeError::Adrift { .. }
        | InvokeError::Current(_)
        | InvokeError::Busy { .. }
        | InvokeError::Full(_)
        | InvokeError::History(_)
        | InvokeError::Mailbox(_) => Handled::Later { reason, over: false },
        InvokeError::Turn { failure: Failure::Model { reason: why }, .. } if is_passing_reason(why) => {
            Handled::Later { reason, over: true }
        }
        _ => Handled::Over(Settling::of(Verdict::Retry(reason))),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(super) fn ready(performative: Performative) -> Ready {
        let bob = "bob".parse().map(Address::Agent).expect("a name");
        let message = Message::new(performative, [bob]).stamped("ann".parse().expect("an address"));
        let submission = Submission::new(MessageId::from_bytes([7; 16]), message);
        Ready { delivery: 1, attempt: 1, round: 0, sent_ms: 1, submission }
    }

    #[test]
    fn what_passes_is_tried_again_in_the_same_attempt_and_what_stays_is_not() {
        let no_model = |reason: &str| InvokeError::Turn {
            agent: "bob".parse().expect("a name"),
            failure: Failure::Model { reason: reason.to_owned() },
        };
        assert!(matches!(failed(&InvokeError::Busy { turns_max: 1 }), Handled::Later { over: false, .. }));
        let down = no_model("the provider `p` failed (502): bad gateway; try again later, or name a `fallback`");
        assert!(matches!(failed(&down), Handled::Later { over: true, .. }));
        let refused = no_model("the provider `p` refused the request (400): the prompt is too long");
        assert!(matches!(failed(&refused), Handled::Over(Settling { verdict: Verdict::Retry(_), .. })));
        let one = ready(Performative::Request);
        let keys = [turn_key(&one, 0), turn_key(&one, 1), turn_key(&Ready { round: 1, ..one.clone() }, 0)];
        assert!(keys[0] != keys[1] && keys[0] != keys[2] && keys[1] != keys[2], "{keys:?}");
    }
}
