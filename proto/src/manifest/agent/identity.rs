//! Who an agent is: how it is called, how it is shown, its version and what is written about it.

use semver::Version;

use super::{AgentManifest, FIRST_VERSION, LINE_BYTES_MAX, PROMPT_BYTES_MAX, WORD_BYTES_MAX};
use crate::AgentName;
use crate::diagnostic::{Diagnostic, code};
use crate::manifest::read::{Document, Section, Value, read_version};
use crate::tree::TreePath;

/// What is said of a missing name.
pub(super) const NAME_HELP: &str = "name the agent as its file is named: name = \"data-analyzer\"";

pub(super) struct Identity {
    pub(super) name: Option<AgentName>,
    pub(super) display_name: Option<String>,
    pub(super) id: Option<String>,
    pub(super) version: Version,
    pub(super) description: String,
    pub(super) documentation: String,
}

/// The keys that say who an agent is.
pub(super) struct Keys<'d, 't> {
    pub(super) name: Option<Value<'d, 't>>,
    pub(super) id: Option<Value<'d, 't>>,
    pub(super) version: Option<Value<'d, 't>>,
    pub(super) description: Option<Value<'d, 't>>,
    pub(super) documentation: Option<Value<'d, 't>>,
}

impl Identity {
    pub(super) fn read<'d, 't>(document: &'d Document<'t>, section: &mut Section<'d, 't>) -> Identity {
        let name = section.require("name", NAME_HELP);
        let [id, version, description, documentation] =
            ["id", "version", "description", "documentation"].map(|key| section.get(key));
        Identity::of(document, Keys { name, id, version, description, documentation })
    }

    pub(super) fn of(document: &Document<'_>, keys: Keys<'_, '_>) -> Identity {
        let text = |value: Option<Value<'_, '_>>, max| value.and_then(|v| v.text(max)).unwrap_or_default().to_owned();
        let id = keys.id.as_ref().and_then(|value| value.some_text(WORD_BYTES_MAX));
        let (name, display_name) = match &keys.name {
            Some(value) => read_name(document, value, id),
            None => (None, None),
        };
        Identity {
            name,
            display_name,
            id: id.map(str::to_owned),
            version: keys.version.and_then(|value| read_version(&value)).unwrap_or(FIRST_VERSION),
            description: text(keys.description, LINE_BYTES_MAX),
            documentation: text(keys.documentation, PROMPT_BYTES_MAX),
        }
    }
}

/// The name by which the agent is called, and its display name where it has another one.
///
/// It is called as its file is named, so that nobody has to open a file to know it. A name that could be an agent's and
/// is not the file's is a slip; any other one is for people.
fn read_name(document: &Document<'_>, value: &Value<'_, '_>, id: Option<&str>) -> (Option<AgentName>, Option<String>) {
    let Some(text) = value.some_text(WORD_BYTES_MAX) else { return (None, None) };
    if text.chars().any(char::is_control) {
        value.problem(code::BAD_VALUE, "`name` has to be one line of text", "there is a control character in it");
        return (None, None);
    }
    let own: Option<AgentName> = text.parse().ok();
    let path = document.path();
    let Some(stem) = AgentManifest::name_of(path) else {
        let called = own.or_else(|| id?.parse().ok()).or_else(|| derived(text));
        let display = called.as_ref().is_none_or(|called| called.as_str() != text);
        return (called, display.then(|| text.to_owned()));
    };
    let Ok(called) = stem.parse::<AgentName>() else {
        let problem = value.diagnostic(code::NAME_MISMATCH, format!("`{stem}` cannot be an agent's name"));
        let near = id.and_then(|id| id.parse().ok()).or(own).or_else(|| derived(stem));
        let near = near.map_or_else(|| "NAME".to_owned(), |name| name.to_string());
        let help = format!("an agent is called as its file is named: move the file to {}", moved(path, &near));
        document.note(problem.at(document.place(value.span()), "this stays as the name for people").help(help));
        return (None, None);
    };
    match own {
        Some(own) if own == called => return (Some(own), None),
        Some(own) if id.is_none_or(|id| id != stem) => {
            let (message, help) = match id {
                Some(id) => {
                    // Where the id can be no file's name, the name may be.
                    let wanted = if id.parse::<AgentName>().is_ok() { id } else { own.as_str() };
                    (
                        format!("the agent's id is `{id}` and its name is `{own}`, and its file is named for `{stem}`"),
                        format!(
                            "it is called as its file is named: write id = \"{stem}\", or move the file to {}",
                            moved(path, wanted)
                        ),
                    )
                }
                None => (
                    format!("the agent is named `{own}`, and its file is named for `{stem}`"),
                    format!("write name = \"{stem}\", or move the file to {}", moved(path, own.as_str())),
                ),
            };
            let problem = value.diagnostic(code::NAME_MISMATCH, message);
            let place = document.place(value.span());
            document.note(problem.at(place, format!("expected \"{stem}\"")).help(help));
            return (None, None);
        }
        Some(_) => {}
        None => {
            let wanted = id.and_then(|id| id.parse().ok()).or_else(|| derived(text));
            if let Some(wanted) = wanted.filter(|wanted| *wanted != called) {
                let message = format!("the agent is called `{called}`, as its file is named, and not `{wanted}`");
                let problem = Diagnostic::warning(code::NAME_MISMATCH, path, message);
                let help = format!("move the file to {}, if it is to be called so", moved(path, wanted.as_str()));
                document.note(problem.at(document.place(value.span()), "the name for people").help(help));
            }
        }
    }
    (Some(called), Some(text.to_owned()))
}

/// Where an agent's file would have to be for the agent to be called `name`.
fn moved(path: &TreePath, name: &str) -> String {
    if path.as_str().ends_with("/agent.toml") {
        format!("agents/{name}/agent.toml")
    } else {
        format!("agents/{name}.toml")
    }
}

/// The name by which an agent can be called that people call so: `Data Analysis Agent` is `data-analysis-agent`, and
/// `DataAnalyzer` is `data-analyzer`.
fn derived(text: &str) -> Option<AgentName> {
    let mut name = String::new();
    let mut before = ' ';
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let word = c.is_uppercase() && (before.is_lowercase() || rest.peek().is_some_and(|next| next.is_lowercase()));
        let part = c.is_ascii_alphanumeric() || c == '_';
        if (word || !part) && !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
        if part {
            name.push(c.to_ascii_lowercase());
        }
        before = c;
    }
    name.trim_matches(['-', '_']).parse().ok()
}
