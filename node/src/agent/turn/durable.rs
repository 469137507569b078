//! Between a turn and what is kept of it (`caxton_proto::shard`).

use caxton_proto::shard::{self, COUNT_MAX, JsonText, TIME_MS_MAX};
use serde_json::Value;

use super::words::{Action, Call, Decision, Failure, Outcome, Returned};
use super::{Gate, Limits, Phase, Seen, Slot, SlotState, Spent, Turn};
use crate::agent::builtin::{AskCapability, ListCapabilities};

impl From<&Turn> for shard::TurnState {
    fn from(it: &Turn) -> Self {
        Self {
            limits: it.limits.into(),
            depth: it.depth,
            tools: it.tools.iter().map(Into::into).collect(),
            gates: it.gates.iter().map(|(tool, gate)| (tool.clone(), (*gate).into())).collect(),
            messages: it.messages.iter().cloned().map(Into::into).collect(),
            begun_at: it.begun_at as u64,
            spent: it.spent.into(),
            repetitions: it.seen.iter().map(|(call, seen)| (*call, (*seen).into())).collect(),
            phase: (&it.phase).into(),
        }
    }
}

impl From<shard::TurnState> for Turn {
    fn from(it: shard::TurnState) -> Self {
        Self {
            limits: it.limits.into(),
            depth: it.depth,
            tools: it.tools.into_iter().map(Into::into).collect(),
            gates: it.gates.into_iter().map(|(tool, gate)| (tool, gate.into())).collect(),
            // A place is never behind the messages, whatever was kept.
            begun_at: size(it.begun_at).min(it.messages.len()),
            messages: it.messages.into_iter().map(Into::into).collect(),
            spent: it.spent.into(),
            seen: it.repetitions.into_iter().map(|(call, repetition)| (call, repetition.into())).collect(),
            phase: it.phase.into(),
        }
    }
}

/// A size that was kept, as large as this machine can say it.
pub(in crate::agent) fn size(kept: u64) -> usize {
    usize::try_from(kept).unwrap_or(usize::MAX)
}

impl From<Limits> for shard::Limits {
    fn from(it: Limits) -> Self {
        Self {
            steps_max: it.steps_max,
            tokens_max: it.tokens_max.min(COUNT_MAX),
            wall_ms_max: it.wall_ms_max.min(TIME_MS_MAX),
            depth_max: it.depth_max,
            identical_calls_max: it.identical_calls_max,
            calls_per_reply_max: (it.calls_per_reply_max as u64).min(COUNT_MAX),
            result_bytes_max: (it.result_bytes_max as u64).min(COUNT_MAX),
        }
    }
}

impl From<shard::Limits> for Limits {
    fn from(it: shard::Limits) -> Self {
        Self {
            steps_max: it.steps_max,
            tokens_max: it.tokens_max,
            wall_ms_max: it.wall_ms_max,
            depth_max: it.depth_max,
            identical_calls_max: it.identical_calls_max,
            calls_per_reply_max: size(it.calls_per_reply_max),
            result_bytes_max: size(it.result_bytes_max),
        }
    }
}

impl From<Gate> for shard::Gate {
    fn from(gate: Gate) -> Self {
        match gate {
            Gate::Open => Self::Open,
            Gate::Approval => Self::Approval,
            Gate::Sender => Self::Sender,
        }
    }
}

impl From<shard::Gate> for Gate {
    fn from(gate: shard::Gate) -> Self {
        match gate {
            shard::Gate::Open => Self::Open,
            shard::Gate::Approval => Self::Approval,
            shard::Gate::Sender => Self::Sender,
        }
    }
}

impl From<Spent> for shard::TurnSpent {
    fn from(Spent { steps, usage, elapsed_ms }: Spent) -> Self {
        Self { steps, usage: usage.into(), elapsed_ms: elapsed_ms.min(TIME_MS_MAX) }
    }
}

impl From<shard::TurnSpent> for Spent {
    fn from(shard::TurnSpent { steps, usage, elapsed_ms }: shard::TurnSpent) -> Self {
        Self { steps, usage: usage.into(), elapsed_ms }
    }
}

impl From<Seen> for shard::Repetition {
    fn from(Seen { result, times }: Seen) -> Self {
        Self { result, times }
    }
}

impl From<shard::Repetition> for Seen {
    fn from(shard::Repetition { result, times }: shard::Repetition) -> Self {
        Self { result, times }
    }
}

impl From<&Phase> for shard::Phase {
    fn from(phase: &Phase) -> Self {
        match phase {
            Phase::Thinking => Self::Thinking,
            Phase::Calling { calls } => Self::Calling { slots: calls.iter().map(Into::into).collect() },
            Phase::Over { outcome } => Self::Over { outcome: outcome.clone().into() },
        }
    }
}

impl From<shard::Phase> for Phase {
    fn from(phase: shard::Phase) -> Self {
        match phase {
            shard::Phase::Thinking => Self::Thinking,
            shard::Phase::Calling { slots } => Self::Calling { calls: slots.into_iter().map(Into::into).collect() },
            shard::Phase::Over { outcome } => Self::Over { outcome: outcome.into() },
        }
    }
}

impl From<&Slot> for shard::Slot {
    fn from(it: &Slot) -> Self {
        let state = match &it.state {
            SlotState::Ready => shard::SlotState::Ready,
            SlotState::WaitsForApproval => shard::SlotState::WaitsForApproval,
            SlotState::Returned { returned } => shard::SlotState::Returned { result: returned.clone().into() },
        };
        Self { call: (&it.call).into(), key: it.key, state }
    }
}

impl From<shard::Slot> for Slot {
    fn from(it: shard::Slot) -> Self {
        let state = match it.state {
            shard::SlotState::Ready => SlotState::Ready,
            shard::SlotState::WaitsForApproval => SlotState::WaitsForApproval,
            shard::SlotState::Returned { result } => SlotState::Returned { returned: result.into() },
        };
        Self { call: it.call.into(), key: it.key, state }
    }
}

impl From<&Call> for shard::Call {
    fn from(it: &Call) -> Self {
        let action = match &it.action {
            Action::Tool { tool, arguments } => {
                let arguments = JsonText::of(&Value::Object(arguments.clone()));
                shard::Action::Tool { tool: tool.clone(), arguments }
            }
            Action::AskCapability(AskCapability { request, capability }) => {
                let (request, capability) = (request.clone(), capability.clone());
                shard::Action::AskCapability(shard::AskCapability { request, capability })
            }
            Action::ListCapabilities(ListCapabilities { about }) => {
                shard::Action::ListCapabilities(shard::ListCapabilities { about: about.clone() })
            }
            Action::Refuse { tool, problem } => shard::Action::Refuse { tool: tool.clone(), problem: problem.clone() },
        };
        Self { id: it.id.clone(), action }
    }
}

impl From<shard::Call> for Call {
    fn from(it: shard::Call) -> Self {
        let action = match it.action {
            shard::Action::Tool { tool, arguments } => match arguments.value() {
                Value::Object(arguments) => Action::Tool { tool, arguments },
                // Such a call is never kept as one that can be made.
                _ => Action::Refuse { tool, problem: "the arguments are not a JSON object".to_owned() },
            },
            shard::Action::AskCapability(shard::AskCapability { request, capability }) => {
                Action::AskCapability(AskCapability { request, capability })
            }
            shard::Action::ListCapabilities(shard::ListCapabilities { about }) => {
                Action::ListCapabilities(ListCapabilities { about })
            }
            shard::Action::Refuse { tool, problem } => Action::Refuse { tool, problem },
        };
        Self { id: it.id, action }
    }
}

impl From<Returned> for shard::CallResult {
    fn from(Returned { text, failed, usage, cut }: Returned) -> Self {
        Self { text, failed, usage: usage.into(), truncated: cut }
    }
}

impl From<shard::CallResult> for Returned {
    fn from(shard::CallResult { text, failed, usage, truncated }: shard::CallResult) -> Self {
        Self { text, failed, usage: usage.into(), cut: truncated }
    }
}

impl From<Decision> for shard::Decision {
    fn from(decision: Decision) -> Self {
        match decision {
            Decision::Approved => Self::Approved,
            Decision::Denied { reason } => Self::Denied { reason },
        }
    }
}

impl From<shard::Decision> for Decision {
    fn from(decision: shard::Decision) -> Self {
        match decision {
            shard::Decision::Approved => Self::Approved,
            shard::Decision::Denied { reason } => Self::Denied { reason },
        }
    }
}

impl From<Outcome> for shard::Outcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Answered { text, cut } => Self::Answered { text, truncated: cut },
            Outcome::SenderCalls { text, calls } => {
                Self::SenderCalls { text, calls: calls.into_iter().map(Into::into).collect() }
            }
            Outcome::Failed { failure } => Self::Failed { failure: failure.into() },
        }
    }
}

impl From<shard::Outcome> for Outcome {
    fn from(outcome: shard::Outcome) -> Self {
        match outcome {
            shard::Outcome::Answered { text, truncated } => Self::Answered { text, cut: truncated },
            shard::Outcome::SenderCalls { text, calls } => {
                Self::SenderCalls { text, calls: calls.into_iter().map(Into::into).collect() }
            }
            shard::Outcome::Failed { failure } => Self::Failed { failure: failure.into() },
        }
    }
}

impl From<Failure> for shard::Failure {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::StepsSpent { steps_max } => Self::StepsSpent { steps_max },
            Failure::TokensSpent { used, tokens_max } => {
                Self::TokensSpent { used: used.min(COUNT_MAX), tokens_max: tokens_max.min(COUNT_MAX) }
            }
            Failure::TimeSpent { wall_ms_max } => Self::TimeSpent { wall_ms_max: wall_ms_max.min(TIME_MS_MAX) },
            Failure::Loop { tool, times } => Self::Loop { tool, times },
            Failure::Silent => Self::Silent,
            Failure::Withheld => Self::Withheld,
            Failure::Model { reason } => Self::Model { reason },
            Failure::Stopped => Self::Stopped,
            Failure::GivenUp { reason } => Self::GivenUp { reason },
        }
    }
}

impl From<shard::Failure> for Failure {
    fn from(failure: shard::Failure) -> Self {
        match failure {
            shard::Failure::StepsSpent { steps_max } => Self::StepsSpent { steps_max },
            shard::Failure::TokensSpent { used, tokens_max } => Self::TokensSpent { used, tokens_max },
            shard::Failure::TimeSpent { wall_ms_max } => Self::TimeSpent { wall_ms_max },
            shard::Failure::Loop { tool, times } => Self::Loop { tool, times },
            shard::Failure::Silent => Self::Silent,
            shard::Failure::Withheld => Self::Withheld,
            shard::Failure::Model { reason } => Self::Model { reason },
            shard::Failure::Stopped => Self::Stopped,
            shard::Failure::GivenUp { reason } => Self::GivenUp { reason },
        }
    }
}
