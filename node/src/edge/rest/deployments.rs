//! Workspaces over HTTP: what is live, its history, its blobs, and the two ways to change it.
//!
//! Nothing here decides: a handler reads the request, asks, and says the answer.

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use caxton_proto::{Digest, Revision};
use futures::StreamExt;
use serde::Deserialize;
use utoipa::{IntoParams, OpenApi};

use super::{blocking, freshness};
use crate::api::frame::{self, Decoder};
use crate::api::paths;
use crate::api::{
    self, DeployRequest, DeployResponse, Deployment, Deployments, Digests, Missing, RollbackRequest, StoredBlobs,
    WorkspaceStatus, Workspaces,
};
use crate::app::deployments::{Content, HistoryPage, Live};
use crate::authz::{Deploy, Permit, ReadDeployed, UnscopedToken};
use crate::catalog::Catalog;
use crate::edge::Services;
use crate::edge::caps::CameFrom;
use crate::edge::extract::{Json, Path, Query, body_too_large};
use crate::edge::problem::{Code, Problem};
use crate::edge::routes::{BodyLimit, Owner, Routes, get, post, put};

/// How many deployments a page has unless the request says.
const PAGE: usize = 100;
/// How many deployments a page has at most.
const PAGE_MAX: usize = 1_000;
/// About how many bytes of blobs are read at once. Those of the first piece are read before the answer begins: damage in them
/// is still a proper error.
const FETCH_PIECE_BYTES: usize = 256 << 10;
/// How many answers of blobs may be under way that are longer than one piece.
pub const CONTENT_STREAMS_MAX: usize = 256;
/// How many of them go to one address.
const CONTENT_STREAMS_PER_ADDRESS_MAX: u64 = 32;

/// This part of the API's description.
#[derive(OpenApi)]
#[openapi(paths(
    workspaces,
    status,
    status_by_name,
    nodes,
    upload,
    missing,
    fetch,
    history,
    deploy,
    deploy_by_name,
    deployment,
    rollback
))]
pub struct Doc;

/// This part's routes.
pub fn routes() -> Routes {
    Routes::new()
        .on(get(paths::WORKSPACES), Owner::Anyone, workspaces)
        .on(get(paths::WORKSPACE).or_stale(), Owner::Control, status)
        .on(get(paths::STATUS).or_stale(), Owner::Control, status_by_name)
        .on(post(paths::DEPLOY).body(BodyLimit::Deployment).own_time(), Owner::Control, deploy_by_name)
        .on(post(paths::TREE_NODES), Owner::Control, nodes)
        .on(put(paths::ARTIFACTS), Owner::Control, upload)
        .on(post(paths::ARTIFACTS_MISSING), Owner::Control, missing)
        .on(post(paths::ARTIFACTS_FETCH), Owner::Control, fetch)
        .on(get(paths::DEPLOYMENTS), Owner::Control, history)
        .on(post(paths::DEPLOYMENTS).body(BodyLimit::Deployment).own_time(), Owner::Control, deploy)
        .on(get(paths::DEPLOYMENT), Owner::Control, deployment)
        .on(post(paths::ROLLBACK).own_time(), Owner::Control, rollback)
}

/// The workspaces, and what each has live.
#[utoipa::path(get, path = paths::WORKSPACES.text(), tag = "deployments", responses(
    (status = 200, description = "The workspaces that the token is for.", body = Workspaces),
))]
async fn workspaces(unscoped: UnscopedToken<ReadDeployed>, State(services): State<Services>) -> Json<Workspaces> {
    let workspaces = services.app.deployments.all(&unscoped).into_iter().map(status_of).collect();
    Json(Workspaces { workspaces })
}

/// How current an answer has to be.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Currency {
    /// The node that is asked answers with what it knows, which may be behind.
    #[serde(default)]
    stale: bool,
}

/// What is live. Needs the role viewer.
#[utoipa::path(get, path = paths::WORKSPACE.text(), tag = "deployments", params(("workspace" = String, Path, description = "The workspace."), Currency), responses(
    (status = 200, description = "What is live.", body = WorkspaceStatus),
))]
async fn status(
    permit: Permit<ReadDeployed>,
    State(services): State<Services>,
    Query(Currency { stale }): Query<Currency>,
) -> Result<Json<WorkspaceStatus>, Problem> {
    Ok(Json(status_of(services.app.deployments.one(&permit, freshness(stale)).await?)))
}

/// What is live, as `GET /api/v1/workspaces/{workspace}` says it. Needs the role viewer.
#[utoipa::path(get, path = paths::STATUS.text(), tag = "deployments", params(("workspace" = String, Path, description = "The workspace."), Currency), responses(
    (status = 200, description = "What is live.", body = WorkspaceStatus),
))]
async fn status_by_name(
    permit: Permit<ReadDeployed>,
    services: State<Services>,
    currency: Query<Currency>,
) -> Result<Json<WorkspaceStatus>, Problem> {
    status(permit, services, currency).await
}

/// Makes files live, as `POST .../deployments` does. Needs the role deployer.
#[utoipa::path(post, path = paths::DEPLOY.text(), tag = "deployments", params(("workspace" = String, Path, description = "The workspace.")), request_body = DeployRequest, responses(
    (status = 200, description = "Live, or checked (`dry_run`).", body = DeployResponse),
    (status = 409, description = "Another deployment came first: `conflict`.", body = api::Problem, content_type = "application/problem+json"),
    (status = 412, description = "Artifacts have to be sent first: `missing`.", body = api::Problem, content_type = "application/problem+json"),
    (status = 422, description = "It could not run: `diagnostics`.", body = api::Problem, content_type = "application/problem+json"),
))]
async fn deploy_by_name(
    permit: Permit<Deploy>,
    services: State<Services>,
    request: Json<DeployRequest>,
) -> Result<Json<DeployResponse>, Problem> {
    deploy(permit, services, request).await
}

fn status_of(live: Live) -> WorkspaceStatus {
    let count = |count: fn(&Catalog) -> usize| live.served.as_deref().map_or(0, count) as u64;
    WorkspaceStatus {
        revision: live.revision(),
        agents: count(|catalog| catalog.agents().len()),
        tools: count(|catalog| catalog.tools().len()),
        deployment: live.deployment.as_deref().map(Deployment::from),
        serving: live.serving,
        lacking: live.lacking,
        workspace: live.workspace,
    }
}

/// Makes files live, all or nothing. Answers when this node serves them. Needs the role deployer.
#[utoipa::path(post, path = paths::DEPLOYMENTS.text(), tag = "deployments", params(("workspace" = String, Path, description = "The workspace.")), request_body = DeployRequest, responses(
    (status = 200, description = "Live, or checked (`dry_run`).", body = DeployResponse),
    (status = 409, description = "Another deployment came first: `conflict`.", body = api::Problem, content_type = "application/problem+json"),
    (status = 412, description = "Artifacts have to be sent first: `missing`.", body = api::Problem, content_type = "application/problem+json"),
    (status = 422, description = "It could not run: `diagnostics`.", body = api::Problem, content_type = "application/problem+json"),
))]
async fn deploy(
    permit: Permit<Deploy>,
    State(services): State<Services>,
    Json(request): Json<DeployRequest>,
) -> Result<Json<DeployResponse>, Problem> {
    Ok(Json(services.app.deployments.deploy(&permit, request).await?))
}

/// Makes the files of an older revision live again, as a new revision. Needs the role deployer.
#[utoipa::path(post, path = paths::ROLLBACK.text(), tag = "deployments", params(("workspace" = String, Path, description = "The workspace.")), request_body = RollbackRequest, responses(
    (status = 200, description = "Live.", body = DeployResponse),
    (status = 409, description = "Another deployment came first: `conflict`.", body = api::Problem, content_type = "application/problem+json"),
    (status = 404, description = "The content of that revision is not kept.", body = api::Problem, content_type = "application/problem+json"),
))]
async fn rollback(
    permit: Permit<Deploy>,
    State(services): State<Services>,
    Json(request): Json<RollbackRequest>,
) -> Result<Json<DeployResponse>, Problem> {
    Ok(Json(services.app.deployments.roll_back(&permit, request).await?))
}

/// Which part of the history.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Page {
    /// Only revisions below this one.
    before: Option<u64>,
    /// How many at most: 100 unless told, 1,000 at most.
    limit: Option<usize>,
}

/// The history, the newest first. Needs the role viewer.
#[utoipa::path(get, path = paths::DEPLOYMENTS.text(), tag = "deployments", params(("workspace" = String, Path, description = "The workspace."), Page), responses(
    (status = 200, description = "A page of the history.", body = Deployments),
))]
async fn history(
    permit: Permit<ReadDeployed>,
    State(services): State<Services>,
    Query(page): Query<Page>,
) -> Result<Json<Deployments>, Problem> {
    let limit = page.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX);
    let before = Revision(page.before.unwrap_or(u64::MAX));
    let HistoryPage { deployments, next } = services.app.deployments.history(&permit, before, limit).await?;
    let deployments = deployments.iter().map(|deployment| Deployment::from(&**deployment)).collect();
    Ok(Json(Deployments { deployments, next }))
}

/// One deployment. Needs the role viewer.
#[utoipa::path(get, path = paths::DEPLOYMENT.text(), tag = "deployments", params(("workspace" = String, Path, description = "The workspace."), ("revision" = String, Path, description = "`r12`, or `12`.")), responses(
    (status = 200, description = "The deployment.", body = Deployment),
))]
async fn deployment(
    permit: Permit<ReadDeployed>,
    State(services): State<Services>,
    Path((_workspace, revision)): Path<(String, String)>,
) -> Result<Json<Deployment>, Problem> {
    let revision: Revision = revision.parse().map_err(|_| {
        Problem::new(Code::InvalidRequest, format!("{revision:?} is not a revision")).help("write it like r12, or 12")
    })?;
    let found = services.app.deployments.deployment(&permit, revision).await?;
    let absent = || {
        Problem::new(Code::NotFound, format!("workspace `{}` has no {revision}", permit.workspace()))
            .help("`caxton log` lists the revisions that it has")
    };
    found.map(|found| Json(Deployment::from(&*found))).ok_or_else(absent)
}

/// Which blobs the workspace does not have. Needs the role deployer.
#[utoipa::path(post, path = paths::ARTIFACTS_MISSING.text(), tag = "deployments", params(("workspace" = String, Path, description = "The workspace.")), request_body = Digests, responses(
    (status = 200, description = "Those that have to be sent.", body = Missing),
))]
async fn missing(
    permit: Permit<Deploy>,
    State(services): State<Services>,
    Json(asked): Json<Digests>,
) -> Result<Json<Missing>, Problem> {
    within(&asked)?;
    let missing = services.app.deployments.missing(&permit, asked.digests).await?;
    Ok(Json(Missing { missing }))
}

/// Stores blobs, all of a body or nothing. Needs the role deployer.
#[utoipa::path(put, path = paths::ARTIFACTS.text(), tag = "deployments", params(("workspace" = String, Path, description = "The workspace.")), request_body(content = Vec<u8>, content_type = "application/vnd.caxton.blobs", description = "Frames: 32 bytes of SHA-256, 4 of length (big-endian), the blob."), responses(
    (status = 200, description = "All are stored.", body = StoredBlobs),
    (status = 400, description = "Nothing is stored: `digest_mismatch`, or `invalid_request` for a body that ends early.", body = api::Problem, content_type = "application/problem+json"),
))]
async fn upload(
    permit: Permit<Deploy>,
    State(services): State<Services>,
    body: Body,
) -> Result<Json<StoredBlobs>, Problem> {
    let deployments = &services.app.deployments;
    // Held while the body is in memory.
    let _place = deployments.upload_place(&permit)?;
    let blobs = read_blobs(body, services.upload_bytes_max).await?;
    let stored =
        StoredBlobs { blobs: blobs.len() as u64, bytes: blobs.iter().map(|(_, blob)| blob.len() as u64).sum() };
    deployments.store(&permit, blobs).await?;
    Ok(Json(stored))
}

/// All blobs of a body, each checked. Nothing is stored before the last one was.
async fn read_blobs(body: Body, bytes_max: usize) -> Result<Vec<(Digest, Bytes)>, Problem> {
    let mut pieces = body.into_data_stream();
    let mut decoder = Decoder::default();
    let (mut blobs, mut bytes) = (Vec::new(), 0usize);
    while let Some(piece) = pieces.next().await {
        let cut = |_| Problem::new(Code::InvalidRequest, "the body ended before it was whole").help("send it again");
        let piece = piece.map_err(cut)?;
        bytes = bytes.saturating_add(piece.len());
        if bytes > bytes_max {
            return Err(body_too_large());
        }
        decoder.feed(&piece);
        while let Some(blob) = decoder.next_blob()? {
            blobs.push(blob);
        }
    }
    decoder.finish()?;
    Ok(blobs)
}

/// The nodes of a workspace's Merkle trie, by which a client finds what differs. Needs the role viewer.
#[utoipa::path(post, path = paths::TREE_NODES.text(), tag = "deployments", params(("workspace" = String, Path, description = "The workspace.")), request_body = Digests, responses(
    (status = 200, description = "The blobs, framed, in the order asked for.", body = Vec<u8>, content_type = "application/vnd.caxton.blobs"),
    (status = 412, description = "The workspace does not have all of them: `missing`.", body = api::Problem, content_type = "application/problem+json"),
))]
async fn nodes(
    permit: Permit<ReadDeployed>,
    State(services): State<Services>,
    came_from: Option<Extension<CameFrom>>,
    Json(asked): Json<Digests>,
) -> Result<Response, Problem> {
    blobs(permit, services, came_from.map(|Extension(from)| from), asked).await
}

/// What deployed files are made of: files, chunk lists and chunks. Needs the role viewer.
#[utoipa::path(post, path = paths::ARTIFACTS_FETCH.text(), tag = "deployments", params(("workspace" = String, Path, description = "The workspace.")), request_body = Digests, responses(
    (status = 200, description = "The blobs, framed, in the order asked for.", body = Vec<u8>, content_type = "application/vnd.caxton.blobs"),
    (status = 412, description = "The workspace does not have all of them: `missing`.", body = api::Problem, content_type = "application/problem+json"),
))]
async fn fetch(
    permit: Permit<ReadDeployed>,
    State(services): State<Services>,
    came_from: Option<Extension<CameFrom>>,
    Json(asked): Json<Digests>,
) -> Result<Response, Problem> {
    blobs(permit, services, came_from.map(|Extension(from)| from), asked).await
}

/// Answers with the blobs that are asked for, in their order.
async fn blobs(
    permit: Permit<ReadDeployed>,
    services: Services,
    came_from: Option<CameFrom>,
    asked: Digests,
) -> Result<Response, Problem> {
    within(&asked)?;
    let content = services.app.deployments.content(&permit, asked.digests.clone()).await?;
    let (ready, left) = framed(content, asked.digests.into_iter()).await?;
    let headers = [(header::CONTENT_TYPE, frame::MEDIA_TYPE)];
    if left.1.len() == 0 {
        return Ok((headers, ready).into_response());
    }
    let busy = || {
        Problem::new(Code::Unavailable, "as many clients are being sent files as may be")
            .help("try again in a moment")
            .retry_after(1)
    };
    let own =
        came_from.map(|from| services.content_readers.enter(from.0, CONTENT_STREAMS_PER_ADDRESS_MAX).ok_or_else(busy));
    let place = (own.transpose()?, services.content_streams.clone().try_acquire_owned().map_err(|_| busy())?);
    // A client that does not read keeps a place and one piece, and no thread: the next piece is read when it wants it.
    let rest = futures::stream::unfold(Some((left, place)), |state| async {
        let ((content, digests), place) = state.filter(|((_, digests), _)| digests.len() > 0)?;
        match framed(content, digests).await {
            Ok((piece, left)) => Some((Ok(piece), Some((left, place)))),
            // An error breaks the body off, so that the client never takes it for whole.
            Err(problem) => {
                Some((Err(std::io::Error::other(format!("a file cannot be read: {}", problem.code().name()))), None))
            }
        }
    });
    let first = futures::stream::once(std::future::ready(Ok(ready)));
    Ok((headers, Body::from_stream(first.chain(rest))).into_response())
}

/// Some of the blobs, framed, and what is left.
async fn framed(
    content: Content,
    mut digests: std::vec::IntoIter<Digest>,
) -> Result<(Bytes, (Content, std::vec::IntoIter<Digest>)), Problem> {
    blocking(move || {
        let mut piece = BytesMut::new();
        while piece.len() < FETCH_PIECE_BYTES {
            let Some(digest) = digests.next() else { break };
            frame::push(&mut piece, &digest, &content.read(&digest)?);
        }
        Ok((piece.freeze(), (content, digests)))
    })
    .await
}

fn within(asked: &Digests) -> Result<(), Problem> {
    let (count, max) = (asked.digests.len(), frame::DIGESTS_MAX);
    if count > max {
        let detail = format!("{count} digests are asked for, and {max} is the most at once");
        return Err(Problem::new(Code::InvalidRequest, detail).help("ask in several requests"));
    }
    Ok(())
}
