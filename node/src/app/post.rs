//! Messages between workspaces: from the shard of one to the shard of the other, which another node may lead.
//!
//! They go where both workspaces allow it: the sender's caxton.toml names the other under `sends_to`, and the receiver's names the
//! sender's under `receives_from`. Both nodes look at both files. What is brought more than once is taken in once, by an id that
//! comes from the message's own.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use caxton_messages::acl::{Address, Body, Content, Message, MessageId, Performative};
use caxton_messages::mailbox::{Action, DELAY, Fate, Outcome, Reason, Submission, decode_message, encode_message};
use caxton_proto::peer::pb::CarryRequest;
use caxton_proto::{AgentName, WorkspaceId};
use tracing::debug;

use crate::catalog::Catalogs;
use crate::cluster::Cluster;
use crate::cluster::intake::{Intake, IntakeOutcome};
use crate::errors::chain;
use crate::mailbox::{MailboxError, Mailboxes};
use crate::shard::NotHere;

/// How long it is waited for to know who leads the other workspace's shard.
const LEAD_WAIT: Duration = Duration::from_secs(3);
/// How long it is waited for to know what is deployed.
const SETTLE_WAIT: Duration = Duration::from_secs(10);
/// How long another node may take to take a message in.
const CARRY_WAIT: Duration = Duration::from_secs(30);

/// The way to mailboxes of other workspaces. A clone is a handle on the same.
#[derive(Clone)]
pub struct Post(Arc<Inner>);

struct Inner {
    catalogs: Catalogs,
    mailboxes: Mailboxes,
    cluster: Cluster,
}

impl Post {
    /// The way between the workspaces of these catalogs.
    pub fn new(catalogs: Catalogs, mailboxes: Mailboxes, cluster: Cluster) -> Post {
        Post(Arc::new(Inner { catalogs, mailboxes, cluster }))
    }

    /// Brings a message to an agent of another workspace.
    pub(super) async fn carry(
        &self,
        source: &WorkspaceId,
        (agent, workspace): (&AgentName, &WorkspaceId),
        submission: &Submission,
    ) -> IntakeOutcome {
        if let Some(refused) = self.forbidden(source, workspace).await {
            return refused;
        }
        let parcel = parcel(source, (agent, workspace), submission);
        let leader = match self.0.mailboxes.of(workspace).shard().lead(LEAD_WAIT).await {
            Ok(_) => return self.take_in(source, workspace, parcel).await,
            Err(NotHere { leader }) => leader,
        };
        let Some(leader) = leader else {
            return IntakeOutcome::Later(format!("the shard of workspace `{workspace}` has no leader now"));
        };
        let cluster = &self.0.cluster;
        let mut client = match cluster.peers().client(leader).await {
            Ok(client) => client,
            Err(error) => return IntakeOutcome::Later(chain(&error).to_string()),
        };
        let request = CarryRequest {
            source: source.to_string(),
            workspace: workspace.to_string(),
            submission: encode_message(&parcel).into(),
        };
        match tokio::time::timeout(CARRY_WAIT, client.carry(request)).await {
            Ok(Ok(reply)) => IntakeOutcome::of(reply.into_inner()),
            Ok(Err(status)) => {
                cluster.peers().hear(&status);
                debug!(peer = %leader, %status, "a message was not carried to another node");
                IntakeOutcome::Later(format!(
                    "node {leader}, which leads its shard, did not take it: {}",
                    status.message()
                ))
            }
            Err(_) => IntakeOutcome::Later(format!("node {leader}, which leads its shard, did not answer")),
        }
    }

    /// Why a message may not go from one workspace to the other, or not now.
    async fn forbidden(&self, source: &WorkspaceId, workspace: &WorkspaceId) -> Option<IntakeOutcome> {
        let catalogs = self.0.catalogs.clone();
        // A node that has just come to lead knows it in a moment, and another try would be much later.
        let mut settled = catalogs.settled();
        let loaded = tokio::time::timeout(SETTLE_WAIT, settled.wait_for(|settled| *settled)).await;
        if !loaded.is_ok_and(|loaded| loaded.is_ok()) {
            return Some(IntakeOutcome::Later("what is deployed is still being loaded".to_owned()));
        }
        let (from, to) = (source.clone(), workspace.clone());
        // Files may have to be read for it.
        let looked = crate::tasks::blocking(move || forbidden(&catalogs, &from, &to)).await;
        looked.unwrap_or_else(|error| Some(IntakeOutcome::Later(chain(&error).to_string())))
    }

    /// Takes a message in, on the node that leads the receiver's shard.
    async fn take_in(&self, source: &WorkspaceId, workspace: &WorkspaceId, parcel: Submission) -> IntakeOutcome {
        match self.forbidden(source, workspace).await {
            // The sender's node has looked and looks again: one of the two does not know yet what is deployed.
            Some(IntakeOutcome::Refused(reason) | IntakeOutcome::Later(reason)) => return IntakeOutcome::Later(reason),
            Some(IntakeOutcome::Taken) | None => {}
        }
        let mailboxes = self.0.mailboxes.of(workspace);
        let term = match mailboxes.shard().lead(LEAD_WAIT).await {
            Ok(term) => term,
            Err(_) => {
                return IntakeOutcome::Later(format!("the leader of the shard of workspace `{workspace}` has changed"));
            }
        };
        let receive = Action::Receive { source: source.clone(), submission: Box::new(parcel) };
        let fate = match mailboxes.write(workspace, term, receive).await {
            Ok(Outcome::Sent(receipts)) => receipts.into_iter().next().map(|receipt| receipt.fate),
            Ok(Outcome::Refused(reason)) => Some(Fate::Refused(reason)),
            Ok(_) => None,
            Err(MailboxError::Deleted) => return IntakeOutcome::Refused(absent(workspace)),
            Err(error) => {
                let reason = chain(&error).to_string();
                let stays = matches!(error, MailboxError::TooLong { .. } | MailboxError::Refused(_));
                return if stays { IntakeOutcome::Refused(reason) } else { IntakeOutcome::Later(reason) };
            }
        };
        match fate {
            Some(Fate::Accepted { .. } | Fate::Duplicate(_)) => IntakeOutcome::Taken,
            Some(Fate::Refused(reason)) => match &reason {
                Reason::Full { .. } | Reason::Limit { .. } => {
                    IntakeOutcome::Later(format!("workspace `{workspace}`: {reason}"))
                }
                Reason::NotUnderstood { .. }
                | Reason::Field { .. }
                | Reason::NotFound
                | Reason::Circle { .. }
                | Reason::Expired => IntakeOutcome::Refused(format!("workspace `{workspace}`: {reason}")),
            },
            None => IntakeOutcome::Later(format!("the leader of the shard of workspace `{workspace}` has changed")),
        }
    }
}

#[async_trait]
impl Intake for Post {
    async fn take(&self, source: WorkspaceId, workspace: WorkspaceId, submission: &[u8]) -> IntakeOutcome {
        match decode_message(submission) {
            Ok(parcel) => self.take_in(&source, &workspace, parcel).await,
            Err(error) => IntakeOutcome::Later(format!("the node that leads its shard cannot read it: {error}")),
        }
    }
}

fn absent(workspace: &WorkspaceId) -> String {
    format!("there is no workspace `{workspace}`")
}

/// Why a message may not go from one workspace to the other, or not now.
fn forbidden(catalogs: &Catalogs, source: &WorkspaceId, workspace: &WorkspaceId) -> Option<IntakeOutcome> {
    let read = |of: &WorkspaceId| {
        let catalog = catalogs.get(of).ok_or_else(|| IntakeOutcome::Refused(absent(of)))?;
        catalog.manifest().map_err(|error| IntakeOutcome::Later(chain(&error).to_string()))
    };
    let (from, to) = match (read(source), read(workspace)) {
        (Ok(from), Ok(to)) => (from, to),
        (Err(why), _) | (_, Err(why)) => return Some(why),
    };
    if source == workspace {
        return Some(IntakeOutcome::Refused(format!("`{workspace}` is its own workspace: leave @{workspace} out")));
    }
    if !from.messages.sends_to.contains(workspace) {
        return Some(IntakeOutcome::Refused(format!(
            "workspace `{source}` does not send to `{workspace}`: name it in `sends_to` under [messages] of caxton.toml"
        )));
    }
    if !to.messages.receives_from.contains(source) {
        return Some(IntakeOutcome::Refused(format!(
            "workspace `{workspace}` does not receive from `{source}`: its caxton.toml has to name it in `receives_from` under \
             [messages]"
        )));
    }
    None
}

/// The message as the other workspace has it.
fn parcel(source: &WorkspaceId, (agent, workspace): (&AgentName, &WorkspaceId), submission: &Submission) -> Submission {
    let message = &submission.message;
    let there = |address: &Address| match address {
        Address::Agent(agent) => Some(Address::Elsewhere { agent: agent.clone(), workspace: source.clone() }),
        Address::Elsewhere { agent, workspace: of } if of == workspace => Some(Address::Agent(agent.clone())),
        Address::Elsewhere { .. } => Some(address.clone()),
        Address::Capability(_) | Address::Subject(_) | Address::Topic(_) | Address::Broadcast | Address::Platform => {
            None
        }
    };
    let own = submission.id.to_string();
    let conversation = message.conversation_id.as_deref().unwrap_or(&own);
    let mut extensions = message.extensions.clone();
    // It has waited here.
    extensions.retain(|name, _| !name.eq_ignore_ascii_case(DELAY));
    let to = Address::Elsewhere { agent: agent.clone(), workspace: workspace.clone() };
    let id = MessageId::derived(&[
        b"carried",
        source.as_str().as_bytes(),
        submission.id.as_bytes().as_slice(),
        to.to_string().as_bytes(),
    ]);
    // There the platform of this workspace is nobody: what an agent cannot do is said in that agent's name.
    let sender = match &message.sender {
        Some(Address::Platform) => failed_agent(message),
        sender => sender.clone(),
    };
    let message = Message {
        sender: sender.as_ref().and_then(there),
        receivers: vec![Address::Agent(agent.clone())],
        reply_to: message.reply_to.iter().filter_map(there).collect(),
        conversation_id: Some(conversation_there(source, workspace, conversation)),
        extensions,
        ..message.clone()
    };
    let (priority, expires_ms, trace) = (submission.priority, submission.expires_ms, submission.trace.clone());
    Submission { priority, expires_ms, trace, ..Submission::new(id, message) }
}

/// The agent of which the platform says that it cannot do what it was asked.
fn failed_agent(message: &Message) -> Option<Address> {
    if !matches!(message.performative, Performative::Failure | Performative::Refuse) {
        return None;
    }
    let Some(Content { body: Body::Json(text), .. }) = &message.content else { return None };
    let said: serde_json::Value = serde_json::from_str(text).ok()?;
    said["receiver"].as_str()?.parse().ok()
}

/// A conversation's name in the other workspace: one that began there has its own name there, any other this workspace's behind it.
fn conversation_there(source: &WorkspaceId, workspace: &WorkspaceId, conversation: &str) -> String {
    match conversation.rsplit_once('@') {
        Some((own, of)) if of == workspace.as_str() => own.to_owned(),
        Some(_) | None => format!("{conversation}@{source}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
        text.parse().expect("a name")
    }

    #[test]
    fn a_message_is_the_same_there_but_for_whose_names_and_conversation_are_of_here() {
        let (a, b): (WorkspaceId, WorkspaceId) = (name("team-a"), name("team-b"));
        let mut message = Message::new(Performative::Request, [name("bob@team-b"), name("carl")]).stamped(name("ann"));
        message.content = Some(Content::text("x"));
        message.reply_to = vec![name("dan"), name("subject:eve"), name("bob@team-b")];
        message.extensions.insert("X-delay-ms".to_owned(), "5".to_owned());
        let sent = Submission::new(MessageId::from_bytes([1; 16]), message);
        let there = parcel(&a, (&name("bob"), &b), &sent);
        assert_eq!(there.message.sender, Some(name("ann@team-a")));
        assert_eq!(there.message.receivers, [name::<Address>("bob")]);
        assert_eq!(there.message.reply_to, [name::<Address>("dan@team-a"), name("bob")]);
        assert_eq!(there.message.conversation_id, Some(format!("{}@team-a", sent.id)));
        assert!(there.message.extensions.is_empty() && there.message.check().is_ok());
        assert_eq!(parcel(&a, (&name("bob"), &b), &sent).id, there.id, "the same however often it is brought");
        assert_ne!(parcel(&a, (&name("bert"), &b), &sent).id, there.id);

        let mut reply = there.message.reply(Performative::Inform, None).stamped(name("bob"));
        reply.receivers = vec![name("ann@team-a")];
        let back = parcel(&b, (&name("ann"), &a), &Submission::new(MessageId::from_bytes([2; 16]), reply));
        assert_eq!(back.message.conversation_id, Some(sent.id.to_string()), "it finds its way back");
        assert_eq!((back.message.sender, back.message.receivers), (Some(name("bob@team-b")), vec![name("ann")]));

        let mut failure = Message::new(Performative::Failure, [name("ann@team-a")]).stamped(Address::Platform);
        failure.content = Some(Content::json("{\"receiver\":\"bob\",\"reason\":\"it broke\"}"));
        let told = parcel(&b, (&name("ann"), &a), &Submission::new(MessageId::from_bytes([3; 16]), failure));
        assert_eq!(told.message.sender, Some(name("bob@team-b")), "who failed says so");
    }
}
