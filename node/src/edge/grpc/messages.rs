//! Messages: an agent is asked, also step by step, a turn is asked for or stopped, and mailboxes are written to.

use std::collections::BTreeMap;

use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use caxton_messages::acl::{self, Address, Performative, Priority};
use caxton_messages::mailbox::{Fate, Submission};
use caxton_proto::v1::pb;
use futures::{Stream, StreamExt};

use super::call;
use super::convert::{agent, freshness, invalid, json, milliseconds, permit, time, usage};
use crate::api::messages::{Attachment, Content, MessageAnswer, MessageRequest, Route, TurnEvent};
use crate::api::paths;
use crate::app::turns::{Listener, StartedTurn};
use crate::authz::{Converse, UnscopedToken};
use crate::edge::Services;
use crate::edge::problem::{Code, Problem};
use crate::edge::routes::{BodyLimit, Owner, Routes, post};
use crate::edge::standing::EndsItself;
use crate::invoke::{ClientTurn, StoppedTurn, TurnEnd};

/// This service's routes.
pub fn routes() -> Routes {
    Routes::new()
        .on(post(paths::GRPC_ASK).body(BodyLimit::Message).own_time(), Owner::Named, ask)
        .on(post(paths::GRPC_ASK_STREAM).body(BodyLimit::Message).own_time(), Owner::Named, ask_stream)
        .on(post(paths::GRPC_GET_TURN).own_time(), Owner::Named, get_turn)
        .on(post(paths::GRPC_STOP_TURN).own_time(), Owner::Named, stop_turn)
        .on(post(paths::GRPC_SEND).body(BodyLimit::Message), Owner::Named, send)
}

async fn ask(token: UnscopedToken<Converse>, State(services): State<Services>, request: Request) -> Response {
    call::unary(&services, request, async |asked: pb::AskRequest| {
        let turn = start(&token, &services, asked, Listener::Absent).await?;
        response(turn.ending().await?)
    })
    .await
}

async fn ask_stream(token: UnscopedToken<Converse>, State(services): State<Services>, request: Request) -> Response {
    let mut response = call::streaming(&services, request, async |asked: pb::AskRequest| {
        Ok(steps(start(&token, &services, asked, Listener::Present).await?))
    })
    .await;
    // A turn looks at no token.
    response.extensions_mut().remove::<EndsItself>();
    response
}

async fn get_turn(token: UnscopedToken<Converse>, State(services): State<Services>, request: Request) -> Response {
    call::unary(&services, request, async |wanted: pb::GetTurnRequest| {
        let permit = permit(&token, &wanted.workspace)?;
        response(services.app.turns.ending_of(&permit, &wanted.turn, freshness(wanted.stale)).await?)
    })
    .await
}

async fn stop_turn(token: UnscopedToken<Converse>, State(services): State<Services>, request: Request) -> Response {
    call::unary(&services, request, async |wanted: pb::StopTurnRequest| {
        let permit = permit(&token, &wanted.workspace)?;
        let StoppedTurn { conversation, agent, failure } = services.app.turns.stop(&permit, &wanted.turn).await?;
        let outcome = failure.map_or("answered", |failure| failure.code()).to_owned();
        Ok(pb::StopTurnResponse { turn: wanted.turn, conversation, agent: agent.to_string(), outcome })
    })
    .await
}

async fn send(token: UnscopedToken<Converse>, State(services): State<Services>, request: Request) -> Response {
    call::unary(&services, request, async |sent: pb::SendRequest| {
        let permit = permit(&token, &sent.workspace)?;
        let message = sent.message.ok_or_else(|| invalid("there is no message").help("send one as `message`"))?;
        let message = message_of(message)?;
        let priority = sent.priority.map_or(Some(Priority::default()), |number| Priority::new(u64::from(number)));
        let priority = priority.ok_or_else(|| invalid("`priority` is a number from 0 to 7"))?;
        let expires_ms = sent.expires.as_ref().map(milliseconds);
        let with = |submission: Submission| Submission { priority, key: sent.key, expires_ms, ..submission };
        let accepted = services.app.mailboxes.send(&permit, message, with).await?;
        let mut response = pb::SendResponse { id: accepted.id.to_string(), duplicate: true, ..Default::default() };
        if let Fate::Accepted { conversation, event, deliveries, position } = accepted.fate {
            (response.duplicate, response.conversation, response.event) = (false, conversation, event);
            (response.deliveries, response.position) = (deliveries, position);
        }
        Ok(response)
    })
    .await
}

async fn start(
    token: &UnscopedToken<Converse>,
    services: &Services,
    asked: pb::AskRequest,
    listener: Listener,
) -> Result<StartedTurn, Problem> {
    let permit = permit(token, &asked.workspace)?;
    let parameters = asked.parameters.unwrap_or_default().fields;
    let parameter = |(name, value): (&String, &prost_types::Value)| Ok((name.clone(), json(value)?));
    let parameters: BTreeMap<_, _> = parameters.iter().map(parameter).collect::<Result<_, Problem>>()?;
    let request = MessageRequest {
        text: asked.text,
        agent: asked.agent.as_deref().map(agent).transpose()?,
        capability: asked.capability,
        conversation: asked.conversation,
        parameters,
        create: asked.create,
        reroute: asked.reroute,
        detached: asked.detached,
        attachments: asked.attachments.into_iter().map(attachment_of).collect::<Result<_, _>>()?,
        images: asked.images,
        idempotency_key: asked.idempotency_key,
        stream: listener == Listener::Present,
    };
    Ok(services.app.turns.start(&permit, request, ClientTurn::default(), listener).await?)
}

fn attachment_of(it: pb::Attachment) -> Result<Attachment, Problem> {
    let content = match it.content {
        Some(pb::attachment::Content::Text(text)) => Content::Text(text),
        Some(pb::attachment::Content::Data(data)) => Content::Base64(STANDARD.encode(data)),
        None => return Err(invalid(format!("the attachment `{}` has to have either `text` or `data`", it.name))),
    };
    let media_type = if it.media_type.is_empty() { "text/plain".to_owned() } else { it.media_type };
    Ok(Attachment { name: it.name, media_type, content })
}

/// Every step of a turn, numbered from 1, and how it ends.
fn steps(turn: StartedTurn) -> impl Stream<Item = Result<pb::TurnEvent, Problem>> + Send {
    let (heard, ending) = turn.split();
    let steps = futures::stream::unfold(heard, |mut heard| async { Some((Ok(heard.recv().await?), heard)) });
    let last = futures::stream::once(async move {
        let ended = ending.wait().await?.event();
        ended.ok_or_else(|| Problem::new(Code::Internal, "the turn ended with a call that nobody asked for"))
    });
    steps.chain(last).enumerate().map(|(at, event)| event_of(at as u64 + 1, event?))
}

fn response(ended: TurnEnd) -> Result<pb::AskResponse, Problem> {
    let outcome = match ended.event() {
        Some(TurnEvent::Answered(answer)) => pb::ask_response::Outcome::Answer(answer_of(*answer)?),
        Some(TurnEvent::Waiting { conversation, turn, approvals }) => {
            pb::ask_response::Outcome::Waiting(waiting(conversation, turn, approvals))
        }
        _ => return Err(Problem::new(Code::Internal, "the turn ended with a call that nobody asked for")),
    };
    Ok(pb::AskResponse { outcome: Some(outcome) })
}

fn answer_of(answer: MessageAnswer) -> Result<pb::Answer, Problem> {
    let attachment = |it: Attachment| {
        let content = match it.content {
            Content::Text(text) => pb::attachment::Content::Text(text),
            Content::Base64(text) => {
                let data = STANDARD.decode(text).map_err(|error| Problem::internal(&error))?;
                pb::attachment::Content::Data(data)
            }
        };
        Ok(pb::Attachment { name: it.name, media_type: it.media_type, content: Some(content) })
    };
    Ok(pb::Answer {
        conversation: answer.conversation,
        turn: answer.turn,
        agent: answer.agent.to_string(),
        route: Some(route(answer.route)),
        text: answer.text,
        cut: answer.cut,
        attachments: answer.attachments.into_iter().map(attachment).collect::<Result<_, Problem>>()?,
        attachments_omitted: answer.attachments_omitted,
        usage: Some(usage(answer.usage)),
        steps: answer.steps,
        duration_ms: answer.duration_ms,
        revision: answer.revision.0,
    })
}

fn waiting(conversation: String, turn: String, approvals: Vec<crate::api::messages::ApprovalInfo>) -> pb::Waiting {
    let approvals = approvals.into_iter().map(|it| pb::Approval {
        id: it.id,
        agent: it.agent.to_string(),
        tool: it.tool,
        arguments_json: it.arguments.to_string(),
    });
    pb::Waiting { conversation, turn, approvals: approvals.collect() }
}

fn route(route: Route) -> pb::Route {
    use pb::route::By;
    let (by, capability, score) = match route {
        Route::Address => (By::Address, String::new(), 0.0),
        Route::Conversation => (By::Conversation, String::new(), 0.0),
        Route::Capability { capability, score } => (By::Capability, capability, score),
    };
    pb::Route { by: by.into(), capability, score }
}

/// A step as it travels. A turn without an answer is the problem that it ended with.
fn event_of(number: u64, event: TurnEvent) -> Result<pb::TurnEvent, Problem> {
    use pb::turn_event::Event;
    let size = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let (agent, depth, event) = match event {
        TurnEvent::Routed { conversation, turn, agent, route: found } => {
            (Some(agent), 0, Event::Routed(pb::Routed { conversation, turn, route: Some(route(found)) }))
        }
        TurnEvent::ModelAsked { agent, depth } => (Some(agent), depth, Event::ModelAsked(pb::ModelAsked {})),
        TurnEvent::Text { agent, depth, text } => (Some(agent), depth, Event::Text(text)),
        TurnEvent::TextWithdrawn { agent, depth } => (Some(agent), depth, Event::TextWithdrawn(pb::TextWithdrawn {})),
        TurnEvent::ModelAnswered { agent, depth, provider, model, usage: used, calls, duration_ms } => {
            let usage = Some(usage(used));
            let answered = pb::ModelAnswered { provider, model, usage, calls: size(calls), duration_ms };
            (Some(agent), depth, Event::ModelAnswered(answered))
        }
        TurnEvent::ToolCalled { agent, depth, call, tool, arguments } => {
            (Some(agent), depth, Event::ToolCalled(pb::ToolCalled { call, tool, arguments }))
        }
        TurnEvent::ToolReturned { agent, depth, call, tool, failed, result, duration_ms } => {
            (Some(agent), depth, Event::ToolReturned(pb::ToolReturned { call, tool, failed, result, duration_ms }))
        }
        TurnEvent::Delegated { agent, depth, call, to, capability, score, request } => {
            let delegated = pb::Delegated { call, to: to.to_string(), capability, score, request };
            (Some(agent), depth, Event::Delegated(delegated))
        }
        TurnEvent::DelegateReturned { agent, depth, call, from, failed, duration_ms } => {
            let returned = pb::DelegateReturned { call, from: from.to_string(), failed, duration_ms };
            (Some(agent), depth, Event::DelegateReturned(returned))
        }
        TurnEvent::Attached { name, media_type, bytes } => {
            (None, 0, Event::Attached(pb::Attached { name, media_type, bytes: size(bytes) }))
        }
        TurnEvent::Waiting { conversation, turn, approvals } => {
            (None, 0, Event::Waiting(waiting(conversation, turn, approvals)))
        }
        TurnEvent::Answered(answer) => (Some(answer.agent.clone()), 0, Event::Answer(answer_of(*answer)?)),
        TurnEvent::Failed(problem) => return Err(Problem::new(Code::TurnFailed, problem.detail)),
    };
    let agent = agent.map(|name| name.to_string()).unwrap_or_default();
    Ok(pb::TurnEvent { number, agent, depth, event: Some(event) })
}

/// A message as it came. What it may have is checked where it is sent.
fn message_of(it: pb::Message) -> Result<acl::Message, Problem> {
    let performative = Performative::read(&it.performative).map_err(|error| invalid(error.to_string()))?.0;
    let addresses = |names: Vec<String>| -> Result<Vec<Address>, Problem> {
        let address = |name: String| name.parse().map_err(|error: acl::InvalidAddress| invalid(error.to_string()));
        names.into_iter().map(address).collect()
    };
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    let message = acl::Message {
        reply_to: addresses(it.reply_to)?,
        content: it.content.map(content_of).transpose()?,
        language: given(it.language),
        encoding: given(it.encoding),
        ontology: given(it.ontology),
        protocol: given(it.protocol),
        conversation_id: given(it.conversation_id),
        reply_with: given(it.reply_with),
        in_reply_to: given(it.in_reply_to),
        reply_by_ms: it.reply_by.as_ref().map(milliseconds),
        extensions: it.extensions.into_iter().collect(),
        ..acl::Message::new(performative, addresses(it.receivers)?)
    };
    message
        .check()
        .map_err(|error| invalid(error.to_string()).help("docs/messages.md says what a message may have"))?;
    Ok(message)
}

fn content_of(it: pb::Content) -> Result<acl::Content, Problem> {
    use pb::content::Body;
    let (usual, body) = match it.body {
        None => return Err(invalid("the content has neither `text`, `json`, `data` nor `artifact`")),
        Some(Body::Text(text)) => ("text/plain", acl::Body::Text(text)),
        Some(Body::Json(text)) => ("application/json", acl::Body::Json(text)),
        Some(Body::Data(data)) => ("application/octet-stream", acl::Body::Bytes(data)),
        Some(Body::Artifact(pb::Artifact { digest, bytes })) => {
            let digest =
                digest.parse().map_err(|_| invalid(format!("{digest:?} is no digest: 64 hexadecimal digits")))?;
            ("application/octet-stream", acl::Body::Artifact { digest, bytes })
        }
    };
    let media_type = if it.media_type.is_empty() { usual.to_owned() } else { it.media_type };
    Ok(acl::Content { media_type, body })
}

/// What a message says, as it travels.
pub fn content(it: acl::Content) -> pb::Content {
    use pb::content::Body;
    let body = match it.body {
        acl::Body::Text(text) => Body::Text(text),
        acl::Body::Json(text) => Body::Json(text),
        acl::Body::Bytes(data) => Body::Data(data),
        acl::Body::Artifact { digest, bytes } => Body::Artifact(pb::Artifact { digest: digest.to_string(), bytes }),
    };
    pb::Content { media_type: it.media_type, body: Some(body) }
}

/// A message as it travels.
pub fn message(it: acl::Message) -> pb::Message {
    let names = |all: &[Address]| all.iter().map(Address::to_string).collect();
    let content = it.content.map(content);
    pb::Message {
        performative: it.performative.name().to_owned(),
        sender: it.sender.as_ref().map(Address::to_string).unwrap_or_default(),
        receivers: names(&it.receivers),
        reply_to: names(&it.reply_to),
        content,
        language: it.language.unwrap_or_default(),
        encoding: it.encoding.unwrap_or_default(),
        ontology: it.ontology.unwrap_or_default(),
        protocol: it.protocol.unwrap_or_default(),
        conversation_id: it.conversation_id.unwrap_or_default(),
        reply_with: it.reply_with.unwrap_or_default(),
        in_reply_to: it.in_reply_to.unwrap_or_default(),
        reply_by: it.reply_by_ms.map(time),
        extensions: it.extensions.into_iter().collect(),
    }
}
