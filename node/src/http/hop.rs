//! Any node takes any request: what has to be answered by the leader of a group goes there, in one hop.
//!
//! A request that was passed on is never passed on again: a node that it should not have come to says who it should
//! have gone to, and the node that the client spoke to tries there. What was not sent, or what the log did not take
//! because another node leads, can be sent again without harm; anything else is not.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use caxton_proto::{NodeId, WorkspaceId};
use caxton_raft::GroupId;
use caxton_raft::deploy_log;
use futures::{Stream, StreamExt};
use tracing::debug;

use super::Services;
use crate::peers::{FORWARDED, ForwardError, OWNER};
use crate::problem::{Code, Problem, chain};
use crate::shard::placement::owner_of;

/// How often a request is tried: once where a hint says, once where the answer to that says, and once after an election.
const ATTEMPTS_MAX: usize = 3;
/// How long a request waits for a group without a leader: an election, and the time to notice that one is needed.
const LEADER_WAIT: Duration = Duration::from_secs(6);
/// How much of a body is kept to be sent again, in bytes; a larger one is sent once.
const REPLAY_BYTES_MAX: usize = 8 << 20;

/// In the extensions of a request that a peer passed on.
#[derive(Debug, Clone, Copy)]
pub struct Forwarded {
    /// The peer, as its certificate says.
    pub from: NodeId,
}

/// In the extensions of a response that is no problem document, but says the same: nothing was done, this node leads.
#[derive(Debug, Clone, Copy)]
pub struct LedBy(pub NodeId);

/// Who has to answer a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answers {
    /// Any node.
    Anyone,
    /// The leader of a group.
    LeaderOf(GroupId),
    /// Whoever the handler says: what the request is about is in its body.
    WhoeverIsNamed,
}

/// Who has to answer a request.
fn who_answers(method: &Method, uri: &Uri, shards: NonZeroU32) -> Answers {
    let group = match group_of(method, uri, shards) {
        Some(group) => group,
        None if uri.path() == "/v1/chat/completions" => return Answers::WhoeverIsNamed,
        None => return Answers::Anyone,
    };
    Answers::LeaderOf(group)
}

/// Which group's leader has to answer a request, if its address says so.
fn group_of(method: &Method, uri: &Uri, shards: NonZeroU32) -> Option<GroupId> {
    let mut parts = uri.path().trim_start_matches('/').split('/');
    let mut pairs = uri.query().unwrap_or_default().split('&');
    let stale = pairs.clone().any(|pair| pair == "stale=true");
    match (parts.next()?, parts.next()?) {
        ("api", "v1") => {}
        _ => return None,
    }
    match (parts.next()?, parts.next(), parts.next()) {
        ("tokens", ..) => Some(deploy_log::GROUP),
        ("cluster", Some("transfer"), None) => {
            let named = pairs.find_map(|pair| pair.strip_prefix("group=")?.parse().ok());
            Some(named.map_or(deploy_log::GROUP, GroupId))
        }
        ("cluster", ..) | ("workspaces", Some(_), None) => {
            (method != Method::GET || !stale).then_some(deploy_log::GROUP)
        }
        ("workspaces", Some(_), Some("deployments" | "rollback" | "artifacts" | "tree" | "secrets")) => {
            Some(deploy_log::GROUP)
        }
        ("workspaces", Some(name), Some("messages" | "conversations" | "approvals" | "turns" | "logs")) => {
            // Whoever asks for a state that may be behind gets it anywhere. What is no name is refused by whoever answers.
            let workspace = name.parse::<WorkspaceId>().ok().filter(|_| method != Method::GET || !stale)?;
            Some(owner_of(&workspace, shards))
        }
        _ => None,
    }
}

/// Answers here, or has the node answer that has to.
pub async fn to_owner(State(services): State<Services>, request: Request, next: Next) -> Response {
    let shards = services.invoker.conversations().shards().count();
    let group = match who_answers(request.method(), request.uri(), shards) {
        Answers::Anyone => return next.run(request).await,
        Answers::LeaderOf(group) => Some(group),
        Answers::WhoeverIsNamed => None,
    };
    let forwarded = request.extensions().get::<Forwarded>().is_some();
    let (own, cluster) = (services.cluster.own(), &services.cluster);
    let (parts, body) = request.into_parts();
    let replay = Replay::of(body);
    let (mut hint, mut failed) = (None, None);
    let mut last = None;
    for _ in 0..ATTEMPTS_MAX {
        let leader = match (hint.take(), group) {
            (Some(hint), _) => Some(hint),
            (None, Some(group)) => cluster.leader(group, failed, LEADER_WAIT).await,
            // The handler looks into the request, and says who leads its group.
            (None, None) => None,
        };
        let Some(body) = replay.again() else { break };
        let again = Request::from_parts(parts.clone(), body);
        let Some(leader) = leader.filter(|leader| *leader != own) else {
            // With no leader, the handler says what that means for it.
            let response = next.clone().run(again).await;
            match moved(&response, own) {
                None => return response,
                Some(to) if forwarded => return misdirected(Some(to)),
                Some(to) => (hint, last) = (Some(to), Some(response)),
            }
            continue;
        };
        if forwarded {
            return misdirected(Some(leader));
        }
        // Nothing is passed on for somebody whom no node of this cluster ever gave a token.
        let token = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if !services.auth.vouches_for(token) {
            return next.run(again).await;
        }
        match cluster.peers().forward(leader, again).await {
            Ok(answer) => match owner(&answer) {
                None => return answer.map(Body::new),
                Some(to) => (hint, failed, last) = (to, to.is_none().then_some(leader), Some(answer.map(Body::new))),
            },
            Err(error) => {
                debug!(peer = %leader, error = chain(&error), "a request could not be passed on");
                let harmless = matches!(error, ForwardError::Dial(_)) || parts.method == Method::GET;
                last = Some(unreachable(&error));
                failed = Some(leader);
                if !harmless {
                    break;
                }
            }
        }
    }
    match last {
        Some(response) if response.status() == StatusCode::MISDIRECTED_REQUEST => changing(),
        Some(response) => response,
        None => changing(),
    }
}

/// Who has to answer instead, when the log did not take what was asked for because another node leads.
fn moved(response: &Response, own: NodeId) -> Option<NodeId> {
    let extensions = response.extensions();
    let by_problem = || extensions.get::<Problem>()?.leader();
    extensions.get::<LedBy>().map(|led_by| led_by.0).or_else(by_problem).filter(|leader| *leader != own)
}

/// Whether the other node says that it is the wrong one, and who is right if it knows.
fn owner<B>(answer: &http::Response<B>) -> Option<Option<NodeId>> {
    if answer.status() != StatusCode::MISDIRECTED_REQUEST {
        return None;
    }
    let named = answer.headers().get(OWNER).and_then(|value| u64::from_str_radix(value.to_str().ok()?, 16).ok());
    Some(named.map(NodeId))
}

fn misdirected(to: Option<NodeId>) -> Response {
    let mut response = StatusCode::MISDIRECTED_REQUEST.into_response();
    if let Some(value) = to.and_then(|to| HeaderValue::try_from(to.to_string()).ok()) {
        response.headers_mut().insert(OWNER, value);
    }
    response
}

fn unreachable(error: &ForwardError) -> Response {
    let detail = match error {
        ForwardError::Dial(_) => "the node that has to answer cannot be reached",
        ForwardError::Broken { .. } => "the connection to the node that has to answer broke",
        ForwardError::Address(_) => "the request cannot be passed on to the node that has to answer",
    };
    Problem::new(Code::Unavailable, detail)
        .help("look whether it happened before you repeat it, or repeat it with its idempotency key")
        .retry_after(1)
        .into_response()
}

fn changing() -> Response {
    Problem::new(Code::Unavailable, "the cluster is electing a leader")
        .help("nothing was done: try again in a moment")
        .retry_after(1)
        .into_response()
}

/// Takes a request that a peer passed on, from the peers' port to the API.
pub async fn from_peer(api: axum::Router, mut request: Request) -> Response {
    use tower::ServiceExt;
    let caller = request.extensions_mut().remove::<crate::peers::door::Caller>();
    let from = match caller {
        Some(caller) => caller.node().await.ok(),
        None => None,
    };
    let named = request.headers_mut().remove(FORWARDED);
    let (Some(from), Some(_)) = (from, named) else {
        return Problem::new(Code::Unauthorized, "only nodes of the cluster pass requests on").into_response();
    };
    request.extensions_mut().insert(Forwarded { from });
    match api.oneshot(request).await {
        Ok(response) => response,
        Err(impossible) => match impossible {},
    }
}

/// A body that can be sent again from its beginning as long as it is not too large.
#[derive(Clone)]
struct Replay(Arc<Mutex<Source>>);

struct Source {
    body: BodyDataStream,
    kept: VecDeque<Bytes>,
    kept_bytes: usize,
    /// It is too large to be kept, and some of it is gone.
    spent: bool,
    /// Counts the readers; only the newest may read.
    readers: usize,
}

struct Reader {
    source: Arc<Mutex<Source>>,
    number: usize,
    at: usize,
}

impl Replay {
    fn of(body: Body) -> Replay {
        let body = body.into_data_stream();
        let kept = VecDeque::new();
        Replay(Arc::new(Mutex::new(Source { body, kept, kept_bytes: 0, spent: false, readers: 0 })))
    }

    /// The body from its beginning; whoever read it before reads no more.
    fn again(&self) -> Option<Body> {
        let mut source = lock(&self.0);
        if source.spent {
            return None;
        }
        source.readers += 1;
        let reader = Reader { source: Arc::clone(&self.0), number: source.readers, at: 0 };
        Some(Body::from_stream(reader))
    }
}

fn lock(source: &Mutex<Source>) -> MutexGuard<'_, Source> {
    source.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stream for Reader {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let shared = Arc::clone(&self.source);
        let mut source = lock(&shared);
        if source.readers != self.number {
            return Poll::Ready(Some(Err(axum::Error::new(std::io::Error::other("the body is read elsewhere")))));
        }
        if let Some(piece) = source.kept.get(self.at) {
            self.at += 1;
            return Poll::Ready(Some(Ok(piece.clone())));
        }
        let polled = source.body.poll_next_unpin(context);
        if let Poll::Ready(Some(Ok(piece))) = &polled {
            source.kept_bytes += piece.len();
            if source.spent || source.kept_bytes > REPLAY_BYTES_MAX {
                source.spent = true;
                source.kept.clear();
                self.at = 0;
            } else {
                source.kept.push_back(piece.clone());
                self.at += 1;
            }
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_has_its_place() {
        use Answers::{Anyone, LeaderOf, WhoeverIsNamed};
        let shards = NonZeroU32::new(8).expect("not zero");
        let (zero, demo) = (LeaderOf(GroupId(0)), LeaderOf(owner_of(&"demo".parse().expect("a name"), shards)));
        assert_ne!(demo, LeaderOf(GroupId(1)), "or the rows below show nothing");
        for (method, uri, expected) in [
            (Method::GET, "/health", Anyone),
            (Method::GET, "/", Anyone),
            (Method::GET, "/api/v1/server", Anyone),
            (Method::GET, "/api/v1/workspaces", Anyone),
            (Method::GET, "/api/v1/workspaces/demo", zero),
            (Method::GET, "/api/v1/workspaces/demo?stale=true", Anyone),
            (Method::GET, "/api/v1/workspaces/demo/events", Anyone),
            (Method::GET, "/api/v1/workspaces/demo/agents/a", Anyone),
            (Method::POST, "/api/v1/workspaces/demo/deployments", zero),
            (Method::PUT, "/api/v1/workspaces/demo/artifacts", zero),
            (Method::POST, "/api/v1/workspaces/demo/tree/nodes", zero),
            (Method::POST, "/api/v1/workspaces/demo/rollback", zero),
            (Method::PUT, "/api/v1/workspaces/demo/secrets/KEY", zero),
            (Method::POST, "/api/v1/cluster/backup", zero),
            (Method::POST, "/api/v1/tokens", zero),
            (Method::DELETE, "/api/v1/tokens/x", zero),
            (Method::GET, "/api/v1/cluster", zero),
            (Method::GET, "/api/v1/cluster?stale=true", Anyone),
            (Method::POST, "/api/v1/cluster/transfer", zero),
            (Method::POST, "/api/v1/cluster/transfer?group=1", LeaderOf(GroupId(1))),
            (Method::POST, "/api/v1/cluster/tokens?stale=true", zero),
            (Method::POST, "/api/v1/workspaces/demo/messages", demo),
            (Method::GET, "/api/v1/workspaces/demo/conversations/c", demo),
            (Method::POST, "/api/v1/workspaces/demo/approvals/a", demo),
            (Method::GET, "/api/v1/workspaces/demo/conversations?limit=3&stale=true", Anyone),
            (Method::GET, "/api/v1/workspaces/demo/turns/t", demo),
            (Method::GET, "/api/v1/workspaces/demo/logs?follow=true", demo),
            (Method::POST, "/api/v1/workspaces/demo/messages?stale=true", demo),
            (Method::GET, "/api/v1/workspaces/No%20name/conversations", Anyone),
            (Method::POST, "/v1/chat/completions", WhoeverIsNamed),
            (Method::GET, "/v1/models", Anyone),
        ] {
            assert_eq!(who_answers(&method, &uri.parse().expect("a URI"), shards), expected, "{method} {uri}");
        }
    }

    fn body(pieces: &[&'static [u8]]) -> Body {
        let pieces: Vec<_> = pieces.iter().map(|piece| Ok::<_, std::io::Error>(Bytes::from_static(piece))).collect();
        Body::from_stream(futures::stream::iter(pieces))
    }

    #[tokio::test]
    async fn a_body_that_was_read_in_part_is_read_again_from_its_beginning() {
        let replay = Replay::of(body(&[b"one ", b"two ", b"three"]));
        let mut first = replay.again().expect("the body").into_data_stream();
        assert_eq!(first.next().await.expect("a piece").expect("is read"), "one ");
        let again = replay.again().expect("the body");
        assert!(first.next().await.expect("an answer").is_err(), "only one reads");
        let whole = axum::body::to_bytes(again, 1_000).await.expect("whole");
        assert_eq!(whole, "one two three");
        let third = axum::body::to_bytes(replay.again().expect("the body"), 1_000).await.expect("whole");
        assert_eq!(third, "one two three");
    }

    #[tokio::test]
    async fn a_large_body_is_sent_once_and_whole() {
        static LARGE: [u8; 3 << 20] = [7; 3 << 20];
        let replay = Replay::of(body(&[&LARGE, &LARGE, &LARGE, &LARGE]));
        let whole = axum::body::to_bytes(replay.again().expect("the body"), usize::MAX).await.expect("whole");
        assert_eq!(whole.len(), 4 * LARGE.len());
        assert!(replay.again().is_none());
    }
}
