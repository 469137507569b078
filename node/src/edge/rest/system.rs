//! The node itself: is it alive, is it ready, what does it measure, who is it.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use caxton_proto::log::Role;
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use crate::api::ServerInfo;
use crate::api::paths;
use crate::auth::Access;
use crate::edge::Services;
use crate::edge::extract::Json;
use crate::edge::problem::{Code, Problem};
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

/// `GET /health` and `GET /ready`.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// `ok`.
    status: &'static str,
    /// The server's version.
    version: &'static str,
}

const HEALTHY: Health = Health { status: "ok", version: env!("CARGO_PKG_VERSION") };

/// Is the process alive? Open to all.
#[utoipa::path(get, path = paths::HEALTH.text(), tag = "node", security(()), responses(
    (status = 200, description = "It is.", body = Health),
))]
async fn health() -> Json<Health> {
    Json(HEALTHY)
}

/// Can it serve? The log has a leader, no shard has been without one for longer than elections take, and everything that was live when the node started is loaded. Open to all.
#[utoipa::path(get, path = paths::READY.text(), tag = "node", security(()), responses(
    (status = 200, description = "It can.", body = Health),
    (status = 503, description = "Not yet, or not any more: `unavailable`.", body = crate::api::Problem,
     content_type = "application/problem+json"),
))]
async fn ready(State(services): State<Services>) -> Result<Json<Health>, Problem> {
    let not_yet =
        |why: &str| Problem::new(Code::Unavailable, why).help("wait; `caxton health` tells more").retry_after(1);
    if services.stop.is_cancelled() {
        return Err(not_yet("the node is stopping"));
    }
    if services.log.status().borrow().leader.is_none() {
        return Err(not_yet("the deploy log has no leader yet"));
    }
    if !services.cluster.shards_met() {
        return Err(not_yet("a shard has had no leader yet"));
    }
    if services.cluster.leaderless().is_some() {
        return Err(not_yet("a shard has had no leader for longer than an election takes, as far as this node sees"));
    }
    if !services.cluster.belongs() {
        return Err(not_yet("the cluster has not brought this node up to date yet"));
    }
    if !*services.catalogs.settled().borrow() {
        return Err(not_yet("what is deployed is still being loaded"));
    }
    Ok(Json(HEALTHY))
}

/// Who the node is.
#[utoipa::path(get, path = paths::SERVER.text(), tag = "node", responses(
    (status = 200, description = "The node.", body = ServerInfo),
))]
async fn server(_access: Access, State(services): State<Services>) -> Json<ServerInfo> {
    Json(ServerInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node: services.identity.node.to_string(),
        cluster: services.identity.cluster.to_string(),
        uptime_s: services.started.elapsed().as_secs(),
        applied: *services.log.applied().borrow(),
    })
}

/// What the node measures, for Prometheus. Needs a token for the whole cluster.
#[utoipa::path(get, path = paths::METRICS.text(), tag = "node", responses(
    (status = 200, description = "Metrics in Prometheus' text format.", body = String, content_type = "text/plain"),
))]
async fn metrics(access: Access, State(services): State<Services>) -> Result<impl IntoResponse, Problem> {
    access.require_cluster(Role::Viewer)?;
    measure(&services);
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], services.metrics.render()))
}

/// Sets the gauges that are read off rather than counted.
fn measure(services: &Services) {
    let set = |name: &'static str, value: f64| metrics::gauge!(name).set(value);
    let status = services.log.status().borrow().clone();
    set("caxton_log_applied_index", *services.log.applied().borrow() as f64);
    set("caxton_log_term", status.term as f64);
    set("caxton_log_is_leader", f64::from(u8::from(status.role == caxton_raft::Role::Leader)));
    let (workspaces, deployments, tokens) = services.log.read(|state| {
        let live = state.workspaces().map(|(_, workspace)| workspace.live().0);
        (state.workspaces().len(), live.sum::<u64>(), state.tokens().len())
    });
    set("caxton_workspaces", workspaces as f64);
    metrics::counter!("caxton_deployments_total").absolute(deployments);
    set("caxton_tokens", tokens as f64);
    let agents: usize = services.catalogs.all().iter().map(|catalog| catalog.agents().len()).sum();
    set("caxton_agents", agents as f64);
    if let Some(free) = services.artifacts.space().free_bytes() {
        set("caxton_disk_free_bytes", free as f64);
    }
    let streams = services.config.http.event_streams_max as usize - services.event_streams.available_permits();
    set("caxton_event_streams", streams as f64);
    set("caxton_uptime_seconds", services.started.elapsed().as_secs_f64());
    measure_process(&set);
}

fn measure_process(set: &impl Fn(&'static str, f64)) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    if let Some(kib) = resident.and_then(|kib| kib.parse::<f64>().ok()) {
        set("process_resident_memory_bytes", kib * 1024.0);
    }
    let count = |dir: &str| std::fs::read_dir(dir).map(Iterator::count).ok();
    if let Some(fds) = count("/proc/self/fd") {
        set("process_open_fds", fds as f64);
    }
    if let Some(threads) = count("/proc/self/task") {
        set("process_threads", threads as f64);
    }
}
