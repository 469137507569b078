//! A tool that answers `chat` as a language model's provider: `tool:NAME`, or `kind = "wasm"` in caxton.toml.
//!
//! It gets no more than any other tool: its own grants and limits hold, and what it answers is read like any provider's
//! reply, as a stranger's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_proto::manifest::provider::{CHAT_FUNCTION, ProviderRef};
use caxton_proto::{AgentName, ToolName};
use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::Value;

use super::toolbox;
use crate::agent::world::{Invocation, ToolOutput};
use crate::catalog::Catalog;
use crate::llm::{
    ChatRequest, Deltas, Error, Finish, Provider, REPLY_BYTES_MAX, Reply, ReplyOptions, ToolCall, Usage, usage_guess,
};
use crate::tools::Tools;

/// Calls that one reply may ask for.
const CALLS_MAX: usize = 64;

/// A tool in the place of a model.
pub(super) struct ChatTool {
    /// The provider, as the agent's file or caxton.toml names it.
    pub provider: ProviderRef,
    pub tool: ToolName,
    /// Whose model it is, for the audit.
    pub agent: AgentName,
    /// How long it may take.
    pub timeout: Duration,
    /// The tools of workspaces, in which it is.
    pub tools: Tools,
    /// The revision that has it.
    pub catalog: Arc<Catalog>,
}

/// What the tool answers; nearly all of it may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ToolReply {
    text: String,
    calls: Vec<RequestedCall>,
    usage: Option<Usage>,
    finish: Option<Finish>,
    model: String,
}

#[derive(Debug, Deserialize)]
struct RequestedCall {
    #[serde(default)]
    id: String,
    tool: String,
    /// An object, or its JSON as text.
    #[serde(default)]
    arguments: Value,
}

impl ChatTool {
    fn failed(&self, problem: impl Into<String>) -> Error {
        let (provider, tool) = (self.provider.to_string(), self.tool.to_string());
        Error::ToolFailed { provider, tool, problem: problem.into() }
    }

    async fn ask(&self, request: &ChatRequest) -> Result<Reply, Error> {
        let arguments = serde_json::to_value(request.without_echo()).map_err(|error| self.failed(error.to_string()))?;
        let call = Invocation {
            way: String::new(),
            heard_others: false,
            agent: &self.agent,
            server: &self.tool,
            function: CHAT_FUNCTION,
            arguments,
            step_key: uuid::Uuid::new_v4().simple().to_string(),
            deadline: Instant::now() + self.timeout,
        };
        let output = toolbox::call(&self.tools, &self.catalog, call).await.map_err(|problem| self.failed(problem))?;
        if output.failed {
            return Err(self.failed(output.text.chars().take(400).collect::<String>()));
        }
        self.read(request, output)
    }

    /// The reply in a result: its structured part, its text as JSON, or its text as what is said.
    fn read(&self, request: &ChatRequest, output: ToolOutput) -> Result<Reply, Error> {
        let json = output.structured.or_else(|| serde_json::from_str(&output.text).ok().filter(Value::is_object));
        let said = match json {
            Some(json) => {
                serde_json::from_value(json).map_err(|error| self.failed(format!("its reply is none: {error}")))?
            }
            None => ToolReply { text: output.text, ..ToolReply::default() },
        };
        if said.text.len() > REPLY_BYTES_MAX {
            return Err(Error::TooLarge { provider: self.provider.to_string(), bytes_max: REPLY_BYTES_MAX });
        }
        if said.calls.len() > CALLS_MAX {
            return Err(self.failed(format!("it asks for {} calls; {CALLS_MAX} at most", said.calls.len())));
        }
        let number = request.messages.len();
        let calls = said.calls.into_iter().enumerate().map(|(place, wanted)| ToolCall {
            id: if wanted.id.is_empty() { format!("call_{number}_{place}") } else { wanted.id },
            tool: wanted.tool,
            arguments: match wanted.arguments {
                Value::String(json) => json,
                Value::Null => "{}".to_owned(),
                other => other.to_string(),
            },
        });
        let calls: Vec<ToolCall> = calls.collect();
        let finish = match said.finish {
            Some(Finish::Length) => Finish::Length,
            finish if calls.is_empty() => finish.unwrap_or(Finish::Stop),
            Some(_) | None => Finish::Calls,
        };
        let usage = said.usage.unwrap_or_else(|| usage_guess(request, &said.text, &calls));
        let model = if said.model.is_empty() { self.tool.to_string() } else { said.model };
        Ok(Reply { text: said.text, calls, usage, finish, model, echo: None })
    }
}

impl Provider for ChatTool {
    fn chat<'a>(&'a self, request: &'a ChatRequest, deltas: &'a Deltas) -> BoxFuture<'a, Result<Reply, Error>> {
        Box::pin(async move {
            let reply = self.ask(request).await?;
            deltas.text(&reply.text).await;
            Ok(reply)
        })
    }

    /// A tool is told what was always told; of the rest nobody can say what it makes of it.
    fn refuses(&self, options: &ReplyOptions) -> Vec<&'static str> {
        options.except(&["temperature", "max_tokens"])
    }
}
