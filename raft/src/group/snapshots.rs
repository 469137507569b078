//! The task that has a group's snapshots made when they are due, and the log cut behind them.

use std::sync::atomic::Ordering;

use tokio::task::JoinHandle;
use tracing::debug;

use crate::due::{Completion, Signals};
use crate::type_config::Raft;
use crate::types::Room;

/// Has snapshots made when they are due and there is room, and the log cut behind those that were, in a task that ends with
/// the group. One for which there is no room is asked for again when some more of the log is there.
pub fn start(raft: &Raft, signals: Signals, room: Room) -> JoinHandle<()> {
    let raft = raft.clone();
    tokio::spawn(async move {
        let mut made = signals.made.subscribe();
        loop {
            let done = tokio::select! {
                () = signals.wanted.notified() => {
                    let length = signals.length.load(Ordering::Relaxed);
                    if room(length.saturating_add(length / 4)) {
                        raft.trigger().snapshot().await
                    } else {
                        debug!(length, "no snapshot is made: the disk has no room for it");
                        Ok(())
                    }
                }
                changed = made.changed() => {
                    let snapshot = if changed.is_ok() { *made.borrow_and_update() } else { return };
                    match snapshot {
                        Some(made) => purge(&raft, made).await,
                        None => Ok(()),
                    }
                }
            };
            if let Err(error) = done {
                debug!(%error, "the group has stopped");
                return;
            }
        }
    })
}

/// Cuts the log behind a snapshot as soon as openraft knows of it. By itself it keeps a number of entries, however long.
async fn purge(raft: &Raft, made: Completion) -> Result<(), openraft::error::Fatal<u64>> {
    let known = raft.metrics().wait_for(|now| now.snapshot >= made.last).await.map(drop);
    match known {
        Ok(()) if made.purge == 0 => Ok(()),
        Ok(()) => raft.trigger().purge_log(made.purge).await,
        Err(_) => Err(openraft::error::Fatal::Stopped),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize};
    use std::time::Duration;

    use super::*;
    use crate::group::{Birth, Groups, Timers};
    use crate::group_id::GroupId;
    use crate::machine::Machine;
    use crate::network::Alone;
    use crate::store::Store;
    use crate::suite::{Journal, Near, Way};
    use bytes::Bytes;
    use caxton_proto::NodeId;

    #[tokio::test]
    async fn no_snapshot_is_made_without_room_and_one_is_when_there_is_some() {
        let dir = tempfile::tempdir().expect("a folder");
        let room = Arc::new(AtomicBool::new(false));
        let free = Arc::clone(&room);
        let timers = Timers { snapshot_entries: 4, ..Timers::default() };
        let store = Store::open(dir.path()).expect("a store");
        let groups =
            Groups::new(store, NodeId(1), timers, Arc::new(Alone)).with_room(move |_| free.load(Ordering::Relaxed));
        let machine = Arc::new(Journal::default());
        let group = groups.open(GroupId(7), machine, Birth::Founded).await.expect("a group");
        let propose = async || group.propose(Bytes::from_static(b"more")).await.expect("it is the only voter");
        let snapshot = || group.inner.raft.metrics().borrow().snapshot;
        for _ in 0..40 {
            propose().await;
        }
        assert_eq!(snapshot(), None, "there was no room");
        room.store(true, Ordering::Relaxed);
        let made = async {
            while snapshot().is_none() {
                propose().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), made).await.expect("there is room");
        group.shutdown().await;
    }

    #[tokio::test]
    async fn followers_without_room_take_nothing_and_go_on_when_there_is_some() {
        let (room, refused) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        let near = Arc::new(Near::default());
        let (mut places, mut groups, mut machines) = (Vec::new(), Vec::new(), Vec::new());
        for node in [1, 2, 3].map(NodeId) {
            let dir = tempfile::tempdir().expect("a folder");
            let store = Store::open(dir.path()).expect("a store");
            let (free, refused) = (Arc::clone(&room), Arc::clone(&refused));
            let end = Groups::new(store, node, Timers::default(), Arc::new(Way(node, Arc::clone(&near))))
                .with_last_room(move |_| {
                    let has_room = free.load(Ordering::Relaxed);
                    refused.fetch_add(usize::from(!has_room), Ordering::Relaxed);
                    has_room
                });
            near.opens(node, end.clone());
            let birth = if node == NodeId(1) { Birth::Founded } else { Birth::Joined };
            let machine = Arc::new(Journal::default());
            groups.push(end.open(GroupId(7), Arc::clone(&machine) as Arc<dyn Machine>, birth).await.expect("a group"));
            machines.push(machine);
            places.push(dir);
        }
        let leader = groups[0].clone();
        for node in [2, 3].map(NodeId) {
            leader.add_learner(node).await.expect("it follows");
        }
        leader.set_voters([1, 2, 3].map(NodeId).into()).await.expect("all vote");
        leader.propose(Bytes::from_static(b"before")).await.expect("there is room");

        room.store(false, Ordering::Relaxed);
        let proposed = tokio::spawn({
            let leader = leader.clone();
            async move { leader.propose(Bytes::from_static(b"without room")).await }
        });
        let tried = async {
            while refused.load(Ordering::Relaxed) < 20 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), tried).await.expect("the leader tries again and again");
        assert!(machines[1..].iter().all(|machine| machine.applied() <= 1), "nothing was taken");
        assert!(!proposed.is_finished(), "no majority has it");
        assert!(groups.iter().all(|group| group.status().borrow().fatal.is_none()), "nobody ends over it");
        room.store(true, Ordering::Relaxed);
        tokio::time::timeout(Duration::from_secs(60), proposed)
            .await
            .expect("in time")
            .expect("no panic")
            .expect("kept");
        for (group, machine) in groups.iter().zip(&machines) {
            let mut applied = group.applied();
            let caught_up = applied.wait_for(|_| machine.applied() >= 2);
            tokio::time::timeout(Duration::from_secs(60), caught_up).await.expect("in time").expect("it runs");
        }
        for group in groups {
            group.shutdown().await;
        }
        near.closes();
    }
}
