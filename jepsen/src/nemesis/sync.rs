//! Faults at the moment of a sync, by strace, which attaches to the running node.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{END_WAIT, Nemesis};
use crate::check::Finding;
use crate::fault::Who;
use crate::node::State;

/// How long strace may take to attach to all threads.
const ATTACH_WAIT: Duration = Duration::from_secs(20);

impl Nemesis {
    /// Attaches to a node and says what is to happen at its syncs. Nothing when the node does not run.
    pub(super) fn trace(&mut self, index: usize, inject: &str) -> Result<bool> {
        let node = &self.cluster.nodes[index];
        let Some(pid) = node.pid().filter(|_| node.state() == State::Up) else { return Ok(false) };
        let said = node.home.join("strace.log");
        let log = std::fs::File::create(&said)?;
        let mut command = Command::new("strace");
        command.args(["-f", "-p", &pid.to_string(), "-e", "trace=fsync,fdatasync", "-e"]);
        command.arg(format!("inject=fsync,fdatasync:{inject}")).args(["-o", "/dev/null"]);
        let tracer = command.stdout(Stdio::null()).stderr(log).stdin(Stdio::null()).spawn().context("strace")?;
        self.tracers.push(tracer);
        let deadline = Instant::now() + ATTACH_WAIT;
        loop {
            let text = std::fs::read_to_string(&said).unwrap_or_default();
            if text.contains("attached") {
                return Ok(true);
            }
            if text.contains("Operation not permitted") || Instant::now() > deadline {
                bail!("strace does not attach to node {index}: {text}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(super) fn kill_at_sync(&mut self, who: Who, nth: u32) -> Result<String> {
        let Some(index) = self.who(who).first().copied() else { return Ok("nobody to kill".to_owned()) };
        self.down.insert(index);
        self.trace(index, &format!("signal=SIGKILL:when={nth}"))?;
        let ended = self.cluster.nodes[index].ended(Duration::from_secs(8));
        let how = ended.map_or_else(|| "and none came".to_owned(), |status| format!("and it ended with {status}"));
        Ok(format!("kill -9 of node {index} at sync {nth} of a thread, {how}"))
    }

    pub(super) fn sync_fails(&mut self, who: Who) -> Result<String> {
        let Some(index) = self.who(who).first().copied() else { return Ok("nobody to harm".to_owned()) };
        let cluster = Arc::clone(&self.cluster);
        let node = &cluster.nodes[index];
        if !self.trace(index, "error=EIO:when=1+")? {
            return Ok(format!("node {index} was down"));
        }
        self.down.insert(index);
        let ended = node.ended(END_WAIT);
        match ended {
            Some(status) if status.code().is_some_and(|code| code != 0) => {}
            Some(status) => {
                let text = format!("node {index} ended with {status} after a sync failed:\n{}", node.said_last(15));
                self.findings.push(Finding::new("sync-end", text));
            }
            None => {
                let text =
                    format!("node {index} runs on {END_WAIT:?} after its syncs began to fail:\n{}", node.said_last(15));
                self.findings.push(Finding::new("sync-ignored", text));
            }
        }
        self.untrace();
        let how = ended.map_or_else(|| "it runs on".to_owned(), |status| format!("it ended with {status}"));
        Ok(format!("every sync of node {index} fails with EIO: {how}"))
    }

    pub(super) fn untrace(&mut self) {
        for mut tracer in self.tracers.drain(..) {
            // It may have ended with the node.
            let _ = tracer.kill();
            let _ = tracer.wait();
        }
    }
}
