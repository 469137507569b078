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
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::{debug, warn};

use super::dial::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};
use super::lives::Lineage;
use super::{Copied, Peers};
use crate::trust::TlsError;
use crate::trust::credentials::Certified;

/// How many connections are open at once.
const CONNECTIONS_MAX: usize = 1_024;
/// How many of them may be strangers'.
const STRANGERS_MAX: usize = 32;
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a stranger may stay: long enough for a join that waits for an election.
const STRANGER_STAY: Duration = Duration::from_secs(60);
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
    routes: Router,
}

impl Door {
    /// A door that leads to `routes`.
    pub fn new(listener: TcpListener, peers: Peers, routes: Router) -> Result<Door, TlsError> {
        // What cannot be accepted with is found now, and not at the first connection.
        peers.credentials().server()?;
        Ok(Door { listener, peers, routes })
    }

    /// Lets peers in until it is stopped; then what is under way is answered, and all connections are closed.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Infallible> {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let strangers = Arc::new(Semaphore::new(STRANGERS_MAX));
        let Door { listener, peers, routes } = self;
        let inside = Arc::new(Inside { peers, routes, strangers, stop: stop.clone() });
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
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                warn!(%from, "as many peers are connected as may be; a connection is refused");
                continue;
            };
            let inside = Arc::clone(&inside);
            inside.peers.jobs().clone().spawn("peer-caller", async move {
                let _place = place;
                inside.connection(stream, from).await;
            });
        }
    }
}

struct Inside {
    peers: Peers,
    routes: Router,
    strangers: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Inside {
    async fn connection(&self, stream: TcpStream, from: SocketAddr) {
        if let Err(error) = stream.set_nodelay(true) {
            return debug!(%from, %error, "a peer's connection ended before it began");
        }
        // Whom to trust may have changed since the last connection.
        let acceptor = match self.peers.credentials().server() {
            Ok(config) => TlsAcceptor::from(Arc::new(config)),
            Err(error) => return warn!(error = %crate::errors::chain(&error), "a peer cannot be let in"),
        };
        let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return debug!(%from, %error, "a peer's TLS handshake failed"),
            Err(_) => return debug!(%from, "a peer's TLS handshake took too long"),
        };
        let certified = match self.certified(&stream) {
            Ok(certified) => certified,
            Err(why) => return warn!(%from, why, "a peer with a certificate that is not a node's of this cluster"),
        };
        if let Some(node) = certified {
            self.serve(stream, certified).await;
            if !self.stop.is_cancelled() {
                self.peers.lost(node);
            }
            return;
        }
        let Ok(_place) = self.strangers.try_acquire() else {
            return warn!(%from, "as many strangers are connected as may be; a connection is refused");
        };
        if tokio::time::timeout(STRANGER_STAY, self.serve(stream, None)).await.is_err() {
            debug!(%from, "a stranger stayed too long");
        }
    }

    /// Who the certificate names. rustls has checked that the cluster's authority vouches for it.
    fn certified(&self, stream: &TlsStream<TcpStream>) -> Result<Option<NodeId>, &'static str> {
        let Some(shown) = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()) else {
            return Ok(None);
        };
        let found = Certified::of(shown).ok_or("it names no node")?;
        if found.cluster != self.peers.credentials().cluster() {
            return Err("it is of another cluster");
        }
        Ok(Some(found.node))
    }

    async fn serve(&self, stream: TlsStream<TcpStream>, certified: Option<NodeId>) {
        let (leaving, peers) = (self.stop.clone(), self.peers.clone());
        let caller = Caller { certified, greeted: Arc::default(), leaving, peers };
        let routes = self.routes.clone();
        let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(caller.clone());
            routes.clone().oneshot(request)
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .serve_connection(TokioIo::new(stream), service);
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
