//! Language model providers: what they name is there, and their fallbacks lead somewhere.

use std::collections::BTreeSet;

use caxton_proto::diagnostic::{Diagnostic, closest, code};
use caxton_proto::manifest::WorkspaceManifest;
use caxton_proto::manifest::backend::{BACKEND_FUNCTIONS, BackendKind};
use caxton_proto::manifest::provider::{CHAT_FUNCTION, Fallback, ProviderKind, ProviderRef};
use caxton_proto::manifest::workspace::WORKSPACE_FILE;
use caxton_proto::tree::TreePath;
use caxton_proto::{ProviderName, ToolName};

use super::{Check, CheckError, ToolModel, ToolPlace};
use crate::llm::scripted;

/// What providers' addresses of a call end in.
const CALLS: [&str; 6] =
    ["/chat/completions", "/v1/messages", "/completions", "/responses", "/embeddings", "/api/chat"];

impl Check<'_> {
    /// Checks the workspace's providers.
    pub(super) fn providers(&mut self) -> Result<(), CheckError> {
        let Some((path, _)) = self.input.tree.files().get_key_value(WORKSPACE_FILE) else { return Ok(()) };
        let Some(workspace) = self.workspace.clone() else { return Ok(()) };
        if let Some(wanted) = &workspace.llm.provider {
            self.known_provider(&workspace, wanted, path, &["llm", "provider"], None);
        }
        if let Some(BackendKind::Tool { tool }) = workspace.memory_backend.as_ref().map(|backend| &backend.kind) {
            self.known_tool(tool, path, (&["memory", "backend"], None), ToolPlace::MemoryBackend);
        }
        for (name, provider) in &workspace.providers {
            let section = |key| ["providers", name.as_str(), key];
            match &provider.kind {
                ProviderKind::Scripted { script } => match self.input.tree.files().get(script) {
                    Some(file) => {
                        // One that passed before goes on answering as it did.
                        let text = self.text(script, file)?.filter(|_| !self.unchanged(script, file));
                        self.found.extend(text.iter().flat_map(|text| scripted::check(script, text)));
                    }
                    None => {
                        let message = format!("the script of provider `{name}` is missing: {script}");
                        let help = "scripts are deployed from prompts/, agents/ and tools/";
                        let problem = Diagnostic::error(code::MISSING_FILE, path, message).help(help);
                        self.note_at(problem, path, &section("script"), None, "there is no such file".to_owned());
                    }
                },
                ProviderKind::Wasm { tool } => self.known_tool(tool, path, (&section("tool"), None), ToolPlace::Model),
                ProviderKind::OpenAi { base_url, .. }
                | ProviderKind::Ollama { base_url, .. }
                | ProviderKind::Anthropic { base_url, .. } => {
                    if let Some(url) = base_url {
                        self.base_url(url.as_str(), path, &section("base_url"));
                    }
                }
            }
            for next in &provider.fallback {
                let written = written(next);
                self.known_provider(&workspace, &next.provider, path, &section("fallback"), Some(&written));
            }
        }
        self.cycles(&workspace, path);
        Ok(())
    }

    /// The address of one call, where that of all of them belongs.
    fn base_url(&mut self, url: &str, path: &TreePath, keys: &[&str]) {
        let bare = url.trim_end_matches('/');
        let Some(end) = CALLS.iter().find(|end| bare.ends_with(**end)) else { return };
        let base = bare.trim_end_matches(end);
        let message = format!("`base_url` ends in {end}, which is added to it for every request");
        let problem = Diagnostic::error(code::BAD_VALUE, path, message).help(format!("write base_url = \"{base}\""));
        self.note_at(problem, path, keys, None, "this is the address of one call".to_owned());
    }

    /// Notes a provider, or a tool in the place of one, that the workspace does not have.
    pub(super) fn known_provider(
        &mut self,
        workspace: &WorkspaceManifest,
        wanted: &ProviderRef,
        path: &TreePath,
        keys: &[&str],
        item: Option<&str>,
    ) {
        let wanted = match wanted {
            ProviderRef::Named(name) => name,
            ProviderRef::Tool(tool) => return self.known_tool(tool, path, (keys, item), ToolPlace::Model),
        };
        if workspace.providers.contains_key(wanted) {
            return;
        }
        let label = match closest(wanted.as_str(), workspace.providers.keys().map(ProviderName::as_str)) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => "not in caxton.toml".to_owned(),
        };
        let message = format!("the workspace has no language model provider `{wanted}`");
        let help = format!(
            "describe it in caxton.toml: [providers.{wanted}] with kind = \"openai\", \"ollama\", \"anthropic\", \"scripted\" or \"wasm\""
        );
        let problem = Diagnostic::error(code::UNKNOWN_PROVIDER, path, message).help(help);
        self.note_at(problem, path, keys, item, label);
    }

    /// Notes a tool in the place of something else that is not there; of one that is, [`Check::models`] asks for more.
    fn known_tool(
        &mut self,
        tool: &ToolName,
        path: &TreePath,
        (keys, item): (&[&str], Option<&str>),
        place: ToolPlace,
    ) {
        if self.checked.tools.contains_key(tool) {
            let keys = keys.iter().map(|key| (*key).to_owned()).collect();
            let (tool, path, item) = (tool.clone(), path.clone(), item.map(str::to_owned));
            return self.models.push(ToolModel { tool, path, keys, item, place });
        }
        // The tool's own file is wrong: one problem is enough.
        if self.input.tree.files().contains_key(format!("tools/{tool}/tool.toml").as_str()) {
            return;
        }
        let label = match closest(tool.as_str(), self.checked.tools.keys().map(ToolName::as_str)) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => "there is no such tool".to_owned(),
        };
        let what = place.what();
        let message = format!("{what} is the tool `{tool}`, which is not there");
        let problem =
            Diagnostic::error(code::UNKNOWN_TOOL, path, message).help(format!("add it as tools/{tool}/tool.toml"));
        self.note_at(problem, path, keys, item, label);
    }

    /// Every tool in the place of something else has the functions that are asked. Where neither the tool nor the file
    /// that names it changed, this was found out before.
    pub(super) fn models(&mut self) -> Result<(), CheckError> {
        for ToolModel { tool, path, keys, item, place } in std::mem::take(&mut self.models) {
            let Some(entry) = self.checked.tools.get(&tool) else { continue };
            let (tool_path, manifest) = (entry.path.clone(), entry.manifest.clone());
            let unchanged = self.input.tree.files().get(&path).is_some_and(|file| self.unchanged(&path, file));
            let functions = match self.functions.get(&tool) {
                Some(functions) => Some(functions.as_slice()),
                None if unchanged || self.found.iter().any(|problem| problem.path == tool_path.as_str()) => None,
                None => self.try_out(&tool_path, &manifest)?,
            };
            let (needed, page, code) = place.needs();
            let has = |wanted: &&str| functions.is_none_or(|functions| functions.iter().any(|name| name == wanted));
            let Some(lacking) = needed.iter().find(|wanted| !has(wanted)) else { continue };
            let what = place.what();
            let message = format!("the tool `{tool}` has no function `{lacking}`, so it cannot be {what}");
            let help =
                format!("{page} says what such a tool is asked and answers; `caxton tools inspect` shows what it has");
            let problem = Diagnostic::error(code, &path, message).help(help);
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            self.note_at(problem, &path, &keys, item.as_deref(), format!("this needs a `{lacking}`"));
        }
        Ok(())
    }

    /// Notes each circle of fallbacks once, at the first of its providers.
    fn cycles(&mut self, workspace: &WorkspaceManifest, path: &TreePath) {
        let mut done: BTreeSet<&ProviderName> = BTreeSet::new();
        for start in workspace.providers.keys() {
            let Some(circle) = circle(workspace, start) else { continue };
            if circle.iter().any(|name| done.contains(name)) {
                continue;
            }
            let names: Vec<&str> = circle.iter().map(|name| name.as_str()).chain([start.as_str()]).collect();
            let message = format!("providers fall back on each other in a circle: {}", names.join(" -> "));
            let help = "take one of them out of the `fallback` of another, so that the chain ends";
            let problem = Diagnostic::error(code::FALLBACK_CYCLE, path, message).help(help);
            let keys = ["providers", start.as_str(), "fallback"];
            self.note_at(problem, path, &keys, None, "the circle begins here".to_owned());
            done.extend(circle);
        }
    }
}

impl ToolPlace {
    fn what(self) -> &'static str {
        match self {
            ToolPlace::Model => "a language model",
            ToolPlace::MemoryBackend => "a memory backend",
        }
    }

    /// The functions that it needs, the page that describes them, and the code of the problem where one is missing.
    fn needs(self) -> (&'static [&'static str], &'static str, &'static str) {
        match self {
            ToolPlace::Model => (&[CHAT_FUNCTION], "docs/tools.md", code::NO_CHAT),
            ToolPlace::MemoryBackend => (&BACKEND_FUNCTIONS, "docs/memory.md", code::NO_BACKEND_FUNCTION),
        }
    }
}

/// An entry of a fallback list as its author wrote it.
pub(super) fn written(fallback: &Fallback) -> String {
    match &fallback.model {
        Some(model) => format!("{}/{model}", fallback.provider),
        None => fallback.provider.to_string(),
    }
}

/// The way from `start` by fallbacks back to itself, without the last step.
fn circle<'w>(workspace: &'w WorkspaceManifest, start: &'w ProviderName) -> Option<Vec<&'w ProviderName>> {
    let mut seen = BTreeSet::from([start]);
    let mut ways = vec![vec![start]];
    while let Some(way) = ways.pop() {
        let provider = way.last().and_then(|name| workspace.providers.get(*name));
        let fallbacks = provider.into_iter().flat_map(|provider| &provider.fallback);
        for next in fallbacks.filter_map(|fallback| fallback.provider.named()) {
            if next == start {
                return Some(way);
            }
            let known = workspace.providers.get_key_value(next);
            if let Some((name, _)) = known.filter(|(name, _)| seen.insert(name)) {
                ways.push(way.iter().copied().chain([name]).collect());
            }
        }
    }
    None
}
