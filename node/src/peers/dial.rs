//! Making a connection to another node: TCP, TLS, HTTP/2, and the first call, in which both say who they are.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use caxton_proto::Digest;
use caxton_proto::NodeId;
use caxton_proto::peer::can_speak;
use caxton_proto::peer::pb::HelloRequest;
use caxton_proto::peer::pb::peer_client::PeerClient;
use caxton_proto::refusal::Refusal;
use futures::future::BoxFuture;
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tracing::debug;

use super::line::Line;
use super::lives::Lineage;
use super::refusal;
use super::{Book, Copied, Lives, MESSAGE_BYTES_MAX, SKEW_RULE, VERSION};
use crate::tasks::Jobs;
use crate::trust::TlsError;
use crate::trust::credentials::{self, CertificateRefused, Credentials};

/// How long it may take to make a connection, the first call included.
pub(super) const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the other side's system may take to take a connection. A network that drops packets never says no, and whoever
/// has other addresses goes on with the next.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a connection is asked whether the other end is still there.
const PING_EVERY: Duration = Duration::from_secs(2);
/// How long it may take to answer.
const PING_TIMEOUT: Duration = Duration::from_secs(4);
/// How much one request or answer may have on its way, in bytes.
pub(super) const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// How much all of a connection may have on their way, in bytes.
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
/// What stands where a URI has its host: who is meant is in the certificate.
pub(super) const ORIGIN: &str = "caxton.peer";

/// Why there is no connection to a node.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Nobody said where it is.
    #[error("nobody said yet where node {node} is")]
    NoAddress { node: NodeId },
    /// Nobody listens there.
    #[error("nobody listens at {address}")]
    Connect {
        address: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// Nothing came back, not even a no.
    #[error("nothing answers at {address} within {CONNECT_TIMEOUT:?}")]
    Silent { address: String },
    /// The other side is not whom it should be.
    #[error("{address} is not whom it should be")]
    Certificate {
        address: String,
        #[source]
        why: CertificateRefused,
    },
    /// It is certified by an authority that this node does not know.
    #[error(
        "{address} is certified by an authority that this node does not know; if the cluster's was rotated while this node was away, take the node out with `caxton cluster remove`, empty its data directory and let it join again"
    )]
    Authority { address: String },
    #[error(
        "{address} does not speak TLS, as the nodes of a cluster do among themselves; it may be the port for clients (7411 unless told otherwise), and the one for nodes is another (7412 unless told otherwise)"
    )]
    NotTls { address: String },
    /// The handshake failed.
    #[error("no connection could be made with {address}")]
    Handshake {
        address: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The other side refused the first call, or said something else than its certificate.
    #[error("{address} refuses this node: {why}")]
    Hello { address: String, why: String },
    /// It answered, and runs a version that this one does not understand.
    #[error("{address} runs version {version}, and this node {VERSION}; {SKEW_RULE}")]
    Version { address: String, version: String },
    /// It took too long.
    #[error("node {node} did not answer within {DIAL_TIMEOUT:?}")]
    TimedOut { node: NodeId },
    /// The process there is not the one that counts.
    #[error("the process that answers for node {node} is not the one that counts")]
    Copied {
        node: NodeId,
        #[source]
        why: Copied,
    },
    /// This node's own certificate cannot be used.
    #[error("this node's certificate cannot be used")]
    Own(#[from] TlsError),
}

/// A connection to a node. A clone is a handle on the same.
#[derive(Clone)]
pub struct Channel {
    sender: SendRequest<Body>,
    /// The lives of the process at the other end, as it says.
    pub(super) lineage: Lineage,
    /// The stream for the log's short messages, once there was one.
    line: Arc<Mutex<Option<Arc<Line>>>>,
    jobs: Jobs,
}

impl Channel {
    /// The other side has closed it, or it broke.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// The stream for the log's short messages; a new one when the last has ended.
    pub(super) fn line(&self) -> Arc<Line> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        match &*line {
            Some(line) if !line.has_ended() => Arc::clone(line),
            // It gets a handle without a line: one that held itself would never end.
            Some(_) | None => {
                let bare = Channel { line: Arc::default(), ..self.clone() };
                // The client goes with the call that opens the stream: the connection closes when nobody but the stream
                // needs it.
                let open = |calls| async move { client(bare).raft_line(calls).await.map(tonic::Response::into_inner) };
                Arc::clone(line.insert(Arc::new(Line::begin(&self.jobs, open))))
            }
        }
    }

    pub(super) async fn send(&mut self, request: Request<Body>) -> Result<Response<Incoming>, hyper::Error> {
        self.sender.ready().await?;
        self.sender.send_request(request).await
    }
}

impl tower::Service<Request<tonic::body::Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Response<Incoming>, hyper::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.sender.poll_ready(context)
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.sender.send_request(request.map(Body::new)))
    }
}

/// The services at the other end of a connection.
pub(super) fn client(channel: Channel) -> PeerClient<Channel> {
    let origin = Uri::builder().scheme("https").authority(ORIGIN).path_and_query("/").build().unwrap_or_default();
    PeerClient::with_origin(channel, origin)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// Makes connections as one node.
pub(super) struct Dialer {
    pub credentials: Credentials,
    pub book: Book,
    pub lives: Lives,
    /// Whether a node of the cluster said that this one was removed.
    pub removed: watch::Sender<bool>,
    /// Why this process is not the one that counts, as a node of the cluster said.
    pub copied: watch::Sender<Option<Copied>>,
    pub jobs: Jobs,
}

impl Dialer {
    /// Takes note of what a peer refused with, if it is for good.
    pub fn hear(&self, status: &tonic::Status) {
        match refusal::heard(status) {
            Some(Refusal::CopyAlive) => _ = self.copied.send_replace(Some(Copied::Alive)),
            Some(Refusal::CopyForked) => _ = self.copied.send_replace(Some(Copied::Forked)),
            Some(Refusal::Removed) => _ = self.removed.send_replace(true),
            Some(Refusal::Version | Refusal::Credential) | None => {}
        }
    }

    /// Connects to `node`, and lets it say who it is.
    pub async fn dial(&self, node: NodeId) -> Result<Channel, DialError> {
        let address = self.book.address(node).ok_or(DialError::NoAddress { node })?;
        let mut channel = connect(&address, self.credentials.client(node)?, &self.jobs).await?;
        let cluster = self.credentials.cluster().to_string();
        let hello = HelloRequest {
            cluster: cluster.clone(),
            node: self.credentials.node().0,
            to: node.0,
            version: VERSION.to_owned(),
            lives: self.lives.own().lives().to_vec(),
        };
        let refused = |why: String| DialError::Hello { address: address.clone(), why };
        let answer = client(channel.clone()).hello(hello).await;
        let answer = answer.map_err(|status| {
            self.hear(&status);
            refused(status.message().to_owned())
        });
        let answer = answer?.into_inner();
        if (answer.node, answer.cluster.as_str()) != (node.0, cluster.as_str()) {
            return Err(refused("it says that it is another node than its certificate says".to_owned()));
        }
        if !can_speak(VERSION, &answer.version) {
            return Err(DialError::Version { address: address.clone(), version: answer.version });
        }
        debug!(peer = %node, address, version = answer.version, "connected");
        channel.lineage = Lineage::of(&answer.lives);
        Ok(channel)
    }
}

/// Connects to a cluster of which nothing is known but its authority's pin.
pub async fn dial_stranger(address: &str, pin: Digest) -> Result<PeerClient<Channel>, DialError> {
    // The connection ends with the client: nobody has to stop it.
    Ok(client(connect(address, credentials::stranger(pin)?, &Jobs::default()).await?))
}

async fn connect(address: &str, config: ClientConfig, jobs: &Jobs) -> Result<Channel, DialError> {
    let address = || address.to_owned();
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address())).await;
    let stream = stream.map_err(|_| DialError::Silent { address: address() })?;
    let stream = stream.map_err(|source| DialError::Connect { address: address(), source })?;
    let broken = |source: Box<dyn std::error::Error + Send + Sync>| DialError::Handshake { address: address(), source };
    // Small messages must not wait for the acknowledgement of the ones before.
    stream.set_nodelay(true).map_err(|error| broken(error.into()))?;
    let name = ServerName::try_from(ORIGIN).map_err(|error| broken(error.into()))?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    let stream = stream.map_err(|error| match refusal(&error) {
        Some(why) => DialError::Certificate { address: address(), why },
        None if is_unknown(&error) => DialError::Authority { address: address() },
        None if is_no_tls(&error) => DialError::NotTls { address: address() },
        None => broken(error.into()),
    })?;
    let handshake = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .handshake(TokioIo::new(stream));
    let (sender, connection) = handshake.await.map_err(|error| broken(error.into()))?;
    jobs.spawn("peer-connection", async move {
        if let Err(error) = connection.await {
            debug!(error = %crate::errors::chain(&error), "a connection to a peer ended");
        }
    });
    Ok(Channel { sender, lineage: Lineage::default(), line: Arc::default(), jobs: jobs.clone() })
}

/// Whether the other side's authority is not known here.
fn is_unknown(error: &std::io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    matches!(error, Some(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)))
}

/// Whether what came back is no TLS at all.
fn is_no_tls(error: &std::io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    matches!(error, Some(rustls::Error::InvalidMessage(_)))
}

/// Why a certificate was refused, when that is what went wrong.
fn refusal(error: &std::io::Error) -> Option<CertificateRefused> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) => {
            other.0.downcast_ref::<CertificateRefused>().cloned()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;

    /// A listener whose system takes no more connections and says nothing of that, as behind a network that drops packets.
    fn silent() -> (tokio::net::TcpListener, Vec<std::net::TcpStream>, SocketAddr) {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a port");
        let listener = socket.listen(0).expect("it listens");
        let address = listener.local_addr().expect("its address");
        let taken = || std::net::TcpStream::connect_timeout(&address, Duration::from_millis(500)).ok();
        let held = std::iter::from_fn(taken).take(16).collect();
        (listener, held, address)
    }

    // The clock goes on by itself when nothing else can happen.
    #[tokio::test(start_paused = true)]
    async fn an_address_that_never_answers_is_given_up_and_named() {
        crate::trust::install_provider();
        let (_listener, held, address) = silent();
        assert!(held.len() < 16, "the listener takes whoever comes");
        let pin = Digest::of(b"an authority");
        let error = dial_stranger(&address.to_string(), pin).await.err().expect("nobody answers");
        assert!(matches!(&error, DialError::Silent { address: named } if *named == address.to_string()), "{error:?}");
    }
}
