//! The agents that are live, over HTTP: a page of them, and one in full.

use std::ops::Bound;

use axum::extract::State;
use caxton_proto::AgentName;
use caxton_proto::manifest::AgentManifest;
use serde::Deserialize;
use utoipa::{IntoParams, OpenApi};

use super::blocking;
use crate::api::paths;
use crate::api::{AgentDetail, AgentSummary, Agents};
use crate::authz::{Permit, ReadDeployed};
use crate::catalog::Entry;
use crate::edge::Services;
use crate::edge::extract::{Json, Path, Query};
use crate::edge::problem::{Code, Problem, chain};
use crate::edge::routes::{Owner, Routes, get};

/// How many agents a page has unless the request says.
const PAGE: usize = 100;
/// How many agents a page has at most.
const PAGE_MAX: usize = 1_000;

/// This part of the API's description.
#[derive(OpenApi)]
#[openapi(paths(list, show))]
pub struct Doc;

/// This part's routes.
pub fn routes() -> Routes {
    Routes::new().on(get(paths::AGENTS), Owner::Anyone, list).on(get(paths::AGENT), Owner::Anyone, show)
}

/// Which part of the list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Page {
    /// Only names behind this one.
    after: Option<String>,
    /// How many at most: 100 unless told, 1,000 at most.
    limit: Option<usize>,
}

/// The live agents in the order of their names. Needs the role viewer.
#[utoipa::path(get, path = paths::AGENTS.text(), tag = "agents", params(("workspace" = String, Path, description = "The workspace."), Page), responses(
    (status = 200, description = "A page of agents.", body = Agents),
))]
async fn list(
    permit: Permit<ReadDeployed>,
    State(services): State<Services>,
    Query(page): Query<Page>,
) -> Result<Json<Agents>, Problem> {
    let catalog = services.app.agents.served(&permit)?;
    let limit = page.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX);
    let mut agents = blocking(move || {
        let after = page.after.as_deref().unwrap_or_default();
        let from = (Bound::Excluded(after), Bound::Unbounded);
        let mut found: Vec<_> = catalog.agents().range::<str, _>(from).take(limit + 1).collect();
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more).map(|(name, _)| name.to_string());
        Ok(Agents { agents: found.into_iter().map(|(name, entry)| summary(name, entry)).collect(), next })
    })
    .await?;
    agents.agents.iter_mut().for_each(|agent| note(&services, &permit, agent));
    Ok(Json(agents))
}

/// One live agent in full. Needs the role viewer.
#[utoipa::path(get, path = paths::AGENT.text(), tag = "agents", params(("workspace" = String, Path, description = "The workspace."), ("name" = String, Path, description = "The agent.")), responses(
    (status = 200, description = "The agent.", body = AgentDetail),
))]
async fn show(
    permit: Permit<ReadDeployed>,
    State(services): State<Services>,
    Path((_workspace, name)): Path<(String, String)>,
) -> Result<Json<AgentDetail>, Problem> {
    let catalog = services.app.agents.served(&permit)?;
    let mut detail = blocking(move || {
        let absent = || {
            Problem::new(Code::NotFound, format!("workspace `{}` has no agent {name:?}", catalog.workspace))
                .help("`caxton agents list` shows those that it has")
        };
        let (name, entry) = catalog.agents().get_key_value(&*name).ok_or_else(absent)?;
        let manifest = entry.manifest()?;
        let manifest = serde_json::to_value(&*manifest).map_err(|error| Problem::internal(&error))?;
        let revision = catalog.revision;
        Ok(AgentDetail { summary: summary(name, entry), revision, manifest, source: entry.source()? })
    })
    .await?;
    note(&services, &permit, &mut detail.summary);
    Ok(Json(detail))
}

/// Adds what is known of the tools of an agent.
fn note(services: &Services, permit: &Permit<ReadDeployed>, agent: &mut AgentSummary) {
    let tools = agent.tools.iter().filter_map(|tool| tool.parse().ok());
    agent.notes = tools.flat_map(|tool| services.app.tools.known(permit, &tool)).collect();
}

/// What a listing says of an agent; of one that cannot be read, why.
fn summary(name: &AgentName, entry: &Entry<AgentManifest>) -> AgentSummary {
    let (name, path) = (name.to_string(), entry.path.clone());
    match entry.manifest() {
        Ok(manifest) => AgentSummary {
            name,
            display_name: manifest.display_name.clone(),
            version: manifest.version.to_string(),
            description: manifest.description.clone(),
            capabilities: manifest.capabilities.iter().map(|capability| capability.name.to_string()).collect(),
            tools: manifest.tools.all().map(ToString::to_string).collect(),
            path,
            notes: Vec::new(),
        },
        Err(error) => AgentSummary {
            name,
            display_name: None,
            version: String::new(),
            description: format!("cannot be used: {}", chain(&error)),
            capabilities: Vec::new(),
            tools: Vec::new(),
            path,
            notes: Vec::new(),
        },
    }
}
