//! The places of one tool: so many calls run, some wait, and one more is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::tool::CallError;

/// Calls of one tool that may wait for each that may run.
const WAITING_PER_RUNNING: usize = 8;

/// The places of one tool. A clone is a handle on the same.
#[derive(Clone)]
pub(crate) struct Places {
    running_max: u32,
    free: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

impl Places {
    pub(crate) fn new(running_max: u32) -> Places {
        Places { running_max, free: Arc::new(Semaphore::new(running_max as usize)), waiting: Arc::default() }
    }

    /// Takes a place among the calls of `tool`, or says that too many wait, or that none was free in time.
    pub(crate) async fn take(&self, tool: &str, patience: Duration) -> Result<OwnedSemaphorePermit, CallError> {
        if let Ok(permit) = self.free.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let running = self.running_max;
        let busy = || CallError::Busy { what: format!("tool `{tool}` has {running} calls running and others waiting") };
        let waiting = Waiting::new(&self.waiting);
        if waiting.before >= running as usize * WAITING_PER_RUNNING {
            return Err(busy());
        }
        match tokio::time::timeout(patience, self.free.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(busy()),
        }
    }
}

/// Counts one that waits.
struct Waiting<'a> {
    counter: &'a AtomicUsize,
    before: usize,
}

impl<'a> Waiting<'a> {
    fn new(counter: &'a AtomicUsize) -> Waiting<'a> {
        Waiting { counter, before: counter.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.counter.fetch_sub(1, Ordering::Relaxed);
    }
}
