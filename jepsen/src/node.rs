//! One node: a real `caxton` process on a host, with a data directory that outlives it.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::http::{self, Answer, NoAnswer, Request};
use crate::lock;
use crate::net::Host;

/// What the whole harness goes by.
#[derive(Debug, Clone)]
pub struct Binary {
    /// The program.
    pub caxton: PathBuf,
    /// Another version of it, for a rolling upgrade.
    pub old: Option<PathBuf>,
}

/// What a node is doing, as far as the harness has to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It has not been started, or has ended.
    Down,
    /// It runs.
    Up,
    /// It runs and is stopped by SIGSTOP.
    Frozen,
}

/// A node. Its methods may be called from any thread.
pub struct Node {
    /// Its index, which is its host's.
    pub index: usize,
    /// Its folder: the data directory (or a link to it), its log.
    pub home: PathBuf,
    inner: Mutex<Inner>,
}

struct Inner {
    child: Option<Child>,
    frozen: bool,
    /// What is given to the next start beside the usual.
    env: Vec<(String, String)>,
    /// Taken out of the cluster: nothing is expected of it any more.
    retired: bool,
    /// How often it was started.
    starts: u64,
}

impl Node {
    /// A node that was never started.
    pub fn new(index: usize, home: PathBuf) -> Result<Node> {
        fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
        let inner = Inner { child: None, frozen: false, env: Vec::new(), retired: false, starts: 0 };
        Ok(Node { index, home, inner: Mutex::new(inner) })
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// What it said since the run began.
    pub fn said(&self) -> String {
        fs::read_to_string(self.home.join("serve.log")).unwrap_or_default()
    }

    /// The last lines of that.
    pub fn said_last(&self, lines: usize) -> String {
        let said = self.said();
        let all: Vec<&str> = said.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// What the next starts are given beside the usual.
    pub fn set_env(&self, env: Vec<(String, String)>) {
        lock(&self.inner).env = env;
    }

    /// Starts it, and does not wait. Its log grows on over restarts.
    pub fn spawn(&self, program: &Path, host: &Host, args: &[String]) -> Result<()> {
        let mut inner = lock(&self.inner);
        if inner.child.is_some() {
            bail!("node {} runs already", self.index);
        }
        let log = OpenOptions::new().create(true).append(true).open(self.home.join("serve.log")).context("its log")?;
        let mut command = host.command(&program.display().to_string());
        plain(&mut command, &self.home);
        command.args(["serve", "--bind", &format!("127.0.0.1:{}", host.api_port)]);
        command.args(["--peers", &host.peer_address(), "--log-format", "pretty"]).arg("--data-dir").arg(self.data());
        command.args(args).envs(inner.env.iter().map(|(name, value)| (name, value)));
        command.stdout(log.try_clone()?).stderr(log);
        inner.child = Some(command.spawn().context("cannot start a node")?);
        inner.starts += 1;
        inner.frozen = false;
        Ok(())
    }

    /// What it is doing. A process that has ended by itself is down.
    pub fn state(&self) -> State {
        let mut inner = lock(&self.inner);
        let runs = inner.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(Some(_))));
        match (runs, inner.frozen) {
            (false, _) => State::Down,
            (true, true) => State::Frozen,
            (true, false) => State::Up,
        }
    }

    /// How it ended, if it was started and has ended by itself. Asked once, it is as if it was never started.
    pub fn reap(&self) -> Option<ExitStatus> {
        let mut inner = lock(&self.inner);
        let ended = inner.child.as_mut()?.try_wait().ok()??;
        inner.child = None;
        Some(ended)
    }

    /// Waits until it has ended by itself.
    pub fn ended(&self, wait: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + wait;
        while Instant::now() < deadline {
            if let Some(ended) = self.reap() {
                return Some(ended);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    /// Its process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        lock(&self.inner).child.as_ref().map(Child::id)
    }

    /// kill -9, if it runs.
    pub fn kill(&self) {
        let mut inner = lock(&self.inner);
        if let Some(mut child) = inner.child.take() {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
        inner.frozen = false;
    }

    /// SIGSTOP.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        lock(&self.inner).frozen = true;
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
        lock(&self.inner).frozen = false;
    }

    /// SIGTERM, and the wait until it has ended; kills it when that takes too long, and says so.
    pub fn terminate(&self, wait: Duration) -> Result<()> {
        self.signal(Signal::TERM);
        match self.ended(wait) {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("node {} ended with {status} after SIGTERM", self.index),
            None => {
                self.kill();
                bail!("node {} did not stop within {wait:?} of SIGTERM", self.index)
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = self.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        if let Some(pid) = pid {
            // It may have ended already.
            let _ = kill_process(pid, signal);
        }
    }

    /// Nothing is expected of it any more.
    pub fn retire(&self) {
        lock(&self.inner).retired = true;
    }

    /// It is expected to belong to the cluster again, as a new node.
    pub fn revive(&self) {
        lock(&self.inner).retired = false;
    }

    /// Whether it was taken out.
    pub fn is_retired(&self) -> bool {
        lock(&self.inner).retired
    }

    /// How often it was started.
    pub fn starts(&self) -> u64 {
        lock(&self.inner).starts
    }

    /// Its admin token; empty before its first start.
    pub fn token(&self) -> String {
        fs::read_to_string(self.data().join("admin-token")).unwrap_or_default().trim().to_owned()
    }

    /// Its id, from the file that names it.
    pub fn id(&self) -> Option<String> {
        let identity = fs::read_to_string(self.data().join("identity")).ok()?;
        let node = identity.lines().find_map(|line| line.strip_prefix("node "))?;
        Some(format!("{:x}", u64::from_str_radix(node, 16).ok()?))
    }

    /// One request to it.
    pub fn ask(&self, host: &Host, method: &str, path: &str, body: &[u8], wait: Duration) -> Result<Answer, NoAnswer> {
        let (token, media) = (self.token(), "application/json");
        http::ask(host, &Request { method, path, token: &token, media, body }, wait)
    }

    /// Whether it says that it can serve.
    pub fn is_ready(&self, host: &Host) -> bool {
        self.ask(host, "GET", "/ready", &[], Duration::from_secs(3)).is_ok_and(|answer| answer.status == 200)
    }

    /// Its own view of the cluster.
    pub fn status(&self, host: &Host) -> Option<Value> {
        let answer = self.ask(host, "GET", "/api/v1/cluster?stale=true", &[], Duration::from_secs(3)).ok()?;
        (answer.status == 200).then_some(answer.body)
    }

    /// A command line of the client against it, with its output.
    pub fn cli(&self, program: &Path, host: &Host, args: &[&str]) -> Result<String> {
        let data = self.data().display().to_string();
        self.command(program, host, &[&["--data-dir", &data], args].concat())
    }

    /// A command line that has to do with no node, on its host, with its output.
    pub fn command(&self, program: &Path, host: &Host, args: &[&str]) -> Result<String> {
        let mut command = host.command(&program.display().to_string());
        plain(&mut command, &self.home);
        command.args(args).stdin(Stdio::null());
        let ran = command.output().context("cannot run caxton")?;
        if !ran.status.success() {
            bail!(
                "caxton {} ended with {}: {}",
                args.join(" "),
                ran.status,
                String::from_utf8_lossy(&ran.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&ran.stdout).into_owned())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Nothing of the environment that would make two machines differ.
#[expect(clippy::disallowed_methods, reason = "programs are found as for whoever runs this")]
fn plain(command: &mut Command, home: &Path) {
    command.env_clear().env("HOME", home).env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("TERM", "dumb").stdin(Stdio::null());
}
