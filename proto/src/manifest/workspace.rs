//! A workspace's file, `caxton.toml`: its name, what its tools may be granted, its language models and budgets.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Serialize;

use super::address::{HostPattern, HttpUrl};
use super::backend::BackendSettings;
use super::limits::{LINE_BYTES_MAX, WORD_BYTES_MAX};
use super::provider::{Budget, Provider, ProviderRef};
use super::read::{Document, Section, Value};
use super::secret::SecretName;
use super::tool::{Grants, ToolKind, ToolManifest, read_hosts};
use crate::diagnostic::code::MISSING_KEY;
use crate::diagnostic::{Diagnostic, Severity};
use crate::memory::{RULES_MAX, Rule, ScopeKind};
use crate::shard::COUNT_MAX;
use crate::tree::TreePath;
use crate::{ProviderName, WorkspaceId};

/// The file's path in its workspace.
pub const WORKSPACE_FILE: &str = "caxton.toml";
/// The most providers of a workspace.
const PROVIDERS_MAX: usize = 64;
/// The most workspaces with which one shares memories: each of them is searched.
const SHARED_WITH_MAX: usize = 16;
/// The most workspaces that one sends messages to, and that it receives them from.
const CORRESPONDENTS_MAX: usize = 256;

/// How long what was said or is remembered can be kept by its age: what is younger than a minute may still be under way.
const RETENTION_AGES: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(36_500 * 86_400);

/// What a workspace's file says; a workspace without one has the defaults.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct WorkspaceManifest {
    /// Its name, which the file has to give; nothing when there is no file.
    pub name: Option<WorkspaceId>,
    /// What it is for.
    pub description: String,
    /// Where it is deployed to; read by the command line only.
    pub server: Option<HttpUrl>,
    /// What its tools may be granted.
    pub grants: GrantPolicy,
    /// The provider and model of agents that name none.
    pub llm: DefaultLlm,
    /// Its language model providers.
    pub providers: BTreeMap<ProviderName, Provider>,
    /// What all its agents together may spend in a day.
    pub budget: Budget,
    /// How much of the past is kept.
    pub retention: Retention,
    /// The workspaces with which memories of the scope `global` are shared, if these share theirs with this one and the
    /// node's operator allows it.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub memory_shared_with: BTreeSet<WorkspaceId>,
    /// Whether messages are signed, and which other workspaces they go to and come from.
    #[serde(skip_serializing_if = "WorkspaceMessages::is_absent")]
    pub messages: WorkspaceMessages,
    /// The system that finds what is remembered; the node's own index where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_backend: Option<BackendSettings>,
}

/// Whether a workspace's messages are signed, and which other workspaces they go to and come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct WorkspaceMessages {
    /// What its agents and people send is signed, and what is not is given to nobody.
    pub signed: bool,
    /// The workspaces that its agents may write to, if these receive from it.
    pub sends_to: BTreeSet<WorkspaceId>,
    /// The workspaces whose agents may write to its own, if these send to it.
    pub receives_from: BTreeSet<WorkspaceId>,
}

impl WorkspaceMessages {
    fn is_absent(&self) -> bool {
        *self == WorkspaceMessages::default()
    }

    fn read(root: &mut Section<'_, '_>) -> WorkspaceMessages {
        let Some(mut section) = root.section("messages") else { return WorkspaceMessages::default() };
        let signed = section.get("signed").and_then(|value| value.boolean()).unwrap_or(false);
        let mut names = |key| {
            let all = section.get(key).map(|value| value.list_of(CORRESPONDENTS_MAX)).unwrap_or_default();
            all.iter().filter_map(|item| item.parse(LINE_BYTES_MAX)).collect::<BTreeSet<WorkspaceId>>()
        };
        let (sends_to, receives_from) = (names("sends_to"), names("receives_from"));
        section.finish(&[]);
        WorkspaceMessages { signed, sends_to, receives_from }
    }
}

/// The provider and model of agents that name none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DefaultLlm {
    /// The provider, or a tool in the place of one.
    pub provider: Option<ProviderRef>,
    /// The model of agents that name none.
    pub model: Option<String>,
}

/// How much of the past is kept. What is not said is kept for ever, or as the node's operator says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Retention {
    /// Deployments whose content can be put back; the node's setting where the file names none, and never more than that.
    pub revisions_kept: Option<u32>,
    /// How long a conversation stays after its last turn, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversations_age_ms_max: Option<u64>,
    /// How many conversations stay, those with the newest turns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversations_max: Option<u64>,
    /// What of the memories goes.
    #[serde(skip)]
    pub memory: Vec<Rule>,
}

impl Retention {
    /// Whether nothing that was said or is remembered ever goes.
    pub fn keeps_all(&self) -> bool {
        self.conversations_age_ms_max.is_none() && self.conversations_max.is_none() && self.memory.is_empty()
    }

    fn read(root: &mut Section<'_, '_>) -> Retention {
        let Some(mut section) = root.section("retention") else { return Retention::default() };
        let revisions_kept = section.get("revisions_kept").and_then(|value| value.small(1..=10_000));
        let age = section.get("conversations_age").and_then(|value| value.duration(RETENTION_AGES));
        let conversations_max = section.get("conversations_max").and_then(|value| value.integer(1..=COUNT_MAX));
        let rules = section.get("memory").map(|value| value.list_of(RULES_MAX)).unwrap_or_default();
        let memory = rules.into_iter().filter_map(read_rule).collect();
        section.finish(&[]);
        Retention { revisions_kept, conversations_age_ms_max: age.map(whole_ms), conversations_max, memory }
    }
}

fn whole_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A rule for memories: which ones, and the most of them that stays.
fn read_rule(value: Value<'_, '_>) -> Option<Rule> {
    let scopes = [
        ("conversation", ScopeKind::Conversation),
        ("agent", ScopeKind::Agent),
        ("subject", ScopeKind::Subject),
        ("workspace", ScopeKind::Workspace),
        ("global", ScopeKind::Global),
    ];
    let (document, span) = (value.document(), value.span());
    let unlimited = value.diagnostic(MISSING_KEY, "a rule of [[retention.memory]] has no limit");
    let mut section = value.section("[[retention.memory]]".into())?;
    let scope = section.get("scope").and_then(|value| value.choice(&scopes));
    let kind = section.get("kind").and_then(|value| value.some_text(WORD_BYTES_MAX)).map(str::to_owned);
    let (age, count, bytes) = (section.get("age"), section.get("count"), section.get("bytes"));
    if age.is_none() && count.is_none() && bytes.is_none() {
        let help = "say what may stay: age = \"90d\", count = 1000 or bytes = \"10MiB\"";
        document.note(unlimited.at(document.place(span), "in here").help(help));
    }
    let age_ms_max = age.and_then(|value| value.duration(RETENTION_AGES)).map(whole_ms);
    let count_max = count.and_then(|value| value.integer(0..=COUNT_MAX));
    let bytes_max = bytes.and_then(|value| value.bytes(0..=COUNT_MAX));
    section.finish(&[]);
    Some(Rule { scope, kind, age_ms_max, count_max, bytes_max })
}

/// What a workspace allows its tools; nothing unless its file says so.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GrantPolicy {
    /// Hosts that tools may talk to, remote MCP servers among them.
    pub http: Vec<HostPattern>,
    /// Folders for the time of a call.
    pub scratch: bool,
    /// The time of day.
    pub clock: bool,
    /// Whether tools may have random numbers.
    pub random: bool,
    /// One instance for several calls of a tool.
    pub reuse: bool,
    /// Secrets that tools may be given.
    pub secrets: Vec<SecretName>,
    /// MCP servers that run as processes on the node, outside the sandbox; its operator has to allow them too.
    pub processes: bool,
}

/// Something that a tool asks for and the workspace does not allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// A host that the workspace does not grant.
    Http(HostPattern),
    /// A remote MCP server, by its address.
    Url(HttpUrl),
    /// A scratch folder.
    Scratch,
    /// The time of day.
    Clock,
    /// Random numbers, which the workspace does not grant.
    Random,
    /// One instance for several calls.
    Reuse,
    /// A secret that the workspace does not grant.
    Secret(SecretName),
    /// A process of the node's machine, which the workspace does not grant.
    Processes,
}

impl Refused {
    /// The line of `[grants]` in caxton.toml that would allow it.
    pub fn remedy(&self) -> String {
        match self {
            Refused::Http(host) => format!("http = [\"{host}\"]"),
            Refused::Url(url) => match url.host() {
                Some(host) => format!("http = [\"{host}\"]"),
                None => "http = [\"*:*\"]".to_owned(),
            },
            Refused::Scratch => "scratch = true".to_owned(),
            Refused::Clock => "clock = true".to_owned(),
            Refused::Random => "random = true".to_owned(),
            Refused::Reuse => "reuse = true".to_owned(),
            Refused::Secret(name) => format!("secrets = [\"{name}\"]"),
            Refused::Processes => "processes = true".to_owned(),
        }
    }
}

impl GrantPolicy {
    /// What `tool` asks for and does not get.
    pub fn refusals(&self, tool: &ToolManifest) -> Vec<Refused> {
        let Grants { http, scratch, clock, random, reuse, env: _ } = &tool.grants;
        let mut refused = Vec::new();
        let unmet = |host: &&HostPattern| !self.http.iter().any(|allowed| allowed.covers(host));
        refused.extend(http.iter().filter(unmet).cloned().map(Refused::Http));
        let flags = [
            (*scratch && !self.scratch, Refused::Scratch),
            (*clock && !self.clock, Refused::Clock),
            (*random && !self.random, Refused::Random),
            (*reuse && !self.reuse, Refused::Reuse),
        ];
        refused.extend(flags.into_iter().filter(|(refused, _)| *refused).map(|(_, what)| what));
        let mut secrets: Vec<&SecretName> = tool.secrets().collect();
        match &tool.kind {
            ToolKind::McpHttp { url, headers: _, bearer: _ } => {
                let any = self.http.iter().any(|allowed| allowed.to_string() == "*:*");
                let allowed = url.host().map_or(any, |host| self.http.iter().any(|allowed| allowed.covers(&host)));
                if !allowed {
                    refused.push(Refused::Url(url.clone()));
                }
            }
            ToolKind::McpStdio { .. } if !self.processes => refused.push(Refused::Processes),
            ToolKind::McpStdio { .. }
            | ToolKind::Component { .. }
            | ToolKind::Command { .. }
            | ToolKind::Core { .. } => {}
        }
        secrets.retain(|name| !self.secrets.contains(name));
        secrets.sort_unstable();
        secrets.dedup();
        refused.extend(secrets.into_iter().cloned().map(Refused::Secret));
        refused
    }

    fn read(root: &mut Section<'_, '_>) -> GrantPolicy {
        let Some(mut section) = root.section("grants") else { return GrantPolicy::default() };
        let http = section.get("http").map(|value| read_hosts(&value)).unwrap_or_default();
        let secrets = section.get("secrets").map(|value| value.list_of(256)).unwrap_or_default();
        let secrets = secrets.iter().filter_map(|item| item.parse(WORD_BYTES_MAX)).collect();
        let mut flag = |key| section.get(key).and_then(|value| value.boolean()).unwrap_or(false);
        let (scratch, clock, random) = (flag("scratch"), flag("clock"), flag("random"));
        let (reuse, processes) = (flag("reuse"), flag("processes"));
        section.finish(&[]);
        GrantPolicy { http, scratch, clock, random, reuse, secrets, processes }
    }
}

impl WorkspaceManifest {
    /// Reads a workspace's file; on failure gives every error in it.
    pub fn parse(path: &TreePath, text: &str) -> Result<WorkspaceManifest, Vec<Diagnostic>> {
        let document = Document::parse(path, text)?;
        let manifest = workspace(&document);
        let mut found = document.into_found();
        crate::diagnostic::sort(&mut found);
        let failed = found.iter().any(|problem| problem.severity == Severity::Error);
        if failed { Err(found) } else { Ok(manifest) }
    }

    /// The provider of agents that name none: the one of `[llm]`, or the only one there is.
    pub fn default_provider(&self) -> Option<ProviderRef> {
        let only = || self.providers.keys().next().filter(|_| self.providers.len() == 1);
        self.llm.provider.clone().or_else(|| only().cloned().map(ProviderRef::Named))
    }
}

/// Keys that people put at the top of the file, and where they belong.
const MISPLACED: [(&str, &str); 8] = [
    ("name", "[workspace]"),
    ("description", "[workspace]"),
    ("url", "[server]"),
    ("model", "[llm]"),
    ("revisions_kept", "[retention]"),
    ("conversations_age", "[retention]"),
    ("conversations_max", "[retention]"),
    ("provider", "`provider` in [llm], and the provider itself in [providers.NAME]"),
];

fn workspace(document: &Document<'_>) -> WorkspaceManifest {
    let mut root = document.root();
    let mut manifest = WorkspaceManifest::default();
    let head = root.require("workspace", "begin with [workspace] and name = \"...\" below it");
    if let Some(mut section) = head.and_then(|value| value.section("[workspace]".into())) {
        let name = section.require("name", "name it with lower-case letters, digits and `-`: name = \"my-team\"");
        manifest.name = name.and_then(|value| value.parse(usize::MAX));
        let description = section.get("description").and_then(|value| value.text(LINE_BYTES_MAX));
        manifest.description = description.unwrap_or_default().to_owned();
        section.finish(&MISPLACED);
    }
    if let Some(mut section) = root.section("server") {
        manifest.server = section.get("url").and_then(|value| value.parse(LINE_BYTES_MAX));
        section.finish(&[]);
    }
    manifest.grants = GrantPolicy::read(&mut root);
    if let Some(mut section) = root.section("llm") {
        let provider = section.get("provider").and_then(|value| value.parse(usize::MAX));
        let model = section.get("model").and_then(|value| value.some_text(WORD_BYTES_MAX)).map(str::to_owned);
        section.finish(&[]);
        manifest.llm = DefaultLlm { provider, model };
    }
    if let Some(section) = root.section("providers") {
        manifest.providers = read_providers(section);
    }
    manifest.budget = Budget::read(&mut root);
    manifest.retention = Retention::read(&mut root);
    if let Some(mut section) = root.section("memory") {
        let with = section.get("share_with").map(|value| value.list_of(SHARED_WITH_MAX)).unwrap_or_default();
        manifest.memory_shared_with = with.iter().filter_map(|item| item.parse(LINE_BYTES_MAX)).collect();
        manifest.memory_backend = BackendSettings::read(&mut section);
        section.finish(&[("base_url", "`url`"), ("key", "`api_key`, or `password` of Neo4j")]);
    }
    manifest.messages = WorkspaceMessages::read(&mut root);
    root.finish(&MISPLACED);
    manifest
}

fn read_providers(section: Section<'_, '_>) -> BTreeMap<ProviderName, Provider> {
    let mut providers = BTreeMap::new();
    for (name, value) in section.entries() {
        let document = value.document();
        let known: Option<ProviderName> = match name.get_ref().parse() {
            Ok(known) => Some(known),
            Err(error) => {
                let problem = value.diagnostic(crate::diagnostic::code::BAD_VALUE, "a provider has a bad name");
                document.note(problem.at(document.place(name.span()), error.to_string()));
                None
            }
        };
        if providers.len() == PROVIDERS_MAX {
            let problem =
                value.diagnostic(crate::diagnostic::code::OUT_OF_RANGE, "a workspace has at most 64 providers");
            document.note(problem.at(document.place(name.span()), "one too many"));
            break;
        }
        let title = format!("[providers.{}]", name.get_ref());
        let provider = value.section(title.into()).and_then(Provider::read);
        if let (Some(name), Some(provider)) = (known, provider) {
            providers.insert(name, provider);
        }
    }
    providers
}
