//! Chat Completions as OpenAI, Ollama, vLLM, llama.cpp, OpenRouter and others speak it, streamed.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::http::Answer;
use super::{
    ChatRequest, Deltas, Endpoint, Error, Finish, Message, Part, Provider, REPLY_BYTES_MAX, Reply, ToolCall, Usage,
    usage_guess,
};

/// One reply may ask for this many calls; a stream that names more is not taken seriously.
const CALLS_MAX: usize = 128;

/// A provider that speaks Chat Completions.
#[derive(Debug, Clone)]
pub struct OpenAi {
    endpoint: Endpoint,
}

impl OpenAi {
    /// A provider at `endpoint`.
    pub fn new(endpoint: Endpoint) -> OpenAi {
        OpenAi { endpoint }
    }

    async fn ask(&self, request: &ChatRequest, deltas: &Deltas) -> Result<Reply, Error> {
        let body = request_body(request, self.endpoint.base.contains("api.openai.com"));
        let answer = self.endpoint.post("/chat/completions", ("authorization", "Bearer "), &[], &body).await?;
        let mut draft = if answer.streams() {
            self.read_stream(answer, deltas).await?
        } else {
            let mut draft = Draft::default();
            let whole = answer.json().await?;
            self.take(&mut draft, &whole, "message", deltas).await?;
            draft
        };
        let calls = draft.calls();
        let finish = match draft.finish.take().as_deref() {
            _ if !calls.is_empty() => Finish::Calls,
            Some("length") => Finish::Length,
            Some("content_filter") => Finish::Refused,
            Some(_) => Finish::Stop,
            None => return Err(self.endpoint.nonsense("a reply without `choices[0].finish_reason`")),
        };
        let usage = draft.usage.unwrap_or_else(|| usage_guess(request, &draft.text, &calls));
        Ok(Reply { text: draft.text, calls, usage, finish, model: draft.model })
    }

    async fn read_stream(&self, mut answer: Answer<'_>, deltas: &Deltas) -> Result<Draft, Error> {
        let mut draft = Draft::default();
        while let Some(event) = answer.event().await? {
            if event.data == "[DONE]" {
                return Ok(draft);
            }
            let chunk: Value = serde_json::from_str(&event.data)
                .map_err(|error| self.endpoint.nonsense(format!("an event that is not JSON ({error})")))?;
            self.take(&mut draft, &chunk, "delta", deltas).await?;
        }
        // Some servers close without [DONE]; a reason to finish says as much.
        if draft.finish.is_some() { Ok(draft) } else { Err(answer.broken_off()) }
    }

    /// Takes a chunk (`part` is `delta`) or a whole completion (`part` is `message`): they differ in nothing else.
    async fn take(&self, draft: &mut Draft, chunk: &Value, part: &str, deltas: &Deltas) -> Result<(), Error> {
        if let Some(error) = chunk.get("error").filter(|error| !error.is_null()) {
            let message = error.get("message").and_then(Value::as_str).unwrap_or("no reason given").to_owned();
            let status = error.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
            let status = status.and_then(|code| StatusCode::from_u16(code).ok()).filter(|code| code.as_u16() >= 400);
            return Err(self.endpoint.error_of(status.unwrap_or(StatusCode::BAD_GATEWAY), message, None));
        }
        if let Some(model) = chunk.get("model").and_then(Value::as_str) {
            draft.model = model.to_owned();
        }
        if let Some(usage) = chunk.get("usage").filter(|usage| usage.is_object()) {
            let count = |name: &str| usage.get(name).and_then(Value::as_u64).unwrap_or(0);
            draft.usage = Some(Usage { input: count("prompt_tokens"), output: count("completion_tokens") });
        }
        let Some(choice) = chunk.pointer("/choices/0") else { return Ok(()) };
        let said = &choice[part];
        for field in ["content", "refusal"] {
            if let Some(text) = said.get(field).and_then(Value::as_str) {
                draft.text.push_str(text);
                deltas.text(text).await;
            }
        }
        for (place, call) in said.get("tool_calls").and_then(Value::as_array).into_iter().flatten().enumerate() {
            draft.call(call, place).map_err(|problem| self.endpoint.nonsense(problem))?;
        }
        if draft.bytes() > REPLY_BYTES_MAX {
            return Err(self.endpoint.too_large());
        }
        if let Some(finish) = choice.get("finish_reason").and_then(Value::as_str) {
            draft.finish = Some(finish.to_owned());
        }
        Ok(())
    }
}

impl Provider for OpenAi {
    fn chat<'a>(&'a self, request: &'a ChatRequest, deltas: &'a Deltas) -> BoxFuture<'a, Result<Reply, Error>> {
        Box::pin(self.ask(request, deltas))
    }
}

/// A reply as it grows.
#[derive(Debug, Default)]
struct Draft {
    text: String,
    calls: BTreeMap<u64, ToolCall>,
    calls_bytes: usize,
    finish: Option<String>,
    usage: Option<Usage>,
    model: String,
}

impl Draft {
    fn bytes(&self) -> usize {
        self.text.len() + self.calls_bytes
    }

    fn call(&mut self, piece: &Value, place: usize) -> Result<(), String> {
        let index = piece.get("index").and_then(Value::as_u64).unwrap_or(place as u64);
        if self.calls.len() >= CALLS_MAX && !self.calls.contains_key(&index) {
            return Err(format!("more than {CALLS_MAX} tool calls in one reply"));
        }
        let empty = || ToolCall { id: String::new(), tool: String::new(), arguments: String::new() };
        let call = self.calls.entry(index).or_insert_with(empty);
        let text = |at: &str| piece.pointer(at).and_then(Value::as_str).unwrap_or_default();
        if call.id.is_empty() {
            call.id = text("/id").to_owned();
        }
        call.tool.push_str(text("/function/name"));
        match piece.pointer("/function/arguments") {
            Some(Value::String(arguments)) => call.arguments.push_str(arguments),
            Some(arguments @ Value::Object(_)) => call.arguments = arguments.to_string(), // Seen from local servers.
            _ => {}
        }
        self.calls_bytes += text("/function/arguments").len() + text("/function/name").len();
        Ok(())
    }

    fn calls(&mut self) -> Vec<ToolCall> {
        let mut calls: Vec<ToolCall> = std::mem::take(&mut self.calls).into_values().collect();
        for (place, call) in calls.iter_mut().enumerate() {
            if call.id.is_empty() {
                call.id = format!("call_{place}");
            }
        }
        calls
    }
}

fn request_body(request: &ChatRequest, is_openai: bool) -> Value {
    let mut body = json!({
        "model": request.model,
        "messages": request.messages.iter().map(message_body).collect::<Vec<_>>(),
        "stream": true,
        "stream_options": { "include_usage": true },
    });
    if !request.tools.is_empty() {
        let function = |tool: &super::ToolDefinition| {
            json!({ "type": "function", "function": {
                "name": tool.name, "description": tool.description, "parameters": *tool.parameters,
            }})
        };
        body["tools"] = request.tools.iter().map(function).collect();
    }
    if let Some(temperature) = request.temperature {
        body["temperature"] = json!(temperature);
    }
    if let Some(tokens_max) = request.tokens_max {
        // OpenAI's newer models refuse the old name, and other servers do not know the new one.
        body[if is_openai { "max_completion_tokens" } else { "max_tokens" }] = json!(tokens_max);
    }
    body
}

fn message_body(message: &Message) -> Value {
    match message {
        Message::System { text } => json!({ "role": "system", "content": text }),
        Message::User { parts } => match parts.as_slice() {
            [Part::Text { text }] => json!({ "role": "user", "content": text }),
            parts => json!({ "role": "user", "content": parts.iter().map(part_body).collect::<Vec<_>>() }),
        },
        Message::Assistant { text, calls } if calls.is_empty() => json!({ "role": "assistant", "content": text }),
        Message::Assistant { text, calls } => {
            let call = |call: &ToolCall| {
                json!({ "id": call.id, "type": "function",
                    "function": { "name": call.tool, "arguments": call.arguments } })
            };
            let content = if text.is_empty() { Value::Null } else { json!(text) };
            json!({ "role": "assistant", "content": content, "tool_calls": calls.iter().map(call).collect::<Vec<_>>() })
        }
        Message::Tool { call, text, .. } => json!({ "role": "tool", "tool_call_id": call, "content": text }),
    }
}

fn part_body(part: &Part) -> Value {
    match part {
        Part::Text { text } => json!({ "type": "text", "text": text }),
        Part::Image { url } => json!({ "type": "image_url", "image_url": { "url": url } }),
    }
}
