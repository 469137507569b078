//! Where the nodes are: one address per node, kept on disk, because a node that starts again has to find the others
//! before it has read the log that says where they are.
//!
//! An address is a hint: what decides who is there is the certificate.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use caxton_proto::NodeId;
use tracing::warn;

use crate::errors::chain;
use crate::files::write_private;

/// The book's file in the data directory.
pub const BOOK_FILE: &str = "peers.json";

/// Addresses by node, `HOST:PORT`. A clone is a handle on the same book.
#[derive(Debug, Clone)]
pub struct Book {
    file: Arc<PathBuf>,
    rows: Arc<RwLock<BTreeMap<NodeId, String>>>,
    /// What the file holds, which is not all that was noted.
    written: Arc<Mutex<Option<BTreeMap<NodeId, String>>>>,
}

impl Book {
    /// Reads the book of a data directory. One that is missing or damaged is empty: the log fills it again.
    pub fn open(dir: &Path) -> Book {
        let file = dir.join(BOOK_FILE);
        let rows: Option<BTreeMap<NodeId, String>> = std::fs::read(&file).ok().and_then(|bytes| {
            let rows: BTreeMap<String, String> = serde_json::from_slice(&bytes).ok()?;
            let row = |(node, address)| Some((NodeId(u64::from_str_radix(node, 16).ok()?), address));
            Some(rows.iter().filter_map(|(node, address)| row((node.as_str(), address.clone()))).collect())
        });
        let written = Arc::new(Mutex::new(rows.clone()));
        Book { file: Arc::new(file), rows: Arc::new(RwLock::new(rows.unwrap_or_default())), written }
    }

    /// Where a node is.
    pub fn address(&self, node: NodeId) -> Option<String> {
        self.read(|rows| rows.get(&node).cloned())
    }

    /// All nodes and where they are.
    pub fn all(&self) -> BTreeMap<NodeId, String> {
        self.read(Clone::clone)
    }

    /// Notes where one node is now. Not kept on disk: whoever says so is heard again.
    pub fn note(&self, node: NodeId, address: &str) -> bool {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        rows.insert(node, address.to_owned()).as_deref() != Some(address)
    }

    /// Replaces all rows, and keeps them on disk. Blocks on the disk; a failure costs the next start some time.
    pub fn replace(&self, rows: BTreeMap<NodeId, String>) {
        self.rows.write().unwrap_or_else(PoisonError::into_inner).clone_from(&rows);
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.as_ref() == Some(&rows) {
            return;
        }
        let text: BTreeMap<String, &String> =
            rows.iter().map(|(node, address)| (format!("{:x}", node.0), address)).collect();
        let bytes = serde_json::to_vec(&text).unwrap_or_default();
        match write_private(&self.file, &bytes) {
            Ok(()) => *written = Some(rows),
            Err(error) => warn!(error = %chain(&error), "where the other nodes are could not be written down"),
        }
    }

    fn read<R>(&self, read: impl FnOnce(&BTreeMap<NodeId, String>) -> R) -> R {
        read(&self.rows.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_book_is_there_after_a_restart_and_a_damaged_one_is_empty() {
        let dir = tempfile::tempdir().expect("a folder");
        let rows = BTreeMap::from([(NodeId(1), "a:1".to_owned()), (NodeId(u64::MAX), "b:2".to_owned())]);
        Book::open(dir.path()).replace(rows.clone());
        assert_eq!(Book::open(dir.path()).all(), rows);
        // What gossip said before the log did is written down all the same.
        let book = Book::open(dir.path());
        book.note(NodeId(1), "a:3");
        let moved = BTreeMap::from([(NodeId(1), "a:3".to_owned())]);
        book.replace(moved.clone());
        assert_eq!(Book::open(dir.path()).all(), moved);
        std::fs::write(dir.path().join(BOOK_FILE), "{").expect("written");
        assert!(Book::open(dir.path()).all().is_empty());
    }
}
