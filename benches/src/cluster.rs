//! Three nodes as processes of their own, and what is asked of them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

/// How long the cluster may take for anything before it is given up.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The bytes of a value, so that its command has 256 with what stands around it.
const VALUE_BYTES: usize = 180;
/// How often something that is waited for is looked at.
const POLL: Duration = Duration::from_millis(2);
/// How long one node may take for an answer before another is asked.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// How many names the values of one client have in turn.
const NAMES: u64 = 4;

/// Three nodes. They end with this value.
pub struct Cluster {
    program: PathBuf,
    dir: PathBuf,
    nodes: Vec<Node>,
    token: String,
    http: reqwest::Client,
}

struct Node {
    data: PathBuf,
    process: Child,
    url: String,
    id: String,
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Writes to one node.
#[derive(Clone)]
pub struct Putter {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Putter {
    /// Puts one of a few values of the client's own workspace.
    pub async fn put(&self, client: usize, number: u64) -> anyhow::Result<()> {
        let url = format!("{}/api/v1/workspaces/bench{client}/secrets/KEY{}", self.url, number % NAMES);
        let value = format!("{number:0>VALUE_BYTES$}");
        let answer = self.http.put(url).bearer_auth(&self.token).json(&json!({ "value": value })).send().await?;
        let status = answer.status();
        let body = answer.bytes().await?;
        ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
        Ok(())
    }
}

/// Sends messages to one node.
#[derive(Clone)]
pub struct Asker {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Asker {
    /// Asks an agent, and waits for its answer.
    pub async fn ask(&self, workspace: &str, message: &Value) -> anyhow::Result<()> {
        let url = format!("{}/api/v1/workspaces/{workspace}/messages", self.url);
        let request = self.http.post(url).bearer_auth(&self.token).json(message).timeout(ANSWER_WAIT);
        let answer = request.send().await?;
        let status = answer.status();
        let body = answer.bytes().await?;
        ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
        Ok(())
    }
}

impl Cluster {
    /// Starts three nodes with their folders in `dir`, and waits until all of them vote in every group.
    pub async fn start(program: &Path, dir: &Path) -> anyhow::Result<Cluster> {
        let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(1024).build()?;
        let mut cluster =
            Cluster { program: program.to_owned(), dir: dir.to_owned(), nodes: Vec::new(), token: String::new(), http };
        cluster.nodes.push(cluster.run(0, &[]).await?);
        cluster.token = std::fs::read_to_string(cluster.nodes[0].data.join("admin-token"))?.trim().to_owned();
        let issued = cluster.post(0, "/api/v1/cluster/tokens", &json!({ "uses": 2 })).await?;
        let file = dir.join("join.token");
        std::fs::write(&file, issued["token"].as_str().context("a token")?)?;
        let join = issued["join"][0].as_str().context("an address")?.to_owned();
        for number in [1, 2] {
            let args = ["--join", &join, "--token-file", file.to_str().context("UTF-8")?];
            let node = cluster.run(number, &args).await?;
            cluster.nodes.push(node);
        }
        let began = Instant::now();
        while !cluster.whole(0).await.unwrap_or(false) {
            ensure!(began.elapsed() < PATIENCE, "three nodes did not become three voters");
            tokio::time::sleep(POLL).await;
        }
        cluster.write_workspace(0)?;
        Ok(cluster)
    }

    async fn run(&self, number: usize, args: &[&str]) -> anyhow::Result<Node> {
        let data = self.dir.join(format!("node{number}"));
        let announced = data.join("server.json");
        let _ = std::fs::remove_file(&announced);
        let log =
            std::fs::File::options().create(true).append(true).open(self.dir.join(format!("node{number}.log")))?;
        let process = Command::new(&self.program)
            .args(["serve", "--bind", "127.0.0.1:0", "--peers", "127.0.0.1:0", "--log", "warn", "--data-dir"])
            .arg(&data)
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        let mut node = Node { data, process, url: String::new(), id: String::new() };
        let began = Instant::now();
        loop {
            if let Some(ended) = node.process.try_wait()? {
                bail!("node {number} ended with {ended}; see {}", self.dir.join(format!("node{number}.log")).display());
            }
            if let Ok(file) = std::fs::read(&announced)
                && let Ok(file) = serde_json::from_slice::<Value>(&file)
                && let Some(url) = file["url"].as_str()
                && self.http.get(format!("{url}/ready")).send().await.is_ok_and(|it| it.status().is_success())
            {
                node.url = url.to_owned();
                break;
            }
            ensure!(began.elapsed() < PATIENCE, "node {number} is not ready");
            tokio::time::sleep(POLL).await;
        }
        let identity = std::fs::read_to_string(node.data.join("identity"))?;
        let id = identity.lines().find_map(|line| line.strip_prefix("node ")).context("a node's id")?;
        node.id = format!("{:x}", u64::from_str_radix(id, 16)?);
        Ok(node)
    }

    /// What a node answers to a GET.
    pub async fn get(&self, node: usize, path: &str) -> anyhow::Result<Value> {
        let request = self.http.get(format!("{}{path}", self.nodes[node].url)).bearer_auth(&self.token);
        let answer = request.timeout(PATIENCE).send().await?.error_for_status()?;
        Ok(serde_json::from_slice(&answer.bytes().await?)?)
    }

    /// What a node answers to a POST.
    pub async fn post(&self, node: usize, path: &str, body: &Value) -> anyhow::Result<Value> {
        let request = self.http.post(format!("{}{path}", self.nodes[node].url)).bearer_auth(&self.token).json(body);
        let answer = request.timeout(PATIENCE).send().await?.error_for_status()?;
        Ok(serde_json::from_slice(&answer.bytes().await?)?)
    }

    /// Everybody votes in every group, and nobody lacks more than `lag_max` entries.
    async fn whole(&self, lag_max: u64) -> anyhow::Result<bool> {
        let status = self.get(0, "/api/v1/cluster").await?;
        let whole = |group: &Value| {
            group["voters"].as_array().is_some_and(|voters| voters.len() == 3)
                && group["leader"].is_string()
                && group["lag"]
                    .as_array()
                    .is_none_or(|lag| lag.iter().all(|lag| lag["entries"].as_u64() <= Some(lag_max)))
        };
        Ok(status["groups"].as_array().is_some_and(|groups| groups.iter().all(whole)))
    }

    /// Who leads the deploy log.
    pub async fn leader(&self) -> anyhow::Result<usize> {
        self.leader_of(0).await
    }

    /// Who leads a group: 0 is the deploy log, the others are shards.
    pub async fn leader_of(&self, group: usize) -> anyhow::Result<usize> {
        let began = Instant::now();
        loop {
            for node in 0..self.nodes.len() {
                let status = self.get(node, "/api/v1/cluster?stale=true").await?;
                let leader = status["groups"][group]["leader"].as_str().map(str::to_owned);
                if let Some(found) = self.nodes.iter().position(|node| Some(&node.id) == leader.as_ref())
                    && found == node
                {
                    return Ok(found);
                }
            }
            ensure!(began.elapsed() < PATIENCE, "nobody leads");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Writes to a node.
    pub fn putter(&self, node: usize) -> anyhow::Result<Putter> {
        let url = self.nodes.get(node).context("a node")?.url.clone();
        Ok(Putter { http: self.http.clone(), url, token: self.token.clone() })
    }

    /// One for each node.
    pub fn askers(&self) -> Vec<Asker> {
        let asker = |node: &Node| Asker { http: self.http.clone(), url: node.url.clone(), token: self.token.clone() };
        self.nodes.iter().map(asker).collect()
    }

    /// Where a node listens: `HOST:PORT`.
    pub fn address(&self, node: usize) -> &str {
        self.nodes[node].url.trim_start_matches("http://")
    }

    /// The admin's token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// What each node has in memory, in MiB.
    pub fn memory_mib(&self) -> anyhow::Result<Vec<f64>> {
        let memory = |node: &Node| {
            let status = std::fs::read_to_string(format!("/proc/{}/status", node.process.id()))?;
            let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next());
            Ok(kib.context("a node's memory")?.parse::<f64>()? / 1024.0)
        };
        self.nodes.iter().map(memory).collect()
    }

    /// Has the deploy log led by another node.
    pub async fn hand_over(&self, leader: usize) -> anyhow::Result<()> {
        self.post(leader, "/api/v1/cluster/transfer?group=0", &json!({ "group": 0 })).await.map(drop)
    }

    /// Kills a node as a power cut would, and says when.
    pub fn kill(&mut self, node: usize) -> Instant {
        let killed = Instant::now();
        // Nothing is left to do when it has ended by itself.
        let _ = self.nodes[node].process.kill();
        let _ = self.nodes[node].process.wait();
        killed
    }

    /// Brings a node back and waits until no group of any node lacks more than `lag_max` entries.
    pub async fn start_again(&mut self, node: usize, lag_max: u64) -> anyhow::Result<()> {
        self.nodes[node] = self.run(node, &[]).await?;
        let began = Instant::now();
        while !self.whole(lag_max).await.unwrap_or(false) {
            ensure!(began.elapsed() < PATIENCE, "the node that was killed did not catch up");
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    fn write_workspace(&self, number: usize) -> anyhow::Result<()> {
        let folder = self.dir.join("workspace");
        std::fs::create_dir_all(folder.join("agents"))?;
        std::fs::write(folder.join("caxton.toml"), "[workspace]\nname = \"bench\"\n")?;
        let agent = format!(
            "[agent]\nname = \"greeter\"\nversion = \"1.0.{number}\"\ndescription = \"Greets people\"\n\n\
             [capabilities]\npatterns = [\"say hello to someone\"]\n\n[prompts]\nsystem = \"You greet people.\"\n"
        );
        Ok(std::fs::write(folder.join("agents/greeter.toml"), agent)?)
    }

    /// Deploys an agent whose model is a script to a workspace of this name, and waits until all nodes serve it.
    pub async fn deploy_script(&self, workspace: &str) -> anyhow::Result<()> {
        let folder = self.dir.join(workspace);
        for inner in ["agents", "prompts"] {
            std::fs::create_dir_all(folder.join(inner))?;
        }
        let settings = format!(
            "[workspace]\nname = \"{workspace}\"\n\n[providers.script]\nkind = \"scripted\"\nscript = \"prompts/script.toml\"\n"
        );
        std::fs::write(folder.join("caxton.toml"), settings)?;
        std::fs::write(folder.join("prompts/script.toml"), "[[rule]]\nsay = \"Hello to you.\"\n")?;
        let agent = "[agent]\nname = \"greeter\"\ndescription = \"Greets people\"\n\n[capabilities]\npatterns = [\"say hello\"]\n";
        std::fs::write(folder.join("agents/greeter.toml"), agent)?;
        let revision = self.deploy_folder(0, &folder).await?;
        for node in 0..self.nodes.len() {
            self.live(node, workspace, revision).await?;
        }
        Ok(())
    }

    /// Deploys another version of one agent; says the revision.
    pub async fn deploy(&self, node: usize, number: usize) -> anyhow::Result<u64> {
        self.write_workspace(number)?;
        self.deploy_folder(node, &self.dir.join("workspace")).await
    }

    /// Deploys a folder to the workspace that it names; says the revision.
    pub async fn deploy_folder(&self, node: usize, folder: &Path) -> anyhow::Result<u64> {
        let mut command = Command::new(&self.program);
        command.current_dir(folder).arg("--data-dir").arg(&self.nodes[node].data);
        command.args(["deploy", "--yes", "--json"]).env("HOME", &self.dir).stdin(Stdio::null());
        let ran = tokio::task::spawn_blocking(move || command.output()).await??;
        ensure!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
        let document: Value = serde_json::from_slice(&ran.stdout)?;
        document["revision"].as_u64().context("a revision")
    }

    /// Waits until a node serves a revision, by its own word.
    pub async fn live(&self, node: usize, workspace: &str, revision: u64) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let status = self.get(node, &format!("/api/v1/workspaces/{workspace}?stale=true")).await;
            if status.is_ok_and(|it| it["serving"]["state"] == "live" && it["serving"]["revision"] == revision) {
                return Ok(());
            }
            ensure!(began.elapsed() < PATIENCE, "node {node} does not serve r{revision}");
            tokio::time::sleep(POLL).await;
        }
    }
}
