//! How deployments, changes, people and times read.

use caxton_proto::plan::{Change, ItemChange};

use crate::api::{Author, Deployment, Git};
use crate::cli::output::{BAD, DIM, GOOD, WARN, count, paint};

/// The most lines of changes that are printed; `--json` has them all.
const LINES_MAX: usize = 40;

/// The lines of a plan, each with its sign and a line end.
pub fn changes(items: &[ItemChange], total: u64) -> String {
    let mut out = String::new();
    let shown = items.len().min(LINES_MAX);
    for change in &items[..shown] {
        let (style, sign) = match change.change {
            Change::New => (GOOD, '+'),
            Change::Changed => (WARN, '~'),
            Change::Removed => (BAD, '-'),
        };
        out.push_str(&format!("  {}\n", paint(style, format_args!("{sign} {}", one_line(&change.item.to_string())))));
    }
    let more = total.max(items.len() as u64) - shown as u64;
    if more > 0 {
        out.push_str(&format!("  {}\n", paint(DIM, format_args!("... and {more} more (--json lists them all)"))));
    }
    out
}

/// `2 new, 1 changed, 3 removed`, without what is none.
pub fn counts(items: &[ItemChange]) -> String {
    let number = |change: Change| items.iter().filter(|item| item.change == change).count();
    let parts =
        [(number(Change::New), "new"), (number(Change::Changed), "changed"), (number(Change::Removed), "removed")];
    let parts: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
    parts.join(", ")
}

/// `Ada Lovelace <ada@example.com>`.
pub fn author(author: &Author) -> String {
    let name = if author.name.is_empty() { "someone" } else { &author.name };
    match author.email.as_str() {
        "" => one_line(name),
        email => one_line(&format!("{name} <{email}>")),
    }
}

/// The first eight characters of a commit's name.
pub fn short_commit(commit: &str) -> String {
    commit.chars().take(8).collect()
}

/// `a1b2c3d4 main, with uncommitted changes`.
pub fn git(git: &Git) -> String {
    let commit = short_commit(&git.commit);
    let branch = if git.branch.is_empty() { String::new() } else { format!(" {}", git.branch) };
    one_line(&format!("{commit}{branch}{}", if git.dirty { "*" } else { "" }))
}

/// What a deployment was for, in one line: its message, else what it did.
pub fn purpose(deployment: &Deployment) -> String {
    if !deployment.message.is_empty() {
        return one_line(&deployment.message);
    }
    if let Some(to) = deployment.rollback_to {
        return format!("rollback to {to}");
    }
    let total = deployment.changes_total as usize;
    match deployment.changes.as_slice() {
        [] => "no changes".to_owned(),
        [one] => format!("{} {}", sign(one.change), one_line(&one.item.to_string())),
        all if total <= all.len() => counts(all),
        _ => format!("{total} changes"),
    }
}

fn sign(change: Change) -> char {
    match change {
        Change::New => '+',
        Change::Changed => '~',
        Change::Removed => '-',
    }
}

/// Text from a server or a file as one line that cannot move a terminal's cursor.
pub fn one_line(text: &str) -> String {
    let first = text.lines().next().unwrap_or_default();
    first.chars().filter(|c| !c.is_control()).collect()
}

/// `2026-11-21 01:02:03`, in UTC.
pub fn time(rfc3339: &str) -> String {
    match rfc3339.parse::<jiff::Timestamp>() {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => one_line(rfc3339),
    }
}

/// A length of time in its largest unit, from seconds: `3 minutes`.
pub fn span(seconds: u64) -> String {
    let (amount, unit) = match seconds {
        ..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        86_400.. => (seconds / 86_400, "day"),
    };
    count(amount, unit)
}

/// `3 minutes ago`.
pub fn age(rfc3339: &str) -> String {
    let Ok(time) = rfc3339.parse::<jiff::Timestamp>() else { return one_line(rfc3339) };
    let seconds = crate::time::now().as_second() - time.as_second();
    match u64::try_from(seconds) {
        Ok(seconds @ 5..) => format!("{} ago", span(seconds)),
        Ok(_) | Err(_) => "just now".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use caxton_proto::plan::Item;

    #[test]
    fn a_long_plan_says_how_much_it_leaves_out() {
        let item = |n: usize| ItemChange { item: Item::Agent(format!("a{n}")), change: Change::New };
        let items: Vec<_> = (0..60).map(item).collect();
        let text = anstream::adapter::strip_str(&changes(&items, 1000)).to_string();
        assert_eq!(text.lines().count(), LINES_MAX + 1);
        assert!(text.ends_with("... and 960 more (--json lists them all)\n"), "{text}");
        assert_eq!(counts(&items), "60 new");
    }

    #[test]
    fn text_from_elsewhere_cannot_move_the_cursor() {
        assert_eq!(one_line("a\u{1b}[2Jb\nc"), "a[2Jb");
        assert_eq!(author(&Author { name: String::new(), email: String::new() }), "someone");
    }

    #[test]
    fn times_read_as_people_say_them() {
        assert_eq!(time("2026-11-21T01:02:03Z"), "2026-11-21 01:02:03");
        let ago = |seconds: i64| {
            let then = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() - seconds).expect("a time");
            age(&then.to_string())
        };
        assert_eq!([ago(0), ago(61), ago(7300), ago(90_000)], ["just now", "1 minute ago", "2 hours ago", "1 day ago"]);
    }
}
