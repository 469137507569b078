//! The task that has a group's snapshots made when they are due, and the log cut behind them.

use std::sync::atomic::Ordering;

use tokio::task::JoinHandle;
use tracing::debug;

use super::Room;
use crate::due::{Completion, Signals};
use crate::type_config::Raft;

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
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    use super::*;
    use crate::group::{Birth, Groups, Timers};
    use crate::group_id::GroupId;
    use crate::network::Alone;
    use crate::store::Store;
    use crate::suite::Journal;
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
}
