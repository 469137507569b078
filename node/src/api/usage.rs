//! Bodies of what agents used, and of how they did lately.

use caxton_proto::{AgentName, WorkspaceId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET .../usage`: what the agents of a workspace used, by day (UTC).
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
// `Usage` is what one turn took.
#[schema(as = UsageReport)]
pub struct Usage {
    /// The workspace whose agents they are.
    #[schema(value_type = String)]
    pub workspace: WorkspaceId,
    /// The first day that is counted, as 2026-01-31.
    pub since: String,
    /// What each agent used on each day, the newest day first. A day on which an agent used nothing is left out.
    pub usage: Vec<AgentUsage>,
    /// All of it together.
    pub total: Used,
}

/// What one agent used on one day.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AgentUsage {
    /// The day, as 2026-01-31.
    pub day: String,
    /// The agent by its name.
    #[schema(value_type = String)]
    pub agent: AgentName,
    /// How much it used.
    #[serde(flatten)]
    pub used: Used,
}

/// Tokens and money.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Used {
    /// Tokens read and written.
    pub tokens: u64,
    /// Money by the providers' prices, in millionths of a dollar; 0 where no price is set.
    pub cost_microusd: u64,
}

/// `GET .../health`: how the agents of a workspace did lately, on the node that leads its shard.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WorkspaceHealth {
    /// Those that had something to do since that node was started, in the order of their names.
    pub agents: Vec<AgentHealthInfo>,
}

/// How one agent did lately.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AgentHealthInfo {
    /// The agent by its name.
    #[schema(value_type = String)]
    pub agent: AgentName,
    /// `ok`; `failing` after a failure; `resting` after five in a row: then other agents leave it alone for a while.
    pub state: String,
    /// Failures in a row.
    pub failures: u32,
    /// What went wrong the last time, also if it did well since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When that was, RFC 3339 in UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error_at: Option<String>,
    /// When it last answered, RFC 3339 in UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_at: Option<String>,
}
