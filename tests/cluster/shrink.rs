//! Taking nodes out: one after the other, at once, down to the last, and whichever leads. No group is left without a
//! leader, nothing that was deployed is lost, and every node that goes ends well by itself.

use std::path::{Path, PathBuf};

use crate::run::{Place, Ran, agent, wait_for};
use crate::support::{Member, founder, read, settled, spread, text, token};

/// Enough that every one of the eight shards has one, or nearly.
const WORKSPACES: usize = 16;

/// Members that are settled, with leaders spread over the voters.
pub fn cluster(home: &Path, size: usize) -> Vec<Member> {
    let (one, address) = founder(home);
    let mut members = vec![one];
    if size > 1 {
        let file = token(&members[0], &["--uses", &(size - 1).to_string()]);
        members.extend((1..size).map(|number| Member::new(home, &format!("n{number}"))));
        for member in &mut members[1..] {
            member.spawn(&["--peers", "127.0.0.1:0", "--join", &address, "--token-file", text(&file)]);
        }
        members[1..].iter_mut().for_each(Member::ready);
    }
    settled(&members[0], if size % 2 == 1 { size.min(5) } else { size - 1 });
    if size % 2 == 1 {
        spread(&members.iter().collect::<Vec<_>>());
    }
    members
}

pub fn workspaces(home: &Path) -> Vec<(String, PathBuf)> {
    let one = |number: usize| {
        let name = format!("w{number}");
        let root = home.join(&name);
        std::fs::create_dir_all(root.join("agents")).expect("a folder");
        std::fs::write(root.join("caxton.toml"), format!("[workspace]\nname = \"{name}\"\n")).expect("written");
        std::fs::write(root.join("agents/greeter.toml"), agent("greeter", "1.0.0")).expect("written");
        (name, root)
    };
    (0..WORKSPACES).map(one).collect()
}

pub fn deploy_all(by: &Member, workspaces: &[(String, PathBuf)]) {
    for (name, root) in workspaces {
        wait_for(&format!("{name} to be deployed"), || {
            let ran = by.run_in(root, &["deploy", "--yes"]);
            (ran.code == Some(0)).then_some(())
        });
    }
}

/// Everything that was deployed is served by `last`, which is all that is left, and every shard answers.
pub fn all_is_there(last: &Member, workspaces: &[(String, PathBuf)]) {
    settled(last, 1);
    for (name, root) in workspaces {
        wait_for(&format!("{name} to be served"), || {
            let body = read(last, &format!("/api/v1/workspaces/{name}"))?;
            (body["serving"]["state"] == "live" && body["serving"]["revision"] == 1).then_some(())
        });
        let said = wait_for(&format!("the shard of {name}"), || {
            read(last, &format!("/api/v1/workspaces/{name}/conversations"))
        });
        assert!(said["conversations"].is_array(), "{name}: {said}");
        // Every file of it is here, and not only its name.
        let copy = root.with_extension("pulled");
        std::fs::create_dir_all(&copy).expect("a folder");
        std::fs::write(copy.join("caxton.toml"), std::fs::read(root.join("caxton.toml")).expect("read"))
            .expect("written");
        let ran = last.run_in(&copy, &["pull"]);
        assert!(ran.code == Some(0) && copy.join("agents/greeter.toml").exists(), "{name}: {ran:?}");
    }
}

fn left(ran: &Ran, member: &mut Member) {
    assert_eq!(ran.code, Some(0), "{} does not leave: {ran:?}", member.name);
    assert!(ran.stdout.contains("does not belong to the cluster any more"), "{ran:?}");
    assert!(member.ended().success(), "{}", member.said());
    assert!(member.said().contains("this node has left the cluster"), "{}", member.said());
}

#[test]
fn three_nodes_become_one_when_two_leave_right_after_each_other() {
    let place = Place::new();
    let mut members = cluster(place.dir.path(), 3);
    let workspaces = workspaces(place.dir.path());
    deploy_all(&members[1], &workspaces);
    for at in [2, 1] {
        let ran = members[at].run(&["cluster", "leave", "--yes"]);
        left(&ran, &mut members[at]);
    }
    all_is_there(&members[0], &workspaces);
}

#[test]
fn three_nodes_become_one_when_two_are_removed_right_after_each_other() {
    let place = Place::new();
    let mut members = cluster(place.dir.path(), 3);
    let workspaces = workspaces(place.dir.path());
    deploy_all(&members[0], &workspaces);
    for at in [0, 1] {
        let id = members[at].id();
        let ran = members[2].run(&["cluster", "remove", &id, "--yes"]);
        left(&ran, &mut members[at]);
    }
    all_is_there(&members[2], &workspaces);
}

#[test]
fn three_nodes_become_one_when_two_leave_at_once() {
    let place = Place::new();
    let mut members = cluster(place.dir.path(), 3);
    let workspaces = workspaces(place.dir.path());
    deploy_all(&members[2], &workspaces);
    leave_at_once(&mut members, &[0, 1]);
    all_is_there(&members[2], &workspaces);
}

#[test]
fn five_nodes_become_one_when_four_leave_at_once_and_lose_their_disks() {
    let place = Place::new();
    let mut members = cluster(place.dir.path(), 5);
    let workspaces = workspaces(place.dir.path());
    deploy_all(&members[3], &workspaces);
    leave_at_once(&mut members, &[0, 1, 2, 3]);
    all_is_there(&members[4], &workspaces);
}

/// Each of them leaves, and its disk is gone as soon as it has.
fn leave_at_once(members: &mut [Member], who: &[usize]) {
    let ran: Vec<(usize, Ran)> = std::thread::scope(|scope| {
        let leaving: Vec<_> = who
            .iter()
            .map(|at| {
                let member = &members[*at];
                scope.spawn(move || (*at, member.run(&["cluster", "leave", "--yes"])))
            })
            .collect();
        leaving.into_iter().map(|leaving| leaving.join().expect("it ends")).collect()
    });
    for (at, ran) in ran {
        left(&ran, &mut members[at]);
        std::fs::remove_dir_all(&members[at].data).expect("wiped");
    }
}

#[test]
fn of_two_nodes_the_one_that_votes_leaves_and_the_other_goes_on() {
    let place = Place::new();
    let mut members = cluster(place.dir.path(), 2);
    let workspaces = workspaces(place.dir.path());
    deploy_all(&members[1], &workspaces);
    let status = settled(&members[1], 1);
    let votes = status["groups"][0]["voters"][0].as_str().expect("a voter").to_owned();
    let at = members.iter().position(|member| member.id() == votes).expect("a member");
    let ran = members[at].run(&["cluster", "leave", "--yes"]);
    left(&ran, &mut members[at]);
    all_is_there(&members[1 - at], &workspaces);
}

#[test]
fn a_node_that_nobody_can_replace_stays_and_says_what_it_waits_for() {
    let place = Place::new();
    let mut members = cluster(place.dir.path(), 2);
    let workspaces = workspaces(place.dir.path());
    deploy_all(&members[0], &workspaces);
    // The one that follows is gone: nobody could take over.
    members[1].kill();
    let ran = members[0].run(&["cluster", "leave", "--yes", "--timeout", "1s"]);
    assert_eq!(ran.code, Some(7), "{ran:?}");
    assert!(
        ran.stderr.contains("is not out of the cluster yet") && ran.stderr.contains("still count on it"),
        "{ran:?}"
    );
    // Another one is not taken out meanwhile, and this one serves on.
    let gone = members[1].id();
    let ran = members[0].run(&["cluster", "remove", &gone, "--yes", "--timeout", "1s"]);
    assert!(ran.code == Some(7) && ran.stderr.contains("goes first"), "{ran:?}");
    assert!(read(&members[0], "/api/v1/workspaces/w0").is_some());
    // The other one is back, and takes over.
    members[1].start(&crate::support::PEERS);
    let ran = members[0].run(&["cluster", "leave", "--yes"]);
    left(&ran, &mut members[0]);
    all_is_there(&members[1], &workspaces);
}
