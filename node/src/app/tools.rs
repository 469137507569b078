//! The tools of what is live: looked at, and called directly.
//!
//! A direct call passes no agent, so nothing but the tool's own grants limits it.

use std::collections::BTreeMap;
use std::sync::Arc;

use caxton_proto::ToolName;
use caxton_tools::{CallContext, FinishedCall, Tool};
use serde_json::{Value, json};

use super::agents::NothingDeployed;
use crate::activity::Activity;
use crate::authz::{CallTools, InWorkspace, Permit, ReadDeployed};
use crate::catalog::{Catalog, Catalogs};
use crate::telemetry::propagation;
use crate::tools::Unusable;

/// Why a tool was not called.
#[derive(Debug, thiserror::Error)]
pub enum DirectCallError {
    /// Nothing is deployed there.
    #[error(transparent)]
    Nothing(#[from] NothingDeployed),
    /// The tool cannot be used.
    #[error(transparent)]
    Unusable(#[from] Unusable),
    /// It is not said which of the tool's functions is meant.
    #[error("tool `{tool}` has several functions")]
    Ambiguous { tool: String, functions: Vec<String> },
}

/// A call of a tool without an agent.
pub struct DirectCall {
    pub tool: ToolName,
    /// Its function; none for the one that has the tool's name, or the only one.
    pub function: Option<String>,
    /// The arguments; null for none.
    pub arguments: Value,
    /// What tells a repeated call from a new one, for tools that know such keys.
    pub idempotency_key: Option<String>,
}

/// The tools of all workspaces that this node serves.
pub struct Tools {
    catalogs: Catalogs,
    tools: crate::tools::Tools,
    activity: Activity,
}

impl Tools {
    /// The tools of `catalogs`, which `tools` loads, and whose calls `activity` notes.
    pub fn new(catalogs: Catalogs, tools: crate::tools::Tools, activity: Activity) -> Tools {
        Tools { catalogs, tools, activity }
    }

    /// What this node serves of the workspace.
    pub fn served(&self, permit: &Permit<ReadDeployed>) -> Result<Arc<Catalog>, NothingDeployed> {
        self.catalog(permit)
    }

    /// A tool, loaded; or why it cannot be used.
    pub async fn load(
        &self,
        permit: &Permit<ReadDeployed>,
        name: &ToolName,
    ) -> Result<Result<Arc<dyn Tool>, Unusable>, NothingDeployed> {
        let catalog = self.catalog(permit)?;
        Ok(self.tools.get(&catalog, name).await)
    }

    /// What is odd about the tools of the workspace, a list of lines each; servers that were not asked yet are asked.
    pub async fn notes(
        &self,
        permit: &Permit<ReadDeployed>,
    ) -> Result<BTreeMap<ToolName, Vec<String>>, NothingDeployed> {
        Ok(self.tools.notes(&self.catalog(permit)?).await)
    }

    /// What is known to be odd about a tool, without asking anybody.
    pub fn known(&self, permit: &Permit<ReadDeployed>, name: &ToolName) -> Vec<String> {
        self.tools.known(permit.workspace(), name)
    }

    /// Calls a function of a tool.
    pub async fn call(&self, permit: &Permit<CallTools>, call: DirectCall) -> Result<FinishedCall, DirectCallError> {
        let (workspace, caller) = (permit.workspace(), permit.subject());
        let catalog = self.catalog(permit)?;
        let tool = self.tools.get(&catalog, &call.tool).await?;
        let function = function(&*tool, call.function)?;
        let context = CallContext {
            workspace: workspace.to_string(),
            caller: caller.to_owned(),
            idempotency_key: call.idempotency_key,
            trace: propagation::here(),
            deadline: None,
        };
        let arguments = if call.arguments.is_null() { json!({}) } else { call.arguments };
        let called = tool.call(&function, arguments, context).await;
        self.activity.tool_called(workspace, caller, &called.report);
        Ok(called)
    }

    fn catalog<P: InWorkspace>(&self, permit: &Permit<P>) -> Result<Arc<Catalog>, NothingDeployed> {
        let workspace = permit.workspace();
        self.catalogs.get(workspace).ok_or_else(|| NothingDeployed { workspace: workspace.clone() })
    }
}

/// The function that is meant: the named one, the one that has the tool's name, or the only one.
fn function(tool: &dyn Tool, named: Option<String>) -> Result<String, DirectCallError> {
    let definitions = tool.definitions();
    let chosen = named.or_else(|| {
        let own = definitions.iter().find(|function| function.name == tool.server());
        own.or(definitions.first().filter(|_| definitions.len() == 1)).map(|function| function.name.clone())
    });
    chosen.ok_or_else(|| DirectCallError::Ambiguous {
        tool: tool.server().to_owned(),
        functions: definitions.iter().map(|function| function.name.clone()).collect(),
    })
}
