//! What services there are and what their messages look like, as gRPC's own protocol for reflection asks it, in both of its
//! versions. Open to all, as the description of the HTTP API is. A conversation about it lasts as long as a request may.

use std::convert::Infallible;
use std::sync::LazyLock;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use caxton_proto::v1::DESCRIPTORS;
use http_body_util::{BodyExt, Limited};
use tokio::sync::Semaphore;
use tonic_reflection::server::{Builder, Error};
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use super::is_grpc;
use crate::api::paths;
use crate::edge::extract::Open;
use crate::edge::problem::{Code, Problem};
use crate::edge::routes::{Owner, Routes, post};

type Service = BoxCloneSyncService<Request, http::Response<tonic::body::Body>, Infallible>;

/// How many ask at once, of all who do so without a token.
const PLACES_MAX: usize = 64;
/// What one of them may send in all: the names of many services and messages.
const BYTES_MAX: usize = 256 << 10;

static PLACES: Semaphore = Semaphore::const_new(PLACES_MAX);

/// Both versions of the service; the error is a defect of the published files.
static SERVICES: LazyLock<Result<[Service; 2], Error>> = LazyLock::new(|| {
    let builder = || {
        Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    Ok([BoxCloneSyncService::new(builder().build_v1()?), BoxCloneSyncService::new(builder().build_v1alpha()?)])
});

/// This service's routes.
pub fn routes() -> Routes {
    // The times of their own are for the client's part, which is cut off by `http.timeout`.
    Routes::new().on(post(paths::GRPC_REFLECTION).own_time(), Owner::Anyone, newest).on(
        post(paths::GRPC_REFLECTION_ALPHA).own_time(),
        Owner::Anyone,
        alpha,
    )
}

async fn newest(_: Open, request: Request) -> Response {
    answer(request, |[newest, _]| newest).await
}

async fn alpha(_: Open, request: Request) -> Response {
    answer(request, |[_, alpha]| alpha).await
}

async fn answer(request: Request, which: impl FnOnce(&[Service; 2]) -> &Service) -> Response {
    if !is_grpc(&request) {
        let problem = Problem::new(Code::UnsupportedMediaType, "this path takes calls of gRPC");
        return problem.help("call it with a client of gRPC, such as grpcurl").into_response();
    }
    let service = match &*SERVICES {
        Ok(services) => which(services).clone(),
        Err(error) => return Problem::internal(error).into_response(),
    };
    let Ok(place) = PLACES.try_acquire() else {
        let problem = Problem::new(Code::Unavailable, format!("{PLACES_MAX} ask for descriptions, and no more may"));
        return problem.help("try again in a moment").retry_after(1).into_response();
    };
    let request = request.map(|body| Body::new(Limited::new(body, BYTES_MAX)));
    match service.oneshot(request).await {
        // The place is held as long as the answers are written.
        Ok(response) => response.map(|body| {
            Body::new(body.map_frame(move |frame| {
                let _place = &place;
                frame
            }))
        }),
        Err(impossible) => match impossible {},
    }
}
