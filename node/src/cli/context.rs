//! What every command has at hand: the global flags, the output, and how to reach the server.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use caxton_proto::WorkspaceId;
use serde::Deserialize;

use crate::cli::output::{ColorWhen, Output};
use crate::cli::workspace::Workspace;
use crate::cli::{CliError, Exit};
use crate::client::{self, Client, Token};
use crate::config::environment;

/// Where a node listens unless told otherwise.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:7411";

/// Flags that every command takes.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Global {
    /// Print one JSON document instead of text, also for an error.
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// The server's address, or several of one cluster, repeated or with commas between [default: `[server] url` of
    /// caxton.toml, else the node on this machine].
    #[arg(long, global = true, value_name = "URL", env = "CAXTON_SERVER", help_heading = "Global options")]
    pub server: Vec<String>,
    /// The workspace's name [default: the one in caxton.toml].
    #[arg(long, global = true, value_name = "NAME", env = "CAXTON_WORKSPACE", help_heading = "Global options")]
    pub workspace: Option<WorkspaceId>,
    /// A file with the token to show [default: CAXTON_TOKEN, else the local node's admin token].
    #[arg(long, global = true, value_name = "FILE", env = "CAXTON_TOKEN_FILE", help_heading = "Global options")]
    pub token_file: Option<PathBuf>,
    /// A PEM file with the CA that the server's certificate must come from.
    #[arg(long, global = true, value_name = "FILE", env = "CAXTON_CA_FILE", help_heading = "Global options")]
    pub ca_file: Option<PathBuf>,
    /// The local node's data directory [default: ~/.local/share/caxton].
    #[arg(long, global = true, value_name = "DIR", env = "CAXTON_DATA_DIR", help_heading = "Global options")]
    pub data_dir: Option<PathBuf>,
    /// When to use colours.
    #[arg(long, global = true, value_enum, default_value_t = ColorWhen::Auto, help_heading = "Global options")]
    pub color: ColorWhen,
}

/// A command's surroundings.
pub struct Context {
    /// The global flags.
    pub global: Global,
    /// Where to print.
    pub out: Output,
    /// Where the command was started.
    pub cwd: PathBuf,
    /// `CAXTON_TOKEN`.
    token: Option<String>,
    default_data_dir: Option<PathBuf>,
    runtime: OnceLock<tokio::runtime::Runtime>,
}

/// What a running node writes to `server.json` in its data directory.
#[derive(Debug, Clone, Deserialize)]
pub struct ServerFile {
    /// Where it listens.
    pub url: String,
    /// Its process.
    #[serde(default)]
    pub pid: Option<u32>,
}

impl Context {
    /// The surroundings of this process: the only place of the command line that reads the environment.
    pub fn new(global: Global, out: Output) -> Result<Context, CliError> {
        let cwd = std::env::current_dir().map_err(|error| {
            CliError::new("io", "the current directory cannot be read")
                .help("change to a directory that exists")
                .source(error)
        })?;
        let set = environment::variable;
        let default_data_dir = match (set("XDG_DATA_HOME"), set("HOME")) {
            (Some(data), _) => Some(PathBuf::from(data).join("caxton")),
            (None, Some(home)) => Some(PathBuf::from(home).join(".local/share/caxton")),
            (None, None) => None,
        };
        let token = set("CAXTON_TOKEN").and_then(|token| token.into_string().ok());
        Ok(Context { global, out, cwd, token, default_data_dir, runtime: OnceLock::new() })
    }

    /// The same flags in another folder, for the node at `server` with its data in `data_dir`.
    pub(crate) fn within(&self, cwd: &Path, server: &str, data_dir: &Path) -> Context {
        let global = Global {
            server: vec![server.to_owned()],
            data_dir: Some(data_dir.to_owned()),
            workspace: None,
            token_file: None,
            ..self.global.clone()
        };
        let default_data_dir = self.default_data_dir.clone();
        let (out, cwd) = (self.out.clone(), cwd.to_owned());
        Context { global, out, cwd, token: None, default_data_dir, runtime: OnceLock::new() }
    }

    /// The data directory of the node on this machine.
    pub fn data_dir(&self) -> Result<PathBuf, CliError> {
        self.global.data_dir.clone().or_else(|| self.default_data_dir.clone()).ok_or_else(|| {
            CliError::new("no_data_dir", "there is no data directory: HOME is not set").help("pass --data-dir DIR")
        })
    }

    /// What the node of the data directory says of itself, if one runs or ran there.
    pub fn server_file(&self) -> Option<ServerFile> {
        let text = std::fs::read(self.data_dir().ok()?.join("server.json")).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// The server's address: `--server`, then the node of `--data-dir`, then caxton.toml, then the local node.
    pub fn server_url(&self) -> Result<String, CliError> {
        if !self.global.server.is_empty() {
            return Ok(self.global.server.join(","));
        }
        if self.global.data_dir.is_some()
            && let Some(file) = self.server_file()
        {
            return Ok(file.url);
        }
        if let Ok(workspace) = Workspace::find(&self.cwd)
            && let Some(url) = workspace.settings()?.server
        {
            return Ok(url);
        }
        match (&self.global.data_dir, self.server_file()) {
            (_, Some(file)) => Ok(file.url),
            (Some(dir), None) => Err(CliError::new("unreachable", format!("no node runs in {}", dir.display()))
                .exit(Exit::Unreachable)
                .help(format!(
                    "start it with `caxton serve --data-dir {}`, or name a server with --server URL",
                    dir.display()
                ))),
            (None, None) => Ok(DEFAULT_SERVER.to_owned()),
        }
    }

    /// The workspace that commands act on: `--workspace`, else the one of caxton.toml.
    pub fn workspace_id(&self) -> Result<WorkspaceId, CliError> {
        match &self.global.workspace {
            Some(name) => Ok(name.clone()),
            None => Ok(Workspace::find(&self.cwd)?.settings()?.name),
        }
    }

    /// The workspace around the current directory.
    pub fn workspace(&self) -> Result<Workspace, CliError> {
        Workspace::find(&self.cwd)
    }

    /// A client of the server.
    pub fn client(&self) -> Result<Client, CliError> {
        let url = self.server_url()?;
        let token = self.token_for(&url)?;
        let ca = self.ca_for(&url)?;
        Ok(Client::new(&url, token, ca.as_deref())?)
    }

    /// Waits for `work` on this thread.
    pub fn block_on<T>(&self, work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
        let runtime = match self.runtime.get() {
            Some(runtime) => runtime,
            None => {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .map_err(|error| CliError::new("io", "this process may not start more work").source(error))?;
                self.runtime.get_or_init(|| runtime)
            }
        };
        runtime.block_on(work)
    }

    /// The token to show to `url`.
    ///
    /// The local node's admin token goes to the local node alone: a caxton.toml that came from somewhere else must
    /// not be able to name an address that collects it.
    fn token_for(&self, url: &str) -> Result<Option<Token>, CliError> {
        if let Some(file) = &self.global.token_file {
            let text = read(file, "token", "pass a file that holds a token and nothing else")?;
            return Token::new(&text).map(Some).map_err(|error| {
                CliError::new("bad_token", format!("{} does not hold a token", file.display()))
                    .exit(Exit::Unauthorized)
                    .help("make one with `caxton token create`")
                    .source(error)
            });
        }
        if let Some(text) = &self.token {
            return Token::new(text).map(Some).map_err(|error| {
                CliError::new("bad_token", "CAXTON_TOKEN does not hold a token").exit(Exit::Unauthorized).source(error)
            });
        }
        let local = self.server_file().is_some_and(|file| file.url == url) || client::is_loopback(url);
        let Some(file) = local.then(|| self.data_dir().ok()).flatten().map(|dir| dir.join("admin-token")) else {
            return Ok(None);
        };
        match std::fs::read_to_string(&file) {
            Ok(text) => Ok(Token::new(&text).ok()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(CliError::new("bad_token", format!("{} cannot be read", file.display()))
                .exit(Exit::Unauthorized)
                .help("run as the user who runs the node, or pass a token of your own with --token-file FILE")
                .source(error)),
        }
    }

    /// The CA to trust for `url`, in PEM; nothing for plain HTTP, and for the system's own CAs.
    fn ca_for(&self, url: &str) -> Result<Option<Vec<u8>>, CliError> {
        if !url.contains("https://") {
            return Ok(None);
        }
        if let Some(file) = &self.global.ca_file {
            return read(file, "CA", "pass a PEM file; on the server it is tls/ca.pem in the data directory")
                .map(|text| Some(text.into_bytes()));
        }
        let file = self.data_dir().map(|dir| dir.join("tls").join("ca.pem"));
        Ok(file.ok().and_then(|file| std::fs::read(file).ok()))
    }
}

fn read(file: &Path, what: &str, help: &str) -> Result<String, CliError> {
    std::fs::read_to_string(file).map_err(|error| {
        CliError::new("io", format!("the {what} file {} cannot be read", file.display())).help(help).source(error)
    })
}
