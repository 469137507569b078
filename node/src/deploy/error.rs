//! Why a deployment did not become live, with the facts that a person needs to go on.

use std::sync::Arc;

use caxton_proto::log::{CheckError, Deployment};
use caxton_proto::{Revision, WorkspaceId};
use caxton_raft::ReadError;
use caxton_raft::deploy_log::ProposeError;

use super::assemble::AssembleError;
use super::check;
use super::verify::VerifyError;
use crate::artifacts::{GetError, PutError};
use crate::auth::Denied;
use crate::catalog::LoadError;
use crate::replicas::SpreadError;

/// A deployment was refused, or failed. Nothing of it is live unless a variant says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The token does not allow it.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The request has no idempotency key.
    #[error("the request has no idempotency key")]
    NoKey,
    /// As many deployments as may be are on their way.
    #[error("{max} deployments are on their way, and that is the most at once (deploy.concurrent_max)")]
    Busy { max: usize },
    /// The parent is not live: somebody deployed in between.
    #[error("{parent} of workspace `{workspace}` is not live any more: {}", by(.live))]
    Conflict {
        workspace: WorkspaceId,
        /// What the client saw live.
        parent: Revision,
        /// What is live.
        live: Option<Arc<Deployment>>,
    },
    /// The key belongs to another deployment.
    #[error("the idempotency key belongs to {} of workspace `{}`, which has other content", deployment.revision, deployment.workspace)]
    KeyReused {
        /// Whose key it is.
        deployment: Arc<Deployment>,
    },
    /// There is nothing to go back to.
    #[error("the content of {to} of workspace `{workspace}` is not there: {}", kept(*.oldest_kept, *.live))]
    NoSuchRevision {
        workspace: WorkspaceId,
        /// The revision to go back to.
        to: Revision,
        /// The oldest revision whose content is there.
        oldest_kept: Revision,
        /// The newest one.
        live: Revision,
    },
    /// The log holds as many workspaces as it may.
    #[error("the workspace `{workspace}` would be one more than this cluster takes")]
    TooManyWorkspaces {
        /// The new workspace.
        workspace: WorkspaceId,
    },
    /// The request makes no tree.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// The blobs are not there, or do not make the files.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// What would be live could not run.
    #[error(transparent)]
    Check(#[from] check::CheckError),
    /// A text of the request is too long.
    #[error(transparent)]
    Limits(#[from] CheckError),
    /// What is live, or is to be again, could not be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The store could not be asked.
    #[error(transparent)]
    Get(#[from] GetError),
    /// The store could not be written.
    #[error(transparent)]
    Put(#[from] PutError),
    /// The log could not be read.
    #[error("the deploy log could not be read")]
    Read(#[from] ReadError),
    /// Too few nodes have the content; nothing was proposed.
    #[error("a majority of the nodes has to have the content first: {0}")]
    Spread(#[from] SpreadError),
    /// It is not known what became of the proposal: the same key finds out.
    #[error("the deploy log did not answer")]
    Propose(#[from] ProposeError),
    /// The log answered something that does not fit a deployment.
    #[error("the deploy log's answer does not fit a deployment")]
    Unexpected,
    /// The node stopped in the middle, or the walk itself failed.
    #[error("the deployment was broken off")]
    Stopped(#[source] tokio::task::JoinError),
}

fn by(live: &Option<Arc<Deployment>>) -> String {
    match live {
        None => "nothing is deployed".to_owned(),
        Some(live) => {
            let author = [&live.author.name, &live.author.email, &live.actor].into_iter().find(|name| !name.is_empty());
            let author = author.map_or("somebody", String::as_str);
            format!("{author} deployed {}, which changed {}", live.revision, changed(live))
        }
    }
}

/// The first few things that a deployment changed.
fn changed(live: &Deployment) -> String {
    const NAMED_MAX: usize = 3;
    let named: Vec<_> = live.changes.iter().take(NAMED_MAX).map(|change| change.item.to_string()).collect();
    match (live.changes_total as usize).saturating_sub(named.len()) {
        0 if named.is_empty() => "nothing".to_owned(),
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

fn kept(oldest_kept: Revision, live: Revision) -> String {
    match live {
        Revision::NONE => "nothing was ever deployed".to_owned(),
        live => format!("the revisions from {oldest_kept} to {live} are kept"),
    }
}
