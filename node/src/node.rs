//! The composition root: opens what a node has, wires it, and starts it; the port last. Stopping goes the other way.

mod error;

mod peer_port;

mod open;

mod parts;

mod work;

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_proto::Format;
use caxton_raft::{Groups, NodeIdentity};
pub use error::StartError;
use open::{OpenNode, Start};
pub use parts::Parts;
use peer_port::PeerPort;
use tracing::{info, warn};

use crate::cluster::LOG_MARK_FILE;
use crate::cluster::join::{self, Introduction};
use crate::config::Config;
use crate::edge::listen::{self, BindError};
use crate::files::audit;
use crate::files::{keep_private, private_dir, write_private};
use crate::tasks::{self, Failure, TaskFailed, Tasks};
use crate::tls;
use crate::trust::key_files;

/// How long background tasks may take to end.
const TASKS_GRACE: Duration = Duration::from_secs(5);

/// A node that runs.
pub struct Node {
    addr: SocketAddr,
    url: String,
    peer_address: Option<String>,
    parts: Arc<Parts>,
    groups: Groups,
    edges: Tasks,
    turns: Tasks,
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
        shut(&dir)?;
        // The ports before the stores: what is most often wrong is found first, and costs nothing.
        let listener = listen::bind(config.http.bind).await?;
        let addr = listener.local_addr().map_err(|source| BindError::Io { address: config.http.bind, source })?;
        let url = url(addr, tls::is_wanted(&config));
        let sentences = open::sentence_model(config.embed.model.clone()).await?;
        whole(&dir)?;
        let port = PeerPort::open(&config, &dir).await?;
        let own = introduction(addr, &url, port.as_ref(), format_of(&config));
        let identity = enter(&dir, &config, &own, port.as_ref()).await?;
        if let Some(last) = audit::last(&dir) {
            warn!(target: "caxton::audit", what = last.what, time = last.time, actor = last.actor, before = last.cluster_before, detail = last.detail, "this data directory was changed while no node ran on it");
        }
        let failure = Failure::default();
        let (edges, workers) = (Tasks::new(failure.clone()), Tasks::new(failure.clone()));
        let (turns, door) = (Tasks::new(failure.clone()), Tasks::new(failure.clone()));
        let start =
            Start { config, started, stop: edges.stop_token(), identity, own, port, sentences, turns: turns.clone() };
        let OpenNode { parts, services, groups, pins, service, facts, hearsay, api } = open::open(start, &door).await?;
        // What the stores have made since.
        shut(&dir)?;
        work::start_workers(&workers, &parts, pins);
        work::start_cluster(&workers, &parts, service, facts, hearsay);
        work::start_edges(&edges, &parts, services, listener, &api)?;
        let announced = announce(&dir, &url)?;
        let peer_address = parts.cluster.status().peer_address;
        info!(%url, peers = peer_address.as_deref().unwrap_or("none"), node = %parts.identity.node, data_dir = %dir.display(), ms = started.elapsed().as_millis() as u64, "started");
        Ok(Node { addr, url, peer_address, parts, groups, edges, turns, workers, door, failure, announced, lock })
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

    /// What it is made of.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// Waits until `/ready` would say yes, for at most `wait`; says whether it does.
    pub async fn ready(&self, wait: Duration) -> bool {
        let mut settled = self.parts.catalogs.settled();
        let mut members = self.parts.log.group().members();
        let own = self.parts.identity.node;
        let all = async {
            let mut leads = true;
            for group in self.parts.cluster.groups().values() {
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

    /// Waits until this node was taken out of its cluster, as somebody asked: it has nothing more to do.
    pub async fn left(&self) {
        self.parts.cluster.departure().left.cancelled().await;
    }

    /// Hands over what it leads, refuses new requests, lets the others end, leaves gossip, stops the tasks, then the
    /// log, and closes the stores.
    pub async fn stop(self) {
        let Node { parts, groups, edges, turns, workers, door, announced, lock, .. } = self;
        if let Err(error) = std::fs::remove_file(&announced) {
            warn!(%error, file = %announced.display(), "the address could not be taken back");
        }
        parts.cluster.drain().await;
        // The edge drains by itself within `stop.grace`; what is on top is for closing the connections.
        edges.stop(parts.config.stop.grace + TASKS_GRACE).await;
        // Whoever waits for them is gone. They go on where the next leader takes them up, or when this node is back.
        turns.stop(Duration::ZERO).await;
        workers.stop(TASKS_GRACE).await;
        door.stop(TASKS_GRACE).await;
        parts.log.shutdown().await;
        parts.invoker.conversations().shards().shutdown().await;
        let artifacts = parts.artifacts.clone();
        _ = tasks::blocking(move || artifacts.flush()).await;
        // A connection or a job on a blocking thread may hold a store for a moment longer. Whoever opens the data
        // directory next must not meet its lock.
        let stores = (groups.closed(), parts.artifacts.closed(), parts.invoker.conversations().shards().closed());
        drop((parts, groups));
        let closed = async { tokio::join!(stores.0, stores.1, stores.2) };
        if tokio::time::timeout(TASKS_GRACE, closed).await.is_err() {
            warn!("a store is still in use; it closes when this process ends");
        }
        drop(lock);
        info!("stopped");
    }
}

/// What the node says of itself to others.
fn introduction(addr: SocketAddr, url: &str, port: Option<&PeerPort>, format: Format) -> Introduction {
    let peer_address = port.map(|port| port.advertise.clone()).unwrap_or_default();
    // Clients elsewhere reach the node where its peers do.
    let host = peer_address.rsplit_once(':').map(|(host, _)| host);
    let client_url = match (host, url.split_once("://")) {
        (Some(host), Some((scheme, _))) if addr.ip().is_unspecified() => format!("{scheme}://{host}:{}", addr.port()),
        _ => url.to_owned(),
    };
    Introduction { peer_address, client_url, format }
}

/// The newest format that the node says it reads.
fn format_of(config: &Config) -> Format {
    match u32::try_from(config.cluster.format_max) {
        Ok(0) | Err(_) => Format::NEWEST,
        Ok(most) => Format::of(most).min(Format::NEWEST),
    }
}

/// Refuses a data directory with a log that lacks who the node is, or a key: what was drawn in its place would be another.
fn whole(dir: &Path) -> Result<(), StartError> {
    if !dir.join(LOG_MARK_FILE).exists() {
        return Ok(());
    }
    let identity = Some(dir.join(caxton_raft::IDENTITY_FILE)).filter(|path| !path.exists());
    if let Some(path) = identity.or_else(|| key_files::lost(dir)) {
        return Err(StartError::Lost { path });
    }
    match audit::last(dir).filter(|last| last.what == audit::LEFT) {
        None => Ok(()),
        Some(last) => Err(StartError::Left { time: last.time }),
    }
}

/// Keeps other users of the machine out of the data directory, whoever made it and its folders.
fn shut(dir: &Path) -> Result<(), StartError> {
    let unusable = |source| StartError::DataDir { dir: dir.to_owned(), source };
    for folder in keep_private(dir).map_err(|source| unusable(source.into()))? {
        warn!(folder = %folder.display(), "the folder belongs to another user, and others may look into it");
    }
    Ok(())
}

/// Brings the node to its cluster.
async fn enter(
    dir: &Path,
    config: &Config,
    own: &Introduction,
    port: Option<&PeerPort>,
) -> Result<NodeIdentity, StartError> {
    crate::trust::install_provider();
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
