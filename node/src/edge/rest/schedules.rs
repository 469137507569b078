//! Schedules over HTTP: when agents are sent messages next.

use axum::extract::State;
use utoipa::OpenApi;

use super::{Current, freshness};
use crate::api::paths;
use crate::api::schedules::{ScheduleInfo, Schedules};
use crate::app::schedules::ScheduleState;
use crate::authz::{Permit, ReadDeployed};
use crate::edge::Services;
use crate::edge::extract::{Json, Query};
use crate::edge::problem::Problem;
use crate::edge::routes::{Owner, Routes, get};
use crate::time::rfc3339_of;

/// This part of the API's description.
#[derive(OpenApi)]
#[openapi(paths(schedules))]
pub struct Doc;

/// This part's routes.
pub fn routes() -> Routes {
    Routes::new().on(get(paths::SCHEDULES).or_stale(), Owner::Shard, schedules)
}

/// The schedules of the live agents, with the last tick and the next one. Needs the role viewer.
#[utoipa::path(get, path = paths::SCHEDULES.text(), tag = "agents",
    params(("workspace" = String, Path, description = "The workspace."), Current),
    responses((status = 200, description = "All of them.", body = Schedules)))]
async fn schedules(
    permit: Permit<ReadDeployed>,
    State(services): State<Services>,
    Query(current): Query<Current>,
) -> Result<Json<Schedules>, Problem> {
    let found = services.app.schedules.list(&permit, freshness(current.stale)).await?;
    Ok(Json(Schedules { schedules: found.into_iter().map(info).collect() }))
}

fn info(of: ScheduleState) -> ScheduleInfo {
    ScheduleInfo {
        agent: of.agent.to_string(),
        name: of.schedule.name,
        when: of.schedule.when.to_string(),
        message: of.schedule.message,
        reply_to: of.schedule.reply_to.map(|to| to.to_string()),
        reached: of.reached_ms.map(rfc3339_of),
        next: of.next_ms.map(rfc3339_of),
    }
}
