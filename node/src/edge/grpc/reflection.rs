//! What services there are and what their messages look like, as gRPC's own protocol for reflection asks it, in both of its
//! versions. Open to all, as the description of the HTTP API is. A conversation about it lasts as long as a request may.

use std::convert::Infallible;
use std::sync::LazyLock;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use caxton_proto::v1::DESCRIPTORS;
use tonic_reflection::server::{Builder, Error};
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use super::is_grpc;
use crate::api::paths;
use crate::edge::extract::Open;
use crate::edge::problem::{Code, Problem};
use crate::edge::routes::{Owner, Routes, post};

type Service = BoxCloneSyncService<Request, http::Response<tonic::body::Body>, Infallible>;

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
    match service.oneshot(request).await {
        Ok(response) => response.map(Body::new),
        Err(impossible) => match impossible {},
    }
}
