//! Tools of what is live: listed, shown, and called directly.
//!
//! A direct call passes no agent, so nothing but the tool's own grants limits it: it needs the role deployer.

use axum::extract::State;
use caxton_proto::ToolName;
use caxton_proto::manifest::ToolManifest;
use caxton_proto::manifest::tool::ToolKind;
use caxton_tools::{CallError, CallResult, Content};
use serde_json::{Value, json};
use utoipa::OpenApi;

use crate::api::paths;
use crate::api::tools::{ToolCallRequest, ToolCalled, ToolDetail, ToolList, ToolSummary};
use crate::app::tools::DirectCall;
use crate::authz::{CallTools, Permit, ReadDeployed};
use crate::catalog::{Catalog, Entry};
use crate::edge::Services;
use crate::edge::extract::{Json, Path};
use crate::edge::problem::{Code, Problem};
use crate::edge::routes::{Owner, Routes, get, post};
use crate::tools::Unusable;

/// This part of the API's description.
#[derive(OpenApi)]
#[openapi(paths(list, show, call))]
pub struct Doc;

/// This part's routes.
pub fn routes() -> Routes {
    Routes::new().on(get(paths::TOOLS), Owner::Anyone, list).on(get(paths::TOOL), Owner::Anyone, show).on(
        post(paths::TOOL_CALLS).own_time(),
        Owner::Anyone,
        call,
    )
}

/// The tools of what is live. Needs the role viewer.
#[utoipa::path(get, path = paths::TOOLS.text(), tag = "tools",
    params(("workspace" = String, Path, description = "The workspace.")),
    responses((status = 200, description = "The tools, in the order of their names.", body = Value)))]
async fn list(permit: Permit<ReadDeployed>, State(services): State<Services>) -> Result<Json<ToolList>, Problem> {
    let catalog = services.app.tools.served(&permit)?;
    let listed = catalog.clone();
    let tools = crate::tasks::blocking(move || {
        listed.tools().iter().map(|(name, entry)| summary(name, entry)).collect::<Result<Vec<_>, _>>()
    });
    let mut tools = tools.await.map_err(|error| Problem::internal(&error))??;
    let mut notes = services.app.tools.notes(&permit).await?;
    for tool in &mut tools {
        tool.notes = notes.remove(&tool.name).unwrap_or_default();
    }
    Ok(Json(ToolList { revision: catalog.revision, tools }))
}

/// One tool with its functions. Needs the role viewer.
#[utoipa::path(get, path = paths::TOOL.text(), tag = "tools",
    params(("workspace" = String, Path, description = "The workspace."), ("tool" = String, Path, description = "The tool.")),
    responses((status = 200, description = "The tool; `problem` says why it cannot be used, if it cannot.", body = Value)))]
async fn show(
    permit: Permit<ReadDeployed>,
    State(services): State<Services>,
    Path((_workspace, tool)): Path<(String, ToolName)>,
) -> Result<Json<ToolDetail>, Problem> {
    let catalog = services.app.tools.served(&permit)?;
    let loaded = services.app.tools.load(&permit, &tool).await?;
    let entry = catalog.tools().get(&tool).ok_or_else(|| absent(&catalog, &tool))?;
    let mut summary = summary(&tool, entry)?;
    summary.notes = loaded.iter().flat_map(|loaded| loaded.remarks()).map(|remark| remark.to_string()).collect();
    let (functions, limits, problem) = match loaded {
        Ok(loaded) => (loaded.definitions().to_vec(), json!(loaded.limits()), None),
        Err(unusable) => (Vec::new(), Value::Null, Some(unusable.to_string())),
    };
    Ok(Json(ToolDetail { summary, limits, functions, problem }))
}

/// Calls a function of a tool. Needs the role deployer.
#[utoipa::path(post, path = paths::TOOL_CALLS.text(), tag = "tools", request_body = Value,
    params(("workspace" = String, Path, description = "The workspace."), ("tool" = String, Path, description = "The tool.")),
    responses((status = 200, description = "The result, and the record of the call.", body = Value)))]
async fn call(
    permit: Permit<CallTools>,
    State(services): State<Services>,
    Path((_workspace, tool)): Path<(String, ToolName)>,
    Json(request): Json<ToolCallRequest>,
) -> Result<Json<ToolCalled>, Problem> {
    let ToolCallRequest { function, arguments, idempotency_key } = request;
    let called = services.app.tools.call(&permit, DirectCall { tool, function, arguments, idempotency_key }).await?;
    let result = called.result.or_else(|error| failed(&error))?;
    Ok(Json(ToolCalled { result, report: called.report }))
}

fn absent(catalog: &Catalog, tool: &ToolName) -> Problem {
    Unusable::Absent { tool: tool.to_string(), workspace: catalog.workspace.clone() }.into()
}

/// What a tool's own file says of it. Blocks on the disk when the file was not read yet.
fn summary(name: &ToolName, entry: &Entry<ToolManifest>) -> Result<ToolSummary, Problem> {
    let manifest = entry.manifest().map_err(|error| Problem::internal(&error))?;
    let kind = serde_json::to_value(&manifest.kind).unwrap_or_default();
    let grants = &manifest.grants;
    let mut reach: Vec<String> = grants.http.iter().map(|host| format!("http {host}")).collect();
    let flags =
        [(grants.scratch, "scratch"), (grants.clock, "clock"), (grants.random, "random"), (grants.reuse, "reuse")];
    reach.extend(flags.into_iter().filter(|(granted, _)| *granted).map(|(_, what)| what.to_owned()));
    reach.extend(grants.env.keys().map(|variable| format!("env {variable}")));
    match &manifest.kind {
        ToolKind::McpHttp { url, .. } => reach.insert(0, format!("unsandboxed: {url}")),
        ToolKind::McpStdio { command, .. } => reach.insert(0, format!("unsandboxed: the process {command}")),
        ToolKind::Component { .. } | ToolKind::Command { .. } | ToolKind::Core { .. } => {}
    }
    Ok(ToolSummary {
        name: name.clone(),
        version: manifest.version.to_string(),
        description: manifest.description.clone(),
        kind: kind.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned(),
        sandboxed: manifest.kind.is_sandboxed(),
        grants: reach,
        path: entry.path.clone(),
        notes: Vec::new(),
    })
}

/// A call that never ran is the caller's problem; one that ran and failed is a result that says so.
fn failed(error: &CallError) -> Result<CallResult, Problem> {
    let (code, help) = match error {
        CallError::UnknownTool { .. } => (Code::NotFound, "`caxton tools inspect` shows the functions of a tool"),
        CallError::InvalidArguments { .. } => {
            (Code::InvalidRequest, "`caxton tools inspect` shows what each function takes")
        }
        CallError::Busy { .. } => (Code::TooManyRequests, "try again in a moment, or raise `concurrency` in tool.toml"),
        CallError::Unavailable { .. } => (Code::Unavailable, "try again when its server is there"),
        CallError::TimedOut { .. }
        | CallError::CpuSpent { .. }
        | CallError::OutOfMemory { .. }
        | CallError::OutputTooLarge { .. }
        | CallError::ScratchFull { .. }
        | CallError::TooManyOpen { .. }
        | CallError::TooMany { .. }
        | CallError::Trapped { .. }
        | CallError::BadResult { .. }
        | CallError::Failed { .. }
        | CallError::Cancelled => {
            let content = vec![Content::Text { text: error.to_string() }];
            return Ok(CallResult { content, structured: None, is_error: true });
        }
    };
    let problem = Problem::new(code, error.to_string()).help(help);
    Err(if code == Code::TooManyRequests { problem.retry_after(1) } else { problem })
}
