//! Background tasks: each has a name, an owner and a stop token, and all are spawned through [`Tasks`].
//!
//! A task that fails, panics, or ends before it was asked to stops the node: half a node is worse than none, because
//! whatever restarts it cannot see that it limps.

use std::collections::BTreeMap;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
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

/// The tasks of one owner. A clone is a handle on the same.
#[derive(Debug, Clone)]
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
        let entry = self.enter(name);
        let (stop, cut, failure) = (self.stop.clone(), self.cut.clone(), self.failure.clone());
        tokio::spawn(async move {
            let _entry = entry;
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
        });
    }

    /// Runs a job: work that comes to an end by itself, and concerns nobody but whoever waits for it. It goes on when nobody
    /// waits any more, until it ends or its owner's tasks are cut off.
    pub fn spawn_job<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Job<T> {
        let (entry, cut) = (self.enter(name), self.cut.clone());
        let span = tracing::Span::current();
        let work = async move {
            let _entry = entry;
            cut.run_until_cancelled_owned(work).await
        };
        Job(tokio::spawn(work.instrument(span)))
    }

    fn enter(&self, name: &'static str) -> Entry {
        let mut id = 0;
        self.running.send_modify(|running| {
            id = running.last_key_value().map_or(0, |(last, _)| last + 1);
            running.insert(id, name);
        });
        Entry { id, running: Arc::clone(&self.running) }
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

/// A place among the tasks that run, until it is dropped.
struct Entry {
    id: u64,
    running: Arc<watch::Sender<BTreeMap<u64, &'static str>>>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.running.send_modify(|running| _ = running.remove(&self.id));
    }
}

/// Work that comes to an end by itself; waiting for it is up to whoever holds this.
#[derive(Debug)]
pub struct Job<T>(tokio::task::JoinHandle<Option<T>>);

/// A job came to no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// Its owner stops.
    #[error("the work was cut off, because the node stops")]
    CutOff,
    /// It panicked: a defect.
    #[error("the work panicked")]
    Panicked,
}

impl<T> Future for Job<T> {
    type Output = Result<T, JobError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|ended| match ended {
            Ok(Some(done)) => Ok(done),
            Ok(None) => Err(JobError::CutOff),
            Err(error) if error.is_panic() => Err(JobError::Panicked),
            Err(_) => Err(JobError::CutOff),
        })
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

    #[tokio::test]
    async fn a_job_ends_by_itself_goes_on_alone_and_is_cut_off_with_its_owner() {
        let failure = Failure::default();
        let tasks = Tasks::new(failure.clone());
        assert_eq!(tasks.spawn_job("sum", async { 1 + 1 }).await, Ok(2));
        assert_eq!(tasks.spawn_job("broken", async { panic!("a bug") }).await, Err::<(), _>(JobError::Panicked));
        let (sender, receiver) = tokio::sync::oneshot::channel();
        drop(tasks.spawn_job("alone", async move { sender.send(7).ok() }));
        assert_eq!(receiver.await, Ok(7), "nobody waited for it");
        let endless = tasks.spawn_job("endless", std::future::pending::<()>());
        tasks.stop(Duration::ZERO).await;
        assert_eq!(endless.await, Err(JobError::CutOff));
        assert!(failure.0.borrow().is_none(), "a job stops no node");
    }
}
