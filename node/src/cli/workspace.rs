//! The workspace around the current directory: where it is, and what its caxton.toml says.

use std::path::{Path, PathBuf};

use caxton_proto::WorkspaceId;
use serde::Deserialize;

use crate::cli::CliError;

/// The file that makes a folder a workspace.
pub const SETTINGS_FILE: &str = "caxton.toml";

/// A workspace on disk.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// The folder that holds caxton.toml.
    pub root: PathBuf,
}

/// What the command line needs of caxton.toml.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The workspace's name.
    pub name: WorkspaceId,
    /// The server to deploy to.
    pub server: Option<String>,
}

#[derive(Deserialize)]
struct Draft {
    workspace: DraftWorkspace,
    #[serde(default)]
    server: DraftServer,
}

#[derive(Deserialize)]
struct DraftWorkspace {
    #[serde(alias = "id")]
    name: WorkspaceId,
}

#[derive(Default, Deserialize)]
struct DraftServer {
    url: Option<String>,
}

impl Workspace {
    /// The workspace that `from` is in: the nearest folder upwards with a caxton.toml.
    pub fn find(from: &Path) -> Result<Workspace, CliError> {
        from.ancestors()
            .find(|folder| folder.join(SETTINGS_FILE).is_file())
            .map(|root| Workspace { root: root.to_owned() })
            .ok_or_else(|| {
                CliError::new("no_workspace", format!("there is no caxton.toml in {} or above it", from.display()))
                    .help("make a workspace here with `caxton init`, or change to one")
            })
    }

    /// What caxton.toml says.
    pub fn settings(&self) -> Result<Settings, CliError> {
        let file = self.root.join(SETTINGS_FILE);
        let text = std::fs::read_to_string(&file)
            .map_err(|error| CliError::new("io", format!("{} cannot be read", file.display())).source(error))?;
        let draft: Draft = toml::from_str(&text).map_err(|error| {
            CliError::new("bad_workspace", format!("{} is not right", file.display()))
                .help("`caxton validate` shows every mistake with its line")
                .source(error)
        })?;
        Ok(Settings { name: draft.workspace.name, server: draft.server.url })
    }
}
