//! Recordings of real exchanges: [`Tape`] keeps what a provider answered, [`Player`] answers it again.
//!
//! One JSON document a line: the digest of the request, and the reply. A request is found by its digest and not by its
//! place, so that parallel calls replay in any order; anything that changes the conversation changes the digest, and
//! is an error instead of a wrong answer.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use caxton_proto::{Digest, WorkspaceId};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::{ChatRequest, Deltas, Error, Provider, Reply, ReplyOptions};

/// What was asked, by its digest, and what was answered.
#[derive(Debug, Serialize, Deserialize)]
pub struct Exchange {
    request: Digest,
    reply: Reply,
}

impl Exchange {
    /// The exchange of a request and its reply.
    pub fn of(request: &ChatRequest, reply: &Reply) -> Exchange {
        Exchange { request: digest(request), reply: reply.clone() }
    }
}

/// Answers from a recording.
#[derive(Debug)]
pub struct Player {
    replies: HashMap<Digest, Reply>,
    answered: AtomicUsize,
}

impl Player {
    /// Reads a recording, whose file is `path`.
    pub fn parse(path: &str, text: &str) -> Result<Player, Error> {
        let mut replies = HashMap::new();
        for (place, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let exchange: Exchange = serde_json::from_str(line).map_err(|error| {
                let problem = format!("line {}: {error}; record it again", place + 1);
                Error::BadScript { script: path.to_owned(), problem }
            })?;
            replies.insert(exchange.request, exchange.reply);
        }
        Ok(Player { replies, answered: AtomicUsize::new(0) })
    }
}

impl Provider for Player {
    fn chat<'a>(&'a self, request: &'a ChatRequest, deltas: &'a Deltas) -> BoxFuture<'a, Result<Reply, Error>> {
        Box::pin(async move {
            let number = self.answered.fetch_add(1, Ordering::Relaxed);
            let reply = self.replies.get(&digest(request)).ok_or(Error::NotRecorded { number })?;
            deltas.text(&reply.text).await;
            Ok(reply.clone())
        })
    }

    /// What was asked is part of what was recorded.
    fn refuses(&self, _: &ReplyOptions) -> Vec<&'static str> {
        Vec::new()
    }
}

/// Keeps what real providers answer: a file for each provider of each workspace, as [`Player::parse`] reads it.
///
/// A file holds digests of requests and whole replies, and neither keys nor headers: those never come this far.
#[derive(Debug)]
pub struct Tape {
    dir: PathBuf,
    writing: Mutex<()>,
}

impl Tape {
    /// A tape in `dir`, which is made if it is not there, for its owner only.
    pub fn open(dir: &Path) -> io::Result<Tape> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        Ok(Tape { dir: dir.to_owned(), writing: Mutex::default() })
    }

    /// Adds an exchange to the file of its provider. Waits for the disk.
    pub fn keep(&self, workspace: &WorkspaceId, provider: &str, exchange: &Exchange) -> io::Result<()> {
        let mut line = serde_json::to_vec(exchange)?;
        line.push(b'\n');
        // One line at a time, whole.
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = self.dir.join(workspace.as_str());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let file = folder.join(format!("{provider}.jsonl"));
        OpenOptions::new().append(true).create(true).mode(0o600).open(file)?.write_all(&line)
    }
}

/// What tells requests apart: the conversation and the tools' names. The model's name is left out, because it is the
/// recording's own path when it is played.
fn digest(request: &ChatRequest) -> Digest {
    let tools: Vec<&str> = request.tools.iter().map(|tool| tool.name.as_str()).collect();
    let bytes = serde_json::to_vec(&(&request.messages, tools)).unwrap_or_default();
    Digest::of(&bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use super::super::scripted::Script;
    use super::super::{Message, ScriptedProvider};
    use super::*;

    #[tokio::test]
    async fn a_recording_answers_what_was_recorded_and_nothing_else() {
        let script = Script::parse("s", "[[rule]]\nsay = 'you said {{request}}'").expect("a script");
        let model = ScriptedProvider::new("s", Arc::new(script));
        let request = |text: &str| ChatRequest {
            model: "m".into(),
            messages: vec![Message::user(text)],
            tools: Vec::new(),
            temperature: None,
            tokens_max: None,
            needs_tools: false,
            options: crate::llm::ReplyOptions::default(),
        };
        let dir = tempfile::tempdir().expect("a folder");
        let tape = Tape::open(&dir.path().join("tapes")).expect("a tape");
        let demo: WorkspaceId = "demo".parse().expect("a name");
        let mut said = Vec::new();
        for text in ["a", "c"] {
            said.push(model.chat(&request(text), &Deltas::none()).await.expect("a reply"));
            tape.keep(&demo, "lab", &Exchange::of(&request(text), &said[said.len() - 1])).expect("is kept");
        }
        let file = dir.path().join("tapes/demo/lab.jsonl");
        assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
        let player = Player::parse("r", &fs::read_to_string(file).expect("text")).expect("a recording");
        // In any order, and under any model's name.
        let c = ChatRequest { model: "prompts/lab.jsonl".into(), ..request("c") };
        assert_eq!(player.chat(&c, &Deltas::none()).await.expect("recorded"), said[1]);
        assert_eq!(player.chat(&request("a"), &Deltas::none()).await.expect("recorded"), said[0]);
        assert!(matches!(player.chat(&request("b"), &Deltas::none()).await, Err(Error::NotRecorded { number: 2 })));
    }
}
