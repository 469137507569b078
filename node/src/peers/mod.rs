//! The nodes of a cluster among themselves: one connection per peer, TLS 1.3 with certificates on both sides, HTTP/2.
//!
//! Everything goes over that one connection: the messages of all groups of the log, artifacts, and requests of clients
//! that another node has to answer. Who is at the other end is what its certificate says and nothing else: both sides
//! name cluster and node in the first call ([`Hello`](caxton_proto::peer::pb::HelloRequest)), and both compare.

pub mod book;

pub mod door;

mod budget;

pub mod lives;

pub mod admission;

pub mod refusal;

mod dial;

pub mod line;

mod link;

mod transport;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use caxton_proto::NodeId;
use caxton_proto::peer::pb::peer_client::PeerClient;
use http::{HeaderName, HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;
use tokio::net::TcpStream;
use tokio::sync::{broadcast, watch};

pub use admission::NotIntroduced;
pub use book::Book;
pub use dial::{Channel, DialError, dial_stranger};
use dial::{Dialer, ORIGIN};
use link::Link;
pub use lives::Lives;
pub use refusal::{Copied, is_refusal};
use tracing::debug;

use crate::tasks::Jobs;
use crate::time::now_ms;
use crate::trust::Credentials;

/// The version that this binary says to its peers.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// What both hear when two versions of the binary meet that cannot be in one cluster.
pub const SKEW_RULE: &str = "at most one minor version may lie between the nodes of a cluster";
/// The largest message between peers, in bytes: a batch of the log's entries, or a piece of a snapshot.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// How many nodes that have ended wait to be heard of.
const GONE_QUEUE: usize = 64;
/// How often a node that closed its connection is looked for.
const PROBES: u32 = 3;
/// The pause between two looks.
const PROBE_PAUSE: Duration = Duration::from_millis(20);
/// How long one look may take.
const PROBE_TIMEOUT: Duration = Duration::from_millis(200);
/// Marks a request that another node passes on, with that node's id. On any but the peers' port it means nothing.
pub const FORWARDED: HeaderName = HeaderName::from_static("caxton-forwarded");
/// In the answer to a request that was passed on to the wrong node: who it should have gone to, as far as that is known.
pub const OWNER: HeaderName = HeaderName::from_static("caxton-owner");

/// The way to the other nodes. A clone is a handle on the same connections.
#[derive(Clone)]
pub struct Peers {
    dialer: Arc<Dialer>,
    links: Arc<Mutex<HashMap<NodeId, Arc<Link>>>>,
    /// When each node was last heard of, in milliseconds since 1970.
    heard: Arc<Mutex<HashMap<NodeId, u64>>>,
    gone: broadcast::Sender<NodeId>,
}

/// Why a request was not passed on. It may have reached the other node unless the connection could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// There is no connection.
    #[error(transparent)]
    Dial(Arc<DialError>),
    /// The connection broke.
    #[error("the connection to node {node} broke")]
    Broken {
        node: NodeId,
        #[source]
        source: hyper::Error,
    },
    /// The request's path cannot be sent on.
    #[error("the request's address cannot be passed on")]
    Address(#[from] http::Error),
}

impl Peers {
    /// The way to the nodes whose addresses are in `book`, as the node that `credentials` certify, in the life that `lives`
    /// began.
    pub fn new(credentials: Credentials, book: Book, lives: Lives) -> Peers {
        let (removed, copied) = (watch::Sender::new(false), watch::Sender::new(None));
        let dialer = Arc::new(Dialer { credentials, book, lives, removed, copied, jobs: Jobs::default() });
        Peers { dialer, links: Arc::default(), heard: Arc::default(), gone: broadcast::Sender::new(GONE_QUEUE) }
    }

    /// Names nodes whose process has ended: their connection was closed, and nobody listens where they were.
    pub fn gone(&self) -> broadcast::Receiver<NodeId> {
        self.gone.subscribe()
    }

    /// The node has closed its connection to this one: looks whether it is still there.
    pub(crate) fn lost(&self, node: NodeId) {
        let Some(address) = self.book().address(node) else { return };
        let gone = self.gone.clone();
        self.jobs().spawn("peer-probe", async move {
            for _ in 0..PROBES {
                let probe = tokio::time::timeout(PROBE_TIMEOUT, TcpStream::connect(&address)).await;
                match probe {
                    Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                        debug!(peer = %node, address, "nobody listens where the peer was");
                        // Nobody may want to know.
                        _ = gone.send(node);
                        return;
                    }
                    // It takes a process a moment to close all that it had.
                    Ok(Ok(_)) => tokio::time::sleep(PROBE_PAUSE).await,
                    // No answer says nothing.
                    Ok(Err(_)) | Err(_) => return,
                }
            }
        });
    }

    /// What goes on beside the messages: connections and looks at peers.
    pub(super) fn jobs(&self) -> &Jobs {
        &self.dialer.jobs
    }

    /// Where the nodes are.
    pub fn book(&self) -> &Book {
        &self.dialer.book
    }

    /// Which processes count.
    pub fn lives(&self) -> &Lives {
        &self.dialer.lives
    }

    /// What this node shows to others.
    pub fn credentials(&self) -> &Credentials {
        &self.dialer.credentials
    }

    /// A client of the node's services, over the one connection to it.
    pub async fn client(&self, node: NodeId) -> Result<PeerClient<Channel>, Arc<DialError>> {
        let channel = self.counted(node).await?;
        Ok(dial::client(channel))
    }

    /// Notes that the node was heard of just now.
    pub fn note_heard(&self, node: NodeId) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).insert(node, now_ms());
    }

    /// When the node was last heard of, in milliseconds since 1970; nothing when it was not since this node started.
    pub fn heard_ms(&self, node: NodeId) -> Option<u64> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).get(&node).copied()
    }

    /// Tries at once again to reach the node, which was heard of.
    pub fn heard_from(&self, node: NodeId) {
        self.link(node).forgive();
    }

    /// Turns true when a node of the cluster says that this one was removed. It may never hear so from the log, which
    /// nobody brings it any more.
    pub fn removed(&self) -> watch::Receiver<bool> {
        self.dialer.removed.subscribe()
    }

    /// Is set when a node of the cluster says that this process is not the one that counts.
    pub fn copied(&self) -> watch::Receiver<Option<Copied>> {
        self.dialer.copied.subscribe()
    }

    /// Takes note of what a peer refused with.
    pub fn hear(&self, status: &tonic::Status) {
        self.dialer.hear(status);
    }

    /// Drops the connection to a node that does not belong to the cluster any more.
    pub fn forget(&self, node: NodeId) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).remove(&node);
        self.links.lock().unwrap_or_else(PoisonError::into_inner).remove(&node);
    }

    /// Passes a client's request on to the node that has to answer it. Neither body is held here.
    pub async fn forward(&self, node: NodeId, mut request: Request<Body>) -> Result<Response<Incoming>, ForwardError> {
        let mut channel = self.counted(node).await.map_err(ForwardError::Dial)?;
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = Uri::builder().scheme("https").authority(ORIGIN).path_and_query(path).build()?;
        *request.version_mut() = http::Version::HTTP_2;
        let headers = request.headers_mut();
        // They speak of the connection that the request came on; HTTP/2 has no use for them.
        for name in
            ["connection", "expect", "host", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"]
        {
            headers.remove(name);
        }
        let own = self.credentials().node().to_string();
        headers.insert(FORWARDED, HeaderValue::try_from(own).map_err(http::Error::from)?);
        channel.send(request).await.map_err(|source| ForwardError::Broken { node, source })
    }

    /// Drops the connection to a node, unless there is another one by now.
    fn drop_link(&self, node: NodeId, link: &Arc<Link>) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if links.get(&node).is_some_and(|known| Arc::ptr_eq(known, link)) {
            links.remove(&node);
        }
    }

    fn link(&self, node: NodeId) -> Arc<Link> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(links.entry(node).or_insert_with(|| Arc::new(Link::new(node))))
    }
}
