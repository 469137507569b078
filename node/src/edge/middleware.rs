//! What is around every request: its id, its span, its place, its time, and the form of its errors.

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, BodyDataStream};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use caxton_proto::WorkspaceId;
use futures::{Stream, StreamExt};
use tokio::sync::Semaphore;
use tracing::{Instrument, debug, error, field, info_span};

use crate::api::paths;
use crate::authn::now_ms;
use crate::edge::Services;
use crate::edge::caps::{CameFrom, Caps, Place, Whom};
use crate::edge::extract::IDEMPOTENCY_KEY;
use crate::edge::problem::{Code, Problem};
use crate::edge::routes::{Table, TimeLimit};

/// What stands before a workspace's name in the paths that have one.
const WORKSPACE_PREFIX: &str = "/api/v1/workspaces/";
/// The header that carries a request's id, in both directions.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// A client's id longer than this is replaced, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// The client's id for the request if it is sane, or a new one.
fn request_id(request: &Request) -> HeaderValue {
    let sane = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
        (1..=REQUEST_ID_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(plain)
    };
    let given = request.headers().get(REQUEST_ID).filter(sane).cloned();
    given.unwrap_or_else(|| {
        let id = uuid::Uuid::now_v7().simple().to_string();
        HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("unknown"))
    })
}

/// Gives the request an id and a span, counts it, and completes its answer.
pub async fn framed(mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(&request);
    let text = id.to_str().unwrap_or_default().to_owned();
    let method = request.method().clone();
    // Another node that has to answer calls it by the same id.
    request.headers_mut().insert(REQUEST_ID, id.clone());
    if super::is_anthropic(request.uri().path()) {
        super::anthropic::take_key(request.headers_mut());
    }
    // A path that matches no route is the client's own invention: it must not become a label.
    let matched = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let route = matched.unwrap_or_else(|| "unmatched".to_owned());
    let (subject, status, trace_id) = (field::Empty, field::Empty, field::Empty);
    let span = info_span!("request", %method, route, request_id = text, trace_id, subject, status);
    crate::telemetry::propagation::continues(&span, request.headers());
    let (errors, has_key) = (super::errors_of(&request), request.headers().contains_key(IDEMPOTENCY_KEY));
    let mut response = next.run(request).instrument(span.clone()).await;
    // gRPC says in its own way that a call failed, with a status of HTTP that says nothing.
    let mut failed = None;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let code = problem.code();
        failed = Some(code.status());
        let allow = response.headers_mut().remove(header::ALLOW);
        response = errors(&problem, &text);
        problem.put_headers(response.headers_mut(), has_key);
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
        debug!(parent: &span, code = code.name(), "refused");
    }
    let status = failed.unwrap_or(response.status());
    span.record("status", status.as_u16());
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    let seconds = started.elapsed().as_secs_f64();
    let labels = [("route", route), ("method", method_label(&method))];
    metrics::histogram!("caxton_http_request_seconds", &labels).record(seconds);
    let [route, method] = labels;
    metrics::counter!("caxton_http_requests_total", &[route, method, ("status", status.as_str().to_owned())])
        .increment(1);
    debug!(parent: &span, ms = seconds * 1000.0, status = status.as_u16(), "answered");
    response
}

/// A method of a client's own invention must not become a label either.
fn method_label(method: &Method) -> String {
    let known = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"];
    known.into_iter().find(|known| *known == method.as_str()).unwrap_or("other").to_owned()
}

/// The places that requests take while they are answered.
#[derive(Clone)]
pub struct Places {
    /// Those of all.
    pub all: Arc<Semaphore>,
    /// Those of each address, and of each role in each workspace.
    pub caps: Caps<Whom>,
    pub services: Services,
}

impl Places {
    /// The places that a request takes of what its sender may have; nothing of its body was read.
    fn of_sender(&self, request: &Request) -> Result<[Option<Place<Whom>>; 2], Problem> {
        let limits = &self.services.config;
        let over = |setting: &str, whose: &str| {
            Problem::new(
                Code::TooManyRequests,
                format!("as many requests of {whose} as `{setting}` allows are being answered"),
            )
            .help("try again when some of them are over")
            .retry_after(1)
        };
        let address = request.extensions().get::<CameFrom>().map(|from| Whom::Address(from.0));
        let address =
            address.map(|whom| self.caps.enter(whom, limits.requests_per_address_max)).map_or(Ok(None), |place| {
                place.map(Some).ok_or_else(|| over("http.requests_per_address_max", "this address"))
            })?;
        let bearer = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        // Who is nobody is told so by the route.
        let Ok(access) = self.services.auth.authenticate(bearer, now_ms()) else { return Ok([address, None]) };
        let named = request.uri().path().strip_prefix(WORKSPACE_PREFIX).and_then(|rest| rest.split('/').next());
        // Whoever may not see a workspace takes none of its places.
        let reaches = |name: &WorkspaceId| access.workspaces().is_none_or(|own| own.contains(name));
        let named = named.and_then(|name| name.parse::<WorkspaceId>().ok()).filter(reaches);
        let only = || match access.workspaces() {
            Some([only]) => Some(only.clone()),
            Some(_) | None => None,
        };
        let whom = Whom::Tenant(access.role(), named.or_else(only));
        match self.caps.enter(whom, limits.requests_per_workspace_max) {
            Some(place) => Ok([address, Some(place)]),
            None => Err(over("http.requests_per_workspace_max", "this role in this workspace")),
        }
    }
}

/// Refuses a request when as many as may be are being answered, of all or of its sender.
pub async fn with_place(State(places): State<Places>, request: Request, next: Next) -> Result<Response, Problem> {
    // The probes must see a busy node as a living one.
    let is_probe = [paths::HEALTH, paths::READY].iter().any(|probe| probe.text() == request.uri().path());
    let _of_sender = if is_probe { [None, None] } else { places.of_sender(&request)? };
    let _place = match places.all.try_acquire() {
        Ok(place) => Some(place),
        Err(_) if is_probe => None,
        Err(_) => {
            return Err(Problem::new(
                Code::Unavailable,
                "as many requests as `http.requests_max` allows are being answered",
            )
            .help("try again in a moment")
            .retry_after(1));
        }
    };
    Ok(next.run(request).await)
}

/// What [`in_time`] goes by.
#[derive(Clone)]
pub struct TimeLimits {
    pub usual: Duration,
    /// Which routes have a time of their own.
    pub table: Arc<Table>,
}

/// Cuts a request off when its answer does not begin in time; or only its body, where what it asks for has a time of its own.
pub async fn in_time(
    State(TimeLimits { usual: timeout, table }): State<TimeLimits>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let path = request.extensions().get::<MatchedPath>();
    let route = path.and_then(|path| table.find(request.method(), path.as_str()));
    if route.is_some_and(|route| route.time == TimeLimit::Own) {
        let cut_off = Box::pin(tokio::time::sleep(timeout));
        let in_time = |body: Body| Body::from_stream(TimedBody { body: body.into_data_stream(), cut_off });
        return Ok(next.run(request.map(in_time)).await);
    }
    let answer = tokio::time::timeout(timeout, next.run(request)).await;
    answer.map_err(|_| {
        Problem::new(Code::Timeout, format!("the request took longer than {timeout:?} (`http.timeout`)")).help(
            "what it asked for may still happen: look before you repeat it, or repeat it with its idempotency key",
        )
    })
}

/// A body that has to be whole in time.
struct TimedBody {
    body: BodyDataStream,
    cut_off: Pin<Box<tokio::time::Sleep>>,
}

impl Stream for TimedBody {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.body.poll_next_unpin(context);
        if polled.is_pending() && self.cut_off.as_mut().poll(context).is_ready() {
            let late = std::io::Error::other("the body was not whole within `http.timeout`");
            return Poll::Ready(Some(Err(axum::Error::new(late))));
        }
        polled
    }
}

/// The answer to a request whose handler panicked.
pub fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    error!(panic = text, "a request's handler panicked");
    Problem::new(Code::Internal, "the server could not answer the request")
        .help("this is a defect: please report it with the log lines of this request id")
        .response(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_names_its_request_only_with_a_sane_id() {
        let id = |given: &[u8]| {
            let request = Request::builder().header(REQUEST_ID, given).body(Body::empty()).expect("a request");
            request_id(&request).to_str().expect("text").to_owned()
        };
        assert_eq!(id(b"trace-1.a:b_C"), "trace-1.a:b_C");
        for bad in [b"a b".as_slice(), b"", b"a\"b", "é".as_bytes(), &[b'x'; 129]] {
            assert_eq!(id(bad).len(), 32, "{bad:?}");
        }
    }
}
