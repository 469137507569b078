//! One connection from its first frame to its last.
//!
//! What comes of the client's frames is a stream for each id, and a frame is written before the next is asked for: there is no
//! queue that could overflow. A client that does not read what it asked for, or does not answer a ping, is cut off.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use caxton_messages::acl::InvalidAddress;
use caxton_proto::WorkspaceId;
use futures::stream::{BoxStream, SplitSink, SplitStream};
use futures::{SinkExt, Stream, StreamExt};
use tokio::time::Instant;
use tokio_stream::StreamMap;
use tracing::debug;

use super::calls::Caller;
use super::{STRANGERS_FRAME_BYTES_MAX, authenticate};
use crate::api::socket::{ClientFrame, ID_BYTES_MAX, ServerFrame, Target};
use crate::app::feeds::{Feed, FeedEvent};
use crate::authn::{Access, now_ms};
use crate::authz::Converse;
use crate::edge::feeds::{self, stopping};
use crate::edge::problem::{Code, Problem};
use crate::edge::rest::{mailbox, messages, said};
use crate::edge::{Services, sse};
use crate::invoke::Freshness;

/// How many things one connection follows and asks at once.
const STREAMS_MAX: usize = 64;
/// Pings that are answered before a token has come.
const PINGS_BEFORE_TOKEN_MAX: u32 = 4;
/// How many pings may stay unanswered.
const SILENT_PINGS_MAX: u32 = 2;

/// Why a connection ends.
enum End {
    /// The client has gone, or does not read.
    Gone,
    /// The node closes it, and says why.
    Closed(Problem),
}

impl From<Problem> for End {
    fn from(problem: Problem) -> End {
        End::Closed(problem)
    }
}

/// Answers a connection until it ends.
pub async fn run(services: Services, caller: Caller, socket: WebSocket, access: Option<(Access, String)>) {
    let (writer, reader) = socket.split();
    let mut writer = Writer { sink: writer, services: services.clone() };
    let ended = async {
        let mut reader = reader;
        let (access, bearer) = match access {
            Some(shown) => shown,
            None => first(&services, &mut reader).await?,
        };
        let (subject, role) = (access.subject().to_owned(), access.role().as_str().to_owned());
        writer.frame(&ServerFrame::Authenticated { subject, role }).await?;
        let streams = StreamMap::new();
        let caller = caller.with_bearer(bearer);
        Session { services: services.clone(), caller, access, streams }.serve(&mut reader, &mut writer).await
    };
    let ended: Result<(), End> = ended.await;
    match ended {
        Ok(()) | Err(End::Gone) => debug!("a client of WebSocket has gone"),
        Err(End::Closed(problem)) => writer.close(&problem).await,
    }
}

/// Who it is, by the first frame, which has to come as soon as a request's head has to.
async fn first(services: &Services, reader: &mut SplitStream<WebSocket>) -> Result<(Access, String), End> {
    let within = services.config.header_timeout;
    let text = async {
        let mut pings = 0;
        loop {
            match reader.next().await {
                Some(Ok(Message::Text(text))) => return Ok(text),
                Some(Ok(Message::Ping(_))) if pings < PINGS_BEFORE_TOKEN_MAX => pings += 1,
                Some(Ok(Message::Ping(_))) => return Err(End::Gone),
                Some(Ok(Message::Pong(_))) => {}
                Some(Ok(Message::Binary(_))) => return Err(End::Closed(not_text())),
                Some(Err(_)) => return Err(End::Closed(broken())),
                Some(Ok(Message::Close(_))) | None => return Err(End::Gone),
            }
        }
    };
    let missing = || {
        Problem::new(Code::Unauthorized, "the connection has shown no token in time")
            .help("send `{\"type\": \"authenticate\", \"token\": \"...\"}` first, or the header `Authorization`")
    };
    let text = tokio::time::timeout(within, text).await.map_err(|_| missing())??;
    match serde_json::from_str::<ClientFrame>(&text) {
        Ok(ClientFrame::Authenticate { token }) => Ok(authenticate(services, &format!("Bearer {token}"))?),
        Ok(_) | Err(_) => Err(End::Closed(missing())),
    }
}

/// What is written, unless the client does not read it in time.
async fn in_time<E>(limit: Duration, written: impl Future<Output = Result<(), E>>) -> Result<(), End> {
    match tokio::time::timeout(limit, written).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(End::Gone),
    }
}

/// Writes frames, and gives a client up that does not read them.
struct Writer {
    sink: SplitSink<WebSocket, Message>,
    services: Services,
}

impl Writer {
    async fn frame(&mut self, frame: &ServerFrame) -> Result<(), End> {
        let text = serde_json::to_string(frame).map_err(|error| Problem::internal(&error))?;
        self.message(Message::text(text)).await
    }

    async fn message(&mut self, message: Message) -> Result<(), End> {
        let limit = self.services.config.write_timeout;
        in_time(limit, self.sink.send(message)).await
    }

    /// Waits until all is written that is on its way.
    async fn flush(&mut self) -> Result<(), End> {
        let limit = self.services.config.write_timeout;
        in_time(limit, self.sink.flush()).await
    }

    /// Says why, and closes the connection. Whoever has gone is not told.
    async fn close(&mut self, problem: &Problem) {
        let frame = ServerFrame::Error { id: None, problem: problem.body(None) };
        let code = match problem.code() {
            Code::Unavailable => close_code::AWAY,
            Code::Internal => close_code::ERROR,
            _ => close_code::POLICY,
        };
        let reason = problem.code().name().into();
        if self.frame(&frame).await.is_ok() {
            _ = self.message(Message::Close(Some(CloseFrame { code, reason }))).await;
        }
    }
}

/// A connection whose token was good.
struct Session {
    services: Services,
    caller: Caller,
    access: Access,
    /// What is followed and asked, by the client's ids.
    streams: StreamMap<String, BoxStream<'static, ServerFrame>>,
}

impl Session {
    async fn serve(mut self, reader: &mut SplitStream<WebSocket>, writer: &mut Writer) -> Result<(), End> {
        let every = self.services.config.event_heartbeat;
        let (mut ping_at, mut silent) = (Instant::now() + every, 0);
        let stop = self.services.stop.clone();
        loop {
            tokio::select! {
                came = reader.next() => {
                    silent = 0;
                    match came {
                        Some(Ok(Message::Text(text))) => {
                            self.still()?;
                            if let Some(frame) = self.take(&text).await? {
                                writer.frame(&frame).await?;
                            }
                        }
                        // The library answers it, and the answer is out before more is read: it would keep answers of a client
                        // that reads none of them without bound.
                        Some(Ok(Message::Ping(_))) => writer.flush().await?,
                        Some(Ok(Message::Pong(_))) => {}
                        Some(Ok(Message::Binary(_))) => return Err(End::Closed(not_text())),
                        Some(Err(_)) => return Err(End::Closed(broken())),
                        Some(Ok(Message::Close(_))) | None => return Ok(()),
                    }
                }
                Some((id, frame)) = self.streams.next(), if !self.streams.is_empty() => {
                    // The client may use the id again as soon as it has read this.
                    if matches!(frame, ServerFrame::Reply { .. } | ServerFrame::End { .. } | ServerFrame::Error { .. }) {
                        self.streams.remove(&id);
                    }
                    writer.frame(&frame).await?;
                }
                () = tokio::time::sleep_until(ping_at) => {
                    self.still()?;
                    if silent >= SILENT_PINGS_MAX {
                        return Err(End::Gone);
                    }
                    (ping_at, silent) = (Instant::now() + every, silent + 1);
                    writer.message(Message::Ping(Vec::new().into())).await?;
                }
                () = stop.cancelled() => return Err(End::Closed(stopping())),
            }
        }
    }

    /// Whether the token is good; streams ask for themselves too.
    fn still(&self) -> Result<(), End> {
        Ok(self.services.auth.still(&self.access, now_ms()).map_err(Problem::from)?)
    }

    /// What is answered to a frame at once.
    async fn take(&mut self, text: &str) -> Result<Option<ServerFrame>, End> {
        let frame: ClientFrame = serde_json::from_str(text).map_err(|error| {
            Problem::new(Code::InvalidRequest, format!("the frame is none: {error}"))
                .help("docs/websocket.md and docs/asyncapi.yaml say what a frame looks like")
        })?;
        let id = match &frame {
            ClientFrame::Authenticate { .. } => {
                return Err(Problem::new(Code::InvalidRequest, "the connection has a token already")
                    .help("connect once more for another one")
                    .into());
            }
            ClientFrame::Unsubscribe { id } => {
                let id = id.clone();
                return Ok(Some(match self.streams.remove(&id) {
                    Some(_) => ServerFrame::End { id },
                    None => {
                        let problem = Problem::new(Code::NotFound, format!("nothing is under way under the id {id:?}"));
                        refused(id, &problem.help("it has ended, or never began"))
                    }
                }));
            }
            ClientFrame::Subscribe { id, .. } | ClientFrame::Send { id, .. } | ClientFrame::Ask { id, .. } => {
                id.clone()
            }
        };
        if let Err(problem) = self.has_room_for(&id) {
            return Ok(Some(refused(id, &problem)));
        }
        let stream = match frame {
            ClientFrame::Send { id, workspace, request } => {
                futures::stream::once(self.caller.clone().send(id, workspace, request)).boxed()
            }
            ClientFrame::Ask { id, workspace, request } => self.caller.clone().ask(id, workspace, request).boxed(),
            ClientFrame::Subscribe { id, workspace, to, after } => {
                match self.follow(id.clone(), workspace, to, after).await {
                    Ok(stream) => stream,
                    Err(problem) => return Ok(Some(refused(id, &problem))),
                }
            }
            ClientFrame::Authenticate { .. } | ClientFrame::Unsubscribe { .. } => return Ok(None),
        };
        self.streams.insert(id, stream);
        Ok(None)
    }

    fn has_room_for(&self, id: &str) -> Result<(), Problem> {
        if !(1..=ID_BYTES_MAX).contains(&id.len()) {
            return Err(Problem::new(Code::InvalidRequest, format!("an id has 1 to {ID_BYTES_MAX} bytes")));
        }
        if self.streams.contains_key(id) {
            return Err(Problem::new(Code::Conflict, format!("something is under way under the id {id:?}"))
                .help("take another id, or unsubscribe that one first"));
        }
        if self.streams.len() >= STREAMS_MAX {
            let detail = format!("{STREAMS_MAX} things are under way on this connection, and no more may be");
            return Err(Problem::new(Code::TooManyRequests, detail).help("unsubscribe one, or connect once more"));
        }
        Ok(())
    }

    async fn follow(
        &mut self,
        id: String,
        workspace: String,
        to: Target,
        after: Option<u64>,
    ) -> Result<BoxStream<'static, ServerFrame>, Problem> {
        let named: WorkspaceId = workspace.parse().map_err(|error| {
            Problem::new(Code::InvalidRequest, format!("{workspace:?} is not a workspace: {error}"))
        })?;
        let permit = self.access.permit(Converse, &named)?;
        let begun = futures::stream::iter([ServerFrame::Subscribed { id: id.clone() }]);
        let feed = match to {
            Target::Conversation(conversation) => Feed::Turns { conversation },
            Target::Messages(conversation) => Feed::Messages { conversation },
            Target::OwnMailbox => Feed::Mailbox { owner: None },
            Target::Mailbox(owner) => Feed::Mailbox {
                owner: Some(owner.parse().map_err(|error: InvalidAddress| {
                    Problem::new(Code::InvalidRequest, error.to_string())
                        .help("name an agent, or a person as subject:NAME")
                })?),
            },
            Target::Turn(turn) => {
                let place = sse::place(&self.services)?;
                let (caller, name) = (self.caller.clone(), id.clone());
                let ended = async move {
                    let _place = place;
                    caller.turn(name, &workspace, &turn).await
                };
                return Ok(begun.chain(ending_with(futures::stream::once(ended), id)).boxed());
            }
        };
        let place = sse::place(&self.services)?;
        let subscription = self.services.app.feeds.open(&permit, feed, after, Freshness::Stale).await?;
        let told = feeds::tell(self.services.clone(), self.access.clone(), place, subscription);
        let frames = told.map(move |event| match event.and_then(|event| shown(&id, event)) {
            Ok(frame) => frame,
            Err(problem) => refused(id.clone(), &problem),
        });
        Ok(begun.chain(frames).boxed())
    }
}

/// The same, with `end` behind it unless it ended with an error.
fn ending_with(
    frames: impl Stream<Item = ServerFrame> + Send + 'static,
    id: String,
) -> impl Stream<Item = ServerFrame> + Send + 'static {
    frames.flat_map(move |frame| {
        let end = (!matches!(frame, ServerFrame::Error { .. })).then(|| ServerFrame::End { id: id.clone() });
        futures::stream::iter([frame].into_iter().chain(end))
    })
}

fn refused(id: String, problem: &Problem) -> ServerFrame {
    ServerFrame::Error { id: Some(id), problem: problem.body(None) }
}

/// Nothing more can be read of a connection: where it is still there, a frame was too long, or none at all.
fn broken() -> Problem {
    let detail = format!(
        "a frame was not one, or longer than `http.message_bytes_max`, which is {STRANGERS_FRAME_BYTES_MAX} bytes where the \
         token came in a frame"
    );
    Problem::new(Code::BodyTooLarge, detail).help("show the token in the header `Authorization`, or send it over HTTP")
}

fn not_text() -> Problem {
    Problem::new(Code::UnsupportedMediaType, "a frame is text: JSON").help("send it as text")
}

/// What came, as a frame.
fn shown(id: &str, event: FeedEvent) -> Result<ServerFrame, Problem> {
    let number = event.number();
    let (event, data) = match event {
        FeedEvent::Turn { record, .. } => ("turn", serde_json::to_value(messages::record_of(*record))),
        FeedEvent::Message(event) => ("message", serde_json::to_value(said::event(&event))),
        FeedEvent::Delivery(listed) => ("delivery", serde_json::to_value(mailbox::delivery(*listed)?)),
    };
    let data = data.map_err(|error| Problem::internal(&error))?;
    Ok(ServerFrame::Event { id: id.to_owned(), number, event: event.to_owned(), data })
}
