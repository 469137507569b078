//! `caxton messages` as a person types it: sent, listed, dropped, followed, published and subscribed to; and conversations drawn.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::run::{Node, Place, caxton};

#[test]
fn a_person_sends_lists_shows_and_drops_messages_and_draws_who_said_what() {
    let place = Place::new();
    let workspace = place.workspace("work");
    let node = Node::start(&place.data());
    let empty = workspace.run(&["messages", "list"]).ok();
    assert!(empty.contains("caxton messages send"), "{empty}");
    let sent = workspace.run(&["messages", "send", "away", "hello\u{1b}[2J", "-p", "inform", "--key", "k1"]).ok();
    assert!(sent.starts_with("sent ") && sent.contains("in 1 mailbox"), "{sent}");
    let again = workspace.run(&["messages", "send", "away", "hello", "-p", "inform", "--key", "k1"]).ok();
    assert!(again.starts_with("known before: "), "{again}");
    let content =
        ["messages", "send", "ann,bob", "{\"item\": \"desk\"}", "--content-json", "-p", "cfp", "--reply-with", "r"];
    let net = ["--protocol", "fipa-contract-net", "--conversation", "net 1", "--reply-by", "2999-01-01T00:00:00Z"];
    workspace.run(&[&content[..], &net[..]].concat()).ok();
    let listed = workspace.run(&["messages", "list"]).ok();
    assert!(listed.starts_with("DELIVERY  MAILBOX  FROM           DOES    STATE  TRIED  WHEN"), "{listed}");
    assert!(listed.contains("subject:admin  inform  ready  0      ") && listed.contains("  hello[2J"), "{listed}");
    assert!(listed.contains("{\"item\": \"desk\"}") || listed.contains("{\"item\":\"desk\"}"), "{listed}");
    let away = workspace.run(&["messages", "list", "--owner", "away", "--json"]).json();
    let number = away["deliveries"][0]["delivery"].to_string();
    let shown = workspace.run(&["messages", "show", &number]).ok();
    assert!(shown.contains("in the mailbox of away, 0 attempts") && shown.contains("performative: inform"), "{shown}");

    let sequence = workspace.run(&["conversations", "show", "net 1", "--sequence"]).ok();
    assert!(sequence.contains("|--cfp") && sequence.contains("open: fipa-contract-net, ann "), "{sequence}");
    let mermaid = workspace.run(&["conversations", "show", "net 1", "--mermaid"]).ok();
    assert!(mermaid.starts_with("sequenceDiagram\n") && mermaid.contains("p0->>p2: cfp"), "{mermaid}");

    let would = workspace.run(&["messages", "drop", &number, "--dry-run"]).ok();
    assert!(would.contains(&format!("would drop {number} (inform from subject:admin for away, ready)")), "{would}");
    workspace.run(&["messages", "drop", &number, "--yes"]).ok();
    let none = workspace.run(&["messages", "retry", "--dead", "--all", "--dry-run"]).ok();
    assert!(none.contains("would retry 0 dead letters"), "{none}");
    for (args, help) in [
        (&["messages", "show", &number] as &[&str], "caxton messages list"),
        (&["messages", "drop", "2"], "--yes"),
        (&["messages", "drop", "--all"], "--dead"),
        (&["messages", "retry"], "DELIVERY"),
        (&["messages", "send", "a@b", "x"], "another workspace"),
        (&["messages", "send", "away", "{", "--content-json"], "docs/messages.md"),
        (&["messages", "send", "away", "x", "-p", "shout"], "docs/messages.md"),
        (&["conversations", "show", "nothing", "--sequence"], "caxton messages tail"),
    ] {
        let refused = workspace.run(args);
        assert!(refused.code != Some(0) && refused.stderr.contains(help), "{args:?}: {refused:?}");
    }

    // What was said is followed from its beginning on, and goes on with what comes.
    let mut tail = caxton(&workspace.root);
    tail.current_dir(&workspace.root).env("CAXTON_DATA_DIR", &workspace.data);
    let mut tail = tail
        .args(["messages", "tail", "--agents", "away,later", "--from", "0"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut lines = BufReader::new(tail.stdout.take().expect("a pipe")).lines();
    let first = lines.next().expect("a line").expect("text");
    assert!(first.contains("subject:admin -> away") && first.contains("inform"), "{first}");
    workspace.run(&["messages", "send", "later", "now"]).ok();
    let second = lines.next().expect("a line").expect("text");
    assert!(second.contains("subject:admin -> later") && second.contains("request now ("), "{second}");
    tail.kill().expect("it runs");
    tail.wait().expect("it ends");
    node.terminate();
}

#[test]
fn a_person_subscribes_publishes_and_reads_again_what_was_published() {
    let place = Place::new();
    let workspace = place.workspace("work");
    let node = Node::start(&place.data());
    assert!(workspace.run(&["messages", "topics"]).ok().contains("caxton messages publish"));
    let made = workspace.run(&["messages", "subscribe", "orders/#", "--filter", "content.amount>=100"]).ok();
    assert_eq!(made, "subscribed subject:admin as orders/#, at position 0\n");
    for amount in ["5", "500"] {
        let content = format!("{{\"amount\": {amount}}}");
        let sent = workspace.run(&["messages", "publish", "orders/new", &content, "--content-json"]).ok();
        assert!(sent.contains("at position "), "{sent}");
    }
    workspace.run(&["messages", "publish", "weather", "It rains, a lot."]).ok();
    let mine = crate::run::wait_for("what was published", || {
        let found = workspace.run(&["messages", "list", "--owner", "subject:admin", "--json"]).json();
        found["deliveries"].as_array().filter(|all| !all.is_empty()).cloned()
    });
    assert_eq!((mine.len(), mine[0]["message"]["content"]["amount"].as_u64()), (1, Some(500)));
    let topics = workspace.run(&["messages", "topics"]).ok();
    assert_eq!(topics, "TOPIC       KEPT  FIRST  LAST\norders/new  2     1      2\nweather     1     3      3\n");
    crate::run::wait_for("the subscription to have seen all", || {
        let who = workspace.run(&["messages", "topics", "--subscriptions"]).ok();
        who.contains("orders/#  subject:admin  orders/#  content.amount >= 100  3         0").then_some(())
    });
    let small = workspace.run(&["messages", "replay", "orders/#", "--filter", "content.amount<100"]).ok();
    assert!(small.lines().count() == 1 && small.contains("{\"amount\":5}"), "{small}");
    let comma = workspace.run(&["messages", "replay", "--filter", "content=It rains, a lot.", "--json"]).json();
    assert_eq!(comma["publications"].as_array().map(Vec::len), Some(1), "{comma}");
    let gone = workspace.run(&["messages", "unsubscribe", "orders/#"]).ok();
    assert!(gone.starts_with("unsubscribed subject:admin as orders/#"), "{gone}");
    for (args, help) in [
        (&["messages", "unsubscribe", "orders/#"] as &[&str], "--subscriptions"),
        (&["messages", "subscribe", "a/#/b"], "docs/messages.md"),
        (&["messages", "publish", "a/+", "x"], "docs/messages.md"),
    ] {
        let refused = workspace.run(args);
        assert!(refused.code != Some(0) && refused.stderr.contains(help), "{args:?}: {refused:?}");
    }
    node.terminate();
}
