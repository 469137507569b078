//! The tools that the node itself has, for the agents whose files name them: ask whoever can do it, and list what can be
//! asked for; those of the memory are below.

pub mod mail;
pub mod memory;

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::wanted::Wanted;
use crate::llm::ToolDefinition;

/// Asks an agent by what it can do.
pub const ASK_CAPABILITY: &str = "ask_capability";
/// Lists what agents can do.
pub const LIST_CAPABILITIES: &str = "list_capabilities";
/// A request to another agent has at most this many bytes.
const REQUEST_BYTES_MAX: usize = 256 << 10;

/// A request to whichever agent can do it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AskCapability {
    /// What is wanted, with everything that is needed to do it.
    pub request: String,
    /// What the agent must be able to do, in a few words; the request itself when absent.
    #[serde(default)]
    pub capability: Option<String>,
}

/// What is listed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ListCapabilities {
    /// Only what fits this, the best first.
    #[serde(default)]
    pub about: Option<String>,
}

impl AskCapability {
    /// Checks a model's arguments; the error is for the model.
    pub fn parse(arguments: Map<String, Value>) -> Result<AskCapability, String> {
        let asked: AskCapability = serde_json::from_value(Value::Object(arguments)).map_err(|error| {
            format!("{error}; the arguments are request (text) and, if you like, capability (text)")
        })?;
        if asked.request.trim().is_empty() {
            return Err("request is empty: say what you want done".to_owned());
        }
        if asked.request.len() > REQUEST_BYTES_MAX {
            return Err(format!("request has {} bytes, and {REQUEST_BYTES_MAX} is the most", asked.request.len()));
        }
        let capability = asked.capability.filter(|capability| !capability.trim().is_empty());
        Ok(AskCapability { request: asked.request, capability })
    }

    /// What finds the agent.
    pub fn wanted(&self) -> Wanted<'_> {
        self.capability.as_deref().map_or(Wanted::Text(&self.request), Wanted::Capability)
    }
}

impl ListCapabilities {
    /// Checks a model's arguments; the error is for the model.
    pub fn parse(arguments: Map<String, Value>) -> Result<ListCapabilities, String> {
        serde_json::from_value(Value::Object(arguments))
            .map_err(|error| format!("{error}; the only argument is about (text), and it may be left out"))
    }
}

/// The definitions of the tools by which an agent reaches others.
pub fn asking() -> [ToolDefinition; 2] {
    let ask = json!({
        "type": "object",
        "properties": {
            "request": { "type": "string",
                "description": "What you want, complete: the other agent sees nothing else of this conversation. \
                    Name attachments as they were named to you (attachment:NAME) to hand them on." },
            "capability": { "type": "string",
                "description": "What the agent must be able to do, in a few words, such as \"read CSV files\"; or a \
                    capability's name, where it matters with a version, such as \"read-csv@^1.2\"." }
        },
        "required": ["request"]
    });
    let list = json!({
        "type": "object",
        "properties": {
            "about": { "type": "string", "description": "List only what fits this; leave it out to list everything." }
        }
    });
    [
        ToolDefinition {
            name: ASK_CAPABILITY.to_owned(),
            description:
                "Asks another agent, chosen by what it can do, and gives its answer. Use it for anything that \
                your own tools cannot do."
                    .to_owned(),
            parameters: Arc::new(ask),
        },
        ToolDefinition {
            name: LIST_CAPABILITIES.to_owned(),
            description: "Lists what the other agents can do.".to_owned(),
            parameters: Arc::new(list),
        },
    ]
}

/// Whether a name belongs to a built-in tool.
pub fn is_built_in(name: &str) -> bool {
    let has_tool = memory::MemoryTool::of(name).is_some() || mail::MailTool::of(name).is_some();
    name == ASK_CAPABILITY || name == LIST_CAPABILITIES || has_tool
}
