//! Messages to agents, their conversations, and the approvals that their turns wait for.

use std::convert::Infallible;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::sse::{Event, KeepAlive};
use axum::response::{IntoResponse, Response, Sse};
use axum::routing::{get, post};
use caxton_proto::WorkspaceId;
use caxton_proto::log::Role;
use futures::{Stream, StreamExt};
use serde::Deserialize;
use tokio_stream::wrappers::ReceiverStream;
use utoipa::{IntoParams, OpenApi};

use super::Services;
use super::extract::{Json, Path, Query};
use crate::agent::events::Events;
use crate::agent::turn::Decision;
use crate::api;
use crate::api::messages::{
    ApprovalDecision, Approvals, ConversationDetail, ConversationSummary, Conversations, MessageAnswer, MessageRequest,
    TurnEvent, TurnRecord,
};
use crate::auth::Access;
use crate::conversations::{Summary, check_id, rfc3339};
use crate::invoke::{ClientTurn, Ended, InvokeError, log_failure};
use crate::problem::{Code, Problem};

/// A message with its attachments and images may have this many bytes.
pub const MESSAGE_BYTES_MAX: usize = 24 << 20;
/// Conversations on a page unless told otherwise, and at most.
const PAGE: usize = 50;
const PAGE_MAX: usize = 500;
/// Turns of a conversation that are shown, the newest.
const TURNS_SHOWN_MAX: usize = 1_000;

/// This part of the API's description.
#[derive(OpenApi)]
#[openapi(paths(message, turn, list, show, forget, approvals, decide), components(schemas(TurnEvent)))]
pub struct Doc;

/// This part's routes.
pub fn routes() -> Router<Services> {
    let limit = DefaultBodyLimit::max(MESSAGE_BYTES_MAX);
    Router::new()
        .route("/api/v1/workspaces/{workspace}/messages", post(message).layer(limit))
        .route("/api/v1/workspaces/{workspace}/turns/{id}", get(turn))
        .route("/api/v1/workspaces/{workspace}/conversations", get(list))
        .route("/api/v1/workspaces/{workspace}/conversations/{id}", get(show).delete(forget))
        .route("/api/v1/workspaces/{workspace}/approvals", get(approvals))
        .route("/api/v1/workspaces/{workspace}/approvals/{id}", post(decide))
}

/// Answers a message: as one JSON document, or with every step as it happens. The turn goes on when the client leaves.
/// Needs the role caller.
#[utoipa::path(post, path = "/api/v1/workspaces/{workspace}/messages", tag = "messages",
    params(("workspace" = String, Path, description = "The workspace.")), request_body = MessageRequest,
    responses(
    (status = 200, description = "The answer; with `stream`, a `TurnEvent` for each step as `text/event-stream`, the last one `answered`, `waiting` or `failed`.", body = MessageAnswer),
    (status = 202, description = "The turn waits for a person's decision.", body = TurnEvent),
    (status = 404, description = "There is no such agent or workspace: `not_found`; or nobody here can do it: `no_capable_agent`, with the nearest.", body = api::Problem, content_type = "application/problem+json"),
    (status = 429, description = "Too many turns run: `too_many_requests`.", body = api::Problem, content_type = "application/problem+json"),
    (status = 502, description = "The turn ended without an answer: `turn_failed`.", body = api::Problem, content_type = "application/problem+json"),
))]
async fn message(
    access: Access,
    State(services): State<Services>,
    Path(workspace): Path<WorkspaceId>,
    Json(request): Json<MessageRequest>,
) -> Result<Response, Problem> {
    // Before the answer begins: another node may have to give it.
    access.require(Role::Caller, &workspace)?;
    services.invoker.lead(&workspace).await?;
    let stream = request.stream;
    let invoker = services.invoker.clone();
    let walk = |events: Events| async move {
        let ended = invoker.message(&access, &workspace, request, ClientTurn::default(), events).await;
        ended.inspect_err(|error| log_failure(&workspace, error))
    };
    if stream {
        let (events, heard) = Events::channel();
        let last = events.clone();
        tokio::spawn(async move {
            let event = last_event(walk(events).await);
            last.emit(|| event).await;
        });
        return Ok(sse(heard).into_response());
    }
    answer(spawned(walk(Events::none())).await?)
}

/// How a turn ended, for a client that lost its connection; waits up to 30 seconds for one that is under way. Needs the
/// role viewer.
#[utoipa::path(get, path = "/api/v1/workspaces/{workspace}/turns/{id}", tag = "messages",
    params(("workspace" = String, Path, description = "The workspace."), ("id" = String, Path, description = "The turn: `turn` of the first event."), Current),
    responses(
    (status = 200, description = "The answer.", body = MessageAnswer),
    (status = 202, description = "The turn waits for a person's decision.", body = TurnEvent),
    (status = 404, description = "There is none of that name: `not_found`.", body = api::Problem, content_type = "application/problem+json"),
    (status = 502, description = "The turn ended without an answer: `turn_failed`.", body = api::Problem, content_type = "application/problem+json"),
    (status = 503, description = "It is still under way: `unavailable`.", body = api::Problem, content_type = "application/problem+json"),
))]
async fn turn(
    access: Access,
    State(services): State<Services>,
    Path((workspace, id)): Path<(WorkspaceId, String)>,
    Query(current): Query<Current>,
) -> Result<Response, Problem> {
    access.require(Role::Viewer, &workspace)?;
    current.wait(&services, &workspace).await?;
    answer(services.invoker.turn(&access, &workspace, &id).await?)
}

/// Runs to its end also when the client goes away.
async fn spawned(walk: impl Future<Output = Result<Ended, InvokeError>> + Send + 'static) -> Result<Ended, Problem> {
    match tokio::spawn(walk).await {
        Ok(ended) => Ok(ended?),
        Err(panic) => Err(Problem::internal(&panic)),
    }
}

fn answer(ended: Ended) -> Result<Response, Problem> {
    match ended.event() {
        Some(TurnEvent::Answered(answer)) => Ok(Json(answer).into_response()),
        Some(waiting) => Ok((axum::http::StatusCode::ACCEPTED, Json(waiting)).into_response()),
        None => Err(Problem::new(Code::Internal, "the turn ended with a call that nobody asked for")),
    }
}

fn last_event(ended: Result<Ended, InvokeError>) -> TurnEvent {
    let problem = match ended.map(Ended::event) {
        Ok(Some(event)) => return event,
        Ok(None) => Problem::new(Code::Internal, "the turn ended with a call that nobody asked for"),
        Err(error) => error.into(),
    };
    TurnEvent::Failed(Box::new(problem.body(None)))
}

fn sse(heard: tokio::sync::mpsc::Receiver<TurnEvent>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let events = ReceiverStream::new(heard).map(|event| {
        let data = serde_json::to_string(&event).unwrap_or_default();
        Ok(Event::default().event(event.name()).data(data))
    });
    Sse::new(events).keep_alive(KeepAlive::default())
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

/// How current an answer has to be.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Current {
    /// Answer from what this node has, which may be behind.
    #[serde(default)]
    stale: bool,
}

impl Current {
    /// Waits until this node has all that was acknowledged, unless it need not.
    async fn wait(self, services: &Services, workspace: &WorkspaceId) -> Result<(), Problem> {
        if !self.stale {
            services.invoker.conversations().shards().of(workspace).group().read_index().await?;
        }
        Ok(())
    }
}

/// The conversations, the newest first. Needs the role viewer.
#[utoipa::path(get, path = "/api/v1/workspaces/{workspace}/conversations", tag = "messages",
    params(("workspace" = String, Path, description = "The workspace."), Page),
    responses(
    (status = 200, description = "A page of them.", body = Conversations),
))]
async fn list(
    access: Access,
    State(services): State<Services>,
    Path(workspace): Path<WorkspaceId>,
    Query(page): Query<Page>,
) -> Result<Json<Conversations>, Problem> {
    access.require(Role::Viewer, &workspace)?;
    Current { stale: page.stale }.wait(&services, &workspace).await?;
    let limit = page.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX);
    let cursor = page.before.map(hex::decode).transpose().map_err(|_| {
        Problem::new(Code::InvalidRequest, "`before` is not the `next` of a page").help("leave it out for the newest")
    })?;
    let name = workspace.clone();
    let read = move |state: &crate::conversations::State| state.list(&workspace, cursor.as_deref(), limit + 1);
    let mut rows =
        services.invoker.conversations().read(&name, read).await.map_err(|error| Problem::internal(&error))?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|(cursor, _, _)| hex::encode(cursor));
    let conversations = rows.into_iter().map(|(_, id, summary)| summary_of(id, summary)).collect();
    Ok(Json(Conversations { conversations, next }))
}

/// A conversation with its newest turns, 1,000 at most. Needs the role viewer.
#[utoipa::path(get, path = "/api/v1/workspaces/{workspace}/conversations/{id}", tag = "messages",
    params(("workspace" = String, Path, description = "The workspace."), ("id" = String, Path, description = "The conversation."), Current),
    responses(
    (status = 200, description = "It, with its turns.", body = ConversationDetail),
    (status = 404, description = "There is none of that name: `not_found`.", body = api::Problem, content_type = "application/problem+json"),
))]
async fn show(
    access: Access,
    State(services): State<Services>,
    Path((workspace, id)): Path<(WorkspaceId, String)>,
    Query(current): Query<Current>,
) -> Result<Json<ConversationDetail>, Problem> {
    access.require(Role::Viewer, &workspace)?;
    let none = no_conversation(&workspace, &id);
    check_id(&id).map_err(|_| none.clone())?;
    current.wait(&services, &workspace).await?;
    let (name, wanted) = (workspace.clone(), id.clone());
    let read = move |state: &crate::conversations::State| {
        let mut left = TURNS_SHOWN_MAX;
        let turns = state.turns(&workspace, &wanted, |_| {
            left -= 1;
            left == 0
        })?;
        Ok(state.summary(&workspace, &wanted)?.map(|summary| (summary, turns)))
    };
    let found = services.invoker.conversations().read(&name, read).await.map_err(|error| Problem::internal(&error))?;
    let (summary, turns) = found.ok_or(none)?;
    let turns_detail = turns.into_iter().rev().map(record_of).collect();
    Ok(Json(ConversationDetail { summary: summary_of(id, summary), turns_detail }))
}

/// Removes a conversation with all that was said. Needs the role deployer.
#[utoipa::path(delete, path = "/api/v1/workspaces/{workspace}/conversations/{id}", tag = "messages",
    params(("workspace" = String, Path, description = "The workspace."), ("id" = String, Path, description = "The conversation.")),
    responses(
    (status = 200, description = "It was removed; this is what it was.", body = ConversationSummary),
    (status = 404, description = "There is none of that name: `not_found`.", body = api::Problem, content_type = "application/problem+json"),
))]
async fn forget(
    access: Access,
    State(services): State<Services>,
    Path((workspace, id)): Path<(WorkspaceId, String)>,
) -> Result<Json<ConversationSummary>, Problem> {
    access.require(Role::Deployer, &workspace)?;
    let none = no_conversation(&workspace, &id);
    check_id(&id).map_err(|_| none.clone())?;
    let conversations = services.invoker.conversations();
    let (name, wanted) = (workspace.clone(), id.clone());
    let found = conversations.read(&workspace, move |state| state.summary(&name, &wanted)).await;
    let summary = found.map_err(|error| Problem::internal(&error))?.ok_or(none)?;
    conversations.of(&workspace).forget(&workspace, &id).await.map_err(InvokeError::from)?;
    Ok(Json(summary_of(id, summary)))
}

/// The calls that wait for a person's decision. Needs the role viewer.
#[utoipa::path(get, path = "/api/v1/workspaces/{workspace}/approvals", tag = "messages",
    params(("workspace" = String, Path, description = "The workspace."), Current),
    responses(
    (status = 200, description = "The oldest first.", body = Approvals),
))]
async fn approvals(
    access: Access,
    State(services): State<Services>,
    Path(workspace): Path<WorkspaceId>,
    Query(current): Query<Current>,
) -> Result<Json<Approvals>, Problem> {
    access.require(Role::Viewer, &workspace)?;
    current.wait(&services, &workspace).await?;
    let approvals = services.invoker.approvals(&access, &workspace).await?;
    Ok(Json(Approvals { approvals: approvals.into_iter().map(Into::into).collect() }))
}

/// Decides, and answers when the turn is over or waits for the next decision.
#[utoipa::path(post, path = "/api/v1/workspaces/{workspace}/approvals/{id}", tag = "messages",
    params(("workspace" = String, Path, description = "The workspace."), ("id" = String, Path, description = "The approval.")), request_body = ApprovalDecision,
    responses(
    (status = 200, description = "The turn went on, and this is its answer.", body = MessageAnswer),
    (status = 202, description = "The turn waits for the next decision.", body = TurnEvent),
    (status = 404, description = "Nothing of that name waits: `not_found`.", body = api::Problem, content_type = "application/problem+json"),
))]
async fn decide(
    access: Access,
    State(services): State<Services>,
    Path((workspace, id)): Path<(WorkspaceId, String)>,
    Json(decision): Json<ApprovalDecision>,
) -> Result<Response, Problem> {
    let decision = match decision.approve {
        true => Decision::Approved,
        false => Decision::Denied { reason: decision.reason },
    };
    let invoker = services.invoker.clone();
    let walk = async move {
        let ended = invoker.decide(&access, &workspace, &id, decision, Events::none()).await;
        ended.inspect_err(|error| log_failure(&workspace, error))
    };
    answer(spawned(walk).await?)
}

fn no_conversation(workspace: &WorkspaceId, id: &str) -> Problem {
    Problem::new(Code::NotFound, format!("there is no conversation `{id}` in workspace `{workspace}`"))
        .help("`caxton conversations list` shows the ones there are")
}

fn summary_of(id: String, summary: Summary) -> ConversationSummary {
    let Summary { title, agent, turns, usage, created_ms, updated_ms } = summary;
    ConversationSummary { id, title, agent, turns, usage, created: rfc3339(created_ms), updated: rfc3339(updated_ms) }
}

fn record_of(turn: caxton_proto::shard::TurnRecord) -> TurnRecord {
    TurnRecord {
        turn: turn.turn,
        agent: turn.agent,
        subject: turn.subject,
        time: rfc3339(turn.time_ms),
        messages: turn.messages.into_iter().map(Into::into).collect(),
        attachments: turn.attachments.into_iter().map(Into::into).collect(),
        usage: turn.usage.into(),
        duration_ms: turn.duration_ms,
        revision: turn.revision,
        failure: turn.failure,
    }
}

impl From<InvokeError> for Problem {
    fn from(error: InvokeError) -> Problem {
        let detail = error.to_string();
        match error {
            InvokeError::Denied(denied) => denied.into(),
            InvokeError::Invalid { problems } => {
                Problem::new(Code::InvalidRequest, detail).with("problems", problems).help("send it again without them")
            }
            InvokeError::NoWorkspace { .. } => Problem::new(Code::NotFound, detail)
                .help("deploy it with `caxton deploy`, or name another one with --workspace"),
            InvokeError::Agent(_) => {
                Problem::new(Code::NotFound, detail).help("`caxton agents list` shows the agents that are live")
            }
            InvokeError::Nobody(none) => {
                let nearest: Vec<_> = none.nearest.iter().map(|found| {
                    serde_json::json!({ "agent": found.agent, "capability": found.capability, "score": found.score })
                }).collect();
                Problem::new(Code::NoCapableAgent, detail)
                    .with("nearest", nearest)
                    .help("`caxton route \"...\" --explain` shows why; name an agent to ask it anyway")
            }
            InvokeError::Elsewhere { leader } => Problem::new(Code::Unavailable, detail)
                .help("nothing was done: try again in a moment")
                .retry_after(1)
                .led_by(leader),
            InvokeError::Busy { .. } => {
                Problem::new(Code::TooManyRequests, detail).help("try again in a moment").retry_after(1)
            }
            InvokeError::Turn { agent, failure } => Problem::new(Code::TurnFailed, detail)
                .with("agent", agent)
                .with("failure", failure.code())
                .help("`caxton conversations list` has the turn with everything that was said"),
            InvokeError::NoApproval { .. } => {
                Problem::new(Code::NotFound, detail).help("`caxton approvals list` shows what waits")
            }
            InvokeError::KeyReused { .. } => {
                Problem::new(Code::Conflict, detail).help("draw a new idempotency key for another message")
            }
            InvokeError::NoTurn { .. } => Problem::new(Code::NotFound, detail)
                .help("if it never began to be kept, nothing was done: send the message again"),
            InvokeError::Underway { .. } | InvokeError::Adrift { .. } => Problem::new(Code::Unavailable, detail)
                .help("ask for the turn in a moment, or send the message again with its idempotency key")
                .retry_after(1),
            InvokeError::Record(source) => {
                tracing::error!(reason = %crate::llm::reasons(&source), "a turn could not be recorded");
                Problem::new(Code::Unavailable, detail).help("try again in a moment").retry_after(1)
            }
            error @ (InvokeError::PutDown(_)
            | InvokeError::Replay(_)
            | InvokeError::History(_)
            | InvokeError::Unfinished) => Problem::internal(&error),
        }
    }
}
