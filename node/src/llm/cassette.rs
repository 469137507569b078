//! Recordings of real exchanges: [`Recorder`] writes what a provider answered, [`Player`] answers it again.
//!
//! One JSON document a line: the digest of the request, and the reply. A request is found by its digest and not by its
//! place, so that parallel calls replay in any order; anything that changes the conversation changes the digest, and
//! is an error instead of a wrong answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use caxton_proto::Digest;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::{ChatRequest, Deltas, Error, Provider, Reply};

#[derive(Debug, Serialize, Deserialize)]
struct Exchange {
    request: Digest,
    reply: Reply,
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
}

/// Stands before a provider and keeps what it answers.
pub struct Recorder {
    provider: Arc<dyn Provider>,
    lines: Mutex<String>,
}

impl Recorder {
    /// Records `provider`.
    pub fn new(provider: Arc<dyn Provider>) -> Recorder {
        Recorder { provider, lines: Mutex::new(String::new()) }
    }

    /// The recording so far, as [`Player::parse`] reads it.
    pub fn recording(&self) -> String {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Provider for Recorder {
    fn chat<'a>(&'a self, request: &'a ChatRequest, deltas: &'a Deltas) -> BoxFuture<'a, Result<Reply, Error>> {
        Box::pin(async move {
            let reply = self.provider.chat(request, deltas).await?;
            let exchange = Exchange { request: digest(request), reply: reply.clone() };
            if let Ok(line) = serde_json::to_string(&exchange) {
                let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
                lines.push_str(&line);
                lines.push('\n');
            }
            Ok(reply)
        })
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
    use super::super::scripted::Script;
    use super::super::{Message, Scripted};
    use super::*;

    #[tokio::test]
    async fn a_recording_answers_what_was_recorded_and_nothing_else() {
        let script = Script::parse("s", "[[rule]]\nsay = 'you said {{request}}'").expect("a script");
        let recorder = Recorder::new(Arc::new(Scripted::new("s", script.into())));
        let request = |text: &str| ChatRequest {
            model: "m".into(),
            messages: vec![Message::user(text)],
            tools: Vec::new(),
            temperature: None,
            tokens_max: None,
        };
        let said = recorder.chat(&request("a"), &Deltas::none()).await.expect("a reply");
        let player = Player::parse("r", &recorder.recording()).expect("a recording");
        assert_eq!(player.chat(&request("a"), &Deltas::none()).await.expect("recorded"), said);
        assert!(matches!(player.chat(&request("b"), &Deltas::none()).await, Err(Error::NotRecorded { number: 1 })));
    }
}
