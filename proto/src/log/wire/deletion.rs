//! Between the types of workspaces' deletions and the messages of the .proto file.

use super::convert::workspace;
use super::pb;
use super::{DecodeError, field};
use crate::Revision;
use crate::log::{DeleteWorkspace, DeletionTotals, WorkspaceDeletion};

impl From<&DeleteWorkspace> for pb::DeleteWorkspace {
    fn from(delete: &DeleteWorkspace) -> Self {
        Self {
            workspace: delete.workspace.to_string(),
            time_ms: delete.time_ms,
            actor: delete.actor.clone(),
            seen: delete.seen.map(|seen| seen.0),
        }
    }
}

impl TryFrom<pb::DeleteWorkspace> for DeleteWorkspace {
    type Error = DecodeError;
    fn try_from(delete: pb::DeleteWorkspace) -> Result<Self, DecodeError> {
        let workspace = workspace(delete.workspace)?;
        Ok(Self { workspace, time_ms: delete.time_ms, actor: delete.actor, seen: delete.seen.map(Revision) })
    }
}

impl From<&WorkspaceDeletion> for pb::WorkspaceDeletion {
    fn from(deletion: &WorkspaceDeletion) -> Self {
        Self { delete: Some((&deletion.delete).into()), index: deletion.index, revision: deletion.revision.0 }
    }
}

impl TryFrom<pb::WorkspaceDeletion> for WorkspaceDeletion {
    type Error = DecodeError;
    fn try_from(deletion: pb::WorkspaceDeletion) -> Result<Self, DecodeError> {
        let delete = deletion.delete.ok_or(field("delete"))?.try_into()?;
        Ok(Self { delete, index: deletion.index, revision: Revision(deletion.revision) })
    }
}

impl From<(&WorkspaceDeletion, DeletionTotals)> for pb::WorkspaceDeleted {
    fn from((deletion, totals): (&WorkspaceDeletion, DeletionTotals)) -> Self {
        let DeletionTotals { deployments, secrets, tokens } = totals;
        Self { deletion: Some(deletion.into()), deployments, secrets, tokens }
    }
}

impl TryFrom<pb::WorkspaceDeleted> for (WorkspaceDeletion, DeletionTotals) {
    type Error = DecodeError;
    fn try_from(deleted: pb::WorkspaceDeleted) -> Result<Self, DecodeError> {
        let pb::WorkspaceDeleted { deletion, deployments, secrets, tokens } = deleted;
        let deletion = deletion.ok_or(field("deletion"))?.try_into()?;
        Ok((deletion, DeletionTotals { deployments, secrets, tokens }))
    }
}
