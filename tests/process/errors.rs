//! What goes wrong before or instead of a deployment: each error says what to do, and has its exit code.

use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use insta::assert_snapshot;
use serde_json::Value;

use crate::run::{Node, Place, caxton};

#[test]
fn what_is_missing_is_named_with_what_to_do() {
    let place = Place::new();
    let workspace = place.workspace("work");
    let nowhere = place.empty_workspace("nowhere");
    std::fs::remove_file(nowhere.root.join("caxton.toml")).expect("removed");
    let no_workspace = nowhere.run(&["deploy"]).shown().replace(place.dir.path().to_str().expect("UTF-8"), "[place]");
    let no_server = workspace.run(&["status", "--server", "http://127.0.0.1:1"]).shown();
    let clear = workspace.run(&["status", "--server", "http://192.0.2.1:7411", "--token-file", "caxton.token"]);
    workspace.write("caxton.token", "secret");
    let clear_text = workspace.run(&["status", "--server", "http://192.0.2.1:7411", "--token-file", "caxton.token"]);
    let not_an_address = workspace.run(&["status", "--server", "localhost"]).shown();
    assert_eq!(clear.code, Some(1), "{clear:?}");
    assert_snapshot!(no_workspace, @r"
    error: there is no caxton.toml in [place]/nowhere or above it
    help: make a workspace here with `caxton init`, or change to one
    [exit 1]
    ");
    let no_server = no_server.lines().filter(|line| !line.contains("because:")).collect::<Vec<_>>().join("\n");
    assert_snapshot!(no_server, @r"
    error: no Caxton server answers at http://127.0.0.1:1
    help: start one with `caxton serve`, or name another with --server URL
    [exit 6]
    ");
    assert_snapshot!(clear_text.shown(), @r"
    error: http://192.0.2.1:7411 is not this machine, and the token would be sent in clear text
    help: write the server's address with https://
    [exit 5]
    ");
    assert_snapshot!(not_an_address, @r"
    error: `localhost` is not an address: write it like http://127.0.0.1:7411
    help: check --server and --ca-file
    [exit 1]
    ");
}

#[test]
fn a_wrong_token_is_refused_and_no_token_too() {
    let place = Place::new();
    let workspace = place.workspace("work");
    let node = Node::start(&place.data());
    workspace.write("wrong.token", "0123456789abcdef");
    for args in [
        &["status", "--token-file", "wrong.token"] as &[&str],
        &["status", "--data-dir", "elsewhere", "--server", &node.url],
    ] {
        let refused = workspace.run(&args[..1]);
        assert_eq!(refused.code, Some(0), "the admin token of the data directory is good: {refused:#?}");
        let mut command = caxton(&workspace.root);
        command.current_dir(&workspace.root).args(args);
        if !args.contains(&"--data-dir") {
            command.arg("--data-dir").arg(place.data());
        }
        let refused = command.output().expect("the binary runs");
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(5), "{said}");
        assert!(said.contains("error:") && said.contains("help:") && said.contains("token"), "{said}");
        assert!(!said.contains("0123456789abcdef"), "the token is printed: {said}");
    }
}

#[test]
fn a_certificate_from_elsewhere_is_refused_before_the_token_is_sent() {
    let place = Place::new();
    let workspace = place.workspace("work");
    let node = Node::start_with(&place.data(), &[("CAXTON_TLS_MODE", "always")]);
    assert!(node.url.starts_with("https://"), "{}", node.url);
    workspace.run(&["deploy", "--yes"]).ok();

    let key = rcgen::KeyPair::generate().expect("a key");
    let mut other = rcgen::CertificateParams::new(vec![]).expect("parameters");
    other.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    workspace.write("other.pem", other.self_signed(&key).expect("a certificate").pem());
    workspace.write("empty.pem", "");
    for command in ["status", "log"] {
        let refused = workspace.run(&[command, "--ca-file", "other.pem"]);
        assert_eq!(refused.code, Some(6), "{refused:?}");
        assert!(refused.stderr.contains("is not trusted") && refused.stderr.contains("--ca-file"), "{refused:?}");
    }
    let no_certificate = workspace.run(&["log", "--ca-file", "empty.pem"]);
    assert!(no_certificate.stderr.contains("holds no PEM certificate"), "{no_certificate:?}");
    let no_file = workspace.run(&["log", "--ca-file", "nowhere.pem"]);
    assert!(no_file.stderr.contains("nowhere.pem cannot be read"), "{no_file:?}");
}

#[test]
fn every_mistake_of_the_files_is_shown_at_once() {
    let place = Place::new();
    let _node = Node::start(&place.data());
    let workspace = place.workspace("work");
    workspace.write("agents/greeter.toml", "[agent]\nname = \"greeter\"\nverion = \"1.0.0\"\n");
    workspace.write("agents/broken.toml", "[agent\n");
    workspace.write("agents/nul.toml", b"name = \"\xff\"\n");
    let refused = workspace.run(&["deploy", "--yes"]);
    assert_eq!(refused.code, Some(3), "{refused:#?}");
    for part in ["agents/greeter.toml:3:1", "did you mean", "agents/broken.toml:1", "agents/nul.toml", "UTF-8", "help:"]
    {
        assert!(refused.stderr.contains(part), "`{part}` is not said:\n{}", refused.stderr);
    }
    let json = workspace.run(&["deploy", "--yes", "--json"]);
    let document: Value = serde_json::from_str(&json.stdout).expect("a document, also for an error");
    assert_eq!(document["error"]["code"], "check_failed");
    assert!(document["error"]["diagnostics"].as_array().is_some_and(|all| all.len() >= 3), "{document:#}");
    assert!(json.stderr.is_empty(), "{}", json.stderr);
    assert!(workspace.run(&["log", "--json"]).json()["deployments"].as_array().is_some_and(Vec::is_empty));
}

#[test]
fn files_that_cannot_be_deployed_are_named() {
    let place = Place::new();
    let _node = Node::start(&place.data());
    let workspace = place.workspace("work");
    std::os::unix::fs::symlink("/etc/hostname", workspace.root.join("agents/out.toml")).expect("a symlink");
    let name = std::ffi::OsStr::from_bytes(b"\xff.md");
    std::fs::create_dir_all(workspace.root.join("prompts")).expect("a folder");
    std::fs::write(workspace.root.join("prompts").join(name), "x").expect("a file");
    let refused = workspace.run(&["deploy", "--yes"]);
    assert_eq!(refused.code, Some(3), "{refused:#?}");
    for part in ["agents/out.toml", "leads out of the workspace", "not UTF-8", "rename the file"] {
        assert!(refused.stderr.contains(part), "`{part}` is not said:\n{}", refused.stderr);
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let place = Place::new();
    let mut child = caxton(place.dir.path())
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut line = String::new();
    BufReader::with_capacity(16, child.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
    let ended = child.wait_with_output().expect("its end");
    assert!(ended.status.success(), "{ended:?}");
    assert!(ended.stderr.is_empty(), "{}", String::from_utf8_lossy(&ended.stderr));
}

#[test]
fn wrong_usage_ends_with_2_and_colours_stay_out_of_pipes() {
    let place = Place::new();
    let workspace = place.workspace("work");
    assert_eq!(workspace.run(&["deploy", "--nonsense"]).code, Some(2));
    assert_eq!(workspace.run(&["log", "-n", "0"]).code, Some(2));
    let plain = workspace.run(&["status", "--server", "http://127.0.0.1:1"]);
    assert!(!plain.shown().contains('\u{1b}'), "{plain:?}");
    let coloured = workspace.run(&["status", "--server", "http://127.0.0.1:1", "--color", "always"]);
    assert!(coloured.stderr.contains('\u{1b}'), "{coloured:?}");
}
