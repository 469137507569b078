//! Bodies of the routes for tools.

use caxton_proto::tree::TreePath;
use caxton_proto::{Revision, ToolName};
use caxton_tools::{CallReport, CallResult, ToolDefinition};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `GET .../tools`: the tools of what is live, in the order of their names.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ToolList {
    /// The revision that serves them.
    pub revision: Revision,
    /// What is known of each.
    pub tools: Vec<ToolSummary>,
}

/// One tool in a listing, as its file describes it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ToolSummary {
    /// Its name, which is its folder's.
    pub name: ToolName,
    /// The version that its file says.
    pub version: String,
    /// What it does.
    pub description: String,
    /// `component`, `command`, `core`, `mcp-http` or `mcp-stdio`.
    pub kind: String,
    /// Whether it runs in the WebAssembly sandbox. What does not can do all that its process can.
    pub sandboxed: bool,
    /// What it may reach, in a few words each. Values of variables are never shown.
    pub grants: Vec<String>,
    /// The path of its file.
    pub path: TreePath,
    /// What is odd about it, a line each: functions that are left out, rules that are not checked, that it is away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// `GET .../tools/{name}`: one tool, loaded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ToolDetail {
    /// As in the listing.
    #[serde(flatten)]
    pub summary: ToolSummary,
    /// What a call may use.
    pub limits: Value,
    /// Its functions. Nothing when it cannot be used.
    pub functions: Vec<ToolDefinition>,
    /// Why it cannot be used, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The body of `POST .../tools/{name}/calls`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolCallRequest {
    /// Which of its functions; may be left out where it has one, or one with the tool's own name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// A JSON object.
    #[serde(default)]
    pub arguments: Value,
    /// The same for each attempt at the same call; the tool learns it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

/// The answer of a call that gave a result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ToolCalled {
    /// What the tool gave; `is_error` in it says that the tool could not do it.
    pub result: CallResult,
    /// The record of the call.
    pub report: CallReport,
}
