//! What was acknowledged is there again after a restart, at once and in each group.

use std::time::{Duration, Instant};

use caxton_proto::Revision;
use caxton_proto::log::{Command, Outcome};
use caxton_raft::deploy_log::DeployLog;
use caxton_raft::{Birth, Group, ProposeError, Role, Timers};

use crate::support::{deploy, deploy_many, groups, numbers, open_journal, propose};

#[tokio::test]
async fn a_group_has_its_commands_again_and_leads_at_once() {
    let dir = tempfile::tempdir().unwrap();
    for start in 0..4 {
        let groups = groups(dir.path(), Timers::default()).unwrap();
        let before = Instant::now();
        let (group, journal) = open_journal(&groups, 1).await.unwrap();
        // An election would take a second at least.
        assert_eq!(group.read_index().await, Ok(start * 10));
        assert!(before.elapsed() < Duration::from_millis(900), "{:?}", before.elapsed());
        assert_eq!(group.status().borrow().role, Role::Leader);
        assert_eq!(journal.commands(), numbers(start * 10));
        propose(&group, start * 10, start * 10 + 10).await.unwrap();
        group.shutdown().await;
    }
}

#[tokio::test]
async fn groups_of_one_store_do_not_see_each_other() {
    let dir = tempfile::tempdir().unwrap();
    {
        let groups = groups(dir.path(), Timers::default()).unwrap();
        let (one, of_one) = open_journal(&groups, 1).await.unwrap();
        let (two, of_two) = open_journal(&groups, 2).await.unwrap();
        let (first, second) = tokio::join!(propose(&one, 0, 40), propose(&two, 0, 25));
        first.and(second).unwrap();
        assert_eq!((of_one.commands(), of_two.commands()), (numbers(40), numbers(25)));
        one.shutdown().await;
        two.shutdown().await;
    }
    let groups = groups(dir.path(), Timers::default()).unwrap();
    let (two, of_two) = open_journal(&groups, 2).await.unwrap();
    let (three, of_three) = open_journal(&groups, 3).await.unwrap();
    assert_eq!((two.read_index().await, three.read_index().await), (Ok(25), Ok(0)));
    assert_eq!((of_two.commands(), of_three.commands()), (numbers(25), numbers(0)));
}

async fn many_at_once(group: &Group, clients: u64, each: u64) -> Vec<u64> {
    let tasks = (0..clients).map(|client| {
        let group = group.clone();
        tokio::spawn(async move {
            let mut indexes = Vec::new();
            for number in 0..each {
                let applied = group.propose(format!("{client}-{number}").into()).await.unwrap();
                assert_eq!(applied.response, applied.index.to_string());
                indexes.push(applied.index);
            }
            indexes
        })
    });
    let mut all = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        all.extend(task.await.unwrap());
    }
    all.sort_unstable();
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_share_an_entry_have_indexes_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let before = {
        let groups = groups(dir.path(), Timers::default()).unwrap();
        let (group, journal) = open_journal(&groups, 1).await.unwrap();
        assert_eq!(many_at_once(&group, 32, 20).await, (1..=640).collect::<Vec<_>>());
        group.shutdown().await;
        journal.commands()
    };
    let groups = groups(dir.path(), Timers::default()).unwrap();
    let (group, journal) = open_journal(&groups, 1).await.unwrap();
    assert_eq!(group.read_index().await, Ok(640));
    assert_eq!(journal.commands(), before);
}

#[tokio::test]
async fn the_deploy_log_answers_as_before_the_restart() {
    let dir = tempfile::tempdir().unwrap();
    let repeat = || {
        let mut command = deploy("demo", 3, "with a key");
        command.idempotency_key = "attempt-1".into();
        Command::Deploy(command)
    };
    let before = {
        let log = DeployLog::open(&groups(dir.path(), Timers::default()).unwrap(), Birth::Founded).await.unwrap();
        deploy_many(&log, "demo", 0, 3).await.unwrap();
        let answer = log.propose(&repeat()).await.unwrap();
        assert!(matches!(&answer.outcome, Outcome::Deployed(it) if it.revision == Revision(4)), "{answer:?}");
        assert_eq!(*log.applied().borrow(), 4);
        log.shutdown().await;
        log.read(Clone::clone)
    };
    let log = DeployLog::open(&groups(dir.path(), Timers::default()).unwrap(), Birth::Founded).await.unwrap();
    assert_eq!(log.current(Clone::clone).await, Ok(before));
    let answer = log.propose(&repeat()).await.unwrap();
    assert!(matches!(&answer.outcome, Outcome::Repeated(it) if it.revision == Revision(4)), "{answer:?}");
    let late = log.propose(&Command::Deploy(deploy("demo", 3, "too late"))).await.unwrap();
    let Outcome::Conflict { live_revision: Revision(4), live: Some(live) } = late.outcome else {
        panic!("{late:?}");
    };
    assert_eq!(live.message, "with a key");
}

#[tokio::test]
async fn a_group_that_has_stopped_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let groups = groups(dir.path(), Timers::default()).unwrap();
    let (group, _) = open_journal(&groups, 1).await.unwrap();
    group.shutdown().await;
    let error = group.propose("late".into()).await.unwrap_err();
    assert!(matches!(error, ProposeError::Fatal { .. }), "{error:?}");
    let mut status = group.status();
    status.wait_for(|status| status.role == Role::Stopped).await.unwrap();
}
