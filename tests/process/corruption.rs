//! A flipped bit anywhere in the data directory: refused and named, or without any effect; never served.

use std::fs;
use std::path::{Path, PathBuf};

use crate::run::{Node, Place, Random, Workspace, agent};

/// How many bits are flipped, one at a time.
const FLIPS: u64 = 24;

/// Files of the data directory that hold what was deployed.
fn stored_files(data: &Path) -> Vec<PathBuf> {
    let mut folders = vec![data.to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if fs::metadata(&path).is_ok_and(|file| file.len() > 0) && is_content(&path) {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// Not the logs for people, the locks, the address of the running node, and the keys (which are not content).
fn is_content(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let for_people = name.starts_with("LOG") || name.starts_with("OPTIONS");
    let secret = path.components().any(|part| matches!(part.as_os_str().to_str(), Some("tls" | "keys")));
    !for_people && !secret && !matches!(name, "LOCK" | "lock" | "server.json" | "admin-token")
}

fn flip(path: &Path, bit: u64) {
    let mut bytes = fs::read(path).expect("the file");
    bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
    fs::write(path, bytes).expect("written");
}

fn copy(from: &Path, to: &Path) {
    let done = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(done.success());
}

/// A data directory with a few deployments, as a kill left it.
fn prepared(place: &Place) -> (Workspace, String) {
    let workspace = place.workspace("work");
    let node = Node::start(&place.data());
    for n in 0..6 {
        workspace.write("agents/greeter.toml", agent("greeter", &format!("1.0.{n}")));
        workspace.write("prompts/long.md", format!("Line {n} of a long prompt.\n").repeat(3000));
        workspace.deploy().ok();
    }
    node.kill();
    let root = workspace.root_digest();
    (workspace, root)
}

#[test]
fn a_flipped_bit_is_never_served() {
    let mut random = Random::seeded("corruption");
    let place = Place::new();
    let (workspace, root) = prepared(&place);
    let whole = place.dir.path().join("whole");
    copy(&place.data(), &whole);
    let files = stored_files(&whole);
    assert!(files.len() >= 4, "{files:?}");
    let (mut refused, mut unharmed, mut named) = (0, 0, 0);
    for round in 0..FLIPS {
        fs::remove_dir_all(place.data()).expect("removed");
        copy(&whole, &place.data());
        let file = &files[random.below(files.len() as u64) as usize];
        let relative = file.strip_prefix(&whole).expect("below");
        let bit = random.below(fs::metadata(file).expect("the file").len() * 8);
        flip(&place.data().join(relative), bit);
        let what = format!("bit {bit} of {}", relative.display());
        match Node::try_start(&place.data(), &[]) {
            Err(ran) => {
                assert!(ran.code.is_some(), "{what}: the node crashed: {}", ran.stderr);
                assert!(ran.stderr.contains("error") && ran.stderr.contains("backup"), "{what}: {}", ran.stderr);
                let data = place.data().display().to_string();
                assert!(ran.stderr.contains(&data), "{what}: the error does not say where: {}", ran.stderr);
                refused += 1;
            }
            Ok(_node) => match served(&place, &workspace, round) {
                Ok(served) => {
                    assert_eq!(served, root, "{what}: other content is served");
                    unharmed += 1;
                }
                Err(said) => {
                    assert!(said.contains("corrupt") || said.contains("damaged"), "{what}: {said}");
                    named += 1;
                }
            },
        }
    }
    println!("{FLIPS} flips: {refused} refused at the start, {named} refused when read, {unharmed} without effect");
    assert!(refused + named > 0, "no flip was ever noticed");
}

/// The root of what a reader gets, or what the refusal says.
fn served(place: &Place, workspace: &Workspace, round: u64) -> Result<String, String> {
    let log = workspace.run(&["log", "--json"]);
    if log.code != Some(0) {
        return Err(log.shown());
    }
    let log: serde_json::Value = serde_json::from_str(&log.stdout).expect("a document");
    assert_eq!(log["deployments"].as_array().map(Vec::len), Some(6), "the log lost entries without a word");
    let reader = place.empty_workspace(&format!("reader-{round}"));
    let pulled = reader.run(&["pull", "--theirs"]);
    if pulled.code != Some(0) {
        return Err(pulled.shown());
    }
    Ok(reader.root_digest())
}

/// The write-ahead log of the store that holds the deploy log: what a kill leaves is in there.
fn write_ahead_log(data: &Path) -> PathBuf {
    stored_files(data)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|ext| ext == "log") && path.to_string_lossy().contains("raft"))
        .max_by_key(|path| fs::metadata(path).map_or(0, |file| file.len()))
        .expect("a write-ahead log")
}

fn start_is_refused(data: &Path) {
    let Err(refused) = Node::try_start(data, &[]) else { panic!("a damaged log was opened") };
    assert!(refused.code.is_some_and(|code| code != 0), "{refused:#?}");
    for part in ["error", "help", "raft"] {
        assert!(refused.stderr.contains(part), "`{part}` is not said: {}", refused.stderr);
    }
}

#[test]
fn a_flipped_bit_in_the_middle_of_the_log_is_refused_and_named() {
    let place = Place::new();
    let (_workspace, _) = prepared(&place);
    let wal = write_ahead_log(&place.data());
    flip(&wal, fs::metadata(&wal).expect("the file").len() * 4);
    start_is_refused(&place.data());
}

#[test]
fn a_record_whose_length_was_flipped_hides_nothing_behind_it() {
    let place = Place::new();
    let (_workspace, _) = prepared(&place);
    // The high bit of the first record's length: it then seems to reach past the end, as a torn one does.
    flip(&write_ahead_log(&place.data()), 5 * 8 + 7);
    start_is_refused(&place.data());
}
