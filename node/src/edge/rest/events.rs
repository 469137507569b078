//! Event streams: deployments as they happen, resumable by the id of the last one seen, without a gap and in order.
//!
//! A stream reads the deploy log's state from its cursor on and then waits for the log, so it holds no queue that
//! could overflow: a reader that is slow falls behind, and one that falls behind what the log remembers is told.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::response::sse::Event;
use caxton_proto::log::Deployment;
use caxton_raft::ReadError;
use serde::Deserialize;
use tokio::sync::watch;
use utoipa::{IntoParams, OpenApi};

use crate::api::{self, paths};
use crate::app::App;
use crate::app::activity::{DeploymentScope, Deployments};
use crate::authz::{Permit, ReadActivity, UnscopedToken};
use crate::edge::Services;
use crate::edge::extract::Query;
use crate::edge::feeds::{Source, stopping};
use crate::edge::problem::{Code, Problem};
use crate::edge::routes::{Owner, Routes, get};
use crate::edge::sse::{self, FollowSource};

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
    (status = 200, description = "The stream; the data of each event named `deployment` is a `Deployment`.", body = serde_json::Value, content_type = "text/event-stream"),
    (status = 410, description = "The events after that id are not remembered any more: `events_compacted`.",
     body = api::Problem, content_type = "application/problem+json"),
))]
async fn cluster(
    unscoped: UnscopedToken<ReadActivity>,
    State(services): State<Services>,
    Query(begin): Query<Begin>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    open(services, DeploymentScope::Every(unscoped), sse::cursor(begin.after, &headers)?).await
}

/// The deployments of one workspace, as server-sent events; see `/api/v1/events`. Needs the role viewer.
#[utoipa::path(get, path = paths::WORKSPACE_EVENTS.text(), tag = "events", params(Begin,
    ("workspace" = String, Path, description = "The workspace."),
    ("Last-Event-ID" = Option<u64>, Header, description = "The id of the last event seen.")), responses(
    (status = 200, description = "The stream; the data of each event named `deployment` is a `Deployment`.", body = serde_json::Value, content_type = "text/event-stream"),
    (status = 410, description = "The events after that id are not remembered any more: `events_compacted`.",
     body = api::Problem, content_type = "application/problem+json"),
))]
async fn workspace(
    permit: Permit<ReadActivity>,
    State(services): State<Services>,
    Query(begin): Query<Begin>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    open(services, DeploymentScope::One(permit), sse::cursor(begin.after, &headers)?).await
}

async fn open(services: Services, scope: DeploymentScope, after: Option<u64>) -> Result<Response, Problem> {
    let (place, access) = (sse::place(&services)?, scope.access().clone());
    let feed = DeploymentFeed::open(&services, scope, after).await?;
    Ok(sse::follow(services, access, place, feed))
}

/// Where a feed of these begins.
async fn begin(services: &Services, scope: &DeploymentScope, after: Option<u64>) -> Result<u64, Problem> {
    let (applied, gap) = match services.app.activity.current(scope, after).await {
        Ok(current) => current,
        // Any node streams what it has itself: that is in order and without a gap, only later.
        Err(ReadError::NotLeader { .. } | ReadError::Unavailable) => behind(services, scope, after).await?,
        Err(error @ ReadError::Fatal { .. }) => return Err(error.into()),
    };
    if gap {
        return Err(compacted());
    }
    if let Some(after) = after.filter(|after| *after > applied) {
        return Err(Problem::new(Code::InvalidRequest, format!("there is no event {after} yet: the log ends at {applied}"))
            .help("the id comes from another cluster, or from before its data was lost: read what is live, and begin without an id"));
    }
    Ok(after.unwrap_or(applied))
}

/// What a node that does not lead knows, once it has reached `after`. One that is behind must not take an id that it
/// has not reached for one that does not exist.
async fn behind(services: &Services, scope: &DeploymentScope, after: Option<u64>) -> Result<(u64, bool), Problem> {
    let mut applied = services.app.activity.applied();
    let reached = applied.wait_for(|applied| after.is_none_or(|after| *applied >= after));
    match tokio::time::timeout(REACH_WAIT, reached).await {
        Ok(Ok(_)) => Ok(services.app.activity.known(scope, after)),
        Ok(Err(_)) => Err(sse::stopping()),
        Err(_) => {
            let detail = format!("this node has not got as far as event {}", after.unwrap_or_default());
            let problem = Problem::new(Code::Unavailable, detail);
            Err(problem.help("try again in a moment, or on another node").retry_after(1))
        }
    }
}

fn compacted() -> Problem {
    Problem::new(Code::EventsCompacted, "the events after this id are not remembered any more")
        .help("read what is live (`caxton status`, `caxton log`), and begin the stream without an id")
}

/// The deployments of a scope, from a cursor on.
pub(in crate::edge) struct DeploymentFeed {
    app: App,
    scope: DeploymentScope,
    changes: watch::Receiver<u64>,
    /// Everything up to here was taken, or is not in the scope.
    cursor: u64,
}

impl DeploymentFeed {
    /// Those after the one with the number `after`, or those that come from now on.
    pub(in crate::edge) async fn open(
        services: &Services,
        scope: DeploymentScope,
        after: Option<u64>,
    ) -> Result<DeploymentFeed, Problem> {
        let cursor = begin(services, &scope, after).await?;
        let app = services.app.clone();
        let changes = app.activity.applied();
        Ok(DeploymentFeed { app, scope, changes, cursor })
    }

    fn some(&mut self) -> Result<Vec<Arc<Deployment>>, Problem> {
        loop {
            match self.app.activity.deployments_after(&self.scope, self.cursor, BATCH) {
                Deployments::Forgotten => return Err(compacted()),
                Deployments::NoMore => return Ok(Vec::new()),
                Deployments::Some { last, found } => {
                    self.cursor = last;
                    if !found.is_empty() {
                        return Ok(found);
                    }
                }
            }
        }
    }
}

impl FollowSource for DeploymentFeed {
    async fn take(&mut self) -> Result<Vec<Event>, Problem> {
        Ok(self.some()?.iter().map(|deployment| event(deployment)).collect())
    }

    fn changes(&mut self) -> &mut watch::Receiver<u64> {
        &mut self.changes
    }
}

impl Source for DeploymentFeed {
    type Item = Arc<Deployment>;

    async fn next(&mut self) -> Result<Vec<Arc<Deployment>>, Problem> {
        loop {
            // Marked as seen before it is read, so that what comes in between wakes the wait.
            self.changes.borrow_and_update();
            let some = self.some()?;
            if !some.is_empty() {
                return Ok(some);
            }
            self.changes.changed().await.map_err(|_| stopping())?;
        }
    }
}

fn event(deployment: &Deployment) -> Event {
    let data = serde_json::to_string(&api::Deployment::from(deployment)).unwrap_or_default();
    Event::default().id(deployment.index.to_string()).event("deployment").data(data)
}
