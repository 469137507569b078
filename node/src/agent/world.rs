//! What a turn reaches beyond itself: other agents, tools and the list of what can be asked for.
//!
//! The driver knows nothing of catalogs, sandboxes or embeddings; whoever starts it says what stands behind these calls.

use std::sync::Arc;
use std::time::Instant;

use caxton_proto::{AgentName, CapabilityName, ToolName, WorkspaceId};
use futures::future::BoxFuture;
use semver::{Version, VersionReq};
use serde_json::Value;

use super::Agent;
use super::attachments::Attachment;

/// One workspace, as one revision of it is served.
pub trait World: Send + Sync + 'static {
    /// Which workspace.
    fn workspace(&self) -> &WorkspaceId;

    /// The subject of the token of whoever sent the message, where that is known.
    fn asked_by(&self) -> Option<&str>;

    /// An agent by name.
    fn agent<'a>(&'a self, name: &'a AgentName) -> BoxFuture<'a, Result<Arc<Agent>, AgentProblem>>;

    /// The agent that can best do what is wanted, which is a text, or where `named` a capability, as `read-csv` or
    /// `read-csv@^1.2`; those of `except` are left out.
    fn find<'a>(&'a self, wanted: Wanted<'a>, except: &'a [AgentName]) -> BoxFuture<'a, Result<AgentMatch, NotFound>>;

    /// What can be asked for, a line each, for a model; the best first where it is about something.
    fn capabilities<'a>(&'a self, about: Option<&'a str>) -> BoxFuture<'a, String>;

    /// What is remembered of a request, as the agent's prompt has it; nothing where it does not remember.
    fn recall<'a>(&'a self, agent: &'a Agent, request: &'a str) -> BoxFuture<'a, String>;

    /// Calls a tool. The error is for the model.
    fn call_tool<'a>(&'a self, call: Invocation<'a>) -> BoxFuture<'a, Result<ToolOutput, String>>;
}

/// What somebody is looked for to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// Whatever a text says.
    Text(&'a str),
    /// A capability: its name, with a version or without, or what it is in a few words.
    Capability(&'a str),
}

impl<'a> Wanted<'a> {
    /// What finds the agent, and the version that it must have: what stands behind the `@` of a capability's name.
    pub fn parse(self) -> Result<(&'a str, Option<VersionReq>), NotFound> {
        let text = match self {
            Wanted::Text(text) => return Ok((text, None)),
            Wanted::Capability(text) => text,
        };
        match text.trim().split_once('@') {
            Some((name, version)) if name.parse::<CapabilityName>().is_ok() => match version.parse() {
                Ok(version) => Ok((name, Some(version))),
                Err(error) => Err(NotFound::NoVersion { text: text.to_owned(), problem: error.to_string() }),
            },
            Some(_) | None => Ok((text, None)),
        }
    }
}

/// Why an agent cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgentProblem {
    /// There is none of this name.
    #[error("there is no agent `{agent}` in workspace `{workspace}`")]
    Absent {
        /// The name.
        agent: AgentName,
        /// Where.
        workspace: WorkspaceId,
    },
    /// Its files cannot be used.
    #[error("the agent `{agent}` cannot be used: {problem}")]
    Unusable {
        /// The name.
        agent: AgentName,
        /// Why, and what to do.
        problem: String,
    },
}

/// An agent that can do what was wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentMatch {
    /// Who.
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
    NoAgents {
        /// Where.
        workspace: WorkspaceId,
    },
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
    #[error("`{text}` names no version behind its `@`: {problem}; write one as in `read-csv@^1.2`, or leave it out")]
    NoVersion {
        /// What was wanted.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// It is not known yet who can do it.
    #[error(
        "what the agents of workspace `{workspace}` can do is still being read; ask again in a moment, or name an agent"
    )]
    Preparing {
        /// Where.
        workspace: WorkspaceId,
    },
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
    /// Whose turn.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_stands_behind_the_name_of_a_capability() {
        let parse =
            |text| Wanted::Capability(text).parse().map(|(name, version)| (name, version.map(|it| it.to_string())));
        for (text, name, version) in [
            ("read-csv", "read-csv", None),
            ("read-csv@^1.2", "read-csv", Some("^1.2")),
            (" read-csv@1 ", "read-csv", Some("^1")),
            ("read-csv@>=1.2, <3", "read-csv", Some(">=1.2, <3")),
            ("write to ann@example.org", "write to ann@example.org", None),
        ] {
            assert_eq!(parse(text), Ok((name, version.map(str::to_owned))), "{text}");
        }
        for bad in ["read-csv@", "read-csv@new", "read-csv@1@2"] {
            assert!(matches!(parse(bad), Err(NotFound::NoVersion { .. })), "{bad}");
        }
        // A message is no name, whatever is in it.
        assert_eq!(Wanted::Text("read-csv@^1.2").parse(), Ok(("read-csv@^1.2", None)));
    }
}
