//! Mailboxes over HTTP: messages are sent, listed, shown, tried again and dropped, and followed as they are sent.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use caxton_messages::acl::{Message, Priority};
use caxton_messages::mailbox::{Fate, Submission};
use caxton_messages::{Listed, Listing, Stage};
use serde::Deserialize;
use utoipa::{IntoParams, OpenApi};

use super::said::{self, Source};
use super::{Current, freshness, owner};
use crate::api::mailbox::{
    ConversationEvents, DeadLettersChange, DeadLettersRequest, Delivery, DeliveryChange, DeliveryPage, MessageEvents,
    SendRequest, SendResponse,
};
use crate::api::{self, paths};
use crate::app::mailboxes::{Acceptance, Disposal};
use crate::authz::{Converse, ForgetConversations, Permit};
use crate::edge::Services;
use crate::edge::extract::{Json, Path, Query};
use crate::edge::problem::{Code, Problem};
use crate::edge::routes::{BodyLimit, Owner, Routes, delete, get, post};
use crate::time::rfc3339_of;

/// Deliveries on a page unless told otherwise, and at most.
const PAGE: usize = 50;
const PAGE_MAX: usize = 500;

/// This part of the API's description.
#[derive(OpenApi)]
#[openapi(paths(list, send, show, remove, retry, retry_all, drop_all, events, conversation_events))]
pub struct Doc;

/// This part's routes.
pub fn routes() -> Routes {
    Routes::new()
        .on(get(paths::MAILBOX).or_stale(), Owner::Shard, list)
        .on(post(paths::MAILBOX).body(BodyLimit::Message), Owner::Shard, send)
        .on(get(paths::DELIVERY).or_stale(), Owner::Shard, show)
        .on(delete(paths::DELIVERY), Owner::Shard, remove)
        .on(post(paths::DELIVERY_RETRY), Owner::Shard, retry)
        .on(post(paths::DEAD_LETTERS_RETRY), Owner::Shard, retry_all)
        .on(post(paths::DEAD_LETTERS_DROP), Owner::Shard, drop_all)
        .on(get(paths::MAILBOX_EVENTS).or_stale(), Owner::Shard, events)
        .on(get(paths::CONVERSATION_EVENTS).or_stale(), Owner::Shard, conversation_events)
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Page {
    /// The `next` of the page before.
    after: Option<u64>,
    /// How many at most: 50 unless told, 500 at most.
    limit: Option<usize>,
    /// Only in this mailbox: an agent's name, or `subject:NAME`.
    owner: Option<String>,
    /// Only dead letters, or with `false` only what is none.
    dead: Option<bool>,
    /// Answer from what this node has, which may be behind.
    #[serde(default)]
    stale: bool,
}

/// Deliveries in the order of their numbers: those in one's own mailbox, or everybody's for deployers. Needs the role caller.
#[utoipa::path(get, path = paths::MAILBOX.text(), tag = "mailbox",
    params(("workspace" = String, Path, description = "The workspace."), Page),
    responses((status = 200, description = "A page of them.", body = DeliveryPage)))]
async fn list(
    permit: Permit<Converse>,
    State(services): State<Services>,
    Query(page): Query<Page>,
) -> Result<Json<DeliveryPage>, Problem> {
    let owner = owner(page.owner.as_deref())?;
    let most = page.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX);
    let what = Listing { owner, dead: page.dead, delivery: None, after: page.after.unwrap_or_default(), most };
    let found = services.app.mailboxes.list(&permit, what, freshness(page.stale)).await?;
    let next = (found.len() == most).then(|| found.last().map(|it| it.delivery)).flatten();
    Ok(Json(DeliveryPage { deliveries: found.into_iter().map(delivery).collect::<Result<_, _>>()?, next }))
}

/// Sends a message to agents, people or topics. It is on the disks of a majority when it is acknowledged, and a full mailbox
/// refuses it. Needs the role caller.
#[utoipa::path(post, path = paths::MAILBOX.text(), tag = "mailbox",
    params(("workspace" = String, Path, description = "The workspace.")), request_body = SendRequest,
    responses(
    (status = 200, description = "It was taken in, now or under the same key before.", body = SendResponse),
    (status = 409, description = "Its conversation's protocol does not allow it: `conflict`.", body = api::Problem, content_type = "application/problem+json"),
    (status = 429, description = "A receiver's mailbox is full: `too_many_requests`, with when to send it again.", body = api::Problem, content_type = "application/problem+json"),
))]
async fn send(
    permit: Permit<Converse>,
    State(services): State<Services>,
    Json(request): Json<SendRequest>,
) -> Result<Json<SendResponse>, Problem> {
    let invalid = |detail: String| Problem::new(Code::InvalidRequest, detail).help("docs/messages.md shows a message");
    let (message, notes) =
        Message::from_json(request.message.get().as_bytes()).map_err(|error| invalid(error.to_string()))?;
    let around = Around { priority: request.priority, key: request.key, expires: request.expires };
    let sent = match &request.signature {
        None => services.app.mailboxes.send(&permit, message, around.checked()?).await?,
        Some(of) => {
            let signature = super::signatures::signature(of)?;
            services.app.signatures.send(&permit, message, signature, around.checked()?).await?
        }
    };
    let notes = notes.iter().map(ToString::to_string).collect();
    Ok(Json(sent_response(sent, notes)))
}

/// What a sender says around a message.
pub(super) struct Around {
    pub(super) priority: Option<u64>,
    pub(super) key: Option<String>,
    pub(super) expires: Option<String>,
}

impl Around {
    /// Puts it around a message, or says what is wrong with it.
    pub(super) fn checked(self) -> Result<impl FnOnce(Submission) -> Submission, Problem> {
        let invalid =
            |detail: &str| Problem::new(Code::InvalidRequest, detail).help("docs/messages.md shows a message");
        let priority = self.priority.map_or(Some(Priority::default()), Priority::new);
        let priority = priority.ok_or_else(|| invalid("`priority` is a number from 0 to 7"))?;
        let expires = self.expires.as_deref().map(str::parse::<jiff::Timestamp>).transpose();
        let expires = expires.map_err(|_| invalid("`expires` is a time such as 2026-03-01T12:00:00Z"))?;
        let (key, expires_ms) = (self.key, expires.map(|at| at.as_millisecond()));
        Ok(move |submission: Submission| Submission { priority, key, expires_ms, ..submission })
    }
}

/// What a sender is answered.
pub(super) fn sent_response(sent: Acceptance, notes: Vec<String>) -> SendResponse {
    let mut response = SendResponse {
        id: sent.id.to_string(),
        duplicate: true,
        conversation: None,
        event: None,
        deliveries: 0,
        position: None,
        notes,
    };
    if let Fate::Accepted { conversation, event, deliveries, position } = sent.fate {
        (response.duplicate, response.conversation, response.event) = (false, Some(conversation), Some(event));
        (response.deliveries, response.position) = (deliveries, position);
    }
    response
}

/// One delivery with its message. Needs the role caller, and deployer for the mailboxes of others.
#[utoipa::path(get, path = paths::DELIVERY.text(), tag = "mailbox",
    params(("workspace" = String, Path, description = "The workspace."), ("delivery" = u64, Path, description = "Its number."), Current),
    responses((status = 200, description = "The delivery.", body = Delivery),
    (status = 404, description = "There is none of that number: `not_found`.", body = api::Problem, content_type = "application/problem+json")))]
async fn show(
    permit: Permit<Converse>,
    State(services): State<Services>,
    Path((_workspace, number)): Path<(String, u64)>,
    Query(current): Query<Current>,
) -> Result<Json<Delivery>, Problem> {
    Ok(Json(delivery(services.app.mailboxes.show(&permit, number, freshness(current.stale)).await?)?))
}

/// Drops a delivery that is not under way: from one's own mailbox with the role caller, from everybody's with deployer.
#[utoipa::path(delete, path = paths::DELIVERY.text(), tag = "mailbox",
    params(("workspace" = String, Path, description = "The workspace."), ("delivery" = u64, Path, description = "Its number.")),
    responses((status = 200, description = "It is gone.", body = DeliveryChange),
    (status = 404, description = "There is none of that number that could be dropped: `not_found`.", body = api::Problem, content_type = "application/problem+json")))]
async fn remove(
    permit: Permit<Converse>,
    State(services): State<Services>,
    Path((_workspace, number)): Path<(String, u64)>,
) -> Result<Json<DeliveryChange>, Problem> {
    services.app.mailboxes.drop(&permit, number).await?;
    Ok(Json(DeliveryChange { delivery: number, change: "dropped".to_owned() }))
}

/// Gives a dead letter another try, as if it had just come. Needs the role deployer.
#[utoipa::path(post, path = paths::DELIVERY_RETRY.text(), tag = "mailbox",
    params(("workspace" = String, Path, description = "The workspace."), ("delivery" = u64, Path, description = "Its number.")),
    responses((status = 200, description = "It waits once more.", body = DeliveryChange),
    (status = 404, description = "There is no dead letter of that number: `not_found`.", body = api::Problem, content_type = "application/problem+json")))]
async fn retry(
    permit: Permit<ForgetConversations>,
    State(services): State<Services>,
    Path((_workspace, number)): Path<(String, u64)>,
) -> Result<Json<DeliveryChange>, Problem> {
    services.app.mailboxes.retry(&permit, number).await?;
    Ok(Json(DeliveryChange { delivery: number, change: "retried".to_owned() }))
}

/// Gives all dead letters another try, of one mailbox or of all; one request takes 65,536 at most. Needs the role deployer.
#[utoipa::path(post, path = paths::DEAD_LETTERS_RETRY.text(), tag = "mailbox",
    params(("workspace" = String, Path, description = "The workspace.")), request_body = DeadLettersRequest,
    responses((status = 200, description = "How many wait once more.", body = DeadLettersChange)))]
async fn retry_all(
    permit: Permit<ForgetConversations>,
    State(services): State<Services>,
    Json(request): Json<DeadLettersRequest>,
) -> Result<Json<DeadLettersChange>, Problem> {
    dispose(&permit.also(Converse)?, &services, Disposal::Retry, request).await
}

/// Drops all dead letters: those in one's own mailbox with the role caller, those of one mailbox or of all with deployer. One
/// request takes 65,536 at most.
#[utoipa::path(post, path = paths::DEAD_LETTERS_DROP.text(), tag = "mailbox",
    params(("workspace" = String, Path, description = "The workspace.")), request_body = DeadLettersRequest,
    responses((status = 200, description = "How many are gone.", body = DeadLettersChange)))]
async fn drop_all(
    permit: Permit<Converse>,
    State(services): State<Services>,
    Json(request): Json<DeadLettersRequest>,
) -> Result<Json<DeadLettersChange>, Problem> {
    dispose(&permit, &services, Disposal::Drop, request).await
}

async fn dispose(
    permit: &Permit<Converse>,
    services: &Services,
    disposal: Disposal,
    request: DeadLettersRequest,
) -> Result<Json<DeadLettersChange>, Problem> {
    let (owner, after) = (owner(request.owner.as_deref())?, request.after.unwrap_or_default());
    let disposed = services.app.mailboxes.dispose(permit, disposal, owner, after, request.dry_run).await?;
    let change = match disposal {
        Disposal::Retry => "retried",
        Disposal::Drop => "dropped",
    };
    let (deliveries, next) = (disposed.deliveries, disposed.next);
    Ok(Json(DeadLettersChange { change: change.to_owned(), deliveries, dry_run: request.dry_run, next }))
}

/// Which messages of what was said.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Since {
    /// Only those after this one: the `reached` of the page before, or the id of an event. The header `Last-Event-ID` says the
    /// same for a stream, and wins.
    after: Option<u64>,
    /// How many at most: 50 unless told, 500 at most.
    limit: Option<usize>,
    /// Go on with every message as it is sent, as server-sent events; without `after`, with those that come from now on.
    #[serde(default)]
    follow: bool,
    /// Answer from what this node has, which may be behind.
    #[serde(default)]
    stale: bool,
}

impl Since {
    fn most(&self) -> usize {
        self.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX)
    }
}

/// What agents and people send each other, in the order in which it was taken in: what one sent or received oneself, or
/// everything for deployers. Needs the role caller.
///
/// With `follow` the answer is an event stream: each event has the name `message`, the message's position as its id, and the
/// message as its data; it ends with an event `closed` as `/api/v1/events` does. A message is shown as long as its conversation
/// is kept, and its text as long as somebody has yet to deal with it.
#[utoipa::path(get, path = paths::MAILBOX_EVENTS.text(), tag = "mailbox", params(Since,
    ("workspace" = String, Path, description = "The workspace."),
    ("Last-Event-ID" = Option<u64>, Header, description = "The id of the last event seen.")), responses(
    (status = 200, description = "The messages; with `follow`, a `MessageEvent` for each event of the stream.", content((MessageEvents = "application/json"), (serde_json::Value = "text/event-stream"))),
    (status = 503, description = "Too many streams are open.", body = api::Problem, content_type = "application/problem+json"),
))]
async fn events(
    permit: Permit<Converse>,
    State(services): State<Services>,
    Query(since): Query<Since>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (most, freshness) = (since.most(), freshness(since.stale));
    if since.follow {
        let after = match crate::edge::sse::cursor(since.after, &headers)? {
            Some(after) => after,
            None => services.app.mailboxes.newest_event(&permit, freshness).await?,
        };
        return said::follow(services, permit, Source::Workspace, after);
    }
    let found = services.app.mailboxes.events(&permit, since.after.unwrap_or_default(), most, freshness).await?;
    let events = found.events.iter().map(said::event).collect();
    Ok(Json(MessageEvents { events, reached: found.reached, more: found.more }).into_response())
}

/// The messages of a conversation, in the order of their numbers: those that one sent or received oneself, or all of them for
/// deployers. Needs the role caller.
///
/// With `follow` the answer is an event stream as that of the workspace's messages; the id of an event is the message's number
/// in the conversation.
#[utoipa::path(get, path = paths::CONVERSATION_EVENTS.text(), tag = "mailbox", params(Since,
    ("workspace" = String, Path, description = "The workspace."),
    ("id" = String, Path, description = "The conversation: `conversation_id` of its messages."),
    ("Last-Event-ID" = Option<u64>, Header, description = "The id of the last event seen.")), responses(
    (status = 200, description = "The conversation with its messages; with `follow`, a `MessageEvent` for each event of the stream.", content((ConversationEvents = "application/json"), (serde_json::Value = "text/event-stream"))),
    (status = 404, description = "There is none of that name: `not_found`.", body = api::Problem, content_type = "application/problem+json"),
    (status = 503, description = "Too many streams are open.", body = api::Problem, content_type = "application/problem+json"),
))]
async fn conversation_events(
    permit: Permit<Converse>,
    State(services): State<Services>,
    Path((_workspace, id)): Path<(String, String)>,
    Query(since): Query<Since>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (most, freshness) = (since.most(), freshness(since.stale));
    let after = crate::edge::sse::cursor(since.after, &headers)?;
    let begin = if since.follow && after.is_none() { u64::MAX } else { after.unwrap_or_default() };
    let found = services.app.mailboxes.conversation(&permit, &id, begin, most, freshness).await?;
    if since.follow {
        let after = after.unwrap_or(found.newest);
        return said::follow(services, permit, Source::Conversation(id), after);
    }
    Ok(Json(said::conversation(id, begin, most, found)).into_response())
}

pub(in crate::edge) fn delivery(listed: Listed) -> Result<Delivery, Problem> {
    let state = match listed.stage {
        Stage::Ready => "ready",
        Stage::Started => "started",
        Stage::Retry => "retry",
        Stage::Dead => "dead",
        Stage::Waiting => "waiting",
    };
    let json = listed.submission.message.to_json().map_err(|error| Problem::internal(&error))?;
    let message = serde_json::from_str(&json).map_err(|error| Problem::internal(&error))?;
    Ok(Delivery {
        delivery: listed.delivery,
        owner: listed.owner.to_string(),
        id: listed.id.to_string(),
        state: state.to_owned(),
        attempts: listed.attempts,
        priority: listed.submission.priority.number(),
        due: rfc3339_of(listed.due_ms),
        reason: listed.reason,
        message,
    })
}
