//! Extractors whose refusals are problems: the permit, JSON bodies, paths and queries.
//!
//! The first argument of every handler is a [`Gate`]: it says what a request needs, and lets in none that lacks it. A handler
//! without one cannot be registered.

use std::convert::Infallible;

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use caxton_proto::WorkspaceId;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::authn::{Access, AuthError, now_ms};
use crate::authz::{ClusterPermit, InCluster, InWorkspace, Permission, Permit, UnscopedToken};
use crate::edge::Services;
use crate::edge::problem::{Code, Problem};

/// What the requests to a route need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: it is open to all.
    Nothing,
    /// Any good token.
    Token,
    /// A permission in the path's `{workspace}`.
    Workspace(Permission),
    /// A permission in the workspaces that the body names, or in each that the answer lists.
    Named(Permission),
    /// A permission in the whole cluster.
    Cluster(Permission),
}

/// The first argument of a handler, which says what its requests need and refuses those that lack it.
pub trait Gate {
    /// What they need.
    const NEEDS: Needs;
}

/// The gate of what is open to all.
#[derive(Debug, Clone, Copy)]
pub struct Open;

impl Gate for Open {
    const NEEDS: Needs = Needs::Nothing;
}

impl Gate for Access {
    const NEEDS: Needs = Needs::Token;
}

impl<P: InWorkspace> Gate for Permit<P> {
    const NEEDS: Needs = Needs::Workspace(P::PERMISSION);
}

impl<P: InWorkspace> Gate for UnscopedToken<P> {
    const NEEDS: Needs = Needs::Named(P::PERMISSION);
}

impl<P: InCluster> Gate for ClusterPermit<P> {
    const NEEDS: Needs = Needs::Cluster(P::PERMISSION);
}

/// The same, for a handler that says by itself how a refusal looks.
impl<G: Gate> Gate for Result<G, Problem> {
    const NEEDS: Needs = G::NEEDS;
}

/// What a handler's arguments say of its requests: the first of them is a [`Gate`].
pub trait Gated {
    /// What the requests need.
    const NEEDS: Needs;
}

macro_rules! gated {
    ($(($($rest:ident)*))*) => {
        $(impl<M, First: Gate, $($rest),*> Gated for (M, First, $($rest,)*) {
            const NEEDS: Needs = First::NEEDS;
        })*
    };
}

gated!(() (A) (A B) (A B C) (A B C D) (A B C D E));

impl<S: Send + Sync> FromRequestParts<S> for Open {
    type Rejection = Infallible;
    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Open, Infallible> {
        Ok(Open)
    }
}

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

impl<P: InWorkspace> FromRequestParts<Services> for Permit<P> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, services: &Services) -> Result<Permit<P>, Problem> {
        let unscoped = UnscopedToken::<P>::from_request_parts(parts, services).await?;
        let names = RawPathParams::from_request_parts(parts, services).await;
        let names = names.map_err(|error| Problem::new(Code::InvalidRequest, error.body_text()))?;
        let named = names.iter().find(|(name, _)| *name == "workspace").map(|(_, value)| value).unwrap_or_default();
        let workspace: WorkspaceId = named.parse().map_err(|error| {
            Problem::new(Code::InvalidRequest, format!("{named:?} is not a workspace: {error}"))
                .help("`caxton status` shows which workspace it talks to")
        })?;
        Ok(unscoped.permit(&workspace)?)
    }
}

impl<P: InWorkspace> FromRequestParts<Services> for UnscopedToken<P> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, services: &Services) -> Result<UnscopedToken<P>, Problem> {
        let access = Access::from_request_parts(parts, services).await?;
        // What its role does nowhere is not asked for in each workspace.
        Ok(UnscopedToken::of(access)?)
    }
}

impl<P: InCluster + Default> FromRequestParts<Services> for ClusterPermit<P> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, services: &Services) -> Result<ClusterPermit<P>, Problem> {
        let access = Access::from_request_parts(parts, services).await?;
        Ok(access.permit_cluster(P::default())?)
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

/// The header `Idempotency-Key`, if there is one.
#[derive(Debug)]
pub struct IdempotencyKey(pub Option<String>);

/// The header's name.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<IdempotencyKey, Problem> {
        let key = parts.headers.get(IDEMPOTENCY_KEY).map(|value| value.to_str().map(str::to_owned)).transpose();
        key.map(IdempotencyKey).map_err(|_| {
            Problem::new(Code::InvalidRequest, "the header `Idempotency-Key` is not plain text")
                .help("draw a key of letters and digits")
        })
    }
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
