//! What a node does when it has been elected to lead a shard: before it answers for the shard's workspaces, it has all
//! that was acknowledged before and knows what was used today; then it goes on with the turns that the last leader left.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use caxton_proto::WorkspaceId;
use caxton_raft::Role;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{InvokeError, Invoker};
use crate::conversations::ShardConversations;
use crate::llm::reasons;
use crate::shard::Shard;

/// The pause after an attempt that failed.
const RETRY: Duration = Duration::from_millis(50);

/// Turns that a node goes on with at the same time, for each shard; the others wait.
const RESUMED_AT_ONCE: usize = 32;

/// Takes one shard over whenever this node is elected to lead it.
pub struct Takeover {
    invoker: Invoker,
    shard: Shard,
    conversations: ShardConversations,
}

impl Takeover {
    /// For one shard.
    pub fn new(invoker: Invoker, shard: &Shard) -> Takeover {
        Takeover { invoker, shard: shard.clone(), conversations: ShardConversations::new(shard.clone()) }
    }

    /// Works until it is stopped.
    pub async fn run(self, stop: CancellationToken) {
        let mut status = self.shard.group().status();
        let mut taken = 0;
        // Those of an earlier term come to nothing by themselves: what they write does not count.
        let mut resumed = JoinSet::new();
        loop {
            while resumed.try_join_next().is_some() {}
            let (role, term) = {
                let status = status.borrow_and_update();
                (status.role, status.term)
            };
            let due = role == Role::Leader && term != taken;
            if due && self.take_over(term).await {
                taken = term;
                self.resume(term, &mut resumed).await;
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = status.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(RETRY), if due => {}
            }
        }
    }

    /// False when it has to be tried again.
    async fn take_over(&self, term: u64) -> bool {
        // All that was acknowledged before is applied here now.
        if self.shard.group().read_index().await.is_err() {
            return false;
        }
        if let Err(error) = self.remember_spent().await {
            warn!(shard = self.shard.id().0, reason = %reasons(&error), "a shard cannot be taken over");
            return false;
        }
        self.shard.taken_over(term);
        info!(shard = self.shard.id().0, term, "leads a shard");
        true
    }

    /// Goes on with every turn that began and is not over.
    async fn resume(&self, term: u64, resumed: &mut JoinSet<()>) {
        let underway = match self.conversations.read(crate::conversations::State::underway).await {
            Ok(underway) => underway,
            Err(error) => {
                warn!(shard = self.shard.id().0, reason = %reasons(&error), "turns that were left cannot be read");
                return;
            }
        };
        let room = Arc::new(Semaphore::new(RESUMED_AT_ONCE));
        for (workspace, turn) in underway {
            let (invoker, room) = (self.invoker.clone(), Arc::clone(&room));
            resumed.spawn(async move {
                let _room = room.acquire_owned().await;
                info!(%workspace, turn, "goes on with a turn that another leader began");
                match invoker.resume(&workspace, &turn, term).await {
                    Ok(()) | Err(InvokeError::Turn { .. }) => {}
                    Err(error @ (InvokeError::Adrift { .. } | InvokeError::Elsewhere { .. })) => {
                        debug!(%workspace, turn, reason = %reasons(&error), "a turn goes on elsewhere");
                    }
                    Err(error) => warn!(%workspace, turn, reason = %reasons(&error), "a turn cannot be gone on with"),
                }
            });
        }
    }

    /// Takes up what the state knows of today's use, so that neither a restart nor another leader gives a budget twice.
    async fn remember_spent(&self) -> Result<(), InvokeError> {
        let day = crate::llm::models::today();
        let mut workspaces: BTreeMap<WorkspaceId, Vec<_>> = BTreeMap::new();
        for (workspace, agent, spent) in self.conversations.read(move |state| state.spent(day)).await? {
            workspaces.entry(workspace).or_default().push((agent, spent));
        }
        for (workspace, agents) in workspaces {
            self.invoker.models().budgets().remember(day, &workspace, &agents);
        }
        Ok(())
    }
}
