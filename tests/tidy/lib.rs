//! Holds the house in shape: imports go down only, every file says what it is, and nothing is committed that should not be.
//!
//! It reads the files that git tracks as text, so that it needs no dependency and runs in a blink.

#![cfg(test)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A Rust file longer than this is two files.
const FILE_LINES_MAX: usize = 1_000;
/// A committed file larger than this is data that belongs elsewhere.
const FILE_BYTES_MAX: u64 = 512 << 10;

/// What each crate may use of the others. The order of the rows is the order of the floors.
const MAY_USE: [(&str, &[&str]); 7] = [
    ("caxton-proto", &[]),
    ("caxton-raft", &["caxton-proto"]),
    ("caxton-gossip", &["caxton-proto"]),
    ("caxton-embed", &["caxton-proto"]),
    ("caxton-tools", &["caxton-proto"]),
    ("caxton-memory", &["caxton-proto"]),
    ("caxton", &["caxton-proto", "caxton-raft", "caxton-gossip", "caxton-embed", "caxton-tools", "caxton-memory"]),
];

/// The floors inside `node/src`, from the top: a module may use those of its own floor and below.
const NODE_FLOORS: [&[&str]; 6] = [
    &["main", "lib"],
    &["cli"],
    &["node"],
    &["http"],
    &["invoke", "deploy"],
    // Everything else stands on the ground floor of the node.
    &[],
];

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

#[test]
fn crates_use_only_the_floors_below() {
    let mut problems = Vec::new();
    let allowed: BTreeMap<_, _> = MAY_USE.into_iter().collect();
    for file in tracked().into_iter().filter(|file| file.ends_with("Cargo.toml")) {
        let manifest = text(&file);
        let name = manifest.lines().find_map(|line| line.strip_prefix("name = ")).unwrap_or("").trim_matches('"');
        let Some(may_use) = allowed.get(name) else { continue };
        let mut table = "";
        for line in manifest.lines() {
            if line.starts_with('[') {
                table = line;
            }
            let uses = line.split(['.', ' ', '=']).next().unwrap_or("");
            if table == "[dependencies]" && uses.starts_with("caxton") && !may_use.contains(&uses) {
                problems.push(format!("{file}: {name} may not use {uses}: imports go down only"));
            }
        }
    }
    none(problems);
}

#[test]
fn modules_of_the_node_use_only_the_floors_below() {
    let floor =
        |module: &str| NODE_FLOORS.iter().position(|floor| floor.contains(&module)).unwrap_or(NODE_FLOORS.len() - 1);
    let mut problems = Vec::new();
    for file in rust_files() {
        let Some(inside) = file.strip_prefix("node/src/") else { continue };
        let module = inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs");
        let text = text(&file);
        // Tests may reach up: they drive a module through the parts that a user would use.
        let code = text.split("#[cfg(test)]").next().unwrap_or(&text);
        for (number, line) in code.lines().enumerate() {
            let Some((_, path)) = line.split_once("crate::") else { continue };
            let used = path.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("");
            if !line.trim_start().starts_with("//") && floor(used) < floor(module) {
                problems.push(format!("{file}:{}: `{module}` may not use `{used}`, which is above it", number + 1));
            }
        }
    }
    none(problems);
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
        "LICENSE",
        "clippy.toml",
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
