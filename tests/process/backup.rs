//! The drill: a backup that is checked, damaged, restored; a node that is recovered; a log that was lost and is missed.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::run::{Node, Place, Ran, Random, Workspace, agent, caxton, wait_for};

/// How many bits of an archive are flipped, one at a time.
const FLIPS: u64 = 40;

fn run(place: &Place, args: &[&str]) -> Ran {
    let mut command = caxton(place.dir.path());
    Ran::of(command.current_dir(place.dir.path()).args(args).output().expect("the binary runs"))
}

/// A node with a few deployments, a token, and what the place's `b.tar` has of them.
fn backed_up(place: &Place) -> (Node, Workspace, Value) {
    let workspace = place.workspace("work");
    let node = Node::start(&place.data());
    for n in 0..3 {
        workspace.write("agents/greeter.toml", agent("greeter", &format!("1.0.{n}")));
        workspace.write("prompts/long.md", format!("Line {n} of a long prompt.\n").repeat(9_000));
        workspace.deploy().ok();
    }
    let data = place.data();
    let file = place.dir.path().join("b.tar");
    // By a name alone, as a person types it.
    let made = run(place, &["--data-dir", text(&data), "backup", "b.tar", "--json"]).json();
    assert!(file.exists());
    (node, workspace, made)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn live(place: &Place, data: &Path, name: &str) -> (Value, String) {
    let reader = Workspace { root: place.dir.path().join(name), data: data.to_owned() };
    reader.write("caxton.toml", "[workspace]\nname = \"demo\"\n");
    reader.run(&["pull", "--theirs"]).ok();
    (reader.run(&["log", "--json"]).json(), reader.root_digest())
}

fn cluster_of(data: &Path) -> String {
    let identity = fs::read_to_string(data.join("identity")).expect("an identity");
    identity.lines().find_map(|line| line.strip_prefix("cluster ")).expect("a cluster").to_owned()
}

#[test]
fn a_backup_is_checked_and_becomes_a_cluster_of_its_own() {
    let place = Place::new();
    let (node, workspace, made) = backed_up(&place);
    let file = place.dir.path().join("b.tar");
    assert_eq!(
        (made["workspaces"].as_u64(), made["bytes"].as_u64()),
        (Some(1), Some(fs::metadata(&file).expect("a file").len()))
    );
    assert!(made["artifacts"].as_u64().is_some_and(|artifacts| artifacts >= 6), "{made}");
    let checked = run(&place, &["backup", "verify", text(&file), "--json"]).json();
    assert_eq!(checked, made);
    // Neither the admin token nor any other key is in it in clear.
    let token = fs::read_to_string(place.data().join("admin-token")).expect("a token");
    let archive = fs::read(&file).expect("the archive");
    assert!(
        !archive.windows(40).any(|part| part == &token.trim().as_bytes()[..40]),
        "the admin token is in the archive"
    );
    let again = run(&place, &["--data-dir", text(&place.data()), "backup", text(&file)]);
    assert_eq!(again.code, Some(1), "a backup is not written over: {again:?}");
    // What comes after the backup is not in it.
    workspace.write("agents/greeter.toml", agent("greeter", "2.0.0"));
    let root = {
        let before = live(&place, &place.data(), "before");
        workspace.deploy().ok();
        before
    };
    node.terminate();

    let target = place.dir.path().join("restored");
    let restored = run(&place, &["restore", text(&file), "--data-dir", text(&target), "--json"]).json();
    assert_eq!(restored["cluster"], cluster_of(&target));
    assert_ne!(cluster_of(&target), cluster_of(&place.data()), "a cluster of its own");
    let second = run(&place, &["restore", text(&file), "--data-dir", text(&target)]);
    assert_eq!(second.code, Some(1));
    assert!(second.stderr.contains("is not empty"), "{second:?}");
    let node = Node::start(&target);
    let (log, found) = live(&place, &target, "after");
    assert_eq!(found, root.1);
    assert_eq!(log["deployments"], root.0["deployments"]);
    let status = run(&place, &["--data-dir", text(&target), "cluster", "status", "--json"]).json();
    assert_eq!(status["members"].as_array().map(Vec::len), Some(1), "{status}");
    for group in status["groups"].as_array().expect("groups") {
        assert_eq!(group["voters"].as_array().map(Vec::len), Some(1), "{group}");
    }
    // It goes on: what is deployed now follows what was restored, also after a restart.
    let writer = Workspace { root: workspace.root.clone(), data: target.clone() };
    writer.run(&["pull", "--theirs"]).ok();
    writer.write("agents/greeter.toml", agent("greeter", "3.0.0"));
    assert_eq!(writer.deploy().json()["revision"], 4);
    node.terminate();
    Node::start(&target).terminate();
    let audit = fs::read_to_string(target.join("audit.jsonl")).expect("it is written down");
    assert!(audit.contains("\"restored\"") && audit.contains(&cluster_of(&place.data())), "{audit}");
}

#[test]
fn a_damaged_or_cut_archive_is_refused_and_nothing_is_written() {
    let mut random = Random::seeded("backup");
    let place = Place::new();
    let (node, ..) = backed_up(&place);
    node.terminate();
    let (file, bad, target) =
        (place.dir.path().join("b.tar"), place.dir.path().join("bad.tar"), place.dir.path().join("restored"));
    let key = place.dir.path().join("b.tar.key");
    let whole = fs::read(&file).expect("the archive");
    let refused = |bytes: &[u8], what: &str| {
        fs::write(&bad, bytes).expect("written");
        let ran = run(&place, &["restore", text(&bad), "--key-file", text(&key), "--data-dir", text(&target)]);
        assert_eq!(ran.code, Some(1), "{what}: {ran:?}");
        assert!(ran.stderr.contains(text(&bad)), "{what}: the archive is not named: {}", ran.stderr);
        assert!(!target.exists(), "{what}: something was written");
        ran.stderr
    };
    for _ in 0..FLIPS {
        let bit = random.below(whole.len() as u64 * 8);
        let mut flipped = whole.clone();
        flipped[(bit / 8) as usize] ^= 1 << (bit % 8);
        let said = refused(&flipped, &format!("bit {bit}"));
        assert!(["damaged", "cut off", "not a backup"].iter().any(|word| said.contains(word)), "bit {bit}: {said}");
    }
    // A bit of an artifact is named with its workspace and its digest.
    let at = whole.windows(15).position(|part| part == b"artifacts/demo/").expect("an artifact");
    let mut flipped = whole.clone();
    flipped[at + 512] ^= 1;
    let said = refused(&flipped, "an artifact");
    assert!(said.contains("artifacts/demo/"), "{said}");
    for _ in 0..8 {
        let len = random.below(whole.len() as u64) as usize;
        refused(&whole[..len], &format!("{len} bytes"));
    }
    refused(&[whole.as_slice(), b"!"].concat(), "one byte more");
    let other = place.dir.path().join("other.key");
    fs::write(&other, format!("caxton-recovery-key-1 {}\n", "07".repeat(32))).expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&other, mode).expect("set");
    let ran = run(&place, &["restore", text(&file), "--key-file", text(&other), "--data-dir", text(&target)]);
    assert!(ran.code == Some(1) && ran.stderr.contains("recovery key") && !target.exists(), "{ran:?}");
    run(&place, &["restore", text(&file), "--key-file", text(&key), "--data-dir", text(&target)]).ok();
}

/// The archive with another time at its first artifact, and every check sum as it has to be: whole in itself.
fn edited(archive: &[u8]) -> Vec<u8> {
    const BLOCK: usize = 512;
    let mut edited = archive.to_vec();
    let find = |what: &[u8]| archive.windows(what.len()).position(|part| part == what).expect("it is there");
    let head = find(b"artifacts/demo/");
    edited[head + 146] ^= 1;
    edited[head + 148..head + 156].fill(b' ');
    let sum: u32 = edited[head..head + BLOCK].iter().map(|byte| u32::from(*byte)).sum();
    edited[head + 148..head + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let sums = find(b"# authenticated under the recovery key: ");
    let whole = find(b"# all bytes before this file: ") + b"# all bytes before this file: ".len();
    let digest = caxton_proto::Digest::of(&edited[..sums - BLOCK]);
    let digest: String = digest.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    edited[whole..whole + digest.len()].copy_from_slice(digest.as_bytes());
    edited
}

#[test]
fn an_edited_archive_that_is_whole_in_itself_is_not_restored() {
    let place = Place::new();
    let (node, ..) = backed_up(&place);
    node.terminate();
    let path = |name: &str| place.dir.path().join(name);
    let (file, key, bad, target) = (path("b.tar"), path("b.tar.key"), path("bad.tar"), path("restored"));
    let archive = fs::read(&file).expect("the archive");
    fs::write(&bad, edited(&archive)).expect("written");
    let said = run(&place, &["backup", "verify", text(&bad)]).ok();
    assert!(said.contains("whole"), "who has no key sees nothing: {said}");
    let ran = run(&place, &["backup", "verify", text(&bad), "--key-file", text(&key)]);
    assert!(ran.code == Some(1) && ran.stderr.contains("changed after it was written"), "{ran:?}");
    for more in [&[] as &[&str], &["--unauthenticated"]] {
        let args = ["restore", text(&bad), "--key-file", text(&key), "--data-dir", text(&target)];
        let ran = run(&place, &[&args[..], more].concat());
        assert!(ran.code == Some(1) && ran.stderr.contains("changed after it was written"), "{ran:?}");
        assert!(!target.exists(), "nothing is written");
    }
    let said = run(&place, &["backup", "verify", text(&file), "--key-file", text(&key)]).ok();
    assert!(said.contains("written under this recovery key"), "{said}");
}

#[test]
fn a_node_whose_log_was_lost_does_not_start_as_a_new_cluster() {
    let place = Place::new();
    let workspace = place.workspace("work");
    let node = Node::start(&place.data());
    workspace.deploy().ok();
    node.terminate();
    let (raft, away) = (place.data().join("raft"), place.dir.path().join("away"));
    fs::rename(&raft, &away).expect("moved");
    let refused = Node::refused(&place.data(), &["--bind", "127.0.0.1:0"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for part in [text(&raft), "lost", "caxton restore", "caxton cluster remove"] {
        assert!(refused.stderr.contains(part), "`{part}` is not said: {}", refused.stderr);
    }
    // The folder that the refused start made is nobody's.
    fs::remove_dir_all(&raft).expect("removed");
    fs::rename(&away, &raft).expect("moved");
    let _node = Node::start(&place.data());
    assert_eq!(workspace.run(&["log", "--json"]).json()["deployments"].as_array().map(Vec::len), Some(1));
}

fn member(home: &Path, name: &str) -> PathBuf {
    home.join(name).join("data")
}

#[test]
fn what_one_of_three_has_becomes_a_new_cluster_when_the_others_are_gone() {
    let place = Place::new();
    let home = place.dir.path();
    let timers = [
        ("CAXTON_RAFT_ELECTION_MIN", "600ms"),
        ("CAXTON_RAFT_ELECTION_MAX", "1200ms"),
        ("CAXTON_CLUSTER_BIND", "127.0.0.1:0"),
    ];
    let mut nodes = vec![Node::start_with(&member(home, "one"), &timers)];
    let one = member(home, "one");
    let status = run(&place, &["--data-dir", text(&one), "cluster", "status", "--json"]).json();
    let address = status["peer_address"].as_str().expect("an address").to_owned();
    let token = home.join("join.token");
    fs::write(&token, run(&place, &["--data-dir", text(&one), "cluster", "token", "create", "--uses", "2"]).ok())
        .expect("written");
    for name in ["two", "three"] {
        let env =
            [&timers[..], &[("CAXTON_CLUSTER_JOIN", address.as_str()), ("CAXTON_CLUSTER_TOKEN_FILE", text(&token))]]
                .concat();
        nodes.push(Node::start_with(&member(home, name), &env));
    }
    wait_for("three voters", || {
        let status = run(&place, &["--data-dir", text(&one), "cluster", "status", "--json"]).json();
        let all =
            status["groups"].as_array()?.iter().all(|group| group["voters"].as_array().is_some_and(|it| it.len() == 3));
        all.then_some(())
    });
    let workspace = Workspace { root: home.join("work"), data: one.clone() };
    workspace.write("caxton.toml", "[workspace]\nname = \"demo\"\n");
    workspace.write("agents/greeter.toml", agent("greeter", "1.0.0"));
    workspace.deploy().ok();
    let three = member(home, "three");
    wait_for("the third to serve it", || {
        let reader = Workspace { root: workspace.root.clone(), data: three.clone() };
        (reader.run(&["agents", "list", "--json"]).code == Some(0)).then_some(())
    });
    // A node that runs is left alone.
    let busy = run(&place, &["recover", "--unsafe-new-cluster", "--yes", "--data-dir", text(&three)]);
    assert!(busy.code == Some(1) && busy.stderr.contains("another node uses"), "{busy:?}");
    nodes.into_iter().for_each(Node::kill);

    let before = cluster_of(&three);
    let shown = run(&place, &["recover", "--data-dir", text(&three)]);
    assert!(shown.code == Some(0) && shown.stdout.contains("3 nodes voted"), "{shown:?}");
    let unsure = run(&place, &["recover", "--unsafe-new-cluster", "--data-dir", text(&three)]);
    assert!(
        unsure.code == Some(1) && unsure.stderr.contains("--yes") && unsure.stderr.contains("lost for good"),
        "{unsure:?}"
    );
    assert_eq!(cluster_of(&three), before, "nothing was changed");
    let done = run(&place, &["recover", "--unsafe-new-cluster", "--yes", "--data-dir", text(&three), "--json"]).json();
    assert_eq!(done["cluster"], cluster_of(&three));
    assert_ne!(cluster_of(&three), before);
    let audit = fs::read_to_string(three.join("audit.jsonl")).expect("it is written down");
    assert!(audit.contains("\"recovered\"") && audit.contains(&before), "{audit}");

    let _node = Node::start_with(&three, &timers);
    let reader = Workspace { root: workspace.root.clone(), data: three.clone() };
    assert_eq!(reader.run(&["log", "--json"]).json()["deployments"].as_array().map(Vec::len), Some(1));
    reader.write("agents/greeter.toml", agent("greeter", "1.0.1"));
    reader.deploy().ok();
    // A new node joins the new cluster; the old ones are strangers to it.
    let status = run(&place, &["--data-dir", text(&three), "cluster", "status", "--json"]).json();
    assert_eq!(status["members"].as_array().map(Vec::len), Some(1), "{status}");
    let address = status["peer_address"].as_str().expect("an address").to_owned();
    fs::write(&token, run(&place, &["--data-dir", text(&three), "cluster", "token", "create"]).ok()).expect("written");
    let env = [&timers[..], &[("CAXTON_CLUSTER_JOIN", address.as_str()), ("CAXTON_CLUSTER_TOKEN_FILE", text(&token))]]
        .concat();
    let _four = Node::start_with(&member(home, "four"), &env);
    let reader = Workspace { root: workspace.root, data: member(home, "four") };
    wait_for("the new node to have it all", || {
        let log = reader.run(&["log", "--json"]);
        (log.code == Some(0) && log.json()["deployments"].as_array().map(Vec::len) == Some(2)).then_some(())
    });
}
