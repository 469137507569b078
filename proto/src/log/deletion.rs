//! A workspace that goes with all that is its own.
//!
//! The log forgets its deployments and secrets at once and keeps a note of the deletion, by which every shard knows what it
//! has to clear and every node what it may throw away.

use crate::{Revision, WorkspaceId};

/// Takes a workspace away: its deployments, its secrets, and the tokens that were for it alone. Tokens that are for other
/// workspaces too lose this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteWorkspace {
    /// The workspace that goes.
    pub workspace: WorkspaceId,
    /// When it was proposed, in milliseconds since 1970.
    pub time_ms: u64,
    /// The subject of the token that proposed it.
    pub actor: String,
    /// The revision that whoever asks saw live; if another one is live by now, nothing is deleted. Without it the workspace goes
    /// whatever is live.
    pub seen: Option<Revision>,
}

/// The newest deletion of a workspace, which the log remembers after the workspace is made again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceDeletion {
    /// What was asked for.
    pub delete: DeleteWorkspace,
    /// The index of the command in the log. Whatever of the workspace is older has to go.
    pub index: u64,
    /// The last revision that was live; a workspace that is made again under the name counts on from it, so that nobody
    /// takes the one for the other.
    pub revision: Revision,
}

/// How much of what the log holds went with a workspace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeletionTotals {
    /// Deployments that were remembered.
    pub deployments: u64,
    /// Secrets that were set in it.
    pub secrets: u64,
    /// Tokens that were for this workspace alone, and are revoked now.
    pub tokens: u64,
}
