//! Between what was said and the messages of the .proto file.

use super::pb::{self, failure, file, message, part, route};
use super::{DecodeError, field};
use crate::shard::message::{COUNT_MAX, TIME_MS_MAX};
use crate::shard::{
    Approval, Attachment, AttachmentInfo, Content, Failure, JsonText, Message, Part, Route, Spent, ToolCall, Usage,
};
use crate::{AgentName, Digest, WorkspaceId};

pub(super) fn workspace(name: String) -> Result<WorkspaceId, DecodeError> {
    name.try_into().map_err(|_| field("workspace"))
}

pub(super) fn agent(name: String) -> Result<AgentName, DecodeError> {
    name.try_into().map_err(|_| field("agent"))
}

pub(super) fn digest(bytes: &[u8], name: &'static str) -> Result<Digest, DecodeError> {
    Digest::try_from(bytes).map_err(|_| field(name))
}

pub(super) fn json(text: String, name: &'static str) -> Result<JsonText, DecodeError> {
    JsonText::read(text).map_err(|_| field(name))
}

pub(super) fn count(count: u64) -> u64 {
    count.min(COUNT_MAX)
}

pub(super) fn time(time_ms: u64) -> u64 {
    time_ms.min(TIME_MS_MAX)
}

/// Reads each of many.
pub(super) fn all<A, B>(messages: Vec<A>) -> Result<Vec<B>, DecodeError>
where
    B: TryFrom<A, Error = DecodeError>,
{
    messages.into_iter().map(TryInto::try_into).collect()
}

/// Writes each of many.
pub(super) fn each<'a, A, B: From<&'a A>>(values: &'a [A]) -> Vec<B> {
    values.iter().map(Into::into).collect()
}

impl From<&Message> for pb::Message {
    fn from(it: &Message) -> Self {
        let body = match it {
            Message::System { text } => message::Body::System(pb::SystemMessage { text: text.clone() }),
            Message::User { parts } => message::Body::User(pb::UserMessage { parts: each(parts) }),
            Message::Assistant { text, calls, echo } => {
                let (text, echo) = (text.clone(), echo.clone());
                message::Body::Assistant(pb::AssistantMessage { text, calls: each(calls), echo })
            }
            Message::Tool { call, tool, text, failed } => message::Body::Tool(pb::ToolMessage {
                call: call.clone(),
                tool: tool.clone(),
                text: text.clone(),
                failed: *failed,
            }),
        };
        Self { body: Some(body) }
    }
}

impl TryFrom<pb::Message> for Message {
    type Error = DecodeError;
    fn try_from(it: pb::Message) -> Result<Self, DecodeError> {
        Ok(match it.body.ok_or(field("message"))? {
            message::Body::System(pb::SystemMessage { text }) => Message::System { text },
            message::Body::User(pb::UserMessage { parts }) => Message::User { parts: all(parts)? },
            message::Body::Assistant(pb::AssistantMessage { text, calls, echo }) => {
                Message::Assistant { text, calls: calls.into_iter().map(Into::into).collect(), echo }
            }
            message::Body::Tool(pb::ToolMessage { call, tool, text, failed }) => {
                Message::Tool { call, tool, text, failed }
            }
        })
    }
}

impl From<&Part> for pb::Part {
    fn from(it: &Part) -> Self {
        let body = match it {
            Part::Text { text } => part::Body::Text(text.clone()),
            Part::Image { url } => part::Body::Image(url.clone()),
        };
        Self { body: Some(body) }
    }
}

impl TryFrom<pb::Part> for Part {
    type Error = DecodeError;
    fn try_from(it: pb::Part) -> Result<Self, DecodeError> {
        Ok(match it.body.ok_or(field("part"))? {
            part::Body::Text(text) => Part::Text { text },
            part::Body::Image(url) => Part::Image { url },
        })
    }
}

impl From<&ToolCall> for pb::ToolCall {
    fn from(it: &ToolCall) -> Self {
        Self { id: it.id.clone(), tool: it.tool.clone(), arguments: it.arguments.clone() }
    }
}

impl From<pb::ToolCall> for ToolCall {
    fn from(pb::ToolCall { id, tool, arguments }: pb::ToolCall) -> Self {
        Self { id, tool, arguments }
    }
}

impl From<Usage> for pb::Usage {
    fn from(Usage { input, output }: Usage) -> Self {
        Self { input, output }
    }
}

impl From<Option<pb::Usage>> for Usage {
    fn from(usage: Option<pb::Usage>) -> Self {
        let pb::Usage { input, output } = usage.unwrap_or_default();
        Self { input: count(input), output: count(output) }
    }
}

impl From<Spent> for pb::Spent {
    fn from(Spent { tokens, cost }: Spent) -> Self {
        Self { tokens, cost }
    }
}

impl From<Option<pb::Spent>> for Spent {
    fn from(spent: Option<pb::Spent>) -> Self {
        let pb::Spent { tokens, cost } = spent.unwrap_or_default();
        Self { tokens: count(tokens), cost: count(cost) }
    }
}

impl From<&Attachment> for pb::File {
    fn from(it: &Attachment) -> Self {
        let content = match &it.content {
            Content::Text(text) => file::Content::Text(text.clone()),
            Content::Base64(text) => file::Content::Base64(text.clone()),
        };
        Self { name: it.name.clone(), media_type: it.media_type.clone(), content: Some(content) }
    }
}

impl TryFrom<pb::File> for Attachment {
    type Error = DecodeError;
    fn try_from(pb::File { name, media_type, content }: pb::File) -> Result<Self, DecodeError> {
        let content = match content.ok_or(field("content"))? {
            file::Content::Text(text) => Content::Text(text),
            file::Content::Base64(text) => Content::Base64(text),
        };
        Ok(Self { name, media_type, content })
    }
}

impl From<&AttachmentInfo> for pb::FileInfo {
    fn from(it: &AttachmentInfo) -> Self {
        Self { name: it.name.clone(), media_type: it.media_type.clone(), bytes: it.bytes }
    }
}

impl From<pb::FileInfo> for AttachmentInfo {
    fn from(pb::FileInfo { name, media_type, bytes }: pb::FileInfo) -> Self {
        Self { name, media_type, bytes: count(bytes) }
    }
}

impl From<&Route> for pb::Route {
    fn from(it: &Route) -> Self {
        let by = match it {
            Route::Address => route::By::Address(pb::Empty {}),
            Route::Conversation => route::By::Conversation(pb::Empty {}),
            Route::Capability { capability, score } => {
                route::By::Capability(pb::CapabilityRoute { capability: capability.clone(), score: *score })
            }
        };
        Self { by: Some(by) }
    }
}

pub(super) fn read_route(route: Option<pb::Route>) -> Result<Route, DecodeError> {
    match route.and_then(|route| route.by).ok_or(field("route"))? {
        route::By::Address(pb::Empty {}) => Ok(Route::Address),
        route::By::Conversation(pb::Empty {}) => Ok(Route::Conversation),
        route::By::Capability(pb::CapabilityRoute { score, .. }) if !score.is_finite() => Err(field("score")),
        route::By::Capability(pb::CapabilityRoute { capability, score }) => Ok(Route::Capability { capability, score }),
    }
}

impl From<&Approval> for pb::Approval {
    fn from(it: &Approval) -> Self {
        Self {
            id: it.id.clone(),
            workspace: it.workspace.to_string(),
            conversation: it.conversation.clone(),
            agent: it.agent.to_string(),
            tool: it.tool.clone(),
            arguments: it.arguments.as_str().to_owned(),
            since: it.since.clone(),
        }
    }
}

impl TryFrom<pb::Approval> for Approval {
    type Error = DecodeError;
    fn try_from(it: pb::Approval) -> Result<Self, DecodeError> {
        Ok(Self {
            id: it.id,
            workspace: workspace(it.workspace)?,
            conversation: it.conversation,
            agent: agent(it.agent)?,
            tool: it.tool,
            arguments: json(it.arguments, "arguments")?,
            since: it.since,
        })
    }
}

impl From<&Failure> for pb::Failure {
    fn from(it: &Failure) -> Self {
        let empty = pb::Empty {};
        let body = match it {
            Failure::StepsSpent { steps_max } => failure::Body::StepsSpent(*steps_max),
            Failure::TokensSpent { used, tokens_max } => {
                failure::Body::TokensSpent(pb::TokensSpent { used: *used, tokens_max: *tokens_max })
            }
            Failure::TimeSpent { wall_ms_max } => failure::Body::TimeSpent(*wall_ms_max),
            Failure::Loop { tool, times } => {
                failure::Body::CallLoop(pb::CallLoop { tool: tool.clone(), times: *times })
            }
            Failure::Silent => failure::Body::Silent(empty),
            Failure::Withheld => failure::Body::Withheld(empty),
            Failure::Model { reason } => failure::Body::Model(reason.clone()),
            Failure::Stopped => failure::Body::Stopped(empty),
            Failure::GivenUp { reason } => failure::Body::GivenUp(reason.clone()),
        };
        Self { body: Some(body) }
    }
}

impl TryFrom<pb::Failure> for Failure {
    type Error = DecodeError;
    fn try_from(it: pb::Failure) -> Result<Self, DecodeError> {
        Ok(match it.body.ok_or(field("failure"))? {
            failure::Body::StepsSpent(steps_max) => Failure::StepsSpent { steps_max },
            failure::Body::TokensSpent(pb::TokensSpent { used, tokens_max }) => {
                Failure::TokensSpent { used: count(used), tokens_max: count(tokens_max) }
            }
            failure::Body::TimeSpent(wall_ms_max) => Failure::TimeSpent { wall_ms_max: time(wall_ms_max) },
            failure::Body::CallLoop(pb::CallLoop { tool, times }) => Failure::Loop { tool, times },
            failure::Body::Silent(pb::Empty {}) => Failure::Silent,
            failure::Body::Withheld(pb::Empty {}) => Failure::Withheld,
            failure::Body::Model(reason) => Failure::Model { reason },
            failure::Body::Stopped(pb::Empty {}) => Failure::Stopped,
            failure::Body::GivenUp(reason) => Failure::GivenUp { reason },
        })
    }
}
