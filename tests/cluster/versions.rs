//! Which versions of the binary connect to each other: over real connections, from both sides, and in joining.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::routing::post;
use bytes::Bytes;
use caxton::peers::door::{Door, Routes};
use caxton::peers::{Book, DialError, Lives, Peers, VERSION, dial_stranger};
use caxton::trust::Credentials;
use caxton::trust::credentials::CertifiedNode;
use caxton_proto::NodeId;
use caxton_proto::peer::pb::peer_client::PeerClient;
use caxton_proto::peer::pb::{Facts, HelloReply, HelloRequest, JoinRequest, RaftRequest};
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use prost::Message;
use rustls::pki_types::ServerName;
use semver::Version;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::bench::Bench;

const OTHER: NodeId = NodeId(0x07e4);

/// Versions, and whether this one may be in a cluster with them.
fn versions() -> Vec<(String, bool)> {
    let own = Version::parse(VERSION).expect("a version");
    let (major, minor) = (own.major, own.minor);
    let mut versions = vec![
        (VERSION.to_owned(), true),
        (format!("{major}.{minor}.99"), true),
        (format!("{major}.{}.0", minor + 1), true),
        (format!("{major}.{}.0", minor + 2), false),
        (format!("{}.{minor}.0", major + 1), false),
        (String::new(), false),
    ];
    versions.extend(minor.checked_sub(1).map(|minor| (format!("{major}.{minor}.0"), true)));
    versions.extend(minor.checked_sub(2).map(|minor| (format!("{major}.{minor}.0"), false)));
    versions
}

/// What the node `id` shows, certified by the authority of the bench's node.
fn credentials(bench: &Bench, id: NodeId) -> Credentials {
    let own = CertifiedNode { cluster: bench.node.parts().identity.cluster, node: id };
    Credentials::open(bench.dir.path().join("tls"), own).expect("a certificate")
}

/// A connection to the bench's node with a certificate of its cluster, on which nothing was said yet.
async fn connection(bench: &Bench) -> PeerClient<Channel> {
    let config = Arc::new(credentials(bench, OTHER).client(bench.node.parts().identity.node).expect("settings"));
    let address = bench.node.peer_address().expect("an address").to_owned();
    let connector = tower::service_fn(move |_| {
        let (config, address) = (Arc::clone(&config), address.clone());
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from("caxton.peer").expect("a name");
            Ok::<_, std::io::Error>(TokioIo::new(TlsConnector::from(config).connect(name, stream).await?))
        }
    });
    let channel = Endpoint::from_static("http://caxton.peer").connect_with_connector(connector).await;
    PeerClient::new(channel.expect("a certificate of the cluster is let in"))
}

#[tokio::test]
async fn a_caller_of_another_version_is_refused_and_one_minor_apart_is_not() {
    let bench = Bench::new(&["cluster.bind=127.0.0.1:0"]).await;
    let identity = bench.node.parts().identity.clone();
    for (version, allowed) in versions() {
        let mut client = connection(&bench).await;
        let hello = HelloRequest {
            cluster: identity.cluster.to_string(),
            node: OTHER.0,
            to: identity.node.0,
            version: version.clone(),
            lives: vec![1],
        };
        let answer = client.hello(hello).await;
        // Bytes that are no message of the log: what matters is whether they are looked at.
        let heard = client.raft(RaftRequest { message: vec![0xff; 100].into() }).await.expect_err("no message").code();
        if allowed {
            assert_eq!(answer.expect("is let in").into_inner().version, VERSION, "to {version:?}");
            assert_eq!(heard, Code::FailedPrecondition, "after {version:?}");
        } else {
            let status = answer.expect_err("is refused");
            assert_eq!(status.code(), Code::FailedPrecondition, "{version:?}: {status}");
            let why = status.message();
            assert!(why.contains(VERSION) && why.contains(&version) && why.contains("one minor version"), "{why}");
            assert_eq!(heard, Code::Unauthenticated, "after {version:?}");
        }
    }
    bench.stop().await;
}

/// The answer to a first call, as a node of `version` gives it, which minds nobody's version.
fn hello_of(version: &str, cluster: String) -> Response<Body> {
    let reply = HelloReply { cluster, node: OTHER.0, version: version.to_owned(), lives: vec![1] };
    let message = reply.encode_to_vec();
    let framed = [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat();
    let trailers = HeaderMap::from_iter([("grpc-status".parse().expect("a name"), HeaderValue::from_static("0"))]);
    let frames = [Frame::data(Bytes::from(framed)), Frame::trailers(trailers)].map(Ok::<_, Infallible>);
    let body = Body::new(StreamBody::new(futures::stream::iter(frames)));
    Response::builder().header("content-type", "application/grpc").body(body).expect("an answer")
}

#[tokio::test]
async fn a_node_that_is_called_and_has_another_version_is_left_alone_and_one_minor_apart_is_not() {
    let bench = Bench::new(&["cluster.bind=127.0.0.1:0"]).await;
    let cluster = bench.node.parts().identity.cluster.to_string();
    for (version, allowed) in versions() {
        let (folder, stop) = (tempfile::tempdir().expect("a folder"), CancellationToken::new());
        let peers = |id: NodeId| {
            let dir = folder.path().join(id.to_string());
            std::fs::create_dir_all(&dir).expect("a folder");
            Peers::new(credentials(&bench, id), Book::open(&dir), Lives::begin(&dir, id).expect("a life"))
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address").to_string();
        let (says, of) = (version.clone(), cluster.clone());
        let hello = post(move || async move { hello_of(&says, of) });
        let routes = Router::new().route("/caxton.peer.v1.Peer/Hello", hello);
        let door =
            Door::new(listener, peers(OTHER), Routes { peers: routes, strangers: Router::new() }).expect("a door");
        let open = tokio::spawn(door.run(stop.clone()));

        let caller = peers(NodeId(1));
        caller.book().note(OTHER, &address);
        match caller.client(OTHER).await {
            Ok(_) => assert!(allowed, "{version:?} was taken"),
            Err(error) => {
                assert!(!allowed, "{version:?}: {error:?}");
                assert!(matches!(&*error, DialError::Version { version: named, .. } if *named == version), "{error:?}");
                let why = error.to_string();
                assert!(why.contains(&address) && why.contains(VERSION) && why.contains("one minor version"), "{why}");
            }
        }
        stop.cancel();
        open.await.expect("it ends").expect("and well");
    }
    bench.stop().await;
}

#[tokio::test]
async fn a_node_of_another_version_may_not_join_and_hears_why() {
    let bench = Bench::new(&["cluster.bind=127.0.0.1:0"]).await;
    let address = bench.node.peer_address().expect("an address");
    let pin = credentials(&bench, OTHER).pin();
    for (version, allowed) in versions() {
        let mut client = dial_stranger(address, pin).await.expect("may ask to join");
        let (peer_address, client_url) = ("192.0.2.1:7412".to_owned(), "http://192.0.2.1:7411".to_owned());
        let facts = Facts {
            node: OTHER.0,
            peer_address,
            client_url,
            version: version.clone(),
            holds: Vec::new(),
            format: caxton_proto::Format::NEWEST.number(),
        };
        let (token, secret) = ("00112233aabbccdd".to_owned(), vec![0; 32].into());
        let join = JoinRequest { facts: Some(facts), token, secret, forwarded: false, join_key: vec![7; 32].into() };
        let status = client.join(join).await.expect_err("the token is nobody's");
        if allowed {
            assert_eq!(status.code(), Code::PermissionDenied, "{version:?}: {status}");
        } else {
            assert_eq!(status.code(), Code::FailedPrecondition, "{version:?}: {status}");
            assert!(status.message().contains("one minor version"), "{status}");
        }
    }
    bench.stop().await;
}
