//! What agents used by day, and how they did lately.

use axum::extract::State;
use serde::Deserialize;
use utoipa::{IntoParams, OpenApi};

use super::freshness;
use crate::agent::health::AgentState;
use crate::api::paths;
use crate::api::usage::{AgentHealthInfo, AgentUsage, Usage, Used, WorkspaceHealth};
use crate::authz::{Permit, ReadActivity};
use crate::edge::Services;
use crate::edge::extract::{Json, Query};
use crate::edge::problem::Problem;
use crate::edge::routes::{Owner, Routes, get};
use crate::time::rfc3339;

/// How many days are counted unless the request says.
const DAYS: u64 = 30;
const DAY_MS: u64 = 86_400_000;

/// This part of the API's description.
#[derive(OpenApi)]
#[openapi(paths(usage, health))]
pub struct Doc;

/// This part's routes.
pub fn routes() -> Routes {
    Routes::new().on(get(paths::USAGE).or_stale(), Owner::Shard, usage).on(
        get(paths::AGENTS_HEALTH).or_stale(),
        Owner::Shard,
        health,
    )
}

/// How far back.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Since {
    /// How many days, today among them: 30 unless told, 400 at most.
    days: Option<u64>,
    /// The node that is asked answers with what it knows, which may be behind.
    #[serde(default)]
    stale: bool,
}

/// What each agent used on each day, in tokens and money. Needs the role viewer.
#[utoipa::path(get, path = paths::USAGE.text(), tag = "workspaces",
    params(("workspace" = String, Path, description = "The workspace."), Since),
    responses((status = 200, description = "The newest day first.", body = Usage)))]
async fn usage(
    permit: Permit<ReadActivity>,
    State(services): State<Services>,
    Query(Since { days, stale }): Query<Since>,
) -> Result<Json<Usage>, Problem> {
    let found = services.app.usage.since(&permit, days.unwrap_or(DAYS), freshness(stale)).await?;
    let mut total = Used::default();
    let usage = found.used.into_iter().map(|(day, agent, spent)| {
        let used = Used { tokens: spent.tokens, cost_microusd: spent.cost };
        total.tokens = total.tokens.saturating_add(used.tokens);
        total.cost_microusd = total.cost_microusd.saturating_add(used.cost_microusd);
        AgentUsage { day: date(day), agent, used }
    });
    let usage = usage.collect();
    Ok(Json(Usage { workspace: permit.workspace().clone(), since: date(found.since), usage, total }))
}

/// How the agents did lately on the node that leads the workspace's shard: failures in a row, the last error, and whether
/// other agents leave one alone. Needs the role viewer.
#[utoipa::path(get, path = paths::AGENTS_HEALTH.text(), tag = "workspaces",
    params(("workspace" = String, Path, description = "The workspace.")),
    responses((status = 200, description = "The agents that had something to do.", body = WorkspaceHealth)))]
async fn health(permit: Permit<ReadActivity>, State(services): State<Services>) -> Json<WorkspaceHealth> {
    Json(WorkspaceHealth { agents: services.app.usage.health(&permit).into_iter().map(info_of).collect() })
}

fn info_of(state: AgentState) -> AgentHealthInfo {
    let name = match state {
        AgentState { rests: true, .. } => "resting",
        AgentState { failures: 0, .. } => "ok",
        AgentState { .. } => "failing",
    };
    let AgentState { agent, failures, rests: _, last_error, answered_ms } = state;
    AgentHealthInfo {
        agent,
        state: name.to_owned(),
        failures,
        last_error_at: last_error.as_ref().map(|error| rfc3339(error.time_ms)),
        last_error: last_error.map(|error| error.reason),
        answered_at: answered_ms.map(rfc3339),
    }
}

/// A day that was counted from 1970, as 2026-01-31.
fn date(day: u64) -> String {
    let time = rfc3339(day.saturating_mul(DAY_MS));
    time.split_once('T').map_or(time.clone(), |(date, _)| date.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_written_as_a_date() {
        assert_eq!((date(0).as_str(), date(20_484).as_str()), ("1970-01-01", "2026-01-31"));
    }
}
