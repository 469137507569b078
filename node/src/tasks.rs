//! Background work: what goes on for as long as the node does is a task of [`Tasks`], what ends by itself a job of [`Jobs`],
//! and what blocks goes through [`blocking`]. Nothing else starts any; clippy refuses it.
//!
//! A task that fails, panics, or ends before it was asked to stops the node: half a node is worse than none, because
//! whatever restarts it cannot see that it limps. A job may fail: whoever waits for it is told, and the node goes on.

use std::collections::BTreeMap;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info_span, warn};

use crate::errors::chain;

/// A task ended that should have gone on.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the task `{task}` {what}")]
pub struct TaskFailed {
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
        let work = start(work.instrument(info_span!("task", task = name)));
        let entry = self.enter(name);
        let (stop, cut, failure) = (self.stop.clone(), self.cut.clone(), self.failure.clone());
        start(async move {
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
        Job(start(work.instrument(span)))
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
pub struct Job<T>(JoinHandle<Option<T>>);

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

/// The jobs of a part of the node that has no tasks: work that ends by itself, such as a connection or a look at a peer. A
/// clone is a handle on the same. What the node waits for when it stops, a turn, is a job of its [`Tasks`].
#[derive(Debug, Clone, Default)]
pub struct Jobs(Arc<Running>);

#[derive(Debug, Default)]
struct Running {
    jobs: watch::Sender<BTreeMap<u64, RunningJob>>,
}

#[derive(Debug)]
struct RunningJob {
    name: &'static str,
    /// There once the job is with the runtime.
    abort: Option<AbortHandle>,
}

/// Takes a job off the list when it ends, however it does.
struct Place {
    running: Arc<Running>,
    id: u64,
    name: &'static str,
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            error!(job = self.name, "a job panicked");
        }
        self.running.jobs.send_modify(|jobs| _ = jobs.remove(&self.id));
    }
}

impl Jobs {
    /// Runs a job, which goes on when the handle is dropped.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let place = self.place(name);
        let id = place.id;
        let job = start(async move {
            let _place = place;
            work.await
        });
        let abort = job.abort_handle();
        self.0.jobs.send_if_modified(|jobs| {
            // It may have ended already.
            if let Some(job) = jobs.get_mut(&id) {
                job.abort = Some(abort);
            }
            false
        });
        job
    }

    /// Runs a job on a thread that may be blocked. It cannot be cut off once it has begun.
    pub fn spawn_blocking<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let place = self.place(name);
        blocking(move || {
            let _place = place;
            work()
        })
    }

    /// How many jobs are running.
    pub fn len(&self) -> usize {
        self.0.jobs.borrow().len()
    }

    /// Waits until all jobs have ended, for at most `grace`, and cuts off those that go on. Whoever stops its jobs starts
    /// no more.
    pub async fn stop(&self, grace: Duration) {
        let mut jobs = self.0.jobs.subscribe();
        if tokio::time::timeout(grace, jobs.wait_for(BTreeMap::is_empty)).await.is_ok() {
            return;
        }
        let left: Vec<_> = self.0.jobs.borrow().values().map(|job| (job.name, job.abort.clone())).collect();
        let names: Vec<_> = left.iter().map(|(name, _)| *name).collect();
        warn!(jobs = ?names, "jobs did not end in time and are cut off");
        left.into_iter().filter_map(|(_, abort)| abort).for_each(|abort| abort.abort());
    }

    fn place(&self, name: &'static str) -> Place {
        let mut id = 0;
        self.0.jobs.send_modify(|jobs| {
            id = jobs.last_key_value().map_or(0, |(last, _)| last + 1);
            jobs.insert(id, RunningJob { name, abort: None });
        });
        Place { running: Arc::clone(&self.0), id, name }
    }
}

/// Runs what blocks, or takes longer than async threads may be held, on a thread where that does no harm. The caller waits
/// for it; work that nobody waits for is a job ([`Jobs::spawn_blocking`]).
#[must_use = "work that nobody waits for is a job of an owner"]
#[expect(clippy::disallowed_methods, reason = "this is the one place that starts work that blocks")]
pub fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    tokio::task::spawn_blocking(work)
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that starts tasks")]
fn start<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_job_is_waited_for_and_one_that_panics_is_told_to_whoever_waits() {
        let jobs = Jobs::default();
        let (go, told) = tokio::sync::oneshot::channel::<()>();
        let waits = jobs.spawn("waits", told);
        assert_eq!(jobs.len(), 1);
        let broken = jobs.spawn("breaks", async { panic!("a bug") });
        assert!(broken.await.expect_err("it panics").is_panic());
        assert_eq!(jobs.spawn_blocking("computes", || 7).await.expect("it ends"), 7);
        go.send(()).expect("it waits");
        jobs.stop(Duration::from_secs(30)).await;
        assert!(waits.await.expect("it was not cut off").is_ok());
        assert_eq!(jobs.len(), 0);
    }

    #[tokio::test]
    async fn a_job_that_does_not_end_is_cut_off() {
        let jobs = Jobs::default();
        let deaf = jobs.spawn("deaf", std::future::pending::<()>());
        jobs.stop(Duration::ZERO).await;
        assert!(deaf.await.expect_err("it was cut off").is_cancelled());
    }

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
