//! What a turn that a message began sends with that message's outcome: read from its record, so that whoever settles the delivery
//! sends the same, whichever node drove the turn.

use caxton_messages::acl::{Content, Message, MessageId, Performative, Priority};
use caxton_messages::mailbox::Submission;
use caxton_proto::WorkspaceId;
use caxton_proto::shard::{self, ToolCall};
use serde_json::Value;
use tracing::warn;

use super::super::kept::TurnStatus;
use super::super::{InvokeError, Invoker};
use crate::agent::builtin::mail::{self as tools, MailTool, Publish, SendMessage};

/// Something that is sent once its turn's delivery is settled.
#[derive(Debug, Clone, PartialEq)]
pub enum Outgoing {
    /// A message of its own.
    Message {
        /// The call that sends it.
        call: String,
        /// The message, without a sender.
        message: Box<Message>,
        /// How urgent it is.
        priority: Priority,
    },
    /// An answer to the message that began the turn.
    Reply {
        /// The call that sends it.
        call: String,
        /// What it does.
        performative: Performative,
        /// What it says.
        content: Option<Content>,
    },
}

impl Invoker {
    /// What a turn that is over sends with the outcome of the message that began it, in the order of its calls.
    pub async fn outgoing(&self, workspace: &WorkspaceId, turn: &str) -> Result<Vec<Outgoing>, InvokeError> {
        match self.known(workspace, turn).await? {
            TurnStatus::Over(record) => Ok(outgoing(&record.messages)),
            TurnStatus::Nothing | TurnStatus::Waits(..) | TurnStatus::Begun(_) => Ok(Vec::new()),
        }
    }

    /// A message as its agent sends it, with who receives it; the error is for people.
    pub fn outgoing_submission(
        &self,
        workspace: &WorkspaceId,
        message: Message,
        id: MessageId,
        priority: Priority,
    ) -> Result<Submission, String> {
        let catalog = self.catalogs().get(workspace);
        let message = super::resolve(catalog.as_deref(), message, id)
            .map_err(|nobody| format!("no agent of workspace `{workspace}` stands for {nobody}"))?;
        super::may_leave(catalog.as_deref(), &message)?;
        Ok(Submission { priority, ..Submission::new(id, message) })
    }
}

/// The calls of a turn's outermost run that send later, if they returned without a failure.
fn outgoing(messages: &[shard::Message]) -> Vec<Outgoing> {
    let mut calls: Vec<&ToolCall> = Vec::new();
    let mut all = Vec::new();
    for message in messages {
        match message {
            shard::Message::Assistant { calls: asked, .. } => calls.extend(asked),
            shard::Message::Tool { call, failed: false, .. } => {
                let Some(found) = calls.iter().find(|it| it.id == *call) else { continue };
                match MailTool::of(&found.tool).map(|tool| later(tool, found)) {
                    Some(Ok(Some(outgoing))) => all.push(outgoing),
                    Some(Err(problem)) => warn!(call, problem, "a message of a turn cannot be sent"),
                    Some(Ok(None)) | None => {}
                }
            }
            shard::Message::System { .. } | shard::Message::User { .. } | shard::Message::Tool { .. } => {}
        }
    }
    all
}

fn later(tool: MailTool, call: &ToolCall) -> Result<Option<Outgoing>, String> {
    let arguments: Value = serde_json::from_str(&call.arguments).map_err(|error| error.to_string())?;
    let id = call.id.clone();
    match tool {
        MailTool::SendMessage => {
            let asked: SendMessage = tools::parse(&arguments)?;
            if asked.wait {
                return Ok(None);
            }
            let (message, priority) = (Box::new(asked.message()?), asked.priority()?);
            Ok(Some(Outgoing::Message { call: id, message, priority }))
        }
        MailTool::Publish => {
            let message = Box::new(tools::parse::<Publish>(&arguments)?.message()?);
            Ok(Some(Outgoing::Message { call: id, message, priority: Priority::default() }))
        }
        MailTool::Reply => {
            let asked: tools::Reply = tools::parse(&arguments)?;
            let (performative, content) = (tools::performative(&asked.performative)?, tools::content(&asked.content)?);
            Ok(Some(Outgoing::Reply { call: id, performative, content }))
        }
        // They were done when they returned.
        MailTool::Subscribe | MailTool::CallForProposals | MailTool::Award => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_called_without_a_failure_goes_out_in_its_order() {
        let call = |id: &str, tool: &str, arguments: &str| ToolCall {
            id: id.to_owned(),
            tool: tool.to_owned(),
            arguments: arguments.to_owned(),
        };
        let returned = |id: &str, failed| shard::Message::Tool {
            call: id.to_owned(),
            tool: "any".to_owned(),
            text: "{}".to_owned(),
            failed,
        };
        let calls = vec![
            call("1", "send_message", r#"{"to":"ann","content":"a"}"#),
            call("2", "send_message", r#"{"to":"ann","content":"waits","wait":true}"#),
            call("3", "reply", r#"{"performative":"propose","content":{"cost":3}}"#),
            call("4", "publish", r#"{"topic":"a/b","content":"c"}"#),
            call("5", "send_message", r#"{"to":"ann","content":"failed"}"#),
            call("6", "award", r#"{"conversation":"c","to":[]}"#),
            call("7", "other", "{}"),
        ];
        let mut messages = vec![shard::Message::Assistant { text: String::new(), calls, echo: None }];
        messages.extend(["1", "2", "3", "4", "5", "6", "7"].map(|id| returned(id, id == "5")));
        let found = outgoing(&messages);
        let calls: Vec<&str> = found
            .iter()
            .map(|it| match it {
                Outgoing::Message { call, .. } | Outgoing::Reply { call, .. } => call.as_str(),
            })
            .collect();
        assert_eq!(calls, ["1", "3", "4"]);
        let Outgoing::Reply { performative, content, .. } = &found[1] else { panic!("{found:?}") };
        assert_eq!((*performative, content.clone()), (Performative::Propose, Some(Content::json("{\"cost\":3}"))));
    }
}
