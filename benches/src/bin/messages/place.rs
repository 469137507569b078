//! A node with agents that are programs, and what is asked of it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use caxton_benches::http::Pool;
use caxton_benches::node::{Caxton, Node};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::Bench;

/// The agents' module, built from benches/guest.
const PARTNER: &[u8] = include_bytes!("../../../guest/partner.wasm");
/// How long the node may take for anything before the benchmark gives up.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// How often something that is waited for is looked at.
const POLL: Duration = Duration::from_millis(5);
/// Events that one page has at most.
const PAGE: usize = 500;

/// A node closes a connection over which nothing has come for ten seconds.
const USED_WITHIN: Duration = Duration::from_secs(5);

/// A node on which agents are deployed.
pub struct Place {
    pub node: Node,
    pub admin: Admin,
}

/// What an admin asks of a node now and then.
pub struct Admin {
    address: String,
    token: String,
    connection: Mutex<Option<(Pool, Instant)>>,
}

impl Admin {
    /// Whoever holds this token, at this node.
    pub fn new(address: &str, token: &str) -> Admin {
        Admin { address: address.to_owned(), token: token.to_owned(), connection: Mutex::default() }
    }

    pub async fn get(&self, path: &str) -> Result<Value> {
        Ok(serde_json::from_slice(&self.connection().await?.get(0, path).await?)?)
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        Ok(serde_json::from_slice(&self.connection().await?.post(0, path, body.to_string()).await?)?)
    }

    async fn connection(&self) -> Result<Pool> {
        let mut kept = self.connection.lock().await;
        let pool = match kept.take() {
            Some((pool, used)) if used.elapsed() < USED_WITHIN => pool,
            Some(_) | None => Pool::open(&self.address, 1, &self.token).await?,
        };
        *kept = Some((pool.clone(), Instant::now()));
        Ok(pool)
    }

    /// A token for somebody who may talk to agents.
    pub async fn token(&self, subject: &str) -> Result<String> {
        let issued = self.post("/api/v1/tokens", &json!({ "subject": subject, "role": "caller" })).await?;
        Ok(issued["token"].as_str().context("a token")?.to_owned())
    }

    /// The position of the newest message of a workspace that has few.
    pub async fn newest(&self, workspace: &str) -> Result<u64> {
        let mut reached = 0;
        loop {
            let page = self.events(workspace, reached, PAGE).await?;
            reached = page["reached"].as_u64().context("a position")?;
            if page["more"] != true {
                return Ok(reached);
            }
        }
    }

    /// Waits until so many messages were said in a workspace.
    pub async fn reaches(&self, workspace: &str, position: u64) -> Result<()> {
        let began = Instant::now();
        while self.events(workspace, position - 1, 1).await?["events"].as_array().is_none_or(Vec::is_empty) {
            ensure!(began.elapsed() < PATIENCE, "not all that was sent to agents of {workspace} was answered");
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    async fn events(&self, workspace: &str, after: u64, most: usize) -> Result<Value> {
        self.get(&format!("/api/v1/workspaces/{workspace}/mailbox/events?after={after}&limit={most}")).await
    }
}

/// A workspace's folder, which is deployed as it is.
pub struct Folder {
    pub path: PathBuf,
}

impl Folder {
    /// A workspace without agents.
    pub fn new(path: PathBuf, name: &str) -> Result<Folder> {
        std::fs::create_dir_all(path.join("agents"))?;
        std::fs::write(path.join("caxton.toml"), format!("[workspace]\nname = \"{name}\"\n"))?;
        std::fs::write(path.join("agents/partner.wasm"), PARTNER)?;
        Ok(Folder { path })
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
    pub fn open(bench: &Bench<'_>, name: &str) -> Result<Place> {
        Place::start(bench.caxton, &bench.dir.join(name).join("data"))
    }

    /// Starts a node on a data directory, which may have been used before.
    pub fn start(caxton: &Caxton, data: &Path) -> Result<Place> {
        let node = caxton.start(data)?;
        let admin = Admin::new(&node.address, &node.token()?);
        Ok(Place { node, admin })
    }

    /// Deploys a workspace. That its agents are told so is no message that is counted.
    pub fn deploy(&self, caxton: &Caxton, folder: &Folder) -> Result<()> {
        caxton.deploy(&folder.path, &self.node.data).map(drop)
    }
}
