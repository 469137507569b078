//! How far the log was on disk, in a file beside it. A write-ahead log whose end was cut off looks like one that a crash
//! tore; without this mark, a node would open it, and forget what it acknowledged and whom it voted for.
//!
//! The mark is written after each sync and is not synced itself: it never says more than is on disk. After a power cut it
//! may say less, and then it misses what it would have found.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The file's name in the store's folder.
const FILE: &str = "synced";
/// A sequence number and its checksum, little-endian.
const BYTES: usize = 12;

/// The file in which the store notes how far its log was synced.
pub struct Tail {
    file: File,
}

impl Tail {
    /// Opens the mark of the store in `dir`; made, without a number, if it is not there.
    pub fn open(dir: &Path) -> io::Result<Tail> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(dir.join(FILE))?;
        Ok(Tail { file })
    }

    /// The last number that was marked. A mark that is damaged says nothing.
    pub fn last(&self) -> Option<u64> {
        let mut bytes = [0; BYTES];
        self.file.read_exact_at(&mut bytes, 0).ok()?;
        let (number, sum) = bytes.split_first_chunk::<8>()?;
        (crc32fast::hash(number).to_le_bytes() == *sum).then(|| u64::from_le_bytes(*number))
    }

    /// Marks that everything up to `number` is on disk.
    pub fn mark(&self, number: u64) {
        let number = number.to_le_bytes();
        let bytes = [&number[..], &crc32fast::hash(&number).to_le_bytes()].concat();
        if let Err(error) = self.file.write_all_at(&bytes, 0) {
            // An older mark is no wrong one.
            tracing::warn!(%error, "cannot mark how far the log is on disk");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_again_and_a_damaged_one_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let tail = Tail::open(dir.path()).unwrap();
        assert_eq!(tail.last(), None);
        tail.mark(7);
        tail.mark(9);
        assert_eq!(Tail::open(dir.path()).unwrap().last(), Some(9));
        for bit in 0..BYTES * 8 {
            let file = dir.path().join(FILE);
            let good = std::fs::read(&file).unwrap();
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&file, &bad).unwrap();
            assert_eq!(Tail::open(dir.path()).unwrap().last(), None, "bit {bit}");
            std::fs::write(&file, good).unwrap();
        }
    }
}
