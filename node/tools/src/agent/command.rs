//! WASI commands that are agents: one run for each message, which is JSON on its standard input.
//!
//! What it prints is JSON too: nothing, a message, a list of messages, or an object with `messages` and `state`, whose keys
//! are set to texts or deleted by null. `CAXTON_STATE` in its environment is the state as a JSON object. A status other than
//! 0 means that it failed; 3 that it did not understand the message and 4 that it refuses it, for the reason on its standard
//! error.

use super::outcome::{AgentOutcome, HandlingError, finish, returned};
use crate::command::{LinkedCommand, STDERR_BYTES_MAX};
use crate::exchange::{Exchange, HostRefusal};
use crate::grants::Grants;
use crate::guest::{CallUsage, Guest, Terms};
use crate::tool::CallError;
use caxton_proto::acl::Message;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::Arc;
use wasmtime::{Engine, Module, Store};
use wasmtime_wasi::p2::pipe::{MemoryInputPipe, MemoryOutputPipe};

/// The variable with the agent's state.
const STATE: &str = "CAXTON_STATE";

/// A command that is linked and ready to run.
pub(crate) struct AgentCommand(LinkedCommand);

/// What a command printed, if it is an object that is no message.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Printed {
    #[serde(default)]
    messages: Vec<Box<RawValue>>,
    #[serde(default)]
    state: BTreeMap<String, Option<String>>,
}

impl AgentCommand {
    /// Links a module, or says what it lacks.
    pub(super) fn new(engine: &Engine, module: &Module) -> Result<AgentCommand, String> {
        LinkedCommand::new(engine, module).map(AgentCommand)
    }

    /// Handles one message in a run of its own.
    pub(super) fn handle(
        &self,
        mut terms: Terms,
        exchange: Exchange,
        message: &str,
    ) -> (Result<AgentOutcome, HandlingError>, CallUsage) {
        // Beside its state it is given no variable: an agent has no grants.
        let mut grants = Grants::default();
        grants.env.insert(STATE.to_owned(), exchange.state_json());
        terms.grants = Arc::new(grants);
        let limit = terms.limits.output_bytes;
        let capacity = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut store = self.0.store(terms);
        store.data_mut().exchange = Some(Box::new(exchange));
        let (output, complaints) = (MemoryOutputPipe::new(capacity), MemoryOutputPipe::new(STDERR_BYTES_MAX));
        let input = MemoryInputPipe::new(message.to_owned());
        let ran = self.0.run(&mut store, None, input, &output, &complaints);
        store.data_mut().complained(&complaints.contents());
        let output = output.contents();
        let taken = match ran {
            Err(_) if output.len() >= capacity => Err(CallError::OutputTooLarge { limit }.into()),
            Err(error) => Err(ended(error, &complaints.contents(), store.data())),
            Ok(()) => taken(&mut store, &output),
        };
        finish(store, taken)
    }
}

/// What its end means.
fn ended(error: CallError, complaints: &[u8], guest: &Guest) -> HandlingError {
    let why = || {
        let said = String::from_utf8_lossy(complaints);
        said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it gives no reason").chars().take(300).collect()
    };
    match &error {
        CallError::Failed { what } if what == "it ended with status 3" => HandlingError::NotUnderstood { why: why() },
        CallError::Failed { what } if what == "it ended with status 4" => HandlingError::Refused { why: why() },
        _ => HandlingError::Call(guest.with_last_words(error)),
    }
}

/// Takes what it printed.
fn taken(store: &mut Store<Guest>, output: &[u8]) -> Result<(), HandlingError> {
    let bad = |what: String| HandlingError::Call(CallError::BadResult { what });
    let unreadable =
        |error: serde_json::Error| bad(format!("what it printed is not a message or a list of them: {error}"));
    let text = std::str::from_utf8(output).map_err(|_| bad("what it printed is not UTF-8".into()))?.trim();
    let printed = match text.as_bytes().first() {
        None => return Ok(()),
        Some(b'[') => Printed { messages: serde_json::from_str(text).map_err(unreadable)?, state: BTreeMap::new() },
        Some(_) => {
            let fields: BTreeMap<String, &RawValue> = serde_json::from_str(text).map_err(unreadable)?;
            match fields.contains_key("performative") {
                true => {
                    let message = serde_json::from_str(text).map_err(unreadable)?;
                    Printed { messages: vec![message], state: BTreeMap::new() }
                }
                false => serde_json::from_str(text).map_err(unreadable)?,
            }
        }
    };
    let guest = store.data_mut();
    let exchange = super::asking::exchange(guest).map_err(|error| bad(format!("{error:#}")))?;
    for (key, value) in printed.state {
        match value {
            Some(value) => exchange.set(key, value).map_err(|refusal| bad(refusal.why))?,
            None => exchange.delete(&key),
        }
    }
    for (number, message) in printed.messages.iter().enumerate() {
        let read = Message::from_json(message.get().as_bytes());
        let read = read.map(|(message, _)| message).map_err(|error| HostRefusal::new(error.to_string()));
        returned(guest, number, read)?;
    }
    Ok(())
}
