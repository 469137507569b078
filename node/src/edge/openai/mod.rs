//! OpenAI's Chat Completions over agents: an agent is a model named `WORKSPACE/AGENT`, and `WORKSPACE/auto` finds the
//! agent by what it can do. Plain `auto` is the workspace that the token is for, when that is only one.
//!
//! The sender keeps the conversation, as this protocol wants it. Tools in the request are the sender's own: a call of
//! one of them ends the answer with `tool_calls`, and the results come back in the next request.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use caxton_proto::{AgentName, WorkspaceId};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::OpenApi;

use crate::api::messages::{MessageRequest, TurnEvent};
use crate::api::paths;
use crate::app::turns::{Listener, StartedTurn};
use crate::authz::{Converse, Permit, Unscoped};
use crate::edge::Services;
use crate::edge::extract::{Json, Path};
use crate::edge::hop::LedBy;
use crate::edge::problem::{Code, Problem};
use crate::edge::routes::{BodyLimit, Owner, Routes, get, post};
use crate::edge::sse::{self, ReaderLeft, Writer};
use crate::invoke::{ClientTurn, Ended};
use crate::llm::{Message, Part, ToolCall, ToolDefinition, Usage};

/// The model that stands for "whoever can do it".
const AUTO: &str = "auto";
/// Tools that a request may bring.
const TOOLS_MAX: usize = 128;

/// This part of the API's description; OpenAI's own says what the bodies are.
#[derive(OpenApi)]
#[openapi(paths(complete, models, model))]
pub struct Doc;

/// This part's routes.
pub fn routes() -> Routes {
    Routes::new()
        .on(post(paths::CHAT_COMPLETIONS).body(BodyLimit::Message), Owner::Named, complete)
        .on(get(paths::MODELS), Owner::Anyone, models)
        .on(get(paths::MODEL), Owner::Anyone, model)
}

/// What is read of a request; sampling is the agent's business, so the rest is left alone.
#[derive(Debug, Deserialize)]
struct Completion {
    model: String,
    messages: Vec<Said>,
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    #[serde(default)]
    tools: Vec<Tool>,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Debug, Deserialize)]
struct Tool {
    function: Function,
}

#[derive(Debug, Deserialize)]
struct Function {
    name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    parameters: Value,
}

#[derive(Debug, Deserialize)]
struct Said {
    role: String,
    #[serde(default)]
    content: Value,
    #[serde(default)]
    tool_calls: Vec<Called>,
    #[serde(default)]
    tool_call_id: String,
}

#[derive(Debug, Deserialize)]
struct Called {
    id: String,
    function: CalledFunction,
}

#[derive(Debug, Deserialize)]
struct CalledFunction {
    name: String,
    #[serde(default)]
    arguments: String,
}

/// An error as this protocol's clients read it.
struct Refusal(Box<Problem>);

impl<P: Into<Problem>> From<P> for Refusal {
    fn from(problem: P) -> Refusal {
        Refusal(Box::new(problem.into()))
    }
}

impl Refusal {
    fn body(&self) -> Value {
        let problem = self.0.body(None);
        let message = problem.help.map_or(problem.detail.clone(), |help| format!("{}; {help}", problem.detail));
        let kind = match problem.status {
            401 => "authentication_error",
            403 => "permission_error",
            429 => "rate_limit_error",
            400..=499 => "invalid_request_error",
            _ => "server_error",
        };
        json!({ "error": { "message": message, "type": kind, "param": null, "code": problem.code } })
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.0.code().status();
        let mut response = (status, axum::Json(self.body())).into_response();
        if let Some(leader) = self.0.leader() {
            response.extensions_mut().insert(LedBy(leader));
        }
        response
    }
}

/// Chat Completions: `model`, `messages`, `stream`, `stream_options` and `tools` are read.
#[utoipa::path(post, path = paths::CHAT_COMPLETIONS.text(), tag = "openai", request_body = Value,
    responses((status = 200, description = "A `chat.completion`; with `stream`, `chat.completion.chunk`s as `text/event-stream`.", body = Value)))]
async fn complete(
    unscoped: Result<Unscoped<Converse>, Problem>,
    State(services): State<Services>,
    completion: Result<Json<Completion>, Problem>,
) -> Result<Response, Refusal> {
    // Unpacked here, so that a refusal is one that this protocol's clients can read.
    let (unscoped, Json(completion)) = (unscoped?, completion?);
    let (permit, agent) = model_of(&unscoped, &services, &completion.model)?;
    let with_usage = completion.stream_options.as_ref().is_some_and(|options| options.include_usage);
    let head = Head {
        id: format!("chatcmpl-{}", uuid::Uuid::now_v7().simple()),
        created: crate::authn::now_ms() / 1_000,
        model: completion.model.clone(),
    };
    let listener = if completion.stream { Listener::Present } else { Listener::Absent };
    let (request, client) = request_of(completion, agent)?;
    let turn = services.app.turns.start(&permit, request, client, listener).await?;
    match listener {
        Listener::Absent => Ok(axum::Json(head.whole(turn.ending().await?)?).into_response()),
        Listener::Present => Ok(sse::response(services.config.event_heartbeat, move |writer| async move {
            head.stream(turn, writer, with_usage).await
        })),
    }
}

/// Which workspace and agent a model's name stands for; no agent for `auto`.
fn model_of(
    unscoped: &Unscoped<Converse>,
    services: &Services,
    model: &str,
) -> Result<(Permit<Converse>, Option<AgentName>), Problem> {
    let unknown = |detail: String| {
        Problem::new(Code::NotFound, detail).help("GET /v1/models lists the models; they are named WORKSPACE/AGENT")
    };
    if model == AUTO {
        let served = services.app.turns.served(unscoped);
        let mut own = served.iter().map(|catalog| &catalog.workspace);
        return match (own.next(), own.next()) {
            (Some(only), None) => Ok((unscoped.permit(only)?, None)),
            (None, _) => Err(unknown("nothing is deployed that this token is for".to_owned())),
            (Some(_), Some(_)) => {
                Err(unknown("the token is for several workspaces: name one, as in WORKSPACE/auto".to_owned()))
            }
        };
    }
    let Some((workspace, agent)) = model.split_once('/') else {
        return Err(unknown(format!("`{model}` names no model here")));
    };
    let workspace: WorkspaceId = workspace.parse().map_err(|_| unknown(format!("`{workspace}` names no workspace")))?;
    let permit = unscoped.permit(&workspace)?;
    match agent {
        AUTO => Ok((permit, None)),
        name => {
            let name: AgentName = name.parse().map_err(|_| unknown(format!("`{name}` names no agent")))?;
            Ok((permit, Some(name)))
        }
    }
}

/// The newest thing that a person said is the request; what came before it, and the results of calls after it, go
/// along.
fn request_of(completion: Completion, agent: Option<AgentName>) -> Result<(MessageRequest, ClientTurn), Problem> {
    let invalid = |detail: String| Problem::new(Code::InvalidRequest, detail);
    if completion.tools.len() > TOOLS_MAX {
        return Err(invalid(format!("{} tools, and {TOOLS_MAX} are the most", completion.tools.len())));
    }
    let mut messages = Vec::with_capacity(completion.messages.len());
    for said in completion.messages {
        let message = message_of(said, &messages).map_err(invalid)?;
        messages.push(message);
    }
    let asked = messages.iter().rposition(|message| matches!(message, Message::User { .. }));
    let asked = asked.ok_or_else(|| invalid("no message has the role `user`".to_owned()))?;
    let after = messages.split_off(asked + 1);
    let Some(Message::User { parts }) = messages.pop() else { return Err(invalid("no message to answer".to_owned())) };
    let mut request = MessageRequest { agent, ..MessageRequest::default() };
    for part in parts {
        match part {
            Part::Text { text } if request.text.is_empty() => request.text = text,
            Part::Text { text } => request.text = format!("{}\n{text}", request.text),
            Part::Image { url } => request.images.push(url),
        }
    }
    let tools = completion.tools.into_iter().map(|Tool { function }| {
        let parameters =
            if function.parameters.is_object() { function.parameters } else { json!({ "type": "object" }) };
        ToolDefinition { name: function.name, description: function.description, parameters: Arc::new(parameters) }
    });
    Ok((request, ClientTurn { keeps_history: true, history: messages, after, tools: tools.collect() }))
}

fn message_of(said: Said, before: &[Message]) -> Result<Message, String> {
    let text = || match &said.content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts: Vec<&str> = parts.iter().filter_map(|part| part["text"].as_str()).collect();
            texts.join("\n")
        }
        _ => String::new(),
    };
    match said.role.as_str() {
        "system" | "developer" => Ok(Message::system(text())),
        "user" => match &said.content {
            Value::Array(parts) => Ok(Message::User { parts: parts.iter().map(part_of).collect::<Result<_, _>>()? }),
            _ => Ok(Message::user(text())),
        },
        "assistant" => {
            let calls = said.tool_calls.iter().map(|called| ToolCall {
                id: called.id.clone(),
                tool: called.function.name.clone(),
                arguments: called.function.arguments.clone(),
            });
            Ok(Message::Assistant { text: text(), calls: calls.collect(), echo: None })
        }
        "tool" => {
            let called = before.iter().rev().find_map(|message| match message {
                Message::Assistant { calls, .. } => calls.iter().find(|call| call.id == said.tool_call_id),
                _ => None,
            });
            let tool = called.map(|call| call.tool.clone());
            let tool = tool.ok_or_else(|| format!("no call before has the id `{}`", said.tool_call_id))?;
            Ok(Message::Tool { text: text(), call: said.tool_call_id, tool, failed: false })
        }
        other => Err(format!("`{other}` is not a role")),
    }
}

fn part_of(part: &Value) -> Result<Part, String> {
    if let Some(text) = part["text"].as_str() {
        return Ok(Part::Text { text: text.to_owned() });
    }
    match part.pointer("/image_url/url").and_then(Value::as_str) {
        Some(url) => Ok(Part::Image { url: url.to_owned() }),
        None => Err(format!("a part of type {} is not taken: only text and image_url are", part["type"])),
    }
}

/// What every chunk of an answer begins with.
struct Head {
    id: String,
    created: u64,
    model: String,
}

impl Head {
    fn with(&self, object: &str, fields: Value) -> Value {
        let mut whole = json!({ "id": self.id, "object": object, "created": self.created, "model": self.model });
        if let (Value::Object(whole), Value::Object(fields)) = (&mut whole, fields) {
            whole.extend(fields);
        }
        whole
    }

    fn whole(&self, ended: Ended) -> Result<Value, Refusal> {
        let last = Last::of(ended)?;
        let mut message = json!({ "role": "assistant", "content": last.text, "refusal": null });
        if !last.calls.is_empty() {
            message["tool_calls"] = calls_body(&last.calls, false);
        }
        let choice = json!({ "index": 0, "message": message, "logprobs": null, "finish_reason": last.finish });
        let fields = json!({ "choices": [choice], "usage": usage_body(last.usage), "caxton": last.more });
        Ok(self.with("chat.completion", fields))
    }

    fn chunk(&self, delta: Value, finish: Option<&str>) -> String {
        let choice = json!({ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish });
        self.with("chat.completion.chunk", json!({ "choices": [choice] })).to_string()
    }

    /// Sends what the first agent says as it says it, and the rest when the turn is over.
    async fn stream(&self, turn: StartedTurn, writer: Writer, with_usage: bool) -> Result<(), ReaderLeft> {
        let (mut heard, ending) = turn.split();
        let chunks = Chunks(writer);
        chunks.send(self.chunk(json!({ "role": "assistant", "content": "" }), None)).await?;
        let mut told = String::new();
        let mut withdrawn = false;
        while let Some(event) = heard.recv().await {
            let piece = match event {
                TurnEvent::Text { depth: 0, text, .. } => text,
                // What is said before a call is not the answer; a blank line tells them apart.
                TurnEvent::ModelAnswered { depth: 0, calls: 1.., .. } if !told.is_empty() => "\n\n".to_owned(),
                TurnEvent::TextWithdrawn { depth: 0, .. } if !told.is_empty() => {
                    withdrawn = true;
                    break;
                }
                _ => continue,
            };
            told.push_str(&piece);
            chunks.send(self.chunk(json!({ "content": piece }), None)).await?;
        }
        drop(heard);
        let ended = match ending.wait().await {
            Err(error) => Err(Refusal::from(error)),
            Ok(_) if withdrawn => Err(Refusal::from(
                Problem::new(Code::Unavailable, "the model's answer broke off and was begun anew")
                    .help("ask again; without `stream` only whole answers are sent"),
            )),
            Ok(ended) => Last::of(ended),
        };
        match ended {
            Err(refusal) => chunks.send(refusal.body().to_string()).await?,
            Ok(last) => {
                if !told.ends_with(&last.text) {
                    chunks.send(self.chunk(json!({ "content": last.text }), None)).await?;
                }
                if !last.calls.is_empty() {
                    chunks.send(self.chunk(json!({ "tool_calls": calls_body(&last.calls, true) }), None)).await?;
                }
                chunks.send(self.chunk(json!({}), Some(last.finish))).await?;
                if with_usage {
                    let fields = json!({ "choices": [], "usage": usage_body(last.usage), "caxton": last.more });
                    chunks.send(self.with("chat.completion.chunk", fields).to_string()).await?;
                }
            }
        }
        chunks.send("[DONE]".to_owned()).await
    }
}

/// Writes chunks, each as the data of an event.
struct Chunks(Writer);

impl Chunks {
    async fn send(&self, chunk: String) -> Result<(), ReaderLeft> {
        self.0.send(Event::default().data(chunk)).await
    }
}

/// The end of an answer.
struct Last {
    text: String,
    calls: Vec<ToolCall>,
    finish: &'static str,
    usage: Usage,
    /// What this protocol has no field for.
    more: Value,
}

impl Last {
    fn of(ended: Ended) -> Result<Last, Refusal> {
        match ended {
            Ended::Answered(answer) => {
                let more = json!({
                    "agent": answer.agent, "route": answer.route, "conversation": answer.conversation,
                    "turn": answer.turn, "attachments": answer.attachments,
                });
                let finish = if answer.cut { "length" } else { "stop" };
                Ok(Last { text: answer.text, calls: Vec::new(), finish, usage: answer.usage, more })
            }
            Ended::SenderCalls(asked) => {
                let more = json!({ "agent": asked.agent });
                Ok(Last { text: asked.text, calls: asked.calls, finish: "tool_calls", usage: asked.usage, more })
            }
            Ended::Waiting { approvals, .. } => {
                let ids: Vec<String> = approvals.into_iter().map(|approval| approval.id).collect();
                let problem = Problem::new(Code::ApprovalNeeded, "a person has to approve a call first");
                Err(problem.with("approvals", &ids).help(format!("caxton approvals approve {}", ids.join(" "))).into())
            }
        }
    }
}

fn calls_body(calls: &[ToolCall], numbered: bool) -> Value {
    let call = |(index, call): (usize, &ToolCall)| {
        let mut body = json!({ "id": call.id, "type": "function",
            "function": { "name": call.tool, "arguments": call.arguments } });
        if numbered {
            body["index"] = json!(index);
        }
        body
    };
    calls.iter().enumerate().map(call).collect()
}

fn usage_body(usage: Usage) -> Value {
    json!({ "prompt_tokens": usage.input, "completion_tokens": usage.output, "total_tokens": usage.total() })
}

/// The agents that the token may ask, as models.
#[utoipa::path(get, path = paths::MODELS.text(), tag = "openai",
    responses((status = 200, description = "A `list` of models.", body = Value)))]
async fn models(
    unscoped: Result<Unscoped<Converse>, Problem>,
    State(services): State<Services>,
) -> Result<Response, Refusal> {
    let mut data = vec![model_body(AUTO)];
    for catalog in services.app.turns.served(&unscoped?) {
        data.push(model_body(&format!("{}/{AUTO}", catalog.workspace)));
        data.extend(catalog.agents().keys().map(|agent| model_body(&format!("{}/{agent}", catalog.workspace))));
    }
    Ok(axum::Json(json!({ "object": "list", "data": data })).into_response())
}

/// One agent as a model.
#[utoipa::path(get, path = "/v1/models/{id}", tag = "openai", params(("id" = String, Path, description = "`WORKSPACE/AGENT`.")),
    responses((status = 200, description = "The model.", body = Value)))]
async fn model(
    unscoped: Result<Unscoped<Converse>, Problem>,
    State(services): State<Services>,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let unscoped = unscoped?;
    let (permit, agent) = model_of(&unscoped, &services, &id)?;
    let served = services.app.turns.served(&unscoped);
    let catalog = served.iter().find(|catalog| catalog.workspace == *permit.workspace());
    let there = catalog.is_some_and(|catalog| agent.is_none_or(|agent| catalog.agents().contains_key(&agent)));
    if !there {
        let problem = Problem::new(Code::NotFound, format!("`{id}` names no model here"));
        return Err(problem.help("GET /v1/models lists the models").into());
    }
    Ok((StatusCode::OK, axum::Json(model_body(&id))).into_response())
}

fn model_body(id: &str) -> Value {
    json!({ "id": id, "object": "model", "created": 0, "owned_by": "caxton" })
}
