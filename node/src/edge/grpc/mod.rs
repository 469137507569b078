//! gRPC, on the same port as HTTP: the services of proto/caxton/v1, with those for health and reflection.
//!
//! A method is a route like every other, so that places, metrics, tokens and the hop to the node that has to answer are the
//! same; only what travels is framed otherwise, and a [`Problem`] becomes a status.

mod call;

mod status;

mod convert;

mod messages;

mod mailbox;

mod conversations;

mod deployments;

mod health;

mod reflection;

use axum::extract::Request;
use axum::http::{Version, header};
use axum::response::Response;

pub use health::HEALTH_WATCHES_MAX;

use super::problem::Problem;
use super::routes::Routes;

/// The media type of gRPC; what follows it says how messages are encoded.
const MEDIA_TYPE: &str = "application/grpc";

/// This edge's routes.
pub fn routes() -> Routes {
    Routes::new()
        .merge(messages::routes())
        .merge(mailbox::routes())
        .merge(conversations::routes())
        .merge(deployments::routes())
        .merge(health::routes())
        .merge(reflection::routes())
}

/// Whether a request is a call of gRPC, which needs HTTP/2: only that says how a call ended.
pub fn is_grpc(request: &Request) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).map(str::trim);
    request.version() == Version::HTTP_2
        && kind.is_some_and(|kind| kind == MEDIA_TYPE || kind == "application/grpc+proto")
}

/// A problem as the answer to the call with this id.
pub fn error(problem: &Problem, request_id: &str) -> Response {
    status::of(problem, Some(request_id)).into_http()
}

#[cfg(test)]
mod tests;
