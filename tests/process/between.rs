//! kill -9 while messages go from one workspace to another: each that was acknowledged arrives, once. And who signed what, on the
//! command line.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::run::{Node, Place, Random, Workspace, wait_for};

/// How often the node is killed.
const KILLS: u64 = 6;
/// The latest moment of a kill after the node is ready, in milliseconds.
const KILL_WITHIN_MS: u64 = 1_500;

/// A workspace in which an agent passes on what it is told.
fn workspace(place: &Place, name: &str, messages: &str, agent: &str, script: &str) -> Workspace {
    let workspace = Workspace { root: place.dir.path().join(name), data: place.data() };
    let provider = "[providers.s]\nkind = \"scripted\"\nscript = \"prompts/s.toml\"\n";
    workspace.write("caxton.toml", format!("[workspace]\nname = \"{name}\"\n[messages]\n{messages}\n{provider}"));
    let file =
        format!("[agent]\nname = \"{agent}\"\ndescription = \"Passes things on\"\n[messages]\nconcurrency = 4\n");
    workspace.write(&format!("agents/{agent}.toml"), file);
    workspace.write("prompts/s.toml", script);
    workspace
}

const PASSES_ON: &str = "[[rule]]\nwhen.after = []\nwhen.request = \"[request from\"\n[[rule.call]]\ntool = \"send_message\"\n\
    arguments = { to = \"sink@team-b\", content = { read = \"{{request}}\" } }\n[[rule]]\nsay = \"Passed on.\"\n";

/// What lies in a mailbox, by the names of the messages: nothing where the node is away.
fn names(workspace: &Workspace, owner: &str) -> Option<Vec<String>> {
    let ran = workspace.run(&["messages", "list", "--owner", owner, "-n", "500", "--json"]);
    let page: serde_json::Value = serde_json::from_str(&ran.stdout).ok()?;
    let name = |it: &serde_json::Value| {
        let text = it["message"]["content"].to_string();
        let (from, to) = (text.find("m-")?, text.find("-end")?);
        Some(text[from..to].to_owned())
    };
    Some(page["deliveries"].as_array()?.iter().filter_map(name).collect())
}

#[test]
fn a_node_killed_while_messages_are_between_workspaces_loses_none_and_brings_each_once() {
    let mut random = Random::seeded("between");
    let place = Place::new();
    let both = |other: &str| format!("signed = true\nsends_to = [\"{other}\"]\nreceives_from = [\"{other}\"]");
    let one = workspace(&place, "team-a", &both("team-b"), "clerk", PASSES_ON);
    let other = workspace(&place, "team-b", &both("team-a"), "idle", "[[rule]]\nsay = \"Hm.\"\n");
    let mut acknowledged = BTreeSet::new();
    for round in 0..KILLS {
        let node = Node::start(&place.data());
        if round == 0 {
            one.deploy().ok();
            other.deploy().ok();
        }
        let kill_at = Instant::now() + Duration::from_millis(random.below(KILL_WITHIN_MS));
        let killed = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(kill_at.saturating_duration_since(Instant::now()));
                killed.store(true, Ordering::SeqCst);
                node.kill();
            });
            let mut number = 0;
            while !killed.load(Ordering::SeqCst) {
                number += 1;
                let name = format!("m-{round}-{number}");
                let text = format!("{name}-end");
                if one.run(&["messages", "send", "clerk", &text, "--key", &name]).code == Some(0) {
                    acknowledged.insert(name);
                }
            }
        });
    }
    let _node = Node::start(&place.data());
    for number in 0..3 {
        let name = format!("m-last-{number}");
        one.run(&["messages", "send", "clerk", &format!("{name}-end"), "--key", &name]).ok();
        acknowledged.insert(name);
    }
    wait_for("all that was acknowledged to be there", || {
        let there: BTreeSet<String> = names(&other, "sink")?.into_iter().collect();
        acknowledged.is_subset(&there).then_some(())
    });
    wait_for("nothing to be on its way", || {
        let left = names(&one, "clerk")?.len() + names(&one, "sink@team-b")?.len();
        (left == 0).then_some(())
    });
    let there = names(&other, "sink").expect("the node answers");
    let distinct: BTreeSet<&String> = there.iter().collect();
    assert_eq!(there.len(), distinct.len(), "one was brought twice: {there:?}");
    println!("{KILLS} kills, {} messages acknowledged, {} there", acknowledged.len(), there.len());

    // The other workspace's node signed them as what they are.
    let page = other.run(&["messages", "list", "--owner", "sink", "-n", "1", "--json"]).json();
    let delivery = page["deliveries"][0]["delivery"].to_string();
    let verified = other.run(&["messages", "verify", &delivery, "--json"]).json();
    assert_eq!(
        (verified["holds"].as_bool(), verified["sender"].as_str()),
        (Some(true), Some("clerk@team-a")),
        "{verified}"
    );
    let shown = other.run(&["messages", "verify", &delivery]).ok();
    assert!(shown.contains("verified") && shown.contains("clerk@team-a"), "{shown}");
    let unknown = other.run(&["messages", "verify", "0123456789abcdef0123456789abcdef"]);
    assert!(unknown.code != Some(0) && unknown.stderr.contains("no message"), "{}", unknown.shown());
    let before = other.run(&["messages", "keys", "list", "--owner", "clerk@team-a", "--json"]).json();
    let rotated = one.run(&["messages", "keys", "rotate", "clerk", "--overlap", "1h", "--json"]).json();
    assert_eq!((rotated["owner"].as_str(), rotated["held_by"].as_str()), (Some("clerk"), Some("node")), "{rotated}");
    let keys = one.run(&["messages", "keys", "list", "--owner", "clerk", "--json"]).json();
    let ends: Vec<bool> = keys["keys"].as_array().expect("keys").iter().map(|key| key["ends"].is_string()).collect();
    assert_eq!((ends, before["keys"].as_array().map(Vec::len)), (vec![true, false], Some(1)), "{keys}");
}

#[test]
fn a_person_signs_with_a_key_of_their_own_on_the_command_line() {
    // An Ed25519 key that is nobody's: PKCS#8 of a seed of 32 ones.
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB\n\
        -----END PRIVATE KEY-----\n";
    let place = Place::new();
    let _node = Node::start(&place.data());
    let one = workspace(&place, "team-a", "signed = true", "clerk", "[[rule]]\nsay = \"Hm.\"\n");
    one.deploy().ok();
    one.write("own.pem", KEY);
    one.write("none.pem", "nothing");
    let wrong = one.run(&["messages", "keys", "register", "none.pem"]);
    assert!(wrong.code == Some(2) && wrong.stderr.contains("openssl genpkey"), "{}", wrong.shown());
    let key = one.run(&["messages", "keys", "register", "own.pem", "--json"]).json();
    let owner = key["owner"].as_str().expect("an owner").to_owned();
    let subject = owner.strip_prefix("subject:").expect("a person").to_owned();
    let unsigned = one.run(&["messages", "send", "later", "x"]);
    assert!(unsigned.code != Some(0) && unsigned.stderr.contains("--sign-with"), "{}", unsigned.shown());
    let sign = ["messages", "send", "later", "{\"pay\": 10}", "--content-json", "--sign-with", "own.pem", "--subject"];
    let sent = one.run(&[&sign[..], &[subject.as_str(), "--json"]].concat()).json();
    let verified = one.run(&["messages", "verify", sent["id"].as_str().expect("an id"), "--json"]).json();
    assert_eq!((verified["holds"].as_bool(), verified["held_by"].as_str()), (Some(true), Some("sender")), "{verified}");
    assert_eq!((verified["sender"].as_str(), &verified["key"]), (Some(owner.as_str()), &key["key"]));
    let other = one.run(&[&sign[..], &["somebody-else"]].concat());
    assert!(other.code != Some(0), "{}", other.shown());
}
