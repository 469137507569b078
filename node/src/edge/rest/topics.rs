//! Topics over HTTP: who subscribed, what is published, and what was published before.

use std::collections::VecDeque;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use caxton_messages::acl::{Address, Message, Pattern};
use caxton_messages::mailbox::Filter;
use caxton_messages::{Publication, Subscription};
use serde::Deserialize;
use tokio::sync::watch;
use utoipa::{IntoParams, OpenApi};

use super::mailbox::{Around, sent_response};
use super::{freshness, owner};
use crate::api::mailbox::SendResponse;
use crate::api::topics::{
    PublicationInfo, PublicationPage, PublishRequest, SubscribeRequest, SubscriptionChange, SubscriptionInfo,
    SubscriptionPage, TopicInfo, TopicPage,
};
use crate::api::{self, paths};
use crate::app::App;
use crate::app::topics::{ChangedSubscription, NewSubscription};
use crate::authz::{Converse, Permit};
use crate::edge::Services;
use crate::edge::extract::{Json, Path, Query};
use crate::edge::problem::{Code, Problem};
use crate::edge::routes::{BodyLimit, Owner, Routes, delete, get, post};
use crate::edge::sse::{self, FollowSource};
use crate::invoke::Freshness;
use crate::time::rfc3339_of;

/// Things on a page unless told otherwise, and at most.
const PAGE: usize = 50;
const PAGE_MAX: usize = 500;
/// Publications that a stream reads in one go: each may have 256 KiB.
const BATCH: usize = 20;

/// This part of the API's description.
#[derive(OpenApi)]
#[openapi(paths(topics, subscriptions, subscribe, unsubscribe, publications, publish))]
pub struct Doc;

/// This part's routes.
pub fn routes() -> Routes {
    Routes::new()
        .on(get(paths::TOPICS).or_stale(), Owner::Shard, topics)
        .on(get(paths::SUBSCRIPTIONS).or_stale(), Owner::Shard, subscriptions)
        .on(post(paths::SUBSCRIPTIONS), Owner::Shard, subscribe)
        .on(delete(paths::SUBSCRIPTION), Owner::Shard, unsubscribe)
        .on(get(paths::PUBLICATIONS).or_stale(), Owner::Shard, publications)
        .on(post(paths::PUBLICATIONS).body(BodyLimit::Message), Owner::Shard, publish)
}

fn most(limit: Option<usize>) -> usize {
    limit.unwrap_or(PAGE).clamp(1, PAGE_MAX)
}

fn invalid(error: impl std::fmt::Display) -> Problem {
    Problem::new(Code::InvalidRequest, error.to_string()).help("docs/messages.md says how topics are written")
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct TopicsQuery {
    /// The `next` of the page before.
    after: Option<String>,
    /// How many at most: 50 unless told, 500 at most.
    limit: Option<usize>,
    /// Answer from what this node has, which may be behind.
    #[serde(default)]
    stale: bool,
}

/// The topics of which something is kept, by their names. Needs the role caller.
#[utoipa::path(get, path = paths::TOPICS.text(), tag = "topics",
    params(("workspace" = String, Path, description = "The workspace."), TopicsQuery),
    responses((status = 200, description = "A page of them.", body = TopicPage)))]
async fn topics(
    permit: Permit<Converse>,
    State(services): State<Services>,
    Query(page): Query<TopicsQuery>,
) -> Result<Json<TopicPage>, Problem> {
    let (after, most) = (page.after.unwrap_or_default(), most(page.limit));
    let found = services.app.topics.topics(&permit, after, most, freshness(page.stale)).await?;
    let next = (found.len() == most).then(|| found.last().map(|it| it.topic.as_str().to_owned())).flatten();
    let info = |it: caxton_messages::TopicSummary| TopicInfo {
        topic: it.topic.as_str().to_owned(),
        publications: it.publications,
        first: it.first,
        last: it.last,
    };
    Ok(Json(TopicPage { topics: found.into_iter().map(info).collect(), next }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct SubscriptionsQuery {
    /// Only those of this subscriber: an agent's name, or `subject:NAME`.
    subscriber: Option<String>,
    /// The `next` of the page before.
    after: Option<u64>,
    /// How many at most: 50 unless told, 500 at most.
    limit: Option<usize>,
    /// Answer from what this node has, which may be behind.
    #[serde(default)]
    stale: bool,
}

/// Subscriptions, in the order in which they were made: one's own, or everybody's for deployers. Needs the role caller.
#[utoipa::path(get, path = paths::SUBSCRIPTIONS.text(), tag = "topics",
    params(("workspace" = String, Path, description = "The workspace."), SubscriptionsQuery),
    responses((status = 200, description = "A page of them.", body = SubscriptionPage)))]
async fn subscriptions(
    permit: Permit<Converse>,
    State(services): State<Services>,
    Query(page): Query<SubscriptionsQuery>,
) -> Result<Json<SubscriptionPage>, Problem> {
    let (subscriber, after, most) =
        (owner(page.subscriber.as_deref())?, page.after.unwrap_or_default(), most(page.limit));
    let found = services.app.topics.subscriptions(&permit, subscriber, after, most, freshness(page.stale)).await?;
    let next = (found.len() == most).then(|| found.last().map(|it| it.number)).flatten();
    let info = |it: Subscription| SubscriptionInfo {
        name: it.name,
        subscriber: it.subscriber.to_string(),
        pattern: it.pattern.as_str().to_owned(),
        filter: it.filter.conditions().iter().map(ToString::to_string).collect(),
        position: it.position,
        missed: it.missed,
    };
    Ok(Json(SubscriptionPage { subscriptions: found.into_iter().map(info).collect(), next }))
}

/// Subscribes somebody to topics: what is published there comes to their mailbox, each message once, also what is published
/// while they are away. Needs the role caller, and deployer for agents and others.
#[utoipa::path(post, path = paths::SUBSCRIPTIONS.text(), tag = "topics",
    params(("workspace" = String, Path, description = "The workspace.")), request_body = SubscribeRequest,
    responses((status = 200, description = "It stands.", body = SubscriptionChange)))]
async fn subscribe(
    permit: Permit<Converse>,
    State(services): State<Services>,
    Json(request): Json<SubscribeRequest>,
) -> Result<Json<SubscriptionChange>, Problem> {
    let new = NewSubscription {
        subscriber: owner(request.subscriber.as_deref())?,
        name: request.name.unwrap_or_else(|| request.pattern.clone()),
        pattern: request.pattern.parse().map_err(|error: caxton_messages::acl::InvalidAddress| invalid(error))?,
        filter: Filter::of(&request.filter).map_err(invalid)?,
        after: request.after,
    };
    Ok(changed("subscribed", services.app.topics.subscribe(&permit, new).await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Whose {
    /// Whose it is, if it is not one's own: an agent's name, or `subject:NAME`.
    subscriber: Option<String>,
}

/// Ends a subscription; what it has brought to the mailbox stays there. Needs the role caller, and deployer for those of agents
/// and others.
#[utoipa::path(delete, path = paths::SUBSCRIPTION.text(), tag = "topics",
    params(("workspace" = String, Path, description = "The workspace."), ("name" = String, Path, description = "Its name."), Whose),
    responses((status = 200, description = "It is gone.", body = SubscriptionChange),
    (status = 404, description = "There is none of that name: `not_found`.", body = api::Problem, content_type = "application/problem+json")))]
async fn unsubscribe(
    permit: Permit<Converse>,
    State(services): State<Services>,
    Path((_workspace, name)): Path<(String, String)>,
    Query(whose): Query<Whose>,
) -> Result<Json<SubscriptionChange>, Problem> {
    let subscriber = owner(whose.subscriber.as_deref())?;
    Ok(changed("unsubscribed", services.app.topics.unsubscribe(&permit, subscriber, &name).await?))
}

fn changed(change: &str, of: ChangedSubscription) -> Json<SubscriptionChange> {
    let (subscriber, name, position) = (of.subscriber.to_string(), of.name, of.position);
    Json(SubscriptionChange { change: change.to_owned(), subscriber, name, position })
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct PublicationsQuery {
    /// Which topics: every one unless told.
    pattern: Option<String>,
    /// Conditions on the message, all of which have to hold, such as `content.amount>=100`: one a line.
    filter: Option<String>,
    /// Only those after this position: the `reached` of the page before, or the id of an event. The header `Last-Event-ID` says
    /// the same for a stream, and wins.
    after: Option<u64>,
    /// How many at most: 50 unless told, 500 at most.
    limit: Option<usize>,
    /// Go on with every message as it is published, as server-sent events; without `after`, with those that come from now on.
    #[serde(default)]
    follow: bool,
    /// Answer from what this node has, which may be behind.
    #[serde(default)]
    stale: bool,
}

/// What was published, in the order of the positions, as long as it is kept: the newest 10,000 messages of a workspace. Needs
/// the role caller.
///
/// With `follow` the answer is an event stream: each event has the name `publication`, its position as its id, and a
/// `PublicationInfo` as its data; it ends with an event `closed` as `/api/v1/events` does.
#[utoipa::path(get, path = paths::PUBLICATIONS.text(), tag = "topics", params(PublicationsQuery,
    ("workspace" = String, Path, description = "The workspace."),
    ("Last-Event-ID" = Option<u64>, Header, description = "The id of the last event seen.")), responses(
    (status = 200, description = "The messages; with `follow`, a `PublicationInfo` for each event of the stream.", content((PublicationPage = "application/json"), (serde_json::Value = "text/event-stream"))),
    (status = 503, description = "Too many streams are open.", body = api::Problem, content_type = "application/problem+json"),
))]
async fn publications(
    permit: Permit<Converse>,
    State(services): State<Services>,
    Query(query): Query<PublicationsQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let pattern: Pattern = query
        .pattern
        .as_deref()
        .unwrap_or("#")
        .parse()
        .map_err(|error: caxton_messages::acl::InvalidAddress| invalid(error))?;
    let conditions = query.filter.as_deref().unwrap_or_default().lines().filter(|text| !text.trim().is_empty());
    let wanted = (pattern, Filter::of(conditions).map_err(invalid)?);
    let (most, freshness) = (most(query.limit), freshness(query.stale));
    let after = if query.follow { sse::cursor(query.after, &headers)? } else { query.after };
    let begin = if query.follow { after.unwrap_or(u64::MAX) } else { after.unwrap_or_default() };
    let read = if query.follow { 0 } else { most };
    let found = services.app.topics.replay(&permit, wanted.clone(), begin, read, freshness).await?;
    if query.follow {
        let place = sse::place(&services)?;
        let (app, access) = (services.app.clone(), permit.access().clone());
        let (changes, cursor) = (app.mailboxes.applied(&permit), found.reached);
        let follow = Follow { app, permit, wanted, changes, cursor, ready: VecDeque::new() };
        return Ok(sse::follow(services, access, place, follow));
    }
    let publications = found.publications.iter().map(publication).collect::<Result<_, _>>()?;
    let (reached, more, missed) = (found.reached, found.more, found.missed);
    Ok(Json(PublicationPage { publications, reached, more, missed }).into_response())
}

fn publication(of: &Publication) -> Result<PublicationInfo, Problem> {
    let json = of.submission.message.to_json().map_err(|error| Problem::internal(&error))?;
    Ok(PublicationInfo {
        position: of.position,
        topic: of.topic.as_str().to_owned(),
        time: rfc3339_of(of.at_ms),
        id: of.submission.id.to_string(),
        message: serde_json::from_str(&json).map_err(|error| Problem::internal(&error))?,
    })
}

/// Publishes a message: it is kept for whoever subscribed, and for those who read it later. The same as sending it to
/// `topic:NAME`. Needs the role caller.
#[utoipa::path(post, path = paths::PUBLICATIONS.text(), tag = "topics",
    params(("workspace" = String, Path, description = "The workspace.")), request_body = PublishRequest,
    responses((status = 200, description = "It was taken in, now or under the same key before.", body = SendResponse)))]
async fn publish(
    permit: Permit<Converse>,
    State(services): State<Services>,
    Json(request): Json<PublishRequest>,
) -> Result<Json<SendResponse>, Problem> {
    let topic: caxton_messages::acl::Topic =
        request.topic.parse().map_err(|error: caxton_messages::acl::InvalidAddress| invalid(error))?;
    let mut message = serde_json::Map::new();
    message.insert("performative".to_owned(), request.performative.unwrap_or_else(|| "inform".to_owned()).into());
    message.insert("receiver".to_owned(), Address::Topic(topic).to_string().into());
    if let Some(kind) = request.content_type {
        message.insert("content_type".to_owned(), kind.into());
    }
    let mut text = serde_json::to_string(&message).map_err(|error| Problem::internal(&error))?;
    // The content goes in as the text that was sent: numbers keep their digits, objects the order of their fields.
    text.truncate(text.len().saturating_sub(1));
    text.push_str(&format!(",\"content\":{}}}", request.content.get()));
    let (message, notes) = Message::from_json(text.as_bytes()).map_err(invalid)?;
    let around = Around { priority: request.priority, key: request.key, expires: request.expires };
    let sent = services.app.mailboxes.send(&permit, message, around.checked()?).await?;
    Ok(Json(sent_response(sent, notes.iter().map(ToString::to_string).collect())))
}

/// What is published, from a position on.
struct Follow {
    app: App,
    permit: Permit<Converse>,
    wanted: (Pattern, Filter),
    changes: watch::Receiver<u64>,
    /// Everything up to here is in `ready`, was taken, or is not wanted.
    cursor: u64,
    ready: VecDeque<PublicationInfo>,
}

impl FollowSource for Follow {
    async fn take(&mut self) -> Result<Vec<Event>, Problem> {
        while self.ready.is_empty() {
            let (topics, wanted) = (&self.app.topics, self.wanted.clone());
            let found = topics.replay(&self.permit, wanted, self.cursor, BATCH, Freshness::Stale).await?;
            self.cursor = self.cursor.max(found.reached);
            for of in &found.publications {
                self.ready.push_back(publication(of)?);
            }
            if !found.more {
                break;
            }
        }
        let told = |it: PublicationInfo| {
            let data = serde_json::to_string(&it).unwrap_or_default();
            Event::default().id(it.position.to_string()).event("publication").data(data)
        };
        Ok(self.ready.drain(..).map(told).collect())
    }

    fn changes(&mut self) -> &mut watch::Receiver<u64> {
        &mut self.changes
    }
}
