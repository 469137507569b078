//! The cluster over HTTP: its nodes and groups, tokens to join by, and the ways to take a node out or let another lead.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{delete, get, post};
use caxton_proto::NodeId;
use caxton_proto::log::Role;
use caxton_raft::{ChangeError, GroupId};
use tracing::info;
use utoipa::OpenApi;

use super::Services;
use super::extract::{Json, Path};
use crate::api::cluster::{ClusterChanged, ClusterStatus, JoinTokenIssued, JoinTokenRequest, TransferRequest};
use crate::auth::Access;
use crate::cluster::ClusterError;
use crate::conversations::rfc3339;
use crate::problem::{Code, Problem, chain};

/// How long a join token is good unless told.
const TTL: Duration = Duration::from_secs(60 * 60);
/// How long at most.
const TTL_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How many nodes may join by one token at most.
const USES_MAX: u32 = 64;

/// This part of the API's description.
#[derive(OpenApi)]
#[openapi(paths(status, issue, remove, transfer))]
pub struct Doc;

/// This part's routes.
pub fn routes() -> Router<Services> {
    Router::new()
        .route("/api/v1/cluster", get(status))
        .route("/api/v1/cluster/tokens", post(issue))
        .route("/api/v1/cluster/nodes/{node}", delete(remove))
        .route("/api/v1/cluster/transfer", post(transfer))
}

/// The nodes and the groups. The leader of the deploy log answers, unless `?stale=true` asks for this node's view. Needs
/// the role viewer for the whole cluster.
#[utoipa::path(get, path = "/api/v1/cluster", tag = "cluster", responses(
    (status = 200, description = "The cluster.", body = ClusterStatus),
))]
async fn status(access: Access, State(services): State<Services>) -> Result<Json<ClusterStatus>, Problem> {
    access.require_cluster(Role::Viewer)?;
    Ok(Json(services.cluster.status()))
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

/// Takes a node out for good. Needs the role admin for the whole cluster.
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

fn node_of(text: &str) -> Result<NodeId, Problem> {
    u64::from_str_radix(text, 16).map(NodeId).map_err(|_| {
        Problem::new(Code::InvalidRequest, format!("{text:?} is not a node's id"))
            .help("`caxton cluster members` shows the ids")
    })
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
            ClusterError::LastNode => Problem::new(Code::InvalidRequest, detail)
                .help("stop it, and remove its data directory if nothing of it is needed"),
            ClusterError::NoHeir { .. } => Problem::new(Code::Unavailable, detail)
                .help("`caxton cluster status` shows who lags; try again when another voter has caught up")
                .retry_after(1),
            error @ (ClusterError::Random(_) | ClusterError::Unexpected) => Problem::internal(&error),
        }
    }
}
