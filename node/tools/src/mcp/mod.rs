//! MCP servers outside of the sandbox: remote ones over streamable HTTP, and processes of this machine.
//!
//! What they do is beyond any grant: a listing has to say so ([`Kind::is_sandboxed`]). What is held here is the way to
//! them: which host, for how long, how much comes back, and arguments that fit the schema before anything is sent.

mod client;
mod process;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use caxton_proto::errors::chain;
use caxton_proto::manifest::address::HostPattern;
use client::{Client, Failed};
use serde_json::Value;
use tokio::sync::Mutex;

use crate::audit::audit;
use crate::definitions::{self, Checked};
use crate::grants::Grants;
use crate::limits::Limits;
use crate::network::{Denied, Fetcher};
use crate::places::Places;
use crate::tool::{CallContext, CallError, CallReport, CallResult, Called, Calling, Ended, Kind, Tool, ToolDefinition};

/// How long a server may take to be reached, greeted and asked for its tools. A process may first be downloaded by
/// the program that starts it.
const START_TIME_MAX: Duration = Duration::from_secs(60);
/// After this long a server is asked again what tools it has.
const DEFINITIONS_KEPT: Duration = Duration::from_secs(600);

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
    /// What it says of its tools is not usable.
    #[error("{place} describes its tools badly: {why}")]
    Definitions {
        /// Where it is.
        place: String,
        /// What cannot be used of the descriptions.
        why: String,
    },
}

/// An MCP server, connected.
#[derive(Clone)]
pub struct McpTool(Arc<Shared>);

struct Shared {
    spec: ServerSpec,
    fetcher: Fetcher,
    checked: Checked,
    grants: Grants,
    granted: String,
    places: Places,
    client: Mutex<Arc<Client>>,
    changed: Arc<AtomicBool>,
    connected: Instant,
}

impl fmt::Debug for McpTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("McpTool").field("name", &self.0.spec.name).finish_non_exhaustive()
    }
}

/// Reaches a server and asks for its tools. Waits on this thread: never call it on one that serves.
pub(crate) fn connect(spec: ServerSpec, fetcher: Fetcher) -> Result<McpTool, ConnectError> {
    let runtime = fetcher.runtime().clone();
    runtime.block_on(connect_here(spec, fetcher))
}

async fn connect_here(mut spec: ServerSpec, fetcher: Fetcher) -> Result<McpTool, ConnectError> {
    spec.limits = spec.limits.capped();
    let changed = Arc::new(AtomicBool::new(false));
    let place = spec.place.to_string();
    let limit = START_TIME_MAX;
    let start = async {
        let client = Client::open(&spec, &fetcher, changed.clone()).await?;
        let listed = client.list().await;
        let listed = listed.map_err(|why| ConnectError::Unreachable { place: place.clone(), why })?;
        Ok::<_, ConnectError>((client, listed))
    };
    let late = || ConnectError::Timeout { place: place.clone(), limit };
    let (client, listed) = tokio::time::timeout(limit, start).await.map_err(|_| late())??;
    let checked = definitions::checked(listed).map_err(|why| ConnectError::Definitions { place, why })?;
    let granted = format!("none, because it runs outside of the sandbox: {}", spec.place);
    Ok(McpTool(Arc::new(Shared {
        places: Places::new(spec.limits.concurrent_calls),
        spec,
        fetcher,
        checked,
        grants: Grants::default(),
        granted,
        client: Mutex::new(Arc::new(client)),
        changed,
        connected: Instant::now(),
    })))
}

impl Shared {
    /// The connection, made again if it has ended.
    async fn client(&self) -> Result<Arc<Client>, CallError> {
        let mut client = self.client.lock().await;
        if client.is_closed() {
            let opened = Client::open(&self.spec, &self.fetcher, self.changed.clone()).await;
            let unavailable = |error: ConnectError| CallError::Unavailable { what: chain(&error) };
            *client = Arc::new(opened.map_err(unavailable)?);
        }
        Ok(client.clone())
    }

    async fn attempt(&self, tool: &str, arguments: &Value, context: &CallContext) -> Result<CallResult, CallError> {
        let arguments = arguments.as_object().cloned().unwrap_or_default();
        let mut again = self.spec.idempotent;
        loop {
            let client = self.client().await?;
            match client.call(tool, arguments.clone(), context.idempotency_key.as_deref()).await {
                Ok(result) => return Ok(result),
                Err(Failed::Lost(_)) if again => again = false,
                Err(Failed::Lost(what)) => return Err(CallError::Unavailable { what }),
                Err(Failed::Call(error)) => return Err(error),
            }
        }
    }

    async fn call(&self, tool: &str, arguments: Value, context: CallContext) -> Called {
        let asked = Instant::now();
        let limits = &self.spec.limits;
        let mut queued = Duration::ZERO;
        let result = async {
            self.checked.arguments(&self.spec.name, tool, &arguments, limits.input_bytes)?;
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
        audit(&self.granted, &context, Called { result, report })
    }
}

impl Tool for McpTool {
    fn server(&self) -> &str {
        &self.0.spec.name
    }

    fn kind(&self) -> Kind {
        self.0.spec.place.kind()
    }

    fn definitions(&self) -> &[ToolDefinition] {
        self.0.checked.definitions()
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

    fn is_stale(&self) -> bool {
        self.0.changed.load(Ordering::Relaxed) || self.0.connected.elapsed() > DEFINITIONS_KEPT
    }
}
