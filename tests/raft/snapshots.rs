//! Snapshots bound the log, and a restart begins with the newest one. A damaged or missing one is refused by name.

use std::fs;
use std::path::Path;

use caxton_raft::{MachineError, OpenGroupError, Timers};

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
    // Too few for a second one, which could still be written while the first is harmed.
    fill(dir.path(), EVERY * 3 / 2).await;
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
async fn few_long_commands_make_a_snapshot_due_and_few_of_them_stay_behind_it() {
    const LONG: u64 = 10 << 10;
    let (snapshot_bytes, kept_bytes) = (20 * LONG, 5 * LONG);
    let many = Timers { snapshot_entries: 1_000_000, kept_entries: 1_000, ..Timers::default() };
    let timers = Timers { snapshot_bytes, kept_bytes, ..many };
    // A node that stops between the snapshot and the purge still has more of the log.
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let bounded = groups(dir.path(), timers.clone()).unwrap();
        let (group, _) = open_journal(&bounded, 1).await.unwrap();
        for _ in 0..100 {
            group.propose(vec![7; LONG as usize].into()).await.unwrap();
        }
        until("a snapshot", || !snapshots(dir.path()).is_empty()).await;
        group.shutdown().await;
        drop((group, bounded));
        let newest = snapshots(dir.path()).pop().unwrap();
        let name = newest.file_name().unwrap().to_str().unwrap();
        let last = u64::from_str_radix(name.split('-').next().unwrap(), 16).unwrap();
        // What the log does not have any more is told where the snapshot is missing.
        snapshots(dir.path()).iter().for_each(|file| fs::remove_file(file).unwrap());
        let opened = open_journal(&groups(dir.path(), timers.clone()).unwrap(), 1).await;
        let missing = opened.map(drop).map_err(|error| error.downcast::<OpenGroupError>().unwrap());
        if let Err(OpenGroupError::NoSnapshot { purged, .. }) = missing
            && purged + 5 >= last
        {
            assert_eq!(purged + 5, last, "as much stays as may");
            return;
        }
    }
    panic!("the log was never cut to its bytes");
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

#[tokio::test(flavor = "multi_thread")]
async fn archives_are_made_beside_each_other_and_have_all_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let groups = groups(dir.path(), snapshots_every(EVERY)).unwrap();
    // A snapshot of a small state is made so fast that two archives have it replaced while the other opens it.
    for id in 1..=100 {
        let (group, _) = open_journal(&groups, id).await.unwrap();
        for had in [0, 5] {
            group.read_index().await.unwrap();
            let (first, second, rest) = tokio::join!(group.archive(), group.archive(), propose(&group, had, had + 5));
            rest.unwrap();
            for archived in [first, second] {
                let archived = archived.unwrap();
                assert!(archived.commands >= had, "{archived:?} after {had} commands");
                let whole = caxton_raft::archive::check(&mut &archived.file, |_, state| {
                    let read = std::io::copy(state, &mut std::io::sink());
                    read.map(drop).map_err(|error| MachineError::new("cannot read", error))
                });
                assert_eq!(whole.unwrap(), (archived.group, archived.commands));
            }
        }
        group.shutdown().await;
    }
}
