//! What every command has at hand: the global flags, the output, and how to reach the server.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use caxton_proto::WorkspaceId;
use serde::Deserialize;

use crate::cli::known_servers::KnownServers;
use crate::cli::output::{ColorWhen, Output};
use crate::cli::workspace::Workspace;
use crate::cli::{CliError, Exit};
use crate::client::{self, Client, Token, Trust};
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

/// The workspace of an agent that is deployed alone, unless another one is named.
pub const DEFAULT_WORKSPACE: &str = "default";

/// A command's surroundings.
pub struct Context {
    /// The global flags.
    pub global: Global,
    /// Where to print.
    pub out: Output,
    /// Where the command was started.
    pub cwd: PathBuf,
    /// What `CAXTON_TOKEN` says.
    token: Option<String>,
    default_data_dir: Option<PathBuf>,
    /// Where this person's own settings are.
    config_dir: Option<PathBuf>,
    /// What the environment says of makers of models.
    pub makers: Makers,
    runtime: OnceLock<tokio::runtime::Runtime>,
}

/// What the environment says of makers of models; their keys themselves are not looked at.
#[derive(Debug, Clone, Default)]
pub struct Makers {
    /// Whether OPENAI_API_KEY is set.
    pub openai_key: bool,
    /// Whether ANTHROPIC_API_KEY is set.
    pub anthropic_key: bool,
    /// What OLLAMA_HOST says.
    pub ollama_host: Option<String>,
}

/// What a running node writes to `server.json` in its data directory.
#[derive(Debug, Clone, Deserialize)]
pub struct ServerFile {
    /// Where it listens.
    pub url: String,
    /// The process that serves.
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
        let config_dir = match (set("XDG_CONFIG_HOME"), set("HOME")) {
            (Some(config), _) => Some(PathBuf::from(config).join("caxton")),
            (None, Some(home)) => Some(PathBuf::from(home).join(".config/caxton")),
            (None, None) => None,
        };
        let token = set("CAXTON_TOKEN").and_then(|token| token.into_string().ok());
        let makers = Makers {
            openai_key: set("OPENAI_API_KEY").is_some(),
            anthropic_key: set("ANTHROPIC_API_KEY").is_some(),
            ollama_host: set("OLLAMA_HOST").and_then(|host| host.into_string().ok()),
        };
        Ok(Context { global, out, cwd, token, default_data_dir, config_dir, makers, runtime: OnceLock::new() })
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
        let (default_data_dir, config_dir) = (self.default_data_dir.clone(), self.config_dir.clone());
        let (out, cwd, makers) = (self.out.clone(), cwd.to_owned(), self.makers.clone());
        Context { global, out, cwd, token: None, default_data_dir, config_dir, makers, runtime: OnceLock::new() }
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
    fn server(&self) -> Result<Server, CliError> {
        if !self.global.server.is_empty() {
            return Ok(Server { url: self.global.server.join(","), named_by: NamedBy::Person });
        }
        let local = |url| Server { url, named_by: NamedBy::Node };
        if self.global.data_dir.is_some()
            && let Some(file) = self.server_file()
        {
            return Ok(local(file.url));
        }
        if let Ok(workspace) = Workspace::find(&self.cwd)
            && let Some(url) = workspace.settings()?.server
        {
            return Ok(Server { url, named_by: NamedBy::Workspace });
        }
        match (&self.global.data_dir, self.server_file()) {
            (_, Some(file)) => Ok(local(file.url)),
            (Some(dir), None) => Err(CliError::new("unreachable", format!("no node runs in {}", dir.display()))
                .exit(Exit::Unreachable)
                .help(format!(
                    "start it with `caxton serve --data-dir {}`, or name a server with --server URL",
                    dir.display()
                ))),
            (None, None) => Ok(local(DEFAULT_SERVER.to_owned())),
        }
    }

    /// The workspace that commands act on: `--workspace`, else the one of caxton.toml.
    pub fn workspace_id(&self) -> Result<WorkspaceId, CliError> {
        match &self.global.workspace {
            Some(name) => Ok(name.clone()),
            None => Ok(Workspace::find(&self.cwd)?.settings()?.name),
        }
    }

    /// The same, and outside of any workspace the one to which agents are deployed alone.
    pub fn workspace_id_or_default(&self) -> Result<WorkspaceId, CliError> {
        match Workspace::find(&self.cwd) {
            Err(_) if self.global.workspace.is_none() => {
                DEFAULT_WORKSPACE.parse().map_err(|error| CliError::new("internal", format!("{error}")))
            }
            Ok(_) | Err(_) => self.workspace_id(),
        }
    }

    /// The workspace around the current directory.
    pub fn workspace(&self) -> Result<Workspace, CliError> {
        Workspace::find(&self.cwd)
    }

    /// A client of the server.
    pub fn client(&self) -> Result<Client, CliError> {
        let server = self.server()?;
        let token = self.token_for(&server)?;
        let trust = self.trust_for(&server.url)?;
        Ok(Client::new(&server.url, token, trust)?)
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
    /// A caxton.toml that came from somewhere else must not be able to name an address that collects tokens: a person's
    /// own token goes to an address of a caxton.toml only after that person named the same address once, and the local
    /// node's admin token goes to the local node alone.
    fn token_for(&self, server: &Server) -> Result<Option<Token>, CliError> {
        let url = &server.url;
        let own = self.server_file().is_some_and(|file| same_node(url, &file.url));
        if (self.global.token_file.is_some() || self.token.is_some()) && !own {
            match server.named_by {
                NamedBy::Person => self.known_servers().remember(url),
                NamedBy::Workspace => self.confirm(url)?,
                NamedBy::Node => {}
            }
        }
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
        let Some(file) = own.then(|| self.data_dir().ok()).flatten().map(|dir| dir.join("admin-token")) else {
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

    /// Asks once whether a server that a caxton.toml names may have this person's token.
    fn confirm(&self, url: &str) -> Result<(), CliError> {
        let known = self.known_servers();
        if known.holds(url) {
            return Ok(());
        }
        let question = format!("caxton.toml names the server {url}. Send your token there, now and from now on?");
        if self.out.can_ask() && self.out.confirm(question)? {
            known.remember(url);
            return Ok(());
        }
        Err(CliError::new(
            "unconfirmed_server",
            format!("caxton.toml names the server {url}, which never had your token"),
        )
        .exit(Exit::Unauthorized)
        .help(format!("if the address is right, name it once yourself, as in `caxton status --server {url}`")))
    }

    fn known_servers(&self) -> KnownServers {
        KnownServers::in_folder(self.config_dir.as_deref())
    }

    /// Whose certificates to trust for `url`.
    fn trust_for(&self, url: &str) -> Result<Trust, CliError> {
        if !url.contains("https://") {
            return Ok(Trust::System);
        }
        if let Some(file) = &self.global.ca_file {
            return read(file, "CA", "pass a PEM file; on the server it is tls/ca.pem in the data directory")
                .map(|text| Trust::Only(text.into_bytes()));
        }
        let file = self.data_dir().map(|dir| dir.join("tls").join("ca.pem"));
        let Some(pem) = file.ok().and_then(|file| std::fs::read(file).ok()) else { return Ok(Trust::System) };
        // The local node's authority is for its cluster: a server somewhere else may have a certificate that the system
        // trusts.
        let own = self.server_file().is_some_and(|file| same_node(url, &file.url));
        Ok(if own { Trust::Only(pem) } else { Trust::SystemAnd(pem) })
    }
}

/// The server that a command talks to.
struct Server {
    url: String,
    named_by: NamedBy,
}

/// Who says which server it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NamedBy {
    /// `--server` or CAXTON_SERVER.
    Person,
    /// `[server] url` of a caxton.toml, which may have come from anybody.
    Workspace,
    /// The node of this machine, or where one would be.
    Node,
}

/// Whether `url` is the node that says of itself that it listens at `own`: the same address, or the same port of the
/// loopback. Of several addresses, all have to be.
fn same_node(url: &str, own: &str) -> bool {
    url.split(',').all(|url| {
        let (Some(one), Some(other)) = (origin_of(url), origin_of(own)) else { return false };
        one == other || (one.2 == other.2 && client::is_loopback(url))
    })
}

/// Scheme, host and port of an address.
fn origin_of(url: &str) -> Option<(String, String, u16)> {
    let url = url.trim().parse::<http::Uri>().ok()?;
    let scheme = url.scheme_str()?.to_owned();
    let port = url.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    Some((scheme, url.host()?.to_ascii_lowercase(), port))
}

fn read(file: &Path, what: &str, help: &str) -> Result<String, CliError> {
    std::fs::read_to_string(file).map_err(|error| {
        CliError::new("io", format!("the {what} file {} cannot be read", file.display())).help(help).source(error)
    })
}
