//! Reads Rust as text: what of a file is code that is shipped, and which paths it names.
//!
//! No parser: a scanner that knows comments, strings, `#[cfg(test)]` and `use` trees, which is all that the checks need.

use std::collections::BTreeSet;

/// A path that code names, such as `crate::peers::Book`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its segments, `crate` and `super` included.
    pub segments: Vec<String>,
    /// The line it is on, from 1.
    pub line: usize,
    /// Whether a `pub use` names it, under the last segment or this name.
    pub exported_as: Option<String>,
    /// What a `use` calls it in this file.
    pub used_as: Option<String>,
}

/// The text with comments, literals and all that is only there for tests blanked out. Lines stay where they are.
pub fn shipped(text: &str) -> String {
    without_tests(&without_literals(text))
}

/// The text with comments and literals blanked out.
pub fn without_literals(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let blank = |out: &mut Vec<u8>, from: usize, to: usize| {
        for byte in &mut out[from..to.min(bytes.len())] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
    };
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let end = if rest.starts_with(b"//") {
            at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            at + block_comment(rest)
        } else if let Some(hashes) = raw_string(bytes, at) {
            let close = [&b"\""[..], &b"#".repeat(hashes)].concat();
            let open = rest.iter().position(|byte| *byte == b'"').unwrap_or(0) + 1;
            at + open + find(&rest[open..], &close).map_or(rest.len() - open, |found| found + close.len())
        } else if rest[0] == b'"' {
            at + quoted(rest, b'"')
        } else if rest[0] == b'\'' && is_char(rest) {
            at + quoted(rest, b'\'')
        } else {
            at += 1;
            continue;
        };
        blank(&mut out, at, end);
        at = end;
    }
    // Only whole characters were blanked, each byte by a blank.
    String::from_utf8(out).expect("blanking keeps UTF-8")
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

fn block_comment(text: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        if text[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// The number of `#` of a raw string that begins here.
fn raw_string(bytes: &[u8], at: usize) -> Option<usize> {
    let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    if at > 0 && word(&bytes[at - 1]) {
        return None;
    }
    let rest = &bytes[at..];
    let rest = rest.strip_prefix(b"b").or(rest.strip_prefix(b"c")).unwrap_or(rest).strip_prefix(b"r")?;
    let hashes = rest.iter().take_while(|byte| **byte == b'#').count();
    (rest.get(hashes) == Some(&b'"')).then_some(hashes)
}

/// Whether a quote begins a character and not a lifetime.
fn is_char(text: &[u8]) -> bool {
    let Some(first) = text.get(1) else { return false };
    if *first == b'\\' {
        return true;
    }
    let bytes = match first {
        0x00..=0x7f => 1,
        0x80..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xff => 4,
    };
    text.get(1 + bytes) == Some(&b'\'')
}

fn quoted(text: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < text.len() {
        match text[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

const TEST: &str = "#[cfg(test)]";

/// Blanks out every item that is only there for tests, and leaves what follows it.
fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    let mut from = 0;
    while let Some(found) = out[from..].find(TEST) {
        let (start, end) = (from + found, item_end(&out, from + found + TEST.len()));
        let blank: String = out[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(start..end, &blank);
        from = start;
    }
    out
}

/// Where the item ends that begins at `from`: at a `;`, or a `,` of a list, outside of all brackets, or where its braces
/// close.
fn item_end(code: &str, from: usize) -> usize {
    let mut depth = 0_i32;
    let mut attribute = 0;
    for (at, c) in code[from..].char_indices() {
        let at = from + at;
        match c {
            // Further attributes of the same item.
            '[' if depth == 0 && code[..at].ends_with('#') => attribute += 1,
            ']' if attribute > 0 && depth == 0 => attribute -= 1,
            _ if attribute > 0 => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' => depth -= 1,
            '}' => {
                depth -= 1;
                if depth <= 0 {
                    return at + usize::from(depth == 0);
                }
            }
            ';' | ',' if depth == 0 => return at + 1,
            _ => {}
        }
        if depth < 0 {
            return at;
        }
    }
    code.len()
}

/// The modules that a file declares for tests alone: those, and all below them, are test code.
pub fn test_modules(text: &str) -> BTreeSet<String> {
    let code = without_literals(text);
    let mut modules = BTreeSet::new();
    for (at, _) in code.match_indices(TEST) {
        let end = item_end(&code, at + TEST.len());
        // Literals are blank in the code, and a `#[path = ".."]` is one.
        let (item, whole) = (&code[at + TEST.len()..end], &text[at + TEST.len()..end]);
        let path = whole.split("#[path").nth(1).and_then(|rest| rest.split('"').nth(1));
        let words: Vec<&str> = item.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        let name = words.iter().position(|word| *word == "mod").and_then(|at| words.get(at + 1));
        if let (Some(name), true) = (name, item.trim_end().ends_with(';')) {
            modules.insert(path.map_or(*name, |path| path.trim_end_matches(".rs")).to_owned());
        }
    }
    modules
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Colons,
    Mark(char),
}

fn tokens(code: &str) -> Vec<(Token<'_>, usize)> {
    let (mut tokens, mut line, mut at) = (Vec::new(), 1, 0);
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    while let Some(c) = code[at..].chars().next() {
        if is_word(c) {
            let end = code[at..].find(|c| !is_word(c)).map_or(code.len(), |end| at + end);
            tokens.push((Token::Word(&code[at..end]), line));
            at = end;
            continue;
        }
        match c {
            '\n' => line += 1,
            ':' if code[at..].starts_with("::") => {
                tokens.push((Token::Colons, line));
                at += 2;
                continue;
            }
            c if c.is_whitespace() => {}
            c => tokens.push((Token::Mark(c), line)),
        }
        at += c.len_utf8();
    }
    tokens
}

/// Every path of the code that begins with `crate`, `self` or `super`, and all that a `use` names.
pub fn named(code: &str) -> Vec<Named> {
    let tokens = tokens(code);
    let (mut found, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        let before = |back: usize| at.checked_sub(back).and_then(|at| tokens.get(at)).map(|it| it.0);
        match tokens[at].0 {
            Token::Word("use") => {
                // `pub use`, `pub(crate) use`
                let exported = before(1) == Some(Token::Word("pub")) || before(1) == Some(Token::Mark(')'));
                at = tree(&tokens, at + 1, &[], exported, true, &mut found);
            }
            Token::Word("crate" | "self" | "super")
                if tokens.get(at + 1).map(|it| it.0) == Some(Token::Colons) && before(1) != Some(Token::Colons) =>
            {
                at = tree(&tokens, at, &[], false, false, &mut found);
            }
            Token::Word(_) | Token::Colons | Token::Mark(_) => at += 1,
        }
    }
    found
}

/// Reads one path, or a tree of them, and says where it ends.
fn tree(
    tokens: &[(Token<'_>, usize)],
    mut at: usize,
    prefix: &[String],
    exported: bool,
    used: bool,
    found: &mut Vec<Named>,
) -> usize {
    let mut segments = prefix.to_vec();
    let line = tokens.get(at).map_or(0, |it| it.1);
    loop {
        match tokens.get(at).map(|it| it.0) {
            Some(Token::Word(word)) => {
                segments.push(word.to_owned());
                at += 1;
            }
            Some(Token::Mark('*')) if used => {
                segments.push("*".to_owned());
                at += 1;
                break;
            }
            Some(Token::Mark('{')) if used => {
                at += 1;
                while !matches!(tokens.get(at).map(|it| it.0), None | Some(Token::Mark('}'))) {
                    let next = tree(tokens, at, &segments, exported, used, found);
                    // A comma, or something that cannot be there: go on behind it in any case.
                    at =
                        if matches!(tokens.get(next).map(|it| it.0), Some(Token::Mark('}'))) { next } else { next + 1 };
                }
                return at + 1;
            }
            _ => break,
        }
        match tokens.get(at).map(|it| it.0) {
            Some(Token::Colons) => at += 1,
            _ => break,
        }
    }
    let mut name = segments.last().cloned();
    if name.as_deref() == Some("self") && segments.len() > 1 {
        segments.pop();
        name = segments.last().cloned();
    }
    if used && let Some((Token::Word("as"), _)) = tokens.get(at) {
        if let Some((Token::Word(word), _)) = tokens.get(at + 1) {
            name = Some((*word).to_owned());
        }
        at += 2;
    }
    let exported_as = name.clone().filter(|_| exported);
    found.push(Named { segments, line, exported_as, used_as: name.filter(|_| used) });
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(code: &str) -> Vec<String> {
        named(&shipped(code)).iter().map(|named| format!("{}: {}", named.line, named.segments.join("::"))).collect()
    }

    #[test]
    fn every_path_on_a_line_and_in_a_group_is_seen() {
        let code = "use crate::{a::B, c::{self, d::E}, f as g};\nlet x = crate::h::i(crate::j::K, super::super::l());";
        assert_eq!(
            paths(code),
            [
                "1: crate::a::B",
                "1: crate::c",
                "1: crate::c::d::E",
                "1: crate::f",
                "2: crate::h::i",
                "2: crate::j::K",
                "2: super::super::l"
            ]
        );
    }

    #[test]
    fn comments_and_literals_name_nothing() {
        let code = "// crate::a\n/* crate::b /* */ crate::c */ let s = \"crate::d\"; let r = r#\"crate::e\"\"#; let c = '\"'; let l: &'static str = crate::f;";
        assert_eq!(paths(code), ["2: crate::f"]);
    }

    #[test]
    fn tests_are_left_out_and_what_follows_them_is_not() {
        let code = "#[cfg(test)]\nuse crate::a;\nfn f() { crate::b::c(); }\n#[cfg(test)]\nmod tests {\n    use crate::d;\n}\nuse crate::e;\n#[cfg(test)]\n#[path = \"x_tests.rs\"]\nmod tests;\nuse crate::f;\nstruct S {\n    #[cfg(test)]\n    field: crate::g::H,\n    other: crate::i::J,\n}\n#[cfg(test)]\npub fn t(x: [u8; 2]) -> crate::k::L { crate::m::n() }\nfn z() { crate::o::p() }";
        assert_eq!(
            paths(code),
            ["3: crate::b::c", "8: crate::e", "12: crate::f", "16: crate::i::J", "20: crate::o::p"]
        );
        assert_eq!(test_modules(code), BTreeSet::from(["x_tests".to_owned()]));
        assert_eq!(test_modules("#[cfg(test)]\nmod simulation;"), BTreeSet::from(["simulation".to_owned()]));
    }

    #[test]
    fn what_a_module_hands_on_is_told_from_what_it_uses() {
        let found = named(&shipped("pub use admission::{Copied, Other as Named};\nuse book::Book;"));
        let exported: Vec<_> = found.iter().map(|named| named.exported_as.as_deref()).collect();
        assert_eq!(exported, [Some("Copied"), Some("Named"), None]);
    }
}
