//! A new cluster from what one node still has, after a majority was lost for good. The node must not run.
//!
//! All of its log counts from then on: what was acknowledged and never reached this node is lost, and what it was still
//! asking the others about is applied. The old nodes are strangers to the new cluster.

use std::path::{Path, PathBuf};

use caxton_proto::log;
use caxton_proto::log::cluster::{BeginAgain, Command, Origin};
use caxton_raft::archive::Beginning;
use caxton_raft::{ArchiveError, ClaimError, GroupState, IdentityError, NodeIdentity, known_identity, mint_node};
use uuid::Uuid;

use super::actor;
use crate::files::audit::{self, Entry};
use crate::peers::book::BOOK_FILE;
use crate::time::{now_ms, rfc3339};

/// Why nothing was recovered.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// No node was ever there.
    #[error("{} is not the data directory of a node", .dir.display())]
    NoNode { dir: PathBuf },
    /// The node's identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Log(#[from] ArchiveError),
    /// The log is not the node's.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// There is nothing in the log.
    #[error("the log in {} has no deploy log", .dir.display())]
    Empty {
        /// The data directory.
        dir: PathBuf,
    },
    #[error("{} cannot be written", .path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// A node that is about to begin again.
pub struct Remains {
    dir: PathBuf,
    /// Who it was.
    pub before: NodeIdentity,
    beginning: Beginning,
}

impl Remains {
    /// Looks at what a node has, and checks all of it.
    pub async fn of(dir: &Path) -> Result<Remains, RecoverError> {
        let before = known_identity(dir)?.ok_or_else(|| RecoverError::NoNode { dir: dir.to_owned() })?;
        let beginning = Beginning::of(&dir.join("raft"))?;
        beginning.store().claim(&dir.join(crate::cluster::LOG_MARK_FILE)).await?;
        if !beginning.groups().any(|group| group.group == caxton_raft::deploy_log::GROUP) {
            return Err(RecoverError::Empty { dir: dir.to_owned() });
        }
        Ok(Remains { dir: dir.to_owned(), before, beginning })
    }

    /// What it has of each group.
    pub fn groups(&self) -> impl Iterator<Item = &GroupState> {
        self.beginning.groups()
    }

    pub async fn recover(self) -> Result<NodeIdentity, RecoverError> {
        let Remains { dir, before, beginning } = self;
        let (node, cluster, time_ms, actor) = (mint_node(), Uuid::new_v4(), now_ms(), actor());
        let detail = beginning.groups().map(describe).collect::<Vec<_>>().join("; ");
        let entry = Entry {
            time: rfc3339(time_ms),
            what: "recovered".to_owned(),
            actor: actor.clone(),
            cluster_before: before.cluster.to_string(),
            cluster: cluster.to_string(),
            node: node.to_string(),
            detail: format!("from the disk of node {}: {detail}", before.node),
        };
        let file = |path: PathBuf| move |source| RecoverError::File { path, source };
        // First: whatever happens next, it is known that somebody tried.
        audit::append(&dir, &entry).map_err(file(dir.join(audit::AUDIT_FILE)))?;
        let again = BeginAgain {
            node,
            before: before.cluster.to_string(),
            now: cluster.to_string(),
            from: Origin::OneNode,
            time_ms,
            actor,
        };
        let store = beginning.with(node, log::Command::Cluster(Command::BeginAgain(again)).encode().into()).await?;
        let closed = store.closed();
        drop(store);
        closed.await;
        let book = dir.join(BOOK_FILE);
        match std::fs::remove_file(&book) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => return Err(file(book)(source)),
            _ => {}
        }
        Ok(caxton_raft::begin_again(&dir, node, cluster)?)
    }
}

/// What a node has of a group, in words.
pub fn describe(group: &GroupState) -> String {
    let committed = group.committed.map_or_else(|| "none".to_owned(), |committed| committed.to_string());
    let name = if group.group.0 == 0 { "the deploy log" } else { "shard" };
    format!(
        "{name} (group {}): {} entries, of which this node knows {committed} to be acknowledged; {} voted, in term {}",
        group.group.0,
        group.last,
        match group.voters.len() {
            1 => "1 node".to_owned(),
            count => format!("{count} nodes"),
        },
        group.term
    )
}
