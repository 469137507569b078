//! The free space that the node keeps on its disk: writes are refused below it, so that the log never meets a full disk.
//!
//! Refusing early is what keeps a full disk harmless. A store that runs into ENOSPC has half a record on disk and has
//! to be recovered; one that refuses at the reserve has nothing to recover.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Which part of the reserve is the last.
const LAST_PART: u64 = 4;

/// A write was refused, because too little space would be left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the disk that holds {} has {free} bytes free, and {reserve} must stay free beside the {wanted} to be written",
    dir.display())]
pub struct DiskFull {
    /// The node's data folder.
    pub dir: PathBuf,
    /// What is free, in bytes.
    pub free: u64,
    /// What must stay free, in bytes.
    pub reserve: u64,
    /// What was to be written, in bytes.
    pub wanted: u64,
}

impl DiskFull {
    /// What the person at the other end can do.
    pub const HELP: &'static str = "free space on that disk, then try again: nothing was changed, and reads go on";
}

/// Watches the space of one disk. Clones watch the same disk under the same reserve.
#[derive(Debug, Clone)]
pub struct Space(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    reserve: AtomicU64,
}

impl Space {
    /// Watches the disk that holds `dir`.
    pub fn new(dir: &Path, reserve_bytes: u64) -> Space {
        Space(Arc::new(Inner { dir: dir.to_owned(), reserve: AtomicU64::new(reserve_bytes) }))
    }

    /// Changes what must stay free.
    pub fn set_reserve_bytes(&self, bytes: u64) {
        self.0.reserve.store(bytes, Ordering::Relaxed);
    }

    /// Whether `wanted` more bytes fit and leave the reserve.
    ///
    /// A disk that cannot be asked counts as having space: the write itself will say what is wrong with it.
    pub fn check(&self, wanted: u64) -> Result<(), DiskFull> {
        let reserve = self.0.reserve.load(Ordering::Relaxed);
        match self.free_bytes() {
            Some(free) if free < reserve.saturating_add(wanted) => Err(self.full(free, wanted)),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether `wanted` more bytes fit and leave the last part of the reserve, which nothing is written into: what other nodes
    /// lead to be written here is refused below it, so that this one does not meet the end of its disk.
    pub fn has_last_room(&self, wanted: u64) -> bool {
        let last = self.0.reserve.load(Ordering::Relaxed) / LAST_PART;
        self.free_bytes().is_none_or(|free| free >= last.saturating_add(wanted))
    }

    /// The refusal of a write that met the end of the disk all the same.
    pub(super) fn met_end(&self, wanted: u64) -> DiskFull {
        self.full(self.free_bytes().unwrap_or(0), wanted)
    }

    /// What this process may still write, in bytes.
    pub fn free_bytes(&self) -> Option<u64> {
        let stat = rustix::fs::statvfs(&self.0.dir).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn full(&self, free: u64, wanted: u64) -> DiskFull {
        DiskFull { dir: self.0.dir.clone(), free, reserve: self.0.reserve.load(Ordering::Relaxed), wanted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_above_the_free_space_refuses_and_a_lower_one_allows() {
        let dir = tempfile::tempdir().expect("a folder");
        let space = Space::new(dir.path(), u64::MAX);
        let full = space.check(1).expect_err("no disk is that large");
        assert_eq!((full.wanted, full.reserve), (1, u64::MAX));
        assert!(!space.has_last_room(1));
        space.set_reserve_bytes(0);
        assert!(space.has_last_room(1) && !space.has_last_room(u64::MAX));
        assert_eq!(space.check(1), Ok(()));
    }
}
