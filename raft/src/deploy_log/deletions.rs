//! The workspaces that were deleted, which the deploy log's state remembers for as long as anything of them may be left.

use std::collections::BTreeMap;
use std::sync::Arc;

use caxton_proto::log::WorkspaceDeletion;
use caxton_proto::{Revision, WorkspaceId};

/// How many deletions are remembered; the oldest go first. Whoever keeps anything of a workspace has to be done with it
/// before so many others are deleted.
pub const DELETIONS_MAX: usize = 10_000;

/// The newest deletion of each workspace that ever was deleted, those that were made again among them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deletions(BTreeMap<WorkspaceId, Arc<WorkspaceDeletion>>);

impl Deletions {
    /// The newest deletion of a workspace.
    pub fn of(&self, workspace: &WorkspaceId) -> Option<&Arc<WorkspaceDeletion>> {
        self.0.get(workspace)
    }

    /// All that are remembered, in the order of the workspaces' names.
    pub fn all(&self) -> impl ExactSizeIterator<Item = &Arc<WorkspaceDeletion>> {
        self.0.values()
    }

    /// The revision from which a workspace of this name counts on.
    pub(super) fn revision(&self, workspace: &WorkspaceId) -> Revision {
        self.of(workspace).map_or(Revision::NONE, |deletion| deletion.revision)
    }

    /// Remembers a deletion, in the place of an earlier one of the same workspace.
    pub(super) fn put(&mut self, deletion: WorkspaceDeletion) {
        self.0.insert(deletion.delete.workspace.clone(), Arc::new(deletion));
        if self.0.len() > DELETIONS_MAX {
            let oldest = self.0.values().min_by_key(|deletion| deletion.index).map(|it| it.delete.workspace.clone());
            oldest.map(|oldest| self.0.remove(&oldest));
        }
    }
}
