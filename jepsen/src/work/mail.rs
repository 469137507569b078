//! Clients that write to agents' mailboxes, and look at what could not be delivered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Client, OPERATION_WAIT, Quirk, REQUEST_WAIT, said};
use crate::cluster::letter;
use crate::history::{Ask, Errand, Live, Outcome};
use crate::http::{self, NoAnswer, Request};
use crate::model;

/// The priorities of messages: order is kept within each.
const PRIORITIES: [u8; 2] = [4, 6];

/// What one attempt at sending came to.
enum Sent {
    /// It was taken in; whether now, and the lower half of its id.
    Taken { known: bool, id: u64 },
    /// It had no effect.
    Nothing(String),
    /// Nobody knows.
    Unclear(String),
}

impl Client {
    /// Sends a message, until it is acknowledged or the client gives up; some are sent once more after that.
    pub(super) fn mail(&mut self, workspace: &str) {
        let errand = match self.random.u8(0..100) {
            _ if !self.poisoned => Errand::Poison,
            0..55 => Errand::Count,
            55..80 => Errand::Note,
            _ => Errand::Expire,
        };
        let value = self.shared.number();
        let priority = PRIORITIES[self.random.usize(0..PRIORITIES.len())];
        let mut message = json!({
            "performative": "request",
            "receiver": errand.receiver(),
            "content": if errand == Errand::Poison { "poison".to_owned() } else { model::text(value) },
            "reply_with": model::mark(value),
        });
        message = json!({ "message": message, "priority": priority, "key": format!("mail-{value}") });
        if errand == Errand::Expire {
            message["expires"] = model::in_seconds(self.random.u64(2..5)).into();
        }
        let ask = Ask::Mail { errand, priority, value, again: false };
        let start = self.shared.recorder.now();
        let (node, outcome, attempts) = self.send(workspace, &mut message);
        self.poisoned |= !matches!(outcome, Outcome::Fail { .. });
        let again = matches!(outcome, Outcome::Ok { .. }) && errand != Errand::Expire && self.random.u8(0..100) < 15;
        self.add(workspace, node, ask, start, outcome, attempts);
        if again {
            let ask = Ask::Mail { errand, priority, value, again };
            let (node, start) = (self.node(), self.shared.recorder.now());
            let outcome = match self.post(node, workspace, &message, false) {
                Sent::Taken { known, id } => acknowledged(known, id),
                Sent::Nothing(why) => Outcome::Fail { seen: None, why },
                Sent::Unclear(why) => Outcome::Info { why },
            };
            self.add(workspace, node, ask, start, outcome, 1);
        }
    }

    fn send(&mut self, workspace: &str, message: &mut Value) -> (usize, Outcome, u32) {
        let deadline = Instant::now() + OPERATION_WAIT;
        let mut unclear: Option<String> = None;
        let (mut node, mut attempts) = (self.node(), 0);
        let outcome = loop {
            attempts += 1;
            let abandon = self.random.u64(0..100) < self.shared.load.abandon;
            match self.post(node, workspace, message, abandon) {
                Sent::Taken { known, id } => break acknowledged(known, id),
                Sent::Nothing(_) | Sent::Unclear(_) if self.shared.load.quirk == Quirk::AcknowledgedEarly => {
                    break acknowledged(false, 0);
                }
                // Nothing is deployed there yet, as far as that node knows.
                Sent::Nothing(why) if unclear.is_none() && why.starts_with("404 ") => {
                    break Outcome::Fail { seen: None, why };
                }
                Sent::Nothing(why) if Instant::now() > deadline || self.shared.stopped() => {
                    break match unclear {
                        None => Outcome::Fail { seen: None, why },
                        Some(why) => Outcome::Info { why },
                    };
                }
                Sent::Unclear(why) if Instant::now() > deadline => break Outcome::Info { why },
                Sent::Nothing(_) => {}
                Sent::Unclear(why) => {
                    unclear = Some(why);
                    if self.shared.load.quirk == Quirk::ResendWithoutKey {
                        let key = message["key"].as_str().unwrap_or_default();
                        message["key"] = format!("{key}-{attempts}").into();
                    }
                }
            }
            node = self.node();
            std::thread::sleep(Duration::from_millis(self.random.u64(20..200)));
        };
        (node, outcome, attempts)
    }

    fn post(&mut self, node: usize, workspace: &str, message: &Value, abandon: bool) -> Sent {
        let cluster = Arc::clone(&self.shared.cluster);
        let (host, token) = (cluster.host(node), cluster.nodes[node].token());
        let path = format!("/api/v1/workspaces/{workspace}/mailbox");
        let body = message.to_string();
        let media = "application/json";
        let request = Request { method: "POST", path: &path, token: &token, media, body: body.as_bytes() };
        if abandon {
            return match http::abandon(host, &request, Duration::from_millis(self.random.u64(0..150))) {
                Err(none) if !none.sent => Sent::Nothing(none.why),
                Ok(()) | Err(_) => Sent::Unclear("the client's connection broke".to_owned()),
            };
        }
        match http::ask(host, &request, REQUEST_WAIT) {
            Ok(answer) => match (answer.status, half(&answer.body["id"])) {
                (200, Some(id)) => Sent::Taken { known: answer.body["duplicate"] == true, id },
                // Refused before anything was proposed, or by the tables, which then have changed nothing.
                (400..=408 | 410..=499 | 507, _) => Sent::Nothing(said(answer.status, &answer.body)),
                (status, _) => Sent::Unclear(said(status, &answer.body)),
            },
            Err(NoAnswer { sent: false, why }) => Sent::Nothing(why),
            Err(NoAnswer { sent: true, why }) => Sent::Unclear(why),
        }
    }

    /// Looks at dead letters, at what their sender was told, and at dead letters again.
    pub(super) fn look(&mut self, workspace: &str) {
        let node = self.node();
        let start = self.shared.recorder.now();
        let looked = || -> Result<Vec<Live>, String> {
            let mut log = Vec::new();
            for (look, dead) in [(1, true), (2, false), (3, true)] {
                let letters = self.letters(node, workspace, dead)?;
                let told =
                    letters.iter().filter_map(letter).filter(|it| if dead { it.is_dead() } else { it.is_notice() });
                log.extend(told.filter_map(|it| Some(Live { rev: look, value: it.about? })));
            }
            Ok(log)
        };
        let outcome = match looked() {
            Ok(log) => Outcome::Ok { live: Live::default(), event: None, log },
            Err(why) => Outcome::Fail { seen: None, why },
        };
        self.add(workspace, node, Ask::Look, start, outcome, 1);
    }

    fn letters(&self, node: usize, workspace: &str, dead: bool) -> Result<Vec<Value>, String> {
        let (mut all, mut after) = (Vec::new(), 0);
        loop {
            let path = format!("/api/v1/workspaces/{workspace}/mailbox?dead={dead}&limit=500&after={after}");
            let page = self.get(node, &path)?;
            all.extend(page["deliveries"].as_array().cloned().unwrap_or_default());
            match page["next"].as_u64() {
                Some(next) => after = next,
                None => return Ok(all),
            }
        }
    }
}

fn acknowledged(known: bool, id: u64) -> Outcome {
    Outcome::Ok { live: Live { rev: 1 + u64::from(known), value: id }, event: None, log: Vec::new() }
}

/// The lower half of a message's id.
pub fn half(id: &Value) -> Option<u64> {
    u64::from_str_radix(id.as_str()?.get(16..)?, 16).ok()
}
