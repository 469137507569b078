//! Whose token goes where, whose work a deployment may replace, and where an archive may lie: what a checkout that came
//! from somewhere else must not be able to decide.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};

use crate::run::{DEADLINE, Node, Place, Ran, Workspace, agent, caxton};

/// A server that is none of ours: says 503 to everything, and tells what each request's head was.
fn stranger() -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (heads, heard) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.expect("a connection"));
            let mut head = String::new();
            while reader.read_line(&mut head).is_ok_and(|read| read > 2) {}
            // Nobody listens any more once the test is over.
            _ = heads.send(head.to_ascii_lowercase());
            _ = reader.get_mut().write_all(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    (url, heard)
}

fn with_token(workspace: &Workspace, args: &[&str]) -> Ran {
    let mut command = caxton(&workspace.root);
    command.current_dir(&workspace.root).env("CAXTON_TOKEN", "my-own-token").args(args);
    Ran::of(command.output().expect("the binary runs"))
}

#[test]
fn a_token_goes_to_a_server_of_a_checkout_only_after_its_owner_named_it() {
    let place = Place::new();
    let workspace = place.workspace("work");
    let (url, heard) = stranger();
    workspace.write("caxton.toml", format!("[workspace]\nname = \"demo\"\n\n[server]\nurl = \"{url}\"\n"));
    let refused = with_token(&workspace, &["status"]);
    assert_eq!(refused.code, Some(5), "{refused:#?}");
    assert!(refused.stderr.contains(&url) && refused.stderr.contains("--server"), "{refused:#?}");
    assert!(heard.try_recv().is_err(), "the server was talked to");

    with_token(&workspace, &["status", "--server", &url]);
    assert!(heard.recv_timeout(DEADLINE).expect("a request").contains("bearer my-own-token"));
    while heard.try_recv().is_ok() {}
    with_token(&workspace, &["status"]);
    assert!(heard.recv_timeout(DEADLINE).expect("it was confirmed once").contains("bearer my-own-token"));
}

#[test]
fn the_admin_token_goes_to_the_local_node_and_to_no_other_port() {
    let place = Place::new();
    let node = Node::start(&place.data());
    let workspace = place.workspace("work");
    let (url, heard) = stranger();
    workspace.run(&["status", "--server", &url]);
    let head = heard.recv_timeout(DEADLINE).expect("a request");
    assert!(!head.contains("authorization"), "{head}");
    let port = node.url.rsplit(':').next().expect("a port");
    for same in [node.url.clone(), format!("http://localhost:{port}")] {
        workspace.run(&["log", "--server", &same]).ok();
    }
}

#[test]
fn a_token_for_a_workspace_is_for_that_one_alone() {
    let place = Place::new();
    let _node = Node::start(&place.data());
    let workspace = place.workspace("work");
    let made = workspace.run(&["token", "create", "ci", "--workspace", "demo", "--json"]).json();
    assert_eq!(made["workspaces"], serde_json::json!(["demo"]), "{made}");
    let refused = workspace.run(&["token", "list", "--workspace", "demo"]);
    assert_eq!(refused.code, Some(2), "a flag that changes nothing: {refused:#?}");
    assert!(refused.stderr.contains("--workspace"), "{refused:#?}");
}

#[test]
fn an_archive_is_not_put_where_the_next_commit_takes_it_along() {
    let place = Place::new();
    let _node = Node::start(&place.data());
    let workspace = place.workspace("work");
    let refused = workspace.run(&["backup", "monday.tar"]);
    assert_eq!(refused.code, Some(2), "{refused:#?}");
    assert!(refused.stderr.contains("commit"), "{refused:#?}");
    let outside = place.dir.path().join("monday.tar");
    let key_inside = workspace.run(&["backup", outside.to_str().expect("UTF-8"), "--key-file", "recovery.key"]);
    assert_eq!(key_inside.code, Some(2), "{key_inside:#?}");
    assert!(!workspace.root.join("monday.tar").exists() && !workspace.root.join("recovery.key").exists());
    workspace.run(&["backup", outside.to_str().expect("UTF-8")]).ok();
}

fn git(root: &Path, args: &[&str]) {
    let mut command = Command::new("git");
    command.current_dir(root).args(["-c", "user.name=Ada", "-c", "user.email=ada@example.com"]).args(args);
    let output = command.env("GIT_CONFIG_NOSYSTEM", "1").output().expect("git runs");
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn commit(workspace: &Workspace, what: &str) {
    git(&workspace.root, &["add", "--all"]);
    git(&workspace.root, &["commit", "--quiet", "--message", what]);
}

/// A clone at a commit, as a runner makes one for each job.
fn clone_at(place: &Place, from: &Workspace, name: &str, commit: &str) -> Workspace {
    let root = place.dir.path().join(name);
    let (from, to) = (from.root.to_str().expect("UTF-8"), root.to_str().expect("UTF-8"));
    git(place.dir.path(), &["clone", "--quiet", from, to]);
    git(&root, &["checkout", "--quiet", commit]);
    Workspace { root, data: place.data() }
}

#[test]
fn a_fresh_clone_of_an_older_commit_does_not_take_newer_agents_away() {
    let place = Place::new();
    let _node = Node::start(&place.data());
    let work = place.workspace("work");
    git(&work.root, &["init", "--quiet"]);
    commit(&work, "one agent");
    git(&work.root, &["tag", "one"]);
    work.write("agents/second.toml", agent("second", "1.0.0"));
    commit(&work, "two agents");
    git(&work.root, &["tag", "two"]);
    work.deploy().ok();
    work.write("agents/third.toml", agent("third", "1.0.0"));
    commit(&work, "three agents");

    let older = clone_at(&place, &work, "older", "one");
    let refused = older.run(&["deploy", "--yes"]);
    assert_eq!(refused.code, Some(4), "{refused:#?}");
    for part in ["second", "--replace", "caxton pull"] {
        assert!(refused.stderr.contains(part), "`{part}` is not said: {refused:#?}");
    }
    let live = older.run(&["log", "--json"]).json();
    assert_eq!(live["deployments"].as_array().expect("deployments").len(), 1, "nothing was deployed");

    // What is live is an ancestor: nobody's work is lost.
    let newer = clone_at(&place, &work, "newer", "HEAD");
    assert_eq!(newer.deploy().json()["revision"], 2);
    // Whoever says so may go back.
    let again = older.run(&["deploy", "--yes", "--replace", "--json"]).json();
    assert_eq!(again["revision"], 3);
}
