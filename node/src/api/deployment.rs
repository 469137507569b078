//! A deployment as the log has it, in the API's words.

use caxton_proto::log::{self, Kind};

use super::{Author, Deployment, Git};
use crate::time::rfc3339;

impl From<&log::Deployment> for Deployment {
    fn from(it: &log::Deployment) -> Deployment {
        Deployment {
            workspace: it.workspace.clone(),
            revision: it.revision,
            parent: it.parent,
            root: it.root,
            rollback_to: match it.kind {
                Kind::Deploy => None,
                Kind::Rollback { to } => Some(to),
            },
            author: Author { name: it.author.name.clone(), email: it.author.email.clone() },
            actor: it.actor.clone(),
            time: rfc3339(it.time_ms),
            git: it.git.as_ref().map(|git| Git {
                commit: git.commit.clone(),
                branch: git.branch.clone(),
                dirty: git.dirty,
            }),
            message: it.message.clone(),
            changes: it.changes.clone(),
            changes_total: it.changes_total,
            files: it.files,
            bytes: it.bytes,
            event_id: it.index,
            kept: it.kept,
        }
    }
}
