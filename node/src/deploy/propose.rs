//! The step in which the log decides: live, live already, or somebody else came first.

use std::sync::Arc;

use caxton_proto::log::{Command, Deploy, Deployment, Outcome};
use caxton_proto::plan::ItemChange;

use super::{DeployError, Deployer};
use crate::artifacts::PutError;
use crate::time::now_ms;

/// A deployment that the log has.
pub(super) struct AcceptedDeployment {
    pub deployment: Arc<Deployment>,
    /// What it changed.
    pub changes: Vec<ItemChange>,
    /// An earlier attempt brought it there.
    pub repeated: bool,
}

impl AcceptedDeployment {
    /// What an earlier attempt brought into the log.
    pub fn repeated(deployment: Arc<Deployment>) -> AcceptedDeployment {
        AcceptedDeployment { changes: deployment.changes.clone(), deployment, repeated: true }
    }
}

impl Deployer {
    /// Proposes `deploy`, stamped with the time.
    pub(super) async fn propose(
        &self,
        mut deploy: Deploy,
        changes: Vec<ItemChange>,
    ) -> Result<AcceptedDeployment, DeployError> {
        // The log needs room as well: what might not fit into it is not proposed.
        self.artifacts.space().check(0).map_err(PutError::Full)?;
        deploy.time_ms = now_ms();
        let (workspace, parent) = (deploy.workspace.clone(), deploy.parent);
        match self.log.propose(&Command::Deploy(deploy)).await?.outcome {
            Outcome::Deployed(deployment) => Ok(AcceptedDeployment { deployment, changes, repeated: false }),
            Outcome::Repeated(deployment) => Ok(AcceptedDeployment::repeated(deployment)),
            Outcome::Conflict { live_revision: _, live } => Err(DeployError::Conflict { workspace, parent, live }),
            Outcome::KeyReused(deployment) => Err(DeployError::KeyReused { deployment }),
            Outcome::NoSuchRevision { to, oldest_kept, live_revision } => {
                Err(DeployError::NoSuchRevision { workspace, to, oldest_kept, live: live_revision })
            }
            Outcome::TooManyWorkspaces => Err(DeployError::TooManyWorkspaces { workspace }),
            Outcome::RollbackDiffers(_)
            | Outcome::TokenIssued
            | Outcome::TokenRevoked
            | Outcome::NoSuchToken
            | Outcome::TokenIdTaken
            | Outcome::TooManyTokens
            | Outcome::SecretSet
            | Outcome::SecretRemoved
            | Outcome::NoSuchSecret
            | Outcome::TooManySecrets
            | Outcome::WorkspaceDeleted { .. }
            | Outcome::Cluster(_) => Err(DeployError::Unexpected),
        }
    }
}
