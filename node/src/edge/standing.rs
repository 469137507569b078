//! An answer that goes on ends when the token that it was opened with is good no more: revoked, expired, or signed by a key
//! that was rotated out.
//!
//! It holds for every route, whatever it streams. One that says by itself why it ends is left alone ([`EndsItself`]).

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::Frame;
use tokio::time::Interval;

use super::Services;
use crate::authn::{Access, now_ms};

/// In the extensions of a response that asks by itself whether its token still stands, and says so at its end.
#[derive(Debug, Clone, Copy)]
pub struct EndsItself;

/// Lets an answer of unknown length go on only as long as its token stands.
pub async fn held(State(services): State<Services>, request: Request, next: Next) -> Response {
    let bearer = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let access = services.auth.authenticate(bearer, now_ms()).ok();
    let response = next.run(request).await;
    let Some(access) = access else { return response };
    if response.body().size_hint().exact().is_some() || response.extensions().get::<EndsItself>().is_some() {
        return response;
    }
    // The first tick comes at once.
    let looks = tokio::time::interval(services.config.event_heartbeat);
    response.map(|body| Body::new(Held { body, services, access, looks }))
}

/// The token is not good any more. The answer breaks off, so that nobody takes it for whole.
#[derive(Debug, thiserror::Error)]
#[error("the token of this request is not valid any more")]
struct TokenGone;

struct Held {
    body: Body,
    services: Services,
    access: Access,
    looks: Interval,
}

// Not a stream of data: calls of gRPC say how they ended in what comes behind it.
impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut due = false;
        // Polled until it waits, so that the next tick wakes this.
        while self.looks.poll_tick(context).is_ready() {
            due = true;
        }
        if due && self.services.auth.still(&self.access, now_ms()).is_err() {
            return Poll::Ready(Some(Err(axum::Error::new(TokenGone))));
        }
        Pin::new(&mut self.body).poll_frame(context)
    }
}
