//! Event streams: deployments as they happen, resumable by the id of the last one seen, without a gap and in order.
//!
//! A stream reads the deploy log's state from its cursor on and then waits for the log, so it holds no queue that
//! could overflow: a reader that is slow falls behind, and one that falls behind what the log remembers is told.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use caxton_proto::WorkspaceId;
use caxton_proto::log::{Deployment, Role};
use caxton_raft::ReadError;
use caxton_raft::deploy_log::State as LogState;
use futures::Stream;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, watch};
use utoipa::{IntoParams, OpenApi};

use crate::api;
use crate::api::paths;
use crate::auth::{Access, AuthError, now_ms};
use crate::edge::Services;
use crate::edge::extract::{Path, Query};
use crate::edge::problem::{Code, Problem};
use crate::edge::routes::{Owner, Routes, get};

/// How many deployments are looked at in one go, so that the log's state is never held for long.
const BATCH: usize = 256;
/// How long a stream waits for a node that is behind to reach the event after which it begins.
const REACH_WAIT: Duration = Duration::from_secs(5);

/// This part of the API's description.
#[derive(OpenApi)]
#[openapi(paths(cluster, workspace))]
pub struct Doc;

/// This part's routes.
pub fn routes() -> Routes {
    Routes::new().on(get(paths::EVENTS), Owner::Anyone, cluster).on(
        get(paths::WORKSPACE_EVENTS),
        Owner::Anyone,
        workspace,
    )
}

/// Where a stream begins.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Begin {
    /// The id of the last event seen: the stream goes on after it. 0 for everything that is remembered; left out, the
    /// stream begins now. The header `Last-Event-ID` does the same and wins.
    after: Option<u64>,
}

/// The deployments of every workspace that the token is for, as server-sent events.
///
/// Each event has the name `deployment`, the deploy log's index as its id, and a deployment as its data. The stream
/// ends with an event `closed`, whose data has a `code`, when the token expires or is revoked (`unauthorized`), when
/// the node stops (`unavailable`), or when the reader fell behind what is remembered (`events_compacted`).
#[utoipa::path(get, path = paths::EVENTS.text(), tag = "events", params(Begin,
    ("Last-Event-ID" = Option<u64>, Header, description = "The id of the last event seen.")), responses(
    (status = 200, description = "The stream.", body = api::Deployment, content_type = "text/event-stream"),
    (status = 410, description = "The events after that id are not remembered any more: `events_compacted`.",
     body = api::Problem, content_type = "application/problem+json"),
))]
async fn cluster(
    access: Access,
    State(services): State<Services>,
    Query(begin): Query<Begin>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    open(services, access, None, cursor(&begin, &headers)?).await
}

/// The deployments of one workspace, as server-sent events; see `/api/v1/events`. Needs the role viewer.
#[utoipa::path(get, path = paths::WORKSPACE_EVENTS.text(), tag = "events", params(Begin,
    ("workspace" = String, Path, description = "The workspace."),
    ("Last-Event-ID" = Option<u64>, Header, description = "The id of the last event seen.")), responses(
    (status = 200, description = "The stream.", body = api::Deployment, content_type = "text/event-stream"),
    (status = 410, description = "The events after that id are not remembered any more: `events_compacted`.",
     body = api::Problem, content_type = "application/problem+json"),
))]
async fn workspace(
    access: Access,
    State(services): State<Services>,
    Path(workspace): Path<WorkspaceId>,
    Query(begin): Query<Begin>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    access.require(Role::Viewer, &workspace)?;
    open(services, access, Some(workspace), cursor(&begin, &headers)?).await
}

/// The id after which the client wants to go on.
fn cursor(begin: &Begin, headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(header) = headers.get("last-event-id") else { return Ok(begin.after) };
    let number = header.to_str().ok().and_then(|text| text.trim().parse().ok());
    number.map(Some).ok_or_else(|| {
        Problem::new(Code::InvalidRequest, "the header Last-Event-ID is not the id of an event")
            .help("send back the id of the last event as it came: a whole number")
    })
}

async fn open(
    services: Services,
    access: Access,
    workspace: Option<WorkspaceId>,
    after: Option<u64>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let permit = services.event_streams.clone().try_acquire_owned().map_err(|_| {
        Problem::new(Code::Unavailable, "as many event streams as `http.event_streams_max` allows are open")
            .help("close one, or try again later")
            .retry_after(5)
    })?;
    let scope = Scope { workspace, access };
    let current =
        services.log.current(|state| (state.applied(), after.is_some_and(|after| scope.is_gap(state, after)))).await;
    let (applied, gap) = match current {
        Ok(current) => current,
        // Any node streams what it has itself: that is in order and without a gap, only later.
        Err(ReadError::NotLeader { .. } | ReadError::Unavailable) => behind(&services, &scope, after).await?,
        Err(error @ ReadError::Fatal { .. }) => return Err(error.into()),
    };
    if gap {
        return Err(compacted());
    }
    if let Some(after) = after.filter(|after| *after > applied) {
        return Err(Problem::new(Code::InvalidRequest, format!("there is no event {after} yet: the log ends at {applied}"))
            .help("the id comes from another cluster, or from before its data was lost: read what is live, and begin without an id"));
    }
    let heartbeat = services.config.http.event_heartbeat;
    let follow = Follow {
        applied: services.log.applied(),
        services,
        scope,
        cursor: after.unwrap_or(applied),
        ready: VecDeque::new(),
        closed: false,
        _permit: permit,
    };
    let events = futures::stream::unfold(follow, |mut follow| async move {
        let event = follow.next().await?;
        Some((Ok(event), follow))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(heartbeat).text("still here")))
}

/// What a node that does not lead knows, once it has reached `after`. One that is behind must not take an id that it
/// has not reached for one that does not exist.
async fn behind(services: &Services, scope: &Scope, after: Option<u64>) -> Result<(u64, bool), Problem> {
    let mut applied = services.log.applied();
    let reached = applied.wait_for(|applied| after.is_none_or(|after| *applied >= after));
    match tokio::time::timeout(REACH_WAIT, reached).await {
        Ok(Ok(_)) => {}
        Ok(Err(_)) => return Err(stopping()),
        Err(_) => {
            let detail = format!("this node has not got as far as event {}", after.unwrap_or_default());
            let problem = Problem::new(Code::Unavailable, detail);
            return Err(problem.help("try again in a moment, or on another node").retry_after(1));
        }
    }
    Ok(services.log.read(|state| (state.applied(), after.is_some_and(|after| scope.is_gap(state, after)))))
}

fn compacted() -> Problem {
    Problem::new(Code::EventsCompacted, "the events after this id are not remembered any more")
        .help("read what is live (`caxton status`, `caxton log`), and begin the stream without an id")
}

/// Which deployments a stream tells of.
struct Scope {
    workspace: Option<WorkspaceId>,
    access: Access,
}

impl Scope {
    fn has(&self, deployment: &Deployment) -> bool {
        let wanted = self.workspace.as_ref().is_none_or(|workspace| *workspace == deployment.workspace);
        wanted && self.access.may(&deployment.workspace)
    }

    /// Whether a deployment of this scope came after `cursor` and is forgotten.
    fn is_gap(&self, state: &LogState, cursor: u64) -> bool {
        if cursor >= state.forgotten() {
            return false;
        }
        let Some(workspace) = &self.workspace else { return true };
        let oldest = state.workspace(workspace).and_then(|workspace| workspace.deployments().next());
        // The first revision that is remembered has an older one before it, which may have come after the cursor.
        oldest.is_some_and(|oldest| oldest.revision.0 > 1 && cursor < oldest.index)
    }
}

/// A stream on its way.
struct Follow {
    services: Services,
    scope: Scope,
    applied: watch::Receiver<u64>,
    /// Everything up to here is in `ready`, was sent, or is not in the scope.
    cursor: u64,
    ready: VecDeque<Arc<Deployment>>,
    closed: bool,
    _permit: OwnedSemaphorePermit,
}

impl Follow {
    /// The next event; nothing after the one that closes the stream.
    async fn next(&mut self) -> Option<Event> {
        if self.closed {
            return None;
        }
        loop {
            if let Err(error) = self.services.auth.still(&self.scope.access, now_ms()) {
                return Some(self.close(error.into()));
            }
            if let Some(deployment) = self.ready.pop_front() {
                return Some(event(&deployment));
            }
            // Marked as seen before the state is read, so that what comes in between wakes the wait.
            self.applied.borrow_and_update();
            match self.read() {
                Read::Gap => return Some(self.close(compacted())),
                Read::Some => continue,
                Read::Nothing => {}
            }
            let expiry = self.services.auth.remaining(&self.scope.access, now_ms());
            let expired = async {
                match expiry {
                    Some(left) => tokio::time::sleep(left).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.applied.changed() => if changed.is_err() { return Some(self.close(stopping())) },
                () = self.services.stop.cancelled() => return Some(self.close(stopping())),
                () = expired => {
                    let error = self.services.auth.still(&self.scope.access, now_ms()).err();
                    return Some(self.close(error.unwrap_or(AuthError::Expired).into()));
                }
            }
        }
    }

    /// Takes the next deployments out of the log's state.
    fn read(&mut self) -> Read {
        let (cursor, scope) = (self.cursor, &self.scope);
        let (seen, ready) = self.services.log.read(|state| {
            if scope.is_gap(state, cursor) {
                return (None, VecDeque::new());
            }
            let seen: Vec<_> = state.deployments_after(cursor).take(BATCH).cloned().collect();
            (Some(seen.last().map(|last| last.index)), seen.into_iter().filter(|it| scope.has(it)).collect())
        });
        match seen {
            None => Read::Gap,
            Some(None) => Read::Nothing,
            Some(Some(last)) => {
                (self.cursor, self.ready) = (last, ready);
                Read::Some
            }
        }
    }

    fn close(&mut self, why: Problem) -> Event {
        self.closed = true;
        let body = serde_json::to_string(&why.body(None)).unwrap_or_default();
        Event::default().event("closed").data(body)
    }
}

/// What a look into the log found.
enum Read {
    /// Deployments, of which some may be ready to be sent.
    Some,
    /// Nothing new.
    Nothing,
    /// The log has forgotten some that were not sent.
    Gap,
}

fn stopping() -> Problem {
    Problem::new(Code::Unavailable, "the node is stopping").help("connect again with the id of the last event")
}

fn event(deployment: &Deployment) -> Event {
    let data = serde_json::to_string(&api::Deployment::from(deployment)).unwrap_or_default();
    Event::default().id(deployment.index.to_string()).event("deployment").data(data)
}

#[cfg(test)]
mod tests {
    use caxton_proto::log::{Author, Command, Deploy, Kind};
    use caxton_proto::{Digest, Revision};
    use caxton_raft::deploy_log::state::DEPLOYMENTS_MAX;

    use super::*;

    fn deploy(state: &mut LogState, index: u64, workspace: &str, parent: u64) {
        let command = Command::Deploy(Deploy {
            workspace: workspace.parse().expect("a name"),
            parent: Revision(parent),
            root: Digest::of(b""),
            kind: Kind::Deploy,
            author: Author::default(),
            actor: String::new(),
            time_ms: 0,
            git: None,
            message: String::new(),
            changes: Vec::new(),
            changes_total: 0,
            files: 0,
            bytes: 0,
            idempotency_key: String::new(),
            revisions_kept: 1,
        });
        state.apply(index, &command);
    }

    #[test]
    fn a_cursor_before_what_is_forgotten_is_a_gap_where_it_misses_something() {
        let mut state = LogState::default();
        deploy(&mut state, 1, "quiet", 0);
        for index in 2..=DEPLOYMENTS_MAX as u64 + 3 {
            deploy(&mut state, index, "busy", index - 2);
        }
        // The busy workspace had two deployments more than are remembered: those at 2 and 3.
        assert_eq!(state.forgotten(), 3);
        let gap = |workspace: Option<&str>, cursor| {
            let workspace = workspace.map(|name| name.parse().expect("a name"));
            Scope { workspace, access: Access::for_test("ada", Role::Viewer, None) }.is_gap(&state, cursor)
        };
        assert!(gap(None, 0) && gap(None, 2) && !gap(None, 3));
        assert!(gap(Some("busy"), 0) && gap(Some("busy"), 2) && !gap(Some("busy"), 3));
        assert!(!gap(Some("quiet"), 0), "nothing of the quiet one is forgotten");
    }
}
