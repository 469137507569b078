//! What comes of a message that a module was given, and how it is taken out of an instance.

use super::asking;
use crate::exchange::{AgentHost, HostRefusal};
use crate::guest::{CallUsage, Guest, Stopped};
use crate::tool::{CallError, CallReport};
use caxton_proto::acl::Message;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;
use wasmtime::Store;

/// One message that comes in, and what belongs to it.
pub struct Incoming {
    /// The message, with its sender stamped.
    pub message: Message,
    /// The agent's state as it is now.
    pub state: BTreeMap<String, String>,
    /// What the node does for the module.
    pub host: Arc<dyn AgentHost>,
    /// The workspace, for the audit.
    pub workspace: String,
    /// When the caller stops waiting; the module's own limits hold too.
    pub deadline: Option<Instant>,
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("performative", &self.message.performative).finish_non_exhaustive()
    }
}

/// What came of a message that was handled. It counts once the caller keeps it, all of it together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AgentOutcome {
    /// What goes out: first what was sent, then what was returned, each in its order. Senders are not stamped.
    pub messages: Vec<Message>,
    /// The keys of the state that were changed; nothing for those that are gone.
    pub state: BTreeMap<String, Option<String>>,
}

/// Why a message was not handled. Nothing that was sent or changed on the way counts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandlingError {
    /// The module does not understand it; the sender is to be told so.
    #[error("the agent does not understand the message: {why}")]
    NotUnderstood {
        /// Why not, in its words.
        why: String,
    },
    /// The module refuses it; the sender is to be told so.
    #[error("the agent refuses: {why}")]
    Refused {
        /// Why, in its words.
        why: String,
    },
    /// It went wrong.
    #[error("the agent's module did not handle the message: {0}")]
    Call(CallError),
}

impl From<CallError> for HandlingError {
    fn from(error: CallError) -> HandlingError {
        HandlingError::Call(error)
    }
}

/// A message whose handling has ended.
#[derive(Debug, Clone)]
pub struct Handling {
    /// What came of it, or why nothing did.
    pub result: Result<AgentOutcome, HandlingError>,
    /// The record of it: the agent stands for the server, and `handle` for the tool.
    pub report: CallReport,
}

/// Takes a message that a module returned. One that cannot be sent is an error of the module's: it is over, and could not be
/// told.
pub(super) fn returned(
    guest: &mut Guest,
    number: usize,
    message: Result<Message, HostRefusal>,
) -> Result<(), HandlingError> {
    let bad = |why: String| CallError::BadResult { what: format!("message {} that it returned: {why}", number + 1) };
    let message = message.map_err(|refusal| bad(refusal.why))?;
    let exchange = asking::exchange(guest).map_err(|error| bad(format!("{error:#}")))?;
    exchange.send(message)?.map_err(|refusal| bad(refusal.why).into())
}

/// Sends a message from within a module; the inner error is for the module.
pub(super) fn send(
    guest: &mut Guest,
    message: Result<Message, HostRefusal>,
) -> wasmtime::Result<Result<(), HostRefusal>> {
    match message {
        Ok(message) => Ok(asking::exchange(guest)?.send(message).map_err(Stopped)?),
        Err(refusal) => Ok(Err(refusal)),
    }
}

/// What an instance leaves once it has ended.
pub(super) fn finish(
    mut store: Store<Guest>,
    ended: Result<(), HandlingError>,
) -> (Result<AgentOutcome, HandlingError>, CallUsage) {
    let mut used = CallUsage::of(&store);
    let exchange = store.data_mut().exchange.take();
    let outcome = ended.map(|()| {
        let (messages, state) = exchange.map(|exchange| exchange.gathered()).unwrap_or_default();
        AgentOutcome { messages, state }
    });
    if let Ok(outcome) = &outcome {
        let content = outcome.messages.iter().filter_map(|message| message.content.as_ref());
        used.output = content.map(|content| content.bytes() as u64).sum();
    }
    (outcome, used)
}
