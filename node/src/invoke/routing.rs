//! Agents of a catalog by what they can do, as a turn asks for them.

use std::sync::Arc;

use caxton_proto::AgentName;
use semver::VersionReq;

use crate::agent::wanted::Wanted;
use crate::agent::world::{AgentMatch, NotFound};
use crate::capability::{Candidate, Fit, Requirements, RouteError, Routed, Router};
use crate::catalog::Catalog;

/// Candidates that are named when nobody fits.
const NEAREST_SHOWN: usize = 3;

/// The agent of the catalog that can best do what is wanted, those of `except` left out.
pub(super) async fn find(
    router: &Router,
    catalog: &Arc<Catalog>,
    wanted: Wanted<'_>,
    except: &[AgentName],
) -> Result<AgentMatch, NotFound> {
    let (text, version) = wanted.parse()?;
    let workspace = || catalog.workspace.clone();
    if catalog.agents().is_empty() {
        return Err(NotFound::NoAgents { workspace: workspace() });
    }
    let requirements = Requirements { version };
    let routed = match router.route(catalog, text, &requirements).await {
        Ok(routed) => routed,
        Err(RouteError::Empty) => return Err(NotFound::Nobody { nearest: Vec::new() }),
        Err(error @ (RouteError::Preparing { .. } | RouteError::Stopped)) => {
            tracing::warn!(workspace = %catalog.workspace, %error, "a message was not routed");
            return Err(NotFound::Preparing { workspace: workspace() });
        }
    };
    let allowed = |candidate: &&Candidate| !except.contains(&candidate.agent);
    let fits_version = |candidate: &&Candidate| candidate.fit == Fit::Matches;
    if let Some(best) = routed.pick_by(router.load()).filter(allowed) {
        return match (best.fit, requirements.version) {
            (Fit::OtherVersion, Some(wanted)) => Err(other_versions(&routed, best, wanted)),
            (Fit::OtherVersion | Fit::Matches, _) => Ok(found(best)),
        };
    }
    // The best one asks, or was asked on the way here: whoever else is good enough may do.
    let candidates = routed.ranking.candidates.iter().filter(allowed).filter(fits_version);
    let fits = |candidate: &&Candidate| {
        candidate.score >= candidate.threshold && catalog.agents().contains_key(&candidate.agent)
    };
    match candidates.clone().find(fits) {
        Some(next) => Ok(found(next)),
        None => Err(NotFound::Nobody { nearest: candidates.take(NEAREST_SHOWN).map(found).collect() }),
    }
}

/// At most `limit` capabilities that come nearest to `about`, the best first.
pub(super) async fn nearest(router: &Router, catalog: &Arc<Catalog>, about: &str, limit: usize) -> Vec<AgentMatch> {
    let routed = router.route(catalog, about, &Requirements::default()).await;
    let candidates = routed.map(|routed| routed.ranking.candidates.iter().take(limit).map(found).collect());
    candidates.unwrap_or_default()
}

/// Those of the capability that was meant, with the versions that they have.
fn other_versions(routed: &Routed, meant: &Candidate, wanted: VersionReq) -> NotFound {
    let same = routed.ranking.candidates.iter().filter(|candidate| candidate.capability == meant.capability);
    let offered = same.map(|candidate| (candidate.agent.clone(), candidate.version.clone())).collect();
    NotFound::OtherVersions { capability: meant.capability.to_string(), wanted, offered }
}

fn found(candidate: &Candidate) -> AgentMatch {
    let (agent, capability) = (candidate.agent.clone(), candidate.capability.to_string());
    AgentMatch { agent, capability, score: candidate.score }
}
