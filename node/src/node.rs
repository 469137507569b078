//! The composition root: opens what a node has, wires it, and starts it; the port last. Stopping goes the other way.

mod error;

mod peer_port;

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use caxton_embed::Model;
use caxton_proto::log::Token;
use caxton_proto::log::cluster::NodeFacts;
use caxton_raft::deploy_log::{self, DeployLog};
use caxton_raft::{Birth, Group, GroupId, Groups, NodeIdentity, Origin, Store, Timers};
pub use error::StartError;
use peer_port::PeerPort;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::activity::Activity;
use crate::affinity;
use crate::artifacts::{Artifacts, Space};
use crate::auth::{Auth, KnownTokens, private_dir, write_private};
use crate::backup::audit;
use crate::capability::{Router, RouterLimits, Vectors};
use crate::catalog::Catalogs;
use crate::cluster::hearsay::{Hearsay, Manner};
use crate::cluster::join::{self, Introduction};
use crate::cluster::keyring::{self, Keyring};
use crate::cluster::reconcile::Voters;
use crate::cluster::secret::SharedSecret;
use crate::cluster::service::{self, Service};
use crate::cluster::spread::Spread;
use crate::cluster::watch::Watch;
use crate::cluster::{self, Cluster};
use crate::config::Config;
use crate::conversations::Conversations;
use crate::deploy::collect::Collector;
use crate::deploy::pins::Pins;
use crate::deploy::reconcile::Reconciler;
use crate::deploy::{Deployer, Limits, Rules};
use crate::http::listen::{self, BindError, Edge};
use crate::http::{self, Services};
use crate::invoke::takeover::Takeover;
use crate::invoke::{self, Invoker};
use crate::llm::Tape;
use crate::llm::models::Models;
use crate::llm::providers::{Providers, Settings as ProviderSettings};
use crate::peers::credentials::Certified;
use crate::peers::door::Door;
use crate::peers::{Book, Credentials, Lives, Peers, VERSION};
use crate::replicas::Replicas;
use crate::secrets::SecretStore;
use crate::tasks::{Failure, TaskFailed, Tasks};
use crate::tls::{self, Tls};
use crate::tools::{ToolSettings, Tools};

/// How many entries that a snapshot covers are kept in the log, for voters that are a little behind.
const LOG_ENTRIES_KEPT: u64 = 500;
/// How often samples of metrics are sorted into their buckets.
const METRICS_EVERY: Duration = Duration::from_secs(5);
/// The variables of the node's own environment that a tool's process gets.
const PROCESS_VARIABLES: [&str; 6] = ["PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ"];
/// How long background tasks may take to end.
const TASKS_GRACE: Duration = Duration::from_secs(5);

/// A node that runs.
pub struct Node {
    addr: SocketAddr,
    url: String,
    peer_address: Option<String>,
    services: Services,
    groups: Groups,
    edges: Tasks,
    workers: Tasks,
    door: Tasks,
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
        // The ports before the stores: what is most often wrong is found first, and costs nothing.
        let listener = listen::bind(config.http.bind).await?;
        let addr = listener.local_addr().map_err(|source| BindError::Io { address: config.http.bind, source })?;
        let url = url(addr, tls::is_wanted(&config));
        let sentences = sentence_model(config.embed.model.clone()).await?;
        let port = PeerPort::open(&config, &dir).await?;
        let own = introduction(addr, &url, port.as_ref());
        let identity = enter(&dir, &config, &own, port.as_ref()).await?;
        if let Some(last) = audit::last(&dir) {
            warn!(target: "caxton::audit", what = last.what, time = last.time, actor = last.actor, before = last.cluster_before, detail = last.detail, "this data directory was changed while no node ran on it");
        }
        let failure = Failure::default();
        let (edges, workers) = (Tasks::new(failure.clone()), Tasks::new(failure.clone()));
        let door = Tasks::new(failure.clone());
        let start = Start { config, started, stop: edges.stop_token(), identity, own, port, sentences };
        let Opened { services, groups, pins, replicas, service, facts, hearsay, api } = open(start, &door).await?;
        start_workers(&workers, &services, pins, replicas);
        start_cluster(&workers, &services, service, facts, hearsay);
        start_edges(&edges, &services, listener, &api)?;
        let announced = announce(&dir, &url)?;
        let peer_address = services.cluster.status().peer_address;
        info!(%url, peers = peer_address.as_deref().unwrap_or("none"), node = %services.identity.node, data_dir = %dir.display(), ms = started.elapsed().as_millis() as u64, "started");
        Ok(Node { addr, url, peer_address, services, groups, edges, workers, door, failure, announced, lock })
    }

    /// Where the API listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How a client on this machine reaches the API.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where other nodes reach this one, if they do.
    pub fn peer_address(&self) -> Option<&str> {
        self.peer_address.as_deref()
    }

    /// What the handlers work with.
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// Waits until `/ready` would say yes, for at most `wait`; says whether it does.
    pub async fn ready(&self, wait: Duration) -> bool {
        let mut settled = self.services.catalogs.settled();
        let mut members = self.services.log.group().members();
        let own = self.services.identity.node;
        let all = async {
            let mut leads = true;
            for group in self.services.cluster.groups().values() {
                leads &= group.status().wait_for(|status| status.leader.is_some()).await.is_ok();
            }
            // Nothing that was borrowed is held on to while something else is waited for: its writer would wait as well.
            let belongs = members
                .wait_for(|members| members.voters.contains(&own) || members.learners.contains(&own))
                .await
                .is_ok();
            leads && belongs && settled.wait_for(|settled| *settled).await.is_ok()
        };
        tokio::time::timeout(wait, all).await.unwrap_or(false)
    }

    /// Waits until something the node cannot do without has failed.
    pub async fn failed(&self) -> TaskFailed {
        self.failure.wait().await
    }

    /// Hands over what it leads, refuses new requests, lets the others end, leaves gossip, stops the tasks, then the
    /// log, and closes the stores.
    pub async fn stop(self) {
        let Node { services, groups, edges, workers, door, announced, lock, .. } = self;
        if let Err(error) = std::fs::remove_file(&announced) {
            warn!(%error, file = %announced.display(), "the address could not be taken back");
        }
        services.cluster.drain().await;
        // The edge drains by itself within `stop.grace`; what is on top is for closing the connections.
        edges.stop(services.config.stop.grace + TASKS_GRACE).await;
        workers.stop(TASKS_GRACE).await;
        door.stop(TASKS_GRACE).await;
        services.log.shutdown().await;
        services.invoker.conversations().shutdown().await;
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

/// What the node says of itself to others.
fn introduction(addr: SocketAddr, url: &str, port: Option<&PeerPort>) -> Introduction {
    let peer_address = port.map(|port| port.advertise.clone()).unwrap_or_default();
    // Clients elsewhere reach the node where its peers do.
    let host = peer_address.rsplit_once(':').map(|(host, _)| host);
    let client_url = match (host, url.split_once("://")) {
        (Some(host), Some((scheme, _))) if addr.ip().is_unspecified() => format!("{scheme}://{host}:{}", addr.port()),
        _ => url.to_owned(),
    };
    Introduction { peer_address, client_url }
}

/// Brings the node to its cluster.
async fn enter(
    dir: &Path,
    config: &Config,
    own: &Introduction,
    port: Option<&PeerPort>,
) -> Result<NodeIdentity, StartError> {
    tls::install_provider();
    let entering = join::enter(dir, &config.cluster, own);
    Ok(match port {
        Some(port) => port.closed_during(entering).await?,
        None => entering.await?,
    })
}

/// Takes the data directory for this process, until the file is dropped.
pub fn lock(dir: &Path) -> Result<File, StartError> {
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

/// What a node starts with.
struct Start {
    config: Config,
    started: Instant,
    stop: CancellationToken,
    identity: NodeIdentity,
    own: Introduction,
    port: Option<PeerPort>,
    sentences: Model,
}

/// What is open.
struct Opened {
    services: Services,
    groups: Groups,
    pins: Pins,
    replicas: Replicas,
    service: Service,
    facts: NodeFacts,
    hearsay: Option<Hearsay>,
    /// The API, for requests that peers pass on, once there is one.
    api: Arc<OnceLock<axum::Router>>,
}

/// Opens the stores and wires what works on them.
async fn open(start: Start, door: &Tasks) -> Result<Opened, StartError> {
    let Start { config, started, stop, identity, own, port, sentences } = start;
    let dir = config.data.dir.clone();
    let reserve = config.disk.reserve_bytes.0;
    let secret = &config.cluster.secret_file;
    let secret = (!secret.as_os_str().is_empty()).then(|| SharedSecret::read(secret)).transpose()?;
    let credential = secret.as_ref().map(|secret| *secret.credential());
    let certified = Certified { cluster: identity.cluster, node: identity.node };
    let credentials = Credentials::open_with(dir.join("tls"), certified, secret)?;
    let peers = Peers::new(credentials, Book::open(&dir), Lives::begin(&dir, identity.node)?);
    let (artifacts, store) = open_stores(&dir, reserve).await?;
    store.claim(&dir.join(cluster::LOG_MARK_FILE)).await?;
    let groups = Groups::new(store, identity.node, timers(&config), Arc::new(peers.clone()));
    let (catalogs, pins) = (Catalogs::default(), Pins::default());
    let replicas = Replicas::new(artifacts.clone(), catalogs.clone(), peers.clone());
    let service = Service::new(service::Parts {
        dir: dir.clone(),
        peers: peers.clone(),
        groups: groups.clone(),
        artifacts: artifacts.clone(),
        replicas: replicas.clone(),
        credential,
    });
    let api = Arc::new(OnceLock::new());
    let gossip_at = match port {
        None => None,
        Some(port) => {
            let at = (port.address, port.gossip_address().await?);
            // Open before the log: its messages are what a node starts with that is behind.
            let routes = peer_port::routes(service.clone(), Arc::clone(&api));
            door.spawn("peers", Door::new(port.listener, peers.clone(), routes)?.run(door.stop_token()));
            // Before the log is open, so that a copy of another node's directory never leads anything.
            peers.introduce().await?;
            Some(at)
        }
    };
    let (log, conversations) = open_logs(&config, &groups, identity.origin).await?;
    service.opened(log.clone());
    let manner = gossip_at.map(|(listen, advertise)| Manner {
        dir: &dir,
        listen,
        advertise,
        peer_address: &own.peer_address,
        client_url: &own.client_url,
        interval: config.cluster.gossip_interval,
        forget_after: config.cluster.gossip_forget,
    });
    let hearsay = match manner {
        Some(manner) => Some(Hearsay::start(manner, peers.clone()).await?),
        None => None,
    };
    let facts = NodeFacts {
        node: identity.node,
        peer_address: own.peer_address.clone(),
        client_url: own.client_url.clone(),
        version: VERSION.to_owned(),
        holds: Vec::new(),
    };
    let shards = conversations.all().iter().map(|shard| (shard.id(), shard.group().clone()));
    let own_groups = shards.chain([(deploy_log::GROUP, log.group().clone())]);
    let cluster = Cluster::new(cluster::Parts {
        identity: identity.clone(),
        facts: facts.clone(),
        log: log.clone(),
        groups: own_groups.collect(),
        peers,
        heard: hearsay.as_ref().map(Hearsay::members),
        open: gossip_at.is_some(),
    });
    let auth = Arc::new(Auth::open(&dir, &identity.cluster.to_string(), TokensOf(log.clone()))?);
    let secrets = SecretStore::open(&dir, log.clone())?;
    let keyring = Keyring::new(keyring::Parts {
        dir: dir.clone(),
        log: log.clone(),
        peers: cluster.peers().clone(),
        auth: Arc::clone(&auth),
        secrets: secrets.clone(),
        gossip: hearsay.as_ref().map(Hearsay::rekeyer),
    });
    let following = keyring.clone();
    // What was rotated holds from the first request on. It has said what was wrong.
    _ = tokio::task::spawn_blocking(move || following.follow()).await;
    let tools = Tools::new(tool_settings(&dir, &config), Arc::new(secrets.clone()));
    let deployer = Deployer::new(
        log.clone(),
        catalogs.clone(),
        artifacts.clone(),
        tools.clone(),
        pins.clone(),
        replicas.clone(),
        rules(&config),
    );
    let backup_replicas = replicas.clone();
    let uploads = Arc::new(Semaphore::new(config.deploy.uploads_max as usize));
    let event_streams = Arc::new(Semaphore::new(config.http.event_streams_max as usize));
    let routing = Router::new(Vectors::at(&dir.join("cache"), sentences), RouterLimits::default());
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
    let services = Services::new(http::Parts {
        cluster,
        invoker,
        activity,
        config: Arc::new(config),
        auth,
        keyring,
        identity: Arc::new(identity),
        log,
        catalogs,
        tools,
        secrets,
        artifacts,
        replicas: backup_replicas,
        deployer,
        routing,
        metrics: crate::telemetry::metrics(),
        started,
        uploads,
        event_streams,
        stop,
    });
    Ok(Opened { services, groups, pins, replicas, service, facts, hearsay, api })
}

/// Opening the stores is disk work of tens of milliseconds; the two do not need each other.
async fn open_stores(dir: &Path, reserve: u64) -> Result<(Artifacts, Store), StartError> {
    let (for_artifacts, for_log) = (dir.to_owned(), dir.join("raft"));
    let artifacts = tokio::task::spawn_blocking(move || {
        Artifacts::open(&for_artifacts.join("artifacts"), Space::new(&for_artifacts, reserve))
    });
    let store = tokio::task::spawn_blocking(move || Store::open(&for_log));
    let broken = |source: tokio::task::JoinError| StartError::DataDir { dir: dir.to_owned(), source: source.into() };
    let (artifacts, store) = tokio::join!(artifacts, store);
    Ok((artifacts.map_err(broken)??, store.map_err(broken)??))
}

fn timers(config: &Config) -> Timers {
    Timers {
        heartbeat: config.raft.heartbeat,
        election_min: config.raft.election_min,
        election_max: config.raft.election_max,
        snapshot_entries: config.raft.snapshot_entries,
        kept_entries: LOG_ENTRIES_KEPT,
    }
}

/// The deploy log comes first where nobody has noted how many shards there are: it says so.
async fn open_logs(config: &Config, groups: &Groups, origin: Origin) -> Result<(DeployLog, Conversations), StartError> {
    let dir = &config.data.dir;
    let birth = match origin {
        Origin::Founded => Birth::Founded,
        Origin::Joined => Birth::Joined,
    };
    let folder = dir.join("conversations");
    if let Some(copy) = affinity::known(dir) {
        let both = tokio::join!(DeployLog::open(groups, birth), Conversations::open(&folder, groups, birth, copy));
        return Ok((both.0?, both.1?));
    }
    let log = DeployLog::open(groups, birth).await?;
    let wanted = u32::try_from(config.cluster.shards).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
    let shards = affinity::shards(dir, &log, birth, wanted).await?;
    let conversations = Conversations::open(&folder, groups, birth, shards).await?;
    Ok((log, conversations))
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

/// The model that the settings name, or the built-in one, which is not read before it is needed.
async fn sentence_model(dir: PathBuf) -> Result<Model, StartError> {
    if dir.as_os_str().is_empty() {
        return Ok(Model::built_in());
    }
    let folder = dir.clone();
    let model = match tokio::task::spawn_blocking(move || Model::open(&folder)).await {
        Ok(Ok(model)) => model,
        Ok(Err(error)) => return Err(StartError::Sentences { dir, source: error.into() }),
        Err(panic) => return Err(StartError::Sentences { dir, source: panic.into() }),
    };
    info!(dir = %dir.display(), dimensions = model.dimensions(), "the sentence model was read");
    Ok(model)
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
fn start_workers(workers: &Tasks, services: &Services, pins: Pins, replicas: Replicas) {
    let (log, catalogs, artifacts) = (services.log.clone(), services.catalogs.clone(), services.artifacts.clone());
    let stop = workers.stop_token();
    let reconciler = Reconciler::new(
        log.clone(),
        catalogs.clone(),
        artifacts.clone(),
        services.activity.clone(),
        replicas,
        stop.clone(),
    );
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
    let shards = services.invoker.conversations().shards();
    let (deploy_log, shards_stop) = (log.clone(), stop.clone());
    workers.spawn("shards watch", async move {
        let contradicted = affinity::contradicted(deploy_log, shards);
        shards_stop.run_until_cancelled(contradicted).await.map_or(Ok(()), Err)
    });
    for shard in services.invoker.conversations().all() {
        let takeover = Takeover::new(services.invoker.clone(), shard.clone());
        let stop = stop.clone();
        workers.spawn("takeover", async move {
            takeover.run(stop).await;
            Ok::<_, std::convert::Infallible>(())
        });
    }
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

/// What keeps the node in its cluster.
fn start_cluster(workers: &Tasks, services: &Services, service: Service, facts: NodeFacts, hearsay: Option<Hearsay>) {
    let (cluster, log, stop) = (&services.cluster, &services.log, workers.stop_token());
    let groups: Vec<(GroupId, Group)> = cluster.groups().iter().map(|(id, group)| (*id, group.clone())).collect();
    for (id, group) in groups.clone() {
        let voters_max = services.config.cluster.voters_max as usize;
        let voters = Voters { group, id, log: log.clone(), own: cluster.own(), voters_max };
        let stop = stop.clone();
        workers.spawn("voters", async move {
            voters.run(stop).await;
            Ok::<_, std::convert::Infallible>(())
        });
    }
    let voters_max = services.config.cluster.voters_max as usize;
    let spread = Spread { cluster: cluster.clone(), log: log.clone(), voters_max };
    let spread_stop = stop.clone();
    workers.spawn("spread", async move {
        spread.run(spread_stop).await;
        Ok::<_, std::convert::Infallible>(())
    });
    let peers = cluster.peers().clone();
    let holds = services.keyring.holds();
    let watch = Watch { log: log.clone(), peers: peers.clone(), service, own: facts, holds };
    let (keyring, keyring_stop) = (services.keyring.clone(), stop.clone());
    workers.spawn("keyring", async move {
        keyring.run(keyring_stop).await;
        Ok::<_, std::convert::Infallible>(())
    });
    workers.spawn("cluster watch", watch.run(stop.clone()));
    if let Some(hearsay) = hearsay {
        let (invoker, catalogs, stop) = (services.invoker.clone(), services.catalogs.clone(), stop.clone());
        workers.spawn("gossip", async move {
            hearsay.run(groups, &catalogs, move || invoker.load(), stop).await;
            Ok::<_, std::convert::Infallible>(())
        });
    }
    workers.spawn("peer certificates", async move {
        while stop.run_until_cancelled(tokio::time::sleep(tls::RENEW_EVERY)).await.is_some() {
            // The certificate that is there goes on for weeks, and the next attempt is half a day away.
            if let Err(error) = peers.credentials().renew() {
                warn!(error = %crate::tasks::chain(&error), "the certificate for peers could not be renewed");
            }
        }
        Ok::<_, std::convert::Infallible>(())
    });
}

/// Opens the port to requests.
fn start_edges(
    edges: &Tasks,
    services: &Services,
    listener: tokio::net::TcpListener,
    api: &OnceLock<axum::Router>,
) -> Result<(), StartError> {
    let config = &services.config;
    let tls = tls::is_wanted(config).then(|| Tls::open(config, &services.identity.cluster.to_string())).transpose()?;
    let router = http::router(services.clone());
    // Set once, here.
    _ = api.set(router.clone());
    let edge = Edge {
        listener,
        tls: tls.as_ref().map(Tls::acceptor),
        router,
        limits: config.http.clone(),
        grace: config.stop.grace,
    };
    edges.spawn("http", edge.run(edges.stop_token()));
    if let Some(tls) = tls {
        let stop = edges.stop_token();
        let credentials = services.cluster.peers().credentials().clone();
        edges.spawn("certificates", async move {
            let mut renewed = credentials.renewed();
            // When the authority was rotated, or when it is time.
            while stop.run_until_cancelled(tokio::time::timeout(tls::RENEW_EVERY, renewed.changed())).await.is_some() {
                // The certificate that is there goes on serving, and the next attempt is half a day away.
                if let Err(error) = tls.renew() {
                    warn!(error = %crate::tasks::chain(&error), "the certificate could not be renewed");
                }
            }
            Ok::<_, std::convert::Infallible>(())
        });
    }
    Ok(())
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
