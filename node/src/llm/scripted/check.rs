//! What is wrong with a script or a recording, with its place, before anything is answered from it.
//!
//! All problems at once: keys that nothing reads, rules that do nothing, placeholders that are not closed or that nothing
//! can fill in.

use std::collections::BTreeSet;
use std::ops::Range;

use caxton_proto::diagnostic::{Diagnostic, Source, closest, code};
use caxton_proto::tree::TreePath;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::cassette::Exchange;
use super::{RULES_MAX, Script};

/// After so many problems the rest is not looked for.
const PROBLEMS_MAX: usize = 50;
/// What a placeholder can name beside tools.
const NAMES: [&str; 3] = ["request", "attachment", "newest"];
/// The keys of each table.
const RULE_KEYS: [&str; 3] = ["when", "say", "call"];
const WHEN_KEYS: [&str; 6] = ["request", "after", "failed", "can", "newest", "system"];
const CALL_KEYS: [&str; 2] = ["tool", "arguments"];

/// The problems of the file that a scripted provider names: `.jsonl` is a recording, anything else a script.
pub fn check(path: &TreePath, text: &str) -> Vec<Diagnostic> {
    let mut found = Findings { source: Source { path, text }, path, problems: Vec::new() };
    if path.as_str().ends_with(".jsonl") {
        found.recording();
    } else {
        found.script();
    }
    found.problems
}

struct Findings<'t> {
    source: Source<'t>,
    path: &'t TreePath,
    problems: Vec<Diagnostic>,
}

type Table<'t> = DeTable<'t>;

impl Findings<'_> {
    fn note(&mut self, code: &'static str, span: Range<usize>, message: String, label: String, help: &str) {
        if self.problems.len() < PROBLEMS_MAX {
            let problem = Diagnostic::error(code, self.path, message).at(self.source.place(span), label);
            self.problems.push(problem.help(help));
        }
    }

    fn recording(&mut self) {
        let mut at = 0;
        for line in self.source.text.split_inclusive('\n') {
            let span = at..at + line.trim_end().len();
            at += line.len();
            if line.trim().is_empty() {
                continue;
            }
            if let Err(error) = serde_json::from_str::<Exchange>(line) {
                let message = "this line is not an exchange of a recording".to_owned();
                self.note(
                    code::BAD_VALUE,
                    span,
                    message,
                    error.to_string(),
                    "record it again with `caxton serve --record`",
                );
            }
        }
    }

    fn script(&mut self) {
        let (table, errors) = DeTable::parse_recoverable(self.source.text);
        for error in &errors {
            let span = error.span().unwrap_or(0..0);
            let help = "docs/agents.md says what a script looks like";
            self.note(code::SYNTAX, span, "this is not valid TOML".to_owned(), error.message().to_owned(), help);
        }
        if !errors.is_empty() {
            return;
        }
        let table = table.get_ref();
        self.keys(table, "a script", &["rule"]);
        let rules = tables(table.get("rule"));
        for (span, rule) in &rules {
            self.rule(span.clone(), rule);
        }
        if self.problems.is_empty() {
            self.whole(rules.len());
        }
        let tools = tools_of(&rules);
        for (_, rule) in &rules {
            if let Some(say) = rule.get("say") {
                self.placeholders(say, &tools);
            }
            for (_, call) in tables(rule.get("call")) {
                if let Some(arguments) = call.get("arguments") {
                    self.placeholders(arguments, &tools);
                }
            }
        }
    }

    /// What only the reader of scripts knows: types, and how many rules there may be.
    fn whole(&mut self, rules: usize) {
        if let Err(error) = toml::from_str::<Script>(self.source.text) {
            let span = error.span().unwrap_or(0..0);
            let help = "docs/agents.md says what a script looks like";
            self.note(
                code::WRONG_TYPE,
                span,
                "this value does not fit its key".to_owned(),
                error.message().to_owned(),
                help,
            );
        } else if rules == 0 || rules > RULES_MAX {
            let message = format!("a script has {rules} rules, and needs 1 to {RULES_MAX}");
            self.note(code::OUT_OF_RANGE, 0..0, message, "of this file".to_owned(), "a rule begins with [[rule]]");
        }
    }

    fn rule(&mut self, span: Range<usize>, rule: &Table<'_>) {
        self.keys(rule, "[[rule]]", &RULE_KEYS);
        if let Some(when) = rule.get("when").and_then(|when| when.get_ref().as_table()) {
            self.keys(when, "`when`", &WHEN_KEYS);
        }
        let calls = tables(rule.get("call"));
        for (_, call) in &calls {
            self.keys(call, "[[rule.call]]", &CALL_KEYS);
        }
        let says = rule.get("say").is_some_and(|say| say.get_ref().as_str() != Some(""));
        if !says && calls.is_empty() && !rule.keys().any(|key| !RULE_KEYS.contains(&key.get_ref().as_ref())) {
            let message = "a rule neither says nor calls anything".to_owned();
            self.note(code::MISSING_KEY, span, message, "this one".to_owned(), "give it `say`, or a [[rule.call]]");
        }
    }

    fn keys(&mut self, table: &Table<'_>, title: &str, known: &[&'static str]) {
        for key in table.keys() {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            let label = match closest(name, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "unknown".to_owned(),
            };
            let help = format!("known here are {}", known.join(", "));
            self.note(code::UNKNOWN_KEY, key.span(), format!("there is no key `{name}` in {title}"), label, &help);
        }
    }

    /// Looks through all texts of a value.
    fn placeholders(&mut self, value: &Spanned<DeValue<'_>>, tools: &BTreeSet<String>) {
        match value.get_ref() {
            DeValue::String(text) => self.text(text, value.span(), tools),
            DeValue::Array(values) => values.iter().for_each(|value| self.placeholders(value, tools)),
            DeValue::Table(fields) => fields.values().for_each(|value| self.placeholders(value, tools)),
            DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {}
        }
    }

    fn text(&mut self, text: &str, span: Range<usize>, tools: &BTreeSet<String>) {
        let mut rest = text;
        // Where the next placeholder stands in the file; a text may have several lines.
        let mut searched = span.start;
        while let Some((_, after)) = rest.split_once("{{") {
            let written = self.source.text.get(searched..span.end).and_then(|written| written.find("{{"));
            let start = written.map_or(span.start, |at| searched + at);
            let Some((placeholder, after)) = after.split_once("}}") else {
                let message = "a placeholder is not closed".to_owned();
                let help = "write {{request}}, or leave the braces out";
                return self.note(code::BAD_PROMPT, start..span.end, message, "no `}}` follows".to_owned(), help);
            };
            let end = self.source.text.get(start..span.end).and_then(|written| written.find("}}"));
            let end = end.map_or(span.end, |at| start + at + 2);
            searched = end;
            rest = after;
            let name = placeholder.trim().split('/').next().unwrap_or_default();
            if NAMES.contains(&name) || tools.contains(name) {
                continue;
            }
            let label = match closest(name, NAMES.iter().copied().chain(tools.iter().map(String::as_str))) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "nothing is called so".to_owned(),
            };
            let message = format!("the placeholder `{{{{{}}}}}` leads nowhere", placeholder.trim());
            let help =
                "a placeholder is request, attachment, newest, or a tool that this script calls, with /FIELD behind it";
            self.note(code::BAD_PROMPT, start..end, message, label, help);
        }
    }
}

/// The tables of a list of tables, with their places.
fn tables<'a, 't>(value: Option<&'a Spanned<DeValue<'t>>>) -> Vec<(Range<usize>, &'a Table<'t>)> {
    let Some(list) = value.and_then(|value| value.get_ref().as_array()) else { return Vec::new() };
    list.iter().filter_map(|value| Some((value.span(), value.get_ref().as_table()?))).collect()
}

/// Tools whose results can be there: those that a rule calls, or expects to have been called.
fn tools_of(rules: &[(Range<usize>, &Table<'_>)]) -> BTreeSet<String> {
    let mut tools = BTreeSet::new();
    let mut add = |value: Option<&Spanned<DeValue<'_>>>| match value.map(Spanned::get_ref) {
        Some(DeValue::String(name)) => _ = tools.insert(name.to_string()),
        Some(DeValue::Array(names)) => {
            tools.extend(names.iter().filter_map(|name| name.get_ref().as_str().map(str::to_owned)))
        }
        _ => {}
    };
    for (_, rule) in rules {
        for (_, call) in tables(rule.get("call")) {
            add(call.get("tool"));
        }
        if let Some(when) = rule.get("when").and_then(|when| when.get_ref().as_table()) {
            add(when.get("after"));
            add(when.get("can"));
        }
    }
    tools
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Line, code and label of each problem.
    fn problems(path: &str, text: &str) -> Vec<(u32, String, String)> {
        let path: TreePath = path.parse().expect("a path");
        let place = |problem: Diagnostic| {
            let place = problem.place.expect("a place");
            (place.line, problem.code.to_string(), place.label)
        };
        check(&path, text).into_iter().map(place).collect()
    }

    #[test]
    fn every_mistake_of_a_script_has_its_place() {
        let script = "[[rule]]\nwhen.reqest = 'a'\nsay = 'x'\n\n[[rule]]\nsya = 'x'\n\n[[rule]]\nwhen.after = 'read'\n\
            say = \"\"\"\n{{read/count}} of\n{{reqest}} and {{newest\"\"\"\n[[rule.call]]\ntool = 'write'\n\
            arguments = { a = ['{{write}}', '{{wrote/x}}'] }\nargs = 1\n\n[[rule]]\nwhen.failed = true\n";
        let found = problems("prompts/s.toml", script);
        let places: Vec<(u32, &str)> = found.iter().map(|(line, code, _)| (*line, code.as_str())).collect();
        assert_eq!(
            places,
            [
                (2, code::UNKNOWN_KEY),
                (6, code::UNKNOWN_KEY),
                (16, code::UNKNOWN_KEY),
                (18, code::MISSING_KEY),
                (12, code::BAD_PROMPT),
                (12, code::BAD_PROMPT),
                (15, code::BAD_PROMPT),
            ],
            "{found:?}"
        );
        assert!(found[0].2.contains("`request`") && found[4].2.contains("`request`") && found[6].2.contains("`write`"));
    }

    #[test]
    fn what_is_no_script_or_recording_says_where() {
        assert_eq!(problems("prompts/s.toml", "[[rule]\n")[0].1, code::SYNTAX);
        assert_eq!(problems("prompts/s.toml", "")[0].1, code::OUT_OF_RANGE);
        let typed = &problems("prompts/s.toml", "[[rule]]\nsay = 1\n")[0];
        assert_eq!((typed.0, typed.1.as_str()), (2, code::WRONG_TYPE), "{typed:?}");
        assert_eq!(problems("prompts/s.jsonl", "\n{}\n")[0].0, 2);
        assert_eq!(problems("prompts/s.jsonl", ""), []);
    }

    #[test]
    fn a_good_script_has_no_problems() {
        let script = "[[rule]]\nwhen.request = ['a', 'b']\nwhen.after = []\nsay = 'no {braces} here'\n[[rule.call]]\ntool = 'read'\n\
            arguments = { file = '{{attachment}}', n = 1 }\n[[rule]]\nwhen.after = 'read'\nsay = '{{ read/rows/*/x }}: {{request}}'\n";
        assert_eq!(problems("prompts/s.toml", script), []);
    }
}
