//! A turn put together again from its journal, whichever node or build wrote it.

use caxton_proto::shard;

use super::InvokeError;
use super::kept::Beginning;
use crate::agent::attachments::Shelf;
use crate::agent::journal::{Doubt, Step};
use crate::agent::ledger::Ledger;
use crate::agent::run::Run;
use crate::agent::turn::Returned;
use crate::agent::world::World;
use crate::conversations::Documents;

/// A turn as it was when its last step was kept.
pub(super) struct ReplayedTurn {
    pub(super) beginning: Beginning,
    pub(super) run: Run,
    pub(super) shelf: Shelf,
    pub(super) ledger: Ledger,
    pub(super) taken_up: u32,
    /// The number of the journal's next piece.
    pub(super) next: u32,
}

/// Puts a turn together from its beginning and its steps.
pub(super) fn replay(documents: Documents) -> Result<ReplayedTurn, InvokeError> {
    let mut documents_of = documents.whole.into_iter();
    let first = documents_of.next().ok_or(InvokeError::Unfinished)?;
    let beginning = Beginning::from(shard::Beginning::decode(&first).map_err(InvokeError::PutDown)?);
    let steps: Result<Vec<Step>, _> = documents_of.map(|step| shard::Step::decode(&step).map(Step::from)).collect();
    let steps = steps.map_err(InvokeError::PutDown)?;
    let (shelf, ledger) = (Shelf::default(), Ledger::default());
    shelf.put_back(beginning.files.clone());
    let mut run = beginning.run.clone();
    let taken_up = run.replay(steps, &shelf, &ledger).map_err(InvokeError::Replay)?;
    Ok(ReplayedTurn { beginning, run, shelf, ledger, taken_up, next: documents.next })
}

/// What a model is told of a call that was perhaps made; nothing where it can simply be made again.
pub(super) async fn unknown(world: &dyn World, doubt: &Doubt) -> Option<Returned> {
    let agent = world.agent(&doubt.agent).await.ok()?;
    let tool = doubt.call.action.tool();
    if agent.tool(tool)?.repeatable {
        return None;
    }
    Some(Returned::failed(format!(
        "the node that called `{tool}` stopped before the call returned: it is not known whether the call was made. Do not \
         assume either; look, if you can, or say so."
    )))
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
