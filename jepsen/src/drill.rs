//! What an operator does when all else is lost: a backup that was taken under load is restored, and one node that is left
//! goes on alone. Both have to have everything that was acknowledged before.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::check::{Finding, NodeSeen};
use crate::cluster::Cluster;
use crate::history::{Ask, Op, Outcome};
use crate::net::run;
use crate::node::State;

/// How long a node may take to start on what was restored.
const START_WAIT: Duration = Duration::from_secs(90);

/// A backup that was taken under load.
#[derive(Debug, Clone)]
pub struct Backup {
    /// The archive.
    pub file: PathBuf,
    /// When it was asked for.
    pub asked: Instant,
}

/// Restores the backup on the spare host `spare`, and looks for what was acknowledged before it was asked for.
pub fn restore(
    cluster: &Arc<Cluster>,
    backup: &Backup,
    asked_ns: u64,
    spare: usize,
    history: &[Op],
    last: &NodeSeen,
) -> Result<Vec<Finding>> {
    let node = &cluster.nodes[spare];
    let host = cluster.host(spare);
    let file = backup.file.display().to_string();
    node.command(&cluster.binary.caxton, host, &["backup", "verify", &file])?;
    node.cli(&cluster.binary.caxton, host, &["restore", &file])?;
    node.spawn(&cluster.binary.caxton, host, &cluster.settings())?;
    ready(cluster, spare)?;
    let restored = cluster.see_one(spare, &workspaces(last))?;
    let mut findings = is_beginning("restore", &restored, last);
    findings.extend(has("restore", &restored, history, asked_ns));
    let id = |index: usize| cluster.nodes[index].status(cluster.host(index)).map(|status| status["cluster"].clone());
    if id(spare).is_none() || id(spare) == id(last.node) {
        findings.push(Finding::new("restore-id", "the restored cluster has the id of the one that it was made from"));
    }
    node.kill();
    Ok(findings)
}

/// Kills every member, loses all disks but that of `survivor`, and lets it go on alone. Nobody wrote for a while, so it
/// has to have everything.
pub fn recover(cluster: &Arc<Cluster>, survivor: usize, history: &[Op], last: &NodeSeen) -> Result<Vec<Finding>> {
    cluster.nodes.iter().for_each(|node| node.kill());
    let (node, host) = (&cluster.nodes[survivor], cluster.host(survivor));
    node.cli(&cluster.binary.caxton, host, &["recover", "--unsafe-new-cluster", "--yes"])?;
    node.spawn(&cluster.binary.caxton, host, &cluster.settings())?;
    ready(cluster, survivor)?;
    let recovered = cluster.see_one(survivor, &workspaces(last))?;
    let mut findings = is_beginning("recover", &recovered, last);
    findings.extend(has("recover", &recovered, history, u64::MAX));
    Ok(findings)
}

/// Why a binary cannot do this, if it cannot.
pub fn cannot(program: &std::path::Path) -> Option<String> {
    let asked = run(std::process::Command::new(program).args(["backup", "--help"]));
    asked.err().map(|_| "this caxton has no `backup`".to_owned())
}

fn workspaces(seen: &NodeSeen) -> Vec<String> {
    seen.logs.keys().cloned().collect()
}

fn ready(cluster: &Cluster, index: usize) -> Result<()> {
    let (node, deadline) = (&cluster.nodes[index], Instant::now() + START_WAIT);
    while !node.is_ready(cluster.host(index)) {
        if node.state() == State::Down || Instant::now() > deadline {
            bail!("node {index} does not start on what it was given:\n{}", node.said_last(12));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// What it has is the beginning of what there was. Indices may begin anew; revisions and content may not.
fn is_beginning(what: &'static str, seen: &NodeSeen, last: &NodeSeen) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (key, log) in &seen.logs {
        let whole = last.logs.get(key).map_or(&[][..], Vec::as_slice);
        let same = log.len() <= whole.len()
            && log
                .iter()
                .zip(whole)
                .all(|(a, b)| (a.rev, a.parent, a.value, &a.root) == (b.rev, b.parent, b.value, &b.root));
        if !same {
            findings.push(Finding::new(
                "drill-other",
                format!("{what}: the log of {key} is not the beginning of what it was"),
            ));
        }
    }
    findings
}

/// Every write is in it that was acknowledged before a moment. What somebody may have forgotten need not be.
fn has(what: &str, seen: &NodeSeen, history: &[Op], before_ns: u64) -> Vec<Finding> {
    let forget = |op: &'_ Op| if let Ask::Forget { memory } = op.ask { Some((op.key.clone(), memory)) } else { None };
    let forgotten: HashSet<(String, u64)> = history.iter().filter_map(forget).collect();
    let mut findings = Vec::new();
    for op in history.iter().filter(|op| op.is_ok() && op.end < before_ns) {
        let there = match (&op.ask, &op.outcome) {
            (Ask::Cas { to, .. }, Outcome::Ok { live, .. }) => seen
                .logs
                .get(&op.key)
                .and_then(|log| log.get(usize::try_from(live.rev).ok()?.checked_sub(1)?))
                .is_some_and(|entry| entry.value == *to),
            (Ask::Say { conversation, value }, Outcome::Ok { .. }) => {
                let turns = seen.conversations.get(&format!("{}/{conversation}", op.key));
                turns.is_some_and(|turns| turns.contains(value))
            }
            // The message itself, which waits, its answer, or the notice that there will be none.
            (Ask::Mail { value, .. }, Outcome::Ok { .. }) => {
                let letters = seen.mail.get(&op.key);
                letters.is_some_and(|letters| letters.iter().any(|letter| letter.about == Some(*value)))
            }
            (Ask::Remember { memory, .. }, Outcome::Ok { .. }) if !forgotten.contains(&(op.key.clone(), *memory)) => {
                let kept = seen.memories.get(&op.key);
                kept.is_some_and(|kept| kept.iter().any(|kept| kept.memory == *memory))
            }
            _ => true,
        };
        if !there {
            let text = format!(
                "{what}: {:?} of {} was acknowledged at {} ms and is not there",
                op.ask,
                op.key,
                op.end / 1_000_000
            );
            findings.push(Finding::new("drill-lost", text));
        }
    }
    findings
}

/// Everything at the end of a run with a backup.
pub fn both(
    cluster: &Arc<Cluster>,
    backup: &Backup,
    began: Instant,
    history: &[Op],
    last: &NodeSeen,
) -> Result<Vec<Finding>> {
    let asked_ns = u64::try_from(backup.asked.saturating_duration_since(began).as_nanos())?;
    let members = cluster.members();
    let spare = (0..cluster.nodes.len()).find(|index| !members.contains(index)).context("no spare host")?;
    let mut findings = restore(cluster, backup, asked_ns, spare, history, last)?;
    findings.extend(recover(cluster, last.node, history, last)?);
    Ok(findings)
}
