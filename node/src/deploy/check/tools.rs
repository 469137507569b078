//! Tools: their manifests, their modules, and what the workspace allows them.

use std::sync::Arc;

use caxton_proto::diagnostic::{Diagnostic, closest, code};
use caxton_proto::manifest::ToolManifest;
use caxton_proto::manifest::tool::ToolKind;
use caxton_proto::manifest::workspace::Refused;
use caxton_proto::tree::{File, TreePath};

use super::layout::Layout;
use super::{Check, CheckError, CheckedFile, MODULE_BYTES_MAX};
use crate::tools::Unfit;

impl Check<'_> {
    /// Reads and checks every tool.
    pub(super) fn tools(&mut self, layout: &Layout<'_>) -> Result<(), CheckError> {
        for (path, file) in &layout.tools {
            let Some(text) = self.text(path, file)? else { continue };
            match ToolManifest::parse(path, &text) {
                Ok(manifest) => {
                    let before = self.found.len();
                    self.module(path, &manifest);
                    self.grants(path, &manifest);
                    if self.found.len() == before {
                        self.prove(path, file, &manifest)?;
                    }
                    let name = manifest.name.clone();
                    let tool = CheckedFile { path: (*path).clone(), digest: file.digest, manifest: Arc::new(manifest) };
                    self.checked.tools.insert(name, tool);
                }
                Err(found) => self.found.extend(found),
            }
        }
        Ok(())
    }

    fn module(&mut self, path: &TreePath, manifest: &ToolManifest) {
        let Some(module) = manifest.kind.module() else { return };
        let keys = ["tool", "module"];
        let problem = match self.input.tree.files().get(module) {
            None => {
                let folder = format!("tools/{}/", manifest.name);
                let beside = self.input.tree.files().keys().filter_map(|file| file.as_str().strip_prefix(&folder));
                let wasm = beside.filter(|file| file.ends_with(".wasm"));
                let label = match closest(module.as_str().strip_prefix(&folder).unwrap_or_default(), wasm) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => "there is no such file".to_owned(),
                };
                let message = format!("the module of tool `{}` is missing: {module}", manifest.name);
                let help = "build it and put it there; files that git or .caxtonignore leave out are not deployed";
                Some((Diagnostic::error(code::MISSING_FILE, path, message).help(help), label))
            }
            Some(file) if file.bytes > MODULE_BYTES_MAX => {
                let message = format!("{module} has {} bytes, and {MODULE_BYTES_MAX} is the most", file.bytes);
                let help = "build it for size, and strip its debugging information";
                Some((Diagnostic::error(code::TOO_LARGE, path, message).help(help), "too large".to_owned()))
            }
            Some(file) if file.bytes == 0 => {
                let message = format!("the module of tool `{}` is empty: {module}", manifest.name);
                Some((Diagnostic::error(code::BAD_VALUE, path, message).help("build it again"), "empty".to_owned()))
            }
            Some(_) => None,
        };
        if let Some((problem, label)) = problem {
            self.note_at(problem, path, &keys, None, label);
        }
    }

    /// Tries a tool that is new or changed, so that one which cannot be loaded never gets live. A process is looked at
    /// each time, because its operator may have changed their mind.
    fn prove(&mut self, path: &TreePath, file: &File, manifest: &ToolManifest) -> Result<(), CheckError> {
        let module = manifest.kind.module().and_then(|module| self.input.tree.files().get_key_value(module));
        match module {
            Some((module, wasm)) if self.unchanged(path, file) && self.unchanged(module, wasm) => Ok(()),
            Some(_) | None => self.try_out(path, manifest).map(drop),
        }
    }

    /// Tries a tool and notes why it cannot be used; gives its functions when they are known.
    pub(super) fn try_out(
        &mut self,
        path: &TreePath,
        manifest: &ToolManifest,
    ) -> Result<Option<&[String]>, CheckError> {
        let Some(prove) = self.input.prove else { return Ok(None) };
        let files = self.input.tree.files();
        let module = manifest.kind.module().and_then(|module| files.get_key_value(module));
        let wasm = module.map(|(module, wasm)| self.read(module, wasm)).transpose()?;
        match prove(manifest, wasm) {
            Ok(functions) if manifest.kind.module().is_some() => {
                return Ok(Some(self.functions.entry(manifest.name.clone()).or_insert(functions)));
            }
            Ok(_) => {}
            Err(Unfit::Broken(why)) => {
                let help =
                    "`caxton tools inspect` shows what a tool gives and wants; docs/tools.md says how to build one";
                let problem = Diagnostic::error(code::TOOL_BROKEN, path, why).help(help);
                self.note_at(problem, path, &["tool", "module"], None, "this module".to_owned());
            }
            Err(Unfit::ProcessesOff) => {
                let message = format!(
                    "the tool `{}` is a process of the node, and the node's operator has not switched those on",
                    manifest.name
                );
                let help = "on every node, set `processes = true` under [tools] of its settings, or start it with \
                            --set tools.processes=true; or use a tool in WebAssembly, which needs no permission";
                let problem = Diagnostic::error(code::PROCESSES_OFF, path, message).help(help);
                self.note_at(problem, path, &["tool", "kind"], None, "switched off on this node".to_owned());
            }
        }
        Ok(None)
    }

    fn grants(&mut self, path: &TreePath, manifest: &ToolManifest) {
        let Some(workspace) = self.workspace.clone() else { return };
        for refused in workspace.grants.refusals(manifest) {
            let (what, keys, item): (String, Vec<&str>, Option<String>) = match &refused {
                Refused::Http(host) => (format!("talk to {host}"), vec!["grants", "http"], Some(host.to_string())),
                Refused::Url(url) => (format!("talk to {url}"), vec!["tool", "url"], None),
                Refused::Scratch => ("have a scratch folder".to_owned(), vec!["grants", "scratch"], None),
                Refused::Clock => ("read the clock".to_owned(), vec!["grants", "clock"], None),
                Refused::Random => ("draw random numbers".to_owned(), vec!["grants", "random"], None),
                Refused::Reuse => ("keep its instance between calls".to_owned(), vec!["grants", "reuse"], None),
                Refused::Secret(name) => (format!("read the secret {name}"), vec!["grants", "env"], None),
                Refused::Processes => ("run as a process".to_owned(), vec!["tool", "kind"], None),
            };
            // A remote server's secrets stand beside its address.
            let remote = matches!(manifest.kind, ToolKind::McpHttp { .. }) && matches!(refused, Refused::Secret(_));
            let keys = if remote { vec!["tool", "url"] } else { keys };
            let message = format!("the tool `{}` wants to {what}, and the workspace does not allow it", manifest.name);
            let help = format!("allow it in caxton.toml, under [grants]: {}", refused.remedy());
            let problem = Diagnostic::error(code::GRANT_NOT_ALLOWED, path, message).help(help);
            self.note_at(problem, path, &keys, item.as_deref(), "not allowed".to_owned());
        }
    }
}
