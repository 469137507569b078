//! The turn: what an agent does between being asked and answering, as a pure state machine.
//!
//! It reads no clock and does no I/O: the driver does what [`Turn::next`] says and reports back what came of it, with
//! the time that has passed. Everything a model wrote is checked here before it becomes a [`Call`]; a call of a tool
//! that the agent's file does not name never leaves this file. A turn is plain data, so it can be put down, stored and
//! picked up on another day by another process.

mod durable;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use caxton_proto::Digest;
use caxton_proto::shard::JsonText;
pub(in crate::agent) use durable::size;
use serde_json::Value;
pub use words::{Action, Call, Decision, Failure, Next, Outcome, Returned, UnknownCall};

use super::builtin::{self, AskCapability, ListCapabilities};
use crate::llm::{Finish, Message, Reply, ToolCall, ToolDefinition, Usage, echo};

/// What a turn may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Model answers and calls together.
    pub steps_max: u32,
    /// Tokens read and written by the turn's models, those of agents it asked among them.
    pub tokens_max: u64,
    /// Time from the beginning to the answer; waiting for an approval does not count.
    pub wall_ms_max: u64,
    /// How many agents may have asked one another in a row; 0 means that none may be asked.
    pub depth_max: u32,
    /// The same call with the same result so many times is a loop.
    pub identical_calls_max: u32,
    /// Calls that one reply may ask for.
    pub calls_per_reply_max: usize,
    /// A result's text is cut to this many bytes before a model reads it.
    pub result_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            steps_max: 32,
            tokens_max: 200_000,
            wall_ms_max: 120_000,
            depth_max: 4,
            identical_calls_max: 3,
            calls_per_reply_max: 16,
            result_bytes_max: 64 << 10,
        }
    }
}

/// What may be called, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    Open,
    /// After a person has approved the call.
    Approval,
    /// By whoever sent the message: the turn ends with the call and goes on in another one.
    Sender,
}

/// What a turn begins with.
#[derive(Debug, Clone)]
pub struct Brief {
    /// What it may use.
    pub limits: Limits,
    /// How many agents have asked one another to get here; 0 for a person's message.
    pub depth: u32,
    /// The built-in tools that reach other agents, as far as the agent's file names them, with their gates. They go where nobody
    /// may be asked any deeper.
    pub asking: Vec<(ToolDefinition, Gate)>,
    /// The other tools of the agent's file and those of the sender, with their gates.
    pub tools: Vec<(ToolDefinition, Gate)>,
    /// The system prompt, what the conversation held before, and the request last.
    pub messages: Vec<Message>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    limits: Limits,
    depth: u32,
    tools: Vec<ToolDefinition>,
    gates: BTreeMap<String, Gate>,
    messages: Vec<Message>,
    /// Messages before this were there when the turn began.
    begun_at: usize,
    spent: Spent,
    seen: BTreeMap<Digest, Seen>,
    phase: Phase,
}

/// What a turn has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Model answers and calls.
    pub steps: u32,
    pub usage: Usage,
    /// Time, waiting for approvals left out.
    pub elapsed_ms: u64,
}

/// How often one call gave one result in a row.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Seen {
    result: Digest,
    times: u32,
}

#[derive(Debug, Clone, PartialEq)]
enum Phase {
    /// The model is to answer.
    Thinking,
    /// Calls are under way or wait for approval.
    Calling { calls: Vec<Slot> },
    /// It is over.
    Over { outcome: Outcome },
}

/// One call of a reply, in the reply's order.
#[derive(Debug, Clone, PartialEq)]
struct Slot {
    call: Call,
    key: Digest,
    state: SlotState,
}

#[derive(Debug, Clone, PartialEq)]
enum SlotState {
    Ready,
    WaitsForApproval,
    Returned { returned: Returned },
}

impl Turn {
    /// Begins a turn. The built-in tools come first; names that an earlier one took are left out.
    pub fn begin(brief: Brief) -> Turn {
        let may_ask = brief.depth < brief.limits.depth_max;
        let asking = if may_ask { brief.asking } else { Vec::new() };
        let mut tools = Vec::new();
        let mut gates = BTreeMap::new();
        for (tool, gate) in asking.into_iter().chain(brief.tools) {
            if !gates.contains_key(&tool.name) {
                gates.insert(tool.name.clone(), gate);
                tools.push(tool);
            }
        }
        Turn {
            limits: brief.limits,
            depth: brief.depth,
            tools,
            gates,
            begun_at: brief.messages.len(),
            messages: brief.messages,
            spent: Spent::default(),
            seen: BTreeMap::new(),
            phase: Phase::Thinking,
        }
    }

    /// What the model is asked with.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// What was said since the turn began.
    pub fn said(&self) -> &[Message] {
        &self.messages[self.begun_at..]
    }

    /// What the model may call.
    pub fn tools(&self) -> &[ToolDefinition] {
        &self.tools
    }

    /// The tools of the sender.
    pub fn sender_tools(&self) -> Vec<ToolDefinition> {
        let of_sender = |tool: &&ToolDefinition| self.gates.get(&tool.name) == Some(&Gate::Sender);
        self.tools.iter().filter(of_sender).cloned().collect()
    }

    /// What it may use.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What it has used.
    pub fn spent(&self) -> Spent {
        self.spent
    }

    /// How many agents asked one another to get here.
    pub fn depth(&self) -> u32 {
        self.depth
    }

    /// What to do now. Asking changes nothing: after a restart the same calls are given again.
    pub fn next(&self) -> Next<'_> {
        match &self.phase {
            Phase::Thinking => {
                Next::AskModel { tokens_max: self.limits.tokens_max.saturating_sub(self.spent.usage.total()) }
            }
            Phase::Over { outcome } => Next::Over(outcome),
            Phase::Calling { calls } => {
                let ready: Vec<&Call> = in_state(calls, |state| matches!(state, SlotState::Ready));
                if ready.is_empty() { Next::AwaitApproval(self.awaiting_approval()) } else { Next::Call(ready) }
            }
        }
    }

    /// The calls that wait for a person, also while others can be made.
    pub fn awaiting_approval(&self) -> Vec<&Call> {
        match &self.phase {
            Phase::Calling { calls } => in_state(calls, |state| matches!(state, SlotState::WaitsForApproval)),
            Phase::Thinking | Phase::Over { .. } => Vec::new(),
        }
    }

    /// Time has passed; true when there was too much of it, and the turn is over.
    pub fn passed(&mut self, elapsed_ms: u64) -> bool {
        self.spent.elapsed_ms = self.spent.elapsed_ms.saturating_add(elapsed_ms);
        if self.spent.elapsed_ms > self.limits.wall_ms_max && !self.is_over() {
            self.fail(Failure::TimeSpent { wall_ms_max: self.limits.wall_ms_max });
            return true;
        }
        false
    }

    /// Milliseconds that are left.
    pub fn time_left_ms(&self) -> u64 {
        self.limits.wall_ms_max.saturating_sub(self.spent.elapsed_ms)
    }

    /// Gives each call of a reply an id of its own, before the reply is kept: models repeat theirs from step to step, or
    /// have none, and a person's word on one call may not fit another. What the model called them its provider still
    /// hears, from the reply's echo.
    pub fn name_calls(&self, reply: &mut Reply) {
        for (place, call) in reply.calls.iter_mut().enumerate() {
            call.id = format!("call_{}_{place}", self.messages.len());
        }
    }

    /// The model answered.
    pub fn answered(&mut self, reply: Reply) -> Result<(), UnknownCall> {
        if self.phase != Phase::Thinking {
            return Err(UnknownCall { what: "a model's answer".to_owned() });
        }
        self.spent.steps = self.spent.steps.saturating_add(1);
        self.spent.usage += reply.usage;
        if reply.calls.is_empty() {
            let outcome = match reply.finish {
                Finish::Refused => Outcome::Failed { failure: Failure::Withheld },
                _ if reply.text.trim().is_empty() => Outcome::Failed { failure: Failure::Silent },
                finish => Outcome::Answered { text: reply.text.clone(), cut: finish == Finish::Length },
            };
            self.messages.push(Message::assistant(reply.text));
            self.phase = Phase::Over { outcome };
            return Ok(());
        }
        self.take_calls(reply);
        Ok(())
    }

    /// No model answered.
    pub fn model_failed(&mut self, reason: String) {
        self.fail(Failure::Model { reason });
    }

    /// Nothing can be done any more.
    pub fn give_up(&mut self, reason: String) {
        if !self.is_over() {
            self.fail(Failure::GivenUp { reason });
        }
    }

    /// A result as the model reads it.
    pub fn cut(&self, returned: Returned) -> Returned {
        cut(returned, self.limits.result_bytes_max)
    }

    /// Nobody waits for the answer any more.
    pub fn stop(&mut self) {
        if !self.is_over() {
            self.fail(Failure::Stopped);
        }
    }

    /// A call returned.
    pub fn returned(&mut self, id: &str, returned: Returned) -> Result<(), UnknownCall> {
        let unasked = || UnknownCall { what: format!("the result of call {id:?}") };
        let Phase::Calling { calls } = &mut self.phase else { return Err(unasked()) };
        let ready = |slot: &&mut Slot| slot.call.id == id && slot.state == SlotState::Ready;
        let slot = calls.iter_mut().find(ready).ok_or_else(unasked)?;
        slot.state = SlotState::Returned { returned: cut(returned, self.limits.result_bytes_max) };
        self.settle();
        Ok(())
    }

    /// A person decided on a call.
    pub fn decided(&mut self, id: &str, decision: Decision) -> Result<(), UnknownCall> {
        let unasked = || UnknownCall { what: format!("a decision on call {id:?}") };
        let Phase::Calling { calls } = &mut self.phase else { return Err(unasked()) };
        let waits = |slot: &&mut Slot| slot.call.id == id && slot.state == SlotState::WaitsForApproval;
        let slot = calls.iter_mut().find(waits).ok_or_else(unasked)?;
        slot.state = match decision {
            Decision::Approved => SlotState::Ready,
            Decision::Denied { reason } => {
                let reason = if reason.is_empty() { "no reason was given".to_owned() } else { reason };
                let text =
                    format!("a person denied this call: {reason}. Do not try it again; say what you could not do.");
                SlotState::Returned { returned: cut(Returned::failed(text), self.limits.result_bytes_max) }
            }
        };
        self.settle();
        Ok(())
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over { .. })
    }

    fn fail(&mut self, failure: Failure) {
        self.phase = Phase::Over { outcome: Outcome::Failed { failure } };
    }

    /// Checks what the model asks for and begins the calls, or ends the turn.
    fn take_calls(&mut self, reply: Reply) {
        let Reply { text, calls: mut asked, echo, finish, .. } = reply;
        self.name_apart(&mut asked);
        // Of a reply that was cut off nobody knows which calls are whole.
        let cut_off = finish == Finish::Length;
        let sender = |(place, call): (usize, &ToolCall)| {
            (!cut_off && self.gates.get(&call.tool) == Some(&Gate::Sender)).then_some(place)
        };
        let for_sender: Vec<usize> = asked.iter().enumerate().filter_map(sender).collect();
        if !for_sender.is_empty() {
            // The sender answers in a new turn, whose history has these calls only: others would never get a result.
            let echo = echo::keep_calls(echo.as_deref(), &for_sender);
            let calls: Vec<ToolCall> = for_sender.iter().filter_map(|place| asked.get(*place).cloned()).collect();
            self.messages.push(Message::Assistant { text: text.clone(), calls: calls.clone(), echo });
            self.phase = Phase::Over { outcome: Outcome::SenderCalls { text, calls } };
            return;
        }
        self.messages.push(Message::Assistant { text, calls: asked.clone(), echo });
        self.spent.steps = self.spent.steps.saturating_add(u32::try_from(asked.len()).unwrap_or(u32::MAX));
        if self.spent.steps >= self.limits.steps_max {
            return self.fail(Failure::StepsSpent { steps_max: self.limits.steps_max });
        }
        if self.spent.usage.total() >= self.limits.tokens_max {
            return self.tokens_spent();
        }
        let mut calls = Vec::with_capacity(asked.len());
        for (place, call) in asked.into_iter().enumerate() {
            let key = Digest::of_parts([call.tool.as_bytes(), b"\0", canonical(&call.arguments).as_bytes()]);
            if let Some(seen) = self.seen.get(&key)
                && seen.times >= self.limits.identical_calls_max
            {
                let (tool, times) = (call.tool, seen.times);
                return self.fail(Failure::Loop { tool, times });
            }
            calls.push(self.slot(place, call, key, cut_off));
        }
        self.phase = Phase::Calling { calls };
        self.settle();
    }

    /// Ids pair calls with results, so two of one reply may not be equal, whatever the model wrote.
    fn name_apart(&self, asked: &mut [ToolCall]) {
        let mut taken = BTreeSet::new();
        for (place, call) in asked.iter_mut().enumerate() {
            if call.id.is_empty() || !taken.insert(call.id.clone()) {
                call.id = format!("call_{}_{place}", self.messages.len());
                taken.insert(call.id.clone());
            }
        }
    }

    fn slot(&self, place: usize, call: ToolCall, key: Digest, cut_off: bool) -> Slot {
        let action = if cut_off {
            let problem = "your reply was cut off at the longest one allowed, so none of its calls was made; \
                write less text, make fewer calls at once, or give them shorter arguments";
            Action::Refuse { tool: call.tool, problem: problem.to_owned() }
        } else if place >= self.limits.calls_per_reply_max {
            let problem = format!("one reply may ask for {} calls; ask again", self.limits.calls_per_reply_max);
            Action::Refuse { tool: call.tool, problem }
        } else {
            self.action(call.tool, &call.arguments)
        };
        let gate = self.gates.get(action.tool()).copied().unwrap_or(Gate::Open);
        let state = match &action {
            Action::Refuse { problem, .. } => {
                let returned = cut(Returned::failed(problem.clone()), self.limits.result_bytes_max);
                SlotState::Returned { returned }
            }
            _ if gate == Gate::Approval => SlotState::WaitsForApproval,
            _ => SlotState::Ready,
        };
        Slot { call: Call { id: call.id, action }, key, state }
    }

    /// Checks one call against the tools that there are.
    fn action(&self, tool: String, arguments: &str) -> Action {
        if !self.gates.contains_key(&tool) {
            let known: Vec<&str> = self.gates.keys().map(String::as_str).collect();
            let problem = if known.is_empty() {
                "there is no such tool, and there are no others: answer with what you know".to_owned()
            } else {
                format!("there is no such tool; there are {}", known.join(", "))
            };
            return Action::Refuse { tool, problem };
        }
        let arguments = if arguments.trim().is_empty() { "{}" } else { arguments };
        let arguments = match JsonText::take(arguments).map(|text| text.value()) {
            Ok(Value::Object(arguments)) => arguments,
            Ok(_) => return Action::Refuse { tool, problem: "the arguments are not a JSON object".to_owned() },
            Err(error) => return Action::Refuse { tool, problem: format!("the arguments {error}; write them anew") },
        };
        let built_in = match tool.as_str() {
            builtin::ASK_CAPABILITY => AskCapability::parse(arguments).map(Action::AskCapability),
            builtin::LIST_CAPABILITIES => ListCapabilities::parse(arguments).map(Action::ListCapabilities),
            _ => return Action::Tool { tool, arguments },
        };
        built_in.unwrap_or_else(|problem| Action::Refuse { tool, problem })
    }

    /// When all calls have returned, hands their results to the model in the order in which it asked.
    fn settle(&mut self) {
        let Phase::Calling { calls } = &mut self.phase else { return };
        if !calls.iter().all(|slot| matches!(slot.state, SlotState::Returned { .. })) {
            return;
        }
        let calls = std::mem::take(calls);
        self.phase = Phase::Thinking;
        for slot in calls {
            let SlotState::Returned { returned } = slot.state else { continue };
            self.spent.usage += returned.usage;
            let result = Digest::of_parts([&[u8::from(returned.failed)], returned.text.as_bytes()]);
            let seen = self.seen.entry(slot.key).or_insert(Seen { result, times: 0 });
            *seen = Seen { result, times: if seen.result == result { seen.times + 1 } else { 1 } };
            let tool = slot.call.action.tool().to_owned();
            let (text, failed) = (returned.text, returned.failed);
            self.messages.push(Message::Tool { call: slot.call.id, tool, text, failed });
        }
        if self.spent.usage.total() >= self.limits.tokens_max {
            self.tokens_spent();
        }
    }

    fn tokens_spent(&mut self) {
        let used = self.spent.usage.total();
        self.fail(Failure::TokensSpent { used, tokens_max: self.limits.tokens_max });
    }
}

fn in_state(calls: &[Slot], wanted: impl Fn(&SlotState) -> bool) -> Vec<&Call> {
    calls.iter().filter(|slot| wanted(&slot.state)).map(|slot| &slot.call).collect()
}

/// The same arguments in another order or spacing are the same call.
fn canonical(arguments: &str) -> String {
    serde_json::from_str::<Value>(arguments).map_or_else(|_| arguments.to_owned(), |value| value.to_string())
}

/// Cuts a result where a character ends, and says so to the model.
fn cut(mut returned: Returned, bytes_max: usize) -> Returned {
    let bytes = returned.text.len();
    if bytes > bytes_max && !std::mem::replace(&mut returned.cut, true) {
        let end = returned.text.floor_char_boundary(bytes_max);
        returned.text.truncate(end);
        returned.text.push_str(&format!("\n[cut after {end} of {bytes} bytes]"));
    }
    returned
}

#[cfg(test)]
#[path = "turn_tests.rs"]
mod tests;
