//! The keys that all nodes hold are rotated while the cluster goes on: everybody comes along, also who was away, and what
//! was before stops being good.

use std::fs;

use serde_json::Value;

use crate::run::{Place, caxton, wait_for};
use crate::support::{Member, PEERS, read, restart_all, settled, text, three, token};

/// The rotated key `kind`, as the leader tells of it.
fn key(member: &Member, kind: &str) -> Option<Value> {
    let status = member.status()?;
    status["keys"].as_array()?.iter().find(|key| key["key"] == kind).cloned()
}

/// Waits until every member has the new key.
fn everywhere(member: &Member, kind: &str) {
    wait_for(&format!("every node to have the new {kind}"), || key(member, kind)?["lacking"].is_null().then_some(()));
}

/// Waits until only the new key is good.
fn finished(member: &Member, kind: &str) {
    wait_for(&format!("the rotation of the {kind} to be finished"), || {
        key(member, kind)?["finished"].is_string().then_some(())
    });
}

fn file(member: &Member, name: &str) -> Vec<u8> {
    fs::read(member.data.join(name)).unwrap_or_default()
}

/// Waits until all have the same bytes in a file, which are not `before`.
fn replaced(members: &[Member], name: &str, before: &[u8]) {
    wait_for(&format!("a new {name} everywhere"), || {
        let now = file(&members[0], name);
        (now != before && members.iter().all(|member| file(member, name) == now)).then_some(())
    });
}

/// The status of a request to `member` with a bearer.
fn asks_with(member: &Member, bearer: &str) -> Option<i32> {
    let file = member.data.with_file_name("bearer");
    fs::write(&file, bearer).expect("written");
    let mut command = caxton(member.data.parent().expect("a parent"));
    command.args(["--server", &member.url()?, "--token-file", text(&file), "cluster", "members"]);
    command.output().expect("the binary runs").status.code()
}

#[test]
fn all_keys_are_rotated_and_what_was_before_is_good_until_that_is_finished() {
    let place = Place::new();
    let mut members = three(place.dir.path());
    let (old_ca, old_admin, old_gossip) =
        (file(&members[0], "tls/ca.pem"), file(&members[0], "admin-token"), file(&members[0], "keys/gossip.key"));
    let old_join = token(&members[0], &["--uses", "2"]);
    let old_token = members[1].run(&["token", "create", "ci", "--role", "viewer"]).ok();
    // One is away while it begins.
    let mut away = members.pop().expect("three");
    away.terminate();
    let said = members[1].run(&["cluster", "rotate", "--yes"]).ok();
    assert!(said.contains("ca, gossip-key, signing-key"), "{said}");
    wait_for("the others to have them", || {
        let lacking = key(&members[0], "ca")?["lacking"].clone();
        (lacking == serde_json::json!([away.id()])).then_some(())
    });
    for (args, expected) in [
        (&["cluster", "rotate", "gossip-key", "--yes"][..], "has a successor already"),
        (&["cluster", "rotate", "--finish", "--yes"][..], away.id().as_str()),
    ] {
        let refused = members[0].run(args);
        assert!(refused.code == Some(1) && refused.stderr.contains(expected), "{args:?}: {}", refused.stderr);
    }
    // Certificates are of the new authority, and who was away trusts them by the one that it knows.
    replaced(&members, "tls/ca.pem", &old_ca);
    away.start(&PEERS);
    members.push(away);
    for kind in ["ca", "gossip-key", "signing-key"] {
        everywhere(&members[0], kind);
    }
    replaced(&members, "tls/ca.pem", &old_ca);
    replaced(&members, "admin-token", &old_admin);
    settled(&members[2], 3);
    // What was before is good.
    let old_admin = String::from_utf8(old_admin).expect("text");
    for bearer in [&old_admin, &old_token] {
        assert_eq!(asks_with(&members[2], bearer), Some(0));
    }
    let mut joined = Member::new(place.dir.path(), "four");
    let address = members[0].peer_address();
    joined.start(&["--peers", "127.0.0.1:0", "--join", &address, "--token-file", text(&old_join)]);
    members.push(joined);
    for kind in ["ca", "gossip-key", "signing-key"] {
        everywhere(&members[0], kind);
    }
    let new_token = members[1].run(&["token", "create", "ci", "--role", "viewer"]).ok();
    members[1].run(&["cluster", "rotate", "--finish", "--yes"]).ok();
    replaced(&members, "keys/gossip.key", &old_gossip);
    wait_for("nobody to keep the authority before", || {
        members.iter().all(|member| !member.data.join("tls/succession.json").exists()).then_some(())
    });
    // Now only what is new is.
    wait_for("the old tokens to be refused", || {
        members
            .iter()
            .all(|it| asks_with(it, &old_admin) != Some(0) && asks_with(it, &old_token) != Some(0))
            .then_some(())
    });
    let mut late = Member::new(place.dir.path(), "five");
    let said = late.refused(&["--peers", "127.0.0.1:0", "--join", &address, "--token-file", text(&old_join)]);
    assert!(said.contains("before the cluster's authority was rotated"), "{said}");
    // And it stays so over a restart of all, with everybody in gossip.
    let addresses: Vec<String> = members.iter().map(Member::peer_address).collect();
    restart_all(&mut members, &addresses);
    settled(&members[0], 3);
    assert_eq!(asks_with(&members[3], &new_token), Some(0));
    assert_ne!(asks_with(&members[3], &old_token), Some(0));
    wait_for("everybody to be heard of", || {
        let status = read(&members[3], "/api/v1/cluster?stale=true")?;
        let alive = status["members"].as_array()?.iter().filter(|member| member["state"] == "alive").count();
        (alive == 4).then_some(())
    });
}

#[test]
fn an_overlap_ends_by_itself_and_who_was_away_for_all_of_it_is_told_to_join_again() {
    let place = Place::new();
    let mut members = three(place.dir.path());
    let mut away = members.pop().expect("three");
    away.terminate();
    members[0].run(&["cluster", "rotate", "--overlap", "1s", "--yes"]).ok();
    for kind in ["ca", "gossip-key", "signing-key"] {
        finished(&members[1], kind);
    }
    wait_for("nobody to keep the authority before", || {
        members.iter().all(|member| !member.data.join("tls/succession.json").exists()).then_some(())
    });
    let said = away.refused(&PEERS);
    assert!(said.contains("authority") && said.contains("join again"), "{said}");
    // The two that are left go on, and a node joins with a new token.
    members[0].run(&["cluster", "remove", &away.id(), "--yes"]).ok();
    let file = token(&members[1], &[]);
    let address = members[1].peer_address();
    let mut new = Member::new(place.dir.path(), "new");
    new.start(&["--peers", "127.0.0.1:0", "--join", &address, "--token-file", text(&file)]);
    settled(&new, 3);
}

#[test]
fn a_cluster_with_a_secret_rotates_its_authority_and_nodes_join_it_by_the_secret() {
    let place = Place::new();
    let secret = place.dir.path().join("secret");
    fs::write(&secret, "0123456789abcdef0123456789abcdef").expect("written");
    fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("set");
    let with = ["--peers", "127.0.0.1:0", "--secret-file", text(&secret)];
    let mut one = Member::new(place.dir.path(), "one");
    one.start(&[&with[..], &["--found"]].concat());
    let old_ca = file(&one, "tls/ca.pem");
    one.run(&["cluster", "rotate", "ca", "--yes"]).ok();
    everywhere(&one, "ca");
    one.run(&["cluster", "rotate", "ca", "--finish", "--yes"]).ok();
    wait_for("the authority before to be gone", || (!one.data.join("tls/succession.json").exists()).then_some(()));
    assert_ne!(file(&one, "tls/ca.pem"), old_ca);
    let join = one.peer_address();
    let mut two = Member::new(place.dir.path(), "two");
    two.start(&[&with[..], &["--join", &join]].concat());
    for member in [&mut one, &mut two] {
        let address = member.peer_address();
        member.terminate();
        member.start(&["--peers", &address, "--secret-file", text(&secret)]);
    }
    assert_eq!(file(&two, "tls/ca.pem"), file(&one, "tls/ca.pem"));
}
