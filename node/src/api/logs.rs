//! What happens in a workspace, as `GET .../logs` tells it. No prompt, argument or result is in it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One line: what happened, and to whom. What does not belong to the event is left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// Its number on this node, in this workspace; a stream goes on after it. A node that starts counts from 1.
    pub id: u64,
    /// The node on which it happened; left out where there is one only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// When, RFC 3339 in UTC with milliseconds.
    pub time: String,
    /// What happened: `delivered`, `message`, `model_asked`, `model_answered`, `tool_called`, `tool_returned`, `delegated`,
    /// `delegate_returned`, `attached`, `waiting`, `awaiting`, `answered`, `failed`, `serving`, `not_serving`, `secret_set`, `secret_removed`,
    /// `missed`.
    pub event: String,
    /// It is what somebody should look at.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
    /// Who sent the message that was delivered: an agent, or `subject:NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Whose turn; who received a message that was delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// How deep: 0 for the agent that got the message, 1 for those that it asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<u32>,
    /// The turn, as traces and the server's log name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<String>,
    /// The conversation that it is part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation: Option<String>,
    /// The subject of the token that was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The rest in a few words: the tool, the model, the other agent, the reason.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Tokens, in and out together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Milliseconds that it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
}

/// The answer of `GET .../logs` without `follow`: the newest lines, the oldest of them first.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct LogLines {
    /// What happened, line by line.
    pub lines: Vec<LogLine>,
    /// The nodes that did not answer in time: what happened on them is not among the lines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}
