//! Mailboxes over HTTP: messages are sent, listed, shown, tried again and dropped.

use axum::extract::State;
use caxton_messages::acl::{Message, Priority};
use caxton_messages::mailbox::{Fate, Submission};
use caxton_messages::{Listed, Listing, Stage};
use serde::Deserialize;
use utoipa::{IntoParams, OpenApi};

use super::freshness;
use crate::api::mailbox::{Delivery, DeliveryChange, DeliveryPage, SendRequest, SendResponse};
use crate::api::{self, paths};
use crate::authz::{Converse, ForgetConversations, Permit};
use crate::edge::Services;
use crate::edge::extract::{Json, Path, Query};
use crate::edge::problem::{Code, Problem};
use crate::edge::routes::{BodyLimit, Owner, Routes, delete, get, post};
use crate::time::rfc3339;

/// Deliveries on a page unless told otherwise, and at most.
const PAGE: usize = 50;
const PAGE_MAX: usize = 500;

/// This part of the API's description.
#[derive(OpenApi)]
#[openapi(paths(list, send, show, remove, retry))]
pub struct Doc;

/// This part's routes.
pub fn routes() -> Routes {
    Routes::new()
        .on(get(paths::MAILBOX).or_stale(), Owner::Shard, list)
        .on(post(paths::MAILBOX).body(BodyLimit::Message), Owner::Shard, send)
        .on(get(paths::DELIVERY).or_stale(), Owner::Shard, show)
        .on(delete(paths::DELIVERY), Owner::Shard, remove)
        .on(post(paths::DELIVERY_RETRY), Owner::Shard, retry)
}

/// Which deliveries.
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

/// How current an answer has to be.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Current {
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
    let owner = page.owner.as_deref().map(str::parse).transpose();
    let owner = owner.map_err(|error: caxton_messages::acl::InvalidAddress| {
        Problem::new(Code::InvalidRequest, error.to_string()).help("name an agent, or a person as subject:NAME")
    })?;
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
    let priority = request.priority.map_or(Some(Priority::default()), Priority::new);
    let priority = priority.ok_or_else(|| invalid("`priority` is a number from 0 to 7".to_owned()))?;
    let expires = request.expires.as_deref().map(str::parse::<jiff::Timestamp>).transpose();
    let expires = expires.map_err(|_| invalid("`expires` is a time such as 2026-03-01T12:00:00Z".to_owned()))?;
    let expires_ms = expires.map(|at| at.as_millisecond());
    let key = request.key;
    let with = |submission: Submission| Submission { priority, key, expires_ms, ..submission };
    let sent = services.app.mailboxes.send(&permit, message, with).await?;
    let mut response = SendResponse {
        id: sent.id.to_string(),
        duplicate: true,
        conversation: None,
        event: None,
        deliveries: 0,
        position: None,
        notes: notes.iter().map(ToString::to_string).collect(),
    };
    if let Fate::Accepted { conversation, event, deliveries, position } = sent.fate {
        (response.duplicate, response.conversation, response.event) = (false, Some(conversation), Some(event));
        (response.deliveries, response.position) = (deliveries, position);
    }
    Ok(Json(response))
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

pub(in crate::edge) fn delivery(listed: Listed) -> Result<Delivery, Problem> {
    let state = match listed.stage {
        Stage::Ready => "ready",
        Stage::Started => "started",
        Stage::Retry => "retry",
        Stage::Dead => "dead",
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
        due: rfc3339(u64::try_from(listed.due_ms).unwrap_or_default()),
        reason: listed.reason,
        message,
    })
}
