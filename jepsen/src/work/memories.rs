//! Clients that remember, change, forget, and read by id and by words.
//!
//! A text is remembered under an id that the client draws, and sometimes once more under another one, which has to come to the
//! same memory. Nobody changes or forgets a memory before it is known that nothing of this is still under way: what a client
//! gave up on may be kept long after.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Client, OPERATION_WAIT, Quirk, REQUEST_WAIT, said};
use crate::history::{Ask, Live, Outcome};
use crate::http::{Answer, NoAnswer};
use crate::{lock, model};

/// So many of the newest memories of a workspace are changed and read: each by several clients at once.
const NEWEST: usize = 12;
/// When memories begin to be true: long before any clock of a run.
const VALID_FROM: &str = "2020-01-01T00:00:00Z";

impl Client {
    /// Does something with memories.
    pub(super) fn memory(&mut self, workspace: &str) {
        let known = self.any_memory(workspace);
        match (self.random.u8(0..100), known) {
            (0..30, _) | (_, None) => self.remember(workspace),
            (30..45, Some(memory)) => self.edit(workspace, memory),
            (45..53, Some(memory)) => self.forget(workspace, memory),
            (53..78, Some(memory)) => self.recall(workspace, memory),
            (_, Some(memory)) => self.search(workspace, memory),
        }
    }

    fn any_memory(&mut self, workspace: &str) -> Option<u64> {
        let shared = Arc::clone(&self.shared);
        let all = lock(&shared.memories);
        let all = all.get(workspace).filter(|all| !all.is_empty())?;
        let newest = &all[all.len().saturating_sub(NEWEST)..];
        Some(newest[self.random.usize(0..newest.len())])
    }

    fn remember(&mut self, workspace: &str) {
        let memory = self.shared.number();
        let mut sure = self.keep(workspace, memory, memory) == Some(1);
        if sure && self.random.u8(0..100) < 40 {
            let another = self.shared.number();
            sure = self.keep(workspace, memory, another) == Some(1);
        }
        if sure {
            lock(&self.shared.memories).entry(workspace.to_owned()).or_default().push(memory);
        }
    }

    /// Remembers the text of a memory under an id, until it is acknowledged or the client gives up; says how many requests it took
    /// until it was acknowledged.
    fn keep(&mut self, workspace: &str, memory: u64, id: u64) -> Option<u32> {
        let body = json!({ "memories": [{
            "id": model::memory_id(id), "text": model::memory_text(memory, memory), "scope": "workspace",
            "valid_from": VALID_FROM,
        }] });
        let start = self.shared.recorder.now();
        let deadline = Instant::now() + OPERATION_WAIT;
        let mut unclear: Option<String> = None;
        let (mut node, mut attempts) = (self.node(), 0);
        let path = format!("/api/v1/workspaces/{workspace}/memories");
        let outcome = loop {
            attempts += 1;
            let (why, nothing) = match self.ask(node, "POST", &path, &body) {
                Ok(answer) if answer.status == 200 => break kept(&answer.body["memories"][0]),
                // Nothing is deployed there yet, as far as that node knows.
                Ok(answer) if answer.status == 404 && unclear.is_none() => {
                    break Outcome::Fail { seen: None, why: said(404, &answer.body) };
                }
                Ok(answer) => (said(answer.status, &answer.body), is_nothing(answer.status)),
                Err(none) => (none.why, !none.sent),
            };
            if !nothing {
                unclear = Some(why.clone());
            }
            if Instant::now() > deadline || (nothing && self.shared.stopped()) {
                break match unclear {
                    None => Outcome::Fail { seen: None, why },
                    Some(why) => Outcome::Info { why },
                };
            }
            node = self.node();
            std::thread::sleep(Duration::from_millis(self.random.u64(20..200)));
        };
        let acknowledged = matches!(outcome, Outcome::Ok { .. }).then_some(attempts);
        self.add(workspace, node, Ask::Remember { memory, id }, start, outcome, attempts);
        acknowledged
    }

    /// Asked once: what has no answer may still happen, and a second request would happen after it.
    fn edit(&mut self, workspace: &str, memory: u64) {
        let to = self.shared.number();
        let body = json!({ "text": model::memory_text(memory, to) });
        self.change(workspace, memory, "PUT", &body, Ask::Edit { memory, to });
    }

    fn forget(&mut self, workspace: &str, memory: u64) {
        // Some go on being changed and read, to see that they stay away; of all of them little would be left to change.
        if self.random.bool()
            && let Some(all) = lock(&self.shared.memories).get_mut(workspace)
        {
            all.retain(|it| *it != memory);
        }
        self.change(workspace, memory, "DELETE", &Value::Null, Ask::Forget { memory });
    }

    fn change(&mut self, workspace: &str, memory: u64, method: &str, body: &Value, ask: Ask) {
        let (node, start) = (self.node(), self.shared.recorder.now());
        let outcome = match self.ask(node, method, &one(workspace, memory), body) {
            Ok(answer) if answer.status == 200 => done(Live::default()),
            Ok(answer) if is_absent(&answer) => {
                Outcome::Fail { seen: Some(Live::default()), why: said(404, &answer.body) }
            }
            Ok(answer) if is_nothing(answer.status) => {
                Outcome::Fail { seen: None, why: said(answer.status, &answer.body) }
            }
            Ok(answer) => Outcome::Info { why: said(answer.status, &answer.body) },
            Err(NoAnswer { sent: false, why }) => Outcome::Fail { seen: None, why },
            Err(NoAnswer { sent: true, why }) => Outcome::Info { why },
        };
        self.add(workspace, node, ask, start, outcome, 1);
    }

    fn recall(&mut self, workspace: &str, memory: u64) {
        let (node, start) = (self.node(), self.shared.recorder.now());
        let stale = if self.shared.load.quirk == Quirk::StaleMemories { "?stale=true" } else { "" };
        let path = format!("{}{stale}", one(workspace, memory));
        let outcome = match self.ask(node, "GET", &path, &Value::Null) {
            Ok(answer) if answer.status == 200 => match answer.body["text"].as_str().and_then(model::memory_read) {
                Some((of, value)) if of == memory => done(Live { rev: 1, value }),
                _ => Outcome::Fail { seen: None, why: format!("another memory: {}", answer.body) },
            },
            Ok(answer) if is_absent(&answer) => done(Live::default()),
            Ok(answer) => Outcome::Fail { seen: None, why: said(answer.status, &answer.body) },
            Err(none) => Outcome::Fail { seen: None, why: none.why },
        };
        self.add(workspace, node, Ask::Recall { memory }, start, outcome, 1);
    }

    fn search(&mut self, workspace: &str, memory: u64) {
        let (node, start) = (self.node(), self.shared.recorder.now());
        // Meaning may come a moment later, and says so; words may not.
        let mode = if self.random.bool() { "words" } else { "both" };
        let body = json!({ "text": model::memory_word(memory), "mode": mode, "limit": 100 });
        let path = format!("/api/v1/workspaces/{workspace}/memory/search");
        let outcome = match self.ask(node, "POST", &path, &body) {
            Ok(answer) if answer.status == 200 && answer.body["words"] == "used" => {
                let hits = answer.body["hits"].as_array().map_or(&[][..], Vec::as_slice);
                let read = hits.iter().filter_map(|hit| model::memory_read(hit["memory"]["text"].as_str()?));
                let found = read.filter(|(of, _)| *of == memory).map(|(_, value)| Live { rev: 1, value });
                let log: Vec<Live> = found.collect();
                Outcome::Ok { live: log.first().copied().unwrap_or_default(), event: None, log }
            }
            Ok(answer) if answer.status == 200 => {
                Outcome::Fail { seen: None, why: format!("words were not used: {}", answer.body["words"]) }
            }
            Ok(answer) => Outcome::Fail { seen: None, why: said(answer.status, &answer.body) },
            Err(none) => Outcome::Fail { seen: None, why: none.why },
        };
        self.add(workspace, node, Ask::Search { memory }, start, outcome, 1);
    }

    fn ask(&self, node: usize, method: &str, path: &str, body: &Value) -> Result<Answer, NoAnswer> {
        let cluster = &self.shared.cluster;
        let body = if body.is_null() { String::new() } else { body.to_string() };
        cluster.nodes[node].ask(cluster.host(node), method, path, body.as_bytes(), REQUEST_WAIT)
    }
}

fn one(workspace: &str, memory: u64) -> String {
    format!("/api/v1/workspaces/{workspace}/memories/{}", model::memory_id(memory))
}

fn done(live: Live) -> Outcome {
    Outcome::Ok { live, event: None, log: Vec::new() }
}

/// What became of a text that was to be kept: the revision is 1 where it is new and 2 where it was known, and the value is the
/// number of the id under which it is.
fn kept(item: &Value) -> Outcome {
    let id = item["id"].as_str().and_then(model::memory_number);
    match (item["fate"].as_str(), id) {
        (Some("stored"), Some(id)) => done(Live { rev: 1, value: id }),
        (Some("known"), Some(id)) => done(Live { rev: 2, value: id }),
        _ => Outcome::Info { why: format!("it was not kept: {item}") },
    }
}

/// The answer says that the memory is not there, and not that the workspace is unknown.
fn is_absent(answer: &Answer) -> bool {
    let detail = answer.body["detail"].as_str().unwrap_or_default();
    answer.status == 404 && detail.starts_with("nothing that you may see")
}

/// It was refused before anything was proposed, or by the tables, which then have changed nothing.
fn is_nothing(status: u16) -> bool {
    matches!(status, 400..=499 | 507)
}
