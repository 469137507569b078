//! Opens the stores and the log, and wires what works on them. The peers' port opens before the log, whose messages are what
//! a node starts with that is behind; nothing runs by itself yet.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use caxton_embed::Model;
use caxton_proto::Format;
use caxton_proto::log::Token;
use caxton_proto::log::cluster::NodeFacts;
use caxton_raft::deploy_log::{self, DeployLog};
use caxton_raft::{Birth, GroupId, Groups, NodeIdentity, Origin, Store, Timers};
use caxton_tools::Quota;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::peer_port::{self, PeerPort};
use super::{Parts, StartError};
use crate::activity::Activity;
use crate::app::post::Post;
use crate::app::{self, App};
use crate::artifacts::{Artifacts, Space};
use crate::authn::{Auth, KnownTokens};
use crate::backup;
use crate::capability::{Router, RouterLimits, Vectors};
use crate::catalog::Catalogs;
use crate::cluster::hearsay::{Hearsay, Manner};
use crate::cluster::join::Introduction;
use crate::cluster::keyring::{self, Keyring};
use crate::cluster::service::{self, Service};
use crate::cluster::{self, Cluster, shard_count};
use crate::config::{Config, environment};
use crate::conversations::{Conversations, ConversationsTenant};
use crate::deploy::pins::Pins;
use crate::deploy::{Deployer, Limits, Rules};
use crate::edge::{self, Services};
use crate::invoke::{self, Invoker};
use crate::llm::Tape;
use crate::llm::models::Models;
use crate::llm::providers::{Providers, Settings as ProviderSettings};
use crate::llm::reach::Reach;
use crate::mailbox::{MailboxTenant, Mailboxes, Signer};
use crate::memory::{Keepers, Memories, MemoryTenant};
use crate::memory_backend::{self, MemoryBackends};
use crate::peers::door::Door;
use crate::peers::{Book, Lives, Peers, VERSION};
use crate::replicas::Replicas;
use crate::secrets::{self, SecretStore};
use crate::shard::clearing::{Deletion, Deletions, WorkspacesTenant};
use crate::shard::tenant::{Misfit, Tenant, Tenants};
use crate::shard::{Shards, WrittenFormat, placement};
use crate::tasks::{self, Jobs, Tasks};
use crate::tools::{ToolSettings, Tools};
use crate::trust::credentials::CertifiedNode;
use crate::trust::{Credentials, SharedSecret, key_files};

/// How many entries that a snapshot covers are kept in the log, for voters that are a little behind.
const LOG_ENTRIES_KEPT: u64 = 500;
/// How many bytes of them are kept at most.
const LOG_BYTES_KEPT: u64 = 16 << 20;
/// This machine as its own programs reach it.
const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1/128"];
/// The variables of the node's own environment that a tool's process gets.
const PROCESS_VARIABLES: [&str; 6] = ["PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ"];

/// What a node starts with.
pub struct Start {
    pub config: Config,
    pub started: Instant,
    pub stop: CancellationToken,
    pub identity: NodeIdentity,
    pub own: Introduction,
    pub port: Option<PeerPort>,
    pub sentences: Model,
    /// The owner of turns that are under way.
    pub turns: Tasks,
}

/// What is open.
pub struct OpenNode {
    pub parts: Arc<Parts>,
    pub services: Services,
    pub groups: Groups,
    pub pins: Pins,
    pub service: Service,
    pub facts: NodeFacts,
    pub hearsay: Option<Hearsay>,
    /// The API, for requests that peers pass on, once there is one.
    pub api: Arc<OnceLock<axum::Router>>,
}

/// Opens the stores and wires what works on them.
pub async fn open(start: Start, door: &Tasks) -> Result<OpenNode, StartError> {
    let Start { config, started, stop, identity, own, port, sentences, turns } = start;
    let dir = config.data.dir.clone();
    let reserve = config.disk.reserve_bytes.0;
    let secret = &config.cluster.secret_file;
    let secret = (!secret.as_os_str().is_empty()).then(|| SharedSecret::read(secret)).transpose()?;
    let credential = secret.as_ref().map(|secret| *secret.credential());
    let certified = CertifiedNode { cluster: identity.cluster, node: identity.node };
    let credentials = Credentials::open_with(dir.join("tls"), certified, secret)?;
    let peers = Peers::new(credentials, Book::open(&dir), Lives::begin(&dir, identity.node)?);
    let (artifacts, store) = open_stores(&dir, reserve).await?;
    // Before the log begins, so that a crash in between leaves no log without its keys.
    key_files::draw(&dir).map_err(StartError::Keys)?;
    secrets::draw_key(&dir)?;
    store.claim(&dir.join(cluster::LOG_MARK_FILE)).await?;
    let (space, last) = (artifacts.space().clone(), artifacts.space().clone());
    let groups = Groups::new(store, identity.node, timers(&config), Arc::new(peers.clone()))
        .with_room(move |bytes| space.check(bytes).is_ok())
        .with_last_room(move |bytes| last.has_last_room(bytes));
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
    let keepers = Keepers::new(&dir.join("cache"), sentences.clone());
    let (log, shards) = open_logs(&config, &groups, identity.origin, &keepers).await?;
    service.opened(log.clone());
    let manner = gossip_at.map(|(listen, advertise)| Manner {
        dir: &dir,
        listen,
        advertise,
        peer_address: &own.peer_address,
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
        format: own.format,
    };
    let of_shards = shards.all().iter().map(|shard| (shard.id(), shard.group().clone()));
    let own_groups = of_shards.chain([(deploy_log::GROUP, log.group().clone())]);
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
    _ = tasks::blocking(move || following.follow()).await;
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
    let routing = Router::new(Vectors::at(&dir.join("cache"), sentences), RouterLimits::default());
    let providers =
        Providers::new(ProviderSettings::from_env(environment::variables()))?.with_secrets(Arc::new(secrets.clone()));
    let mut models = Models::new(providers.within(reach(&config)));
    if !config.llm.record.as_os_str().is_empty() {
        models = models.recorded(tape(&config.llm.record)?);
    }
    let activity = Activity::default();
    let mailboxes = Mailboxes::new(shards.clone(), config.limits.workspace_mailboxes_max)
        .signed_by(&Signer::new(catalogs.clone(), secrets.clone()));
    let (memories, models) = (Memories::new(shards.clone(), keepers), Arc::new(models));
    let memory_backends = MemoryBackends::new(memory_backend::Parts {
        catalogs: catalogs.clone(),
        memories: memories.clone(),
        models: Arc::clone(&models),
        tools: tools.clone(),
        cluster: identity.cluster.to_string(),
    });
    let invoker = Invoker::new(invoke::Parts {
        catalogs: catalogs.clone(),
        memories,
        memory_backends,
        mailboxes: mailboxes.clone(),
        memory: config.memory.clone(),
        conversations: Conversations::new(shards),
        models,
        router: routing.clone(),
        tools: tools.clone(),
        activity: activity.clone(),
        load: routing.load().clone(),
        limits: config.limits.clone(),
        space: artifacts.space().clone(),
    });
    let post = Post::new(catalogs.clone(), mailboxes.clone(), cluster.clone());
    service.takes_in(Arc::new(post.clone()));
    let parts = Arc::new(Parts {
        cluster,
        post,
        invoker,
        mailboxes,
        activity,
        config: Arc::new(config),
        keyring,
        identity,
        log,
        catalogs,
        artifacts,
        replicas,
        deployer,
        routing,
        metrics: crate::telemetry::metrics(),
    });
    let app =
        application(&parts, Hands { auth: Arc::clone(&auth), tools, secrets, turns, started, stop: stop.clone() });
    let services = Services::new(edge::Parts {
        app,
        auth,
        cluster: parts.cluster.clone(),
        shards: parts.invoker.conversations().shards().count(),
        config: parts.config.http.clone(),
        upload_bytes_max: parts.config.deploy.upload_bytes_max.as_usize(),
        deployment_bytes_max: parts.config.deploy.request_bytes_max.as_usize(),
        jobs: Jobs::default(),
        event_streams: Arc::new(Semaphore::new(parts.config.http.event_streams_max as usize)),
        health_watches: Arc::new(Semaphore::new(edge::grpc::HEALTH_WATCHES_MAX)),
        health_watchers: edge::caps::Caps::default(),
        content_readers: edge::caps::Caps::default(),
        content_streams: Arc::new(Semaphore::new(edge::rest::deployments::CONTENT_STREAMS_MAX)),
        stop,
    });
    Ok(OpenNode { parts, services, groups, pins, service, facts, hearsay, api })
}

/// What only the application has a hold of.
struct Hands {
    auth: Arc<Auth>,
    tools: Tools,
    secrets: SecretStore,
    turns: Tasks,
    started: Instant,
    stop: CancellationToken,
}

/// The application over the node's parts.
fn application(parts: &Parts, hands: Hands) -> App {
    let Hands { auth, tools, secrets, turns, started, stop } = hands;
    let (log, catalogs, artifacts) = (&parts.log, &parts.catalogs, &parts.artifacts);
    let backups = backup::write::Source {
        dir: parts.config.data.dir.clone(),
        cluster: parts.cluster.clone(),
        log: log.clone(),
        artifacts: artifacts.clone(),
        replicas: parts.replicas.clone(),
    };
    let node = app::node::Parts {
        identity: parts.identity.clone(),
        started,
        log: log.clone(),
        cluster: parts.cluster.clone(),
        catalogs: catalogs.clone(),
        artifacts: artifacts.clone(),
        metrics: parts.metrics.clone(),
        stop,
    };
    let keys = app::keys::Keys { models: Arc::clone(parts.invoker.models()), secrets: Arc::new(secrets.clone()) };
    let uploads_max = parts.config.deploy.uploads_max as usize;
    App::new(app::Parts {
        turns: app::turns::Turns::new(parts.invoker.clone(), turns),
        conversations: app::conversations::Conversations::new(parts.invoker.clone()),
        memories: app::memory::Memories::new(parts.invoker.clone()),
        mailboxes: app::mailboxes::Mailboxes::new(parts.invoker.clone(), parts.mailboxes.clone()),
        signatures: app::signatures::Signatures::new(parts.invoker.clone(), parts.mailboxes.clone()),
        schedules: app::schedules::Schedules::new(parts.invoker.clone(), parts.mailboxes.clone()),
        topics: app::topics::Topics::new(parts.invoker.clone(), parts.mailboxes.clone()),
        feeds: app::feeds::Feeds::new(parts.invoker.clone(), parts.mailboxes.clone()),
        deployments: app::deployments::Deployments::new(
            log.clone(),
            catalogs.clone(),
            artifacts.clone(),
            parts.deployer.clone(),
            uploads_max,
            keys,
        ),
        usage: app::usage::Usage::new(parts.invoker.clone()),
        workspaces: app::workspaces::Workspaces::new(log.clone(), parts.invoker.conversations().shards().clone()),
        agents: app::agents::Agents::new(catalogs.clone(), parts.routing.clone()),
        tools: app::tools::Tools::new(catalogs.clone(), tools, parts.activity.clone()),
        activity: app::activity::Activity::new(parts.activity.clone(), log.clone()),
        secrets: app::secrets::Secrets::new(secrets, log.clone(), parts.activity.clone(), artifacts.space().clone()),
        tokens: app::tokens::Tokens::new(auth, log.clone(), parts.config.tokens.clone(), artifacts.space().clone()),
        cluster: app::cluster::Cluster::new(parts.cluster.clone(), parts.keyring.clone(), backups),
        node: app::node::Node::new(node),
    })
}

/// Opening the stores is disk work of tens of milliseconds; the two do not need each other.
async fn open_stores(dir: &Path, reserve: u64) -> Result<(Artifacts, Store), StartError> {
    let (for_artifacts, for_log) = (dir.to_owned(), dir.join("raft"));
    let artifacts =
        tasks::blocking(move || Artifacts::open(&for_artifacts.join("artifacts"), Space::new(&for_artifacts, reserve)));
    let store = tasks::blocking(move || Store::open(&for_log));
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
        snapshot_bytes: config.raft.snapshot_bytes.0,
        kept_entries: LOG_ENTRIES_KEPT,
        kept_bytes: LOG_BYTES_KEPT,
    }
}

/// The deploy log comes first where nobody has noted how many shards there are: it says so.
async fn open_logs(
    config: &Config,
    groups: &Groups,
    origin: Origin,
    keepers: &Keepers,
) -> Result<(DeployLog, Shards), StartError> {
    let tenants = |shard| tenants(shard, keepers);
    let dir = &config.data.dir;
    let birth = match origin {
        Origin::Founded => Birth::Founded,
        Origin::Joined => Birth::Joined,
    };
    let folder = dir.join("conversations");
    let (opened, says) = what_the_log_says();
    if let Some(copy) = shard_count::known(dir) {
        let shards = Shards::open(&folder, groups, birth, copy, says, tenants);
        let (log, shards) = tokio::join!(DeployLog::open(groups, birth), shards);
        let log = log?;
        _ = opened.set(log.clone());
        return Ok((log, shards?));
    }
    let log = DeployLog::open(groups, birth).await?;
    _ = opened.set(log.clone());
    let wanted = u32::try_from(config.cluster.shards).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
    let count = placement::shards(dir, &log, birth, wanted).await?;
    let shards = Shards::open(&folder, groups, birth, count, says, tenants).await?;
    Ok((log, shards))
}

/// The format in which the shards are written, and which workspaces were deleted, is what the deploy log says, once it is open.
/// Nothing is proposed before.
fn what_the_log_says() -> (Arc<OnceLock<DeployLog>>, (WrittenFormat, Deletions)) {
    let opened: Arc<OnceLock<DeployLog>> = Arc::default();
    let [log, changes, same, known] = [(); 4].map(|()| Arc::clone(&opened));
    let format = WrittenFormat::new(move || log.get().map_or(Format::JSON, DeployLog::format));
    let format = format.that_changes(move || changes.get().map(DeployLog::applied));
    let says = move |workspace: &caxton_proto::WorkspaceId| {
        same.get()?.read(|state| {
            let live = state.workspace(workspace).is_some();
            state.deletions().of(workspace).map(|deletion| Deletion { index: deletion.index, live })
        })
    };
    let deletions = Deletions::new(says, move || known.get().map_or(0, |log| *log.applied().borrow()));
    (opened, (format, deletions))
}

/// What each shard holds.
fn tenants(shard: GroupId, keepers: &Keepers) -> Result<Tenants, Misfit> {
    let memory = MemoryTenant::new(keepers.of(shard));
    let (mailbox, workspaces) = (Box::new(MailboxTenant), Box::new(WorkspacesTenant));
    Tenants::new([Box::new(ConversationsTenant) as Box<dyn Tenant>, Box::new(memory), mailbox, workspaces])
}

fn tool_settings(dir: &Path, config: &Config) -> ToolSettings {
    let tools = &config.tools;
    // What a program needs to run at all; never the node's own secrets.
    let named = |(name, _): &(String, String)| PROCESS_VARIABLES.contains(&name.as_str());
    ToolSettings {
        cache: Some(dir.join("cache").join("tools")),
        scratch: Some(dir.join("scratch")),
        quota: Quota { bytes: tools.scratch_bytes_max.0, files: tools.scratch_files_max },
        ceiling: caxton_tools::Limits {
            memory_bytes: tools.memory_bytes_max.0,
            wall: tools.wall_time_max,
            cpu: tools.cpu_max,
            output_bytes: tools.output_bytes_max.0,
            concurrent_calls: u32::try_from(tools.concurrency_max).unwrap_or(u32::MAX),
            ..caxton_tools::Limits::ceiling()
        },
        total_memory_bytes: tools.total_memory_bytes_max.0,
        code_bytes_max: tools.code_bytes_max.0,
        list_kept: tools.list_kept,
        networks: tools.networks.0.clone(),
        threads: usize::try_from(tools.threads).unwrap_or(usize::MAX),
        queue: usize::try_from(tools.queue_max).unwrap_or(usize::MAX),
        processes: tools.processes.then(|| environment::variables().filter(named).collect()),
    }
}

/// The model that the settings name, or the built-in one, which is not read before it is needed.
pub async fn sentence_model(dir: PathBuf) -> Result<Model, StartError> {
    if dir.as_os_str().is_empty() {
        return Ok(Model::built_in());
    }
    let folder = dir.clone();
    let model = match tasks::blocking(move || Model::open(&folder)).await {
        Ok(Ok(model)) => model,
        Ok(Err(error)) => return Err(StartError::Sentences { dir, source: error.into() }),
        Err(panic) => return Err(StartError::Sentences { dir, source: panic.into() }),
    };
    info!(dir = %dir.display(), dimensions = model.dimensions(), "the sentence model was read");
    Ok(model)
}

/// Where workspaces' providers may lead. A node that only this machine reaches has nobody to keep from it.
fn reach(config: &Config) -> Reach {
    let own = if config.http.bind.ip().is_loopback() { &LOOPBACK[..] } else { &[] };
    let own = own.iter().filter_map(|network| network.parse().ok());
    Reach::new(config.llm.networks.0.iter().cloned().chain(own))
}

/// Where models' answers are recorded.
fn tape(dir: &Path) -> Result<Tape, StartError> {
    let tape = Tape::open(dir).map_err(|source| StartError::Record { dir: dir.to_owned(), source })?;
    warn!(dir = %dir.display(), "what language models answer is recorded, word for word");
    Ok(tape)
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
