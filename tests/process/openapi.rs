//! docs/openapi.json held against tools that read such descriptions: a validator, and a generator of clients whose client is
//! used. pip fetches them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::clients::{left_out, node, python};
use crate::run::Place;

/// The tools that this was written against.
const PACKAGES: [&str; 2] = ["openapi-spec-validator==0.9.0", "openapi-python-client==0.29.1"];

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
    let (node, token) = node(&place);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/process/clients/generated_client.py");
    let mut client = Command::new(tools.join("python"));
    let ran = client.arg(script).arg(&folder).arg(&node.url).arg(token).output().expect("it runs");
    assert!(ran.status.success(), "{}", said(&ran));
    assert!(node.terminate().success());
}
