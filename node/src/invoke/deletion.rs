//! A workspace that the deploy log has deleted goes from its shard as well: whoever leads the shard ends the workspace's turns
//! and has its rows cleared. A leader that is elected in the middle goes on with it, and so does a node that is started again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use caxton_proto::WorkspaceId;
use caxton_proto::log::WorkspaceDeletion;
use caxton_raft::Role;
use caxton_raft::deploy_log::DeployLog;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Invoker;
use crate::llm::reasons;
use crate::shard::{Shard, WriteError};

/// The pause after an attempt that failed.
const RETRY: Duration = Duration::from_secs(1);
/// The pause between two looks whether a deleted workspace's turns are over.
const PAUSE: Duration = Duration::from_millis(10);
/// In whose name the turns of a deleted workspace are stopped.
const STOPPED_BY: &str = "the workspace's deletion";

/// Clears one shard of the workspaces that were deleted.
pub struct Deletions {
    invoker: Invoker,
    log: DeployLog,
    shard: Shard,
    /// Up to which deletion this node has seen the shard clear of a workspace.
    seen: BTreeMap<WorkspaceId, u64>,
}

impl Deletions {
    /// For one shard, by what `log` says.
    pub fn new(invoker: Invoker, log: DeployLog, shard: &Shard) -> Deletions {
        Deletions { invoker, log, shard: shard.clone(), seen: BTreeMap::new() }
    }

    /// Works until it is stopped: when something was deleted, and when this node is elected.
    pub async fn run(mut self, stop: CancellationToken) {
        let (mut applied, mut status) = (self.log.applied(), self.shard.group().status());
        loop {
            applied.borrow_and_update();
            let leads = status.borrow_and_update().role == Role::Leader;
            let mut failed = false;
            if leads {
                let Some(passed) = stop.run_until_cancelled(self.pass()).await else { return };
                failed = !passed;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RETRY), if failed => {}
                changed = applied.changed() => if changed.is_err() { return },
                changed = status.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Clears what is due; false where some of it has to be tried again.
    async fn pass(&mut self) -> bool {
        let shards = self.invoker.conversations().shards();
        let due: Vec<Arc<WorkspaceDeletion>> = self.log.read(|state| {
            let own = state.deletions().all().filter(|it| shards.of(&it.delete.workspace).id() == self.shard.id());
            own.filter(|it| self.seen.get(&it.delete.workspace).is_none_or(|seen| *seen < it.index)).cloned().collect()
        });
        let mut all = true;
        for deletion in due {
            let workspace = &deletion.delete.workspace;
            match self.clear(&deletion).await {
                Ok(()) => _ = self.seen.insert(workspace.clone(), deletion.index),
                Err(error) => {
                    warn!(%workspace, reason = %reasons(&error), "what a deleted workspace leaves stays for now");
                    all = false;
                }
            }
        }
        all
    }

    async fn clear(&self, deletion: &WorkspaceDeletion) -> Result<(), WriteError> {
        let workspace = &deletion.delete.workspace;
        if self.shard.cleared(workspace).await? >= deletion.index {
            return Ok(());
        }
        self.invoker.end_turns(deletion).await;
        self.shard.clear(workspace, deletion.index).await?;
        info!(%workspace, actor = deletion.delete.actor, "cleared what a deleted workspace left");
        Ok(())
    }
}

impl Invoker {
    /// Returns once no turn of a deleted workspace runs here: those that do are stopped, and what they write is refused.
    async fn end_turns(&self, deletion: &WorkspaceDeletion) {
        let workspace = &deletion.delete.workspace;
        let (catalogs, mut changed) = (self.catalogs(), self.catalogs().changed());
        // As long as it is served, another one may begin.
        while catalogs.get(workspace).is_some_and(|catalog| catalog.revision <= deletion.revision) {
            if changed.changed().await.is_err() {
                return;
            }
        }
        let turns = self.shared.running.of(workspace);
        for turn in turns {
            self.shared.running.stop(workspace, &turn, STOPPED_BY, |_| true);
            while self.shared.running.has(workspace, &turn) {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
