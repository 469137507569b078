//! Deployments: what is live, its history, the way back, and all of it as it happens.

use axum::extract::{Request, State};
use axum::response::Response;
use caxton_proto::Revision;
use caxton_proto::v1::pb;
use futures::StreamExt;

use super::call;
use super::convert::{freshness, page, permit, time};
use crate::api::{self, RollbackRequest, Serving, paths};
use crate::app::activity::DeploymentScope;
use crate::app::deployments::{HistoryPage, Live};
use crate::authz::{Deploy, ReadActivity, ReadDeployed, UnscopedToken};
use crate::edge::problem::{Code, Problem};
use crate::edge::rest::events::DeploymentFeed;
use crate::edge::routes::{Owner, Routes, post};
use crate::edge::{Services, feeds, sse};

/// Deployments on a page unless told otherwise, and at most.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;

/// This service's routes.
pub fn routes() -> Routes {
    Routes::new()
        .on(post(paths::GRPC_LIST_WORKSPACES), Owner::Anyone, workspaces)
        .on(post(paths::GRPC_GET_CURRENT), Owner::Named, current)
        .on(post(paths::GRPC_LIST_DEPLOYMENTS), Owner::Control, list)
        .on(post(paths::GRPC_GET_DEPLOYMENT), Owner::Control, get)
        .on(post(paths::GRPC_ROLLBACK), Owner::Control, rollback)
        .on(post(paths::GRPC_FOLLOW_DEPLOYMENTS), Owner::Anyone, follow)
}

async fn workspaces(
    token: UnscopedToken<ReadDeployed>,
    State(services): State<Services>,
    request: Request,
) -> Response {
    call::unary(&services, request, async |_: pb::ListWorkspacesRequest| {
        let workspaces = services.app.deployments.all(&token).into_iter().map(status).collect();
        Ok(pb::ListWorkspacesResponse { workspaces })
    })
    .await
}

async fn current(token: UnscopedToken<ReadDeployed>, State(services): State<Services>, request: Request) -> Response {
    call::unary(&services, request, async |wanted: pb::GetCurrentRequest| {
        let permit = permit(&token, &wanted.workspace)?;
        Ok(status(services.app.deployments.one(&permit, freshness(wanted.stale)).await?))
    })
    .await
}

async fn list(token: UnscopedToken<ReadDeployed>, State(services): State<Services>, request: Request) -> Response {
    call::unary(&services, request, async |wanted: pb::ListDeploymentsRequest| {
        let permit = permit(&token, &wanted.workspace)?;
        let before = Revision(wanted.before.unwrap_or(u64::MAX));
        let limit = page(wanted.limit, PAGE, PAGE_MAX);
        let HistoryPage { deployments, next } = services.app.deployments.history(&permit, before, limit).await?;
        let deployments = deployments.iter().map(|it| deployment(api::Deployment::from(&**it))).collect();
        Ok(pb::ListDeploymentsResponse { deployments, next: next.map(|next| next.0) })
    })
    .await
}

async fn get(token: UnscopedToken<ReadDeployed>, State(services): State<Services>, request: Request) -> Response {
    call::unary(&services, request, async |wanted: pb::GetDeploymentRequest| {
        let (permit, revision) = (permit(&token, &wanted.workspace)?, Revision(wanted.revision));
        let found = services.app.deployments.deployment(&permit, revision).await?;
        let found = found.ok_or_else(|| {
            Problem::new(Code::NotFound, format!("workspace `{}` has no {revision}", permit.workspace()))
                .help("`caxton log` lists the revisions that it has")
        })?;
        Ok(deployment(api::Deployment::from(&*found)))
    })
    .await
}

async fn rollback(token: UnscopedToken<Deploy>, State(services): State<Services>, request: Request) -> Response {
    call::unary(&services, request, async |wanted: pb::RollbackRequest| {
        let permit = permit(&token, &wanted.workspace)?;
        let author = wanted.author.unwrap_or_default();
        let request = RollbackRequest {
            to: Revision(wanted.to),
            parent: Revision(wanted.parent),
            author: api::Author { name: author.name, email: author.email },
            message: wanted.message,
            idempotency_key: wanted.idempotency_key,
        };
        let done = services.app.deployments.roll_back(&permit, request).await?;
        Ok(pb::RollbackResponse { deployment: done.deployment.map(deployment), known: done.repeated })
    })
    .await
}

async fn follow(token: UnscopedToken<ReadActivity>, State(services): State<Services>, request: Request) -> Response {
    call::streaming(&services, request, async |wanted: pb::FollowDeploymentsRequest| {
        let scope = match &wanted.workspace {
            Some(workspace) => DeploymentScope::One(permit(&token, workspace)?),
            None => DeploymentScope::Every(token),
        };
        let (place, access) = (sse::place(&services)?, scope.access().clone());
        let feed = DeploymentFeed::open(&services, scope, wanted.after).await?;
        let told = feeds::tell(services.clone(), access, place, feed);
        Ok(told.map(|found| Ok(deployment(api::Deployment::from(&*found?)))))
    })
    .await
}

fn status(live: Live) -> pb::WorkspaceStatus {
    let served = live.served.as_deref();
    let serving = match live.serving {
        Serving::Nothing => 0,
        Serving::Live { revision } | Serving::Loading { revision } => revision.0,
        Serving::Failed { revision, .. } => revision.0,
    };
    pb::WorkspaceStatus {
        revision: live.revision().0,
        serving,
        agents: served.map_or(0, |catalog| catalog.agents().len()) as u64,
        tools: served.map_or(0, |catalog| catalog.tools().len()) as u64,
        deployment: live.deployment.as_deref().map(|it| deployment(api::Deployment::from(it))),
        lacking: live.lacking,
        workspace: live.workspace.to_string(),
    }
}

fn deployment(it: api::Deployment) -> pb::Deployment {
    // It was written by this program, in the one form in which it writes moments.
    let time_ms = it.time.parse::<jiff::Timestamp>().map(|at| at.as_millisecond()).unwrap_or_default();
    pb::Deployment {
        workspace: it.workspace.to_string(),
        revision: it.revision.0,
        parent: it.parent.0,
        root: it.root.to_string(),
        rollback_to: it.rollback_to.map(|to| to.0),
        author: Some(pb::Author { name: it.author.name, email: it.author.email }),
        actor: it.actor,
        time: Some(time(time_ms)),
        git: it.git.map(|git| pb::Git { commit: git.commit, branch: git.branch, dirty: git.dirty }),
        message: it.message,
        changes: it.changes_total,
        files: it.files,
        bytes: it.bytes,
        event_id: it.event_id,
        kept: it.kept,
    }
}
