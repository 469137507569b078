//! What RocksDB passes over in silence: a log whose record seems to reach past the end of the file looks like one that a
//! crash tore off, and everything from there on would be dropped. It is damage, though, when whole records follow.
//!
//! And what it takes for damage, though a power cut leaves it: file systems make a file longer before they write what is in it, and
//! what was not written reads as zeros. A last record that ends in them was never on disk, so that nobody was told it was.
//!
//! The format is RocksDB's: blocks of 32 KiB hold records of a masked CRC-32C (4 bytes), a length (2), a type (1) and
//! the payload; no record crosses a block's end. Manifests are written in the same way. See "Write Ahead Log File Format"
//! in RocksDB's documentation.

use std::fs;
use std::io;
use std::path::Path;

const BLOCK_BYTES: usize = 32 << 10;
const HEADER_BYTES: usize = 7;
/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;
/// Full, first, middle and last; we use no format that has others.
const TYPES: std::ops::RangeInclusive<u8> = 1..=4;

/// The offset of a whole record behind one that seems to be torn off, if there is one.
pub fn whole_after_torn(file: &Path) -> io::Result<Option<usize>> {
    let bytes = fs::read(file)?;
    let mut at = 0;
    while let Some(next) = next(&bytes, at) {
        at = next;
    }
    // A torn end: what a crash leaves has nothing whole after it.
    Ok((at + 1..bytes.len()).find(|from| is_whole(&bytes, *from)))
}

/// The offset of a last record that is not whole because nothing was written from the border of a sector on, which lies in it.
pub fn unwritten_end(file: &Path) -> io::Result<Option<u64>> {
    Ok(unwritten(&fs::read(file)?).map(|at| at as u64))
}

fn unwritten(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    let length = loop {
        let (length, kind) = header(bytes, at)?;
        let reserved = kind == 0 && length == 0;
        if !reserved && !is_whole(bytes, at) {
            break length;
        }
        at = next(bytes, at)?;
    };
    let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let border = written.next_multiple_of(SECTOR_BYTES);
    (border < bytes.len() && border < at + HEADER_BYTES + length).then_some(at)
}

/// Where the record after the one at `at` begins; nothing at the end, and where a record does not fit.
fn next(bytes: &[u8], at: usize) -> Option<usize> {
    let block_end = (at / BLOCK_BYTES + 1) * BLOCK_BYTES;
    if block_end - at < HEADER_BYTES {
        return (block_end < bytes.len()).then_some(block_end);
    }
    let (length, kind) = header(bytes, at)?;
    if kind == 0 && length == 0 {
        // Space that was reserved and not written.
        return (block_end < bytes.len()).then_some(block_end);
    }
    let end = at + HEADER_BYTES + length;
    (end <= block_end && end < bytes.len()).then_some(end)
}

fn header(bytes: &[u8], at: usize) -> Option<(usize, u8)> {
    let header = bytes.get(at..at + HEADER_BYTES)?;
    Some((usize::from(u16::from_le_bytes([header[4], header[5]])), header[6]))
}

/// Whether a record begins at `at` whose checksum is right.
fn is_whole(bytes: &[u8], at: usize) -> bool {
    let Some((length, kind)) = header(bytes, at) else { return false };
    let room = BLOCK_BYTES - at % BLOCK_BYTES;
    if !TYPES.contains(&kind) || length == 0 || HEADER_BYTES + length > room {
        return false;
    }
    // The checksum covers the type and the payload.
    let Some(covered) = bytes.get(at + HEADER_BYTES - 1..at + HEADER_BYTES + length) else { return false };
    let stored = u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    stored == masked(crc32c::crc32c(covered))
}

/// RocksDB stores checksums masked, so that a checksum of bytes which hold checksums means something.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use rocksdb::DB;

    use super::*;

    /// A write-ahead log of a few records, as a killed process leaves it.
    fn log(dir: &Path) -> std::path::PathBuf {
        let db = DB::open_default(dir).unwrap();
        (0..50_u32).for_each(|n| db.put(n.to_be_bytes(), vec![7; 1_000]).unwrap());
        db.flush_wal(true).unwrap();
        let logs = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let log = logs.filter(|path| path.extension().is_some_and(|end| end == "log")).max().unwrap();
        let copy = dir.with_extension("copy");
        fs::copy(log, &copy).unwrap();
        copy
    }

    #[test]
    fn a_length_that_was_changed_is_told_from_a_torn_end() {
        let dir = tempfile::tempdir().unwrap();
        let file = log(&dir.path().join("db"));
        assert_eq!(whole_after_torn(&file).unwrap(), None, "a whole log");
        let bytes = fs::read(&file).unwrap();
        assert!(is_whole(&bytes, 0), "the format is another one: {:?}", &bytes[..HEADER_BYTES]);
        for end in [bytes.len() - 1, bytes.len() - 900, bytes.len() - 1_005, BLOCK_BYTES + 3, 5] {
            fs::write(&file, &bytes[..end]).unwrap();
            assert_eq!(whole_after_torn(&file).unwrap(), None, "torn off at {end}");
        }
        let mut longer = bytes.clone();
        longer[5] |= 0x80;
        fs::write(&file, &longer).unwrap();
        assert!(whole_after_torn(&file).unwrap().is_some(), "the first record's length was changed");
    }

    #[test]
    fn an_end_that_was_not_written_is_told_from_a_flipped_bit() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = fs::read(log(&dir.path().join("db"))).unwrap();
        assert_eq!(unwritten(&bytes), None, "a whole log");
        for from in (SECTOR_BYTES..bytes.len()).step_by(SECTOR_BYTES) {
            let mut torn = bytes.clone();
            torn[from..].fill(0);
            // Where a record ends with a sector, none is torn, and RocksDB takes the zeros for room that was reserved.
            if let Some(at) = unwritten(&torn) {
                assert!(at < from && is_whole(&bytes, at) && !is_whole(&torn, at), "not written from {from}: {at}");
            }
            // What is left ends with a whole record.
            torn.truncate(unwritten(&torn).unwrap_or(torn.len()));
            assert_eq!(unwritten(&torn), None, "not written from {from}");
        }
        for bit in (0..bytes.len() * 8).step_by(97) {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unwritten(&bad), None, "bit {bit}");
        }
    }
}
