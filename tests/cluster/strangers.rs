//! Who does not get in at the peers' port, whatever it claims.

use caxton::errors::chain;
use caxton::peers::{Book, DialError, Lives, Peers, dial_stranger};
use caxton::trust::Credentials;
use caxton::trust::credentials::CertifiedNode;
use caxton_proto::NodeId;
use caxton_proto::log::cluster::{AnnounceNode, Command, NodeFacts};
use caxton_proto::log::{self};
use caxton_proto::peer::pb::{AnnounceRequest, Facts, HelloRequest, HoldRequest, JoinRequest, RaftRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

use crate::bench::Bench;

const STRANGER: NodeId = NodeId(0xbad);

/// Peers of a node `id` whose authority is the one in `tls`.
fn peers(bench: &Bench, tls: &std::path::Path, id: NodeId) -> (Peers, NodeId) {
    let identity = bench.node.parts().identity.clone();
    let own = CertifiedNode { cluster: identity.cluster, node: id };
    let credentials = Credentials::open(tls.to_owned(), own).expect("a certificate");
    let book = Book::open(tls);
    let lives = Lives::begin(tls, id).expect("a life");
    book.note(identity.node, bench.node.peer_address().expect("an address"));
    (Peers::new(credentials, book, lives), identity.node)
}

#[tokio::test]
async fn a_node_cannot_speak_for_another_and_nobody_without_a_certificate_for_any() {
    let bench = Bench::new(&["cluster.bind=127.0.0.1:0"]).await;
    let (peers, node) = peers(&bench, &bench.dir.path().join("tls"), STRANGER);
    let mut client = peers.client(node).await.expect("a certificate of the cluster is let in");
    let cluster = bench.node.parts().identity.cluster.to_string();
    let hello = |node: u64, to: u64, version: &str| HelloRequest {
        cluster: cluster.clone(),
        node,
        to,
        version: version.to_owned(),
        lives: vec![1],
    };
    let ours = env!("CARGO_PKG_VERSION");
    for (wrong, code) in [
        (hello(1, node.0, ours), Code::PermissionDenied),
        (hello(STRANGER.0, 1, ours), Code::PermissionDenied),
        (HelloRequest { cluster: "x".to_owned(), ..hello(STRANGER.0, node.0, ours) }, Code::PermissionDenied),
        (hello(STRANGER.0, node.0, "9.9.9"), Code::FailedPrecondition),
    ] {
        let status = client.hello(wrong.clone()).await.expect_err("a claim that is not true");
        assert_eq!(status.code(), code, "{wrong:?}: {}", status.message());
    }
    assert!(client.hello(hello(STRANGER.0, node.0, ours)).await.is_ok(), "the control");
    // What it says of another node is not noted.
    let facts = Facts {
        node: node.0,
        peer_address: "192.0.2.1:1".to_owned(),
        client_url: String::new(),
        version: ours.to_owned(),
        holds: Vec::new(),
        format: caxton_proto::Format::NEWEST.number(),
    };
    let status = client.announce(AnnounceRequest { facts: Some(facts), forwarded: false }).await;
    assert_eq!(status.expect_err("another node's facts").code(), Code::PermissionDenied);
    // Bytes that are no message of the log do no harm.
    assert!(client.raft(RaftRequest { message: vec![0xff; 100].into() }).await.is_err());

    let address = bench.node.peer_address().expect("an address");
    let mut nobody = dial_stranger(address, peers.credentials().pin()).await.expect("may ask to join");
    let status = nobody.raft(RaftRequest { message: Vec::new().into() }).await.expect_err("no certificate");
    assert_eq!(status.code(), Code::Unauthenticated);
    let hold = HoldRequest { workspace: "demo".to_owned(), root: vec![0; 32].into() };
    assert_eq!(nobody.hold(hold).await.expect_err("no certificate").code(), Code::Unauthenticated);
    let status = nobody.hello(hello(node.0, node.0, ours)).await.expect_err("no certificate");
    assert_eq!(status.code(), Code::Unauthenticated);
    bench.stop().await;
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_not_let_in_even_when_it_knows_ours() {
    let bench = Bench::new(&["cluster.bind=127.0.0.1:0"]).await;
    // It trusts our authority, and its own certificate is signed by a key of its own.
    let elsewhere = tempfile::tempdir().expect("a folder");
    let identity = bench.node.parts().identity.clone();
    let own = CertifiedNode { cluster: identity.cluster, node: STRANGER };
    Credentials::open(elsewhere.path().to_owned(), own).expect("an authority");
    std::fs::copy(bench.dir.path().join("tls/ca.pem"), elsewhere.path().join("ca.pem")).expect("copied");
    let (forger, node) = peers(&bench, elsewhere.path(), STRANGER);
    let error = forger.client(node).await.err().expect("is refused");
    assert!(matches!(*error, DialError::Hello { .. } | DialError::Handshake { .. }), "{error:?}");

    // It does not know our authority at all.
    let foreign = tempfile::tempdir().expect("a folder");
    let (stranger, node) = peers(&bench, foreign.path(), STRANGER);
    let error = stranger.client(node).await.err().expect("is refused");
    assert!(matches!(*error, DialError::Handshake { .. }), "{error:?}");

    // It means another node than the one that is there.
    let (lost, _) = peers(&bench, &bench.dir.path().join("tls"), STRANGER);
    lost.book().note(NodeId(7), bench.node.peer_address().expect("an address"));
    let error = lost.client(NodeId(7)).await.err().expect("is refused");
    assert!(matches!(*error, DialError::Certificate { .. }), "{error:?}");
    bench.stop().await;
}

/// A request to join that is whole, by a token that nobody made.
fn join(node: u64) -> JoinRequest {
    let facts = Facts {
        node,
        peer_address: "192.0.2.1:7412".to_owned(),
        client_url: "http://192.0.2.1:7411".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        holds: Vec::new(),
        format: caxton_proto::Format::NEWEST.number(),
    };
    JoinRequest {
        facts: Some(facts),
        token: "00112233aabbccdd".to_owned(),
        secret: vec![1; 32].into(),
        forwarded: false,
        join_key: vec![2; 32].into(),
    }
}

#[tokio::test]
async fn nothing_of_a_stranger_goes_into_the_log_unless_its_token_is_good() {
    let bench = Bench::new(&["cluster.bind=127.0.0.1:0"]).await;
    let (peers, _) = peers(&bench, &bench.dir.path().join("tls"), STRANGER);
    let address = bench.node.peer_address().expect("an address");
    let log = &bench.node.parts().log;
    let mut applied = log.applied();
    // What the node proposes by itself is there: who it is, and the format that it reads.
    let settled = |state: &caxton_raft::deploy_log::State| {
        state.cluster().members().len() == 1 && state.cluster().format() == caxton_proto::Format::NEWEST
    };
    while !log.read(settled) {
        applied.changed().await.expect("the node runs");
    }
    let before = *applied.borrow();
    let facts = |change: fn(&mut Facts)| {
        let mut request = join(7);
        request.facts.as_mut().map(change).expect("facts");
        request
    };
    for (what, request, code) in [
        ("a token that nobody made", join(7), Code::PermissionDenied),
        ("an id that is none", JoinRequest { token: "x".repeat(500), ..join(7) }, Code::InvalidArgument),
        ("a short secret", JoinRequest { secret: vec![1; 31].into(), ..join(7) }, Code::InvalidArgument),
        ("no key to ask again by", JoinRequest { join_key: Vec::new().into(), ..join(7) }, Code::InvalidArgument),
        ("a long address", facts(|facts| facts.peer_address = "a".repeat(301)), Code::InvalidArgument),
        ("a long URL", facts(|facts| facts.client_url = "a".repeat(301)), Code::InvalidArgument),
        ("keys that it cannot hold", facts(|facts| facts.holds = vec![1; 64]), Code::InvalidArgument),
        ("a secret of a megabyte", JoinRequest { secret: vec![1; 1 << 20].into(), ..join(7) }, Code::OutOfRange),
        ("somebody else's errand", JoinRequest { forwarded: true, ..join(7) }, Code::Unauthenticated),
    ] {
        let mut stranger = dial_stranger(address, peers.credentials().pin()).await.expect("may ask to join");
        let status = stranger.join(request).await.expect_err(what);
        assert_eq!(status.code(), code, "{what}: {status}");
    }
    assert_eq!(*log.applied().borrow(), before, "something was proposed");
    bench.stop().await;
}

#[tokio::test]
async fn a_token_that_was_used_lets_nobody_in_who_knows_the_id_of_the_node_that_used_it() {
    let bench = Bench::new(&["cluster.bind=127.0.0.1:0"]).await;
    let (peers, _) = peers(&bench, &bench.dir.path().join("tls"), STRANGER);
    let address = bench.node.peer_address().expect("an address");
    let cluster = &bench.node.parts().cluster;
    let (ticket, _) = cluster.issue(std::time::Duration::from_secs(60), 1, "test").await.expect("a token");
    let by_ticket = |key: u8| JoinRequest {
        token: ticket.id.clone(),
        secret: ticket.secret().to_vec().into(),
        join_key: vec![key; 32].into(),
        ..join(7)
    };
    let mut client = dial_stranger(address, peers.credentials().pin()).await.expect("may ask to join");
    let let_in = client.join(by_ticket(1)).await.expect("the token is good").into_inner();
    assert!(let_in.keys.contains_key("tls/ca.key"), "the control: whoever is let in gets the keys");
    // Its first answer got lost.
    client.join(by_ticket(1)).await.expect("the same node asks again");
    // Another one, with all but the key that the node drew.
    let status = client.join(by_ticket(2)).await.expect_err("another node");
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    assert!(status.message().contains("belongs to the cluster already"), "{status}");
    // The node arrives: from then on not even the same key.
    let facts = NodeFacts {
        node: NodeId(7),
        peer_address: "192.0.2.1:7412".to_owned(),
        client_url: "http://192.0.2.1:7411".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        holds: Vec::new(),
        format: caxton_proto::Format::NEWEST,
    };
    let announce = log::Command::Cluster(Command::AnnounceNode(AnnounceNode { facts, time_ms: 1 }));
    bench.node.parts().log.propose(&announce).await.expect("announced");
    for key in [1, 2] {
        let status = client.join(by_ticket(key)).await.expect_err("a used token");
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    }
    bench.stop().await;
}

#[tokio::test]
async fn connections_that_say_nothing_keep_neither_nodes_nor_joiners_out() {
    let bench = Bench::new(&["cluster.bind=127.0.0.1:0"]).await;
    let (peers, node) = peers(&bench, &bench.dir.path().join("tls"), STRANGER);
    let address = bench.node.peer_address().expect("an address").to_owned();
    let pin = peers.credentials().pin();
    // Far more than any budget: without a byte, in the middle of a handshake, and shaken without a question.
    let mut idle = Vec::new();
    for number in 0..400u32 {
        let mut stream = TcpStream::connect(&address).await.expect("the system takes it");
        if number % 2 == 1 {
            stream.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00]).await.expect("written");
        }
        idle.push(stream);
    }
    let mut silent = Vec::new();
    for _ in 0..60 {
        silent.extend(dial_stranger(&address, pin).await.ok());
    }
    assert!(peers.client(node).await.is_ok(), "a node is kept out");
    let mut joiner = dial_stranger(&address, pin).await.expect("a joiner is kept out");
    assert_eq!(joiner.join(join(7)).await.expect_err("not its token").code(), Code::PermissionDenied);
    // Those who only wait are closed.
    let mut closed = 0;
    for stream in &mut idle {
        let mut byte = [0];
        if tokio::time::timeout(std::time::Duration::from_secs(60), stream.read(&mut byte)).await.is_ok() {
            closed += 1;
        }
    }
    assert_eq!(closed, idle.len(), "idle connections stay open");
    bench.stop().await;
}

#[tokio::test]
async fn somebody_who_takes_one_port_for_the_other_is_told() {
    let bench = Bench::new(&["cluster.bind=127.0.0.1:0", "tls.mode=always"]).await;
    let ask = async |address: &str| {
        let mut stream = TcpStream::connect(address).await.expect("somebody listens");
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    };
    let said = ask(bench.node.peer_address().expect("an address")).await;
    assert!(said.starts_with("HTTP/1.1 400") && said.contains("for the nodes of a cluster"), "{said}");
    let said = ask(&bench.node.addr().to_string()).await;
    assert!(said.starts_with("HTTP/1.1 400") && said.contains("write https://"), "{said}");
    // A node that joins at the port for clients.
    let (peers, _) = peers(&bench, &bench.dir.path().join("tls"), STRANGER);
    let pin = peers.credentials().pin();
    let error = dial_stranger(&bench.node.addr().to_string(), pin).await.err().expect("it is another port");
    let why = chain(&error);
    assert!(why.contains("may be the port for clients"), "{why}");
    let plain = Bench::new(&["cluster.bind=127.0.0.1:0"]).await;
    let error = dial_stranger(&plain.node.addr().to_string(), pin).await.err().expect("it speaks no TLS");
    let why = chain(&error);
    assert!(why.contains("may be the port for clients"), "{why}");
    plain.stop().await;
    bench.stop().await;
}
