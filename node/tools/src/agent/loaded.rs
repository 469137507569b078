//! An agent's module in the sandbox, and the way of a message: a thread, an instance, what comes of it, the record.

use super::command::AgentCommand;
use super::component::AgentComponent;
use super::core_module::AgentModule;
use super::outcome::{AgentOutcome, Handling, HandlingError, Incoming};
use crate::compile::CompileError;
use crate::engine::Ticker;
use crate::exchange::Exchange;
use crate::guest::{CallUsage, Terms};
use crate::limits::Limits;
use crate::pool::Pool;
use crate::spec::Spec;
use crate::tool::{CallError, CallReport, Ended, Kind};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tracing::info;
use wasmtime::component::Component;
use wasmtime::{Engine, Module};

/// The name under which an agent's calls are recorded.
const HANDLE: &str = "handle";

/// An agent's module before it is loaded.
#[derive(Debug, Clone)]
pub struct AgentCode {
    /// The agent's name.
    pub name: String,
    /// What its bytes are: a component, a command or a core module.
    pub kind: Kind,
    /// How much one message may use.
    pub limits: Limits,
}

/// Why an agent's module cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum AgentLoadError {
    /// Its bytes cannot be made into code.
    #[error("the module of agent `{agent}` cannot be compiled")]
    Compile {
        /// The name of the agent whose module it is.
        agent: String,
        /// What kept the compiler from it.
        #[source]
        source: CompileError,
    },
    /// It is not what its file says, or it wants something that no agent is given.
    #[error("the module of agent `{agent}` is no agent of the kind {kind}: {why}")]
    Link {
        /// The name of the agent whose module it is.
        agent: String,
        /// What its file says that it is.
        kind: Kind,
        /// What does not fit.
        why: String,
    },
    /// Too much is being loaded or compiled.
    #[error(
        "the module of agent `{agent}` is not loaded now: {running} are being loaded or compiled and {waiting} wait; try \
         again later"
    )]
    Busy {
        /// The name of the agent whose module it is.
        agent: String,
        /// How many are on their way.
        running: usize,
        /// How many wait.
        waiting: usize,
    },
    /// The engine could not be started, or ended.
    #[error("the WebAssembly engine did not load the module: {why}")]
    Engine {
        /// What the engine answered.
        why: String,
    },
}

/// Code that is linked and ready to be instantiated.
pub(crate) enum Linked {
    Component(AgentComponent),
    Command(AgentCommand),
    Core(AgentModule),
}

/// Links what was compiled.
pub(crate) fn link(engine: &Engine, code: &AgentCode, compiled: &[u8]) -> Result<Linked, AgentLoadError> {
    let refuse = |why: String| AgentLoadError::Link { agent: code.name.clone(), kind: code.kind, why };
    let unreadable = |error: wasmtime::Error| AgentLoadError::Engine { why: format!("{error:#}") };
    // SAFETY: the cache gives only what this very installation compiled, proven by its HMAC.
    let module = || unsafe { Module::deserialize(engine, compiled) }.map_err(unreadable);
    match code.kind {
        Kind::Component => {
            // SAFETY: as above.
            let component = unsafe { Component::deserialize(engine, compiled) }.map_err(unreadable)?;
            AgentComponent::new(engine, &component).map(Linked::Component).map_err(refuse)
        }
        Kind::Command => AgentCommand::new(engine, &module()?).map(Linked::Command).map_err(refuse),
        Kind::Core => AgentModule::new(engine, &module()?).map(Linked::Core).map_err(refuse),
        Kind::McpHttp | Kind::McpStdio => Err(refuse("that runs outside of the sandbox".into())),
    }
}

/// An agent's module in the sandbox. A clone is a handle on the same.
#[derive(Clone)]
pub struct SandboxedAgent {
    inner: Arc<Inner>,
    pool: Pool,
}

struct Inner {
    spec: Spec,
    linked: Linked,
    terms: Terms,
    ticker: Arc<Ticker>,
}

impl fmt::Debug for SandboxedAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SandboxedAgent").field("name", &self.inner.spec.name).finish_non_exhaustive()
    }
}

/// Tells the guest that nobody waits any more.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl SandboxedAgent {
    pub(crate) fn new(spec: Spec, linked: Linked, terms: Terms, ticker: Arc<Ticker>, pool: Pool) -> SandboxedAgent {
        SandboxedAgent { inner: Arc::new(Inner { spec, linked, terms, ticker }), pool }
    }

    /// The agent's name.
    pub fn name(&self) -> &str {
        &self.inner.spec.name
    }

    /// What runs it.
    pub fn kind(&self) -> Kind {
        self.inner.spec.kind
    }

    /// Handles one message in an instance of its own. Dropping the future ends the instance.
    pub async fn handle(&self, incoming: Incoming) -> Handling {
        let began = Instant::now();
        let cancelled = Arc::new(AtomicBool::new(false));
        let _cancel = CancelOnDrop(cancelled.clone());
        let (done, waiting) = oneshot::channel();
        let inner = self.inner.clone();
        let job = Box::new(move || _ = done.send(inner.run(incoming, began, cancelled)));
        let refused = |error: CallError| {
            let (result, used) = (Err(error.into()), CallUsage::default());
            self.inner.recorded(result, used, began, began.elapsed())
        };
        if let Err(full) = self.pool.submit(job) {
            let what = format!("{} agents handle messages and {} wait on this node", full.running, full.waiting);
            return refused(CallError::Busy { what });
        }
        // Without an answer the host itself panicked, which is logged where it happened.
        waiting.await.unwrap_or_else(|_| refused(CallError::Trapped { what: "the call ended unexpectedly".into() }))
    }
}

impl Inner {
    /// All of it, on a thread that may be held up.
    fn run(&self, incoming: Incoming, began: Instant, cancelled: Arc<AtomicBool>) -> Handling {
        let queued = began.elapsed();
        let workspace = incoming.workspace.clone();
        let mut terms = self.terms.clone();
        terms.deadline = incoming.deadline;
        terms.cancelled = cancelled;
        let (result, used) = self.attempt(terms, incoming);
        let handling = self.recorded(result, used, began, queued);
        let report = &handling.report;
        info!(
            target: "caxton::audit",
            workspace,
            agent = report.server,
            kind = %report.kind,
            ended = ?report.ended,
            duration_us = report.duration.as_micros() as u64,
            cpu_us = report.cpu.as_micros() as u64,
            memory_bytes = report.memory_bytes,
            "agent call"
        );
        handling
    }

    fn attempt(&self, terms: Terms, incoming: Incoming) -> (Result<AgentOutcome, HandlingError>, CallUsage) {
        let none = |error: CallError| (Err(error.into()), CallUsage::default());
        if terms.cancelled.load(Ordering::Relaxed) {
            return none(CallError::Cancelled);
        }
        let Incoming { message, state, host, .. } = incoming;
        let json = match message.to_json() {
            Ok(json) => json,
            Err(error) => return none(CallError::InvalidArguments { problems: vec![error.to_string()] }),
        };
        let exchange = Exchange::new(host, state);
        self.ticker.wake();
        let handled = match &self.linked {
            Linked::Component(linked) => linked.handle(terms, exchange, &message),
            Linked::Command(linked) => linked.handle(terms, exchange, &json),
            Linked::Core(linked) => linked.handle(terms, exchange, &json),
        };
        self.ticker.rest();
        handled
    }

    fn recorded(
        &self,
        result: Result<AgentOutcome, HandlingError>,
        used: CallUsage,
        began: Instant,
        queued: Duration,
    ) -> Handling {
        let ended = match &result {
            Ok(_) => Ended::Ok,
            Err(HandlingError::NotUnderstood { .. } | HandlingError::Refused { .. }) => Ended::ToolError,
            Err(HandlingError::Call(error)) => error.ended(),
        };
        let report = CallReport {
            server: self.spec.name.clone(),
            tool: HANDLE.to_owned(),
            kind: self.spec.kind,
            duration: began.elapsed(),
            queued,
            cpu: used.cpu,
            memory_bytes: used.memory,
            output_bytes: used.output,
            ended,
        };
        Handling { result, report }
    }
}
