//! Two processes on copies of one data directory: one of them takes part, and the other is told so and ends.

use std::path::Path;
use std::process::Command;

use crate::run::{Place, wait_for};
use crate::support::{Member, PEERS, restart_all, settled, three};

/// Copies a data directory whose node may run.
fn copy(of: &Member, home: &Path, name: &str) -> Member {
    let copy = Member::new(home, name);
    let ran = Command::new("cp").arg("-a").arg(&of.data).arg(&copy.data).status().expect("cp runs");
    assert!(ran.success());
    copy
}

/// What a process says that is not the one that counts.
fn is_told(said: &str) {
    for part in ["is a copy of a node", "never start this data directory again", "caxton cluster remove"] {
        assert!(said.contains(part), "{part:?} is not in what it said:\n{said}");
    }
}

/// Who leads the deploy log, by the word of `member`.
fn leader(member: &Member) -> Option<String> {
    Some(member.status()?["groups"][0]["leader"].as_str()?.to_owned())
}

#[test]
fn a_copy_of_a_node_that_runs_is_refused_whichever_node_it_is_of() {
    let place = Place::new();
    let mut members = three(place.dir.path());
    let leads = leader(&members[0]).expect("a leader");
    members.sort_by_key(|member| member.id() != leads);
    for (of, name) in [(0, "copy-of-the-leader"), (1, "copy-of-a-follower")] {
        let said = copy(&members[of], place.dir.path(), name).refused(&PEERS);
        is_told(&said);
    }
    // Nobody who was there has noticed anything, and a restart is still what it was.
    members[0].kill();
    members[0].start(&PEERS);
    settled(&members[0], 3);
}

#[test]
fn of_two_copies_that_start_at_once_one_stays_and_an_old_copy_never_comes_back() {
    let place = Place::new();
    let mut members = three(place.dir.path());
    let leads = leader(&members[0]).expect("a leader");
    members.sort_by_key(|member| member.id() != leads);
    let mut others = members.split_off(1);
    let mut first = members.remove(0);
    first.kill();
    let mut second = copy(&first, place.dir.path(), "second");
    let old = copy(&first, place.dir.path(), "old");
    first.spawn(&PEERS);
    second.spawn(&PEERS);
    let mut two = [first, second];
    let gone = wait_for("one of them to end", || two.iter_mut().position(|it| it.has_ended().is_some()));
    is_told(&two[gone].said());
    let [first, second] = two;
    let (mut stays, gone) = if gone == 0 { (second, first) } else { (first, second) };
    stays.ready();
    settled(&stays, 3);
    // Neither the one that was refused nor a third copy comes back, also when the one that counts is away.
    let addresses: Vec<String> = others.iter().chain([&stays]).map(Member::peer_address).collect();
    stays.kill();
    for copy in [old, gone] {
        let mut copy = copy;
        is_told(&copy.refused(&PEERS));
    }
    // And not when the others have forgotten what they had in memory.
    // All come back where they were: nobody is left who could tell where the others are.
    others.push(stays);
    restart_all(&mut others, &addresses);
    let stays = others.pop().expect("there");
    settled(&stays, 3);
}

#[test]
fn a_node_that_was_frozen_while_its_copy_took_its_place_ends_when_it_thaws() {
    use rustix::process::{Signal, kill_process};
    let place = Place::new();
    let mut members = three(place.dir.path());
    let leads = leader(&members[0]).expect("a leader");
    members.sort_by_key(|member| member.id() != leads);
    kill_process(members[0].pid(), Signal::STOP).expect("a signal");
    let mut second = copy(&members[0], place.dir.path(), "second");
    wait_for("another leader", || leader(&members[1]).filter(|leader| *leader != leads));
    second.start(&PEERS);
    settled(&second, 3);
    kill_process(members[0].pid(), Signal::CONT).expect("a signal");
    assert_eq!(members[0].ended().code(), Some(1));
    is_told(&members[0].said());
    settled(&second, 3);
}
