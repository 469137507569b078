//! What was said between agents and people, as HTTP tells it: an event for each message, and streams of them.

use std::collections::VecDeque;

use axum::response::Response;
use axum::response::sse::Event;
use caxton_messages::Conversation;
use caxton_messages::acl::{Body, Content};
use tokio::sync::watch;

use crate::api::mailbox::{ConversationEvents, ConversationParticipant, MessageEvent};
use crate::app::App;
use crate::authz::{Converse, Permit};
use crate::edge::Services;
use crate::edge::problem::Problem;
use crate::edge::sse::{self, FollowSource};
use crate::invoke::Freshness;
use crate::text::preview;
use crate::time::rfc3339_of;

/// Bytes of a message that an event shows.
const TEXT_SHOWN: usize = 500;
/// Messages that a stream reads in one go.
const BATCH: usize = 100;

/// What is followed.
pub(super) enum Source {
    /// All that is said in the workspace, by position.
    Workspace,
    /// One conversation, by its id, and by the numbers of its messages.
    Conversation(String),
}

/// A message as an event tells it.
pub(in crate::edge) fn event(of: &caxton_messages::Event) -> MessageEvent {
    MessageEvent {
        position: of.position,
        conversation: of.conversation.clone(),
        number: of.number,
        time: rfc3339_of(of.at_ms),
        performative: of.performative.name().to_owned(),
        sender: of.sender.clone(),
        receivers: of.receivers.clone(),
        id: of.id.to_string(),
        text: of.content.as_ref().map(text),
    }
}

fn text(content: &Content) -> String {
    match &content.body {
        Body::Text(text) | Body::Json(text) => preview(text, TEXT_SHOWN),
        Body::Bytes(bytes) => format!("({} bytes of {})", bytes.len(), content.media_type),
        Body::Artifact { digest, bytes } => format!("(artifact {digest}, {bytes} bytes of {})", content.media_type),
    }
}

/// A page of a conversation.
pub(super) fn conversation(id: String, after: u64, most: usize, of: Conversation) -> ConversationEvents {
    let participants = of.participants.into_iter();
    ConversationEvents {
        conversation: id,
        protocol: of.protocol,
        initiator: of.initiator,
        open: of.open,
        deadline: of.deadline_ms.map(rfc3339_of),
        participants: participants.map(|(participant, state)| ConversationParticipant { participant, state }).collect(),
        missed: of.oldest.saturating_sub(after.saturating_add(1)),
        next: (of.reached < of.newest && most > 0).then_some(of.reached),
        events: of.events.iter().map(event).collect(),
    }
}

/// Follows what is said after a position or a number, until the reader leaves.
pub(super) fn follow(
    services: Services,
    permit: Permit<Converse>,
    source: Source,
    after: u64,
) -> Result<Response, Problem> {
    let place = sse::place(&services)?;
    let (app, access) = (services.app.clone(), permit.access().clone());
    let changes = app.mailboxes.applied(&permit);
    let follow = Follow { app, permit, source, changes, cursor: after, ready: VecDeque::new() };
    Ok(sse::follow(services, access, place, follow))
}

struct Follow {
    app: App,
    permit: Permit<Converse>,
    source: Source,
    changes: watch::Receiver<u64>,
    /// Everything up to here is in `ready`, was taken, or is not for the reader.
    cursor: u64,
    ready: VecDeque<MessageEvent>,
}

impl FollowSource for Follow {
    async fn take(&mut self) -> Result<Vec<Event>, Problem> {
        while self.ready.is_empty() {
            let more = match &self.source {
                Source::Workspace => {
                    let said = self.app.mailboxes.events(&self.permit, self.cursor, BATCH, Freshness::Stale).await?;
                    self.cursor = said.reached;
                    self.ready.extend(said.events.iter().map(event));
                    said.more
                }
                Source::Conversation(id) => {
                    let (after, mailboxes) = (self.cursor, &self.app.mailboxes);
                    let of = mailboxes.conversation(&self.permit, id, after, BATCH, Freshness::Stale).await?;
                    self.cursor = self.cursor.max(of.reached);
                    self.ready.extend(of.events.iter().map(event));
                    of.reached < of.newest
                }
            };
            if !more {
                break;
            }
        }
        let by_number = matches!(self.source, Source::Conversation(_));
        let told = |event: MessageEvent| {
            let id = if by_number { event.number } else { event.position };
            let data = serde_json::to_string(&event).unwrap_or_default();
            Event::default().id(id.to_string()).event("message").data(data)
        };
        Ok(self.ready.drain(..).map(told).collect())
    }

    fn changes(&mut self) -> &mut watch::Receiver<u64> {
        &mut self.changes
    }
}
