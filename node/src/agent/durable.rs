//! Between runs and their steps and what is kept of them (`caxton_proto::shard`).

use caxton_proto::shard::{self, JsonText, TIME_MS_MAX};
use serde_json::json;

use super::journal::Step;
use super::run::Run;
use super::turn::size;

impl From<&Run> for shard::Run {
    fn from(it: &Run) -> Self {
        Self {
            agent: it.agent.clone(),
            turn: (&it.turn).into(),
            path: it.path.clone(),
            request_at: it.request_at as u64,
            way: it.way.clone(),
            visible: it.visible.clone(),
            options: (!it.options.is_empty()).then(|| JsonText::of(&json!(it.options))),
            waiting: it.waiting.iter().map(|(call, run)| (call.clone(), run.into())).collect(),
        }
    }
}

impl From<shard::Run> for Run {
    fn from(it: shard::Run) -> Self {
        Self {
            agent: it.agent,
            turn: it.turn.into(),
            path: it.path,
            request_at: size(it.request_at),
            way: it.way,
            visible: it.visible,
            // What another build says that this one does not know is left out, and not a reason to lose the turn.
            options: it.options.and_then(|options| serde_json::from_str(options.as_str()).ok()).unwrap_or_default(),
            waiting: it.waiting.into_iter().map(|(call, run)| (call, run.into())).collect(),
        }
    }
}

impl From<&Step> for shard::Step {
    fn from(step: &Step) -> Self {
        match step {
            Step::Answered { way, reply, spent, elapsed_ms } => Self::Answered {
                way: way.clone(),
                reply: reply.clone().into(),
                spent: (*spent).into(),
                elapsed_ms: (*elapsed_ms).min(TIME_MS_MAX),
            },
            Step::Delegated { way, call, run } => {
                Self::Delegated { way: way.clone(), call: call.clone(), run: Box::new((&**run).into()) }
            }
            Step::Returned { way, call, returned, files, visible } => Self::Returned {
                way: way.clone(),
                call: call.clone(),
                result: returned.clone().into(),
                files: files.clone(),
                visible: visible.clone(),
            },
            Step::Decided { way, decision } => Self::Decided { way: way.clone(), decision: decision.clone().into() },
            Step::TakenUp { term } => Self::TakenUp { term: *term },
        }
    }
}

impl From<shard::Step> for Step {
    fn from(step: shard::Step) -> Self {
        match step {
            shard::Step::Answered { way, reply, spent, elapsed_ms } => {
                Self::Answered { way, reply: reply.into(), spent: spent.into(), elapsed_ms }
            }
            shard::Step::Delegated { way, call, run } => Self::Delegated { way, call, run: Box::new((*run).into()) },
            shard::Step::Returned { way, call, result, files, visible } => {
                Self::Returned { way, call, returned: result.into(), files, visible }
            }
            shard::Step::Decided { way, decision } => Self::Decided { way, decision: decision.into() },
            shard::Step::TakenUp { term } => Self::TakenUp { term },
        }
    }
}
