//! Prompt templates: text with `{{request}}`, `{{context}}`, `{{parameters.NAME}}` and `{{NAME}}` in it.
//!
//! What is put in a placeholder's place is never read as a template again: a message that contains `{{context}}` gets
//! nothing from it. Four opening braces (`{{{{`) stand for two.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::{Serialize, Serializer};

use super::limits::WORD_BYTES_MAX;
use super::read::words;
use crate::diagnostic::{Diagnostic, Source, closest, code};
use crate::tree::{InvalidPath, TreePath};

/// The placeholders that every message fills.
const PLACEHOLDERS: [&str; 2] = ["request", "context"];
/// The most placeholders in one template.
const PLACEHOLDERS_MAX: usize = 1_000;

/// An agent's parameters with their default values.
pub type Parameters = BTreeMap<String, Parameter>;

/// A parameter's value.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Parameter {
    /// A text of any length that the file's limit allows.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number, whole or not.
    Number(f64),
    /// True or false.
    Boolean(bool),
    /// Several of these, which a prompt gets with commas between.
    List(Vec<Parameter>),
}

/// The most entries of a parameter that is a list.
pub const LIST_MAX: usize = 256;

impl fmt::Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Parameter::Text(text) => f.write_str(text),
            Parameter::Integer(number) => number.fmt(f),
            Parameter::Number(number) => number.fmt(f),
            Parameter::Boolean(value) => value.fmt(f),
            Parameter::List(values) => {
                for (at, value) in values.iter().enumerate() {
                    f.write_str(if at > 0 { ", " } else { "" })?;
                    value.fmt(f)?;
                }
                Ok(())
            }
        }
    }
}

/// Whether a parameter can have this name: letters, digits, `_` and `-`.
pub fn is_parameter_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    (1..=WORD_BYTES_MAX).contains(&name.len()) && name.chars().all(fits)
}

/// What fills the placeholders.
#[derive(Debug, Clone, Copy)]
pub struct Values<'v> {
    /// What the person, or the other agent, asked.
    pub request: &'v str,
    /// What is known beside it: remembered facts, earlier messages.
    pub context: &'v str,
    /// The agent's parameters, and over them those that came with the message; one that is not there renders as nothing.
    pub parameters: &'v Parameters,
}

/// A prompt in which every placeholder can be filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Range<usize>),
    Request,
    Context,
    Parameter(Range<usize>),
}

/// A placeholder that cannot be filled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct TemplateError {
    /// Its bytes in the template.
    pub span: Range<usize>,
    /// What is wrong with it.
    pub problem: TemplateProblem,
}

/// What is wrong with a placeholder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateProblem {
    /// No `}}` follows on the same line.
    #[error("the placeholder is not closed")]
    Unclosed,
    /// Nothing of that name can be put in, or another name was probably meant.
    #[error("there is no placeholder `{name}`")]
    Unknown {
        /// What is between the braces.
        name: String,
    },
    /// The agent declares no such parameter.
    #[error("the agent has no parameter `{name}`")]
    UnknownParameter {
        /// The parameter that was named.
        name: String,
        /// The one that was probably meant.
        near: Option<String>,
    },
    /// More placeholders than a template may have.
    #[error("the template has more than {PLACEHOLDERS_MAX} placeholders")]
    TooMany,
}

impl Template {
    /// Reads a template and finds every placeholder that cannot be filled.
    pub fn parse(text: &str, parameters: &Parameters) -> Result<Template, Vec<TemplateError>> {
        let (mut pieces, mut errors) = (Vec::new(), Vec::new());
        let mut plain = 0;
        let mut from = 0;
        while let Some(open) = text[from..].find("{{").map(|at| from + at) {
            pieces.push(Piece::Text(plain..open));
            if text[open + 2..].starts_with("{{") {
                // The first two of four braces are the text; the last two are dropped.
                pieces.push(Piece::Text(open..open + 2));
                (plain, from) = (open + 4, open + 4);
                continue;
            }
            let line = text[open..].find('\n').map_or(text.len(), |at| open + at);
            let rest = &text[open + 2..line];
            // Another opening before the end means that this one was never closed.
            let close = rest.find("}}").filter(|close| rest.find("{{").is_none_or(|next| *close < next));
            let Some(close) = close.map(|at| open + 2 + at) else {
                errors.push(TemplateError { span: open..open + 2, problem: TemplateProblem::Unclosed });
                (plain, from) = (open + 2, open + 2);
                continue;
            };
            match placeholder(text, open + 2..close, parameters) {
                Ok(piece) => pieces.push(piece),
                Err(problem) => errors.push(TemplateError { span: open..close + 2, problem }),
            }
            (plain, from) = (close + 2, close + 2);
            if pieces.len() > 2 * PLACEHOLDERS_MAX {
                errors.push(TemplateError { span: open..close + 2, problem: TemplateProblem::TooMany });
                break;
            }
        }
        pieces.push(Piece::Text(plain..text.len()));
        pieces.retain(|piece| !matches!(piece, Piece::Text(range) if range.is_empty()));
        if errors.is_empty() { Ok(Template { text: text.to_owned(), pieces }) } else { Err(errors) }
    }

    /// The template as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a placeholder names this parameter.
    pub fn reads_parameter(&self, name: &str) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Parameter(range) if self.text[range.clone()] == *name))
    }

    /// Whether what is known beside the request has a place in it.
    pub fn reads_context(&self) -> bool {
        self.pieces.contains(&Piece::Context)
    }

    /// The text with every placeholder filled.
    pub fn render(&self, values: &Values<'_>) -> String {
        let mut out = String::with_capacity(self.text.len() + values.request.len() + values.context.len());
        for piece in &self.pieces {
            match piece {
                Piece::Text(range) => out.push_str(&self.text[range.clone()]),
                Piece::Request => out.push_str(values.request),
                Piece::Context => out.push_str(values.context),
                Piece::Parameter(name) => {
                    if let Some(value) = values.parameters.get(&self.text[name.clone()]) {
                        out.push_str(&value.to_string());
                    }
                }
            }
        }
        out
    }
}

impl Serialize for Template {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.text)
    }
}

fn placeholder(text: &str, inside: Range<usize>, parameters: &Parameters) -> Result<Piece, TemplateProblem> {
    let raw = &text[inside.clone()];
    let name = raw.trim();
    if let Some(parameter) = name.strip_prefix("parameters.") {
        if parameters.contains_key(parameter) {
            let end = inside.start + raw.trim_end().len();
            return Ok(Piece::Parameter(end - parameter.len()..end));
        }
        let near = closest(parameter, parameters.keys().map(String::as_str)).map(str::to_owned);
        return Err(TemplateProblem::UnknownParameter { name: parameter.to_owned(), near });
    }
    match name {
        "request" => Ok(Piece::Request),
        "context" => Ok(Piece::Context),
        // Whoever sends a message may fill it. A name that is nearly another one is a slip.
        name if is_parameter_name(name) && (parameters.contains_key(name) || near(name, parameters).is_none()) => {
            let start = inside.start + (raw.len() - raw.trim_start().len());
            Ok(Piece::Parameter(start..start + name.len()))
        }
        _ => Err(TemplateProblem::Unknown { name: name.to_owned() }),
    }
}

/// What a placeholder probably meant.
fn near(name: &str, parameters: &Parameters) -> Option<String> {
    let dotted: Vec<String> = parameters.keys().map(|name| format!("parameters.{name}")).collect();
    let known = PLACEHOLDERS.into_iter().chain(parameters.keys().map(String::as_str));
    closest(name, known.chain(dotted.iter().map(String::as_str))).map(str::to_owned)
}

/// The error as a diagnostic; `span` is where the placeholder is in the file.
pub fn diagnose(error: &TemplateError, source: Source<'_>, span: Range<usize>, parameters: &Parameters) -> Diagnostic {
    let problem = Diagnostic::error(code::BAD_PROMPT, source.path, error.to_string());
    let place = source.place(span);
    match &error.problem {
        TemplateProblem::Unclosed => problem
            .at(place, "opened here and never closed")
            .help("close it, or write `{{{{` for two braces that are text"),
        TemplateProblem::TooMany => problem.at(place, "too many"),
        TemplateProblem::Unknown { name } => {
            let label = match near(name, parameters) {
                Some(near) => format!("did you mean `{{{{{near}}}}}`?"),
                None => "nothing fills this".to_owned(),
            };
            problem.at(place, label).help(
                "there are {{request}}, {{context}}, {{parameters.NAME}}, and {{NAME}} for what comes with a message; \
                 write `{{{{` for two braces that are text",
            )
        }
        TemplateProblem::UnknownParameter { name, near: Some(near) } => {
            problem.at(place, format!("did you mean `{near}`?")).help(declare(name, parameters))
        }
        TemplateProblem::UnknownParameter { name, near: None } => {
            problem.at(place, "not declared").help(declare(name, parameters))
        }
    }
}

fn declare(name: &str, parameters: &Parameters) -> String {
    let known = match parameters.is_empty() {
        true => "the agent has none".to_owned(),
        false => format!("the agent has {}", words(parameters.keys().map(String::as_str))),
    };
    format!("{known}; declare it with a default value under [parameters]: {name} = \"...\"")
}

/// A prompt as an agent's file gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Prompt {
    /// In a file of its own, whose template the workspace's check has read.
    File(TreePath),
    /// In the agent's file itself.
    #[serde(untagged)]
    Text(Template),
}

/// The file that `written` in `from` names: from the workspace's top, or with `./` from the folder of `from`.
pub fn resolve(from: &TreePath, written: &str) -> Result<TreePath, InvalidPath> {
    match (written.strip_prefix("./"), from.as_str().rsplit_once('/')) {
        (Some(rest), Some((folder, _))) => format!("{folder}/{rest}").parse(),
        (Some(rest), None) => rest.parse(),
        (None, _) => written.parse(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parameters() -> Parameters {
        [("tone".to_owned(), Parameter::Text("dry".to_owned())), ("top".to_owned(), Parameter::Integer(3))].into()
    }

    fn render(text: &str) -> String {
        let template = Template::parse(text, &parameters()).expect("a template");
        template.render(&Values { request: "R {{context}}", context: "C", parameters: &parameters() })
    }

    #[test]
    fn placeholders_are_filled_once() {
        assert_eq!(render("{{request}}|{{ context }}|{{parameters.tone}}{{ parameters.top }}"), "R {{context}}|C|dry3");
        assert_eq!(render("no {braces} }} here"), "no {braces} }} here");
        assert_eq!(render("{{ tone }}{{requirements}}!"), "dry!");
        assert_eq!(render("{{{{request}}"), "{{request}}");
        assert_eq!(render("{\"a\": {\"b\": 1}}"), "{\"a\": {\"b\": 1}}");
    }

    #[test]
    fn every_bad_placeholder_is_found_with_its_place() {
        let errors =
            Template::parse("{{reqest}} {{parameters.tune}} {{\n{{}} {{context}} {{tune}} {{a.b}}", &parameters());
        let found: Vec<_> = errors.expect_err("errors").iter().map(|e| (e.span.clone(), e.to_string())).collect();
        let expected = [
            (0..10, "there is no placeholder `reqest`"),
            (11..30, "the agent has no parameter `tune`"),
            (31..33, "the placeholder is not closed"),
            (34..38, "there is no placeholder ``"),
            (51..59, "there is no placeholder `tune`"),
            (60..67, "there is no placeholder `a.b`"),
        ];
        assert_eq!(found, expected.map(|(span, text)| (span, text.to_owned())));
    }

    #[test]
    fn a_prompt_file_is_found_from_the_top_or_from_beside() {
        let from: TreePath = "agents/a/agent.toml".parse().expect("a path");
        let resolved = |written| resolve(&from, written).map(|path| path.to_string());
        assert_eq!(resolved("prompts/x.md").as_deref(), Ok("prompts/x.md"));
        assert_eq!(resolved("./prompts/x.md").as_deref(), Ok("agents/a/prompts/x.md"));
        assert!(resolved("../b/x.md").is_err() && resolved("./../b/x.md").is_err() && resolved("/etc/passwd").is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "([{}]|parameters\\.|tone|request|\\PC|\n){0,40}") {
            if let Ok(template) = Template::parse(&text, &parameters()) {
                template.render(&Values { request: "", context: "", parameters: &parameters() });
            }
        }

        #[test]
        fn text_without_braces_is_itself(text in "[^{]*") {
            prop_assert_eq!(render(&text), text);
        }
    }
}
