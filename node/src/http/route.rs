//! Which agent a message would go to, and why: the question that `caxton route` asks. Nothing is started.

use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use caxton_proto::WorkspaceId;
use caxton_proto::log::Role;
use utoipa::OpenApi;

use super::Services;
use super::extract::{Json, Path};
use crate::api::{RouteCandidate, RouteChoice, RouteParts, RouteRequest, RouteResponse};
use crate::auth::Access;
use crate::capability::{Candidate, Fit, Load, Requirements, RouteError, Routed};
use crate::problem::{Code, Problem};

/// This part of the API's description.
#[derive(OpenApi)]
#[openapi(paths(route))]
pub struct Doc;

/// This part's routes.
pub fn routes() -> Router<Services> {
    Router::new().route("/api/v1/workspaces/{workspace}/route", post(route))
}

/// Which agent a message would go to, and how near each candidate is. Starts nothing. Needs the role viewer.
#[utoipa::path(post, path = "/api/v1/workspaces/{workspace}/route", tag = "agents", request_body = RouteRequest,
    params(("workspace" = String, Path, description = "The workspace.")), responses(
    (status = 200, description = "The answer; without `chosen` when nobody can do it.", body = RouteResponse),
    (status = 404, description = "Nothing is deployed there: `not_found`.", body = crate::api::Problem,
     content_type = "application/problem+json"),
    (status = 503, description = "The agents are still being prepared: `unavailable`.", body = crate::api::Problem,
     content_type = "application/problem+json"),
))]
async fn route(
    access: Access,
    State(services): State<Services>,
    Path(workspace): Path<WorkspaceId>,
    Json(request): Json<RouteRequest>,
) -> Result<Json<RouteResponse>, Problem> {
    access.require(Role::Viewer, &workspace)?;
    let catalog = services.catalogs.get(&workspace).ok_or_else(|| {
        Problem::new(Code::NotFound, format!("nothing is deployed in workspace `{workspace}`"))
            .help("deploy it first with `caxton deploy`")
    })?;
    let started = Instant::now();
    let wanted = Requirements { version: request.version };
    let routed = services.routing.route(&catalog, &request.text, &wanted).await?;
    let took_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    Ok(Json(answer(&routed, services.routing.load(), &workspace, took_us)))
}

impl From<RouteError> for Problem {
    fn from(error: RouteError) -> Problem {
        let (code, help) = match error {
            RouteError::Empty => (Code::InvalidRequest, "send a `text` that says what is to be done"),
            RouteError::Preparing { .. } => (Code::Unavailable, "try again in a few seconds"),
            RouteError::Stopped => (Code::Unavailable, "try again; if it stays so, the server's log says why"),
        };
        Problem::new(code, error.to_string()).help(help)
    }
}

fn answer(routed: &Routed, load: &Load, workspace: &WorkspaceId, took_us: u64) -> RouteResponse {
    let chosen = routed.pick_by(load).map(|candidate| RouteChoice {
        agent: candidate.agent.clone(),
        capability: candidate.capability.clone(),
        version: candidate.version.clone(),
        degraded: candidate.fit == Fit::OtherVersion,
    });
    RouteResponse {
        revision: routed.revision,
        chosen,
        candidates: routed.ranking.candidates.iter().map(|it| shown(it, load.of(workspace, &it.agent))).collect(),
        cached: routed.cached,
        took_us,
    }
}

fn shown(candidate: &Candidate, underway: u32) -> RouteCandidate {
    let parts = &candidate.parts;
    RouteCandidate {
        agent: candidate.agent.clone(),
        capability: candidate.capability.clone(),
        version: candidate.version.clone(),
        score: candidate.score,
        threshold: candidate.threshold,
        order: candidate.order,
        parts: RouteParts {
            centre: parts.centre,
            nearest: parts.nearest,
            keywords: parts.keywords,
            summary: parts.summary,
            agent: parts.agent,
        },
        nearest_phrase: candidate.nearest_phrase.clone(),
        words: candidate.words.clone(),
        underway,
    }
}
