//! Secrets of a workspace: set, listed by name, removed. No route gives a value back.

use axum::extract::State;
use caxton_proto::WorkspaceId;
use caxton_proto::log::{Command, Outcome, RemoveSecret, Role, Secret};
use caxton_proto::manifest::secret::SecretName;
use tracing::info;
use utoipa::OpenApi;

use super::tokens::rfc3339;
use crate::api::paths;
use crate::api::secrets::{SecretInfo, SecretList, SecretRemoved, SecretRequest};
use crate::auth::{Access, now_ms};
use crate::edge::Services;
use crate::edge::extract::{Body, Json, Path};
use crate::edge::problem::{Code, Problem};
use crate::edge::routes::{Owner, Routes, delete, get, put};
use crate::secrets::SecretValue;

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
async fn list(
    access: Access,
    State(services): State<Services>,
    Path(workspace): Path<WorkspaceId>,
) -> Result<Json<SecretList>, Problem> {
    access.require(Role::Deployer, &workspace)?;
    let infos = services.log.current(|state| state.secrets().of(&workspace).map(|secret| info_of(secret)).collect());
    Ok(Json(SecretList { secrets: infos.await? }))
}

/// Keeps a secret, in the place of an older one. Tools and providers have it from their next call on. Needs the role
/// deployer.
#[utoipa::path(put, path = paths::SECRET.text(), tag = "secrets", request_body = SecretRequest,
    params(("workspace" = String, Path, description = "The workspace; it need not be deployed yet."),
        ("name" = String, Path, description = "1 to 128 letters, digits and `_`.")),
    responses((status = 200, description = "It is kept, sealed.", body = SecretInfo)))]
async fn set(
    access: Access,
    State(services): State<Services>,
    Path((workspace, name)): Path<(WorkspaceId, String)>,
    Body(body): Body,
) -> Result<Json<SecretInfo>, Problem> {
    access.require(Role::Deployer, &workspace)?;
    let name = name_of(&name)?;
    // A parser's message quotes what it did not expect, and that may be the value.
    let request: SecretRequest = serde_json::from_slice(&body).map_err(|_| {
        Problem::new(Code::InvalidRequest, "the body is not a JSON object with the text `value`")
            .help("send {\"value\": \"...\"}; what was sent is not repeated here, because it may be the secret")
    })?;
    let value =
        SecretValue::new(request.value).map_err(|error| Problem::new(Code::InvalidRequest, error.to_string()))?;
    let sealed = services.secrets.seal(&workspace, &name, &value, access.subject(), now_ms());
    let sealed = sealed.map_err(|error| Problem::internal(&error))?;
    let info = SecretInfo {
        name: name.to_string(),
        set: rfc3339(sealed.time_ms),
        actor: sealed.actor.clone(),
        key: sealed.key.clone(),
    };
    match services.log.propose(&Command::SetSecret(sealed)).await?.outcome {
        Outcome::SecretSet => {
            info!(%workspace, %name, actor = access.subject(), "secret set");
            services.activity.secret(&workspace, access.subject(), "secret_set", name.as_str());
            Ok(Json(info))
        }
        Outcome::TooManySecrets => {
            Err(Problem::new(Code::TooManyRequests, "there are as many secrets as there may be")
                .help("remove those that nothing uses: `caxton secrets list` shows them"))
        }
        other => Err(unexpected(&other)),
    }
}

/// Forgets a secret. Tools and providers that name it cannot be used from then on. Needs the role deployer.
#[utoipa::path(delete, path = paths::SECRET.text(), tag = "secrets",
    params(("workspace" = String, Path, description = "The workspace."),
        ("name" = String, Path, description = "The secret's name.")),
    responses((status = 200, description = "It is forgotten.", body = SecretRemoved)))]
async fn remove(
    access: Access,
    State(services): State<Services>,
    Path((workspace, name)): Path<(WorkspaceId, String)>,
) -> Result<Json<SecretRemoved>, Problem> {
    access.require(Role::Deployer, &workspace)?;
    let name = name_of(&name)?;
    let (time_ms, actor) = (now_ms(), access.subject().to_owned());
    let command = RemoveSecret { workspace: workspace.clone(), name: name.clone(), time_ms, actor };
    match services.log.propose(&Command::RemoveSecret(command)).await?.outcome {
        Outcome::SecretRemoved => {
            info!(%workspace, %name, actor = access.subject(), "secret removed");
            services.activity.secret(&workspace, access.subject(), "secret_removed", name.as_str());
            Ok(Json(SecretRemoved { removed: name.to_string() }))
        }
        Outcome::NoSuchSecret => {
            Err(Problem::new(Code::NotFound, format!("workspace `{workspace}` has no secret `{name}`"))
                .help("`caxton secrets list` shows the names there are"))
        }
        other => Err(unexpected(&other)),
    }
}

/// What is no name may be the value in the wrong place, so it is not repeated.
fn name_of(name: &str) -> Result<SecretName, Problem> {
    name.parse().map_err(|error: caxton_proto::manifest::secret::InvalidSecretName| {
        Problem::new(Code::InvalidRequest, error.to_string()).help("name it like a variable, as in WEATHER_API_KEY")
    })
}

fn info_of(secret: &Secret) -> SecretInfo {
    let set = &secret.set;
    SecretInfo { name: set.name.to_string(), set: rfc3339(set.time_ms), actor: set.actor.clone(), key: set.key.clone() }
}

fn unexpected(outcome: &Outcome) -> Problem {
    tracing::error!(?outcome, "the log answered a secret's command with something else");
    Problem::new(Code::Internal, "the log answered something else").help("look for the request id in the server's log")
}
