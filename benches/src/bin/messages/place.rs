//! A node with agents that are programs, and what is asked of it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use caxton_benches::http::Pool;
use caxton_benches::node::{Caxton, Node};
use serde_json::{Value, json};

use super::Bench;

/// The agents' module, built from benches/guest.
const PARTNER: &[u8] = include_bytes!("../../../guest/partner.wasm");
/// How long the node may take for anything before the benchmark gives up.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// How often something that is waited for is looked at.
const POLL: Duration = Duration::from_millis(5);
/// Events that one page has at most.
const PAGE: usize = 500;

/// A node on which agents are deployed.
pub struct Place {
    pub node: Node,
    admin: Pool,
}

/// A workspace's folder, which is deployed as it is.
pub struct Folder {
    pub path: PathBuf,
    pub name: String,
}

impl Folder {
    /// A workspace without agents.
    pub fn new(path: PathBuf, name: &str) -> Result<Folder> {
        std::fs::create_dir_all(path.join("agents"))?;
        std::fs::write(path.join("caxton.toml"), format!("[workspace]\nname = \"{name}\"\n"))?;
        std::fs::write(path.join("agents/partner.wasm"), PARTNER)?;
        Ok(Folder { path, name: name.to_owned() })
    }

    /// Adds an agent that is the program, with more of its file.
    pub fn add(&self, agent: &str, rest: &str) -> Result<()> {
        let text = format!(
            "[agent]\nname = \"{agent}\"\ndescription = \"Answers\"\nkind = \"component\"\nmodule = \"./partner.wasm\"\n\n{rest}\n"
        );
        Ok(std::fs::write(self.path.join(format!("agents/{agent}.toml")), text)?)
    }

    /// Adds `agents` of them, `echo-0` and so on, each of which handles so many messages at a time.
    pub fn add_echoes(&self, agents: usize, concurrency: usize) -> Result<()> {
        (0..agents).try_for_each(|number| {
            self.add(&format!("echo-{number}"), &format!("[messages]\nconcurrency = {concurrency}"))
        })
    }
}

impl Place {
    /// Starts a node under a name of its own.
    pub async fn open(bench: &Bench<'_>, name: &str) -> Result<Place> {
        Place::start(bench.caxton, &bench.dir.join(name).join("data")).await
    }

    /// Starts a node on a data directory, which may have been used before.
    pub async fn start(caxton: &Caxton, data: &Path) -> Result<Place> {
        let node = caxton.start(data)?;
        let admin = Pool::open(&node.address, 1, &node.token()?).await?;
        Ok(Place { node, admin })
    }

    /// Deploys a workspace, and waits until its agents have heard of it.
    pub async fn deploy(&self, caxton: &Caxton, folder: &Folder) -> Result<()> {
        caxton.deploy(&folder.path, &self.node.data)?;
        self.quiet(&folder.name).await
    }

    /// A token for somebody who may talk to agents.
    pub async fn token(&self, subject: &str) -> Result<String> {
        token(&self.admin, subject).await
    }

    pub async fn get(&self, path: &str) -> Result<Value> {
        Ok(serde_json::from_slice(&self.admin.get(0, path).await?)?)
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        Ok(serde_json::from_slice(&self.admin.post(0, path, body.to_string()).await?)?)
    }

    /// Waits until agents have nothing to do.
    pub async fn quiet(&self, workspace: &str) -> Result<()> {
        let began = Instant::now();
        loop {
            let newest = self.newest(workspace).await?;
            let waiting = self.get(&format!("/api/v1/workspaces/{workspace}/mailbox?dead=false&limit=500")).await?;
            let waiting = waiting["deliveries"].as_array().context("deliveries")?;
            let agents = waiting.iter().filter(|it| it["owner"].as_str().is_some_and(|owner| !owner.contains(':')));
            if newest > 0 && agents.count() == 0 {
                return Ok(());
            }
            ensure!(began.elapsed() < PATIENCE, "agents of {workspace} still have messages that nobody sent");
            tokio::time::sleep(POLL).await;
        }
    }

    /// The position of the newest message of a workspace that has few.
    pub async fn newest(&self, workspace: &str) -> Result<u64> {
        newest(&self.admin, workspace).await
    }

    /// Waits until so many messages were said in a workspace, and says how many there are then.
    pub async fn reaches(&self, workspace: &str, position: u64) -> Result<()> {
        reaches(&self.admin, workspace, position).await
    }
}

/// A token for somebody who may talk to agents.
pub async fn token(admin: &Pool, subject: &str) -> Result<String> {
    let request = json!({ "subject": subject, "role": "caller" });
    let issued: Value = serde_json::from_slice(&admin.post(0, "/api/v1/tokens", request.to_string()).await?)?;
    Ok(issued["token"].as_str().context("a token")?.to_owned())
}

/// The position of the newest message of a workspace that has few.
pub async fn newest(admin: &Pool, workspace: &str) -> Result<u64> {
    let mut reached = 0;
    loop {
        let page = events(admin, workspace, reached, PAGE).await?;
        reached = page["reached"].as_u64().context("a position")?;
        if page["more"] != true {
            return Ok(reached);
        }
    }
}

/// Waits until so many messages were said in a workspace.
pub async fn reaches(admin: &Pool, workspace: &str, position: u64) -> Result<()> {
    let began = Instant::now();
    while events(admin, workspace, position - 1, 1).await?["events"].as_array().is_none_or(Vec::is_empty) {
        ensure!(began.elapsed() < PATIENCE, "not all that was sent to agents of {workspace} was answered");
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

async fn events(admin: &Pool, workspace: &str, after: u64, most: usize) -> Result<Value> {
    let path = format!("/api/v1/workspaces/{workspace}/mailbox/events?after={after}&limit={most}");
    Ok(serde_json::from_slice(&admin.get(0, &path).await?)?)
}
