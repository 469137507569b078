//! Tokens: made, listed and revoked by admins of the whole cluster.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{delete, get};
use caxton_proto::log::{Command, Outcome, RevokeToken, Role, Token};
use tracing::info;
use utoipa::OpenApi;

use super::Services;
use super::extract::{Json, Path};
use crate::api::{TokenInfo, TokenIssued, TokenRequest, Tokens};
use crate::auth::{Access, Wanted, now_ms};
use crate::problem::{Code, Problem};
pub use crate::time::rfc3339;

/// This part of the API's description.
#[derive(OpenApi)]
#[openapi(paths(create, list, revoke))]
pub struct Doc;

/// This part's routes.
pub fn routes() -> Router<Services> {
    Router::new().route("/api/v1/tokens", get(list).post(create)).route("/api/v1/tokens/{id}", delete(revoke))
}

/// The shortest life that a token can be given.
const TTL_MIN: Duration = Duration::from_secs(1);

/// Makes a token. The answer is the only time that it is shown. Needs the role admin for the whole cluster.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "tokens", request_body = TokenRequest, responses(
    (status = 201, description = "The token.", body = TokenIssued),
))]
async fn create(
    access: Access,
    State(services): State<Services>,
    Json(request): Json<TokenRequest>,
) -> Result<impl IntoResponse, Problem> {
    access.require_cluster(Role::Admin)?;
    let invalid = |detail: String| Problem::new(Code::InvalidRequest, detail);
    let role: Role =
        request.role.parse().map_err(|error: caxton_proto::log::InvalidRole| invalid(error.to_string()))?;
    let subject = request.subject.trim().to_owned();
    if subject.is_empty() {
        return Err(invalid("the token has no subject".to_owned()).help("say who or what will use it, as in `ci`"));
    }
    let limits = &services.config.tokens;
    let ttl = request.ttl_s.map_or(limits.ttl, Duration::from_secs);
    if ttl < TTL_MIN || ttl > limits.ttl_max {
        let (asked, most) = (ttl.as_secs(), limits.ttl_max.as_secs());
        let detail = format!("a token can live for 1 to {most} seconds (`tokens.ttl_max`), and {asked} were asked for");
        return Err(invalid(detail));
    }
    let wanted = Wanted { subject, role, workspaces: request.workspaces, ttl, actor: access.subject().to_owned() };
    let (token, issue) = services.auth.mint(wanted, now_ms()).map_err(|error| Problem::internal(&error))?;
    let info = info_of(&Token { issued: issue.clone(), revoked: None });
    match services.log.propose(&Command::IssueToken(issue)).await?.outcome {
        Outcome::TokenIssued => {
            info!(id = info.id, subject = info.subject, role = info.role, actor = access.subject(), "token issued");
            Ok((StatusCode::CREATED, Json(TokenIssued { token, info })))
        }
        Outcome::TooManyTokens => Err(Problem::new(Code::TooManyRequests, "there are as many tokens as there may be")
            .help("wait until some expire, or give new ones a shorter life")),
        other => Err(unexpected(&other)),
    }
}

/// The tokens that have not expired, the newest first. Needs the role admin for the whole cluster.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "tokens", responses(
    (status = 200, description = "The tokens, without what opens anything.", body = Tokens),
))]
async fn list(access: Access, State(services): State<Services>) -> Result<Json<Tokens>, Problem> {
    access.require_cluster(Role::Admin)?;
    let now = now_ms();
    let alive = |token: &&Token| token.issued.expires_ms == 0 || now < token.issued.expires_ms;
    let mut tokens: Vec<Token> = services.log.current(|state| state.tokens().filter(alive).cloned().collect()).await?;
    tokens.sort_by(|a, b| (b.issued.time_ms, &b.issued.id).cmp(&(a.issued.time_ms, &a.issued.id)));
    Ok(Json(Tokens { tokens: tokens.iter().map(info_of).collect() }))
}

/// Revokes a token: it opens nothing from now on, and streams that it opened end. Needs the role admin for the whole
/// cluster.
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", tag = "tokens",
    params(("id" = String, Path, description = "The token's id, as the list shows it.")),
    responses((status = 200, description = "The revoked token.", body = TokenInfo)))]
async fn revoke(
    access: Access,
    State(services): State<Services>,
    Path(id): Path<String>,
) -> Result<Json<TokenInfo>, Problem> {
    access.require_cluster(Role::Admin)?;
    let none = || {
        Problem::new(Code::NotFound, "there is no token with this id")
            .help("`caxton token list` shows the ids there are")
    };
    if id.is_empty() || id.len() > caxton_proto::log::TEXT_BYTES_MAX {
        return Err(none());
    }
    let command = RevokeToken { id: id.clone(), time_ms: now_ms(), actor: access.subject().to_owned() };
    match services.log.propose(&Command::RevokeToken(command)).await?.outcome {
        Outcome::TokenRevoked => {
            info!(id, actor = access.subject(), "token revoked");
            let token = services.log.read(|state| state.token(&id).cloned());
            Ok(Json(info_of(&token.ok_or_else(none)?)))
        }
        Outcome::NoSuchToken => Err(none()),
        other => Err(unexpected(&other)),
    }
}

fn unexpected(outcome: &Outcome) -> Problem {
    tracing::error!(?outcome, "the log answered a token's command with something else");
    Problem::new(Code::Internal, "the log answered something else").help("look for the request id in the server's log")
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
