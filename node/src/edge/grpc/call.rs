//! One call: its message is read, its deadline is kept, and its answer or its stream is written.
//!
//! A call has one message in each direction, or a stream to the client. What a client sends beyond that is not read.

use std::any::TypeId;
use std::time::Duration;

use axum::RequestExt;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt};
use prost::Message;
use tokio::time::Instant;
use tonic::codec::{Codec, EncodeBody, SingleMessageCompressionOverride, Streaming};
use tonic::{Code as StatusCode, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_prost::ProstCodec;

use super::{MEDIA_TYPE, is_grpc, status};
use crate::edge::Services;
use crate::edge::problem::{Code, Problem};
use crate::edge::standing::EndsItself;

/// The longest question about health, which is the name of a service.
const HEALTH_BYTES_MAX: usize = 4 << 10;
/// By when the client wants the call to be over, counted from its beginning.
const TIMEOUT: &str = "grpc-timeout";
/// What compression a message has.
const ENCODING: &str = "grpc-encoding";

/// Answers a call with one message.
pub async fn unary<Q, A, F>(services: &Services, request: Request, act: impl FnOnce(Q) -> F) -> Response
where
    Q: Message + Default + 'static,
    A: Message + Default + 'static,
    F: Future<Output = Result<A, Problem>>,
{
    let answered = async {
        let (question, deadline) = question(services, request, bytes_max::<Q>()).await?;
        let answer = within(deadline, act(question)).await?;
        Ok::<_, Problem>(body(futures::stream::once(std::future::ready(Ok(answer)))))
    };
    answered.await.unwrap_or_else(IntoResponse::into_response)
}

/// Answers a call with a stream, which ends by itself when its token is good no more. What `open` refuses is the answer of a call
/// that never had one.
pub async fn streaming<Q, A, S, F>(services: &Services, request: Request, open: impl FnOnce(Q) -> F) -> Response
where
    Q: Message + Default + 'static,
    A: Message + Default + 'static,
    S: Stream<Item = Result<A, Problem>> + Send + 'static,
    F: Future<Output = Result<S, Problem>>,
{
    let answered = async {
        let (question, deadline) = question(services, request, bytes_max::<Q>()).await?;
        let stream = within(deadline, open(question)).await?;
        let mut response = body(until(deadline, stream));
        response.extensions_mut().insert(EndsItself);
        Ok::<_, Problem>(response)
    };
    answered.await.unwrap_or_else(IntoResponse::into_response)
}

/// The longest message of a kind: what anybody may ask without a token is short.
fn bytes_max<Q: 'static>() -> usize {
    if TypeId::of::<Q>() == TypeId::of::<HealthCheckRequest>() { HEALTH_BYTES_MAX } else { usize::MAX }
}

/// The message of a call, and until when it may take.
async fn question<Q: Message + Default + 'static>(
    services: &Services,
    request: Request,
    bytes_max: usize,
) -> Result<(Q, Option<Instant>), Problem> {
    if !is_grpc(&request) {
        return Err(Problem::new(Code::UnsupportedMediaType, "this path takes calls of gRPC")
            .help("call it with a client of gRPC, over HTTP/2, with `Content-Type: application/grpc`"));
    }
    let deadline = deadline(request.headers())?;
    let encoding = request.headers().get(ENCODING).map(HeaderValue::as_bytes);
    if encoding.is_some_and(|encoding| encoding != b"identity") {
        return Err(Problem::new(Code::UnsupportedMediaType, "the message is compressed")
            .help("send messages without compression"));
    }
    let bytes_max = bytes_max.min(services.config.message_bytes_max.as_usize());
    let decoder = ProstCodec::<Q, Q>::default().decoder();
    let mut messages = Streaming::new_request(decoder, request.into_limited_body(), None, Some(bytes_max));
    match within(deadline, async { messages.message().await.map_err(|status| unreadable(&status)) }).await? {
        Some(question) => Ok((question, deadline)),
        None => Err(Problem::new(Code::InvalidRequest, "the call has no message").help("send one")),
    }
}

/// What is wrong with a message that cannot be read.
fn unreadable(status: &Status) -> Problem {
    match status.code() {
        StatusCode::OutOfRange => {
            Problem::new(Code::BodyTooLarge, format!("the message is too large: {}", status.message()))
                .help("send less at once, or raise `http.message_bytes_max`")
        }
        StatusCode::Unimplemented => {
            Problem::new(Code::UnsupportedMediaType, status.message()).help("send messages without compression")
        }
        _ => Problem::new(Code::InvalidRequest, format!("the message cannot be read: {}", status.message()))
            .help("the .proto files under proto/proto/caxton/v1 say what it looks like"),
    }
}

/// The deadline that a call's metadata say: a number of at most eight digits and a unit.
fn deadline(headers: &HeaderMap) -> Result<Option<Instant>, Problem> {
    let Some(value) = headers.get(TIMEOUT) else { return Ok(None) };
    let parsed = value.to_str().ok().and_then(timeout);
    let timeout = parsed.ok_or_else(|| {
        Problem::new(Code::InvalidRequest, format!("the metadata `{TIMEOUT}` say no time"))
            .help("it is a number of at most eight digits and one of H, M, S, m, u, n")
    })?;
    // One that is too far away is none.
    Ok(Instant::now().checked_add(timeout))
}

fn timeout(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&number.len()) || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

async fn within<T>(deadline: Option<Instant>, done: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    let Some(deadline) = deadline else { return done.await };
    tokio::time::timeout_at(deadline, done).await.unwrap_or_else(|_| Err(too_late()))
}

fn too_late() -> Problem {
    Problem::new(Code::Timeout, "the deadline that the client set has passed")
        .help("what it asked for may still happen: look before you repeat it, or repeat it with its idempotency key")
}

/// A stream that ends at its deadline.
fn until<A: Send + 'static>(
    deadline: Option<Instant>,
    stream: impl Stream<Item = Result<A, Problem>> + Send + 'static,
) -> impl Stream<Item = Result<A, Status>> + Send + 'static {
    let passed = async move {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
        Err(too_late())
    };
    let ended = futures::stream::once(passed);
    // The stream's own end ends it too, and the first error is the last that is said.
    let whole = stream.map(Some).chain(futures::stream::once(async { None }));
    let both = Box::pin(futures::stream::select(whole, ended.map(Some)));
    futures::stream::unfold(Some(both), |both| async {
        let mut both = both?;
        let item = both.next().await??;
        let rest = item.is_ok().then_some(both);
        Some((item.map_err(|problem| status::of(&problem, None)), rest))
    })
}

/// The answer of a call: messages, and the status behind them.
fn body<A: Message + Default + 'static>(messages: impl Stream<Item = Result<A, Status>> + Send + 'static) -> Response {
    let encoder = ProstCodec::<A, A>::default().encoder();
    // Nothing that the node sends is larger than what it keeps.
    let encoded =
        EncodeBody::new_server(encoder, messages, None, SingleMessageCompressionOverride::default(), Some(usize::MAX));
    let mut response = Response::new(Body::new(encoded));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_a_number_of_eight_digits_and_a_unit() {
        for (text, expected) in [
            ("5S", Some(Duration::from_secs(5))),
            ("100m", Some(Duration::from_millis(100))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3_600))),
            ("1u", Some(Duration::from_micros(1))),
            ("2n", Some(Duration::from_nanos(2))),
            ("3M", Some(Duration::from_secs(180))),
            ("", None),
            ("S", None),
            ("5", None),
            ("-5S", None),
            ("123456789S", None),
            ("5s", None),
            ("5é", None),
        ] {
            assert_eq!(timeout(text), expected, "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_with_its_source_at_its_deadline_or_at_its_first_error() {
        let soon = || Some(Instant::now() + Duration::from_secs(1));
        let told = |deadline, items: Vec<Result<u32, Problem>>, quiet: bool| async move {
            let rest: futures::stream::BoxStream<'static, Result<u32, Problem>> =
                if quiet { futures::stream::pending().boxed() } else { futures::stream::empty().boxed() };
            let stream = until(deadline, futures::stream::iter(items).chain(rest));
            stream.map(|item| item.map_err(|status| status.code())).collect::<Vec<_>>().await
        };
        assert_eq!(told(None, vec![Ok(1), Ok(2)], false).await, [Ok(1), Ok(2)]);
        assert_eq!(told(soon(), vec![Ok(1)], false).await, [Ok(1)]);
        assert_eq!(told(soon(), vec![Ok(1)], true).await, [Ok(1), Err(StatusCode::DeadlineExceeded)]);
        let broken = Err(Problem::new(Code::NotFound, "gone"));
        assert_eq!(told(soon(), vec![Ok(1), broken, Ok(2)], true).await, [Ok(1), Err(StatusCode::NotFound)]);
    }
}
