//! An agent's file: who it is, what it can do, what it says to a language model and which tools it may call.
//!
//! Two forms are read into one type: tables (`[agent]`, `[capabilities]`, `[prompts]`, ...), and the older flat form
//! (`name`, `capabilities = [..]`, `tools = [..]`, `system_prompt`, ...). A file has the flat form when it has no
//! `[agent]`; every other table can be in both.

mod identity;

mod messages;

mod module;

mod reader;

mod schedule;

use std::time::Duration;

use semver::Version;
use serde::Serialize;

pub use messages::{CONCURRENCY_MAX, Messages};
pub use module::{Module, ModuleKind};
pub use schedule::{InvalidWhen, SCHEDULE_NAME_BYTES_MAX, SCHEDULES_MAX, Schedule, Ticks, When};

pub use super::limits::{FALLBACK_MAX, FIRST_VERSION, LINE_BYTES_MAX, WORD_BYTES_MAX};
use super::prompt::{Parameters, Prompt};
use super::provider::{Budget, Fallback, ProviderRef};
use super::read::Document;
use super::units::serialize_duration;
use crate::diagnostic::{Diagnostic, Severity};
use crate::tree::TreePath;
use crate::{AgentName, CapabilityName, ToolName};

/// Tools that every node has: they reach other agents and what is remembered, and need no folder under `tools/`. A workspace
/// that has a folder of such a name has that tool in its place.
pub const BUILT_IN_TOOLS: [&str; 12] = [
    "ask_capability",
    "list_capabilities",
    "remember",
    "recall",
    "relate",
    "forget",
    "send_message",
    "reply",
    "publish",
    "subscribe",
    "call_for_proposals",
    "award",
];

/// The most capabilities of one agent.
pub const CAPABILITIES_MAX: usize = 64;
/// The most patterns, or examples, of one capability.
pub const EXAMPLES_MAX: usize = 256;
/// The longest prompt or documentation inside an agent's file, in bytes.
pub const PROMPT_BYTES_MAX: usize = 128 << 10;
/// The most tools that one agent names.
pub const TOOLS_MAX: usize = 128;
/// The most parameters of one agent.
pub const PARAMETERS_MAX: usize = 64;
/// What an agent's file says, checked as far as the file alone can be.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AgentManifest {
    /// The name by which it is called, which is its file's.
    pub name: AgentName,
    /// How it is shown to people, where its file gives a name that is not the one by which it is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// An identity of its own that survives a new name; unique in the workspace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The agent's version, 0.1.0 unless given.
    pub version: Version,
    /// What it is for, in a sentence.
    pub description: String,
    /// What its users should know; Markdown.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub documentation: String,
    /// What it can do; messages find it by these.
    pub capabilities: Vec<Capability>,
    /// What it says to the model.
    pub prompts: Prompts,
    /// What it may call.
    pub tools: Tools,
    /// The program that it is, where it is one; else it is a language model with prompts.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub module: Option<Module>,
    /// Which model it asks, and how.
    pub llm: Llm,
    /// What it remembers.
    pub memory: Memory,
    /// Which messages of its mailbox it is given, and how.
    #[serde(skip_serializing_if = "Messages::is_absent")]
    pub messages: Messages,
    /// How far one turn may go.
    pub limits: Limits,
    /// What it may spend in a day.
    pub budget: Budget,
    /// What a person has to allow first.
    pub approval: Approval,
    /// Its parameters with their default values.
    pub parameters: Parameters,
    /// When it is sent a message without anybody sending one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub schedules: Vec<Schedule>,
}

/// Something that an agent can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Capability {
    /// Its name; several agents may offer the same.
    pub name: CapabilityName,
    /// Its version: the agent's unless it has its own.
    pub version: Version,
    /// What it is, in a sentence.
    pub description: String,
    /// Short phrases that say what is asked for: "analyze data", "plot a chart".
    pub patterns: Vec<String>,
    /// Whole messages that belong here; ten good ones make routing reliable.
    pub examples: Vec<String>,
}

/// What an agent says to the model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Prompts {
    /// Who it is and how it works.
    pub system: Option<Prompt>,
    /// How a request is put; the bare request when there is none.
    pub user: Option<Prompt>,
}

/// What an agent may call. It reaches no other tool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tools {
    /// Without these it is not deployed.
    pub required: Vec<ToolName>,
    /// These it uses where the workspace has them.
    pub optional: Vec<ToolName>,
}

impl Tools {
    /// All of them, the required ones first.
    pub fn all(&self) -> impl Iterator<Item = &ToolName> {
        self.required.iter().chain(&self.optional)
    }
}

/// Which model an agent asks, and how. What it leaves open, the workspace's `[llm]` and `[providers]` say.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Llm {
    /// One of the workspace's providers, or a tool in the place of one.
    pub provider: Option<ProviderRef>,
    /// A model of that provider.
    pub model: Option<String>,
    /// How freely it answers, 0 to 2.
    pub temperature: Option<f64>,
    /// The most tokens of one answer.
    pub max_tokens: Option<u32>,
    /// Who is asked when the provider fails, in this order.
    pub fallback: Vec<Fallback>,
}

/// What an agent remembers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Memory {
    /// Whether it remembers at all: it does once it has a `[memory]`.
    pub enabled: bool,
    /// With whom it shares what it remembers.
    pub scope: MemoryScope,
    /// Whether each exchange is remembered without being told.
    pub auto_store: bool,
    /// Whether a model draws facts out of each exchange, after it was answered.
    pub extract: bool,
    /// How many tokens that may use in a day, which are none of the agent's own.
    pub extract_tokens_per_day: u64,
    /// How many memories come into a prompt.
    pub search_limit: u32,
    /// How near to the message a memory has to be, 0 to 1.
    pub min_similarity: f64,
    /// How many tokens of a prompt they may take together.
    pub tokens_max: u32,
}

/// With whom an agent shares its memories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryScope {
    /// With nobody: each conversation has its own.
    Conversation,
    /// Between its own conversations.
    Agent,
    /// With every agent, in the conversations of the same person.
    Subject,
    /// With every agent of the workspace.
    Workspace,
    /// With every agent of the workspace, and with those of other workspaces where the node and both workspaces say so.
    Global,
}

impl Default for Memory {
    fn default() -> Memory {
        let scope = MemoryScope::Agent;
        Memory {
            enabled: false,
            scope,
            auto_store: false,
            extract: false,
            extract_tokens_per_day: 100_000,
            search_limit: 5,
            min_similarity: 0.3,
            tokens_max: 1_500,
        }
    }
}

/// How far one turn may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Calls of the model.
    pub steps_max: u32,
    /// Tokens, in and out together.
    pub tokens_max: u64,
    /// Time from the message to the answer, without the wait for an approval.
    #[serde(serialize_with = "serialize_duration")]
    pub wall_time: Duration,
    /// How many agents may stand in a row, each having asked the next.
    pub delegation_depth_max: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        let wall_time = Duration::from_secs(120);
        Limits { steps_max: 20, tokens_max: 200_000, wall_time, delegation_depth_max: 5 }
    }
}

/// What a person has to allow first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Approval {
    /// Calls of these tools wait for an answer.
    pub tools: Vec<ToolName>,
}

impl AgentManifest {
    /// Reads an agent's file; on failure gives every error in it (and its warnings).
    pub fn parse(path: &TreePath, text: &str) -> Result<AgentManifest, Vec<Diagnostic>> {
        match AgentManifest::read(path, text) {
            (Some(manifest), _) => Ok(manifest),
            (None, found) => Err(found),
        }
    }

    /// Reads an agent's file; gives the manifest unless there was an error, and everything that was noticed.
    pub fn read(path: &TreePath, text: &str) -> (Option<AgentManifest>, Vec<Diagnostic>) {
        let document = match Document::parse(path, text) {
            Ok(document) => document,
            Err(found) => return (None, found),
        };
        let manifest = reader::agent(&document);
        let mut found = document.into_found();
        crate::diagnostic::sort(&mut found);
        let failed = found.iter().any(|problem| problem.severity == Severity::Error);
        (manifest.filter(|_| !failed), found)
    }

    /// The name that an agent's file has to carry: NAME of `agents/NAME.toml` and of `agents/NAME/agent.toml`.
    pub fn name_of(path: &TreePath) -> Option<&str> {
        let mut parts = path.parts();
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("agents"), Some(file), None, None) => file.strip_suffix(".toml"),
            (Some("agents"), Some(folder), Some("agent.toml"), None) => Some(folder),
            _ => None,
        }
    }
}
