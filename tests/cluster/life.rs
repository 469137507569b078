//! Three nodes from their birth on: they join, take deployments anywhere, answer anywhere, and go on when one is killed.

use serde_json::Value;

use crate::run::{Place, agent, wait_for};
use crate::support::{Member, PEERS, founder, settled, text, token};

/// The example's reply comes from a file, so that no model is needed.
fn example(place: &Place) -> std::path::PathBuf {
    let from = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/csv-to-chart");
    let to = place.dir.path().join("example");
    copy(&from, &to);
    let manifest = std::fs::read_to_string(to.join("caxton.toml")).expect("the manifest");
    let named = manifest.lines().map(|line| if line.starts_with("name = ") { "name = \"demo\"" } else { line });
    std::fs::write(to.join("caxton.toml"), named.collect::<Vec<_>>().join("\n")).expect("written");
    to
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("its type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// Deploys, and again while the cluster is electing.
fn deploy(member: &Member, folder: &std::path::Path) -> u64 {
    let document: Value = wait_for(&format!("a deployment on {}", member.name), || {
        let ran = member.run_in(folder, &["deploy", "--yes", "--json"]);
        match ran.code {
            Some(0) => Some(serde_json::from_str(&ran.stdout).expect("a document")),
            Some(6 | 7) => None,
            _ => panic!("{ran:#?}"),
        }
    });
    document["revision"].as_u64().expect("a revision")
}

fn leader<'a>(members: &'a [Member], status: &Value, group: usize) -> &'a Member {
    let id = status["groups"][group]["leader"].as_str().expect("a leader");
    members.iter().find(|member| member.id() == id).expect("a member")
}

#[test]
fn three_nodes_take_anything_anywhere_and_go_on_when_the_leader_is_killed() {
    let place = Place::new();
    let (one, address) = founder(place.dir.path());
    let file = token(&one, &["--uses", "2"]);
    // Two at once, by the same token.
    let mut members = vec![one, Member::new(place.dir.path(), "two"), Member::new(place.dir.path(), "three")];
    for member in &mut members[1..] {
        member.spawn(&["--peers", "127.0.0.1:0", "--join", &address, "--token-file", text(&file)]);
    }
    members[1..].iter_mut().for_each(Member::ready);
    let status = settled(&members[2], 3);
    assert_eq!(status["members"].as_array().expect("members").len(), 3, "{status}");

    // Deployed on a node that does not lead, live on all.
    let folder = example(&place);
    let led_by = leader(&members, &status, 0).id();
    let follower = members.iter().find(|member| member.id() != led_by).expect("a follower");
    assert_eq!(deploy(follower, &folder), 1);
    for member in &members {
        wait_for(&format!("{} to serve r1", member.name), || member.serves(1).then_some(()));
    }
    for member in &members {
        let ran = member.run_in(&folder, &["ask", "Draw a chart of sales by quarter", "--file", "sales.csv", "--json"]);
        assert_eq!(ran.code, Some(0), "{} does not answer: {ran:#?}", member.name);
        // A read that has to be current, wherever it is asked.
        assert_eq!(member.run_in(&folder, &["status", "--json"]).json()["live"]["revision"], 1);
    }
    let asked = members[1].run_in(&folder, &["conversations", "list", "--json"]).json();
    assert_eq!(asked["conversations"].as_array().expect("conversations").len(), 3, "{asked}");

    // The leader dies without a word.
    let at = members.iter().position(|member| member.id() == led_by).expect("the leader");
    members[at].kill();
    let rest: Vec<usize> = (0..3).filter(|index| *index != at).collect();
    std::fs::write(folder.join("agents/greeter.toml"), agent("greeter", "1.0.0")).expect("written");
    assert_eq!(deploy(&members[rest[0]], &folder), 2);
    for index in &rest {
        wait_for("the rest to serve r2", || members[*index].serves(2).then_some(()));
        let ran = members[*index].run_in(&folder, &["conversations", "list", "--json"]).json();
        assert_eq!(ran["conversations"].as_array().expect("conversations").len(), 3, "what was said is there");
    }
    // A client that knows several goes on with another.
    let servers = [at, rest[1]].map(|index| members[index].url().expect("an address")).join(",");
    let ran = members[rest[1]].run_in(&folder, &["--server", &servers, "status", "--json"]);
    assert_eq!(ran.json()["live"]["revision"], 2);
    wait_for("the dead one to be missed", || {
        let status = members[rest[0]].status()?;
        let dead = status["members"].as_array()?.iter().find(|member| member["node"] == led_by)?.clone();
        (dead["state"] == "suspect").then_some(())
    });

    // It comes back with nothing but its data directory.
    members[at].start(&PEERS);
    wait_for("the one that was killed to serve r2", || members[at].serves(2).then_some(()));
    std::fs::write(folder.join("agents/greeter.toml"), agent("greeter", "1.0.1")).expect("written");
    assert_eq!(deploy(&members[at], &folder), 3);
    settled(&members[at], 3);
}

#[test]
fn leadership_moves_when_it_is_asked_to_and_when_a_node_stops_and_a_removed_node_ends() {
    let place = Place::new();
    let (one, address) = founder(place.dir.path());
    let mut members = vec![one];
    for name in ["two", "three"] {
        let file = token(&members[0], &[]);
        let mut member = Member::new(place.dir.path(), name);
        member.start(&["--peers", "127.0.0.1:0", "--join", &address, "--token-file", text(&file)]);
        members.push(member);
    }
    let before = settled(&members[1], 3);
    let workspace = place.workspace("work");
    assert_eq!(deploy(&members[1], &workspace.root), 1);

    let moved = members[2].run(&["cluster", "transfer", "--group", "0"]).ok();
    assert!(moved.contains("leads group 0"), "{moved}");
    let after = wait_for("another leader", || {
        let status = members[2].status()?;
        (status["groups"][0]["leader"] != before["groups"][0]["leader"] && status["groups"][0]["leader"].is_string())
            .then_some(status)
    });

    // A leader that is asked to stop hands over first: the next deployment does not wait for an election to time out.
    let id = leader(&members, &after, 0).id();
    let at = members.iter().position(|member| member.id() == id).expect("the leader");
    assert!(members[at].terminate().success());
    let other = (at + 1) % 3;
    workspace.write("agents/greeter.toml", agent("greeter", "1.0.1"));
    assert_eq!(deploy(&members[other], &workspace.root), 2);
    members[at].start(&PEERS);
    settled(&members[other], 3);

    // A node leaves for good: it is told, and ends; two are left, of which one votes.
    let gone = members[at].id();
    let ran = members[at].run(&["cluster", "leave"]);
    assert!(ran.code == Some(2) && ran.stderr.contains("caxton cluster leave --yes"), "nobody agreed: {ran:?}");
    members[at].run(&["cluster", "leave", "--yes"]).ok();
    assert!(members[at].ended().success(), "{}", members[at].said());
    assert!(members[at].said().contains("this node has left the cluster"), "{}", members[at].said());
    // Whoever starts it again hears why it does not.
    let said = members[at].refused(&PEERS);
    assert!(said.contains("was removed from the cluster"), "{said}");
    let status = settled(&members[other], 1);
    let left: Vec<&str> =
        status["members"].as_array().expect("members").iter().filter_map(|member| member["node"].as_str()).collect();
    assert!(left.len() == 2 && !left.contains(&gone.as_str()), "{status}");
    workspace.write("agents/greeter.toml", agent("greeter", "1.0.2"));
    assert_eq!(deploy(&members[other], &workspace.root), 3);
}
