//! Server-sent events: the one writer that every stream goes through, and the one loop that follows something as it grows.
//!
//! A stream holds no queue that could overflow: its writer waits for a reader that is slow. When the reader leaves, the
//! writer is dropped where it stands.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive};
use axum::response::{IntoResponse, Response, Sse};
use futures::{Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::Services;
use super::problem::{Code, Problem};
use super::standing::EndsItself;
use crate::authn::{Access, AuthError, now_ms};

/// Writes the events of one stream.
pub struct Writer(mpsc::Sender<Event>);

/// The reader has left.
#[derive(Debug, Clone, Copy)]
pub struct ReaderLeft;

impl Writer {
    /// Hands an event to the reader, and waits until there is room for it.
    pub async fn send(&self, event: Event) -> Result<(), ReaderLeft> {
        self.0.send(event).await.map_err(|_| ReaderLeft)
    }
}

/// A response of events that `write` writes. It ends when `write` does; a quiet one carries a comment every so often.
pub fn response<F>(comment_every: Duration, write: impl FnOnce(Writer) -> F) -> Response
where
    F: Future<Output = Result<(), ReaderLeft>> + Send + 'static,
{
    let (sender, events) = mpsc::channel(1);
    // Both are polled by whoever reads the response: nothing of it goes on by itself.
    let writing = futures::stream::once(write(Writer(sender))).filter_map(|_| std::future::ready(None));
    let events = futures::stream::select(ReceiverStream::new(events), writing).map(Ok::<_, Infallible>);
    Sse::new(events).keep_alive(KeepAlive::new().interval(comment_every).text("still here")).into_response()
}

/// The id after which a client wants to go on: what the header `Last-Event-ID` says, else `after`.
pub fn cursor(after: Option<u64>, headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(header) = headers.get("last-event-id") else { return Ok(after) };
    let number = header.to_str().ok().and_then(|text| text.trim().parse().ok());
    number.map(Some).ok_or_else(|| {
        Problem::new(Code::InvalidRequest, "the header Last-Event-ID is not the id of an event")
            .help("send back the id of the last event as it came: a whole number")
    })
}

/// A place for a stream that stays open, as long as it is held.
pub fn place(services: &Services) -> Result<OwnedSemaphorePermit, Problem> {
    services.event_streams.clone().try_acquire_owned().map_err(|_| {
        Problem::new(Code::Unavailable, "as many event streams as `http.event_streams_max` allows are open")
            .help("close one, or try again later")
            .retry_after(5)
    })
}

/// Something that grows, and is told from a cursor on.
pub trait FollowSource: Send + 'static {
    /// What came after the cursor, which moves behind it; nothing when there is nothing new. An error closes the stream.
    fn take(&mut self) -> impl Future<Output = Result<Vec<Event>, Problem>> + Send;

    /// Changes with everything that comes.
    fn changes(&mut self) -> &mut watch::Receiver<u64>;
}

/// Follows until the reader leaves, the token is good no more, or the node stops; the last event is `closed` and says why.
/// The place is held as long.
pub fn follow(
    services: Services,
    access: Access,
    place: OwnedSemaphorePermit,
    followed: impl FollowSource,
) -> Response {
    follow_beside(services, access, place, followed, futures::stream::pending())
}

/// The same, with events that come from elsewhere between those of `followed`.
pub fn follow_beside(
    services: Services,
    access: Access,
    place: OwnedSemaphorePermit,
    followed: impl FollowSource,
    beside: impl Stream<Item = Event> + Send + 'static,
) -> Response {
    let mut response = response(services.config.event_heartbeat, |writer| async move {
        let _place = place;
        let beside = async {
            let mut beside = std::pin::pin!(beside);
            while let Some(event) = beside.next().await {
                writer.send(event).await?;
            }
            std::future::pending::<Result<Infallible, ReaderLeft>>().await
        };
        let why = tokio::select! {
            why = told(&writer, &services, &access, followed) => why?,
            left = beside => match left? {},
        };
        let body = serde_json::to_string(&why.body(None)).unwrap_or_default();
        writer.send(Event::default().event("closed").data(body)).await
    });
    response.extensions_mut().insert(EndsItself);
    response
}

/// Tells everything until the stream has to be closed; says why it has to be.
async fn told(
    writer: &Writer,
    services: &Services,
    access: &Access,
    mut followed: impl FollowSource,
) -> Result<Problem, ReaderLeft> {
    loop {
        if let Err(error) = services.auth.still(access, now_ms()) {
            return Ok(error.into());
        }
        // Marked as seen before it is read, so that what comes in between wakes the wait.
        followed.changes().borrow_and_update();
        let events = match followed.take().await {
            Ok(events) => events,
            Err(problem) => return Ok(problem),
        };
        let any = !events.is_empty();
        for event in events {
            if let Err(error) = services.auth.still(access, now_ms()) {
                return Ok(error.into());
            }
            writer.send(event).await?;
        }
        if any {
            continue;
        }
        let left = services.auth.remaining(access, now_ms());
        let expired = async {
            match left {
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = followed.changes().changed() => if changed.is_err() { return Ok(stopping()) },
            () = services.stop.cancelled() => return Ok(stopping()),
            // Keys may have been rotated: that changes nothing that is followed.
            () = tokio::time::sleep(services.config.event_heartbeat) => {}
            () = expired => {
                let error = services.auth.still(access, now_ms()).err();
                return Ok(error.unwrap_or(AuthError::Expired).into());
            }
        }
    }
}

/// The problem of a stream whose node stops.
pub fn stopping() -> Problem {
    Problem::new(Code::Unavailable, "the node is stopping").help("connect again with the id of the last event")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_gives_what_is_written_and_ends_with_its_writer() {
        let written = response(Duration::from_secs(60), |writer| async move {
            for number in 0..3 {
                writer.send(Event::default().data(number.to_string())).await?;
            }
            Ok(())
        });
        let body = axum::body::to_bytes(written.into_body(), 1_000).await.expect("it ends");
        assert_eq!(body, "data: 0\n\ndata: 1\n\ndata: 2\n\n");
    }

    #[tokio::test]
    async fn a_writer_ends_where_its_reader_leaves() {
        let (held, mut dropped) = mpsc::channel::<()>(1);
        let endless = response(Duration::from_secs(60), |writer| async move {
            let _held = held;
            loop {
                writer.send(Event::default().data("again")).await?;
            }
        });
        let mut body = endless.into_body().into_data_stream();
        assert!(body.next().await.is_some_and(|piece| piece.is_ok()));
        drop(body);
        assert_eq!(dropped.recv().await, None, "nothing of it goes on");
    }
}
