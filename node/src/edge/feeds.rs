//! The one loop by which a protocol tells what grows: as long as the token is good and the node does not stop.

use std::collections::VecDeque;

use futures::Stream;
use tokio::sync::OwnedSemaphorePermit;

use super::Services;
use super::problem::Problem;
use crate::app::feeds::{FeedError, FeedEvent, Subscription};
use crate::authn::{Access, AuthError, now_ms};

/// Something that is told as it comes.
pub trait Source: Send + 'static {
    /// What is told.
    type Item: Send;

    /// What came since: at least one thing, once there is one. It may be dropped while it waits, and loses nothing.
    fn next(&mut self) -> impl Future<Output = Result<Vec<Self::Item>, Problem>> + Send;
}

impl Source for Subscription {
    type Item = FeedEvent;

    async fn next(&mut self) -> Result<Vec<FeedEvent>, Problem> {
        Ok(Subscription::next(self).await?)
    }
}

/// What one stream goes by.
struct Telling<S: Source> {
    services: Services,
    access: Access,
    _place: OwnedSemaphorePermit,
    source: S,
    came: VecDeque<S::Item>,
}

/// Tells what comes until whoever reads leaves, the token is good no more, the node stops or the source ends; why is the last
/// that is told. The place is held as long.
pub fn tell<S: Source>(
    services: Services,
    access: Access,
    place: OwnedSemaphorePermit,
    source: S,
) -> impl Stream<Item = Result<S::Item, Problem>> + Send + 'static {
    let telling = Telling { services, access, _place: place, source, came: VecDeque::new() };
    futures::stream::unfold(Some(telling), |telling| async {
        let mut telling = telling?;
        match telling.next().await {
            Ok(item) => Some((Ok(item), Some(telling))),
            Err(problem) => Some((Err(problem), None)),
        }
    })
}

impl<S: Source> Telling<S> {
    async fn next(&mut self) -> Result<S::Item, Problem> {
        loop {
            self.services.auth.still(&self.access, now_ms())?;
            if let Some(item) = self.came.pop_front() {
                return Ok(item);
            }
            let left = self.services.auth.remaining(&self.access, now_ms());
            let expired = async {
                match left {
                    Some(left) => tokio::time::sleep(left).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                came = self.source.next() => self.came.extend(came?),
                () = self.services.stop.cancelled() => return Err(stopping()),
                // Keys may have been rotated, or the token revoked.
                () = tokio::time::sleep(self.services.config.event_heartbeat) => {}
                () = expired => {
                    let error = self.services.auth.still(&self.access, now_ms()).err();
                    return Err(error.unwrap_or(AuthError::Expired).into());
                }
            }
        }
    }
}

/// The problem of a stream whose node stops.
pub fn stopping() -> Problem {
    FeedError::Stopped.into()
}
