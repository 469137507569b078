//! The providers that a node can reach: those that its environment names, and those of each workspace's caxton.toml.
//!
//! A workspace's file names where a key is and never the key. A variable of the node's environment is given out only
//! where its operator means it to go: a provider's own key to the provider's own host, and variables that begin with
//! `CAXTON_PROVIDER_` to any host that a workspace names.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use caxton_proto::manifest::provider::{DialectSettings, Price, Provider as Declared, ProviderKind};
use caxton_proto::manifest::secret::KeySource;
use caxton_proto::{Digest, ProviderName, WorkspaceId};

use super::breaker::Breaker;
use super::dialect::{Dialects, Lessons};
use super::proxies::{self, Proxies};
use super::reach::Reach;
use super::retry::Schedule;
use super::scripted::Script;
use super::{Anthropic, Endpoint, Error, Key, OpenAi, Player, Provider};
use crate::secrets::{NoSecrets, Secrets};

/// Variables with this start may be named by any workspace, for any host.
pub const KEY_PREFIX: &str = "CAXTON_PROVIDER_";
/// Where Ollama is, if it is not where it is by itself.
const OLLAMA_VARIABLE: &str = "OLLAMA_HOST";
/// Ollama's own port.
const OLLAMA_PORT: &str = "11434";
/// How long a provider of the environment may be silent.
const SILENCE: Duration = Duration::from_secs(60);
/// How a provider is added, for errors.
const PROVIDER_HELP: &str =
    "name it under [providers] in caxton.toml, or set OPENAI_API_KEY or ANTHROPIC_API_KEY for the server";

/// The providers that everyone knows: name, what it speaks, address, the variables of its key and of another address.
const KNOWN: [(&str, Protocol, &str, &str, &str); 3] = [
    ("openai", Protocol::OpenAi, "https://api.openai.com/v1", "OPENAI_API_KEY", "OPENAI_BASE_URL"),
    ("anthropic", Protocol::Anthropic, "https://api.anthropic.com/v1", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"),
    ("openrouter", Protocol::OpenAi, "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY", "OPENROUTER_BASE_URL"),
];

/// What a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    OpenAi,
    /// The Messages API.
    Anthropic,
}

/// What the node's environment says of providers.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// When a failed request is made again.
    pub schedule: Schedule,
    /// The variables that matter, by name.
    variables: BTreeMap<String, String>,
}

impl Settings {
    /// Keeps what concerns providers; the rest of the environment is not looked at again.
    pub fn from_env(variables: impl IntoIterator<Item = (String, String)>) -> Settings {
        let known = |name: &str| KNOWN.iter().any(|known| known.3 == name || known.4 == name);
        let proxy = |name: &str| proxies::VARIABLES.contains(&name.to_ascii_uppercase().as_str());
        let wanted = |name: &str| known(name) || name.starts_with(KEY_PREFIX) || name == OLLAMA_VARIABLE || proxy(name);
        let kept = variables.into_iter().filter(|(name, value)| wanted(name) && !value.trim().is_empty());
        Settings { schedule: Schedule::default(), variables: kept.collect() }
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(|value| value.trim())
    }

    /// Where Ollama is, up to the version of its API.
    fn ollama(&self) -> String {
        ollama_base(self.variable(OLLAMA_VARIABLE).unwrap_or_default())
    }
}

/// The address that `OLLAMA_HOST` means, as Ollama itself reads it: a host, a port, both, or a URL. One that listens on
/// all addresses is reached on this machine.
fn ollama_base(host: &str) -> String {
    let host = host.trim().trim_matches(['"', '\'']);
    let (scheme, rest, port) = match host.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => ("https", rest, "443"),
        Some((_, rest)) => ("http", rest, "80"),
        None => ("http", host, OLLAMA_PORT),
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let colons = authority.matches(':').count();
    let (name, port) = match authority.rsplit_once(':') {
        // An address of IPv6 has a port only behind brackets.
        Some((name, own)) if colons == 1 || name.ends_with(']') => {
            (name, if own.parse::<u16>().is_ok_and(|port| port > 0) { own } else { port })
        }
        Some(_) | None => (authority, port),
    };
    let name = match name.trim_matches(['[', ']']) {
        "" | "0.0.0.0" => "127.0.0.1".to_owned(),
        "::" => "[::1]".to_owned(),
        v6 if v6.contains(':') => format!("[{v6}]"),
        name => name.to_owned(),
    };
    let path = path.trim_matches('/');
    let path = path.strip_suffix("v1").unwrap_or(path).trim_matches('/');
    let path = if path.is_empty() { String::new() } else { format!("/{path}") };
    format!("{scheme}://{name}:{port}{path}/v1")
}

/// One provider, ready to be asked.
pub struct Backend {
    pub(super) name: String,
    pub(super) provider: Arc<dyn Provider>,
    pub(super) breaker: Mutex<Breaker>,
    pub(super) prices: BTreeMap<String, Price>,
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backend").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Backend {
    /// A provider of any kind.
    pub fn new(name: &str, provider: Arc<dyn Provider>, prices: BTreeMap<String, Price>) -> Backend {
        Backend { name: name.to_owned(), provider, breaker: Mutex::default(), prices }
    }

    pub fn name(&self) -> &str {
        &self.name
    }
}

/// What a scripted model says.
#[derive(Debug, Clone)]
pub enum Speech {
    Script(Arc<Script>),
    Recording(Arc<Player>),
}

impl Speech {
    /// Reads the file that a scripted provider names: `.jsonl` is a recording, anything else a script.
    pub fn parse(path: &str, text: &str) -> Result<Speech, Error> {
        if path.ends_with(".jsonl") {
            Ok(Speech::Recording(Arc::new(Player::parse(path, text)?)))
        } else {
            Ok(Speech::Script(Arc::new(Script::parse(path, text)?)))
        }
    }
}

/// All providers of a node.
pub struct Providers {
    settings: Settings,
    secrets: Arc<dyn Secrets>,
    node: BTreeMap<String, Arc<Backend>>,
    /// Those that the environment names and that cannot be used, with the reason.
    unusable: BTreeMap<String, Error>,
    proxies: Proxies,
    /// Where the providers of workspaces may lead; nothing for anywhere.
    reach: Option<Reach>,
    /// What was learnt of how they are spoken to; it outlives deployments.
    lessons: Lessons,
    /// Those of workspaces, shared by the agents that ask them, for as long as one does.
    workspaces: Mutex<HashMap<Digest, Weak<Backend>>>,
}

impl Providers {
    /// Prepares the providers of the environment; nothing is asked yet.
    pub fn new(settings: Settings) -> Result<Providers, Error> {
        let mut providers = Providers {
            proxies: Proxies::read(|name| settings.variable(name)),
            settings,
            reach: None,
            secrets: Arc::new(NoSecrets),
            node: BTreeMap::new(),
            unusable: BTreeMap::new(),
            lessons: Lessons::default(),
            workspaces: Mutex::default(),
        };
        for (name, protocol, base, key, other_base) in KNOWN {
            if let Some(key) = providers.settings.variable(key).map(Key::new) {
                let base = providers.settings.variable(other_base).unwrap_or(base).to_owned();
                providers.add(name, protocol, &base, key);
            }
        }
        let ollama = providers.settings.ollama();
        providers.add("ollama", Protocol::OpenAi, &ollama, Key::none());
        Ok(providers)
    }

    /// Adds a provider of the environment. One whose address or proxy is none is no reason not to start: whoever asks it
    /// is told.
    fn add(&mut self, name: &str, protocol: Protocol, base: &str, key: Key) {
        match self.speak(name, protocol, base, key, (SILENCE, None), DialectSettings::default()) {
            Ok(provider) => self.register(Backend::new(name, provider, BTreeMap::new())),
            Err(error) => _ = self.unusable.insert(name.to_owned(), error),
        }
    }

    /// The same, with the secrets that workspaces' files name.
    pub fn with_secrets(self, secrets: Arc<dyn Secrets>) -> Providers {
        Providers { secrets, ..self }
    }

    /// The same, whose workspaces' providers lead nowhere else.
    pub fn within(self, reach: Reach) -> Providers {
        Providers { reach: Some(reach), ..self }
    }

    /// Puts a provider under a name of the node's own.
    pub fn register(&mut self, backend: Backend) {
        self.node.insert(backend.name.clone(), Arc::new(backend));
    }

    /// When failed requests are made again.
    pub fn schedule(&self) -> Schedule {
        self.settings.schedule
    }

    /// A provider of the node.
    pub fn of_node(&self, name: &str) -> Result<Arc<Backend>, Error> {
        if let Some(error) = self.unusable.get(name) {
            return Err(error.clone());
        }
        self.node.get(name).cloned().ok_or_else(|| Error::UnknownProvider {
            provider: name.to_owned(),
            known: self.node.keys().cloned().collect(),
            help: PROVIDER_HELP.to_owned(),
        })
    }

    /// A provider of a workspace's file that is reached over HTTP; none for other kinds.
    pub fn of_workspace(
        &self,
        workspace: &WorkspaceId,
        name: &ProviderName,
        declared: &Declared,
    ) -> Result<Option<Arc<Backend>>, Error> {
        let maker =
            |protocol| KNOWN.iter().find(|known| known.1 == protocol).map_or(String::new(), |known| known.2.to_owned());
        let (protocol, base_url, api_key, standard) = match &declared.kind {
            ProviderKind::OpenAi { base_url, api_key } => {
                (Protocol::OpenAi, base_url, api_key, maker(Protocol::OpenAi))
            }
            ProviderKind::Ollama { base_url, api_key } => (Protocol::OpenAi, base_url, api_key, self.settings.ollama()),
            ProviderKind::Anthropic { base_url, api_key } => {
                (Protocol::Anthropic, base_url, api_key, maker(Protocol::Anthropic))
            }
            ProviderKind::Scripted { .. } | ProviderKind::Wasm { .. } => return Ok(None),
        };
        let setup = |problem: String| Error::Setup { provider: name.to_string(), problem };
        let identity = serde_json::to_vec(&(workspace, name, declared)).map_err(|error| setup(error.to_string()))?;
        let identity = Digest::of(&identity);
        let mut made = self.workspaces.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(backend) = made.get(&identity).and_then(Weak::upgrade) {
            return Ok(Some(backend));
        }
        let base = match (base_url, &declared.kind) {
            (Some(url), ProviderKind::Ollama { .. }) => ollama_base(url.as_str()),
            (Some(url), _) => url.as_str().to_owned(),
            (None, _) => standard,
        };
        let base = base.as_str();
        // What the maker or the operator says is not the workspace's choice.
        let reach = base_url.as_ref().and(self.reach.as_ref());
        let key = match api_key {
            Some(KeySource::Secret(name)) => Key::secret(self.secrets.clone(), workspace.clone(), name.clone()),
            Some(KeySource::Env(variable)) => self.key(variable.as_str(), base).map_err(setup)?,
            None => Key::none(),
        };
        let provider =
            self.speak(name.as_str(), protocol, base, key, (declared.timeout, reach), declared.dialect.clone())?;
        let backend = Arc::new(Backend::new(name.as_str(), provider, declared.prices.clone()));
        made.retain(|_, held| held.strong_count() > 0);
        made.insert(identity, Arc::downgrade(&backend));
        Ok(Some(backend))
    }

    /// A client for an address that a workspace's file names. It leads where workspaces may go, as the node's operator says;
    /// the error says why the address leads to no such place, and what to do.
    pub fn workspace_client(&self, address: &str, silence: Duration) -> Result<reqwest::Client, String> {
        super::http::bounded_client(address, address, silence, (&self.proxies, self.reach.as_ref()))
    }

    /// The key that a workspace's file names for an address; the error ends in what to do.
    pub fn workspace_key(&self, workspace: &WorkspaceId, source: &KeySource, address: &str) -> Result<Key, String> {
        match source {
            KeySource::Secret(name) => Ok(Key::secret(self.secrets.clone(), workspace.clone(), name.clone())),
            KeySource::Env(variable) => self.key(variable.as_str(), address),
        }
    }

    /// A provider at an address, in its host's dialect and with what is set of it.
    fn speak(
        &self,
        name: &str,
        protocol: Protocol,
        base: &str,
        key: Key,
        (silence, reach): (Duration, Option<&Reach>),
        dialect: DialectSettings,
    ) -> Result<Arc<dyn Provider>, Error> {
        let endpoint = Endpoint::through(name, base, key, silence, (&self.proxies, reach))?;
        let dialects = Dialects::new(&endpoint.base, dialect, self.lessons.clone());
        Ok(match protocol {
            Protocol::OpenAi => Arc::new(OpenAi::new(endpoint).speaking(dialects)),
            Protocol::Anthropic => Arc::new(Anthropic::new(endpoint).speaking(dialects)),
        })
    }

    /// The key that a variable holds, if it may go to `base`; the error ends in what to do.
    fn key(&self, name: &str, base: &str) -> Result<Key, String> {
        let own = KNOWN.iter().find(|known| known.3 == name);
        let homes: Vec<&str> =
            own.iter().flat_map(|known| [Some(known.2), self.settings.variable(known.4)]).flatten().collect();
        if !name.starts_with(KEY_PREFIX) && !homes.iter().any(|home| host_of(home) == host_of(base)) {
            let alias = format!("{KEY_PREFIX}{name}");
            return Err(match homes.first() {
                Some(home) => format!(
                    "{name} is given to {} only; set {alias} for the server to give a key to {}",
                    host_of(home),
                    host_of(base)
                ),
                None => {
                    format!("workspaces may not read the variable {name}; name it {alias}, there and in caxton.toml")
                }
            });
        }
        match self.settings.variable(name) {
            Some(value) => Ok(Key::new(value)),
            None => Err(format!("the variable {name} is not set for the server; set it and start the server again")),
        }
    }
}

/// Scheme, host and port of an address: what a key may be given to.
fn host_of(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    format!("{scheme}://{}", authority.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn providers(variables: &[(&str, &str)]) -> Providers {
        let variables = variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        Providers::new(Settings::from_env(variables)).expect("good settings")
    }

    fn key_for(providers: &Providers, source: &str, base: &str) -> Result<Key, String> {
        providers.key(source.strip_prefix("env:").expect("a variable"), base)
    }

    #[test]
    fn ollama_is_where_its_variable_says() {
        for (host, base) in [
            ("", "http://127.0.0.1:11434/v1"),
            ("gpu.lan", "http://gpu.lan:11434/v1"),
            ("gpu.lan:8000", "http://gpu.lan:8000/v1"),
            (":8000", "http://127.0.0.1:8000/v1"),
            ("0.0.0.0", "http://127.0.0.1:11434/v1"),
            ("0.0.0.0:8000", "http://127.0.0.1:8000/v1"),
            ("http://gpu.lan", "http://gpu.lan:80/v1"),
            ("http://gpu.lan:8000/", "http://gpu.lan:8000/v1"),
            ("https://gpu.lan", "https://gpu.lan:443/v1"),
            ("https://gpu.lan/ollama/", "https://gpu.lan:443/ollama/v1"),
            ("http://gpu.lan:8000/v1", "http://gpu.lan:8000/v1"),
            (" \"gpu.lan\" ", "http://gpu.lan:11434/v1"),
            ("gpu.lan:nonsense", "http://gpu.lan:11434/v1"),
            ("gpu.lan:0", "http://gpu.lan:11434/v1"),
            ("[::1]", "http://[::1]:11434/v1"),
            ("[::1]:8000", "http://[::1]:8000/v1"),
            ("::1", "http://[::1]:11434/v1"),
            ("[::]:8000", "http://[::1]:8000/v1"),
        ] {
            assert_eq!(ollama_base(host), base, "{host:?}");
        }
    }

    #[test]
    fn a_provider_is_there_when_its_key_is() {
        let providers = providers(&[("ANTHROPIC_API_KEY", "k"), ("OPENAI_API_KEY", " ")]);
        assert!(providers.of_node("anthropic").is_ok() && providers.of_node("ollama").is_ok());
        let error = providers.of_node("openai").expect_err("no key").to_string();
        assert!(error.contains("OPENAI_API_KEY"), "{error}");
    }

    #[test]
    fn a_workspace_s_address_keeps_to_public_ones_and_the_operator_s_goes_anywhere() {
        let of = |providers: &Providers, base_url: &str| {
            let file = format!(
                "[workspace]\nname = \"demo\"\n[providers.lab]\nkind = \"openai\"\nmodel = \"m\"\n{base_url}\n"
            );
            let path = "caxton.toml".parse().expect("a path");
            let file = caxton_proto::manifest::workspace::WorkspaceManifest::parse(&path, &file).expect("a workspace");
            let (name, declared) = file.providers.iter().next().expect("one");
            providers.of_workspace(&"demo".parse().expect("a name"), name, declared).map(drop)
        };
        let within = |networks: &[&str]| {
            let networks = networks.iter().map(|network| network.parse().expect("a network"));
            providers(&[("OPENAI_BASE_URL", "http://10.0.0.1/v1"), ("OPENAI_API_KEY", "k")])
                .within(Reach::new(networks))
        };
        let closed = within(&[]);
        let refused = of(&closed, "base_url = \"http://10.0.0.1/v1\"").expect_err("private").to_string();
        assert!(refused.contains("10.0.0.1") && refused.contains("llm.networks"), "{refused}");
        assert!(of(&closed, "base_url = \"http://10.0.0.1/v1?api-version=1\"").is_err());
        assert!(of(&closed, "base_url = \"https://api.example.com/v1\"").is_ok());
        assert!(of(&closed, "").is_ok(), "the maker's own address is no choice of the workspace");
        assert!(closed.of_node("openai").is_ok(), "what the node's environment says is its operator's");
        assert!(of(&within(&["10.0.0.0/8"]), "base_url = \"http://10.0.0.1/v1\"").is_ok());
    }

    #[test]
    fn a_key_goes_only_where_the_operator_sends_it() {
        let providers = providers(&[
            ("OPENAI_API_KEY", "secret"),
            ("CAXTON_PROVIDER_LAB", "lab"),
            ("AWS_SECRET_ACCESS_KEY", "never"),
        ]);
        assert!(key_for(&providers, "env:OPENAI_API_KEY", "https://api.openai.com/v1").is_ok());
        for elsewhere in ["https://evil.example/v1", "http://api.openai.com/v1", "https://api.openai.com.evil.example"]
        {
            let error = key_for(&providers, "env:OPENAI_API_KEY", elsewhere).expect_err(elsewhere);
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(key_for(&providers, "env:CAXTON_PROVIDER_LAB", "http://10.0.0.7:8000").is_ok());
        assert!(key_for(&providers, "env:AWS_SECRET_ACCESS_KEY", "https://api.openai.com/v1").is_err());
        assert!(key_for(&providers, "env:CAXTON_PROVIDER_NONE", "https://a.example").is_err());
    }
}
