//! What is said with models, and what it costs: the types that the shard's records, the API and the providers share.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

mod durable;

/// One message of a conversation with a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "role", rename_all = "snake_case")]
pub enum Message {
    /// Who the model is to be.
    System {
        /// The instructions that the model is to follow.
        text: String,
    },
    /// What a person, or another agent, said.
    User {
        /// Text and images.
        parts: Vec<Part>,
    },
    /// What the model said.
    Assistant {
        /// Its text, empty when it only called tools.
        #[serde(default)]
        text: String,
        /// What it called.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        calls: Vec<ToolCall>,
        /// What its provider wants to hear again (reasoning, signatures, ids), as JSON that nobody else reads.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        echo: Option<String>,
    },
    /// What a call of the model's gave.
    Tool {
        /// The call that is answered.
        call: String,
        /// The tool that was called.
        tool: String,
        /// The result as the model reads it.
        text: String,
        /// The call failed, and `text` says why.
        #[serde(default)]
        failed: bool,
    },
}

impl Message {
    /// A person's text.
    pub fn user(text: impl Into<String>) -> Message {
        Message::User { parts: vec![Part::Text { text: text.into() }] }
    }

    /// Instructions for the model, as a message.
    pub fn system(text: impl Into<String>) -> Message {
        Message::System { text: text.into() }
    }

    /// The model's text without calls.
    pub fn assistant(text: impl Into<String>) -> Message {
        Message::Assistant { text: text.into(), calls: Vec::new(), echo: None }
    }

    /// All text in it, images left out.
    pub fn text(&self) -> String {
        match self {
            Message::System { text } | Message::Assistant { text, .. } | Message::Tool { text, .. } => text.clone(),
            Message::User { parts } => {
                let texts = parts.iter().filter_map(|part| match part {
                    Part::Text { text } => Some(text.as_str()),
                    Part::Image { .. } => None,
                });
                texts.collect::<Vec<_>>().join("\n")
            }
        }
    }
}

/// A piece of a person's message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Part {
    /// What is read as text.
    Text {
        /// What it says.
        text: String,
    },
    /// An image, passed through to models that see.
    Image {
        /// An address of the scheme `https`, or `data:image/png;base64,...`.
        url: String,
    },
}

/// A call that a model asks for. Nothing in it has been checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ToolCall {
    /// Pairs the call with its result.
    pub id: String,
    /// The tool's name, as the model wrote it.
    pub tool: String,
    /// The arguments as the model wrote them: JSON if the model kept to it.
    pub arguments: String,
}

/// A tool as a model sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolDefinition {
    /// What the model calls it by.
    pub name: String,
    /// What it does and when to use it.
    pub description: String,
    /// The JSON Schema of its arguments.
    pub parameters: Arc<Value>,
}

/// What a model answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// Its text, empty when it only called tools.
    #[serde(default)]
    pub text: String,
    /// What it wants called.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<ToolCall>,
    /// What it cost.
    #[serde(default)]
    pub usage: Usage,
    /// Why it stopped.
    pub finish: Finish,
    /// The model that answered, as it calls itself.
    #[serde(default)]
    pub model: String,
    /// What its provider wants to hear again, as [`Message::Assistant`] carries it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub echo: Option<String>,
}

/// Why a model stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// It had said everything.
    Stop,
    /// It waits for the calls it asked for.
    Calls,
    /// It reached the longest reply allowed.
    Length,
    /// Its provider withheld the answer.
    Refused,
}

/// Tokens read and written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// Tokens of the request.
    pub input: u64,
    /// Tokens of the reply.
    pub output: u64,
}

impl Usage {
    /// The tokens of request and reply together.
    pub fn total(self) -> u64 {
        self.input.saturating_add(self.output)
    }
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Usage) {
        self.input = self.input.saturating_add(other.input);
        self.output = self.output.saturating_add(other.output);
    }
}

/// What was used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// Tokens read and written.
    pub tokens: u64,
    /// Money, in millionths of a dollar.
    pub cost: u64,
}

impl Spent {
    /// This and more.
    pub fn and(self, more: Spent) -> Spent {
        let (tokens, cost) = (self.tokens.saturating_add(more.tokens), self.cost.saturating_add(more.cost));
        Spent { tokens, cost }
    }

    /// This less what is given back.
    pub fn without(self, less: Spent) -> Spent {
        Spent { tokens: self.tokens.saturating_sub(less.tokens), cost: self.cost.saturating_sub(less.cost) }
    }

    /// The larger of two counts of the same.
    pub fn or(self, other: Spent) -> Spent {
        Spent { tokens: self.tokens.max(other.tokens), cost: self.cost.max(other.cost) }
    }
}
