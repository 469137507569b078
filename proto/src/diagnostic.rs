//! What is wrong with a workspace's files, where, and what to do about it; printed the way rustc prints.
//!
//! A diagnostic carries its source line, so that a client can print what the server found. It crosses the wire:
//! fields are added, never renamed, and a reader takes codes that it does not know.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::tree::TreePath;

/// The longest piece of a source line that a diagnostic carries, in characters.
const SOURCE_CHARS_MAX: usize = 160;
/// What is shown before the mark when a longer line is cut, in characters.
const SOURCE_CHARS_BEFORE: usize = 60;

/// The stable names of the problems that this crate finds. Programs may match on them.
pub mod code {
    /// The file is not TOML.
    pub const SYNTAX: &str = "syntax";
    /// A key that nothing reads.
    pub const UNKNOWN_KEY: &str = "unknown_key";
    /// A key in a table that it does not belong to, which is read as it was meant.
    pub const MISPLACED_KEY: &str = "misplaced_key";
    /// A key that has to be there is not.
    pub const MISSING_KEY: &str = "missing_key";
    /// A value of another type than the key takes.
    pub const WRONG_TYPE: &str = "wrong_type";
    /// A value of the right type that means nothing.
    pub const BAD_VALUE: &str = "bad_value";
    /// A number, time or size outside its limits, or a text or list that is too long.
    pub const OUT_OF_RANGE: &str = "out_of_range";
    /// The same name or id twice.
    pub const DUPLICATE: &str = "duplicate";
    /// The name in the file is not the file's own name.
    pub const NAME_MISMATCH: &str = "name_mismatch";
    /// A prompt template with a placeholder that cannot be filled.
    pub const BAD_PROMPT: &str = "bad_prompt";
    /// A secret's value where only its name may be.
    pub const SECRET_IN_FILE: &str = "secret_in_file";
    /// A tool that the workspace does not have.
    pub const UNKNOWN_TOOL: &str = "unknown_tool";
    /// A language model provider that the workspace does not have.
    pub const UNKNOWN_PROVIDER: &str = "unknown_provider";
    /// Providers that fall back on each other in a circle.
    pub const FALLBACK_CYCLE: &str = "fallback_cycle";
    /// A tool's grant that the workspace does not allow.
    pub const GRANT_NOT_ALLOWED: &str = "grant_not_allowed";
    /// A file that another one names is not there.
    pub const MISSING_FILE: &str = "missing_file";
    /// A tool that cannot be loaded: it does not compile, or wants what it is not given.
    pub const TOOL_BROKEN: &str = "tool_broken";
    /// A tool in the place of a language model that has no function `chat`.
    pub const NO_CHAT: &str = "no_chat";
    /// A tool in the place of a memory backend lacks one of the functions that it is asked for.
    pub const NO_BACKEND_FUNCTION: &str = "no_backend_function";
    /// A tool that is a process, on a node whose operator has not switched those on.
    pub const PROCESSES_OFF: &str = "processes_off";
    /// A text file that is not UTF-8.
    pub const NOT_UTF8: &str = "not_utf8";
    /// A file that is too large.
    pub const TOO_LARGE: &str = "too_large";
    /// A file where nothing looks for one.
    pub const UNEXPECTED_FILE: &str = "unexpected_file";
    /// An agent that no message can find by what it can do.
    pub const NO_CAPABILITIES: &str = "no_capabilities";
    /// A workspace without agents.
    pub const NO_AGENTS: &str = "no_agents";
    /// Nobody says which model is to be asked.
    pub const NO_MODEL: &str = "no_model";
    /// Several providers, and agents that name none of them.
    pub const NO_DEFAULT_PROVIDER: &str = "no_default_provider";
    /// A secret, or a variable of the node, that is named and not set.
    pub const NOT_SET: &str = "not_set";
    /// More problems than are reported.
    pub const TOO_MANY_PROBLEMS: &str = "too_many_problems";
}

/// Whether a problem stops a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It stops a deployment.
    Error,
    /// It does not, and someone should look.
    Warning,
}

/// One problem of a file: what is wrong, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Whether it stops a deployment.
    pub severity: Severity,
    /// Its stable name, one of [`code`] or another of the same style.
    pub code: Cow<'static, str>,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// The file, relative to the workspace; not always a [`TreePath`], since a path can itself be the problem.
    pub path: String,
    /// Where in the file; nothing when it is about the file as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// A place in a text file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1, in characters.
    pub column: u32,
    /// The line's text, cut to what matters when it is long.
    pub source: String,
    /// Where in `source` the mark begins, from 0, in characters.
    pub mark: u32,
    /// How many characters are marked, at least 1.
    pub mark_chars: u32,
    /// What stands beside the mark.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
}

/// A file's text, for placing diagnostics in it.
#[derive(Debug, Clone, Copy)]
pub struct Source<'t> {
    /// The file's path in the workspace.
    pub path: &'t TreePath,
    /// The file's whole text, out of which lines are shown.
    pub text: &'t str,
}

impl Source<'_> {
    /// Where the bytes `span` are. A span that is off (past the end, inside a character) is moved to what is nearest.
    pub fn place(&self, span: Range<usize>) -> Place {
        let floor = |at: usize| self.text.floor_char_boundary(at);
        let start = floor(span.start);
        let line_start = self.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |at| start + at);
        let whole = self.text[line_start..line_end].trim_end_matches('\r');
        let before = self.text[line_start..start].chars().count();
        let marked = self.text[start..floor(span.end).clamp(start, line_end)].chars().count().max(1);
        let line = self.text[..line_start].matches('\n').count() + 1;
        let (source, mark) = cut(whole, before);
        let room = source.chars().count().saturating_sub(mark).max(1);
        let place = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Place {
            line: place(line),
            column: place(before + 1),
            source,
            mark: place(mark),
            mark_chars: place(marked.min(room)),
            label: String::new(),
        }
    }
}

/// The part of a line that matters, and where in it the character `at` of the line is.
fn cut(line: &str, at: usize) -> (String, usize) {
    if line.chars().count() <= SOURCE_CHARS_MAX {
        return (line.to_owned(), at);
    }
    let skip = at.saturating_sub(SOURCE_CHARS_BEFORE);
    let dots = if skip > 0 { "..." } else { "" };
    let part: String = line.chars().skip(skip).take(SOURCE_CHARS_MAX).collect();
    (format!("{dots}{part}"), at - skip + dots.len())
}

/// Whether text is coloured for a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Color {
    /// Plain text, without escape sequences.
    Never,
    /// With ANSI escapes.
    Always,
}

impl Diagnostic {
    /// A problem with the file as a whole that stops a deployment.
    pub fn error(code: &'static str, path: impl ToString, message: impl Into<String>) -> Diagnostic {
        let (code, path, message) = (Cow::Borrowed(code), path.to_string(), message.into());
        Diagnostic { severity: Severity::Error, code, message, path, place: None, help: None }
    }

    /// As [`Diagnostic::error`], for a problem that does not stop it.
    pub fn warning(code: &'static str, path: impl ToString, message: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(code, path, message) }
    }

    /// Says where in the file, and what stands beside the mark there.
    #[must_use]
    pub fn at(mut self, place: Place, label: impl Into<String>) -> Diagnostic {
        self.place = Some(Place { label: label.into(), ..place });
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help = Some(help.into());
        self
    }

    /// Hides the marked text: the value of a secret must not reach a terminal or a log.
    #[must_use]
    pub fn redacted(mut self) -> Diagnostic {
        if let Some(place) = &mut self.place {
            let marked = place.mark as usize..(place.mark + place.mark_chars) as usize;
            let hide = |(at, c)| if marked.contains(&at) { '*' } else { c };
            place.source = place.source.chars().enumerate().map(hide).collect();
        }
        self
    }

    /// The problem as rustc would print it, over several lines, the last of which ends.
    pub fn render(&self, color: Color) -> String {
        let paint = |style: &str, text: &str| match color {
            Color::Never => text.to_owned(),
            Color::Always => format!("\x1b[{style}m{text}\x1b[0m"),
        };
        let (word, style) = match self.severity {
            Severity::Error => ("error", RED),
            Severity::Warning => ("warning", YELLOW),
        };
        let head = paint(style, &format!("{word}[{}]", printable(&self.code)));
        let mut out = format!("{head}{}\n", paint(BOLD, &format!(": {}", printable(&self.message))));
        let path = printable(&self.path);
        let mut gutter = 1;
        if let Some(place) = &self.place {
            let line = place.line.to_string();
            gutter = line.len();
            let (bar, pad) = (paint(BLUE, "|"), " ".repeat(gutter));
            let (source, before, marks) = underline(place);
            let label = printable(&place.label);
            let marks = paint(style, format!("{} {label}", "^".repeat(marks)).trim_end());
            let _ = writeln!(out, "{pad}{} {path}:{line}:{}", paint(BLUE, "-->"), place.column);
            let _ = writeln!(out, "{pad} {bar}");
            let _ = writeln!(out, "{} {bar} {}", paint(BLUE, &line), source.trim_end());
            let _ = writeln!(out, "{pad} {bar} {}{marks}", " ".repeat(before));
        } else {
            let _ = writeln!(out, " {} {path}", paint(BLUE, "-->"));
        }
        if let Some(help) = &self.help {
            let pad = " ".repeat(gutter);
            let _ = writeln!(out, "{pad} {}", paint(BLUE, "|"));
            let indent = format!("\n{pad}         ");
            let help = help.lines().map(printable).collect::<Vec<_>>().join(&indent);
            let _ = writeln!(out, "{pad} {} {} {help}", paint(BLUE, "="), paint(BOLD, "help:"));
        }
        out
    }
}

const RED: &str = "1;31";
const YELLOW: &str = "1;33";
const BLUE: &str = "1;34";
const BOLD: &str = "1";
const TAB: usize = 4;

/// Text of a file or a request as a terminal may safely show it: no control characters.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The source line with its tabs widened, and the terminal columns before and under the mark.
fn underline(place: &Place) -> (String, usize, usize) {
    let (mut source, mut before, mut marks) = (String::new(), 0, 0);
    let (start, end) = (place.mark as usize, place.mark as usize + place.mark_chars as usize);
    for (at, c) in place.source.chars().enumerate() {
        let wide = columns(c);
        if at < start {
            before += wide;
        } else if at < end {
            marks += wide;
        }
        match c {
            '\t' => source.push_str(&" ".repeat(TAB)),
            c if c.is_control() => source.push('\u{fffd}'),
            c => source.push(c),
        }
    }
    (source, before, marks.max(1))
}

/// How many terminal columns a character takes (roughly Unicode's East Asian Width).
fn columns(c: char) -> usize {
    match u32::from(c) {
        0x9 => TAB,
        0x300..=0x36f | 0x200b..=0x200f | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f => 2,
        0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x1f300..=0x1faff | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// Puts problems in the order in which a person goes through them: by file, then from top to bottom.
pub fn sort(diagnostics: &mut [Diagnostic]) {
    let key = |d: &Diagnostic| (d.place.as_ref().map_or((0, 0), |p| (p.line, p.column)), d.severity);
    diagnostics.sort_by(|a, b| a.path.cmp(&b.path).then_with(|| key(a).cmp(&key(b))));
}

/// How many problems there are, in words: `2 errors and 1 warning in 2 files`.
pub fn count(diagnostics: &[Diagnostic]) -> String {
    let some = |n: usize, what: &str| match n {
        0 => None,
        1 => Some(format!("1 {what}")),
        n => Some(format!("{n} {what}s")),
    };
    let errors = diagnostics.iter().filter(|d| d.severity == Severity::Error).count();
    let mut files: Vec<&str> = diagnostics.iter().map(|d| d.path.as_str()).collect();
    files.sort_unstable();
    files.dedup();
    let kinds: Vec<_> =
        [some(errors, "error"), some(diagnostics.len() - errors, "warning")].into_iter().flatten().collect();
    match some(files.len(), "file") {
        Some(files) => format!("{} in {files}", kinds.join(" and ")),
        None => "no problems".to_owned(),
    }
}

/// All problems, a blank line after each, and how many there are.
pub fn render_all(diagnostics: &[Diagnostic], color: Color) -> String {
    let mut out = String::new();
    for diagnostic in diagnostics {
        out.push_str(&diagnostic.render(color));
        out.push('\n');
    }
    out.push_str(&count(diagnostics));
    out.push('\n');
    out
}

/// The candidate that `word` was probably meant to be: near in spelling, or equal but for case and punctuation.
pub fn closest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let plain = |text: &str| -> String {
        text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).take(64).collect()
    };
    let word = plain(word);
    let distance = |candidate: &'c str| (strsim::damerau_levenshtein(&word, &plain(candidate)), candidate);
    let (distance, best) = candidates.into_iter().map(distance).min()?;
    let near = distance == 0 || (distance <= (word.chars().count().max(3) / 3).min(3));
    near.then_some(best)
}
