//! What an agent's turn does with messages: it sends, publishes and subscribes, calls for proposals, awards, and waits for answers.
//!
//! What the outermost run of a turn sends that a message began is kept until that message's outcome, and is in one entry with it
//! (`outgoing.rs`). Anything else goes out at once under a key of its step, so that a step that is taken again sends nothing twice:
//! what a turn waits for, awards, and what is sent in turns that nobody's message began.

mod outgoing;
mod program;
mod turn;
mod wait;

use std::sync::Arc;

use caxton_messages::acl::{Address, Content, Message, MessageId, Performative};
use caxton_messages::conversation;
use caxton_messages::mailbox::{Action, Await, Fate, Filter, NAME_BYTES_MAX, Outcome, Submission};
use caxton_proto::manifest::agent::AgentManifest;
use caxton_proto::{AgentName, Digest, ToolName, WorkspaceId};
use serde_json::{Value, json};

pub use self::outgoing::Outgoing;
pub use self::program::{Mail, MailOutcome};
pub use self::turn::MailedTurn;
use super::Shared;
use super::mail_turns::is_mailed;
use super::memory::Asker;
use crate::agent::OfferedFunction;
use crate::agent::builtin::mail::{self as tools, Award, CallForProposals, MailTool, Publish, SendMessage, Subscribe};
use crate::agent::world::{Invocation, ToolOutput};
use crate::catalog::Catalog;
use crate::llm::{ToolDefinition, reasons};

/// The protocol of a call for proposals.
const CONTRACT_NET: &str = "fipa-contract-net";
/// What a model is told of what goes out later.
const LATER: &str = "with the end of this turn";

/// The message with agents in place of the capabilities and of everybody that it is for; the error is the receiver whom nobody
/// stands for. Equals take turns by the message's id, which is drawn.
pub fn resolve(catalog: Option<&Catalog>, message: Message, id: MessageId) -> Result<Message, Address> {
    let mut receivers: Vec<Address> = Vec::new();
    for receiver in &message.receivers {
        let agents = |offers: &dyn Fn(&AgentManifest) -> bool| -> Result<Vec<Address>, Address> {
            let all = catalog.ok_or_else(|| receiver.clone())?.agents().iter();
            let offers = all.filter(|(_, entry)| entry.manifest().is_ok_and(|manifest| offers(&manifest)));
            Ok(offers.map(|(name, _)| Address::Agent(name.clone())).collect())
        };
        let found = match receiver {
            Address::Capability(name) => {
                let equals = agents(&|manifest| manifest.capabilities.iter().any(|it| it.name == *name))?;
                let at = usize::from(id.as_bytes()[15]) % equals.len().max(1);
                vec![equals.into_iter().nth(at).ok_or_else(|| receiver.clone())?]
            }
            Address::Broadcast => {
                let others = agents(&|_| true)?;
                others.into_iter().filter(|agent| Some(agent) != message.sender.as_ref()).collect()
            }
            Address::Agent(_)
            | Address::Elsewhere { .. }
            | Address::Subject(_)
            | Address::Topic(_)
            | Address::Platform => vec![receiver.clone()],
        };
        found.into_iter().for_each(|address| {
            if !receivers.contains(&address) {
                receivers.push(address);
            }
        });
    }
    Ok(Message { receivers, ..message })
}

/// Whether a workspace's agents may write to the other workspaces that a message is for; the error is for whoever sends it. What
/// the other one allows is looked at when the message is carried there.
pub(super) fn may_leave(catalog: Option<&Catalog>, message: &Message) -> Result<(), String> {
    for receiver in &message.receivers {
        let Address::Elsewhere { workspace, .. } = receiver else { continue };
        let manifest = catalog.map(Catalog::manifest).transpose().map_err(|error| reasons(&error))?;
        if !manifest.is_some_and(|manifest| manifest.messages.sends_to.contains(workspace)) {
            return Err(format!(
                "{receiver} is in workspace `{workspace}`, to which this one does not send: caxton.toml names it in no `sends_to` \
                 under [messages]"
            ));
        }
    }
    Ok(())
}

/// The tools for messages, of those whose names are free: all of them where the agent's file has `[messages]`, else those that it
/// names. A program sends by itself.
pub(super) fn offered(manifest: &AgentManifest, is_free: impl Fn(&ToolName) -> bool) -> Vec<OfferedFunction> {
    if manifest.module.is_some() {
        return Vec::new();
    }
    let named = |tool: &MailTool| manifest.tools.all().any(|name| name.as_str() == tool.name());
    let tools = MailTool::ALL.into_iter().filter(|tool| manifest.messages.enabled || named(tool));
    let offered = tools.filter_map(|tool| {
        let server = tool.name().parse::<ToolName>().ok().filter(&is_free)?;
        let ToolDefinition { name: function, description, parameters } = tool.definition();
        Some(OfferedFunction { server, function, description, parameters, fixed: true, repeatable: true })
    });
    offered.collect()
}

/// Messages in one turn.
pub(super) struct AgentMail<'a> {
    pub shared: &'a Shared,
    pub catalog: &'a Arc<Catalog>,
    pub asker: &'a Asker,
    pub agent: &'a AgentName,
}

impl AgentMail<'_> {
    fn workspace(&self) -> &WorkspaceId {
        &self.catalog.workspace
    }

    /// Does what a model asks one of the tools for; the error is for the model.
    pub(super) async fn call(&self, tool: MailTool, call: &Invocation<'_>) -> Result<ToolOutput, String> {
        match tool {
            MailTool::SendMessage => self.send_message(call, tools::parse(&call.arguments)?).await,
            MailTool::Reply => self.reply(call, &tools::parse(&call.arguments)?),
            MailTool::Publish => self.publish(call, &tools::parse(&call.arguments)?).await,
            MailTool::Subscribe => self.subscribe(tools::parse(&call.arguments)?).await,
            MailTool::CallForProposals => self.call_for_proposals(call, tools::parse(&call.arguments)?).await,
            MailTool::Award => self.award(call, tools::parse(&call.arguments)?).await,
        }
    }

    /// Whether what is sent goes out with the outcome of the message that began the turn.
    fn is_later(&self, call: &Invocation<'_>) -> bool {
        is_mailed(self.asker.turn()) && !call.way.is_empty() && !call.way.contains('\n')
    }

    /// The message from this agent, and its id, which is the same for every attempt at the step.
    fn submission(&self, call: &Invocation<'_>, number: u8, message: Message) -> Result<Submission, String> {
        let id = MessageId::derived(&[b"step", call.step_key.as_bytes(), &[number]]);
        let message =
            resolve(Some(self.catalog), message.stamped(Address::Agent(self.agent.clone())), id).map_err(|nobody| {
                format!("no agent of this workspace stands for {nobody}; list_capabilities says who there is")
            })?;
        may_leave(Some(self.catalog), &message)?;
        let key = Some(format!("step-{id}"));
        Ok(Submission { key, ..Submission::new(id, message) })
    }

    async fn send_message(&self, call: &Invocation<'_>, asked: SendMessage) -> Result<ToolOutput, String> {
        let mut message = asked.message()?;
        if !asked.wait {
            let submission = Submission { priority: asked.priority()?, ..self.submission(call, 0, message)? };
            return self.send(call, submission).await;
        }
        if asked.performative.is_none() {
            message.performative = Performative::Request;
        }
        let until_ms = now_ms().saturating_add(tools::wait_ms(asked.wait_seconds)?);
        message.reply_by_ms = Some(until_ms);
        let submission = Submission { priority: asked.priority()?, ..self.submission(call, 0, message)? };
        self.ask(call, submission, until_ms).await
    }

    /// Sends a message now, or with the outcome of the one that began the turn.
    async fn send(&self, call: &Invocation<'_>, submission: Submission) -> Result<ToolOutput, String> {
        if self.is_later(call) {
            let receivers: Vec<String> = submission.message.receivers.iter().map(ToString::to_string).collect();
            return Ok(told(json!({ "to": receivers, "sent": LATER })));
        }
        let id = submission.id;
        match self.write(Action::Send(vec![submission])).await? {
            Outcome::Sent(receipts) => match receipts.into_iter().next().map(|receipt| receipt.fate) {
                Some(Fate::Accepted { conversation, deliveries, position, .. }) => Ok(told(json!({
                    "id": id.to_string(), "conversation": conversation, "deliveries": deliveries, "position": position,
                }))),
                Some(Fate::Duplicate(_)) => Ok(told(json!({ "id": id.to_string(), "sent_before": true }))),
                Some(Fate::Refused(reason)) => Err(format!("it was not sent: {reason}")),
                None => Err(strange()),
            },
            other => Err(refused(other)),
        }
    }

    /// Sends a message to agents and people, and puts the turn down until they have answered.
    async fn ask(
        &self,
        call: &Invocation<'_>,
        mut submission: Submission,
        until_ms: i64,
    ) -> Result<ToolOutput, String> {
        let own = submission.id.to_string();
        let message = &mut submission.message;
        let awaited = message.receivers.clone();
        let answers = |to: &&Address| matches!(to, Address::Agent(_) | Address::Elsewhere { .. } | Address::Subject(_));
        if let Some(topic) = awaited.iter().find(|to| !answers(to)) {
            return Err(format!("nobody answers for {topic}: wait for agents or people"));
        }
        let conversation = message.conversation_id.get_or_insert_with(|| own.clone()).clone();
        message.reply_with.get_or_insert(own);
        self.wait(call, Sending { conversation, awaited, until_ms, submissions: vec![submission] }).await
    }

    async fn wait(&self, call: &Invocation<'_>, sending: Sending) -> Result<ToolOutput, String> {
        let Sending { conversation, awaited, until_ms, submissions } = sending;
        if awaited.is_empty() {
            return Err("there is nobody to wait for: name who is to answer".to_owned());
        }
        let owner = Address::Agent(self.agent.clone());
        let (turn, way) = (self.asker.turn().to_owned(), call.way.clone());
        let wait = Await { owner, turn, way, conversation, awaited, until_ms, submissions };
        match self.write(Action::Await(wait)).await? {
            Outcome::Sent(_) => Ok(ToolOutput { awaited: true, ..ToolOutput::default() }),
            other => Err(refused(other)),
        }
    }

    fn reply(&self, call: &Invocation<'_>, asked: &tools::Reply) -> Result<ToolOutput, String> {
        if !self.is_later(call) {
            let why = "no message began this turn, so that there is none to reply to: answer with your text, or use send_message";
            return Err(why.to_owned());
        }
        let (performative, _) = (tools::performative(&asked.performative)?, tools::content(&asked.content)?);
        Ok(told(json!({ "performative": performative.name(), "sent": LATER })))
    }

    async fn publish(&self, call: &Invocation<'_>, asked: &Publish) -> Result<ToolOutput, String> {
        let submission = self.submission(call, 0, asked.message()?)?;
        self.send(call, submission).await
    }

    async fn subscribe(&self, asked: Subscribe) -> Result<ToolOutput, String> {
        let pattern = asked.pattern()?;
        let name = match pattern.as_str().len() <= NAME_BYTES_MAX {
            true => pattern.as_str().to_owned(),
            false => Digest::of(pattern.as_str().as_bytes()).to_string(),
        };
        let subscriber = Address::Agent(self.agent.clone());
        let filter = Filter::of(&asked.filter).map_err(|error| format!("`filter`: {error}"))?;
        match self.write(Action::Subscribe { subscriber, name, pattern, filter, after: asked.after }).await? {
            Outcome::Subscribed { position } => Ok(told(json!({ "subscribed": asked.topics, "position": position }))),
            other => Err(refused(other)),
        }
    }

    async fn call_for_proposals(&self, call: &Invocation<'_>, asked: CallForProposals) -> Result<ToolOutput, String> {
        let until_ms = now_ms().saturating_add(tools::wait_ms(asked.wait_seconds)?);
        let message = Message {
            content: tools::content(&asked.task)?,
            protocol: Some(CONTRACT_NET.to_owned()),
            reply_by_ms: Some(until_ms),
            ..Message::new(Performative::Cfp, asked.to.addresses()?)
        };
        message.check().map_err(|error| error.to_string())?;
        let mut submission = self.submission(call, 0, message)?;
        submission.message.conversation_id = Some(submission.id.to_string());
        self.ask(call, submission, until_ms).await
    }

    async fn award(&self, call: &Invocation<'_>, asked: Award) -> Result<ToolOutput, String> {
        let chosen = asked.to.addresses()?;
        let (workspace, id) = (self.workspace().clone(), asked.conversation.clone());
        let mailboxes = self.shared.parts.mailboxes.of(self.workspace());
        let found = mailboxes.read(move |rows| conversation(rows, &workspace, &id, u64::MAX, 0)).await;
        let found = found.map_err(|error| reasons(&error))?;
        let own = Address::Agent(self.agent.clone()).to_string();
        let found = found.filter(|found| found.initiator == own).ok_or_else(|| {
            format!(
                "you called for no proposals in conversation `{}`; the table of the bids names it",
                asked.conversation
            )
        })?;
        let Some(protocol) = found.protocol else { return Err("its conversation is no call for proposals".to_owned()) };
        let bids: Vec<&str> =
            found.participants.iter().filter(|(_, at)| at == "proposed").map(|(name, _)| name.as_str()).collect();
        // A step that is taken again finds what it did itself.
        let stands = |at: &str| ["proposed", "accepted", "done", "failed"].contains(&at);
        let taken: Vec<&String> =
            found.participants.iter().filter(|(_, at)| stands(at)).map(|(name, _)| name).collect();
        for winner in &chosen {
            if !taken.contains(&&winner.to_string()) {
                return Err(format!("{winner} has no proposal that stands; there are those of {}", bids.join(", ")));
            }
        }
        let losers = bids.iter().filter_map(|name| name.parse::<Address>().ok());
        let losers: Vec<Address> = losers.filter(|name| !chosen.contains(name)).collect();
        let content = asked.content.as_ref().map_or(Ok(None), tools::content)?;
        let rejection = Some(Content::json(json!({ "reason": "another proposal was accepted" }).to_string()));
        let until_ms = now_ms().saturating_add(tools::wait_ms(asked.wait_seconds)?);
        let mut submissions = Vec::new();
        for (number, to, performative, content) in [
            (0, chosen.clone(), Performative::AcceptProposal, content),
            (1, losers.clone(), Performative::RejectProposal, rejection),
        ] {
            if to.is_empty() {
                continue;
            }
            let reply_with = (performative == Performative::AcceptProposal).then(|| format!("award-{}", call.way));
            let message = Message {
                content,
                protocol: Some(protocol.clone()),
                conversation_id: Some(asked.conversation.clone()),
                reply_with: reply_with.map(|text| text.replace('\n', "/")),
                ..Message::new(performative, to)
            };
            message.check().map_err(|error| error.to_string())?;
            submissions.push(self.submission(call, number, message)?);
        }
        if asked.wait {
            let sending = Sending { conversation: asked.conversation, awaited: chosen, until_ms, submissions };
            return self.wait(call, sending).await;
        }
        let (accepted, rejected) = (names(&chosen), names(&losers));
        match self.write(Action::Send(submissions)).await? {
            Outcome::Sent(receipts) => {
                let refusal = receipts.into_iter().find_map(|receipt| match receipt.fate {
                    Fate::Refused(reason) => Some(reason),
                    Fate::Accepted { .. } | Fate::Duplicate(_) => None,
                });
                refusal.map_or(Ok(told(json!({ "accepted": accepted, "rejected": rejected }))), |reason| {
                    Err(format!("not everybody was told: {reason}"))
                })
            }
            other => Err(refused(other)),
        }
    }

    async fn write(&self, action: Action) -> Result<Outcome, String> {
        let mailboxes = self.shared.parts.mailboxes.of(self.workspace());
        let led = mailboxes.shard().lead(self.shared.parts.limits.lead_wait).await;
        let term = led.map_err(|_| "another node has taken this workspace over; nothing was sent".to_owned())?;
        mailboxes.write(self.workspace(), term, action).await.map_err(|error| reasons(&error))
    }
}

/// What a turn sends before it waits.
struct Sending {
    conversation: String,
    awaited: Vec<Address>,
    until_ms: i64,
    submissions: Vec<Submission>,
}

fn names(all: &[Address]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

fn told(value: Value) -> ToolOutput {
    ToolOutput { text: value.to_string(), ..ToolOutput::default() }
}

/// Why a command did nothing, for a model.
fn refused(outcome: Outcome) -> String {
    match outcome {
        Outcome::Refused(reason) => format!("it was not sent: {reason}"),
        Outcome::Stale => "another node has taken this workspace over; nothing was sent".to_owned(),
        Outcome::Sent(_)
        | Outcome::Started(_)
        | Outcome::Settled { .. }
        | Outcome::Ticked { .. }
        | Outcome::Moved(_)
        | Outcome::Keyed(_)
        | Outcome::Subscribed { .. } => strange(),
    }
}

fn strange() -> String {
    "the answer of the mailboxes makes no sense; please report it as a defect".to_owned()
}

fn now_ms() -> i64 {
    i64::try_from(crate::time::now_ms()).unwrap_or(i64::MAX)
}
