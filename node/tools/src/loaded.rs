//! A tool server in the sandbox, and the way of a call: schema, a place, a thread, an instance, the record.

use crate::definitions::Checked;
use crate::engine::Ticker;
use crate::grants::Grants;
use crate::guest::{Terms, Used};
use crate::limits::Limits;
use crate::pool::Pool;
use crate::sandbox::Spec;
use crate::scratch::Scratch;
use crate::tool::{CallContext, CallError, CallReport, CallResult, Called, Calling, Ended, Kind, Tool, ToolDefinition};
use crate::{command, component, core_module};
use serde_json::Value;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tracing::info;

/// Calls of one tool that may wait for each that may run.
const WAITING_PER_RUNNING: usize = 8;

/// What runs.
pub(crate) enum Code {
    Component(component::Linked),
    Command(command::Linked),
    Core(core_module::Linked),
}

/// Everything of a server that its calls share.
pub(crate) struct Loaded {
    name: String,
    kind: Kind,
    code: Code,
    checked: Checked,
    terms: Terms,
    ticker: Arc<Ticker>,
    /// Where a call's scratch directory is made, if it gets one.
    scratch: Option<PathBuf>,
    granted: String,
}

impl Loaded {
    pub(crate) fn new(
        spec: Spec,
        code: Code,
        checked: Checked,
        terms: Terms,
        ticker: Arc<Ticker>,
        scratch: Option<PathBuf>,
    ) -> Loaded {
        let granted = spec.grants.described().join(", ");
        Loaded { name: spec.name, kind: spec.kind, code, checked, terms, ticker, scratch, granted }
    }
}

/// A tool server in the sandbox.
#[derive(Clone)]
pub struct SandboxedTool {
    loaded: Arc<Loaded>,
    pool: Pool,
    places: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

impl fmt::Debug for SandboxedTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SandboxedTool").field("name", &self.loaded.name).finish_non_exhaustive()
    }
}

/// One call on its way.
struct Call {
    tool: String,
    arguments: Value,
    context: CallContext,
    asked: Instant,
    cancelled: Arc<AtomicBool>,
}

/// Tells the guest that nobody waits any more.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl SandboxedTool {
    pub(crate) fn new(loaded: Loaded, pool: Pool) -> SandboxedTool {
        let places = Arc::new(Semaphore::new(loaded.terms.limits.concurrent_calls as usize));
        SandboxedTool { loaded: Arc::new(loaded), pool, places, waiting: Arc::default() }
    }

    /// Calls a tool on this very thread: for benchmarks, and for callers that have a thread of their own.
    pub fn call_here(&self, tool: &str, arguments: Value, context: CallContext) -> Called {
        self.loaded.run(Call::new(tool, arguments, context))
    }

    /// Takes a place among the calls of this tool, or says that too many wait.
    async fn place(&self, call: &Call) -> Result<OwnedSemaphorePermit, CallError> {
        if let Ok(permit) = self.places.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let limits = &self.loaded.terms.limits;
        let waiting_max = limits.concurrent_calls as usize * WAITING_PER_RUNNING;
        let busy = || {
            let running = limits.concurrent_calls;
            CallError::Busy {
                what: format!("tool `{}` has {running} calls running and others waiting", self.loaded.name),
            }
        };
        let waiting = Waiting::new(&self.waiting);
        if waiting.before >= waiting_max {
            return Err(busy());
        }
        let patience = call.left(limits);
        match tokio::time::timeout(patience, self.places.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(busy()),
        }
    }

    async fn call_elsewhere(&self, call: Call) -> Called {
        let asked = call.asked;
        let tool = call.tool.clone();
        let refused = |error: CallError| self.loaded.ended(&tool, asked, Err(error), asked.elapsed(), Used::default());
        let permit = match self.place(&call).await {
            Ok(permit) => permit,
            Err(error) => return self.audit(&call, refused(error)),
        };
        let _cancel = CancelOnDrop(call.cancelled.clone());
        let (answer, waiting) = oneshot::channel();
        let loaded = self.loaded.clone();
        let (workspace, caller) = (call.context.workspace.clone(), call.context.caller.clone());
        let job = Box::new(move || {
            let called = loaded.run(call);
            drop(permit);
            let _ = answer.send(called);
        });
        if let Err(full) = self.pool.submit(job) {
            let what = format!("{} tool calls run and {} wait on this node", full.running, full.waiting);
            let called = refused(CallError::Busy { what });
            return self.loaded.audit(&workspace, &caller, called);
        }
        waiting.await.unwrap_or_else(|_| {
            // The job ended without an answer: the host itself panicked, which is logged where it happened.
            refused(CallError::Trapped { what: "the call ended unexpectedly".into() })
        })
    }

    fn audit(&self, call: &Call, called: Called) -> Called {
        self.loaded.audit(&call.context.workspace, &call.context.caller, called)
    }
}

impl Tool for SandboxedTool {
    fn server(&self) -> &str {
        &self.loaded.name
    }

    fn kind(&self) -> Kind {
        self.loaded.kind
    }

    fn definitions(&self) -> &[ToolDefinition] {
        self.loaded.checked.definitions()
    }

    fn grants(&self) -> &Grants {
        &self.loaded.terms.grants
    }

    fn limits(&self) -> &Limits {
        &self.loaded.terms.limits
    }

    fn call<'a>(&'a self, tool: &'a str, arguments: Value, context: CallContext) -> Calling<'a> {
        Box::pin(self.call_elsewhere(Call::new(tool, arguments, context)))
    }
}

/// Counts one that waits.
struct Waiting<'a> {
    counter: &'a AtomicUsize,
    before: usize,
}

impl<'a> Waiting<'a> {
    fn new(counter: &'a AtomicUsize) -> Waiting<'a> {
        Waiting { counter, before: counter.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.counter.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Call {
    fn new(tool: &str, arguments: Value, context: CallContext) -> Call {
        let (asked, cancelled) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        Call { tool: tool.to_string(), arguments, context, asked, cancelled }
    }

    /// How long it may still wait.
    fn left(&self, limits: &Limits) -> Duration {
        let own = self.asked + limits.wall;
        self.context.deadline.map_or(own, |deadline| deadline.min(own)).saturating_duration_since(Instant::now())
    }
}

impl Loaded {
    /// The whole call, on a thread that may be held up.
    fn run(&self, call: Call) -> Called {
        let queued = call.asked.elapsed();
        let (result, used) = self.attempt(&call);
        let called = self.ended(&call.tool, call.asked, result, queued, used);
        self.audit(&call.context.workspace, &call.context.caller, called)
    }

    fn attempt(&self, call: &Call) -> (Result<CallResult, CallError>, Used) {
        if call.cancelled.load(Ordering::Relaxed) {
            return (Err(CallError::Cancelled), Used::default());
        }
        let limits = &self.terms.limits;
        if call.context.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return (Err(CallError::TimedOut { limit: call.asked.elapsed() }), Used::default());
        }
        let arguments = match self.check(call, limits) {
            Ok(arguments) => arguments,
            Err(error) => return (Err(error), Used::default()),
        };
        let scratch = match self.scratch.as_deref().map(Scratch::new).transpose() {
            Ok(scratch) => scratch,
            Err(error) => {
                return (Err(CallError::Failed { what: format!("no scratch directory: {error}") }), Used::default());
            }
        };
        let mut terms = self.terms.clone();
        terms.deadline = call.context.deadline;
        terms.idempotency_key = call.context.idempotency_key.as_deref().map(Arc::from);
        terms.cancelled = call.cancelled.clone();
        self.ticker.wake();
        let called = match &self.code {
            Code::Component(linked) => linked.call(terms, scratch.as_ref(), &call.tool, arguments),
            Code::Command(linked) => linked.call(terms, scratch.as_ref(), &call.tool, &call.arguments),
            Code::Core(linked) => linked.call(terms, &call.tool, &call.arguments),
        };
        self.ticker.rest();
        called
    }

    /// The arguments as JSON, if they are what the tool's schema wants.
    fn check(&self, call: &Call, limits: &Limits) -> Result<String, CallError> {
        let known = || self.checked.definitions().iter().map(|tool| tool.name.clone()).collect();
        let unknown = || CallError::UnknownTool { server: self.name.clone(), tool: call.tool.clone(), known: known() };
        let schema = self.checked.schema(&call.tool).ok_or_else(unknown)?;
        let arguments = call.arguments.to_string();
        if arguments.len() as u64 > limits.input_bytes {
            let problem = format!("they have {} bytes; the limit is {}", arguments.len(), limits.input_bytes);
            return Err(CallError::InvalidArguments { problems: vec![problem] });
        }
        match schema.check(&call.arguments) {
            problems if problems.is_empty() => Ok(arguments),
            problems => Err(CallError::InvalidArguments { problems }),
        }
    }

    fn ended(
        &self,
        tool: &str,
        asked: Instant,
        result: Result<CallResult, CallError>,
        queued: Duration,
        used: Used,
    ) -> Called {
        let ended = match &result {
            Ok(result) if result.is_error => Ended::ToolError,
            Ok(_) => Ended::Ok,
            Err(error) => error.ended(),
        };
        let report = CallReport {
            server: self.name.clone(),
            tool: tool.to_string(),
            kind: self.kind,
            duration: asked.elapsed(),
            queued,
            cpu: used.cpu,
            memory_bytes: used.memory,
            output_bytes: if result.is_ok() { used.output } else { 0 },
            ended,
        };
        Called { result, report }
    }

    /// The line that says who called what, with which grants, and how it ended. Never arguments, never results.
    fn audit(&self, workspace: &str, caller: &str, called: Called) -> Called {
        let report = &called.report;
        info!(
            target: "caxton::audit",
            workspace,
            caller,
            server = report.server,
            tool = report.tool,
            kind = %report.kind,
            grants = self.granted,
            ended = ?report.ended,
            duration_us = report.duration.as_micros() as u64,
            cpu_us = report.cpu.as_micros() as u64,
            memory_bytes = report.memory_bytes,
            "tool call"
        );
        called
    }
}
