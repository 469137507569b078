//! Messages to agents and what comes back: `POST .../messages`, its event stream, conversations and approvals.

use std::collections::BTreeMap;

use caxton_proto::{AgentName, Revision, WorkspaceId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::chat::{Message, Usage};

/// The longest text of a message, in bytes.
pub const TEXT_BYTES_MAX: usize = 256 << 10;
/// A message has at most this many attachments.
pub const ATTACHMENTS_MAX: usize = 16;
/// The largest attachment, in bytes.
pub const ATTACHMENT_BYTES_MAX: usize = 4 << 20;
/// The longest idempotency key of a message, in bytes.
pub const KEY_BYTES_MAX: usize = 128;
/// How much of a call's arguments and result an event shows, in bytes.
pub const PREVIEW_BYTES_MAX: usize = 600;

/// The body of `POST /api/v1/workspaces/{workspace}/messages`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MessageRequest {
    /// What is said, at most [`TEXT_BYTES_MAX`].
    pub text: String,
    /// An agent, by name. With neither this nor `capability`, the text itself finds the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub agent: Option<AgentName>,
    /// What the agent must be able to do, in a few words or by the capability's name, which a version may follow:
    /// `read-csv@^1.2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capability: Option<String>,
    /// The conversation that it continues; a new one when absent. Letters, digits, `-`, `_`, `.`, at most 64. An id that
    /// names no conversation is refused, unless `create` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation: Option<String>,
    /// Values for the placeholders of the agent's prompts, over those of its file: text, numbers, booleans, and lists of
    /// these. What no placeholder names is told to the model below the request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = Object)]
    pub parameters: BTreeMap<String, serde_json::Value>,
    /// Begin the conversation under the id that `conversation` says, if there is none of that name.
    #[serde(default, skip_serializing_if = "is_false")]
    pub create: bool,
    /// Find the agent by the text alone. Without this, what continues a conversation stays with its agent unless the text
    /// clearly belongs to what another one can do.
    #[serde(default, skip_serializing_if = "is_false")]
    pub reroute: bool,
    /// Go on to the end when the connection is lost. With an `idempotency_key` that is so anyway: the answer can be asked
    /// for again. Otherwise the turn is stopped when nobody waits for it any more.
    #[serde(default, skip_serializing_if = "is_false")]
    pub detached: bool,
    /// Files, which agents hand to tools by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "attachments")]
    pub attachments: Vec<Attachment>,
    /// Addresses of images for models that see: of the scheme `https`, or `data:image/...;base64,`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    /// Drawn at random by the sender: a message that is sent again with the same key, to any node, gets the one answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// Answer with `text/event-stream`: one [`TurnEvent`] an event, the last one `answered`, `waiting` or `failed`.
    #[serde(default)]
    pub stream: bool,
}

/// A file that travels with a message or an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Its name, without folders.
    pub name: String,
    /// Its media type, such as `text/csv`.
    #[serde(default = "plain_text")]
    pub media_type: String,
    /// What is in the file.
    #[serde(flatten)]
    pub content: Content,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// A file that travels with a message or an answer, with either `text` or `base64`.
// What is stored may have more fields one day, a request may not.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SentAttachment {
    /// Its name, without folders.
    name: String,
    /// Its media type, such as `text/csv`.
    #[serde(default = "plain_text")]
    media_type: String,
    /// Its content, where that is text.
    #[schema(nullable = false)]
    text: Option<String>,
    /// Its content in base64 (RFC 4648, with padding), where it is not.
    #[schema(nullable = false)]
    base64: Option<String>,
}

impl utoipa::PartialSchema for Attachment {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        SentAttachment::schema()
    }
}

impl ToSchema for Attachment {}

fn attachments<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<Attachment>, D::Error> {
    let sent = Vec::<SentAttachment>::deserialize(from)?;
    let attachment = |SentAttachment { name, media_type, text, base64 }| {
        let content = match (text, base64) {
            (Some(text), None) => Content::Text(text),
            (None, Some(text)) => Content::Base64(text),
            (Some(_), Some(_)) | (None, None) => {
                let problem = format!("the attachment `{name}` has to have either `text` or `base64`");
                return Err(serde::de::Error::custom(problem));
            }
        };
        Ok(Attachment { name, media_type, content })
    };
    sent.into_iter().map(attachment).collect()
}

fn plain_text() -> String {
    "text/plain".to_owned()
}

/// What is in a file: text as it is, anything else in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// A file that is text.
    Text(String),
    /// Bytes in base64 (RFC 4648, with padding).
    Base64(String),
}

impl Content {
    /// How many bytes it holds, as it is written here.
    pub fn len(&self) -> usize {
        match self {
            Content::Text(text) | Content::Base64(text) => text.len(),
        }
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The answer of `POST .../messages` without `stream`, and of the last event with it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MessageAnswer {
    /// The conversation, to go on with.
    pub conversation: String,
    /// Names this turn in traces and logs.
    pub turn: String,
    /// The agent that answered.
    #[schema(value_type = String)]
    pub agent: AgentName,
    /// Why that agent.
    pub route: Route,
    /// What the agent answered.
    pub text: String,
    /// The answer stops where the longest reply allowed ended.
    #[serde(default)]
    pub cut: bool,
    /// Files that came of the turn.
    #[serde(default)]
    pub attachments: Vec<Attachment>,
    /// How many files of the turn are too large to be kept, and came with the first answer only.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attachments_omitted: u32,
    /// Tokens that it took, those of agents that were asked among them.
    pub usage: Usage,
    /// Model answers and calls that it took.
    pub steps: u32,
    /// Milliseconds that it took.
    pub duration_ms: u64,
    /// The revision of the workspace that answered.
    #[schema(value_type = u64)]
    pub revision: Revision,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// How a message found its agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Route {
    /// It was named.
    Address,
    /// The conversation is with it.
    Conversation,
    /// It can do what was asked.
    Capability {
        /// The capability that was matched.
        capability: String,
        /// How well it fits, 0 to 1.
        score: f32,
    },
}

/// One step of a turn as it happens. `depth` is 0 for the agent that got the message, 1 for those that it asks, ...
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum TurnEvent {
    /// The message found its agent.
    Routed {
        /// The conversation that the message is part of.
        conversation: String,
        /// The turn that began.
        turn: String,
        /// The agent that answers.
        #[schema(value_type = String)]
        agent: AgentName,
        /// Why that one.
        route: Route,
    },
    /// A model is being asked.
    ModelAsked {
        /// The agent whose turn it is.
        #[schema(value_type = String)]
        agent: AgentName,
        /// How many agents asked one another before it.
        depth: u32,
    },
    /// A piece of what a model says.
    Text {
        /// The agent whose turn it is.
        #[schema(value_type = String)]
        agent: AgentName,
        /// How many agents asked one another before it.
        depth: u32,
        /// What came since the piece before.
        text: String,
    },
    /// The model is asked again: what it said of this answer so far does not count.
    TextWithdrawn {
        /// The agent whose turn it is.
        #[schema(value_type = String)]
        agent: AgentName,
        /// How many agents asked one another before it.
        depth: u32,
    },
    /// A model answered.
    ModelAnswered {
        /// The agent whose turn it is.
        #[schema(value_type = String)]
        agent: AgentName,
        /// How many agents asked one another before it.
        depth: u32,
        /// The provider that was asked.
        provider: String,
        /// The model that answered.
        model: String,
        /// What it read and wrote.
        usage: Usage,
        /// How many calls it asks for.
        calls: usize,
        /// How long it took, in milliseconds.
        duration_ms: u64,
    },
    /// A tool is called.
    ToolCalled {
        /// The agent whose turn it is.
        #[schema(value_type = String)]
        agent: AgentName,
        /// How many agents asked one another before it.
        depth: u32,
        /// The id of the call.
        call: String,
        /// The tool, as the model knows it.
        tool: String,
        /// The start of its arguments.
        arguments: String,
    },
    /// A tool returned.
    ToolReturned {
        /// The agent whose turn it is.
        #[schema(value_type = String)]
        agent: AgentName,
        /// How many agents asked one another before it.
        depth: u32,
        /// The id of the call.
        call: String,
        /// The tool that was called.
        tool: String,
        /// Whether the call failed.
        failed: bool,
        /// The start of its result.
        result: String,
        /// How long it took, in milliseconds.
        duration_ms: u64,
    },
    /// Another agent is asked.
    Delegated {
        /// The agent that asks another.
        #[schema(value_type = String)]
        agent: AgentName,
        /// How deep the one who asks is.
        depth: u32,
        /// The id of the call.
        call: String,
        /// Who is asked.
        #[schema(value_type = String)]
        to: AgentName,
        /// The capability that it was found by.
        capability: String,
        /// How well it fits.
        score: f32,
        /// The start of the request.
        request: String,
    },
    /// The other agent answered.
    DelegateReturned {
        /// The agent that asked.
        #[schema(value_type = String)]
        agent: AgentName,
        /// How deep the one who asked is.
        depth: u32,
        /// The id of the call.
        call: String,
        /// Who was asked.
        #[schema(value_type = String)]
        from: AgentName,
        /// Whether the call failed.
        failed: bool,
        /// How long it took, in milliseconds.
        duration_ms: u64,
    },
    /// A file came of a call.
    Attached {
        /// What the file is called.
        name: String,
        /// Its media type.
        media_type: String,
        /// Its size in bytes.
        bytes: usize,
    },
    /// The turn waits for a person. It is the last event of this stream; the conversation shows the answer.
    Waiting {
        /// The conversation that waits.
        conversation: String,
        /// The turn that waits.
        turn: String,
        /// What there is to decide.
        approvals: Vec<ApprovalInfo>,
    },
    /// The answer: the last event.
    Answered(Box<MessageAnswer>),
    /// There is no answer: the last event.
    Failed(Box<super::Problem>),
}

impl TurnEvent {
    /// The event's name in the stream.
    pub fn name(&self) -> &'static str {
        match self {
            TurnEvent::Routed { .. } => "routed",
            TurnEvent::ModelAsked { .. } => "model_asked",
            TurnEvent::Text { .. } => "text",
            TurnEvent::TextWithdrawn { .. } => "text_withdrawn",
            TurnEvent::ModelAnswered { .. } => "model_answered",
            TurnEvent::ToolCalled { .. } => "tool_called",
            TurnEvent::ToolReturned { .. } => "tool_returned",
            TurnEvent::Delegated { .. } => "delegated",
            TurnEvent::DelegateReturned { .. } => "delegate_returned",
            TurnEvent::Attached { .. } => "attached",
            TurnEvent::Waiting { .. } => "waiting",
            TurnEvent::Answered(_) => "answered",
            TurnEvent::Failed(_) => "failed",
        }
    }
}

/// A call that waits for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApprovalInfo {
    /// What a decision calls it by.
    pub id: String,
    /// The workspace that it is in.
    #[schema(value_type = String)]
    pub workspace: WorkspaceId,
    /// In which conversation.
    pub conversation: String,
    /// Which agent wants to make the call.
    #[schema(value_type = String)]
    pub agent: AgentName,
    /// The tool that is to be called.
    pub tool: String,
    /// Its arguments, whole: what is approved is what is seen.
    pub arguments: serde_json::Value,
    /// Since when, RFC 3339.
    pub since: String,
}

/// `DELETE .../turns/{id}`: how a turn is over that was to be stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TurnOver {
    /// The turn that was to be decided.
    pub turn: String,
    /// The conversation of that turn.
    pub conversation: String,
    /// The agent whose turn it was.
    #[schema(value_type = String)]
    pub agent: AgentName,
    /// `stopped`; or, where it was over before, `answered` or the name of its failure.
    pub outcome: String,
}

/// The answer to `GET .../approvals`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct Approvals {
    /// The oldest first.
    pub approvals: Vec<ApprovalInfo>,
}

/// The body of `POST .../approvals/{id}`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApprovalDecision {
    /// Whether the call may be made.
    pub approve: bool,
    /// Why not; the model reads it.
    #[serde(default)]
    pub reason: String,
}

/// One row of `GET .../conversations`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConversationSummary {
    /// The id of the conversation.
    pub id: String,
    /// How it began.
    pub title: String,
    /// Who answered last.
    #[schema(value_type = String)]
    pub agent: AgentName,
    /// Turns that were answered.
    pub turns: u64,
    /// Tokens that they took.
    pub usage: Usage,
    /// When it began, RFC 3339.
    pub created: String,
    /// When it was last answered, RFC 3339.
    pub updated: String,
}

/// `GET .../conversations?before=CURSOR&limit=N`, the newest first.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct Conversations {
    /// The conversations of this page.
    pub conversations: Vec<ConversationSummary>,
    /// Pass as `before` to read on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// The answer to `GET .../conversations/{id}`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ConversationDetail {
    /// As in the listing.
    #[serde(flatten)]
    pub summary: ConversationSummary,
    /// Its turns, the oldest first.
    pub turns_detail: Vec<TurnRecord>,
}

/// One answered turn of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TurnRecord {
    /// The id of the turn.
    pub turn: String,
    /// The agent that answered.
    #[schema(value_type = String)]
    pub agent: AgentName,
    /// Who asked, as the token says.
    pub subject: String,
    /// When it was answered, RFC 3339.
    pub time: String,
    /// What the sender said, as it was said; the first message has it as the agent's prompt puts it. Absent in what an older
    /// program recorded; at most its first 16 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// What was said: the request first, the answer last.
    pub messages: Vec<Message>,
    /// The files that travelled with it, without their content.
    #[serde(default)]
    pub attachments: Vec<AttachmentInfo>,
    /// What it took.
    pub usage: Usage,
    /// Milliseconds that it took.
    pub duration_ms: u64,
    /// The revision that answered.
    #[schema(value_type = u64)]
    pub revision: Revision,
    /// Why there is no answer, when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// What is known of a file that travelled with a turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AttachmentInfo {
    /// What the file is called.
    pub name: String,
    /// Its media type.
    pub media_type: String,
    /// Its size in bytes.
    pub bytes: usize,
}
