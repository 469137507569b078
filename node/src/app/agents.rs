//! The agents of what is live, and which of them a message would go to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_proto::WorkspaceId;

use crate::authz::{Permit, ReadDeployed};
use crate::capability::{Requirements, RouteError, Routed, Router};
use crate::catalog::{Catalog, Catalogs};

/// Nothing is deployed in the workspace, as far as this node knows.
#[derive(Debug, thiserror::Error)]
#[error("nothing is deployed in workspace `{workspace}`")]
pub struct NothingDeployed {
    pub workspace: WorkspaceId,
}

/// Why it cannot be said where a message would go.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is nobody it could go to.
    #[error(transparent)]
    Nothing(#[from] NothingDeployed),
    /// The agents could not be compared.
    #[error(transparent)]
    Route(#[from] RouteError),
}

/// The agents of all workspaces that this node serves.
pub struct Agents {
    catalogs: Catalogs,
    router: Router,
}

impl Agents {
    /// The agents of `catalogs`, of which `router` says what they can do.
    pub fn new(catalogs: Catalogs, router: Router) -> Agents {
        Agents { catalogs, router }
    }

    /// What this node serves of the workspace.
    pub fn served(&self, permit: &Permit<ReadDeployed>) -> Result<Arc<Catalog>, NothingDeployed> {
        let workspace = permit.workspace();
        self.catalogs.get(workspace).ok_or_else(|| NothingDeployed { workspace: workspace.clone() })
    }

    /// Which agent a message would go to, how near each candidate is, and how long the answer took. Starts nothing.
    pub async fn route(
        &self,
        permit: &Permit<ReadDeployed>,
        text: &str,
        wanted: &Requirements,
    ) -> Result<(Routed, Duration), AskError> {
        let catalog = self.served(permit)?;
        let started = Instant::now();
        let routed = self.router.route(&catalog, text, wanted).await?;
        Ok((routed, started.elapsed()))
    }

    /// What each agent has under way on this node.
    pub fn load(&self) -> &crate::capability::Load {
        self.router.load()
    }
}
