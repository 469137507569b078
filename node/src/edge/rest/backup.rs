//! Backups over HTTP: an archive that is written while it is read.

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use tokio_stream::wrappers::ReceiverStream;
use utoipa::OpenApi;

use crate::api::cluster::BackupRequest;
use crate::api::paths;
use crate::authz::{BackUpCluster, ClusterPermit};
use crate::backup::MEDIA_TYPE;
use crate::backup::key::RecoveryKey;
use crate::edge::Services;
use crate::edge::extract::Json;
use crate::edge::problem::{Code, Problem};
use crate::edge::routes::{Owner, Routes, post};

/// This part of the API's description.
#[derive(OpenApi)]
#[openapi(paths(backup))]
pub struct Doc;

/// This part's routes.
pub fn routes() -> Routes {
    Routes::new().on(post(paths::CLUSTER_BACKUP), Owner::Control, backup)
}

/// An archive of the whole cluster as tar: every group, every artifact, and the keys, sealed with the key that is sent. It
/// has all that was acknowledged before the request. Needs the role admin for the whole cluster.
#[utoipa::path(post, path = paths::CLUSTER_BACKUP.text(), tag = "cluster", request_body = BackupRequest, responses(
    (status = 200, description = "The archive; it is whole when it ends with SHA256SUMS.", content_type = "application/x-tar"),
))]
async fn backup(
    permit: ClusterPermit<BackUpCluster>,
    State(services): State<Services>,
    Json(request): Json<BackupRequest>,
) -> Result<Response, Problem> {
    let key = RecoveryKey::from_hex(&request.key)
        .ok_or_else(|| Problem::new(Code::InvalidRequest, "the recovery key is not 64 hexadecimal digits"))?;
    let pieces = services.app.cluster.back_up(&permit, key).await?;
    let body = Body::from_stream(ReceiverStream::new(pieces));
    Ok(([(CONTENT_TYPE, MEDIA_TYPE)], body).into_response())
}
