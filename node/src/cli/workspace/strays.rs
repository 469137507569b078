//! Files that somebody put where nothing reads them: an agent beside caxton.toml, a folder `Agents/`, a workspace in the
//! workspace. A deployment leaves them out without a word, so a check says it.

use std::fs;
use std::path::Path;

use caxton_proto::diagnostic::{Diagnostic, closest, code};
use ignore::WalkBuilder;

use super::scan::FOLDERS;
use super::{SETTINGS_FILE, Workspace};

/// How deep another workspace is looked for, and in how many entries.
const DEPTH_MAX: usize = 4;
const ENTRIES_MAX: usize = 5_000;
/// The largest file that is looked into, in bytes.
const FILE_BYTES_MAX: u64 = 256 << 10;

impl Workspace {
    /// A warning for each of them.
    pub fn strays(&self) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        let Ok(entries) = fs::read_dir(&self.root) else { return found };
        let mut names: Vec<_> = entries.flatten().collect();
        names.sort_by_key(fs::DirEntry::file_name);
        for entry in names {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(kind) = entry.file_type() else { continue };
            if name.starts_with('.') {
                continue;
            }
            if kind.is_dir() {
                found.extend(folder(&name, &entry.path()));
            } else if name.ends_with(".toml") && name != SETTINGS_FILE {
                found.extend(manifest(&name, &entry.path()));
            }
        }
        found.extend(self.nested());
        found
    }

    /// Workspaces in this one.
    fn nested(&self) -> Vec<Diagnostic> {
        let walk = WalkBuilder::new(&self.root)
            .max_depth(Some(DEPTH_MAX))
            .follow_links(false)
            .filter_entry(|entry| !matches!(entry.file_name().to_str(), Some("node_modules" | "target")))
            .build();
        let nested = walk.flatten().take(ENTRIES_MAX).filter(|entry| entry.depth() > 1);
        let nested = nested.filter(|entry| entry.file_name() == SETTINGS_FILE);
        let mut paths: Vec<String> = nested
            .filter_map(|entry| Some(entry.path().strip_prefix(&self.root).ok()?.to_string_lossy().into_owned()))
            .collect();
        paths.sort();
        let note = |path: String| {
            let message = "this is another workspace inside of this one, and nothing here reads it";
            let help = "move its agents/NAME and tools/NAME into this workspace, or the whole folder out of it";
            Diagnostic::warning(code::UNEXPECTED_FILE, path, message).help(help)
        };
        paths.into_iter().map(note).collect()
    }
}

/// A folder that is nearly one of the three.
fn folder(name: &str, path: &Path) -> Option<Diagnostic> {
    if FOLDERS.contains(&name) {
        return None;
    }
    let near = closest(name, FOLDERS)?;
    let holds = has_manifest(path);
    // On a file system that knows no case, `Agents` and `agents` are one folder.
    holds.then(|| {
        let message = format!("nothing reads the folder {name}/");
        Diagnostic::warning(code::UNEXPECTED_FILE, format!("{name}/"), message).help(format!("rename it to {near}/"))
    })
}

/// Whether something in the folder looks as if it were meant to be deployed.
fn has_manifest(path: &Path) -> bool {
    let walk = WalkBuilder::new(path).max_depth(Some(2)).follow_links(false).build();
    walk.flatten().take(ENTRIES_MAX).any(|entry| {
        let name = entry.file_name().to_string_lossy();
        name.ends_with(".toml") || name.ends_with(".md") || name.ends_with(".wasm")
    })
}

/// A manifest that lies beside caxton.toml.
fn manifest(name: &str, path: &Path) -> Option<Diagnostic> {
    let small = fs::metadata(path).is_ok_and(|metadata| metadata.len() <= FILE_BYTES_MAX);
    let text = small.then(|| fs::read_to_string(path).ok()).flatten()?;
    let keys: toml::Table = text.parse().ok()?;
    let has = |wanted: &[&str]| wanted.iter().any(|key| keys.contains_key(*key));
    let stem = name.trim_end_matches(".toml");
    let (what, place) = if has(&["agent", "capability", "capabilities", "system_prompt", "prompts"]) {
        ("an agent", format!("agents/{stem}.toml"))
    } else if has(&["tool"]) && keys["tool"].as_table().is_some_and(|tool| tool.contains_key("kind")) {
        ("a tool", format!("tools/{stem}/tool.toml"))
    } else if has(&["workspace", "providers"]) {
        ("a workspace's settings", SETTINGS_FILE.to_owned())
    } else {
        return None;
    };
    let message = format!("this looks like {what}, and nothing reads it here");
    Some(Diagnostic::warning(code::UNEXPECTED_FILE, name, message).help(format!("move it to {place}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_beside_its_place_is_said_and_other_files_are_left_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        for (path, text) in [
            ("caxton.toml", "[workspace]\nname = \"w\"\n"),
            ("greeter.toml", "name = \"greeter\"\ncapabilities = [\"x\"]\n"),
            ("chart.toml", "[tool]\nname = \"chart\"\nkind = \"core\"\n"),
            ("caxton.tolm.toml", "[workspace]\nname = \"w\"\n"),
            ("pyproject.toml", "[project]\nname = \"x\"\n[tool.ruff]\nline-length = 100\n"),
            ("Cargo.toml", "[package]\nname = \"x\"\n"),
            ("Agents/a.toml", "name = \"a\"\n"),
            ("promts/x.md", "x"),
            ("agents/b.toml", "name = \"b\"\n"),
            ("inner/caxton.toml", "[workspace]\nname = \"inner\"\n"),
            ("target/x/caxton.toml", "[workspace]\nname = \"inner\"\n"),
            ("docs/agents.md", "x"),
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        let strays = Workspace { root: dir.path().to_owned() }.strays();
        let lines: Vec<String> =
            strays.iter().map(|it| format!("{}: {}", it.path, it.help.as_deref().unwrap_or(""))).collect();
        assert_eq!(
            lines,
            [
                "Agents/: rename it to agents/",
                "caxton.tolm.toml: move it to caxton.toml",
                "chart.toml: move it to tools/chart/tool.toml",
                "greeter.toml: move it to agents/greeter.toml",
                "promts/: rename it to prompts/",
                "inner/caxton.toml: move its agents/NAME and tools/NAME into this workspace, or the whole folder out of it",
            ]
        );
    }
}
