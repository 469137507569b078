//! Extractors whose refusals are problems: the token, JSON bodies, paths and queries.

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Services;
use crate::auth::{Access, AuthError, now_ms};
use crate::edge::problem::{Code, Problem};

impl FromRequestParts<Services> for Access {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, services: &Services) -> Result<Access, Problem> {
        let header = parts.headers.get(header::AUTHORIZATION).map(|value| value.to_str());
        let header = header.transpose().map_err(|_| AuthError::Invalid)?;
        let access = services.auth.authenticate(header, now_ms())?;
        tracing::Span::current().record("subject", access.subject());
        Ok(access)
    }
}

/// A JSON body, in a request or a response.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, state: &S) -> Result<Json<T>, Problem> {
        let body = axum::Json::from_request(request, state).await;
        body.map(|axum::Json(body)| Json(body)).map_err(|rejection: JsonRejection| body_problem(&rejection))
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

fn body_problem(rejection: &JsonRejection) -> Problem {
    match rejection {
        JsonRejection::MissingJsonContentType(_) => {
            Problem::new(Code::UnsupportedMediaType, "the body is not marked as JSON")
                .help("send it with `Content-Type: application/json`")
        }
        JsonRejection::JsonSyntaxError(_) | JsonRejection::JsonDataError(_) => {
            Problem::new(Code::InvalidRequest, cause(rejection)).help("docs/openapi.json says what the body looks like")
        }
        other if other.status() == StatusCode::PAYLOAD_TOO_LARGE => body_too_large(),
        other => Problem::new(Code::InvalidRequest, other.body_text()).help("send the whole body again"),
    }
}

/// The problem of a body that is over its limit.
pub fn body_too_large() -> Problem {
    Problem::new(Code::BodyTooLarge, "the body is larger than this route takes")
        .help("send less at once, or raise `http.body_bytes_max` (for artifacts `deploy.upload_bytes_max`)")
}

/// The innermost cause, which says the line, the column and the field.
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |cause| cause.source());
    causes.last().map(|cause| cause.to_string()).unwrap_or_default()
}

/// A whole body as bytes, within the route's limit.
#[derive(Debug)]
pub struct Body(pub bytes::Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Problem;
    async fn from_request(request: Request, state: &S) -> Result<Body, Problem> {
        let body = bytes::Bytes::from_request(request, state).await;
        body.map(Body).map_err(|rejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                return body_too_large();
            }
            Problem::new(Code::InvalidRequest, "the body ended before it was whole").help("send it again")
        })
    }
}

/// What the path's parameters hold.
#[derive(Debug)]
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Path<T>, Problem> {
        let path = <axum::extract::Path<T> as FromRequestParts<S>>::from_request_parts(parts, state).await;
        path.map(|axum::extract::Path(path)| Path(path))
            .map_err(|rejection: PathRejection| Problem::new(Code::InvalidRequest, rejection.body_text()))
    }
}

/// What the query's parameters hold.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Query<T>, Problem> {
        let query = axum::extract::Query::from_request_parts(parts, state).await;
        query
            .map(|axum::extract::Query(query)| Query(query))
            .map_err(|rejection: QueryRejection| Problem::new(Code::InvalidRequest, rejection.body_text()))
    }
}
