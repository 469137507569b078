//! Loads tools from WebAssembly bytes. Everything that tools share belongs to it: engine, threads, cache, network.

use crate::agent::{self, AgentCode, AgentLoadError, SandboxedAgent};
use crate::budget::Budget;
use crate::compile::{Cache, CompileError, Compiler};
use crate::definitions::FunctionReading;
use crate::engine::{self, Space, Ticker};
use crate::grants::Grants;
use crate::guest::Terms;
use crate::limits::{CompileLimits, Limits, Quota};
use crate::loaded::{Code, Loaded, SandboxedTool};
use crate::mcp::{self, ConnectError, McpTool, ServerSpec};
use crate::network::{Fetcher, Network};
use crate::pool::{Full, Pool};
use crate::remark::Remark;
use crate::reuse::Shelf;
use crate::spec::Spec;
use crate::tool::{CallError, Kind};
use crate::{command, component, core_module, definitions, imports, scratch};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tracing::debug;
use wasmtime::component::Component;
use wasmtime::{Engine, Module};

/// How long a server may take to say what tools it has.
const LIST_TIME_MAX: Duration = Duration::from_secs(5);

/// Threads that load what is compiled already, and tools that may wait for one.
const LOADERS: usize = 4;
const LOADS_WAITING_MAX: usize = 256;
/// Tools that may be on their way at once: read, compiled, or waited for because their server starts.
const BEGINNING_MAX: usize = 256;

/// How a sandbox is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Calls that run at once, on a thread each.
    pub threads: usize,
    /// Calls that may wait for a thread; one more is refused.
    pub queue: usize,
    /// Instances that are kept for later calls, of all tools that are granted `reuse` together.
    pub kept_instances: usize,
    /// Where compiled code is kept. Without it nothing is kept from one start to the next.
    pub cache: Option<PathBuf>,
    /// Where calls' own directories are made, and those in which processes start.
    pub scratch: PathBuf,
    /// What one call may keep in its own directory.
    pub quota: Quota,
    /// Memory of all instances together; 0 for half of what the machine or the container has.
    pub total_memory_bytes: u64,
    /// The most that a tool's own limits may say.
    pub ceiling: Limits,
    /// What compiling may cost.
    pub compile: CompileLimits,
    /// What makes machine code of a module: a process of its own, or this one.
    pub compiler: Compiler,
    /// Networks that are not public, which tools with a grant may reach all the same.
    pub networks: Vec<Network>,
}

impl Default for Settings {
    fn default() -> Settings {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Settings {
            threads: (cores * 8).clamp(32, 256),
            queue: 1_024,
            kept_instances: 32,
            cache: None,
            scratch: scratch::default_parent(),
            quota: Quota::default(),
            total_memory_bytes: 0,
            ceiling: Limits::ceiling(),
            compile: CompileLimits::default(),
            compiler: Compiler::Inline,
            networks: Vec::new(),
        }
    }
}

/// Why a tool cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Its bytes cannot be made into code.
    #[error("tool `{tool}` cannot be compiled")]
    Compile {
        /// The name of the tool that was to be loaded.
        tool: String,
        /// What kept the compiler from it.
        #[source]
        source: CompileError,
    },
    /// It is not what its manifest says, or it wants something that this host does not have.
    #[error("tool `{tool}` cannot be linked: {why}")]
    Link {
        /// The name of the tool that was to be loaded.
        tool: String,
        /// What does not fit, in the words of the linker.
        why: String,
    },
    /// It imports what its manifest does not name.
    #[error("tool `{tool}` imports {import}, and is not granted it: name it under [grants] in its tool.toml")]
    NotGranted {
        /// The name of the tool that was to be loaded.
        tool: String,
        /// The import that this host does not have.
        import: String,
    },
    /// It could not say what tools it has.
    #[error("tool `{tool}` could not say what tools it has")]
    List {
        /// The name of the tool that was to be loaded.
        tool: String,
        /// How the call for the list ended.
        #[source]
        source: CallError,
    },
    /// What it says of its tools is not usable.
    #[error("tool `{tool}` describes its tools badly: {why}")]
    Definitions {
        /// The name of the tool that was to be loaded.
        tool: String,
        /// What cannot be used of the descriptions.
        why: String,
    },
    /// Its kind runs outside of the sandbox.
    #[error("tool `{tool}` is a {kind}, which does not run in the sandbox")]
    NotWasm {
        /// The name of the tool that was to be loaded.
        tool: String,
        /// The kind that does not run in the sandbox.
        kind: Kind,
    },
    /// Too many tools are being loaded or compiled.
    #[error(
        "tool `{tool}` is not loaded now: {running} are being loaded or compiled and {waiting} wait; try again later"
    )]
    Busy {
        /// The name by which it was asked for.
        tool: String,
        /// How many are on their way.
        running: usize,
        /// How many wait.
        waiting: usize,
    },
    /// The engine could not be started.
    #[error("the WebAssembly engine did not start: {why}")]
    Engine {
        /// What the engine answered.
        why: String,
    },
}

/// Too many tools are on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{limit} tools are being started already; try again in a moment")]
pub struct NoPlace {
    /// How many may be at once.
    pub limit: usize,
}

/// Loads and runs tools. Cheap to clone. Nothing of it costs memory before the first tool is loaded.
#[derive(Clone)]
pub struct Sandbox {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    fetcher: Fetcher,
    pool: Pool,
    /// Agents that handle messages: they wait for tools, which have the other threads.
    agents: Pool,
    loaders: Pool,
    compilers: Pool,
    beginning: Arc<Semaphore>,
    budget: Arc<Budget>,
    shelf: Arc<Shelf<component::CallTool>>,
    cache: Cache,
    running: OnceLock<Running>,
    starting: Mutex<()>,
}

struct Running {
    engine: Engine,
    ticker: Arc<Ticker>,
    space: Space,
}

impl Sandbox {
    /// A sandbox whose tools' connections and timers live on `runtime`.
    pub fn new(settings: Settings, runtime: Handle) -> Sandbox {
        let fetcher = Fetcher::new(runtime, settings.networks.clone());
        let pool = Pool::new(settings.threads, settings.queue);
        let shelf = Shelf::new(settings.kept_instances);
        let cache = Cache::new(settings.cache.clone(), settings.compiler.clone(), settings.compile.clone());
        let inner = Inner {
            agents: Pool::new(agent_threads(&settings), settings.queue),
            loaders: Pool::new(LOADERS, LOADS_WAITING_MAX),
            compilers: Pool::new(settings.compile.processes.max(1), settings.compile.queue),
            beginning: Arc::new(Semaphore::new(BEGINNING_MAX)),
            budget: Budget::new(settings.total_memory_bytes),
            settings,
            fetcher,
            pool,
            shelf,
            cache,
            running: OnceLock::new(),
            starting: Mutex::new(()),
        };
        Sandbox { inner: Arc::new(inner) }
    }

    /// Runs what makes a tool ready to the end, whoever still waits for it: a server may take longer to start than a
    /// request may wait. There are only so many at once.
    pub fn begin(&self, work: impl Future<Output = ()> + Send + 'static) -> Result<(), NoPlace> {
        let place = self.inner.beginning.clone().try_acquire_owned();
        let place = place.map_err(|_| NoPlace { limit: BEGINNING_MAX })?;
        self.inner.fetcher.runtime().spawn(async move {
            work.await;
            drop(place);
        });
        Ok(())
    }

    /// Loads a tool on threads of its own kind: a few for what is compiled already, as many as compile at once for what is
    /// not. Both have a queue with a limit.
    pub async fn load_soon(
        &self,
        spec: Spec,
        wasm: impl AsRef<[u8]> + Send + Sync + 'static,
    ) -> Result<SandboxedTool, LoadError> {
        let wasm = Arc::new(wasm);
        let name = spec.name.clone();
        let (sandbox, kept, bytes) = (self.clone(), spec.clone(), wasm.clone());
        let loading = move || sandbox.load_kept(kept, (*bytes).as_ref());
        if let Some(tool) = on(&self.inner.loaders, &name, loading).await?? {
            return Ok(tool);
        }
        let sandbox = self.clone();
        on(&self.inner.compilers, &name, move || sandbox.load(spec, (*wasm).as_ref())).await?
    }

    /// Loads a tool if its code is kept.
    fn load_kept(&self, spec: Spec, wasm: &[u8]) -> Result<Option<SandboxedTool>, LoadError> {
        if !spec.kind.is_sandboxed() {
            return Err(LoadError::NotWasm { tool: spec.name, kind: spec.kind });
        }
        let running = self.running()?;
        let kept = self.inner.cache.kept(&running.engine, spec.kind, wasm);
        kept.map(|code| self.ready(running, spec, &code)).transpose()
    }

    /// Compiles a module if the cache does not have it, links it to what it is granted, and asks for its tools.
    ///
    /// This takes as long as compiling does: never call it on a thread that serves.
    pub fn load(&self, spec: Spec, wasm: &[u8]) -> Result<SandboxedTool, LoadError> {
        let tool = spec.name.clone();
        if !spec.kind.is_sandboxed() {
            return Err(LoadError::NotWasm { tool, kind: spec.kind });
        }
        let running = self.running()?;
        let compiled = self.inner.cache.compiled(&running.engine, running.space, spec.kind, wasm);
        let compiled = compiled.map_err(|source| LoadError::Compile { tool: tool.clone(), source })?;
        self.ready(running, spec, &compiled)
    }

    /// Links machine code to what it is granted, and asks it for its tools.
    fn ready(&self, running: &Running, spec: Spec, compiled: &[u8]) -> Result<SandboxedTool, LoadError> {
        let tool = spec.name.clone();
        let code = link(&running.engine, &spec, compiled, &self.inner.shelf)?;
        let terms = self.terms(&spec);
        let (listed, used) = {
            running.ticker.wake();
            let mut terms = terms.clone();
            terms.limits.wall = terms.limits.wall.min(LIST_TIME_MAX);
            terms.limits.output_bytes = terms.limits.output_bytes.max(1 << 20);
            let listed = match &code {
                Code::Component(linked) => linked.list(terms),
                Code::Command(linked) => linked.list(terms),
                Code::Core(linked) => linked.list(terms),
            };
            running.ticker.rest();
            listed
        };
        debug!(tool, memory_bytes = used.memory, "tool loaded");
        let listed: Vec<FunctionReading> = listed.map_err(|source| LoadError::List { tool: tool.clone(), source })?;
        let mut checked = definitions::checked(listed);
        checked.remark(spec.limits.above(&self.inner.settings.ceiling));
        if checked.definitions().is_empty() {
            let why: Vec<String> = checked.remarks().iter().map(Remark::to_string).collect();
            return Err(LoadError::Definitions { tool, why: why.join("; ") });
        }
        let scratch =
            (spec.grants.scratch && !matches!(code, Code::Core(_))).then(|| self.inner.settings.scratch.clone());
        let ticker = running.ticker.clone();
        let code_bytes = compiled.len() as u64;
        let loaded = Loaded::new(spec, code, checked, terms, ticker, scratch, code_bytes);
        Ok(SandboxedTool::new(loaded, self.inner.pool.clone()))
    }

    /// Reaches an MCP server, which is outside of the sandbox, and asks for its tools. No thread waits for it.
    pub async fn connect(&self, spec: ServerSpec) -> Result<McpTool, ConnectError> {
        let Settings { scratch, ceiling, .. } = &self.inner.settings;
        mcp::connect(spec, self.inner.fetcher.clone(), scratch.clone(), ceiling).await
    }

    /// The engine, started when it is first needed: its pool reserves address space, and its code takes memory.
    fn running(&self) -> Result<&Running, LoadError> {
        if let Some(running) = self.inner.running.get() {
            return Ok(running);
        }
        let _one = self.inner.starting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = self.inner.running.get() {
            return Ok(running);
        }
        let failed = |why: String| LoadError::Engine { why };
        let settings = &self.inner.settings;
        let instances =
            settings.threads.saturating_add(agent_threads(settings)).saturating_add(settings.kept_instances);
        let slots = u32::try_from(instances).unwrap_or(u32::MAX).saturating_add(2);
        let (engine, space) = engine::for_running(slots).map_err(|error| failed(format!("{error:#}")))?;
        let ticker = Ticker::start(&engine).map_err(|error| failed(error.to_string()))?;
        Ok(self.inner.running.get_or_init(|| Running { engine, ticker: Arc::new(ticker), space }))
    }

    /// Compiles an agent's module if the cache does not have it, and links it. Nothing of it runs before its first message.
    ///
    /// This takes as long as compiling does: never call it on a thread that serves.
    pub fn load_agent(&self, code: AgentCode, wasm: &[u8]) -> Result<SandboxedAgent, AgentLoadError> {
        let running = self.running().map_err(agent_error)?;
        let compiled = self.inner.cache.compiled(&running.engine, running.space, code.kind, wasm);
        let compiled = compiled.map_err(|source| AgentLoadError::Compile { agent: code.name.clone(), source })?;
        self.agent(running, code, &compiled)
    }

    /// Loads an agent on threads of its own kind, as [`Sandbox::load_soon`] does a tool.
    pub async fn load_agent_soon(
        &self,
        code: AgentCode,
        wasm: impl AsRef<[u8]> + Send + Sync + 'static,
    ) -> Result<SandboxedAgent, AgentLoadError> {
        let wasm = Arc::new(wasm);
        let name = code.name.clone();
        let (sandbox, kept, bytes) = (self.clone(), code.clone(), wasm.clone());
        let loading = move || {
            let running = sandbox.running().map_err(agent_error)?;
            let found = sandbox.inner.cache.kept(&running.engine, kept.kind, (*bytes).as_ref());
            found.map(|compiled| sandbox.agent(running, kept, &compiled)).transpose()
        };
        if let Some(agent) = on(&self.inner.loaders, &name, loading).await.map_err(agent_error)?? {
            return Ok(agent);
        }
        let sandbox = self.clone();
        let loading = move || sandbox.load_agent(code, (*wasm).as_ref());
        on(&self.inner.compilers, &name, loading).await.map_err(agent_error)?
    }

    fn agent(&self, running: &Running, code: AgentCode, compiled: &[u8]) -> Result<SandboxedAgent, AgentLoadError> {
        let linked = agent::link(&running.engine, &code, compiled)?;
        let spec = Spec { name: code.name, kind: code.kind, grants: Grants::default(), limits: code.limits };
        let terms = self.terms(&spec);
        Ok(SandboxedAgent::new(spec, linked, terms, running.ticker.clone(), self.inner.agents.clone()))
    }

    fn terms(&self, spec: &Spec) -> Terms {
        Terms {
            server: spec.name.as_str().into(),
            grants: Arc::new(spec.grants.clone()),
            limits: spec.limits.clone().within(&self.inner.settings.ceiling).capped(),
            quota: self.inner.settings.quota,
            budget: self.inner.budget.clone(),
            fetcher: self.inner.fetcher.clone(),
            idempotency_key: None,
            trace: None,
            deadline: None,
            cancelled: Arc::new(AtomicBool::new(false)),
        }
    }
}

/// What keeps anything from being loaded, told of an agent.
fn agent_error(error: LoadError) -> AgentLoadError {
    match error {
        LoadError::Busy { tool, running, waiting } => AgentLoadError::Busy { agent: tool, running, waiting },
        other => AgentLoadError::Engine { why: other.to_string() },
    }
}

/// Threads on which agents handle messages.
fn agent_threads(settings: &Settings) -> usize {
    (settings.threads / 2).max(2)
}

/// Runs a job on one of these threads, and waits for it.
async fn on<R: Send + 'static>(
    pool: &Pool,
    tool: &str,
    job: impl FnOnce() -> R + Send + 'static,
) -> Result<R, LoadError> {
    let (done, waiting) = oneshot::channel();
    let job = Box::new(move || _ = done.send(job()));
    let busy = |Full { running, waiting }| LoadError::Busy { tool: tool.to_owned(), running, waiting };
    pool.submit(job).map_err(busy)?;
    waiting.await.map_err(|_| LoadError::Engine { why: "loading ended unexpectedly".into() })
}

fn link(
    engine: &Engine,
    spec: &Spec,
    compiled: &[u8],
    shelf: &Arc<Shelf<component::CallTool>>,
) -> Result<Code, LoadError> {
    let tool = || spec.name.clone();
    let refuse = |why: String| LoadError::Link { tool: tool(), why };
    let unreadable = |error: wasmtime::Error| LoadError::Engine { why: format!("{error:#}") };
    // SAFETY: `Cache::compiled` gives only what this very installation compiled, proven by its HMAC.
    let module = || unsafe { Module::deserialize(engine, compiled) }.map_err(unreadable);
    if spec.grants.reuse && spec.kind != Kind::Component {
        return Err(refuse(format!("it is granted `reuse`, and a {} runs anew for each call", spec.kind)));
    }
    match spec.kind {
        Kind::Component => {
            // SAFETY: as above.
            let component = unsafe { Component::deserialize(engine, compiled) }.map_err(unreadable)?;
            check_imports(spec, &component)?;
            let shelf = spec.grants.reuse.then_some(shelf);
            component::LinkedComponent::new(engine, &component, shelf).map(Code::Component).map_err(refuse)
        }
        Kind::Command => command::LinkedCommand::new(engine, &module()?).map(Code::Command).map_err(refuse),
        Kind::Core => core_module::LinkedModule::new(engine, &module()?).map(Code::Core).map_err(refuse),
        kind @ (Kind::McpHttp | Kind::McpStdio) => Err(LoadError::NotWasm { tool: tool(), kind }),
    }
}

/// A component imports only what this host has; HTTP only when a host is granted.
fn check_imports(spec: &Spec, component: &Component) -> Result<(), LoadError> {
    for import in component::imports(component) {
        let known = [imports::LOG, imports::CONFIG, imports::CALL, imports::TYPES].contains(&import.as_str())
            || ["wasi:io/", "wasi:cli/", "wasi:clocks/", "wasi:random/", "wasi:filesystem/", "wasi:sockets/"]
                .iter()
                .any(|family| import.starts_with(family));
        let granted = import == imports::HTTP && !spec.grants.http.is_empty();
        if !known && !granted {
            return Err(if import == imports::HTTP {
                LoadError::NotGranted { tool: spec.name.clone(), import }
            } else {
                LoadError::Link {
                    tool: spec.name.clone(),
                    why: format!("it imports `{import}`, which no tool is given"),
                }
            });
        }
    }
    Ok(())
}
