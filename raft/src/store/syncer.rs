//! Group commit: one thread syncs the write-ahead log for everyone who waits, so that writes that arrive during one fsync
//! share the next. A failed fsync is never tried again, because the kernel may have dropped the pages that it failed to
//! write: from then on every write fails, and the node has to stop.

use std::io;
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;

use rocksdb::DB;

use super::tail::Tail;
use super::{Disk, Synced};

/// How many callers can wait for the next fsync. Each group has at most a few.
const WAITING_MAX: usize = 4096;

/// Syncs the write-ahead log.
pub struct Syncer {
    queue: Option<mpsc::SyncSender<Synced>>,
    thread: Option<JoinHandle<()>>,
    failed: Arc<OnceLock<String>>,
}

impl Syncer {
    /// Starts the thread, which marks in `tail` how far it came.
    pub fn start(db: Arc<DB>, tail: Tail) -> io::Result<Syncer> {
        let (queue, waiting) = mpsc::sync_channel(WAITING_MAX);
        let failed = Arc::new(OnceLock::new());
        let failure = Arc::clone(&failed);
        let sync = move || {
            let number = db.latest_sequence_number();
            db.flush_wal(true).map_err(|error| error.to_string())?;
            tail.mark(number);
            Ok(())
        };
        let thread =
            std::thread::Builder::new().name("raft-sync".into()).spawn(move || run(&waiting, &failure, sync))?;
        Ok(Syncer { queue: Some(queue), thread: Some(thread), failed })
    }
}

impl Disk for Syncer {
    fn sync(&self, then: Synced) {
        let sent = self.queue.as_ref().map(|queue| queue.send(then));
        // The thread ends only when it panicked. Dropping `then` tells whoever waits.
        if !matches!(sent, Some(Ok(()))) {
            let _ = self.failed.set("the thread that syncs the log has ended".to_owned());
        }
    }

    fn check(&self) -> io::Result<()> {
        self.failed.get().map_or(Ok(()), |why| Err(error(why)))
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(waiting: &mpsc::Receiver<Synced>, failed: &OnceLock<String>, sync: impl Fn() -> Result<(), String>) {
    let mut waiters = Vec::new();
    while let Ok(first) = waiting.recv() {
        waiters.push(first);
        waiters.extend(waiting.try_iter());
        if failed.get().is_none()
            && let Err(why) = sync()
        {
            tracing::error!(error = %why, "cannot sync the log: this node has to stop");
            let _ = failed.set(why);
        }
        for waiter in waiters.drain(..) {
            waiter(failed.get().map_or(Ok(()), |why| Err(error(why))));
        }
    }
}

fn error(why: &str) -> io::Error {
    io::Error::other(format!("an fsync failed, so nothing more is written: {why}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn those_who_wait_share_an_fsync_and_a_failed_one_is_not_repeated() {
        let (queue, waiting) = mpsc::sync_channel::<Synced>(WAITING_MAX);
        let results = Arc::new(Mutex::new(Vec::new()));
        let put = |queue: &mpsc::SyncSender<Synced>| {
            let results = Arc::clone(&results);
            queue.send(Box::new(move |result| results.lock().unwrap().push(result.is_ok()))).unwrap();
        };
        (0..3).for_each(|_| put(&queue));
        let again = queue.clone();
        let late = Arc::clone(&results);
        // This one fails, and asks once more from inside its answer.
        queue
            .send(Box::new(move |_| again.send(Box::new(move |it| late.lock().unwrap().push(it.is_ok()))).unwrap()))
            .unwrap();
        drop(queue);
        let syncs = AtomicU32::new(0);
        let failed = OnceLock::new();
        run(&waiting, &failed, || match syncs.fetch_add(1, Ordering::Relaxed) {
            0 => Err("EIO".to_owned()),
            _ => Ok(()),
        });
        assert_eq!(syncs.into_inner(), 1, "one fsync for all, and none after it failed");
        assert_eq!(*results.lock().unwrap(), [false; 4]);
        assert_eq!(failed.get().map(String::as_str), Some("EIO"));
    }
}
