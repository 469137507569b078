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
    assert!(said.contains("used as often as it may be") && said.contains("cluster token create"), "{said}");

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
