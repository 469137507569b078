//! What is deployed: a workspace with one agent, whose file carries a number, and the requests that put it live.
//!
//! The harness makes the digests by itself, from the rules in `proto/src/tree.rs`: a second opinion on the format.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The agent's name.
pub const AGENT: &str = "clerk";
const SCRIPT: &str = "[[rule]]\nsay = \"noted\"\n";

/// The files of a workspace in which `value` is live.
fn files(workspace: &str, value: u64) -> [(&'static str, String); 3] {
    let manifest = format!(
        "[workspace]\nname = \"{workspace}\"\n\n[llm]\nprovider = \"script\"\n\n\
         [providers.script]\nkind = \"scripted\"\nscript = \"prompts/script.toml\"\n"
    );
    let agent = format!(
        "[agent]\nname = \"{AGENT}\"\nversion = \"1.0.{value}\"\ndescription = \"Takes note of numbers, last of {value}\"\n\n\
         [capabilities]\npatterns = [\"take note of a number\"]\n\n[prompts]\nsystem = \"You take notes.\"\n"
    );
    [("caxton.toml", manifest), ("agents/clerk.toml", agent), ("prompts/script.toml", SCRIPT.to_owned())]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The Merkle root of the workspace in which `value` is live: one leaf, its files in the order of their paths' digests.
pub fn root(workspace: &str, value: u64) -> String {
    let mut rows = files(workspace, value).map(|(path, text)| (sha(path.as_bytes()), path, text));
    rows.sort();
    let mut leaf = vec![b'L'];
    for (_, path, text) in rows {
        leaf.extend_from_slice(&(path.len() as u16).to_be_bytes());
        leaf.extend_from_slice(path.as_bytes());
        leaf.extend_from_slice(&sha(text.as_bytes()));
        leaf.extend_from_slice(&(text.len() as u64).to_be_bytes());
        leaf.push(0);
    }
    hex(&sha(&leaf))
}

/// The files that differ from those of any other number; all of them when nothing is live.
fn upserts(workspace: &str, parent: u64, value: u64) -> Vec<(&'static str, String)> {
    files(workspace, value).into_iter().filter(|(path, _)| parent == 0 || path.starts_with("agents/")).collect()
}

/// The body of `PUT .../artifacts`.
pub fn blobs(workspace: &str, parent: u64, value: u64) -> Vec<u8> {
    let mut body = Vec::new();
    for (_, text) in upserts(workspace, parent, value) {
        body.extend_from_slice(&sha(text.as_bytes()));
        body.extend_from_slice(&(text.len() as u32).to_be_bytes());
        body.extend_from_slice(text.as_bytes());
    }
    body
}

/// The body of `POST .../deployments`.
pub fn deployment(workspace: &str, parent: u64, value: u64, idempotency_key: &str) -> Vec<u8> {
    let upserts: Vec<Value> = upserts(workspace, parent, value)
        .into_iter()
        .map(|(path, text)| json!({ "path": path, "digest": hex(&sha(text.as_bytes())), "bytes": text.len() }))
        .collect();
    let body = json!({
        "parent": parent,
        "root": root(workspace, value),
        "upserts": upserts,
        "author": { "name": "jepsen", "email": "" },
        "message": value.to_string(),
        "idempotency_key": idempotency_key,
    });
    body.to_string().into_bytes()
}

/// The text of a message that carries a number.
pub fn text(value: u64) -> String {
    format!("take note of number {value}")
}

/// The number in a message's text.
pub fn number(text: &str) -> Option<u64> {
    text.strip_prefix("take note of number ")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_sent_and_the_root_names_it() {
        assert_eq!(upserts("w", 0, 1).len(), 3);
        assert_eq!(upserts("w", 4, 1).len(), 1);
        assert_ne!(root("w", 1), root("w", 2));
        assert_ne!(root("w", 1), root("v", 1));
        assert_eq!(number(&text(17)), Some(17));
    }
}
