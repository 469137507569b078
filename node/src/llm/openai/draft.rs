//! A reply of Chat Completions as it grows, piece by piece, from servers that agree on little.
//!
//! Which call a piece belongs to is what they disagree on most: parallel calls under one index, or without any; names and
//! ids in every piece, or in none; whole calls in one piece each. What is decided here is decided from what has come.

use serde_json::{Map, Value};

use super::super::echo::{CallEcho, Echo};
use super::super::limits::{BLOCKS_MAX, CALLS_MAX};
use super::super::{ToolCall, Usage};

/// Text of a message that is not its answer, and that its provider wants to hear again.
const THOUGHTS: [&str; 2] = ["reasoning_content", "reasoning"];
/// The same as lists of blocks.
const THOUGHT_BLOCKS: [&str; 2] = ["reasoning_details", "thinking_blocks"];
/// What is kept whole, in a message and in a call.
const EXTRAS: [&str; 2] = ["extra_content", "provider_specific_fields"];
/// What a call's pieces have that everybody knows.
const CALL_FIELDS: [&str; 4] = ["id", "type", "index", "function"];

/// A reply as it grows.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub text: String,
    pub finish: Option<String>,
    pub usage: Option<Usage>,
    /// The tokens were counted in a chunk of their own, which is the last one.
    pub counted: bool,
    pub model: String,
    calls: Vec<PartialCall>,
    message: Map<String, Value>,
    parts: Vec<Value>,
    bytes: usize,
}

/// A call as it grows.
#[derive(Debug, Default)]
struct PartialCall {
    index: Option<u64>,
    id: String,
    name: String,
    arguments: String,
    fields: Map<String, Value>,
}

impl PartialCall {
    /// Whether its arguments are whole: nothing but blanks could follow.
    fn is_whole(&self) -> bool {
        self.arguments.trim_end().ends_with('}') && serde_json::from_str::<Value>(&self.arguments).is_ok()
    }
}

impl Draft {
    /// Bytes that are held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes what a chunk or a message says; gives the text that is new in it.
    pub fn take(&mut self, said: &Value) -> Result<String, String> {
        let mut new = String::new();
        self.content(&said["content"], &mut new);
        if let Some(refusal) = said.get("refusal").and_then(Value::as_str) {
            new.push_str(refusal);
        }
        self.bytes += new.len();
        self.text.push_str(&new);
        self.thoughts(said);
        let calls = said.get("tool_calls").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let mut taken = Vec::with_capacity(calls.len());
        for piece in calls {
            let place = self.place_of(piece, &taken);
            let place = self.piece(place, piece)?;
            taken.push(place);
        }
        // How calls were made before there were several.
        if let Some(function) = said.get("function_call").filter(|function| function.is_object()) {
            let piece = serde_json::json!({ "index": 0, "function": function });
            let place = self.place_of(&piece, &[]);
            self.piece(place, &piece)?;
        }
        Ok(new)
    }

    /// Text, or a list of parts.
    fn content(&mut self, content: &Value, new: &mut String) {
        match content {
            Value::String(text) => self.part_text(text, new),
            Value::Array(parts) => {
                for part in parts {
                    match part {
                        Value::String(text) => self.part_text(text, new),
                        _ if part["type"] == "thinking" => self.thinking_part(part),
                        _ => {
                            let text = ["text", "refusal"].iter().find_map(|field| part.get(*field)?.as_str());
                            self.part_text(text.unwrap_or_default(), new);
                        }
                    }
                }
            }
            // Null, and what no protocol has.
            _ => {}
        }
    }

    fn part_text(&mut self, text: &str, new: &mut String) {
        new.push_str(text);
        // Where text stands among parts matters only where there are others.
        if !text.is_empty() && self.parts.last().is_some_and(|part| part["type"] != "text") {
            self.parts.push(serde_json::json!({ "type": "text" }));
        }
    }

    /// Mistral's thoughts: parts that hold a list of texts, or text.
    fn thinking_part(&mut self, part: &Value) {
        self.bytes += part.to_string().len();
        let room = self.parts.len() < BLOCKS_MAX;
        match self.parts.last_mut() {
            Some(last) if last["type"] == "thinking" => match (&mut last["thinking"], &part["thinking"]) {
                (Value::Array(held), Value::Array(more)) => {
                    for piece in more {
                        match (held.last_mut().and_then(|last| last.get_mut("text")), piece["text"].as_str()) {
                            (Some(Value::String(text)), Some(more)) => text.push_str(more),
                            _ => held.push(piece.clone()),
                        }
                    }
                }
                (Value::String(held), Value::String(more)) => held.push_str(more),
                _ => {}
            },
            _ if room => self.parts.push(part.clone()),
            _ => {}
        }
    }

    /// Reasoning and signatures beside the answer.
    fn thoughts(&mut self, said: &Value) {
        for field in THOUGHTS {
            if let Some(text) = said.get(field).and_then(Value::as_str).filter(|text| !text.is_empty()) {
                self.bytes += text.len();
                match self.message.get_mut(field) {
                    Some(Value::String(held)) => held.push_str(text),
                    _ => _ = self.message.insert(field.to_owned(), text.into()),
                }
            }
        }
        for field in THOUGHT_BLOCKS {
            if let Some(blocks) = said.get(field).and_then(Value::as_array).filter(|blocks| !blocks.is_empty()) {
                let held = self.message.entry(field).or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(held) = held {
                    self.bytes += blocks.iter().map(|block| add_block(held, block)).sum::<usize>();
                }
            }
        }
        for field in EXTRAS {
            if let Some(more) = said.get(field).filter(|more| more.is_object()) {
                self.bytes += more.to_string().len();
                merge(self.message.entry(field).or_insert(Value::Null), more);
            }
        }
    }

    /// The call that a piece belongs to; none for a new one. `taken` are those of earlier pieces of the same chunk.
    fn place_of(&self, piece: &Value, taken: &[usize]) -> Option<usize> {
        let index = piece.get("index").and_then(Value::as_u64);
        let id = text_of(piece.get("id"));
        let place = match index {
            Some(_) => self.calls.iter().rposition(|call| call.index == index)?,
            None => match self.calls.iter().rposition(|call| !id.is_empty() && call.id == id) {
                Some(place) => place,
                // Calls of one chunk are several.
                None if !id.is_empty() || !taken.is_empty() => return None,
                None => self.calls.len().checked_sub(1)?,
            },
        };
        let call = &self.calls[place];
        if !id.is_empty() && !call.id.is_empty() && id != call.id {
            return None;
        }
        let name = piece.pointer("/function/name").and_then(Value::as_str).unwrap_or_default();
        let arguments = arguments_of(piece);
        if arguments.trim().is_empty() {
            return Some(place);
        }
        // The same once more, at the end.
        if !id.is_empty() && arguments == call.arguments && call.is_whole() {
            return Some(place);
        }
        let begins = arguments.trim_start().starts_with('{');
        let another = !name.is_empty()
            && ((call.is_whole() && begins) || (!call.arguments.is_empty() && name != call.name && begins));
        (!another).then_some(place)
    }

    /// Adds a piece to the call at `place`, or begins one; gives its place.
    fn piece(&mut self, place: Option<usize>, piece: &Value) -> Result<usize, String> {
        let place = match place {
            Some(place) => place,
            None if self.calls.len() >= CALLS_MAX => return Err(format!("more than {CALLS_MAX} calls in one reply")),
            None => {
                let index = piece.get("index").and_then(Value::as_u64);
                self.calls.push(PartialCall { index, ..PartialCall::default() });
                self.calls.len() - 1
            }
        };
        let call = &mut self.calls[place];
        let before = call.id.len() + call.name.len() + call.arguments.len();
        if call.id.is_empty() {
            call.id = text_of(piece.get("id"));
        }
        let name = piece.pointer("/function/name").and_then(Value::as_str).unwrap_or_default();
        if name.starts_with(call.name.as_str()) {
            // The first piece, the same name once more, or the name so far.
            name.clone_into(&mut call.name);
        } else if call.arguments.is_empty() && !call.name.starts_with(name) {
            call.name.push_str(name);
        }
        let whole = piece.pointer("/function/arguments").is_some_and(Value::is_object);
        let arguments = arguments_of(piece);
        let again = !text_of(piece.get("id")).is_empty() && arguments == call.arguments && call.is_whole();
        match () {
            () if arguments.is_empty() || again => {}
            // Some begin with an empty object and send the arguments after it.
            () if whole || (call.arguments.trim() == "{}" && arguments.trim_start().starts_with('{')) => {
                call.arguments = arguments;
            }
            () => call.arguments.push_str(&arguments),
        }
        self.bytes += (call.id.len() + call.name.len() + call.arguments.len()).saturating_sub(before);
        for (field, value) in piece.as_object().into_iter().flatten() {
            if !CALL_FIELDS.contains(&field.as_str()) && !value.is_null() {
                self.bytes += field.len() + value.to_string().len();
                merge(call.fields.entry(field.clone()).or_insert(Value::Null), value);
            }
        }
        Ok(place)
    }

    /// The calls with the names that `back` gives them, and what is to be sent back of them and of the reply.
    pub fn calls(&mut self, origin: String, back: impl Fn(&str) -> String) -> (Vec<ToolCall>, Option<String>) {
        let mut echo = Echo::of(origin);
        echo.message = std::mem::take(&mut self.message);
        echo.parts = std::mem::take(&mut self.parts);
        let mut calls = Vec::with_capacity(self.calls.len());
        for PartialCall { index: _, id, name, arguments, fields } in std::mem::take(&mut self.calls) {
            // A call of nothing is none: some send one with every reply.
            if name.is_empty() && arguments.is_empty() {
                continue;
            }
            calls.push(ToolCall { id: id.clone(), tool: back(&name), arguments });
            echo.calls.push(CallEcho { id, fields });
        }
        let echo = echo.into_text(&calls);
        (calls, echo)
    }
}

/// An id that may be a number.
fn text_of(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

/// A piece's arguments: text, or the object itself from servers that take the work off us.
fn arguments_of(piece: &Value) -> String {
    match piece.pointer("/function/arguments") {
        Some(Value::String(arguments)) => arguments.clone(),
        Some(arguments @ Value::Object(_)) => arguments.to_string(),
        _ => String::new(),
    }
}

/// Puts the fields of an object into another one, level by level; anything else replaces what was there.
fn merge(held: &mut Value, more: &Value) {
    match (held, more) {
        (Value::Object(held), Value::Object(more)) => {
            for (name, value) in more.iter().filter(|(_, value)| !value.is_null()) {
                merge(held.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (held, more) => *held = more.clone(),
    }
}

/// Adds a block of thoughts, or a piece of the last one; gives the bytes that it takes.
fn add_block(held: &mut Vec<Value>, block: &Value) -> usize {
    const TEXTS: [&str; 3] = ["text", "summary", "thinking"];
    let bytes = block.to_string().len();
    let has_text = TEXTS.iter().any(|field| block.get(*field).is_some_and(Value::is_string));
    let same = |last: &&mut Value| {
        let fields = ["type", "index"];
        let signed = last["signature"].as_str().is_some_and(|signature| !signature.is_empty());
        has_text && fields.iter().all(|field| last[*field] == block[*field]) && !signed
    };
    let room = held.len() < BLOCKS_MAX;
    match (held.last_mut().filter(same), block) {
        (Some(Value::Object(last)), Value::Object(block)) => {
            for (field, value) in block.iter().filter(|(_, value)| !value.is_null()) {
                match (last.get_mut(field), value) {
                    (Some(Value::String(text)), Value::String(more)) if TEXTS.contains(&field.as_str()) => {
                        text.push_str(more);
                    }
                    _ => _ = last.insert(field.clone(), value.clone()),
                }
            }
        }
        _ if room => held.push(block.clone()),
        _ => {}
    }
    bytes
}

#[cfg(test)]
#[path = "draft_tests.rs"]
mod tests;
