//! A request of the Messages API as it is read: what of it is passed on, and what is refused by its name.
//!
//! Hints for a cache (`cache_control`) change no answer, and what another model thought is no part of the conversation: these
//! two are not passed on. Nothing else is left out in silence.

use std::sync::Arc;

use caxton_proto::AgentName;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::api::messages::MessageRequest;
use crate::edge::problem::Problem;
use crate::edge::senders::{invalid, request_of};
use crate::invoke::ClientTurn;
use crate::llm::{Message, Part, ReplyOptions, ToolCall, ToolChoice, ToolDefinition};

/// Tools that a request may bring.
const TOOLS_MAX: usize = 128;
/// Words that end a reply.
const STOPS_MAX: usize = 16;

/// What is read of a request.
#[derive(Debug, Deserialize)]
pub(super) struct Create {
    pub model: String,
    messages: Vec<SentMessage>,
    max_tokens: u32,
    system: Option<Value>,
    stream: Option<bool>,
    stop_sequences: Option<Vec<String>>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<u32>,
    tools: Option<Vec<Tool>>,
    tool_choice: Option<Choice>,
    metadata: Option<Metadata>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    user_id: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Tool {
    #[serde(rename = "type")]
    kind: Option<String>,
    name: Option<String>,
    description: Option<String>,
    input_schema: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Choice {
    #[serde(rename = "type")]
    kind: String,
    name: Option<String>,
    disable_parallel_tool_use: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct SentMessage {
    role: String,
    content: Value,
}

impl Create {
    /// Whether the answer is streamed.
    pub fn streams(&self) -> bool {
        self.stream.unwrap_or(false)
    }

    /// The request and what goes along with it.
    pub fn into_request(self, agent: Option<AgentName>) -> Result<(MessageRequest, ClientTurn), Problem> {
        for (name, value) in self.rest.iter().filter(|(_, value)| !value.is_null()) {
            let asks_nothing = match name.as_str() {
                "cache_control" => true,
                "service_tier" => *value == json!("auto") || *value == json!("standard_only"),
                "thinking" => value["type"] == "disabled",
                _ => false,
            };
            if !asks_nothing {
                return Err(invalid(name, format!("`{name}` cannot be honoured, and nothing is left out in silence")));
            }
        }
        let (tools, options) = self.tools_and_options()?;
        let mut messages = Vec::with_capacity(self.messages.len() + 1);
        if let Some(system) = &self.system {
            messages.push(Message::system(text_of(system).map_err(|detail| invalid("system", detail))?));
        }
        for (place, said) in self.messages.iter().enumerate() {
            read(said, &mut messages).map_err(|detail| invalid(&format!("messages.{place}"), detail))?;
        }
        request_of(messages, agent, tools, options)
    }

    fn tools_and_options(&self) -> Result<(Vec<ToolDefinition>, ReplyOptions), Problem> {
        let sent = self.tools.as_deref().unwrap_or_default();
        if sent.len() > TOOLS_MAX {
            return Err(invalid("tools", format!("{} tools, and {TOOLS_MAX} are the most", sent.len())));
        }
        let mut tools = Vec::with_capacity(sent.len());
        for (place, tool) in sent.iter().enumerate() {
            let (None | Some("custom"), Some(name)) = (tool.kind.as_deref(), &tool.name) else {
                let kind = tool.kind.as_deref().unwrap_or("custom");
                let detail = format!("a tool of type `{kind}` is not taken so: only the sender's own with a name are");
                return Err(invalid(&format!("tools.{place}"), detail));
            };
            let parameters = tool.input_schema.clone().filter(Value::is_object);
            tools.push(ToolDefinition {
                name: name.clone(),
                description: tool.description.clone().unwrap_or_default(),
                parameters: Arc::new(parameters.unwrap_or_else(|| json!({ "type": "object" }))),
            });
        }
        let stop = self.stop_sequences.clone().unwrap_or_default();
        if stop.len() > STOPS_MAX {
            return Err(invalid("stop_sequences", format!("{} of them, and {STOPS_MAX} are the most", stop.len())));
        }
        let mut options = ReplyOptions {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            tokens_max: Some(self.max_tokens),
            stop,
            user: self.metadata.as_ref().and_then(|metadata| metadata.user_id.clone()),
            ..ReplyOptions::default()
        };
        let Some(choice) = &self.tool_choice else { return Ok((tools, options)) };
        options.single_call = choice.disable_parallel_tool_use == Some(true);
        let known = |name: &String| tools.iter().any(|tool| tool.name == *name);
        match (choice.kind.as_str(), &choice.name) {
            ("auto", _) => {}
            ("none", _) => tools.clear(),
            ("any", _) if !tools.is_empty() => options.tool_choice = Some(ToolChoice::Required),
            ("tool", Some(name)) if known(name) => options.tool_choice = Some(ToolChoice::Function(name.clone())),
            _ => return Err(invalid("tool_choice", "it is auto, none, any, or a tool that is among `tools`")),
        }
        Ok((tools, options))
    }
}

/// The text of a field that is only text.
fn text_of(content: &Value) -> Result<String, String> {
    match content {
        Value::String(text) => Ok(text.clone()),
        Value::Array(blocks) => {
            let text = |block: &Value| match block["text"].as_str() {
                Some(text) if block["type"] == "text" => Ok(text.to_owned()),
                _ => Err(format!("a block of type {} is not taken here: only text is", block["type"])),
            };
            Ok(blocks.iter().map(text).collect::<Result<Vec<_>, _>>()?.join("\n"))
        }
        Value::Null => Ok(String::new()),
        _ => Err("it is a text or a list of blocks".to_owned()),
    }
}

/// Reads a message behind those before it. Results of calls stand in a message of the user's, and are ones of their own here.
fn read(said: &SentMessage, messages: &mut Vec<Message>) -> Result<(), String> {
    let whole;
    let blocks = match &said.content {
        Value::Array(blocks) => blocks.as_slice(),
        Value::String(text) => {
            whole = [json!({ "type": "text", "text": text })];
            &whole
        }
        _ => return Err("`content` is a text or a list of blocks".to_owned()),
    };
    match said.role.as_str() {
        "user" => {
            let mut parts = Vec::new();
            for block in blocks {
                match block["type"].as_str() {
                    Some("tool_result") => messages.push(result_of(block, messages)?),
                    _ => parts.push(part_of(block)?),
                }
            }
            if !parts.is_empty() {
                messages.push(Message::User { parts });
            }
        }
        "assistant" => {
            let (mut text, mut calls) = (Vec::new(), Vec::new());
            for block in blocks {
                match (block["type"].as_str(), block["text"].as_str()) {
                    (Some("text"), Some(said)) => text.push(said),
                    (Some("thinking" | "redacted_thinking"), _) => {}
                    (Some("tool_use"), _) => calls.push(call_of(block)?),
                    _ => return Err(format!("a block of type {} is not taken here", block["type"])),
                }
            }
            messages.push(Message::Assistant { text: text.join("\n"), calls, echo: None });
        }
        // Newer clients may write instructions between the turns.
        "system" => messages.push(Message::system(text_of(&said.content)?)),
        other => return Err(format!("`{other}` is not a role")),
    }
    Ok(())
}

fn call_of(block: &Value) -> Result<ToolCall, String> {
    match (block["id"].as_str(), block["name"].as_str()) {
        (Some(id), Some(name)) => {
            let arguments = block.get("input").unwrap_or(&Value::Null);
            let arguments = if arguments.is_null() { "{}".to_owned() } else { arguments.to_string() };
            Ok(ToolCall { id: id.to_owned(), tool: name.to_owned(), arguments })
        }
        _ => Err("a `tool_use` has an `id` and a `name`".to_owned()),
    }
}

fn result_of(block: &Value, before: &[Message]) -> Result<Message, String> {
    let id = block["tool_use_id"].as_str().unwrap_or_default();
    let called = before.iter().rev().find_map(|message| match message {
        Message::Assistant { calls, .. } => calls.iter().find(|call| call.id == id),
        _ => None,
    });
    let tool = called.map(|call| call.tool.clone()).ok_or_else(|| format!("no call before has the id `{id}`"))?;
    let text = text_of(&block["content"]).map_err(|detail| format!("the result of `{id}`: {detail}"))?;
    Ok(Message::Tool { text, call: id.to_owned(), tool, failed: block["is_error"] == true })
}

fn part_of(block: &Value) -> Result<Part, String> {
    let source = &block["source"];
    let url = match (source["type"].as_str(), source["media_type"].as_str(), source["data"].as_str()) {
        (Some("base64"), Some(media_type), Some(data)) => Some(format!("data:{media_type};base64,{data}")),
        (Some("url"), ..) => source["url"].as_str().map(str::to_owned),
        _ => None,
    };
    match (block["type"].as_str(), block["text"].as_str(), url) {
        (Some("text"), Some(text), _) => Ok(Part::Text { text: text.to_owned() }),
        (Some("image"), _, Some(url)) => Ok(Part::Image { url }),
        _ => Err(format!("a block of type {} is not taken: only text, image and tool_result are", block["type"])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(more: Value) -> Result<(MessageRequest, ClientTurn), Problem> {
        let mut body = json!({ "model": "auto", "max_tokens": 9, "messages": [{ "role": "user", "content": "hi" }] });
        let (Value::Object(fields), Value::Object(more)) = (&mut body, more) else { panic!("two objects") };
        fields.extend(more);
        serde_json::from_value::<Create>(body).expect("a request").into_request(None)
    }

    #[test]
    fn a_conversation_with_calls_is_read() {
        let messages = json!([
            { "role": "user", "content": [
                { "type": "text", "text": "look", "cache_control": { "type": "ephemeral" } },
                { "type": "image", "source": { "type": "base64", "media_type": "image/png", "data": "AAAA" } },
            ] },
            { "role": "assistant", "content": [
                { "type": "thinking", "thinking": "hm", "signature": "s" }, { "type": "text", "text": "I look." },
                { "type": "tool_use", "id": "t1", "name": "f", "input": { "a": 1 } },
            ] },
            { "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "t1", "content": "no", "is_error": true }] },
        ]);
        let (request, client) =
            given(json!({ "messages": messages, "system": [{ "type": "text", "text": "Be brief." }] })).expect("fine");
        assert_eq!(
            (request.text.as_str(), request.images.as_slice()),
            ("look", ["data:image/png;base64,AAAA".to_owned()].as_slice())
        );
        assert_eq!(client.history, [Message::system("Be brief.")]);
        let call = ToolCall { id: "t1".into(), tool: "f".into(), arguments: "{\"a\":1}".into() };
        let said = Message::Assistant { text: "I look.".into(), calls: vec![call], echo: None };
        let result = Message::Tool { text: "no".into(), call: "t1".into(), tool: "f".into(), failed: true };
        assert_eq!(client.after, [said, result]);
    }

    #[test]
    fn what_can_be_honoured_is_and_the_rest_is_refused_by_name() {
        let tools = json!([{ "name": "f", "input_schema": { "type": "object" } }]);
        let asked = json!({
            "tools": tools, "tool_choice": { "type": "tool", "name": "f", "disable_parallel_tool_use": true },
            "top_k": 3, "stop_sequences": ["."], "metadata": { "user_id": "ada" }, "thinking": { "type": "disabled" },
        });
        let options = given(asked).expect("fine").1.options;
        assert_eq!(options.names(), ["top_k", "max_tokens", "stop", "tool_choice", "parallel_tool_calls", "user"]);
        for (param, more) in [
            ("thinking", json!({ "thinking": { "type": "enabled", "budget_tokens": 1024 } })),
            ("mcp_servers", json!({ "mcp_servers": [] })),
            ("tool_choice", json!({ "tool_choice": { "type": "any" } })),
            ("tools.0", json!({ "tools": [{ "type": "bash_20250124", "name": "bash" }] })),
            ("messages.0", json!({ "messages": [{ "role": "user", "content": [{ "type": "document" }] }] })),
            ("messages", json!({ "messages": [] })),
        ] {
            assert_eq!(given(more).expect_err(param).fact("param"), Some(&json!(param)));
        }
    }
}
