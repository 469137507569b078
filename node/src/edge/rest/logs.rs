//! What happens in a workspace on this node: its last lines, and then each line as it is written.
//!
//! A stream holds no queue: it reads the lines that are kept from its cursor on, and one that is slower than the
//! workspace is told how many lines it missed.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive};
use axum::response::{IntoResponse, Response, Sse};
use caxton_proto::log::Role;
use caxton_proto::{AgentName, WorkspaceId};
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, watch};
use utoipa::{IntoParams, OpenApi};

use crate::activity::{LINES_KEPT, line};
use crate::api;
use crate::api::logs::{LogLine, LogLines};
use crate::api::paths;
use crate::auth::{Access, AuthError, now_ms};
use crate::edge::Services;
use crate::edge::extract::{Json, Path, Query};
use crate::edge::problem::{Code, Problem};
use crate::edge::routes::{Owner, Routes, get};

/// Lines that are given unless told otherwise.
const LINES: usize = 100;

/// This part of the API's description.
#[derive(OpenApi)]
#[openapi(paths(logs))]
pub struct Doc;

/// This part's routes.
pub fn routes() -> Routes {
    Routes::new().on(get(paths::LOGS).or_stale(), Owner::Shard, logs)
}

/// Which lines.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// Only those of this agent's turns.
    #[param(value_type = Option<String>)]
    agent: Option<AgentName>,
    /// Only those from this time on, RFC 3339.
    since: Option<String>,
    /// How many of the newest lines, 1 to 1,000; 100 unless told. 0 with `follow` for none of what has happened.
    limit: Option<usize>,
    /// Go on with every line as it is written, as server-sent events.
    #[serde(default)]
    follow: bool,
}

/// What happened in a workspace on the node that answers: messages, steps, calls, deployments. Needs the role viewer.
///
/// With `follow` the answer is an event stream: each event has the name `line`, the line's number as its id, and the
/// line as its data; it ends with an event `closed` as `/api/v1/events` does. Lines are kept in memory: a node that
/// starts has none. They hold no prompts, arguments or results.
#[utoipa::path(get, path = paths::LOGS.text(), tag = "events", params(Wanted,
    ("workspace" = String, Path, description = "The workspace.")), responses(
    (status = 200, description = "The lines, the oldest first.", body = LogLines),
    (status = 503, description = "Too many streams are open.", body = api::Problem, content_type = "application/problem+json"),
))]
async fn logs(
    access: Access,
    State(services): State<Services>,
    Path(workspace): Path<WorkspaceId>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Problem> {
    access.require(Role::Viewer, &workspace)?;
    let since = wanted.since.as_deref().map(str::parse::<Timestamp>).transpose().map_err(|_| {
        Problem::new(Code::InvalidRequest, "`since` is not a time").help("write it as in 2026-11-21T08:00:00Z")
    })?;
    let filter = Filter { agent: wanted.agent.map(|agent| agent.to_string()), since };
    let limit = wanted.limit.unwrap_or(LINES).min(LINES_KEPT);
    let mut newest = services.activity.newest(&workspace);
    let cursor = *newest.borrow_and_update();
    let (lines, _) = services.activity.after(&workspace, 0);
    let mut lines: VecDeque<_> = lines.into_iter().filter(|line| line.id <= cursor && filter.has(line)).collect();
    lines.drain(..lines.len().saturating_sub(limit));
    if !wanted.follow {
        let lines = lines.iter().map(|line| (**line).clone()).collect();
        return Ok(Json(LogLines { lines }).into_response());
    }
    let permit = services.event_streams.clone().try_acquire_owned().map_err(|_| {
        Problem::new(Code::Unavailable, "as many event streams as `http.event_streams_max` allows are open")
            .help("close one, or try again later")
            .retry_after(5)
    })?;
    let heartbeat = services.config.http.event_heartbeat;
    let follow =
        Follow { services, access, workspace, filter, newest, cursor, ready: lines, closed: false, _permit: permit };
    let events = futures::stream::unfold(follow, |mut follow| async move {
        let event = follow.next().await?;
        Some((Ok::<_, Infallible>(event), follow))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(heartbeat).text("still here")).into_response())
}

/// Which lines are wanted.
struct Filter {
    agent: Option<String>,
    since: Option<Timestamp>,
}

impl Filter {
    fn has(&self, line: &LogLine) -> bool {
        let late = |since: &Timestamp| line.time.parse::<Timestamp>().is_ok_and(|time| time >= *since);
        let theirs = self.agent.is_none() || self.agent == line.agent;
        theirs && self.since.as_ref().is_none_or(late)
    }
}

/// A stream on its way.
struct Follow {
    services: Services,
    access: Access,
    workspace: WorkspaceId,
    filter: Filter,
    newest: watch::Receiver<u64>,
    /// Everything up to here is in `ready`, was sent, or is not wanted.
    cursor: u64,
    ready: VecDeque<Arc<LogLine>>,
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
            if let Err(error) = self.services.auth.still(&self.access, now_ms()) {
                return Some(self.close(error.into()));
            }
            if let Some(line) = self.ready.pop_front() {
                return Some(event(&line));
            }
            // Marked as seen before the lines are read, so that what comes in between wakes the wait.
            self.newest.borrow_and_update();
            let (lines, missed) = self.services.activity.after(&self.workspace, self.cursor);
            if let Some(last) = lines.last() {
                self.cursor = last.id;
                if missed > 0 {
                    let first = lines.first().map(|line| line.time.clone()).unwrap_or_default();
                    let line = line("missed", format!("{missed} lines came faster than they were read"));
                    self.ready.push_back(Arc::new(LogLine { time: first, failed: true, ..line }));
                }
                self.ready.extend(lines.into_iter().filter(|line| self.filter.has(line)));
                continue;
            }
            let left = self.services.auth.remaining(&self.access, now_ms());
            let expired = async {
                match left {
                    Some(left) => tokio::time::sleep(left).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.newest.changed() => if changed.is_err() { return Some(self.close(stopping())) },
                () = self.services.stop.cancelled() => return Some(self.close(stopping())),
                () = expired => {
                    let error = self.services.auth.still(&self.access, now_ms()).err();
                    return Some(self.close(error.unwrap_or(AuthError::Expired).into()));
                }
            }
        }
    }

    fn close(&mut self, why: Problem) -> Event {
        self.closed = true;
        let body = serde_json::to_string(&why.body(None)).unwrap_or_default();
        Event::default().event("closed").data(body)
    }
}

fn stopping() -> Problem {
    Problem::new(Code::Unavailable, "the node is stopping").help("connect again when it is back")
}

fn event(line: &LogLine) -> Event {
    let data = serde_json::to_string(line).unwrap_or_default();
    Event::default().id(line.id.to_string()).event("line").data(data)
}
