//! The cluster over HTTP: its nodes and groups, tokens to join by, and the ways to take a node out or let another lead.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::IntoResponse;
use caxton_proto::NodeId;
use caxton_proto::log::cluster::KeyKind;
use caxton_raft::GroupId;
use utoipa::OpenApi;

use crate::api::cluster::{
    ClusterChanged, ClusterStatus, JoinTokenIssued, JoinTokenRequest, RotateRequest, TransferRequest,
};
use crate::api::paths;
use crate::app::cluster::IssuedJoinToken;
use crate::authn::now_ms;
use crate::authz::{ClusterPermit, ManageCluster, ReadCluster};
use crate::edge::Services;
use crate::edge::extract::{Json, Path};
use crate::edge::problem::{Code, Problem};
use crate::edge::routes::{Owner, Routes, delete, get, post};
use crate::time::rfc3339;

/// How long another leader may take to say how far its followers are.
const VIEW_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest answer to that, in bytes.
const VIEW_BYTES_MAX: usize = 4 << 20;
/// This part of the API's description.
#[derive(OpenApi)]
#[openapi(paths(status, issue, remove, transfer, rotate, finish))]
pub struct Doc;

/// This part's routes.
pub fn routes() -> Routes {
    Routes::new()
        .on(get(paths::CLUSTER).or_stale(), Owner::Control, status)
        .on(post(paths::CLUSTER_TOKENS), Owner::Control, issue)
        .on(delete(paths::CLUSTER_NODE), Owner::Named, remove)
        .on(post(paths::CLUSTER_TRANSFER), Owner::Group, transfer)
        .on(post(paths::KEYS_ROTATE), Owner::Control, rotate)
        .on(post(paths::KEYS_FINISH), Owner::Control, finish)
}

/// The nodes and the groups. The leader of the deploy log answers, unless `?stale=true` asks for this node's view. Needs
/// the role viewer for the whole cluster.
#[utoipa::path(get, path = paths::CLUSTER.text(), tag = "cluster", responses(
    (status = 200, description = "The cluster.", body = ClusterStatus),
))]
async fn status(
    permit: ClusterPermit<ReadCluster>,
    State(services): State<Services>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Json<ClusterStatus>, Problem> {
    let mut status = services.app.cluster.status(&permit);
    if !uri.query().unwrap_or_default().split('&').any(|pair| pair == "stale=true") {
        complete(&mut status, &services, headers.get(header::AUTHORIZATION)).await;
    }
    Ok(Json(status))
}

/// Takes over how far nodes are behind in the groups that others lead, from their leaders: only they know. One that does not
/// answer in time leaves its groups as they are.
async fn complete(status: &mut ClusterStatus, services: &Services, token: Option<&HeaderValue>) {
    let others = status.groups.iter().filter_map(|group| group.leader.clone()).filter(|leader| *leader != status.node);
    let leaders: BTreeSet<String> = others.collect();
    let views = leaders.into_iter().map(|leader| async move {
        let view = tokio::time::timeout(VIEW_TIMEOUT, view_of(&leader, services, token)).await;
        Some((leader, view.ok()??))
    });
    for (leader, view) in futures::future::join_all(views).await.into_iter().flatten() {
        let led = view.groups.into_iter().filter(|group| group.leader.as_ref() == Some(&leader));
        for theirs in led {
            let mut own = status.groups.iter_mut();
            if let Some(own) = own.find(|own| own.group == theirs.group && own.leader == theirs.leader) {
                own.lag = theirs.lag;
            }
        }
    }
}

/// The cluster as another node sees it, which passes the question on to nobody.
async fn view_of(node: &str, services: &Services, token: Option<&HeaderValue>) -> Option<ClusterStatus> {
    let mut request = http::Request::get("/api/v1/cluster?stale=true");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, token);
    }
    let node = NodeId(u64::from_str_radix(node, 16).ok()?);
    let answer = services.cluster.peers().forward(node, request.body(Body::empty()).ok()?).await.ok()?;
    let body = axum::body::to_bytes(Body::new(answer.into_body()), VIEW_BYTES_MAX).await.ok()?;
    serde_json::from_slice(&body).ok()
}

/// Makes a token by which nodes join. The answer is the only time that it is shown. Needs the role admin for the whole
/// cluster.
#[utoipa::path(post, path = paths::CLUSTER_TOKENS.text(), tag = "cluster", request_body = JoinTokenRequest, responses(
    (status = 201, description = "The token.", body = JoinTokenIssued),
))]
async fn issue(
    permit: ClusterPermit<ManageCluster>,
    State(services): State<Services>,
    Json(request): Json<JoinTokenRequest>,
) -> Result<impl IntoResponse, Problem> {
    let ttl = request.ttl_s.map(Duration::from_secs);
    let IssuedJoinToken { token, expires_ms, uses, join_at } =
        services.app.cluster.issue_join_token(&permit, ttl, request.uses).await?;
    let issued = JoinTokenIssued {
        token: token.reveal(),
        id: token.id.clone(),
        expires: rfc3339(expires_ms),
        uses,
        join: join_at,
    };
    Ok((StatusCode::CREATED, Json(issued)))
}

/// Takes a node out for good, and answers when no group counts it any more: another node leads what it led. While it takes
/// longer than a request may, the answer is 503, and whoever asks again waits on. Needs the role admin for the whole cluster.
#[utoipa::path(delete, path = paths::CLUSTER_NODE.text(), tag = "cluster",
    params(("node" = String, Path, description = "The node's id.")),
    responses((status = 200, description = "It is out.", body = ClusterChanged)))]
async fn remove(
    permit: ClusterPermit<ManageCluster>,
    State(services): State<Services>,
    Path(node): Path<String>,
) -> Result<Json<ClusterChanged>, Problem> {
    let node = node_of(&node)?;
    services.app.cluster.remove(&permit, node).await?;
    Ok(Json(ClusterChanged { done: format!("node {node} does not belong to the cluster any more") }))
}

/// Lets another node lead. Needs the role admin for the whole cluster.
#[utoipa::path(post, path = paths::CLUSTER_TRANSFER.text(), tag = "cluster", request_body = TransferRequest, responses(
    (status = 200, description = "It leads.", body = ClusterChanged),
    (status = 404, description = "There is no such group or node: `not_found`.", body = crate::api::Problem, content_type = "application/problem+json"),
))]
async fn transfer(
    permit: ClusterPermit<ManageCluster>,
    State(services): State<Services>,
    Json(request): Json<TransferRequest>,
) -> Result<Json<ClusterChanged>, Problem> {
    let to = request.to.as_deref().map(node_of).transpose()?;
    let moved = services.app.cluster.hand_over(&permit, request.group.map(GroupId), to).await?;
    let done: Vec<String> =
        moved.into_iter().map(|(group, heir)| format!("node {heir} leads group {}", group.0)).collect();
    Ok(Json(ClusterChanged { done: done.join(", ") }))
}

/// Gives keys that all nodes hold successors; both are good for a while. Needs the role admin for the whole cluster.
#[utoipa::path(post, path = paths::KEYS_ROTATE.text(), tag = "cluster", request_body = RotateRequest, responses(
    (status = 200, description = "The successors are on their way.", body = ClusterChanged),
))]
async fn rotate(
    permit: ClusterPermit<ManageCluster>,
    State(services): State<Services>,
    Json(request): Json<RotateRequest>,
) -> Result<Json<ClusterChanged>, Problem> {
    let named = kinds(&request.keys)?;
    let kinds = if named.is_empty() { ROTATED.to_vec() } else { named };
    let overlap = services.app.cluster.rotate(&permit, &kinds, request.overlap_s.map(Duration::from_secs)).await?;
    let until = rfc3339(now_ms().saturating_add(overlap.as_millis() as u64));
    Ok(Json(ClusterChanged { done: format!("rotating {}: what was before is good until {until}", list(&kinds)) }))
}

/// Finishes rotations: only the successors are good. Refused while a node does not have one. Needs the role admin for the
/// whole cluster.
#[utoipa::path(post, path = paths::KEYS_FINISH.text(), tag = "cluster", request_body = RotateRequest, responses(
    (status = 200, description = "Only the successors are good.", body = ClusterChanged),
    (status = 404, description = "No rotation is under way: `not_found`.", body = crate::api::Problem, content_type = "application/problem+json"),
))]
async fn finish(
    permit: ClusterPermit<ManageCluster>,
    State(services): State<Services>,
    Json(request): Json<RotateRequest>,
) -> Result<Json<ClusterChanged>, Problem> {
    let finished = services.app.cluster.finish_rotation(&permit, &kinds(&request.keys)?).await?;
    Ok(Json(ClusterChanged { done: format!("only the new {} is good now", list(&finished)) }))
}

/// The keys that can be rotated, in the order in which they are when none is named.
const ROTATED: [KeyKind; 3] = [KeyKind::Authority, KeyKind::Gossip, KeyKind::Signing];

fn kinds(names: &[String]) -> Result<Vec<KeyKind>, Problem> {
    let kind = |name: &String| {
        ROTATED.into_iter().find(|kind| kind.to_string() == *name).ok_or_else(|| {
            Problem::new(Code::InvalidRequest, format!("{name:?} is no key that can be rotated"))
                .help("name `ca`, `gossip-key` or `signing-key`, or none for all three")
        })
    };
    names.iter().map(kind).collect()
}

fn list(kinds: &[KeyKind]) -> String {
    kinds.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn node_of(text: &str) -> Result<NodeId, Problem> {
    u64::from_str_radix(text, 16).map(NodeId).map_err(|_| {
        Problem::new(Code::InvalidRequest, format!("{text:?} is not a node's id"))
            .help("`caxton cluster members` shows the ids")
    })
}
