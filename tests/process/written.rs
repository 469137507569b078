//! Files and commands as the product's first descriptions have them, against a real node.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::run::{Node, Place, Ran, Workspace, caxton, wait_for};

/// Answers with the request as the model got it.
const ECHO: &str = "[[rule]]\nsay = \"{{request}}\"\n";
const SETTINGS: &str =
    "[workspace]\nname = \"demo\"\n[providers.echo]\nkind = \"scripted\"\nscript = \"prompts/echo.toml\"\n";

fn echoing(place: &Place) -> Workspace {
    let workspace = place.empty_workspace("work");
    workspace.write("caxton.toml", SETTINGS);
    workspace.write("prompts/echo.toml", ECHO);
    workspace
}

/// One request with the node's admin token; gives the status and the body.
fn http(node: &Node, place: &Place, method: &str, path: &str, body: &str) -> (u16, Value) {
    let token = std::fs::read_to_string(place.data().join("admin-token")).expect("the token");
    let address = node.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).expect("a connection");
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        token.trim(),
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

#[test]
fn an_agent_with_a_name_for_people_and_parameters_answers() {
    let place = Place::new();
    let node = Node::start(&place.data());
    let workspace = echoing(&place);
    workspace.write(
        "agents/data-analyzer.toml",
        "name = \"DataAnalyzer\"\ncapabilities = [\"data-analysis\"]\n\n[memory]\nscope = \"agent-only\"\n\n[parameters]\n\
         supported_formats = [\"csv\", \"json\"]\nmax_file_size = \"10MB\"\nuser_prompt_template = \"\"\"\n\
         {{request}} ({{parameters.supported_formats}}, {{parameters.max_file_size}}) {{requirements}}|\"\"\"\n",
    );
    let deployed = workspace.run(&["deploy", "--yes"]);
    assert_eq!(deployed.code, Some(0), "{deployed:#?}");
    for part in ["warning[misplaced_key]", "agents/data-analyzer.toml:10:1", "move it above the first [table]"] {
        assert!(deployed.stderr.contains(part), "`{part}` is not said: {}", deployed.stderr);
    }
    assert!(deployed.stdout.contains("no commit; deployment "), "{}", deployed.stdout);
    let agents = workspace.run(&["agents", "list"]).ok();
    assert!(agents.contains("data-analyzer") && agents.contains("DataAnalyzer"), "{agents}");

    let ask = |more: &[&str]| workspace.run(&[&["send", "data-analyzer", "Look", "--quiet"], more].concat());
    assert_eq!(ask(&[]).ok(), "Look (csv, json, 10MB) |\n");
    let given = ask(&["--param", "requirements=one page", "--param", "max_file_size=2", "--param", "tone=dry"]).ok();
    assert_eq!(given, "Look (csv, json, 2) one page|\n\nParameters:\n- tone: dry\n");
    let message = json!({ "text": "Look", "agent": "data-analyzer", "parameters": { "requirements": ["a", 1] } });
    let (status, answer) = http(&node, &place, "POST", "/api/v1/workspaces/demo/messages", &message.to_string());
    assert_eq!((status, answer["text"].as_str()), (200, Some("Look (csv, json, 10MB) a, 1|")), "{answer}");
    let bad = json!({ "text": "Look", "parameters": { "a b": 1, "c": {} } });
    let (status, problem) = http(&node, &place, "POST", "/api/v1/workspaces/demo/messages", &bad.to_string());
    assert_eq!(status, 400, "{problem}");
    let said = problem.to_string();
    assert!(said.contains("a b") && said.contains("`c`"), "{said}");
    let twice = ask(&["--param", "a=1", "--param", "a=2"]);
    assert_eq!(twice.code, Some(2), "{twice:#?}");
    assert_eq!(ask(&["--param", "a"]).code, Some(2));
}

#[test]
fn a_deployment_names_its_commit_and_the_status_says_when_each_agent_came() {
    let place = Place::new();
    let node = Node::start(&place.data());
    let workspace = place.workspace("work");
    let git = |args: &[&str]| {
        let mut git = std::process::Command::new("git");
        git.current_dir(&workspace.root).args(args).env("HOME", place.dir.path()).stdout(Stdio::null());
        assert!(git.status().expect("git runs").success(), "git {args:?}");
    };
    git(&["init", "--quiet", "--initial-branch=main"]);
    git(&["add", "."]);
    git(&["-c", "user.name=Ada", "-c", "user.email=ada@example.com", "commit", "--quiet", "-m", "first"]);
    let first = workspace.deploy().json();
    let commit = first["commit"].as_str().expect("a commit").to_owned();
    assert_eq!(commit.len(), 40);
    assert!(first["deployment_id"].as_u64().is_some(), "{first}");
    workspace.write("agents/second.toml", crate::run::agent("second", "1.0.0"));
    let shown = workspace.run(&["deploy", "--yes"]).ok();
    let named = format!("commit {} main*, with changes that are not committed; deployment ", &commit[..8]);
    assert!(shown.contains(&named), "{shown}");

    let status = workspace.run(&["status", "--json"]).json();
    let came = |at: usize| (status["deployed"][at]["agent"].clone(), status["deployed"][at]["revision"].clone());
    assert_eq!([came(0), came(1)], [("second".into(), 2.into()), ("greeter".into(), 1.into())], "{status}");
    assert_eq!(status["deployed"][1]["commit"], commit);
    let shown = workspace.run(&["status"]).ok();
    assert!(shown.contains("  greeter  r1, ") && shown.contains("  second   r2, "), "{shown}");

    // The other paths of the same.
    let (code, live) = http(&node, &place, "GET", "/api/v1/workspaces/demo/status", "");
    assert_eq!((code, live["revision"].as_u64(), live["agents"].as_u64()), (200, Some(2), Some(2)), "{live}");
    let root = live["deployment"]["root"].clone();
    let again = json!({
        "parent": 2, "root": root, "upserts": [], "removals": [], "author": { "name": "Ada", "email": "" }, "message": "again",
        "idempotency_key": "0123456789abcdef0123456789abcdef", "dry_run": true,
    });
    let (code, answer) = http(&node, &place, "POST", "/api/v1/workspaces/demo/deploy", &again.to_string());
    let (old, other) = http(&node, &place, "POST", "/api/v1/workspaces/demo/deployments", &again.to_string());
    assert_eq!((code, answer["code"].clone()), (old, other["code"].clone()), "{answer}");
}

#[test]
fn init_with_a_name_and_a_template_makes_an_agent_or_a_folder_with_one() {
    let place = Place::new();
    let home = place.dir.path();
    let run = |folder: &std::path::Path, args: &[&str]| {
        Ran::of(caxton(home).current_dir(folder).args(args).output().expect("the binary runs"))
    };
    let words = ["init", "coordinator", "--template", "task-coordinator"];
    run(home, &words).ok();
    let root = home.join("coordinator");
    assert!(root.join("agents/task-coordinator/agent.toml").is_file());
    assert!(root.join("caxton.toml").is_file());

    run(&root, &words).ok();
    let manifest = std::fs::read_to_string(root.join("agents/coordinator/agent.toml")).expect("an agent");
    assert!(manifest.contains("name = \"coordinator\""), "{manifest}");
    assert!(!root.join("coordinator").exists());
    run(&root, &["validate", "--strict"]).ok();

    for words in [vec!["init", "inner"], vec!["init"], vec!["init", "a/b", "--template", "monitor"]] {
        let folder = if words.len() == 1 { root.join("agents") } else { root.clone() };
        let refused = run(&folder, &words);
        assert!(matches!(refused.code, Some(1 | 2)), "{refused:#?}");
        assert!(
            refused.stderr.contains("is a workspace already") || refused.stderr.contains("is one already"),
            "{refused:#?}"
        );
    }
    let outside = run(home, &["init", "coordinator/inner"]);
    assert!(
        outside.stderr.contains("is one already") && outside.stderr.contains("caxton init agent NAME"),
        "{outside:#?}"
    );
    assert!(!root.join("inner").exists());
}

#[test]
fn the_server_is_started_and_asked_by_its_first_names() {
    let place = Place::new();
    let home = place.dir.path();
    let settings = home.join("node.toml");
    std::fs::write(&settings, "[http]\nbind = \"127.0.0.1:0\"\n").expect("a file");
    let log = std::fs::File::create(home.join("serve.log")).expect("a log");
    let mut command = caxton(home);
    command.args(["server", "start", "--data-dir"]).arg(place.data()).env("CAXTON_CONFIG_PATH", &settings);
    let mut child = command.stdout(log.try_clone().expect("a handle")).stderr(log).spawn().expect("the binary runs");
    let workspace = echoing(&place);
    workspace.write("agents/a.toml", "name = \"a\"\ncapabilities = [\"x\"]\n");
    workspace.write("agents/b.toml", "name = \"b\"\ncapabilities = [\"y\"]\n");
    wait_for("the node to be ready", || {
        assert!(child.try_wait().expect("its status").is_none(), "it ended");
        (workspace.run(&["server", "status"]).code == Some(0)).then_some(())
    });
    let status = workspace.run(&["server", "status", "--json"]).json();
    assert_eq!(status["ready"], true, "{status}");
    assert!(
        status["info"]["version"].is_string()
            && status["server"].as_str().is_some_and(|url| url.starts_with("http://127"))
    );
    let cluster = workspace.run(&["status", "--cluster"]).ok();
    assert!(cluster.contains("1 node, 1 voter"), "{cluster}");

    workspace.deploy().ok();
    for agent in ["a", "b"] {
        workspace.run(&["send", agent, "hello", "--quiet"]).ok();
    }
    let of = |agents: &str| {
        let lines = workspace.run(&["logs", "--agents", agents, "--since", "1h", "--json"]).json();
        let lines = lines["lines"].as_array().expect("lines").clone();
        let mut names: Vec<String> =
            lines.iter().map(|line| line["agent"].as_str().unwrap_or("-").to_owned()).collect();
        names.dedup();
        names
    };
    assert_eq!(of("a,b"), ["a", "b"]);
    assert_eq!(of("b"), ["b"]);
    assert_eq!(workspace.run(&["logs", "--agents", "A"]).code, Some(2));

    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM)
        .expect("a signal");
    assert!(child.wait().expect("it ends").success());
    let gone = workspace.run(&["server", "status"]);
    assert_eq!(gone.code, Some(6), "{gone:#?}");
}
