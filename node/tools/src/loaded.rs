//! A tool server in the sandbox, and the way of a call: schema, a place, a thread, an instance, the record.

use crate::audit::audit;
use crate::definitions::CheckedDefinitions;
use crate::engine::Ticker;
use crate::grants::Grants;
use crate::guest::{CallUsage, Terms};
use crate::limits::Limits;
use crate::places::Places;
use crate::pool::Pool;
use crate::remark::Remark;
use crate::scratch::Scratch;
use crate::spec::Spec;
use crate::tool::{
    CallContext, CallError, CallReport, CallResult, Calling, Definitions, Ended, FinishedCall, Kind, Tool,
};
use crate::{command, component, core_module};
use serde_json::Value;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

pub(crate) enum Code {
    Component(component::LinkedComponent),
    Command(command::LinkedCommand),
    Core(core_module::LinkedModule),
}

/// Everything of a server that its calls share.
pub(crate) struct Loaded {
    name: String,
    kind: Kind,
    code: Code,
    checked: CheckedDefinitions,
    terms: Terms,
    ticker: Arc<Ticker>,
    /// Where a call's scratch directory is made, if it gets one.
    scratch: Option<PathBuf>,
    granted: String,
    code_bytes: u64,
}

impl Loaded {
    pub(crate) fn new(
        spec: Spec,
        code: Code,
        checked: CheckedDefinitions,
        terms: Terms,
        ticker: Arc<Ticker>,
        scratch: Option<PathBuf>,
        code_bytes: u64,
    ) -> Loaded {
        let granted = spec.grants.described().join(", ");
        Loaded { name: spec.name, kind: spec.kind, code, checked, terms, ticker, scratch, granted, code_bytes }
    }
}

/// A tool server in the sandbox.
#[derive(Clone)]
pub struct SandboxedTool {
    loaded: Arc<Loaded>,
    pool: Pool,
    places: Places,
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
        let places = Places::new(loaded.terms.limits.concurrent_calls);
        SandboxedTool { loaded: Arc::new(loaded), pool, places }
    }

    /// Calls a tool on this very thread: for benchmarks, and for callers that have a thread of their own.
    pub fn call_here(&self, tool: &str, arguments: Value, context: CallContext) -> FinishedCall {
        self.loaded.run(Call::new(tool, arguments, context))
    }

    async fn call_elsewhere(&self, call: Call) -> FinishedCall {
        let asked = call.asked;
        let tool = call.tool.clone();
        let refused =
            |error: CallError| self.loaded.ended(&tool, asked, Err(error), asked.elapsed(), CallUsage::default());
        let patience = call.left(&self.loaded.terms.limits);
        let permit = match self.places.take(&self.loaded.name, patience).await {
            Ok(permit) => permit,
            Err(error) => return audit(&self.loaded.granted, &call.context, refused(error)),
        };
        let _cancel = CancelOnDrop(call.cancelled.clone());
        let (answer, waiting) = oneshot::channel();
        let loaded = self.loaded.clone();
        let context = call.context.clone();
        let job = Box::new(move || {
            let called = loaded.run(call);
            drop(permit);
            let _ = answer.send(called);
        });
        if let Err(full) = self.pool.submit(job) {
            let what = format!("{} tool calls run and {} wait on this node", full.running, full.waiting);
            let called = refused(CallError::Busy { what });
            return audit(&self.loaded.granted, &context, called);
        }
        waiting.await.unwrap_or_else(|_| {
            // The job ended without an answer: the host itself panicked, which is logged where it happened.
            refused(CallError::Trapped { what: "the call ended unexpectedly".into() })
        })
    }
}

impl Tool for SandboxedTool {
    fn server(&self) -> &str {
        &self.loaded.name
    }

    fn kind(&self) -> Kind {
        self.loaded.kind
    }

    fn definitions(&self) -> Definitions {
        self.loaded.checked.definitions()
    }

    fn remarks(&self) -> Vec<Remark> {
        self.loaded.checked.remarks().to_vec()
    }

    fn code_bytes(&self) -> u64 {
        self.loaded.code_bytes
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
    fn run(&self, call: Call) -> FinishedCall {
        let queued = call.asked.elapsed();
        let (result, used) = self.attempt(&call);
        let called = self.ended(&call.tool, call.asked, result, queued, used);
        audit(&self.granted, &call.context, called)
    }

    fn attempt(&self, call: &Call) -> (Result<CallResult, CallError>, CallUsage) {
        if call.cancelled.load(Ordering::Relaxed) {
            return (Err(CallError::Cancelled), CallUsage::default());
        }
        let limits = &self.terms.limits;
        if call.context.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return (Err(CallError::TimedOut { limit: call.asked.elapsed() }), CallUsage::default());
        }
        let checked = self.checked.arguments(&self.name, &call.tool, &call.arguments, limits.input_bytes);
        let arguments = match checked {
            Ok(arguments) => arguments,
            Err(error) => return (Err(error), CallUsage::default()),
        };
        let scratch = match self.scratch.as_deref().map(Scratch::new).transpose() {
            Ok(scratch) => scratch,
            Err(error) => {
                return (
                    Err(CallError::Failed { what: format!("no scratch directory: {error}") }),
                    CallUsage::default(),
                );
            }
        };
        let mut terms = self.terms.clone();
        terms.deadline = call.context.deadline;
        terms.idempotency_key = call.context.idempotency_key.as_deref().map(Arc::from);
        terms.trace = call.context.trace.clone().map(Arc::new);
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

    fn ended(
        &self,
        tool: &str,
        asked: Instant,
        result: Result<CallResult, CallError>,
        queued: Duration,
        used: CallUsage,
    ) -> FinishedCall {
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
        FinishedCall { result, report }
    }
}
