//! A module that `caxton deploy FILE.wasm` makes an agent of: its kind, its file, and where both lie.

use std::path::{Path, PathBuf};

use caxton_proto::AgentName;
use caxton_proto::manifest::AgentManifest;
use caxton_proto::manifest::agent::ModuleKind;
use caxton_proto::tree::TreePath;
use caxton_tools::Kind;

use crate::cli::workspace::{Workspace, write_atomically};
use crate::cli::{CliError, diagnostics};
use crate::deploy::check::MODULE_BYTES_MAX;

/// A module that is to be an agent.
pub(super) struct Program {
    name: AgentName,
    kind: ModuleKind,
    wasm: Vec<u8>,
}

impl Program {
    /// Reads a module; the agent is called as the file is, unless it is given a name.
    pub(super) fn read(file: &Path, name: Option<AgentName>) -> Result<Program, CliError> {
        let shown = file.display();
        let unread = |error| CliError::new("io", format!("{shown} cannot be read")).source(error);
        let bytes = std::fs::metadata(file).map_err(unread)?.len();
        if bytes > MODULE_BYTES_MAX {
            return Err(CliError::usage(format!("{shown} has {bytes} bytes, and {MODULE_BYTES_MAX} is the most"))
                .help("build it for size, and strip its debugging information"));
        }
        let wasm = std::fs::read(file).map_err(unread)?;
        let name = match name {
            Some(name) => name,
            None => file.file_stem().and_then(|stem| stem.to_str()?.parse().ok()).ok_or_else(|| {
                CliError::usage(format!("{shown} is no name for an agent")).help("name it with --name NAME")
            })?,
        };
        let kind = match caxton_tools::agent_kind(&wasm) {
            Ok(Kind::Core) => ModuleKind::Core,
            Ok(Kind::Command) => ModuleKind::Command,
            Ok(Kind::Component | Kind::McpHttp | Kind::McpStdio) => ModuleKind::Component,
            Err(why) => {
                return Err(CliError::usage(format!("{shown} is no agent: {why}"))
                    .help("docs/wasm-agents.md says what an agent's module exports"));
            }
        };
        Ok(Program { name, kind, wasm })
    }

    /// Puts it into a workspace: its module, and its file where there is none. A file that is there has to name a module of
    /// this kind, which is then replaced.
    pub(super) fn place(&self, workspace: &Workspace) -> Result<(), CliError> {
        let name = &self.name;
        let (flat, below) = (format!("agents/{name}.toml"), format!("agents/{name}/agent.toml"));
        let there = [flat.as_str(), &below].into_iter().find(|path| workspace.root.join(path).is_file());
        let module = match there {
            Some(path) => self.named_in(workspace, path)?,
            None => {
                write(&workspace.root.join(&flat), self.file().as_bytes())?;
                PathBuf::from(format!("agents/{name}.wasm"))
            }
        };
        write(&workspace.root.join(module), &self.wasm)
    }

    /// The module that an agent's file names.
    fn named_in(&self, workspace: &Workspace, path: &str) -> Result<PathBuf, CliError> {
        let file = workspace.root.join(path);
        let text = std::fs::read_to_string(&file)
            .map_err(|error| CliError::new("io", format!("{} cannot be read", file.display())).source(error))?;
        let at: TreePath = path.parse().map_err(|error| CliError::new("internal", format!("{error}")))?;
        let manifest = AgentManifest::parse(&at, &text).map_err(diagnostics::failure)?;
        match manifest.module {
            Some(module) if module.kind == self.kind => Ok(PathBuf::from(module.path.as_str())),
            Some(_) | None => Err(CliError::usage(format!("{path} names no module of the kind {}", self.kind_name()))
                .help(format!("write kind = \"{}\" and module = \"./{}.wasm\" in it", self.kind_name(), self.name))),
        }
    }

    fn kind_name(&self) -> &'static str {
        match self.kind {
            ModuleKind::Component => "component",
            ModuleKind::Command => "command",
            ModuleKind::Core => "core",
        }
    }

    /// The file of an agent that is this module.
    fn file(&self) -> String {
        let (name, kind) = (&self.name, self.kind_name());
        format!("[agent]\nname = \"{name}\"\nkind = \"{kind}\"\nmodule = \"./{name}.wasm\"\n")
    }
}

fn write(path: &Path, content: &[u8]) -> Result<(), CliError> {
    let unwritten = |error| CliError::new("io", format!("{} cannot be written", path.display())).source(error);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(unwritten)?;
    }
    write_atomically(path, content).map_err(unwritten)
}
