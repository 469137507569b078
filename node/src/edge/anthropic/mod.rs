//! Anthropic's Messages API over agents: `POST /v1/messages`, where an agent is a model named `WORKSPACE/AGENT`, as at OpenAI's
//! Chat Completions. Its clients send their token as `x-api-key`, or as a bearer.
//!
//! The sender keeps the conversation, and its tools are its own: a call of one of them ends the answer with `tool_use`.

mod answer;

mod request;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use utoipa::OpenApi;

use self::answer::Head;
pub use self::answer::error;
use self::request::Create;
use crate::api::paths;
use crate::app::turns::Listener;
use crate::authz::{Converse, UnscopedToken};
use crate::edge::Services;
use crate::edge::extract::{IdempotencyKey, Json};
use crate::edge::problem::Problem;
use crate::edge::routes::{BodyLimit, Owner, Routes, post};
use crate::edge::senders::model_of;
use crate::edge::sse;

/// The header that this protocol's clients put their token into.
const KEY: HeaderName = HeaderName::from_static("x-api-key");

/// This part of the API's description; Anthropic's own says what the bodies are.
#[derive(OpenApi)]
#[openapi(paths(create))]
pub struct Doc;

/// This part's routes.
pub fn routes() -> Routes {
    Routes::new().on(post(paths::ANTHROPIC_MESSAGES).body(BodyLimit::Message).own_time(), Owner::Named, create)
}

/// Puts the token of this protocol's clients where every other one has it.
pub fn take_key(headers: &mut HeaderMap) {
    if headers.contains_key(header::AUTHORIZATION) {
        return;
    }
    let bearer = headers.get(KEY).and_then(|key| HeaderValue::try_from(format!("Bearer {}", key.to_str().ok()?)).ok());
    if let Some(mut bearer) = bearer {
        bearer.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, bearer);
    }
}

/// Messages. What an agent cannot honour is refused by its name; the header `Idempotency-Key` makes a request that is sent
/// again get the one answer. Without it, the turn is stopped when the client leaves before the answer.
#[utoipa::path(post, path = paths::ANTHROPIC_MESSAGES.text(), tag = "anthropic", request_body = serde_json::Value,
    responses(
    (status = 200, description = "A `message`; with `stream`, its events as `text/event-stream`.", content((serde_json::Value = "application/json"), (serde_json::Value = "text/event-stream"))),
    (status = 409, description = "A person has to approve a call first, or the key belongs to another message.", body = serde_json::Value),
    (status = 502, description = "The turn ended without an answer.", body = serde_json::Value),
))]
async fn create(
    unscoped: UnscopedToken<Converse>,
    State(services): State<Services>,
    IdempotencyKey(key): IdempotencyKey,
    Json(create): Json<Create>,
) -> Result<Response, Problem> {
    let (permit, agent) = model_of(&unscoped, &services, &create.model)?;
    let head = Head { id: format!("msg_{}", uuid::Uuid::now_v7().simple()), model: create.model.clone() };
    let listener = if create.streams() { Listener::Present } else { Listener::Absent };
    let (mut request, client) = create.into_request(agent)?;
    request.idempotency_key = key;
    let turn = services.app.turns.start(&permit, request, client, listener).await?;
    match listener {
        Listener::Absent => Ok(axum::Json(head.whole(turn.ending().await?)?).into_response()),
        Listener::Present => {
            Ok(sse::response(
                services.config.event_heartbeat,
                move |writer| async move { head.stream(turn, writer).await },
            ))
        }
    }
}
