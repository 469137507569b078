//! Agents of a catalog by what they can do, as a turn asks for them.

use std::sync::Arc;

use caxton_proto::AgentName;

use crate::agent::world::{AgentMatch, NotFound};
use crate::capability::{Candidate, Requirements, Router};
use crate::catalog::Catalog;

/// Candidates that are named when nobody fits.
const NEAREST_SHOWN: usize = 3;

/// The agent of the catalog that can best do what is wanted, those of `except` left out.
pub(super) async fn find(
    router: &Router,
    catalog: &Arc<Catalog>,
    wanted: &str,
    except: &[AgentName],
) -> Result<AgentMatch, NotFound> {
    let routed = match router.route(catalog, wanted, &Requirements::default()).await {
        Ok(routed) => routed,
        Err(error) => {
            tracing::warn!(workspace = %catalog.workspace, %error, "a message was not routed");
            return Err(NotFound { nearest: Vec::new() });
        }
    };
    let allowed = |candidate: &&Candidate| !except.contains(&candidate.agent);
    if let Some(best) = routed.pick_by(router.load()).filter(allowed) {
        return Ok(found(best));
    }
    // The best one asks, or was asked on the way here: whoever else is good enough may do.
    let candidates = routed.ranking.candidates.iter().filter(allowed);
    let fits = |candidate: &&Candidate| {
        candidate.score >= candidate.threshold && catalog.agents().contains_key(&candidate.agent)
    };
    match candidates.clone().find(fits) {
        Some(next) => Ok(found(next)),
        None => Err(NotFound { nearest: candidates.take(NEAREST_SHOWN).map(found).collect() }),
    }
}

/// At most `limit` capabilities that come nearest to `about`, the best first.
pub(super) async fn nearest(router: &Router, catalog: &Arc<Catalog>, about: &str, limit: usize) -> Vec<AgentMatch> {
    let routed = router.route(catalog, about, &Requirements::default()).await;
    let candidates = routed.map(|routed| routed.ranking.candidates.iter().take(limit).map(found).collect());
    candidates.unwrap_or_default()
}

fn found(candidate: &Candidate) -> AgentMatch {
    let (agent, capability) = (candidate.agent.clone(), candidate.capability.to_string());
    AgentMatch { agent, capability, score: candidate.score }
}
