//! The cluster over HTTP: its nodes and groups, tokens to join by, and the ways to take a node out or let another lead.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::IntoResponse;
use axum::routing::{delete, get, post};
use caxton_proto::NodeId;
use caxton_proto::log::Role;
use caxton_proto::log::cluster::KeyKind;
use caxton_raft::{ChangeError, GroupId};
use tracing::info;
use utoipa::OpenApi;

use super::Services;
use super::extract::{Json, Path};
use crate::api::cluster::{
    ClusterChanged, ClusterStatus, JoinTokenIssued, JoinTokenRequest, RotateRequest, TransferRequest,
};
use crate::auth::{Access, now_ms};
use crate::cluster::ClusterError;
use crate::cluster::keyring::RotateError;
use crate::conversations::rfc3339;
use crate::problem::{Code, Problem, chain};

/// How long a join token is good unless told.
const TTL: Duration = Duration::from_secs(60 * 60);
/// How long at most.
const TTL_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long another leader may take to say how far its followers are.
const VIEW_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest answer to that, in bytes.
const VIEW_BYTES_MAX: usize = 4 << 20;
/// How long the keys before are good unless told.
const OVERLAP: Duration = Duration::from_secs(24 * 60 * 60);
/// How long at most.
const OVERLAP_MAX: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// How many nodes may join by one token at most.
const USES_MAX: u32 = 64;

/// This part of the API's description.
#[derive(OpenApi)]
#[openapi(paths(status, issue, remove, transfer, rotate, finish))]
pub struct Doc;

/// This part's routes.
pub fn routes() -> Router<Services> {
    Router::new()
        .route("/api/v1/cluster", get(status))
        .route("/api/v1/cluster/tokens", post(issue))
        .route("/api/v1/cluster/nodes/{node}", delete(remove))
        .route("/api/v1/cluster/transfer", post(transfer))
        .route("/api/v1/cluster/keys/rotate", post(rotate))
        .route("/api/v1/cluster/keys/finish", post(finish))
}

/// The nodes and the groups. The leader of the deploy log answers, unless `?stale=true` asks for this node's view. Needs
/// the role viewer for the whole cluster.
#[utoipa::path(get, path = "/api/v1/cluster", tag = "cluster", responses(
    (status = 200, description = "The cluster.", body = ClusterStatus),
))]
async fn status(
    access: Access,
    State(services): State<Services>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Json<ClusterStatus>, Problem> {
    access.require_cluster(Role::Viewer)?;
    let mut status = services.cluster.status();
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
#[utoipa::path(post, path = "/api/v1/cluster/tokens", tag = "cluster", request_body = JoinTokenRequest, responses(
    (status = 201, description = "The token.", body = JoinTokenIssued),
))]
async fn issue(
    access: Access,
    State(services): State<Services>,
    Json(request): Json<JoinTokenRequest>,
) -> Result<impl IntoResponse, Problem> {
    access.require_cluster(Role::Admin)?;
    let ttl = request.ttl_s.map_or(TTL, Duration::from_secs);
    let uses = request.uses.unwrap_or(1);
    if ttl.is_zero() || ttl > TTL_MAX || !(1..=USES_MAX).contains(&uses) {
        let detail = format!(
            "a join token is good for 1 to {} seconds and 1 to {USES_MAX} nodes, and {} seconds and {uses} nodes were asked for",
            TTL_MAX.as_secs(),
            ttl.as_secs()
        );
        return Err(Problem::new(Code::InvalidRequest, detail).help("ask for less, and make another when it is needed"));
    }
    let (ticket, expires_ms) = services.cluster.issue(ttl, uses, access.subject()).await?;
    info!(id = ticket.id, uses, actor = access.subject(), "join token issued");
    let issued = JoinTokenIssued {
        token: ticket.reveal(),
        id: ticket.id.clone(),
        expires: rfc3339(expires_ms),
        uses,
        join: services.cluster.join_addresses(),
    };
    Ok((StatusCode::CREATED, Json(issued)))
}

/// Takes a node out for good, and answers when no group counts it any more: another node leads what it led. While it takes
/// longer than a request may, the answer is 503, and whoever asks again waits on. Needs the role admin for the whole cluster.
#[utoipa::path(delete, path = "/api/v1/cluster/nodes/{node}", tag = "cluster",
    params(("node" = String, Path, description = "The node's id.")),
    responses((status = 200, description = "It is out.", body = ClusterChanged)))]
async fn remove(
    access: Access,
    State(services): State<Services>,
    Path(node): Path<String>,
) -> Result<Json<ClusterChanged>, Problem> {
    access.require_cluster(Role::Admin)?;
    let node = node_of(&node)?;
    services.cluster.remove(node, access.subject()).await?;
    Ok(Json(ClusterChanged { done: format!("node {node} does not belong to the cluster any more") }))
}

/// Lets another node lead. Needs the role admin for the whole cluster.
#[utoipa::path(post, path = "/api/v1/cluster/transfer", tag = "cluster", request_body = TransferRequest, responses(
    (status = 200, description = "It leads.", body = ClusterChanged),
))]
async fn transfer(
    access: Access,
    State(services): State<Services>,
    Json(request): Json<TransferRequest>,
) -> Result<Json<ClusterChanged>, Problem> {
    access.require_cluster(Role::Admin)?;
    let to = request.to.as_deref().map(node_of).transpose()?;
    let groups = match request.group {
        Some(group) => vec![GroupId(group)],
        None => services.cluster.leads(),
    };
    let mut done = Vec::new();
    for group in groups {
        let heir = services.cluster.hand_over(group, to).await?;
        done.push(format!("node {heir} leads group {}", group.0));
    }
    Ok(Json(ClusterChanged { done: done.join(", ") }))
}

/// Gives keys that all nodes hold successors; both are good for a while. Needs the role admin for the whole cluster.
#[utoipa::path(post, path = "/api/v1/cluster/keys/rotate", tag = "cluster", request_body = RotateRequest, responses(
    (status = 200, description = "The successors are on their way.", body = ClusterChanged),
))]
async fn rotate(
    access: Access,
    State(services): State<Services>,
    Json(request): Json<RotateRequest>,
) -> Result<Json<ClusterChanged>, Problem> {
    access.require_cluster(Role::Admin)?;
    let overlap = request.overlap_s.map_or(OVERLAP, Duration::from_secs);
    if overlap.is_zero() || overlap > OVERLAP_MAX {
        let detail = format!(
            "both keys are good for 1 to {} seconds, and {} were asked for",
            OVERLAP_MAX.as_secs(),
            overlap.as_secs()
        );
        return Err(Problem::new(Code::InvalidRequest, detail).help("ask for another overlap"));
    }
    let kinds = kinds(&request.keys)?;
    for kind in &kinds {
        services.keyring.rotate(*kind, overlap, access.subject()).await?;
    }
    let until = rfc3339(now_ms().saturating_add(overlap.as_millis() as u64));
    Ok(Json(ClusterChanged { done: format!("rotating {}: what was before is good until {until}", list(&kinds)) }))
}

/// Finishes rotations: only the successors are good. Refused while a node does not have one. Needs the role admin for the
/// whole cluster.
#[utoipa::path(post, path = "/api/v1/cluster/keys/finish", tag = "cluster", request_body = RotateRequest, responses(
    (status = 200, description = "Only the successors are good.", body = ClusterChanged),
))]
async fn finish(
    access: Access,
    State(services): State<Services>,
    Json(request): Json<RotateRequest>,
) -> Result<Json<ClusterChanged>, Problem> {
    access.require_cluster(Role::Admin)?;
    let named = kinds(&request.keys)?;
    let kinds = if request.keys.is_empty() { services.keyring.open() } else { named };
    if kinds.is_empty() {
        return Err(
            Problem::new(Code::NotFound, "no rotation is under way").help("`caxton cluster status` shows the keys")
        );
    }
    for kind in &kinds {
        services.keyring.finish(*kind, access.subject()).await?;
    }
    Ok(Json(ClusterChanged { done: format!("only the new {} is good now", list(&kinds)) }))
}

fn kinds(names: &[String]) -> Result<Vec<KeyKind>, Problem> {
    let all = [KeyKind::Authority, KeyKind::Gossip, KeyKind::Signing];
    if names.is_empty() {
        return Ok(all.to_vec());
    }
    let kind = |name: &String| {
        all.into_iter().find(|kind| kind.to_string() == *name).ok_or_else(|| {
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

impl From<RotateError> for Problem {
    fn from(error: RotateError) -> Problem {
        let detail = error.to_string();
        match error {
            RotateError::Log(error) => error.into(),
            RotateError::UnderWay { .. } => Problem::new(Code::InvalidRequest, detail)
                .help("finish that one with `caxton cluster rotate --finish`, or wait until its overlap is over"),
            RotateError::Waits { .. } => Problem::new(Code::InvalidRequest, detail).help(
                "start these nodes, or take them out with `caxton cluster remove`; without that, the rotation is finished when its overlap is over, and a node that comes back later has to join again",
            ),
            RotateError::None { .. } => {
                Problem::new(Code::NotFound, detail).help("`caxton cluster status` shows the keys")
            }
            error @ (RotateError::Make { .. } | RotateError::Unexpected) => Problem::internal(&error),
        }
    }
}

impl From<ClusterError> for Problem {
    fn from(error: ClusterError) -> Problem {
        let detail = error.to_string();
        match error {
            ClusterError::Log(error) => error.into(),
            ClusterError::Change(ChangeError::NotLeader { leader }) => {
                Problem::new(Code::Unavailable, detail).help("try again in a moment").retry_after(1).led_by(leader)
            }
            ClusterError::Change(error) => {
                Problem::new(Code::Unavailable, chain(&error)).help("try again in a moment").retry_after(1)
            }
            ClusterError::Closed => Problem::new(Code::InvalidRequest, detail).help(
                "start it with an address for other nodes, as in `caxton serve --set cluster.bind=127.0.0.1:7412`",
            ),
            ClusterError::TooManyTokens => Problem::new(Code::TooManyRequests, detail)
                .help("wait until some expire, or give new ones a shorter life"),
            ClusterError::NoSuchNode { .. } => {
                Problem::new(Code::NotFound, detail).help("`caxton cluster members` shows the nodes there are")
            }
            ClusterError::NoSuchGroup { .. } => {
                Problem::new(Code::NotFound, detail).help("`caxton cluster status` shows the groups there are")
            }
            ClusterError::Retires { .. } => Problem::new(Code::Unavailable, detail)
                .help("ask again to wait on; when nobody asks for a minute it stays a member, and `caxton cluster status` shows what is missing")
                .retry_after(1),
            ClusterError::LastNode => Problem::new(Code::InvalidRequest, detail)
                .help("stop it, and remove its data directory if nothing of it is needed"),
            ClusterError::NoHeir { .. } => Problem::new(Code::Unavailable, detail)
                .help("`caxton cluster status` shows who lags; try again when another voter has caught up")
                .retry_after(1),
            error @ (ClusterError::Random(_) | ClusterError::Unexpected) => Problem::internal(&error),
        }
    }
}
