//! The last lines that a process wrote and that were no messages: what it complained about before it ended.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Lines that are kept.
const LINES_MAX: usize = 6;
/// Characters of one line.
const LINE_CHARS_MAX: usize = 300;
/// Values of its environment shorter than this are not looked for in what it writes.
const SECRET_BYTES_MIN: usize = 6;

/// The last lines, without the values that the process was given.
pub(super) struct Words {
    hidden: Vec<String>,
    last: Mutex<VecDeque<String>>,
}

impl Words {
    /// None yet. Wherever one of `values` is written, it is not shown.
    pub(super) fn new<'a>(values: impl Iterator<Item = &'a String>) -> Words {
        let mut hidden: Vec<String> = values.filter(|value| value.len() >= SECRET_BYTES_MIN).cloned().collect();
        // The longest first, so that nothing of it is left where a shorter one is part of it.
        hidden.sort_by_key(|value| std::cmp::Reverse(value.len()));
        Words { hidden, last: Mutex::default() }
    }

    /// Keeps a line, and gives it as it may be shown.
    pub(super) fn keep(&self, line: &[u8]) -> String {
        let mut text = String::from_utf8_lossy(line).trim_end().to_owned();
        for value in &self.hidden {
            text = text.replace(value, "[hidden]");
        }
        // A line break or an escape sequence would forge other lines, or play with the operator's terminal.
        let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LINE_CHARS_MAX).collect();
        if !line.trim().is_empty() {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.len() == LINES_MAX {
                last.pop_front();
            }
            last.push_back(line.clone());
        }
        line
    }

    /// The last lines, for an error; nothing when it wrote none.
    pub(super) fn told(&self) -> Option<String> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let lines: Vec<&str> = last.iter().map(String::as_str).collect();
        (!lines.is_empty()).then(|| format!("the last it wrote: {}", lines.join(" | ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_without_secrets() {
        let values = ["short".to_owned(), "a-secret-value".to_owned(), "secret-value".to_owned()];
        let words = Words::new(values.iter());
        assert_eq!(words.told(), None);
        assert_eq!(words.keep(b"with a-secret-value\x1b[31m\n"), "with [hidden] [31m");
        for n in 0..10 {
            words.keep(format!("line {n}\n").as_bytes());
        }
        words.keep(b"\n");
        let told = words.told().unwrap();
        assert_eq!(told, "the last it wrote: line 4 | line 5 | line 6 | line 7 | line 8 | line 9");
        assert_eq!(words.keep("x".repeat(10_000).as_bytes()).chars().count(), LINE_CHARS_MAX);
    }
}
