//! Settings: what a person wrote in a file, the environment and flags becomes what a node runs with, or a list of all
//! that is wrong with it. Nothing reads the environment after that.
//!
//! A [`Draft`] holds every setting as it was written and where; it is not a serde type, because serde stops at the
//! first problem and a person wants to see them all. Flags win over the environment, that over the file, and that over
//! the defaults.

mod document;
pub mod environment;
mod settings;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

pub use document::{markdown, print};
pub use settings::{
    Cluster, Config, Data, Deploy, Disk, Http, Limits, Memory, Raft, Runtime, SECTIONS, SETTINGS, Stop, Telemetry, Tls,
    Tokens,
};
pub use value::{ByteSize, LogFormat, Raw, TlsMode, Value};

/// The environment variables that belong to the command line's client and are no settings of a node.
const CLIENT_VARIABLES: [&str; 7] = [
    "CAXTON_SERVER",
    "CAXTON_TOKEN",
    "CAXTON_TOKEN_FILE",
    "CAXTON_CA_FILE",
    "CAXTON_WORKSPACE",
    "CAXTON_CONFIG",
    "CAXTON_CONFIG_PATH",
];

/// One row of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name in a file, as in `http.bind`.
    pub key: &'static str,
    pub kind: &'static str,
    /// What it is when nobody says.
    pub default: &'static str,
    /// The smallest and the largest value.
    pub bounds: Option<(&'static str, &'static str)>,
    /// What it does.
    pub meaning: &'static [&'static str],
}

impl Setting {
    /// Its environment variable, as in `CAXTON_HTTP_BIND`.
    pub fn variable(&self) -> String {
        format!("CAXTON_{}", self.key.replace('.', "_").to_uppercase())
    }

    fn named(key: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }
}

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// In a settings file.
    File {
        path: PathBuf,
        /// Where in it, from 1.
        line: usize,
    },
    /// In an environment variable.
    Variable(String),
    /// In a flag of the command line.
    Flag(String),
    /// Nobody wrote it.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::File { path, line } => write!(f, "{}:{line}", path.display()),
            Source::Variable(name) => write!(f, "environment variable {name}"),
            Source::Flag(name) => write!(f, "flag {name}"),
            Source::Default => f.write_str("default"),
        }
    }
}

/// One thing that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it was written.
    pub source: Source,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

/// Everything that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(f, "{count} {} wrong with the settings", if count == 1 { "thing is" } else { "things are" })
    }
}

impl Problems {
    /// What to do about them.
    pub const HELP: &str =
        "docs/config.md lists every setting, and `caxton serve --print-config` prints those in effect";

    /// Each problem with its place and what to do.
    pub fn list(&self) -> String {
        let mut text = String::new();
        for Problem { source, message, help } in &self.0 {
            text += &format!("  --> {source}\n      {message}\n");
            text += &help.as_ref().map(|help| format!("      help: {help}\n")).unwrap_or_default();
        }
        text
    }
}

/// The settings as they were written.
#[derive(Debug, Default)]
pub struct Draft {
    given: BTreeMap<&'static str, (Raw, Source)>,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl Draft {
    /// Adds a settings file. Call this first: what is added later wins.
    pub fn file(&mut self, path: &Path) {
        match std::fs::read_to_string(path) {
            Ok(text) => self.text(path, &text),
            Err(error) => self.problems.push(Problem {
                source: Source::File { path: path.to_owned(), line: 1 },
                message: format!("the settings file cannot be read: {error}"),
                help: Some("give --config the path of a readable file, or leave it out: a node needs none".to_owned()),
            }),
        }
    }

    /// Adds a settings file's text.
    pub fn text(&mut self, path: &Path, text: &str) {
        let at = |offset: usize| Source::File {
            path: path.to_owned(),
            line: 1 + text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count(),
        };
        let table = match toml::de::DeTable::parse(text) {
            Ok(table) => table.into_inner(),
            Err(error) => {
                let source = at(error.span().map_or(0, |span| span.start));
                self.problems.push(Problem { source, message: error.message().to_owned(), help: None });
                return;
            }
        };
        let first = self.problems.len();
        for (section, value) in table {
            let toml::de::DeValue::Table(entries) = value.get_ref() else {
                self.unknown(section.get_ref(), at(section.span().start));
                continue;
            };
            for (name, value) in entries {
                let key = format!("{}.{}", section.get_ref(), name.get_ref());
                let source = at(name.span().start);
                let Some(setting) = Setting::named(&key) else {
                    self.unknown(&key, source);
                    continue;
                };
                match raw(value.get_ref()) {
                    Some(raw) => _ = self.given.insert(setting.key, (raw, source)),
                    None => self.problems.push(Problem {
                        source,
                        message: format!("`{key}` is a table or a date, and a {} is wanted", setting.kind),
                        help: None,
                    }),
                }
            }
        }
        // The table has its keys in alphabetical order, and a person reads a file from its top.
        self.problems[first..].sort_by_key(|problem| match problem.source {
            Source::File { line, .. } => line,
            Source::Variable(_) | Source::Flag(_) | Source::Default => 0,
        });
    }

    /// Adds the `CAXTON_*` variables of an environment.
    pub fn environment(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        for (name, value) in variables {
            if !name.starts_with("CAXTON_") || CLIENT_VARIABLES.contains(&name.as_str()) {
                continue;
            }
            if let Some(setting) = SETTINGS.iter().find(|setting| setting.variable() == name) {
                self.given.insert(setting.key, (Raw::Text(value), Source::Variable(name)));
                continue;
            }
            // Kubernetes puts CAXTON_SERVICE_HOST and the like into every pod beside a service of that name, so a
            // variable is a mistake only where it looks like one of ours.
            let names = SETTINGS.iter().map(Setting::variable);
            match nearest(&name, names) {
                Some(near) => self.problems.push(Problem {
                    message: format!("there is no setting `{name}`"),
                    source: Source::Variable(name),
                    help: Some(format!("did you mean `{near}`?")),
                }),
                None => self.warnings.push(format!("the environment variable {name} is no setting and has no effect")),
            }
        }
    }

    /// Adds a flag's value; `flag` is how the person wrote it, as in `--bind`.
    pub fn flag(&mut self, flag: &str, key: &str, value: String) {
        let source = Source::Flag(flag.to_owned());
        match Setting::named(key) {
            Some(setting) => _ = self.given.insert(setting.key, (Raw::Text(value), source)),
            None => self.unknown(key, source),
        }
    }

    /// Adds a `--set KEY=VALUE` flag.
    pub fn set(&mut self, text: &str) {
        match text.split_once('=') {
            Some((key, value)) => self.flag(&format!("--set {key}"), key.trim(), value.to_owned()),
            None => self.problems.push(Problem {
                source: Source::Flag("--set".to_owned()),
                message: format!("{text:?} has no `=`"),
                help: Some("write it as in `--set http.timeout=10s`".to_owned()),
            }),
        }
    }

    fn unknown(&mut self, key: &str, source: Source) {
        let near = nearest(key, SETTINGS.iter().map(|setting| setting.key.to_owned()));
        let help = near.map(|near| format!("did you mean `{near}`?"));
        self.problems.push(Problem { source, message: format!("there is no setting `{key}`"), help });
    }

    /// Whether a file, a variable or a flag gives this setting.
    pub fn is_given(&self, key: &str) -> bool {
        self.given.contains_key(key)
    }

    /// What seems odd and stops nothing.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Checks everything, and gives either what a node can run with or all that is wrong.
    pub fn check(mut self, home: &Home) -> Result<Config, Problems> {
        let mut problems = std::mem::take(&mut self.problems);
        let config = Config::read(&self, &mut problems);
        match config {
            Some(mut config) if problems.is_empty() => {
                self.agree(&config, &mut problems);
                if config.data.dir.as_os_str().is_empty() {
                    match home.data_dir() {
                        Some(dir) => config.data.dir = dir,
                        None => problems.push(self.problem(
                            "data.dir",
                            "is not set, and neither HOME nor XDG_DATA_HOME say where it could be",
                            "pass --data-dir DIR",
                        )),
                    }
                }
                if problems.is_empty() { Ok(config) } else { Err(Problems(problems)) }
            }
            Some(_) | None => Err(Problems(problems)),
        }
    }

    /// The rules between settings.
    fn agree(&self, config: &Config, problems: &mut Vec<Problem>) {
        if config.raft.election_min < config.raft.heartbeat * 3 {
            let heartbeat = config.raft.heartbeat.show();
            let message = format!(
                "is less than three times `raft.heartbeat` ({heartbeat}), so that one late heartbeat would start an election"
            );
            problems.push(self.problem("raft.election_min", &message, "raise it, or lower `raft.heartbeat`"));
        }
        if config.raft.election_max <= config.raft.election_min {
            problems.push(self.problem("raft.election_max", "is not more than `raft.election_min`", "raise it"));
        }
        if config.tokens.ttl > config.tokens.ttl_max {
            problems.push(self.problem("tokens.ttl", "is more than `tokens.ttl_max`", "lower it"));
        }
        if config.deploy.file_bytes_max > config.deploy.workspace_bytes_max {
            problems.push(self.problem(
                "deploy.file_bytes_max",
                "is more than `deploy.workspace_bytes_max`",
                "lower it",
            ));
        }
        let (certificate, key) = (&config.tls.certificate_file, &config.tls.key_file);
        if certificate.as_os_str().is_empty() != key.as_os_str().is_empty() {
            let missing = if key.as_os_str().is_empty() { "tls.key_file" } else { "tls.certificate_file" };
            problems.push(self.problem(missing, "is missing, and a certificate needs its key", "set both, or neither"));
        }
        self.agree_on_cluster(&config.cluster, problems);
        let endpoint = &config.telemetry.otlp_endpoint;
        if !endpoint.is_empty() && !endpoint.starts_with("http://") {
            let message = format!("is {endpoint:?}, and an `http://` URL is wanted: run a collector beside the node");
            problems.push(self.problem("telemetry.otlp_endpoint", &message, "write it as in `http://127.0.0.1:4317`"));
        }
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&config.telemetry.filter) {
            let message = format!("is {:?}, and that is no filter: {error}", config.telemetry.filter);
            problems.push(self.problem("telemetry.filter", &message, "write it as in `info,caxton=debug`"));
        }
    }

    fn agree_on_cluster(&self, cluster: &Cluster, problems: &mut Vec<Problem>) {
        let mut wrong = |key, message: &str, help: &str| problems.push(self.problem(key, message, help));
        let port_of = |address: &str| address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        if !cluster.advertise.is_empty() && port_of(&cluster.advertise).is_none() {
            wrong("cluster.advertise", "has no port", "write it as in `node1.example.org:7412`");
        }
        if cluster.advertise.is_empty() && cluster.bind.is_some_and(|bind| bind.ip().is_unspecified()) {
            let message = "is missing, and `cluster.bind` is every address of this machine";
            wrong("cluster.advertise", message, "say where other nodes reach this one, as in `node1.example.org:7412`");
        }
        if let Some(address) = cluster.join.iter().find(|address| port_of(address).is_none()) {
            let message = format!("has {address:?} in it, which has no port");
            wrong("cluster.join", &message, "write it as in `node1.example.org:7412`");
        }
        let (token, secret) = (!cluster.token_file.as_os_str().is_empty(), !cluster.secret_file.as_os_str().is_empty());
        if token && secret {
            wrong("cluster.token_file", "is set, and `cluster.secret_file` too", "set one of them");
        }
        if !cluster.join.is_empty() && !token && !secret {
            let help = "make a token with `caxton cluster token create` on a node of the cluster, and name its file";
            wrong("cluster.token_file", "is missing, and `cluster.join` needs it (or `cluster.secret_file`)", help);
        }
    }

    fn problem(&self, key: &'static str, message: &str, help: &str) -> Problem {
        let source = self.given.get(key).map_or(Source::Default, |(_, source)| source.clone());
        Problem { source, message: format!("`{key}` {message}"), help: Some(help.to_owned()) }
    }
}

/// Where the environment says that a person's files are.
#[derive(Debug, Clone, Default)]
pub struct Home {
    pub home: Option<PathBuf>,
    pub data: Option<PathBuf>,
}

impl Home {
    /// Reads it from this process's environment.
    pub fn here() -> Home {
        let path = |name| environment::variable(name).map(PathBuf::from);
        Home { home: path("HOME"), data: path("XDG_DATA_HOME") }
    }

    /// The data directory when nobody names one.
    pub fn data_dir(&self) -> Option<PathBuf> {
        let share = self.data.clone().or_else(|| Some(self.home.as_ref()?.join(".local/share")))?;
        Some(share.join("caxton"))
    }
}

/// Reads one setting, and adds what is wrong with it to `problems`.
fn pick<T: Value>(setting: &'static Setting, draft: &Draft, problems: &mut Vec<Problem>) -> Option<T> {
    let default = (Raw::Text(setting.default.to_owned()), Source::Default);
    let (raw, source) = draft.given.get(setting.key).unwrap_or(&default);
    let mut wrong = |message: String, help: Option<String>| {
        problems.push(Problem { source: source.clone(), message: format!("`{}` {message}", setting.key), help });
        None
    };
    let value = match T::read(raw) {
        Ok(value) => value,
        Err(message) => return wrong(message, Some(format!("the default is `{}`", setting.default))),
    };
    let bound = |text: &str| T::read(&Raw::Text(text.to_owned()));
    if let Some((min, max)) = setting.bounds
        && (bound(min).is_ok_and(|min| value < min) || bound(max).is_ok_and(|max| value > max))
    {
        return wrong(format!("is {}, and has to be between {min} and {max}", value.show()), None);
    }
    Some(value)
}

/// A TOML value as it was written, if it is one that a setting can have.
fn raw(value: &toml::de::DeValue<'_>) -> Option<Raw> {
    use toml::de::DeValue;
    let scalar = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(truth) => Some(truth.to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    };
    match value {
        DeValue::Array(items) => items.iter().map(|item| scalar(item.get_ref())).collect::<Option<_>>().map(Raw::List),
        other => scalar(other).map(Raw::Text),
    }
}

/// The name that is most like `wrong`, if one is like it at all.
fn nearest(wrong: &str, names: impl Iterator<Item = String>) -> Option<String> {
    const LIKENESS_MIN: f64 = 0.8;
    names
        .map(|name| (strsim::jaro_winkler(wrong, &name), strsim::levenshtein(wrong, &name), name))
        .filter(|(likeness, edits, name)| *likeness >= LIKENESS_MIN && *edits <= 2 + name.len() / 6)
        .min_by_key(|(_, edits, _)| *edits)
        .map(|(_, _, name)| name)
}

#[cfg(test)]
mod tests;
