//! A request as Chat Completions has it, in the words of a dialect.

use std::collections::{BTreeMap, BTreeSet};

use caxton_proto::Digest;
use serde_json::{Map, Value, json};

use super::super::dialect::{Dialect, RequestFeatures, names::Names, schema, thread};
use super::super::echo::Echo;
use super::super::{ChatRequest, Message, Part, ReplyOptions, ToolCall, ToolChoice, ToolDefinition};

/// A signature that Gemini takes for a call that another model made.
const FOREIGN_SIGNATURE: &str = "skip_thought_signature_validator";
/// What stands for the reasoning of another model, where there has to be some.
const FOREIGN_REASONING: &str = "(the reasoning of another model, which is not kept)";
/// How long Mistral's ids are.
const SHORT_ID_CHARS: usize = 9;

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
        let mut sent =
            RequestFeatures { stream: dialect.stream, tools: !tools.is_empty(), ..RequestFeatures::default() };
        let messages = messages(request, dialect, origin, &names, &mut sent);
        let mut body = json!({ "model": request.model, "messages": messages, "stream": dialect.stream });
        if dialect.stream && dialect.stream_usage {
            body["stream_options"] = json!({ "include_usage": true });
            sent.stream_usage = true;
        }
        if !tools.is_empty() {
            body["tools"] = tools.iter().map(|tool| tool_body(tool, dialect, &names, &request.options)).collect();
        }
        put_options(&mut body, &request.options, &names);
        if let Some(temperature) = request.temperature.filter(|_| dialect.temperature) {
            body["temperature"] = json!(temperature);
            sent.temperature = true;
        }
        let most = [request.tokens_max, request.tokens_max.and(dialect.tokens_max)].into_iter().flatten().min();
        if let Some(most) = most {
            body[dialect.tokens_field.as_str()] = json!(most);
            sent.tokens = Some((dialect.tokens_field, most));
        }
        Wording { body, sent, names }
    }
}

fn tool_body(tool: &ToolDefinition, dialect: &Dialect, names: &Names, options: &ReplyOptions) -> Value {
    let parameters = if dialect.strict_schemas { schema::strict(&tool.parameters) } else { (*tool.parameters).clone() };
    let mut function =
        json!({ "name": names.there(&tool.name), "description": tool.description, "parameters": parameters });
    if options.strict_tools.contains(&tool.name) {
        function["strict"] = json!(true);
    }
    json!({ "type": "function", "function": function })
}

/// What the sender asks of the reply; length and temperature are the request's own.
fn put_options(body: &mut Value, options: &ReplyOptions, names: &Names) {
    let ReplyOptions { temperature: _, tokens_max: _, strict_tools: _, top_k: _, top_p, stop, seed, .. } = options;
    let ReplyOptions { presence_penalty, frequency_penalty, logit_bias, response_format, .. } = options;
    let ReplyOptions { reasoning_effort, verbosity, tool_choice, single_call, user, .. } = options;
    let has_tools = body.get("tools").is_some();
    let choice = tool_choice.as_ref().map(|choice| match choice {
        ToolChoice::Required => json!("required"),
        ToolChoice::Function(name) => json!({ "type": "function", "function": { "name": names.there(name) } }),
    });
    let fields = [
        ("top_p", top_p.map(|number| json!(number))),
        ("stop", (!stop.is_empty()).then(|| json!(stop))),
        ("seed", seed.map(|number| json!(number))),
        ("presence_penalty", presence_penalty.map(|number| json!(number))),
        ("frequency_penalty", frequency_penalty.map(|number| json!(number))),
        ("logit_bias", logit_bias.clone()),
        ("response_format", response_format.clone()),
        ("reasoning_effort", reasoning_effort.as_ref().map(|text| json!(text))),
        ("verbosity", verbosity.as_ref().map(|text| json!(text))),
        ("tool_choice", choice.filter(|_| has_tools)),
        ("parallel_tool_calls", (*single_call && has_tools).then_some(json!(false))),
        ("user", user.as_ref().map(|text| json!(text))),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            body[name] = value;
        }
    }
}

fn messages(
    request: &ChatRequest,
    dialect: &Dialect,
    origin: &str,
    names: &Names,
    sent: &mut RequestFeatures,
) -> Vec<Value> {
    let told;
    let mut messages = request.messages.as_slice();
    if !dialect.tools {
        told = thread::tell_calls(messages);
        messages = &told;
    }
    if messages.iter().any(|message| matches!(message, Message::System { .. })) {
        sent.system = Some(dialect.system);
    }
    let arranged = thread::arrange(messages, dialect.system);
    let joined;
    let mut messages = &*arranged;
    if dialect.alternate_roles {
        joined = thread::alternate(messages);
        messages = &joined;
    }
    let mut ids = Ids { short: dialect.short_ids, ..Ids::default() };
    messages.iter().map(|message| message_body(message, dialect, origin, names, &mut ids, sent)).collect()
}

fn message_body(
    message: &Message,
    dialect: &Dialect,
    origin: &str,
    names: &Names,
    ids: &mut Ids,
    sent: &mut RequestFeatures,
) -> Value {
    match message {
        Message::System { text } => json!({ "role": "system", "content": text }),
        Message::User { parts } => json!({ "role": "user", "content": content(parts) }),
        Message::Assistant { text, calls, echo } => {
            let echo = Echo::read(echo.as_deref(), origin);
            let mut body = Map::new();
            body.insert("role".to_owned(), json!("assistant"));
            let nothing = text.is_empty() && !calls.is_empty() && !dialect.empty_content;
            let mut content = if nothing { Value::Null } else { json!(text) };
            if let Some(echo) = echo.as_ref().filter(|_| dialect.reasoning) {
                sent.echo |= !echo.message.is_empty() || !echo.parts.is_empty();
                if !echo.parts.is_empty() {
                    content = parts_again(&echo.parts, text);
                }
            }
            body.insert("content".to_owned(), content);
            if !calls.is_empty() {
                sent.calls = true;
                body.insert("tool_calls".to_owned(), calls_body(calls, echo.as_ref(), dialect, names, ids, sent));
            }
            if let Some(echo) = echo.filter(|_| dialect.reasoning) {
                for (name, value) in echo.message {
                    body.entry(name).or_insert(value);
                }
            }
            if dialect.fill_reasoning && !calls.is_empty() {
                let filler = if text.is_empty() { FOREIGN_REASONING } else { text };
                body.entry("reasoning_content").or_insert_with(|| json!(filler));
            }
            Value::Object(body)
        }
        Message::Tool { call, text, .. } => {
            json!({ "role": "tool", "tool_call_id": ids.of_result(call), "content": text })
        }
    }
}

fn calls_body(
    calls: &[ToolCall],
    echo: Option<&Echo>,
    dialect: &Dialect,
    names: &Names,
    ids: &mut Ids,
    sent: &mut RequestFeatures,
) -> Value {
    let mut bodies = Vec::with_capacity(calls.len());
    for (place, call) in calls.iter().enumerate() {
        let kept = echo.and_then(|echo| echo.calls.get(place));
        let id = ids.of_call(&call.id, kept.map_or("", |kept| &kept.id));
        // What the model wrote may be no JSON, and some servers read it before they pass it on.
        let arguments = if call.arguments.trim().is_empty() { "{}" } else { call.arguments.as_str() };
        let mut body = json!({ "id": id, "type": "function",
            "function": { "name": names.there(&call.tool), "arguments": arguments } });
        if let (Some(kept), Value::Object(body)) = (kept.filter(|_| dialect.reasoning), &mut body) {
            for (name, value) in &kept.fields {
                sent.echo = true;
                body.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
        bodies.push(body);
    }
    if dialect.fill_signature && bodies.iter().all(|body| body.get("extra_content").is_none()) {
        bodies[0]["extra_content"] = json!({ "google": { "thought_signature": FOREIGN_SIGNATURE } });
    }
    bodies.into()
}

/// The parts of a message as they were, with its text where text stood first.
fn parts_again(parts: &[Value], text: &str) -> Value {
    let mut text = Some(text).filter(|text| !text.is_empty());
    let mut again: Vec<Value> = Vec::with_capacity(parts.len() + 1);
    for part in parts {
        match part["type"] == "text" {
            true => again.extend(text.take().map(|text| json!({ "type": "text", "text": text }))),
            false => again.push(part.clone()),
        }
    }
    again.extend(text.map(|text| json!({ "type": "text", "text": text })));
    again.into()
}

fn content(parts: &[Part]) -> Value {
    // Text alone is text: many servers know nothing else.
    if parts.iter().all(|part| matches!(part, Part::Text { .. })) {
        let texts = parts.iter().filter_map(|part| match part {
            Part::Text { text } => Some(text.as_str()),
            Part::Image { .. } => None,
        });
        return texts.collect::<Vec<_>>().join("\n\n").into();
    }
    let body = |part: &Part| match part {
        Part::Text { text } => json!({ "type": "text", "text": text }),
        Part::Image { url } => json!({ "type": "image_url", "image_url": { "url": url } }),
    };
    parts.iter().map(body).collect()
}

/// The ids of a request's calls: the provider's own where they are told apart by it, and ours otherwise.
#[derive(Default)]
struct Ids {
    short: bool,
    used: BTreeSet<String>,
    /// What is sent for an id of ours.
    sent: BTreeMap<String, String>,
}

impl Ids {
    fn of_call(&mut self, own: &str, theirs: &str) -> String {
        let mut id = if theirs.is_empty() || self.used.contains(theirs) { own } else { theirs }.to_owned();
        if self.short && !is_short(&id) {
            id = short(&id);
        }
        let mut again = 1_u32;
        while self.used.contains(&id) {
            id = if self.short { short(&format!("{own}/{again}")) } else { format!("{own}_{again}") };
            again += 1;
        }
        self.used.insert(id.clone());
        self.sent.insert(own.to_owned(), id.clone());
        id
    }

    fn of_result(&self, own: &str) -> String {
        self.sent.get(own).cloned().unwrap_or_else(|| if self.short { short(own) } else { own.to_owned() })
    }
}

fn is_short(id: &str) -> bool {
    id.len() == SHORT_ID_CHARS && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn short(id: &str) -> String {
    Digest::of(id.as_bytes()).to_string().chars().filter(char::is_ascii_hexdigit).take(SHORT_ID_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: &str) -> ToolCall {
        ToolCall { id: id.into(), tool: "files.read".into(), arguments: "{}".into() }
    }

    fn result(id: &str) -> Message {
        Message::Tool { call: id.into(), tool: "files.read".into(), text: "t".into(), failed: false }
    }

    fn asked(messages: Vec<Message>) -> ChatRequest {
        ChatRequest {
            model: "m".into(),
            messages,
            tools: vec![],
            temperature: None,
            tokens_max: None,
            needs_tools: false,
            options: crate::llm::ReplyOptions::default(),
        }
    }

    /// A reply whose provider gave its only call this id.
    fn said(own: &str, theirs: &str) -> Message {
        let mut echo = Echo::of("home".into());
        echo.calls.push(super::super::super::echo::CallEcho { id: theirs.into(), fields: Map::new() });
        Message::Assistant { text: String::new(), calls: vec![call(own)], echo: echo.into_text(&[call(own)]) }
    }

    #[test]
    fn a_provider_hears_its_own_ids_and_ours_where_it_repeats_them() {
        let messages = vec![said("call_1_0", "x"), result("call_1_0"), said("call_3_0", "x"), result("call_3_0")];
        let body = Wording::of(&asked(messages.clone()), &Dialect::default(), "home").body;
        let id = |at: usize| body["messages"][at]["tool_calls"][0]["id"].clone();
        assert_eq!((id(0), id(2)), (json!("x"), json!("call_3_0")));
        assert_eq!((&body["messages"][1]["tool_call_id"], &body["messages"][3]["tool_call_id"]), (&id(0), &id(2)));
        assert_eq!(body["messages"][0]["tool_calls"][0]["function"]["name"], "files_read");
        let elsewhere = Wording::of(&asked(messages.clone()), &Dialect::default(), "elsewhere").body;
        assert_eq!(
            elsewhere["messages"][0]["tool_calls"][0]["id"], "call_1_0",
            "another one's ids are none of its business"
        );
        let short = Wording::of(&asked(messages), &Dialect { short_ids: true, ..Dialect::default() }, "home").body;
        let id = |at: usize| short["messages"][at]["tool_calls"][0]["id"].as_str().expect("an id").to_owned();
        assert!(is_short(&id(0)) && is_short(&id(2)) && id(0) != id(2));
        assert_eq!(short["messages"][3]["tool_call_id"], id(2));
    }

    #[test]
    fn a_limit_is_sent_only_where_there_is_one_and_never_above_what_the_model_writes() {
        let dialect = Dialect { tokens_max: Some(100), ..Dialect::default() };
        let with = |most| Wording::of(&ChatRequest { tokens_max: most, ..asked(vec![]) }, &dialect, "").body;
        assert_eq!(with(None).get("max_tokens"), None);
        assert_eq!((&with(Some(50))["max_tokens"], &with(Some(500))["max_tokens"]), (&json!(50), &json!(100)));
    }

    #[test]
    fn a_model_without_tools_reads_earlier_calls_as_words() {
        let messages = vec![Message::user("hi"), said("a", ""), result("a")];
        let dialect = Dialect { tools: false, ..Dialect::default() };
        let body = Wording::of(&asked(messages), &dialect, "home").body.to_string();
        assert!(!body.contains("tool_call") && body.contains("[result of files.read]"), "{body}");
    }
}
