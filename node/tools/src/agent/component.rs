//! Components that export `caxton:agent/handler`: the typed border, and one message over it.

use super::imports;
use super::outcome::{AgentOutcome, HandlingError, finish, returned};
use super::wit::{WitError, WitMessage};
use crate::component::{self, Runnable};
use crate::exchange::Exchange;
use crate::guest::{CallUsage, Guest, Terms};
use crate::tool::CallError;
use caxton_proto::acl::Message;
use wasmtime::component::{Component, ComponentExportIndex};
use wasmtime::{Engine, Store};

/// The interface that makes a component an agent.
const HANDLER: &str = "caxton:agent/handler@0.1.0";
/// What of WASI an agent may import; nothing is granted in it.
const WASI: [&str; 6] = ["wasi:io/", "wasi:cli/", "wasi:clocks/", "wasi:random/", "wasi:filesystem/", "wasi:sockets/"];

type Returned = (Result<Vec<WitMessage>, WitError>,);

/// A component that is linked and ready to be instantiated.
pub(crate) struct AgentComponent {
    runnable: Runnable,
    handle: ComponentExportIndex,
}

impl AgentComponent {
    /// Links a component, or says what it lacks.
    pub(super) fn new(engine: &Engine, component: &Component) -> Result<AgentComponent, String> {
        let handle = component::exported(component, HANDLER, "handle");
        let handle =
            handle.ok_or_else(|| format!("it does not export `handle` of {HANDLER}, so it is not an agent"))?;
        for import in component::imports(component) {
            let known = imports::INTERFACES.contains(&import.as_str());
            if !known && !WASI.iter().any(|family| import.starts_with(family)) {
                return Err(format!("it imports `{import}`, which no agent is given"));
            }
        }
        Ok(AgentComponent { runnable: Runnable::new(engine, component, imports::link)?, handle })
    }

    /// Handles one message in a fresh instance.
    pub(super) fn handle(
        &self,
        terms: Terms,
        exchange: Exchange,
        message: &Message,
    ) -> (Result<AgentOutcome, HandlingError>, CallUsage) {
        let mut store = self.runnable.store(terms);
        store.data_mut().exchange = Some(Box::new(exchange));
        let answer = self.runnable.run::<_, Returned>(&mut store, &self.handle, None, (WitMessage::of(message),));
        let taken = answer.map_err(HandlingError::Call).and_then(|(answer,)| taken(&mut store, answer));
        finish(store, taken)
    }
}

/// Sends what was returned, after what was sent before.
fn taken(store: &mut Store<Guest>, answer: Result<Vec<WitMessage>, WitError>) -> Result<(), HandlingError> {
    let messages = answer.map_err(|error| match error {
        WitError::NotUnderstood(why) => HandlingError::NotUnderstood { why },
        WitError::Refused(why) => HandlingError::Refused { why },
        WitError::Failed(what) => HandlingError::Call(CallError::Failed { what }),
    })?;
    messages
        .into_iter()
        .enumerate()
        .try_for_each(|(number, message)| returned(store.data_mut(), number, message.read()))
}
