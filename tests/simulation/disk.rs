//! The disk of a simulated node: the real files of a real RocksDB, and a simulated moment at which what was written is on
//! disk. A power cut takes the write-ahead log back to that moment, or anywhere after it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use caxton_raft::{Disk, Store, SyncCallback};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::seed::{self, draw, once_in};

/// How long a sync takes at most, most times and now and then.
const SYNC_MAX: Duration = Duration::from_millis(4);
const SLOW_SYNC_MAX: Duration = Duration::from_millis(120);

/// What a node keeps when its process ends.
pub struct Platter {
    dir: TempDir,
    /// How much of each log is on disk for good.
    safe: Mutex<BTreeMap<PathBuf, u64>>,
    /// Says that everything is on disk at once, and syncs nothing: what a simulation has to find.
    lies: bool,
}

impl Platter {
    /// An empty one. Memory is quicker than a disk, and nothing has to outlive the run.
    pub fn new(lies: bool) -> Platter {
        let dir = seed::folder_in("/dev/shm").or_else(|_| seed::folder_in(std::env::temp_dir())).expect("a folder");
        Platter { dir, safe: Mutex::default(), lies }
    }

    /// Opens the store on it.
    pub fn open(self: &Arc<Self>) -> Result<Store, caxton_raft::OpenError> {
        let (queue, mut waiting) = mpsc::unbounded_channel::<SyncCallback>();
        let store = Store::open_on(self.dir.path(), Mounted(queue))?;
        // What a start reads is on disk after it.
        self.keep(self.lengths());
        let platter = Arc::clone(self);
        tokio::spawn(async move {
            while let Some(first) = waiting.recv().await {
                let mut waiters = vec![first];
                waiters.extend(std::iter::from_fn(|| waiting.try_recv().ok()));
                platter.sync().await;
                waiters.into_iter().for_each(|then| then(Ok(())));
            }
        });
        Ok(store)
    }

    async fn sync(&self) {
        if self.lies {
            return;
        }
        let written = self.lengths();
        let longest = if once_in(60) { SLOW_SYNC_MAX } else { SYNC_MAX };
        tokio::time::sleep(Duration::from_micros(draw(100, longest.as_micros() as u64))).await;
        self.keep(written);
    }

    /// Takes away what was never synced, or a part of it: the end may be torn anywhere.
    pub fn cut_power(&self) {
        let safe = self.safe.lock().unwrap();
        for (file, length) in self.lengths() {
            let from = safe.get(&file).copied().unwrap_or(0).min(length);
            if from == length {
                continue;
            }
            let keep = if once_in(2) { from } else { draw(from, length + 1) };
            let log = fs::File::options().write(true).open(&file).expect("the log");
            log.set_len(keep).expect("it is cut");
        }
    }

    fn keep(&self, lengths: BTreeMap<PathBuf, u64>) {
        *self.safe.lock().unwrap() = lengths;
    }

    fn lengths(&self) -> BTreeMap<PathBuf, u64> {
        let files = fs::read_dir(self.dir.path().join("log")).expect("the store's folder").filter_map(Result::ok);
        let logs = files.map(|file| file.path()).filter(|file| file.extension().is_some_and(|it| it == "log"));
        logs.map(|file| (file.clone(), fs::metadata(&file).map_or(0, |it| it.len()))).collect()
    }
}

/// The disk of a running node.
struct Mounted(mpsc::UnboundedSender<SyncCallback>);

impl Disk for Mounted {
    fn sync(&self, then: SyncCallback) {
        // Nobody is there any more when the node crashes, and then nobody waits.
        let _ = self.0.send(then);
    }

    fn check(&self) -> io::Result<()> {
        Ok(())
    }
}
