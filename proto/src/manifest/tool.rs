//! A tool's file, `tools/NAME/tool.toml`: what runs, what it is granted and how far it may go.
//!
//! A tool gets nothing that its file does not name, and of that only what the workspace's `[grants]` allows.

use std::collections::BTreeMap;
use std::time::Duration;

use semver::Version;
use serde::Serialize;

use super::address::{HostPattern, HttpUrl};
use super::limits::{FIRST_VERSION, LINE_BYTES_MAX, WORD_BYTES_MAX};
use super::prompt;
use super::read::{Document, Section, Value, note_secret, read_version};
use super::secret::{GivenValue, SecretName};
use super::units::serialize_duration;
use crate::ToolName;
use crate::diagnostic::{Diagnostic, Severity, code};
use crate::tree::TreePath;

/// The most hosts, environment values, headers or arguments in one tool's file.
const ENTRIES_MAX: usize = 128;

/// What a tool's file says, checked as far as the file alone can be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ToolManifest {
    /// Its name, which is also its folder's.
    pub name: ToolName,
    /// The tool's version, 0.1.0 unless given.
    pub version: Version,
    /// What it does, in a sentence; models read it.
    pub description: String,
    /// What runs, and how it is spoken to.
    #[serde(flatten)]
    pub kind: ToolKind,
    /// Whether calling it twice with the same input does no more than calling it once: then a call that may have been
    /// lost is made again.
    pub idempotent: bool,
    /// What it may reach.
    pub grants: Grants,
    /// How far it may go.
    pub limits: ToolLimits,
}

/// What runs when a tool is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ToolKind {
    /// A WebAssembly component that exports the `tool-server` world.
    Component {
        /// The component's file in the workspace.
        module: TreePath,
    },
    /// A WASI P1 command that speaks MCP over its standard input and output.
    Command {
        /// The module's file in the workspace.
        module: TreePath,
    },
    /// A core module that exports `handle_tool_call`.
    Core {
        /// The module's file in the workspace.
        module: TreePath,
    },
    /// A remote MCP server; not sandboxed.
    McpHttp {
        /// Where it is.
        url: HttpUrl,
        /// What is sent with each request.
        headers: BTreeMap<String, GivenValue>,
        /// The secret that is sent as `Authorization: Bearer`.
        #[serde(skip_serializing_if = "Option::is_none")]
        bearer: Option<SecretName>,
    },
    /// A process on the node that speaks MCP; not sandboxed, and only where the node's operator allows it.
    McpStdio {
        /// The program's name or path on the node's machine.
        command: String,
        /// The arguments that it is started with.
        args: Vec<String>,
    },
}

impl ToolKind {
    /// The WebAssembly file.
    pub fn module(&self) -> Option<&TreePath> {
        match self {
            ToolKind::Component { module } | ToolKind::Command { module } | ToolKind::Core { module } => Some(module),
            ToolKind::McpHttp { .. } | ToolKind::McpStdio { .. } => None,
        }
    }

    /// Whether it runs in the sandbox.
    pub fn is_sandboxed(&self) -> bool {
        self.module().is_some()
    }
}

/// What a tool may reach beside its input and its output.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Grants {
    /// Hosts that it may send HTTP requests to.
    pub http: Vec<HostPattern>,
    /// An empty folder of its own for the time of a call.
    pub scratch: bool,
    /// The time of day.
    pub clock: bool,
    /// Whether it may have random numbers.
    pub random: bool,
    /// One instance for several calls, so that what a call leaves behind is there for the next.
    pub reuse: bool,
    /// The values of its environment, by name.
    pub env: BTreeMap<String, GivenValue>,
}

impl Grants {
    /// The secrets that its environment takes.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretName> {
        self.env.values().filter_map(GivenValue::secret)
    }
}

/// How far one call of a tool may go, and how many there may be at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ToolLimits {
    /// Memory of one instance.
    pub memory_bytes: u64,
    /// Time from the call to its result.
    #[serde(serialize_with = "serialize_duration")]
    pub wall_time: Duration,
    /// Processor time of one call.
    #[serde(serialize_with = "serialize_duration")]
    pub cpu: Duration,
    /// The size of a result.
    pub output_bytes: u64,
    /// Calls at the same time on one node.
    pub concurrency: u32,
}

impl Default for ToolLimits {
    fn default() -> ToolLimits {
        ToolLimits {
            memory_bytes: 64 << 20,
            wall_time: Duration::from_secs(30),
            cpu: Duration::from_secs(5),
            output_bytes: 1 << 20,
            concurrency: 16,
        }
    }
}

/// Keys that people put into the wrong table, and where they belong.
const MISPLACED: [(&str, &str); 10] = [
    ("http", "[grants]"),
    ("reuse", "[grants]"),
    ("env", "[grants]"),
    ("scratch", "[grants]"),
    ("memory_bytes", "[limits]"),
    ("memory", "`memory_bytes` in [limits]"),
    ("wall_time", "[limits]"),
    ("timeout", "`wall_time` in [limits]"),
    ("idempotent", "[tool]"),
    ("secrets", "`env` in [grants]: env = { NAME = \"secret:NAME\" }"),
];

impl ToolManifest {
    /// Reads a tool's file; on failure gives every error in it.
    pub fn parse(path: &TreePath, text: &str) -> Result<ToolManifest, Vec<Diagnostic>> {
        let document = Document::parse(path, text)?;
        let manifest = tool(&document);
        let mut found = document.into_found();
        crate::diagnostic::sort(&mut found);
        let failed = found.iter().any(|problem| problem.severity == Severity::Error);
        manifest.filter(|_| !failed).ok_or(found)
    }

    /// The secrets that it is given: for its environment, and what a remote server's requests carry.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretName> {
        let (headers, bearer) = match &self.kind {
            ToolKind::McpHttp { url: _, headers, bearer } => (Some(headers), bearer.as_ref()),
            ToolKind::Component { .. }
            | ToolKind::Command { .. }
            | ToolKind::Core { .. }
            | ToolKind::McpStdio { .. } => (None, None),
        };
        let headers = headers.into_iter().flat_map(BTreeMap::values).filter_map(GivenValue::secret);
        self.grants.secrets().chain(headers).chain(bearer)
    }

    /// The name that a tool's file has to carry: NAME of `tools/NAME/tool.toml`.
    pub fn name_of(path: &TreePath) -> Option<&str> {
        let mut parts = path.parts();
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("tools"), Some(folder), Some("tool.toml"), None) => Some(folder),
            _ => None,
        }
    }
}

fn tool(document: &Document<'_>) -> Option<ToolManifest> {
    let mut root = document.root();
    let help = "begin with [tool] and, below it, name = \"...\", kind = \"component\" and module = \"NAME.wasm\"";
    let section = root.require("tool", help).and_then(|value| value.section("[tool]".into()));
    let head = section.map(|mut section| {
        let name = section.require("name", "name the tool as its folder is named");
        let name = name.and_then(|value| read_name(&value));
        let version = section.get("version").and_then(|value| read_version(&value));
        let description = section.get("description").and_then(|value| value.text(LINE_BYTES_MAX));
        let kind = read_kind(&mut section);
        let idempotent = section.get("idempotent").and_then(|value| value.boolean());
        section.finish(&MISPLACED);
        (name, version, description, kind, idempotent)
    });
    let grants = read_grants(&mut root);
    let limits = read_limits(&mut root);
    root.finish(&MISPLACED);
    let (name, version, description, kind, idempotent) = head?;
    Some(ToolManifest {
        name: name?,
        version: version.unwrap_or(FIRST_VERSION),
        description: description.unwrap_or_default().to_owned(),
        kind: kind?,
        idempotent: idempotent.unwrap_or(false),
        grants,
        limits,
    })
}

fn read_name(value: &Value<'_, '_>) -> Option<ToolName> {
    let name: ToolName = value.parse(usize::MAX)?;
    let document = value.document();
    if let Some(expected) = ToolManifest::name_of(document.path()).filter(|expected| *expected != name.as_str()) {
        let message = format!("the tool is named `{name}`, and its folder is named for `{expected}`");
        let help = format!("write name = \"{expected}\", or move the folder to tools/{name}");
        let problem = value.diagnostic(code::NAME_MISMATCH, message);
        document.note(problem.at(document.place(value.span()), format!("expected \"{expected}\"")).help(help));
    }
    Some(name)
}

fn read_kind(section: &mut Section<'_, '_>) -> Option<ToolKind> {
    #[derive(Clone, Copy)]
    enum Kind {
        Component,
        Command,
        Core,
        McpHttp,
        McpStdio,
    }
    let kinds = [
        ("component", Kind::Component),
        ("command", Kind::Command),
        ("core", Kind::Core),
        ("mcp-http", Kind::McpHttp),
        ("mcp-stdio", Kind::McpStdio),
    ];
    let help = "say what runs: kind = \"component\", \"command\" or \"core\" (with module = \"NAME.wasm\"), \
                \"mcp-http\" (with url) or \"mcp-stdio\" (with command)";
    let kind = section.require("kind", help).and_then(|value| value.choice(&kinds));
    let Some(kind) = kind else {
        section.pass_over(&["module", "url", "headers", "bearer", "command", "args"]);
        return None;
    };
    match kind {
        Kind::Component => read_module(section).map(|module| ToolKind::Component { module }),
        Kind::Command => read_module(section).map(|module| ToolKind::Command { module }),
        Kind::Core => read_module(section).map(|module| ToolKind::Core { module }),
        Kind::McpHttp => read_mcp_http(section),
        Kind::McpStdio => {
            let command = section.require("command", "name the program: command = \"npx\"");
            let args = section.get("args").map(|value| value.list_of(ENTRIES_MAX)).unwrap_or_default();
            let args = args.iter().filter_map(|item| item.text(LINE_BYTES_MAX)).map(str::to_owned).collect();
            let command = command.and_then(|value| value.some_text(LINE_BYTES_MAX))?.to_owned();
            Some(ToolKind::McpStdio { command, args })
        }
    }
}

/// The module is named from the tool's own folder, and stays in it.
fn read_module(section: &mut Section<'_, '_>) -> Option<TreePath> {
    let value = section.require("module", "name the file beside this one: module = \"NAME.wasm\"")?;
    let text = value.some_text(WORD_BYTES_MAX * 2)?;
    let written = format!("./{}", text.strip_prefix("./").unwrap_or(text));
    match prompt::resolve(value.document().path(), &written) {
        Ok(path) => Some(path),
        Err(error) => {
            value.problem(code::BAD_VALUE, "`module` is not a file in this tool's folder", error.to_string());
            None
        }
    }
}

fn read_mcp_http(section: &mut Section<'_, '_>) -> Option<ToolKind> {
    let url = section.require("url", "say where the server is: url = \"https://mcp.example.com/mcp\"");
    let bearer = section.get("bearer").and_then(|value| {
        let text = value.text(LINE_BYTES_MAX)?;
        let name = text.strip_prefix("secret:").and_then(|name| name.parse().ok());
        if name.is_none() {
            note_secret(&value, "`bearer` has to name a secret", "write \"secret:NAME\"");
        }
        name
    });
    let headers = section.get("headers").and_then(|value| value.section("`headers`".into()));
    let headers = headers.map(|headers| read_headers(headers)).unwrap_or_default();
    let url = url.and_then(|value| value.parse(LINE_BYTES_MAX))?;
    Some(ToolKind::McpHttp { url, headers, bearer })
}

fn read_headers(section: Section<'_, '_>) -> BTreeMap<String, GivenValue> {
    let mut headers = BTreeMap::new();
    for (name, value) in section.entries() {
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if name.get_ref().is_empty() || !name.get_ref().chars().all(token) {
            value.problem(code::BAD_VALUE, format!("`{}` is not a header's name", name.get_ref()), "of this value");
        }
        let Some(given) = value.parse::<GivenValue>(LINE_BYTES_MAX) else { continue };
        let secret = ["authorization", "cookie", "proxy-authorization", "x-api-key", "api-key"];
        if secret.contains(&name.get_ref().to_ascii_lowercase().as_str()) && matches!(given, GivenValue::Text(_)) {
            note_secret(&value, "a header that proves who you are has to name a secret", "write \"secret:NAME\"");
        }
        headers.insert((*name.get_ref()).to_owned(), given);
    }
    headers
}

fn read_grants(root: &mut Section<'_, '_>) -> Grants {
    let Some(mut section) = root.section("grants") else { return Grants::default() };
    let http = section.get("http").map(|value| read_hosts(&value)).unwrap_or_default();
    let mut flag = |key| section.get(key).and_then(|value| value.boolean()).unwrap_or(false);
    let (scratch, clock, random, reuse) = (flag("scratch"), flag("clock"), flag("random"), flag("reuse"));
    let mut env = BTreeMap::new();
    for (name, value) in section.section("env").into_iter().flat_map(Section::entries) {
        if name.get_ref().parse::<SecretName>().is_err() {
            let message = format!("`{}` is not the name of an environment value", name.get_ref());
            let problem = value.diagnostic(code::BAD_VALUE, message);
            let place = value.document().place(name.span());
            value.document().note(problem.at(place, "use letters, digits and `_`"));
        }
        if let Some(given) = value.parse(LINE_BYTES_MAX) {
            env.insert((*name.get_ref()).to_owned(), given);
        }
    }
    section.finish(&MISPLACED);
    Grants { http, scratch, clock, random, reuse, env }
}

/// A list of host patterns.
pub(super) fn read_hosts(value: &Value<'_, '_>) -> Vec<HostPattern> {
    value.list_of(ENTRIES_MAX).iter().filter_map(|item| item.parse(LINE_BYTES_MAX)).collect()
}

fn read_limits(root: &mut Section<'_, '_>) -> ToolLimits {
    let default = ToolLimits::default();
    let Some(mut section) = root.section("limits") else { return default };
    let time = Duration::from_millis(1)..=Duration::from_secs(600);
    let memory = section.get("memory_bytes").and_then(|value| value.bytes(64 << 10..=4 << 30));
    let wall_time = section.get("wall_time").and_then(|value| value.duration(time.clone()));
    let cpu = section.get("cpu").and_then(|value| value.duration(time));
    let output = section.get("output_bytes").and_then(|value| value.bytes(1 << 10..=64 << 20));
    let concurrency = section.get("concurrency").and_then(|value| value.small(1..=1_024));
    section.finish(&MISPLACED);
    ToolLimits {
        memory_bytes: memory.unwrap_or(default.memory_bytes),
        wall_time: wall_time.unwrap_or(default.wall_time),
        cpu: cpu.unwrap_or(default.cpu),
        output_bytes: output.unwrap_or(default.output_bytes),
        concurrency: concurrency.unwrap_or(default.concurrency),
    }
}
