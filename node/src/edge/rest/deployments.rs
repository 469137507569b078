//! Workspaces over HTTP: what is live, its history, its blobs, and the two ways to change it.
//!
//! Nothing here decides: a handler reads the request, asks, and says the answer. Every route asks for an [`Access`].

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use caxton_proto::log::{self, Role};
use caxton_proto::{Digest, Revision, WorkspaceId};
use futures::StreamExt;
use serde::Deserialize;
use utoipa::{IntoParams, OpenApi};

use crate::api::frame::{self, Decoder};
use crate::api::paths;
use crate::api::{
    self, DeployRequest, DeployResponse, Deployment, Deployments, Digests, Missing, RollbackRequest, Stored,
    WorkspaceStatus, Workspaces,
};
use crate::auth::Access;
use crate::catalog::Catalog;
use crate::edge::Services;
use crate::edge::extract::{Json, Path, Query, body_too_large};
use crate::edge::problem::deployments::artifacts_missing;
use crate::edge::problem::{Code, Problem};
use crate::edge::routes::{Owner, Routes, get, post, put};

/// How many deployments a page has unless the request says.
const PAGE: usize = 100;
/// How many deployments a page has at most.
const PAGE_MAX: usize = 1_000;
/// The largest body of a deployment, in bytes: it names up to `deploy.files_max` files, at about 250 bytes each.
const DEPLOY_BYTES_MAX: usize = 64 << 20;
/// What is read and checked before an answer of blobs begins, in bytes: damage in it is still a proper error.
const FETCH_AHEAD_BYTES: usize = 4 << 20;
/// How many blobs are read ahead of the client.
const FETCH_QUEUE: usize = 16;

/// This part of the API's description.
#[derive(OpenApi)]
#[openapi(paths(workspaces, status, nodes, upload, missing, fetch, history, deploy, deployment, rollback))]
pub struct Doc;

/// This part's routes.
pub fn routes() -> Routes {
    Routes::new()
        .on(get(paths::WORKSPACES), Owner::Anyone, workspaces)
        .on(get(paths::WORKSPACE).or_stale(), Owner::Control, status)
        .on(post(paths::TREE_NODES), Owner::Control, nodes)
        .on(put(paths::ARTIFACTS), Owner::Control, upload)
        .on(post(paths::ARTIFACTS_MISSING), Owner::Control, missing)
        .on(post(paths::ARTIFACTS_FETCH), Owner::Control, fetch)
        .on(get(paths::DEPLOYMENTS), Owner::Control, history)
        .on(post(paths::DEPLOYMENTS).body_bytes_max(DEPLOY_BYTES_MAX), Owner::Control, deploy)
        .on(get(paths::DEPLOYMENT), Owner::Control, deployment)
        .on(post(paths::ROLLBACK), Owner::Control, rollback)
}

/// The workspaces, and what each has live.
#[utoipa::path(get, path = paths::WORKSPACES.text(), tag = "deployments", responses(
    (status = 200, description = "The workspaces that the token is for.", body = Workspaces),
))]
async fn workspaces(access: Access, State(services): State<Services>) -> Result<Json<Workspaces>, Problem> {
    let live: Vec<(WorkspaceId, Option<Arc<log::Deployment>>)> = services.log.read(|state| {
        let may = state.workspaces().filter(|(id, _)| access.require(Role::Viewer, id).is_ok());
        may.map(|(id, workspace)| (id.clone(), workspace.live_deployment().cloned())).collect()
    });
    let workspaces = live.into_iter().map(|(id, live)| status_of(&services, id, live)).collect();
    Ok(Json(Workspaces { workspaces }))
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
    access: Access,
    State(services): State<Services>,
    Path(workspace): Path<WorkspaceId>,
    Query(Currency { stale }): Query<Currency>,
) -> Result<Json<WorkspaceStatus>, Problem> {
    access.require(Role::Viewer, &workspace)?;
    let live = |state: &caxton_raft::deploy_log::State| state.workspace(&workspace)?.live_deployment().cloned();
    let live = if stale { services.log.read(live) } else { services.log.current(live).await? };
    Ok(Json(status_of(&services, workspace, live)))
}

fn status_of(services: &Services, workspace: WorkspaceId, live: Option<Arc<log::Deployment>>) -> WorkspaceStatus {
    let revision = live.as_ref().map_or(Revision::NONE, |live| live.revision);
    let serving = services.catalogs.serving(&workspace, revision);
    let served = services.catalogs.get(&workspace);
    let count = |count: fn(&Catalog) -> usize| served.as_deref().map_or(0, count) as u64;
    WorkspaceStatus {
        revision,
        deployment: live.as_deref().map(Deployment::from),
        serving,
        agents: count(|catalog| catalog.agents().len()),
        tools: count(|catalog| catalog.tools().len()),
        workspace,
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
    access: Access,
    State(services): State<Services>,
    Path(workspace): Path<WorkspaceId>,
    Json(request): Json<DeployRequest>,
) -> Result<Json<DeployResponse>, Problem> {
    Ok(Json(services.deployer.deploy(&access, &workspace, request).await?))
}

/// Makes the files of an older revision live again, as a new revision. Needs the role deployer.
#[utoipa::path(post, path = paths::ROLLBACK.text(), tag = "deployments", params(("workspace" = String, Path, description = "The workspace.")), request_body = RollbackRequest, responses(
    (status = 200, description = "Live.", body = DeployResponse),
    (status = 409, description = "Another deployment came first: `conflict`.", body = api::Problem, content_type = "application/problem+json"),
    (status = 404, description = "The content of that revision is not kept.", body = api::Problem, content_type = "application/problem+json"),
))]
async fn rollback(
    access: Access,
    State(services): State<Services>,
    Path(workspace): Path<WorkspaceId>,
    Json(request): Json<RollbackRequest>,
) -> Result<Json<DeployResponse>, Problem> {
    Ok(Json(services.deployer.rollback(&access, &workspace, request).await?))
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
    access: Access,
    State(services): State<Services>,
    Path(workspace): Path<WorkspaceId>,
    Query(page): Query<Page>,
) -> Result<Json<Deployments>, Problem> {
    access.require(Role::Viewer, &workspace)?;
    let limit = page.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX);
    let before = Revision(page.before.unwrap_or(u64::MAX));
    let found: Vec<_> = services
        .log
        .current(|state| {
            let all = state.workspace(&workspace).into_iter().flat_map(|known| known.deployments().rev());
            all.skip_while(|deployment| deployment.revision >= before).take(limit + 1).cloned().collect()
        })
        .await?;
    let next = (found.len() > limit).then(|| found[limit - 1].revision);
    let deployments = found.iter().take(limit).map(|deployment| Deployment::from(&**deployment)).collect();
    Ok(Json(Deployments { deployments, next }))
}

/// One deployment. Needs the role viewer.
#[utoipa::path(get, path = paths::DEPLOYMENT.text(), tag = "deployments", params(("workspace" = String, Path, description = "The workspace."), ("revision" = String, Path, description = "`r12`, or `12`.")), responses(
    (status = 200, description = "The deployment.", body = Deployment),
))]
async fn deployment(
    access: Access,
    State(services): State<Services>,
    Path((workspace, revision)): Path<(WorkspaceId, String)>,
) -> Result<Json<Deployment>, Problem> {
    access.require(Role::Viewer, &workspace)?;
    let revision: Revision = revision.parse().map_err(|_| {
        Problem::new(Code::InvalidRequest, format!("{revision:?} is not a revision")).help("write it like r12, or 12")
    })?;
    let found = services.log.current(|state| state.workspace(&workspace)?.deployment(revision).cloned()).await?;
    let absent = || {
        Problem::new(Code::NotFound, format!("workspace `{workspace}` has no {revision}"))
            .help("`caxton log` lists the revisions that it has")
    };
    found.map(|found| Json(Deployment::from(&*found))).ok_or_else(absent)
}

/// Which blobs the workspace does not have. Needs the role deployer.
#[utoipa::path(post, path = paths::ARTIFACTS_MISSING.text(), tag = "deployments", params(("workspace" = String, Path, description = "The workspace.")), request_body = Digests, responses(
    (status = 200, description = "Those that have to be sent.", body = Missing),
))]
async fn missing(
    access: Access,
    State(services): State<Services>,
    Path(workspace): Path<WorkspaceId>,
    Json(asked): Json<Digests>,
) -> Result<Json<Missing>, Problem> {
    access.require(Role::Deployer, &workspace)?;
    within(&asked)?;
    let artifacts = services.artifacts.clone();
    let missing = blocking(move || Ok(artifacts.missing(&workspace, &asked.digests)?)).await?;
    Ok(Json(Missing { missing }))
}

/// Stores blobs, all of a body or nothing. Needs the role deployer.
#[utoipa::path(put, path = paths::ARTIFACTS.text(), tag = "deployments", params(("workspace" = String, Path, description = "The workspace.")), request_body(content = Vec<u8>, content_type = "application/vnd.caxton.blobs", description = "Frames: 32 bytes of SHA-256, 4 of length (big-endian), the blob."), responses(
    (status = 200, description = "All are stored.", body = Stored),
    (status = 400, description = "Nothing is stored: `digest_mismatch`, or `invalid_request` for a body that ends early.", body = api::Problem, content_type = "application/problem+json"),
))]
async fn upload(
    access: Access,
    State(services): State<Services>,
    Path(workspace): Path<WorkspaceId>,
    body: Body,
) -> Result<Json<Stored>, Problem> {
    access.require(Role::Deployer, &workspace)?;
    // Held while the body is in memory.
    let _place = services.uploads.try_acquire().map_err(|_| {
        Problem::new(Code::TooManyRequests, "as many uploads as `deploy.uploads_max` allows are being read")
            .help("try again in a moment")
            .retry_after(1)
    })?;
    let blobs = read_blobs(body, services.config.deploy.upload_bytes_max.as_usize()).await?;
    let stored = Stored { blobs: blobs.len() as u64, bytes: blobs.iter().map(|(_, blob)| blob.len() as u64).sum() };
    let artifacts = services.artifacts.clone();
    blocking(move || Ok(artifacts.put(&workspace, blobs)?)).await?;
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
    access: Access,
    State(services): State<Services>,
    Path(workspace): Path<WorkspaceId>,
    Json(asked): Json<Digests>,
) -> Result<Response, Problem> {
    blobs(access, services, workspace, asked).await
}

/// What deployed files are made of: files, chunk lists and chunks. Needs the role viewer.
#[utoipa::path(post, path = paths::ARTIFACTS_FETCH.text(), tag = "deployments", params(("workspace" = String, Path, description = "The workspace.")), request_body = Digests, responses(
    (status = 200, description = "The blobs, framed, in the order asked for.", body = Vec<u8>, content_type = "application/vnd.caxton.blobs"),
    (status = 412, description = "The workspace does not have all of them: `missing`.", body = api::Problem, content_type = "application/problem+json"),
))]
async fn fetch(
    access: Access,
    State(services): State<Services>,
    Path(workspace): Path<WorkspaceId>,
    Json(asked): Json<Digests>,
) -> Result<Response, Problem> {
    blobs(access, services, workspace, asked).await
}

/// Answers with the blobs that are asked for, in their order.
async fn blobs(
    access: Access,
    services: Services,
    workspace: WorkspaceId,
    asked: Digests,
) -> Result<Response, Problem> {
    access.require(Role::Viewer, &workspace)?;
    within(&asked)?;
    let artifacts = services.artifacts.clone();
    let (ready, mut left) = blocking(move || {
        let absent = artifacts.missing(&workspace, &asked.digests)?;
        if !absent.is_empty() {
            // One that is there and damaged counts as absent too, and says so when it is read.
            absent.iter().try_for_each(|digest| artifacts.get(&workspace, digest).map(drop))?;
            return Err(artifacts_missing(&absent, absent.len()));
        }
        let mut ready = BytesMut::new();
        let mut digests = asked.digests.into_iter();
        while ready.len() < FETCH_AHEAD_BYTES {
            let Some(digest) = digests.next() else { break };
            frame::push(&mut ready, &digest, &artifacts.need(&workspace, &digest)?);
        }
        let left = (digests.len() > 0).then_some((artifacts, workspace, digests));
        Ok((ready.freeze(), left))
    })
    .await?;
    let headers = [(header::CONTENT_TYPE, frame::MEDIA_TYPE)];
    let Some((artifacts, workspace, digests)) = left.take() else {
        return Ok((headers, ready).into_response());
    };
    let (sender, receiver) = tokio::sync::mpsc::channel(FETCH_QUEUE);
    tokio::task::spawn_blocking(move || {
        for digest in digests {
            let framed = artifacts.need(&workspace, &digest).map(|blob| {
                let mut framed = BytesMut::with_capacity(frame::HEAD_BYTES + blob.len());
                frame::push(&mut framed, &digest, &blob);
                framed.freeze()
            });
            // An error breaks the body off, so that the client never takes it for whole.
            let broken = framed.is_err();
            if sender.blocking_send(framed).is_err() || broken {
                return;
            }
        }
    });
    let rest = futures::stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) });
    let first = futures::stream::once(std::future::ready(Ok(ready)));
    Ok((headers, Body::from_stream(first.chain(rest))).into_response())
}

fn within(asked: &Digests) -> Result<(), Problem> {
    let (count, max) = (asked.digests.len(), frame::DIGESTS_MAX);
    if count > max {
        let detail = format!("{count} digests are asked for, and {max} is the most at once");
        return Err(Problem::new(Code::InvalidRequest, detail).help("ask in several requests"));
    }
    Ok(())
}

/// Runs what blocks on the disk where that does no harm.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let span = tracing::Span::current();
    let done = tokio::task::spawn_blocking(move || span.in_scope(work)).await;
    done.map_err(|error| Problem::internal(&error))?
}
