//! A workspace as a whole: what there is of it, and its deletion with all that is its own.

use std::sync::Arc;
use std::time::Duration;

use caxton_proto::log::{Command, DeleteWorkspace, DeletionTotals, Outcome, WorkspaceDeletion};
use caxton_proto::{Revision, WorkspaceId};
use caxton_raft::ReadError;
use caxton_raft::deploy_log::{DeployLog, ProposeError, State};
use tracing::info;

use crate::authz::{DeleteWorkspaces, Permit};
use crate::shard::{Shards, WriteError};
use crate::time::now_ms;

/// How long a deletion waits for the workspace's shard to be clear.
const CLEARED_WAIT: Duration = Duration::from_secs(10);

/// What there is of a workspace.
#[derive(Debug, Clone)]
pub struct Contents {
    /// The deployment that is live, and how many are remembered.
    pub live: Option<Arc<caxton_proto::log::Deployment>>,
    /// How many deployments, secrets and tokens the log has of it.
    pub totals: DeletionTotals,
    /// What its shard keeps of it: how many of each kind.
    pub kept: Vec<(&'static str, u64)>,
}

/// What became of a deletion.
#[derive(Debug, Clone)]
pub struct Deleted {
    /// It, as the log has it.
    pub deletion: WorkspaceDeletion,
    /// What of the log went with it; nothing of it where it was deleted before.
    pub totals: DeletionTotals,
    /// Whether its shard is clear of it as well.
    pub cleared: bool,
}

/// Why a workspace was not looked at or deleted.
#[derive(Debug, thiserror::Error)]
pub enum WorkspacesError {
    /// There is no such workspace.
    #[error("there is no workspace `{workspace}`")]
    None {
        /// The name that was given.
        workspace: WorkspaceId,
    },
    /// Another revision is live than the one that was to be deleted.
    #[error("revision {live} of workspace `{workspace}` is live, and another one was to be deleted")]
    Conflict {
        /// The workspace that was to go.
        workspace: WorkspaceId,
        /// The revision that is live.
        live: Revision,
    },
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The log did not take the deletion.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// What the shard keeps could not be read.
    #[error("what is kept of the workspace cannot be read")]
    Shard(#[from] WriteError),
    /// The log answered something that does not fit: a defect.
    #[error("the log answered something else")]
    Unexpected,
}

/// The workspaces of the cluster.
pub struct Workspaces {
    log: DeployLog,
    shards: Shards,
}

impl Workspaces {
    /// Those that `log` and `shards` keep.
    pub fn new(log: DeployLog, shards: Shards) -> Workspaces {
        Workspaces { log, shards }
    }

    /// What would go with the workspace.
    pub async fn contents(&self, permit: &Permit<DeleteWorkspaces>) -> Result<Contents, WorkspacesError> {
        let workspace = permit.workspace();
        let (live, totals) = self.log.current(|state| in_log(state, workspace)).await?;
        let name = workspace.clone();
        let kept =
            self.shards.of(workspace).read(move |state| state.contents(&name)).await.map_err(WriteError::from)?;
        if live.is_none() && totals == DeletionTotals::default() && kept.iter().all(|(_, count)| *count == 0) {
            return Err(WorkspacesError::None { workspace: workspace.clone() });
        }
        Ok(Contents { live, totals, kept })
    }

    /// Deletes the workspace with all that is its own. Once the log has it, nothing brings it back; that its shard is clear of it
    /// is waited for, for a while. What was deleted before and is not clear yet is waited for in the same way.
    /// With `seen`, another revision that is live by now stays as it is.
    pub async fn delete(
        &self,
        permit: &Permit<DeleteWorkspaces>,
        seen: Option<Revision>,
    ) -> Result<Deleted, WorkspacesError> {
        let (workspace, actor) = (permit.workspace(), permit.subject());
        // Names that stand for nothing are not noted as deleted.
        let known = match self.contents(permit).await {
            Ok(_) => true,
            Err(WorkspacesError::None { .. }) => false,
            Err(error) => return Err(error),
        };
        let before = self.log.read(|state| state.deletions().of(workspace).cloned());
        let repeats = |deletion: &WorkspaceDeletion| Some(deletion.revision) == seen;
        if !known {
            let none = || WorkspacesError::None { workspace: workspace.clone() };
            let before = before.filter(|it| repeats(it)).ok_or_else(none)?;
            return self.again(&before).await;
        }
        let (time_ms, by) = (now_ms(), actor.to_owned());
        let delete = DeleteWorkspace { workspace: workspace.clone(), time_ms, actor: by, seen };
        match self.log.propose(&Command::DeleteWorkspace(delete)).await?.outcome {
            Outcome::WorkspaceDeleted { deletion, totals } => {
                info!(target: "caxton::audit", %workspace, actor, revision = %deletion.revision, "workspace deleted");
                let cleared = self.is_cleared(&deletion).await?;
                Ok(Deleted { deletion, totals, cleared })
            }
            Outcome::Conflict { live_revision, .. } => match before.filter(|it| repeats(it)) {
                Some(before) if live_revision == Revision::NONE => self.again(&before).await,
                Some(_) | None => Err(WorkspacesError::Conflict { workspace: workspace.clone(), live: live_revision }),
            },
            other => {
                tracing::error!(outcome = ?other, "the log answered a deletion with something else");
                Err(WorkspacesError::Unexpected)
            }
        }
    }

    /// Waits for a deletion that the log has already, whose answer was lost or came too early.
    async fn again(&self, before: &WorkspaceDeletion) -> Result<Deleted, WorkspacesError> {
        let cleared = self.is_cleared(before).await?;
        Ok(Deleted { deletion: before.clone(), totals: DeletionTotals::default(), cleared })
    }

    /// Waits until this node's copy of the shard is clear of a workspace, for a while; says whether it is.
    async fn is_cleared(&self, deletion: &WorkspaceDeletion) -> Result<bool, WriteError> {
        let workspace = &deletion.delete.workspace;
        let (shard, until) = (self.shards.of(workspace), tokio::time::Instant::now() + CLEARED_WAIT);
        let mut applied = shard.group().applied();
        loop {
            applied.borrow_and_update();
            if shard.cleared(workspace).await? >= deletion.index {
                return Ok(true);
            }
            if !matches!(tokio::time::timeout_at(until, applied.changed()).await, Ok(Ok(()))) {
                return Ok(false);
            }
        }
    }
}

/// What the log has of a workspace.
fn in_log(state: &State, workspace: &WorkspaceId) -> (Option<Arc<caxton_proto::log::Deployment>>, DeletionTotals) {
    let known = state.workspace(workspace);
    let now_ms = now_ms();
    let own = state.tokens().filter(|token| {
        let workspaces = &token.issued.workspaces;
        token.is_good(now_ms) && !workspaces.is_empty() && workspaces.iter().all(|one| one == workspace)
    });
    let totals = DeletionTotals {
        deployments: known.map_or(0, |known| known.deployments().count() as u64),
        secrets: state.secrets().of(workspace).count() as u64,
        tokens: own.count() as u64,
    };
    (known.and_then(|known| known.live_deployment().cloned()), totals)
}
