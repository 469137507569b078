//! A cluster that a machine sets up: the same command on every node, and a secret instead of tokens.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use caxton::peers::{Channel, VERSION, dial_stranger};
use caxton::trust::SharedSecret;
use caxton_proto::peer::pb::peer_client::PeerClient;
use caxton_proto::peer::pb::{Facts, JoinReply, JoinRequest};
use tonic::Code;

use crate::bench::{Bench, DEADLINE};
use crate::run::Place;
use crate::support::{Member, settled, text};

/// A file with a cluster's secret.
fn secret_in(folder: &Path, secret: &str) -> PathBuf {
    let path = folder.join("secret");
    std::fs::write(&path, secret).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("set");
    path
}

/// Ports that are free now. Another process could take one before a node does; then the test says so.
fn free_ports() -> [u16; 3] {
    let held = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    held.map(|held| held.local_addr().expect("its address").port())
}

#[test]
fn nodes_with_the_same_secret_find_together_and_the_founder_founds_once() {
    let place = Place::new();
    let secret = secret_in(place.dir.path(), "0123456789abcdef0123456789abcdef\n");
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
    members[1].run(&["cluster", "remove", &old, "--yes"]).ok();
    let status = settled(&members[1], 3);
    assert_eq!(status["cluster"], cluster);
    let nodes = status["members"].as_array().expect("members");
    assert!(nodes.len() == 3 && nodes.iter().all(|node| node["node"] != old), "{status}");

    let other = tempfile::tempdir().expect("a folder");
    let other = secret_in(other.path(), "another secret, which is as long as it has to be");
    let mut stranger = Member::new(place.dir.path(), "stranger");
    let said = stranger.refused(&["--peers", "127.0.0.1:0", "--join", &all, "--secret-file", text(&other)]);
    assert!(said.contains("does not belong to the cluster that the token or the secret is for"), "{said}");
}

/// Asks a node that is only starting to be let in, as fast as it answers, until it says yes.
async fn press(address: &str, secret: &SharedSecret) -> JoinReply {
    let facts = Facts {
        node: 0x0e7,
        peer_address: "127.0.0.1:1".to_owned(),
        client_url: "https://127.0.0.1:1".to_owned(),
        version: VERSION.to_owned(),
        holds: Vec::new(),
        format: caxton_proto::Format::NEWEST.number(),
    };
    let credential = secret.credential().to_vec();
    let request = JoinRequest {
        facts: Some(facts),
        token: String::new(),
        secret: credential.into(),
        forwarded: false,
        join_key: vec![7; 32].into(),
    };
    let mut client: Option<PeerClient<Channel>> = None;
    loop {
        let Some(open) = &mut client else {
            client = dial_stranger(address, secret.pin()).await.ok();
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        };
        match open.join(request.clone()).await {
            Ok(reply) => return reply.into_inner(),
            Err(status) if status.code() == Code::Unavailable => tokio::task::yield_now().await,
            Err(status) => panic!("refused for good: {status}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_founder_is_a_member_before_anybody_else_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = secret_in(folder.path(), "0123456789abcdef0123456789abcdef\n");
    let secret = SharedSecret::read(&path).expect("a secret");
    let address = format!("127.0.0.1:{}", free_ports()[0]);
    caxton::trust::install_provider();
    let pressing = tokio::spawn({
        let address = address.clone();
        async move { press(&address, &secret).await }
    });
    let (bind, file) = (format!("cluster.bind={address}"), format!("cluster.secret_file={}", text(&path)));
    let bench = Bench::new(&[&bind, &file, "cluster.found=true"]).await;
    let reply = tokio::time::timeout(DEADLINE, pressing).await.expect("in time").expect("let in");
    let own = bench.node.parts().identity.node.0;
    let founder = reply.members.iter().find(|member| member.node == own);
    assert_eq!(founder.map(|it| it.peer_address.as_str()), Some(address.as_str()), "{:?}", reply.members);
    bench.stop().await;
}
