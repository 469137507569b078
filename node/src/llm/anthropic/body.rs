//! A request as the Messages API has it, in the words of a dialect.

use std::collections::{BTreeMap, BTreeSet};

use caxton_proto::manifest::provider::{SystemStyle, TokensField};
use serde_json::{Value, json};

use super::super::dialect::{Dialect, RequestFeatures, names::Names, schema, thread};
use super::super::echo::Echo;
use super::super::{ChatRequest, Message, Part, ReplyOptions, ToolCall, ToolChoice, ToolDefinition};

/// The API demands a limit; this one holds when the agent names none.
const TOKENS_MAX_DEFAULT: u32 = 4_096;

/// A request in words, and what is in it.
pub(super) struct Wording {
    pub body: Value,
    pub sent: RequestFeatures,
    pub names: Names,
}

impl Wording {
    /// Puts a request into words. `origin` says whose echoes may be sent.
    pub fn of(request: &ChatRequest, dialect: &Dialect, origin: &str) -> Wording {
        let tools: &[ToolDefinition] = if dialect.tools { &request.tools } else { &[] };
        let names = Names::of(tools, &request.messages, dialect.strict_names);
        let mut sent = RequestFeatures { stream: true, tools: !tools.is_empty(), ..RequestFeatures::default() };
        // A request without tools may not have calls in it either.
        let told;
        let mut messages = request.messages.as_slice();
        if tools.is_empty() {
            told = thread::tell_calls(messages);
            messages = &told;
        }
        let arranged = thread::arrange(messages, SystemStyle::One);
        let (system, messages) = match arranged.split_first() {
            Some((Message::System { text }, rest)) => (Some(text.as_str()), rest),
            Some(_) | None => (None, &*arranged),
        };
        let asked = request.tokens_max.unwrap_or(TOKENS_MAX_DEFAULT);
        let most = dialect.tokens_max.map_or(asked, |most| most.min(asked));
        sent.tokens = Some((TokensField::MaxTokens, most));
        let turns = turns(messages, dialect, origin, &names, &mut sent);
        let mut body = json!({ "model": request.model, "max_tokens": most, "messages": turns, "stream": true });
        if let Some(system) = system.filter(|text| !text.trim().is_empty()) {
            body["system"] = json!(system);
        }
        if !tools.is_empty() {
            body["tools"] = tools.iter().map(|tool| tool_body(tool, dialect, &names)).collect();
        }
        if let Some(temperature) = request.temperature.filter(|_| dialect.temperature) {
            body["temperature"] = json!(temperature);
            sent.temperature = true;
        }
        put_options(&mut body, &request.options, &names);
        Wording { body, sent, names }
    }
}

/// The options that the API has a word for.
pub(super) const TAKEN: &[&str] = &["temperature", "top_p", "top_k", "max_tokens", "stop", "tool_choice", "user"];

/// What the sender asks of the reply; length and temperature are the request's own.
fn put_options(body: &mut Value, options: &ReplyOptions, names: &Names) {
    if let Some(number) = options.top_p {
        body["top_p"] = json!(number);
    }
    if let Some(number) = options.top_k {
        body["top_k"] = json!(number);
    }
    if !options.stop.is_empty() {
        body["stop_sequences"] = json!(options.stop);
    }
    if let Some(user) = &options.user {
        body["metadata"] = json!({ "user_id": user });
    }
    if body.get("tools").is_none() {
        return;
    }
    let mut choice = match &options.tool_choice {
        Some(ToolChoice::Required) => json!({ "type": "any" }),
        Some(ToolChoice::Function(name)) => json!({ "type": "tool", "name": names.there(name) }),
        None if options.single_call => json!({ "type": "auto" }),
        None => return,
    };
    if options.single_call {
        choice["disable_parallel_tool_use"] = json!(true);
    }
    body["tool_choice"] = choice;
}

fn tool_body(tool: &ToolDefinition, dialect: &Dialect, names: &Names) -> Value {
    let schema = if dialect.strict_schemas { schema::strict(&tool.parameters) } else { (*tool.parameters).clone() };
    json!({ "name": names.there(&tool.name), "description": tool.description, "input_schema": schema })
}

/// The API wants user and assistant to alternate, and all results of one reply's calls in one user message.
fn turns(
    messages: &[Message],
    dialect: &Dialect,
    origin: &str,
    names: &Names,
    sent: &mut RequestFeatures,
) -> Vec<Value> {
    let mut turns: Vec<(&str, Vec<Value>)> = Vec::new();
    let mut ids = Ids::default();
    for message in messages {
        let (role, blocks) = match message {
            Message::System { .. } => continue,
            Message::User { parts } => ("user", parts.iter().filter_map(part_body).collect()),
            Message::Assistant { text, calls, echo } => {
                let echo = Echo::read(echo.as_deref(), origin);
                sent.calls |= !calls.is_empty();
                ("assistant", assistant_blocks(text, calls, echo, dialect, names, &mut ids, sent))
            }
            Message::Tool { call, text, failed, .. } => {
                let id = ids.sent.get(call).unwrap_or(call);
                let result = json!({ "type": "tool_result", "tool_use_id": id, "content": text, "is_error": failed });
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

fn assistant_blocks(
    text: &str,
    calls: &[ToolCall],
    echo: Option<Echo>,
    dialect: &Dialect,
    names: &Names,
    ids: &mut Ids,
    sent: &mut RequestFeatures,
) -> Vec<Value> {
    let asked = calls.iter().enumerate().map(|(place, call)| {
        let theirs = echo.as_ref().and_then(|echo| echo.calls.get(place)).map_or("", |kept| &kept.id);
        // What the model wrote may not be JSON; the API takes objects only, and the result says what was wrong.
        let input: Value = serde_json::from_str(&call.arguments).ok().filter(Value::is_object).unwrap_or(json!({}));
        json!({ "type": "tool_use", "id": ids.of_call(&call.id, theirs), "name": names.there(&call.tool), "input": input })
    });
    let mut asked: Vec<Option<Value>> = asked.map(Some).collect();
    let mut blocks = Vec::new();
    let parts = echo.map(|echo| echo.parts).filter(|parts| dialect.reasoning && !parts.is_empty());
    match parts {
        Some(parts) => {
            sent.echo = true;
            for part in parts {
                match part["type"].as_str() {
                    Some("text") => blocks.extend(text_block(part["text"].as_str().unwrap_or_default())),
                    Some("call") => {
                        let place = part["place"].as_u64().and_then(|place| usize::try_from(place).ok());
                        blocks.extend(place.and_then(|place| asked.get_mut(place)?.take()));
                    }
                    _ => blocks.push(part),
                }
            }
        }
        None => blocks.extend(text_block(text)),
    }
    blocks.extend(asked.into_iter().flatten());
    blocks
}

/// Text that is blank is refused.
fn text_block(text: &str) -> Option<Value> {
    (!text.trim().is_empty()).then(|| json!({ "type": "text", "text": text }))
}

fn part_body(part: &Part) -> Option<Value> {
    match part {
        Part::Text { text } => text_block(text),
        Part::Image { url } => {
            let inline = url.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,"));
            let source = match inline {
                Some((kind, data)) => json!({ "type": "base64", "media_type": kind, "data": data }),
                None => json!({ "type": "url", "url": url }),
            };
            Some(json!({ "type": "image", "source": source }))
        }
    }
}

/// The ids of a request's calls: the provider's own where they are told apart by it, and ours otherwise.
#[derive(Default)]
struct Ids {
    used: BTreeSet<String>,
    sent: BTreeMap<String, String>,
}

impl Ids {
    fn of_call(&mut self, own: &str, theirs: &str) -> String {
        let fits =
            |id: &str| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        let wanted = if fits(theirs) && !self.used.contains(theirs) { theirs } else { own };
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
        let mut id: String = wanted.chars().map(plain).collect();
        let mut again = 1_u32;
        while id.is_empty() || self.used.contains(&id) {
            id = format!("call_{}_{again}", self.used.len());
            again += 1;
        }
        self.used.insert(id.clone());
        self.sent.insert(own.to_owned(), id.clone());
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(messages: Vec<Message>, tools: Vec<ToolDefinition>) -> ChatRequest {
        ChatRequest {
            model: "m".into(),
            messages,
            tools,
            temperature: None,
            tokens_max: None,
            needs_tools: false,
            options: crate::llm::ReplyOptions::default(),
        }
    }

    fn tool() -> ToolDefinition {
        ToolDefinition { name: "f".into(), description: String::new(), parameters: json!({ "oneOf": [] }).into() }
    }

    #[test]
    fn thoughts_go_back_to_where_they_came_from() {
        let call = ToolCall { id: "call_1_0".into(), tool: "f".into(), arguments: "{}".into() };
        let thought = json!({ "type": "thinking", "thinking": "I see.", "signature": "s" });
        let mut echo = Echo::of("home".into());
        echo.parts = vec![thought.clone(), json!({ "type": "call", "place": 0 })];
        echo.calls.push(super::super::super::echo::CallEcho { id: "toolu_1".into(), fields: serde_json::Map::new() });
        let echo = echo.into_text(std::slice::from_ref(&call));
        let result = Message::Tool { call: call.id.clone(), tool: "f".into(), text: "t".into(), failed: false };
        let said = Message::Assistant { text: String::new(), calls: vec![call], echo };
        let request = asked(vec![Message::user("hi"), said, result], vec![tool()]);
        let body = Wording::of(&request, &Dialect::default(), "home").body;
        let use_of = |id: &str| json!({ "type": "tool_use", "id": id, "name": "f", "input": {} });
        assert_eq!(body["messages"][1]["content"], json!([thought, use_of("toolu_1")]));
        assert_eq!(body["messages"][2]["content"][0]["tool_use_id"], "toolu_1");
        assert_eq!(body["tools"][0]["input_schema"], json!({ "type": "object", "properties": {} }));
        let elsewhere = Wording::of(&request, &Dialect::default(), "elsewhere").body;
        assert_eq!(elsewhere["messages"][1]["content"], json!([use_of("call_1_0")]));
        let without = Wording::of(&asked(request.messages, vec![]), &Dialect::default(), "home").body;
        assert!(!without.to_string().contains("tool_use"), "a request without tools has no calls in it: {without}");
    }

    #[test]
    fn blank_text_and_bad_arguments_are_not_sent() {
        let call = ToolCall { id: "a b".into(), tool: "f".into(), arguments: "[1".into() };
        let said = Message::Assistant { text: " ".into(), calls: vec![call], echo: None };
        let result = Message::Tool { call: "a b".into(), tool: "f".into(), text: "t".into(), failed: true };
        let request = asked(vec![Message::user(""), Message::user("hi"), said, result], vec![tool()]);
        let body = Wording::of(&request, &Dialect::default(), "").body;
        assert_eq!(body["messages"][0]["content"], json!([{ "type": "text", "text": "hi" }]));
        assert_eq!(
            body["messages"][1]["content"],
            json!([{ "type": "tool_use", "id": "a_b", "name": "f", "input": {} }])
        );
        assert_eq!(body["messages"][2]["content"][0]["tool_use_id"], "a_b");
    }
}
