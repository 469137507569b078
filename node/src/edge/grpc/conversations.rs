//! Conversations: listed, shown and followed, those of turns and those of messages.

use axum::extract::{Request, State};
use axum::response::Response;
use caxton_messages::Event;
use caxton_proto::shard::{Message, Part, TurnRecord};
use caxton_proto::v1::pb;
use futures::StreamExt;

use super::call;
use super::convert::{freshness, page, permit, time, time_of, usage};
use super::messages::content;
use crate::api::paths;
use crate::app::conversations::ConversationPage;
use crate::app::feeds::{Feed, FeedEvent};
use crate::authz::{Converse, UnscopedToken};
use crate::conversations::Summary;
use crate::edge::problem::{Code, Problem};
use crate::edge::routes::{Owner, Routes, post};
use crate::edge::{Services, feeds, sse};

/// Conversations on a page unless told otherwise, and at most.
const PAGE: usize = 50;
const PAGE_MAX: usize = 500;
/// Events of a conversation of messages that are shown; no more are kept.
const EVENTS_MAX: usize = 1_000;

/// This service's routes.
pub fn routes() -> Routes {
    Routes::new()
        .on(post(paths::GRPC_LIST_CONVERSATIONS), Owner::Named, list)
        .on(post(paths::GRPC_GET_CONVERSATION), Owner::Named, get)
        .on(post(paths::GRPC_FOLLOW_CONVERSATION), Owner::Named, follow)
}

/// Which kind of conversation is meant.
enum Kind {
    Turns,
    Messages,
}

fn kind(number: i32) -> Result<Kind, Problem> {
    match pb::ConversationKind::try_from(number) {
        Ok(pb::ConversationKind::Unspecified | pb::ConversationKind::Turns) => Ok(Kind::Turns),
        Ok(pb::ConversationKind::Messages) => Ok(Kind::Messages),
        Err(_) => Err(Problem::new(Code::InvalidRequest, format!("{number} is no kind of conversation"))
            .help("the published file conversations.proto has the kinds")),
    }
}

async fn list(token: UnscopedToken<Converse>, State(services): State<Services>, request: Request) -> Response {
    call::unary(&services, request, async |wanted: pb::ListConversationsRequest| {
        let permit = permit(&token, &wanted.workspace)?;
        let (cursor, limit) = (Some(wanted.before).filter(|it| !it.is_empty()), page(wanted.limit, PAGE, PAGE_MAX));
        let ConversationPage { conversations, next } =
            services.app.conversations.list(&permit, cursor, limit, freshness(wanted.stale)).await?;
        let conversations = conversations.into_iter().map(|(id, it)| summary(id, it)).collect();
        Ok(pb::ListConversationsResponse { conversations, next: next.unwrap_or_default() })
    })
    .await
}

async fn get(token: UnscopedToken<Converse>, State(services): State<Services>, request: Request) -> Response {
    call::unary(&services, request, async |wanted: pb::GetConversationRequest| {
        let permit = permit(&token, &wanted.workspace)?;
        let (id, freshness) = (wanted.conversation, freshness(wanted.stale));
        match kind(wanted.kind)? {
            Kind::Turns => {
                let (found, turns) = services.app.conversations.show(&permit, &id, freshness).await?;
                // The newest come first, and the newest of all has the number of them.
                let numbers = (1..=found.turns).rev();
                let mut events: Vec<_> = turns.into_iter().zip(numbers).map(|(it, number)| turn(number, it)).collect();
                events.reverse();
                Ok(pb::Conversation { events, about: Some(pb::conversation::About::Turns(summary(id, found))) })
            }
            Kind::Messages => {
                let found = services.app.mailboxes.conversation(&permit, &id, 0, EVENTS_MAX, freshness).await?;
                let party = |(participant, state)| pb::Party { participant, state };
                let about = pb::Exchange {
                    id,
                    protocol: found.protocol.unwrap_or_default(),
                    initiator: found.initiator,
                    open: found.open,
                    deadline: found.deadline_ms.map(time),
                    parties: found.participants.into_iter().map(party).collect(),
                };
                let events = found.events.into_iter().map(sent).collect();
                Ok(pb::Conversation { events, about: Some(pb::conversation::About::Messages(about)) })
            }
        }
    })
    .await
}

async fn follow(token: UnscopedToken<Converse>, State(services): State<Services>, request: Request) -> Response {
    call::streaming(&services, request, async |wanted: pb::FollowConversationRequest| {
        let permit = permit(&token, &wanted.workspace)?;
        let place = sse::place(&services)?;
        let feed = match kind(wanted.kind)? {
            Kind::Turns => Feed::Turns { conversation: wanted.conversation },
            Kind::Messages => Feed::Messages { conversation: wanted.conversation },
        };
        let subscription = services.app.feeds.open(&permit, feed, wanted.after, freshness(wanted.wait)).await?;
        let told = feeds::tell(services.clone(), permit.access().clone(), place, subscription);
        Ok(told.map(|event| match event? {
            FeedEvent::Turn { number, record } => Ok(turn(number, *record)),
            FeedEvent::Message(event) => Ok(sent(event)),
            FeedEvent::Delivery(_) => Err(Problem::new(Code::Internal, "a conversation told of a delivery")),
        }))
    })
    .await
}

fn summary(id: String, it: Summary) -> pb::ConversationSummary {
    pb::ConversationSummary {
        id,
        title: it.title,
        agent: it.agent.to_string(),
        turns: it.turns,
        usage: Some(usage(it.usage)),
        created: Some(time_of(it.created_ms)),
        updated: Some(time_of(it.updated_ms)),
    }
}

fn turn(number: u64, it: TurnRecord) -> pb::ConversationEvent {
    let turn = pb::Turn {
        id: it.turn,
        agent: it.agent.to_string(),
        subject: it.subject,
        said: it.messages.into_iter().map(said).collect(),
        usage: Some(usage(it.usage.into())),
        duration_ms: it.duration_ms,
        revision: it.revision.0,
        failure: it.failure,
    };
    let event = Some(pb::conversation_event::Event::Turn(turn));
    pb::ConversationEvent { number, time: Some(time_of(it.time_ms)), event }
}

fn sent(it: Event) -> pb::ConversationEvent {
    let message = pb::SentMessage {
        id: it.id.to_string(),
        sender: it.sender,
        receivers: it.receivers,
        performative: it.performative.name().to_owned(),
        content: it.content.map(content),
    };
    let event = Some(pb::conversation_event::Event::Message(message));
    pb::ConversationEvent { number: it.number, time: Some(time(it.at_ms)), event }
}

fn said(message: Message) -> pb::Said {
    use pb::said::Role;
    let of = |role: Role, text: String| pb::Said { role: role.into(), text, ..pb::Said::default() };
    match message {
        Message::System { text } => of(Role::System, text),
        Message::User { parts } => {
            let mut said = of(Role::User, String::new());
            for part in parts {
                match part {
                    Part::Text { text } if said.text.is_empty() => said.text = text,
                    Part::Text { text } => said.text = format!("{}\n{text}", said.text),
                    Part::Image { url } => said.images.push(url),
                }
            }
            said
        }
        Message::Assistant { text, calls, echo: _ } => {
            let calls = calls.into_iter().map(|it| pb::Call { id: it.id, tool: it.tool, arguments: it.arguments });
            pb::Said { calls: calls.collect(), ..of(Role::Assistant, text) }
        }
        Message::Tool { call, tool, text, failed } => pb::Said { call, tool, failed, ..of(Role::Tool, text) },
    }
}
