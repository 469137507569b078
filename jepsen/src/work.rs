//! The clients: they deploy, read, talk and follow events through any node, and take down what they were told.
//!
//! A deployment without a definite answer is tried again, elsewhere, with the same idempotency key, until there is one
//! or the client gives up. Only an answer that says so counts as done or as refused.

mod mail;

mod memories;

pub use self::mail::half;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::check::events::{Event, Followed};
use crate::cluster::{Cluster, entry, live};
use crate::history::{Ask, Live, Op, Outcome, Recorder};
use crate::http::{self, Events, Request};
use crate::{lock, model};

/// How long one request may take.
const REQUEST_WAIT: Duration = Duration::from_secs(5);
/// How long a client tries one deployment.
const OPERATION_WAIT: Duration = Duration::from_secs(25);
/// Processes that end with `info` are followed by ones whose number is this much higher.
const GENERATION: u64 = 1_000;

/// A defect that is put into the clients on purpose, to see it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quirk {
    /// None.
    Sound,
    /// Reads ask a node for what it knows itself.
    StaleReads,
    /// A deployment that got no answer is made again under a new key, on top of what is live then.
    RetryWithoutKey,
    /// A broken event stream is opened again without saying where it broke.
    ResumeWithoutId,
    /// A message that got no answer is sent again under a new key.
    ResendWithoutKey,
    /// A message counts as acknowledged that got no answer.
    AcknowledgedEarly,
    /// Memories are read by what a node knows itself.
    StaleMemories,
}

/// What the clients do.
#[derive(Debug, Clone)]
pub struct Load {
    /// How many there are.
    pub clients: u64,
    /// How many workspaces they share.
    pub workspaces: u64,
    /// How many followers the event stream has.
    pub followers: usize,
    /// The longest pause between two operations of a client.
    pub think: Duration,
    /// The share of deployments whose first requests are abandoned, in percent.
    pub abandon: u64,
    /// How long a follower stays with one node.
    pub follow: Duration,
    /// A defect of their own.
    pub quirk: Quirk,
}

impl Default for Load {
    fn default() -> Load {
        Load {
            clients: 8,
            workspaces: 3,
            followers: 2,
            think: Duration::from_millis(120),
            abandon: 0,
            follow: Duration::from_secs(60),
            quirk: Quirk::Sound,
        }
    }
}

/// What all clients share.
pub struct Shared {
    /// The nodes.
    pub cluster: Arc<Cluster>,
    /// What they do.
    pub load: Load,
    /// Where they take down what happened.
    pub recorder: Recorder,
    /// The roots of all numbers that were ever asked to be deployed.
    pub roots: Mutex<HashMap<u64, String>>,
    /// What followers got.
    pub followed: Mutex<Vec<Followed>>,
    /// The memories of each workspace that anybody may change.
    memories: Mutex<HashMap<String, Vec<u64>>>,
    numbers: AtomicU64,
    stop: AtomicBool,
    /// Followers stop when they have seen this; 0 before it is known.
    last_event: AtomicU64,
    give_up: AtomicBool,
}

/// Clients that run.
pub struct Running {
    /// What they share.
    pub shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
    followers: Vec<JoinHandle<()>>,
}

impl Shared {
    /// The names of the workspaces.
    pub fn workspaces(&self) -> Vec<String> {
        (0..self.load.workspaces).map(|n| format!("w{n}")).collect()
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Starts the clients. The same seed makes the same choices.
pub fn start(cluster: &Arc<Cluster>, load: &Load, seed: u64) -> Running {
    let shared = Arc::new(Shared {
        cluster: Arc::clone(cluster),
        load: load.clone(),
        recorder: Recorder::new(),
        roots: Mutex::default(),
        followed: Mutex::default(),
        memories: Mutex::default(),
        numbers: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        last_event: AtomicU64::new(0),
        give_up: AtomicBool::new(false),
    });
    let clients = (0..load.clients).map(|process| {
        let random = fastrand::Rng::with_seed(seed.wrapping_mul(1_000_003).wrapping_add(process));
        let mut client = Client {
            shared: Arc::clone(&shared),
            process,
            random,
            known: HashMap::new(),
            say: process,
            poisoned: false,
        };
        std::thread::spawn(move || client.run())
    });
    let clients: Vec<_> = clients.collect();
    let followers = (0..load.followers).map(|follower| {
        let shared = Arc::clone(&shared);
        std::thread::spawn(move || follow(&shared, follower))
    });
    let followers = followers.collect();
    Running { shared, clients, followers }
}

impl Running {
    /// Lets every client finish what it is at; says how many of them had panicked, after which they ask nothing more.
    pub fn stop_clients(&mut self) -> usize {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.clients.drain(..).filter_map(|client| client.join().err()).count()
    }

    /// Lets the followers read up to the event `last`, for at most `wait`.
    pub fn stop_followers(&mut self, last: u64, wait: Duration) {
        self.shared.last_event.store(last.max(1), Ordering::Relaxed);
        let deadline = Instant::now() + wait;
        while Instant::now() < deadline && !self.followers.iter().all(JoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(50));
        }
        self.shared.give_up.store(true, Ordering::Relaxed);
        self.followers.drain(..).for_each(|follower| drop(follower.join()));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop_clients();
        self.stop_followers(1, Duration::ZERO);
    }
}

struct Client {
    shared: Arc<Shared>,
    process: u64,
    random: fastrand::Rng,
    known: HashMap<String, Live>,
    /// The number of its conversation, which ends when nobody knows what became of a message.
    say: u64,
    /// It has sent the one message of its that fails each time: those keep a run waiting for a quarter of a minute.
    poisoned: bool,
}

/// What one attempt at a deployment came to.
enum Attempt {
    Done {
        live: Live,
        event: Option<u64>,
    },
    Refused {
        seen: Option<Live>,
        why: String,
    },
    /// It had no effect: what was asked before it decides.
    Nothing(String),
    Unclear(String),
}

impl Client {
    fn run(&mut self) {
        while !self.shared.stopped() {
            let workspace = format!("w{}", self.random.u64(0..self.shared.load.workspaces));
            match self.random.u64(0..100) {
                0..34 => self.deploy(&workspace),
                34..54 => drop(self.read(&workspace)),
                54..63 => self.say(&workspace),
                63..66 => self.log(&workspace),
                66..80 => self.mail(&workspace),
                80..82 => self.look(&workspace),
                _ => self.memory(&workspace),
            }
            let most = u64::try_from(self.shared.load.think.as_millis()).unwrap_or(u64::MAX).max(1);
            std::thread::sleep(Duration::from_millis(self.random.u64(0..most)));
        }
    }

    /// Any node that is meant to be there, whatever state it is in.
    fn node(&mut self) -> usize {
        let members = self.shared.cluster.members();
        if members.is_empty() { 0 } else { members[self.random.usize(0..members.len())] }
    }

    fn add(&mut self, workspace: &str, node: usize, ask: Ask, start: u64, outcome: Outcome, attempts: u32) {
        let end = self.shared.recorder.now();
        let lost = matches!(outcome, Outcome::Info { .. });
        let process = self.process;
        self.shared.recorder.add(Op { process, key: workspace.to_owned(), node, ask, start, end, outcome, attempts });
        if lost {
            self.process += GENERATION;
        }
    }

    fn get(&self, node: usize, path: &str) -> Result<Value, String> {
        let cluster = Arc::clone(&self.shared.cluster);
        match cluster.nodes[node].ask(cluster.host(node), "GET", path, &[], REQUEST_WAIT) {
            Ok(answer) if answer.status == 200 => Ok(answer.body),
            Ok(answer) => Err(said(answer.status, &answer.body)),
            Err(none) => Err(none.why),
        }
    }

    fn read(&mut self, workspace: &str) -> Option<Live> {
        let node = self.node();
        let start = self.shared.recorder.now();
        let stale = if self.shared.load.quirk == Quirk::StaleReads { "?stale=true" } else { "" };
        let outcome = match self.get(node, &format!("/api/v1/workspaces/{workspace}{stale}")) {
            Ok(body) => match live(&body["deployment"]) {
                Some(live) => Outcome::Ok { live, event: None, log: Vec::new() },
                None => Outcome::Fail { seen: None, why: format!("an answer without its numbers: {body}") },
            },
            Err(why) => Outcome::Fail { seen: None, why },
        };
        let found = if let Outcome::Ok { live, .. } = outcome { Some(live) } else { None };
        self.add(workspace, node, Ask::Read, start, outcome, 1);
        if let Some(found) = found {
            self.known.insert(workspace.to_owned(), found);
        }
        found
    }

    fn log(&mut self, workspace: &str) {
        let node = self.node();
        let start = self.shared.recorder.now();
        let path = format!("/api/v1/workspaces/{workspace}/deployments?limit=1000");
        let outcome = match self.get(node, &path) {
            Ok(body) => {
                let rows = body["deployments"].as_array().map(|rows| rows.iter().map(live).collect::<Option<Vec<_>>>());
                match rows.flatten() {
                    // More than a page: what is older was read before.
                    Some(_) if body["next"].is_u64() => return,
                    Some(mut log) => {
                        log.reverse();
                        Outcome::Ok { live: log.last().copied().unwrap_or_default(), event: None, log }
                    }
                    None => Outcome::Fail { seen: None, why: "an answer without its numbers".to_owned() },
                }
            }
            Err(why) => Outcome::Fail { seen: None, why },
        };
        self.add(workspace, node, Ask::Log, start, outcome, 1);
    }

    fn deploy(&mut self, workspace: &str) {
        let Some(from) = self.known.get(workspace).copied().or_else(|| self.read(workspace)) else { return };
        let to = self.shared.number();
        lock(&self.shared.roots).insert(to, model::root(workspace, to));
        let ask = Ask::Cas { from, to };
        let start = self.shared.recorder.now();
        let deadline = Instant::now() + OPERATION_WAIT;
        let (mut from_rev, mut key) = (from.rev, format!("key-{to}"));
        let mut unclear: Option<String> = None;
        let (mut node, mut attempts) = (self.node(), 0);
        let outcome = loop {
            attempts += 1;
            let abandon = self.random.u64(0..100) < self.shared.load.abandon;
            match self.attempt(node, workspace, from_rev, to, &key, abandon) {
                Attempt::Done { live, event } => break Outcome::Ok { live, event, log: Vec::new() },
                Attempt::Refused { seen, why } => break Outcome::Fail { seen, why },
                Attempt::Nothing(why) if Instant::now() > deadline || self.shared.stopped() => {
                    break match unclear {
                        None => Outcome::Fail { seen: None, why },
                        Some(why) => Outcome::Info { why },
                    };
                }
                Attempt::Unclear(why) if Instant::now() > deadline => break Outcome::Info { why },
                Attempt::Nothing(_) => {}
                Attempt::Unclear(why) => {
                    unclear = Some(why);
                    if self.shared.load.quirk == Quirk::RetryWithoutKey {
                        key = format!("key-{to}-{attempts}");
                        let path = format!("/api/v1/workspaces/{workspace}");
                        let now = self.get(node, &path).ok().and_then(|body| live(&body["deployment"]));
                        from_rev = now.map_or(from_rev, |now| now.rev);
                    }
                }
            }
            node = self.node();
            std::thread::sleep(Duration::from_millis(self.random.u64(20..200)));
        };
        match &outcome {
            Outcome::Ok { live, .. } | Outcome::Fail { seen: Some(live), .. } => {
                self.known.insert(workspace.to_owned(), *live);
            }
            Outcome::Fail { seen: None, .. } | Outcome::Info { .. } => drop(self.known.remove(workspace)),
        }
        self.add(workspace, node, ask, start, outcome, attempts);
    }

    fn attempt(&mut self, node: usize, workspace: &str, parent: u64, to: u64, key: &str, abandon: bool) -> Attempt {
        let cluster = Arc::clone(&self.shared.cluster);
        let (host, token) = (cluster.host(node), cluster.nodes[node].token());
        let blobs = model::blobs(workspace, parent, to);
        let path = format!("/api/v1/workspaces/{workspace}/artifacts");
        let media = "application/vnd.caxton.blobs";
        let upload = Request { method: "PUT", path: &path, token: &token, media, body: &blobs };
        match http::ask(host, &upload, REQUEST_WAIT) {
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => return Attempt::Nothing(said(answer.status, &answer.body)),
            Err(none) => return Attempt::Nothing(none.why),
        }
        let body = model::deployment(workspace, parent, to, key);
        let path = format!("/api/v1/workspaces/{workspace}/deployments");
        let deploy = Request { method: "POST", path: &path, token: &token, media: "application/json", body: &body };
        if abandon {
            return match http::abandon(host, &deploy, Duration::from_millis(self.random.u64(0..150))) {
                Err(none) if !none.sent => Attempt::Nothing(none.why),
                Ok(()) | Err(_) => Attempt::Unclear("the client's connection broke".to_owned()),
            };
        }
        match http::ask(host, &deploy, REQUEST_WAIT) {
            Ok(answer) => decided(answer.status, &answer.body),
            Err(none) if !none.sent => Attempt::Nothing(none.why),
            Err(none) => Attempt::Unclear(none.why),
        }
    }

    fn say(&mut self, workspace: &str) {
        let value = self.shared.number();
        let conversation = format!("c{}", self.say);
        let body =
            json!({ "text": model::text(value), "agent": model::AGENT, "conversation": conversation, "create": true });
        let node = self.node();
        let start = self.shared.recorder.now();
        let cluster = Arc::clone(&self.shared.cluster);
        let path = format!("/api/v1/workspaces/{workspace}/messages");
        let sent = body.to_string();
        let outcome = match cluster.nodes[node].ask(cluster.host(node), "POST", &path, sent.as_bytes(), REQUEST_WAIT) {
            Ok(answer) if answer.status == 200 && answer.body["text"] == "noted" => {
                Outcome::Ok { live: Live::default(), event: None, log: Vec::new() }
            }
            // Nothing is deployed there yet, as far as that node knows.
            Ok(answer) if answer.status == 404 => Outcome::Fail { seen: None, why: said(404, &answer.body) },
            Ok(answer) => Outcome::Info { why: said(answer.status, &answer.body) },
            Err(none) if !none.sent => Outcome::Fail { seen: None, why: none.why },
            Err(none) => Outcome::Info { why: none.why },
        };
        if matches!(outcome, Outcome::Info { .. }) {
            self.say += GENERATION;
        }
        self.add(workspace, node, Ask::Say { conversation, value }, start, outcome, 1);
    }
}

/// What an answer to a deployment decides.
fn decided(status: u16, body: &Value) -> Attempt {
    let why = said(status, body);
    match status {
        200 => match entry(&body["deployment"]) {
            Some(entry) => {
                Attempt::Done { live: Live { rev: entry.rev, value: entry.value }, event: Some(entry.event) }
            }
            None => Attempt::Unclear(format!("an answer without its numbers: {body}")),
        },
        409 => Attempt::Refused { seen: live(&body["conflict"]), why },
        // Refused before anything was proposed. What was asked before may have been.
        400..=408 | 410..=499 | 507 => Attempt::Nothing(why),
        _ => Attempt::Unclear(why),
    }
}

fn said(status: u16, body: &Value) -> String {
    let detail = body["detail"].as_str().unwrap_or("");
    format!("{status} {} {detail}", body["code"].as_str().unwrap_or("?"))
}

/// Follows the events of all workspaces, from one node after the other, until the last event is there.
fn follow(shared: &Shared, follower: usize) {
    let mut followed = Followed { follower, ..Followed::default() };
    let mut turn = follower;
    let done = |followed: &Followed| {
        let last = shared.last_event.load(Ordering::Relaxed);
        let reached = last > 0 && followed.events.last().is_some_and(|event| event.id >= last);
        reached || shared.give_up.load(Ordering::Relaxed)
    };
    while !done(&followed) {
        let members = shared.cluster.members();
        let Some(node) = members.get(turn % members.len().max(1)).copied() else { continue };
        turn += 1;
        let after = match followed.events.last() {
            Some(last) if shared.load.quirk != Quirk::ResumeWithoutId => Some(last.id),
            Some(_) => None,
            None => Some(0),
        };
        let token = shared.cluster.nodes[node].token();
        let path = "/api/v1/events";
        let Ok(mut stream) = Events::open(shared.cluster.host(node), path, &token, after, REQUEST_WAIT) else {
            std::thread::sleep(Duration::from_millis(100));
            continue;
        };
        followed.connections += 1;
        let leave = Instant::now() + shared.load.follow;
        while !done(&followed) && Instant::now() < leave {
            // Short, so that a follower notices that it is done; the stream is opened again where it was left.
            let Some(event) = stream.next((Instant::now() + Duration::from_secs(2)).min(leave)) else { break };
            let found = (event.name == "deployment").then(|| entry(&event.data)).flatten();
            let Some(found) = found else { break };
            let key = event.data["workspace"].as_str().unwrap_or("").to_owned();
            let live = Live { rev: found.rev, value: found.value };
            followed.events.push(Event { id: event.id, key, live, node });
        }
    }
    lock(&shared.followed).push(followed);
}
