//! Group commit: one thread syncs the write-ahead log for everyone who waits, so that writes that arrive during one fsync
//! share the next. Who is alone and has nothing else to do syncs on the spot, if the disk is so quick that two threads that wake
//! each other would take longer. A failed fsync is never tried again, because the kernel may have dropped the pages that it
//! failed to write: from then on every write fails, and the node has to stop.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rocksdb::DB;

use super::tail::Tail;
use super::{Disk, SyncCallback};

/// How many callers can wait for the next fsync. Each group has at most a few.
const WAITING_MAX: usize = 4096;
/// A disk is quick while its last fsync took less. It is as long as other things keep a thread of the runtime.
const QUICK: Duration = Duration::from_micros(200);

/// Syncs the write-ahead log.
pub struct Syncer {
    queue: Option<mpsc::SyncSender<SyncCallback>>,
    thread: Option<JoinHandle<()>>,
    log: Arc<Log>,
}

/// What the thread and those who sync on the spot share.
struct Log {
    flush: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// Held during an fsync.
    syncing: Mutex<()>,
    /// How many wait for the thread.
    waiting: AtomicUsize,
    quick: AtomicBool,
    failed: OnceLock<String>,
}

impl Log {
    fn new(flush: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Log {
        let (syncing, waiting, quick) = (Mutex::default(), AtomicUsize::default(), AtomicBool::default());
        Log { flush: Box::new(flush), syncing, waiting, quick, failed: OnceLock::new() }
    }

    /// Syncs, unless that failed before.
    fn sync(&self, _alone: MutexGuard<'_, ()>) {
        if self.failed.get().is_some() {
            return;
        }
        let began = Instant::now();
        if let Err(why) = (self.flush)() {
            tracing::error!(error = %why, "cannot sync the log: this node has to stop");
            let _ = self.failed.set(why);
        }
        self.quick.store(began.elapsed() < QUICK, Ordering::Relaxed);
    }

    /// What the last fsync came to.
    fn result(&self) -> io::Result<()> {
        self.failed.get().map_or(Ok(()), |why| Err(error(why)))
    }

    /// Syncs now, if that is quick and nobody waits for the thread. Otherwise it gives back who is to be called.
    fn sync_on_the_spot(&self, then: SyncCallback) -> Result<(), SyncCallback> {
        if !self.quick.load(Ordering::Relaxed) || self.waiting.load(Ordering::Acquire) > 0 {
            return Err(then);
        }
        let Ok(alone) = self.syncing.try_lock() else { return Err(then) };
        self.sync(alone);
        then(self.result());
        Ok(())
    }

    /// Syncs for those who wait, until nobody can come any more.
    fn run(&self, waiting: &mpsc::Receiver<SyncCallback>) {
        let mut waiters = Vec::new();
        while let Ok(first) = waiting.recv() {
            waiters.push(first);
            let alone = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
            waiters.extend(waiting.try_iter());
            self.sync(alone);
            for waiter in waiters.drain(..) {
                waiter(self.result());
                self.waiting.fetch_sub(1, Ordering::Release);
            }
        }
    }
}

impl Syncer {
    /// Starts the thread, which marks in `tail` how far it came.
    pub fn start(db: Arc<DB>, tail: Tail) -> io::Result<Syncer> {
        let (queue, waiting) = mpsc::sync_channel(WAITING_MAX);
        let log = Arc::new(Log::new(move || {
            let number = db.latest_sequence_number();
            db.flush_wal(true).map_err(|error| error.to_string())?;
            tail.mark(number);
            Ok(())
        }));
        let syncs = Arc::clone(&log);
        let thread = std::thread::Builder::new().name("raft-sync".into()).spawn(move || syncs.run(&waiting))?;
        Ok(Syncer { queue: Some(queue), thread: Some(thread), log })
    }
}

impl Disk for Syncer {
    fn sync(&self, then: SyncCallback) {
        self.log.waiting.fetch_add(1, Ordering::AcqRel);
        let sent = self.queue.as_ref().map(|queue| queue.send(then));
        // The thread ends only when it panicked. Dropping `then` tells whoever waits.
        if !matches!(sent, Some(Ok(()))) {
            let _ = self.log.failed.set("the thread that syncs the log has ended".to_owned());
        }
    }

    fn sync_soon(&self, then: SyncCallback) {
        if let Err(then) = self.log.sync_on_the_spot(then) {
            self.sync(then);
        }
    }

    fn check(&self) -> io::Result<()> {
        self.log.result()
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

fn error(why: &str) -> io::Error {
    io::Error::other(format!("an fsync failed, so nothing more is written: {why}"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[test]
    fn those_who_wait_share_an_fsync_and_a_failed_one_is_not_repeated() {
        let (queue, waiting) = mpsc::sync_channel::<SyncCallback>(WAITING_MAX);
        let results = Arc::new(Mutex::new(Vec::new()));
        let put = |queue: &mpsc::SyncSender<SyncCallback>| {
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
        let syncs = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&syncs);
        let log = Log::new(move || match counted.fetch_add(1, Ordering::Relaxed) {
            0 => Err("EIO".to_owned()),
            _ => Ok(()),
        });
        log.waiting.store(5, Ordering::Relaxed);
        log.run(&waiting);
        assert_eq!(syncs.load(Ordering::Relaxed), 1, "one fsync for all, and none after it failed");
        assert_eq!(*results.lock().unwrap(), [false; 4]);
        assert_eq!(log.failed.get().map(String::as_str), Some("EIO"));
    }

    #[test]
    fn only_who_is_alone_on_a_quick_disk_syncs_on_the_spot() {
        let fails = Arc::new(AtomicBool::new(false));
        let failing = Arc::clone(&fails);
        let log = Log::new(move || if failing.load(Ordering::Relaxed) { Err("EIO".to_owned()) } else { Ok(()) });
        let results = Arc::new(Mutex::new(Vec::new()));
        let ask = || {
            let results = Arc::clone(&results);
            log.sync_on_the_spot(Box::new(move |result| results.lock().unwrap().push(result.is_ok()))).is_ok()
        };
        assert!(!ask(), "nobody knows yet how quick it is");
        log.quick.store(true, Ordering::Relaxed);
        log.waiting.store(1, Ordering::Relaxed);
        assert!(!ask(), "somebody waits for the thread");
        log.waiting.store(0, Ordering::Relaxed);
        {
            let _syncing = log.syncing.lock().unwrap();
            assert!(!ask(), "the thread syncs");
        }
        assert!(ask());
        log.quick.store(true, Ordering::Relaxed);
        fails.store(true, Ordering::Relaxed);
        assert!(ask());
        fails.store(false, Ordering::Relaxed);
        log.quick.store(true, Ordering::Relaxed);
        assert!(ask(), "it answers, and does not try again");
        assert_eq!(*results.lock().unwrap(), [true, false, false]);
    }
}
