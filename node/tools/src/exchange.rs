//! What an agent's module and the node exchange while one message is handled, with the limits of it.
//!
//! What the module sends and changes is collected here and given back with the outcome: nothing of it counts before the
//! caller puts it where it is kept, and nothing of it does where handling ended with an error.

use crate::tool::{CallError, CallResult};
use caxton_proto::acl::Message;
use serde_json::Value;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// The most messages that go out for one that came in, those that are returned included.
pub const MESSAGES_MAX: usize = 64;
/// The most calls of tools, models and memory while one message is handled.
pub const HOST_CALLS_MAX: usize = 256;
/// The most keys of an agent's state.
pub const STATE_KEYS_MAX: usize = 256;
/// The longest key of an agent's state, in bytes.
pub const STATE_KEY_BYTES_MAX: usize = 256;
/// The most bytes of an agent's state, keys and values together.
pub const STATE_BYTES_MAX: usize = 256 << 10;
/// The most memories that one `recall` gives.
pub const RECALL_MAX: u32 = 32;

/// The node did not do what an agent's module asked for. The module is told why, and goes on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct HostRefusal {
    /// Why not, and what to do about it.
    pub why: String,
}

impl HostRefusal {
    /// A refusal in these words.
    pub fn new(why: impl Into<String>) -> HostRefusal {
        HostRefusal { why: why.into() }
    }
}

/// The future of something that an agent's module asked the node for. It is dropped when the module has to stop.
pub type HostAnswer<T> = Pin<Box<dyn Future<Output = Result<T, HostRefusal>> + Send>>;

/// What an agent's module asks a language model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Who the model is to be; what the agent's file says where it is absent.
    pub system: Option<String>,
    /// What it is asked.
    pub prompt: String,
    /// The most tokens of its answer.
    pub tokens_max: Option<u32>,
}

/// What a node does for an agent's module while it handles one message.
pub trait AgentHost: Send + Sync {
    /// Whether the agent may send this message; the error says what is wrong with it.
    fn check(&self, message: &Message) -> Result<(), HostRefusal>;

    /// Whether what the module changes of its state is kept; where it is not, changing it is refused.
    fn keeps_state(&self) -> bool;

    /// Calls a tool that the agent's file names.
    fn call_tool(&self, tool: String, arguments: Value) -> HostAnswer<CallResult>;

    /// Asks the agent's model.
    fn ask_model(&self, question: Question) -> HostAnswer<String>;

    /// Remembers a text.
    fn remember(&self, text: String) -> HostAnswer<()>;

    /// Gives the memories that are nearest to a text, the nearest first, `count` at most.
    fn recall(&self, query: String, count: u32) -> HostAnswer<Vec<String>>;
}

/// The exchange over one message.
pub(crate) struct Exchange {
    pub host: Arc<dyn AgentHost>,
    sent: Vec<Message>,
    state: BTreeMap<String, String>,
    changes: BTreeMap<String, Option<String>>,
    calls: usize,
    /// Why it could not handle the message, in its own words.
    pub reason: Option<String>,
}

/// What came of an exchange: what was sent, and the keys of the state that were changed, with nothing for those that are
/// gone.
pub(crate) type Gathered = (Vec<Message>, BTreeMap<String, Option<String>>);

impl Exchange {
    pub(crate) fn new(host: Arc<dyn AgentHost>, state: BTreeMap<String, String>) -> Exchange {
        Exchange { host, sent: Vec::new(), state, changes: BTreeMap::new(), calls: 0, reason: None }
    }

    /// Takes a message that is to go out. The inner error is for the module, the outer one ends the call: a module that went
    /// on without its messages would lose them.
    pub(crate) fn send(&mut self, message: Message) -> Result<Result<(), HostRefusal>, CallError> {
        let checked = message.check().map_err(|error| HostRefusal::new(error.to_string()));
        if let Err(refusal) = checked.and_then(|()| self.host.check(&message)) {
            return Ok(Err(refusal));
        }
        if self.sent.len() >= MESSAGES_MAX {
            return Err(CallError::TooMany { what: "messages sent for one that came in", limit: MESSAGES_MAX });
        }
        self.sent.push(message);
        Ok(Ok(()))
    }

    /// Counts a call of the node.
    pub(crate) fn count(&mut self) -> Result<Arc<dyn AgentHost>, CallError> {
        self.calls += 1;
        match self.calls > HOST_CALLS_MAX {
            true => Err(CallError::TooMany { what: "calls of tools, models and memory", limit: HOST_CALLS_MAX }),
            false => Ok(self.host.clone()),
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<String> {
        self.state.get(key).cloned()
    }

    pub(crate) fn set(&mut self, key: String, value: String) -> Result<(), HostRefusal> {
        if !self.host.keeps_state() {
            return Err(HostRefusal::new(
                "a request that is asked directly keeps no state; what it is told it may return",
            ));
        }
        if key.is_empty() || key.len() > STATE_KEY_BYTES_MAX {
            return Err(HostRefusal::new(format!("a key of the state has 1 to {STATE_KEY_BYTES_MAX} bytes")));
        }
        let others = self.state.iter().filter(|(other, _)| **other != key);
        let (keys, bytes) = others.fold((1, key.len() + value.len()), |(keys, bytes), (key, value)| {
            (keys + 1, bytes + key.len() + value.len())
        });
        if keys > STATE_KEYS_MAX {
            return Err(HostRefusal::new(format!("the state has {STATE_KEYS_MAX} keys at most; delete one")));
        }
        if bytes > STATE_BYTES_MAX {
            let why =
                format!("the state would have {bytes} bytes, and {STATE_BYTES_MAX} is the most; delete something");
            return Err(HostRefusal::new(why));
        }
        self.changes.insert(key.clone(), Some(value.clone()));
        self.state.insert(key, value);
        Ok(())
    }

    pub(crate) fn delete(&mut self, key: &str) {
        if self.state.remove(key).is_some() {
            self.changes.insert(key.to_owned(), None);
        }
    }

    pub(crate) fn keys(&self, prefix: &str) -> Vec<String> {
        self.state
            .range(prefix.to_owned()..)
            .map(|(key, _)| key)
            .take_while(|key| key.starts_with(prefix))
            .cloned()
            .collect()
    }

    /// The state as a JSON object of texts.
    pub(crate) fn state_json(&self) -> String {
        serde_json::json!(self.state).to_string()
    }

    pub(crate) fn gathered(self) -> Gathered {
        (self.sent, self.changes)
    }
}
