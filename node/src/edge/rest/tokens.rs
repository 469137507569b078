//! Tokens: made, listed and revoked by admins of the whole cluster.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use caxton_proto::log::{InvalidRole, Token};
use utoipa::OpenApi;

use crate::api::paths;
use crate::api::{TokenInfo, TokenIssued, TokenRequest, Tokens};
use crate::app::tokens::TokenOrder;
use crate::authz::{ClusterPermit, ManageTokens};
use crate::edge::Services;
use crate::edge::extract::{Json, Path};
use crate::edge::problem::{Code, Problem};
use crate::edge::routes::{Owner, Routes, delete, get, post};
use crate::time::rfc3339;

/// This part of the API's description.
#[derive(OpenApi)]
#[openapi(paths(create, list, revoke))]
pub struct Doc;

/// This part's routes.
pub fn routes() -> Routes {
    Routes::new().on(get(paths::TOKENS), Owner::Control, list).on(post(paths::TOKENS), Owner::Control, create).on(
        delete(paths::TOKEN),
        Owner::Control,
        revoke,
    )
}

/// Makes a token. The answer is the only time that it is shown. Needs the role admin for the whole cluster.
#[utoipa::path(post, path = paths::TOKENS.text(), tag = "tokens", request_body = TokenRequest, responses(
    (status = 201, description = "The token.", body = TokenIssued),
))]
async fn create(
    permit: ClusterPermit<ManageTokens>,
    State(services): State<Services>,
    Json(request): Json<TokenRequest>,
) -> Result<impl IntoResponse, Problem> {
    let invalid = |error: InvalidRole| Problem::new(Code::InvalidRequest, error.to_string());
    let order = TokenOrder {
        subject: request.subject,
        role: request.role.parse().map_err(invalid)?,
        workspaces: request.workspaces,
        ttl: request.ttl_s.map(Duration::from_secs),
    };
    let (token, issued) = services.app.tokens.create(&permit, order).await?;
    Ok((StatusCode::CREATED, Json(TokenIssued { token, info: info_of(&issued) })))
}

/// The tokens that have not expired, the newest first. Needs the role admin for the whole cluster.
#[utoipa::path(get, path = paths::TOKENS.text(), tag = "tokens", responses(
    (status = 200, description = "The tokens, without what opens anything.", body = Tokens),
))]
async fn list(permit: ClusterPermit<ManageTokens>, State(services): State<Services>) -> Result<Json<Tokens>, Problem> {
    let tokens = services.app.tokens.list(&permit).await?;
    Ok(Json(Tokens { tokens: tokens.iter().map(info_of).collect() }))
}

/// Revokes a token: it opens nothing from now on, and streams that it opened end. Needs the role admin for the whole
/// cluster.
#[utoipa::path(delete, path = paths::TOKEN.text(), tag = "tokens",
    params(("id" = String, Path, description = "The token's id, as the list shows it.")),
    responses((status = 200, description = "The revoked token.", body = TokenInfo)))]
async fn revoke(
    permit: ClusterPermit<ManageTokens>,
    State(services): State<Services>,
    Path(id): Path<String>,
) -> Result<Json<TokenInfo>, Problem> {
    Ok(Json(info_of(&services.app.tokens.revoke(&permit, &id).await?)))
}

fn info_of(token: &Token) -> TokenInfo {
    let issued = &token.issued;
    TokenInfo {
        id: issued.id.clone(),
        subject: issued.subject.clone(),
        role: issued.role.to_string(),
        workspaces: issued.workspaces.clone(),
        issued: rfc3339(issued.time_ms),
        expires: if issued.expires_ms == 0 { "never".to_owned() } else { rfc3339(issued.expires_ms) },
        revoked: token.revoked.as_ref().map(|revoked| rfc3339(revoked.time_ms)),
    }
}
