//! The peers' port: who comes in shows a certificate of this cluster, or is a stranger who may ask to join and nothing
//! else.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use caxton_proto::NodeId;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::{debug, warn};

use super::budget::Budget;
use super::dial::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};
use super::lives::Lineage;
use super::{Copied, Peers};
use crate::trust::TlsError;
use crate::trust::credentials::CertifiedNode;

/// How many connections of nodes are open at once.
const CONNECTIONS_MAX: usize = 1_024;
/// How many connections have not said yet who they are, for each address and in all. A node does so in milliseconds.
const UNKNOWN_MAX: (usize, usize) = (32, 256);
/// How many strangers' connections are open at once, for each address and in all.
const STRANGERS_MAX: (usize, usize) = (8, 32);
/// How long a TLS handshake may take, the first byte included.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a stranger may take to ask to join, once it is connected.
const STRANGER_ASKS: Duration = Duration::from_secs(5);
/// How long a stranger may stay: long enough for a join that waits for an election.
const STRANGER_STAY: Duration = Duration::from_secs(60);
/// How many requests of one stranger are answered at once.
const STRANGER_STREAMS_MAX: u32 = 4;
/// How much a stranger may have on its way, in bytes.
const STRANGER_WINDOW_BYTES: u32 = 64 << 10;
/// How long the names and values that a stranger sends with a request may be, in bytes.
const STRANGER_HEADERS_BYTES_MAX: u32 = 8 << 10;
/// The longest message of a stranger, in bytes: it has one to send, of a few hundred.
pub const STRANGER_MESSAGE_BYTES_MAX: usize = 4 << 10;
/// How many pieces of a request without TLS are read before its connection is closed.
const PLAIN_READS_MAX: usize = 64;
/// What a TLS connection begins with: a handshake record.
const TLS_FIRST_BYTE: u8 = 0x16;
/// What somebody hears who speaks HTTP without TLS here.
const PLAIN_ANSWER: &str = "this port is for the nodes of a cluster, which speak TLS here; clients use the address that `caxton cluster members` shows for them\n";
/// How many requests of one peer are answered at once.
const STREAMS_MAX: u32 = 4_096;
/// How long a node that stops may take for the answers that it still owes its peers.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// How long to wait when the operating system cannot accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end of the connection that a request came on. In every request's extensions.
#[derive(Clone)]
pub struct Caller {
    /// The node that its certificate names; nothing for a stranger.
    pub certified: Option<NodeId>,
    /// Set by the first call, in which it says the same, and which process it is.
    pub greeted: Arc<OnceLock<Lineage>>,
    /// Cancelled when this node stops: what lasts has to end then.
    pub leaving: CancellationToken,
    /// Cancelled when a stranger has asked to join, which is the one thing that it may do.
    asked: CancellationToken,
    peers: Peers,
}

/// Why a caller is not heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotHeard {
    /// It has no certificate of a node.
    #[error("a node's certificate is needed")]
    Stranger,
    /// It has not said who it is.
    #[error("the first call of a connection says who calls")]
    Ungreeted,
    /// It is not the process that counts.
    #[error(transparent)]
    Copied(#[from] Copied),
}

impl Caller {
    /// A stranger asks to join, in a request that is whole: it may stay until it is answered.
    pub fn asks_to_join(&self) {
        self.asked.cancel();
    }

    /// The node that calls, in the process that counts.
    pub async fn node(&self) -> Result<NodeId, NotHeard> {
        let node = self.certified.ok_or(NotHeard::Stranger)?;
        self.peers.admit(node, self.greeted.get().ok_or(NotHeard::Ungreeted)?).await?;
        Ok(node)
    }
}

/// The port of one node.
pub struct Door {
    listener: TcpListener,
    peers: Peers,
    routes: Routes,
}

/// Where the door leads.
#[derive(Clone)]
pub struct Routes {
    /// For nodes of the cluster.
    pub peers: Router,
    /// For strangers, whose messages it reads up to [`STRANGER_MESSAGE_BYTES_MAX`].
    pub strangers: Router,
}

impl Door {
    /// A door that leads to `routes`.
    pub fn new(listener: TcpListener, peers: Peers, routes: Routes) -> Result<Door, TlsError> {
        // What cannot be accepted with is found now, and not at the first connection.
        peers.credentials().server()?;
        Ok(Door { listener, peers, routes })
    }

    /// Lets peers in until it is stopped; then what is under way is answered, and all connections are closed.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Infallible> {
        let Door { listener, peers, routes } = self;
        let inside = Arc::new(Inside {
            peers,
            routes,
            nodes: Semaphore::new(CONNECTIONS_MAX),
            unknown: Budget::new(UNKNOWN_MAX.0, UNKNOWN_MAX.1),
            strangers: Budget::new(STRANGERS_MAX.0, STRANGERS_MAX.1),
            stop: stop.clone(),
        });
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                accepted = listener.accept() => accepted,
            };
            let (stream, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "a peer's connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let inside = Arc::clone(&inside);
            inside.peers.jobs().clone().spawn("peer-caller", async move { inside.connection(stream, from).await });
        }
    }
}

struct Inside {
    peers: Peers,
    routes: Routes,
    /// Places for connections of nodes.
    nodes: Semaphore,
    /// Places for connections that have not said yet who they are.
    unknown: Budget,
    /// Places for connections of strangers.
    strangers: Budget,
    stop: CancellationToken,
}

impl Inside {
    async fn connection(&self, stream: TcpStream, from: SocketAddr) {
        let place = self.unknown.enter(from.ip());
        let stream = tokio::select! {
            stream = self.handshake(stream, from) => stream,
            () = place.lost() => return debug!(%from, "a connection that had not said who it is made room for others"),
        };
        drop(place);
        let Some(stream) = stream else { return };
        let certified = match self.certified(&stream) {
            Ok(certified) => certified,
            Err(why) => return warn!(%from, why, "a peer with a certificate that is not a node's of this cluster"),
        };
        match certified {
            Some(node) => {
                let Ok(_place) = self.nodes.try_acquire() else {
                    return warn!(%from, "as many peers are connected as may be; a connection is refused");
                };
                self.serve(stream, self.caller(certified), &self.routes.peers).await;
                if !self.stop.is_cancelled() {
                    self.peers.lost(node);
                }
            }
            None => self.stranger(stream, from).await,
        }
    }

    /// The TLS handshake, within its time.
    async fn handshake(&self, stream: TcpStream, from: SocketAddr) -> Option<TlsStream<TcpStream>> {
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%from, %error, "a peer's connection ended before it began");
            return None;
        }
        // Whom to trust may have changed since the last connection.
        let acceptor = match self.peers.credentials().server() {
            Ok(config) => TlsAcceptor::from(Arc::new(config)),
            Err(error) => {
                warn!(error = %crate::errors::chain(&error), "a peer cannot be let in");
                return None;
            }
        };
        let shaken = async {
            let mut first = [0];
            // Nothing at all: it has gone, or a load balancer looked whether somebody listens.
            if stream.peek(&mut first).await? == 0 {
                return Ok(None);
            }
            if first[0] != TLS_FIRST_BYTE {
                return plain(stream).await.map(|()| None);
            }
            acceptor.accept(stream).await.map(Some)
        };
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, shaken).await {
            Ok(Ok(stream)) => return stream,
            Ok(Err(error)) => debug!(%from, %error, "a peer's TLS handshake failed"),
            Err(_) => debug!(%from, "a peer's TLS handshake took too long"),
        }
        None
    }

    /// Lets a stranger ask to join, and do nothing else.
    async fn stranger(&self, stream: TlsStream<TcpStream>, from: SocketAddr) {
        let place = self.strangers.enter(from.ip());
        let caller = self.caller(None);
        let asked = caller.asked.clone();
        let silent = async {
            if tokio::time::timeout(STRANGER_ASKS, asked.cancelled()).await.is_ok() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            served = tokio::time::timeout(STRANGER_STAY, self.serve(stream, caller, &self.routes.strangers)) => {
                if served.is_err() {
                    debug!(%from, "a stranger stayed too long");
                }
            }
            () = silent => debug!(%from, "a stranger did not ask to join"),
            () = place.lost() => debug!(%from, "a stranger made room for others"),
        }
    }

    fn caller(&self, certified: Option<NodeId>) -> Caller {
        let (leaving, peers) = (self.stop.clone(), self.peers.clone());
        Caller { certified, greeted: Arc::default(), leaving, asked: CancellationToken::new(), peers }
    }

    /// Who the certificate names. rustls has checked that the cluster's authority vouches for it.
    fn certified(&self, stream: &TlsStream<TcpStream>) -> Result<Option<NodeId>, &'static str> {
        let Some(shown) = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()) else {
            return Ok(None);
        };
        let found = CertifiedNode::of(shown).ok_or("it names no node")?;
        if found.cluster != self.peers.credentials().cluster() {
            return Err("it is of another cluster");
        }
        Ok(Some(found.node))
    }

    async fn serve(&self, stream: TlsStream<TcpStream>, caller: Caller, routes: &Router) {
        let (routes, known) = (routes.clone(), caller.certified.is_some());
        let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(caller.clone());
            routes.clone().oneshot(request)
        });
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new());
        match known {
            true => builder
                .max_concurrent_streams(STREAMS_MAX)
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES),
            false => builder
                .max_concurrent_streams(STRANGER_STREAMS_MAX)
                .initial_stream_window_size(STRANGER_WINDOW_BYTES)
                .initial_connection_window_size(STRANGER_WINDOW_BYTES)
                .max_header_list_size(STRANGER_HEADERS_BYTES_MAX),
        };
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.stop.cancelled() => {
                // What was passed on to this node and is under way is answered.
                connection.as_mut().graceful_shutdown();
                tokio::time::timeout(LAST_ANSWERS, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            debug!(error = %crate::errors::chain(&error), "a peer's connection broke");
        }
    }
}

/// Tells somebody who speaks HTTP without TLS where they are.
async fn plain(mut stream: TcpStream) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        PLAIN_ANSWER.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(PLAIN_ANSWER.as_bytes()).await?;
    stream.shutdown().await?;
    // What the client still sends is read, or the answer would be lost with the connection.
    let mut rest = [0; 1_024];
    for _ in 0..PLAIN_READS_MAX {
        if stream.read(&mut rest).await? == 0 {
            break;
        }
    }
    Ok(())
}
