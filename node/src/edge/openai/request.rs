//! A request of Chat Completions as it is read: what of it is passed on, and what is refused by its name.
//!
//! Clients write `null` for what they leave out. Nothing else that a request says is left out in silence: what no agent can
//! honour is refused, unless it asks for what would happen anyway.

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
/// What no agent does, with the value that asks for nothing.
const NOT_DONE: &[(&str, &[&str], &str)] = &[
    ("n", &["1"], "an agent gives one answer"),
    ("logprobs", &["false"], "an agent's answer has no probabilities"),
    ("top_logprobs", &["0"], "an agent's answer has no probabilities"),
    ("store", &["false"], "the sender keeps the conversation in this protocol"),
    ("metadata", &["{}"], "nothing is stored that it could be put to"),
    ("modalities", &["[\"text\"]"], "agents answer in text"),
    ("audio", &[], "agents answer in text"),
    ("service_tier", &["\"auto\"", "\"default\""], "an agent's file says which provider is asked, and how"),
    ("functions", &["[]"], "send `tools`"),
    ("function_call", &["\"none\"", "\"auto\""], "send `tool_choice`"),
    ("prediction", &[], "agents take no predicted answer"),
    ("web_search_options", &[], "an agent's file says which tools it has"),
];

/// What is read of a request.
#[derive(Debug, Deserialize)]
pub(super) struct Completion {
    pub model: String,
    messages: Vec<SentMessage>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    tools: Option<Vec<Tool>>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    response_format: Option<Value>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    stop: Option<Stop>,
    seed: Option<i64>,
    logit_bias: Option<Map<String, Value>>,
    reasoning_effort: Option<String>,
    verbosity: Option<String>,
    user: Option<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
    /// Pads chunks against those who watch their lengths; with or without it the answer is the same.
    #[serde(rename = "include_obfuscation")]
    _include_obfuscation: Option<bool>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Stop {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Deserialize)]
struct Tool {
    #[serde(rename = "type")]
    kind: Option<String>,
    function: Option<Function>,
}

#[derive(Debug, Deserialize)]
struct Function {
    name: String,
    description: Option<String>,
    parameters: Option<Value>,
    strict: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct SentMessage {
    role: String,
    content: Option<Value>,
    tool_calls: Option<Vec<SentCall>>,
    tool_call_id: Option<String>,
    name: Option<String>,
    refusal: Option<String>,
    audio: Option<Value>,
    function_call: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct SentCall {
    id: String,
    function: Option<SentFunction>,
}

#[derive(Debug, Deserialize)]
struct SentFunction {
    name: String,
    arguments: Option<String>,
}

impl Completion {
    /// Whether the answer is streamed.
    pub fn streams(&self) -> bool {
        self.stream.unwrap_or(false)
    }

    /// Whether a stream's last chunk says what it cost.
    pub fn tells_usage(&self) -> bool {
        self.stream_options.as_ref().and_then(|options| options.include_usage).unwrap_or(false)
    }

    /// The newest thing that a person said is the request; what came before it, and the results of calls after it, go along.
    pub fn into_request(self, agent: Option<AgentName>) -> Result<(MessageRequest, ClientTurn), Problem> {
        self.refuse_what_is_not_done()?;
        let (tools, mut options) = (self.tools()?, self.options()?);
        let (tools, strict_tools) = tools;
        options.strict_tools = strict_tools;
        let tools = match self.choice(&tools)? {
            Choice::None => Vec::new(),
            Choice::Free => tools,
            Choice::Demanded(choice) => {
                options.tool_choice = Some(choice);
                tools
            }
        };
        let mut messages = Vec::with_capacity(self.messages.len());
        for (place, said) in self.messages.into_iter().enumerate() {
            let param = format!("messages.[{place}]");
            let message = message_of(said, &messages).map_err(|detail| invalid(&param, detail))?;
            messages.push(message);
        }
        request_of(messages, agent, tools, options)
    }

    fn refuse_what_is_not_done(&self) -> Result<(), Problem> {
        let streamed = self
            .stream_options
            .iter()
            .flat_map(|options| options.rest.iter().map(|(name, value)| (format!("stream_options.{name}"), value)));
        let plain = self.rest.iter().map(|(name, value)| (name.clone(), value));
        for (name, value) in plain.chain(streamed).filter(|(_, value)| !value.is_null()) {
            match NOT_DONE.iter().find(|(known, ..)| *known == name) {
                Some((_, nothing, _)) if nothing.contains(&value.to_string().as_str()) => {}
                Some((_, _, why)) => return Err(invalid(&name, format!("`{name}` cannot be honoured: {why}"))),
                None => {
                    return Err(invalid(
                        &name,
                        format!("`{name}` is not known here, and nothing is left out in silence"),
                    ));
                }
            }
        }
        Ok(())
    }

    /// The tools, and the names of those whose schemas are to be followed exactly.
    fn tools(&self) -> Result<(Vec<ToolDefinition>, Vec<String>), Problem> {
        let sent = self.tools.as_deref().unwrap_or_default();
        if sent.len() > TOOLS_MAX {
            return Err(invalid("tools", format!("{} tools, and {TOOLS_MAX} are the most", sent.len())));
        }
        let (mut tools, mut strict) = (Vec::with_capacity(sent.len()), Vec::new());
        for (place, tool) in sent.iter().enumerate() {
            let function = match (tool.kind.as_deref(), &tool.function) {
                (None | Some("function"), Some(function)) => function,
                (kind, _) => {
                    let kind = kind.unwrap_or("function");
                    let detail = format!("a tool of type `{kind}` is not taken so: only functions are");
                    return Err(invalid(&format!("tools.[{place}]"), detail));
                }
            };
            let parameters = function.parameters.clone().filter(Value::is_object);
            tools.push(ToolDefinition {
                name: function.name.clone(),
                description: function.description.clone().unwrap_or_default(),
                parameters: Arc::new(parameters.unwrap_or_else(|| json!({ "type": "object" }))),
            });
            if function.strict == Some(true) {
                strict.push(function.name.clone());
            }
        }
        Ok((tools, strict))
    }

    fn options(&self) -> Result<ReplyOptions, Problem> {
        let stop = match &self.stop {
            None => Vec::new(),
            Some(Stop::One(word)) => vec![word.clone()],
            Some(Stop::Many(words)) => words.clone(),
        };
        if stop.len() > STOPS_MAX {
            return Err(invalid(
                "stop",
                format!("{} words that end a reply, and {STOPS_MAX} are the most", stop.len()),
            ));
        }
        let response_format = match &self.response_format {
            None => None,
            Some(format) => match format["type"].as_str() {
                Some("text") => None,
                Some("json_object" | "json_schema") => Some(format.clone()),
                _ => return Err(invalid("response_format", "it is of type text, json_object or json_schema")),
            },
        };
        Ok(ReplyOptions {
            temperature: self.temperature,
            top_p: self.top_p,
            tokens_max: [self.max_completion_tokens, self.max_tokens].into_iter().flatten().min(),
            stop,
            seed: self.seed,
            presence_penalty: self.presence_penalty.filter(|penalty| *penalty != 0.0),
            frequency_penalty: self.frequency_penalty.filter(|penalty| *penalty != 0.0),
            logit_bias: self.logit_bias.clone().filter(|biases| !biases.is_empty()).map(Value::Object),
            response_format,
            reasoning_effort: self.reasoning_effort.clone(),
            verbosity: self.verbosity.clone(),
            single_call: self.parallel_tool_calls == Some(false),
            user: self.user.clone(),
            ..ReplyOptions::default()
        })
    }

    fn choice(&self, tools: &[ToolDefinition]) -> Result<Choice, Problem> {
        let invalid = |detail: &str| invalid("tool_choice", detail);
        let choice = match self.tool_choice.as_ref().unwrap_or(&Value::Null) {
            Value::Null => Choice::Free,
            Value::String(word) => match word.as_str() {
                "auto" => Choice::Free,
                "none" => Choice::None,
                "required" => Choice::Demanded(ToolChoice::Required),
                _ => return Err(invalid("it is none, auto, required or a function")),
            },
            other => match other.pointer("/function/name").and_then(Value::as_str) {
                Some(name) if tools.iter().any(|tool| tool.name == name) => {
                    Choice::Demanded(ToolChoice::Function(name.to_owned()))
                }
                Some(_) => return Err(invalid("it names a function that is not among `tools`")),
                None => return Err(invalid("it is none, auto, required or a function")),
            },
        };
        match choice {
            Choice::Demanded(_) if tools.is_empty() => Err(invalid("it demands a call, and `tools` is empty")),
            choice => Ok(choice),
        }
    }
}

/// What the sender wants of its tools.
enum Choice {
    /// They are not to be called.
    None,
    /// The model chooses.
    Free,
    Demanded(ToolChoice),
}

fn message_of(said: SentMessage, before: &[Message]) -> Result<Message, String> {
    if said.function_call.as_ref().is_some_and(|call| !call.is_null()) {
        return Err("`function_call` is not taken: write `tool_calls`".to_owned());
    }
    if said.audio.as_ref().is_some_and(|audio| !audio.is_null()) {
        return Err("`audio` is not taken: only text and images are".to_owned());
    }
    let content = said.content.unwrap_or_default();
    // A refusal is what was said in the place of an answer.
    let text = |spoken: &str| text_of(&content).map(|text| if text.is_empty() { spoken.to_owned() } else { text });
    let named = |text: String| match said.name.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => format!("{name}: {text}"),
        None => text,
    };
    match said.role.as_str() {
        "system" | "developer" => Ok(Message::system(named(text("")?))),
        "user" => match &content {
            Value::Array(parts) => {
                let speaker = said.name.as_deref().filter(|name| !name.is_empty());
                let speaker = speaker.map(|name| Ok(Part::Text { text: format!("{name}:") }));
                Ok(Message::User {
                    parts: speaker.into_iter().chain(parts.iter().map(part_of)).collect::<Result<_, _>>()?,
                })
            }
            _ => Ok(Message::user(named(text("")?))),
        },
        "assistant" => {
            let mut calls = Vec::new();
            for called in said.tool_calls.into_iter().flatten() {
                let function = called.function.ok_or("a call of another type than `function` is not taken")?;
                let arguments = function.arguments.unwrap_or_default();
                calls.push(ToolCall { id: called.id, tool: function.name, arguments });
            }
            let text = text(said.refusal.as_deref().unwrap_or_default())?;
            Ok(Message::Assistant { text, calls, echo: None })
        }
        "tool" => {
            let id = said.tool_call_id.unwrap_or_default();
            let called = before.iter().rev().find_map(|message| match message {
                Message::Assistant { calls, .. } => calls.iter().find(|call| call.id == id),
                _ => None,
            });
            let tool = called.map(|call| call.tool.clone());
            let tool = tool.ok_or_else(|| format!("no call before has the id `{id}`"))?;
            Ok(Message::Tool { text: text("")?, call: id, tool, failed: false })
        }
        other => Err(format!("`{other}` is not a role")),
    }
}

/// The text of a message that is only text.
fn text_of(content: &Value) -> Result<String, String> {
    match content {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => {
            let text = |part: &Value| {
                let text = part["text"].as_str().or_else(|| part["refusal"].as_str());
                text.map(str::to_owned)
                    .ok_or_else(|| format!("a part of type {} is not taken here: only text is", part["type"]))
            };
            Ok(parts.iter().map(text).collect::<Result<Vec<_>, _>>()?.join("\n"))
        }
        _ => Err("`content` is a text or a list of parts".to_owned()),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(more: Value) -> Result<(MessageRequest, ClientTurn), Problem> {
        let mut body = json!({ "model": "auto", "messages": [{ "role": "user", "content": "hi" }] });
        let (Value::Object(fields), Value::Object(more)) = (&mut body, more) else { panic!("two objects") };
        fields.extend(more);
        let completion: Completion = serde_json::from_value(body).expect("a request");
        completion.into_request(None)
    }

    fn tools() -> Value {
        json!([{ "type": "function", "function": { "name": "f", "strict": true } }])
    }

    #[test]
    fn null_is_as_if_it_was_not_there() {
        let names =
            ["tools", "tool_choice", "stream", "stream_options", "response_format", "temperature", "stop", "seed"];
        let more = ["n", "user", "max_tokens", "logit_bias", "parallel_tool_calls", "metadata", "whatever"];
        let nulls: Map<String, Value> =
            names.iter().chain(&more).map(|name| ((*name).to_owned(), Value::Null)).collect();
        let (request, client) = read(Value::Object(nulls)).expect("a request");
        assert_eq!((request.text.as_str(), client.options.is_empty(), client.tools.len()), ("hi", true, 0));
        let said = json!({ "messages": [
            { "role": "user", "content": "a", "name": null },
            { "role": "assistant", "content": null, "tool_calls": null, "refusal": null, "audio": null, "function_call": null },
            { "role": "user", "content": "b", "tool_calls": null },
        ] });
        assert_eq!(read(said).expect("a request").1.history.len(), 2);
    }

    #[test]
    fn what_can_be_honoured_is_passed_on() {
        let asked = json!({
            "temperature": 0.5, "top_p": 0.9, "max_tokens": 9, "max_completion_tokens": 7, "stop": ".", "seed": 3,
            "presence_penalty": 0, "frequency_penalty": 1, "response_format": { "type": "json_object" }, "user": "ada",
            "parallel_tool_calls": false, "tools": tools(), "tool_choice": "required", "reasoning_effort": "low",
            "n": 1, "logprobs": false, "store": false, "service_tier": "auto", "modalities": ["text"],
        });
        let options = read(asked).expect("a request").1.options;
        let names = ["temperature", "top_p", "max_tokens", "stop", "seed", "frequency_penalty", "response_format"];
        let more = ["reasoning_effort", "tool_choice", "parallel_tool_calls", "strict", "user"];
        assert_eq!(options.names(), [names.as_slice(), &more].concat());
        assert_eq!((options.tokens_max, options.stop.as_slice()), (Some(7), [".".to_owned()].as_slice()));
        let named = json!({ "tools": tools(), "tool_choice": { "type": "function", "function": { "name": "f" } } });
        assert_eq!(read(named).expect("fine").1.options.tool_choice, Some(ToolChoice::Function("f".into())));
        let none = read(json!({ "tools": tools(), "tool_choice": "none" })).expect("a request").1;
        assert!(none.tools.is_empty() && none.options.tool_choice.is_none());
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_its_name() {
        for (name, value) in [
            ("n", json!(2)),
            ("logprobs", json!(true)),
            ("store", json!(true)),
            ("metadata", json!({ "a": "b" })),
            ("functions", json!([{ "name": "f" }])),
            ("service_tier", json!("priority")),
            ("temprature", json!(0.1)),
            ("response_format", json!({ "type": "xml" })),
            ("tool_choice", json!("required")),
            ("stop", json!(vec!["x"; 17])),
        ] {
            let mut more = Map::new();
            more.insert(name.to_owned(), value);
            let problem = read(Value::Object(more)).expect_err(name);
            assert_eq!(problem.fact("param"), Some(&json!(name)));
        }
        let problem = read(json!({ "stream_options": { "x": 1 } })).expect_err("unknown");
        assert_eq!(problem.fact("param"), Some(&json!("stream_options.x")));
        let custom =
            read(json!({ "tools": [{ "type": "custom", "custom": { "name": "f" } }] })).expect_err("no function");
        assert_eq!(custom.fact("param"), Some(&json!("tools.[0]")));
    }

    #[test]
    fn content_is_a_text_or_parts_and_an_image_alone_is_a_message() {
        let image = json!({ "type": "image_url", "image_url": { "url": "https://a.example/x.png", "detail": "low" } });
        let said = |content: Value| read(json!({ "messages": [{ "role": "user", "content": content }] }));
        let (request, _) = said(json!([image])).expect("an image");
        assert_eq!((request.text.as_str(), request.images.len()), ("", 1));
        let (request, _) =
            said(json!([{ "type": "text", "text": "a" }, image, { "type": "text", "text": "b" }])).expect("parts");
        assert_eq!((request.text.as_str(), request.images.len()), ("a\nb", 1));
        let audio = said(json!([{ "type": "input_audio", "input_audio": {} }])).expect_err("no audio");
        assert_eq!(audio.fact("param"), Some(&json!("messages.[0]")));
        let system = json!([{ "role": "system", "content": [{ "type": "text", "text": "Be brief." }] }, { "role": "user", "content": "hi" }]);
        let (_, client) = read(json!({ "messages": system })).expect("a request");
        assert_eq!(client.history, [Message::system("Be brief.")]);
    }
}
