//! Secrets of a workspace: set, listed by name, removed. No route gives a value back.

use axum::extract::State;
use caxton_proto::log::SetSecret;
use caxton_proto::manifest::secret::SecretName;
use utoipa::OpenApi;

use crate::api::paths;
use crate::api::secrets::{SecretInfo, SecretList, SecretRemoved, SecretRequest};
use crate::authz::{ManageSecrets, Permit};
use crate::edge::Services;
use crate::edge::extract::{Body, Json, Path};
use crate::edge::problem::{Code, Problem};
use crate::edge::routes::{Owner, Routes, delete, get, put};
use crate::secrets::SecretValue;
use crate::time::rfc3339;

/// This part of the API's description.
#[derive(OpenApi)]
#[openapi(paths(list, set, remove))]
pub struct Doc;

/// This part's routes.
pub fn routes() -> Routes {
    Routes::new().on(get(paths::SECRETS), Owner::Control, list).on(put(paths::SECRET), Owner::Control, set).on(
        delete(paths::SECRET),
        Owner::Control,
        remove,
    )
}

/// The names of the workspace's secrets. Needs the role deployer.
#[utoipa::path(get, path = paths::SECRETS.text(), tag = "secrets",
    params(("workspace" = String, Path, description = "The workspace.")),
    responses((status = 200, description = "Names, and who set them when; never a value.", body = SecretList)))]
async fn list(permit: Permit<ManageSecrets>, State(services): State<Services>) -> Result<Json<SecretList>, Problem> {
    let secrets = services.app.secrets.list(&permit).await?;
    Ok(Json(SecretList { secrets: secrets.iter().map(|secret| info_of(&secret.set)).collect() }))
}

/// Keeps a secret, in the place of an older one. Tools and providers have it from their next call on. Needs the role
/// deployer.
#[utoipa::path(put, path = paths::SECRET.text(), tag = "secrets", request_body = SecretRequest,
    params(("workspace" = String, Path, description = "The workspace; it need not be deployed yet."),
        ("name" = String, Path, description = "1 to 128 letters, digits and `_`.")),
    responses((status = 200, description = "It is kept, sealed.", body = SecretInfo)))]
async fn set(
    permit: Permit<ManageSecrets>,
    State(services): State<Services>,
    Path((_workspace, name)): Path<(String, String)>,
    Body(body): Body,
) -> Result<Json<SecretInfo>, Problem> {
    let name = name_of(&name)?;
    // A parser's message quotes what it did not expect, and that may be the value.
    let request: SecretRequest = serde_json::from_slice(&body).map_err(|_| {
        Problem::new(Code::InvalidRequest, "the body is not a JSON object with the text `value`")
            .help("send {\"value\": \"...\"}; what was sent is not repeated here, because it may be the secret")
    })?;
    let value =
        SecretValue::new(request.value).map_err(|error| Problem::new(Code::InvalidRequest, error.to_string()))?;
    let set = services.app.secrets.set(&permit, &name, &value).await?;
    Ok(Json(info_of(&set)))
}

/// Forgets a secret. Tools and providers that name it cannot be used from then on. Needs the role deployer.
#[utoipa::path(delete, path = paths::SECRET.text(), tag = "secrets",
    params(("workspace" = String, Path, description = "The workspace."),
        ("name" = String, Path, description = "The secret's name.")),
    responses((status = 200, description = "It is forgotten.", body = SecretRemoved)))]
async fn remove(
    permit: Permit<ManageSecrets>,
    State(services): State<Services>,
    Path((_workspace, name)): Path<(String, String)>,
) -> Result<Json<SecretRemoved>, Problem> {
    let name = name_of(&name)?;
    services.app.secrets.remove(&permit, &name).await?;
    Ok(Json(SecretRemoved { removed: name.to_string() }))
}

/// What is no name may be the value in the wrong place, so it is not repeated.
fn name_of(name: &str) -> Result<SecretName, Problem> {
    name.parse().map_err(|error: caxton_proto::manifest::secret::InvalidSecretName| {
        Problem::new(Code::InvalidRequest, error.to_string()).help("name it like a variable, as in WEATHER_API_KEY")
    })
}

fn info_of(set: &SetSecret) -> SecretInfo {
    SecretInfo { name: set.name.to_string(), set: rfc3339(set.time_ms), actor: set.actor.clone(), key: set.key.clone() }
}
