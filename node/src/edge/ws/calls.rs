//! What a client asks and sends, as requests to the node's own routes: the answers of those are the frames.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode, header};
use axum::response::Response;
use futures::{Stream, StreamExt};
use serde_json::Value;
use sse_stream::SseStream;
use tower::ServiceExt;

use crate::api::messages::TurnEvent;
use crate::api::socket::ServerFrame;
use crate::api::{self, paths};
use crate::edge::caps::CameFrom;
use crate::edge::problem::{Code, Problem};

/// The longest answer that is put together, in bytes: files that came of a turn are in it.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// How long is waited before a turn is asked for again that is under way.
const AGAIN: std::time::Duration = std::time::Duration::from_millis(250);
/// The longest of these pauses: each is twice as long as the one before.
const AGAIN_MAX: std::time::Duration = std::time::Duration::from_secs(5);

/// Calls the node's routes for one connection.
#[derive(Clone)]
pub struct Caller {
    api: Router,
    came_from: Option<CameFrom>,
    /// The value of the header `Authorization`.
    bearer: String,
}

/// An answer that is no success: the body of a problem.
type Refusal = Box<api::Problem>;

impl Caller {
    /// A caller of `api` for whoever came from an address.
    pub fn new(api: Router, came_from: Option<CameFrom>) -> Caller {
        Caller { api, came_from, bearer: String::new() }
    }

    /// The same with a token.
    pub fn with_bearer(self, bearer: String) -> Caller {
        Caller { bearer, ..self }
    }

    async fn call(&self, method: Method, path: String, body: Option<&Value>) -> Result<Response, Refusal> {
        let request = Request::builder().method(method).uri(path).header(header::AUTHORIZATION, &self.bearer);
        let request = request.header(header::CONTENT_TYPE, "application/json");
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let mut request = request.body(body).map_err(|_| refusal(&unsendable()))?;
        if let Some(came_from) = self.came_from {
            request.extensions_mut().insert(came_from);
        }
        let response = match self.api.clone().oneshot(request).await {
            Ok(response) => response,
            Err(impossible) => match impossible {},
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let problem = json(response).await?;
        Err(serde_json::from_value(problem).map(Box::new).unwrap_or_else(|error| refusal(&Problem::internal(&error))))
    }

    /// Sends a message to mailboxes: a `reply`, or an error.
    pub async fn send(self, id: String, workspace: String, request: Value) -> ServerFrame {
        let sent = async {
            let path = paths::MAILBOX.with([&workspace]);
            json(self.call(Method::POST, path, Some(&request)).await?).await
        };
        match sent.await {
            Ok(data) => ServerFrame::Reply { id, data },
            Err(problem) => ServerFrame::Error { id: Some(id), problem: *problem },
        }
    }

    /// Asks an agent: its steps, numbered from 1, and the end. When it is dropped before that, the turn is stopped as it is
    /// when a client of HTTP goes.
    pub fn ask(self, id: String, workspace: String, mut request: Value) -> impl Stream<Item = ServerFrame> + Send {
        if let Value::Object(fields) = &mut request {
            fields.insert("stream".to_owned(), Value::Bool(true));
        }
        let name = id.clone();
        let begun = async move {
            let path = paths::MESSAGES.with([&workspace]);
            let response = match self.call(Method::POST, path, Some(&request)).await {
                Ok(response) => response,
                Err(problem) => return futures::stream::iter([broken(name, *problem)]).boxed(),
            };
            let mut number = 0;
            let events = SseStream::from_bytes_stream(response.into_body().into_data_stream());
            let frames = events.filter_map(move |event| {
                let frame = match event {
                    // A comment keeps the stream open, and says nothing.
                    Ok(event) => event.data.map(|data| {
                        number += 1;
                        step(name.clone(), number, &data)
                    }),
                    Err(_) => Some(broken(name.clone(), *refusal(&cut_off()))),
                };
                std::future::ready(frame)
            });
            frames.boxed()
        };
        let ended = ServerFrame::End { id };
        // An error is the end by itself.
        let frames = futures::stream::once(begun).flatten().chain(futures::stream::iter([ended]));
        frames.scan(false, |failed, frame| {
            if *failed {
                return std::future::ready(None);
            }
            *failed = matches!(frame, ServerFrame::Error { .. });
            std::future::ready(Some(frame))
        })
    }

    /// The end of a turn, once it is over or waits for a person.
    pub async fn turn(&self, id: String, workspace: &str, turn: &str) -> ServerFrame {
        let mut pause = AGAIN;
        loop {
            let answered = async {
                let response = self.call(Method::GET, paths::TURN.with([workspace, turn]), None).await?;
                let waits = response.status() == StatusCode::ACCEPTED;
                Ok::<_, Refusal>((waits, json(response).await?))
            };
            match answered.await {
                Ok((waits, data)) => {
                    let event = if waits { "waiting" } else { "answered" }.to_owned();
                    return ServerFrame::Event { id, number: 1, event, data };
                }
                // It is under way, or the node that has to answer is being elected.
                Err(problem) if problem.status == StatusCode::SERVICE_UNAVAILABLE.as_u16() => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(AGAIN_MAX);
                }
                Err(problem) => return ServerFrame::Error { id: Some(id), problem: *problem },
            }
        }
    }
}

/// A step as a frame; one that says that there is no answer is an error.
fn step(id: String, number: u64, data: &str) -> ServerFrame {
    match serde_json::from_str::<TurnEvent>(data) {
        Ok(TurnEvent::Failed(problem)) => ServerFrame::Error { id: Some(id), problem: *problem },
        Ok(event) => {
            let (name, data) = (event.name().to_owned(), serde_json::from_str(data).unwrap_or_default());
            ServerFrame::Event { id, number, event: name, data }
        }
        Err(error) => broken(id, *refusal(&Problem::internal(&error))),
    }
}

fn broken(id: String, problem: api::Problem) -> ServerFrame {
    ServerFrame::Error { id: Some(id), problem }
}

fn refusal(problem: &Problem) -> Refusal {
    Box::new(problem.body(None))
}

fn unsendable() -> Problem {
    Problem::new(Code::InvalidRequest, "the frame names what no request can name").help("look at its workspace and id")
}

fn cut_off() -> Problem {
    Problem::new(Code::Unavailable, "the connection to the node that answers broke")
        .help("subscribe to the turn, or ask again with the idempotency key")
}

async fn json(response: Response) -> Result<Value, Refusal> {
    let body = to_bytes(response.into_body(), ANSWER_BYTES_MAX).await.map_err(|_| refusal(&cut_off()))?;
    serde_json::from_slice(&body).map_err(|error| refusal(&Problem::internal(&error)))
}
