//! Keys and passwords that somebody wrote into a file: what is deployed is kept, copied and shown.
//!
//! Only what has the shape of a well-known kind of key is found; it is never shown.

use std::ops::Range;

use caxton_proto::diagnostic::{Diagnostic, Source, code};
use caxton_proto::tree::TreePath;

/// The most keys that are reported of one file.
const KEYS_MAX: usize = 10;

/// A kind of key: how it begins, how many characters follow at least, and whose it is.
const KINDS: [(&str, usize, &str); 14] = [
    ("sk-ant-", 24, "Anthropic"),
    ("sk-or-", 24, "OpenRouter"),
    ("sk-proj-", 24, "OpenAI"),
    ("sk-", 32, "OpenAI or a compatible maker"),
    ("AKIA", 16, "AWS"),
    ("ASIA", 16, "AWS"),
    ("AIza", 35, "Google"),
    ("ghp_", 36, "GitHub"),
    ("gho_", 36, "GitHub"),
    ("github_pat_", 36, "GitHub"),
    ("glpat-", 20, "GitLab"),
    ("xoxb-", 24, "Slack"),
    ("xoxp-", 24, "Slack"),
    ("gsk_", 40, "Groq"),
];
/// The line before a private key.
const PRIVATE_KEY: &str = "PRIVATE KEY-----";

/// The keys in a file's text, each with its place and without its content.
pub(super) fn keys(path: &TreePath, text: &str) -> Vec<Diagnostic> {
    let mut found: Vec<(Range<usize>, &str)> = Vec::new();
    for (begin, length, maker) in KINDS {
        for (at, _) in text.match_indices(begin) {
            let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
            let rest = &text[at + begin.len()..];
            let end = rest.find(|c: char| !word(c)).unwrap_or(rest.len());
            let alone = !text[..at].ends_with(word);
            // `sk-learn-...` and the like have no digits, or are words.
            let random =
                rest[..end].chars().any(|c| c.is_ascii_digit()) && rest[..end].chars().any(char::is_alphabetic);
            let span = at..at + begin.len() + end;
            if alone && random && end >= length && !found.iter().any(|(other, _)| other.start == at) {
                found.push((span, maker));
            }
        }
    }
    for (at, _) in text.match_indices(PRIVATE_KEY) {
        let line = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        if text[line..at].contains("-----BEGIN ") {
            found.push((line..at + PRIVATE_KEY.len(), "a private key"));
        }
    }
    found.sort_by_key(|(span, _)| span.start);
    found.truncate(KEYS_MAX);
    let source = Source { path, text };
    let problem = |(span, maker): (Range<usize>, &str)| {
        let message = match maker {
            "a private key" => "this file holds a private key".to_owned(),
            maker => format!("this file holds a key of {maker}"),
        };
        let help = "take it out, and make a new one: files are deployed, kept and shown. A secret is set with `caxton \
                    secrets set NAME` and named as \"secret:NAME\"";
        Diagnostic::error(code::SECRET_IN_FILE, path, message).at(source.place(span), "a key").redacted().help(help)
    };
    found.into_iter().map(problem).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(u32, String)> {
        let path: TreePath = "prompts/x.md".parse().expect("a path");
        let keys = keys(&path, text);
        assert!(
            keys.iter().all(|key| key.place.as_ref().is_some_and(|place| !place.source.contains("a1B2c3"))),
            "{keys:?}"
        );
        keys.into_iter().map(|key| (key.place.expect("a place").line, key.message)).collect()
    }

    #[test]
    fn keys_of_well_known_makers_are_found_and_not_shown() {
        let body = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0";
        for begin in ["sk-ant-", "sk-proj-", "sk-", "AIza", "ghp_", "github_pat_", "glpat-", "gsk_"] {
            let text = format!("You are kind.\nUse {begin}{body}.\n");
            assert_eq!(found(&text).len(), 1, "{begin}");
            assert_eq!(found(&text)[0].0, 2, "{begin}");
        }
        assert_eq!(found("AKIAIOSFODNN7EXAMPLE").len(), 1);
        assert_eq!(found("-----BEGIN RSA PRIVATE KEY-----\nabc\n"), [(1, "this file holds a private key".to_owned())]);
    }

    #[test]
    fn words_and_short_texts_are_no_keys() {
        for text in [
            "the model sk-learn is not a key, nor is sk-12345",
            "a risk-a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0",
            "task-based-work-with-a-very-long-name-of-many-words-in-it",
            "Never show a PRIVATE KEY----- to anybody",
            "AKIA is a prefix",
        ] {
            assert_eq!(found(text), [], "{text}");
        }
    }
}
