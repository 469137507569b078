//! A cluster formed as an operator forms one: the same secret and the same list everywhere, one founder.

mod kept;

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use self::kept::{Holdings, Source};
use crate::check::log::Entry;
use crate::check::{Finding, NodeSeen, Seen};
use crate::history::Live;
use crate::http::Events;
use crate::model;
use crate::net::{Host, Hosts};
use crate::node::{Binary, Node, State};

pub use self::kept::letter;

/// How long a cluster may take to form or to come together again. Machines that test are busy.
pub const SETTLE_WAIT: Duration = Duration::from_secs(150);
/// How many entries a node may be behind under load.
const LAG_UNDER_LOAD: u64 = 100;
/// The most deployments on a page of the history.
const PAGE: usize = 1_000;

/// How a cluster is made.
#[derive(Debug, Clone)]
pub struct Shape {
    /// How many hosts there are.
    pub hosts: usize,
    /// How many of them have a node of the cluster from the beginning.
    pub nodes: usize,
    /// Settings of every node, as `KEY=VALUE`.
    pub settings: Vec<String>,
    /// Whether to make namespaces.
    pub namespaces: bool,
    /// Whether its nodes begin with the other version of the program.
    pub begins_with_other: bool,
}

/// The cluster of a run.
pub struct Cluster {
    /// What it runs.
    pub binary: Binary,
    /// Where it runs.
    pub hosts: Hosts,
    /// The nodes, by the index of their host.
    pub nodes: Vec<Arc<Node>>,
    /// How it is made.
    pub shape: Shape,
    secret: PathBuf,
}

impl Cluster {
    /// Hosts and nodes, nothing started.
    pub fn new(binary: &Binary, shape: Shape, home: &Path) -> Result<Cluster> {
        let hosts = Hosts::new(shape.hosts, shape.namespaces)?;
        let nodes = (0..shape.hosts)
            .map(|index| Node::new(index, home.join(format!("n{index}"))).map(Arc::new))
            .collect::<Result<Vec<_>>>()?;
        nodes[shape.nodes..].iter().for_each(|node| node.retire());
        let secret = home.join("secret");
        std::fs::write(&secret, "0123456789abcdef0123456789abcdef\n").context("the secret")?;
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).context("the secret")?;
        Ok(Cluster { binary: binary.clone(), hosts, nodes, shape, secret })
    }

    /// A node's host.
    pub fn host(&self, index: usize) -> &Host {
        &self.hosts.hosts[index]
    }

    /// What every start of a node is given; the founder's flag can stay for ever.
    pub fn args(&self, index: usize) -> Vec<String> {
        let all: Vec<String> = self.hosts.hosts[..self.shape.nodes].iter().map(Host::peer_address).collect();
        let secret = self.secret.display().to_string();
        let mut args: Vec<String> = vec!["--join".to_owned(), all.join(","), "--secret-file".to_owned(), secret];
        if index == 0 {
            args.push("--found".to_owned());
        }
        args.extend(self.settings());
        args
    }

    /// The settings of every node as arguments.
    pub fn settings(&self) -> Vec<String> {
        let common = ["raft.heartbeat=100ms", "raft.election_min=800ms", "raft.election_max=1600ms"];
        let quiet = "telemetry.filter=info,openraft=error";
        let all = common.iter().copied().chain([quiet]).chain(self.shape.settings.iter().map(String::as_str));
        all.flat_map(|setting| ["--set".to_owned(), setting.to_owned()]).collect()
    }

    /// Starts a node as it was started first.
    pub fn start(&self, index: usize) -> Result<()> {
        let other = self.binary.old.as_ref().filter(|_| self.shape.begins_with_other);
        self.nodes[index].spawn(other.unwrap_or(&self.binary.caxton), self.host(index), &self.args(index))
    }

    /// Forms the cluster and waits until it is whole.
    pub fn form(&self) -> Result<()> {
        // The founder comes last: the others have to wait for it.
        for index in (0..self.shape.nodes).rev() {
            self.start(index)?;
        }
        self.settle(SETTLE_WAIT)
    }

    /// The nodes that are expected to belong to the cluster.
    pub fn members(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|index| !self.nodes[*index].is_retired()).collect()
    }

    /// Waits until every member is ready, every group has a leader and the voters that it should have, and nobody lags.
    pub fn settle(&self, wait: Duration) -> Result<()> {
        self.come_together(wait, 0)
    }

    /// The same under load, when somebody is always a little behind.
    pub fn settle_under_load(&self, wait: Duration) -> Result<()> {
        self.come_together(wait, LAG_UNDER_LOAD)
    }

    fn come_together(&self, wait: Duration, lag_max: u64) -> Result<()> {
        let deadline = Instant::now() + wait;
        let members = self.members();
        let voters = match members.len() {
            0 => bail!("no node is left"),
            count => (if count % 2 == 1 { count } else { count - 1 }).min(5),
        };
        let (mut good, mut last) = (0, String::new());
        while Instant::now() < deadline {
            // Seen twice in a row: voters change in two steps, and right after the first nobody lags either.
            match self.whole(&members, voters, lag_max) {
                Ok(()) if good == 1 => return Ok(()),
                Ok(()) => good += 1,
                Err(why) => (good, last) = (0, why.to_string()),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("the cluster did not come together within {wait:?}: {last}")
    }

    fn whole(&self, members: &[usize], voters: usize, lag_max: u64) -> Result<()> {
        for index in members {
            let node = &self.nodes[*index];
            if let Some(ended) = node.reap() {
                bail!("node {index} ended with {ended}:\n{}", node.said_last(12));
            }
            if node.state() != State::Up || !node.is_ready(self.host(*index)) {
                bail!("node {index} is not ready");
            }
        }
        let leader = self.leader().context("nobody leads")?;
        let status = self.nodes[leader].status(self.host(leader)).context("the leader does not answer")?;
        let groups = status["groups"].as_array().context("no groups")?;
        for group in groups {
            let counted = group["voters"].as_array().map_or(0, Vec::len);
            if counted != voters {
                bail!("group {} has {counted} voters and should have {voters}", group["group"]);
            }
            if !group["leader"].is_string() {
                bail!("group {} has no leader", group["group"]);
            }
        }
        let views = members.iter().map(|index| self.nodes[*index].status(self.host(*index)));
        let views = views.collect::<Option<Vec<_>>>().context("a node does not tell its view")?;
        for group in 0..groups.len() {
            let applied: Vec<u64> = views.iter().filter_map(|view| view["groups"][group]["applied"].as_u64()).collect();
            let (least, most) = (applied.iter().min().copied(), applied.iter().max().copied());
            if applied.len() != members.len() || most.zip(least).is_none_or(|(most, least)| most - least > lag_max) {
                bail!("group {group} is applied up to {applied:?}");
            }
        }
        Ok(())
    }

    /// Which node leads the deploy log, by the word of the one with the highest term that runs.
    pub fn leader(&self) -> Option<usize> {
        self.leader_of(0)
    }

    /// Which node leads a group.
    pub fn leader_of(&self, group: usize) -> Option<usize> {
        let mut best: Option<(u64, String)> = None;
        for index in self.members() {
            if self.nodes[index].state() != State::Up {
                continue;
            }
            let Some(status) = self.nodes[index].status(self.host(index)) else { continue };
            let found = &status["groups"][group];
            if let (Some(term), Some(leader)) = (found["term"].as_u64(), found["leader"].as_str())
                && best.as_ref().is_none_or(|best| best.0 < term)
            {
                best = Some((term, leader.to_owned()));
            }
        }
        let (_, id) = best?;
        (0..self.nodes.len()).find(|index| self.nodes[*index].id().as_ref() == Some(&id))
    }

    /// What every member shows now, and where its own state differs from what it shows.
    pub fn see(&self, workspaces: &[String], roots: &HashMap<u64, String>) -> (Seen, Vec<Finding>) {
        self.quiet(workspaces);
        let mut seen = Seen { nodes: Vec::new(), roots: roots.clone(), upsets: self.upsets() };
        let mut findings = Vec::new();
        for index in self.members() {
            let node = match self.see_one(index, workspaces) {
                Ok(node) => node,
                Err(error) => {
                    findings.push(Finding::new("look", format!("node {index} does not show what it has: {error:#}")));
                    continue;
                }
            };
            if let Err(error) = self.own_state(&node) {
                findings.push(Finding::new("own-state", format!("{error:#}")));
            }
            if let Err(error) = self.own_log(&node) {
                findings.push(Finding::new("own-log", format!("{error:#}")));
            }
            findings.extend(self.own_holdings(&node, workspaces));
            seen.nodes.push(node);
        }
        (seen, findings)
    }

    /// What one node shows now.
    pub fn see_one(&self, index: usize, workspaces: &[String]) -> Result<NodeSeen> {
        let mut logs = BTreeMap::new();
        let mut conversations = BTreeMap::new();
        for workspace in workspaces {
            let log = self.log(index, workspace)?;
            if !log.is_empty() {
                logs.insert(workspace.clone(), log);
            }
            // Those that a message from a mailbox began are checked by its answer.
            for name in self.conversations(index, workspace)?.into_iter().filter(|name| !name.starts_with("mail-")) {
                let turns = self.turns(index, workspace, &name)?;
                conversations.insert(format!("{workspace}/{name}"), turns);
            }
        }
        let deployed: Vec<String> = workspaces.iter().filter(|it| logs.contains_key(*it)).cloned().collect();
        let Holdings { mail, said, memories } = self.holdings(index, &deployed, Source::Leader)?;
        Ok(NodeSeen { node: index, logs, conversations, mail, said, memories })
    }

    /// See [`Seen::upsets`].
    fn upsets(&self) -> u64 {
        let starts: u64 = self.nodes.iter().map(|node| node.starts()).sum();
        let statuses = self.members().into_iter().filter_map(|index| self.nodes[index].status(self.host(index)));
        let terms = statuses.flat_map(|status| status["groups"].as_array().cloned().unwrap_or_default());
        starts + terms.filter_map(|group| group["term"].as_u64()).max().unwrap_or_default()
    }

    /// What the node itself knows to be live, and serves, is what the log ends with.
    fn own_state(&self, seen: &NodeSeen) -> Result<()> {
        let index = seen.node;
        for (workspace, log) in &seen.logs {
            let deadline = Instant::now() + Duration::from_secs(30);
            loop {
                let own = self.get(index, &format!("/api/v1/workspaces/{workspace}?stale=true"))?;
                let serves = own["serving"]["state"] == "live";
                if entry(&own["deployment"]).as_ref() == log.last() && serves {
                    break;
                }
                if Instant::now() > deadline {
                    bail!("node {index} itself has {own} of {workspace}, and the log ends with {:?}", log.last());
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        Ok(())
    }

    fn get(&self, index: usize, path: &str) -> Result<Value> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let why = match self.nodes[index].ask(self.host(index), "GET", path, &[], Duration::from_secs(20)) {
                Ok(answer) if answer.status == 200 => return Ok(answer.body),
                Ok(answer) => format!("{} {}", answer.status, answer.body),
                Err(none) => none.why,
            };
            if Instant::now() > deadline {
                bail!("GET {path} on node {index}: {why}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The whole history of a workspace, as a node gives it to clients, from the oldest.
    fn log(&self, index: usize, workspace: &str) -> Result<Vec<Entry>> {
        let mut log = Vec::new();
        let mut before = String::new();
        loop {
            let page = self.get(index, &format!("/api/v1/workspaces/{workspace}/deployments?limit={PAGE}{before}"))?;
            let rows = page["deployments"].as_array().context("no deployments")?;
            log.extend(rows.iter().map(entry).collect::<Option<Vec<_>>>().context("a deployment without its numbers")?);
            match page["next"].as_u64() {
                None => break,
                Some(next) => before = format!("&before={next}"),
            }
        }
        log.reverse();
        Ok(log)
    }

    /// The same from the node's own state: its event stream from the beginning, which no other node answers for.
    fn own_log(&self, seen: &NodeSeen) -> Result<()> {
        let index = seen.node;
        let mut expected: Vec<&Entry> = seen.logs.values().flatten().collect();
        expected.sort_by_key(|entry| entry.event);
        let token = self.nodes[index].token();
        let mut left = 5;
        let mut stream = loop {
            match Events::open(self.host(index), "/api/v1/events", &token, Some(0), Duration::from_secs(10)) {
                Ok(stream) => break stream,
                Err(none) if left == 0 => bail!("the event stream of node {index}: {}", none.why),
                Err(_) => left -= 1,
            }
            std::thread::sleep(Duration::from_millis(300));
        };
        for entry in expected {
            let deadline = Instant::now() + Duration::from_secs(20);
            let event =
                stream.next(deadline).with_context(|| format!("node {index}'s own log ends before {entry:?}"))?;
            if self::entry(&event.data).as_ref() != Some(entry) {
                bail!("node {index}'s own log has {} where the leader's has {entry:?}", event.data);
            }
        }
        Ok(())
    }

    fn conversations(&self, index: usize, workspace: &str) -> Result<Vec<String>> {
        let page = self.get(index, &format!("/api/v1/workspaces/{workspace}/conversations?limit={PAGE}"))?;
        let rows = page["conversations"].as_array().context("no conversations")?;
        Ok(rows.iter().filter_map(|row| row["id"].as_str()).map(str::to_owned).collect())
    }

    fn turns(&self, index: usize, workspace: &str, name: &str) -> Result<Vec<u64>> {
        let detail = self.get(index, &format!("/api/v1/workspaces/{workspace}/conversations/{name}"))?;
        let turns = detail["turns_detail"].as_array().context("no turns")?;
        Ok(turns.iter().filter(|turn| turn["failure"].is_null()).filter_map(|turn| asked(&turn["messages"])).collect())
    }
}

/// The number in what was asked.
fn asked(messages: &Value) -> Option<u64> {
    match messages {
        Value::String(text) => model::number(text),
        Value::Array(all) => all.iter().find_map(asked),
        Value::Object(all) => all.values().find_map(asked),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

/// A deployment as the API writes it.
pub fn entry(row: &Value) -> Option<Entry> {
    Some(Entry {
        rev: row["revision"].as_u64()?,
        parent: row["parent"].as_u64()?,
        value: row["message"].as_str()?.parse().ok()?,
        root: row["root"].as_str()?.to_owned(),
        event: row["event_id"].as_u64()?,
    })
}

/// What a deployment puts live; nothing live for null.
pub fn live(row: &Value) -> Option<Live> {
    if row.is_null() {
        return Some(Live::default());
    }
    entry(row).map(|entry| Live { rev: entry.rev, value: entry.value })
}
