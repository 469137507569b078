//! The edges: what comes in from clients is mapped to calls of the application here, and what comes out of those to answers.
//!
//! Each protocol has a folder with its routes; what they share stands beside them: the table of routes, the hop to the
//! node that has to answer, what is around every request, extractors, event streams, and errors as [`Problem`]s.

pub mod routes;

pub mod rest;

pub mod openai;

pub mod openapi;

pub mod hop;

pub mod middleware;

pub mod extract;

pub mod problem;

pub mod listen;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{Method, Uri};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use caxton_raft::NodeIdentity;
use caxton_raft::deploy_log::DeployLog;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};

use hop::Hop;
use problem::{Code, Problem};
use routes::Routes;

use crate::artifacts::Artifacts;
use crate::auth::Auth;
use crate::catalog::Catalogs;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::deploy::Deployer;
use crate::secrets::SecretStore;
use crate::tools::Tools;

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
    /// The settings.
    pub config: Arc<Config>,
    /// Checks bearers and signs tokens.
    pub auth: Arc<Auth>,
    /// Who this node is.
    pub identity: Arc<NodeIdentity>,
    /// What is deployed, and which tokens there are.
    pub log: DeployLog,
    /// What this node serves.
    pub catalogs: Catalogs,
    /// The tools of what it serves, loaded when they are needed.
    pub tools: Tools,
    /// The secrets of workspaces.
    pub secrets: SecretStore,
    /// Stored content.
    pub artifacts: Artifacts,
    /// Brings content here that only other nodes have.
    pub replicas: crate::replicas::Replicas,
    /// Takes deployments.
    pub deployer: Deployer,
    /// Finds the agent that a message is for.
    pub routing: crate::capability::Router,
    /// What happens in each workspace on this node.
    pub activity: crate::activity::Activity,
    /// What `/metrics` renders.
    pub metrics: PrometheusHandle,
    /// When the node started.
    pub started: Instant,
    /// Places for requests that send artifacts.
    pub uploads: Arc<Semaphore>,
    /// Places for event streams.
    pub event_streams: Arc<Semaphore>,
    /// Cancelled when the node stops: streams end, and `/ready` says no.
    pub stop: CancellationToken,
    /// The nodes, and who leads what.
    pub cluster: Cluster,
    /// The keys that all nodes hold.
    pub keyring: crate::cluster::keyring::Keyring,
    /// Answers messages.
    pub invoker: crate::invoke::Invoker,
}

/// Every route of every edge.
pub fn all_routes() -> Routes {
    Routes::new().merge(rest::routes()).merge(openai::routes()).merge(openapi::routes())
}

/// The whole API.
pub fn router(services: Services) -> Router {
    let places = Arc::new(Semaphore::new(services.config.http.requests_max as usize));
    let timeout = services.config.http.timeout;
    let compress = SizeAbove::new(COMPRESS_BYTES_MIN)
        .and(NotForContentType::const_new("application/octet-stream"))
        .and(NotForContentType::const_new("text/event-stream"));
    let (router, table) = all_routes().into_parts();
    let hop = Hop { services: services.clone(), table: Arc::new(table) };
    // The first layer is the innermost.
    router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(hop, hop::to_owner))
        .layer(DefaultBodyLimit::max(services.config.http.body_bytes_max.as_usize()))
        .layer(from_fn(move |request: Request, next: Next| middleware::in_time(timeout, request, next)))
        .layer(from_fn_with_state(places, middleware::with_place))
        .layer(CatchPanicLayer::custom(middleware::panicked))
        .layer(from_fn(middleware::framed))
        .layer(CompressionLayer::new().quality(tower_http::CompressionLevel::Fastest).compress_when(compress))
        .with_state(services)
}

async fn not_found(uri: Uri) -> Problem {
    Problem::new(Code::NotFound, format!("there is nothing at {}", uri.path()))
        .help("GET /api/v1/openapi.json lists what there is, and /docs shows it")
}

async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    Problem::new(Code::MethodNotAllowed, format!("{} does not take {method}", uri.path()))
        .help("GET /api/v1/openapi.json lists what there is, and /docs shows it")
}
