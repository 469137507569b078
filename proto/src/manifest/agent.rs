//! An agent's file: who it is, what it can do, what it says to a language model and which tools it may call.
//!
//! Two forms are read into one type: tables (`[agent]`, `[capabilities]`, `[prompts]`, ...), and the older flat form
//! (`name`, `capabilities = [..]`, `tools = [..]`, `system_prompt`, ...). A file has the flat form when it has no
//! `[agent]`; every other table can be in both.

use std::time::Duration;

use semver::Version;
use serde::Serialize;
use toml::de::DeValue;

use super::prompt::{self, Parameter, Parameters, Prompt, Template};
use super::provider::{Budget, Fallback, read_fallback};
use super::read::{Document, Section, Value, words};
use super::units::serialize_duration;
use crate::diagnostic::{Diagnostic, Severity, closest, code};
use crate::tree::TreePath;
use crate::{AgentName, CapabilityName, ProviderName, ToolName};

/// Tools that every node has: they reach other agents and need no folder under `tools/`.
pub const BUILT_IN_TOOLS: [&str; 2] = ["ask_capability", "list_capabilities"];

/// The most capabilities of one agent.
pub const CAPABILITIES_MAX: usize = 64;
/// The most patterns, or examples, of one capability.
pub const EXAMPLES_MAX: usize = 256;
/// The longest pattern, example or description, in bytes.
pub const LINE_BYTES_MAX: usize = 2_048;
/// The longest name or version, in bytes.
pub const WORD_BYTES_MAX: usize = 256;
/// The longest prompt or documentation inside an agent's file, in bytes.
pub const PROMPT_BYTES_MAX: usize = 128 << 10;
/// The most tools that one agent names.
pub const TOOLS_MAX: usize = 128;
/// The most parameters of one agent.
pub const PARAMETERS_MAX: usize = 64;
/// The most entries of a fallback list.
pub const FALLBACK_MAX: usize = 8;

/// What an agent's file says, checked as far as the file alone can be.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AgentManifest {
    /// Its name, which is also its file's.
    pub name: AgentName,
    /// An identity of its own that survives a new name; unique in the workspace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its version.
    pub version: Version,
    /// What it is for, in a sentence.
    pub description: String,
    /// What its users should know; Markdown.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub documentation: String,
    /// What it can do; messages find it by these.
    pub capabilities: Vec<Capability>,
    /// What it says to the model.
    pub prompts: Prompts,
    /// What it may call.
    pub tools: Tools,
    /// Which model it asks, and how.
    pub llm: Llm,
    /// What it remembers.
    pub memory: Memory,
    /// How far one turn may go.
    pub limits: Limits,
    /// What it may spend in a day.
    pub budget: Budget,
    /// What a person has to allow first.
    pub approval: Approval,
    /// Its parameters with their default values.
    pub parameters: Parameters,
}

/// Something that an agent can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Capability {
    /// Its name; several agents may offer the same.
    pub name: CapabilityName,
    /// Its version: the agent's unless it has its own.
    pub version: Version,
    /// What it is, in a sentence.
    pub description: String,
    /// Short phrases that say what is asked for: "analyze data", "plot a chart".
    pub patterns: Vec<String>,
    /// Whole messages that belong here; ten good ones make routing reliable.
    pub examples: Vec<String>,
}

/// What an agent says to the model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Prompts {
    /// Who it is and how it works.
    pub system: Option<Prompt>,
    /// How a request is put; the bare request when there is none.
    pub user: Option<Prompt>,
}

/// What an agent may call. It reaches no other tool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tools {
    /// Without these it is not deployed.
    pub required: Vec<ToolName>,
    /// These it uses where the workspace has them.
    pub optional: Vec<ToolName>,
}

impl Tools {
    /// All of them, the required ones first.
    pub fn all(&self) -> impl Iterator<Item = &ToolName> {
        self.required.iter().chain(&self.optional)
    }
}

/// Which model an agent asks, and how. What it leaves open, the workspace's `[llm]` and `[providers]` say.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Llm {
    /// One of the workspace's providers.
    pub provider: Option<ProviderName>,
    /// A model of that provider.
    pub model: Option<String>,
    /// How freely it answers, 0 to 2.
    pub temperature: Option<f64>,
    /// The most tokens of one answer.
    pub max_tokens: Option<u32>,
    /// Who is asked when the provider fails, in this order.
    pub fallback: Vec<Fallback>,
}

/// What an agent remembers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Memory {
    /// Whether it remembers at all: it does once it has a `[memory]`.
    pub enabled: bool,
    /// With whom it shares what it remembers.
    pub scope: MemoryScope,
    /// Whether each exchange is remembered without being told.
    pub auto_store: bool,
    /// How many memories come into a prompt.
    pub search_limit: u32,
    /// How near to the message a memory has to be, 0 to 1.
    pub min_similarity: f64,
}

/// With whom an agent shares its memories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryScope {
    /// With nobody: each conversation has its own.
    Conversation,
    /// Between its own conversations.
    Agent,
    /// With every agent of the workspace.
    Workspace,
}

impl Default for Memory {
    fn default() -> Memory {
        let scope = MemoryScope::Agent;
        Memory { enabled: false, scope, auto_store: false, search_limit: 5, min_similarity: 0.3 }
    }
}

/// How far one turn may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Calls of the model.
    pub steps_max: u32,
    /// Tokens, in and out together.
    pub tokens_max: u64,
    /// Time from the message to the answer, without the wait for an approval.
    #[serde(serialize_with = "serialize_duration")]
    pub wall_time: Duration,
    /// How many agents may stand in a row, each having asked the next.
    pub delegation_depth_max: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        let wall_time = Duration::from_secs(120);
        Limits { steps_max: 20, tokens_max: 200_000, wall_time, delegation_depth_max: 5 }
    }
}

/// What a person has to allow first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Approval {
    /// Calls of these tools wait for an answer.
    pub tools: Vec<ToolName>,
}

impl AgentManifest {
    /// Reads an agent's file; on failure gives every error in it (and its warnings).
    pub fn parse(path: &TreePath, text: &str) -> Result<AgentManifest, Vec<Diagnostic>> {
        match AgentManifest::read(path, text) {
            (Some(manifest), _) => Ok(manifest),
            (None, found) => Err(found),
        }
    }

    /// Reads an agent's file; gives the manifest unless there was an error, and everything that was noticed.
    pub fn read(path: &TreePath, text: &str) -> (Option<AgentManifest>, Vec<Diagnostic>) {
        let document = match Document::parse(path, text) {
            Ok(document) => document,
            Err(found) => return (None, found),
        };
        let manifest = agent(&document);
        let mut found = document.into_found();
        crate::diagnostic::sort(&mut found);
        let failed = found.iter().any(|problem| problem.severity == Severity::Error);
        (manifest.filter(|_| !failed), found)
    }

    /// The name that an agent's file has to carry: NAME of `agents/NAME.toml` and of `agents/NAME/agent.toml`.
    pub fn name_of(path: &TreePath) -> Option<&str> {
        let mut parts = path.parts();
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("agents"), Some(file), None, None) => file.strip_suffix(".toml"),
            (Some("agents"), Some(folder), Some("agent.toml"), None) => Some(folder),
            _ => None,
        }
    }
}

/// Keys that people put at the top of a file with `[agent]`, and where they belong.
const FLAT_KEYS: [(&str, &str); 7] = [
    ("name", "write it in [agent]"),
    ("id", "write it in [agent]"),
    ("version", "write it in [agent]"),
    ("description", "write it in [agent]"),
    ("documentation", "write it in [agent]"),
    ("system_prompt", "write it as `system` in [prompts]"),
    ("user_prompt_template", "write it as `user` in [prompts]"),
];

/// Keys that people put into the wrong table, and where they belong.
const MISPLACED: [(&str, &str); 16] = [
    ("provider", "[llm]"),
    ("model", "[llm]"),
    ("temperature", "[llm]"),
    ("max_tokens", "[llm]"),
    ("fallback", "[llm]"),
    ("steps_max", "[limits]"),
    ("tokens_max", "[limits]"),
    ("wall_time", "[limits]"),
    ("timeout", "`wall_time` in [limits]"),
    ("max_steps", "`steps_max` in [limits]"),
    ("patterns", "[capabilities]"),
    ("examples", "[[capability]]"),
    ("system_prompt", "`system` in [prompts]"),
    ("prompt", "`system` in [prompts]"),
    ("tokens_per_day", "[budget]"),
    ("usd_per_day", "[budget]"),
];

fn agent(document: &Document<'_>) -> Option<AgentManifest> {
    let mut root = document.root();
    let flat = !root.has_table("agent");
    let (identity, parameters, prompts);
    if flat {
        identity = Identity::read(&mut root);
        parameters = read_parameters(&mut root);
        prompts = Prompts {
            system: root.get("system_prompt").and_then(|value| read_prompt(&value, &parameters)),
            user: root.get("user_prompt_template").and_then(|value| read_prompt(&value, &parameters)),
        };
    } else {
        let mut section = root.section("agent")?;
        identity = Identity::read(&mut section);
        section.finish(&MISPLACED);
        parameters = read_parameters(&mut root);
        prompts = Prompts::default();
    }
    let prompts = root.section("prompts").map_or(prompts.clone(), |mut section| {
        let system = section.get("system").and_then(|value| read_prompt(&value, &parameters));
        let user = section.get("user").and_then(|value| read_prompt(&value, &parameters));
        section.finish(&[]);
        Prompts { system: system.or(prompts.system), user: user.or(prompts.user) }
    });
    let tools = read_tools(&mut root);
    let approval = read_approval(&mut root, &tools);
    let capabilities = read_capabilities(&mut root, &identity);
    let (llm, memory) = (Llm::read(&mut root), Memory::read(&mut root));
    let (limits, budget) = (Limits::read(&mut root), Budget::read(&mut root));
    let elsewhere: &[_] = if flat { &[] } else { &FLAT_KEYS };
    root.finish(&[elsewhere, &MISPLACED].concat());
    Some(AgentManifest {
        name: identity.name?,
        id: identity.id,
        version: identity.version,
        description: identity.description,
        documentation: identity.documentation,
        capabilities,
        prompts,
        tools,
        llm,
        memory,
        limits,
        budget,
        approval,
        parameters,
    })
}

struct Identity {
    name: Option<AgentName>,
    id: Option<String>,
    version: Version,
    description: String,
    documentation: String,
}

impl Identity {
    fn read(section: &mut Section<'_, '_>) -> Identity {
        let name = section.require("name", "name the agent as its file is named: name = \"data-analyzer\"");
        let text = |value: Option<Value<'_, '_>>, max| value.and_then(|v| v.text(max)).unwrap_or_default().to_owned();
        let id = section.get("id").and_then(|value| value.some_text(WORD_BYTES_MAX));
        let version = section.get("version").and_then(|value| read_version(&value));
        Identity {
            name: name.and_then(|value| read_name(&value)),
            id: id.map(str::to_owned),
            version: version.unwrap_or(FIRST_VERSION),
            description: text(section.get("description"), LINE_BYTES_MAX),
            documentation: text(section.get("documentation"), PROMPT_BYTES_MAX),
        }
    }
}

/// The version of an agent or tool that does not give one.
pub const FIRST_VERSION: Version = Version::new(0, 1, 0);

fn read_name(value: &Value<'_, '_>) -> Option<AgentName> {
    let name: AgentName = value.parse(usize::MAX)?;
    let path = value.document().path();
    if let Some(expected) = AgentManifest::name_of(path).filter(|expected| *expected != name.as_str()) {
        let message = format!("the agent is named `{name}`, and its file is named for `{expected}`");
        let folder = path.as_str().ends_with("/agent.toml");
        let wanted = if folder { format!("agents/{name}/agent.toml") } else { format!("agents/{name}.toml") };
        let problem = value.diagnostic(code::NAME_MISMATCH, message);
        let place = value.document().place(value.span());
        let help = format!("write name = \"{expected}\", or move the file to {wanted}");
        value.document().note(problem.at(place, format!("expected \"{expected}\"")).help(help));
    }
    Some(name)
}

/// A version, with help for the two ways in which people shorten one.
pub(super) fn read_version(value: &Value<'_, '_>) -> Option<Version> {
    let text = value.text(WORD_BYTES_MAX)?;
    match Version::parse(text) {
        Ok(version) => Some(version),
        Err(error) => {
            let bare = text.trim_start_matches(['v', 'V']);
            let whole = [format!("{bare}.0"), format!("{bare}.0.0"), bare.to_owned()];
            let label = match whole.iter().find(|text| Version::parse(text).is_ok()) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => error.to_string(),
            };
            value.problem(
                code::BAD_VALUE,
                format!("`{}` has to be a semantic version, like 1.2.0", value.key()),
                label,
            );
            None
        }
    }
}

fn read_parameters(root: &mut Section<'_, '_>) -> Parameters {
    let mut parameters = Parameters::new();
    let Some(section) = root.section("parameters") else { return parameters };
    for (name, value) in section.entries() {
        let fine = name.get_ref().chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        if !fine || name.get_ref().is_empty() || name.get_ref().len() > WORD_BYTES_MAX {
            let problem =
                value.diagnostic(code::BAD_VALUE, format!("`{}` cannot be a parameter's name", name.get_ref()));
            let place = value.document().place(name.span());
            value.document().note(problem.at(place, "use letters, digits, `_` and `-`"));
        }
        let default = match value.kind() {
            DeValue::String(_) => value.text(PROMPT_BYTES_MAX).map(|text| Parameter::Text(text.to_owned())),
            DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix()).ok().map(Parameter::Integer),
            DeValue::Float(n) => n.as_str().parse().ok().filter(|n: &f64| n.is_finite()).map(Parameter::Number),
            DeValue::Boolean(value) => Some(Parameter::Boolean(*value)),
            DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
        };
        match default {
            Some(default) if parameters.len() < PARAMETERS_MAX => {
                parameters.insert((*name.get_ref()).to_owned(), default);
            }
            Some(_) => value.problem(code::OUT_OF_RANGE, "an agent has at most 64 parameters", "one too many"),
            None => {
                let message =
                    format!("the default of parameter `{}` has to be text, a number or a boolean", value.key());
                value.problem(code::WRONG_TYPE, message, format!("this is a {}", value.kind().type_str()));
            }
        }
    }
    parameters
}

/// Text, or `{ file = "prompts/x.md" }`.
fn read_prompt(value: &Value<'_, '_>, parameters: &Parameters) -> Option<Prompt> {
    if matches!(value.kind(), DeValue::Table(_)) {
        let title = format!("`{}`", value.key());
        let mut section = value.clone().section(title.into())?;
        let file = section.require("file", "name the prompt's file: { file = \"prompts/NAME.md\" }");
        section.finish(&[]);
        let file = file?;
        return match prompt::resolve(file.document().path(), file.text(WORD_BYTES_MAX * 2)?) {
            Ok(path) => Some(Prompt::File(path)),
            Err(error) => {
                file.problem(code::BAD_VALUE, "`file` is not a path in this workspace", error.to_string());
                None
            }
        };
    }
    let text = value.some_text(PROMPT_BYTES_MAX)?;
    match Template::parse(text, parameters) {
        Ok(template) => Some(Prompt::Text(template)),
        Err(errors) => {
            let document = value.document();
            // Where the text stands in the file as it is, its places are exact; with escapes in it they are not.
            let exact = document.text().get(value.span()).and_then(|raw| raw.find(text));
            for error in &errors {
                let span = match exact {
                    Some(at) => value.span().start + at + error.span.start..value.span().start + at + error.span.end,
                    None => value.span(),
                };
                let source = crate::diagnostic::Source { path: document.path(), text: document.text() };
                document.note(prompt::diagnose(error, source, span, parameters));
            }
            None
        }
    }
}

/// A list of names without repetition.
fn read_tool_list(value: &Value<'_, '_>, seen: &mut Vec<ToolName>) -> Vec<ToolName> {
    let mut names = Vec::new();
    for item in value.list_of(TOOLS_MAX) {
        let Some(name) = item.parse::<ToolName>(usize::MAX) else { continue };
        if seen.contains(&name) {
            item.problem(code::DUPLICATE, format!("the tool `{name}` is named twice"), "again here");
        } else {
            seen.push(name.clone());
            names.push(name);
        }
    }
    names
}

/// `tools = [..]`, which are required, or `[tools]` with `required` and `optional`.
fn read_tools(root: &mut Section<'_, '_>) -> Tools {
    let mut seen = Vec::new();
    let Some(value) = root.get("tools") else { return Tools::default() };
    if matches!(value.kind(), DeValue::Array(_)) {
        return Tools { required: read_tool_list(&value, &mut seen), optional: Vec::new() };
    }
    let Some(mut section) = value.section("[tools]".into()) else { return Tools::default() };
    let mut list = |key| section.get(key).map(|value| read_tool_list(&value, &mut seen)).unwrap_or_default();
    let tools = Tools { required: list("required"), optional: list("optional") };
    section.finish(&MISPLACED);
    tools
}

fn read_approval(root: &mut Section<'_, '_>, tools: &Tools) -> Approval {
    let Some(mut section) = root.section("approval") else { return Approval::default() };
    let mut approval = Approval::default();
    let items = section.get("tools").map(|value| value.list_of(TOOLS_MAX)).unwrap_or_default();
    for item in items {
        let Some(name) = item.parse::<ToolName>(usize::MAX) else { continue };
        if !tools.all().any(|tool| *tool == name) {
            let label = match closest(name.as_str(), tools.all().map(ToolName::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("its tools are {}", words(tools.all().map(ToolName::as_str))),
            };
            item.problem(code::UNKNOWN_TOOL, format!("`{name}` is not one of this agent's tools"), label);
        }
        approval.tools.push(name);
    }
    section.finish(&[]);
    approval
}

/// `capabilities = ["name", ..]`, `[capabilities]` with patterns, and `[[capability]]`, together.
fn read_capabilities(root: &mut Section<'_, '_>, identity: &Identity) -> Vec<Capability> {
    let mut all: Vec<Capability> = Vec::new();
    let mut add = |capability: Option<Capability>, value: &Value<'_, '_>| {
        let Some(capability) = capability else { return };
        if all.iter().any(|other| other.name == capability.name) {
            value.problem(
                code::DUPLICATE,
                format!("the capability `{}` is there twice", capability.name),
                "again here",
            );
        } else {
            all.push(capability);
        }
    };
    let short = root.get("capabilities");
    let long = root.get("capability");
    let written = short.is_some() || long.is_some();
    match &short {
        Some(value) if matches!(value.kind(), DeValue::Table(_)) => {
            let name = identity.name.as_ref().and_then(|name| name.as_str().parse().ok());
            let section = value.clone().section("[capabilities]".into());
            add(section.and_then(|section| read_phrases(section, identity, name)), value);
        }
        Some(value) => {
            for item in value.list_of(CAPABILITIES_MAX) {
                add(read_capability(&item, identity), &item);
            }
        }
        None => {}
    }
    if let Some(value) = long {
        for item in value.list_of(CAPABILITIES_MAX) {
            add(read_capability(&item, identity), &item);
        }
    }
    if all.is_empty() && !written {
        let path = root.document().path();
        let warning = "no message finds this agent by what it can do, since it has no capabilities";
        let help = "describe them with [[capability]] (name, description, examples), or ask it by its name only";
        root.document().note(Diagnostic::warning(code::NO_CAPABILITIES, path, warning).help(help));
    }
    all
}

/// One entry of a list of capabilities: a bare name, or a table.
fn read_capability(value: &Value<'_, '_>, identity: &Identity) -> Option<Capability> {
    if matches!(value.kind(), DeValue::Table(_)) {
        let mut section = value.clone().section("[[capability]]".into())?;
        let name = section.require("name", "name it: name = \"data-analysis\"")?;
        let name = read_capability_name(&name);
        return read_phrases(section, identity, name);
    }
    let name = read_capability_name(value)?;
    let version = identity.version.clone();
    Some(Capability { name, version, description: String::new(), patterns: Vec::new(), examples: Vec::new() })
}

fn read_capability_name(value: &Value<'_, '_>) -> Option<CapabilityName> {
    let text = value.text(usize::MAX)?;
    match text.parse::<CapabilityName>() {
        Ok(name) => Some(name),
        Err(error) => {
            let mut near: String = text.to_lowercase();
            near = near.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect::<Vec<_>>().join("-");
            let message = format!("`{}` is not a capability's name", text.chars().take(64).collect::<String>());
            let label = match near.parse::<CapabilityName>() {
                Ok(near) => format!("did you mean \"{near}\"?"),
                Err(_) => error.to_string(),
            };
            value.problem(code::BAD_VALUE, message, label);
            None
        }
    }
}

fn read_phrases(mut section: Section<'_, '_>, identity: &Identity, name: Option<CapabilityName>) -> Option<Capability> {
    let version = section.get("version").and_then(|value| read_version(&value));
    let description = section.get("description").and_then(|value| value.text(LINE_BYTES_MAX));
    let mut phrases = |key| {
        let items = section.get(key).map(|value| value.list_of(EXAMPLES_MAX)).unwrap_or_default();
        items.iter().filter_map(|item| item.some_text(LINE_BYTES_MAX)).map(str::to_owned).collect()
    };
    let (patterns, examples) = (phrases("patterns"), phrases("examples"));
    section.finish(&[]);
    let version = version.unwrap_or_else(|| identity.version.clone());
    let description = description.unwrap_or_default().to_owned();
    Some(Capability { name: name?, version, description, patterns, examples })
}

impl Llm {
    fn read(root: &mut Section<'_, '_>) -> Llm {
        let Some(mut section) = root.section("llm") else { return Llm::default() };
        let llm = Llm {
            provider: section.get("provider").and_then(|value| value.parse(usize::MAX)),
            model: section.get("model").and_then(|value| value.some_text(WORD_BYTES_MAX)).map(str::to_owned),
            temperature: section.get("temperature").and_then(|value| value.number(0.0..=2.0)),
            max_tokens: section.get("max_tokens").and_then(|value| value.small(1..=1_000_000)),
            fallback: section.get("fallback").map(|value| read_fallback(&value)).unwrap_or_default(),
        };
        section.finish(&MISPLACED);
        llm
    }
}

impl Memory {
    fn read(root: &mut Section<'_, '_>) -> Memory {
        let default = Memory::default();
        let Some(mut section) = root.section("memory") else { return default };
        let scopes = [
            ("conversation", MemoryScope::Conversation),
            ("agent", MemoryScope::Agent),
            ("workspace", MemoryScope::Workspace),
        ];
        let mut flag = |key| section.get(key).and_then(|value| value.boolean());
        let (enabled, auto_store) = (flag("enabled"), flag("auto_store"));
        let scope = section.get("scope").and_then(|value| value.choice(&scopes));
        let limit = section.get("search_limit").and_then(|value| value.small(1..=100));
        let similarity = section.get("min_similarity").and_then(|value| value.number(0.0..=1.0));
        section.finish(&MISPLACED);
        Memory {
            enabled: enabled.unwrap_or(true),
            scope: scope.unwrap_or(default.scope),
            auto_store: auto_store.unwrap_or(default.auto_store),
            search_limit: limit.unwrap_or(default.search_limit),
            min_similarity: similarity.unwrap_or(default.min_similarity),
        }
    }
}

impl Limits {
    fn read(root: &mut Section<'_, '_>) -> Limits {
        let default = Limits::default();
        let Some(mut section) = root.section("limits") else { return default };
        let time = Duration::from_millis(100)..=Duration::from_secs(24 * 3_600);
        let steps = section.get("steps_max").and_then(|value| value.small(1..=1_000));
        let tokens = section.get("tokens_max").and_then(|value| value.integer(1..=1_000_000_000));
        let wall_time = section.get("wall_time").and_then(|value| value.duration(time));
        let depth = section.get("delegation_depth_max").and_then(|value| value.small(0..=32));
        section.finish(&MISPLACED);
        Limits {
            steps_max: steps.unwrap_or(default.steps_max),
            tokens_max: tokens.unwrap_or(default.tokens_max),
            wall_time: wall_time.unwrap_or(default.wall_time),
            delegation_depth_max: depth.unwrap_or(default.delegation_depth_max),
        }
    }
}
