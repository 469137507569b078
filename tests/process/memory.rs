//! `caxton memory` as a person types it, what a node remembers after it was killed, and the demo, whose agents remember.

use serde_json::Value;

use crate::run::{Node, Place, caxton};

#[test]
fn a_person_keeps_finds_changes_and_forgets_and_carries_it_elsewhere() {
    let place = Place::new();
    let workspace = place.workspace("work");
    let node = Node::start(&place.data());
    let empty = workspace.run(&["memory", "list"]).ok();
    assert!(empty.contains("caxton memory add"), "{empty}");
    let kept = workspace.run(&["memory", "add", "Ann lives in Paris", "--name", "home", "--since", "2024-01-01"]).ok();
    let id = kept.split_whitespace().last().expect("an id").to_owned();
    let moved = workspace.run(&["memory", "add", "Ann lives in Rome", "--name", "home", "--since", "2025-06-01"]).ok();
    assert!(moved.contains(&format!("true no longer: {id}")), "{moved}");
    let again = workspace.run(&["memory", "add", "ann lives in  rome", "--name", "home"]).ok();
    assert!(again.contains("known before"), "{again}");
    let best = |args: &[&str]| {
        let found = workspace.run(&[&["memory", "search", "where does Ann live?", "--json"], args].concat()).json();
        found["hits"][0]["memory"]["text"].as_str().map(str::to_owned)
    };
    assert_eq!(best(&[]).as_deref(), Some("Ann lives in Rome"));
    assert_eq!(best(&["--as-of", "2024-12-31"]).as_deref(), Some("Ann lives in Paris"));
    let explained = workspace.run(&["memory", "search", "Ann", "--explain"]).ok();
    assert!(explained.contains("words 0.") && explained.contains("subject:admin"), "{explained}");
    let edited =
        workspace.run(&["memory", "edit", &id, "--text", "Ann lived in Paris", "--metadata", "{\"of\":1}"]).ok();
    assert!(edited.contains("edit 1"), "{edited}");
    let shown = workspace.run(&["memory", "show", &id]).ok();
    assert!(shown.contains("Ann lived in Paris") && shown.contains("before edit 1 by admin"), "{shown}");
    workspace.run(&["memory", "edit", &id, "--undo"]).ok();
    workspace.run(&["memory", "relate", "Ann", "works for", "Acme"]).ok();
    let graph = workspace.run(&["memory", "graph", "Ann"]).ok();
    assert!(graph.contains("Ann -- works for --> Acme"), "{graph}");
    let stats = workspace.run(&["memory", "stats", "--json"]).json();
    assert_eq!((stats["scopes"][0]["memories"].as_u64(), stats["scopes"][0]["entities"].as_u64()), (Some(2), Some(2)));

    let lines = workspace.run(&["memory", "export"]).ok();
    assert_eq!(lines.lines().count(), 6, "{lines}");
    workspace.write("memory.jsonl", &lines);
    let known = workspace.run(&["memory", "import", "memory.jsonl"]).ok();
    assert!(known.contains("0 new, 5 known before"), "{known}");
    let would = workspace.run(&["memory", "forget", "--scope", "subject:admin", "--dry-run"]).ok();
    assert!(would.contains("would forget") && would.contains("2 memories"), "{would}");
    let gone = workspace.run(&["memory", "forget", "--all-of", "subject:admin", "--yes"]).ok();
    assert!(gone.contains("2 memories, 2 entities, 1 relation"), "{gone}");
    let back = workspace.run(&["memory", "import", "memory.jsonl"]).ok();
    assert!(back.contains("5 new"), "{back}");
    assert_eq!(best(&[]).as_deref(), Some("Ann lives in Rome"));
    workspace.write("bad.jsonl", "{\"type\":\"memory\"}\n");
    let bad = workspace.run(&["memory", "import", "bad.jsonl"]);
    assert_eq!(bad.code, Some(1), "{bad:?}");
    assert!(bad.stdout.contains("line 1"), "{bad:?}");
    for (args, help) in [
        (&["memory", "edit", &id] as &[&str], "--text"),
        (&["memory", "forget"], "--all-of"),
        (&["memory", "add", "x", "--metadata", "{"], "object"),
        (&["memory", "list", "--scope", "nobody"], "agent:NAME"),
        (&["memory", "show", "it"], "caxton memory list"),
        (&["memory", "add", "x", "--scope", "global"], "workspace"),
    ] {
        let refused = workspace.run(args);
        assert!(refused.code != Some(0) && refused.stderr.contains(help), "{args:?}: {refused:?}");
    }
    node.terminate();
}

#[test]
fn what_was_acknowledged_before_a_kill_is_there_once_and_found() {
    let place = Place::new();
    let workspace = place.workspace("work");
    let node = Node::start(&place.data());
    // A file of many parts, so that the kill comes in the middle of it.
    let line = |number: usize| {
        let text = format!("fact {number} is about {} {}", "roses ".repeat(20), number * 7);
        serde_json::json!({ "memory": text, "id": number.to_string() }).to_string()
    };
    let lines: Vec<String> = (0..12_000).map(line).collect();
    workspace.write("mem0.jsonl", lines.join("\n"));
    let listed = || {
        let stats = workspace.run(&["memory", "stats", "--json"]);
        let stats: Value = serde_json::from_str(&stats.stdout).unwrap_or_default();
        stats["scopes"][0]["memories"].as_u64().unwrap_or(0)
    };
    let before = std::thread::scope(|scope| {
        let import = scope.spawn(|| workspace.run(&["memory", "import", "mem0.jsonl"]));
        let mut kept = 0;
        while kept == 0 && !import.is_finished() {
            kept = listed();
        }
        node.kill();
        let _ = import.join().expect("no panic");
        kept
    });
    let node = Node::start(&place.data());
    assert!(listed() >= before, "{} of {before} that were read are there", listed());
    // Whoever does not know how far it came sends it again.
    workspace.run(&["memory", "import", "mem0.jsonl"]).ok();
    assert_eq!(listed(), 12_000);
    let found = workspace.run(&["memory", "search", "fact 11999", "--by", "words", "--json"]).json();
    assert!(found["hits"][0]["memory"]["text"].as_str().is_some_and(|text| text.starts_with("fact 11999")), "{found}");
    node.terminate();
}

#[test]
fn the_demo_remembers_in_another_conversation() {
    let place = Place::new();
    let folder = place.dir.path().join("demo");
    let output =
        caxton(place.dir.path()).args(["demo", "--json", "--dir"]).arg(&folder).output().expect("the binary runs");
    assert!(output.status.success(), "{output:?}");
    // The deployment's document comes before that of the answers.
    let documents = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Value>();
    let told = documents.last().expect("a document").expect("JSON");
    let (first, later) = (&told["answer"], &told["later"]);
    assert_ne!(first["conversation"], later["conversation"]);
    let text = later["text"].as_str().expect("an answer");
    assert!(text.contains("510750 in all"), "it rests on the first answer: {text}");
    let id = text.split("[memory:").nth(1).and_then(|rest| rest.split(']').next()).expect("it names what it rests on");
    assert_eq!(id.len(), 32, "{text}");
    let picture = told["contract"]["picture"].as_str().expect("the diagram of the second part");
    for said in ["cfp", "propose", "accept-proposal", "reject-proposal", "inform"] {
        assert!(picture.contains(said), "{said}: {picture}");
    }
}
