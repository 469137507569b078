//! Damage to a node's files: a flipped bit or a cut end, and what the node makes of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};

use super::{Nemesis, START_WAIT};
use crate::check::Finding;
use crate::fault::{Files, Who};

impl Nemesis {
    pub(super) fn flip(&mut self, who: Who, kind: Files, seed: u64, truncate: bool) -> Result<String> {
        let Some(index) = self.who(who).first().copied() else { return Ok("nobody to harm".to_owned()) };
        let cluster = Arc::clone(&self.cluster);
        let (node, host) = (&cluster.nodes[index], cluster.host(index));
        node.kill();
        let mut random = fastrand::Rng::with_seed(seed);
        let mut found = files(&node.data(), kind);
        if found.is_empty() {
            cluster.start(index)?;
            return Ok(format!("node {index} has no {kind:?} to damage, and is started again"));
        }
        let file = found.swap_remove(random.usize(0..found.len()));
        let damage = damage(&file, &mut random, truncate)?;
        let short = file.strip_prefix(&node.home).unwrap_or(&file).display().to_string();
        let said_before = node.said().len();
        cluster.start(index)?;
        let deadline = Instant::now() + START_WAIT;
        let outcome = loop {
            if let Some(status) = node.reap() {
                break Some(status);
            }
            if node.is_ready(host) {
                break None;
            }
            if Instant::now() > deadline {
                // Without a leader it cannot be ready; what it makes of the file it has made of it by now.
                break None;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        };
        let what = format!("{damage} of {short} at node {index}");
        let Some(status) = outcome else { return Ok(format!("{what}: it started")) };
        let said = node.said().split_off(said_before);
        if status.code().is_none() || said.contains("panicked") {
            self.findings
                .push(Finding::new("flip-crash", format!("{what}: it ended with {status}\n{}", node.said_last(15))));
        }
        if !said.contains("error") || !said.contains("help") && !said.contains("restore") {
            self.findings.push(Finding::new("flip-unsaid", format!("{what}: it does not say what to do\n{said}")));
        }
        let reason = said.lines().find(|line| line.contains("error")).unwrap_or("").trim().to_owned();
        self.start_over(index)?;
        self.redundant();
        Ok(format!("{what}: refused with {status} ({reason}); its disk is wiped and it comes back as a new node"))
    }
}

/// The files of a kind that have something in them.
fn files(data: &Path, kind: Files) -> Vec<PathBuf> {
    let mut folders = vec![data.to_owned()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if fs::metadata(&path).is_ok_and(|file| file.len() > 0) && is_of(data, &path, kind) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn is_of(data: &Path, path: &Path, kind: Files) -> bool {
    let inside = path.strip_prefix(data).unwrap_or(path);
    let top = inside.components().next().map(|part| part.as_os_str().to_string_lossy().into_owned());
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or("");
    let snapshot = inside.components().any(|part| part.as_os_str() == "snapshots");
    match kind {
        Files::RaftWal => top.as_deref() == Some("raft") && !snapshot && extension == "log",
        Files::RaftTables => top.as_deref() == Some("raft") && !snapshot && extension == "sst",
        Files::Snapshots => snapshot,
        Files::Artifacts => top.as_deref() == Some("artifacts") && matches!(extension, "sst" | "log"),
        Files::Identity => inside.as_os_str() == "identity",
        // Not what SQLite makes anew at every start.
        Files::Conversations => top.as_deref() == Some("conversations") && extension != "db-shm",
    }
}

fn damage(file: &Path, random: &mut fastrand::Rng, truncate: bool) -> Result<String> {
    let mut bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let what = if truncate {
        let left = random.usize(0..bytes.len());
        let whole = bytes.len();
        bytes.truncate(left);
        format!("the last {} of {whole} bytes cut off the end", whole - left)
    } else {
        let bit = random.usize(0..bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        format!("bit {bit} of {} flipped", bytes.len() * 8)
    };
    fs::write(file, bytes).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(what)
}
