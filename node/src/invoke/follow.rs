//! How a turn ended that another node drives, and what it waits for.

use caxton_proto::{NodeId, WorkspaceId};
use caxton_raft::{Group, ReadError as GroupError};

use super::kept::{TurnStatus, subject, waits};
use super::{InvokeError, Invoker, TurnEnd};
use crate::authz::{Converse, Permit, ReadConversations};

impl Invoker {
    /// How a turn ended, or what it waits for; waits a while for one that is under way.
    pub async fn turn(&self, permit: &Permit<Converse>, turn: &str) -> Result<TurnEnd, InvokeError> {
        let workspace = permit.workspace();
        let none = || InvokeError::NoTurn { workspace: workspace.clone(), turn: turn.to_owned() };
        // Whoever may not read it is not told that it is there.
        let readable = |subject: &str| subject == permit.subject() || permit.also(ReadConversations).is_ok();
        let underway = || InvokeError::Underway { turn: turn.to_owned() };
        let alone = tokio::time::timeout(self.limits().turn_wait, self.alone_with(workspace, turn)).await;
        let _alone = alone.map_err(|_| underway())?;
        match self.known(workspace, turn).await? {
            TurnStatus::Nothing => Err(none()),
            TurnStatus::Over(record) if !readable(&record.subject) => Err(none()),
            TurnStatus::Waits(_, documents) | TurnStatus::Begun(documents) if !readable(&subject(&documents)?) => {
                Err(none())
            }
            TurnStatus::Over(record) => self.again(workspace, *record).await,
            TurnStatus::Waits(waiting, _) => Ok(waits(*waiting)),
            // Whoever leads the shard is about to take it up.
            TurnStatus::Begun(_) => Err(underway()),
        }
    }

    /// Waits until the state shows how a turn ended that another leader goes on with. Of one that ran under the term `unkept`
    /// nothing was kept but perhaps its record: where a later leader's log has none, it was not done and can be asked for again.
    pub(super) async fn follow(
        &self,
        workspace: &WorkspaceId,
        turn: &str,
        unkept: Option<u64>,
    ) -> Result<TurnEnd, InvokeError> {
        let group = self.shard(workspace).group();
        let mut applied = group.applied();
        let until = tokio::time::Instant::now() + self.limits().turn_wait;
        let (mut decided, mut is_decided) = (std::pin::pin!(decided(group, unkept)), false);
        loop {
            applied.borrow_and_update();
            match self.known(workspace, turn).await? {
                TurnStatus::Over(record) => return self.again(workspace, *record).await,
                TurnStatus::Waits(waiting, _) => return Ok(waits(*waiting)),
                TurnStatus::Nothing if is_decided => return Err(elsewhere(group.status().borrow().leader)),
                TurnStatus::Nothing | TurnStatus::Begun(_) => {}
            }
            let more = tokio::select! {
                () = decided.as_mut(), if !is_decided => {
                    is_decided = true;
                    true
                }
                changed = applied.changed() => changed.is_ok(),
                () = tokio::time::sleep_until(until) => false,
            };
            if !more {
                return Err(InvokeError::Underway { turn: turn.to_owned() });
            }
        }
    }

    /// The answer of a turn that another node goes on with, if this one is told how it ended.
    pub(super) async fn or_follow(
        &self,
        workspace: &WorkspaceId,
        ended: Result<TurnEnd, InvokeError>,
    ) -> Result<TurnEnd, InvokeError> {
        match ended {
            Err(InvokeError::Adrift { turn, unkept, why }) => {
                let reason = why.as_deref().map(|why| crate::llm::reasons(why)).unwrap_or_default();
                tracing::info!(%workspace, turn, reason, "another node goes on with a turn");
                self.follow(workspace, &turn, unkept).await
            }
            ended => ended,
        }
    }
}

/// Waits until this node has applied all that counts of what leaders up to `term` proposed: a later one leads, and whatever its
/// log does not have is in no log that counts (Ongaro and Ousterhout, *In Search of an Understandable Consensus Algorithm*,
/// sections 5.4.1 and 8). Without a term there is nothing to decide, and it waits for ever.
async fn decided(group: &Group, term: Option<u64>) {
    let Some(term) = term else { return std::future::pending().await };
    let mut status = group.status();
    loop {
        // It is closed when the group has stopped, which the question below finds out.
        _ = status.wait_for(|status| status.term > term && status.leader.is_some()).await;
        match group.catch_up().await {
            Ok(()) => return,
            Err(GroupError::NotLeader { .. } | GroupError::Unavailable) => {}
            // The node ends.
            Err(GroupError::Fatal { .. }) => std::future::pending().await,
        }
    }
}

/// The refusal that names who leads instead.
pub(super) fn elsewhere(leader: Option<NodeId>) -> InvokeError {
    InvokeError::Elsewhere { leader }
}
