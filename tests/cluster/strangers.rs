//! Who does not get in at the peers' port, whatever it claims.

use caxton::peers::{Book, DialError, Lives, Peers, dial_stranger};
use caxton::trust::Credentials;
use caxton::trust::credentials::Certified;
use caxton_proto::NodeId;
use caxton_proto::peer::pb::{AnnounceRequest, Facts, HelloRequest, HoldRequest, RaftRequest};
use tonic::Code;

use crate::bench::Bench;

const STRANGER: NodeId = NodeId(0xbad);

/// Peers of a node `id` whose authority is the one in `tls`.
fn peers(bench: &Bench, tls: &std::path::Path, id: NodeId) -> (Peers, NodeId) {
    let identity = bench.node.services().identity.clone();
    let own = Certified { cluster: identity.cluster, node: id };
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
    let cluster = bench.node.services().identity.cluster.to_string();
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
    let identity = bench.node.services().identity.clone();
    let own = Certified { cluster: identity.cluster, node: STRANGER };
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
