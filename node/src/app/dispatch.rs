//! Gives what lies in agents' mailboxes to them, as turns, on the node that leads the shard.
//!
//! A delivery is started in the log before its turn begins and settled when that is over; what the agent answers is in the same
//! entry as the outcome. The turn's key is the delivery's round: an attempt that a node did not bring to an end is gone on with
//! by the next leader, and one that failed is another turn.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use caxton_messages::acl::{Address, Body, CONTENT_BYTES_MAX, Content, Message, MessageId, Performative};
use caxton_messages::mailbox::{Action, Outcome, Submission, Verdict};
use caxton_messages::{Limits, Ready, due, next, waiting};
use caxton_proto::{AgentName, Digest, WorkspaceId};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::agent::events::Events;
use crate::api::messages::MessageRequest;
use crate::authn::Access;
use crate::authz::Converse;
use crate::errors::chain;
use crate::invoke::{ClientTurn, InvokeError, Invoker, TurnEnd};
use crate::mailbox::{MailboxError, ShardMailboxes};

/// The longest pause between two looks at what is due.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long it is waited for to lead the shard before it is looked whether to stop.
const LEAD_WAIT: Duration = Duration::from_millis(500);
/// The most mailboxes that are looked at in one round.
const MAILBOXES_MAX: usize = 1_000;
/// The most turns that one shard's mailboxes have under way.
const TURNS_MAX: usize = 64;
/// The most bytes of a reason that is kept.
const REASON_BYTES_MAX: usize = 500;

/// Whose mailbox has a turn under way.
type Owner = (WorkspaceId, AgentName);

/// Gives out the deliveries of one shard.
pub struct Dispatcher {
    invoker: Invoker,
    mailboxes: ShardMailboxes,
}

impl Dispatcher {
    /// For the mailboxes of one shard.
    pub fn new(invoker: Invoker, mailboxes: ShardMailboxes) -> Dispatcher {
        Dispatcher { invoker, mailboxes }
    }

    /// Works until it is stopped.
    pub async fn run(self, stop: CancellationToken) {
        let this = Arc::new(self);
        let mut turns: JoinSet<Owner> = JoinSet::new();
        let mut busy: HashSet<Owner> = HashSet::new();
        loop {
            while let Some(ended) = turns.try_join_next() {
                release(&mut busy, ended);
            }
            let led = tokio::select! {
                () = stop.cancelled() => return,
                led = this.mailboxes.shard().lead(LEAD_WAIT) => led,
            };
            if let Ok(term) = led
                && let Err(error) = this.round(term, &mut turns, &mut busy).await
            {
                debug!(reason = %chain(&error), "mailboxes were not looked at");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = this.mailboxes.changed(), if led.is_ok() => {}
                Some(ended) = turns.join_next(), if !turns.is_empty() => release(&mut busy, ended),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Does what is due, and starts what can be started.
    async fn round(
        self: &Arc<Self>,
        term: u64,
        turns: &mut JoinSet<Owner>,
        busy: &mut HashSet<Owner>,
    ) -> Result<(), MailboxError> {
        let now_ms = now_ms();
        let limits = Limits::default();
        let due = self.mailboxes.read(move |rows| due(rows, now_ms, term, &limits)).await?;
        for workspace in due {
            self.mailboxes.write(&workspace, term, Action::Tick { term }).await?;
        }
        let waiting = self.mailboxes.read(move |rows| waiting(rows, now_ms, MAILBOXES_MAX)).await?;
        for (workspace, owner) in waiting {
            let Address::Agent(agent) = &owner else { continue };
            let key = (workspace.clone(), agent.clone());
            if turns.len() >= TURNS_MAX {
                break;
            }
            // An agent that is not deployed keeps its messages.
            let served = self.invoker.catalogs().get(&workspace).is_some_and(|it| it.agents().contains_key(agent));
            if !served || busy.contains(&key) {
                continue;
            }
            let of = workspace.clone();
            let ready = self.mailboxes.read(move |rows| next(rows, &of, &owner, now_ms, 1, &limits)).await?;
            let Some(ready) = ready.into_iter().next() else { continue };
            let started = self.mailboxes.write(&workspace, term, Action::Start(vec![ready.delivery])).await?;
            if started != Outcome::Started(vec![ready.delivery]) {
                continue;
            }
            busy.insert(key.clone());
            let this = Arc::clone(self);
            turns.spawn(async move {
                this.give(term, &key, ready).await;
                key
            });
        }
        Ok(())
    }

    /// Has an agent answer a delivery, and settles it.
    async fn give(&self, term: u64, (workspace, agent): &Owner, ready: Ready) {
        let Some((verdict, submissions)) = self.answer(workspace, agent, &ready).await else { return };
        let (delivery, attempt) = (ready.delivery, ready.attempt);
        let settle = Action::Settle { delivery, attempt, verdict, submissions };
        match self.mailboxes.write(workspace, term, settle).await {
            Ok(outcome) => debug!(%workspace, %agent, delivery, ?outcome, "a delivery is settled"),
            // Its next attempt, under whoever leads then, finds the turn by its key.
            Err(error) => warn!(%workspace, %agent, delivery, reason = %chain(&error), "a delivery is not settled"),
        }
    }

    /// What became of a delivery, and what the agent answers; nothing where another node goes on with it.
    async fn answer(
        &self,
        workspace: &WorkspaceId,
        agent: &AgentName,
        ready: &Ready,
    ) -> Option<(Verdict, Vec<Submission>)> {
        let message = &ready.submission.message;
        let subject = match &message.sender {
            Some(Address::Subject(subject)) => subject.as_str().to_owned(),
            // Never the name of a person, whose memories and conversations it would reach.
            sender => format!("agent:{}", sender.as_ref().map(Address::to_string).unwrap_or_default()),
        };
        let access = Access::of_message(&subject, workspace);
        let permit = access.permit(Converse, workspace).ok()?;
        let request = request(agent, &subject, ready);
        match self.invoker.message(&permit, request, ClientTurn::default(), Events::none()).await {
            Ok(TurnEnd::Answered(answer)) => {
                let note = format!("answered in turn {}", answer.turn);
                Some((Verdict::Done(note), replies(agent, ready, &answer.text)))
            }
            Ok(TurnEnd::Waiting { turn, .. }) => {
                let text = format!("turn {turn} waits for a person's decision");
                Some((Verdict::Done(text), Vec::new()))
            }
            Ok(TurnEnd::SenderCalls(_)) => {
                Some((Verdict::Dead("its answer was a call for the sender to make".to_owned()), Vec::new()))
            }
            Err(error) => failed(&error).map(|verdict| (verdict, Vec::new())),
        }
    }
}

fn release(busy: &mut HashSet<Owner>, ended: Result<Owner, tokio::task::JoinError>) {
    match ended {
        Ok(owner) => _ = busy.remove(&owner),
        Err(error) => {
            // Nobody knows whose it was: what is still under way is found in the tables.
            warn!(reason = %chain(&error), "a turn of a mailbox broke");
            busy.clear();
        }
    }
}

fn now_ms() -> i64 {
    i64::try_from(crate::time::now_ms()).unwrap_or(i64::MAX)
}

/// What an error means for a delivery; nothing where another node goes on with it.
fn failed(error: &InvokeError) -> Option<Verdict> {
    let mut reason = chain(error).to_string();
    reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
    match error {
        InvokeError::Elsewhere { .. } | InvokeError::Adrift { .. } | InvokeError::Current(_) => None,
        InvokeError::Invalid { .. } | InvokeError::KeyReused { .. } | InvokeError::OthersConversation { .. } => {
            Some(Verdict::Dead(reason))
        }
        _ => Some(Verdict::Retry(reason)),
    }
}

/// The message as a turn of the agent's: in a conversation of its own for each sender and conversation.
fn request(agent: &AgentName, subject: &str, ready: &Ready) -> MessageRequest {
    let message = &ready.submission.message;
    let id = ready.submission.id.to_string();
    let talk = message.conversation_id.as_deref().unwrap_or(&id);
    let whose = Digest::of_parts([agent.as_str(), "\n", subject, "\n", talk].map(str::as_bytes));
    MessageRequest {
        text: told(message, talk),
        agent: Some(agent.clone()),
        conversation: Some(format!("mail-{}", hex::encode(&whose.as_bytes()[..16]))),
        create: true,
        detached: true,
        idempotency_key: Some(format!("mailbox-{id}-{}-{}", ready.delivery, ready.round)),
        ..MessageRequest::default()
    }
}

/// A message as an agent reads it.
fn told(message: &Message, conversation: &str) -> String {
    let sender = message.sender.as_ref().map(Address::to_string).unwrap_or_default();
    let content = match message.content.as_ref().map(|content| (&content.body, &content.media_type)) {
        None => String::new(),
        Some((Body::Text(text) | Body::Json(text), _)) => text.clone(),
        Some((Body::Bytes(bytes), kind)) => format!("({} bytes of {kind})", bytes.len()),
        Some((Body::Artifact { digest, bytes }, kind)) => format!("(artifact {digest}, {bytes} bytes of {kind})"),
    };
    let protocol = message.protocol.as_ref().map(|name| format!(", protocol {name}")).unwrap_or_default();
    format!("[{} from {sender}, conversation {conversation}{protocol}]\n{content}", message.performative)
}

/// What an agent's answer is as messages. What asks for nothing gets none, so that two agents do not thank each other for ever.
fn replies(agent: &AgentName, ready: &Ready, text: &str) -> Vec<Submission> {
    let message = &ready.submission.message;
    let performatives: &[Performative] = match message.performative {
        Performative::Request | Performative::QueryIf | Performative::QueryRef | Performative::AcceptProposal => {
            &[Performative::Inform]
        }
        Performative::RequestWhen | Performative::RequestWhenever | Performative::Subscribe | Performative::Proxy => {
            &[Performative::Agree, Performative::Inform]
        }
        Performative::Cfp => &[Performative::Propose],
        Performative::Agree
        | Performative::Cancel
        | Performative::Confirm
        | Performative::Disconfirm
        | Performative::Failure
        | Performative::Inform
        | Performative::NotUnderstood
        | Performative::Propagate
        | Performative::Propose
        | Performative::Refuse
        | Performative::RejectProposal => &[],
    };
    let reply = |performative: &Performative| {
        let said = &text[..text.floor_char_boundary(CONTENT_BYTES_MAX)];
        let content = (*performative != Performative::Agree).then(|| Content::text(said));
        let mut reply = message.reply(*performative, content).stamped(Address::Agent(agent.clone()));
        reply.receivers.retain(|to| matches!(to, Address::Agent(_) | Address::Subject(_) | Address::Topic(_)));
        reply.conversation_id.get_or_insert_with(|| ready.submission.id.to_string());
        let parts =
            [ready.submission.id.as_bytes().as_slice(), agent.as_str().as_bytes(), performative.name().as_bytes()];
        let id = MessageId::derived(&parts);
        let priority = ready.submission.priority;
        let trace = ready.submission.trace.clone();
        Submission { priority, trace, ..Submission::new(id, reply) }
    };
    performatives.iter().map(reply).filter(|reply| !reply.message.receivers.is_empty()).collect()
}
