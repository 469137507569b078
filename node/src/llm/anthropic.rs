//! Anthropic's Messages API, streamed.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::http::Answer;
use super::{
    ChatRequest, Deltas, Endpoint, Error, Finish, Message, Part, Provider, REPLY_BYTES_MAX, Reply, ToolCall, Usage,
    usage_guess,
};

/// The API's version that this speaks.
const VERSION: &str = "2023-06-01";
/// The API demands a limit; this one holds when the agent names none.
const TOKENS_MAX_DEFAULT: u32 = 4_096;
/// One reply may have this many blocks.
const BLOCKS_MAX: usize = 256;

/// A provider that speaks the Messages API.
#[derive(Debug, Clone)]
pub struct Anthropic {
    endpoint: Endpoint,
}

impl Anthropic {
    /// A provider at `endpoint`.
    pub fn new(endpoint: Endpoint) -> Anthropic {
        Anthropic { endpoint }
    }

    async fn ask(&self, request: &ChatRequest, deltas: &Deltas) -> Result<Reply, Error> {
        let version = [("anthropic-version", VERSION)];
        let answer = self.endpoint.post("/messages", ("x-api-key", ""), &version, &request_body(request)).await?;
        let draft = self.read_stream(answer, deltas).await?;
        let mut text = String::new();
        let mut calls = Vec::new();
        for block in draft.blocks.into_values() {
            match block {
                Block::Text(said) => text.push_str(&said),
                Block::Call(call) => calls.push(call),
                Block::Other => {}
            }
        }
        let finish = match draft.stop.as_deref() {
            _ if !calls.is_empty() => Finish::Calls,
            Some("max_tokens" | "model_context_window_exceeded") => Finish::Length,
            Some("refusal") => Finish::Refused,
            Some(_) => Finish::Stop,
            None => return Err(self.endpoint.nonsense("a message without `stop_reason`")),
        };
        let guessed = usage_guess(request, &text, &calls);
        let usage = if draft.usage == Usage::default() { guessed } else { draft.usage };
        Ok(Reply { text, calls, usage, finish, model: draft.model })
    }

    async fn read_stream(&self, mut answer: Answer<'_>, deltas: &Deltas) -> Result<Draft, Error> {
        let mut draft = Draft::default();
        while let Some(event) = answer.event().await? {
            let data: Value = serde_json::from_str(&event.data)
                .map_err(|error| self.endpoint.nonsense(format!("an event that is not JSON ({error})")))?;
            let kind = data.get("type").and_then(Value::as_str).unwrap_or(&event.name).to_owned();
            match kind.as_str() {
                "message_start" => draft.start(&data["message"]),
                "content_block_start" => draft.block(&data).map_err(|problem| self.endpoint.nonsense(problem))?,
                "content_block_delta" => self.delta(&mut draft, &data, deltas).await?,
                "message_delta" => draft.finish(&data),
                "message_stop" => return Ok(draft),
                "error" => return Err(self.error_event(&data)),
                _ => {} // `ping`, `content_block_stop`, and whatever is added later.
            }
        }
        Err(answer.broken_off())
    }

    async fn delta(&self, draft: &mut Draft, data: &Value, deltas: &Deltas) -> Result<(), Error> {
        let index = data.get("index").and_then(Value::as_u64).unwrap_or(0);
        let piece = |name: &str| data["delta"].get(name).and_then(Value::as_str).unwrap_or_default();
        match draft.blocks.get_mut(&index) {
            Some(Block::Text(text)) => {
                text.push_str(piece("text"));
                deltas.text(piece("text")).await;
            }
            Some(Block::Call(call)) => call.arguments.push_str(piece("partial_json")),
            Some(Block::Other) => {}
            None => return Err(self.endpoint.nonsense(format!("a piece of block {index}, which was never begun"))),
        }
        draft.bytes += piece("text").len() + piece("partial_json").len();
        if draft.bytes > REPLY_BYTES_MAX { Err(self.endpoint.too_large()) } else { Ok(()) }
    }

    fn error_event(&self, data: &Value) -> Error {
        let text = |at: &str| data.pointer(at).and_then(Value::as_str).unwrap_or_default();
        let status = match text("/error/type") {
            "overloaded_error" => 529,
            "rate_limit_error" => 429,
            "authentication_error" => 401,
            "permission_error" => 403,
            "invalid_request_error" | "not_found_error" | "request_too_large" => 400,
            _ => 502,
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        self.endpoint.error_of(status, text("/error/message").to_owned(), None)
    }
}

impl Provider for Anthropic {
    fn chat<'a>(&'a self, request: &'a ChatRequest, deltas: &'a Deltas) -> BoxFuture<'a, Result<Reply, Error>> {
        Box::pin(self.ask(request, deltas))
    }
}

#[derive(Debug)]
enum Block {
    Text(String),
    Call(ToolCall),
    Other,
}

#[derive(Debug, Default)]
struct Draft {
    blocks: BTreeMap<u64, Block>,
    bytes: usize,
    usage: Usage,
    stop: Option<String>,
    model: String,
}

impl Draft {
    fn start(&mut self, message: &Value) {
        self.model = message.get("model").and_then(Value::as_str).unwrap_or_default().to_owned();
        let count = |name: &str| message["usage"].get(name).and_then(Value::as_u64).unwrap_or(0);
        let cached = count("cache_read_input_tokens").saturating_add(count("cache_creation_input_tokens"));
        self.usage = Usage { input: count("input_tokens").saturating_add(cached), output: count("output_tokens") };
    }

    fn block(&mut self, data: &Value) -> Result<(), String> {
        if self.blocks.len() >= BLOCKS_MAX {
            return Err(format!("more than {BLOCKS_MAX} blocks in one message"));
        }
        let index = data.get("index").and_then(Value::as_u64).unwrap_or(self.blocks.len() as u64);
        let text = |at: &str| data.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
        let block = match text("/content_block/type").as_str() {
            "text" => Block::Text(text("/content_block/text")),
            "tool_use" => Block::Call(ToolCall {
                id: text("/content_block/id"),
                tool: text("/content_block/name"),
                arguments: String::new(),
            }),
            _ => Block::Other,
        };
        self.blocks.insert(index, block);
        Ok(())
    }

    fn finish(&mut self, data: &Value) {
        if let Some(stop) = data.pointer("/delta/stop_reason").and_then(Value::as_str) {
            self.stop = Some(stop.to_owned());
        }
        if let Some(output) = data.pointer("/usage/output_tokens").and_then(Value::as_u64) {
            self.usage.output = output;
        }
    }
}

fn request_body(request: &ChatRequest) -> Value {
    let system: Vec<&str> = request
        .messages
        .iter()
        .filter_map(|message| match message {
            Message::System { text } => Some(text.as_str()),
            _ => None,
        })
        .collect();
    let mut body = json!({
        "model": request.model,
        "max_tokens": request.tokens_max.unwrap_or(TOKENS_MAX_DEFAULT),
        "messages": messages_body(&request.messages),
        "stream": true,
    });
    if !system.is_empty() {
        body["system"] = json!(system.join("\n\n"));
    }
    if !request.tools.is_empty() {
        let tool = |tool: &super::ToolDefinition| json!({ "name": tool.name, "description": tool.description, "input_schema": *tool.parameters });
        body["tools"] = request.tools.iter().map(tool).collect();
    }
    if let Some(temperature) = request.temperature {
        body["temperature"] = json!(temperature);
    }
    body
}

/// The API wants user and assistant to alternate, and all results of one reply's calls in one user message.
fn messages_body(messages: &[Message]) -> Vec<Value> {
    let mut turns: Vec<(&str, Vec<Value>)> = Vec::new();
    for message in messages {
        let (role, blocks) = match message {
            Message::System { .. } => continue,
            Message::User { parts } => ("user", parts.iter().map(part_body).collect()),
            Message::Assistant { text, calls } => ("assistant", assistant_blocks(text, calls)),
            Message::Tool { call, text, failed, .. } => {
                let result = json!({ "type": "tool_result", "tool_use_id": call, "content": text, "is_error": failed });
                ("user", vec![result])
            }
        };
        match turns.last_mut() {
            Some((last, held)) if *last == role => held.extend(blocks),
            _ => turns.push((role, blocks)),
        }
    }
    turns.retain(|(_, blocks)| !blocks.is_empty());
    turns.into_iter().map(|(role, content)| json!({ "role": role, "content": content })).collect()
}

fn assistant_blocks(text: &str, calls: &[ToolCall]) -> Vec<Value> {
    let said = (!text.trim().is_empty()).then(|| json!({ "type": "text", "text": text }));
    let asked = calls.iter().map(|call| {
        // What the model wrote may not be JSON; the API takes objects only, and the result says what was wrong.
        let input: Value = serde_json::from_str(&call.arguments).ok().filter(Value::is_object).unwrap_or(json!({}));
        json!({ "type": "tool_use", "id": call.id, "name": call.tool, "input": input })
    });
    said.into_iter().chain(asked).collect()
}

fn part_body(part: &Part) -> Value {
    match part {
        Part::Text { text } => json!({ "type": "text", "text": text }),
        Part::Image { url } => {
            let inline = url.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,"));
            let source = match inline {
                Some((kind, data)) => json!({ "type": "base64", "media_type": kind, "data": data }),
                None => json!({ "type": "url", "url": url }),
            };
            json!({ "type": "image", "source": source })
        }
    }
}
