//! The tools of workspaces: loaded when they are first needed, and kept as long as their files stay the same.
//!
//! A tool gets what its own file names *and* the workspace's file allows. Both are looked at here, at the moment of
//! loading, so that a revision which takes a grant away ends it with the swap of the catalog.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
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
use caxton_tools::{Compiler, Grants, Kind, Limits, LoadError, Sandbox, Settings, Spec, Tool};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tracing::warn;

use crate::catalog::Catalog;
use crate::secrets::{NoSecret, Secrets};

pub use caxton_tools::{COMPILE_COMMAND, compile_child_main};

/// How long a failure to load is remembered, so that a tool that cannot load does not cost a compilation per call.
const FAILURE_KEPT: Duration = Duration::from_secs(60);

/// Why a tool of a workspace cannot be used; `Display` ends in what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The workspace has no such tool.
    #[error(
        "there is no tool `{tool}` in workspace `{workspace}`; add it as tools/{tool}/tool.toml and run `caxton deploy`"
    )]
    Absent {
        /// The name.
        tool: String,
        /// Where.
        workspace: WorkspaceId,
    },
    /// The workspace does not allow what the tool asks for.
    #[error("tool `{tool}` asks for what workspace `{workspace}` does not allow; under [grants] of caxton.toml, allow {}", remedies.join(" and "))]
    NotAllowed {
        /// The name.
        tool: String,
        /// Where.
        workspace: WorkspaceId,
        /// The lines that would allow it.
        remedies: Vec<String>,
    },
    /// A secret that it is given is not set.
    #[error("tool `{tool}` is not given a secret that its file names: {why}")]
    NoSecret {
        /// The name.
        tool: String,
        /// Which secret, and what to do.
        why: NoSecret,
    },
    /// It did not load.
    #[error("tool `{tool}` did not load: {why}")]
    Broken {
        /// The name.
        tool: String,
        /// The whole chain of causes.
        why: String,
    },
    /// The node's operator has not allowed processes.
    #[error(
        "tool `{tool}` is a process of the node, and its operator has not allowed that; start the node with \
         --set tools.processes=true, or use a tool in WebAssembly"
    )]
    NoProcesses {
        /// The name.
        tool: String,
    },
}

/// Why a node cannot take a tool that is being deployed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// Its module does not load; this is why.
    Broken(String),
    /// It is a process, and the node's operator has not switched those on.
    ProcessesOff,
}

/// A handle on the loaded tools; clones are handles on the same.
#[derive(Clone)]
pub struct Tools(Arc<Shared>);

struct Shared {
    sandbox: Sandbox,
    processes: Option<BTreeMap<String, String>>,
    secrets: Arc<dyn Secrets>,
    slots: Mutex<HashMap<WorkspaceId, HashMap<ToolName, Slot>>>,
}

type Outcome = Result<Arc<dyn Tool>, Unusable>;

#[derive(Clone)]
struct Slot {
    stamp: Stamp,
    loaded: Arc<OnceCell<(Outcome, Instant)>>,
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
#[derive(Debug, Clone, Default)]
pub struct ToolSettings {
    /// Where compiled code is kept.
    pub cache: Option<PathBuf>,
    /// Where the directories of calls are made.
    pub scratch: Option<PathBuf>,
    /// Networks that are not public, which tools may reach all the same.
    pub networks: Vec<Network>,
    /// Calls that run at once, on a thread each; 0 for as many as suit the processors.
    pub threads: usize,
    /// Calls that may wait for a thread; 0 for the sandbox's own number.
    pub queue: usize,
    /// The environment of MCP servers that are processes of this node; without one there are none.
    pub processes: Option<BTreeMap<String, String>>,
}

impl Tools {
    /// Tools whose network connections live on the runtime this is called in. Nothing is loaded yet.
    pub fn new(settings: ToolSettings, secrets: Arc<dyn Secrets>) -> Tools {
        let defaults = Settings::default();
        let processes = settings.processes;
        let or = |wanted: usize, default: usize| if wanted == 0 { default } else { wanted };
        let settings = Settings {
            threads: or(settings.threads, defaults.threads),
            queue: or(settings.queue, defaults.queue),
            cache: settings.cache,
            scratch: settings.scratch.unwrap_or(defaults.scratch),
            networks: settings.networks,
            compiler: compiler(),
            ..Settings::default()
        };
        let sandbox = Sandbox::new(settings, Handle::current());
        Tools(Arc::new(Shared { sandbox, processes, secrets, slots: Mutex::default() }))
    }

    /// A tool of the catalog, loaded if it is not yet. Several that ask at once load it once.
    pub async fn get(&self, catalog: &Arc<Catalog>, name: &ToolName) -> Outcome {
        let slot = self.slot(catalog, name)?;
        let (catalog, shared, name) = (catalog.clone(), self.0.clone(), name.clone());
        let load = || async move {
            let tool = name.to_string();
            // Compiling takes long, and reading from the disk some time: neither happens on a thread that serves.
            let loaded = crate::tasks::blocking(move || shared.load(&catalog, &name)).await;
            let broken = |why: String| Err(Unusable::Broken { tool, why });
            (loaded.unwrap_or_else(|error| broken(error.to_string())), Instant::now())
        };
        slot.loaded.get_or_init(load).await.0.clone()
    }

    /// Loads a tool for a trial, with its grants but without the values of its secrets, which a deployment does not
    /// bring, and gives the names of its functions. What was compiled stays in the cache for the first call. Takes as
    /// long as compiling does. A server outside is not asked: it may be elsewhere for a while.
    pub fn prove(&self, manifest: &ToolManifest, wasm: Option<Bytes>) -> Result<Vec<String>, Unfit> {
        let kind = match manifest.kind {
            ToolKind::Component { .. } => Kind::Component,
            ToolKind::Command { .. } => Kind::Command,
            ToolKind::Core { .. } => Kind::Core,
            ToolKind::McpStdio { .. } if self.0.processes.is_none() => return Err(Unfit::ProcessesOff),
            ToolKind::McpHttp { .. } | ToolKind::McpStdio { .. } => return Ok(Vec::new()),
        };
        let grants = grants(manifest, |_| Ok::<_, std::convert::Infallible>(String::new())).unwrap_or_default();
        let spec = Spec { name: manifest.name.to_string(), kind, grants, limits: limits(manifest) };
        let loaded = self.0.sandbox.load(spec, &wasm.unwrap_or_default());
        let loaded = loaded.map_err(|error| Unfit::Broken(crate::errors::chain(&error)))?;
        Ok(loaded.definitions().iter().map(|definition| definition.name.clone()).collect())
    }

    /// The place of a tool whose files are these, emptied when they changed or when it failed a while ago.
    fn slot(&self, catalog: &Catalog, name: &ToolName) -> Result<Slot, Unusable> {
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
        let stale = |slot: &Slot| {
            let old = slot.loaded.get().is_some_and(|(outcome, at)| match outcome {
                Ok(tool) => tool.is_stale(),
                Err(_) => at.elapsed() > FAILURE_KEPT,
            });
            slot.stamp != stamp || old
        };
        if slots.get(name).is_none_or(stale) {
            // What the live revision no longer has goes when something new comes.
            slots.retain(|name, _| catalog.tools().contains_key(name));
            slots.insert(name.clone(), Slot { stamp, loaded: Arc::default() });
        }
        slots.get(name).cloned().ok_or_else(|| broken(name, &std::io::Error::other("its slot was lost")))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<WorkspaceId, HashMap<ToolName, Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn load(&self, catalog: &Catalog, name: &ToolName) -> Outcome {
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
                return self.connect(&manifest, Place::Http { url, rules, headers, bearer });
            }
            ToolKind::McpStdio { command, args } => {
                let refused = || Unusable::NoProcesses { tool: name.to_string() };
                let mut env = self.processes.clone().ok_or_else(refused)?;
                env.extend(grants(&manifest, secret)?.env);
                let (command, args) = (command.clone(), args.clone());
                return self.connect(&manifest, Place::Process { command, args, env });
            }
        };
        let wasm = catalog.read(module).map_err(|error| broken(name, &error))?;
        let grants = grants(&manifest, secret)?;
        let spec = Spec { name: name.to_string(), kind, grants, limits: limits(&manifest) };
        let loaded = self.sandbox.load(spec, &wasm).map_err(|error: LoadError| broken(name, &error))?;
        Ok(Arc::new(loaded))
    }

    /// Reaches an MCP server outside of the sandbox.
    fn connect(&self, manifest: &ToolManifest, place: Place) -> Outcome {
        let spec = ServerSpec {
            name: manifest.name.to_string(),
            place,
            limits: limits(manifest),
            idempotent: manifest.idempotent,
        };
        let connected = self.sandbox.connect(spec).map_err(|error| broken(&manifest.name, &error))?;
        Ok(Arc::new(connected))
    }
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

/// This program, started again. A test's program does not understand that, so it compiles in its own process.
fn compiler() -> Compiler {
    let is_caxton = |program: &Path| {
        let named = program.file_name().is_some_and(|name| name.to_string_lossy().starts_with("caxton"));
        named && program.parent().is_none_or(|folder| !folder.ends_with("deps"))
    };
    match Compiler::this_program() {
        Ok(Compiler::Process { program, arguments }) if is_caxton(&program) => Compiler::Process { program, arguments },
        Ok(Compiler::Process { .. } | Compiler::Inline) | Err(_) => {
            warn!("this is not the caxton program, so tools are compiled without the limits of a process of their own");
            Compiler::Inline
        }
    }
}

fn broken(name: &ToolName, error: &(dyn std::error::Error + 'static)) -> Unusable {
    Unusable::Broken { tool: name.to_string(), why: crate::errors::chain(error) }
}
