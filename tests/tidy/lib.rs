//! Holds the house in shape: imports go down only, every file says what it is, and nothing is committed that should not be.
//!
//! It reads the files that git tracks as text, and what cargo says of the dependencies, so that it runs in a blink.

#![cfg(test)]

mod dependencies;
mod floors;
mod modules;
mod source;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use modules::Crate;

/// A Rust file longer than this is two files.
const FILE_LINES_MAX: usize = 1_000;
/// A committed file larger than this is data that belongs elsewhere.
const FILE_BYTES_MAX: u64 = 768 << 10;

/// A doc comment with fewer words is none.
const DOC_WORDS_MIN: usize = 3;

/// Where such comments are yet: folders that are being rewritten, and those whose comments are shown to people as the help
/// of a command or the description of a field.
const BARE_DOCS: &[&str] = &["node/memory/"];

/// What each crate may use of the others. The order of the rows is the order of the floors.
const MAY_USE: [(&str, &[&str]); 8] = [
    ("caxton-proto", &[]),
    ("caxton-raft", &["caxton-proto"]),
    ("caxton-gossip", &["caxton-proto"]),
    ("caxton-embed", &["caxton-proto"]),
    ("caxton-tools", &["caxton-proto"]),
    ("caxton-memory", &["caxton-proto"]),
    ("caxton-messages", &["caxton-proto"]),
    (
        "caxton",
        &[
            "caxton-proto",
            "caxton-raft",
            "caxton-gossip",
            "caxton-embed",
            "caxton-tools",
            "caxton-memory",
            "caxton-messages",
        ],
    ),
];

/// Where the code of each crate lies.
const SOURCES: [&str; 8] = [
    "proto/src/",
    "raft/src/",
    "gossip/src/",
    "node/embed/src/",
    "node/tools/src/",
    "node/memory/src/",
    "node/messages/src/",
    "node/src/",
];

/// Circles that are there yet, by a module of each, and why. One that is gone fails the check: take it out.
const CIRCLES: &[(&str, &str, &str)] = &[];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every file of the work tree that git tracks or would track.
fn tracked() -> Vec<String> {
    let list = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git runs");
    assert!(list.status.success(), "{}", String::from_utf8_lossy(&list.stderr));
    let files = String::from_utf8(list.stdout).expect("file names are UTF-8");
    files.lines().filter(|file| root().join(file).is_file()).map(str::to_owned).collect()
}

fn text(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn rust_files() -> impl Iterator<Item = String> {
    tracked().into_iter().filter(|file| file.ends_with(".rs"))
}

/// Fails with every problem at once.
fn none(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// What is wrong with what a crate's manifest depends on.
fn crate_problems(file: &str, manifest: &str) -> Vec<String> {
    let allowed: BTreeMap<_, _> = MAY_USE.into_iter().collect();
    let name = manifest.lines().find_map(|line| line.strip_prefix("name = ")).unwrap_or("").trim_matches('"');
    let Some(may_use) = allowed.get(name) else { return Vec::new() };
    let (mut problems, mut table) = (Vec::new(), "");
    for line in manifest.lines() {
        let mut uses = Vec::new();
        if let Some(header) = line.strip_prefix('[') {
            table = header.trim_end_matches(']');
            // `[dependencies.caxton-raft]`
            uses.extend(table.split_once("dependencies.").map(|(_, name)| name));
        } else if table == "dependencies" || table.ends_with(".dependencies") {
            uses.extend(line.split(['.', ' ', '=']).next());
            // `other = { package = "caxton-raft" }`
            uses.extend(line.split_once("package = \"").and_then(|(_, rest)| rest.split('"').next()));
        }
        // Tests and build scripts may use any.
        let shipped = !table.contains("dev-") && !table.contains("build-");
        for uses in uses.into_iter().filter(|uses| shipped && uses.starts_with("caxton") && !may_use.contains(uses)) {
            problems.push(format!("{file}: {name} may not use {uses}: imports go down only"));
        }
    }
    problems
}

#[test]
fn crates_use_only_the_floors_below() {
    let manifests = tracked().into_iter().filter(|file| file.ends_with("Cargo.toml"));
    none(manifests.flat_map(|file| crate_problems(&file, &text(&file))).collect());
}

#[test]
fn a_crate_that_reaches_aside_or_up_is_found_in_every_form() {
    for line in [
        "[dependencies]\ncaxton-gossip.workspace = true",
        "[dependencies]\ncaxton-gossip = { path = \"../gossip\" }",
        "[dependencies]\nrumours = { package = \"caxton-gossip\", path = \"../gossip\" }",
        "[dependencies.caxton-gossip]\nworkspace = true",
        "[target.'cfg(unix)'.dependencies]\ncaxton-gossip.workspace = true",
    ] {
        let found = crate_problems("raft/Cargo.toml", &format!("[package]\nname = \"caxton-raft\"\n\n{line}"));
        assert_eq!(found, ["raft/Cargo.toml: caxton-raft may not use caxton-gossip: imports go down only"], "{line}");
    }
    for fine in ["[dependencies]\ncaxton-proto.workspace = true", "[dev-dependencies]\ncaxton-gossip.workspace = true"]
    {
        assert!(crate_problems("x", &format!("name = \"caxton-raft\"\n{fine}")).is_empty(), "{fine}");
    }
}

/// The code of the crate below `folder`.
fn read(folder: &str) -> Crate {
    let files: Vec<(String, String)> =
        rust_files().filter_map(|file| Some((file.strip_prefix(folder)?.to_owned(), text(&file)))).collect();
    Crate::read(files.iter().map(|(file, text)| (&**file, &**text)))
}

#[test]
fn modules_of_the_node_use_only_the_floors_below() {
    none(floors::problems(&read("node/src/"), &floors::NODE, floors::EXCEPTIONS));
}

#[test]
fn no_modules_of_a_crate_use_each_other_in_a_circle() {
    let (mut problems, mut needed) = (Vec::new(), Vec::new());
    for folder in SOURCES {
        for circle in read(folder).circles() {
            let member = |module: &str| circle.iter().any(|it| it.from.join("::") == module);
            match CIRCLES.iter().position(|(of, module, _)| *of == folder && member(module)) {
                Some(known) => needed.push(known),
                None => {
                    let uses = circle.iter().map(|it| {
                        format!("\n    {folder}{}: {} -> {}", it.place, it.from.join("::"), it.to.join("::"))
                    });
                    problems.push(format!("a circle:{}", uses.collect::<String>()));
                }
            }
        }
    }
    for (at, (folder, module, _)) in CIRCLES.iter().enumerate() {
        if !needed.contains(&at) {
            problems.push(format!("the circle of {folder}{module} is gone: take it out of CIRCLES"));
        }
    }
    none(problems);
}

#[test]
fn dependencies_are_what_deny_toml_allows() {
    let rules = toml::from_str(&text("deny.toml")).expect("deny.toml has licenses.allow and bans.deny");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let told = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    none(dependencies::problems(&rules, &serde_json::from_slice(&told.stdout).expect("JSON of cargo")));
}

#[test]
fn raft_and_storage_types_stay_in_their_crates() {
    let at_home =
        [("openraft", "raft/"), ("chitchat", "gossip/"), ("wasmtime", "node/tools/"), ("candle", "node/embed/")];
    let mut problems = Vec::new();
    for file in rust_files().filter(|file| !file.starts_with("tests/tidy/")) {
        let text = text(&file);
        for (library, home) in at_home {
            if !file.starts_with(home)
                && (text.contains(&format!("{library}::")) || text.contains(&format!("use {library}")))
            {
                problems.push(format!("{file}: uses {library}, whose types do not leave {home}"));
            }
        }
    }
    none(problems);
}

#[test]
fn every_rust_file_says_what_it_is_and_is_not_too_long() {
    let mut problems = Vec::new();
    for file in rust_files() {
        let text = text(&file);
        if !text.starts_with("//! ") {
            problems.push(format!("{file}:1: starts without `//!` and a sentence that says what the file is"));
        }
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            problems.push(format!("{file}: has {lines} lines, and {FILE_LINES_MAX} is the most"));
        }
    }
    none(problems);
}

/// The lines of a file with a doc comment of one or two words, which says no more than the name below it.
fn bare_docs(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut doc: Vec<&str> = Vec::new();
    for (number, line) in text.lines().chain([""]).enumerate() {
        match line.trim_start().strip_prefix("///") {
            Some(words) => doc.push(words),
            None => {
                let words = doc.join(" ");
                if !doc.is_empty() && words.split_whitespace().count() < DOC_WORDS_MIN {
                    found.push((number + 1 - doc.len(), words.trim().to_owned()));
                }
                doc.clear();
            }
        }
    }
    found
}

#[test]
fn a_doc_comment_is_a_sentence_or_is_not_there() {
    let mut problems = Vec::new();
    let shipped = |file: &String| SOURCES.iter().any(|folder| file.starts_with(folder));
    for file in rust_files().filter(shipped).filter(|file| !BARE_DOCS.iter().any(|folder| file.starts_with(folder))) {
        for (line, words) in bare_docs(&text(&file)) {
            problems.push(format!("{file}:{line}: \"{words}\" says no more than the name: a sentence, or nothing"));
        }
    }
    none(problems);
}

#[test]
fn a_doc_comment_of_two_words_is_found() {
    let text = "/// Why.\nA,\n/// The file.\nfile: u8,\n/// The file that is read.\n/// It.\nfile: u8,\n//! It.\n    /// Its name.";
    let found: Vec<_> = bare_docs(text).into_iter().map(|(line, _)| line).collect();
    assert_eq!(found, [1, 3, 9]);
}

#[test]
fn nothing_unfinished_is_committed() {
    let marks = ["todo!(", "unimplemented!(", "FIXME", "XXX", "dbg!("];
    let mut problems = Vec::new();
    for file in rust_files().filter(|file| !file.starts_with("tests/tidy/")) {
        for (number, line) in text(&file).lines().enumerate() {
            for mark in marks.iter().filter(|mark| line.contains(**mark)) {
                problems.push(format!("{file}:{}: `{mark}`: finish it or take it out", number + 1));
            }
        }
    }
    none(problems);
}

#[test]
fn no_large_or_foreign_file_is_committed() {
    let mut problems = Vec::new();
    for file in tracked() {
        let bytes = std::fs::metadata(root().join(&file)).map(|meta| meta.len()).unwrap_or(0);
        if bytes > FILE_BYTES_MAX && file != "Cargo.lock" {
            problems.push(format!("{file}: has {bytes} bytes, and {FILE_BYTES_MAX} is the most for a committed file"));
        }
        let foreign = ["safetensors", "onnx", "gguf", "cwasm", "so", "a", "o", "exe", "whl"];
        if let Some(ending) = foreign.iter().find(|ending| file.ends_with(&format!(".{ending}"))) {
            problems.push(format!("{file}: a .{ending} file is built or fetched, never committed"));
        }
        if file.ends_with(".pb.rs") {
            problems.push(format!("{file}: generated code goes to OUT_DIR"));
        }
    }
    none(problems);
}

#[test]
fn the_top_level_is_the_one_agreed_on() {
    let agreed = [
        "Cargo.toml",
        "Cargo.lock",
        "node",
        "raft",
        "gossip",
        "proto",
        "charts",
        "docker",
        "tests",
        "jepsen",
        "benches",
        "docs",
        "README.md",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "clippy.toml",
        "deny.toml",
        "rust-toolchain.toml",
        "rustfmt.toml",
    ];
    let problems = tracked()
        .into_iter()
        .map(|file| file.split('/').next().unwrap_or(&file).to_owned())
        .filter(|entry| !entry.starts_with('.') && !agreed.contains(&entry.as_str()))
        .map(|entry| format!("{entry}: not one of the top-level entries that the owner fixed"));
    none(problems.collect());
}

#[test]
fn every_link_in_the_docs_leads_somewhere() {
    let mut problems = Vec::new();
    for file in tracked().into_iter().filter(|file| file.ends_with(".md") && !file.contains("/templates/")) {
        let folder = Path::new(&file).parent().unwrap_or(Path::new("")).to_owned();
        for link in text(&file).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or("");
            let outside = target.contains("://") || target.starts_with("mailto:") || target.is_empty();
            if !outside && !root().join(&folder).join(target).exists() {
                problems.push(format!("{file}: links to {target}, which is not there"));
            }
        }
    }
    none(problems);
}

/// What is wrong with a row of the table in docs/SECURITY.md: it names a file, a test of that file, or a scenario that is not
/// there. `read` gives a file's text.
fn threat_problems(row: &str, read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let (Some(threat), Some(shown)) = (row.split('|').nth(1), row.split('|').nth(2)) else { return Vec::new() };
    let mut problems = Vec::new();
    for shown in shown.split(';').map(str::trim) {
        let (place, names) = shown.split_once(": ").unwrap_or((shown, ""));
        let (file, scenario) = (place.trim_matches('`'), place == "jepsen");
        let Some(text) = read(if scenario { "jepsen/src/scenarios.rs" } else { file }) else {
            problems.push(format!("{}: there is no file {file}", threat.trim()));
            continue;
        };
        for name in names.split(',').map(|name| name.trim().trim_matches('`')).filter(|name| !name.is_empty()) {
            let wanted = if scenario { format!("\"{name}\"") } else { format!("fn {name}(") };
            if !text.contains(&wanted) {
                problems.push(format!("{}: {file} has no {name}", threat.trim()));
            }
        }
    }
    problems
}

#[test]
fn what_the_page_on_security_names_as_shown_by_a_test_has_that_test() {
    let page = text("docs/SECURITY.md");
    let table = page.split("## Which test shows it").nth(1).expect("the table");
    let rows: Vec<_> = table.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 10, "the table is not where it was");
    let read = |file: &str| std::fs::read_to_string(root().join(file)).ok();
    none(rows.into_iter().flat_map(|row| threat_problems(row, read)).collect());
}

#[test]
fn a_threat_whose_test_is_gone_is_found() {
    let read = |file: &str| match file {
        "a.rs" => Some("fn it_holds() {}".to_owned()),
        "jepsen/src/scenarios.rs" => Some("\"resize\"".to_owned()),
        _ => None,
    };
    assert!(threat_problems("| t | `a.rs`: it_holds; jepsen: `resize` |", read).is_empty());
    for row in ["| t | `a.rs`: it |", "| t | `b.rs` |", "| t | `a.rs`; jepsen: `strangers` |"] {
        assert_eq!(threat_problems(row, read).len(), 1, "{row}");
    }
}
