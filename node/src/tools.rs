//! The tools of workspaces: loaded when they are first needed, and kept as long as their files stay the same.
//!
//! A tool gets what its own file names *and* the workspace's file allows. Both are looked at here, at the moment of
//! loading, so that a revision which takes a grant away ends it with the swap of the catalog.

mod unusable;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use caxton_proto::manifest::ToolManifest;
use caxton_proto::manifest::secret::{GivenValue, SecretName};
use caxton_proto::manifest::tool::ToolKind;
use caxton_proto::manifest::workspace::WORKSPACE_FILE;
use caxton_proto::{Digest, ToolName, WorkspaceId};
use caxton_tools::mcp::{Place, ServerSpec};
use caxton_tools::network::Network;
use caxton_tools::{
    CompileError, Compiler, Grants, Kind, Limits, LoadError, Quota, Sandbox, Settings, Spec, Tool, clear_scratch,
};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::warn;

use crate::catalog::Catalog;
use crate::secrets::Secrets;

pub use caxton_tools::{COMPILE_COMMAND, compile_child_main};
pub use unusable::{Unfit, Unusable};

/// How long a failure to load is remembered, so that a tool that cannot load does not cost a compilation per call.
const FAILURE_KEPT: Duration = Duration::from_secs(60);
/// The same for what may be over soon, the first time; longer each further time, up to that.
const AWAY_KEPT: Duration = Duration::from_secs(1);
/// Tools of one workspace that may be on their way at once.
const BEGINNING_PER_WORKSPACE_MAX: usize = 32;
/// How long a listing waits for servers that were not asked yet.
const LISTING_PATIENCE: Duration = Duration::from_secs(2);

/// A handle on the loaded tools; clones are handles on the same.
#[derive(Clone)]
pub struct Tools(Arc<Shared>);

struct Shared {
    sandbox: Sandbox,
    settings: ToolSettings,
    secrets: Arc<dyn Secrets>,
    slots: Mutex<HashMap<WorkspaceId, HashMap<ToolName, Slot>>>,
    /// Counts uses, so that the code that was used longest ago makes room.
    uses: AtomicU64,
}

type Outcome = Result<Arc<dyn Tool>, Unusable>;
/// Nothing while it is on its way; then what came of it, and when.
type Loaded = Option<(Outcome, Instant)>;

#[derive(Clone)]
struct Slot {
    stamp: Stamp,
    loaded: watch::Receiver<Loaded>,
    /// How often in a row it did not load.
    failures: u32,
    used: Arc<AtomicU64>,
}

impl Slot {
    fn tool(&self) -> Option<Arc<dyn Tool>> {
        match &*self.loaded.borrow() {
            Some((Ok(tool), _)) => Some(tool.clone()),
            Some((Err(_), _)) | None => None,
        }
    }

    /// Whether somebody loads it.
    fn is_on_its_way(&self) -> bool {
        let nothing = self.loaded.borrow().is_none();
        nothing && self.loaded.has_changed().is_ok()
    }

    /// Whether it did not load so long ago that it is tried again.
    fn is_failed(&self) -> bool {
        match &*self.loaded.borrow() {
            Some((Err(why), at)) => {
                let kept = match why.is_passing() {
                    true => (AWAY_KEPT * (1 << self.failures.min(6))).min(FAILURE_KEPT),
                    false => FAILURE_KEPT,
                };
                at.elapsed() > kept
            }
            // Whoever loaded it is gone without a word.
            None => self.loaded.has_changed().is_err(),
            Some((Ok(_), _)) => false,
        }
    }
}

/// What a loaded tool was made of.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    manifest: Digest,
    module: Option<Digest>,
    workspace: Option<Digest>,
    /// The versions of the secrets that it is given.
    secrets: Vec<u64>,
}

/// How the node's tools are set up.
#[derive(Debug, Clone)]
pub struct ToolSettings {
    /// Where compiled code is kept.
    pub cache: Option<PathBuf>,
    /// Where the directories of calls are made. What is there from an earlier start is removed.
    pub scratch: Option<PathBuf>,
    /// What one call may keep there.
    pub quota: Quota,
    /// The most that a tool's own limits may say.
    pub ceiling: Limits,
    /// Memory of all instances together; 0 for half of the machine's.
    pub total_memory_bytes: u64,
    /// Bytes of machine code that are kept in memory; what was used longest ago makes room.
    pub code_bytes_max: u64,
    /// After this long a server outside is asked again what tools it has.
    pub list_kept: Duration,
    /// Networks that are not public, which tools may reach all the same.
    pub networks: Vec<Network>,
    /// Calls that run at once, on a thread each; 0 for as many as suit the processors.
    pub threads: usize,
    /// Calls that may wait for a thread; 0 for the sandbox's own number.
    pub queue: usize,
    /// The environment of MCP servers that are processes of this node; without one there are none.
    pub processes: Option<BTreeMap<String, String>>,
}

impl Default for ToolSettings {
    fn default() -> ToolSettings {
        ToolSettings {
            cache: None,
            scratch: None,
            quota: Quota::default(),
            ceiling: Limits::ceiling(),
            total_memory_bytes: 0,
            code_bytes_max: 1 << 30,
            list_kept: Duration::from_secs(600),
            networks: Vec::new(),
            threads: 0,
            queue: 0,
            processes: None,
        }
    }
}

impl Tools {
    /// Tools whose network connections live on the runtime this is called in. Nothing is loaded yet.
    pub fn new(settings: ToolSettings, secrets: Arc<dyn Secrets>) -> Tools {
        let defaults = Settings::default();
        if let Some(scratch) = &settings.scratch {
            clear_scratch(scratch);
        }
        let or = |wanted: usize, default: usize| if wanted == 0 { default } else { wanted };
        let sandbox = Settings {
            threads: or(settings.threads, defaults.threads),
            queue: or(settings.queue, defaults.queue),
            cache: settings.cache.clone(),
            scratch: settings.scratch.clone().unwrap_or(defaults.scratch),
            quota: settings.quota,
            ceiling: settings.ceiling.clone(),
            total_memory_bytes: settings.total_memory_bytes,
            networks: settings.networks.clone(),
            compiler: compiler(),
            ..Settings::default()
        };
        let sandbox = Sandbox::new(sandbox, Handle::current());
        let (slots, uses) = (Mutex::default(), AtomicU64::new(0));
        Tools(Arc::new(Shared { sandbox, settings, secrets, slots, uses }))
    }

    /// A tool of the catalog, loaded if it is not yet, and asked again what it has if that may be something else by now.
    /// Several that ask at once load it once, and it is loaded to the end even if none of them waits so long.
    pub async fn get(&self, catalog: &Arc<Catalog>, name: &ToolName) -> Outcome {
        let (slot, fresh) = self.slot(catalog, name)?;
        slot.used.store(self.0.uses.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        if let Some(done) = fresh {
            self.begin(catalog, name, done);
        }
        let mut loaded = slot.loaded;
        let outcome = match loaded.wait_for(Option::is_some).await.as_deref() {
            Ok(Some((outcome, _))) => outcome.clone(),
            Ok(None) | Err(_) => Err(broken(name, &std::io::Error::other("its loading was broken off"))),
        };
        if let Ok(tool) = &outcome {
            tool.refresh().await;
        }
        outcome
    }

    /// Loads a tool in the background.
    fn begin(&self, catalog: &Arc<Catalog>, name: &ToolName, done: watch::Sender<Loaded>) {
        let (catalog, shared, loading) = (catalog.clone(), self.0.clone(), name.clone());
        let done = Arc::new(done);
        let told = done.clone();
        let began = self.0.sandbox.begin(async move {
            let outcome = shared.load(catalog, &loading).await;
            told.send_replace(Some((outcome, Instant::now())));
            shared.make_room();
        });
        if let Err(full) = began {
            let busy = Unusable::Busy { tool: name.to_string(), why: full.to_string() };
            done.send_replace(Some((Err(busy), Instant::now())));
        }
    }

    /// What is odd about the tools of a catalog, a list of lines each: functions that are left out, rules that are not
    /// checked, servers that are away. Servers that were not asked yet are asked, and waited for a moment.
    pub async fn notes(&self, catalog: &Arc<Catalog>) -> BTreeMap<ToolName, Vec<String>> {
        let servers = catalog
            .tools()
            .iter()
            .filter(|(_, entry)| entry.parsed().is_some_and(|manifest| !manifest.kind.is_sandboxed()));
        let asked = servers.map(|(name, _)| self.get(catalog, name));
        let _ = tokio::time::timeout(LISTING_PATIENCE, futures::future::join_all(asked)).await;
        let noted = catalog.tools().keys().map(|name| (name.clone(), self.known(&catalog.workspace, name)));
        noted.filter(|(_, notes)| !notes.is_empty()).collect()
    }

    /// What is known to be odd about a tool, without asking anybody.
    pub fn known(&self, workspace: &WorkspaceId, name: &ToolName) -> Vec<String> {
        let slot = self.0.lock().get(workspace).and_then(|slots| slots.get(name)).cloned();
        let Some(slot) = slot else { return Vec::new() };
        let loaded = slot.loaded.borrow();
        match &*loaded {
            Some((Ok(tool), _)) => tool.remarks().iter().map(ToString::to_string).collect(),
            Some((Err(unusable), _)) => vec![unusable.to_string()],
            None => vec![format!("tool `{name}` is being started")],
        }
    }

    /// Loads a tool for a trial, with its grants but without the values of its secrets, which a deployment does not
    /// bring, and gives the names of its functions. What was compiled stays in the cache for the first call. Takes as
    /// long as compiling does. A server outside is not asked: it may be elsewhere for a while.
    pub fn prove(&self, manifest: &ToolManifest, wasm: Option<Bytes>) -> Result<Vec<String>, Unfit> {
        let kind = match manifest.kind {
            ToolKind::Component { .. } => Kind::Component,
            ToolKind::Command { .. } => Kind::Command,
            ToolKind::Core { .. } => Kind::Core,
            ToolKind::McpStdio { .. } if self.0.settings.processes.is_none() => return Err(Unfit::ProcessesOff),
            ToolKind::McpHttp { .. } | ToolKind::McpStdio { .. } => return Ok(Vec::new()),
        };
        let grants = grants(manifest, |_| Ok::<_, std::convert::Infallible>(String::new())).unwrap_or_default();
        let spec = Spec { name: manifest.name.to_string(), kind, grants, limits: limits(manifest) };
        let loaded = self.0.sandbox.load(spec, &wasm.unwrap_or_default());
        let loaded = loaded.map_err(|error| Unfit::Broken(crate::errors::chain(&error)))?;
        Ok(loaded.definitions().iter().map(|definition| definition.name.clone()).collect())
    }

    /// The place of a tool whose files are these, a new one when they changed or when it failed a while ago; whoever gets
    /// a new one loads the tool.
    fn slot(&self, catalog: &Catalog, name: &ToolName) -> Result<(Slot, Option<watch::Sender<Loaded>>), Unusable> {
        let entry = catalog
            .tools()
            .get(name)
            .ok_or_else(|| Unusable::Absent { tool: name.to_string(), workspace: catalog.workspace.clone() })?;
        let manifest = entry.manifest().map_err(|error| broken(name, &error))?;
        let digest = |path: &str| catalog.tree.files().get(path).map(|file| file.digest);
        let module = manifest.kind.module().and_then(|path| digest(path.as_str()));
        let secrets = manifest.secrets().map(|secret| self.0.secrets.version(&catalog.workspace, secret)).collect();
        let stamp = Stamp { manifest: entry.file.digest, module, workspace: digest(WORKSPACE_FILE), secrets };
        let mut slots = self.0.lock();
        let slots = slots.entry(catalog.workspace.clone()).or_default();
        let mut failures = 0;
        if let Some(slot) = slots.get(name).filter(|slot| slot.stamp == stamp) {
            if !slot.is_failed() {
                return Ok((slot.clone(), None));
            }
            failures = slot.failures.saturating_add(1);
        }
        let beginning = slots.values().filter(|slot| slot.is_on_its_way()).count();
        if beginning >= BEGINNING_PER_WORKSPACE_MAX {
            let why = format!("{beginning} tools of this workspace are being started already; try again in a moment");
            return Err(Unusable::Busy { tool: name.to_string(), why });
        }
        // What the live revision no longer has goes when something new comes.
        slots.retain(|name, _| catalog.tools().contains_key(name));
        let (done, loaded) = watch::channel(None);
        let slot = Slot { stamp, loaded, failures, used: Arc::default() };
        slots.insert(name.clone(), slot.clone());
        Ok((slot, Some(done)))
    }
}

/// A tool that is ready to be loaded.
enum PreparedTool {
    Module(Spec, Bytes),
    Server(ServerSpec),
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<WorkspaceId, HashMap<ToolName, Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn load(self: &Arc<Shared>, catalog: Arc<Catalog>, name: &ToolName) -> Outcome {
        let (shared, tool) = (self.clone(), name.clone());
        // Reading from the disk takes some time, and neither that nor compiling happens on a thread that serves.
        let prepared = crate::tasks::blocking(move || shared.prepare(&catalog, &tool)).await;
        match prepared.map_err(|error| broken(name, &error))?? {
            PreparedTool::Module(spec, wasm) => match self.sandbox.load_soon(spec, wasm).await {
                Ok(loaded) => Ok(Arc::new(loaded)),
                Err(error) if is_busy(&error) => {
                    Err(Unusable::Busy { tool: name.to_string(), why: crate::errors::chain(&error) })
                }
                Err(error) => Err(broken(name, &error)),
            },
            PreparedTool::Server(spec) => match self.sandbox.connect(spec).await {
                Ok(connected) => Ok(Arc::new(connected)),
                Err(error) => Err(Unusable::Away { tool: name.to_string(), why: crate::errors::chain(&error) }),
            },
        }
    }

    /// Lets go of the code that was used longest ago until the rest fits. A call that uses it keeps it to its end.
    fn make_room(&self) {
        let mut slots = self.lock();
        let mut loaded = Vec::new();
        for (workspace, tools) in &*slots {
            for (name, slot) in tools {
                let bytes = slot.tool().map_or(0, |tool| tool.code_bytes());
                loaded.push((slot.used.load(Ordering::Relaxed), bytes, (workspace.clone(), name.clone())));
            }
        }
        for (workspace, name) in to_let_go(loaded, self.settings.code_bytes_max) {
            tracing::debug!(%workspace, tool = %name, "the code of a tool makes room");
            if let Some(tools) = slots.get_mut(&workspace) {
                tools.remove(&name);
            }
        }
    }

    /// What a tool is made of, and what it is given; reads from the disk.
    fn prepare(&self, catalog: &Catalog, name: &ToolName) -> Result<PreparedTool, Unusable> {
        let absent = || Unusable::Absent { tool: name.to_string(), workspace: catalog.workspace.clone() };
        let entry = catalog.tools().get(name).ok_or_else(absent)?;
        let manifest = entry.manifest().map_err(|error| broken(name, &error))?;
        let allowed = catalog.manifest().map_err(|error| broken(name, &error))?;
        let remedies: Vec<String> = allowed.grants.refusals(&manifest).iter().map(|refused| refused.remedy()).collect();
        if !remedies.is_empty() {
            return Err(Unusable::NotAllowed {
                tool: name.to_string(),
                workspace: catalog.workspace.clone(),
                remedies,
            });
        }
        let secret = |secret: &SecretName| {
            let missing = |why| Unusable::NoSecret { tool: name.to_string(), why };
            Ok(self.secrets.value(&catalog.workspace, secret).map_err(missing)?.expose().to_owned())
        };
        let (kind, module) = match &manifest.kind {
            ToolKind::Component { module } => (Kind::Component, module),
            ToolKind::Command { module } => (Kind::Command, module),
            ToolKind::Core { module } => (Kind::Core, module),
            ToolKind::McpHttp { url, headers, bearer } => {
                let headers =
                    headers.iter().map(|(name, value)| Ok::<_, Unusable>((name.clone(), given(value, secret)?)));
                let bearer = bearer.as_ref().map(secret).transpose()?;
                let (url, rules) = (url.as_str().to_owned(), allowed.grants.http.clone());
                let headers = headers.collect::<Result<_, _>>()?;
                return Ok(self.server(&manifest, Place::Http { url, rules, headers, bearer }));
            }
            ToolKind::McpStdio { command, args } => {
                let refused = || Unusable::NoProcesses { tool: name.to_string() };
                let mut env = self.settings.processes.clone().ok_or_else(refused)?;
                env.extend(grants(&manifest, secret)?.env);
                let (command, args) = (command.clone(), args.clone());
                return Ok(self.server(&manifest, Place::Process { command, args, env }));
            }
        };
        let wasm = catalog.read(module).map_err(|error| broken(name, &error))?;
        let grants = grants(&manifest, secret)?;
        let spec = Spec { name: name.to_string(), kind, grants, limits: limits(&manifest) };
        Ok(PreparedTool::Module(spec, wasm))
    }

    /// An MCP server outside of the sandbox.
    fn server(&self, manifest: &ToolManifest, place: Place) -> PreparedTool {
        PreparedTool::Server(ServerSpec {
            name: manifest.name.to_string(),
            place,
            limits: limits(manifest),
            idempotent: manifest.idempotent,
            list_kept: self.settings.list_kept,
        })
    }
}

/// Whose code goes, of those that were used then and take so many bytes, so that the rest takes at most `bytes_max`. The one
/// that was used last stays, however large it is; what takes nothing stays.
fn to_let_go<K>(mut loaded: Vec<(u64, u64, K)>, bytes_max: u64) -> Vec<K> {
    let mut total: u64 = loaded.iter().map(|(_, bytes, _)| bytes).sum();
    loaded.sort_unstable_by_key(|(used, _, _)| *used);
    loaded.pop();
    let mut gone = Vec::new();
    for (_, bytes, key) in loaded {
        if total > bytes_max && bytes > 0 {
            total -= bytes;
            gone.push(key);
        }
    }
    gone
}

fn is_busy(error: &LoadError) -> bool {
    matches!(error, LoadError::Busy { .. } | LoadError::Compile { source: CompileError::Busy { .. }, .. })
}

/// What a tool is granted; `secret` gives the values of the secrets that it names.
fn grants<E>(manifest: &ToolManifest, secret: impl Fn(&SecretName) -> Result<String, E>) -> Result<Grants, E> {
    let named = &manifest.grants;
    let mut grants = Grants {
        http: named.http.clone(),
        scratch: named.scratch,
        clock: named.clock,
        random: named.random,
        reuse: named.reuse,
        env: Default::default(),
    };
    for (variable, value) in &named.env {
        grants.env.insert(variable.clone(), given(value, &secret)?);
    }
    Ok(grants)
}

/// A value that a tool is given, from where its file says.
fn given<E>(value: &GivenValue, secret: impl Fn(&SecretName) -> Result<String, E>) -> Result<String, E> {
    match value {
        GivenValue::Text(text) => Ok(text.clone()),
        GivenValue::Secret(name) => secret(name),
    }
}

fn limits(manifest: &ToolManifest) -> Limits {
    let named = &manifest.limits;
    Limits {
        memory_bytes: named.memory_bytes,
        wall: named.wall_time,
        cpu: named.cpu,
        output_bytes: named.output_bytes,
        concurrent_calls: named.concurrency,
        ..Limits::default()
    }
}

/// This program, started again, under whatever name it runs; it has to say itself that it compiles. A test's program, which
/// cargo keeps in a folder of its own, does not understand that, so it compiles in its own process.
fn compiler() -> Compiler {
    let is_test = |program: &Path| program.parent().is_some_and(|folder| folder.ends_with("deps"));
    match (std::env::current_exe(), Compiler::this_program()) {
        (Ok(program), _) if is_test(&program) => {
            warn!("this is a test, so tools are compiled without the limits of a process of their own");
            Compiler::Inline
        }
        (_, Ok(this)) => this,
        // Compiling then fails, and says why: it never happens here.
        (_, Err(_)) => Compiler::Process { program: PathBuf::new(), arguments: Vec::new() },
    }
}

fn broken(name: &ToolName, error: &(dyn std::error::Error + 'static)) -> Unusable {
    Unusable::Broken { tool: name.to_string(), why: crate::errors::chain(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_that_was_used_longest_ago_makes_room() {
        let loaded = || vec![(5, 10, "newest"), (1, 10, "oldest"), (2, 0, "a server outside"), (3, 10, "middle")];
        assert_eq!(to_let_go(loaded(), 30), Vec::<&str>::new());
        assert_eq!(to_let_go(loaded(), 29), ["oldest"]);
        assert_eq!(to_let_go(loaded(), 19), ["oldest", "middle"]);
        assert_eq!(to_let_go(loaded(), 0), ["oldest", "middle"], "what was used last stays");
        assert_eq!(to_let_go(Vec::<(u64, u64, ())>::new(), 0), []);
    }
}
