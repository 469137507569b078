//! One revision of a workspace as the turns of one message see it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use caxton_proto::manifest::agent::{AgentManifest, BUILT_IN_TOOLS};
use caxton_proto::tree::TreePath;
use caxton_proto::{AgentName, Digest, Revision, ToolName, WorkspaceId};
use futures::future::BoxFuture;

use super::Shared;
use super::chat_tool::ChatTool;
use super::mail::{self, AgentMail};
use super::memory::{self, AgentMemory, Asker};
use super::{routing, toolbox};
use crate::agent::builtin::mail::MailTool;
use crate::agent::builtin::memory::MemoryTool;
use crate::agent::wanted::Wanted;
use crate::agent::world::{AgentMatch, AgentProblem, Invocation, NotFound, ToolOutput, World};
use crate::agent::{Agent, OfferedFunction, Parts};
use crate::catalog::Catalog;
use crate::llm::reasons;

/// Lines of a list of capabilities that a model gets.
const LINES_MAX: usize = 40;

/// Agents that were put together, as long as their revision is served.
#[derive(Debug)]
pub struct AgentsCache {
    agents: Mutex<HashMap<(WorkspaceId, AgentName), (Revision, Arc<Agent>)>>,
    /// When there are more, all are let go.
    kept_max: usize,
}

impl AgentsCache {
    pub(super) fn new(kept_max: usize) -> AgentsCache {
        AgentsCache { agents: Mutex::default(), kept_max }
    }

    fn get(&self, catalog: &Catalog, name: &AgentName) -> Option<Arc<Agent>> {
        let kept = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        let (revision, agent) = kept.get(&(catalog.workspace.clone(), name.clone()))?;
        (*revision == catalog.revision).then(|| Arc::clone(agent))
    }

    fn keep(&self, catalog: &Catalog, name: &AgentName, agent: &Arc<Agent>) {
        let mut kept = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= self.kept_max {
            kept.clear();
        }
        kept.insert((catalog.workspace.clone(), name.clone()), (catalog.revision, Arc::clone(agent)));
    }
}

pub(super) struct CatalogWorld {
    catalog: Arc<Catalog>,
    shared: Arc<Shared>,
    /// Whose turn it is, and where.
    asker: Asker,
}

impl CatalogWorld {
    pub(super) fn new(catalog: Arc<Catalog>, shared: Arc<Shared>, asker: Asker) -> CatalogWorld {
        CatalogWorld { catalog, shared, asker }
    }

    /// What is served.
    pub(super) fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    pub(super) fn revision(&self) -> Revision {
        self.catalog.revision
    }

    async fn assemble(&self, name: &AgentName) -> Result<Arc<Agent>, AgentProblem> {
        if let Some(agent) = self.shared.agents.get(&self.catalog, name) {
            return Ok(agent);
        }
        let unusable = |problem: String| AgentProblem::Unusable { agent: name.clone(), problem };
        let manifest = self.manifest(name).await?;
        let (mut offered, mut whole, mut away) = (Vec::<OfferedFunction>::new(), true, Vec::new());
        let named = |tools: &[ToolName], required: bool| {
            let tools = tools.iter().filter(|tool| !self.is_built_in(tool)).cloned();
            tools.map(|tool| (tool, required)).collect::<Vec<_>>()
        };
        let tools = [named(&manifest.tools.required, true), named(&manifest.tools.optional, false)].concat();
        // All at once: a server that takes its time to start keeps none of the others waiting.
        let all = &self.shared.parts.tools;
        let found = tools.iter().map(|(tool, _)| toolbox::offered(all, &self.catalog, tool));
        let found = futures::future::join_all(found).await;
        for ((tool, required), found) in tools.iter().zip(found) {
            match found {
                Ok(found) => offered.extend(found),
                // A server that is down costs its tools; it is looked for again the next time.
                Err(missing) if missing.passing => {
                    tracing::warn!(agent = %name, %tool, problem = missing.problem, "an agent goes on without a tool");
                    away.push(tool.clone());
                    whole = false;
                }
                Err(missing) if *required => return Err(unusable(missing.problem)),
                // An optional tool that cannot be used is as if it was not there.
                Err(_) => whole = false,
            }
        }
        offered.extend(memory::offered(&manifest, |tool| self.is_built_in(tool)));
        offered.extend(mail::offered(&manifest, |tool| self.is_built_in(tool)));
        whole &= offered.iter().all(|tool| tool.fixed);
        let module = self.shared.parts.tools.agent(&self.catalog, &manifest).await.map_err(unusable)?;
        let (catalog, shared, agent) = (Arc::clone(&self.catalog), Arc::clone(&self.shared), name.clone());
        let assembled = blocking(move || {
            let settings = catalog.manifest().map_err(|error| reasons(&error))?;
            let read = |path: &TreePath| {
                let bytes = catalog.read(path).map_err(|error| reasons(&error))?;
                String::from_utf8(bytes.into()).map_err(|_| format!("{path} is not UTF-8"))
            };
            Agent::assemble(Parts {
                workspace: &catalog.workspace,
                revision: catalog.revision,
                manifest,
                settings: &settings,
                offered,
                module,
                away,
                read: &read,
                providers: shared.parts.models.providers(),
                chat_tool: &|provider, tool, timeout| {
                    Arc::new(ChatTool {
                        provider: provider.clone(),
                        tool: tool.clone(),
                        agent: agent.clone(),
                        timeout,
                        tools: shared.parts.tools.clone(),
                        catalog: Arc::clone(&catalog),
                    })
                },
            })
        });
        let agent = Arc::new(assembled.await.map_err(unusable)?);
        if whole {
            self.shared.agents.keep(&self.catalog, name, &agent);
        }
        Ok(agent)
    }

    /// What an agent remembers in this turn.
    fn memory<'a>(&'a self, manifest: &'a AgentManifest) -> AgentMemory<'a> {
        let parts = &self.shared.parts;
        let (memories, backends) = (&parts.memories, &parts.memory_backends);
        let workspace = &self.catalog.workspace;
        let (catalogs, share) = (&parts.catalogs, parts.memory.share);
        AgentMemory { memories, backends, catalogs, share, workspace, asker: &self.asker, manifest }
    }

    /// A digest of a tool's folder as it is deployed, names and contents; of nothing for a built-in tool.
    pub(super) fn files_of(&self, tool: Option<&ToolName>) -> Digest {
        let folder = tool.map(|tool| format!("tools/{tool}/")).unwrap_or_default();
        let files = self
            .catalog
            .tree
            .files()
            .iter()
            .filter(|(path, _)| !folder.is_empty() && path.as_str().starts_with(&folder));
        let parts: Vec<&[u8]> = files
            .flat_map(|(path, file)| [path.as_str().as_bytes(), b"\0", file.digest.as_bytes().as_slice()])
            .collect();
        Digest::of_parts(parts)
    }

    /// Whether the node itself has this tool, and no folder of the workspace has its place.
    fn is_built_in(&self, tool: &ToolName) -> bool {
        BUILT_IN_TOOLS.contains(&tool.as_str()) && !self.catalog.tools().contains_key(tool)
    }

    async fn manifest(&self, name: &AgentName) -> Result<Arc<AgentManifest>, AgentProblem> {
        let absent = || AgentProblem::Absent { agent: name.clone(), workspace: self.catalog.workspace.clone() };
        let entry = Arc::clone(self.catalog.agents().get(name).ok_or_else(absent)?);
        let read = blocking(move || entry.manifest().map_err(|error| reasons(&error)));
        read.await.map_err(|problem| AgentProblem::Unusable { agent: name.clone(), problem })
    }

    /// A line for each capability, in the order of the agents' names.
    async fn all_lines(&self) -> String {
        let catalog = Arc::clone(&self.catalog);
        let lines = blocking(move || {
            let mut lines = Vec::new();
            let mut more = 0_usize;
            for entry in catalog.agents().values() {
                if lines.len() >= LINES_MAX {
                    more += 1;
                    continue;
                }
                let Ok(manifest) = entry.manifest() else { continue };
                lines.extend(manifest.capabilities.iter().map(|capability| {
                    let words =
                        [capability.description.as_str(), capability.patterns.first().map_or("", String::as_str)];
                    let what = words.into_iter().find(|words| !words.is_empty()).unwrap_or(&manifest.description);
                    format!("- {}: {what}", capability.name)
                }));
            }
            if more > 0 {
                lines.push(format!("and those of {more} more agents: say what it is about"));
            }
            Ok::<_, String>(lines.join("\n"))
        });
        lines.await.unwrap_or_default()
    }
}

impl World for CatalogWorld {
    fn workspace(&self) -> &WorkspaceId {
        &self.catalog.workspace
    }

    fn asked_by(&self) -> Option<&str> {
        Some(self.asker.subject())
    }

    fn agent<'a>(&'a self, name: &'a AgentName) -> BoxFuture<'a, Result<Arc<Agent>, AgentProblem>> {
        Box::pin(self.assemble(name))
    }

    fn find<'a>(&'a self, wanted: Wanted<'a>, except: &'a [AgentName]) -> BoxFuture<'a, Result<AgentMatch, NotFound>> {
        Box::pin(routing::find(&self.shared.parts.router, &self.catalog, wanted, except))
    }

    fn capabilities<'a>(&'a self, about: Option<&'a str>) -> BoxFuture<'a, String> {
        Box::pin(async move {
            let Some(about) = about.filter(|about| !about.trim().is_empty()) else { return self.all_lines().await };
            let nearest = routing::nearest(&self.shared.parts.router, &self.catalog, about, LINES_MAX).await;
            let lines: Vec<String> =
                nearest.iter().map(|found| format!("- {} (fits {:.2})", found.capability, found.score)).collect();
            if lines.is_empty() { "nothing here comes near to that".to_owned() } else { lines.join("\n") }
        })
    }

    fn recall<'a>(&'a self, agent: &'a Agent, request: &'a str) -> BoxFuture<'a, String> {
        Box::pin(async move { self.memory(&agent.manifest).recalled(request).await })
    }

    fn call_tool<'a>(&'a self, call: Invocation<'a>) -> BoxFuture<'a, Result<ToolOutput, String>> {
        if let Some(tool) = MemoryTool::of(call.server.as_str()).filter(|_| self.is_built_in(call.server)) {
            return Box::pin(async move {
                let manifest = self.manifest(call.agent).await.map_err(|problem| problem.to_string())?;
                self.memory(&manifest).call(tool, &call).await
            });
        }
        if let Some(tool) = MailTool::of(call.server.as_str()).filter(|_| self.is_built_in(call.server)) {
            let (catalog, asker, agent) = (&self.catalog, &self.asker, call.agent);
            return Box::pin(async move {
                AgentMail { shared: &self.shared, catalog, asker, agent }.call(tool, &call).await
            });
        }
        Box::pin(toolbox::call(&self.shared.parts.tools, &self.catalog, call))
    }
}

/// Reading and parsing files leaves the threads that serve.
async fn blocking<R: Send + 'static>(work: impl FnOnce() -> Result<R, String> + Send + 'static) -> Result<R, String> {
    match crate::tasks::blocking(work).await {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}
