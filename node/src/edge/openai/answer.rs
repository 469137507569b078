//! An answer as Chat Completions has it: whole, as a stream of chunks, and as an error.

use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::app::turns::StartedTurn;
use crate::edge::problem::Problem;
use crate::edge::senders::{Pieces, approval_needed};
use crate::edge::sse::{ReaderLeft, Writer};
use crate::invoke::TurnEnd;
use crate::llm::{ToolCall, Usage};

/// An error as this protocol's clients read it.
pub fn error(problem: &Problem, request_id: &str) -> Response {
    (problem.code().status(), axum::Json(error_body(problem, Some(request_id)))).into_response()
}

fn error_body(problem: &Problem, request_id: Option<&str>) -> Value {
    let body = problem.body(request_id);
    let message = body.help.map_or(body.detail.clone(), |help| format!("{}; {help}", body.detail));
    let kind = match body.status {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    };
    let param = problem.fact("param").cloned().unwrap_or_default();
    json!({ "error": { "message": message, "type": kind, "param": param, "code": body.code } })
}

/// What every chunk of an answer begins with.
pub(super) struct Head {
    pub id: String,
    pub created: u64,
    pub model: String,
}

impl Head {
    fn with(&self, object: &str, fields: Value) -> Value {
        let mut whole = json!({ "id": self.id, "object": object, "created": self.created, "model": self.model });
        if let (Value::Object(whole), Value::Object(fields)) = (&mut whole, fields) {
            whole.extend(fields);
        }
        whole
    }

    /// The whole answer.
    pub fn whole(&self, ended: TurnEnd) -> Result<Value, Problem> {
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
    pub async fn stream(&self, turn: StartedTurn, writer: Writer, with_usage: bool) -> Result<(), ReaderLeft> {
        let mut pieces = Pieces::of(turn);
        let chunks = Chunks(writer);
        chunks.send(self.chunk(json!({ "role": "assistant", "content": "" }), None)).await?;
        while let Some(piece) = pieces.next().await {
            chunks.send(self.chunk(json!({ "content": piece }), None)).await?;
        }
        let ended = pieces.end(text_of).await.and_then(|(ended, rest)| Ok((Last::of(ended)?, rest)));
        match ended {
            Err(problem) => chunks.send(error_body(&problem, None).to_string()).await?,
            Ok((last, rest)) => {
                if !rest.is_empty() {
                    chunks.send(self.chunk(json!({ "content": rest }), None)).await?;
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
    fn of(ended: TurnEnd) -> Result<Last, Problem> {
        match ended {
            TurnEnd::Answered(answer) => {
                let more = json!({
                    "agent": answer.agent, "route": answer.route, "conversation": answer.conversation,
                    "turn": answer.turn, "attachments": answer.attachments,
                });
                let finish = if answer.cut { "length" } else { "stop" };
                Ok(Last { text: answer.text, calls: Vec::new(), finish, usage: answer.usage, more })
            }
            TurnEnd::SenderCalls(wanted) => {
                let more = json!({ "agent": wanted.agent });
                Ok(Last { text: wanted.text, calls: wanted.calls, finish: "tool_calls", usage: wanted.usage, more })
            }
            waiting @ TurnEnd::Waiting { .. } => Err(approval_needed(waiting)),
        }
    }
}

fn text_of(ended: &TurnEnd) -> &str {
    match ended {
        TurnEnd::Answered(answer) => &answer.text,
        TurnEnd::SenderCalls(wanted) => &wanted.text,
        TurnEnd::Waiting { .. } => "",
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
