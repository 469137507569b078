//! What belongs to one instance: its limits, its grants, and what it used so far.

use crate::budget::{Budget, MemoryReservation};
use crate::engine::{CORE_INSTANCES_MAX, MEMORIES_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX};
use crate::exchange::Exchange;
use crate::grants::Grants;
use crate::limits::{Limits, Quota};
use crate::network::Fetcher;
use crate::scratch::Watch;
use crate::tool::{CallError, CallResult, TraceContext};
use crate::wasi;
use rustix::time::{ClockId, clock_gettime};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tracing::{debug, error, info, warn};
use wasmtime::component::{ResourceTable, ResourceTableError};
use wasmtime::{Engine, ResourceLimiter, Store, Trap, UpdateDeadline};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

/// Lines that one call may log, and the length of each.
const LOG_LINES_MAX: u32 = 100;
const LOG_LINE_BYTES: usize = 1024;
/// Lines of its standard error that go into an error, and the length of each.
const LAST_LINES_MAX: usize = 6;
const LAST_LINE_BYTES: usize = 300;
/// Files, directories, streams and timers that one call may have open at once.
const OPEN_MAX: usize = 128;
/// How often a guest that waits looks whether its caller still does.
const CANCEL_POLL: Duration = Duration::from_millis(20);

/// Everything that a call's instance is given, beside its module.
#[derive(Clone)]
pub(crate) struct Terms {
    pub server: Arc<str>,
    pub grants: Arc<Grants>,
    pub limits: Limits,
    pub quota: Quota,
    /// What all instances of the node share.
    pub budget: Arc<Budget>,
    pub fetcher: Fetcher,
    pub idempotency_key: Option<Arc<str>>,
    pub trace: Option<Arc<TraceContext>>,
    /// The caller stops waiting then; the limit of the tool itself is in `limits`.
    pub deadline: Option<Instant>,
    pub cancelled: Arc<AtomicBool>,
}

/// The data of a store.
pub(crate) struct Guest {
    pub terms: Terms,
    pub meter: Meter,
    pub stop: Stop,
    log_lines: u32,
    /// The last lines that it wrote to its standard error.
    last_words: Vec<String>,
    /// What it and the node exchange, if it is an agent.
    pub exchange: Option<Box<Exchange>>,
    wasi: Option<Box<(WasiCtx, ResourceTable)>>,
    p1: Option<Box<WasiP1Ctx>>,
}

impl Guest {
    /// A store that holds a new guest to its limits. `yields` where the guest runs as a future.
    pub(crate) fn store(engine: &Engine, terms: Terms, yields: bool) -> Store<Guest> {
        let stop = Stop::new(&terms);
        let meter = Meter::new(terms.limits.memory_bytes as usize, terms.budget.reserve());
        let output = terms.limits.output_bytes as usize;
        let mut store = Store::new(
            engine,
            Guest { terms, meter, stop, log_lines: 0, last_words: Vec::new(), exchange: None, wasi: None, p1: None },
        );
        store.limiter(|guest| &mut guest.meter);
        // Strings and lists that the guest hands over, plus their elements' bookkeeping.
        store.set_hostcall_fuel(output.saturating_add(64 << 10));
        store.set_max_component_handles(1_000);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(move |context| {
            context.data().stop.check()?;
            Ok(if yields { UpdateDeadline::Yield(1) } else { UpdateDeadline::Continue(1) })
        });
        store
    }

    /// Readies a store whose call ended well for the next one: everything that belongs to a call begins anew.
    pub(crate) fn again(store: &mut Store<Guest>, terms: Terms) {
        let guest = store.data_mut();
        guest.stop = Stop::new(&terms);
        guest.terms = terms;
        guest.meter.refused = 0;
        guest.meter.short = false;
        guest.log_lines = 0;
        store.set_epoch_deadline(1);
    }

    /// Gives it the WASI of a component.
    pub(crate) fn give_wasi(&mut self, context: WasiCtx) {
        let mut table = ResourceTable::new();
        table.set_max_capacity(OPEN_MAX);
        self.wasi = Some(Box::new((context, table)));
    }

    /// Gives it the WASI of a command.
    pub(crate) fn give_p1(&mut self, mut context: WasiP1Ctx) {
        context.ctx().table.set_max_capacity(OPEN_MAX);
        self.p1 = Some(Box::new(context));
    }

    /// Holds it to the quota of its scratch directory.
    pub(crate) fn watch_scratch(&mut self, directory: &Path) {
        self.stop.scratch = Some(Watch::new(directory, self.terms.quota));
    }

    /// The WASI of a command; where none was given, one that grants nothing.
    pub(crate) fn p1(&mut self) -> &mut WasiP1Ctx {
        self.p1.get_or_insert_with(|| Box::new(wasi::nothing().build_p1()))
    }

    /// Puts what it wrote to its standard error into the operator's log, and keeps the end of it for an error: that is where
    /// a language's runtime tells of an exception that nobody caught, and of its line.
    pub(crate) fn complained(&mut self, said: &[u8]) {
        let said = String::from_utf8_lossy(said);
        for line in said.lines() {
            self.log(LogLevel::Info, line);
        }
        let lines: Vec<&str> = said.lines().map(str::trim_end).filter(|line| !line.trim().is_empty()).collect();
        let end = &lines[lines.len().saturating_sub(LAST_LINES_MAX)..];
        self.last_words = end.iter().map(|line| shown(line, LAST_LINE_BYTES)).collect();
    }

    /// The error of a call that crashed or ended too early, with the last that it wrote.
    pub(crate) fn with_last_words(&self, error: CallError) -> CallError {
        if self.last_words.is_empty() {
            return error;
        }
        let told = |what: String| format!("{what}; the last it wrote: {}", self.last_words.join(" | "));
        match error {
            CallError::Trapped { what } => CallError::Trapped { what: told(what) },
            CallError::Failed { what } => CallError::Failed { what: told(what) },
            CallError::BadResult { what } => CallError::BadResult { what: told(what) },
            other => other,
        }
    }

    /// One line for the operator's log, if the call has any left.
    pub(crate) fn log(&mut self, level: LogLevel, message: &str) {
        self.log_lines += 1;
        let server = &*self.terms.server;
        if self.log_lines == LOG_LINES_MAX + 1 {
            warn!(tool = server, lines_max = LOG_LINES_MAX, "the tool logs too much: the rest of this call is dropped");
        }
        if self.log_lines > LOG_LINES_MAX {
            return;
        }
        let line = shown(message, LOG_LINE_BYTES);
        match level {
            LogLevel::Debug => debug!(tool = server, "{line}"),
            LogLevel::Info => info!(tool = server, "{line}"),
            LogLevel::Warn => warn!(tool = server, "{line}"),
            LogLevel::Error => error!(tool = server, "{line}"),
        }
    }
}

/// One line of a stranger's text. A line break or an escape sequence would forge other lines, or play with the operator's
/// terminal.
fn shown(text: &str, bytes_max: usize) -> String {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let wasi = self.wasi.get_or_insert_with(|| Box::new((wasi::nothing().build(), ResourceTable::new())));
        WasiCtxView { ctx: &mut wasi.0, table: &mut wasi.1 }
    }
}

/// How much a line of a tool's log matters.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

/// Counts what an instance takes, all its memories together.
pub(crate) struct Meter {
    memory: usize,
    memory_max: usize,
    /// The most that was refused: what it wanted in all.
    refused: usize,
    /// Its part of what all instances share, given back with it.
    reserved: MemoryReservation,
    /// All instances together had no more.
    short: bool,
}

impl Meter {
    fn new(memory_max: usize, reserved: MemoryReservation) -> Meter {
        Meter { memory: 0, memory_max, refused: 0, reserved, short: false }
    }

    /// Bytes of linear memory; it never shrinks.
    pub(crate) fn memory(&self) -> u64 {
        self.memory as u64
    }

    /// The error for a guest that crashed after it got no memory.
    pub(crate) fn starved(&self) -> Option<CallError> {
        if self.short {
            return Some(CallError::Busy { what: self.reserved.refusal() });
        }
        let (wanted, limit) = (self.refused as u64, self.memory_max as u64);
        (wanted > 0).then_some(CallError::OutOfMemory { wanted, limit })
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let wanted = self.memory.saturating_add(desired.saturating_sub(current));
        if wanted > self.memory_max {
            self.refused = self.refused.max(wanted);
            return Ok(false);
        }
        if !self.reserved.grow((wanted - self.memory) as u64) {
            self.short = true;
            return Ok(false);
        }
        self.memory = wanted;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_MAX as usize
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX as usize
    }

    fn tables(&self) -> usize {
        TABLES_MAX as usize
    }
}

/// When a guest must stop, looked at each tick of the engine's clock.
pub(crate) struct Stop {
    deadline: Instant,
    wall: Duration,
    cpu_started: Duration,
    cpu_max: Duration,
    cancelled: Arc<AtomicBool>,
    scratch: Option<Watch>,
}

/// Why a guest was stopped; carried through wasmtime as an error.
#[derive(Debug, thiserror::Error)]
#[error("stopped")]
pub(crate) struct Stopped(pub CallError);

impl Stop {
    fn new(terms: &Terms) -> Stop {
        let started = Instant::now();
        let own = started + terms.limits.wall;
        let deadline = terms.deadline.map_or(own, |deadline| deadline.min(own));
        Stop {
            deadline,
            wall: deadline.saturating_duration_since(started),
            cpu_started: thread_cpu(),
            cpu_max: terms.limits.cpu,
            cancelled: terms.cancelled.clone(),
            scratch: None,
        }
    }

    /// Whether it may go on.
    pub(crate) fn check(&self) -> Result<(), Stopped> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Stopped(CallError::Cancelled));
        }
        if Instant::now() >= self.deadline {
            return Err(Stopped(self.timed_out()));
        }
        if self.cpu() > self.cpu_max {
            return Err(Stopped(CallError::CpuSpent { limit: self.cpu_max }));
        }
        self.scratch.as_ref().map_or(Ok(()), Watch::check).map_err(Stopped)
    }

    /// Processor time so far. Only right on the guest's thread.
    pub(crate) fn cpu(&self) -> Duration {
        thread_cpu().saturating_sub(self.cpu_started)
    }

    /// Time until it must stop.
    pub(crate) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// The error for having passed the deadline.
    pub(crate) fn timed_out(&self) -> CallError {
        CallError::TimedOut { limit: self.wall }
    }
}

/// What a call used.
#[derive(Default)]
pub(crate) struct CallUsage {
    pub cpu: Duration,
    pub memory: u64,
    /// Bytes of its result.
    pub output: u64,
}

impl CallUsage {
    /// So far, without a result. Only right on the guest's thread.
    pub(crate) fn of(store: &Store<Guest>) -> CallUsage {
        CallUsage { cpu: store.data().stop.cpu(), memory: store.data().meter.memory(), output: 0 }
    }

    /// The same with the size of a result.
    pub(crate) fn giving(self, result: &Result<CallResult, CallError>) -> CallUsage {
        CallUsage { output: result.as_ref().map_or(0, CallResult::bytes), ..self }
    }
}

/// Waits until the flag is set.
pub(crate) async fn until(flag: &AtomicBool) {
    while !flag.load(Ordering::Relaxed) {
        tokio::time::sleep(CANCEL_POLL).await;
    }
}

fn thread_cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Says what an error of wasmtime means for the call.
pub(crate) fn explain(error: &wasmtime::Error, guest: &Guest) -> CallError {
    if let Some(Stopped(why)) = error.downcast_ref::<Stopped>() {
        return why.clone();
    }
    if let Some(starved) = guest.meter.starved() {
        return starved;
    }
    if let Some(trap) = error.downcast_ref::<Trap>() {
        return match trap {
            Trap::Interrupt => guest.stop.timed_out(),
            other => CallError::Trapped { what: other.to_string() },
        };
    }
    let what = format!("{error:#}");
    if matches!(error.downcast_ref::<ResourceTableError>(), Some(ResourceTableError::Full))
        || what.contains("resource table has no free keys")
    {
        return CallError::TooManyOpen { limit: OPEN_MAX };
    }
    if what.contains("fuel allocated for hostcalls") {
        return CallError::OutputTooLarge { limit: guest.terms.limits.output_bytes };
    }
    let last = what.lines().last().unwrap_or_default();
    CallError::Trapped { what: last.chars().take(300).collect() }
}
