//! Secrets of a workspace: set, listed by name, removed. Nothing gives a value back.

use std::sync::Arc;

use caxton_proto::WorkspaceId;
use caxton_proto::log::{Command, Outcome, RemoveSecret, Secret, SetSecret};
use caxton_proto::manifest::secret::SecretName;
use caxton_raft::ReadError;
use caxton_raft::deploy_log::{DeployLog, ProposeError};
use tracing::info;

use crate::activity::Activity;
use crate::artifacts::{DiskFull, Space};
use crate::authn::now_ms;
use crate::authz::{ManageSecrets, Permit};
use crate::secrets::{KeyError, SecretStore, SecretValue};

/// Why a secret was not listed, set or removed.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The log did not take the change.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// The value could not be sealed.
    #[error("the secret cannot be sealed")]
    Seal(#[from] KeyError),
    /// The workspace has as many secrets as it may have.
    #[error("there are as many secrets as there may be")]
    TooMany,
    /// The disk has too little space for new work.
    #[error(transparent)]
    Full(#[from] DiskFull),
    /// There is no secret of this name.
    #[error("workspace `{workspace}` has no secret `{name}`")]
    None { workspace: WorkspaceId, name: SecretName },
    /// The log answered something that does not fit: a defect.
    #[error("the log answered something else")]
    Unexpected,
}

/// The secrets of all workspaces.
pub struct Secrets {
    store: SecretStore,
    log: DeployLog,
    activity: Activity,
    space: Space,
}

impl Secrets {
    /// Secrets that `store` seals, `log` keeps on a disk with this space, and whose changes `activity` notes.
    pub fn new(store: SecretStore, log: DeployLog, activity: Activity, space: Space) -> Secrets {
        Secrets { store, log, activity, space }
    }

    /// The secrets of the workspace in the order of their names, sealed as they are.
    pub async fn list(&self, permit: &Permit<ManageSecrets>) -> Result<Vec<Arc<Secret>>, SecretsError> {
        Ok(self.log.current(|state| state.secrets().of(permit.workspace()).cloned().collect()).await?)
    }

    /// Keeps a secret, in the place of an older one; gives it as it was sealed.
    pub async fn set(
        &self,
        permit: &Permit<ManageSecrets>,
        name: &SecretName,
        value: &SecretValue,
    ) -> Result<SetSecret, SecretsError> {
        self.space.check(0)?;
        let (workspace, actor) = (permit.workspace(), permit.subject());
        let sealed = self.store.seal(workspace, name, value, actor, now_ms())?;
        match self.log.propose(&Command::SetSecret(sealed.clone())).await?.outcome {
            Outcome::SecretSet => {
                info!(%workspace, %name, actor, "secret set");
                self.activity.secret(workspace, actor, "secret_set", name.as_str());
                Ok(sealed)
            }
            Outcome::TooManySecrets => Err(SecretsError::TooMany),
            other => Err(unexpected(&other)),
        }
    }

    /// Forgets a secret.
    pub async fn remove(&self, permit: &Permit<ManageSecrets>, name: &SecretName) -> Result<(), SecretsError> {
        let (workspace, actor) = (permit.workspace(), permit.subject());
        let (time_ms, by) = (now_ms(), actor.to_owned());
        let command = RemoveSecret { workspace: workspace.clone(), name: name.clone(), time_ms, actor: by };
        match self.log.propose(&Command::RemoveSecret(command)).await?.outcome {
            Outcome::SecretRemoved => {
                info!(%workspace, %name, actor, "secret removed");
                self.activity.secret(workspace, actor, "secret_removed", name.as_str());
                Ok(())
            }
            Outcome::NoSuchSecret => Err(SecretsError::None { workspace: workspace.clone(), name: name.clone() }),
            other => Err(unexpected(&other)),
        }
    }
}

fn unexpected(outcome: &Outcome) -> SecretsError {
    tracing::error!(?outcome, "the log answered a secret's command with something else");
    SecretsError::Unexpected
}
