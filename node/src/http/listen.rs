//! The one port: connections, TLS, HTTP/1.1 and HTTP/2 (also without TLS, to clients that know), and their end.
//!
//! A connection that does not come to the point is closed: whatever it sends or does not send, its first request's
//! head has to be there within `http.header_timeout`, TLS and the choice of the protocol included.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::{debug, info, warn};

use crate::config::Http;

/// How many requests one HTTP/2 connection may have open at once.
const STREAMS_MAX: u32 = 256;
/// The largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// How often a quiet HTTP/2 connection is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(30);
/// How long it may take to answer.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long to wait when the operating system cannot accept: too many files are open, most often.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the port cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process has it.
    #[error("the address {address} is in use by another process")]
    InUse {
        /// The address.
        address: SocketAddr,
    },
    /// Something else.
    #[error("cannot listen on {address}")]
    Io {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// Takes the port.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { address },
        _ => BindError::Io { address, source },
    })
}

/// What answers on the port.
pub struct Edge {
    /// The port.
    pub listener: TcpListener,
    /// TLS, when it is on.
    pub tls: Option<TlsAcceptor>,
    /// The API.
    pub router: Router,
    /// The limits.
    pub limits: Http,
    /// How long requests may go on after the stop.
    pub grace: Duration,
}

impl Edge {
    /// Answers until it is stopped, then lets what is being answered come to its end for at most the grace.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Infallible> {
        let Edge { listener, tls, router, limits, grace } = self;
        let places = Arc::new(Semaphore::new(limits.connections_max as usize));
        let graceful = GracefulShutdown::new();
        let cut = CancellationToken::new();
        let server = Arc::new(Server { builder: builder(&limits), tls, router, limits, cut: cut.clone() });
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = accept(&listener, &places) => accepted,
            };
            let Some((stream, place)) = accepted else { break };
            tokio::spawn(server.clone().connection(stream, place, graceful.watcher()));
        }
        drop(listener);
        if tokio::time::timeout(grace, graceful.shutdown()).await.is_err() {
            warn!(?grace, "requests are still being answered and are cut off (`stop.grace`)");
        }
        cut.cancel();
        Ok(())
    }
}

/// The next connection, once there is a place for it.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.ok()?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return Some((stream, place)),
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn builder(limits: &Http) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .adaptive_window(true)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

struct Server {
    builder: auto::Builder<TokioExecutor>,
    tls: Option<TlsAcceptor>,
    router: Router,
    limits: Http,
    cut: CancellationToken,
}

impl Server {
    async fn connection(self: Arc<Self>, stream: TcpStream, place: OwnedSemaphorePermit, watcher: Watcher) {
        let _place = place;
        // Small answers must not wait for the acknowledgement of the ones before.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "a connection ended before it began");
            return;
        }
        let Some(tls) = &self.tls else { return self.http(stream, watcher).await };
        match tokio::time::timeout(self.limits.header_timeout, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.http(stream, watcher).await,
            Ok(Err(error)) => debug!(%error, "a TLS handshake failed"),
            Err(_) => debug!("a TLS handshake took too long"),
        }
    }

    async fn http(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, watcher: Watcher) {
        let asked = Arc::new(AtomicBool::new(false));
        let (router, first) = (self.router.clone(), asked.clone());
        let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
            first.store(true, Ordering::Relaxed);
            router.clone().oneshot(request)
        });
        let connection = self.builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = pin!(watcher.watch(connection));
        let silent = async {
            tokio::time::sleep(self.limits.header_timeout).await;
            if asked.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            ended = connection => if let Err(error) = ended {
                debug!(error = %crate::errors::chain(error.as_ref()), "a connection broke");
            },
            () = silent => debug!("a connection sent no request in time and is closed"),
            () = self.cut.cancelled() => info!("a connection is cut off, because the node stops"),
        }
    }
}
