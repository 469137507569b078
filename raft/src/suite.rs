//! openraft's own storage suite, run against the store, the log and the applier on a real disk; and what the tests of groups
//! share: a machine that keeps its commands, and nodes that reach each other in this process.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use caxton_proto::NodeId;
use openraft::StorageError;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::testing::{StoreBuilder, Suite, blank_ent};
use tempfile::TempDir;

use crate::applier::Applier;
use crate::due::Lengths;
use crate::group::Groups;
use crate::group_id::GroupId;
use crate::log::LogStore;
use crate::machine::{Entry, FrozenState, Machine, MachineError};
use crate::network::receive::AnswerError;
use crate::network::{Transport, TransportError};
use crate::snapshot::Snapshots;
use crate::store::Store;
use crate::type_config::TypeConfig;
use crate::types::{Vote, chain};

/// Keeps the commands that it was given.
#[derive(Default)]
pub struct Journal(Mutex<Vec<Bytes>>);

impl Machine for Journal {
    fn apply(&self, entries: &[Entry]) -> Result<Vec<Bytes>, MachineError> {
        let mut journal = self.0.lock().unwrap();
        journal.extend(entries.iter().map(|entry| entry.command.clone()));
        Ok(vec![Bytes::new(); entries.len()])
    }

    fn freeze(&self) -> Result<FrozenState, MachineError> {
        let count = self.0.lock().unwrap().len() as u64;
        Ok(Box::new(move |out: &mut dyn Write| -> io::Result<()> { out.write_all(&count.to_le_bytes()) }))
    }

    fn restore(&self, from: &mut dyn Read) -> Result<(), MachineError> {
        let mut count = [0; 8];
        from.read_exact(&mut count).map_err(|error| MachineError::new("no count", error))?;
        *self.0.lock().unwrap() = vec![Bytes::new(); u64::from_le_bytes(count) as usize];
        Ok(())
    }

    fn applied(&self) -> u64 {
        self.0.lock().unwrap().len() as u64
    }
}

/// The other node's end, in this process: what it answers arrives after a pause.
#[derive(Default)]
pub struct Near {
    ends: Mutex<BTreeMap<NodeId, Groups>>,
    pause: Mutex<Duration>,
}

impl Near {
    pub fn opens(&self, node: NodeId, end: Groups) {
        self.ends.lock().expect("no panic").insert(node, end);
    }

    /// The ends know of each other, and would never go.
    pub fn closes(&self) {
        self.ends.lock().expect("no panic").clear();
    }

    pub fn answers_after(&self, pause: Duration) {
        *self.pause.lock().expect("no panic") = pause;
    }

    pub fn end(&self, node: NodeId) -> Option<Groups> {
        self.ends.lock().expect("no panic").get(&node).cloned()
    }
}

/// A node's way to the others.
pub struct Way(pub NodeId, pub Arc<Near>);

#[async_trait]
impl Transport for Way {
    async fn call(&self, to: NodeId, message: Bytes, within: Duration) -> Result<Bytes, TransportError> {
        let unreachable = |source| TransportError::Unreachable { node: to, source };
        let end = self.1.end(to).ok_or_else(|| unreachable("it is not open".into()))?;
        let pause = *self.1.pause.lock().expect("no panic");
        let answered = async {
            let answer = end.answer(self.0, message).await;
            tokio::time::sleep(pause).await;
            answer
        };
        match tokio::time::timeout(within, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error @ (AnswerError::UnknownGroup { .. } | AnswerError::Full))) => Err(unreachable(error.into())),
            Ok(Err(error)) => Err(TransportError::Refused { why: chain(&error) }),
            Err(late) => Err(unreachable(late.into())),
        }
    }
}

/// Each test gets a store of its own, in which its group has neighbours on both sides.
struct Builder;

impl StoreBuilder<TypeConfig, LogStore, Applier, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Applier), StorageError<u64>> {
        let dir = tempfile::tempdir().expect("a folder");
        let store = Store::open(dir.path()).expect("a store");
        let group = GroupId(7);
        let snapshots = Snapshots::open(&store.snapshots_dir(), group).expect("a folder for snapshots");
        let lengths = Lengths { entries: 1_000, bytes: 1 << 20, kept_entries: 100, kept_bytes: 1 << 20 };
        let applier = Applier::open(group, Arc::new(Journal::default()), snapshots, lengths).expect("an applier");
        for neighbour in [GroupId(6), GroupId(8)] {
            let mut log = LogStore::new(store.clone(), neighbour);
            log.blocking_append((0..9).map(|index| blank_ent(9, 9, index))).await?;
            log.save_vote(&Vote::new(9, 9)).await?;
        }
        Ok((dir, LogStore::new(store, group), applier))
    }
}

#[test]
fn the_store_passes_the_storage_suite_of_openraft() {
    Suite::test_all(Builder).expect("the suite passes");
}
