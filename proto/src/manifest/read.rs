//! Walking over a parsed TOML file: asks for keys by name, takes note of what is wrong, and goes on.
//!
//! Nothing here stops at the first problem. `None` means that the key is not there or that its problem was noted, so
//! a caller puts a default in its place and reads on; the file counts as read only if nothing was noted.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::str::FromStr;
use std::time::Duration;

use semver::Version;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::units;
use crate::diagnostic::{Diagnostic, Place, Severity, Source, closest, code};
use crate::tree::TreePath;

/// After so many syntax errors the rest are echoes of the first.
const SYNTAX_ERRORS_MAX: usize = 5;
/// What the part of a file before its first table is called.
const TOP: &str = "the top of this file";

/// A TOML file, and what was found wrong with it so far.
pub(super) struct Document<'t> {
    source: Source<'t>,
    table: Spanned<DeTable<'t>>,
    found: RefCell<Vec<Diagnostic>>,
    /// Where keys begin that were read as if they stood elsewhere.
    lifted: RefCell<Vec<usize>>,
}

impl<'t> Document<'t> {
    /// Parses the file. When it is not TOML, only that is reported.
    pub fn parse(path: &'t TreePath, text: &'t str) -> Result<Document<'t>, Vec<Diagnostic>> {
        let source = Source { path, text };
        let (table, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            return Ok(Document { source, table, found: RefCell::default(), lifted: RefCell::default() });
        }
        let mut found: Vec<Diagnostic> = Vec::new();
        for error in &errors {
            let place = source.place(error.span().unwrap_or(0..0));
            let repeated = found.iter().any(|d| d.place.as_ref().is_some_and(|p| p.line == place.line));
            if !repeated && found.len() < SYNTAX_ERRORS_MAX {
                let problem = Diagnostic::error(code::SYNTAX, path, "this is not valid TOML");
                found.push(problem.at(place, error.message()).help(syntax_help(error.message())));
            }
        }
        crate::diagnostic::sort(&mut found);
        Err(found)
    }

    /// The file's top level.
    pub fn root(&self) -> Section<'_, 't> {
        let title = Cow::Borrowed(TOP);
        Section { document: self, title, table: self.table.get_ref(), header: 0..0, known: Vec::new() }
    }

    /// The value of a key of the file's top that stands below one of `tables` instead, since TOML puts a key into the
    /// table above it. A warning says to move it up.
    pub fn lift(&self, key: &'static str, tables: &[&str]) -> Option<Value<'_, 't>> {
        let root = self.table.get_ref();
        if root.contains_key(key) {
            return None;
        }
        let below = tables.iter().filter_map(|name| Some((*name, root.get(*name)?.get_ref())));
        let mut below = below.flat_map(|(name, value)| {
            let several = value.as_array().into_iter().flat_map(|list| list.iter());
            let all = value.as_table().into_iter().chain(several.filter_map(|value| value.get_ref().as_table()));
            all.map(move |table| (name, table))
        });
        let (table, (name, value)) = below.find_map(|(table, keys)| Some((table, keys.get_key_value(key)?)))?;
        self.lifted.borrow_mut().push(name.span().start);
        let message = format!("`{key}` stands below [{table}], and is read as if it stood at the top of this file");
        let problem = Diagnostic::warning(code::MISPLACED_KEY, self.path(), message);
        let help = "move it above the first [table]: TOML puts a key into the table above it";
        self.note(problem.at(self.place(name.span()), "move this up").help(help));
        let (name, span, value) = (name.span(), value.span(), value.get_ref());
        Some(Value { document: self, key: Cow::Borrowed(key), name, span, value })
    }

    fn is_lifted(&self, key: &Range<usize>) -> bool {
        self.lifted.borrow().contains(&key.start)
    }

    /// Where `span` is.
    pub fn place(&self, span: Range<usize>) -> Place {
        self.source.place(span)
    }

    /// Whether an error was noted. Advice about a file that is wrong anyway would be noise.
    pub fn has_errors(&self) -> bool {
        self.found.borrow().iter().any(|problem| problem.severity == Severity::Error)
    }

    /// The file's text.
    pub fn text(&self) -> &'t str {
        self.source.text
    }

    /// The file's path.
    pub fn path(&self) -> &'t TreePath {
        self.source.path
    }

    /// Takes note of a problem.
    pub fn note(&self, problem: Diagnostic) {
        self.found.borrow_mut().push(problem);
    }

    /// What was noted.
    pub fn into_found(self) -> Vec<Diagnostic> {
        self.found.into_inner()
    }
}

fn syntax_help(message: &str) -> &'static str {
    if message.contains("duplicate") {
        "a key and a [table] can be written only once in a file; merge the two"
    } else if message.contains("string") {
        "put text in double quotes, and text of several lines in three of them (\"\"\")"
    } else {
        "a line is `key = value`, `[table]` or `[[list-of-tables]]`; text is in double quotes"
    }
}

/// One table of the file.
pub(super) struct Section<'d, 't> {
    document: &'d Document<'t>,
    title: Cow<'static, str>,
    table: &'d DeTable<'t>,
    header: Range<usize>,
    known: Vec<&'static str>,
}

impl<'d, 't> Section<'d, 't> {
    /// The value of a key.
    pub fn get(&mut self, key: &'static str) -> Option<Value<'d, 't>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        let (name, value) = self.table.get_key_value(key)?;
        let (name, span, value) = (name.span(), value.span(), value.get_ref());
        Some(Value { document: self.document, key: Cow::Borrowed(key), name, span, value })
    }

    /// The value of a key that has to be there; `help` says what to write.
    pub fn require(&mut self, key: &'static str, help: &str) -> Option<Value<'d, 't>> {
        let value = self.get(key);
        if value.is_none() {
            let message = format!("`{key}` is missing from {}", self.title);
            let problem = Diagnostic::error(code::MISSING_KEY, self.document.path(), message).help(help);
            let place = self.document.place(self.header.clone());
            self.document.note(if self.header.is_empty() { problem } else { problem.at(place, "in here") });
        }
        value
    }

    /// A table below this one; absent tables read as nothing.
    pub fn section(&mut self, key: &'static str) -> Option<Section<'d, 't>> {
        self.get(key)?.section(Cow::Owned(format!("[{key}]")))
    }

    /// Whether a table of that name is there, without counting it as known.
    pub fn has_table(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(|value| value.get_ref().is_table())
    }

    /// Counts keys as known whose meaning is open, since another key is wrong.
    pub fn pass_over(&mut self, keys: &[&'static str]) {
        self.known.extend(keys);
    }

    /// All keys with their values, for a table whose keys are names that the author chose.
    pub fn entries(self) -> impl Iterator<Item = (Spanned<&'d str>, Value<'d, 't>)> {
        let document = self.document;
        let mut rows: Vec<_> = self.table.iter().filter(|(key, _)| !document.is_lifted(&key.span())).collect();
        rows.sort_by_key(|(key, _)| key.span().start);
        rows.into_iter().map(move |(key, value)| {
            let text: &'d str = key.get_ref();
            let entry = Cow::Owned(text.to_owned());
            let value = Value { document, key: entry, name: key.span(), span: value.span(), value: value.get_ref() };
            (Spanned::new(key.span(), text), value)
        })
    }

    /// Notes every key that was not asked for. `elsewhere` says of keys that people put here where they belong.
    pub fn finish(self, elsewhere: &[(&str, &str)]) {
        let unknown = self.table.iter().filter(|(key, _)| !self.known.contains(&key.get_ref().as_ref()));
        let unknown = unknown.filter(|(key, _)| !self.document.is_lifted(&key.span()));
        for (key, _) in unknown {
            let name: &str = key.get_ref();
            let at = if self.title == TOP { "at" } else { "in" };
            let message = format!("there is no key `{name}` {at} {}", self.title);
            let problem = Diagnostic::error(code::UNKNOWN_KEY, self.document.path(), message);
            let place = self.document.place(key.span());
            let belongs = elsewhere.iter().find(|(word, _)| *word == name);
            self.document.note(match (belongs, closest(name, self.known.iter().copied())) {
                (Some((_, place_of)), _) => problem.at(place, format!("this belongs elsewhere: {place_of}")),
                (None, Some(near)) => problem.at(place, format!("did you mean `{near}`?")),
                (None, None) => {
                    problem.at(place, "unknown").help(format!("known here are {}", words(self.known.iter().copied())))
                }
            });
        }
    }
}

/// A version, with help for the two ways in which people shorten one.
pub(super) fn read_version(value: &Value<'_, '_>) -> Option<Version> {
    let text = value.text(256)?;
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

/// Names in a sentence: `a`, `b` and `c`.
pub(super) fn words<'w>(names: impl IntoIterator<Item = &'w str>) -> String {
    let mut names: Vec<_> = names.into_iter().map(|name| format!("`{name}`")).collect();
    names.sort_unstable();
    match (names.pop(), names.as_slice()) {
        (None, _) => "none".to_owned(),
        (Some(last), []) => last,
        (Some(last), rest) => format!("{} and {last}", rest.join(", ")),
    }
}

/// The keys that hold a list of tables, and how each is written.
const TABLE_LISTS: [(&str, &str); 3] =
    [("capability", "[[capability]]"), ("schedule", "[[schedule]]"), ("memory", "[[retention.memory]]")];

/// A value with its place.
#[derive(Clone)]
pub(super) struct Value<'d, 't> {
    document: &'d Document<'t>,
    key: Cow<'static, str>,
    name: Range<usize>,
    span: Range<usize>,
    value: &'d DeValue<'t>,
}

impl<'d, 't> Value<'d, 't> {
    /// Where the value is.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// The file that it is in.
    pub fn document(&self) -> &'d Document<'t> {
        self.document
    }

    /// The key that holds it.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Notes a problem with this value.
    pub fn problem(&self, code: &'static str, message: impl Into<String>, label: impl Into<String>) {
        self.document.note(self.diagnostic(code, message).at(self.document.place(self.span()), label));
    }

    /// A problem with the value's file, yet without a place.
    pub fn diagnostic(&self, code: &'static str, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(code, self.document.path(), message)
    }

    /// The value's type, in a sentence.
    pub fn what(&self) -> String {
        match self.value {
            DeValue::Array(_) | DeValue::Integer(_) => format!("this is an {}", self.value.type_str()),
            _ => format!("this is a {}", self.value.type_str()),
        }
    }

    fn wrong_type(&self, wanted: &str, help: Option<String>) {
        let message = format!("`{}` has to be {wanted}", self.key);
        let label = self.what();
        let problem = self.diagnostic(code::WRONG_TYPE, message).at(self.document.place(self.span()), label);
        self.document.note(match help {
            Some(help) => problem.help(help),
            None => problem,
        });
    }

    /// The value as a table, array or scalar, for keys that take several types.
    pub fn kind(&self) -> &'d DeValue<'t> {
        self.value
    }

    /// The value as a table, under a name for messages.
    pub fn section(self, title: Cow<'static, str>) -> Option<Section<'d, 't>> {
        let DeValue::Table(table) = self.value else {
            self.wrong_type("a table", Some(format!("write {title} on a line of its own, and its keys below")));
            return None;
        };
        let header = if self.span.is_empty() { self.name } else { self.span };
        Some(Section { document: self.document, title, table, header, known: Vec::new() })
    }

    /// The items of a list.
    pub fn list(&self) -> Vec<Value<'d, 't>> {
        let DeValue::Array(array) = self.value else {
            let title = TABLE_LISTS.iter().find(|(key, _)| *key == self.key).map(|(_, title)| title);
            let help = match (self.value, title) {
                (DeValue::Table(_), Some(title)) => Some(format!("write it in two brackets, once for each: {title}")),
                (_, Some(title)) => Some(format!("write {title} on a line of its own, and its keys below")),
                (DeValue::String(_), None) => Some(format!("put it in brackets: {} = [\"...\"]", self.key)),
                (_, None) => None,
            };
            self.wrong_type("a list", help);
            return Vec::new();
        };
        let item = |item: &'d Spanned<DeValue<'t>>| Value {
            document: self.document,
            key: self.key.clone(),
            name: self.name.clone(),
            span: item.span(),
            value: item.get_ref(),
        };
        array.iter().map(item).collect()
    }

    /// The items of a list of at most `max`.
    pub fn list_of(&self, max: usize) -> Vec<Value<'d, 't>> {
        let mut items = self.list();
        if items.len() > max {
            let message = format!("`{}` has {} entries, and {max} is the most", self.key, items.len());
            self.problem(code::OUT_OF_RANGE, message, "too many");
            items.truncate(max);
        }
        items
    }

    /// Text, which may be empty.
    pub fn text(&self, bytes_max: usize) -> Option<&'d str> {
        let DeValue::String(text) = self.value else {
            self.wrong_type("text", None);
            return None;
        };
        if text.len() > bytes_max {
            let message = format!("`{}` has {} bytes, and {bytes_max} is the most", self.key, text.len());
            self.problem(code::OUT_OF_RANGE, message, "too long");
            return None;
        }
        Some(text)
    }

    /// Text that says something.
    pub fn some_text(&self, bytes_max: usize) -> Option<&'d str> {
        let text = self.text(bytes_max)?;
        if text.trim().is_empty() {
            self.problem(code::BAD_VALUE, format!("`{}` is empty", self.key), "write something here, or leave it out");
            return None;
        }
        Some(text)
    }

    /// Text that means a `T`.
    pub fn parse<T: FromStr<Err: Display>>(&self, bytes_max: usize) -> Option<T> {
        let text = self.text(bytes_max)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(code::BAD_VALUE, format!("`{}` has a bad value", self.key), error.to_string());
                None
            }
        }
    }

    /// One of some words.
    pub fn choice<T: Copy>(&self, choices: &[(&'static str, T)]) -> Option<T> {
        let text = self.text(usize::MAX)?;
        let chosen = choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if chosen.is_none() {
            let all = || choices.iter().map(|(word, _)| *word);
            let label = match closest(text, all()) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => "not one of them".to_owned(),
            };
            self.problem(code::BAD_VALUE, format!("`{}` has to be one of {}", self.key, words(all())), label);
        }
        chosen
    }

    /// True or false.
    pub fn boolean(&self) -> Option<bool> {
        let DeValue::Boolean(value) = self.value else {
            self.wrong_type("true or false", self.value.as_str().map(|_| "write it without quotes".to_owned()));
            return None;
        };
        Some(*value)
    }

    /// A whole number.
    pub fn integer(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let DeValue::Integer(integer) = self.value else {
            self.wrong_type("a whole number", None);
            return None;
        };
        let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
        let fits = number.and_then(|n| u64::try_from(n).ok()).filter(|n| range.contains(n));
        if fits.is_none() {
            self.out_of_range(&range.start().to_string(), &range.end().to_string());
        }
        fits
    }

    /// A whole number that fits 32 bits.
    pub fn small(&self, range: RangeInclusive<u32>) -> Option<u32> {
        let number = self.integer(u64::from(*range.start())..=u64::from(*range.end()))?;
        u32::try_from(number).ok()
    }

    /// A number, whole or not.
    pub fn number(&self, range: RangeInclusive<f64>) -> Option<f64> {
        let number: Option<f64> = match self.value {
            DeValue::Float(float) => float.as_str().parse().ok(),
            DeValue::Integer(n) => i128::from_str_radix(n.as_str(), n.radix()).ok().map(|n| n as f64),
            _ => {
                self.wrong_type("a number", self.value.as_str().map(|_| "write it without quotes".to_owned()));
                return None;
            }
        };
        let fits = number.filter(|n| range.contains(n));
        if fits.is_none() {
            self.out_of_range(&range.start().to_string(), &range.end().to_string());
        }
        fits
    }

    /// A time, as text with its unit.
    pub fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        if self.value.is_integer() {
            self.wrong_type("a time with its unit", Some(format!("write it like {} = \"30s\"", self.key)));
            return None;
        }
        let text = self.text(64)?;
        match units::parse_duration(text) {
            Ok(time) if range.contains(&time) => return Some(time),
            Ok(_) => {
                let shown = |time: &Duration| format!("\"{}\"", units::format_duration(*time));
                self.out_of_range(&shown(range.start()), &shown(range.end()));
            }
            Err(error) => {
                self.problem(code::BAD_VALUE, format!("`{}` has a bad value", self.key), error.to_string());
            }
        }
        None
    }

    /// A size in bytes: text with its unit, or a number of bytes.
    pub fn bytes(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let bytes = match self.value {
            DeValue::Integer(_) => self.integer(0..=u64::MAX)?,
            _ => match units::parse_bytes(self.text(64)?) {
                Ok(bytes) => bytes,
                Err(error) => {
                    self.problem(code::BAD_VALUE, format!("`{}` has a bad value", self.key), error.to_string());
                    return None;
                }
            },
        };
        if !range.contains(&bytes) {
            let shown = |bytes: &u64| format!("\"{}\"", units::format_bytes(*bytes));
            self.out_of_range(&shown(range.start()), &shown(range.end()));
            return None;
        }
        Some(bytes)
    }

    fn out_of_range(&self, least: &str, most: &str) {
        let message = format!("`{}` has to be between {least} and {most}", self.key);
        self.problem(code::OUT_OF_RANGE, message, "out of range");
    }
}

/// Where a key is in a file, or the item of its list that reads `item`: for problems that show only when the whole
/// workspace is known, long after the file was read.
pub fn locate(text: &str, keys: &[&str], item: Option<&str>) -> Option<Range<usize>> {
    let table = DeTable::parse(text).ok()?;
    let (last, above) = keys.split_last()?;
    let mut at = table.get_ref();
    for key in above {
        at = at.get(*key)?.get_ref().as_table()?;
    }
    let (name, value) = at.get_key_value(*last)?;
    let reads = |value: &Spanned<DeValue<'_>>| value.get_ref().as_str().is_some_and(|text| Some(text) == item);
    let found = match value.get_ref() {
        DeValue::Array(items) => items.iter().find(|value| reads(value)).map(Spanned::span),
        DeValue::String(_) => Some(value.span()),
        _ => None,
    };
    Some(found.unwrap_or(name.span()))
}

/// Notes a value that should have been a secret's name, without showing it.
pub(super) fn note_secret(value: &Value<'_, '_>, message: &str, label: &str) {
    let document = value.document();
    let problem = value.diagnostic(code::SECRET_IN_FILE, message).at(document.place(value.span()), label);
    let help = "files are deployed, kept and shown: put the value into a secret with \"caxton secrets set NAME\"";
    document.note(problem.redacted().help(help));
}
