//! A flipped bit anywhere in the log's files is refused by name, or changes nothing. A torn end is what a crash leaves, and
//! is accepted.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use caxton_raft::{Store, Timers};

use crate::support::{chain, files, flip, groups, numbers, open_journal, propose};

const COMMANDS: u64 = 60;

/// Fills a group, without a restart in between: everything is in the write-ahead log.
async fn fill(dir: &Path) -> PathBuf {
    let groups = groups(dir, Timers::default()).unwrap();
    let (group, _) = open_journal(&groups, 1).await.unwrap();
    propose(&group, 0, COMMANDS).await.unwrap();
    group.shutdown().await;
    drop((group, groups));
    let logs = files(&dir.join("log"), ".log");
    assert_eq!(logs.len(), 1, "{logs:?}");
    logs.into_iter().next().unwrap()
}

/// What a start finds, or why it refuses.
async fn start(dir: &Path) -> anyhow::Result<u64> {
    let groups = groups(dir, Timers::default())?;
    let (group, journal) = open_journal(&groups, 1).await?;
    let index = group.read_index().await?;
    assert_eq!(journal.commands(), numbers(index));
    group.shutdown().await;
    Ok(index)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap().path();
        let target = to.join(file.file_name().unwrap());
        match file.is_dir() {
            true => copy(&file, &target),
            false => assert!(fs::copy(&file, target).is_ok()),
        }
    }
}

/// Flips `flips` bits of `file`, one at a time and each in a copy of `dir`.
async fn flip_each(dir: &Path, file: &Path, flips: u64) {
    let bits = fs::metadata(file).unwrap().len() * 8;
    let name = file.file_name().unwrap().to_str().unwrap();
    let mut refused = 0;
    for bit in (0..flips).map(|at| at * bits / flips) {
        let other = tempfile::tempdir().unwrap();
        copy(dir, other.path());
        flip(&other.path().join(file.strip_prefix(dir).unwrap()), bit);
        match start(other.path()).await {
            Ok(index) => assert_eq!(index, COMMANDS, "bit {bit} of {name} lost acknowledged commands"),
            Err(error) => {
                let said = chain(&error);
                assert!(
                    said.contains(name) && said.contains("damaged") && said.contains("backup"),
                    "bit {bit}: {said}"
                );
                refused += 1;
            }
        }
    }
    assert!(refused > flips / 2, "only {refused} of {flips} flips in {name} were refused");
}

#[tokio::test]
async fn a_flipped_bit_in_the_write_ahead_log_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let wal = fill(dir.path()).await;
    flip_each(dir.path(), &wal, 97).await;
}

#[tokio::test]
async fn a_flipped_bit_in_a_table_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path()).await;
    // A start moves what is in the write-ahead log into a table.
    drop(Store::open(dir.path()).unwrap());
    let tables = files(&dir.path().join("log"), ".sst");
    assert_eq!(tables.len(), 1, "{tables:?}");
    flip_each(dir.path(), &tables[0], 41).await;
}

#[tokio::test]
async fn a_torn_end_of_the_write_ahead_log_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let wal = fill(dir.path()).await;
    let bytes = fs::read(&wal).unwrap();
    // The beginning of a record whose rest was never written.
    let torn = &bytes[..20];
    OpenOptions::new().append(true).open(&wal).unwrap().write_all(torn).unwrap();
    assert_eq!(start(dir.path()).await.unwrap(), COMMANDS);
}

#[tokio::test]
async fn a_write_ahead_log_whose_end_was_cut_off_is_refused_by_name_wherever_it_was_cut() {
    let dir = tempfile::tempdir().unwrap();
    let wal = fill(dir.path()).await;
    let bytes = fs::read(&wal).unwrap().len() as u64;
    // The very last record says how far the log is committed, and nobody waits for its sync.
    for left in [0, 1, bytes / 3, bytes / 2] {
        let copied = tempfile::tempdir().unwrap();
        copy(dir.path(), copied.path());
        let cut = copied.path().join(wal.strip_prefix(dir.path()).unwrap());
        OpenOptions::new().write(true).open(&cut).unwrap().set_len(left).unwrap();
        for _ in 0..2 {
            let Err(error) = start(copied.path()).await else { panic!("{left} of {bytes} bytes were opened") };
            let said = chain(&error);
            assert!(said.contains("its end was cut off") && said.contains("log"), "{left} of {bytes}: {said}");
        }
    }
    assert_eq!(start(dir.path()).await.unwrap(), COMMANDS, "the control");
}

#[tokio::test]
async fn a_store_that_is_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _open = Store::open(dir.path()).unwrap();
    let error = Store::open(dir.path()).map(drop).expect_err("in use");
    assert!(error.to_string().contains("in use"), "{error}");
}
