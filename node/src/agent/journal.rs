//! What a turn keeps of its steps, so that another node can go on with it when this one is gone.
//!
//! The rule: a step is kept before the next one is taken if doing it again would cost money or could do harm: a model's
//! reply that asks for calls, the result of a call that is not known to be repeatable, a person's decision, what an agent
//! that was asked has answered. Anything else is kept along with the next of those. A reply that ends the turn is kept by
//! the turn's record.

use std::sync::Arc;

use caxton_proto::AgentName;
use futures::future::BoxFuture;

use super::attachments::{Attachment, Shelf, Visible};
use super::ledger::Ledger;
use super::run::Run;
use super::turn::{Action, Call, Decision, Next, Returned, UnknownCall};
use crate::chat::Spent;
use crate::llm::Reply;

/// One step, with the way to the run that took it: the calls that asked for one another, from the outermost run on.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// A model answered.
    Answered {
        /// In which run.
        way: Vec<String>,
        /// What it said.
        reply: Reply,
        /// What that took.
        spent: Spent,
        /// The time that the run has used with it, in milliseconds.
        elapsed_ms: u64,
    },
    /// Another agent is asked.
    Delegated {
        /// In which run.
        way: Vec<String>,
        /// By which call.
        call: String,
        /// Its run, before anything has happened in it.
        run: Box<Run>,
    },
    /// A call returned.
    Returned {
        /// In which run.
        way: Vec<String>,
        call: String,
        /// What came of it.
        returned: Returned,
        /// Files that came of it.
        files: Vec<Attachment>,
        /// Files that the run now sees.
        visible: Visible,
    },
    /// A person decided.
    Decided {
        /// The way to the call, which comes last.
        way: Vec<String>,
        decision: Decision,
    },
    /// Another leader goes on with the turn.
    TakenUp { term: u64 },
}

/// Steps can be kept no more: this node must not go on with the turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the turn's steps can be kept no more on this node")]
pub struct Lost;

/// Where the steps of a turn are kept.
pub trait Journal: Send + Sync + 'static {
    /// Keeps a step along with the next one that has to be.
    fn later(&self, step: Step);

    /// Keeps a step, and all before it; on disk on a majority when this returns.
    fn now(&self, step: Step) -> BoxFuture<'_, Result<(), Lost>>;
}

/// A call that may have been made, or not: it was given out, and nothing is known to have come of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Doubt {
    /// The way to its run.
    pub way: Vec<String>,
    pub agent: AgentName,
    pub call: Call,
}

impl Run {
    /// Goes through what was kept, from the beginning; says how often the turn was taken up by another leader.
    pub fn replay(
        &mut self,
        steps: impl IntoIterator<Item = Step>,
        shelf: &Shelf,
        ledger: &Ledger,
    ) -> Result<u32, UnknownCall> {
        let mut taken_up = 0;
        for step in steps {
            match step {
                Step::Answered { way, reply, spent, elapsed_ms } => {
                    let run = self.at(&way)?;
                    ledger.add(&run.agent, spent);
                    run.turn.answered(reply)?;
                    run.turn.passed(elapsed_ms.saturating_sub(run.turn.spent().elapsed_ms));
                }
                Step::Delegated { way, call, run } => _ = self.at(&way)?.waiting.insert(call, *run),
                Step::Returned { way, call, returned, files, visible } => {
                    shelf.put_back(files.into_iter().map(Arc::new));
                    let run = self.at(&way)?;
                    run.visible.extend(visible);
                    run.waiting.remove(&call);
                    run.turn.returned(&call, returned)?;
                }
                Step::Decided { way, decision } => self.decided(&way, decision)?,
                Step::TakenUp { .. } => taken_up += 1,
            }
        }
        Ok(taken_up)
    }

    /// Calls of tools, here and below, of which it is not known whether they were made.
    pub fn doubts(&self) -> Vec<Doubt> {
        let own = match self.turn.next() {
            Next::Call(calls) => calls,
            Next::AskModel { .. } | Next::AwaitApproval(_) | Next::Over(_) => Vec::new(),
        };
        let tools = own.into_iter().filter(|call| matches!(call.action, Action::Tool { .. }));
        let doubt = |call: &Call| Doubt { way: self.way.clone(), agent: self.agent.clone(), call: call.clone() };
        tools.map(doubt).chain(self.waiting.values().flat_map(Run::doubts)).collect()
    }

    /// Ends the doubt by saying what the model is told.
    pub fn settle(&mut self, doubt: &Doubt, returned: Returned) -> Result<Step, UnknownCall> {
        self.at(&doubt.way)?.turn.returned(&doubt.call.id, returned.clone())?;
        let (way, call) = (doubt.way.clone(), doubt.call.id.clone());
        Ok(Step::Returned { way, call, returned, files: Vec::new(), visible: Visible::new() })
    }

    /// Takes what came of a call that was waited for; the way to it ends with its id.
    pub fn take_answer(&mut self, way: &[String], returned: Returned) -> Result<Step, UnknownCall> {
        let Some((call, above)) = way.split_last() else {
            return Err(UnknownCall { what: "the result of no call".to_owned() });
        };
        let run = self.at(above)?;
        let returned = run.turn.cut(returned);
        run.turn.returned(call, returned.clone())?;
        let (way, call) = (above.to_vec(), call.clone());
        Ok(Step::Returned { way, call, returned, files: Vec::new(), visible: Visible::new() })
    }

    fn at(&mut self, way: &[String]) -> Result<&mut Run, UnknownCall> {
        match way.split_first() {
            None => Ok(self),
            Some((call, rest)) => match self.waiting.get_mut(call) {
                Some(run) => run.at(rest),
                None => Err(UnknownCall { what: format!("a step below call {call:?}") }),
            },
        }
    }
}

/// Keeps nothing, for tests of what needs no journal.
#[cfg(test)]
pub struct Unkept;

#[cfg(test)]
impl Journal for Unkept {
    fn later(&self, _: Step) {}

    fn now(&self, _: Step) -> BoxFuture<'_, Result<(), Lost>> {
        Box::pin(async { Ok(()) })
    }
}
