//! Schedules as they travel: what agents are sent without anybody sending it. Times are RFC 3339.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A schedule of a live agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScheduleInfo {
    /// The agent that it is for.
    pub agent: String,
    /// Its name in the agent's file.
    pub name: String,
    /// When it ticks: `every 5m`, or `cron` with five fields and a time zone.
    pub when: String,
    /// What the agent is told.
    pub message: String,
    /// Who receives what the agent answers, if anybody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// The last tick that was sent, or when it began; absent before it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<String>,
    /// When it ticks next; absent where that is more than four years away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// The schedules of a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Schedules {
    /// Every schedule, by agent, in the order of the agent's file.
    pub schedules: Vec<ScheduleInfo>,
}
