//! A workspace as a whole: what there is of it, and its deletion.

use axum::extract::State;
use caxton_proto::Revision;
use serde::Deserialize;
use utoipa::{IntoParams, OpenApi};

use crate::api::workspaces::{WorkspaceContents, WorkspaceDeleted};
use crate::api::{self, paths};
use crate::authz::{DeleteWorkspaces, Permit};
use crate::edge::Services;
use crate::edge::extract::{Json, Query};
use crate::edge::problem::Problem;
use crate::edge::routes::{Owner, Routes, delete, get};

/// This part of the API's description.
#[derive(OpenApi)]
#[openapi(paths(contents, remove))]
pub struct Doc;

/// This part's routes.
pub fn routes() -> Routes {
    Routes::new().on(get(paths::CONTENTS), Owner::Control, contents).on(
        delete(paths::WORKSPACE),
        Owner::Control,
        remove,
    )
}

/// What would go with the workspace. Needs the role admin.
#[utoipa::path(get, path = paths::CONTENTS.text(), tag = "workspaces",
    params(("workspace" = String, Path, description = "The workspace.")),
    responses((status = 200, description = "How much there is of it.", body = WorkspaceContents)))]
async fn contents(
    permit: Permit<DeleteWorkspaces>,
    State(services): State<Services>,
) -> Result<Json<WorkspaceContents>, Problem> {
    let found = services.app.workspaces.contents(&permit).await?;
    Ok(Json(WorkspaceContents {
        workspace: permit.workspace().clone(),
        revision: found.live.as_ref().map_or(Revision::NONE, |live| live.revision),
        deployments: found.totals.deployments,
        files: found.live.as_ref().map_or(0, |live| live.files),
        bytes: found.live.as_ref().map_or(0, |live| live.bytes),
        secrets: found.totals.secrets,
        tokens: found.totals.tokens,
        kept: found.kept.into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
    }))
}

/// What whoever deletes a workspace has seen of it.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Seen {
    /// The revision that is to be live; if another one is by now, nothing is deleted. Without it the workspace goes whatever is
    /// live. A request that is sent again with it deletes nothing else.
    revision: Option<u64>,
}

/// Deletes the workspace with all that is its own: deployments, secrets, the tokens that are for it alone, conversations,
/// memories, mailboxes and files. Nothing brings it back. Needs the role admin.
#[utoipa::path(delete, path = paths::WORKSPACE.text(), tag = "workspaces",
    params(("workspace" = String, Path, description = "The workspace."), Seen),
    responses(
        (status = 200, description = "It is deleted.", body = WorkspaceDeleted),
        (status = 409, description = "Another revision is live: `conflict`.", body = api::Problem, content_type = "application/problem+json"),
        (status = 503, description = "A node of the cluster runs an older version: `unavailable`.", body = api::Problem, content_type = "application/problem+json"),
    ))]
async fn remove(
    permit: Permit<DeleteWorkspaces>,
    State(services): State<Services>,
    Query(Seen { revision }): Query<Seen>,
) -> Result<Json<WorkspaceDeleted>, Problem> {
    let deleted = services.app.workspaces.delete(&permit, revision.map(Revision)).await?;
    Ok(Json(WorkspaceDeleted {
        workspace: permit.workspace().clone(),
        revision: deleted.deletion.revision,
        deployments: deleted.totals.deployments,
        secrets: deleted.totals.secrets,
        tokens: deleted.totals.tokens,
        cleared: deleted.cleared,
    }))
}
