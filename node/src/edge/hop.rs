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

use axum::body::{Body, BodyDataStream};
use axum::extract::{DefaultBodyLimit, FromRequestParts, MatchedPath, RawPathParams, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use caxton_proto::{NodeId, WorkspaceId};
use caxton_raft::GroupId;
use caxton_raft::deploy_log;
use futures::{Stream, StreamExt};
use tracing::debug;

use super::Services;
use super::routes::{BodyLimit, Owner, Route, Table};
use crate::edge::problem::{Code, Problem, chain};
use crate::peers::{FORWARDED, ForwardError, OWNER};
use crate::shard::placement::owner_of;

/// How often a request is tried: once where a hint says, once where the answer to that says, and once after an election.
const ATTEMPTS_MAX: usize = 3;
/// What a query says that asks for a state which may be behind.
const STALE: &str = "stale=true";

/// In the extensions of a request that a peer passed on.
#[derive(Debug, Clone, Copy)]
pub struct ForwardedRequest {
    /// The peer, as its certificate says.
    pub from: NodeId,
}

/// What the hop goes by.
#[derive(Clone)]
pub struct Hop {
    /// What handlers work with.
    pub services: Services,
    /// Who owns each route.
    pub table: Arc<Table>,
}

/// Who has to answer a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answers {
    Anyone,
    /// The leader of a group.
    LeaderOf(GroupId),
    /// Whoever the handler says: what the request is about is in its body.
    WhoeverIsNamed,
}

/// Who has to answer a request to this route with this query, about this workspace.
fn who_answers(route: &Route, query: &str, workspace: Option<&str>, shards: NonZeroU32) -> Answers {
    let mut pairs = query.split('&');
    // Whoever asks for a state that may be behind gets it anywhere.
    if route.may_be_stale && pairs.clone().any(|pair| pair == STALE) {
        return Answers::Anyone;
    }
    match route.owner {
        Owner::Anyone => Answers::Anyone,
        Owner::Named => Answers::WhoeverIsNamed,
        Owner::Control => Answers::LeaderOf(deploy_log::GROUP),
        Owner::Group => {
            let named = pairs.find_map(|pair| pair.strip_prefix("group=")?.parse().ok());
            Answers::LeaderOf(named.map_or(deploy_log::GROUP, GroupId))
        }
        // What is no name is refused by whoever answers.
        Owner::Shard => match workspace.and_then(|name| name.parse::<WorkspaceId>().ok()) {
            Some(workspace) => Answers::LeaderOf(owner_of(&workspace, shards)),
            None => Answers::Anyone,
        },
    }
}

/// Who has to answer a request, which is given the limit of its route. One that matched no route is refused by any node.
/// Says how much of its body is kept, too, so that it can be sent again.
async fn answers(hop: &Hop, request: Request) -> (Answers, usize, Request) {
    let (mut parts, body) = request.into_parts();
    let path = parts.extensions.get::<MatchedPath>().cloned();
    let route = path.as_ref().and_then(|path| hop.table.find(&parts.method, path.as_str()));
    let mut kept = hop.services.config.forward_bytes_max.as_usize();
    let Some(route) = route else { return (Answers::Anyone, kept, Request::from_parts(parts, body)) };
    let limit = route.body;
    let names = RawPathParams::from_request_parts(&mut parts, &()).await.ok();
    let workspace = names.iter().flatten().find(|(name, _)| *name == "workspace").map(|(_, value)| value);
    let query = parts.uri.query().unwrap_or_default();
    let answers = who_answers(route, query, workspace, hop.services.shards);
    let mut request = Request::from_parts(parts, body);
    let message_bytes_max = hop.services.config.message_bytes_max.as_usize();
    match limit {
        BodyLimit::Usual => {}
        BodyLimit::Message => DefaultBodyLimit::max(message_bytes_max).apply(&mut request),
        BodyLimit::Deployment => DefaultBodyLimit::max(hop.services.deployment_bytes_max).apply(&mut request),
    }
    // What only the handler can say whose it is has been read whole when it says that.
    if answers == Answers::WhoeverIsNamed {
        kept = kept.max(message_bytes_max);
    }
    (answers, kept, request)
}

/// Answers here, or has the node answer that has to.
pub async fn to_owner(State(hop): State<Hop>, request: Request, next: Next) -> Response {
    let services = hop.services.clone();
    let (answers, kept_bytes_max, request) = answers(&hop, request).await;
    let group = match answers {
        Answers::Anyone => return next.run(request).await,
        Answers::LeaderOf(group) => Some(group),
        Answers::WhoeverIsNamed => None,
    };
    let forwarded = request.extensions().get::<ForwardedRequest>().is_some();
    let (own, cluster) = (services.cluster.own(), &services.cluster);
    let (parts, body) = request.into_parts();
    let replay = Replay::of(body, kept_bytes_max);
    let (mut hint, mut failed) = (None, None);
    let mut last = None;
    for _ in 0..ATTEMPTS_MAX {
        let leader = match (hint.take(), group) {
            (Some(hint), _) => Some(hint),
            (None, Some(group)) => cluster.leader(group, failed, services.config.leader_wait).await,
            // The handler looks into the request, and says who leads its group.
            (None, None) => None,
        };
        let Some(body) = replay.again() else { break };
        let mut again = Request::from_parts(parts.clone(), body);
        let Some(leader) = leader.filter(|leader| *leader != own) else {
            // With no leader, the handler says what that means for it.
            let response = next.clone().run(again).await;
            match moved(&response, own) {
                None => return said_why(response, &services, group),
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
        crate::telemetry::propagation::inject(again.headers_mut());
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
        Some(response) => said_why(response, &services, group),
        None => said_why(changing(), &services, group),
    }
}

/// The answer, or in place of "not now" the reason, when that is a lost majority: it does not pass by itself.
fn said_why(response: Response, services: &Services, group: Option<GroupId>) -> Response {
    if response.status() != StatusCode::SERVICE_UNAVAILABLE {
        return response;
    }
    match services.cluster.lost_majority(group.unwrap_or(deploy_log::GROUP)) {
        None => response,
        Some(lost) => {
            Problem::new(Code::Unavailable, lost.to_string()).help(lost.help()).retry_after(5).into_response()
        }
    }
}

/// Who has to answer instead, when the log did not take what was asked for because another node leads.
fn moved(response: &Response, own: NodeId) -> Option<NodeId> {
    response.extensions().get::<Problem>()?.leader().filter(|leader| *leader != own)
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
        .retry_with_key(1)
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
    request.extensions_mut().insert(ForwardedRequest { from });
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
    /// More than that is not kept, and the body is sent once.
    kept_bytes_max: usize,
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
    fn of(body: Body, kept_bytes_max: usize) -> Replay {
        let body = body.into_data_stream();
        let kept = VecDeque::new();
        Replay(Arc::new(Mutex::new(Source { body, kept, kept_bytes: 0, kept_bytes_max, spent: false, readers: 0 })))
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
            if source.spent || source.kept_bytes > source.kept_bytes_max {
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
    use crate::api::paths;
    use crate::edge::all_routes;

    #[test]
    fn every_route_is_answered_by_its_owner_and_what_changes_something_has_one() {
        use Answers::{Anyone, LeaderOf, WhoeverIsNamed};
        let shards = NonZeroU32::new(8).expect("not zero");
        let (zero, demo) = (LeaderOf(GroupId(0)), LeaderOf(owner_of(&"demo".parse().expect("a name"), shards)));
        assert_ne!(demo, LeaderOf(GroupId(1)), "or the rows below show nothing");
        // These change nothing in any log: the one only asks, the other's effects are outside of the cluster.
        let free = [paths::ROUTE.text(), paths::TOOL_CALLS.text()];
        // Every call of gRPC is a POST, and these only read.
        let reads = [paths::GRPC_LIST_WORKSPACES.text(), paths::GRPC_FOLLOW_DEPLOYMENTS.text()];
        let free = |name: &str| free.contains(&name) || reads.contains(&name) || name.starts_with("/grpc.");
        // These only ask, with more than a query holds.
        let asks = [paths::MEMORY_SEARCH.text(), paths::MEMORY_GRAPH.text()];
        let (_, table) = all_routes().into_parts();
        assert!(table.all().count() > 40);
        for route in table.all() {
            let (is_get, name) = (route.method == Method::GET, route.path);
            let of = |query: &str| who_answers(route, query, Some("demo"), shards);
            let expected = match route.owner {
                Owner::Anyone => Anyone,
                Owner::Control | Owner::Group => zero,
                Owner::Shard => demo,
                Owner::Named => WhoeverIsNamed,
            };
            assert_eq!(of(""), expected, "{name}");
            assert_eq!(of("x=1&stale=true"), if route.may_be_stale { Anyone } else { expected }, "{name}");
            assert!(
                is_get || !route.may_be_stale || asks.contains(&name),
                "{name}: what changes something is not done on a stale state"
            );
            assert!(is_get || route.owner != Owner::Anyone || free(name), "{name} has no owner");
            assert!(route.owner != Owner::Shard || name.contains("/{workspace}/"), "{name} names no shard");
            let at_five = if route.owner == Owner::Group { LeaderOf(GroupId(5)) } else { expected };
            assert_eq!(of("group=5"), at_five, "{name}");
            assert_eq!(table.find(&route.method, name), Some(route));
            assert_eq!(table.find(&Method::HEAD, name).is_some(), table.find(&Method::GET, name).is_some());
        }
        let messages = table.find(&Method::POST, paths::MESSAGES.text()).expect("a route");
        assert_eq!(who_answers(messages, "", Some("No name"), shards), Anyone, "it is refused anywhere");
        assert_eq!(table.find(&Method::PATCH, paths::MESSAGES.text()), None);
    }

    fn body(pieces: &[&'static [u8]]) -> Body {
        let pieces: Vec<_> = pieces.iter().map(|piece| Ok::<_, std::io::Error>(Bytes::from_static(piece))).collect();
        Body::from_stream(futures::stream::iter(pieces))
    }

    #[tokio::test]
    async fn a_body_that_was_read_in_part_is_read_again_from_its_beginning() {
        let replay = Replay::of(body(&[b"one ", b"two ", b"three"]), 13);
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
        let replay = Replay::of(body(&[&LARGE, &LARGE, &LARGE, &LARGE]), 8 << 20);
        let whole = axum::body::to_bytes(replay.again().expect("the body"), usize::MAX).await.expect("whole");
        assert_eq!(whole.len(), 4 * LARGE.len());
        assert!(replay.again().is_none());
    }
}
