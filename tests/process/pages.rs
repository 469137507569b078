//! The pages that a newcomer follows, typed by their text: every command of README, *Your first agent* and *Call your
//! agents* runs in an empty home, and prints what the page shows. And every link of every page leads somewhere.
//!
//! A block `console` has commands after `$ ` and below each what it prints; a line `...` stands for any lines. With
//! `UPDATE_DOCS=1` the pages get the output of this run.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use regex::Regex;

use crate::run::PROGRAM;

/// What stands between the outputs of two commands.
const MARK: &str = "\u{1}next";

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn page(name: &str) -> String {
    fs::read_to_string(docs().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A command of a page with the lines that it prints there.
#[derive(Debug, PartialEq, Eq)]
pub struct Typed {
    pub command: String,
    pub shown: Vec<String>,
    /// The lines of the page that `shown` are.
    at: std::ops::Range<usize>,
}

/// The commands of all `console` blocks of a page. A here-document belongs to its command.
pub fn typed(text: &str) -> Vec<Typed> {
    let mut all: Vec<Typed> = Vec::new();
    let (mut inside, mut until): (bool, Option<String>) = (false, None);
    for (number, line) in text.lines().enumerate() {
        if let Some(end) = &until {
            let last = all.last_mut().expect("a command");
            let _ = write!(last.command, "\n{line}");
            last.at = number + 1..number + 1;
            if line == end {
                until = None;
            }
            continue;
        }
        match line.strip_prefix("```") {
            Some("console") => inside = true,
            Some(_) => inside = false,
            None if !inside => {}
            None => match line.strip_prefix("$ ") {
                Some(command) => {
                    until = command.split_once("<<'").and_then(|(_, rest)| Some(rest.split_once('\'')?.0.to_owned()));
                    all.push(Typed { command: command.to_owned(), shown: Vec::new(), at: number + 1..number + 1 });
                }
                None => {
                    let last = all.last_mut().expect("a block begins with a command");
                    last.shown.push(line.to_owned());
                    last.at.end = number + 1;
                }
            },
        }
    }
    all
}

/// Types the commands into one shell in an empty home, and gives what each printed.
fn run(commands: &[&str]) -> (Vec<String>, String) {
    let home = tempfile::Builder::new().prefix("caxton-pages-").tempdir().expect("a home");
    let mut script = String::from("set -m\nexport PATH=\"$BIN:$PATH\"\ncd \"$HOME\"\n");
    for command in commands {
        let _ = writeln!(script, "printf '%s\\n' '{MARK}'");
        if command.starts_with("caxton serve") || command.starts_with("caxton server start") {
            let _ = writeln!(script, "{command} > serve.log 2>&1 &");
            script.push_str("for n in $(seq 600); do caxton health > /dev/null 2>&1 && break; sleep 0.1; done\n");
            script.push_str(
                "URL=$(tr -d ' \\n' < ~/.local/share/caxton/server.json | sed 's/.*\"url\":\"\\([^\"]*\\)\".*/\\1/')\n",
            );
        } else {
            // The page has the usual port; here it is a free one.
            let _ = writeln!(script, "{}", command.replace("http://127.0.0.1:7411", "$URL"));
        }
    }
    let _ = writeln!(script, "printf '%s\\n' '{MARK}'\nkill %1 2> /dev/null; wait 2> /dev/null");
    let mut shell = Command::new("bash");
    shell.arg("-c").arg(&script).env_clear().env("HOME", home.path()).env("TERM", "dumb").stdin(Stdio::null());
    shell
        .env("BIN", Path::new(PROGRAM).parent().expect("a folder"))
        .env("PATH", std::env::var_os("PATH").unwrap_or_default());
    shell.env("CAXTON_HTTP_BIND", "127.0.0.1:0").env("GIT_CONFIG_NOSYSTEM", "1");
    shell.env("GIT_AUTHOR_NAME", "Ada Lovelace").env("GIT_AUTHOR_EMAIL", "ada@example.com");
    shell.env("GIT_COMMITTER_NAME", "Ada Lovelace").env("GIT_COMMITTER_EMAIL", "ada@example.com");
    let whole = home.path().join("output");
    let file = fs::File::create(&whole).expect("a file");
    shell.stdout(file.try_clone().expect("a handle")).stderr(file);
    shell.status().expect("bash runs");
    let printed = fs::read_to_string(&whole).expect("UTF-8");
    let log = fs::read_to_string(home.path().join("serve.log")).unwrap_or_default();
    let mut parts: Vec<String> = printed.split(&format!("{MARK}\n")).skip(1).map(str::to_owned).collect();
    parts.truncate(commands.len());
    let home = home.path().display().to_string();
    (parts.into_iter().map(|part| usual(&part.replace(&home, "/home/ada"))).collect(), log)
}

/// Takes out what differs from run to run, and puts what the pages show in its place.
pub fn usual(text: &str) -> String {
    let rules = [
        (r"http://127\.0\.0\.1:\d+", "http://127.0.0.1:7411"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "2026-11-29 09:00:00"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "2026-11-29T09:00:00Z"),
        (r"\d\d:\d\d:\d\d\.\d{3}", "09:00:00.000"),
        (r"just now|\d+ (second|minute)s? ago", "just now"),
        (r"up for \d+ \w+", "up for 2 minutes"),
        (r"[\d.]+ (B|KB|MB) sent", "9.9 KB sent"),
        (r"\b[\d.]+ (us|ms|s)\b", "9 ms"),
        (r#""duration_ms":\d+"#, "\"duration_ms\":9"),
        (r"\(0\.\d\d\)", "(0.77)"),
        (r"0\.\d{4,}", "0.77"),
        (r"deployment \d+\b", "deployment 12"),
        (r"\b[0-9a-f]{32}\.[0-9a-f]+\b", "0199f2c45d6e7a81b2c3d4e5f6071829.1a2b3c4d5e6f"),
        (r"\b[0-9a-f]{32}\b", "0199f2c45d6e7a81b2c3d4e5f6071829"),
        (r"\b[0-9a-f]{64}\b", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (r"commit [0-9a-f]{8}", "commit 1a2b3c4d"),
        (r"caxton-demo-\w+", "caxton-demo-XlH29i"),
        (r"\d+ tokens", "99 tokens"),
        (r"[ \t]+(\n|$)", "$1"),
    ];
    let mut text = text.to_owned();
    for (pattern, with) in rules {
        text = Regex::new(pattern).expect("a pattern").replace_all(&text, with).into_owned();
    }
    text
}

/// A line without what only makes columns line up: that hangs on what was taken out.
fn squeezed(line: &str) -> String {
    Regex::new(" {2,}").expect("a pattern").replace_all(line, "  ").into_owned()
}

/// Whether the lines are those of the page, where `...` stands for any.
pub fn same(page: &[String], printed: &[&str]) -> bool {
    match page.split_first() {
        None => printed.is_empty(),
        Some((line, rest)) if line == "..." => (0..=printed.len()).any(|skip| same(rest, &printed[skip..])),
        Some((line, rest)) => {
            printed.first().is_some_and(|first| squeezed(&usual(line)) == squeezed(first)) && same(rest, &printed[1..])
        }
    }
}

/// Runs a page and compares; or writes what came into the page.
fn follow(name: &str) {
    let text = page(name);
    let typed = typed(&text);
    assert!(!typed.is_empty(), "{name} has no commands");
    let commands: Vec<&str> = typed.iter().map(|typed| typed.command.as_str()).collect();
    let (printed, log) = run(&commands);
    assert_eq!(printed.len(), typed.len(), "{name}: the shell ended early:\n{printed:#?}\n{log}");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        for (typed, printed) in typed.iter().zip(&printed).rev() {
            if !typed.shown.iter().any(|line| line == "...") {
                lines.splice(typed.at.clone(), printed.lines().map(str::to_owned));
            }
        }
        fs::write(docs().join(name), lines.join("\n") + "\n").expect("written");
        return;
    }
    let mut wrong = String::new();
    for (typed, printed) in typed.iter().zip(&printed) {
        let lines: Vec<&str> = printed.lines().collect();
        if !same(&typed.shown, &lines) {
            let _ = writeln!(
                wrong,
                "$ {}\n--- the page\n{}\n--- it prints\n{printed}",
                typed.command,
                typed.shown.join("\n")
            );
        }
    }
    assert!(wrong.is_empty(), "{name} shows what is not printed (UPDATE_DOCS=1 writes it anew):\n{wrong}\n{log}");
}

#[test]
fn your_first_agent_is_what_happens() {
    follow("docs/first-agent.md");
}

#[test]
fn call_your_agents_is_what_happens() {
    follow("docs/call-agents.md");
}

#[test]
fn the_readme_is_what_happens() {
    let text = page("README.md");
    // The demo, as the first screen shows it.
    let (_, demo) = text.split_once("```\nstarted a node in ").expect("the demo's output");
    let (demo, _) = demo.split_once("\n```").expect("its end");
    // What a person does next, up to what needs more machines.
    let (_, next) = text.split_once("```sh\ncaxton serve ").expect("what comes next");
    let (next, _) = next.split_once("\n```").expect("its end");
    let next = format!("caxton serve {next}");
    let mut commands = vec!["caxton demo"];
    commands.extend(next.lines().map(|line| line.split("  #").next().unwrap_or(line).trim()));
    let commands: Vec<String> = commands
        .iter()
        .map(|command| match *command {
            // Nobody is there to be asked.
            "caxton deploy" => "caxton deploy --yes".to_owned(),
            "caxton demo" => "caxton demo 2>&1 | cat".to_owned(),
            command if command.starts_with("caxton rollback") => format!("{command} --yes"),
            command => command.to_owned(),
        })
        .map(|command| if command.starts_with("caxton serve") { command } else { format!("{command} || echo FAILED") })
        .collect();
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    let (printed, log) = run(&commands);
    for (command, printed) in commands.iter().zip(&printed) {
        assert!(!printed.contains("FAILED"), "{command}:\n{printed}\n{log}");
    }
    // Two tools are called at once, and which returns first is chance.
    let shown = format!("started a node in {demo}");
    let mut lines: Vec<String> = printed[0].lines().map(squeezed).collect();
    for line in shown.lines().map(|line| squeezed(&usual(line))) {
        let place = lines.iter().position(|printed| *printed == line);
        lines.remove(place.unwrap_or_else(|| panic!("the README's demo does not print {line:?}:\n{}", printed[0])));
    }
}

#[test]
fn every_link_of_every_page_leads_somewhere() {
    let mut pages = vec![docs().join("README.md"), docs().join("CONTRIBUTING.md"), docs().join("jepsen/README.md")];
    let mut folders = vec![docs().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            match path.extension() {
                _ if path.is_dir() => folders.push(path),
                Some(end) if end == "md" => pages.push(path),
                _ => {}
            }
        }
    }
    let link = Regex::new(r"\]\(([^)\s]+)\)").expect("a pattern");
    let (mut wrong, mut followed) = (Vec::new(), 0);
    for path in &pages {
        let text = fs::read_to_string(path).expect("a page");
        for found in link.captures_iter(&text) {
            let target = &found[1];
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            followed += 1;
            let (file, place) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { path.clone() } else { path.parent().expect("a folder").join(file) };
            if !file.exists() {
                wrong.push(format!("{}: {target} is not there", path.display()));
            } else if !place.is_empty() && !headings(&fs::read_to_string(&file).expect("a page")).contains(place) {
                wrong.push(format!("{}: {target} has no such heading", path.display()));
            }
        }
    }
    assert!(followed > 50, "only {followed} links were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The names of a page's headings, as links write them.
fn headings(text: &str) -> BTreeSet<String> {
    let name = |line: &str| {
        let text = line.trim_start_matches('#').trim().to_lowercase();
        let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>()
    };
    text.lines().filter(|line| line.starts_with('#')).map(name).collect()
}

/// The text of every source file below a folder.
fn sources(folder: &Path, all: &mut String) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("tests.rs") {
            all.push_str(&fs::read_to_string(&path).expect("a file"));
        }
    }
}

#[test]
fn the_operators_page_has_every_metric_and_no_other() {
    let mut code = String::new();
    sources(&docs().join("node/src"), &mut code);
    let made = Regex::new(r#"(?:counter|gauge|histogram)!\(\s*"([a-z_]+)""#).expect("a pattern");
    let made: BTreeSet<String> = made.captures_iter(&code).map(|found| found[1].to_owned()).collect();
    let row = Regex::new(r"(?m)^\| `((?:caxton|process|gen_ai)_[a-z_]+)` \|").expect("a pattern");
    let page = page("docs/operators.md");
    let shown: BTreeSet<String> = row.captures_iter(&page).map(|found| found[1].to_owned()).collect();
    assert!(made.len() > 15, "{made:?}");
    assert_eq!(shown, made);
}
