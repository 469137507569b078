//! The composition root: opens what a node has, wires it, and starts it; the port last. Stopping goes the other way.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_proto::log::Token;
use caxton_raft::deploy_log::DeployLog;
use caxton_raft::{Groups, IdentityError, NodeIdentity, OpenError, OpenGroupError, Store, Timers};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::activity::Activity;
use crate::artifacts::{Artifacts, Space};
use crate::auth::{self, Auth, KnownTokens, SecretError, private_dir, write_private};
use crate::capability::{Router, RouterLimits, Vectors};
use crate::catalog::Catalogs;
use crate::config::Config;
use crate::conversations::Conversations;
use crate::deploy::collect::Collector;
use crate::deploy::pins::Pins;
use crate::deploy::reconcile::Reconciler;
use crate::deploy::{Deployer, Limits, Rules};
use crate::http::listen::{self, BindError, Edge};
use crate::http::{self, Services};
use crate::invoke::{self, InvokeError, Invoker};
use crate::llm::Tape;
use crate::llm::models::Models;
use crate::llm::providers::{Providers, Settings as ProviderSettings};
use crate::secrets::{KeyError, SecretStore};
use crate::tasks::{Failure, TaskFailed, Tasks};
use crate::tls::{self, Tls, TlsError};
use crate::tools::{ToolSettings, Tools};

/// How many entries that a snapshot covers are kept in the log, for voters that are a little behind.
const LOG_ENTRIES_KEPT: u64 = 500;
/// How often samples of metrics are sorted into their buckets.
const METRICS_EVERY: Duration = Duration::from_secs(5);
/// The variables of the node's own environment that a tool's process gets.
const PROCESS_VARIABLES: [&str; 6] = ["PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ"];
/// How long background tasks may take to end.
const TASKS_GRACE: Duration = Duration::from_secs(5);

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error("the data directory {} cannot be used", .dir.display())]
    DataDir {
        /// It.
        dir: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another node has the data directory.
    #[error("another node uses the data directory {}{}", .dir.display(), process(.pid))]
    Locked {
        /// It.
        dir: PathBuf,
        /// The other node's process.
        pid: Option<String>,
    },
    /// The port.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Who the node is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The log's store.
    #[error("the log's store cannot be opened")]
    Store(#[from] OpenError),
    /// The deploy log.
    #[error("the deploy log cannot be opened")]
    Log(#[from] OpenGroupError),
    /// The artifacts' store.
    #[error(transparent)]
    Artifacts(#[from] crate::artifacts::OpenError),
    /// What was said.
    #[error(transparent)]
    Conversations(#[from] crate::conversations::OpenError),
    /// The language models' providers.
    #[error("the language models' providers cannot be set up")]
    Models(#[from] crate::llm::Error),
    /// What was used today.
    #[error("what was used today cannot be read")]
    Spent(#[from] InvokeError),
    /// Tokens and keys.
    #[error("authentication cannot be set up")]
    Auth(#[from] auth::OpenError),
    /// Where models' answers are to be recorded.
    #[error("what language models answer cannot be recorded in {}", .dir.display())]
    Record {
        /// There.
        dir: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The keys of secrets.
    #[error("secrets cannot be opened")]
    Secrets(#[from] KeyError),
    /// TLS.
    #[error("TLS cannot be set up")]
    Tls(#[from] TlsError),
    /// `server.json`.
    #[error("the address cannot be written down")]
    Announce(#[source] SecretError),
}

fn process(pid: &Option<String>) -> String {
    pid.as_ref().map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

impl StartError {
    /// What to do.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            StartError::DataDir { .. } => {
                "check that it can be written, or choose another with --data-dir DIR".to_owned()
            }
            StartError::Locked { .. } => "stop that one first, or give this one its own with --data-dir DIR".to_owned(),
            StartError::Bind(BindError::InUse { address }) => format!(
                "perhaps a node runs already: ask it with `caxton health`; or choose another port, as in `caxton serve --bind {}:0`, which takes a free one",
                address.ip()
            ),
            StartError::Bind(BindError::Io { .. }) => {
                "choose an address of this machine, as in `caxton serve --bind 127.0.0.1:7411`".to_owned()
            }
            StartError::Tls(_) => {
                "check the settings below [tls], and the folder tls/ of the data directory".to_owned()
            }
            StartError::Auth(_) | StartError::Secrets(_) => {
                "check the file it names; docs/SECURITY.md says what each is for".to_owned()
            }
            StartError::Models(_) => "check the variables that name providers: docs/agents.md lists them".to_owned(),
            StartError::Record { .. } => "name a directory that can be written with --record DIR".to_owned(),
            StartError::Announce(_) => "check that the data directory can be written".to_owned(),
            StartError::Store(_)
            | StartError::Log(_)
            | StartError::Artifacts(_)
            | StartError::Conversations(_)
            | StartError::Spent(_) => {
                "if it is damaged, restore the data directory from a backup: docs/OPERATIONS.md".to_owned()
            }
            StartError::Identity(_) => return None,
        })
    }
}

/// A node that runs.
pub struct Node {
    addr: SocketAddr,
    url: String,
    services: Services,
    groups: Groups,
    edges: Tasks,
    workers: Tasks,
    failure: Failure,
    announced: PathBuf,
    // Held until everything else is closed.
    lock: File,
}

impl Node {
    /// Opens the data directory and serves. The node is ready a moment later: see `/ready`.
    pub async fn start(config: Config) -> Result<Node, StartError> {
        let started = Instant::now();
        let dir = config.data.dir.clone();
        let lock = lock(&dir)?;
        // The port before the stores: what is most often wrong is found first, and costs nothing.
        let listener = listen::bind(config.http.bind).await?;
        let addr = listener.local_addr().map_err(|source| BindError::Io { address: config.http.bind, source })?;
        let failure = Failure::default();
        let (edges, workers) = (Tasks::new(failure.clone()), Tasks::new(failure.clone()));
        let Opened { services, groups, pins } = open(config, started, edges.stop_token()).await?;
        start_workers(&workers, &services, pins);
        let secure = start_edges(&edges, &services, listener)?;
        let url = url(addr, secure);
        let announced = announce(&dir, &url)?;
        info!(%url, node = %services.identity.node, data_dir = %dir.display(), ms = started.elapsed().as_millis() as u64, "started");
        Ok(Node { addr, url, services, groups, edges, workers, failure, announced, lock })
    }

    /// Where the API listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How a client on this machine reaches the API.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What the handlers work with.
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// Waits until `/ready` would say yes, for at most `wait`; says whether it does.
    pub async fn ready(&self, wait: Duration) -> bool {
        let (mut status, mut settled) = (self.services.log.status(), self.services.catalogs.settled());
        let both = async {
            let leads = status.wait_for(|status| status.leader.is_some()).await.is_ok();
            leads && settled.wait_for(|settled| *settled).await.is_ok()
        };
        tokio::time::timeout(wait, both).await.unwrap_or(false)
    }

    /// Waits until something the node cannot do without has failed.
    pub async fn failed(&self) -> TaskFailed {
        self.failure.wait().await
    }

    /// Refuses new requests, lets the others end, stops the tasks, then the log, and closes the stores.
    pub async fn stop(self) {
        let Node { services, groups, edges, workers, announced, lock, .. } = self;
        if let Err(error) = std::fs::remove_file(&announced) {
            warn!(%error, file = %announced.display(), "the address could not be taken back");
        }
        // The edge drains by itself within `stop.grace`; what is on top is for closing the connections.
        edges.stop(services.config.stop.grace + TASKS_GRACE).await;
        workers.stop(TASKS_GRACE).await;
        services.log.shutdown().await;
        services.invoker.conversations().group().shutdown().await;
        let artifacts = services.artifacts.clone();
        _ = tokio::task::spawn_blocking(move || artifacts.flush()).await;
        // A connection or a job on a blocking thread may hold a store for a moment longer. Whoever opens the data
        // directory next must not meet its lock.
        let stores = (groups.closed(), services.artifacts.closed(), services.invoker.conversations().closed());
        drop((services, groups));
        let closed = async { tokio::join!(stores.0, stores.1, stores.2) };
        if tokio::time::timeout(TASKS_GRACE, closed).await.is_err() {
            warn!("a store is still in use; it closes when this process ends");
        }
        drop(lock);
        info!("stopped");
    }
}

/// Takes the data directory for this process.
fn lock(dir: &Path) -> Result<File, StartError> {
    let unusable =
        |source: Box<dyn std::error::Error + Send + Sync>| StartError::DataDir { dir: dir.to_owned(), source };
    private_dir(dir).map_err(|source| unusable(source.into()))?;
    let path = dir.join("lock");
    let file = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let mut file = file.map_err(|source| unusable(source.into()))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            let pid = std::process::id().to_string();
            let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(pid.as_bytes()));
            written.map_err(|source| unusable(source.into()))?;
            Ok(file)
        }
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            let read = file.read_to_string(&mut pid).is_ok() && !pid.trim().is_empty();
            Err(StartError::Locked { dir: dir.to_owned(), pid: read.then(|| pid.trim().to_owned()) })
        }
        Err(errno) => Err(unusable(std::io::Error::from(errno).into())),
    }
}

/// What [`open`] opens.
struct Opened {
    services: Services,
    groups: Groups,
    pins: Pins,
}

/// Opens the stores and wires what works on them.
async fn open(config: Config, started: Instant, stop: CancellationToken) -> Result<Opened, StartError> {
    let dir = config.data.dir.clone();
    let reserve = config.disk.reserve_bytes.0;
    // Opening the stores is disk work of tens of milliseconds; the two do not need each other.
    let for_artifacts = dir.clone();
    let artifacts = tokio::task::spawn_blocking(move || {
        Artifacts::open(&for_artifacts.join("artifacts"), Space::new(&for_artifacts, reserve))
    });
    let (identity, groups, log, conversations) = open_log(&dir, &config).await?;
    let artifacts =
        artifacts.await.map_err(|source| StartError::DataDir { dir: dir.clone(), source: source.into() })??;
    let auth = Auth::open(&dir, &identity.cluster.to_string(), TokensOf(log.clone()))?;
    let (catalogs, pins) = (Catalogs::default(), Pins::default());
    let secrets = SecretStore::open(&dir, log.clone())?;
    let tools = Tools::new(tool_settings(&dir, &config), Arc::new(secrets.clone()));
    let deployer =
        Deployer::new(log.clone(), catalogs.clone(), artifacts.clone(), tools.clone(), pins.clone(), rules(&config));
    let uploads = Arc::new(Semaphore::new(config.deploy.uploads_max as usize));
    let event_streams = Arc::new(Semaphore::new(config.http.event_streams_max as usize));
    let routing = Router::new(Vectors::at(&dir.join("cache")), RouterLimits::default());
    let providers =
        Providers::new(ProviderSettings::from_env(utf8_variables()))?.with_secrets(Arc::new(secrets.clone()));
    let mut models = Models::new(providers);
    if !config.llm.record.as_os_str().is_empty() {
        models = models.recorded(tape(&config.llm.record)?);
    }
    let activity = Activity::default();
    let invoker = Invoker::new(invoke::Parts {
        catalogs: catalogs.clone(),
        conversations,
        models: Arc::new(models),
        routes: Arc::new(routing.clone()),
        toolbox: Arc::new(tools.clone()),
        activity: activity.clone(),
        load: routing.load().clone(),
    });
    invoker.remember_spent().await?;
    let services = Services {
        invoker,
        activity,
        config: Arc::new(config),
        auth: Arc::new(auth),
        identity: Arc::new(identity),
        log,
        catalogs,
        tools,
        secrets,
        artifacts,
        deployer,
        routing,
        metrics: crate::telemetry::metrics(),
        started,
        uploads,
        event_streams,
        stop,
    };
    Ok(Opened { services, groups, pins })
}

async fn open_log(dir: &Path, config: &Config) -> Result<(NodeIdentity, Groups, DeployLog, Conversations), StartError> {
    let timers = Timers {
        heartbeat: config.raft.heartbeat,
        election_min: config.raft.election_min,
        election_max: config.raft.election_max,
        snapshot_entries: config.raft.snapshot_entries,
        kept_entries: LOG_ENTRIES_KEPT,
    };
    let home = dir.to_owned();
    let opened = tokio::task::spawn_blocking(move || {
        let identity = caxton_raft::identity(&home)?;
        let store = Store::open(&home.join("raft"))?;
        Ok::<_, StartError>((identity, store))
    });
    let opened = opened.await.map_err(|source| StartError::DataDir { dir: dir.to_owned(), source: source.into() })?;
    let (identity, store) = opened?;
    let groups = Groups::new(store, identity.node, timers);
    let conversations_dir = dir.join("conversations");
    let (log, conversations) = tokio::join!(DeployLog::open(&groups), Conversations::open(&conversations_dir, &groups));
    Ok((identity, groups, log?, conversations?))
}

fn tool_settings(dir: &Path, config: &Config) -> ToolSettings {
    let tools = &config.tools;
    // What a program needs to run at all; never the node's own secrets.
    let named = |(name, _): &(String, String)| PROCESS_VARIABLES.contains(&name.as_str());
    ToolSettings {
        cache: Some(dir.join("cache").join("tools")),
        scratch: Some(dir.join("scratch")),
        networks: tools.networks.0.clone(),
        threads: usize::try_from(tools.threads).unwrap_or(usize::MAX),
        queue: usize::try_from(tools.queue_max).unwrap_or(usize::MAX),
        processes: tools.processes.then(|| utf8_variables().filter(named).collect()),
    }
}

/// Where models' answers are recorded.
fn tape(dir: &Path) -> Result<Tape, StartError> {
    let tape = Tape::open(dir).map_err(|source| StartError::Record { dir: dir.to_owned(), source })?;
    warn!(dir = %dir.display(), "what language models answer is recorded, word for word");
    Ok(tape)
}

/// The environment's variables that are text.
fn utf8_variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn rules(config: &Config) -> Rules {
    let deploy = &config.deploy;
    Rules {
        limits: Limits {
            files_max: deploy.files_max,
            file_bytes_max: deploy.file_bytes_max.0,
            workspace_bytes_max: deploy.workspace_bytes_max.0,
        },
        concurrent_max: deploy.concurrent_max as usize,
        revisions_kept: u32::try_from(deploy.revisions_kept).unwrap_or(u32::MAX),
        live_wait: deploy.live_timeout,
    }
}

/// The log as authentication sees it.
struct TokensOf(DeployLog);

impl KnownTokens for TokensOf {
    fn token(&self, id: &str) -> Option<Token> {
        self.0.read(|state| state.token(id).cloned())
    }
}

/// The log stopped for good on this node.
#[derive(Debug, thiserror::Error)]
#[error("the deploy log has stopped: {0}")]
struct LogStopped(Arc<str>);

/// What goes on behind the requests.
fn start_workers(workers: &Tasks, services: &Services, pins: Pins) {
    let (log, catalogs, artifacts) = (services.log.clone(), services.catalogs.clone(), services.artifacts.clone());
    let stop = workers.stop_token();
    let reconciler =
        Reconciler::new(log.clone(), catalogs.clone(), artifacts.clone(), services.activity.clone(), stop.clone());
    workers.spawn("reconciler", async move {
        reconciler.run().await;
        Ok::<_, std::convert::Infallible>(())
    });
    let collector = Collector::new(log.clone(), catalogs, artifacts, pins);
    let collector_stop = stop.clone();
    workers.spawn("collector", async move {
        collector.run(collector_stop).await;
        Ok::<_, std::convert::Infallible>(())
    });
    let preparing = services.routing.clone().follow(services.catalogs.clone(), stop.clone());
    workers.spawn("capabilities", async move {
        preparing.await;
        Ok::<_, std::convert::Infallible>(())
    });
    let (metrics, upkeep_stop) = (services.metrics.clone(), stop.clone());
    workers.spawn("metrics", async move {
        // Samples pile up until somebody scrapes, or this sorts them into their buckets.
        while upkeep_stop.run_until_cancelled(tokio::time::sleep(METRICS_EVERY)).await.is_some() {
            metrics.run_upkeep();
        }
        Ok::<_, std::convert::Infallible>(())
    });
    let mut status = log.status();
    workers.spawn("log watch", async move {
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            fatal = status.wait_for(|status| status.fatal.is_some()) => {
                let why = fatal.ok().and_then(|status| status.fatal.clone());
                Err(LogStopped(why.unwrap_or_else(|| "nobody says why".into())))
            }
        }
    });
}

/// Opens the port to requests; says whether it speaks TLS.
fn start_edges(edges: &Tasks, services: &Services, listener: tokio::net::TcpListener) -> Result<bool, StartError> {
    let config = &services.config;
    let tls = tls::is_wanted(config).then(|| Tls::open(config, &services.identity.cluster.to_string())).transpose()?;
    let edge = Edge {
        listener,
        tls: tls.as_ref().map(Tls::acceptor),
        router: http::router(services.clone()),
        limits: config.http.clone(),
        grace: config.stop.grace,
    };
    let secure = tls.is_some();
    edges.spawn("http", edge.run(edges.stop_token()));
    if let Some(tls) = tls {
        let stop = edges.stop_token();
        edges.spawn("certificates", async move {
            while stop.run_until_cancelled(tokio::time::sleep(tls::RENEW_EVERY)).await.is_some() {
                // The certificate that is there goes on serving, and the next attempt is half a day away.
                if let Err(error) = tls.renew() {
                    warn!(error = %crate::tasks::chain(&error), "the certificate could not be renewed");
                }
            }
            Ok::<_, std::convert::Infallible>(())
        });
    }
    Ok(secure)
}

/// How a client on this machine reaches `addr`.
fn url(addr: SocketAddr, secure: bool) -> String {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let scheme = if secure { "https" } else { "http" };
    format!("{scheme}://{}", SocketAddr::new(ip, addr.port()))
}

/// Tells clients on this machine where the node is.
fn announce(dir: &Path, url: &str) -> Result<PathBuf, StartError> {
    let path = dir.join("server.json");
    let body = serde_json::json!({ "url": url, "pid": std::process::id() }).to_string();
    write_private(&path, body.as_bytes()).map_err(StartError::Announce)?;
    Ok(path)
}
