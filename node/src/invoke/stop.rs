//! A turn is stopped: what it waits for is let go at once, and that it was stopped is recorded as its ending.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use caxton_proto::shard::TurnRecord;
use caxton_proto::{AgentName, Revision, WorkspaceId};
use tokio_util::sync::CancellationToken;

use super::kept::{TurnStatus, subject};
use super::{InvokeError, Invoker};
use crate::agent::turn::Failure;
use crate::authz::{Converse, Permit, StopTurns};

/// The turns that run on this node. A clone is a handle on the same.
#[derive(Clone, Default)]
pub(super) struct RunningTurns(Arc<Mutex<HashMap<(WorkspaceId, String), Running>>>);

struct Running {
    subject: String,
    stop: CancellationToken,
    stopped_by: Option<String>,
}

/// A turn among those that run, until it is dropped.
pub(super) struct RunningTurn {
    all: RunningTurns,
    key: (WorkspaceId, String),
    stop: CancellationToken,
    /// Cancelled when nobody waits for the answer any more, where that ends the turn.
    left: std::sync::OnceLock<CancellationToken>,
}

impl RunningTurns {
    /// Notes that a turn runs. Only one node, and one task of it, runs a turn at a time.
    pub(super) fn enter(&self, workspace: &WorkspaceId, turn: &str, subject: &str) -> RunningTurn {
        let (key, stop) = ((workspace.clone(), turn.to_owned()), CancellationToken::new());
        let running = Running { subject: subject.to_owned(), stop: stop.clone(), stopped_by: None };
        self.lock().insert(key.clone(), running);
        RunningTurn { all: self.clone(), key, stop, left: std::sync::OnceLock::new() }
    }

    /// The turns of a workspace that run here.
    pub(super) fn of(&self, workspace: &WorkspaceId) -> Vec<String> {
        let running = self.lock();
        running.keys().filter(|(of, _)| of == workspace).map(|(_, turn)| turn.clone()).collect()
    }

    /// Stops a turn if it runs here and `may` says that whoever asks may do so to the turn of this subject.
    pub(super) fn stop(&self, workspace: &WorkspaceId, turn: &str, by: &str, may: impl Fn(&str) -> bool) {
        if let Some(running) = self.lock().get_mut(&(workspace.clone(), turn.to_owned()))
            && may(&running.subject)
        {
            running.stopped_by.get_or_insert_with(|| by.to_owned());
            running.stop.cancel();
        }
    }

    /// Whether a turn runs here.
    pub(super) fn has(&self, workspace: &WorkspaceId, turn: &str) -> bool {
        self.lock().contains_key(&(workspace.clone(), turn.to_owned()))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(WorkspaceId, String), Running>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RunningTurn {
    /// From now on the turn ends when `left` is cancelled, too.
    pub(super) fn ends_with(&self, left: Option<CancellationToken>) {
        if let Some(left) = left {
            _ = self.left.set(left);
        }
    }

    /// Waits until somebody stops the turn, or nobody waits for it any more; says who it was.
    pub(super) async fn stopped(&self) -> String {
        let left = async {
            match self.left.get() {
                Some(left) => left.cancelled().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = left => return "its sender, who hung up".to_owned(),
        }
        self.all.lock().get(&self.key).and_then(|running| running.stopped_by.clone()).unwrap_or_default()
    }
}

impl Drop for RunningTurn {
    fn drop(&mut self) {
        self.all.lock().remove(&self.key);
    }
}

/// How a turn is over that was to be stopped.
#[derive(Debug)]
pub struct StoppedTurn {
    pub conversation: String,
    /// The agent whose turn it was.
    pub agent: AgentName,
    /// Why it has no answer: [`Failure::Stopped`], unless it was over before; none where it was answered before.
    pub failure: Option<Failure>,
}

impl StoppedTurn {
    fn of(record: TurnRecord) -> StoppedTurn {
        let failure = record.ending.and_then(|ending| ending.failure).map(Into::into);
        StoppedTurn { conversation: record.conversation, agent: record.agent, failure }
    }
}

impl Invoker {
    /// Stops a turn, whether it runs or waits for a person; its subject may, and whoever may stop everybody's. Returns when
    /// the turn is over and recorded. One that is over already stays as it is.
    pub async fn stop(&self, permit: &Permit<Converse>, turn: &str) -> Result<StoppedTurn, InvokeError> {
        let workspace = permit.workspace();
        let none = || InvokeError::NoTurn { workspace: workspace.clone(), turn: turn.to_owned() };
        // Whoever may not stop it is not told that it is there.
        let may = |subject: &str| subject == permit.subject() || permit.also(StopTurns).is_ok();
        let term = self.lead(workspace).await?;
        self.shared.running.stop(workspace, turn, permit.subject(), may);
        // Whoever runs it records its end first.
        let alone = tokio::time::timeout(self.limits().turn_wait, self.alone_with(workspace, turn)).await;
        let _alone = alone.map_err(|_| InvokeError::Underway { turn: turn.to_owned() })?;
        let documents = match self.known(workspace, turn).await? {
            TurnStatus::Nothing => return Err(none()),
            TurnStatus::Over(record) if may(&record.subject) => return Ok(StoppedTurn::of(*record)),
            TurnStatus::Over(_) => return Err(none()),
            TurnStatus::Waits(_, documents) | TurnStatus::Begun(documents) => documents,
        };
        if !may(&subject(&documents)?) {
            return Err(none());
        }
        let (underway, mut run) = self.put_back(documents, term).await?;
        let _in_turn = self.alone(workspace, &underway.conversation).await;
        run.turn.stop();
        underway.log.stopped(permit.subject());
        let (conversation, agent) = (underway.conversation.clone(), run.agent.clone());
        let revision = self.catalogs().get(workspace).map_or(Revision::NONE, |catalog| catalog.revision);
        match self.record(&underway, revision, run).await {
            Ok(_) => Ok(StoppedTurn { conversation, agent, failure: None }),
            Err(InvokeError::Turn { agent, failure }) => {
                Ok(StoppedTurn { conversation, agent, failure: Some(failure) })
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_turn_is_stopped_by_whoever_may_and_only_while_it_runs() {
        let (running, demo) = (RunningTurns::default(), "demo".parse::<WorkspaceId>().expect("a name"));
        let turn = running.enter(&demo, "t", "ada");
        running.stop(&demo, "t", "eve", |subject| subject == "eve");
        running.stop(&demo, "other", "ada", |_| true);
        assert!(!turn.stop.is_cancelled(), "it is neither hers nor another");
        running.stop(&demo, "t", "ada", |subject| subject == "ada");
        running.stop(&demo, "t", "ops", |_| true);
        assert_eq!(turn.stopped().await, "ada", "the first counts");
        drop(turn);
        assert!(running.lock().is_empty());
    }
}
