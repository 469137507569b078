//! Agents: their manifests, and the tools, providers and prompt files that they name.

use std::collections::BTreeMap;
use std::sync::Arc;

use caxton_proto::ToolName;
use caxton_proto::diagnostic::{Diagnostic, Source, closest, code};
use caxton_proto::manifest::AgentManifest;
use caxton_proto::manifest::agent::BUILT_IN_TOOLS;
use caxton_proto::manifest::prompt::{self, Prompt, Template};
use caxton_proto::tree::{File, TreePath};

use super::layout::Layout;
use super::providers::written;
use super::{Check, CheckError, CheckedFile, MODULE_BYTES_MAX};

/// How the names of files with prompts end.
const PROMPT_ENDINGS: [&str; 5] = [".md", ".txt", ".prompt", ".j2", ".tmpl"];

impl Check<'_> {
    /// Reads and checks every agent.
    pub(super) fn agents(&mut self, layout: &Layout<'_>) -> Result<(), CheckError> {
        let mut ids: BTreeMap<String, TreePath> = BTreeMap::new();
        for (path, file) in &layout.agents {
            let Some(manifest) = self.agent(path, file)? else { continue };
            if let Some(id) = &manifest.id {
                match ids.get(id) {
                    Some(other) => self.duplicate_id(id, path, other),
                    None => _ = ids.insert(id.clone(), (*path).clone()),
                }
            }
            self.agent_tools(path, &manifest);
            self.agent_providers(path, &manifest);
            self.prompts(path, file, &manifest)?;
            self.program(path, file, &manifest)?;
            let agent = CheckedFile { path: (*path).clone(), digest: file.digest, manifest: manifest.clone() };
            self.checked.agents.insert(manifest.name.clone(), agent);
        }
        Ok(())
    }

    /// The manifest: as it was when the file is the same, else read.
    fn agent(&mut self, path: &TreePath, file: &File) -> Result<Option<Arc<AgentManifest>>, CheckError> {
        if let Some(before) = self.input.before.filter(|_| self.unchanged(path, file))
            && let Some(manifest) = (before.agent)(path, &file.digest)
        {
            return Ok(Some(manifest));
        }
        let Some(text) = self.text(path, file)? else { return Ok(None) };
        let (manifest, found) = AgentManifest::read(path, &text);
        self.found.extend(found);
        Ok(manifest.map(Arc::new))
    }

    fn duplicate_id(&mut self, id: &str, path: &TreePath, other: &TreePath) {
        let message = format!("the id `{id}` belongs to another agent already");
        let help = "an id stays with its agent: give this one an id of its own, or none";
        let problem = Diagnostic::error(code::DUPLICATE, path, message).help(help);
        let place = self.place(path, &["agent", "id"], None).or_else(|| self.place(path, &["id"], None));
        self.found.push(match place {
            Some(place) => problem.at(place, format!("also in {other}")),
            None => problem,
        });
    }

    fn agent_tools(&mut self, path: &TreePath, manifest: &AgentManifest) {
        for (name, required) in manifest
            .tools
            .required
            .iter()
            .map(|tool| (tool, true))
            .chain(manifest.tools.optional.iter().map(|t| (t, false)))
        {
            if self.checked.tools.contains_key(name) || BUILT_IN_TOOLS.contains(&name.as_str()) {
                continue;
            }
            // The tool's own file is wrong: one problem is enough.
            if self.input.tree.files().contains_key(format!("tools/{name}/tool.toml").as_str()) {
                continue;
            }
            let known = self.checked.tools.keys().map(ToolName::as_str).chain(BUILT_IN_TOOLS);
            let near = closest(name.as_str(), known);
            let message = format!("there is no tool `{name}` in this workspace");
            let problem = match (required, near) {
                (true, _) => Diagnostic::error(code::UNKNOWN_TOOL, path, message)
                    .help(format!("add it as tools/{name}/tool.toml, or list it under `optional` in [tools]")),
                // An optional tool may well be missing; one that is nearly there is a slip.
                (false, Some(_)) => Diagnostic::warning(code::UNKNOWN_TOOL, path, message),
                (false, None) => continue,
            };
            let label = near.map_or_else(|| "unknown".to_owned(), |near| format!("did you mean \"{near}\"?"));
            let list = if required { "required" } else { "optional" };
            let item = Some(name.as_str());
            let place = self.place(path, &["tools", list], item).or_else(|| self.place(path, &["tools"], item));
            self.found.push(match place {
                Some(place) => problem.at(place, label),
                None => problem,
            });
        }
    }

    fn agent_providers(&mut self, path: &TreePath, manifest: &AgentManifest) {
        let Some(workspace) = self.workspace.clone() else { return };
        if let Some(provider) = &manifest.llm.provider {
            self.known_provider(&workspace, provider, path, &["llm", "provider"], None);
        }
        let asked = manifest.llm.provider.clone().or_else(|| workspace.default_provider());
        for next in &manifest.llm.fallback {
            let written = written(next);
            self.known_provider(&workspace, &next.provider, path, &["llm", "fallback"], Some(&written));
            if Some(&next.provider) == asked.as_ref() && (next.model.is_none() || next.model == manifest.llm.model) {
                let message = format!("the agent `{}` falls back on what has just failed", manifest.name);
                let problem = Diagnostic::error(code::FALLBACK_CYCLE, path, message)
                    .help("name another provider, or another model as \"provider/model\"");
                let label = "this is asked first".to_owned();
                self.note_at(problem, path, &["llm", "fallback"], Some(&written), label);
            }
        }
    }

    /// The program of an agent that is one: whether it is there, and whether it is what its file says.
    fn program(&mut self, path: &TreePath, file: &File, manifest: &AgentManifest) -> Result<(), CheckError> {
        let Some(module) = &manifest.module else { return Ok(()) };
        let agent = &manifest.name;
        let found = self.input.tree.files().get_key_value(&module.path).map(|(path, file)| (path.clone(), *file));
        let (problem, label) = match found {
            Some((program, wasm)) if wasm.bytes > 0 && wasm.bytes <= MODULE_BYTES_MAX => {
                if self.unchanged(path, file) && self.unchanged(&program, &wasm) {
                    return Ok(());
                }
                let Some(prove) = self.input.prove_agent else { return Ok(()) };
                let Err(why) = prove(manifest, self.read(&program, &wasm)?) else { return Ok(()) };
                let help = "docs/wasm-agents.md says what an agent's module exports, and what it may import";
                (Diagnostic::error(code::TOOL_BROKEN, path, why).help(help), "this module")
            }
            Some((program, wasm)) => {
                let message = format!("{program} has {} bytes, and a module has 1 to {MODULE_BYTES_MAX}", wasm.bytes);
                (Diagnostic::error(code::TOO_LARGE, path, message).help("build it again, for size"), "of this size")
            }
            None => {
                let message = format!("the module of agent `{agent}` is missing: {}", module.path);
                let help = "build it and put it there; files that git or .caxtonignore leave out are not deployed";
                (Diagnostic::error(code::MISSING_FILE, path, message).help(help), "there is no such file")
            }
        };
        let place = self.place(path, &["agent", "module"], None).or_else(|| self.place(path, &["module"], None));
        self.found.push(match place {
            Some(place) => problem.at(place, label),
            None => problem,
        });
        Ok(())
    }

    fn prompts(&mut self, path: &TreePath, file: &File, manifest: &AgentManifest) -> Result<(), CheckError> {
        let prompts = [("system", &manifest.prompts.system), ("user", &manifest.prompts.user)];
        for (key, prompt) in prompts {
            if let Some(Prompt::Text(text)) = prompt
                && !self.unchanged(path, file)
            {
                self.path_as_prompt(path, key, text.as_str());
            }
            let Some(Prompt::File(prompt_path)) = prompt else { continue };
            let Some(prompt_file) = self.input.tree.files().get(prompt_path).copied() else {
                self.missing_prompt(path, key, prompt_path);
                continue;
            };
            if self.unchanged(path, file) && self.unchanged(prompt_path, &prompt_file) {
                continue;
            }
            let Some(text) = self.text(prompt_path, &prompt_file)? else { continue };
            let source = Source { path: prompt_path, text: &text };
            for error in Template::parse(&text, &manifest.parameters).err().unwrap_or_default() {
                let problem = prompt::diagnose(&error, source, error.span.clone(), &manifest.parameters);
                // Two agents may share a prompt; what is wrong with it for both is said once.
                if !self.found.contains(&problem) {
                    self.found.push(problem);
                }
            }
        }
        Ok(())
    }

    /// A prompt that is nothing but the name of a file was meant to be that file.
    fn path_as_prompt(&mut self, path: &TreePath, key: &str, text: &str) {
        let name = text.trim();
        let ends = PROMPT_ENDINGS.iter().any(|ending| name.to_ascii_lowercase().ends_with(ending));
        if name.contains(char::is_whitespace) || !ends {
            return;
        }
        let message = format!("the prompt is the name of a file, and not what is in it: {name}");
        let help = format!("write {{ file = \"{name}\" }} for the file's content");
        let problem = Diagnostic::error(code::BAD_PROMPT, path, message).help(help);
        let flat = if key == "system" { "system_prompt" } else { "user_prompt_template" };
        let place = self.place(path, &["prompts", key], None).or_else(|| self.place(path, &[flat], None));
        self.found.push(match place {
            Some(place) => problem.at(place, "only these words reach the model"),
            None => problem,
        });
    }

    fn missing_prompt(&mut self, path: &TreePath, key: &str, wanted: &TreePath) {
        let folder = path.as_str().rsplit_once('/').map_or("", |(folder, _)| folder);
        let files = self.input.tree.files();
        let beside = format!("{folder}/{wanted}");
        let near = if files.contains_key(beside.as_str()) {
            Some(format!("./{wanted}"))
        } else {
            let there = files.keys().map(TreePath::as_str).filter(|path| path.contains("prompts/"));
            closest(wanted.as_str(), there).map(|near| match near.strip_prefix(folder) {
                Some(rest) => format!(".{rest}"),
                None => near.to_owned(),
            })
        };
        let label = near.map_or_else(|| "there is no such file".to_owned(), |near| format!("did you mean \"{near}\"?"));
        let message = format!("the prompt's file is missing: {wanted}");
        let help = "a path starts at the workspace's top, or with `./` beside this file";
        let problem = Diagnostic::error(code::MISSING_FILE, path, message).help(help);
        let mut place = self.place(path, &["prompts", key, "file"], None);
        if place.is_none() {
            let flat = if key == "system" { "system_prompt" } else { "user_prompt_template" };
            place = self.place(path, &[flat, "file"], None);
        }
        self.found.push(match place {
            Some(place) => problem.at(place, label),
            None => problem,
        });
    }
}
