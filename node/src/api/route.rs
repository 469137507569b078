//! Bodies of `POST .../route`: which agent a message would go to, and why.

use caxton_proto::{AgentName, CapabilityName, Revision};
use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The body of `POST /api/v1/workspaces/{workspace}/route`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteRequest {
    /// The message, or a capability's name.
    pub text: String,
    /// A version of the capability, as in `^1.2`; the nearest one serves if nobody has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub version: Option<VersionReq>,
}

/// Whom a message would go to, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RouteResponse {
    /// The revision whose agents were ranked.
    #[schema(value_type = u64)]
    pub revision: Revision,
    /// Whom the message goes to; nothing when nobody can do this.
    #[serde(default)]
    pub chosen: Option<RouteChoice>,
    /// The nearest capabilities, the best first.
    pub candidates: Vec<RouteCandidate>,
    /// Whether the answer was remembered from an earlier message.
    pub cached: bool,
    /// How long it took on the server, in microseconds.
    pub took_us: u64,
}

/// Whom a message goes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RouteChoice {
    /// The agent that it goes to.
    #[schema(value_type = String)]
    pub agent: AgentName,
    /// What of it.
    #[schema(value_type = String)]
    pub capability: CapabilityName,
    /// In which version.
    #[schema(value_type = String)]
    pub version: Version,
    /// Whether that is not a version that was asked for, but the nearest there is.
    pub degraded: bool,
}

/// A capability that the message may be for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RouteCandidate {
    /// The agent that has it.
    #[schema(value_type = String)]
    pub agent: AgentName,
    /// The capability that was compared.
    #[schema(value_type = String)]
    pub capability: CapabilityName,
    /// In which version.
    #[schema(value_type = String)]
    pub version: Version,
    /// How well it fits, up to 1.
    pub score: f32,
    /// The score that it needs to be taken.
    pub threshold: f32,
    /// By what the candidates are ordered: the score, and how much it stands out among the others.
    #[serde(default)]
    pub order: f32,
    /// What the score is made of.
    pub parts: RouteParts,
    /// Its phrase that is most like the message.
    pub nearest_phrase: String,
    /// The message's words that it uses, the rarest first.
    pub words: Vec<String>,
    /// Turns that the agent has under way on the node that answers: among equals, the one with the fewest is taken.
    #[serde(default)]
    pub underway: u32,
}

/// What makes a score: each part up to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RouteParts {
    /// Similarity to the middle of the capability's phrases.
    pub centre: f32,
    /// Similarity to the nearest of them.
    pub nearest: f32,
    /// The share of the message's words that it uses.
    pub keywords: f32,
    /// Similarity to its name and description.
    pub summary: f32,
    /// Similarity to all that its agent can do.
    pub agent: f32,
}
