//! Who may not join, and what it is told.

use crate::run::{Place, wait_for};
use crate::support::{Member, PEERS, founder, settled, text, token};

#[test]
fn a_token_that_is_spent_expired_foreign_or_none_is_refused_with_the_reason() {
    let place = Place::new();
    let (one, address) = founder(place.dir.path());
    let join = |name: &str, file: &std::path::Path| {
        let mut member = Member::new(place.dir.path(), name);
        let said = member.refused(&["--peers", "127.0.0.1:0", "--join", &address, "--token-file", text(file)]);
        assert!(!member.data.join("identity").exists(), "{name} has an identity");
        said
    };
    let spent = token(&one, &[]);
    let mut two = Member::new(place.dir.path(), "two");
    two.start(&["--peers", "127.0.0.1:0", "--join", &address, "--token-file", text(&spent)]);
    let said = join("late", &spent);
    // It is dropped once the node that used it has said where it is.
    let spent = ["does not know this join token: it was used up", "was used as often as it may be"];
    assert!(spent.iter().any(|why| said.contains(why)) && said.contains("cluster token create"), "{said}");

    let short = token(&one, &["--ttl", "1s"]);
    let expired = wait_for("the token to expire", || {
        // The cluster's own clock decides, which is this machine's.
        let age = std::fs::metadata(&short).expect("the file").modified().expect("a time").elapsed().ok()?;
        (age > std::time::Duration::from_millis(1_100)).then(|| join("slow", &short))
    });
    assert!(expired.contains("has expired"), "{expired}");

    let elsewhere = Place::new();
    let (other, _) = founder(elsewhere.dir.path());
    let foreign = token(&other, &[]);
    let said = join("lost", &foreign);
    assert!(said.contains("does not belong to the cluster that the token"), "{said}");

    // The right cluster, and another secret.
    let good = std::fs::read_to_string(token(&one, &[])).expect("a token");
    let mut parts: Vec<&str> = good.trim().split('.').collect();
    let wrong = "00".repeat(32);
    parts[2] = &wrong;
    let forged = place.dir.path().join("forged.token");
    std::fs::write(&forged, parts.join(".")).expect("written");
    let said = join("forger", &forged);
    assert!(said.contains("does not know this join token"), "{said}");

    std::fs::write(&forged, "nonsense").expect("written");
    let said = join("confused", &forged);
    assert!(said.contains("this is no join token"), "{said}");
    // Nobody who was refused left a trace.
    let status = settled(&one, 1);
    assert_eq!(status["members"].as_array().expect("members").len(), 2, "{status}");
}

#[test]
fn a_node_joins_through_one_that_does_not_lead_and_restarts_without_the_token() {
    let place = Place::new();
    let (one, address) = founder(place.dir.path());
    let mut two = Member::new(place.dir.path(), "two");
    let first = token(&one, &[]);
    two.start(&["--peers", "127.0.0.1:0", "--join", &address, "--token-file", text(&first)]);
    // Made on the one, used on the other, which passes it on.
    let second = token(&two, &[]);
    let mut three = Member::new(place.dir.path(), "three");
    three.start(&["--peers", "127.0.0.1:0", "--join", &two.peer_address(), "--token-file", text(&second)]);
    settled(&three, 3);
    let id = three.id();
    assert!(three.terminate().success());
    std::fs::remove_file(&second).expect("removed");
    three.start(&PEERS);
    assert_eq!(three.id(), id);
    settled(&three, 3);
    assert_eq!(one.status().expect("a view")["members"].as_array().expect("members").len(), 3);
}

#[test]
fn a_node_that_waits_for_its_cluster_ends_at_once_when_it_is_asked_to() {
    let place = Place::new();
    let (mut one, address) = founder(place.dir.path());
    let file = token(&one, &[]);
    one.kill();
    let mut two = Member::new(place.dir.path(), "two");
    two.spawn(&["--peers", "127.0.0.1:0", "--join", &address, "--token-file", text(&file)]);
    wait_for("it to have asked", || two.said().contains("could not join yet").then_some(()));
    assert!(two.terminate().success(), "{}", two.said());
    assert!(!two.data.join("identity").exists());
}

#[test]
fn a_data_directory_that_belongs_somewhere_says_so_and_one_that_lost_a_file_is_refused_by_its_name() {
    let place = Place::new();
    let (one, _) = founder(place.dir.path());
    let mut two = Member::new(place.dir.path(), "two");
    two.start(&PEERS);
    let id = two.id();
    assert!(two.terminate().success());
    // It is told to join another cluster, and stays what it is.
    let file = token(&one, &[]);
    two.start(&["--peers", "127.0.0.1:0", "--join", &one.peer_address(), "--token-file", text(&file)]);
    assert!(two.said().contains("belongs to a cluster already"), "{}", two.said());
    assert_eq!(two.id(), id);
    assert!(two.terminate().success());
    for file in ["identity", "admin-token", "keys/tokens.key", "keys/data.key", "tls/ca.key", "tls/ca.pem"] {
        let (path, kept) = (two.data.join(file), two.data.join("kept"));
        std::fs::rename(&path, &kept).expect("put aside");
        let said = two.refused(&PEERS);
        let last = said.lines().rev().take(3).collect::<Vec<_>>().join("\n");
        assert!(last.contains(&format!("{file} is missing")) && last.contains("put the file back"), "{file}: {last}");
        assert!(!path.exists(), "{file} was made anew");
        std::fs::rename(&kept, &path).expect("put back");
    }
    two.start(&PEERS);
    assert_eq!(two.id(), id, "with all its files it goes on");
}

#[test]
fn a_node_that_takes_the_port_for_clients_for_that_of_nodes_is_told() {
    let place = Place::new();
    let (one, _) = founder(place.dir.path());
    let url = one.url().expect("an address");
    let address = url.strip_prefix("http://").expect("plain HTTP");
    let file = token(&one, &[]);
    let mut two = Member::new(place.dir.path(), "two");
    let args =
        ["--peers", "127.0.0.1:0", "--join", address, "--token-file", text(&file), "--set", "cluster.join_timeout=1s"];
    let said = two.refused(&args);
    assert!(said.contains("may be the port for clients (7411"), "{said}");
}
