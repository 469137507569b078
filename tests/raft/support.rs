//! What the tests of this floor share: a node on a folder, a machine that keeps its commands, and damage.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::ensure;
use bytes::Bytes;
use caxton_proto::log::{Author, Command, Deploy, Kind};
use caxton_proto::{Digest, NodeId, Revision};
use caxton_raft::deploy_log::DeployLog;
use caxton_raft::{Alone, Birth, Entry, FrozenState, Group, GroupId, Groups, Machine, MachineError, Store, Timers};

pub const NODE: NodeId = NodeId(0xc0ffee);

/// Timers that make a snapshot every `entries`.
pub fn snapshots_every(entries: u64) -> Timers {
    Timers { snapshot_entries: entries, kept_entries: entries / 4, ..Timers::default() }
}

/// The groups of the node on `dir`. The store closes when the last handle goes.
pub fn groups(dir: &Path, timers: Timers) -> anyhow::Result<Groups> {
    Ok(Groups::new(Store::open(dir)?, NODE, timers, Arc::new(Alone)))
}

/// A machine that keeps its commands in memory.
#[derive(Default)]
pub struct Journal(pub Mutex<Vec<Bytes>>);

impl Journal {
    pub fn commands(&self) -> Vec<Bytes> {
        self.0.lock().unwrap().clone()
    }
}

impl Machine for Journal {
    fn apply(&self, entries: &[Entry]) -> Result<Vec<Bytes>, MachineError> {
        let mut journal = self.0.lock().unwrap();
        let mut answers = Vec::new();
        for entry in entries {
            journal.push(entry.command.clone());
            assert_eq!(journal.len() as u64, entry.index, "commands arrive in order, each once");
            answers.push(Bytes::from(entry.index.to_string()));
        }
        Ok(answers)
    }

    fn freeze(&self) -> Result<FrozenState, MachineError> {
        let commands = self.commands();
        Ok(Box::new(move |out: &mut dyn Write| {
            commands.iter().try_for_each(|it| {
                out.write_all(&(it.len() as u32).to_le_bytes())?;
                out.write_all(it)
            })
        }))
    }

    fn restore(&self, from: &mut dyn Read) -> Result<(), MachineError> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).map_err(|error| MachineError::new("cannot read the journal", error))?;
        let (mut rest, mut commands) = (bytes.as_slice(), Vec::new());
        while let Some((len, after)) = rest.split_first_chunk() {
            let (command, after) = after.split_at(u32::from_le_bytes(*len) as usize);
            commands.push(Bytes::copy_from_slice(command));
            rest = after;
        }
        *self.0.lock().unwrap() = commands;
        Ok(())
    }

    fn applied(&self) -> u64 {
        self.commands().len() as u64
    }
}

/// Opens a group with a new [`Journal`].
pub async fn open_journal(groups: &Groups, group: u32) -> anyhow::Result<(Group, Arc<Journal>)> {
    let journal = Arc::new(Journal::default());
    let group = groups.open(GroupId(group), Arc::clone(&journal) as Arc<dyn Machine>, Birth::Founded).await?;
    Ok((group, journal))
}

/// Proposes the numbers from `from` up to `to`, each after the answer to the one before.
pub async fn propose(group: &Group, from: u64, to: u64) -> anyhow::Result<()> {
    for number in from..to {
        let applied = group.propose(number.to_string().into()).await?;
        ensure!(applied.response == applied.index.to_string(), "{applied:?}");
    }
    Ok(())
}

pub fn numbers(to: u64) -> Vec<Bytes> {
    (0..to).map(|number| number.to_string().into()).collect()
}

/// A deployment of `content` to `workspace`.
pub fn deploy(workspace: &str, parent: u64, content: &str) -> Deploy {
    Deploy {
        workspace: workspace.parse().unwrap(),
        parent: Revision(parent),
        root: Digest::of(content.as_bytes()),
        kind: Kind::Deploy,
        author: Author { name: "Ada".into(), email: "ada@example.org".into() },
        actor: "ada".into(),
        time_ms: 1_700_000_000_000,
        git: None,
        message: content.into(),
        changes: Vec::new(),
        changes_total: 0,
        files: 1,
        bytes: content.len() as u64,
        idempotency_key: String::new(),
        revisions_kept: 100,
    }
}

/// Puts `count` deployments on top of each other.
pub async fn deploy_many(log: &DeployLog, workspace: &str, from: u64, count: u64) -> anyhow::Result<()> {
    for parent in from..from + count {
        let command = Command::Deploy(deploy(workspace, parent, &format!("content {parent}")));
        let answer = log.propose(&command).await?;
        let deployed = matches!(answer.outcome, caxton_proto::log::Outcome::Deployed(_));
        ensure!(deployed, "{answer:?}");
    }
    Ok(())
}

/// The files in `dir` whose names end with `suffix` and that hold something.
pub fn files(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|file| file.to_str().unwrap().ends_with(suffix) && fs::metadata(file).unwrap().len() > 0)
        .collect();
    files.sort();
    files
}

/// Flips one bit of a file.
pub fn flip(file: &Path, bit: u64) {
    let mut bytes = fs::read(file).unwrap();
    bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
    fs::write(file, bytes).unwrap();
}

/// An error's whole chain.
pub fn chain(error: &anyhow::Error) -> String {
    format!("{error:#}")
}

/// Tries until it is true.
pub async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !is() {
        assert!(tokio::time::Instant::now() < deadline, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
