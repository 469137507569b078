//! The module of an agent that is a program of its own: `kind` and `module`.

use serde::Serialize;

use super::WORD_BYTES_MAX;
use crate::diagnostic::code;
use crate::manifest::prompt;
use crate::manifest::read::Value;
use crate::tree::TreePath;

/// The program that an agent is, in the place of a language model with prompts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Module {
    /// What its bytes are.
    pub kind: ModuleKind,
    /// Where it lies in the workspace.
    #[serde(rename = "module")]
    pub path: TreePath,
}

/// What the bytes of an agent's module are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ModuleKind {
    /// A WebAssembly component of the world `caxton:agent/agent`.
    Component,
    /// A WASI command that reads a message and prints those that it sends.
    Command,
    /// A core WebAssembly module that exports `handle_message`.
    Core,
}

impl Module {
    /// Reads the two keys, of which neither goes without the other.
    pub(super) fn read(kind: Option<Value<'_, '_>>, module: Option<Value<'_, '_>>) -> Option<Module> {
        let kinds =
            [("component", ModuleKind::Component), ("command", ModuleKind::Command), ("core", ModuleKind::Core)];
        let (kind, module) = match (kind, module) {
            (None, None) => return None,
            (Some(kind), None) => {
                let message = "`kind` says that this agent is a program, and `module` does not say which";
                kind.problem(code::MISSING_KEY, message, "add module = \"./NAME.wasm\", beside this file");
                return None;
            }
            (None, Some(module)) => {
                let message = "`module` names a program, and `kind` does not say what it is";
                module.problem(code::MISSING_KEY, message, "add kind = \"component\", \"command\" or \"core\"");
                return None;
            }
            (Some(kind), Some(module)) => (kind, module),
        };
        let (kind, text) = (kind.choice(&kinds), module.some_text(WORD_BYTES_MAX * 2)?);
        // It lies beside the file, as a tool's does.
        let written = if text.starts_with("./") { text.to_owned() } else { format!("./{text}") };
        match prompt::resolve(module.document().path(), &written) {
            Ok(path) => Some(Module { kind: kind?, path }),
            Err(error) => {
                module.problem(code::BAD_VALUE, "`module` is not a path in this workspace", error.to_string());
                None
            }
        }
    }
}
