//! The line that says who called what, with which grants, and how it ended. Never arguments, never results.

use tracing::info;

use crate::tool::{CallContext, FinishedCall};

/// Writes the line of a call, and gives the call back.
pub(crate) fn audit(granted: &str, context: &CallContext, called: FinishedCall) -> FinishedCall {
    let report = &called.report;
    info!(
        target: "caxton::audit",
        workspace = context.workspace,
        caller = context.caller,
        server = report.server,
        tool = report.tool,
        kind = %report.kind,
        grants = granted,
        ended = ?report.ended,
        duration_us = report.duration.as_micros() as u64,
        cpu_us = report.cpu.as_micros() as u64,
        memory_bytes = report.memory_bytes,
        "tool call"
    );
    called
}
