//! Which agent a message would go to, and why: the question that `caxton route` asks. Nothing is started.

use axum::extract::State;
use caxton_proto::WorkspaceId;
use utoipa::OpenApi;

use crate::api::paths;
use crate::api::{RouteCandidate, RouteChoice, RouteParts, RouteRequest, RouteResponse};
use crate::authz::{Permit, ReadDeployed};
use crate::capability::{Candidate, Fit, Load, Requirements, Routed};
use crate::edge::Services;
use crate::edge::extract::Json;
use crate::edge::problem::Problem;
use crate::edge::routes::{Owner, Routes, post};

/// This part of the API's description.
#[derive(OpenApi)]
#[openapi(paths(route))]
pub struct Doc;

/// This part's routes.
pub fn routes() -> Routes {
    Routes::new().on(post(paths::ROUTE), Owner::Anyone, route)
}

/// Which agent a message would go to, and how near each candidate is. Starts nothing. Needs the role viewer.
#[utoipa::path(post, path = paths::ROUTE.text(), tag = "agents", request_body = RouteRequest,
    params(("workspace" = String, Path, description = "The workspace.")), responses(
    (status = 200, description = "The answer; without `chosen` when nobody can do it.", body = RouteResponse),
    (status = 404, description = "Nothing is deployed there: `not_found`.", body = crate::api::Problem,
     content_type = "application/problem+json"),
    (status = 503, description = "The agents are still being prepared: `unavailable`.", body = crate::api::Problem,
     content_type = "application/problem+json"),
))]
async fn route(
    permit: Permit<ReadDeployed>,
    State(services): State<Services>,
    Json(request): Json<RouteRequest>,
) -> Result<Json<RouteResponse>, Problem> {
    let agents = &services.app.agents;
    let wanted = Requirements { version: request.version };
    let (routed, took) = agents.route(&permit, &request.text, &wanted).await?;
    let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    Ok(Json(answer(&routed, agents.load(), permit.workspace(), took_us)))
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
