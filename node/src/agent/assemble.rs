//! An agent as turns use it: its file, its prompts, its tools' definitions and the chain of its models.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use caxton_proto::manifest::agent::AgentManifest;
use caxton_proto::manifest::prompt::{Parameters, Prompt, Template, Values};
use caxton_proto::manifest::provider::{Fallback, Price, ProviderKind, ProviderRef, TIMEOUT};
use caxton_proto::manifest::workspace::WorkspaceManifest;
use caxton_proto::tree::TreePath;
use caxton_proto::{Revision, ToolName, WorkspaceId};
use caxton_tools::SandboxedAgent;
use serde_json::Value;

use super::turn::{Gate, Limits};
use crate::llm::budget::Payer;
use crate::llm::models::{Target, Voice};
use crate::llm::providers::{Backend, Providers, Speech};
use crate::llm::{Account, Error, Provider, ToolDefinition};

/// A chain has at most this many models.
const TARGETS_MAX: usize = 16;

/// An agent, ready to begin turns.
#[derive(Debug)]
pub struct Agent {
    pub manifest: Arc<AgentManifest>,
    /// The revision that it is of.
    pub revision: Revision,
    /// What it may call.
    pub tools: Vec<AgentTool>,
    /// The built-in tools that its file names by which it reaches other agents, and whether a person is asked first.
    pub asking: Vec<(ToolDefinition, Gate)>,
    /// The program that it is, loaded, where it is one.
    pub module: Option<SandboxedAgent>,
    /// Whom it asks, in this order.
    pub targets: Vec<Target>,
    pub account: Account,
    /// Tools that its file names and that cannot be used now.
    away: Vec<ToolName>,
    system: Option<Template>,
    user: Option<Template>,
}

/// A function of a tool that an agent's file names.
#[derive(Debug, Clone)]
pub struct AgentTool {
    /// As the model knows it.
    pub definition: ToolDefinition,
    /// Whether a person is asked first.
    pub gate: Gate,
    /// The tool's folder.
    pub server: ToolName,
    /// The function of it.
    pub function: String,
    /// Calling it once more does no harm.
    pub repeatable: bool,
}

impl AgentTool {
    /// Whether the node itself does what the tool does.
    pub fn is_built_in(&self) -> bool {
        self.server.as_str() == self.function && super::builtin::is_built_in(&self.function)
    }
}

/// One function that a tool offers.
#[derive(Debug, Clone)]
pub struct OfferedFunction {
    /// The tool's folder.
    pub server: ToolName,
    /// The function of it.
    pub function: String,
    /// What it does.
    pub description: String,
    /// The JSON Schema of its arguments.
    pub parameters: Arc<Value>,
    /// It stays as it is as long as the revision does; a server outside may change its mind.
    pub fixed: bool,
    /// Its tool.toml says that a call can be repeated: `idempotent = true`.
    pub repeatable: bool,
}

/// What an agent is made of.
pub struct Parts<'a> {
    /// Where it lives.
    pub workspace: &'a WorkspaceId,
    pub revision: Revision,
    pub manifest: Arc<AgentManifest>,
    /// The program that it is, where it is one.
    pub module: Option<SandboxedAgent>,
    pub settings: &'a WorkspaceManifest,
    /// What the tools that its file names offer, in the file's order.
    pub offered: Vec<OfferedFunction>,
    /// Tools that its file names and that cannot be used now, because their servers are away.
    pub away: Vec<ToolName>,
    /// Reads a file of the workspace.
    pub read: &'a dyn Fn(&TreePath) -> Result<String, String>,
    /// The node's providers.
    pub providers: &'a Providers,
    /// A tool of the workspace in the place of a provider, which may take so long.
    pub chat_tool: &'a dyn Fn(&ProviderRef, &ToolName, Duration) -> Arc<dyn Provider>,
}

impl Agent {
    /// Puts an agent together. A model that cannot be used is an error only when it is asked: another one of the chain
    /// may do.
    pub fn assemble(parts: Parts<'_>) -> Result<Agent, String> {
        let manifest = &parts.manifest;
        let system = manifest.prompts.system.as_ref().map(|prompt| template(prompt, &parts)).transpose()?;
        let user = manifest.prompts.user.as_ref().map(|prompt| template(prompt, &parts)).transpose()?;
        let targets = chain(&parts);
        let approval = &manifest.approval.tools;
        let account = Account {
            workspace: parts.workspace.clone(),
            agent: manifest.name.clone(),
            payer: Payer::Turns,
            workspace_budget: parts.settings.budget,
            agent_budget: manifest.budget,
        };
        let gate = |waits: bool| if waits { Gate::Approval } else { Gate::Open };
        let tools = name_tools(parts.offered, |server| gate(approval.contains(server)));
        let is_named = |definition: &ToolDefinition| manifest.tools.all().any(|name| name.as_str() == definition.name);
        let asking = super::builtin::asking().into_iter().filter(is_named).map(|definition| {
            let waits = approval.iter().any(|name| name.as_str() == definition.name);
            (definition, gate(waits))
        });
        let asking = asking.collect();
        let Parts { manifest, revision, away, module, .. } = parts;
        Ok(Agent { manifest, revision, tools, asking, module, targets, account, away, system, user })
    }

    /// What a turn of this agent may use.
    pub fn limits(&self) -> Limits {
        let limits = &self.manifest.limits;
        Limits {
            steps_max: limits.steps_max,
            tokens_max: limits.tokens_max,
            wall_ms_max: u64::try_from(limits.wall_time.as_millis()).unwrap_or(u64::MAX),
            depth_max: limits.delegation_depth_max.saturating_sub(1), // The first agent stands in the row too.
            ..Limits::default()
        }
    }

    /// What the model is told of itself, and the request as it is put to it. What a sender gives stands over the agent's
    /// own parameters, and where no placeholder names it, below the request. `context` is what is remembered and the files
    /// of the message: it stands where a prompt says `{{context}}`, and after the request where none does.
    pub fn prompts(&self, request: &str, context: &str, given: &Parameters) -> (Option<String>, String) {
        let mut parameters = self.manifest.parameters.clone();
        parameters.extend(given.iter().map(|(name, value)| (name.clone(), value.clone())));
        let values = Values { request, context, parameters: &parameters };
        let mut system = self.system.as_ref().map(|template| template.render(&values));
        if !self.away.is_empty() {
            let names: Vec<&str> = self.away.iter().map(ToolName::as_str).collect();
            let note = format!(
                "These of your tools cannot be used at the moment, because their servers are away: {}. Where you would need \
                 one of them, say so.",
                names.join(", ")
            );
            system = Some(system.map_or_else(|| note.clone(), |text| format!("{text}\n\n{note}")));
        }
        let mut user = self.user.as_ref().map_or_else(|| request.to_owned(), |template| template.render(&values));
        let templates = || [&self.system, &self.user].into_iter().flatten();
        let unread: Vec<_> =
            given.iter().filter(|(name, _)| !templates().any(|template| template.reads_parameter(name))).collect();
        if !unread.is_empty() {
            user.push_str("\n\nParameters:");
            unread.iter().for_each(|(name, value)| user.push_str(&format!("\n- {name}: {value}")));
        }
        if !templates().any(Template::reads_context) {
            user.push_str(context);
        }
        (system, user)
    }

    /// The tool that the model knows by this name.
    pub fn tool(&self, name: &str) -> Option<&AgentTool> {
        self.tools.iter().find(|tool| tool.definition.name == name)
    }
}

fn template(prompt: &Prompt, parts: &Parts<'_>) -> Result<Template, String> {
    match prompt {
        Prompt::Text(template) => Ok(template.clone()),
        Prompt::File(path) => {
            let text = (parts.read)(path)?;
            Template::parse(&text, &parts.manifest.parameters).map_err(|errors| {
                let first = errors.first().map(|error| format!("{:?}", error.problem)).unwrap_or_default();
                format!("the prompt {path} has a bad placeholder: {first}; deploy the workspace again to see where")
            })
        }
    }
}

/// The longest name of a function, and the characters in it, that every model's API takes.
const FUNCTION_BYTES_MAX: usize = 64;

/// A function keeps its own name where no other one of the agent has it and models take it, else its folder's name comes
/// before it, and what they do not take becomes `_`.
fn name_tools(offered: Vec<OfferedFunction>, gate: impl Fn(&ToolName) -> Gate) -> Vec<AgentTool> {
    let mut seen = BTreeSet::new();
    let twice: BTreeSet<String> =
        offered.iter().filter(|tool| !seen.insert(tool.function.clone())).map(|tool| tool.function.clone()).collect();
    let mut given = BTreeSet::new();
    let named = offered.into_iter().map(|tool| {
        // A tool that is built in keeps its name.
        let taken = super::builtin::is_built_in(&tool.function) && tool.server.as_str() != tool.function;
        let wanted = match twice.contains(&tool.function) || taken {
            true => format!("{}__{}", tool.server, tool.function),
            false => tool.function.clone(),
        };
        let name = fitting(&wanted, &mut given);
        let OfferedFunction { server, function, description, parameters, fixed: _, repeatable } = tool;
        let definition = ToolDefinition { name, description, parameters };
        AgentTool { definition, gate: gate(&server), server, function, repeatable }
    });
    named.collect()
}

/// A name like this one that models take and that was not given yet.
fn fitting(wanted: &str, given: &mut BTreeSet<String>) -> String {
    let fits = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' };
    let base: String = wanted.chars().map(fits).take(FUNCTION_BYTES_MAX).collect();
    let numbered = |number: usize| match number {
        1 => base.clone(),
        _ => {
            let end = format!("_{number}");
            format!("{}{end}", &base[..base.len().min(FUNCTION_BYTES_MAX - end.len())])
        }
    };
    let name = (1..).map(numbered).find(|name| !given.contains(name)).unwrap_or_default();
    given.insert(name.clone());
    name
}

/// The agent's model, its fallbacks, then its provider's.
fn chain(parts: &Parts<'_>) -> Vec<Target> {
    let llm = &parts.manifest.llm;
    let settings = parts.settings;
    let Some(first) = llm.provider.clone().or_else(|| settings.default_provider()) else { return Vec::new() };
    let model = llm.model.clone().or_else(|| {
        let workspace_default = llm.provider.is_none() || llm.provider == settings.llm.provider;
        settings.llm.model.clone().filter(|_| workspace_default)
    });
    let mut targets = vec![target(&first, model.as_deref(), parts)];
    let declared = first.named().and_then(|name| settings.providers.get(name));
    let after = declared.map(|provider| provider.fallback.as_slice()).unwrap_or_default();
    for Fallback { provider, model } in llm.fallback.iter().chain(after).take(TARGETS_MAX - 1) {
        targets.push(target(provider, model.as_deref(), parts));
    }
    targets
}

fn target(asked: &ProviderRef, model: Option<&str>, parts: &Parts<'_>) -> Target {
    let name = match asked {
        ProviderRef::Named(name) => name,
        ProviderRef::Tool(tool) => {
            let provider = (parts.chat_tool)(asked, tool, TIMEOUT);
            return tool_target(asked, model.unwrap_or(tool.as_str()), provider, BTreeMap::new());
        }
    };
    let declared = parts.settings.providers.get(name);
    let model = model.or_else(|| declared.and_then(|provider| provider.model.as_deref()));
    let unusable = |error: Error| Voice::Unusable(Arc::new(error));
    let setup = |problem: String| Error::Setup { provider: name.to_string(), problem };
    let target = |model: &str, voice| Target { provider: name.to_string(), model: model.to_owned(), voice };
    let no_model =
        || unusable(setup(format!("no model is named; set model under [providers.{name}] or in the agent's [llm]")));
    let Some(declared) = declared else {
        return match (parts.providers.of_node(name.as_str()), model) {
            (Ok(backend), Some(model)) => target(model, Voice::Backend(backend)),
            (Ok(_), None) => target("", no_model()),
            (Err(error), model) => target(model.unwrap_or_default(), unusable(error)),
        };
    };
    match &declared.kind {
        ProviderKind::Scripted { script } => {
            let read = (parts.read)(script).map_err(setup).and_then(|text| Speech::parse(script.as_str(), &text));
            target(script.as_str(), read.map_or_else(unusable, Voice::Speech))
        }
        ProviderKind::Wasm { tool } => {
            let provider = (parts.chat_tool)(asked, tool, declared.timeout);
            tool_target(asked, model.unwrap_or(tool.as_str()), provider, declared.prices.clone())
        }
        ProviderKind::OpenAi { .. } | ProviderKind::Ollama { .. } | ProviderKind::Anthropic { .. } => {
            let backend = parts.providers.of_workspace(parts.workspace, name, declared);
            match (backend, model) {
                (Ok(Some(backend)), Some(model)) => target(model, Voice::Backend(backend)),
                (Ok(_), _) => target("", no_model()),
                (Err(error), model) => target(model.unwrap_or_default(), unusable(error)),
            }
        }
    }
}

/// A tool that is asked as a model.
fn tool_target(
    asked: &ProviderRef,
    model: &str,
    provider: Arc<dyn Provider>,
    prices: BTreeMap<String, Price>,
) -> Target {
    let provider_name = asked.to_string();
    let backend = Backend::new(&provider_name, provider, prices);
    Target { provider: provider_name, model: model.to_owned(), voice: Voice::Backend(Arc::new(backend)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_has_a_name_of_its_own_that_models_take() {
        let offered = |server: &str, function: &str| OfferedFunction {
            server: server.parse().unwrap(),
            function: function.to_owned(),
            description: String::new(),
            parameters: Arc::new(Value::Null),
            fixed: true,
            repeatable: false,
        };
        let long = "f".repeat(100);
        let tools = vec![
            offered("a", "look"),
            offered("b", "look"),
            offered("a", "repo.search"),
            offered("a", "repo_search"),
            offered("a", &long),
            offered("a", &format!("{long}g")),
            offered("a", "plain"),
        ];
        let named = name_tools(tools, |_| Gate::Open);
        let names: Vec<&str> = named.iter().map(|tool| tool.definition.name.as_str()).collect();
        let (first, second) = ("f".repeat(64), format!("{}_2", "f".repeat(62)));
        assert_eq!(names, ["a__look", "b__look", "repo_search", "repo_search_2", &first, &second, "plain"]);
        assert_eq!(named[2].function, "repo.search", "the server hears its own name");
    }
}
