//! The one port: connections, TLS, HTTP/1.1 and HTTP/2 (also without TLS, to clients that know), and their end.
//!
//! A connection that does not come to the point is closed: whatever it sends or does not send, its first request's
//! head has to be there within `http.header_timeout`, TLS and the choice of the protocol included. One that asks nothing more,
//! or does not read what it asked for, is closed too.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::{debug, info, warn};

use crate::addresses::counted;
use crate::config::Http;
use crate::edge::caps::{CameFrom, Caps, Place};
use crate::edge::problem::{Code, Problem};
use crate::edge::progress::Progress;
use crate::edge::ws::Upgrade;
use crate::tasks::Jobs;

/// How long to wait when the operating system cannot accept: too many files are open, most often.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The longest answer to a request without TLS, in bytes.
const PLAIN_ANSWER_BYTES_MAX: usize = 16 << 10;
/// How many pieces of a request without TLS are read before its connection is closed.
const PLAIN_READS_MAX: usize = 64;

/// Why the port cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process has it.
    #[error("the address {address} is in use by another process")]
    InUse { address: SocketAddr },
    #[error("cannot listen on {address}")]
    Io {
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
    pub listener: TcpListener,
    /// TLS, when it is on.
    pub tls: Option<TlsAcceptor>,
    pub router: Router,
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
        let (cut, jobs, addresses) = (CancellationToken::new(), Jobs::default(), Caps::<IpAddr>::default());
        let server = Arc::new(Server { builder: builder(&limits), tls, router, limits, cut: cut.clone() });
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = accept(&listener, &places) => accepted,
            };
            let Some((stream, address, place)) = accepted else { break };
            let Some(own) = addresses.enter(address, server.limits.connections_per_address_max) else {
                debug!(%address, "an address has too many connections, and one more is closed");
                metrics::counter!("caxton_http_connections_refused_total").increment(1);
                continue;
            };
            let places = Arc::new((place, own));
            jobs.spawn("connection", server.clone().connection(stream, address, graceful.watcher(), places));
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
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> Option<(TcpStream, IpAddr, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.ok()?;
    loop {
        match listener.accept().await {
            Ok((stream, from)) => return Some((stream, counted(from.ip()), place)),
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn builder(limits: &Http) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    let head_bytes_max = limits.head_bytes_max.as_usize();
    let fits = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(head_bytes_max)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(fits(limits.streams_max))
        .max_header_list_size(fits(head_bytes_max as u64))
        .adaptive_window(true)
        .keep_alive_interval(limits.ping_interval)
        .keep_alive_timeout(limits.ping_timeout);
    builder
}

/// Whether a connection begins with the name of an HTTP method, and not with a handshake of TLS.
async fn is_plain(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    Ok(stream.peek(&mut first).await? == 1 && first[0].is_ascii_uppercase())
}

/// Tells a client that speaks HTTP without TLS what to do. Nothing of its request is read.
async fn plain(mut stream: TcpStream) -> io::Result<()> {
    let problem = Problem::new(Code::InvalidRequest, "this port speaks TLS, and the request came without")
        .help("write https:// in place of http:// in the server's address");
    let body = axum::body::to_bytes(problem.into_response().into_body(), PLAIN_ANSWER_BYTES_MAX).await;
    let body = body.map_err(io::Error::other)?;
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await?;
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

/// A connection's places among all and among those of its address, which a WebSocket goes on holding.
type Places = Arc<(OwnedSemaphorePermit, Place<IpAddr>)>;

struct Server {
    builder: auto::Builder<TokioExecutor>,
    tls: Option<TlsAcceptor>,
    router: Router,
    limits: Http,
    cut: CancellationToken,
}

impl Server {
    async fn connection(self: Arc<Self>, stream: TcpStream, address: IpAddr, watcher: Watcher, places: Places) {
        // Small answers must not wait for the acknowledgement of the ones before.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "a connection ended before it began");
            return;
        }
        let Some(tls) = &self.tls else { return self.http(stream, address, watcher, places).await };
        let shaken = async {
            if is_plain(&stream).await? {
                return plain(stream).await.map(|()| None);
            }
            tls.accept(stream).await.map(Some)
        };
        match tokio::time::timeout(self.limits.header_timeout, shaken).await {
            Ok(Ok(Some(stream))) => self.http(stream, address, watcher, places).await,
            Ok(Ok(None)) => debug!("a client spoke HTTP without TLS"),
            Ok(Err(error)) => debug!(%error, "a TLS handshake failed"),
            Err(_) => debug!("a TLS handshake took too long"),
        }
    }

    async fn http(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        address: IpAddr,
        watcher: Watcher,
        places: Places,
    ) {
        let progress = Progress::of_new();
        let asked = Arc::new(AtomicBool::new(false));
        let (router, first, watched, held) = (self.router.clone(), asked.clone(), progress.clone(), places.clone());
        let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            first.store(true, Ordering::Relaxed);
            let open = watched.begin();
            request.extensions_mut().insert(CameFrom(address));
            if request.headers().contains_key(header::UPGRADE) {
                request.extensions_mut().insert(Upgrade { api: router.clone(), places: held.clone() });
            }
            let answer = router.clone().oneshot(request);
            async move { answer.await.map(|answer| answer.map(|body| open.watch(body))) }
        });
        let connection = self.builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
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
            why = progress.stuck(self.limits.idle_timeout, self.limits.write_timeout) => {
                debug!(?why, "a connection that does not get on is closed");
            }
            () = silent => debug!("a connection sent no request in time and is closed"),
            () = self.cut.cancelled() => info!("a connection is cut off, because the node stops"),
        }
    }
}
