//! The description of what travels in events (AsyncAPI 3): the frames of WebSocket and the events of HTTP's streams. It is made
//! of the types that the node reads and writes; docs/asyncapi.yaml is its text.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use crate::api::mailbox::{Delivery, MessageEvent, SendRequest, SendResponse};
use crate::api::messages::{MessageAnswer, MessageRequest, TurnEvent, TurnRecord};
use crate::api::paths;
use crate::api::socket::{ClientFrame, ServerFrame};
use crate::api::{Deployment, Problem, logs::LogLine};

/// What the document's references lead to.
#[derive(OpenApi)]
#[openapi(components(schemas(
    ClientFrame,
    ServerFrame,
    MessageEvent,
    TurnRecord,
    TurnEvent,
    MessageRequest,
    MessageAnswer,
    SendRequest,
    SendResponse,
    Delivery,
    Deployment,
    LogLine,
    Problem
)))]
struct Schemas;

/// A stream of server-sent events: its name here, its path, what it is, and its events with what each has as its data.
type EventStream = (&'static str, &'static str, &'static str, &'static [(&'static str, &'static str)]);

const STREAMS: [EventStream; 6] = [
    (
        "deployments",
        paths::EVENTS.text(),
        "Deployments of every workspace that the token is for. The id of an event is its `event_id`; `?after=` or the header \
         `Last-Event-ID` goes on behind one.",
        &[("deployment", "Deployment"), ("closed", "Problem")],
    ),
    (
        "workspace-deployments",
        paths::WORKSPACE_EVENTS.text(),
        "Deployments of one workspace, in the same way.",
        &[("deployment", "Deployment"), ("closed", "Problem")],
    ),
    (
        "workspace-logs",
        paths::LOGS.text(),
        "What happens in a workspace, with `?follow=true`. Nothing that is said is in it.",
        &[("line", "LogLine"), ("closed", "Problem")],
    ),
    (
        "messages",
        paths::MAILBOX_EVENTS.text(),
        "What agents and people of a workspace send each other, with `?follow=true`. The id of an event is the message's position.",
        &[("message", "MessageEvent"), ("closed", "Problem")],
    ),
    (
        "conversation",
        paths::CONVERSATION_EVENTS.text(),
        "What is sent in one conversation, with `?follow=true`. The id of an event is the message's number, by which WebSocket and \
         gRPC go on too.",
        &[("message", "MessageEvent"), ("closed", "Problem")],
    ),
    (
        "turn-steps",
        paths::MESSAGES.text(),
        "The steps of an agent that is asked by `POST` with `stream`. The name of an event is the `event` of its data.",
        &[("step", "TurnEvent")],
    ),
];

/// The whole description.
pub fn document() -> Value {
    let schemas = serde_json::to_value(Schemas::openapi()).unwrap_or_default();
    let schemas = schemas.pointer("/components/schemas").cloned().unwrap_or_default();
    let (mut channels, mut operations, mut messages) = (Map::new(), Map::new(), Map::new());
    let (mut received, mut sent) = (Vec::new(), Vec::new());
    for (frame, names) in [("ClientFrame", &mut received), ("ServerFrame", &mut sent)] {
        for variant in schemas[frame]["oneOf"].as_array().into_iter().flatten() {
            let Some(tag) = variant.pointer("/properties/type/enum/0").and_then(Value::as_str) else { continue };
            let name = format!("{}-{tag}", if frame == "ClientFrame" { "client" } else { "node" });
            let summary = variant["description"].as_str().unwrap_or_default();
            messages.insert(name.clone(), message(tag, summary, variant.clone()));
            names.push(name);
        }
    }
    let all: Vec<&String> = received.iter().chain(&sent).collect();
    let about = "One connection over which a client follows, asks and sends. Frames are JSON in text.";
    let mut socket = channel(paths::SOCKET.text(), about, &all);
    socket["bindings"] = json!({ "ws": { "method": "GET" } });
    channels.insert("socket".to_owned(), socket);
    operations.insert("receive-frames".to_owned(), operation("receive", "socket", &received));
    operations.insert("send-frames".to_owned(), operation("send", "socket", &sent));
    for (name, path, about, events) in STREAMS {
        let mut own = Vec::new();
        for (event, schema) in events {
            let key = format!("{name}-{event}");
            let payload = json!({ "$ref": format!("#/components/schemas/{schema}") });
            messages.insert(key.clone(), message(event, "The data of a server-sent event.", payload));
            own.push(key);
        }
        channels.insert(name.to_owned(), channel(path, about, &own.iter().collect::<Vec<_>>()));
        operations.insert(format!("send-{name}"), operation("send", name, &own));
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Caxton: events",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What a node sends and takes in events. openapi.json has the rest of HTTP, and proto/caxton/v1 gRPC.",
            "license": { "name": "Apache-2.0" },
        },
        "defaultContentType": "application/json",
        "servers": {
            "websocket": server("ws", "A node's address: `wss` where it is not loopback."),
            "http": server("http", "The same address: `https` where it is not loopback."),
        },
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": messages,
            "schemas": schemas,
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn server(protocol: &str, about: &str) -> Value {
    let security = json!([{ "$ref": "#/components/securitySchemes/bearer" }]);
    json!({ "host": "127.0.0.1:7411", "protocol": protocol, "description": about, "security": security })
}

fn message(name: &str, summary: &str, payload: Value) -> Value {
    json!({ "name": name, "summary": summary, "payload": payload })
}

fn channel(path: &str, about: &str, messages: &[&String]) -> Value {
    let reference = |name: &&String| ((*name).clone(), json!({ "$ref": format!("#/components/messages/{name}") }));
    let messages: Map<String, Value> = messages.iter().map(reference).collect();
    let server = if path == paths::SOCKET.text() { "websocket" } else { "http" };
    let servers = json!([{ "$ref": format!("#/servers/{server}") }]);
    let mut channel = json!({ "address": path, "description": about, "servers": servers, "messages": messages });
    let mut parameters = Map::new();
    for (name, about) in [("workspace", "The workspace."), ("id", "The conversation.")] {
        if path.contains(&format!("{{{name}}}")) {
            parameters.insert(name.to_owned(), json!({ "description": about }));
        }
    }
    if !parameters.is_empty() {
        channel["parameters"] = Value::Object(parameters);
    }
    channel
}

fn operation(action: &str, channel: &str, messages: &[String]) -> Value {
    let reference = |name: &String| json!({ "$ref": format!("#/channels/{channel}/messages/{name}") });
    let messages: Vec<Value> = messages.iter().map(reference).collect();
    json!({ "action": action, "channel": { "$ref": format!("#/channels/{channel}") }, "messages": messages })
}

/// The description as YAML.
pub fn yaml() -> String {
    let mut text = String::from(
        "# Made of the types in node/src: UPDATE_DOCS=1 cargo test -p caxton --lib asyncapi writes it anew.\n",
    );
    write(&mut text, &document(), 0);
    text
}

/// Writes a value in block style. Texts and names are written as JSON has them, which YAML reads in the same way.
fn write(text: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                let plain = name.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_');
                let name = if plain { name.clone() } else { Value::from(name.as_str()).to_string() };
                _ = write!(text, "{indent}{name}:");
                below(text, value, depth);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                _ = write!(text, "{indent}-");
                below(text, item, depth);
            }
        }
        value => _ = writeln!(text, "{indent}{value}"),
    }
}

/// Writes what stands behind a name or a dash: on its line, or on the lines below.
fn below(text: &mut String, value: &Value, depth: usize) {
    let is_block =
        value.as_object().is_some_and(|it| !it.is_empty()) || value.as_array().is_some_and(|it| !it.is_empty());
    if is_block {
        text.push('\n');
        write(text, value, depth + 1);
    } else {
        _ = writeln!(text, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_channel_is_a_route() {
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 40, "{found:?}");
        for reference in found {
            let pointer = reference.strip_prefix('#').expect("within the document");
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
        let (_, table) = crate::edge::all_routes().into_parts();
        for (name, channel) in document["channels"].as_object().expect("channels") {
            let address = channel["address"].as_str().expect("an address");
            assert!(table.all().any(|route| route.path == address), "{name}: {address}");
        }
    }

    #[test]
    fn every_frame_that_a_node_reads_or_writes_is_a_message() {
        let document = document();
        let messages = document["components"]["messages"].as_object().expect("messages");
        let id = || "a".to_owned();
        let workspace = || "demo".to_owned();
        let clients = [
            ClientFrame::Authenticate { token: id() },
            ClientFrame::Subscribe {
                id: id(),
                workspace: workspace(),
                to: crate::api::socket::Target::OwnMailbox,
                after: None,
            },
            ClientFrame::Unsubscribe { id: id() },
            ClientFrame::Send { id: id(), workspace: workspace(), request: Value::Null },
            ClientFrame::Ask { id: id(), workspace: workspace(), request: Value::Null },
        ];
        let problem = crate::edge::problem::Problem::new(crate::edge::problem::Code::NotFound, "x").body(None);
        let nodes = [
            ServerFrame::Authenticated { subject: id(), role: id() },
            ServerFrame::Subscribed { id: id() },
            ServerFrame::Event { id: id(), number: 1, event: id(), data: Value::Null },
            ServerFrame::Reply { id: id(), data: Value::Null },
            ServerFrame::End { id: id() },
            ServerFrame::Error { id: None, problem },
        ];
        let clients = clients.iter().map(|frame| ("client", serde_json::to_value(frame).expect("JSON")));
        let frames = clients.chain(nodes.iter().map(|frame| ("node", serde_json::to_value(frame).expect("JSON"))));
        let mut seen = 0;
        for (side, frame) in frames {
            let name = format!("{side}-{}", frame["type"].as_str().expect("a type"));
            let properties = messages[&name]["payload"]["properties"].as_object().expect("properties");
            for field in frame.as_object().expect("an object").keys() {
                assert!(properties.contains_key(field), "{name} has no {field}");
            }
            seen += 1;
        }
        let frames = messages.keys().filter(|name| name.starts_with("client-") || name.starts_with("node-"));
        assert_eq!(frames.count(), seen);
    }

    #[test]
    fn text_that_means_something_in_yaml_stays_text() {
        let mut text = String::new();
        write(&mut text, &json!({ "a": ["x: y", "no", "- z\n", {}], "$ref": "#/b", "n": [] , "d": { "e": [[1]] } }), 0);
        let expected = "\"$ref\": \"#/b\"\na:\n  - \"x: y\"\n  - \"no\"\n  - \"- z\\n\"\n  - {}\nd:\n  e:\n    -\n      - 1\nn: []\n";
        let mut lines: Vec<&str> = expected.lines().collect();
        let mut found: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, lines, "{text}");
    }

    #[test]
    fn docs_asyncapi_yaml_is_what_the_code_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/asyncapi.yaml");
        let expected = yaml();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, &expected).expect("docs/asyncapi.yaml can be written");
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == expected, "docs/asyncapi.yaml is old: run UPDATE_DOCS=1 cargo test -p caxton --lib asyncapi");
    }
}
