//! docs/openapi.json held against tools that read such descriptions: a validator, and a generator of clients whose client is
//! used. pip fetches them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::clients::{left_out, node, python};
use crate::run::Place;

/// The tools that this was written against.
const PACKAGES: [&str; 2] = ["openapi-spec-validator==0.9.0", "openapi-python-client==0.29.1"];

/// What an answer is held against: the statuses, media types and bodies that the description has for it.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";
/// Streams, which have no end; bodies of a format that it cannot write; and what one node alone cannot do.
const NOT_ASKED: &str = "/(events|artifacts|import|transfer)$";

fn tools() -> Option<PathBuf> {
    let python = python("openapi-venv", &PACKAGES);
    if python.is_none() {
        left_out("tools for descriptions of APIs", "python3 with venv");
    }
    Some(python?.parent()?.to_owned())
}

fn description() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_description_is_valid() {
    let Some(tools) = tools() else { return };
    let ran = Command::new(tools.join("openapi-spec-validator")).arg(description()).output().expect("it runs");
    assert!(ran.status.success(), "{}", said(&ran));
}

#[test]
fn a_client_that_is_generated_from_the_description_sends_a_message() {
    let Some(tools) = tools() else { return };
    let place = Place::new();
    let folder = place.dir.path().join("generated");
    let mut generate = Command::new(tools.join("openapi-python-client"));
    generate.args(["generate", "--meta", "none", "--path"]).arg(description());
    let ran = generate.arg("--output-path").arg(folder.join("caxton_client")).output().expect("it runs");
    assert!(ran.status.success(), "{}", said(&ran));
    // Bodies that are no JSON it leaves out; whatever is JSON it has to understand.
    for trouble in ["Unable to parse schema", "Could not find reference"] {
        assert!(!said(&ran).contains(trouble), "{}", said(&ran));
    }
    let (node, token) = node(&place);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/process/clients/generated_client.py");
    let mut client = Command::new(tools.join("python"));
    let ran = client.arg(script).arg(&folder).arg(&node.url).arg(token).output().expect("it runs");
    assert!(ran.status.success(), "{}", said(&ran));
    assert!(node.terminate().success());
}

/// Requests of every kind that the description allows, and of some that it does not: what comes back is what it says.
#[test]
fn nothing_is_answered_that_the_description_does_not_say() {
    let Some(tools) = python("schemathesis-venv", &["schemathesis==4.32.5"]) else {
        left_out("schemathesis", "python3 with venv");
        return;
    };
    let place = Place::new();
    let (node, token) = node(&place);
    let mut check = Command::new(tools.parent().expect("a folder").join("schemathesis"));
    check.current_dir(place.dir.path()).arg("run").arg(description()).args(["--url", &node.url]);
    check.args(["--header", &format!("Authorization: Bearer {token}"), "--seed", "1", "--max-examples", "5"]);
    check.args(["--phases", "coverage,fuzzing", "--no-color", "--request-timeout", "20", "--warnings", "off"]);
    check.args(["--checks", CHECKS, "--exclude-path-regex", NOT_ASKED]);
    let ran = check.output().expect("it runs");
    assert!(ran.status.success(), "{}", said(&ran));
    assert!(node.terminate().success());
}
