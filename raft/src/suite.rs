//! openraft's own storage suite, run against the store, the log and the applier on a real disk.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use openraft::StorageError;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::testing::{StoreBuilder, Suite, blank_ent};
use tempfile::TempDir;

use crate::applier::Applier;
use crate::due::Lengths;
use crate::group_id::GroupId;
use crate::log::LogStore;
use crate::machine::{Entry, FrozenState, Machine, MachineError};
use crate::snapshot::Snapshots;
use crate::store::Store;
use crate::type_config::TypeConfig;
use crate::types::Vote;

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
