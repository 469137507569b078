//! Which files of a workspace are manifests, and which lie where nothing looks for them.

use std::collections::BTreeMap;

use caxton_proto::diagnostic::{Diagnostic, closest, code};
use caxton_proto::manifest::workspace::WORKSPACE_FILE;
use caxton_proto::tree::{File, Tree, TreePath};

/// A workspace's manifests.
pub(super) struct Layout<'a> {
    /// `agents/NAME.toml` and `agents/NAME/agent.toml`.
    pub agents: Vec<(&'a TreePath, &'a File)>,
    pub tools: Vec<(&'a TreePath, &'a File)>,
}

/// Folders below `agents/` or `tools/`: whether the manifest is there, and else the first other file.
type Folders<'a> = BTreeMap<&'a str, (bool, &'a TreePath)>;

impl<'a> Layout<'a> {
    /// Sorts a workspace's files; notes the ones that nothing reads, and agents with two files.
    pub fn of(tree: &'a Tree, found: &mut Vec<Diagnostic>) -> Layout<'a> {
        let mut layout = Layout { agents: Vec::new(), tools: Vec::new() };
        let (mut agents, mut tools) = (Folders::new(), Folders::new());
        for (path, file) in tree.files() {
            let parts: Vec<&str> = path.parts().take(4).collect();
            match parts.as_slice() {
                ["agents", name] if name.ends_with(".toml") => layout.agents.push((path, file)),
                ["agents", folder, "agent.toml"] => {
                    agents.insert(folder, (true, path));
                    layout.agents.push((path, file));
                    if let Some((other, _)) = tree.files().get_key_value(format!("agents/{folder}.toml").as_str()) {
                        let message = format!("the agent `{folder}` has two files, this one and {other}");
                        let help = "keep one of them";
                        found.push(Diagnostic::error(code::DUPLICATE, path, message).help(help));
                    }
                }
                ["tools", folder, "tool.toml"] => {
                    tools.insert(folder, (true, path));
                    layout.tools.push((path, file));
                }
                ["agents", folder, _, ..] => _ = agents.entry(folder).or_insert((false, path)),
                ["tools", folder, _, ..] => _ = tools.entry(folder).or_insert((false, path)),
                // An agent's program lies beside its file, which names it.
                ["agents", file] if file.ends_with(".wasm") => {}
                ["prompts", ..] | [WORKSPACE_FILE] | ["agents" | "tools", "README.md"] => {}
                [top, ..] => found.push(stray(path, top)),
                [] => {}
            }
        }
        let lost = |folders: Folders<'a>, top: &str, manifest: &str, found: &mut Vec<Diagnostic>| {
            for (folder, (_, path)) in folders.into_iter().filter(|(_, (there, _))| !there) {
                // The files of an agent in one file may lie in a folder of its name.
                let file = format!("{top}/{folder}.toml");
                if top != "agents" || !tree.files().contains_key(file.as_str()) {
                    found.push(without_manifest(path, &format!("{top}/{folder}"), manifest));
                }
            }
        };
        lost(agents, "agents", "agent.toml", found);
        lost(tools, "tools", "tool.toml", found);
        layout
    }
}

fn stray(path: &TreePath, top: &str) -> Diagnostic {
    let help = match (top, closest(top, ["agents", "tools", "prompts", WORKSPACE_FILE])) {
        ("agents", _) => "an agent is agents/NAME.toml or agents/NAME/agent.toml".to_owned(),
        ("tools", _) => "a tool is a folder: tools/NAME/tool.toml, with its module beside it".to_owned(),
        (_, Some(near)) => format!("did you mean {near}?"),
        (_, None) => "a workspace has caxton.toml, agents/, tools/ and prompts/".to_owned(),
    };
    Diagnostic::warning(code::UNEXPECTED_FILE, path, "nothing reads this file").help(help)
}

fn without_manifest(path: &TreePath, folder: &str, manifest: &str) -> Diagnostic {
    let message = format!("nothing reads {folder}/, since it has no {manifest}");
    let name = path.as_str().rsplit('/').next().unwrap_or_default();
    let help = match closest(name, [manifest]) {
        Some(_) => format!("rename this file to {manifest}"),
        None => format!("write {folder}/{manifest}, or remove the folder"),
    };
    Diagnostic::warning(code::UNEXPECTED_FILE, path, message).help(help)
}
