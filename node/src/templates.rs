//! What `caxton init` begins with: a workspace and ten agents, as files inside the binary.
//!
//! A template is a folder under `node/templates` that can be deployed as it stands; a test checks each of them.

use std::borrow::Cow;

use caxton_proto::manifest::AgentManifest;
use caxton_proto::tree::TreePath;
use caxton_proto::{AgentName, WorkspaceId};
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "templates/"]
struct Embedded;

/// Stands in the workspace's files where its name belongs.
const NAME_MARK: &str = "WORKSPACE_NAME";

/// A file to write, relative to the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateFile {
    pub path: String,
    pub text: String,
}

/// One of the agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentTemplate {
    pub name: String,
    /// What it is for, in a sentence.
    pub description: String,
}

/// The agents, in the order of their names.
pub fn agents() -> Vec<AgentTemplate> {
    let mut agents: Vec<AgentTemplate> = Embedded::iter()
        .filter_map(|file| {
            let name = file.strip_prefix("agents/")?.strip_suffix("/agent.toml")?.to_owned();
            let path: TreePath = file.parse().ok()?;
            let description = AgentManifest::parse(&path, &text(&file)?).ok()?.description;
            Some(AgentTemplate { name, description })
        })
        .collect();
    agents.sort_by(|a, b| a.name.cmp(&b.name));
    agents
}

/// The files of an agent made from a template, under its new name.
pub fn agent(template: &str, name: &AgentName) -> Vec<TemplateFile> {
    let folder = format!("agents/{template}/");
    let mut files = files(&folder, |path| format!("agents/{name}/{path}"));
    for file in &mut files {
        // The first line with the name is the agent's own.
        let (old, new) = match file.path.rsplit('/').next() {
            Some("agent.toml") => (format!("name = \"{template}\""), format!("name = \"{name}\"")),
            Some("README.md") => (format!("# {template}\n"), format!("# {name}\n")),
            _ => continue,
        };
        file.text = file.text.replacen(&old, &new, 1);
    }
    files
}

/// The files of a new workspace.
pub fn workspace(name: &WorkspaceId) -> Vec<TemplateFile> {
    let mut files = files("workspace/", |path| match path {
        // Under its own name it would be in force here.
        "gitignore" => ".gitignore".to_owned(),
        path => path.to_owned(),
    });
    for file in &mut files {
        file.text = file.text.replace(NAME_MARK, name.as_str());
    }
    files
}

fn files(folder: &str, place: impl Fn(&str) -> String) -> Vec<TemplateFile> {
    let mut files: Vec<TemplateFile> = Embedded::iter()
        .filter_map(|file| {
            let path = place(file.strip_prefix(folder)?);
            Some(TemplateFile { path, text: text(&file)? })
        })
        .collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn text(file: &str) -> Option<String> {
    match Embedded::get(file)?.data {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(str::to_owned),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok(),
    }
}
