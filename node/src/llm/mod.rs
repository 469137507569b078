//! Language models: one trait that every provider answers, and the conversation types that they share.
//!
//! A provider sends one request and reads one reply; retries, fallbacks, budgets and circuit breakers stand in front
//! of all of them, in [`models`], so that no provider may do any of it by itself.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;
use utoipa::ToSchema;

mod error;
pub mod models;

pub mod providers;

pub(crate) mod breaker;
pub mod budget;
pub mod retry;

mod anthropic;
mod cassette;
mod durable;
mod http;
mod openai;
pub mod scripted;
pub mod sse;
mod template;

pub use crate::errors::chain as reasons;
pub use anthropic::Anthropic;
pub use budget::{Account, Budgets};
pub use cassette::{Exchange, Player, Tape};
pub use error::Error;
pub use http::{Endpoint, Key};
pub use openai::OpenAi;
pub use scripted::Scripted;

/// A reply's text may have this many bytes; a model that goes on is stopped with [`Error::TooLarge`].
pub const REPLY_BYTES_MAX: usize = 1 << 20;
/// A provider that reports more tokens than this of one reply, read or written, is not believed: no model reads or writes as
/// many, and counts are added up for as long as a conversation lasts.
pub const USAGE_TOKENS_MAX: u64 = 1_000_000_000;
/// How many pieces of a reply wait for a reader before the model's stream is held back.
pub const DELTAS_WAITING_MAX: usize = 256;

/// Anything that answers `chat`.
pub trait Provider: Send + Sync + 'static {
    /// Sends one request and reads the whole reply, handing its text on piece by piece as it comes.
    fn chat<'a>(&'a self, request: &'a ChatRequest, deltas: &'a Deltas) -> BoxFuture<'a, Result<Reply, Error>>;
}

/// What a model is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatRequest {
    /// The model, as its provider names it.
    pub model: String,
    /// The conversation so far; the last message is the one to answer.
    pub messages: Vec<Message>,
    /// What the model may call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<ToolDefinition>,
    /// How freely it speaks; the provider's own default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// The longest reply, in tokens; the provider's own default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_max: Option<u32>,
}

/// One message of a conversation with a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "role", rename_all = "snake_case")]
pub enum Message {
    /// Who the model is to be.
    System {
        /// The instructions.
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

    /// Instructions.
    pub fn system(text: impl Into<String>) -> Message {
        Message::System { text: text.into() }
    }

    /// The model's text without calls.
    pub fn assistant(text: impl Into<String>) -> Message {
        Message::Assistant { text: text.into(), calls: Vec::new() }
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
    /// Text.
    Text {
        /// The text.
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
    /// Its name.
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
    /// What is believed of what a provider reports of one reply: at most [`USAGE_TOKENS_MAX`] each.
    pub fn believed(self) -> Usage {
        Usage { input: self.input.min(USAGE_TOKENS_MAX), output: self.output.min(USAGE_TOKENS_MAX) }
    }

    /// Both together.
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

/// A guess at the tokens of a text, for providers that do not count: four bytes are about one token.
pub fn tokens_guess(bytes: usize) -> u64 {
    (bytes as u64).div_ceil(4)
}

/// What a provider is guessed to have counted, when it did not say.
pub fn usage_guess(request: &ChatRequest, text: &str, calls: &[ToolCall]) -> Usage {
    let message_bytes = |message: &Message| match message {
        Message::Assistant { text, calls } => text.len() + calls_bytes(calls),
        other => other.text().len(),
    };
    let read: usize = request.messages.iter().map(message_bytes).sum();
    Usage { input: tokens_guess(read), output: tokens_guess(text.len() + calls_bytes(calls)) }
}

fn calls_bytes(calls: &[ToolCall]) -> usize {
    calls.iter().map(|call| call.tool.len() + call.arguments.len()).sum()
}

/// A piece of a reply on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delta {
    /// The next piece of text.
    Text(String),
    /// The request is made again: what was said of this reply so far does not count.
    Restart,
}

/// Where a reply's text goes piece by piece, if anyone listens.
#[derive(Debug, Clone, Default)]
pub struct Deltas(Option<mpsc::Sender<Delta>>);

impl Deltas {
    /// Nobody listens.
    pub fn none() -> Deltas {
        Deltas(None)
    }

    /// A listener; a slow one holds the model's stream back, and one that leaves does not stop the reply.
    pub fn channel() -> (Deltas, mpsc::Receiver<Delta>) {
        let (sender, receiver) = mpsc::channel(DELTAS_WAITING_MAX);
        (Deltas(Some(sender)), receiver)
    }

    /// Hands a piece on.
    pub async fn text(&self, text: &str) {
        if let Some(sender) = &self.0
            && !text.is_empty()
        {
            sender.send(Delta::Text(text.to_owned())).await.ok();
        }
    }

    /// Says that what was handed on does not count.
    pub async fn restart(&self) {
        if let Some(sender) = &self.0 {
            sender.send(Delta::Restart).await.ok();
        }
    }
}

#[cfg(test)]
mod provider_tests;
