//! A node as a process of its own, started and stopped as an operator would.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// What a started node gets to become ready.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// The program that is measured.
#[derive(Debug, Clone)]
pub struct Caxton(PathBuf);

impl Caxton {
    /// The one that is named, or else the one beside this benchmark.
    pub fn find(named: Option<PathBuf>) -> Result<Caxton> {
        let own = std::env::current_exe().context("this program's own path")?;
        let caxton = named.unwrap_or_else(|| own.with_file_name("caxton"));
        ensure!(caxton.is_file(), "{} is not there; build it, or name it with --caxton", caxton.display());
        Ok(Caxton(caxton))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A command that runs in `cwd` and means the node of the data directory.
    pub fn command(&self, cwd: &Path, data: &Path) -> Command {
        let mut command = Command::new(&self.0);
        command.current_dir(cwd).stdin(Stdio::null()).arg("--data-dir").arg(data);
        for name in ["CAXTON_SERVER", "CAXTON_TOKEN", "CAXTON_TOKEN_FILE", "CAXTON_WORKSPACE"] {
            command.env_remove(name);
        }
        command
    }

    /// `caxton deploy` of a workspace, and what it printed.
    pub fn deploy(&self, workspace: &Path, data: &Path) -> Result<Value> {
        let done = self.command(workspace, data).args(["deploy", "--yes", "--json"]).output()?;
        let text = String::from_utf8_lossy(&done.stdout);
        ensure!(done.status.success(), "the deployment failed: {text}{}", String::from_utf8_lossy(&done.stderr));
        Ok(serde_json::from_str(&text)?)
    }

    /// Starts a node, and measures from its spawn to the first 200 of `/ready`.
    pub fn start(&self, data: &Path) -> Result<Node> {
        let home = data.parent().context("a parent")?;
        fs::create_dir_all(home)?;
        let log = File::create(home.join("serve.log"))?;
        let file = data.join("server.json");
        // The one of an earlier run names a port that is gone.
        let _ = fs::remove_file(&file);
        let mut command = self.command(home, data);
        command.args(["serve", "--bind", "127.0.0.1:0"]).stdout(log.try_clone()?).stderr(log);
        let start = Instant::now();
        let child = command.spawn()?;
        let mut node = Node { child, data: data.to_owned(), address: String::new(), ready_ms: f64::NAN };
        loop {
            if let Some(ended) = node.child.try_wait()? {
                bail!("the node ended ({ended}): {}", fs::read_to_string(home.join("serve.log"))?);
            }
            ensure!(start.elapsed() < READY_WITHIN, "the node is not ready after {READY_WITHIN:?}");
            let known = fs::read(&file).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
            let url = known.as_ref().and_then(|file| file["url"].as_str());
            if let Some(address) = url.and_then(|url| url.strip_prefix("http://"))
                && is_ready(address)
            {
                node.ready_ms = start.elapsed().as_secs_f64() * 1e3;
                address.clone_into(&mut node.address);
                return Ok(node);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

/// A node that is killed when it is dropped.
#[derive(Debug)]
pub struct Node {
    child: Child,
    /// Its data directory.
    pub data: PathBuf,
    /// Where it listens: `HOST:PORT`.
    pub address: String,
    /// From its spawn to the first 200 of `/ready`, in milliseconds.
    pub ready_ms: f64,
}

impl Node {
    /// Its admin's token.
    pub fn token(&self) -> Result<String> {
        Ok(fs::read_to_string(self.data.join("admin-token"))?.trim().to_owned())
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory, in bytes.
    pub fn rss(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS in /proc")?;
        let kb: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(kb << 10)
    }

    /// Resident memory once it stops changing, in bytes.
    pub fn settled_rss(&self) -> Result<u64> {
        let start = Instant::now();
        let mut last = self.rss()?;
        let mut same_since = Instant::now();
        while same_since.elapsed() < Duration::from_millis(1500) && start.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(50));
            let now = self.rss()?;
            if now.abs_diff(last) > 256 << 10 {
                last = now;
                same_since = Instant::now();
            }
        }
        self.rss()
    }

    /// Ends it as a power cut would, and says when.
    pub fn kill(mut self) -> Result<Instant> {
        let killed = Instant::now();
        self.child.kill()?;
        self.child.wait()?;
        Ok(killed)
    }

    /// Stops it with SIGTERM.
    pub fn stop(mut self) -> Result<()> {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::TERM)?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks `/ready` over a socket of its own, so that no client library's start is measured.
fn is_ready(address: &str) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = std::net::TcpStream::connect(address)?;
        stream.write_all(format!("GET /ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(&head[9..] == b"200")
    };
    ask().unwrap_or(false)
}
