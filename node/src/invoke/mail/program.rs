//! A message of a mailbox whose agent is a program: the program is handed the message itself, with its state.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use caxton_messages::acl::{Address, Message, MessageId};
use caxton_messages::state;
use caxton_proto::shard::{Ending, Route, TIME_MS_MAX, TurnRecord};
use caxton_proto::{AgentName, WorkspaceId};
use caxton_tools::{AgentOutcome, HandlingError};

use super::super::memory::Asker;
use super::super::{InvokeError, Invoker};
use crate::agent::module::{MailHandled, MailedMessage, MaySend, handle_mail};
use crate::agent::world::World;
use crate::chat::Spent;
use crate::llm::{self, Usage};

/// A message for a program.
#[derive(Debug, Clone)]
pub struct Mail {
    /// The agent that is a program.
    pub agent: AgentName,
    /// Whose name its tools and its memory see.
    pub subject: String,
    /// The conversation of its turn.
    pub conversation: String,
    /// The same for every attempt at this delivery.
    pub key: String,
    /// The message, as its sender sent it.
    pub message: Message,
}

/// What came of it.
pub type MailOutcome = Result<AgentOutcome, HandlingError>;

impl Invoker {
    /// Has a program handle a message. What it sends and keeps is given back, and counts once its delivery is settled with it.
    pub async fn handle_mail(&self, workspace: &WorkspaceId, mail: Mail) -> Result<MailOutcome, InvokeError> {
        let _place = self.admit()?;
        let term = self.lead(workspace).await?;
        let Mail { agent: name, subject, conversation, key, message } = mail;
        let turn = super::super::mail_turns::mailed(&uuid::Uuid::now_v7().simple().to_string());
        let world = self.world(workspace, Asker::new(&subject, &conversation, &turn))?;
        let agent = world.agent(&name).await?;
        let Some(module) = agent.module.clone() else { return Err(InvokeError::Unfinished) };
        let (of, owner) = (workspace.clone(), name.clone());
        let mailboxes = self.shared.parts.mailboxes.of(workspace);
        let read = mailboxes.read(move |rows| state(rows, &of, owner.as_str())).await;
        let kept: BTreeMap<String, String> = read.map_err(|error| InvokeError::Mailbox(Box::new(error)))?;
        let (catalog, own) = (Arc::clone(world.catalog()), Address::Agent(name.clone()));
        let may_send: MaySend = Arc::new(move |message| {
            // Whom it stands for does not count here, only that somebody does.
            let id = MessageId::from_bytes([0; 16]);
            let resolved = super::resolve(Some(&catalog), message.clone().stamped(own.clone()), id)
                .map_err(|nobody| format!("no agent of this workspace stands for {nobody}"))?;
            super::may_leave(Some(&catalog), &resolved)
        });
        let began = Instant::now();
        let mailed = MailedMessage { message, state: kept, may_send, step_key: key };
        let revision = world.revision();
        let world: Arc<dyn World> = world;
        let MailHandled { result, spent, usage } = handle_mail(&world, self.models(), &agent, &module, mailed).await;
        if spent != Spent::default() {
            let turn = Charged { workspace, conversation, turn, subject, agent: name, term, spent, usage, began };
            self.record_charge(turn, revision).await?;
        }
        Ok(result)
    }

    /// Keeps what a program's models cost, so that no budget is given twice.
    async fn record_charge(&self, of: Charged<'_>, revision: caxton_proto::Revision) -> Result<(), InvokeError> {
        let ending = Ending {
            route: Route::Address,
            truncated: false,
            steps: 1,
            failure: None,
            files: Vec::new(),
            files_omitted: 0,
            request_digest: None,
            request: None,
        };
        let said = [llm::Message::user("(a message of its mailbox)"), llm::Message::assistant("(handled)".to_owned())];
        let record = TurnRecord {
            workspace: of.workspace.clone(),
            conversation: of.conversation,
            turn: of.turn,
            agent: of.agent.clone(),
            subject: of.subject,
            time_ms: crate::authn::now_ms().min(TIME_MS_MAX),
            messages: said.into_iter().map(Into::into).collect(),
            attachments: Vec::new(),
            usage: of.usage.into(),
            spent: vec![(of.agent, of.spent.into())],
            duration_ms: u64::try_from(of.began.elapsed().as_millis()).unwrap_or(TIME_MS_MAX).min(TIME_MS_MAX),
            revision,
            failure: None,
            ending: Some(ending),
            term: of.term,
        };
        self.conversations().of(of.workspace).record(record).await?;
        Ok(())
    }
}

/// A message whose handling cost something.
struct Charged<'a> {
    workspace: &'a WorkspaceId,
    conversation: String,
    turn: String,
    subject: String,
    agent: AgentName,
    term: u64,
    spent: Spent,
    usage: Usage,
    began: Instant,
}
