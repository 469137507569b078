//! A message of Anthropic's as it grows, block by block. Blocks of thought are kept as they are, in their places: the
//! signature in them is checked when they come back.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::super::echo::{CallEcho, Echo};
use super::super::limits::BLOCKS_MAX;
use super::super::{ToolCall, Usage, whole_number};

/// A message as it grows.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub usage: Usage,
    pub stop: Option<String>,
    pub model: String,
    blocks: BTreeMap<u64, Block>,
    bytes: usize,
}

#[derive(Debug)]
enum Block {
    Text(String),
    Call {
        call: ToolCall,
        /// The arguments that came whole, before any piece.
        input: Value,
    },
    /// A thought, with its text and its signature, or sealed.
    Thought(Map<String, Value>),
    Other,
}

impl Draft {
    /// Bytes that are held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The message begins.
    pub fn start(&mut self, message: &Value) -> String {
        self.model = message.get("model").and_then(Value::as_str).unwrap_or_default().to_owned();
        self.count(&message["usage"]);
        String::new()
    }

    /// The whole message at once, from those who do not stream; gives its text.
    pub fn whole(&mut self, message: &Value) -> Result<String, String> {
        let Some(blocks) = message.get("content").and_then(Value::as_array) else {
            return Err("a document without `content`".to_owned());
        };
        self.start(message);
        let mut text = String::new();
        for block in blocks {
            text.push_str(&self.block(&json!({ "content_block": block }))?);
        }
        self.stop = message.get("stop_reason").and_then(Value::as_str).map(str::to_owned);
        Ok(text)
    }

    /// A block begins; gives the text that is in it already.
    pub fn block(&mut self, data: &Value) -> Result<String, String> {
        if self.blocks.len() >= BLOCKS_MAX {
            return Err(format!("more than {BLOCKS_MAX} blocks in one message"));
        }
        let next = self.blocks.keys().next_back().map_or(0, |last| last.saturating_add(1));
        let index = data.get("index").and_then(Value::as_u64).unwrap_or(next);
        let begun = &data["content_block"];
        let text = |field: &str| begun.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        self.bytes += begun.to_string().len();
        let mut said = String::new();
        let block = match text("type").as_str() {
            "text" => {
                said = text("text");
                Block::Text(said.clone())
            }
            "tool_use" => Block::Call {
                call: ToolCall { id: text("id"), tool: text("name"), arguments: String::new() },
                input: begun.get("input").cloned().unwrap_or(Value::Null),
            },
            "thinking" | "redacted_thinking" => Block::Thought(begun.as_object().cloned().unwrap_or_default()),
            _ => Block::Other,
        };
        self.blocks.insert(index, block);
        Ok(said)
    }

    /// A piece of a block; gives the text that is new in it.
    pub fn piece(&mut self, data: &Value) -> Result<String, String> {
        let index = data.get("index").and_then(Value::as_u64).unwrap_or(0);
        let piece = |name: &str| data["delta"].get(name).and_then(Value::as_str).unwrap_or_default();
        let mut said = String::new();
        let bytes = match self.blocks.get_mut(&index) {
            Some(Block::Text(text)) => {
                piece("text").clone_into(&mut said);
                text.push_str(&said);
                said.len()
            }
            Some(Block::Call { call, .. }) => {
                call.arguments.push_str(piece("partial_json"));
                piece("partial_json").len()
            }
            Some(Block::Thought(fields)) => {
                for field in ["thinking", "signature"] {
                    let held = fields.entry(field).or_insert_with(|| json!(""));
                    if let Value::String(held) = held {
                        held.push_str(piece(field));
                    }
                }
                piece("thinking").len() + piece("signature").len()
            }
            Some(Block::Other) => 0,
            None => return Err(format!("a piece of block {index}, which was never begun")),
        };
        self.bytes += bytes;
        Ok(said)
    }

    /// The message ends, with a reason and a count.
    pub fn finish(&mut self, data: &Value) -> String {
        if let Some(stop) = data.pointer("/delta/stop_reason").and_then(Value::as_str) {
            self.stop = Some(stop.to_owned());
        }
        self.count(&data["usage"]);
        String::new()
    }

    /// Counts are totals so far; one that is missing leaves the one before.
    fn count(&mut self, usage: &Value) {
        let count = |name: &str| usage.get(name).and_then(whole_number);
        let cached = ["cache_read_input_tokens", "cache_creation_input_tokens"].map(|name| count(name).unwrap_or(0));
        if let Some(input) = count("input_tokens") {
            self.usage.input = cached.iter().fold(input, |sum, more| sum.saturating_add(*more));
        }
        if let Some(output) = count("output_tokens") {
            self.usage.output = output;
        }
    }

    /// Text, calls, and what is to be sent back.
    pub fn parts(self, origin: String, back: impl Fn(&str) -> String) -> (String, Vec<ToolCall>, Option<String>) {
        let (mut text, mut calls) = (String::new(), Vec::new());
        let mut echo = Echo::of(origin);
        let thinks = self.blocks.values().any(|block| matches!(block, Block::Thought(_)));
        for block in self.blocks.into_values() {
            let part = match block {
                Block::Text(said) => {
                    text.push_str(&said);
                    json!({ "type": "text", "text": said })
                }
                Block::Call { mut call, input } => {
                    if call.arguments.is_empty() && input.is_object() {
                        call.arguments = input.to_string();
                    }
                    echo.calls.push(CallEcho { id: call.id.clone(), fields: Map::new() });
                    call.tool = back(&call.tool);
                    calls.push(call);
                    json!({ "type": "call", "place": calls.len() - 1 })
                }
                Block::Thought(fields) => Value::Object(fields),
                Block::Other => continue,
            };
            // Without a thought, text and calls say all.
            if thinks {
                echo.parts.push(part);
            }
        }
        let echo = echo.into_text(&calls);
        (text, calls, echo)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thoughts_come_back_as_they_were_and_where_they_were() {
        let mut draft = Draft::default();
        let begin = |index: u64, block: Value| json!({ "index": index, "content_block": block });
        let piece = |index: u64, delta: Value| json!({ "index": index, "delta": delta });
        draft.block(&begin(0, json!({ "type": "thinking", "thinking": "", "signature": "" }))).expect("a block");
        draft.piece(&piece(0, json!({ "type": "thinking_delta", "thinking": "I " }))).expect("a piece");
        draft.piece(&piece(0, json!({ "type": "thinking_delta", "thinking": "see." }))).expect("a piece");
        draft.piece(&piece(0, json!({ "type": "signature_delta", "signature": "s" }))).expect("a piece");
        draft.block(&begin(1, json!({ "type": "redacted_thinking", "data": "sealed" }))).expect("a block");
        draft.block(&begin(2, json!({ "type": "text", "text": "" }))).expect("a block");
        assert_eq!(draft.piece(&piece(2, json!({ "text": "Look" }))).expect("a piece"), "Look");
        draft.block(&begin(3, json!({ "type": "tool_use", "id": "t1", "name": "f", "input": {} }))).expect("a block");
        draft.piece(&piece(3, json!({ "partial_json": "{\"a\":1}" }))).expect("a piece");
        assert!(draft.piece(&piece(9, json!({ "text": "x" }))).is_err());
        let (text, calls, echo) = draft.parts("home".into(), str::to_owned);
        assert_eq!((text.as_str(), calls[0].arguments.as_str()), ("Look", "{\"a\":1}"));
        let echo = Echo::read(echo.as_deref(), "home").expect("an echo");
        assert_eq!(
            echo.parts,
            [
                json!({ "type": "thinking", "thinking": "I see.", "signature": "s" }),
                json!({ "type": "redacted_thinking", "data": "sealed" }),
                json!({ "type": "text", "text": "Look" }),
                json!({ "type": "call", "place": 0 }),
            ]
        );
        assert_eq!(echo.calls[0].id, "t1");
    }

    #[test]
    fn a_message_that_came_whole_is_read_as_well() {
        let mut draft = Draft::default();
        let message = json!({ "model": "m", "stop_reason": "tool_use", "usage": { "input_tokens": 3, "output_tokens": 4.0 },
            "content": [{ "type": "text", "text": "hi" }, { "type": "tool_use", "id": "t", "name": "f", "input": { "a": 1 } }] });
        assert_eq!(draft.whole(&message).expect("a message"), "hi");
        assert_eq!((draft.usage, draft.stop.as_deref()), (Usage { input: 3, output: 4 }, Some("tool_use")));
        let (_, calls, _) = draft.parts(String::new(), str::to_owned);
        assert_eq!(calls[0].arguments, r#"{"a":1}"#);
    }
}
