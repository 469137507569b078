//! What was said in a turn, what it took, and how it ended.

use serde::{Deserialize, Deserializer, Serialize};

use super::text::JsonText;
use crate::{AgentName, WorkspaceId};

/// The most that a count of tokens, of money in millionths of a dollar, or of bytes says; what is more is kept as this. It
/// is what JSON's numbers hold exactly, and a thousand of them fit into what SQLite adds up.
pub const COUNT_MAX: u64 = (1 << 53) - 1;

/// The latest moment and the longest time that can be said, in milliseconds; what is more is kept as this.
pub const TIME_MS_MAX: u64 = 253_402_300_799_999;

/// Reads a count, which an older build may have written larger than [`COUNT_MAX`].
pub(super) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    u64::deserialize(deserializer).map(|count| count.min(COUNT_MAX))
}

/// Reads a time, which an older build may have written larger than [`TIME_MS_MAX`].
pub(super) fn time_ms<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    u64::deserialize(deserializer).map(|time_ms| time_ms.min(TIME_MS_MAX))
}

pub(super) fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// One message of a conversation with a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub enum Message {
    /// Who the model is to be.
    System {
        /// The instructions that the model is to follow.
        text: String,
    },
    /// What a person, or another agent, said.
    User {
        /// Text and images, in their order.
        parts: Vec<Part>,
    },
    /// What the model said.
    Assistant {
        /// Its text, empty when it only called tools.
        #[serde(default)]
        text: String,
        /// The calls that it asked for.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        calls: Vec<ToolCall>,
        /// What its provider wants to hear again (reasoning, signatures, ids), as JSON that nobody else reads.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        echo: Option<String>,
    },
    /// What came of a call.
    Tool {
        /// The id of the call that is answered.
        call: String,
        /// The tool that was called.
        tool: String,
        /// The result as the model reads it.
        text: String,
        /// Whether the call failed; the text says why then.
        #[serde(default)]
        failed: bool,
    },
}

/// A piece of a person's message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Part {
    /// What is read as text.
    Text {
        /// The text itself.
        text: String,
    },
    /// A picture for models that see.
    Image {
        /// Its address, of the scheme `https` or `data`.
        url: String,
    },
}

/// A call as a model wrote it: nothing in it has been checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Pairs the call with its result.
    pub id: String,
    /// The tool's name.
    pub tool: String,
    /// The arguments: JSON if the model kept to it.
    pub arguments: String,
}

/// Tokens read and written, each at most [`COUNT_MAX`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of requests.
    #[serde(deserialize_with = "count")]
    pub input: u64,
    /// Tokens of replies.
    #[serde(deserialize_with = "count")]
    pub output: u64,
}

/// What an agent used, each at most [`COUNT_MAX`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// Tokens read and written.
    #[serde(deserialize_with = "count")]
    pub tokens: u64,
    /// Money, in millionths of a dollar.
    #[serde(deserialize_with = "count")]
    pub cost: u64,
}

/// A file that travels with a message or an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Its name, without folders.
    pub name: String,
    /// Its media type, such as `text/csv`.
    #[serde(default = "plain_text")]
    pub media_type: String,
    /// What is in it.
    #[serde(flatten)]
    pub content: Content,
}

fn plain_text() -> String {
    "text/plain".to_owned()
}

/// What is in a file: text as it is, anything else in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// What is read as text.
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

/// What is known of a file that travelled with a turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentInfo {
    /// What it is called.
    pub name: String,
    /// Its media type.
    pub media_type: String,
    /// How many bytes its content has, at most [`COUNT_MAX`].
    #[serde(deserialize_with = "count")]
    pub bytes: u64,
}

/// How a message found its agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Route {
    /// It was named.
    Address,
    /// The conversation is with it. JSON, which older builds read, says that it was named.
    #[serde(rename(serialize = "address"))]
    Conversation,
    /// It can do what was asked.
    Capability {
        /// The capability that fits best.
        capability: String,
        /// How well it fits: a finite number, 0 to 1 as a rule.
        score: f32,
    },
}

/// A call that waits for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// What a decision calls it by.
    pub id: String,
    /// The workspace of its turn.
    pub workspace: WorkspaceId,
    /// The conversation of its turn.
    pub conversation: String,
    /// Which agent wants to make the call.
    pub agent: AgentName,
    /// The tool that is to be called.
    pub tool: String,
    /// Its arguments, whole: what is approved is what is seen.
    pub arguments: JsonText,
    /// Since when it waits, as RFC 3339.
    pub since: String,
}

/// Why a turn ended without an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "failure", rename_all = "snake_case")]
pub enum Failure {
    /// It took too many steps.
    StepsSpent {
        /// The most that there may be.
        steps_max: u32,
    },
    /// It took too many tokens.
    TokensSpent {
        /// How many were used, at most [`COUNT_MAX`].
        #[serde(deserialize_with = "count")]
        used: u64,
        /// The most that there may be.
        #[serde(deserialize_with = "count")]
        tokens_max: u64,
    },
    /// It took too much time.
    TimeSpent {
        /// The limit, in milliseconds.
        #[serde(deserialize_with = "time_ms")]
        wall_ms_max: u64,
    },
    /// The model made the same call again and again.
    Loop {
        /// The tool that it called.
        tool: String,
        /// How often it got the same result.
        times: u32,
    },
    /// The model said nothing.
    Silent,
    /// The provider withheld the answer.
    Withheld,
    /// No model answered.
    Model {
        /// The reasons, the outermost first.
        reason: String,
    },
    /// Nobody waited for the answer any more.
    Stopped,
    /// A node that went on with the turn of another one could not finish it either.
    GivenUp {
        /// Why it could not.
        reason: String,
    },
}
