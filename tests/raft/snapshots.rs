//! Snapshots bound the log, and a restart begins with the newest one. A damaged or missing one is refused by name.

use std::fs;
use std::path::Path;

use crate::support::{chain, files, flip, groups, numbers, open_journal, propose, snapshots_every, until};

const EVERY: u64 = 40;

fn snapshots(dir: &Path) -> Vec<std::path::PathBuf> {
    files(&dir.join("snapshots/group-1"), ".snapshot")
}

/// Fills a group with `count` commands and waits until a snapshot was made of them.
async fn fill(dir: &Path, count: u64) {
    let groups = groups(dir, snapshots_every(EVERY)).unwrap();
    let (group, _) = open_journal(&groups, 1).await.unwrap();
    propose(&group, 0, count).await.unwrap();
    until("a snapshot", || !snapshots(dir).is_empty()).await;
    group.shutdown().await;
}

#[tokio::test]
async fn a_restart_begins_with_the_newest_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 10 * EVERY).await;
    for _ in 0..2 {
        let groups = groups(dir.path(), snapshots_every(EVERY)).unwrap();
        let (group, journal) = open_journal(&groups, 1).await.unwrap();
        assert_eq!(group.read_index().await, Ok(10 * EVERY));
        assert_eq!(journal.commands(), numbers(10 * EVERY));
        group.shutdown().await;
    }
    assert!(snapshots(dir.path()).len() <= 2, "old snapshots go: {:?}", snapshots(dir.path()));
}

#[tokio::test]
async fn a_flipped_bit_in_a_snapshot_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 2 * EVERY).await;
    let file = snapshots(dir.path()).pop().unwrap();
    let good = fs::read(&file).unwrap();
    let bits = good.len() as u64 * 8;
    for bit in (0..bits).step_by(bits as usize / 40) {
        flip(&file, bit);
        let groups = groups(dir.path(), snapshots_every(EVERY)).unwrap();
        let error = open_journal(&groups, 1).await.map(drop).expect_err("a flipped bit");
        let said = chain(&error);
        assert!(said.contains(file.to_str().unwrap()) && said.contains("backup"), "bit {bit}: {said}");
        fs::write(&file, &good).unwrap();
    }
    let groups = groups(dir.path(), snapshots_every(EVERY)).unwrap();
    open_journal(&groups, 1).await.unwrap();
}

#[tokio::test]
async fn a_log_whose_snapshot_is_missing_is_refused() {
    // A node that stops between the snapshot and the purge still has the whole log, and nothing may be missing then.
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), 4 * EVERY).await;
        snapshots(dir.path()).iter().for_each(|file| fs::remove_file(file).unwrap());
        let groups = groups(dir.path(), snapshots_every(EVERY)).unwrap();
        match open_journal(&groups, 1).await {
            Ok((group, journal)) => {
                assert_eq!(group.read_index().await, Ok(4 * EVERY));
                assert_eq!(journal.commands(), numbers(4 * EVERY));
            }
            Err(error) => return assert!(chain(&error).contains("snapshots"), "{error:#}"),
        }
    }
    panic!("the log was never purged");
}

#[tokio::test]
async fn what_a_crash_left_unfinished_is_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 2 * EVERY).await;
    let unfinished = dir.path().join("snapshots/group-1/ffffffffffffffff-half.unfinished");
    fs::write(&unfinished, "half").unwrap();
    let groups = groups(dir.path(), snapshots_every(EVERY)).unwrap();
    let (group, _) = open_journal(&groups, 1).await.unwrap();
    assert_eq!(group.read_index().await, Ok(2 * EVERY));
    assert!(!unfinished.exists());
}
