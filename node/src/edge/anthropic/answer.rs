//! An answer as the Messages API has it: whole, as a stream of events, and as an error.

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
    let mut message = body.help.map_or(body.detail.clone(), |help| format!("{}; {help}", body.detail));
    if let Some(param) = problem.fact("param").and_then(Value::as_str) {
        message = format!("{param}: {message}");
    }
    let kind = match body.status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        503 => "overloaded_error",
        504 => "timeout_error",
        _ => "api_error",
    };
    json!({ "type": "error", "error": { "type": kind, "message": message, "code": body.code }, "request_id": request_id })
}

/// What an answer begins with.
pub(super) struct Head {
    pub id: String,
    pub model: String,
}

impl Head {
    fn message(&self, content: Value, stop_reason: Option<&str>, usage: Usage) -> Value {
        json!({
            "id": self.id, "type": "message", "role": "assistant", "model": self.model, "content": content,
            "stop_reason": stop_reason, "stop_sequence": null, "usage": usage_body(usage),
        })
    }

    /// The whole answer.
    pub fn whole(&self, ended: TurnEnd) -> Result<Value, Problem> {
        let last = Last::of(ended)?;
        let text = Some(last.text).filter(|text| !text.is_empty()).map(|text| json!({ "type": "text", "text": text }));
        let content: Vec<Value> = text.into_iter().chain(last.calls.iter().map(call_block)).collect();
        let mut message = self.message(content.into(), Some(last.stop_reason), last.usage);
        message["caxton"] = last.more;
        Ok(message)
    }

    /// Sends what the first agent says as it says it, and the rest when the turn is over.
    pub async fn stream(&self, turn: StartedTurn, writer: Writer) -> Result<(), ReaderLeft> {
        let mut pieces = Pieces::of(turn);
        let events = Events(writer);
        let message = self.message(json!([]), None, Usage::default());
        events.send("message_start", json!({ "message": message })).await?;
        let mut has_text = false;
        while let Some(piece) = pieces.next().await {
            events.text(&piece, &mut has_text).await?;
        }
        let (ended, rest) = match pieces.end(text_of).await {
            Ok(ended) => ended,
            Err(problem) => return events.error(&problem).await,
        };
        let last = match Last::of(ended) {
            Ok(last) => last,
            Err(problem) => return events.error(&problem).await,
        };
        if !rest.is_empty() {
            events.text(&rest, &mut has_text).await?;
        }
        if has_text {
            events.send("content_block_stop", json!({ "index": 0 })).await?;
        }
        for (place, call) in last.calls.iter().enumerate() {
            let index = place + usize::from(has_text);
            let mut block = call_block(call);
            block["input"] = json!({});
            events.send("content_block_start", json!({ "index": index, "content_block": block })).await?;
            let delta = json!({ "type": "input_json_delta", "partial_json": call.arguments });
            events.send("content_block_delta", json!({ "index": index, "delta": delta })).await?;
            events.send("content_block_stop", json!({ "index": index })).await?;
        }
        let delta = json!({ "stop_reason": last.stop_reason, "stop_sequence": null });
        let end = json!({ "delta": delta, "usage": usage_body(last.usage), "caxton": last.more });
        events.send("message_delta", end).await?;
        events.send("message_stop", json!({})).await
    }
}

/// Writes events, each with its type as its name.
struct Events(Writer);

impl Events {
    async fn send(&self, kind: &str, mut data: Value) -> Result<(), ReaderLeft> {
        data["type"] = json!(kind);
        self.0.send(Event::default().event(kind).data(data.to_string())).await
    }

    async fn text(&self, piece: &str, has_text: &mut bool) -> Result<(), ReaderLeft> {
        if !std::mem::replace(has_text, true) {
            let block = json!({ "type": "text", "text": "" });
            self.send("content_block_start", json!({ "index": 0, "content_block": block })).await?;
        }
        let delta = json!({ "type": "text_delta", "text": piece });
        self.send("content_block_delta", json!({ "index": 0, "delta": delta })).await
    }

    async fn error(&self, problem: &Problem) -> Result<(), ReaderLeft> {
        self.send("error", error_body(problem, None)).await
    }
}

/// The end of an answer.
struct Last {
    text: String,
    calls: Vec<ToolCall>,
    stop_reason: &'static str,
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
                let stop_reason = if answer.cut { "max_tokens" } else { "end_turn" };
                Ok(Last { text: answer.text, calls: Vec::new(), stop_reason, usage: answer.usage, more })
            }
            TurnEnd::SenderCalls(wanted) => {
                let more = json!({ "agent": wanted.agent });
                let (text, calls) = (wanted.text, wanted.calls);
                Ok(Last { text, calls, stop_reason: "tool_use", usage: wanted.usage, more })
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

fn call_block(call: &ToolCall) -> Value {
    // What the model wrote may not be JSON; the protocol takes objects only.
    let input: Value = serde_json::from_str(&call.arguments).ok().filter(Value::is_object).unwrap_or(json!({}));
    json!({ "type": "tool_use", "id": call.id, "name": call.tool, "input": input })
}

fn usage_body(usage: Usage) -> Value {
    json!({ "input_tokens": usage.input, "output_tokens": usage.output })
}
