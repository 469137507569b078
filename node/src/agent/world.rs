//! What a turn reaches beyond itself: other agents, tools and the list of what can be asked for.
//!
//! The driver knows nothing of catalogs, sandboxes or embeddings; whoever starts it says what stands behind these calls.

use std::sync::Arc;
use std::time::Instant;

use caxton_proto::{AgentName, ToolName, WorkspaceId};
use futures::future::BoxFuture;
use semver::{Version, VersionReq};
use serde_json::Value;

use super::Agent;
use super::attachments::Attachment;
use super::wanted::{NoVersion, Wanted};

/// One workspace, as one revision of it is served.
pub trait World: Send + Sync + 'static {
    fn workspace(&self) -> &WorkspaceId;

    /// The subject of the token of whoever sent the message, where that is known.
    fn asked_by(&self) -> Option<&str>;

    /// An agent by name.
    fn agent<'a>(&'a self, name: &'a AgentName) -> BoxFuture<'a, Result<Arc<Agent>, AgentProblem>>;

    /// The agent that can best do what is wanted; those of `except` are left out.
    fn find<'a>(&'a self, wanted: Wanted<'a>, except: &'a [AgentName]) -> BoxFuture<'a, Result<AgentMatch, NotFound>>;

    /// What can be asked for, a line each, for a model; the best first where it is about something.
    fn capabilities<'a>(&'a self, about: Option<&'a str>) -> BoxFuture<'a, String>;

    /// What is remembered of a request, as the agent's prompt has it; nothing where it does not remember.
    fn recall<'a>(&'a self, agent: &'a Agent, request: &'a str) -> BoxFuture<'a, String>;

    /// Calls a tool. The error is for the model.
    fn call_tool<'a>(&'a self, call: Invocation<'a>) -> BoxFuture<'a, Result<ToolOutput, String>>;
}

/// Why an agent cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgentProblem {
    /// There is none of this name.
    #[error("there is no agent `{agent}` in workspace `{workspace}`")]
    Absent { agent: AgentName, workspace: WorkspaceId },
    /// Its files cannot be used.
    #[error("the agent `{agent}` cannot be used: {problem}")]
    Unusable {
        agent: AgentName,
        /// Why, and what to do.
        problem: String,
    },
}

/// An agent that can do what was wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentMatch {
    pub agent: AgentName,
    /// The capability that fits.
    pub capability: String,
    /// How well, 0 to 1.
    pub score: f32,
}

/// Why nobody was found who can do what was wanted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NotFound {
    /// There are no agents.
    #[error("there is no agent in workspace `{workspace}`")]
    NoAgents { workspace: WorkspaceId },
    /// Nobody can do it.
    #[error("no agent here can do that{}", nearest_text(.nearest))]
    Nobody {
        /// What comes nearest.
        nearest: Vec<AgentMatch>,
    },
    /// Those who can do it do it in other versions.
    #[error("nobody has `{capability}` in a version that is {wanted}{}", versions_text(.offered))]
    OtherVersions {
        /// What was wanted.
        capability: String,
        /// In which version.
        wanted: VersionReq,
        /// The versions that there are, and whose they are.
        offered: Vec<(AgentName, Version)>,
    },
    /// What stands behind the `@` is no version.
    #[error(transparent)]
    NoVersion(#[from] NoVersion),
    /// It is not known yet who can do it.
    #[error(
        "what the agents of workspace `{workspace}` can do is still being read; ask again in a moment, or name an agent"
    )]
    Preparing { workspace: WorkspaceId },
}

fn versions_text(offered: &[(AgentName, Version)]) -> String {
    let all: Vec<String> = offered.iter().map(|(agent, version)| format!("{version} ({agent})")).collect();
    if all.is_empty() { String::new() } else { format!("; there is {}", all.join(", ")) }
}

fn nearest_text(nearest: &[AgentMatch]) -> String {
    let names: Vec<String> = nearest.iter().map(|found| format!("{} ({})", found.capability, found.agent)).collect();
    if names.is_empty() { String::new() } else { format!("; the nearest are {}", names.join(", ")) }
}

/// A call of a tool.
#[derive(Debug)]
pub struct Invocation<'a> {
    pub agent: &'a AgentName,
    /// The tool's folder.
    pub server: &'a ToolName,
    /// The function of it.
    pub function: &'a str,
    /// The arguments, files in the place of their names.
    pub arguments: Value,
    /// The model has read what tools or strangers said, so that what it keeps may come from there.
    pub heard_others: bool,
    /// The calls that lead to this one, from the outermost run on, each on a line; empty where it is no call of a model's.
    pub way: String,
    /// The same for every attempt at this step.
    pub step_key: String,
    /// When nobody waits any more.
    pub deadline: Instant,
}

/// What a call gave.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ToolOutput {
    /// Text, for the model.
    pub text: String,
    /// A JSON object, which the model reads instead of the text when there is one: it says what the text says as well.
    pub structured: Option<Value>,
    /// The tool ran and could not do what it was asked.
    pub failed: bool,
    /// What comes of it is not there yet: the turn is put down, and gone on with once it is.
    pub awaited: bool,
    /// Files that came of it.
    pub attachments: Vec<Attachment>,
}
