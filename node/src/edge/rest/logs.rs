//! What happens in a workspace: its last lines, and then each line as it is written. Each node keeps those of what happened on
//! it; whoever is asked brings the others' together with its own.
//!
//! A stream holds no queue: it reads the lines that are kept from its cursor on, and one that is slower than the
//! workspace is told how many lines it missed.

mod others;

use std::collections::{BTreeMap, VecDeque};

use axum::extract::State;
use axum::http::{HeaderMap, Uri, header};
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use caxton_proto::AgentName;
use futures::StreamExt;
use jiff::Timestamp;
use others::Others;
use serde::Deserialize;
use tokio::sync::watch;
use utoipa::{IntoParams, OpenApi};

use crate::activity::{LINES_KEPT, line};
use crate::api::logs::{LogLine, LogLines};
use crate::api::{self, paths};
use crate::app::App;
use crate::authz::{Permit, ReadActivity};
use crate::edge::Services;
use crate::edge::extract::{Json, Query};
use crate::edge::problem::{Code, Problem};
use crate::edge::routes::{Owner, Routes, get};
use crate::edge::sse::{self, FollowSource};

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

#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct LinesQuery {
    /// Only those of this agent's turns and of the messages that it sends or receives, or of several agents' with commas between.
    agent: Option<String>,
    /// Only those from this time on, RFC 3339.
    since: Option<String>,
    /// How many of the newest lines, 1 to 1,000; 100 unless told. 0 with `follow` for none of what has happened.
    limit: Option<usize>,
    /// Go on with every line as it is written, as server-sent events.
    #[serde(default)]
    follow: bool,
    /// Only the lines of the node that is asked.
    #[serde(default)]
    stale: bool,
    /// Only those after the one with this number, and as many of them as are kept; with `stale`, because each node counts by
    /// itself.
    after: Option<u64>,
}

/// What happened in a workspace, on whichever node: messages, steps, calls, deployments. Needs the role viewer.
///
/// With `follow` the answer is an event stream: each event has the name `line`, the line's number as its id, and the
/// line as its data; it ends with an event `closed` as `/api/v1/events` does. Lines are kept in memory: a node that
/// starts has none. They hold no prompts, arguments or results.
#[utoipa::path(get, path = paths::LOGS.text(), tag = "events", params(LinesQuery,
    ("workspace" = String, Path, description = "The workspace.")), responses(
    (status = 200, description = "The lines, the oldest first; with `follow`, a `LogLine` for each event of the stream.", content((LogLines = "application/json"), (serde_json::Value = "text/event-stream"))),
    (status = 503, description = "Too many streams are open.", body = api::Problem, content_type = "application/problem+json"),
))]
async fn logs(
    permit: Permit<ReadActivity>,
    State(services): State<Services>,
    Query(wanted): Query<LinesQuery>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let since = wanted.since.as_deref().map(str::parse::<Timestamp>).transpose().map_err(|_| {
        Problem::new(Code::InvalidRequest, "`since` is not a time").help("write it as in 2026-11-21T08:00:00Z")
    })?;
    if wanted.after.is_some() && !wanted.stale {
        return Err(Problem::new(Code::InvalidRequest, "`after` is a number of one node, and all are asked")
            .help("ask with `stale=true`, which asks one node only"));
    }
    let agents = wanted.agent.as_deref().map(agents_of).transpose()?;
    let others = (!wanted.stale).then(|| Others {
        services: services.clone(),
        token: headers.get(header::AUTHORIZATION).cloned(),
        own_lines: own_lines(uri.path(), agents.as_deref(), since),
    });
    let place = wanted.follow.then(|| sse::place(&services)).transpose()?;
    let filter = Filter { agents, since };
    let limit = wanted.limit.unwrap_or(LINES).min(LINES_KEPT);
    let begun = services.app.activity.begun();
    let newest = services.app.activity.newest_line(&permit);
    let cursor = newest.as_ref().map_or(0, |newest| *newest.borrow());
    let quiet = newest.is_none();
    let newest = newest.unwrap_or(begun);
    // One that was started since counts from 1 again.
    let after = wanted.after.filter(|after| *after <= cursor);
    let (lines, _) = services.app.activity.lines_after(&permit, after.unwrap_or_default());
    let own = Own::of(&services);
    let mut lines: VecDeque<_> = lines.into_iter().filter(|line| line.id <= cursor && filter.has(line)).collect();
    lines.drain(..lines.len().saturating_sub(if wanted.after.is_some() { LINES_KEPT } else { limit }));
    let mut lines: Vec<LogLine> = lines.iter().map(|line| own.line(line)).collect();
    let (mut seen, mut missing) = (BTreeMap::new(), Vec::new());
    if let Some(others) = &others {
        for (node, theirs) in others.lines(LINES_KEPT).await {
            let Some(theirs) = theirs else {
                missing.push(node.to_string());
                continue;
            };
            seen.extend(theirs.last().map(|last| (node, last.id)));
            lines.extend(theirs);
        }
        // Each node's own are in order, and stay so where two have one time.
        lines.sort_by(|one, other| one.time.cmp(&other.time));
        lines.drain(..lines.len().saturating_sub(limit));
    }
    let Some(place) = place else { return Ok(Json(LogLines { lines, missing }).into_response()) };
    let (app, access) = (services.app.clone(), permit.access().clone());
    let follow = Follow { app, permit, filter, newest, quiet, cursor, own, ready: lines.into() };
    let beside = match others {
        Some(others) => others.follow(seen).map(|line| event(&line)).boxed(),
        None => futures::stream::pending().boxed(),
    };
    Ok(sse::follow_beside(services, access, place, follow, beside))
}

/// Path and query that ask a node for its own lines.
fn own_lines(path: &str, agents: Option<&[AgentName]>, since: Option<Timestamp>) -> String {
    let names = |agents: &[AgentName]| agents.iter().map(AgentName::as_str).collect::<Vec<_>>().join(",");
    let agent = agents.map(|agents| format!("&agent={}", names(agents))).unwrap_or_default();
    let since = since.map(|since| format!("&since={since}")).unwrap_or_default();
    format!("{path}?stale=true{agent}{since}")
}

/// Names the node in its lines, where there are others.
struct Own(Option<String>);

impl Own {
    fn of(services: &Services) -> Own {
        let cluster = &services.cluster;
        Own((!cluster.others().is_empty()).then(|| cluster.own().to_string()))
    }

    fn line(&self, line: &LogLine) -> LogLine {
        LogLine { node: self.0.clone(), ..line.clone() }
    }
}

/// The agents of a list with commas.
fn agents_of(list: &str) -> Result<Vec<AgentName>, Problem> {
    let name = |name: &str| {
        name.trim().parse().map_err(|error| {
            Problem::new(Code::InvalidRequest, format!("`agent` names no agent: {error}"))
                .help("name one agent, or several with commas between")
        })
    };
    list.split(',').filter(|name| !name.trim().is_empty()).map(name).collect()
}

/// Which lines are wanted.
struct Filter {
    agents: Option<Vec<AgentName>>,
    since: Option<Timestamp>,
}

impl Filter {
    fn has(&self, line: &LogLine) -> bool {
        let late = |since: &Timestamp| line.time.parse::<Timestamp>().is_ok_and(|time| time >= *since);
        let names = [line.agent.as_deref(), line.from.as_deref()];
        let one_of = |agents: &Vec<AgentName>| agents.iter().any(|agent| names.contains(&Some(agent.as_str())));
        let theirs = self.agents.as_ref().is_none_or(one_of);
        theirs && self.since.as_ref().is_none_or(late)
    }
}

/// The lines of a workspace, from a cursor on.
struct Follow {
    app: App,
    permit: Permit<ReadActivity>,
    filter: Filter,
    newest: watch::Receiver<u64>,
    /// There was no line yet, and `newest` tells of the first one of any workspace.
    quiet: bool,
    /// Everything up to here is in `ready`, was taken, or is not wanted.
    cursor: u64,
    own: Own,
    ready: VecDeque<LogLine>,
}

impl FollowSource for Follow {
    async fn take(&mut self) -> Result<Vec<Event>, Problem> {
        if self.quiet
            && let Some(newest) = self.app.activity.newest_line(&self.permit)
        {
            (self.newest, self.quiet) = (newest, false);
        }
        while self.ready.is_empty() {
            let (lines, missed) = self.app.activity.lines_after(&self.permit, self.cursor);
            let Some(last) = lines.last() else { break };
            self.cursor = last.id;
            if missed > 0 {
                let first = lines.first().map(|line| line.time.clone()).unwrap_or_default();
                let line = line("missed", format!("{missed} lines came faster than they were read"));
                self.ready.push_back(self.own.line(&LogLine { time: first, failed: true, ..line }));
            }
            let wanted = lines.iter().filter(|line| self.filter.has(line)).map(|line| self.own.line(line));
            self.ready.extend(wanted);
        }
        Ok(self.ready.drain(..).map(|line| event(&line)).collect())
    }

    fn changes(&mut self) -> &mut watch::Receiver<u64> {
        &mut self.newest
    }
}

fn event(line: &LogLine) -> Event {
    let data = serde_json::to_string(line).unwrap_or_default();
    Event::default().id(line.id.to_string()).event("line").data(data)
}
