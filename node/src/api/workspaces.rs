//! Bodies about a workspace as a whole: what there is of it, and its deletion.

use std::collections::BTreeMap;

use caxton_proto::{Revision, WorkspaceId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET .../contents`: what would go with a workspace.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WorkspaceContents {
    /// The workspace that is looked at.
    #[schema(value_type = String)]
    pub workspace: WorkspaceId,
    /// The revision that is live; 0 when nothing is.
    #[schema(value_type = u64)]
    pub revision: Revision,
    /// How many deployments are remembered.
    pub deployments: u64,
    /// How many files what is live has.
    pub files: u64,
    /// How many bytes they have together.
    pub bytes: u64,
    /// How many secrets it has.
    pub secrets: u64,
    /// How many tokens are good that are for this workspace alone.
    pub tokens: u64,
    /// What is kept of it beside that, by kind: `conversations`, `turns`, `approvals`, `memories`, `entities`, `relations`,
    /// `messages` and `subscriptions`.
    pub kept: BTreeMap<String, u64>,
}

/// The answer of `DELETE /api/v1/workspaces/{workspace}`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WorkspaceDeleted {
    /// The name that is free again.
    #[schema(value_type = String)]
    pub workspace: WorkspaceId,
    /// The last revision that was live. A workspace that is made again under the name counts on from it.
    #[schema(value_type = u64)]
    pub revision: Revision,
    /// How many deployments went.
    pub deployments: u64,
    /// How many secrets went.
    pub secrets: u64,
    /// How many tokens were for this workspace alone, and are revoked.
    pub tokens: u64,
    /// Whether conversations, memories and mailboxes are gone as well; otherwise the cluster still removes them, whatever
    /// happens, and the same request again waits for it.
    pub cleared: bool,
}
