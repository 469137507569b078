//! Mailboxes: what lies in them is listed, shown, dropped, tried again and followed.

use axum::extract::{Request, State};
use axum::response::Response;
use caxton_messages::acl::{Address, InvalidAddress};
use caxton_messages::{Listed, Listing, Stage};
use caxton_proto::v1::pb;
use futures::StreamExt;

use super::call;
use super::convert::{freshness, invalid, page, permit, time};
use super::messages::message;
use crate::api::paths;
use crate::app::feeds::{Feed, FeedEvent};
use crate::authz::{Converse, ForgetConversations, UnscopedToken};
use crate::edge::problem::{Code, Problem};
use crate::edge::routes::{Owner, Routes, post};
use crate::edge::{Services, feeds, sse};
use crate::invoke::Freshness;

/// Deliveries on a page unless told otherwise, and at most.
const PAGE: usize = 50;
const PAGE_MAX: usize = 500;

/// This service's routes.
pub fn routes() -> Routes {
    Routes::new()
        .on(post(paths::GRPC_LIST_DELIVERIES), Owner::Named, list)
        .on(post(paths::GRPC_GET_DELIVERY), Owner::Named, get)
        .on(post(paths::GRPC_DROP_DELIVERY), Owner::Named, remove)
        .on(post(paths::GRPC_RETRY_DELIVERY), Owner::Named, retry)
        .on(post(paths::GRPC_FOLLOW_MAILBOX), Owner::Named, follow)
}

async fn list(token: UnscopedToken<Converse>, State(services): State<Services>, request: Request) -> Response {
    call::unary(&services, request, async |wanted: pb::ListDeliveriesRequest| {
        let permit = permit(&token, &wanted.workspace)?;
        let most = page(wanted.limit, PAGE, PAGE_MAX);
        let owner = owner(wanted.owner)?;
        let what = Listing { owner, dead: wanted.dead, delivery: None, after: wanted.after, most };
        let found = services.app.mailboxes.list(&permit, what, freshness(wanted.stale)).await?;
        let next = (found.len() == most).then(|| found.last().map(|it| it.delivery)).flatten();
        Ok(pb::ListDeliveriesResponse { deliveries: found.into_iter().map(delivery).collect(), next })
    })
    .await
}

async fn get(token: UnscopedToken<Converse>, State(services): State<Services>, request: Request) -> Response {
    call::unary(&services, request, async |wanted: pb::GetDeliveryRequest| {
        let permit = permit(&token, &wanted.workspace)?;
        Ok(delivery(services.app.mailboxes.show(&permit, wanted.delivery, freshness(wanted.stale)).await?))
    })
    .await
}

async fn remove(token: UnscopedToken<Converse>, State(services): State<Services>, request: Request) -> Response {
    call::unary(&services, request, async |wanted: pb::DropDeliveryRequest| {
        let permit = permit(&token, &wanted.workspace)?;
        services.app.mailboxes.drop(&permit, wanted.delivery).await?;
        Ok(pb::DropDeliveryResponse {})
    })
    .await
}

async fn retry(
    token: UnscopedToken<ForgetConversations>,
    State(services): State<Services>,
    request: Request,
) -> Response {
    call::unary(&services, request, async |wanted: pb::RetryDeliveryRequest| {
        let permit = permit(&token, &wanted.workspace)?;
        services.app.mailboxes.retry(&permit, wanted.delivery).await?;
        Ok(pb::RetryDeliveryResponse {})
    })
    .await
}

async fn follow(token: UnscopedToken<Converse>, State(services): State<Services>, request: Request) -> Response {
    call::streaming(&services, request, async |wanted: pb::FollowMailboxRequest| {
        let permit = permit(&token, &wanted.workspace)?;
        let place = sse::place(&services)?;
        let feed = Feed::Mailbox { owner: owner(wanted.owner)? };
        let freshness: Freshness = freshness(wanted.stale);
        let subscription = services.app.feeds.open(&permit, feed, Some(wanted.after), freshness).await?;
        let told = feeds::tell(services.clone(), permit.access().clone(), place, subscription);
        Ok(told.map(|event| match event? {
            FeedEvent::Delivery(listed) => Ok(delivery(*listed)),
            FeedEvent::Turn { .. } | FeedEvent::Message(_) => {
                Err(Problem::new(Code::Internal, "a mailbox told of something else than deliveries"))
            }
        }))
    })
    .await
}

fn owner(name: Option<String>) -> Result<Option<Address>, Problem> {
    let parsed = name.map(|name| name.parse::<Address>()).transpose();
    parsed
        .map_err(|error: InvalidAddress| invalid(error.to_string()).help("name an agent, or a person as subject:NAME"))
}

fn delivery(listed: Listed) -> pb::Delivery {
    use pb::delivery::State;
    let state = match listed.stage {
        Stage::Ready => State::Ready,
        Stage::Started => State::Started,
        Stage::Retry => State::Retry,
        Stage::Dead => State::Dead,
        Stage::Waiting => State::Waiting,
    };
    pb::Delivery {
        number: listed.delivery,
        owner: listed.owner.to_string(),
        id: listed.id.to_string(),
        state: state.into(),
        attempts: listed.attempts,
        priority: u32::from(listed.submission.priority.number()),
        due: Some(time(listed.due_ms)),
        reason: listed.reason,
        message: Some(message(listed.submission.message)),
    }
}
