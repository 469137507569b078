//! What stops no deployment and will stop the first message: no agent at all, or none that has a model to ask.
//!
//! It is for people at a command line. A node does not ask for it: a workspace may well be deployed before its models are
//! named.

use std::collections::BTreeSet;

use caxton_proto::ProviderName;
use caxton_proto::diagnostic::{Diagnostic, code};
use caxton_proto::manifest::provider::{ProviderKind, ProviderRef};
use caxton_proto::manifest::workspace::WORKSPACE_FILE;
use caxton_proto::manifest::{AgentManifest, WorkspaceManifest, locate};
use caxton_proto::tree::TreePath;

use super::{CheckedWorkspace, Workspace};

/// How many agents are named in a sentence.
const NAMED_MAX: usize = 5;

/// What an agent lacks to answer.
enum Lack<'w> {
    /// It names no provider, and there is no default.
    Provider,
    /// Nobody names a model for the provider that it asks.
    Model(&'w ProviderName),
}

fn lack<'w>(
    agent: &'w AgentManifest,
    workspace: &'w WorkspaceManifest,
    default: Option<&'w ProviderRef>,
) -> Option<Lack<'w>> {
    // A program may well ask no model.
    if agent.module.is_some() && agent.llm.provider.is_none() {
        return None;
    }
    let Some(asked) = agent.llm.provider.as_ref().or(default) else { return Some(Lack::Provider) };
    let name = asked.named()?;
    let provider = workspace.providers.get(name)?;
    match provider.kind {
        ProviderKind::Scripted { .. } | ProviderKind::Wasm { .. } => return None,
        ProviderKind::OpenAi { .. } | ProviderKind::Ollama { .. } | ProviderKind::Anthropic { .. } => {}
    }
    let of_workspace = agent.llm.provider.is_none() || agent.llm.provider == workspace.llm.provider;
    let model = agent.llm.model.as_ref().or(workspace.llm.model.as_ref().filter(|_| of_workspace));
    model.or(provider.model.as_ref()).is_none().then_some(Lack::Model(name))
}

/// Everything that a person should know before the first message.
pub fn advice(input: &Workspace<'_>, checked: &CheckedWorkspace) -> Vec<Diagnostic> {
    let workspace = &*checked.workspace;
    let mut found = Vec::new();
    if checked.agents.is_empty() {
        let help = "add one: `caxton init agent NAME` makes it from a template, in agents/NAME/";
        let problem = Diagnostic::warning(code::NO_AGENTS, WORKSPACE_FILE, "there is no agent in this workspace");
        found.push(place(input, problem.help(help), &["workspace"], "nobody answers"));
        return found;
    }
    let default = workspace.default_provider();
    let (mut without, mut models) = (Vec::new(), BTreeSet::new());
    let mut lacking = 0;
    for (name, agent) in &checked.agents {
        match lack(&agent.manifest, workspace, default.as_ref()) {
            Some(Lack::Provider) => without.push(name.as_str()),
            Some(Lack::Model(provider)) => _ = models.insert(provider),
            None => continue,
        }
        lacking += 1;
    }
    let nobody = if lacking == checked.agents.len() { "no agent can answer: " } else { "" };
    let names = workspace.providers.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if !without.is_empty() && workspace.providers.is_empty() {
        let message = match nobody {
            "" => format!("no model is named for {}", few(&without)),
            nobody => format!("{nobody}no model is named"),
        };
        let help = "write [providers.main] with kind = \"openai\", \"anthropic\" or \"ollama\", and model = \"...\"; docs/providers.md \
                    has each. `caxton init --provider demo` makes a workspace that answers without one";
        let problem = Diagnostic::warning(code::NO_MODEL, WORKSPACE_FILE, message).help(help);
        found.push(place(input, problem, &["workspace"], "no [providers.NAME] in this file"));
    } else if !without.is_empty() {
        let message =
            format!("{nobody}there are the providers {names}, none is the default, and {} name none", few(&without));
        let first = workspace.providers.keys().next().map_or_else(String::new, ToString::to_string);
        let help = format!("write provider = \"{first}\" under [llm], here or in the agent's file");
        let problem = Diagnostic::warning(code::NO_DEFAULT_PROVIDER, WORKSPACE_FILE, message).help(help);
        found.push(place(input, problem, &["providers"], "several, and no default"));
    }
    for provider in models {
        let message = format!("{nobody}no model is named for the provider `{provider}`");
        let help = format!("write model = \"...\" under [providers.{provider}], or under [llm] of the agent's file");
        let problem = Diagnostic::warning(code::NO_MODEL, WORKSPACE_FILE, message).help(help);
        found.push(place(input, problem, &["providers", provider.as_str()], "no `model`"));
    }
    found
}

/// The agents in a sentence; of many, the first ones.
fn few(names: &[&str]) -> String {
    let shown: Vec<String> = names.iter().take(NAMED_MAX).map(|name| format!("`{name}`")).collect();
    match names.len().saturating_sub(NAMED_MAX) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn place(input: &Workspace<'_>, problem: Diagnostic, keys: &[&str], label: &str) -> Diagnostic {
    let find = || {
        let (path, file): (&TreePath, _) = input.tree.files().get_key_value(WORKSPACE_FILE)?;
        let bytes = (input.read)(path, file).ok()?;
        let text = std::str::from_utf8(&bytes).ok()?;
        let span = locate(text, keys, None)?;
        Some(caxton_proto::diagnostic::Source { path, text }.place(span))
    };
    match find() {
        Some(place) => problem.at(place, label),
        None => problem,
    }
}
