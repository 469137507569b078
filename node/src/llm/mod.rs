//! Language models: one trait that every provider answers, and the conversation types that they share.
//!
//! A provider sends one request and reads one reply; retries, fallbacks, budgets and circuit breakers stand in front
//! of all of them, in [`models`], so that no provider may do any of it by itself. What a provider does by itself is to
//! put a request in other words when the one that is asked refused the first ([`dialect`]): that is the same request.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

mod error;
pub mod limits;
pub mod models;
pub mod options;

pub mod providers;

pub(crate) mod breaker;
pub mod budget;
pub mod retry;

mod anthropic;
mod cassette;
mod deltas;
pub mod dialect;
mod durable;
pub mod echo;
mod http;
mod openai;
mod proxies;
pub mod scripted;
pub mod sse;
mod template;

pub use crate::errors::chain as reasons;
pub use anthropic::Anthropic;
pub use budget::{Account, Budgets};
pub use cassette::{Exchange, Player, Tape};
pub use deltas::{Delta, Deltas};
pub use error::Error;
pub use http::{Endpoint, Key};
pub use limits::{ARGUMENTS_DEPTH_MAX, REPLY_BYTES_MAX};
pub use openai::OpenAi;
pub use options::{ReplyOptions, ToolChoice};
pub use scripted::ScriptedProvider;

/// Anything that answers `chat`.
pub trait Provider: Send + Sync + 'static {
    /// Sends one request and reads the whole reply, handing its text on piece by piece as it comes.
    fn chat<'a>(&'a self, request: &'a ChatRequest, deltas: &'a Deltas) -> BoxFuture<'a, Result<Reply, Error>>;

    /// Which of these options it cannot take, by their names: it is not asked where there is one.
    fn refuses(&self, options: &ReplyOptions) -> Vec<&'static str> {
        options.except(&[])
    }
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
    /// An answer without the tools would be none: a model that takes no tools is not asked.
    #[serde(skip)]
    pub needs_tools: bool,
    /// What the sender asks of the reply.
    #[serde(default, skip_serializing_if = "ReplyOptions::is_empty")]
    pub options: ReplyOptions,
}

impl ChatRequest {
    /// The same without what only the provider of an earlier reply may hear.
    pub fn without_echo(&self) -> ChatRequest {
        let mut request = self.clone();
        for message in &mut request.messages {
            if let Message::Assistant { echo, .. } = message {
                *echo = None;
            }
        }
        request
    }
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

    /// Instructions.
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
    /// What its provider wants to hear again, as [`Message::Assistant`] carries it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub echo: Option<String>,
}

impl Reply {
    /// The reply within [`limits`], for every kind of provider: numbers that nobody can have used, names that nobody
    /// can have given.
    fn bounded(mut self) -> Reply {
        self.usage.input = self.usage.input.min(limits::USAGE_TOKENS_MAX);
        self.usage.output = self.usage.output.min(limits::USAGE_TOKENS_MAX);
        self.calls.truncate(limits::CALLS_MAX);
        let cut = |text: &mut String| text.truncate(crate::text::head(text, limits::NAME_BYTES_MAX).len());
        self.calls.iter_mut().for_each(|call| cut(&mut call.tool));
        cut(&mut self.model);
        self
    }
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
        Message::Assistant { text, calls, .. } => text.len() + calls_bytes(calls),
        other => other.text().len(),
    };
    let read: usize = request.messages.iter().map(message_bytes).sum();
    Usage { input: tokens_guess(read), output: tokens_guess(text.len() + calls_bytes(calls)) }
}

/// A count as providers write it: a number, whole or not; one that is negative, or none, is nothing.
fn whole_number(value: &Value) -> Option<u64> {
    // A float beyond the range becomes the range's end.
    value.as_u64().or_else(|| value.as_f64().filter(|number| *number >= 0.0).map(|number| number as u64))
}

fn calls_bytes(calls: &[ToolCall]) -> usize {
    calls.iter().map(|call| call.tool.len() + call.arguments.len()).sum()
}

#[cfg(test)]
mod provider_tests;
