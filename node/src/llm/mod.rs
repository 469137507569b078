//! Language models: one trait that every provider answers, and the conversation types that they share.
//!
//! A provider sends one request and reads one reply; retries, fallbacks, budgets and circuit breakers stand in front
//! of all of them, in [`models`], so that no provider may do any of it by itself. What a provider does by itself is to
//! put a request in other words when the one that is asked refused the first ([`dialect`]): that is the same request.

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;

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
pub mod echo;
mod http;
mod openai;
mod proxies;
pub mod reach;
pub mod scripted;
pub mod sse;
mod template;

pub use crate::chat::{Finish, Message, Part, Reply, Spent, ToolCall, ToolDefinition, Usage};
pub use crate::errors::chain as reasons;
pub use anthropic::Anthropic;
pub use budget::{Account, Budgets};
pub use cassette::{Exchange, Player, Tape};
pub use deltas::{Delta, Deltas};
pub use error::{Error, is_passing_reason};
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

/// The reply within [`limits`], for every kind of provider: numbers that nobody can have used, names that nobody can have
/// given.
fn bounded(mut reply: Reply) -> Reply {
    reply.usage.input = reply.usage.input.min(limits::USAGE_TOKENS_MAX);
    reply.usage.output = reply.usage.output.min(limits::USAGE_TOKENS_MAX);
    reply.calls.truncate(limits::CALLS_MAX);
    let cut = |text: &mut String| text.truncate(crate::text::head(text, limits::NAME_BYTES_MAX).len());
    reply.calls.iter_mut().for_each(|call| cut(&mut call.tool));
    cut(&mut reply.model);
    reply
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
