//! Where a workspace's memories are looked for: in the node's own index, or in a system beside it that `[memory]` names.
//!
//! A backend finds candidates and decides nothing: what is remembered, and who may read it, is what the log says.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Serialize;

use super::address::HttpUrl;
use super::limits::{LINE_BYTES_MAX, WORD_BYTES_MAX};
use super::provider::read_key;
use super::read::{Section, Value};
use super::secret::KeySource;
use super::units::serialize_duration;
use crate::ToolName;
use crate::diagnostic::code;

/// What stands before a tool's name where it is the backend: `tool:NAME`.
const TOOL_PREFIX: &str = "tool:";
/// How long a backend may take over one request where the file does not say.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may be told to take.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);
/// The functions that a tool needs to be a backend; it may have `position` as well.
pub const BACKEND_FUNCTIONS: [&str; 4] = ["upsert", "delete", "search", "list"];

/// A system beside the node that finds what a workspace remembers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackendSettings {
    /// Which system, and where it is.
    #[serde(flatten)]
    pub kind: BackendKind,
    /// The longest that one request to it may take.
    #[serde(serialize_with = "serialize_duration")]
    pub timeout: Duration,
    /// The node's own index answers where the backend cannot, and says so; otherwise that is an error.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub falls_back: bool,
}

/// Which system finds what a workspace remembers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "backend", rename_all = "snake_case")]
pub enum BackendKind {
    /// Qdrant, over its REST API.
    Qdrant {
        /// Its address, as `https://qdrant.example.com:6333`.
        url: HttpUrl,
        /// Where its key is; a server of one's own may need none.
        api_key: Option<KeySource>,
        /// The collection; `caxton-` and the workspace's name unless the file says another.
        collection: Option<String>,
    },
    /// Neo4j, over its HTTP Query API.
    Neo4j {
        /// Its address, as `https://neo4j.example.com:7473`.
        url: HttpUrl,
        /// The database in which it looks.
        database: String,
        /// Whose account it is.
        user: String,
        /// Where the account's password is.
        password: KeySource,
    },
    /// A tool of the workspace with the functions of [`BACKEND_FUNCTIONS`].
    Tool {
        /// The tool's name.
        tool: ToolName,
    },
}

impl BackendKind {
    /// Its name as the file has it: `qdrant`, `neo4j` or `tool:NAME`.
    pub fn name(&self) -> String {
        match self {
            BackendKind::Qdrant { .. } => "qdrant".to_owned(),
            BackendKind::Neo4j { .. } => "neo4j".to_owned(),
            BackendKind::Tool { tool } => format!("{TOOL_PREFIX}{tool}"),
        }
    }

    /// Its address, where it has one.
    pub fn url(&self) -> Option<&HttpUrl> {
        match self {
            BackendKind::Qdrant { url, .. } | BackendKind::Neo4j { url, .. } => Some(url),
            BackendKind::Tool { .. } => None,
        }
    }

    /// Where its key or its password is, where it has one.
    pub fn key(&self) -> Option<&KeySource> {
        match self {
            BackendKind::Qdrant { api_key, .. } => api_key.as_ref(),
            BackendKind::Neo4j { password, .. } => Some(password),
            BackendKind::Tool { .. } => None,
        }
    }
}

impl BackendSettings {
    /// Reads the keys of `[memory]` that are about a backend; nothing where the node's own index is meant, or where
    /// something is wrong, which is noted.
    pub(super) fn read(section: &mut Section<'_, '_>) -> Option<BackendSettings> {
        let backend = section.get("backend")?;
        let text = backend.text(LINE_BYTES_MAX)?;
        let kind = match text {
            "embedded" => return None,
            "qdrant" => read_qdrant(section),
            "neo4j" => read_neo4j(section),
            _ => read_tool(&backend, text).or_else(|| {
                // Which of these it needs depends on what was meant.
                section.pass_over(&["url", "api_key", "collection", "database", "user", "password"]);
                None
            }),
        };
        let timeout = section.get("timeout").and_then(|value| value.duration(TIMEOUTS)).unwrap_or(TIMEOUT);
        let fallback = section.get("fallback").and_then(|value| value.choice(&[("embedded", true)]));
        Some(BackendSettings { kind: kind?, timeout, falls_back: fallback.unwrap_or(false) })
    }
}

fn read_qdrant(section: &mut Section<'_, '_>) -> Option<BackendKind> {
    let url = section.require("url", "say where Qdrant is: url = \"https://qdrant.example.com:6333\"");
    let url = url.and_then(|value| value.parse(LINE_BYTES_MAX));
    let api_key = section.get("api_key").and_then(|value| read_key(&value));
    let collection = section.get("collection").and_then(|value| {
        let name = value.some_text(WORD_BYTES_MAX)?;
        let fine = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if !fine || name.starts_with('.') {
            let label = "letters, digits, `-`, `_` and `.`, and none of these at its beginning but `-` and `_`";
            value.problem(code::BAD_VALUE, "`collection` has a bad name", label);
            return None;
        }
        Some(name.to_owned())
    });
    Some(BackendKind::Qdrant { url: url?, api_key, collection })
}

fn read_neo4j(section: &mut Section<'_, '_>) -> Option<BackendKind> {
    let url = section.require("url", "say where Neo4j answers HTTP: url = \"https://neo4j.example.com:7473\"");
    let url = url.and_then(|value| {
        let text = value.text(LINE_BYTES_MAX)?;
        if text.starts_with("bolt") || text.starts_with("neo4j") {
            let label = "Neo4j is asked over its HTTP Query API, at port 7474 or 7473";
            value.problem(code::BAD_VALUE, "`url` is an address of Bolt", label);
            return None;
        }
        value.parse(LINE_BYTES_MAX)
    });
    let word = |value: Value<'_, '_>| value.some_text(WORD_BYTES_MAX).map(str::to_owned);
    let database = section.get("database").and_then(|value| {
        let name = word(value.clone())?;
        let fine = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if !fine || name.starts_with('.') {
            value.problem(code::BAD_VALUE, "`database` has a bad name", "letters, digits, `-`, `_` and `.`");
            return None;
        }
        Some(name)
    });
    let user = section.get("user").and_then(word);
    let password = section.require("password", "name the secret that holds it: password = \"secret:NEO4J_PASSWORD\"");
    let password = password.and_then(|value| read_key(&value));
    let (database, user) = (database.unwrap_or_else(|| "neo4j".to_owned()), user.unwrap_or_else(|| "neo4j".to_owned()));
    Some(BackendKind::Neo4j { url: url?, database, user, password: password? })
}

fn read_tool(backend: &Value<'_, '_>, text: &str) -> Option<BackendKind> {
    let Some(name) = text.strip_prefix(TOOL_PREFIX) else {
        let label = "not \"embedded\", \"qdrant\", \"neo4j\" or \"tool:NAME\"";
        backend.problem(code::BAD_VALUE, format!("there is no memory backend \"{text}\""), label);
        return None;
    };
    match name.parse() {
        Ok(tool) => Some(BackendKind::Tool { tool }),
        Err(error) => {
            backend.problem(code::BAD_VALUE, "`backend` names no tool", error.to_string());
            None
        }
    }
}
