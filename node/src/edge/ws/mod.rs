//! WebSocket: one connection over which a client follows conversations, turns and mailboxes, asks agents and sends messages.
//!
//! What is followed is read from this node's replicas, so that a subscription goes on when another node comes to lead. What is
//! asked and sent goes through the routes of HTTP, in this process, so that places, permits and the hop are the same.

mod calls;

mod session;

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Extension, Request, State};
use axum::http::header;
use axum::response::Response;
use axum::{RequestExt, Router};
use tokio::sync::OwnedSemaphorePermit;
use utoipa::OpenApi;

use crate::api::{self, paths};
use crate::authn::{Access, AuthError, now_ms};
use crate::edge::Services;
use crate::edge::caps::{CameFrom, Place};
use crate::edge::extract::Open;
use crate::edge::problem::{Code, Problem};
use crate::edge::routes::{Owner, Routes, get};

/// The longest frame, in bytes, on a connection whose token did not come with its request.
pub(in crate::edge) const STRANGERS_FRAME_BYTES_MAX: usize = 64 << 10;

/// In the extensions of a request that wants to become something else: what outlives it.
#[derive(Clone)]
pub struct Upgrade {
    /// The whole API, to be called from within.
    pub api: Router,
    /// The connection's places among all and among those of its address, held as long as it is open.
    pub places: Arc<(OwnedSemaphorePermit, Place<IpAddr>)>,
}

/// This part of the API's description.
#[derive(OpenApi)]
#[openapi(paths(open))]
pub struct Doc;

/// This edge's route.
pub fn routes() -> Routes {
    Routes::new().on(get(paths::SOCKET), Owner::Anyone, open)
}

/// Opens a WebSocket, whose frames docs/asyncapi.yaml describes. Anybody may connect; nothing is answered before a token has
/// come, in the header `Authorization` or in a first frame `authenticate`.
#[utoipa::path(get, path = paths::SOCKET.text(), tag = "events", security((), ("bearer" = [])), responses(
    (status = 101, description = "The connection is a WebSocket now."),
    (status = 400, description = "It is no request for one, or not over HTTP/1.1: `invalid_request`.", body = api::Problem, content_type = "application/problem+json"),
))]
async fn open(_: Open, State(services): State<Services>, mut request: Request) -> Result<Response, Problem> {
    let upgrade = request.extract_parts::<WebSocketUpgrade>().await.map_err(|rejection| {
        Problem::new(
            Code::InvalidRequest,
            format!("this path takes requests for a WebSocket: {}", rejection.body_text()),
        )
        .help("connect with a client of WebSocket, over HTTP/1.1")
    })?;
    let bearer = request.headers().get(header::AUTHORIZATION).map(|value| value.to_str().map(str::to_owned));
    let bearer = bearer.transpose().map_err(|_| AuthError::Invalid)?;
    // One that is shown is good, or the connection is refused where the client sees why.
    let access = bearer.map(|bearer| authenticate(&services, &bearer)).transpose()?;
    let held = request.extract_parts::<Extension<Upgrade>>().await;
    let Extension(Upgrade { api, places }) = held.map_err(|error| Problem::internal(&error))?;
    let came_from = request.extensions().get::<CameFrom>().copied();
    let jobs = services.jobs.clone();
    // Of a stranger nothing long is taken, and how much it is cannot be changed later.
    let bytes_max = match access {
        Some(_) => services.config.message_bytes_max.as_usize(),
        None => STRANGERS_FRAME_BYTES_MAX,
    };
    let upgrade = upgrade
        .max_message_size(bytes_max)
        .max_frame_size(bytes_max)
        .max_write_buffer_size(usize::MAX)
        .write_buffer_size(0);
    Ok(upgrade.on_upgrade(async move |socket| {
        let caller = calls::Caller::new(api, came_from);
        jobs.spawn("websocket", async move {
            let _places = places;
            session::run(services, caller, socket, access).await;
        });
    }))
}

/// Who shows the value of a header `Authorization`, with that value.
fn authenticate(services: &Services, bearer: &str) -> Result<(Access, String), Problem> {
    Ok((services.auth.authenticate(Some(bearer), now_ms())?, bearer.to_owned()))
}
