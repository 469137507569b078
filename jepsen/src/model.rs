//! What is deployed: a workspace with two agents, a model whose file carries a number and a program, the requests that put it
//! live, and what clients write.
//!
//! The harness makes the digests by itself, from the rules in `proto/src/tree.rs`: a second opinion on the format.

use std::sync::LazyLock;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The agent that is a model.
pub const AGENT: &str = "clerk";
/// The agent that is a program, and counts.
pub const COUNTER: &str = "tally";
/// An agent that is never deployed.
pub const NOBODY: &str = "nobody";
/// The file that differs from number to number.
const NUMBERED: &str = "agents/clerk.toml";
const SCRIPT: &str = "[[rule]]\nsay = \"noted\"\n";
const TALLY: &str = "[agent]\nname = \"tally\"\nkind = \"core\"\nmodule = \"./tally.wasm\"\n";

/// The program, made once: its digest is the same in every deployment of a run.
static TALLY_WASM: LazyLock<Vec<u8>> = LazyLock::new(|| wat::parse_str(include_str!("tally.wat")).unwrap_or_default());

/// The files of a workspace in which `value` is live.
fn files(workspace: &str, value: u64) -> [(&'static str, Vec<u8>); 5] {
    let manifest = format!(
        "[workspace]\nname = \"{workspace}\"\n\n[llm]\nprovider = \"script\"\n\n\
         [providers.script]\nkind = \"scripted\"\nscript = \"prompts/script.toml\"\n"
    );
    let agent = format!(
        "[agent]\nname = \"{AGENT}\"\nversion = \"1.0.{value}\"\ndescription = \"Takes note of numbers, last of {value}\"\n\n\
         [capabilities]\npatterns = [\"take note of a number\"]\n\n[prompts]\nsystem = \"You take notes.\"\n"
    );
    [
        ("caxton.toml", manifest.into_bytes()),
        (NUMBERED, agent.into_bytes()),
        ("agents/tally.toml", TALLY.into()),
        ("agents/tally.wasm", TALLY_WASM.clone()),
        ("prompts/script.toml", SCRIPT.into()),
    ]
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
        leaf.extend_from_slice(&sha(&text));
        leaf.extend_from_slice(&(text.len() as u64).to_be_bytes());
        leaf.push(0);
    }
    hex(&sha(&leaf))
}

/// The files that differ from those of any other number; all of them when nothing is live.
fn upserts(workspace: &str, parent: u64, value: u64) -> Vec<(&'static str, Vec<u8>)> {
    files(workspace, value).into_iter().filter(|(path, _)| parent == 0 || *path == NUMBERED).collect()
}

/// The body of `PUT .../artifacts`.
pub fn blobs(workspace: &str, parent: u64, value: u64) -> Vec<u8> {
    let mut body = Vec::new();
    for (_, text) in upserts(workspace, parent, value) {
        body.extend_from_slice(&sha(&text));
        body.extend_from_slice(&(text.len() as u32).to_be_bytes());
        body.extend_from_slice(&text);
    }
    body
}

/// The body of `POST .../deployments`.
pub fn deployment(workspace: &str, parent: u64, value: u64, idempotency_key: &str) -> Vec<u8> {
    let upserts: Vec<Value> = upserts(workspace, parent, value)
        .into_iter()
        .map(|(path, text)| json!({ "path": path, "digest": hex(&sha(&text)), "bytes": text.len() }))
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

/// What the message of a number is answered with `in_reply_to`.
pub fn mark(value: u64) -> String {
    format!("m{value}")
}

/// The number of such a mark.
pub fn marked(mark: &str) -> Option<u64> {
    mark.strip_prefix('m')?.parse().ok()
}

/// The count in an answer of [`COUNTER`].
pub fn count(text: &str) -> Option<u64> {
    text.strip_prefix("counted ")?.parse().ok()
}

/// A time so many seconds from now, as RFC 3339.
#[expect(clippy::disallowed_methods, reason = "clients have the machine's clock")]
pub fn in_seconds(seconds: u64) -> String {
    jiff::Timestamp::now()
        .saturating_add(jiff::SignedDuration::from_secs(seconds as i64))
        .map_or_else(|_| String::new(), |at| at.to_string())
}

/// The id under which a client asks for a memory to be kept: the client's number of it, in a form that no other program draws.
pub fn memory_id(number: u64) -> String {
    format!("{:032x}", (0x6a65_7073_656e_u128 << 64) | u128::from(number))
}

/// The number of such an id.
pub fn memory_number(id: &str) -> Option<u64> {
    let id = u128::from_str_radix(id, 16).ok()?;
    (id >> 64 == 0x6a65_7073_656e).then_some(id as u64)
}

/// The one word that the memory of a number has and no other.
pub fn memory_word(memory: u64) -> String {
    format!("number{memory}")
}

/// The text of a memory with the value that it has now.
pub fn memory_text(memory: u64, value: u64) -> String {
    format!("{} has the value {value}", memory_word(memory))
}

/// The memory and its value, from its text.
pub fn memory_read(text: &str) -> Option<(u64, u64)> {
    let (memory, value) = text.strip_prefix("number")?.split_once(" has the value ")?;
    Some((memory.parse().ok()?, value.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_write_is_read_back() {
        assert_eq!(marked(&mark(7)), Some(7));
        assert_eq!(count("counted 12"), Some(12));
        assert_eq!(memory_number(&memory_id(u64::MAX)), Some(u64::MAX));
        assert_eq!(memory_number("00000000000000000000000000000007"), None);
        assert_eq!(memory_read(&memory_text(3, 9)), Some((3, 9)));
        assert!(memory_text(3, 9).contains(&memory_word(3)));
    }

    #[test]
    fn the_program_is_one() {
        assert!(TALLY_WASM.starts_with(b"\0asm") && TALLY_WASM.len() < 4_096, "{} bytes", TALLY_WASM.len());
    }

    #[test]
    fn only_what_differs_is_sent_and_the_root_names_it() {
        assert_eq!(upserts("w", 0, 1).len(), 5);
        assert_eq!(upserts("w", 4, 1).len(), 1);
        assert_ne!(root("w", 1), root("w", 2));
        assert_ne!(root("w", 1), root("v", 1));
        assert_eq!(number(&text(17)), Some(17));
    }
}
