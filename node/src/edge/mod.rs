//! The edges: what comes in from clients is mapped to calls of the application here, and what comes out of those to answers.
//!
//! Each protocol has a folder with its routes; what they share stands beside them: the table of routes, the hop to the
//! node that has to answer, what is around every request, extractors, event streams, and errors as [`Problem`]s.

pub mod routes;

pub mod rest;

pub mod openai;

pub mod anthropic;

pub mod grpc;

pub mod ws;

pub mod senders;

pub mod openapi;

pub mod asyncapi;

pub mod hop;

pub mod middleware;

pub mod extract;

pub mod sse;

pub mod feeds;

pub mod problem;

pub mod listen;

pub mod caps;

pub mod standing;

pub mod progress;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::ops::Deref;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{Method, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Response;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};

use crate::api::paths;
use crate::app::App;
use crate::authn::Auth;
use crate::cluster::Cluster;
use crate::config;
use crate::tasks::Jobs;
use hop::Hop;
use problem::{Code, Problem};
use routes::Routes;

/// Answers smaller than this are not worth compressing, in bytes.
const COMPRESS_BYTES_MIN: u64 = 1024;

/// What handlers work with. A clone is one reference count.
#[derive(Clone)]
pub struct Services(Arc<Parts>);

impl Services {
    /// These parts for all.
    pub fn new(parts: Parts) -> Services {
        Services(Arc::new(parts))
    }
}

impl Deref for Services {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// What [`Services`] are made of.
pub struct Parts {
    /// What the node does.
    pub app: App,
    pub auth: Arc<Auth>,
    /// Who leads what, and the way there.
    pub cluster: Cluster,
    /// How many shards workspaces are spread over.
    pub shards: NonZeroU32,
    /// The limits of the API.
    pub config: config::Http,
    /// The largest body of a request that sends artifacts, in bytes.
    pub upload_bytes_max: usize,
    /// The largest body of a request that deploys, in bytes.
    pub deployment_bytes_max: usize,
    /// Places for event streams.
    pub event_streams: Arc<Semaphore>,
    /// Places for those who watch without a token whether the node can serve.
    pub health_watches: Arc<Semaphore>,
    /// How many of these an address has.
    pub health_watchers: caps::Caps<IpAddr>,
    /// How many answers that send deployed files piece by piece an address has.
    pub content_readers: caps::Caps<IpAddr>,
    /// Places for answers that send deployed files piece by piece.
    pub content_streams: Arc<Semaphore>,
    /// What is read from the disk while it is sent.
    pub jobs: Jobs,
    /// Cancelled when the node stops: streams end.
    pub stop: CancellationToken,
}

/// Every route of every edge.
pub fn all_routes() -> Routes {
    Routes::new()
        .merge(rest::routes())
        .merge(openai::routes())
        .merge(anthropic::routes())
        .merge(grpc::routes())
        .merge(ws::routes())
        .merge(openapi::routes())
}

/// The whole API.
pub fn router(services: Services) -> Router {
    let places = middleware::Places {
        all: Arc::new(Semaphore::new(services.config.requests_max as usize)),
        caps: caps::Caps::default(),
        services: services.clone(),
    };
    let timeout = services.config.timeout;
    let compress = SizeAbove::new(COMPRESS_BYTES_MIN)
        .and(NotForContentType::const_new("application/octet-stream"))
        .and(NotForContentType::const_new("text/event-stream"))
        .and(NotForContentType::GRPC);
    let (router, table) = all_routes().into_parts();
    let table = Arc::new(table);
    let times = middleware::TimeLimits { usual: timeout, table: table.clone() };
    let hop = Hop { services: services.clone(), table };
    // The first layer is the innermost.
    router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(hop, hop::to_owner))
        .layer(DefaultBodyLimit::max(services.config.body_bytes_max.as_usize()))
        .layer(from_fn_with_state(times, middleware::in_time))
        .layer(from_fn_with_state(places, middleware::with_place))
        .layer(from_fn_with_state(services.clone(), standing::held))
        .layer(CatchPanicLayer::custom(middleware::panicked))
        .layer(from_fn(middleware::framed))
        .layer(CompressionLayer::new().quality(tower_http::CompressionLevel::Fastest).compress_when(compress))
        .with_state(services)
}

/// How errors look to whoever sent a request: each protocol has a form of its own.
fn errors_of(request: &Request) -> fn(&Problem, &str) -> Response {
    let path = request.uri().path();
    if grpc::is_grpc(request) {
        grpc::error
    } else if is_anthropic(path) {
        anthropic::error
    } else if path.starts_with("/v1/") {
        openai::error
    } else {
        |problem, request_id| problem.clone().response(Some(request_id))
    }
}

fn is_anthropic(path: &str) -> bool {
    path.strip_prefix(paths::ANTHROPIC_MESSAGES.text()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

async fn not_found(request: Request) -> Problem {
    let path = request.uri().path();
    if grpc::is_grpc(&request) {
        return Problem::new(Code::MethodNotAllowed, format!("there is no method {path}"))
            .help("reflection lists the services and their methods, and docs/grpc.md says what they do");
    }
    Problem::new(Code::NotFound, format!("there is nothing at {path}"))
        .help("GET /api/v1/openapi.json lists what there is, and /docs shows it")
}

async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    Problem::new(Code::MethodNotAllowed, format!("{} does not take {method}", uri.path()))
        .help("GET /api/v1/openapi.json lists what there is, and /docs shows it")
}
