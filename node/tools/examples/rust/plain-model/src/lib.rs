//! A tool server with one tool, `chat`, that stands in the place of a language model: it calls each tool whose name is
//! in the message, with the JSON object in it as the arguments, and otherwise repeats what it was told.

wit_bindgen::generate!({ world: "tool-server", path: "../../../wit" });

use caxton::tool::types::Content;
use exports::caxton::tool::tools::{CallResult, Guest, Tool, ToolError};
use heap as _;
use serde::Deserialize;
use serde_json::{Value, json};

const CHAT: &str = r#"{"type":"object","required":["messages"],"properties":{
"model":{"type":"string"},
"messages":{"type":"array","items":{"type":"object"},"minItems":1},
"tools":{"type":"array","items":{"type":"object"}},
"temperature":{"type":"number"},"tokens_max":{"type":"integer"}}}"#;

/// What Caxton asks a model; the fields that this one does not need are passed over.
#[derive(Deserialize)]
struct Request {
    messages: Vec<Message>,
    #[serde(default)]
    tools: Vec<Offered>,
}

#[derive(Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
enum Message {
    System {},
    User { parts: Vec<Part> },
    Assistant {},
    Tool { tool: String, text: String },
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Part {
    Text { text: String },
    Image {},
}

#[derive(Deserialize)]
struct Offered {
    name: String,
}

struct PlainModel;

impl Guest for PlainModel {
    fn list_tools() -> Vec<Tool> {
        vec![Tool {
            name: "chat".into(),
            title: None,
            description: "Answers a conversation, or asks for calls of the tools that it names.".into(),
            input_schema: CHAT.into(),
            output_schema: None,
            annotations: None,
        }]
    }

    fn call_tool(_: String, arguments: String) -> Result<CallResult, ToolError> {
        let request: Request =
            serde_json::from_str(&arguments).map_err(|error| ToolError::InvalidArguments(error.to_string()))?;
        let reply = reply(&request);
        let content = vec![Content::Text(reply["text"].as_str().unwrap_or_default().to_owned())];
        Ok(CallResult { content, structured: Some(reply.to_string()), is_error: false })
    }
}

fn reply(request: &Request) -> Value {
    // What the tools answered since the model last spoke.
    let spoke = request.messages.iter().rposition(|message| matches!(message, Message::Assistant {}));
    let newest = spoke.map_or(&request.messages[..], |at| &request.messages[at + 1..]);
    let results: Vec<String> = newest
        .iter()
        .filter_map(|message| match message {
            Message::Tool { tool, text } => Some(format!("{tool} says: {text}")),
            Message::System {} | Message::User { .. } | Message::Assistant {} => None,
        })
        .collect();
    if !results.is_empty() {
        return json!({ "text": results.join("\n"), "finish": "stop" });
    }
    let said = asked(&request.messages);
    let arguments = object_in(&said).unwrap_or_else(|| json!({}));
    let named = request.tools.iter().filter(|tool| said.contains(&tool.name));
    let calls: Vec<Value> = named.map(|tool| json!({ "tool": tool.name, "arguments": arguments })).collect();
    match calls.is_empty() {
        true => json!({ "text": format!("You said: {said}"), "finish": "stop" }),
        false => json!({ "calls": calls, "finish": "calls" }),
    }
}

/// The text of the newest message of a person.
fn asked(messages: &[Message]) -> String {
    let texts = messages.iter().rev().find_map(|message| match message {
        Message::User { parts } => Some(parts.iter().filter_map(|part| match part {
            Part::Text { text } => Some(text.as_str()),
            Part::Image {} => None,
        })),
        Message::System {} | Message::Assistant {} | Message::Tool { .. } => None,
    });
    texts.map(|texts| texts.collect::<Vec<_>>().join("\n")).unwrap_or_default()
}

/// The JSON object between the first brace and the last.
fn object_in(text: &str) -> Option<Value> {
    let (from, to) = (text.find('{')?, text.rfind('}')?);
    serde_json::from_str(text.get(from..=to)?).ok()
}

export!(PlainModel);
