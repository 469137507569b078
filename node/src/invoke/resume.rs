//! Turns that go on: those that another leader of the shard began, and those that were put down.

use std::sync::Arc;

use caxton_proto::WorkspaceId;

use super::follow::elsewhere;
use super::journal::TurnJournal;
use super::kept::{Beginning, TurnStatus};
use super::memory::Asker;
use super::replay::{ReplayedTurn, replay, unknown};
use super::{InvokeError, Invoker, TurnEnd, Underway};
use crate::agent::attachments::Shelf;
use crate::agent::events::Events;
use crate::agent::journal::{Journal, Step};
use crate::agent::ledger::Ledger;
use crate::agent::run::Run;
use crate::agent::world::World;
use crate::conversations::Documents;

/// How often a turn is taken up by another leader before it is given up: it may be what ends the nodes.
const TAKE_UPS_MAX: u32 = 3;

impl Underway {
    /// Another node goes on with the turn, if it knows of it. `known` says that it may.
    pub(super) fn adrift(&self, known: bool, why: Option<crate::conversations::RecordError>) -> InvokeError {
        let unkept = (!known).then_some(self.term);
        InvokeError::Adrift { turn: self.turn.clone(), unkept, why: why.map(Box::new) }
    }
}

impl Invoker {
    /// Goes on with a turn that another leader of the shard began.
    pub(super) async fn resume(&self, workspace: &WorkspaceId, turn: &str, term: u64) -> Result<(), InvokeError> {
        let _alone = self.alone_with(workspace, turn).await;
        match self.known(workspace, turn).await? {
            TurnStatus::Begun(documents) => self.go_on(documents, term, Events::none()).await.map(drop),
            TurnStatus::Nothing | TurnStatus::Over(_) | TurnStatus::Waits(..) => Ok(()),
        }
    }

    /// The same, for whoever is alone with the turn.
    pub(super) async fn go_on(&self, documents: Documents, term: u64, events: Events) -> Result<TurnEnd, InvokeError> {
        let ReplayedTurn { beginning, mut run, shelf, ledger, taken_up, next } = replay(documents)?;
        let workspace = beginning.workspace.clone();
        let _in_turn = self.alone(&workspace, &beginning.conversation).await;
        let mut settled = self.catalogs().settled();
        // What is not loaded by then fails below.
        _ = tokio::time::timeout(self.limits().takeover_wait, settled.wait_for(|settled| *settled)).await;
        let asker = Asker::new(&beginning.subject, &beginning.conversation, &beginning.turn);
        let world = self.world(&workspace, asker)?;
        self.models().budgets().take_over(crate::llm::models::today(), &workspace, &ledger.all());
        let underway = self.taken_up(beginning, shelf, ledger, term, next).await?;
        let log = Arc::clone(&underway.log);
        underway.journal.later(Step::TakenUp { term });
        if taken_up >= TAKE_UPS_MAX {
            run.turn.give_up(format!("{taken_up} nodes began to go on with it, and none of them came to its end"));
        }
        for doubt in run.doubts() {
            if let Some(returned) = unknown(&*world, &doubt).await {
                underway.journal.later(run.settle(&doubt, returned).map_err(InvokeError::Replay)?);
            }
        }
        // Before anything is done: a turn that ends one node after the other is given up in the end.
        if underway.journal.all().await.is_err() {
            return Err(self.lost(&underway).await);
        }
        match world.agent(&run.agent).await {
            Ok(agent) => self.finish(underway, world, agent, run, events.noted(log)).await,
            Err(problem) => {
                run.turn.give_up(problem.to_string());
                self.record(&underway, world.revision(), run).await
            }
        }
    }

    pub(super) async fn taken_up(
        &self,
        beginning: Beginning,
        shelf: Shelf,
        ledger: Ledger,
        term: u64,
        next: u32,
    ) -> Result<Underway, InvokeError> {
        let earlier = self.earlier_again(&beginning, &shelf).await?;
        let log = self.log(&beginning.workspace, &beginning.conversation, &beginning.turn, &beginning.subject);
        let shard = self.conversations().of(&beginning.workspace);
        let journal = |beginning| Arc::new(TurnJournal::resumed(shard, beginning, term, next));
        let underway = self.underway(beginning, (shelf, ledger), log, term, journal);
        Ok(Underway { earlier, resumed: true, ..underway })
    }

    /// A turn as it was when its last step was kept, for whoever ends it here.
    pub(super) async fn put_back(&self, documents: Documents, term: u64) -> Result<(Underway, Run), InvokeError> {
        let ReplayedTurn { beginning, run, shelf, ledger, next, taken_up: _ } = replay(documents)?;
        Ok((self.taken_up(beginning, shelf, ledger, term, next).await?, run))
    }

    /// This node must not go on with the turn. Where nobody else knows of it, nothing was done.
    pub(super) async fn lost(&self, underway: &Underway) -> InvokeError {
        let leader = self.shard(&underway.workspace).group().status().borrow().leader;
        let why = match underway.journal.trouble() {
            Some(super::journal::Trouble::Log(error)) => Some(error),
            Some(super::journal::Trouble::Overtaken) | None => None,
        };
        if underway.journal.is_known().await { underway.adrift(true, why) } else { elsewhere(leader) }
    }
}
