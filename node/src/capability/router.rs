//! Keeps an index for each workspace in step with its catalog, and answers for messages.
//!
//! Embedding and building happen off the threads that answer, at most as many at once as there are cores. An index is
//! built by a thread that gives way to them all, and that queues for a core again before each phrase: every message that
//! waits then goes first, and one phrase is all that it may have to wait for. While the index of a new revision is being
//! built, messages are routed by the previous one, among the agents that are still there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use caxton_proto::{AgentName, Revision, WorkspaceId};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::MESSAGE_TOKENS_MAX;
use super::index::{Index, Offer};
use super::load::Load;
use super::rank::{Candidate, Ranking, Requirements};
use super::vectors::Vectors;
use crate::catalog::{Catalog, Catalogs};
use crate::tasks::{self, Jobs};
use crate::text::head;

/// More of a message is not read: far more than the tokens that count.
const MESSAGE_BYTES_MAX: usize = 4_096;

/// The niceness of a thread that builds an index: beside one that answers it gets a tenth of a core, on an idle one all.
const BUILD_NICENESS: i32 = 10;

/// New vectors after which they are written down while there are more to make: a restart goes on from there.
const UNSAVED_MAX: usize = 4_096;

/// What a router may use.
#[derive(Debug, Clone, Copy)]
pub struct RouterLimits {
    /// Answers remembered for each workspace.
    pub answers_max: usize,
    /// How long a message waits for a new revision's index while there is an older one.
    pub newer_index_wait: Duration,
    /// How long a message waits for the first index.
    pub first_index_wait: Duration,
}

impl Default for RouterLimits {
    fn default() -> Self {
        Self {
            answers_max: 4_096,
            newer_index_wait: Duration::from_millis(50),
            first_index_wait: Duration::from_secs(20),
        }
    }
}

/// Why a message was not routed.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// There is nothing to go by.
    #[error("the message is empty")]
    Empty,
    /// The first index takes long: there are thousands of phrases to read.
    #[error("the capabilities of workspace `{workspace}` are still being prepared")]
    Preparing { workspace: WorkspaceId },
    /// A thread ended without an answer.
    #[error("routing stopped before it had an answer")]
    Stopped,
}

/// The answer for a message.
#[derive(Clone)]
pub struct Routed {
    /// Who is meant.
    pub ranking: Arc<Ranking>,
    /// The revision whose agents were ranked.
    pub revision: Revision,
    /// Whether it was remembered.
    pub cached: bool,
    catalog: Arc<Catalog>,
}

impl Routed {
    /// The agent to take: the least loaded among equals that are still there.
    pub fn pick<L: Ord>(&self, load: impl Fn(&AgentName) -> L) -> Option<&Candidate> {
        self.ranking.pick(|agent| self.catalog.agents().contains_key(agent).then(|| load(agent)))
    }

    /// The same, by the turns under way on this node.
    pub fn pick_by(&self, load: &Load) -> Option<&Candidate> {
        let workspace = &self.catalog.workspace;
        self.pick(|agent| load.busyness(workspace, agent))
    }
}

/// A handle on the indexes; clones share them.
#[derive(Clone)]
pub struct Router(Arc<Shared>);

struct Shared {
    vectors: Vectors,
    limits: RouterLimits,
    load: Load,
    slots: Mutex<HashMap<WorkspaceId, Slot>>,
    /// Threads that may compute at once; whoever waits longest is next.
    cores: Arc<Semaphore>,
    jobs: Jobs,
}

#[derive(Default)]
struct Slot {
    ready: Option<Arc<Ready>>,
    /// One build at a time for each workspace.
    building: Arc<tokio::sync::Mutex<()>>,
}

struct Ready {
    revision: Revision,
    index: Index,
    answers: Mutex<Answers>,
}

/// Remembers recent answers: two generations, of which the older is dropped when the younger is full.
#[derive(Default)]
struct Answers {
    young: HashMap<String, Arc<Ranking>>,
    old: HashMap<String, Arc<Ranking>>,
}

impl Answers {
    fn get(&mut self, key: &str) -> Option<Arc<Ranking>> {
        if let Some(answer) = self.young.get(key) {
            return Some(answer.clone());
        }
        let (key, answer) = self.old.remove_entry(key)?;
        self.young.insert(key, answer.clone());
        Some(answer)
    }

    fn put(&mut self, key: String, answer: Arc<Ranking>, max: usize) {
        if self.young.len() >= max.div_ceil(2) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, answer);
    }
}

impl Router {
    /// A router that knows `vectors` already.
    pub fn new(vectors: Vectors, limits: RouterLimits) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self(Arc::new(Shared {
            vectors,
            limits,
            load: Load::default(),
            slots: Mutex::default(),
            cores: Arc::new(Semaphore::new(cores)),
            jobs: Jobs::default(),
        }))
    }

    /// What its agents have under way, by which equals are told apart.
    pub fn load(&self) -> &Load {
        &self.0.load
    }

    /// Prepares each catalog as it becomes live, so that messages find its index ready. Runs until stopped.
    pub async fn follow(self, catalogs: Catalogs, stop: CancellationToken) {
        let mut changed = catalogs.changed();
        changed.mark_changed();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                change = changed.changed() => if change.is_err() { return },
            }
            let live = catalogs.all();
            self.forget_others(&live);
            for catalog in live {
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = self.prepared(&catalog) => {}
                }
            }
            let vectors = self.0.vectors.clone();
            // It ends without a word only when the runtime does.
            _ = tasks::blocking(move || save(&vectors)).await;
        }
    }

    /// Ranks the catalog's agents for a message.
    pub async fn route(&self, catalog: &Arc<Catalog>, text: &str, wanted: &Requirements) -> Result<Routed, RouteError> {
        let text = head(text.trim(), MESSAGE_BYTES_MAX);
        if text.is_empty() {
            return Err(RouteError::Empty);
        }
        let ready = self.ready(catalog).await?;
        let routed = |ranking, cached| Routed { ranking, revision: ready.revision, cached, catalog: catalog.clone() };
        let key = match &wanted.version {
            Some(version) => format!("{version}\n{text}"),
            None => format!("\n{text}"),
        };
        if let Some(ranking) = lock(&ready.answers).get(&key) {
            return Ok(routed(ranking, true));
        }
        let _core = self.0.cores.acquire().await.map_err(|_| RouteError::Stopped)?;
        let (used, text, wanted) = (ready.clone(), text.to_owned(), wanted.clone());
        let model = self.0.vectors.model().clone();
        let ranking = tasks::blocking(move || {
            let reading = model.read_start(&text, MESSAGE_TOKENS_MAX);
            Arc::new(used.index.rank(&reading, &text, &wanted))
        });
        let ranking = ranking.await.map_err(|_| RouteError::Stopped)?;
        lock(&ready.answers).put(key, ranking.clone(), self.0.limits.answers_max);
        Ok(routed(ranking, false))
    }

    /// The catalog's index, or for the moment that it takes the previous one.
    async fn ready(&self, catalog: &Arc<Catalog>) -> Result<Arc<Ready>, RouteError> {
        let there = self.slot(&catalog.workspace).0;
        let wait = match &there {
            Some(ready) if ready.revision >= catalog.revision => return Ok(ready.clone()),
            Some(_) => self.0.limits.newer_index_wait,
            None => self.0.limits.first_index_wait,
        };
        // A task of its own goes on when this message stops waiting.
        let (router, wanted) = (self.clone(), catalog.clone());
        let build = self.0.jobs.spawn("prepare-capabilities", async move { router.prepared(&wanted).await });
        match tokio::time::timeout(wait, build).await {
            Ok(Ok(ready)) => ready,
            Ok(Err(_)) => Err(RouteError::Stopped),
            Err(_) => there.ok_or_else(|| RouteError::Preparing { workspace: catalog.workspace.clone() }),
        }
    }

    async fn prepared(&self, catalog: &Arc<Catalog>) -> Result<Arc<Ready>, RouteError> {
        let (_, building) = self.slot(&catalog.workspace);
        let _turn = building.lock().await;
        if let (Some(ready), _) = self.slot(&catalog.workspace)
            && ready.revision >= catalog.revision
        {
            return Ok(ready);
        }
        let (wanted, vectors, cores) = (catalog.clone(), self.0.vectors.clone(), self.0.cores.clone());
        let runtime = tokio::runtime::Handle::current();
        let core = move || runtime.block_on(cores.clone().acquire_owned()).ok();
        let index = in_background(move || build(&wanted, &vectors, core)).await;
        let index = index.flatten().ok_or(RouteError::Stopped)?;
        let (workspace, revision) = (&catalog.workspace, catalog.revision);
        debug!(%workspace, %revision, capabilities = index.len(), "capabilities prepared");
        let ready = Arc::new(Ready { revision: catalog.revision, index, answers: Mutex::default() });
        lock(&self.0.slots).entry(catalog.workspace.clone()).or_default().ready = Some(ready.clone());
        Ok(ready)
    }

    fn slot(&self, workspace: &WorkspaceId) -> (Option<Arc<Ready>>, Arc<tokio::sync::Mutex<()>>) {
        let mut slots = lock(&self.0.slots);
        let slot = slots.entry(workspace.clone()).or_default();
        (slot.ready.clone(), slot.building.clone())
    }

    fn forget_others(&self, live: &[Arc<Catalog>]) {
        lock(&self.0.slots).retain(|workspace, _| live.iter().any(|catalog| catalog.workspace == *workspace));
    }
}

/// Computes on a thread of its own that gives way to others. Nothing comes of it if the thread cannot be started, or
/// panics.
async fn in_background<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, wait) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("capabilities".into()).spawn(move || {
        if let Err(error) = rustix::process::nice(BUILD_NICENESS) {
            debug!(%error, "capabilities are prepared at the priority of everything else");
        }
        // Whoever no longer waits does not need it.
        _ = done.send(work());
    });
    thread.inspect_err(|error| warn!(%error, "no thread to prepare capabilities")).ok()?;
    wait.await.ok()
}

/// Reads what the catalog's agents offer. Blocks on the disk, and computes, each phrase while it holds a `core`. Nothing
/// comes of it if there are no cores any more.
fn build<C>(catalog: &Catalog, vectors: &Vectors, core: impl Fn() -> Option<C>) -> Option<Index> {
    let manifests = catalog.agents().iter().filter_map(|(name, entry)| match entry.manifest() {
        Ok(manifest) => Some(manifest),
        Err(error) => {
            let workspace = &catalog.workspace;
            warn!(%workspace, agent = %name, %error, "an agent that cannot be read gets no messages");
            None
        }
    });
    let offers: Vec<Offer> = manifests.flat_map(|manifest| Offer::of_agent(&manifest).collect::<Vec<_>>()).collect();
    // Held, so that none is forgotten before the index has it.
    let mut made = Vec::new();
    for text in offers.iter().flat_map(Offer::texts) {
        if vectors.get(&text).is_some() {
            continue;
        }
        let turn = core()?;
        made.push(vectors.of(&text));
        drop(turn);
        if made.len() % UNSAVED_MAX == 0 {
            save(vectors);
        }
    }
    let _turn = core()?;
    Some(Index::build(offers, vectors))
}

/// Writes the vectors down. Blocks on the disk.
fn save(vectors: &Vectors) {
    if let Err(error) = vectors.save() {
        warn!(%error, "the phrases' vectors were not written down; a restart embeds them anew");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "router_tests.rs"]
mod tests;
