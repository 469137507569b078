//! Background tasks: each has a name, an owner and a stop token, and all are spawned through [`Tasks`].
//!
//! A task that fails, panics, or ends before it was asked to stops the node: half a node is worse than none, because
//! whatever restarts it cannot see that it limps.

use std::collections::BTreeMap;
use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info_span, warn};

/// A task ended that should have gone on.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the task `{task}` {what}")]
pub struct TaskFailed {
    /// Its name.
    pub task: &'static str,
    /// What became of it, with the causes.
    pub what: String,
}

/// Tells whoever waits that a task failed. Clones tell the same.
#[derive(Debug, Clone)]
pub struct Failure(watch::Sender<Option<TaskFailed>>);

impl Default for Failure {
    fn default() -> Failure {
        Failure(watch::Sender::new(None))
    }
}

impl Failure {
    /// Reports a failure; the first one counts.
    pub fn report(&self, failed: TaskFailed) {
        error!(task = failed.task, what = failed.what, "a task failed, and the node stops");
        self.0.send_if_modified(|first| {
            let new = first.is_none();
            first.get_or_insert(failed);
            new
        });
    }

    /// Waits for the first failure.
    pub async fn wait(&self) -> TaskFailed {
        let mut seen = self.0.subscribe();
        loop {
            if let Some(failed) = seen.borrow_and_update().clone() {
                return failed;
            }
            // The sender lives as long as `self`.
            if seen.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// The tasks of one owner.
#[derive(Debug)]
pub struct Tasks {
    stop: CancellationToken,
    cut: CancellationToken,
    running: Arc<watch::Sender<BTreeMap<u64, &'static str>>>,
    failure: Failure,
}

impl Tasks {
    /// An owner without tasks, which reports to `failure`.
    pub fn new(failure: Failure) -> Tasks {
        let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
        Tasks { stop, cut, running: Arc::default(), failure }
    }

    /// Cancelled when the tasks are to end.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Runs a task that goes on until the stop token is cancelled.
    pub fn spawn<E: Error + Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let work = tokio::spawn(work.instrument(info_span!("task", name)));
        let mut id = 0;
        self.running.send_modify(|running| {
            id = running.last_key_value().map_or(0, |(last, _)| last + 1);
            running.insert(id, name);
        });
        let (stop, cut, failure, running) =
            (self.stop.clone(), self.cut.clone(), self.failure.clone(), self.running.clone());
        tokio::spawn(async move {
            let aborter = work.abort_handle();
            let ended = tokio::select! {
                ended = work => Some(ended),
                () = cut.cancelled() => None,
            };
            let failed = |what: String| failure.report(TaskFailed { task: name, what });
            match ended {
                None => aborter.abort(),
                Some(Ok(Ok(()))) if stop.is_cancelled() => {}
                Some(Ok(Ok(()))) => failed("ended before it was asked to".to_owned()),
                Some(Ok(Err(error))) => failed(format!("failed: {}", chain(&error))),
                Some(Err(join)) if join.is_panic() => failed("panicked".to_owned()),
                Some(Err(_)) => {}
            }
            running.send_modify(|running| _ = running.remove(&id));
        });
    }

    /// Asks all tasks to end, waits for at most `grace`, and cuts off those that go on.
    pub async fn stop(&self, grace: Duration) {
        self.stop.cancel();
        let mut running = self.running.subscribe();
        let ended = running.wait_for(BTreeMap::is_empty);
        if tokio::time::timeout(grace, ended).await.is_err() {
            let names: Vec<_> = self.running.borrow().values().copied().collect();
            warn!(tasks = ?names, "tasks did not end in time and are cut off");
            self.cut.cancel();
            // The sender lives as long as `self`.
            _ = running.wait_for(BTreeMap::is_empty).await;
        }
    }
}

/// An error with its causes, on one line.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the disk is gone")]
    struct Gone;

    async fn first_failure(work: impl Future<Output = Result<(), Gone>> + Send + 'static) -> String {
        let failure = Failure::default();
        let tasks = Tasks::new(failure.clone());
        tasks.spawn("worker", work);
        failure.wait().await.to_string()
    }

    #[tokio::test]
    async fn a_task_that_fails_panics_or_ends_early_is_told() {
        assert_eq!(first_failure(async { Err(Gone) }).await, "the task `worker` failed: the disk is gone");
        assert_eq!(first_failure(async { Ok(()) }).await, "the task `worker` ended before it was asked to");
        assert_eq!(first_failure(async { panic!("a bug") }).await, "the task `worker` panicked");
    }

    #[tokio::test]
    async fn tasks_end_when_asked_and_are_cut_off_when_they_do_not() {
        let failure = Failure::default();
        let tasks = Tasks::new(failure.clone());
        let stop = tasks.stop_token();
        tasks.spawn("polite", async move {
            stop.cancelled().await;
            Ok::<_, Gone>(())
        });
        tasks.spawn("deaf", std::future::pending::<Result<(), Gone>>());
        tasks.stop(Duration::from_millis(20)).await;
        assert!(failure.0.borrow().is_none());
    }
}
