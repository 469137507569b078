//! Backups over HTTP: an archive that is written while it is read.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use caxton_proto::log::Role;
use tokio_stream::wrappers::ReceiverStream;
use tracing::info;
use utoipa::OpenApi;

use super::Services;
use super::extract::Json;
use crate::api::cluster::BackupRequest;
use crate::auth::Access;
use crate::backup::MEDIA_TYPE;
use crate::backup::key::RecoveryKey;
use crate::backup::write::{BackupError, Source};
use crate::problem::{Code, Problem, chain};

/// This part of the API's description.
#[derive(OpenApi)]
#[openapi(paths(backup))]
pub struct Doc;

/// This part's routes.
pub fn routes() -> Router<Services> {
    Router::new().route("/api/v1/cluster/backup", post(backup))
}

/// An archive of the whole cluster as tar: every group, every artifact, and the keys, sealed with the key that is sent. It
/// has all that was acknowledged before the request. Needs the role admin for the whole cluster.
#[utoipa::path(post, path = "/api/v1/cluster/backup", tag = "cluster", request_body = BackupRequest, responses(
    (status = 200, description = "The archive; it is whole when it ends with SHA256SUMS.", content_type = "application/x-tar"),
))]
async fn backup(
    access: Access,
    State(services): State<Services>,
    Json(request): Json<BackupRequest>,
) -> Result<Response, Problem> {
    access.require_cluster(Role::Admin)?;
    let key = RecoveryKey::from_hex(&request.key)
        .ok_or_else(|| Problem::new(Code::InvalidRequest, "the recovery key is not 64 hexadecimal digits"))?;
    info!(target: "caxton::audit", actor = access.subject(), key = key.id(), "a backup was asked for");
    let source = Source {
        dir: services.config.data.dir.clone(),
        cluster: services.cluster.clone(),
        log: services.log.clone(),
        artifacts: services.artifacts.clone(),
        replicas: services.replicas.clone(),
    };
    let pieces = source.begin(key).await?;
    let body = Body::from_stream(ReceiverStream::new(pieces));
    Ok(([(CONTENT_TYPE, MEDIA_TYPE)], body).into_response())
}

impl From<BackupError> for Problem {
    fn from(error: BackupError) -> Problem {
        match error {
            BackupError::Read { source, .. } => source.into(),
            BackupError::Content { .. } => Problem::new(Code::Unavailable, chain(&error))
                .help("no node that can be reached has it: start the other nodes, or deploy the same content again"),
            BackupError::Archive(_) | BackupError::Keys(_) | BackupError::Key(_) | BackupError::Header(_) => {
                Problem::internal(&error)
            }
        }
    }
}
