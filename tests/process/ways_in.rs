//! gRPC and WebSocket held against other people's own clients, grpcio and websockets for Python, and docs/asyncapi.yaml against the
//! published schema of AsyncAPI. What cannot be had is said.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::clients::{left_out, node_modules, python, script};
use crate::run::{Node, Place};

/// The clients that this was written against.
const PYTHON: [&str; 5] = [
    "grpcio==1.85.3",
    "grpcio-reflection==1.85.1",
    "grpcio-health-checking==1.85.1",
    "googleapis-common-protos==1.76.0",
    "websockets==17.4",
];
/// What reads YAML and holds it against a schema.
const VALIDATOR: [&str; 2] = ["jsonschema==4.26.0", "pyyaml==6.0.4"];
/// The schemas of AsyncAPI as its makers publish them.
const SCHEMAS: [&str; 1] = ["@asyncapi/specs@6.11.1"];

/// A node with one agent, which always says the same.
fn node(place: &Place) -> (Node, String) {
    let workspace = place.empty_workspace("work");
    let settings = "[workspace]\nname = \"demo\"\n[providers.s]\nkind = \"scripted\"\nscript = \"prompts/s.toml\"\n";
    workspace.write("caxton.toml", settings);
    workspace.write("prompts/s.toml", "[[rule]]\nsay = \"All is well.\"\n");
    let agent = "[agent]\nname = \"caller\"\ndescription = \"calls the hours\"\n[capabilities]\npatterns = [\"call the hours\"]\n";
    workspace.write("agents/caller.toml", agent);
    let node = Node::start(&place.data());
    workspace.deploy().ok();
    let token = fs::read_to_string(place.data().join("admin-token")).expect("a token");
    (node, token.trim().to_owned())
}

/// Runs a script with this Python against a node.
fn content(name: &str) {
    let Some(python) = python("ways-in-venv", &PYTHON) else {
        return left_out(name, "python3 with venv");
    };
    let place = Place::new();
    let (node, token) = node(&place);
    let ran = Command::new(python).arg(script(name)).arg(&node.url).arg(token).output().expect("python runs");
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && said.contains("fine"), "{said}");
    assert!(node.terminate().success());
}

#[test]
fn grpcio_is_content() {
    content("grpc_client.py");
}

#[test]
fn websockets_is_content() {
    content("websocket_client.py");
}

#[test]
fn the_description_of_events_keeps_to_the_published_schema() {
    let Some(python) = python("asyncapi-venv", &VALIDATOR) else {
        return left_out("a validator of JSON Schema", "python3 with venv");
    };
    let Some(modules) = node_modules("asyncapi-npm", &SCHEMAS) else {
        return left_out("the schemas of AsyncAPI", "npm");
    };
    let schema = modules.join("node_modules/@asyncapi/specs/schemas/3.0.0.json");
    let described = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/asyncapi.yaml");
    let program = "import json, sys, yaml\nfrom jsonschema import Draft7Validator\n\
        document, schema = yaml.safe_load(open(sys.argv[1])), json.load(open(sys.argv[2]))\n\
        wrong = [f'{list(it.absolute_path)}: {it.message[:300]}' for it in Draft7Validator(schema).iter_errors(document)]\n\
        assert document['asyncapi'] == '3.0.0' and not wrong, wrong[:5]\n\
        document['channels']['socket']['address'] = 5\n\
        assert list(Draft7Validator(schema).iter_errors(document)), 'anything is let through'\n";
    let ran = Command::new(python).arg("-c").arg(program).arg(described).arg(schema).output().expect("python runs");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}
