//! OpenAI's Chat Completions over agents: an agent is a model named `WORKSPACE/AGENT`, and `WORKSPACE/auto` finds the
//! agent by what it can do. Plain `auto` is the workspace that the token is for, when that is only one.
//!
//! The sender keeps the conversation, as this protocol wants it. Tools in the request are the sender's own: a call of
//! one of them ends the answer with `tool_calls`, and the results come back in the next request.

mod answer;

mod request;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use utoipa::OpenApi;

use self::answer::Head;
pub use self::answer::error;
use self::request::Completion;
use crate::api::paths;
use crate::app::turns::Listener;
use crate::authz::{Converse, UnscopedToken};
use crate::edge::Services;
use crate::edge::extract::{IdempotencyKey, Json, Path};
use crate::edge::problem::{Code, Problem};
use crate::edge::routes::{BodyLimit, Owner, Routes, get, post};
use crate::edge::senders::{AUTO, model_of};
use crate::edge::sse;

/// This part of the API's description; OpenAI's own says what the bodies are.
#[derive(OpenApi)]
#[openapi(paths(complete, models, model))]
pub struct Doc;

/// This part's routes.
pub fn routes() -> Routes {
    Routes::new()
        .on(post(paths::CHAT_COMPLETIONS).body(BodyLimit::Message).own_time(), Owner::Named, complete)
        .on(get(paths::MODELS), Owner::Anyone, models)
        .on(get(paths::MODEL), Owner::Anyone, model)
}

/// Chat Completions. What an agent cannot honour is refused by its name; the header `Idempotency-Key` makes a request that is
/// sent again get the one answer. Without it, the turn is stopped when the client leaves before the answer.
#[utoipa::path(post, path = paths::CHAT_COMPLETIONS.text(), tag = "openai", request_body = Value,
    responses((status = 200, description = "A `chat.completion`; with `stream`, `chat.completion.chunk`s as `text/event-stream`.", content((Value = "application/json"), (Value = "text/event-stream")))))]
async fn complete(
    unscoped: UnscopedToken<Converse>,
    State(services): State<Services>,
    IdempotencyKey(key): IdempotencyKey,
    Json(completion): Json<Completion>,
) -> Result<Response, Problem> {
    let (permit, agent) = model_of(&unscoped, &services, &completion.model)?;
    let with_usage = completion.tells_usage();
    let head = Head {
        id: format!("chatcmpl-{}", uuid::Uuid::now_v7().simple()),
        created: crate::authn::now_ms() / 1_000,
        model: completion.model.clone(),
    };
    let listener = if completion.streams() { Listener::Present } else { Listener::Absent };
    let (mut request, client) = completion.into_request(agent)?;
    request.idempotency_key = key;
    let turn = services.app.turns.start(&permit, request, client, listener).await?;
    match listener {
        Listener::Absent => Ok(axum::Json(head.whole(turn.ending().await?)?).into_response()),
        Listener::Present => Ok(sse::response(services.config.event_heartbeat, move |writer| async move {
            head.stream(turn, writer, with_usage).await
        })),
    }
}

/// The agents that the token may ask, as models.
#[utoipa::path(get, path = paths::MODELS.text(), tag = "openai",
    responses((status = 200, description = "A `list` of models.", body = Value)))]
async fn models(unscoped: UnscopedToken<Converse>, State(services): State<Services>) -> Result<Response, Problem> {
    let mut data = vec![model_body(AUTO)];
    for catalog in services.app.turns.served(&unscoped) {
        data.push(model_body(&format!("{}/{AUTO}", catalog.workspace)));
        data.extend(catalog.agents().keys().map(|agent| model_body(&format!("{}/{agent}", catalog.workspace))));
    }
    Ok(axum::Json(json!({ "object": "list", "data": data })).into_response())
}

/// One agent as a model.
#[utoipa::path(get, path = "/v1/models/{id}", tag = "openai", params(("id" = String, Path, description = "`WORKSPACE/AGENT`.")),
    responses((status = 200, description = "The model.", body = Value)))]
async fn model(
    unscoped: UnscopedToken<Converse>,
    State(services): State<Services>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let (permit, agent) = model_of(&unscoped, &services, &id)?;
    let served = services.app.turns.served(&unscoped);
    let catalog = served.iter().find(|catalog| catalog.workspace == *permit.workspace());
    let there = catalog.is_some_and(|catalog| agent.is_none_or(|agent| catalog.agents().contains_key(&agent)));
    if !there {
        let problem = Problem::new(Code::NotFound, format!("`{id}` names no model here"));
        return Err(problem.help("GET /v1/models lists the models"));
    }
    Ok((StatusCode::OK, axum::Json(model_body(&id))).into_response())
}

fn model_body(id: &str) -> Value {
    json!({ "id": id, "object": "model", "created": 0, "owned_by": "caxton" })
}
