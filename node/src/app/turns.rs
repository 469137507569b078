//! Messages to agents, the turns that answer them, and the calls that wait for a person.
//!
//! A turn is a job of the node, not of the connection that asked for it. When whoever asked goes away it is stopped, so that
//! nobody pays for an answer that nobody hears; unless the message has a key, by which its answer can be asked for again, or
//! says that it goes on. Either way how it ended is recorded.

use std::sync::Arc;

use caxton_proto::WorkspaceId;
use caxton_proto::shard::Approval;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};

use crate::agent::events::{Events, Heard};
use crate::agent::turn::Decision;
use crate::api::messages::MessageRequest;
use crate::authz::{Converse, DecideApprovals, Permit, UnscopedToken};
use crate::catalog::Catalog;
use crate::invoke::{ClientTurn, Freshness, InvokeError, Invoker, StoppedTurn, TurnEnd};
use crate::llm::reasons;
use crate::tasks::{Job, JobError, Tasks};

/// Whether somebody listens to the steps of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// Every step is told as it happens.
    Present,
    /// Only how the turn ends is of interest.
    Absent,
}

/// Why a turn has no ending to give.
#[derive(Debug, thiserror::Error)]
pub enum TurnError {
    /// It was not begun, or ended without an answer.
    #[error(transparent)]
    Invoke(#[from] InvokeError),
    /// Its job was cut off, because the node stops, or broke: a defect.
    #[error("the turn came to no end")]
    CutOff(#[source] JobError),
}

/// A turn that was started.
pub struct StartedTurn {
    /// Its steps as they happen; at once at its end where no listener is present. The channel closes when the turn is over.
    pub events: Heard,
    ending: TurnEnding,
}

impl StartedTurn {
    /// How the turn ends, once it does.
    pub async fn ending(self) -> Result<TurnEnd, TurnError> {
        self.ending.wait().await
    }

    /// The steps and the ending apart, for whoever tells both.
    pub fn split(self) -> (Heard, TurnEnding) {
        (self.events, self.ending)
    }
}

/// The ending of a turn that was started. When it is dropped before it is there, nobody waits for it.
pub struct TurnEnding {
    job: Job<Result<TurnEnd, InvokeError>>,
    /// Stops the turn when it is dropped.
    _leash: Option<DropGuard>,
}

impl TurnEnding {
    /// How the turn ends, once it does.
    pub async fn wait(self) -> Result<TurnEnd, TurnError> {
        Ok(self.job.await.map_err(TurnError::CutOff)??)
    }
}

/// The turns of all workspaces.
pub struct Turns {
    invoker: Invoker,
    tasks: Tasks,
}

impl Turns {
    /// Turns that `invoker` takes, as jobs of `tasks`.
    pub fn new(invoker: Invoker, tasks: Tasks) -> Turns {
        Turns { invoker, tasks }
    }

    /// Starts the turn that answers a message. An error is one from before the turn began: nothing was done.
    pub async fn start(
        &self,
        permit: &Permit<Converse>,
        request: MessageRequest,
        mut client: ClientTurn,
        listener: Listener,
    ) -> Result<StartedTurn, InvokeError> {
        // Before the answer begins: another node may have to give it.
        self.invoker.lead(permit.workspace()).await?;
        let (invoker, permit) = (self.invoker.clone(), permit.clone());
        let workspace = permit.workspace().clone();
        let leash = (request.idempotency_key.is_none() && !request.detached).then(CancellationToken::new);
        client.left.clone_from(&leash);
        let walk = move |events| async move { invoker.message(&permit, request, client, events).await };
        Ok(self.spawn(workspace, listener, leash, walk))
    }

    /// Decides on a call that waits, and goes on with its turn to the end or to the next call that waits.
    pub fn decide(&self, permit: &Permit<DecideApprovals>, approval: String, decision: Decision) -> StartedTurn {
        let (invoker, permit) = (self.invoker.clone(), permit.clone());
        let workspace = permit.workspace().clone();
        let walk = move |events| async move { invoker.decide(&permit, &approval, decision, events).await };
        self.spawn(workspace, Listener::Absent, None, walk)
    }

    fn spawn<F>(
        &self,
        workspace: WorkspaceId,
        listener: Listener,
        leash: Option<CancellationToken>,
        walk: impl FnOnce(Events) -> F,
    ) -> StartedTurn
    where
        F: Future<Output = Result<TurnEnd, InvokeError>> + Send + 'static,
    {
        let (channel, heard) = Events::channel();
        let events = match listener {
            Listener::Present => channel,
            Listener::Absent => {
                drop(channel);
                Events::none()
            }
        };
        let walk = walk(events);
        let job = self.tasks.spawn_job("turn", async move {
            // A failure is written to the log once, where the walk ends.
            walk.await.inspect_err(|error| {
                if error.is_ours() {
                    warn!(%workspace, reason = %reasons(error), "a message was not answered");
                }
            })
        });
        let ending = TurnEnding { job, _leash: leash.map(CancellationToken::drop_guard) };
        StartedTurn { events: heard, ending }
    }

    /// How a turn ended, or what it waits for; waits a while for one that is under way.
    pub async fn ending_of(
        &self,
        permit: &Permit<Converse>,
        turn: &str,
        freshness: Freshness,
    ) -> Result<TurnEnd, InvokeError> {
        self.invoker.current(permit.workspace(), freshness).await?;
        self.invoker.turn(permit, turn).await
    }

    /// Stops a turn; says how it is over, once it is.
    pub async fn stop(&self, permit: &Permit<Converse>, turn: &str) -> Result<StoppedTurn, InvokeError> {
        let stopped = self.invoker.stop(permit, turn).await?;
        info!(workspace = %permit.workspace(), turn, by = permit.subject(), "a turn was to be stopped");
        Ok(stopped)
    }

    /// The calls that wait for a person's decision, the oldest first: one's own, or everybody's for whoever may read them.
    pub async fn approvals(
        &self,
        permit: &Permit<Converse>,
        freshness: Freshness,
    ) -> Result<Vec<Approval>, InvokeError> {
        self.invoker.current(permit.workspace(), freshness).await?;
        self.invoker.approvals(permit).await
    }

    /// What this node serves, for those who look for an agent to talk to.
    pub fn served(&self, unscoped: &UnscopedToken<Converse>) -> Vec<Arc<Catalog>> {
        self.invoker
            .catalogs()
            .all()
            .into_iter()
            .filter(|catalog| unscoped.permit(&catalog.workspace).is_ok())
            .collect()
    }
}
