//! A cluster that has lost its majority: whoever asks hears who is missing, since when, and what to do; the log stays
//! readable, and no term is used up meanwhile.

use crate::run::{Place, wait_for};
use crate::support::{Member, read, restart_all, settled, three};

fn terms(member: &Member) -> Vec<u64> {
    let status = read(member, "/api/v1/cluster?stale=true").expect("its view");
    status["groups"].as_array().expect("groups").iter().filter_map(|group| group["term"].as_u64()).collect()
}

#[test]
fn a_lost_majority_is_told_with_names_times_and_what_to_do() {
    let place = Place::new();
    let mut members = three(place.dir.path());
    let addresses: Vec<String> = members.iter().map(Member::peer_address).collect();
    let urls: Vec<String> = members.iter().map(|member| member.url().expect("an address")).collect();
    let ids: Vec<String> = members.iter().map(Member::id).collect();
    // The one that is left writes the log that a person gets who sets nothing.
    assert!(members[0].terminate().success());
    members[0].start(&["--peers", &addresses[0], "--set", "telemetry.filter=info"]);
    settled(&members[1], 3);
    let url = members[0].url().expect("an address");
    let (before, spoken) = (terms(&members[0]), members[0].said().lines().count());
    members[1].kill();
    members[2].kill();
    wait_for("the log to say so", || members[0].said().contains("has lost its majority").then_some(()));

    // Whoever asks for something that needs a majority, at this node alone or at all three.
    let all = [urls[1].clone(), url.clone(), urls[2].clone()].join(",");
    for servers in [&url, &all] {
        let ran = members[0].run(&["--server", servers, "token", "list"]);
        let said = &ran.stderr;
        assert_eq!(ran.code, Some(7), "{ran:?}");
        for part in
            ["has lost its majority", "2 of its 3 voters", &ids[1], &ids[2], "last heard of at", "caxton recover"]
        {
            assert!(said.contains(part), "{servers}: no {part:?} in {said}");
        }
    }
    let ran = members[0].run(&["cluster", "status"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    for part in [ids[1].as_str(), ids[2].as_str(), "missing", "last heard of at", "without a leader"] {
        assert!(ran.stdout.contains(part), "no {part:?} in {ran:?}");
    }
    assert!(ran.stderr.contains("caxton recover"), "{ran:?}");

    // In our words, and few of them: a line for each node that went and one for the majority, and not one for each attempt.
    let said = members[0].said();
    let since: Vec<&str> = said.lines().skip(spoken).collect();
    assert!(!since.iter().any(|line| line.contains("openraft")), "{since:#?}");
    for id in &ids[1..] {
        let named = since.iter().filter(|line| line.contains("cannot be reached") && line.contains(id.as_str()));
        assert_eq!(named.count(), 1, "{id}: {since:#?}");
    }
    assert_eq!(since.iter().filter(|line| line.contains("has lost its majority")).count(), 1, "{since:#?}");
    // Nobody could vote for it, so it never stood: at most once, for a group whose leader went while others still answered.
    for (before, after) in before.iter().zip(terms(&members[0])) {
        assert!(after <= before + 1, "the term went from {before} to {after}");
    }
    restart_all(&mut members, &addresses);
    settled(&members[0], 3);
}

#[test]
fn a_voter_that_comes_back_from_alone_takes_no_group_from_its_leader() {
    let place = Place::new();
    let members = three(place.dir.path());
    let status = settled(&members[0], 3);
    let deploy_log = |status: &serde_json::Value| {
        let group = &status["groups"][0];
        (group["leader"].as_str().expect("a leader").to_owned(), group["term"].as_u64().expect("a term"))
    };
    let (leader, term) = deploy_log(&status);
    let at = members.iter().position(|member| member.id() != leader).expect("a follower");
    // It hears nobody for longer than any election takes, and then all at once.
    rustix::process::kill_process(members[at].pid(), rustix::process::Signal::STOP).expect("a signal");
    let other = (0..3).find(|other| *other != at).expect("another");
    wait_for("it to be missed", || {
        let status = members[other].status()?;
        let frozen = members[at].id();
        let member = status["members"].as_array()?.iter().find(|member| member["node"] == frozen)?.clone();
        (member["state"] == "suspect").then_some(())
    });
    rustix::process::kill_process(members[at].pid(), rustix::process::Signal::CONT).expect("a signal");
    // The deploy log, whose leader nobody moves, has the same one in the same term.
    assert_eq!(deploy_log(&settled(&members[other], 3)), (leader, term));
}
