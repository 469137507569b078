//! kill -9 at random moments of a stream of deployments: what was acknowledged stays, whole, and in order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::run::{Node, Place, Random, Workspace, agent};

/// How often the node is killed.
const KILLS: u64 = 50;
/// The latest moment of a kill after the node is ready, in milliseconds.
const KILL_WITHIN_MS: u64 = 700;

/// Deployments that were answered: revision and root.
type Acknowledged = BTreeMap<u64, String>;

#[test]
fn a_node_killed_at_any_moment_keeps_what_it_acknowledged() {
    let mut random = Random::seeded("crashes");
    let place = Place::new();
    let workspace = place.workspace("work");
    let mut acknowledged = Acknowledged::new();
    let mut number = 0;
    for round in 0..KILLS {
        let node = Node::start(&place.data());
        check(&place, &workspace, &acknowledged, round);
        let kill_at = Instant::now() + Duration::from_millis(random.below(KILL_WITHIN_MS));
        let killed = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(kill_at.saturating_duration_since(Instant::now()));
                killed.store(true, Ordering::SeqCst);
                node.kill();
            });
            while !killed.load(Ordering::SeqCst) {
                // An attempt that got no answer is made again with the same content, as a person would.
                if number == 0 || acknowledged.values().last().is_some_and(|root| *root == workspace.root_digest()) {
                    number += 1;
                    workspace.write("agents/greeter.toml", agent("greeter", &format!("1.0.{number}")));
                    workspace.write("prompts/shared.md", format!("Prompt number {number}.\n").repeat(4000));
                }
                let ran = workspace.deploy();
                if ran.code == Some(0) {
                    let document: Value = serde_json::from_str(&ran.stdout).expect("a document");
                    let revision = document["revision"].as_u64().expect("a revision");
                    let root = document["deployment"]["root"].as_str().expect("a root").to_owned();
                    assert_eq!(root, workspace.root_digest(), "the answer is about other files");
                    let before = acknowledged.insert(revision, root.clone());
                    assert!(before.is_none_or(|before| before == root), "r{revision} was acknowledged twice");
                } else {
                    assert_eq!(ran.code, Some(6), "the only failure is a node that went away: {ran:#?}");
                }
            }
        });
    }
    let _node = Node::start(&place.data());
    check(&place, &workspace, &acknowledged, KILLS);
    println!("{KILLS} kills, {} deployments acknowledged", acknowledged.len());
    assert!(acknowledged.len() as u64 > KILLS / 2, "the stream hardly ran: {} deployments", acknowledged.len());
}

/// Every acknowledged deployment is in the log, the log has no gap, and the newest is served whole.
fn check(place: &Place, workspace: &Workspace, acknowledged: &Acknowledged, round: u64) {
    let log = workspace.run(&["log", "-n", "100000", "--json"]).json();
    let deployments = log["deployments"].as_array().expect("deployments");
    let roots: BTreeMap<u64, &str> = deployments
        .iter()
        .map(|d| (d["revision"].as_u64().expect("a revision"), d["root"].as_str().expect("a root")))
        .collect();
    let newest = roots.keys().last().copied().unwrap_or(0);
    assert_eq!(roots.len() as u64, newest, "round {round}: the log has a gap: {:?}", roots.keys());
    for deployment in deployments {
        let (revision, parent) = (deployment["revision"].as_u64(), deployment["parent"].as_u64());
        assert_eq!(revision, parent.map(|parent| parent + 1), "round {round}: a parent is not the one before");
    }
    for (revision, root) in acknowledged {
        let found = roots.get(revision).copied();
        assert_eq!(found, Some(root.as_str()), "round {round}: r{revision} was acknowledged and is lost");
    }
    if newest == 0 {
        return;
    }
    let copy = place.empty_workspace(&format!("copy-{round}"));
    copy.run(&["pull", "--theirs"]).ok();
    assert_eq!(copy.root_digest(), roots[&newest], "round {round}: r{newest} is not served whole");
    std::fs::remove_dir_all(&copy.root).expect("removed");
}
