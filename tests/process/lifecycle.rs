//! Starting and stopping: SIGTERM, a data directory that is in use, a port that is taken.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use crate::run::{Node, Place, wait_for};

#[test]
fn sigterm_stops_a_node_and_it_starts_again_with_everything() {
    let place = Place::new();
    let workspace = place.workspace("work");
    let node = Node::start(&place.data());
    assert_eq!(workspace.deploy().json()["revision"], 1);
    let ended = node.terminate();
    assert!(ended.success(), "a graceful stop is a success: {ended}");
    assert_eq!(workspace.run(&["log"]).code, Some(6), "nobody answers after the stop");

    let _node = Node::start(&place.data());
    let status = workspace.run(&["status", "--json"]).json();
    assert_eq!(status["live"]["revision"], 1);
    assert_eq!(status["local"], serde_json::json!([]));
}

#[test]
fn a_stop_waits_for_a_deployment_that_is_under_way() {
    let place = Place::new();
    let workspace = place.workspace("work");
    let node = Node::start(&place.data());
    // Enough for the deployment to be in the middle of something when the signal comes.
    for n in 0..200 {
        workspace.write(&format!("agents/a{n}.toml"), crate::run::agent(&format!("a{n}"), "1.0.0"));
    }
    let ran = std::thread::scope(|scope| {
        let deploy = scope.spawn(|| workspace.deploy());
        let events = format!("{}/health", node.url);
        wait_for("the node to answer", || {
            workspace.run(&["health", "--server", events.trim_end_matches("/health")]).code
        });
        assert!(node.terminate().success());
        deploy.join().expect("the command ran")
    });
    let _node = Node::start(&place.data());
    let live = workspace.run(&["status", "--json"]).json();
    match ran.code {
        Some(0) => assert_eq!(live["live"]["revision"], 1, "an acknowledged deployment is lost"),
        Some(6 | 7) => assert!(live["live"].is_null() || live["live"]["revision"] == 1),
        _ => panic!("neither done nor refused: {ran:#?}"),
    }
}

#[test]
fn a_second_signal_ends_a_node_at_once() {
    let place = Place::new();
    let node = Node::start_with(&place.data(), &[("CAXTON_STOP_GRACE", "10m")]);
    // A request whose body never comes holds the graceful stop up for as long as it is allowed to.
    let mut stream = TcpStream::connect(node.url.trim_start_matches("http://")).expect("a connection");
    let token = std::fs::read_to_string(place.data().join("admin-token")).expect("the token");
    let head = format!(
        "PUT /api/v1/workspaces/demo/artifacts HTTP/1.1\r\nHost: n\r\nAuthorization: Bearer {}\r\n\
         Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n",
        token.trim()
    );
    stream.write_all(head.as_bytes()).expect("sent");
    // The node asks for the body: the request is being answered.
    let mut asked = [0; 12];
    stream.read_exact(&mut asked).expect("an answer");
    assert_eq!(&asked, b"HTTP/1.1 100");
    node.ask_to_stop();
    let log = place.data().with_file_name("serve.log");
    wait_for("the stop to begin", || std::fs::read_to_string(&log).ok()?.contains("stopping").then_some(()));
    let ended = node.terminate();
    assert_eq!(ended.code(), Some(130), "{ended}");
}

#[test]
fn two_nodes_do_not_share_a_data_directory() {
    let place = Place::new();
    let node = Node::start(&place.data());
    let second = Node::refused(&place.data(), &["--bind", "127.0.0.1:0"]);
    assert!(second.code.is_some_and(|code| code != 0), "{second:#?}");
    for part in ["error", "help", &place.data().display().to_string()] {
        assert!(second.stderr.contains(part), "`{part}` is not said: {}", second.stderr);
    }
    // The first one is unharmed, and its address is still the one on record.
    let workspace = place.workspace("work");
    assert_eq!(workspace.deploy().json()["revision"], 1);
    assert!(std::fs::read_to_string(place.data().join("server.json")).expect("the file").contains(&node.url));
}

#[test]
fn a_port_that_is_taken_is_named() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let refused = Node::refused(&place.data(), &["--bind", &address]);
    assert!(refused.code.is_some_and(|code| code != 0), "{refused:#?}");
    for part in ["error", "help", &address] {
        assert!(refused.stderr.contains(part), "`{part}` is not said: {}", refused.stderr);
    }
}
