//! Messages to agents, their conversations, and the approvals that their turns wait for.

use axum::extract::State;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::{IntoParams, OpenApi};

use super::{Current, freshness};
use crate::agent::turn::Decision;
use crate::api::messages::{
    ApprovalDecision, Approvals, ConversationDetail, ConversationSummary, Conversations, MessageAnswer, MessageRequest,
    TurnEvent, TurnOver, TurnRecord,
};
use crate::api::{self, paths};
use crate::app::conversations::ConversationPage;
use crate::app::turns::{Listener, StartedTurn, TurnError};
use crate::authz::{Converse, DecideApprovals, ForgetConversations, Permit};
use crate::conversations::Summary;
use crate::edge::Services;
use crate::edge::extract::{IdempotencyKey, Json, Path, Query};
use crate::edge::problem::{Code, Problem};
use crate::edge::routes::{BodyLimit, Owner, Routes, delete, get, post};
use crate::edge::sse;
use crate::invoke::{ClientTurn, StoppedTurn, TurnEnd};
use crate::time::rfc3339;

/// Conversations on a page unless told otherwise, and at most.
const PAGE: usize = 50;
const PAGE_MAX: usize = 500;

/// This part of the API's description.
#[derive(OpenApi)]
#[openapi(paths(message, turn, stop, list, show, forget, approvals, decide), components(schemas(TurnEvent)))]
pub struct Doc;

/// This part's routes.
pub fn routes() -> Routes {
    Routes::new()
        .on(post(paths::MESSAGES).body(BodyLimit::Message).own_time(), Owner::Shard, message)
        .on(get(paths::TURN).or_stale().own_time(), Owner::Shard, turn)
        .on(delete(paths::TURN).own_time(), Owner::Shard, stop)
        .on(get(paths::CONVERSATIONS).or_stale(), Owner::Shard, list)
        .on(get(paths::CONVERSATION).or_stale(), Owner::Shard, show)
        .on(delete(paths::CONVERSATION), Owner::Shard, forget)
        .on(get(paths::APPROVALS).or_stale(), Owner::Shard, approvals)
        .on(post(paths::APPROVAL).own_time(), Owner::Shard, decide)
}

/// Answers a message: as one JSON document, or with every step as it happens. The turn's own wall time limits how long that
/// takes. When the client leaves before the answer, the turn is stopped, unless the message has an `idempotency_key` or is
/// `detached`. The header `Idempotency-Key` is the same as the field. Needs the role caller.
#[utoipa::path(post, path = paths::MESSAGES.text(), tag = "messages",
    params(("workspace" = String, Path, description = "The workspace.")), request_body = MessageRequest,
    responses(
    (status = 200, description = "The answer; with `stream`, a `TurnEvent` for each step as `text/event-stream`, the last one `answered`, `waiting` or `failed`.", content((MessageAnswer = "application/json"), (serde_json::Value = "text/event-stream"))),
    (status = 202, description = "The turn waits for a person's decision.", body = TurnEvent),
    (status = 403, description = "The conversation belongs to somebody else: `forbidden`.", body = api::Problem, content_type = "application/problem+json"),
    (status = 404, description = "There is no such agent or workspace: `not_found`; or nobody here can do it: `no_capable_agent`, with the nearest.", body = api::Problem, content_type = "application/problem+json"),
    (status = 429, description = "Too many turns run: `too_many_requests`.", body = api::Problem, content_type = "application/problem+json"),
    (status = 502, description = "The turn ended without an answer: `turn_failed`.", body = api::Problem, content_type = "application/problem+json"),
))]
async fn message(
    permit: Permit<Converse>,
    State(services): State<Services>,
    IdempotencyKey(key): IdempotencyKey,
    Json(mut request): Json<MessageRequest>,
) -> Result<Response, Problem> {
    match (&request.idempotency_key, key) {
        (Some(own), Some(key)) if *own != key => {
            return Err(Problem::new(
                Code::InvalidRequest,
                "`idempotency_key` and the header `Idempotency-Key` differ",
            )
            .help("send one of them"));
        }
        (None, Some(key)) => request.idempotency_key = Some(key),
        (_, _) => {}
    }
    let listener = if request.stream { Listener::Present } else { Listener::Absent };
    let turn = services.app.turns.start(&permit, request, ClientTurn::default(), listener).await?;
    match listener {
        Listener::Present => Ok(told(&services, turn)),
        Listener::Absent => answer(turn.ending().await?),
    }
}

/// Every step of a turn as it happens, and how it ends.
fn told(services: &Services, turn: StartedTurn) -> Response {
    let (mut events, ending) = turn.split();
    sse::response(services.config.event_heartbeat, |writer| async move {
        while let Some(event) = events.recv().await {
            writer.send(event_of(&event)).await?;
        }
        writer.send(event_of(&last_event(ending.wait().await))).await
    })
}

fn event_of(event: &TurnEvent) -> Event {
    let data = serde_json::to_string(event).unwrap_or_default();
    Event::default().event(event.name()).data(data)
}

/// How a turn ended, for a client that lost its connection; waits for one that is under way (`limits.turn_wait`). Needs
/// the role caller, and deployer for the turns of others.
#[utoipa::path(get, path = paths::TURN.text(), tag = "messages",
    params(("workspace" = String, Path, description = "The workspace."), ("id" = String, Path, description = "The turn: `turn` of the first event."), Current),
    responses(
    (status = 200, description = "The answer.", body = MessageAnswer),
    (status = 202, description = "The turn waits for a person's decision.", body = TurnEvent),
    (status = 404, description = "There is none of that name: `not_found`.", body = api::Problem, content_type = "application/problem+json"),
    (status = 502, description = "The turn ended without an answer: `turn_failed`.", body = api::Problem, content_type = "application/problem+json"),
    (status = 503, description = "It is still under way: `unavailable`.", body = api::Problem, content_type = "application/problem+json"),
))]
async fn turn(
    permit: Permit<Converse>,
    State(services): State<Services>,
    Path((_workspace, id)): Path<(String, String)>,
    Query(current): Query<Current>,
) -> Result<Response, Problem> {
    answer(services.app.turns.ending_of(&permit, &id, freshness(current.stale)).await?)
}

/// Stops a turn: its model and its calls are let go at once, and that it was stopped is recorded as its ending. One that is
/// over already stays as it is. Needs the role caller, and deployer for the turns of others.
#[utoipa::path(delete, path = paths::TURN.text(), tag = "messages",
    params(("workspace" = String, Path, description = "The workspace."), ("id" = String, Path, description = "The turn: `turn` of the first event.")),
    responses(
    (status = 200, description = "It is over, and this is how.", body = TurnOver),
    (status = 404, description = "There is none of that name: `not_found`.", body = api::Problem, content_type = "application/problem+json"),
))]
async fn stop(
    permit: Permit<Converse>,
    State(services): State<Services>,
    Path((_workspace, id)): Path<(String, String)>,
) -> Result<Json<TurnOver>, Problem> {
    let StoppedTurn { conversation, agent, failure } = services.app.turns.stop(&permit, &id).await?;
    let outcome = failure.map_or("answered", |failure| failure.code()).to_owned();
    Ok(Json(TurnOver { turn: id, conversation, agent, outcome }))
}

fn answer(ended: TurnEnd) -> Result<Response, Problem> {
    match ended.event() {
        Some(TurnEvent::Answered(answer)) => Ok(Json(answer).into_response()),
        Some(waiting) => Ok((axum::http::StatusCode::ACCEPTED, Json(waiting)).into_response()),
        None => Err(Problem::new(Code::Internal, "the turn ended with a call that nobody asked for")),
    }
}

fn last_event(ended: Result<TurnEnd, TurnError>) -> TurnEvent {
    let problem = match ended.map(TurnEnd::event) {
        Ok(Some(event)) => return event,
        Ok(None) => Problem::new(Code::Internal, "the turn ended with a call that nobody asked for"),
        Err(error) => error.into(),
    };
    TurnEvent::Failed(Box::new(problem.body(None)))
}

/// Where a page begins.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Page {
    /// The `next` of the page before.
    before: Option<String>,
    /// How many at most: 50 unless told, 500 at most.
    limit: Option<usize>,
    /// Answer from what this node has, which may be behind.
    #[serde(default)]
    stale: bool,
}

/// The conversations, the newest first: one's own, or everybody's for deployers. Needs the role caller.
#[utoipa::path(get, path = paths::CONVERSATIONS.text(), tag = "messages",
    params(("workspace" = String, Path, description = "The workspace."), Page),
    responses(
    (status = 200, description = "A page of them.", body = Conversations),
))]
async fn list(
    permit: Permit<Converse>,
    State(services): State<Services>,
    Query(page): Query<Page>,
) -> Result<Json<Conversations>, Problem> {
    let limit = page.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX);
    let cursor = page.before.map(hex::decode).transpose().map_err(|_| {
        Problem::new(Code::InvalidRequest, "`before` is not the `next` of a page").help("leave it out for the newest")
    })?;
    let ConversationPage { conversations, next } =
        services.app.conversations.list(&permit, cursor, limit, freshness(page.stale)).await?;
    let conversations = conversations.into_iter().map(|(id, summary)| summary_of(id, summary)).collect();
    Ok(Json(Conversations { conversations, next: next.map(hex::encode) }))
}

/// A conversation with its newest turns, 1,000 at most. Needs the role caller, and deployer for those of others.
#[utoipa::path(get, path = paths::CONVERSATION.text(), tag = "messages",
    params(("workspace" = String, Path, description = "The workspace."), ("id" = String, Path, description = "The conversation."), Current),
    responses(
    (status = 200, description = "It, with its turns.", body = ConversationDetail),
    (status = 404, description = "There is none of that name: `not_found`.", body = api::Problem, content_type = "application/problem+json"),
))]
async fn show(
    permit: Permit<Converse>,
    State(services): State<Services>,
    Path((_workspace, id)): Path<(String, String)>,
    Query(current): Query<Current>,
) -> Result<Json<ConversationDetail>, Problem> {
    let (summary, turns) = services.app.conversations.show(&permit, &id, freshness(current.stale)).await?;
    let turns_detail = turns.into_iter().rev().map(record_of).collect();
    Ok(Json(ConversationDetail { summary: summary_of(id, summary), turns_detail }))
}

/// Removes a conversation with all that was said. Needs the role deployer.
#[utoipa::path(delete, path = paths::CONVERSATION.text(), tag = "messages",
    params(("workspace" = String, Path, description = "The workspace."), ("id" = String, Path, description = "The conversation.")),
    responses(
    (status = 200, description = "It was removed; this is what it was.", body = ConversationSummary),
    (status = 404, description = "There is none of that name: `not_found`.", body = api::Problem, content_type = "application/problem+json"),
))]
async fn forget(
    permit: Permit<ForgetConversations>,
    State(services): State<Services>,
    Path((_workspace, id)): Path<(String, String)>,
) -> Result<Json<ConversationSummary>, Problem> {
    let summary = services.app.conversations.forget(&permit, &id).await?;
    Ok(Json(summary_of(id, summary)))
}

/// The calls that wait for a person's decision: in one's own turns, or in everybody's for deployers. Needs the role caller.
#[utoipa::path(get, path = paths::APPROVALS.text(), tag = "messages",
    params(("workspace" = String, Path, description = "The workspace."), Current),
    responses(
    (status = 200, description = "The oldest first.", body = Approvals),
))]
async fn approvals(
    permit: Permit<Converse>,
    State(services): State<Services>,
    Query(current): Query<Current>,
) -> Result<Json<Approvals>, Problem> {
    let approvals = services.app.turns.approvals(&permit, freshness(current.stale)).await?;
    Ok(Json(Approvals { approvals: approvals.into_iter().map(Into::into).collect() }))
}

/// Decides, and answers when the turn is over or waits for the next decision. Needs the role deployer.
#[utoipa::path(post, path = paths::APPROVAL.text(), tag = "messages",
    params(("workspace" = String, Path, description = "The workspace."), ("id" = String, Path, description = "The approval.")), request_body = ApprovalDecision,
    responses(
    (status = 200, description = "The turn went on, and this is its answer.", body = MessageAnswer),
    (status = 202, description = "The turn waits for the next decision.", body = TurnEvent),
    (status = 404, description = "Nothing of that name waits: `not_found`.", body = api::Problem, content_type = "application/problem+json"),
))]
async fn decide(
    permit: Permit<DecideApprovals>,
    State(services): State<Services>,
    Path((_workspace, id)): Path<(String, String)>,
    Json(decision): Json<ApprovalDecision>,
) -> Result<Response, Problem> {
    let decision = match decision.approve {
        true => Decision::Approved,
        false => Decision::Denied { reason: decision.reason },
    };
    answer(services.app.turns.decide(&permit, id, decision).ending().await?)
}

fn summary_of(id: String, summary: Summary) -> ConversationSummary {
    let Summary { title, agent, turns, usage, created_ms, updated_ms } = summary;
    ConversationSummary { id, title, agent, turns, usage, created: rfc3339(created_ms), updated: rfc3339(updated_ms) }
}

pub(in crate::edge) fn record_of(turn: caxton_proto::shard::TurnRecord) -> TurnRecord {
    TurnRecord {
        turn: turn.turn,
        agent: turn.agent,
        subject: turn.subject,
        time: rfc3339(turn.time_ms),
        request: turn.ending.and_then(|ending| ending.request),
        messages: turn.messages.into_iter().map(Into::into).collect(),
        attachments: turn.attachments.into_iter().map(Into::into).collect(),
        usage: turn.usage.into(),
        duration_ms: turn.duration_ms,
        revision: turn.revision,
        failure: turn.failure,
    }
}
