//! Between runs, with the state of their turns, and the messages of the .proto file.

use super::message::{agent, all, count, digest, each, json, time};
use super::pb::{self, call, outcome, phase, slot};
use super::{DecodeError, field};
use crate::shard::{
    Action, AskCapability, Call, Gate, Limits, ListCapabilities, Outcome, Phase, Repetition, Run, Slot, SlotState,
    ToolDefinition, TurnSpent, TurnState,
};

impl From<&Run> for pb::Run {
    fn from(it: &Run) -> Self {
        let below = |(call, run): (&String, &Run)| pb::RunBelow { call: call.clone(), run: Some(run.into()) };
        Self {
            agent: it.agent.to_string(),
            turn: Some((&it.turn).into()),
            path: it.path.iter().map(ToString::to_string).collect(),
            request_at: it.request_at,
            way: it.way.clone(),
            visible: it.visible.iter().cloned().collect(),
            options: it.options.as_ref().map(|options| options.as_str().to_owned()),
            waiting: it.waiting.iter().map(below).collect(),
        }
    }
}

impl TryFrom<pb::Run> for Run {
    type Error = DecodeError;
    fn try_from(it: pb::Run) -> Result<Self, DecodeError> {
        let below = |pb::RunBelow { call, run }| Ok((call, run.ok_or(field("run"))?.try_into()?));
        Ok(Self {
            agent: agent(it.agent)?,
            turn: it.turn.ok_or(field("turn"))?.try_into()?,
            path: it.path.into_iter().map(agent).collect::<Result<_, _>>()?,
            request_at: count(it.request_at),
            way: it.way,
            visible: it.visible.into_iter().collect(),
            options: it.options.map(|options| json(options, "options")).transpose()?,
            waiting: it.waiting.into_iter().map(below).collect::<Result<_, DecodeError>>()?,
        })
    }
}

impl From<&TurnState> for pb::TurnState {
    fn from(it: &TurnState) -> Self {
        let gates = it.gates.iter().map(|(tool, gate)| {
            let gate = match gate {
                Gate::Open => pb::Gate::Open,
                Gate::Approval => pb::Gate::Approval,
                Gate::Sender => pb::Gate::Sender,
            };
            pb::ToolGate { tool: tool.clone(), gate: gate.into() }
        });
        let repetitions = it.repetitions.iter().map(|(call, repetition)| pb::Repetition {
            call: call.as_bytes().to_vec(),
            result: repetition.result.as_bytes().to_vec(),
            times: repetition.times,
        });
        Self {
            limits: Some(it.limits.into()),
            depth: it.depth,
            tools: each(&it.tools),
            gates: gates.collect(),
            messages: each(&it.messages),
            begun_at: it.begun_at,
            spent: Some(it.spent.into()),
            repetitions: repetitions.collect(),
            phase: Some((&it.phase).into()),
        }
    }
}

impl TryFrom<pb::TurnState> for TurnState {
    type Error = DecodeError;
    fn try_from(it: pb::TurnState) -> Result<Self, DecodeError> {
        let gate = |it: pb::ToolGate| {
            let gate = match it.gate() {
                pb::Gate::Unspecified => return Err(field("gate")),
                pb::Gate::Open => Gate::Open,
                pb::Gate::Approval => Gate::Approval,
                pb::Gate::Sender => Gate::Sender,
            };
            Ok((it.tool, gate))
        };
        let repetition = |it: pb::Repetition| {
            let repetition = Repetition { result: digest(&it.result, "result")?, times: it.times };
            Ok((digest(&it.call, "call")?, repetition))
        };
        Ok(Self {
            limits: it.limits.ok_or(field("limits"))?.into(),
            depth: it.depth,
            tools: all(it.tools)?,
            gates: it.gates.into_iter().map(gate).collect::<Result<_, DecodeError>>()?,
            messages: all(it.messages)?,
            begun_at: count(it.begun_at),
            spent: it.spent.unwrap_or_default().into(),
            repetitions: it.repetitions.into_iter().map(repetition).collect::<Result<_, DecodeError>>()?,
            phase: it.phase.ok_or(field("phase"))?.try_into()?,
        })
    }
}

impl From<Limits> for pb::Limits {
    fn from(it: Limits) -> Self {
        Self {
            steps_max: it.steps_max,
            tokens_max: it.tokens_max,
            wall_ms_max: it.wall_ms_max,
            depth_max: it.depth_max,
            identical_calls_max: it.identical_calls_max,
            calls_per_reply_max: it.calls_per_reply_max,
            result_bytes_max: it.result_bytes_max,
        }
    }
}

impl From<pb::Limits> for Limits {
    fn from(it: pb::Limits) -> Self {
        Self {
            steps_max: it.steps_max,
            tokens_max: count(it.tokens_max),
            wall_ms_max: time(it.wall_ms_max),
            depth_max: it.depth_max,
            identical_calls_max: it.identical_calls_max,
            calls_per_reply_max: count(it.calls_per_reply_max),
            result_bytes_max: count(it.result_bytes_max),
        }
    }
}

impl From<TurnSpent> for pb::TurnSpent {
    fn from(it: TurnSpent) -> Self {
        Self { steps: it.steps, usage: Some(it.usage.into()), elapsed_ms: it.elapsed_ms }
    }
}

impl From<pb::TurnSpent> for TurnSpent {
    fn from(it: pb::TurnSpent) -> Self {
        Self { steps: it.steps, usage: it.usage.into(), elapsed_ms: time(it.elapsed_ms) }
    }
}

impl From<&ToolDefinition> for pb::ToolDefinition {
    fn from(it: &ToolDefinition) -> Self {
        let parameters = it.parameters.as_str().to_owned();
        Self { name: it.name.clone(), description: it.description.clone(), parameters }
    }
}

impl TryFrom<pb::ToolDefinition> for ToolDefinition {
    type Error = DecodeError;
    fn try_from(it: pb::ToolDefinition) -> Result<Self, DecodeError> {
        Ok(Self { name: it.name, description: it.description, parameters: json(it.parameters, "parameters")? })
    }
}

impl From<&Phase> for pb::Phase {
    fn from(it: &Phase) -> Self {
        let body = match it {
            Phase::Thinking => phase::Body::Thinking(pb::Empty {}),
            Phase::Calling { slots } => phase::Body::Calling(pb::Calling { slots: each(slots) }),
            Phase::Over { outcome } => phase::Body::Over(outcome.into()),
        };
        Self { body: Some(body) }
    }
}

impl TryFrom<pb::Phase> for Phase {
    type Error = DecodeError;
    fn try_from(it: pb::Phase) -> Result<Self, DecodeError> {
        Ok(match it.body.ok_or(field("phase"))? {
            phase::Body::Thinking(pb::Empty {}) => Phase::Thinking,
            phase::Body::Calling(pb::Calling { slots }) => Phase::Calling { slots: all(slots)? },
            phase::Body::Over(outcome) => Phase::Over { outcome: outcome.try_into()? },
        })
    }
}

impl From<&Slot> for pb::Slot {
    fn from(it: &Slot) -> Self {
        let state = match &it.state {
            SlotState::Ready => slot::State::Ready(pb::Empty {}),
            SlotState::WaitsForApproval => slot::State::WaitsForApproval(pb::Empty {}),
            SlotState::Returned { result } => slot::State::Returned(result.into()),
        };
        Self { call: Some((&it.call).into()), key: it.key.as_bytes().to_vec(), state: Some(state) }
    }
}

impl TryFrom<pb::Slot> for Slot {
    type Error = DecodeError;
    fn try_from(it: pb::Slot) -> Result<Self, DecodeError> {
        let state = match it.state.ok_or(field("state"))? {
            slot::State::Ready(pb::Empty {}) => SlotState::Ready,
            slot::State::WaitsForApproval(pb::Empty {}) => SlotState::WaitsForApproval,
            slot::State::Returned(result) => SlotState::Returned { result: result.into() },
        };
        Ok(Self { call: it.call.ok_or(field("call"))?.try_into()?, key: digest(&it.key, "key")?, state })
    }
}

impl From<&Call> for pb::Call {
    fn from(it: &Call) -> Self {
        let action = match &it.action {
            Action::Tool { tool, arguments } => {
                call::Action::Tool(pb::ToolAction { tool: tool.clone(), arguments: arguments.as_str().to_owned() })
            }
            Action::AskCapability(AskCapability { request, capability }) => {
                call::Action::AskCapability(pb::AskCapability {
                    request: request.clone(),
                    capability: capability.clone(),
                })
            }
            Action::ListCapabilities(ListCapabilities { about }) => {
                call::Action::ListCapabilities(pb::ListCapabilities { about: about.clone() })
            }
            Action::Refuse { tool, problem } => {
                call::Action::Refuse(pb::Refusal { tool: tool.clone(), problem: problem.clone() })
            }
        };
        Self { id: it.id.clone(), action: Some(action) }
    }
}

impl TryFrom<pb::Call> for Call {
    type Error = DecodeError;
    fn try_from(pb::Call { id, action }: pb::Call) -> Result<Self, DecodeError> {
        let action = match action.ok_or(field("action"))? {
            call::Action::Tool(pb::ToolAction { tool, arguments }) => {
                Action::Tool { tool, arguments: json(arguments, "arguments")? }
            }
            call::Action::AskCapability(pb::AskCapability { request, capability }) => {
                Action::AskCapability(AskCapability { request, capability })
            }
            call::Action::ListCapabilities(pb::ListCapabilities { about }) => {
                Action::ListCapabilities(ListCapabilities { about })
            }
            call::Action::Refuse(pb::Refusal { tool, problem }) => Action::Refuse { tool, problem },
        };
        Ok(Self { id, action })
    }
}

impl From<&Outcome> for pb::Outcome {
    fn from(it: &Outcome) -> Self {
        let body = match it {
            Outcome::Answered { text, truncated } => {
                outcome::Body::Answered(pb::Answer { text: text.clone(), truncated: *truncated })
            }
            Outcome::SenderCalls { text, calls } => {
                outcome::Body::SenderCalls(pb::SenderCalls { text: text.clone(), calls: each(calls) })
            }
            Outcome::Failed { failure } => outcome::Body::Failed(failure.into()),
        };
        Self { body: Some(body) }
    }
}

impl TryFrom<pb::Outcome> for Outcome {
    type Error = DecodeError;
    fn try_from(it: pb::Outcome) -> Result<Self, DecodeError> {
        Ok(match it.body.ok_or(field("outcome"))? {
            outcome::Body::Answered(pb::Answer { text, truncated }) => Outcome::Answered { text, truncated },
            outcome::Body::SenderCalls(pb::SenderCalls { text, calls }) => {
                Outcome::SenderCalls { text, calls: calls.into_iter().map(Into::into).collect() }
            }
            outcome::Body::Failed(failure) => Outcome::Failed { failure: failure.try_into()? },
        })
    }
}
