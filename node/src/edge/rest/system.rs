//! The node itself: is it alive, is it ready, what does it measure, who is it.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use crate::api::ServerInfo;
use crate::api::paths;
use crate::app::node::{NodeInfo, NotReady};
use crate::authz::{ClusterPermit, Measure, ReadDeployed, UnscopedToken};
use crate::edge::Services;
use crate::edge::extract::{Json, Open};
use crate::edge::problem::Problem;
use crate::edge::routes::{Owner, Routes, get};

/// This part of the API's description.
#[derive(OpenApi)]
#[openapi(paths(health, ready, metrics, server))]
pub struct Doc;

/// This part's routes.
pub fn routes() -> Routes {
    Routes::new()
        .on(get(paths::HEALTH), Owner::Anyone, health)
        .on(get(paths::READY), Owner::Anyone, ready)
        .on(get(paths::METRICS), Owner::Anyone, metrics)
        .on(get(paths::SERVER), Owner::Anyone, server)
}

/// What `GET /health` answers.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// It is always `ok`.
    status: &'static str,
    /// The server's version.
    version: &'static str,
}

/// What `GET /ready` answers.
#[derive(Debug, Serialize, ToSchema)]
struct Ready {
    /// It is always `ok`.
    status: &'static str,
    /// The server's version.
    version: &'static str,
    /// Each part by its name: `ok`, or what keeps it from serving.
    components: BTreeMap<&'static str, String>,
}

const HEALTHY: Health = Health { status: "ok", version: env!("CARGO_PKG_VERSION") };

/// Is the process alive? Open to all.
#[utoipa::path(get, path = paths::HEALTH.text(), tag = "node", security(()), responses(
    (status = 200, description = "It is.", body = Health),
))]
async fn health(_: Open) -> Json<Health> {
    Json(HEALTHY)
}

/// Can it serve? The log has a leader, no shard has been without one for longer than elections take, and everything that was live when the node started is loaded. Open to all.
#[utoipa::path(get, path = paths::READY.text(), tag = "node", security(()), responses(
    (status = 200, description = "It can.", body = Ready),
    (status = 503, description = "Not yet, or not any more: `unavailable`, with the same `components`.", body = crate::api::Problem,
     content_type = "application/problem+json"),
))]
async fn ready(_: Open, State(services): State<Services>) -> Result<Json<Ready>, Problem> {
    let components: BTreeMap<&str, String> =
        services.app.node.components().into_iter().map(|(name, why)| (name, component(why))).collect();
    match services.app.node.ready() {
        Ok(()) => Ok(Json(Ready { status: HEALTHY.status, version: HEALTHY.version, components })),
        Err(why) => Err(Problem::from(why).with("components", components)),
    }
}

fn component(why: Option<NotReady>) -> String {
    why.map_or_else(|| HEALTHY.status.to_owned(), |why| why.to_string())
}

/// Who the node is. Needs the role viewer.
#[utoipa::path(get, path = paths::SERVER.text(), tag = "node", responses(
    (status = 200, description = "The node.", body = ServerInfo),
))]
async fn server(unscoped: UnscopedToken<ReadDeployed>, State(services): State<Services>) -> Json<ServerInfo> {
    let NodeInfo { node, cluster, uptime_s, applied } = services.app.node.info(unscoped.access());
    Json(ServerInfo { version: env!("CARGO_PKG_VERSION").to_owned(), node, cluster, uptime_s, applied })
}

/// What the node measures, for Prometheus. Needs the role metrics for the whole cluster.
#[utoipa::path(get, path = paths::METRICS.text(), tag = "node", responses(
    (status = 200, description = "Metrics in Prometheus' text format.", body = String, content_type = "text/plain"),
))]
async fn metrics(permit: ClusterPermit<Measure>, State(services): State<Services>) -> impl IntoResponse {
    let streams = services.config.event_streams_max as usize - services.event_streams.available_permits();
    metrics::gauge!("caxton_event_streams").set(streams as f64);
    let text = services.app.node.metrics(&permit);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}
