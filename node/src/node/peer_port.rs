//! The port for other nodes: where it is, and when there is one.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use caxton_proto::peer::pb::peer_server::PeerServer;
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::StartError;
use crate::cluster::service::Service;
use crate::config::Config;
use crate::edge::hop;
use crate::edge::listen::{self, BindError};
use crate::edge::problem::{Code, Problem};
use crate::peers::door::{Routes, STRANGER_MESSAGE_BYTES_MAX};
use crate::peers::{Book, MESSAGE_BYTES_MAX};
use axum::response::IntoResponse;

/// Where other nodes are waited for when there is a cluster and nobody says where.
const DEFAULT: ([u8; 4], u16) = ([127, 0, 0, 1], 7412);
/// How often a free port is looked for that is free for TCP and for UDP.
const FREE_PORT_ATTEMPTS: usize = 32;
/// How long the address that others are told may take to be known to the name service.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(30);
/// The pause between two questions to the name service.
const RESOLVE_PAUSE: Duration = Duration::from_millis(500);

/// The port, taken and not yet open.
pub struct PeerPort {
    pub listener: TcpListener,
    /// Where it is on this machine: TCP, and UDP for gossip.
    pub address: SocketAddr,
    /// Where others reach it, `HOST:PORT`.
    pub advertise: String,
}

impl PeerPort {
    /// Takes the port, if the settings or the data directory say that there is a cluster.
    pub async fn open(config: &Config, dir: &Path) -> Result<Option<PeerPort>, StartError> {
        let cluster = &config.cluster;
        let told = !cluster.join.is_empty() || cluster.found || !cluster.secret_file.as_os_str().is_empty();
        let wanted = told || !Book::open(dir).all().is_empty();
        let Some(bind) = cluster.bind.or_else(|| wanted.then(|| DEFAULT.into())) else { return Ok(None) };
        let listener = take(bind).await?;
        let address = listener.local_addr().map_err(|source| BindError::Io { address: bind, source })?;
        let advertise = if cluster.advertise.is_empty() { address.to_string() } else { cluster.advertise.clone() };
        Ok(Some(PeerPort { listener, address, advertise }))
    }

    /// Does `work` while everybody who comes to the port is sent away, because there is nobody to answer yet.
    pub async fn closed_during<T>(&self, work: impl Future<Output = T>) -> T {
        let refuse = async {
            loop {
                match self.listener.accept().await {
                    Ok(refused) => drop(refused),
                    Err(_) => tokio::time::sleep(RESOLVE_PAUSE).await,
                }
            }
        };
        tokio::select! {
            done = work => done,
            () = refuse => std::future::pending().await,
        }
    }

    /// Where others reach this node's gossip. A name is asked for until it is known: a new machine's may take a moment.
    pub async fn gossip_address(&self) -> Result<SocketAddr, StartError> {
        let until = Instant::now() + RESOLVE_TIMEOUT;
        loop {
            let found = tokio::net::lookup_host(&self.advertise).await;
            let why = match found.map(|mut found| found.find(|it| it.is_ipv4() == self.address.is_ipv4())) {
                Ok(Some(address)) => return Ok(address),
                Ok(None) => std::io::Error::other("it has no address of the kind that `cluster.bind` has"),
                Err(error) => error,
            };
            if Instant::now() >= until {
                return Err(StartError::Advertise { name: self.advertise.clone(), source: why });
            }
            tokio::time::sleep(RESOLVE_PAUSE).await;
        }
    }
}

/// Takes the port for TCP, and sees that it is free for UDP too.
async fn take(bind: SocketAddr) -> Result<TcpListener, BindError> {
    let mut attempt = 0;
    loop {
        let listener = listen::bind(bind).await?;
        let address = listener.local_addr().map_err(|source| BindError::Io { address: bind, source })?;
        attempt += 1;
        match UdpSocket::bind(address) {
            Ok(_) => return Ok(listener),
            // Only a free port can be chosen anew.
            Err(_) if bind.port() == 0 && attempt < FREE_PORT_ATTEMPTS => {}
            Err(source) => return Err(BindError::Io { address, source }),
        }
    }
}

/// What the peers' port leads to: the services for nodes, and the API for requests that nodes pass on; for strangers, the
/// services alone, with short messages.
pub fn routes(service: Service, api: std::sync::Arc<std::sync::OnceLock<Router>>) -> Routes {
    let calls = |limit| {
        let service = PeerServer::new(service.clone())
            .max_decoding_message_size(limit)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Router::new().route_service("/caxton.peer.v1.Peer/{call}", service)
    };
    let strangers = calls(STRANGER_MESSAGE_BYTES_MAX).fallback(|| async {
        Problem::new(Code::InvalidRequest, "this port is for the nodes of a cluster, and not for clients")
            .help(
                "`caxton cluster members` shows the addresses for clients; a node's own is 7411 unless told otherwise",
            )
            .into_response()
    });
    let peers = calls(MESSAGE_BYTES_MAX).fallback(move |request: Request| {
        let api = std::sync::Arc::clone(&api);
        async move {
            match api.get() {
                Some(api) => hop::from_peer(api.clone(), request).await,
                None => Problem::new(Code::Unavailable, "the node is starting").retry_after(1).into_response(),
            }
        }
    });
    Routes { peers, strangers }
}
