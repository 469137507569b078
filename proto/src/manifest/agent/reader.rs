//! From an agent's TOML to its manifest, with every problem noted on the way.
//!
//! Each table is read by one function, which asks for all of its keys: a key that none asks for is unknown.

use std::time::Duration;

use toml::de::DeValue;

use super::identity::{Identity, Keys, NAME_HELP};
use super::{
    AgentManifest, Approval, CAPABILITIES_MAX, Capability, EXAMPLES_MAX, LINE_BYTES_MAX, Limits, Llm, Memory,
    MemoryScope, Messages, Module, PARAMETERS_MAX, PROMPT_BYTES_MAX, Prompts, TOOLS_MAX, Tools, WORD_BYTES_MAX,
};
use crate::diagnostic::{Diagnostic, Source, closest, code};
use crate::manifest::prompt::{self, LIST_MAX, Parameter, Parameters, Prompt, Template, is_parameter_name};
use crate::manifest::provider::{Budget, read_fallback};
use crate::manifest::read::{Document, Section, Value, read_version, words};
use crate::{CapabilityName, ToolName};

/// Keys that people put at the top of a file with `[agent]`, and where they belong.
const FLAT_KEYS: [(&str, &str); 9] = [
    ("name", "write it in [agent]"),
    ("id", "write it in [agent]"),
    ("version", "write it in [agent]"),
    ("description", "write it in [agent]"),
    ("documentation", "write it in [agent]"),
    ("kind", "write it in [agent]"),
    ("module", "write it in [agent]"),
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

/// Tables of a flat file that end up with keys of the top in them, where those were written last.
const TABLES: [&str; 9] =
    ["memory", "messages", "parameters", "llm", "limits", "budget", "tools", "approval", "capability"];
/// Those of them that have no such key of their own.
const NARROW_TABLES: [&str; 5] = ["memory", "messages", "llm", "limits", "budget"];

/// A key of the flat form: at the top of the file, or where TOML has put it.
fn flat_key<'d, 't>(
    document: &'d Document<'t>,
    root: &mut Section<'d, 't>,
    key: &'static str,
    tables: &[&str],
) -> Option<Value<'d, 't>> {
    root.get(key).or_else(|| document.lift(key, tables))
}

/// Reads the whole file.
pub(super) fn agent(document: &Document<'_>) -> Option<AgentManifest> {
    let mut root = document.root();
    let flat = !root.has_table("agent");
    let (identity, parameters, prompts, module);
    let (mut tools_below, mut capabilities_below) = (None, None);
    if flat {
        let mut key = |key, tables: &[&str]| flat_key(document, &mut root, key, tables);
        let (system, user) = (key("system_prompt", &TABLES), key("user_prompt_template", &TABLES));
        let documentation = key("documentation", &TABLES);
        let keys = ["name", "id", "version", "description", "tools", "capabilities", "kind", "module"];
        let [name, id, version, description, tools, capabilities, kind, program] =
            keys.map(|name| key(name, &NARROW_TABLES));
        (tools_below, capabilities_below) = (tools, capabilities);
        if name.is_none() {
            root.require("name", NAME_HELP);
        }
        module = Module::read(kind, program);
        identity = Identity::of(document, Keys { name, id, version, description, documentation });
        parameters = read_parameters(&mut root);
        prompts = Prompts {
            system: system.and_then(|value| read_prompt(&value, &parameters)),
            user: user.and_then(|value| read_prompt(&value, &parameters)),
        };
    } else {
        let mut section = root.section("agent")?;
        identity = Identity::read(document, &mut section);
        module = Module::read(section.get("kind"), section.get("module"));
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
    let tools = read_tools(root.get("tools").or(tools_below));
    let approval = read_approval(&mut root, &tools);
    let capabilities = read_capabilities(&mut root, capabilities_below, &identity);
    let (llm, memory) = (Llm::read(&mut root), Memory::read(&mut root));
    let messages = Messages::read(&mut root);
    let (limits, budget) = (Limits::read(&mut root), Budget::read(&mut root));
    let schedules = super::schedule::read(&mut root);
    let elsewhere: &[_] = if flat { &[] } else { &FLAT_KEYS };
    root.finish(&[elsewhere, &MISPLACED].concat());
    if capabilities.is_empty() && !document.has_errors() {
        let warning = "no message finds this agent by what it can do, since it has no capabilities";
        let help = "describe them with [[capability]] (name, description, examples), or ask it by its name only";
        document.note(Diagnostic::warning(code::NO_CAPABILITIES, document.path(), warning).help(help));
    }
    Some(AgentManifest {
        name: identity.name?,
        display_name: identity.display_name,
        id: identity.id,
        version: identity.version,
        description: identity.description,
        documentation: identity.documentation,
        capabilities,
        prompts,
        tools,
        module,
        llm,
        memory,
        messages,
        limits,
        budget,
        approval,
        parameters,
        schedules,
    })
}

fn read_parameters(root: &mut Section<'_, '_>) -> Parameters {
    let mut parameters = Parameters::new();
    let Some(section) = root.section("parameters") else { return parameters };
    for (name, value) in section.entries() {
        if !is_parameter_name(name.get_ref()) {
            let problem =
                value.diagnostic(code::BAD_VALUE, format!("`{}` cannot be a parameter's name", name.get_ref()));
            let place = value.document().place(name.span());
            value.document().note(problem.at(place, "use letters, digits, `_` and `-`"));
        }
        let default = read_parameter(&value);
        match default {
            Some(default) if parameters.len() < PARAMETERS_MAX => {
                parameters.insert((*name.get_ref()).to_owned(), default);
            }
            Some(_) => value.problem(code::OUT_OF_RANGE, "an agent has at most 64 parameters", "one too many"),
            None => {
                let message = format!(
                    "the default of parameter `{}` has to be text, a number, a boolean or a list of these",
                    value.key()
                );
                value.problem(code::WRONG_TYPE, message, value.what());
            }
        }
    }
    parameters
}

/// A value that a parameter can have.
fn read_parameter(value: &Value<'_, '_>) -> Option<Parameter> {
    match value.kind() {
        DeValue::String(_) => value.text(PROMPT_BYTES_MAX).map(|text| Parameter::Text(text.to_owned())),
        DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix()).ok().map(Parameter::Integer),
        DeValue::Float(n) => n.as_str().parse().ok().filter(|n: &f64| n.is_finite()).map(Parameter::Number),
        DeValue::Boolean(value) => Some(Parameter::Boolean(*value)),
        DeValue::Array(_) => {
            let items = value.list_of(LIST_MAX);
            let flat = items.iter().filter(|item| !matches!(item.kind(), DeValue::Array(_)));
            let read: Vec<Parameter> = flat.filter_map(read_parameter).collect();
            (read.len() == items.len()).then_some(Parameter::List(read))
        }
        DeValue::Datetime(_) | DeValue::Table(_) => None,
    }
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
                let source = Source { path: document.path(), text: document.text() };
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
fn read_tools(value: Option<Value<'_, '_>>) -> Tools {
    let mut seen = Vec::new();
    let Some(value) = value else { return Tools::default() };
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
fn read_capabilities<'d, 't>(
    root: &mut Section<'d, 't>,
    below: Option<Value<'d, 't>>,
    identity: &Identity,
) -> Vec<Capability> {
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
    let short = root.get("capabilities").or(below);
    let long = root.get("capability");
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
            ("agent-only", MemoryScope::Agent),
            ("subject", MemoryScope::Subject),
            ("workspace", MemoryScope::Workspace),
            ("global", MemoryScope::Global),
        ];
        let mut flag = |key| section.get(key).and_then(|value| value.boolean());
        let (enabled, auto_store, extract) = (flag("enabled"), flag("auto_store"), flag("extract"));
        let extract_tokens = section.get("extract_tokens_per_day").and_then(|value| value.integer(1..=1_000_000_000));
        let scope = section.get("scope").and_then(|value| value.choice(&scopes));
        let limit = section.get("search_limit").and_then(|value| value.small(1..=100));
        let similarity = section.get("min_similarity").and_then(|value| value.number(0.0..=1.0));
        let tokens_max = section.get("tokens_max").and_then(|value| value.small(100..=100_000));
        section.finish(&MISPLACED);
        Memory {
            enabled: enabled.unwrap_or(true),
            scope: scope.unwrap_or(default.scope),
            auto_store: auto_store.unwrap_or(default.auto_store),
            extract: extract.unwrap_or(default.extract),
            extract_tokens_per_day: extract_tokens.unwrap_or(default.extract_tokens_per_day),
            search_limit: limit.unwrap_or(default.search_limit),
            min_similarity: similarity.unwrap_or(default.min_similarity),
            tokens_max: tokens_max.unwrap_or(default.tokens_max),
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
