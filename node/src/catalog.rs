//! What a node serves of each workspace: the live revision's files, agents and tools, swapped in one move.
//!
//! A catalog never changes once it is made. What two revisions have in common they share: an agent whose file is the
//! same keeps its parsed manifest. Manifests are parsed when first asked for, so that a start with 10,000 agents
//! parses none of them before it is ready.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use caxton_proto::diagnostic::Diagnostic;
use caxton_proto::manifest::workspace::WORKSPACE_FILE;
use caxton_proto::manifest::{AgentManifest, ToolManifest, WorkspaceManifest};
use caxton_proto::tree::{File, InvalidNode, Tree, TreePath};
use caxton_proto::{AgentName, Digest, Revision, ToolName, WorkspaceId};
use tokio::sync::watch;

use crate::api::Serving;
use crate::artifacts::{Artifacts, GetError};

/// A part of a workspace could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No such file is deployed.
    #[error("{path} is not deployed in workspace `{workspace}`")]
    Absent {
        /// Whose it would be.
        workspace: WorkspaceId,
        path: String,
    },
    /// The file's content could not be read.
    #[error("{path} of workspace `{workspace}` could not be read")]
    Unreadable {
        /// Whose it is.
        workspace: WorkspaceId,
        path: TreePath,
        #[source]
        source: GetError,
    },
    /// The list of files could not be read.
    #[error("the list of files of workspace `{workspace}` could not be read")]
    Tree {
        /// Whose it is.
        workspace: WorkspaceId,
        #[source]
        source: TreeError,
    },
    /// A manifest is not valid: it was deployed under other rules than this version's.
    #[error("{path} of workspace `{workspace}` is not valid: {problem}")]
    Invalid {
        /// Whose it is.
        workspace: WorkspaceId,
        path: TreePath,
        /// The first problem in it.
        problem: String,
    },
}

/// Why a tree could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// A node is not in the store, or damaged there.
    #[error(transparent)]
    Get(#[from] GetError),
    /// A node is not one.
    #[error(transparent)]
    Node(#[from] InvalidNode),
}

/// A file that is parsed into `M` when it is first asked for.
pub struct Entry<M> {
    workspace: WorkspaceId,
    artifacts: Artifacts,
    /// Where it is.
    pub path: TreePath,
    /// What it is.
    pub file: File,
    parsed: OnceLock<Arc<M>>,
}

/// What can be read from a file's text.
pub trait Manifest: Sized {
    fn parse(path: &TreePath, text: &str) -> Result<Self, Vec<Diagnostic>>;
}

impl Manifest for AgentManifest {
    fn parse(path: &TreePath, text: &str) -> Result<Self, Vec<Diagnostic>> {
        AgentManifest::parse(path, text)
    }
}

impl Manifest for ToolManifest {
    fn parse(path: &TreePath, text: &str) -> Result<Self, Vec<Diagnostic>> {
        ToolManifest::parse(path, text)
    }
}

impl Manifest for WorkspaceManifest {
    fn parse(path: &TreePath, text: &str) -> Result<Self, Vec<Diagnostic>> {
        WorkspaceManifest::parse(path, text)
    }
}

impl<M: Manifest> Entry<M> {
    fn new(workspace: &WorkspaceId, artifacts: &Artifacts, path: &TreePath, file: File) -> Arc<Entry<M>> {
        let (workspace, artifacts) = (workspace.clone(), artifacts.clone());
        Arc::new(Entry { workspace, artifacts, path: path.clone(), file, parsed: OnceLock::new() })
    }

    /// The manifest. A failure is not remembered: a disk may come back.
    pub fn manifest(&self) -> Result<Arc<M>, LoadError> {
        if let Some(parsed) = self.parsed.get() {
            return Ok(parsed.clone());
        }
        let parsed = M::parse(&self.path, &self.source()?).map_err(|found| self.invalid(first(&found)))?;
        Ok(self.parsed.get_or_init(|| Arc::new(parsed)).clone())
    }

    /// The manifest, when it was parsed already.
    pub fn parsed(&self) -> Option<&Arc<M>> {
        self.parsed.get()
    }

    /// The file's text.
    pub fn source(&self) -> Result<String, LoadError> {
        let bytes = self.artifacts.read_file(&self.workspace, &self.file).map_err(|source| LoadError::Unreadable {
            workspace: self.workspace.clone(),
            path: self.path.clone(),
            source,
        })?;
        String::from_utf8(bytes.into()).map_err(|_| self.invalid("it is not UTF-8".to_owned()))
    }

    fn invalid(&self, problem: String) -> LoadError {
        LoadError::Invalid { workspace: self.workspace.clone(), path: self.path.clone(), problem }
    }
}

fn first(found: &[Diagnostic]) -> String {
    found.first().map_or_else(|| "it does not parse".to_owned(), |diagnostic| diagnostic.message.clone())
}

/// One revision of a workspace, as a node serves it.
pub struct Catalog {
    pub workspace: WorkspaceId,
    pub revision: Revision,
    /// The digest of its files.
    pub root: Digest,
    pub tree: Arc<Tree>,
    agents: BTreeMap<AgentName, Arc<Entry<AgentManifest>>>,
    tools: BTreeMap<ToolName, Arc<Entry<ToolManifest>>>,
    manifest: Option<Arc<Entry<WorkspaceManifest>>>,
    artifacts: Artifacts,
}

impl Catalog {
    /// Makes the catalog of `tree`, sharing with `previous` what did not change.
    pub fn new(
        workspace: &WorkspaceId,
        revision: Revision,
        root: Digest,
        tree: Arc<Tree>,
        previous: Option<&Catalog>,
        artifacts: &Artifacts,
    ) -> Catalog {
        let (mut agents, mut tools) = (Vec::new(), Vec::new());
        for (path, file) in tree.files() {
            if let Some(name) = AgentManifest::name_of(path) {
                agents.extend(share(workspace, artifacts, path, file, name, previous.map(|p| &p.agents)));
            } else if let Some(name) = ToolManifest::name_of(path) {
                tools.extend(share(workspace, artifacts, path, file, name, previous.map(|p| &p.tools)));
            }
        }
        let manifest = tree.files().get_key_value(WORKSPACE_FILE).map(|(path, file)| {
            let same = previous.and_then(|p| p.manifest.as_ref()).filter(|entry| entry.file == *file);
            same.cloned().unwrap_or_else(|| Entry::new(workspace, artifacts, path, *file))
        });
        Catalog {
            workspace: workspace.clone(),
            revision,
            root,
            tree,
            agents: agents.into_iter().collect(),
            tools: tools.into_iter().collect(),
            manifest,
            artifacts: artifacts.clone(),
        }
    }

    /// Its agents, in the order of their names.
    pub fn agents(&self) -> &BTreeMap<AgentName, Arc<Entry<AgentManifest>>> {
        &self.agents
    }

    /// Its tools, in the order of their names.
    pub fn tools(&self) -> &BTreeMap<ToolName, Arc<Entry<ToolManifest>>> {
        &self.tools
    }

    /// What `caxton.toml` says; what it says when it is empty, if there is none.
    pub fn manifest(&self) -> Result<Arc<WorkspaceManifest>, LoadError> {
        match &self.manifest {
            Some(entry) => entry.manifest(),
            None => Ok(Arc::default()),
        }
    }

    /// The same, where it was read already, which takes no time.
    pub fn parsed_manifest(&self) -> Option<Arc<WorkspaceManifest>> {
        match &self.manifest {
            Some(entry) => entry.parsed().cloned(),
            None => Some(Arc::default()),
        }
    }

    /// The content of the file at `path`. Blocks on the disk.
    pub fn read(&self, path: &TreePath) -> Result<Bytes, LoadError> {
        let Some(file) = self.tree.files().get(path) else {
            return Err(LoadError::Absent { workspace: self.workspace.clone(), path: path.to_string() });
        };
        self.artifacts.read_file(&self.workspace, file).map_err(|source| LoadError::Unreadable {
            workspace: self.workspace.clone(),
            path: path.clone(),
            source,
        })
    }

    /// Parses what was not parsed yet until it is `over`, and gives what failed. Blocks on the disk.
    pub fn warm(&self, over: impl Fn() -> bool) -> Vec<LoadError> {
        let workspace = self.manifest.iter().filter_map(|entry| entry.manifest().err());
        let tools = self.tools.values().filter_map(|tool| tool.manifest().err());
        let agents = self.agents.values().take_while(|_| !over()).filter_map(|agent| agent.manifest().err());
        workspace.chain(tools).chain(agents).collect()
    }
}

/// The entry of one manifest under its name: the previous catalog's when its file is the same.
fn share<N, M>(
    workspace: &WorkspaceId,
    artifacts: &Artifacts,
    path: &TreePath,
    file: &File,
    name: &str,
    previous: Option<&BTreeMap<N, Arc<Entry<M>>>>,
) -> Option<(N, Arc<Entry<M>>)>
where
    N: Ord + Clone + std::borrow::Borrow<str> + std::str::FromStr,
    M: Manifest,
{
    let known = previous.and_then(|entries| entries.get_key_value(name));
    match known {
        Some((name, entry)) if entry.path == *path && entry.file == *file => Some((name.clone(), entry.clone())),
        // No catalog has a name that is not one: the check refused it.
        Some(_) | None => Some((name.parse().ok()?, Entry::new(workspace, artifacts, path, *file))),
    }
}

/// Reads the tree `root` from the store. Blocks on the disk.
pub fn load_tree(artifacts: &Artifacts, workspace: &WorkspaceId, root: Digest) -> Result<Tree, LoadError> {
    let node = |digest: &Digest| Ok::<_, TreeError>(artifacts.need(workspace, digest)?.into());
    Tree::load(root, node).map_err(|source| LoadError::Tree { workspace: workspace.clone(), source })
}

/// A handle on what the node serves; clones are handles on the same.
#[derive(Clone)]
pub struct Catalogs(Arc<Shared>);

struct Shared {
    slots: RwLock<HashMap<WorkspaceId, Slot>>,
    /// Counts the swaps.
    changed: watch::Sender<u64>,
    /// Every workspace that the log had when the node started was tried once.
    settled: watch::Sender<bool>,
    /// Trees of deployments that are being proposed, so that their catalogs need not read them back.
    coming: Mutex<HashMap<Digest, (Arc<Tree>, usize)>>,
}

#[derive(Default)]
struct Slot {
    live: Option<Arc<Catalog>>,
    failed: Option<(Revision, String)>,
    /// Earlier catalogs that someone may still use: their files must not be collected.
    earlier: Vec<Weak<Catalog>>,
}

impl Default for Catalogs {
    fn default() -> Catalogs {
        Catalogs(Arc::new(Shared {
            slots: RwLock::default(),
            changed: watch::Sender::new(0),
            settled: watch::Sender::new(false),
            coming: Mutex::default(),
        }))
    }
}

impl Catalogs {
    /// What is served of `workspace`.
    pub fn get(&self, workspace: &WorkspaceId) -> Option<Arc<Catalog>> {
        self.read(|slots| slots.get(workspace)?.live.clone())
    }

    /// Every catalog that is served, in the order of the workspaces' names.
    pub fn all(&self) -> Vec<Arc<Catalog>> {
        let mut all: Vec<_> = self.read(|slots| slots.values().filter_map(|slot| slot.live.clone()).collect());
        all.sort_by(|a, b| a.workspace.cmp(&b.workspace));
        all
    }

    /// Wakes whenever a catalog was swapped in, or could not be made.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Turns true when everything that was live at the start has been loaded, or has failed to.
    pub fn settled(&self) -> watch::Receiver<bool> {
        self.0.settled.subscribe()
    }

    /// What is served of `workspace`, when `live` is the newest revision in the log.
    pub fn serving(&self, workspace: &WorkspaceId, live: Revision) -> Serving {
        self.read(|slots| {
            let slot = slots.get(workspace);
            let revision = slot.and_then(|slot| slot.live.as_ref()).map_or(Revision::NONE, |catalog| catalog.revision);
            match slot.and_then(|slot| slot.failed.as_ref()) {
                _ if live == Revision::NONE => Serving::Nothing,
                _ if revision >= live => Serving::Live { revision },
                Some((failed, error)) if *failed >= live => Serving::Failed { revision, error: error.clone() },
                Some(_) | None => Serving::Loading { revision },
            }
        })
    }

    /// Waits until `revision` or a later one is served, or has failed to load, or the time is up.
    pub async fn reach(&self, workspace: &WorkspaceId, revision: Revision, wait: Duration) -> Serving {
        let mut changed = self.changed();
        let reached = async {
            loop {
                let serving = self.serving(workspace, revision);
                if !matches!(serving, Serving::Loading { .. }) || changed.changed().await.is_err() {
                    return serving;
                }
            }
        };
        let reached = tokio::time::timeout(wait, reached).await;
        reached.unwrap_or_else(|_| self.serving(workspace, revision))
    }

    /// Keeps the tree of a deployment that is about to be proposed at hand for as long as the value lives.
    pub fn expect(&self, root: Digest, tree: Arc<Tree>) -> Expected {
        let mut coming = self.0.coming.lock().unwrap_or_else(PoisonError::into_inner);
        coming.entry(root).or_insert((tree, 0)).1 += 1;
        Expected { catalogs: self.clone(), root }
    }

    /// The tree `root`, when a deployment on this node proposed it.
    pub(crate) fn expected(&self, root: &Digest) -> Option<Arc<Tree>> {
        let coming = self.0.coming.lock().unwrap_or_else(PoisonError::into_inner);
        coming.get(root).map(|(tree, _)| tree.clone())
    }

    /// Serves `catalog` from now on.
    pub(crate) fn swap(&self, catalog: Arc<Catalog>) {
        self.change(&catalog.workspace.clone(), |slot| {
            let earlier = slot.live.replace(catalog);
            slot.failed = None;
            slot.earlier.retain(|earlier| earlier.strong_count() > 0);
            slot.earlier.extend(earlier.as_ref().map(Arc::downgrade));
        });
    }

    /// Serves nothing of a workspace any more. Whoever reads from its last catalog keeps it to the end.
    pub(crate) fn remove(&self, workspace: &WorkspaceId) {
        self.change(workspace, |slot| {
            let last = slot.live.take();
            slot.failed = None;
            slot.earlier.retain(|earlier| earlier.strong_count() > 0);
            slot.earlier.extend(last.as_ref().map(Arc::downgrade));
        });
    }

    /// Notes that `revision` cannot be served; what was served goes on.
    pub(crate) fn fail(&self, workspace: &WorkspaceId, revision: Revision, error: String) {
        self.change(workspace, |slot| slot.failed = Some((revision, error)));
    }

    /// Notes that everything was tried once.
    pub(crate) fn settle(&self) {
        self.0.settled.send_replace(true);
    }

    /// The roots of all catalogs of `workspace` that someone may still read from.
    pub(crate) fn roots(&self, workspace: &WorkspaceId) -> Vec<Digest> {
        self.read(|slots| {
            let slot = slots.get(workspace);
            let earlier = slot.into_iter().flat_map(|slot| slot.earlier.iter().filter_map(Weak::upgrade));
            let live = slot.and_then(|slot| slot.live.clone());
            earlier.chain(live).map(|catalog| catalog.root).collect()
        })
    }

    fn read<R>(&self, read: impl FnOnce(&HashMap<WorkspaceId, Slot>) -> R) -> R {
        read(&self.0.slots.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, workspace: &WorkspaceId, change: impl FnOnce(&mut Slot)) {
        let mut slots = self.0.slots.write().unwrap_or_else(PoisonError::into_inner);
        change(slots.entry(workspace.clone()).or_default());
        drop(slots);
        self.0.changed.send_modify(|count| *count += 1);
    }
}

/// Keeps a coming tree at hand.
pub struct Expected {
    catalogs: Catalogs,
    root: Digest,
}

impl Drop for Expected {
    fn drop(&mut self) {
        let mut coming = self.catalogs.0.coming.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, holders)) = coming.get_mut(&self.root) {
            *holders -= 1;
            if *holders == 0 {
                coming.remove(&self.root);
            }
        }
    }
}
