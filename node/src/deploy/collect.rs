//! Removes the blobs that no kept revision names, and those of workspaces that were deleted.
//!
//! Marking happens beside running deployments; for the removal, which is short, the workspace is held still and what
//! became live meanwhile is marked too. When anything cannot be read, nothing is removed: an unread node may name
//! what would be lost.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use caxton_proto::chunk::ChunkList;
use caxton_proto::tree::{InvalidNode, Node};
use caxton_proto::{Digest, Revision, WorkspaceId};
use caxton_raft::ReadError;
use caxton_raft::deploy_log::{DeployLog, State};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::pins::Pins;
use crate::artifacts::{Artifacts, CollectionTotals, GetError};
use crate::catalog::Catalogs;
use crate::edge::problem::chain;
use crate::tasks;
use crate::time::now_ms;

/// A blob younger than this is never removed: a client may have sent it for a deployment that is still to come.
pub const GRACE: Duration = Duration::from_secs(60 * 60);
/// All workspaces are looked through this often.
const INTERVAL: Duration = Duration::from_secs(10 * 60);
/// A workspace whose deployments drop revisions is looked through this often at most.
const PAUSE: Duration = Duration::from_secs(60);

/// A collection was given up; nothing was removed.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// What is kept is not known for sure.
    #[error("the deploy log could not be read")]
    Log(#[from] ReadError),
    /// A blob that is kept could not be read, or blobs could not be removed.
    #[error(transparent)]
    Store(#[from] GetError),
    /// A tree node that is kept is damaged.
    #[error(transparent)]
    Node(#[from] InvalidNode),
    /// A chunk list that is kept is damaged.
    #[error("the chunk list {0} is damaged")]
    List(Digest),
    /// The work was broken off.
    #[error("the collection was broken off")]
    Stopped(#[from] tokio::task::JoinError),
}

/// Collects; clones are handles on the same.
#[derive(Clone)]
pub struct Collector {
    log: DeployLog,
    catalogs: Catalogs,
    artifacts: Artifacts,
    pins: Pins,
}

impl Collector {
    /// A collector that leaves alone what `pins` holds.
    pub fn new(log: DeployLog, catalogs: Catalogs, artifacts: Artifacts, pins: Pins) -> Collector {
        Collector { log, catalogs, artifacts, pins }
    }

    /// Collects after deployments that dropped revisions, and at intervals, until it is stopped.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval_at(Instant::now() + PAUSE, PAUSE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen: HashMap<WorkspaceId, Revision> = self.oldest_kept();
        let mut all_at = Instant::now() + INTERVAL;
        // What was deleted while this node was down is looked at once.
        let mut deleted = 0;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let oldest = self.oldest_kept();
            let mut due: Vec<_> = oldest.iter().filter(|(workspace, kept)| seen.get(*workspace) < Some(kept)).collect();
            due.retain(|(workspace, kept)| seen.contains_key(*workspace) || kept.0 > 1);
            let due: HashSet<WorkspaceId> = due.into_iter().map(|(workspace, _)| workspace.clone()).collect();
            let (due, deleted_since) = (self.with_deleted(due, deleted), self.last_deletion());
            deleted = deleted_since;
            let due = if Instant::now() >= all_at {
                all_at = Instant::now() + INTERVAL;
                self.everywhere(due)
            } else {
                due
            };
            seen = oldest;
            for workspace in due {
                if stop.is_cancelled() {
                    return;
                }
                self.collect_and_tell(&workspace).await;
            }
        }
    }

    /// Removes what no kept revision of `workspace` names and is older than `grace`.
    pub async fn collect(&self, workspace: &WorkspaceId, grace: Duration) -> Result<CollectionTotals, CollectError> {
        // What is older than the workspace's deletion was sent for the one before.
        let deleted_ms = self.log.read(|state| state.deletions().of(workspace).map(|it| it.delete.time_ms));
        let older_than_ms = now_ms().saturating_sub(grace.as_millis() as u64).max(deleted_ms.unwrap_or_default());
        let marked = self.mark(workspace, LiveBlobs::default()).await?;
        let _alone = self.pins.alone(workspace).await;
        let LiveBlobs { live, followed: _ } = self.mark(workspace, marked).await?;
        let (artifacts, workspace) = (self.artifacts.clone(), workspace.clone());
        let removed = tasks::blocking(move || artifacts.collect(&workspace, &live, older_than_ms));
        Ok(removed.await??)
    }

    /// Marks everything that a kept revision, or a catalog that is in use, is made of.
    async fn mark(&self, workspace: &WorkspaceId, marked: LiveBlobs) -> Result<LiveBlobs, CollectError> {
        let read_kept = |state: &State| {
            let known = state.workspace(workspace);
            known.map_or_else(Vec::new, |known| known.kept().map(|kept| kept.root).collect())
        };
        let kept = self.log.current(read_kept);
        let mut roots = match kept.await {
            // A node that only follows keeps what it knows to be kept. What it does not know of yet is younger than the
            // grace, and is fetched again if not.
            Err(ReadError::NotLeader { .. }) => self.log.read(read_kept),
            read => read?,
        };
        roots.extend(self.catalogs.roots(workspace));
        let (artifacts, workspace) = (self.artifacts.clone(), workspace.clone());
        tasks::blocking(move || mark(&artifacts, &workspace, roots, marked)).await?
    }

    async fn collect_and_tell(&self, workspace: &WorkspaceId) {
        match self.collect(workspace, GRACE).await {
            Ok(CollectionTotals { blobs: 0, .. }) => {}
            Ok(CollectionTotals { blobs, bytes }) => {
                info!(%workspace, blobs, bytes, "removed artifacts that nothing names")
            }
            Err(error) => warn!(%workspace, error = chain(&error), "nothing was collected"),
        }
    }

    /// The index of the newest deletion of a workspace.
    fn last_deletion(&self) -> u64 {
        self.log.read(|state| state.deletions().all().map(|deletion| deletion.index).max()).unwrap_or_default()
    }

    /// These, and the workspaces that were deleted after an index of the log and have blobs here.
    fn with_deleted(&self, due: HashSet<WorkspaceId>, after: u64) -> HashSet<WorkspaceId> {
        let deleted: HashSet<WorkspaceId> = self.log.read(|state| {
            let newer = state.deletions().all().filter(|deletion| deletion.index > after);
            newer.map(|deletion| deletion.delete.workspace.clone()).collect()
        });
        if deleted.is_empty() {
            return due;
        }
        let here = self.everywhere(HashSet::new());
        due.into_iter().chain(deleted.into_iter().filter(|workspace| here.contains(workspace))).collect()
    }

    fn oldest_kept(&self) -> HashMap<WorkspaceId, Revision> {
        self.log.read(|state| {
            let oldest = state.workspaces().filter_map(|(id, known)| Some((id.clone(), known.kept().next()?.revision)));
            oldest.collect()
        })
    }

    /// Every workspace that has blobs; also one that blobs were sent to and that was never deployed.
    fn everywhere(&self, due: HashSet<WorkspaceId>) -> HashSet<WorkspaceId> {
        match self.artifacts.workspaces() {
            Ok(all) => all.into_iter().chain(due).collect(),
            Err(error) => {
                warn!(error = chain(&error), "the workspaces with artifacts are not known");
                due
            }
        }
    }
}

/// What must stay.
#[derive(Default)]
struct LiveBlobs {
    /// All of it.
    live: HashSet<Digest>,
    /// The nodes and chunk lists that were read already: revisions share most of theirs. Not the same as being live,
    /// since a file may have the very bytes of a node.
    followed: HashSet<Digest>,
}

/// Follows `roots` down.
fn mark(
    artifacts: &Artifacts,
    workspace: &WorkspaceId,
    roots: Vec<Digest>,
    mut marked: LiveBlobs,
) -> Result<LiveBlobs, CollectError> {
    let mut wanted: Vec<(Digest, usize)> = roots.into_iter().map(|root| (root, 0)).collect();
    while let Some((digest, depth)) = wanted.pop() {
        marked.live.insert(digest);
        if !marked.followed.insert(digest) {
            continue;
        }
        match Node::decode(&digest, depth, &artifacts.need(workspace, &digest)?)? {
            Node::Branch(children) => wanted.extend(children.into_iter().map(|child| (child, depth + 1))),
            Node::Leaf(files) => {
                for (_, file) in files {
                    match file.chunks {
                        None => _ = marked.live.insert(file.digest),
                        Some(list) => mark_chunks(artifacts, workspace, list, &mut marked)?,
                    }
                }
            }
        }
    }
    Ok(marked)
}

fn mark_chunks(
    artifacts: &Artifacts,
    workspace: &WorkspaceId,
    list: Digest,
    marked: &mut LiveBlobs,
) -> Result<(), CollectError> {
    marked.live.insert(list);
    if marked.followed.insert(list) {
        let chunks = ChunkList::decode(&artifacts.need(workspace, &list)?).map_err(|_| CollectError::List(list))?;
        marked.live.extend(chunks.0.iter().map(|chunk| chunk.digest));
    }
    Ok(())
}
