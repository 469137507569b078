//! The store against a real disk: what comes in comes out, what is damaged does not, and a full disk is survived.

use std::path::PathBuf;
use std::process::Command;

use super::*;

fn noise(bytes: usize, mut x: u64) -> Vec<u8> {
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as u8
    };
    (0..bytes).map(|_| next()).collect()
}

fn named(content: Vec<u8>) -> (Digest, Bytes) {
    (Digest::of(&content), content.into())
}

fn ws(name: &str) -> WorkspaceId {
    name.parse().expect("a name")
}

fn store(dir: &Path) -> Artifacts {
    Artifacts::open(&dir.join("artifacts"), Space::new(dir, 0)).expect("a store")
}

fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir.join("artifacts")).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.to_string_lossy().ends_with(ending)).collect()
}

fn flip_a_bit(path: &Path, at: impl FnOnce(usize) -> usize) {
    let mut bytes = std::fs::read(path).expect("a file");
    let at = at(bytes.len());
    bytes[at] ^= 1;
    std::fs::write(path, bytes).expect("written");
}

#[test]
fn a_blob_is_seen_by_its_own_workspace_only() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = store(dir.path());
    let (one, two) = (ws("one"), ws("on"));
    let (digest, blob) = named(noise(10_000, 1));
    store.put(&one, vec![(digest, blob.clone())]).expect("stored");
    assert_eq!(store.get(&one, &digest).expect("read"), Some(blob));
    assert_eq!(store.get(&two, &digest).expect("read"), None);
    assert_eq!(store.missing(&two, &[digest, digest]).expect("read"), [digest]);
    assert_eq!(store.sizes(&one, &[digest]).expect("read"), [Some(10_000)]);
    store.put(&two, vec![named(b"x".to_vec())]).expect("stored");
    assert_eq!(store.workspaces().expect("read"), [two, one]);
}

#[test]
fn a_wrong_digest_stores_nothing_of_its_batch() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = store(dir.path());
    let good = named(b"good".to_vec());
    let bad = (Digest::of(b"other"), Bytes::from_static(b"bad"));
    let error = store.put(&ws("w"), vec![good.clone(), bad]).expect_err("a wrong digest");
    assert!(matches!(error, PutError::Mismatch { digest, .. } if digest == Digest::of(b"other")));
    assert_eq!(store.get(&ws("w"), &good.0).expect("read"), None);
}

#[test]
fn a_chunked_file_is_joined() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = store(dir.path());
    let content = noise(300_000, 2);
    let (list, ranges) = ChunkList::cut(&content);
    let mut blobs: Vec<_> = ranges.into_iter().map(|range| named(content[range].to_vec())).collect();
    blobs.push(named(list.encode()));
    let chunks = blobs.last().map(|blob| blob.0);
    store.put(&ws("w"), blobs.clone()).expect("stored");
    let file = File { digest: Digest::of(&content), bytes: content.len() as u64, chunks };
    assert_eq!(store.read_file(&ws("w"), &file).expect("read"), content);
    let error = store.read_file(&ws("w"), &File { bytes: 1, ..file }).expect_err("another size");
    assert!(matches!(error, GetError::Corrupt { .. }));
    let absent = File { chunks: Some(Digest::of(b"no")), ..file };
    assert!(matches!(store.read_file(&ws("w"), &absent), Err(GetError::Missing { .. })));
}

#[test]
fn a_collection_spares_what_is_live_and_what_is_young() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = store(dir.path());
    let (live, dead) = (named(noise(5_000, 3)), named(noise(5_000, 4)));
    store.put(&ws("w"), vec![live.clone(), dead.clone()]).expect("stored");
    store.put(&ws("v"), vec![dead.clone()]).expect("stored");
    let named = HashSet::from([live.0]);
    assert_eq!(store.collect(&ws("w"), &named, 1_000).expect("collected"), CollectionTotals::default());
    let later = now_ms() + 60_000;
    assert_eq!(store.collect(&ws("w"), &named, later).expect("collected"), CollectionTotals { blobs: 1, bytes: 5_000 });
    assert_eq!(store.get(&ws("w"), &dead.0).expect("read"), None);
    assert_eq!(store.missing(&ws("w"), &[live.0, dead.0]).expect("read"), [dead.0]);
    assert!(store.get(&ws("v"), &dead.0).expect("read").is_some(), "another workspace's blob went");
}

#[test]
fn a_large_collection_gives_the_space_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = store(dir.path());
    let blobs: Vec<_> = (0..400).map(|n| named(noise(64 << 10, n + 1))).collect();
    store.put(&ws("w"), blobs).expect("stored");
    store.flush();
    let size = || files(dir.path(), ".blob").iter().map(|path| path.metadata().map_or(0, |m| m.len())).sum::<u64>();
    assert!(size() > 20 << 20, "{}", size());
    store.collect(&ws("w"), &HashSet::new(), now_ms() + 60_000).expect("collected");
    // RocksDB removes obsolete files in the background.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while size() > 1 << 20 {
        assert!(std::time::Instant::now() < deadline, "{} bytes stay", size());
        std::thread::yield_now();
    }
}

#[test]
fn a_flipped_bit_on_disk_is_named_and_never_served() {
    let dir = tempfile::tempdir().expect("a folder");
    let (digest, blob) = named(noise(50_000, 5));
    {
        let store = store(dir.path());
        store.put(&ws("w"), vec![(digest, blob.clone())]).expect("stored");
        store.flush();
    }
    let blobs = files(dir.path(), ".blob");
    flip_a_bit(&blobs[0], |bytes| bytes / 2);
    let store = store(dir.path());
    for _ in 0..2 {
        let error = store.get(&ws("w"), &digest).expect_err("damage");
        assert!(matches!(&error, GetError::Corrupt { digest: named, .. } if *named == digest), "{error:?}");
        assert!(error.to_string().contains(&digest.to_string()) && error.to_string().contains("`w`"), "{error}");
    }
    // It counts as absent, so that a client sends it again, and is whole afterwards.
    assert_eq!(store.missing(&ws("w"), &[digest]).expect("read"), [digest]);
    store.put(&ws("w"), vec![(digest, blob.clone())]).expect("stored");
    assert_eq!(store.get(&ws("w"), &digest).expect("read"), Some(blob));
}

#[test]
fn content_that_rocksdb_believes_in_is_checked_all_the_same() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = store(dir.path());
    let (digest, blob) = named(b"right".to_vec());
    store.put(&ws("w"), vec![(digest, blob)]).expect("stored");
    let key = key(BLOB, &ws("w"), &digest);
    store.db().as_ref().expect("open").put(key, b"wrong").expect("written");
    assert!(matches!(store.get(&ws("w"), &digest), Err(GetError::Corrupt { source: None, .. })));
}

#[test]
fn a_flipped_bit_in_the_log_refuses_to_open_and_a_torn_tail_does_not() {
    let dir = tempfile::tempdir().expect("a folder");
    let first = named(noise(9_000, 6));
    {
        let store = store(dir.path());
        store.put(&ws("w"), vec![first.clone()]).expect("stored");
        store.put(&ws("w"), vec![named(noise(9_000, 7))]).expect("stored");
    }
    let logs: Vec<_> =
        files(dir.path(), ".log").into_iter().filter(|p| p.metadata().is_ok_and(|m| m.len() > 0)).collect();
    let whole = std::fs::read(&logs[0]).expect("a log");
    flip_a_bit(&logs[0], |_| 4_000);
    let error = Artifacts::open(&dir.path().join("artifacts"), Space::new(dir.path(), 0)).err().expect("damage");
    assert!(error.to_string().contains("artifacts"), "{error}");
    std::fs::write(&logs[0], &whole[..whole.len() - 100]).expect("written");
    let store = store(dir.path());
    assert_eq!(store.get(&ws("w"), &first.0).expect("read"), Some(first.1));
}

#[test]
fn a_log_whose_end_the_power_went_before_opens_without_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let (first, last) = (named(noise(9_000, 6)), named(noise(9_000, 7)));
    {
        let store = store(dir.path());
        store.put(&ws("w"), vec![first.clone()]).expect("stored");
        store.put(&ws("w"), vec![last.clone()]).expect("stored");
    }
    let log = files(dir.path(), ".log").into_iter().find(|p| p.metadata().is_ok_and(|m| m.len() > 0)).expect("a log");
    let mut torn = std::fs::read(&log).expect("a log");
    // The file is as long as it was to be, and its last pages were not written.
    let written = torn.len() - 4_000;
    torn[written.next_multiple_of(512)..].fill(0);
    std::fs::write(&log, torn).expect("written");
    let store = store(dir.path());
    assert_eq!(store.get(&ws("w"), &first.0).expect("read"), Some(first.1));
    assert_eq!(store.get(&ws("w"), &last.0).expect("read"), None);
}

#[test]
fn below_the_reserve_writes_are_refused_and_reads_go_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = store(dir.path());
    let (digest, blob) = named(b"here".to_vec());
    store.put(&ws("w"), vec![(digest, blob.clone())]).expect("stored");
    store.space().set_reserve_bytes(u64::MAX);
    let error = store.put(&ws("w"), vec![named(b"more".to_vec())]).expect_err("a full disk");
    assert!(matches!(error, PutError::Full(_)), "{error}");
    assert_eq!(store.get(&ws("w"), &digest).expect("read"), Some(blob));
    store.space().set_reserve_bytes(0);
    store.put(&ws("w"), vec![named(b"more".to_vec())]).expect("stored");
}

/// A small disk of its own, for as long as the value lives.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(bytes: u64) -> Option<SmallDisk> {
        let dir = tempfile::tempdir().expect("a folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(dir.path())
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then_some(SmallDisk(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

#[test]
#[allow(clippy::print_stderr, reason = "a skipped test says why")]
fn a_disk_that_fills_up_under_the_store_is_survived() {
    let Some(disk) = SmallDisk::mount(24 << 20) else {
        eprintln!("skipped: mounting a small tmpfs needs root");
        return;
    };
    let dir = disk.0.path();
    let store = store(dir);
    let kept = named(noise(100_000, 8));
    store.put(&ws("w"), vec![kept.clone()]).expect("stored");
    let mut stored = vec![kept];
    let refused = (100u64..2_000).find_map(|seed| {
        let blob = named(noise(60_000, seed));
        match store.put(&ws("w"), vec![blob.clone()]) {
            Ok(()) => stored.push(blob),
            Err(error) => return Some(error),
        }
        None
    });
    let refused = refused.expect("the disk has an end");
    assert!(matches!(refused, PutError::Full(_)), "{refused:?}");
    for (digest, blob) in &stored {
        assert_eq!(store.get(&ws("w"), digest).expect("reads go on").as_ref(), Some(blob));
    }
    // Opening the store again may make a little room, by compressing what only the log had; nothing else may happen.
    for seed in 3_000..3_010 {
        let blob = named(noise(60_000, seed));
        match store.put(&ws("w"), vec![blob.clone()]) {
            Ok(()) => stored.push(blob),
            Err(refused) => assert!(matches!(refused, PutError::Full(_)), "{refused:?}"),
        }
    }
    // Not a byte is left, so that the store cannot even be opened to be written: it is read all the same.
    let mut ballast = std::fs::File::create(dir.join("ballast")).expect("a file");
    while std::io::Write::write_all(&mut ballast, &[0; 512]).is_ok() {}
    for seed in 4_000..4_003 {
        let refused = store.put(&ws("w"), vec![named(noise(60_000, seed))]);
        assert!(matches!(refused, Err(PutError::Full(_))), "{refused:?}");
        for (digest, blob) in &stored {
            assert_eq!(store.get(&ws("w"), digest).expect("reads go on").as_ref(), Some(blob));
        }
    }
    // Space returns, and so does the store, without anything that it acknowledged being lost.
    let grown = Command::new("mount").args(["-o", "remount,size=96m"]).arg(dir).status().expect("mount");
    assert!(grown.success());
    let more = named(noise(60_000, 10));
    store.put(&ws("w"), vec![more.clone()]).expect("stored again");
    stored.push(more);
    for (digest, blob) in &stored {
        assert_eq!(store.get(&ws("w"), digest).expect("read").as_ref(), Some(blob));
    }
}
