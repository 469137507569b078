//! MCP servers outside of the sandbox: remote ones over streamable HTTP, and processes of this machine.
//!
//! What they do is beyond any grant: a listing has to say so ([`Kind::is_sandboxed`]). What is held here is the way to
//! them: which host, for how long, how much comes back, and arguments that fit the schema before anything is sent.

mod client;
mod lines;
mod process;
mod protected;
mod restarts;
mod words;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use caxton_proto::errors::chain;
use caxton_proto::manifest::address::HostPattern;
use client::{CallFailure, Client};
use restarts::Restarts;
use serde_json::Value;
use tokio::sync::watch;

use crate::audit::audit;
use crate::definitions::{self, CheckedDefinitions};
use crate::grants::Grants;
use crate::limits::Limits;
use crate::network::{Denied, Fetcher};
use crate::places::Places;
use crate::remark::Remark;
use crate::tool::{
    CallContext, CallError, CallReport, CallResult, Calling, Definitions, Ended, FinishedCall, Kind, Refreshing, Tool,
};

/// How long a server may take to be reached, greeted and asked for its tools. A process may first be downloaded by
/// the program that starts it.
const START_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a server may take to be asked again what tools it has, while a call or a listing waits for it.
const REFRESH_TIME_MAX: Duration = Duration::from_secs(10);
/// The first pause after it did not say.
const REFRESH_PAUSE_MIN: Duration = Duration::from_secs(5);

/// An MCP server to reach.
#[derive(Debug, Clone)]
pub struct ServerSpec {
    /// The tool's name.
    pub name: String,
    /// Where it is.
    pub place: Place,
    /// How much each call may use. Memory and processor time are the server's own affair.
    pub limits: Limits,
    /// A call that may have been lost is made again.
    pub idempotent: bool,
    /// After this long the server is asked again what tools it has.
    pub list_kept: Duration,
}

/// Where an MCP server is.
#[derive(Clone)]
pub enum Place {
    /// Somewhere on the network.
    Http {
        /// The URL of the server's endpoint.
        url: String,
        /// The hosts that the workspace allows.
        rules: Vec<HostPattern>,
        /// What each request carries; values may be secrets.
        headers: Vec<(String, String)>,
        /// What is sent as `Authorization: Bearer`.
        bearer: Option<String>,
    },
    /// A process that this machine starts.
    Process {
        /// The program's name or path on this machine.
        command: String,
        /// The arguments that it is started with.
        args: Vec<String>,
        /// Its whole environment; values may be secrets.
        env: BTreeMap<String, String>,
    },
}

impl Place {
    fn kind(&self) -> Kind {
        match self {
            Place::Http { .. } => Kind::McpHttp,
            Place::Process { .. } => Kind::McpStdio,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Http { url, .. } => f.write_str(url),
            Place::Process { command, .. } => write!(f, "the process `{command}`"),
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Place").field(&self.to_string()).finish()
    }
}

/// Why an MCP server cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The policy says no.
    #[error("its address may not be reached")]
    Denied(#[from] Denied),
    /// The program did not start.
    #[error("the program `{command}` did not start")]
    Spawn {
        /// The program that could not be started.
        command: String,
        /// What the system answered.
        #[source]
        source: std::io::Error,
    },
    /// It cannot be reached, or does not speak MCP.
    #[error("{place} cannot be used: {why}")]
    Unreachable {
        /// Where it is.
        place: String,
        /// What went wrong on the way to it, or in what it answered.
        why: String,
    },
    /// It did not answer in time.
    #[error("{place} did not say in {limit:?} what tools it has")]
    Timeout {
        /// Where it is.
        place: String,
        /// How long it was waited for.
        limit: Duration,
    },
}

/// An MCP server, connected.
#[derive(Clone)]
pub struct McpTool(Arc<Shared>);

struct Shared {
    spec: ServerSpec,
    fetcher: Fetcher,
    /// Where its process gets a folder to start in.
    folders: PathBuf,
    grants: Grants,
    granted: String,
    places: Places,
    listed: RwLock<ServerTools>,
    /// One refresh at a time.
    refreshing: tokio::sync::Mutex<()>,
    link: Mutex<Link>,
    changed: Arc<AtomicBool>,
}

/// What the server said of its tools.
struct ServerTools {
    checked: Arc<CheckedDefinitions>,
    /// When it is asked again.
    next: Instant,
    /// Why it did not say when it was asked last, and how often in a row.
    trouble: Option<(String, u32)>,
}

/// The connection, and how those before it ended.
struct Link {
    state: State,
    restarts: Restarts,
}

enum State {
    Open(Arc<Client>),
    Opening(watch::Receiver<Option<Connection>>),
    Closed,
}

/// A connection, or why there is none.
type Connection = Result<Arc<Client>, String>;

impl fmt::Debug for McpTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("McpTool").field("name", &self.0.spec.name).finish_non_exhaustive()
    }
}

/// Reaches a server and asks for its tools.
pub(crate) async fn connect(
    mut spec: ServerSpec,
    fetcher: Fetcher,
    folders: PathBuf,
    ceiling: &Limits,
) -> Result<McpTool, ConnectError> {
    let above = spec.limits.above(ceiling);
    spec.limits = spec.limits.within(ceiling).capped();
    let changed = Arc::new(AtomicBool::new(false));
    let place = spec.place.to_string();
    let limit = START_TIME_MAX;
    let start = async {
        let client = Client::open(&spec, &fetcher, &folders, changed.clone()).await?;
        let listed = client.list().await;
        let listed = listed.map_err(|why| ConnectError::Unreachable { place: place.clone(), why })?;
        Ok::<_, ConnectError>((client, listed))
    };
    let late = || ConnectError::Timeout { place: place.clone(), limit };
    let (client, listed) = tokio::time::timeout(limit, start).await.map_err(|_| late())??;
    let mut checked = definitions::checked(listed);
    checked.remark(above);
    let checked = Arc::new(checked);
    let granted = format!("none, because it runs outside of the sandbox: {}", spec.place);
    let next = Instant::now() + spec.list_kept;
    Ok(McpTool(Arc::new(Shared {
        places: Places::new(spec.limits.concurrent_calls),
        spec,
        fetcher,
        folders,
        grants: Grants::default(),
        granted,
        listed: RwLock::new(ServerTools { checked, next, trouble: None }),
        refreshing: tokio::sync::Mutex::default(),
        link: Mutex::new(Link { state: State::Open(Arc::new(client)), restarts: Restarts::default() }),
        changed,
    })))
}

/// What is to be done about the connection.
enum Next {
    Use(Arc<Client>),
    Bury(Arc<Client>),
    Wait(watch::Receiver<Option<Connection>>),
}

impl Shared {
    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn checked(&self) -> Arc<CheckedDefinitions> {
        self.listed.read().unwrap_or_else(PoisonError::into_inner).checked.clone()
    }

    /// The connection, made again if it has ended.
    async fn client(self: &Arc<Shared>) -> Result<Arc<Client>, CallError> {
        let unavailable = |what: String| CallError::Unavailable { what };
        loop {
            let mut opening = match self.next().map_err(unavailable)? {
                Next::Use(client) => return Ok(client),
                Next::Wait(opening) => opening,
                Next::Bury(dead) => {
                    let why = dead.last_words().await;
                    let mut link = self.link();
                    // Somebody else may have been here meanwhile.
                    if matches!(&link.state, State::Open(client) if Arc::ptr_eq(client, &dead)) {
                        link.state = State::Closed;
                        link.restarts.ended(Instant::now(), dead.age(), why);
                    }
                    continue;
                }
            };
            let opened = match opening.wait_for(Option::is_some).await {
                Ok(opened) => opened.clone(),
                Err(_) => None,
            };
            return opened.unwrap_or_else(|| Err("its start was broken off".to_owned())).map_err(unavailable);
        }
    }

    /// Looks at the connection, and begins a new one where none is and none was begun.
    fn next(self: &Arc<Shared>) -> Result<Next, String> {
        let mut link = self.link();
        match &link.state {
            State::Open(client) if client.is_closed() => return Ok(Next::Bury(client.clone())),
            State::Open(client) => return Ok(Next::Use(client.clone())),
            // Whoever makes it is still there.
            State::Opening(opening) if opening.has_changed().is_ok() => return Ok(Next::Wait(opening.clone())),
            State::Opening(_) | State::Closed => {}
        }
        let is_process = matches!(self.spec.place, Place::Process { .. });
        if let Some(refusal) = link.restarts.refusal(Instant::now()).filter(|_| is_process) {
            return Err(refusal);
        }
        let (done, opening) = watch::channel(None);
        link.state = State::Opening(opening.clone());
        // In a task of its own: a server may take longer to start than the call that needs it may wait.
        self.fetcher.runtime().spawn(self.clone().open(done));
        Ok(Next::Wait(opening))
    }

    /// Makes the connection, and tells everybody who waits for it.
    async fn open(self: Arc<Shared>, done: watch::Sender<Option<Connection>>) {
        let began = Instant::now();
        let opening = Client::open(&self.spec, &self.fetcher, &self.folders, self.changed.clone());
        let opened = match tokio::time::timeout(START_TIME_MAX, opening).await {
            Ok(opened) => opened.map(Arc::new).map_err(|error| chain(&error)),
            Err(_) => Err(format!("{} did not start in {START_TIME_MAX:?}", self.spec.place)),
        };
        {
            let mut link = self.link();
            match &opened {
                Ok(client) => link.state = State::Open(client.clone()),
                Err(why) => {
                    link.state = State::Closed;
                    // A start that took its whole minute is no healthy life.
                    let lived = began.elapsed().min(Duration::from_secs(1));
                    link.restarts.ended(Instant::now(), lived, why.clone());
                }
            }
        }
        done.send_replace(Some(opened));
    }

    /// Asks for the list of tools again if it may be another by now. The connection and what the server keeps go on.
    async fn refresh(self: &Arc<Shared>) {
        let due = || self.listed.read().unwrap_or_else(PoisonError::into_inner).next <= Instant::now();
        if !self.changed.load(Ordering::Relaxed) && !due() {
            return;
        }
        let Ok(_one) = self.refreshing.try_lock() else { return };
        // What changes while it is asked counts for the next time.
        let said = ListChange { changed: &self.changed, said: self.changed.swap(false, Ordering::Relaxed) };
        let asking = async {
            let client = self.client().await.map_err(|error| error.to_string())?;
            client.list().await
        };
        let asked = tokio::time::timeout(REFRESH_TIME_MAX, asking).await;
        let asked = asked.unwrap_or_else(|_| Err(format!("it did not answer in {REFRESH_TIME_MAX:?}")));
        let now = Instant::now();
        let mut listed = self.listed.write().unwrap_or_else(PoisonError::into_inner);
        *listed = match asked {
            Ok(told) => {
                let checked = Arc::new(definitions::checked(told));
                ServerTools { checked, next: now + self.spec.list_kept, trouble: None }
            }
            Err(why) => {
                let times = listed.trouble.as_ref().map_or(0, |(_, times)| *times);
                let pause = REFRESH_PAUSE_MIN * (1 << times.min(10));
                let trouble = Some((why, times.saturating_add(1)));
                ServerTools { checked: listed.checked.clone(), next: now + pause.min(self.spec.list_kept), trouble }
            }
        };
        drop(listed);
        said.heard();
    }

    async fn attempt(
        self: &Arc<Shared>,
        tool: &str,
        arguments: &Value,
        context: &CallContext,
    ) -> Result<CallResult, CallError> {
        let arguments = arguments.as_object().cloned().unwrap_or_default();
        let mut again = self.spec.idempotent;
        loop {
            let client = self.client().await?;
            match client.call(tool, arguments.clone(), context).await {
                Ok(result) => return Ok(result),
                Err(CallFailure::Lost(_)) if again => again = false,
                Err(CallFailure::Lost(what)) => return Err(CallError::Unavailable { what }),
                Err(CallFailure::Call(error)) => return Err(error),
            }
        }
    }

    async fn call(self: &Arc<Shared>, tool: &str, arguments: Value, context: CallContext) -> FinishedCall {
        let asked = Instant::now();
        let limits = &self.spec.limits;
        let mut queued = Duration::ZERO;
        let result = async {
            self.check(tool, &arguments).await?;
            let own = asked + limits.wall;
            let end = context.deadline.map_or(own, |deadline| deadline.min(own));
            let left = end.saturating_duration_since(Instant::now());
            let _place = self.places.take(&self.spec.name, left).await?;
            queued = asked.elapsed();
            let left = end.saturating_duration_since(Instant::now());
            let result = tokio::time::timeout(left, self.attempt(tool, &arguments, &context)).await;
            let result = result.map_err(|_| CallError::TimedOut { limit: end.duration_since(asked) })??;
            match result.bytes() > limits.output_bytes {
                true => Err(CallError::OutputTooLarge { limit: limits.output_bytes }),
                false => Ok(result),
            }
        };
        let result = result.await;
        let ended = match &result {
            Ok(result) if result.is_error => Ended::ToolError,
            Ok(_) => Ended::Ok,
            Err(error) => error.ended(),
        };
        let report = CallReport {
            server: self.spec.name.clone(),
            tool: tool.to_owned(),
            kind: self.spec.place.kind(),
            duration: asked.elapsed(),
            queued,
            cpu: Duration::ZERO,
            memory_bytes: 0,
            output_bytes: result.as_ref().map_or(0, CallResult::bytes),
            ended,
        };
        audit(&self.granted, &context, FinishedCall { result, report })
    }

    /// Looks at the arguments; what takes long leaves the threads that serve.
    async fn check(self: &Arc<Shared>, tool: &str, arguments: &Value) -> Result<(), CallError> {
        let (checked, bytes_max) = (self.checked(), self.spec.limits.input_bytes);
        if checked.is_light(tool, arguments) {
            return checked.arguments(&self.spec.name, tool, arguments, bytes_max).map(drop);
        }
        let (name, tool, arguments) = (self.spec.name.clone(), tool.to_owned(), arguments.clone());
        let looked =
            tokio::task::spawn_blocking(move || checked.arguments(&name, &tool, &arguments, bytes_max).map(drop));
        looked.await.unwrap_or_else(|error| Err(CallError::BadResult { what: error.to_string() }))
    }
}

/// Puts back that the list changed, unless it was asked for.
struct ListChange<'a> {
    changed: &'a AtomicBool,
    said: bool,
}

impl ListChange<'_> {
    fn heard(mut self) {
        self.said = false;
    }
}

impl Drop for ListChange<'_> {
    fn drop(&mut self) {
        if self.said {
            self.changed.store(true, Ordering::Relaxed);
        }
    }
}

impl Tool for McpTool {
    fn server(&self) -> &str {
        &self.0.spec.name
    }

    fn kind(&self) -> Kind {
        self.0.spec.place.kind()
    }

    fn definitions(&self) -> Definitions {
        self.0.checked().definitions()
    }

    fn remarks(&self) -> Vec<Remark> {
        let listed = self.0.listed.read().unwrap_or_else(PoisonError::into_inner);
        let trouble = listed.trouble.as_ref().map(|(why, _)| Remark {
            function: None,
            text: format!("what it said earlier counts, because it cannot be asked again: {why}"),
        });
        trouble.into_iter().chain(listed.checked.remarks().iter().cloned()).collect()
    }

    fn grants(&self) -> &Grants {
        &self.0.grants
    }

    fn limits(&self) -> &Limits {
        &self.0.spec.limits
    }

    fn call<'a>(&'a self, tool: &'a str, arguments: Value, context: CallContext) -> Calling<'a> {
        Box::pin(self.0.call(tool, arguments, context))
    }

    fn refresh(&self) -> Refreshing<'_> {
        Box::pin(self.0.refresh())
    }
}
