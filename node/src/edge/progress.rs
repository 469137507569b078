//! Whether a connection gets on: how many of its requests are open, and which answers wait for a client that does not read.
//!
//! HTTP/2 lets a client answer every ping and take nothing of an answer for ever. An answer's next piece is only asked for when
//! the client has room for it, so that the time since the last one was handed over is how long the client has read nothing.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

/// How often is looked at most and at least.
const LOOK_MIN: Duration = Duration::from_millis(20);
const LOOK_MAX: Duration = Duration::from_secs(5);

/// Why a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stuck {
    /// Nothing was asked for too long.
    Idle,
    /// Nothing was read of an answer for too long.
    Unread,
}

/// The progress of one connection. A clone is a handle on the same.
#[derive(Clone)]
pub struct Progress(Arc<Mutex<State>>);

struct State {
    open: usize,
    /// When the last request was over.
    quiet_since: Instant,
    /// Answers whose last piece was handed over, and when.
    handed: BTreeMap<u64, Instant>,
    next: u64,
}

/// A request that is open, until it is dropped.
pub struct Open {
    progress: Progress,
    id: u64,
}

impl Progress {
    /// That of a connection that was just made.
    pub fn of_new() -> Progress {
        let state = State { open: 0, quiet_since: Instant::now(), handed: BTreeMap::new(), next: 0 };
        Progress(Arc::new(Mutex::new(state)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request has come.
    pub fn begin(&self) -> Open {
        let mut state = self.lock();
        state.open += 1;
        state.next += 1;
        Open { progress: self.clone(), id: state.next }
    }

    /// Waits until the connection has had no request for `idle`, or an answer is not read for `unread`.
    pub async fn stuck(&self, idle: Duration, unread: Duration) -> Stuck {
        let every = (idle.min(unread) / 4).clamp(LOOK_MIN, LOOK_MAX);
        loop {
            tokio::time::sleep(every).await;
            let state = self.lock();
            if state.open == 0 && state.quiet_since.elapsed() >= idle {
                return Stuck::Idle;
            }
            if state.handed.values().any(|since| since.elapsed() >= unread) {
                return Stuck::Unread;
            }
        }
    }
}

impl Open {
    /// The answer's body, which is open as long as it is not read to its end.
    pub fn watch(self, body: Body) -> WatchedBody {
        WatchedBody { body, open: self }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut state = self.progress.lock();
        state.open = state.open.saturating_sub(1);
        state.handed.remove(&self.id);
        state.quiet_since = Instant::now();
    }
}

/// The body of an answer, whose pieces are noted as they are taken.
pub struct WatchedBody {
    body: Body,
    open: Open,
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let mut state = self.open.progress.lock();
        match &polled {
            Poll::Ready(Some(Ok(_))) => _ = state.handed.insert(self.open.id, Instant::now()),
            // It waits for what the node has to say, or is over.
            Poll::Pending | Poll::Ready(Some(Err(_)) | None) => _ = state.handed.remove(&self.open.id),
        }
        drop(state);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    const IDLE: Duration = Duration::from_secs(60);
    const UNREAD: Duration = Duration::from_secs(30);

    // The clock goes on by itself when nothing else can happen.
    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_only_without_requests() {
        let progress = Progress::of_new();
        let open = progress.begin();
        let waited = tokio::time::timeout(IDLE * 10, progress.stuck(IDLE, UNREAD)).await;
        assert!(waited.is_err(), "a request that takes its time is neither idle nor unread");
        drop(open);
        assert_eq!(progress.stuck(IDLE, UNREAD).await, Stuck::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_reads_is_noticed_and_one_that_has_nothing_to_say_is_not() {
        let progress = Progress::of_new();
        let endless =
            futures::stream::iter([Ok::<_, std::convert::Infallible>("piece")]).chain(futures::stream::pending());
        let mut body = progress.begin().watch(Body::from_stream(endless));
        let next = |body: &mut WatchedBody| {
            let mut context = Context::from_waker(std::task::Waker::noop());
            Pin::new(body).poll_frame(&mut context).is_ready()
        };
        assert!(next(&mut body));
        assert_eq!(progress.stuck(IDLE, UNREAD).await, Stuck::Unread);
        assert!(!next(&mut body), "it is read, and there is nothing more yet");
        assert!(tokio::time::timeout(IDLE * 10, progress.stuck(IDLE, UNREAD)).await.is_err());
    }
}
