//! The picture of a conversation: a sequence diagram, in text for a terminal and in Mermaid's language.

use std::fmt::Write as _;

/// One thing that was said, as a picture shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrow {
    /// Who said it.
    pub from: String,
    /// Who receives it.
    pub to: String,
    /// What it does, and perhaps a few words more.
    pub label: String,
}

/// The most characters of a label, and of a name.
const LABEL_MAX: usize = 60;
/// The fewest characters between two lines of life.
const GAP_MIN: usize = 10;

/// Text that no terminal and no diagram takes for more than text.
fn plain(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(LABEL_MAX).collect()
}

/// Those who speak, in the order in which they first appear.
fn speakers(arrows: &[Arrow]) -> Vec<&str> {
    let mut all: Vec<&str> = Vec::new();
    for name in arrows.iter().flat_map(|arrow| [arrow.from.as_str(), arrow.to.as_str()]) {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}

/// A diagram in Mermaid's language.
pub fn mermaid(arrows: &[Arrow]) -> String {
    let speakers = speakers(arrows);
    let number = |name: &str| speakers.iter().position(|it| *it == name).unwrap_or_default();
    // What has a meaning in Mermaid stands for itself as an entity.
    let safe = |text: &str| plain(text).replace('#', "#35;").replace(';', "#59;").replace("#35#59;", "#35;");
    let mut text = String::from("sequenceDiagram\n");
    for (at, name) in speakers.iter().enumerate() {
        _ = writeln!(text, "    participant p{at} as {}", safe(name));
    }
    for arrow in arrows {
        _ = writeln!(text, "    p{}->>p{}: {}", number(&arrow.from), number(&arrow.to), safe(&arrow.label));
    }
    text
}

/// A diagram for a terminal: a line of life for each, and an arrow a line.
pub fn text(arrows: &[Arrow]) -> String {
    let speakers = speakers(arrows);
    let width = |text: &str| text.chars().count();
    let longest = arrows.iter().map(|arrow| width(&plain(&arrow.label)) + 4);
    let names = speakers.iter().map(|name| width(&plain(name)) + 2);
    let gap = longest.chain(names).max().unwrap_or_default().max(GAP_MIN);
    let lines = || -> Vec<char> {
        let mut line = vec![' '; gap * speakers.len().saturating_sub(1) + 1];
        (0..speakers.len()).for_each(|at| line[at * gap] = '|');
        line
    };
    let mut text = String::new();
    let heading: String = speakers.iter().map(|name| format!("{:<gap$}", plain(name))).collect();
    _ = writeln!(text, "{}", heading.trim_end());
    for arrow in arrows {
        let place = |name: &str| speakers.iter().position(|it| *it == name).unwrap_or_default() * gap;
        let (from, to) = (place(&arrow.from), place(&arrow.to));
        let mut line = lines();
        let label = plain(&arrow.label);
        if from == to {
            let own: String = line[..=from].iter().collect();
            _ = writeln!(text, "{own}<> {label}");
            continue;
        }
        let (left, right) = (from.min(to), from.max(to));
        line[left + 1..right].fill('-');
        line[if to > from { right - 1 } else { left + 1 }] = if to > from { '>' } else { '<' };
        for (at, character) in label.chars().enumerate().take(right.saturating_sub(left + 4)) {
            line[left + 3 + at] = character;
        }
        let line: String = line.into_iter().collect();
        _ = writeln!(text, "{line}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrow(from: &str, to: &str, label: &str) -> Arrow {
        Arrow { from: from.to_owned(), to: to.to_owned(), label: label.to_owned() }
    }

    #[test]
    fn a_conversation_is_drawn_in_text() {
        let drawn = text(&[arrow("ann", "bob", "cfp"), arrow("bob", "ann", "propose"), arrow("ann", "ann", "thinks")]);
        let expected = "ann        bob\n|--cfp---->|\n|<-propose-|\n|<> thinks\n";
        assert_eq!(drawn, expected, "\n{drawn}");
    }

    #[test]
    fn a_conversation_is_drawn_in_mermaid_and_no_text_breaks_it() {
        let drawn = mermaid(&[arrow("ann", "bob", "cfp; end\nx"), arrow("bob", "ann", "a # b")]);
        let expected = "sequenceDiagram\n    participant p0 as ann\n    participant p1 as bob\n    p0->>p1: cfp#59; end x\n    \
            p1->>p0: a #35; b\n";
        assert_eq!(drawn, expected);
        assert_eq!((text(&[]), mermaid(&[])), ("\n".to_owned(), "sequenceDiagram\n".to_owned()));
    }
}
