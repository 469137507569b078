//! A cluster that a machine sets up: the same command on every node, and a secret instead of tokens.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use crate::run::Place;
use crate::support::{Member, settled, text};

/// Ports that are free now. Another process could take one before a node does; then the test says so.
fn free_ports() -> [u16; 3] {
    let held = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    held.map(|held| held.local_addr().expect("its address").port())
}

#[test]
fn nodes_with_the_same_secret_find_together_and_the_founder_founds_once() {
    let place = Place::new();
    let secret = place.dir.path().join("secret");
    std::fs::write(&secret, "0123456789abcdef0123456789abcdef\n").expect("written");
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).expect("set");
    let ports = free_ports();
    let addresses = ports.map(|port| format!("127.0.0.1:{port}"));
    let all = addresses.join(",");
    let args = |index: usize| {
        let mut args = vec!["--peers", &addresses[index], "--join", &all, "--secret-file", text(&secret)];
        if index == 0 {
            args.push("--found");
        }
        args
    };
    let mut members = ["one", "two", "three"].map(|name| Member::new(place.dir.path(), name));
    // The founder comes last: the others wait for it.
    for index in [2, 1, 0] {
        members[index].spawn(&args(index));
    }
    members.iter_mut().for_each(Member::ready);
    let status = settled(&members[0], 3);
    assert_eq!(status["members"].as_array().expect("members").len(), 3, "{status}");
    let cluster = status["cluster"].clone();

    // Its disk is lost: told to found or to join, it joins what is there.
    let old = members[0].id();
    members[0].kill();
    std::fs::remove_dir_all(&members[0].data).expect("removed");
    members[0].start(&args(0));
    assert_ne!(members[0].id(), old, "a wiped disk is a new node");
    members[1].run(&["cluster", "remove", &old]).ok();
    let status = settled(&members[1], 3);
    assert_eq!(status["cluster"], cluster);
    let nodes = status["members"].as_array().expect("members");
    assert!(nodes.len() == 3 && nodes.iter().all(|node| node["node"] != old), "{status}");

    let other = place.dir.path().join("other");
    std::fs::write(&other, "another secret, which is as long as it has to be").expect("written");
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o600)).expect("set");
    let mut stranger = Member::new(place.dir.path(), "stranger");
    let said = stranger.refused(&["--peers", "127.0.0.1:0", "--join", &all, "--secret-file", text(&other)]);
    assert!(said.contains("does not belong to the cluster that the token or the secret is for"), "{said}");
}
