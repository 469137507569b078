//! The log's short messages to one peer, over one stream of HTTP/2: a message costs a frame and not a request. Long messages
//! must not go this way, because the ones behind them would wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use caxton_proto::peer::pb::raft_answer::Outcome;
use caxton_proto::peer::pb::{RaftAnswer, RaftCall};
use futures::{Stream, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use crate::tasks::Jobs;

/// The longest message that goes over a line, in bytes.
pub(super) const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// How many messages wait to be sent; more wait for a place to wait.
const QUEUE_MAX: usize = 256;
/// How many messages of one peer are answered at once.
const CALLS_MAX: usize = 1_024;

type Answer = Result<Bytes, Status>;

/// One stream to a peer, until it ends.
pub(super) struct Line {
    calls: mpsc::Sender<RaftCall>,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    last: u64,
    answers: HashMap<u64, oneshot::Sender<Answer>>,
    ended: Option<Status>,
}

impl Line {
    /// Begins a stream with `open`, to which it gives what is sent. Whether the peer takes it, the first message tells.
    pub fn begin<O, F>(jobs: &Jobs, open: O) -> Line
    where
        O: FnOnce(ReceiverStream<RaftCall>) -> F + Send + 'static,
        F: Future<Output = Result<Streaming<RaftAnswer>, Status>> + Send,
    {
        let (calls, queue) = mpsc::channel(QUEUE_MAX);
        let waiting: Arc<Mutex<Waiting>> = Arc::default();
        let line = Line { calls, waiting: Arc::clone(&waiting) };
        jobs.spawn("peer-line", async move {
            let ended = match open(ReceiverStream::new(queue)).await {
                Ok(answers) => carry(answers, &waiting).await,
                Err(status) => status,
            };
            let mut waiting = lock(&waiting);
            for (_, answer) in waiting.answers.drain() {
                // Whoever asked may have gone.
                _ = answer.send(Err(ended.clone()));
            }
            waiting.ended = Some(ended);
        });
        line
    }

    /// Whether nothing goes over it any more.
    pub fn has_ended(&self) -> bool {
        lock(&self.waiting).ended.is_some()
    }

    /// Sends a message and waits for its answer.
    pub async fn call(&self, message: Bytes) -> Answer {
        let (answer, answered) = oneshot::channel();
        let number = {
            let mut waiting = lock(&self.waiting);
            if let Some(ended) = &waiting.ended {
                return Err(ended.clone());
            }
            waiting.last += 1;
            let number = waiting.last;
            waiting.answers.insert(number, answer);
            number
        };
        let _forget = Forget { waiting: &self.waiting, number };
        // When the line ends meanwhile, the answer says so.
        _ = self.calls.send(RaftCall { number, message }).await;
        answered.await.unwrap_or_else(|_| Err(over()))
    }
}

/// Forgets a call that nobody waits for any more.
struct Forget<'a> {
    waiting: &'a Mutex<Waiting>,
    number: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(self.waiting).answers.remove(&self.number);
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

fn over() -> Status {
    Status::unavailable("the peer has ended the stream")
}

/// Hands answers to those who wait, until the stream ends.
async fn carry(mut answers: Streaming<RaftAnswer>, waiting: &Mutex<Waiting>) -> Status {
    loop {
        let RaftAnswer { number, outcome } = match answers.message().await {
            Ok(Some(answer)) => answer,
            Ok(None) => return over(),
            Err(status) => return status,
        };
        let answer = match outcome {
            Some(Outcome::Answer(answer)) => Ok(answer),
            Some(Outcome::Refused(why)) => Err(Status::failed_precondition(why)),
            Some(Outcome::Unavailable(why)) => Err(Status::unavailable(why)),
            None => Err(Status::internal("the answer says nothing")),
        };
        let asked = lock(waiting).answers.remove(&number);
        if let Some(asked) = asked {
            // Whoever asked may have gone.
            _ = asked.send(answer);
        }
    }
}

/// Answers the messages of a peer by `answer`, many at once, until the peer ends the stream or this node is `leaving`.
pub fn answers<F, A>(
    calls: Streaming<RaftCall>,
    leaving: CancellationToken,
    answer: F,
) -> impl Stream<Item = Result<RaftAnswer, Status>> + Send
where
    F: Fn(Bytes) -> A + Send,
    A: Future<Output = Result<Outcome, Status>> + Send,
{
    let answered = move |call: Result<RaftCall, Status>| {
        let begun = call.map(|RaftCall { number, message }| (number, answer(message)));
        async move {
            let (number, answered) = begun?;
            Ok(RaftAnswer { number, outcome: Some(answered.await?) })
        }
    };
    calls.take_until(leaving.cancelled_owned()).map(answered).buffer_unordered(CALLS_MAX)
}
