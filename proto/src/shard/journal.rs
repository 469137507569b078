//! The documents of a turn: how it began, each step that was kept since, and the files of its answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::message::{Attachment, Failure, Message, Route, Spent, ToolCall, Usage, count, time_ms};
use super::text::JsonText;
use crate::{AgentName, Digest, WorkspaceId};

/// How a turn began: with the steps that came after it, all that is needed to go on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Beginning {
    /// The workspace that it belongs to.
    pub workspace: WorkspaceId,
    /// The conversation that it belongs to.
    pub conversation: String,
    /// The turn's id.
    pub turn: String,
    /// Who asked, as the token says.
    pub subject: String,
    /// Why that agent answers.
    pub route: Route,
    /// The names of the files that came with the request.
    pub brought: BTreeSet<String>,
    /// What these files hold.
    pub files: Vec<Arc<Attachment>>,
    /// When it began, in milliseconds since 1970.
    #[serde(deserialize_with = "time_ms")]
    pub time_ms: u64,
    /// A digest of the request, where the sender gave it a key.
    #[serde(default, rename = "asked", skip_serializing_if = "Option::is_none")]
    pub request_digest: Option<String>,
    /// What the sender said, as it was said. Since [`Format::DELETION`](crate::Format::DELETION); none in what was written
    /// before.
    #[serde(skip)]
    pub request: Option<String>,
    /// The outermost run, before anything has happened in it.
    pub run: Run,
}

/// One step, with the way to the run that took it: the ids of the calls that asked for one another, from the outermost run
/// on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// A model answered.
    Answered {
        /// The way to the run.
        way: Vec<String>,
        /// What it said.
        reply: Reply,
        /// What that took.
        spent: Spent,
        /// The time that the run has used with it, in milliseconds.
        #[serde(deserialize_with = "time_ms")]
        elapsed_ms: u64,
    },
    /// Another agent is asked.
    Delegated {
        /// The way to the run.
        way: Vec<String>,
        /// The id of the call that asks it.
        call: String,
        /// Its run, before anything has happened in it.
        run: Box<Run>,
    },
    /// A call returned.
    Returned {
        /// The way to the run.
        way: Vec<String>,
        /// The id of the call.
        call: String,
        /// What came of it.
        #[serde(rename = "returned")]
        result: CallResult,
        /// Files that came of it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        files: Vec<Attachment>,
        /// The names of the files that the run now sees.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        visible: BTreeSet<String>,
    },
    /// A person decided.
    Decided {
        /// The way to the call, whose id comes last.
        way: Vec<String>,
        /// What was decided.
        decision: Decision,
    },
    /// Another leader goes on with the turn.
    TakenUp {
        /// The term under which it leads.
        term: u64,
    },
}

/// What a model answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// Its text, empty when it only called tools.
    #[serde(default)]
    pub text: String,
    /// What it wants called.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<ToolCall>,
    /// The tokens that it took.
    #[serde(default)]
    pub usage: Usage,
    /// Why it stopped.
    pub finish: Finish,
    /// The model that answered, as it calls itself.
    #[serde(default)]
    pub model: String,
    /// What its provider wants to hear again (reasoning, signatures, ids), as JSON that nobody else reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub echo: Option<String>,
}

/// Why a model stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// It had said everything.
    Stop,
    /// It waits for the calls that it asked for.
    Calls,
    /// It reached the longest reply allowed.
    Length,
    /// Its provider withheld the answer.
    Refused,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallResult {
    /// What the model reads.
    pub text: String,
    /// Whether the call failed.
    pub failed: bool,
    /// The tokens that an agent which was asked used for it.
    #[serde(default)]
    pub usage: Usage,
    /// Whether the text was cut to what a model reads, which it says itself.
    #[serde(default, rename = "cut", skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// A person's word on a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Decision {
    /// It may be made.
    Approved,
    /// It may not.
    Denied {
        /// Why not; the model reads it.
        reason: String,
    },
}

/// One agent's part in a turn, and those of the agents that it waits for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The agent whose run it is.
    pub agent: AgentName,
    /// The state of its turn.
    pub turn: TurnState,
    /// The agents that asked one another to get here, this one last.
    pub path: Vec<AgentName>,
    /// Where among the turn's messages the request stands.
    #[serde(rename = "asked_at")]
    pub request_at: u64,
    /// The ids of the calls that asked for one another to get here; none for the outermost run.
    #[serde(default)]
    pub way: Vec<String>,
    /// The names of the files that it sees.
    pub visible: BTreeSet<String>,
    /// What the sender asks of the replies of the run's model, an object; absent where that is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<JsonText>,
    /// The runs of agents that were asked, by the ids of the calls that asked them.
    pub waiting: BTreeMap<String, Run>,
}

/// The state of an agent's turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TurnState {
    /// What it may use.
    pub limits: Limits,
    /// How many agents asked one another to get here.
    pub depth: u32,
    /// What the model may call.
    pub tools: Vec<ToolDefinition>,
    /// How each of them may be called, by name.
    pub gates: BTreeMap<String, Gate>,
    /// What the model is asked with.
    pub messages: Vec<Message>,
    /// How many messages were there when the turn began.
    pub begun_at: u64,
    /// What it has used.
    pub spent: TurnSpent,
    /// How often each call gave one result in a row, by the digest of the call.
    #[serde(rename = "seen")]
    pub repetitions: BTreeMap<Digest, Repetition>,
    /// What it is about.
    pub phase: Phase,
}

/// What a turn may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Model answers and calls together.
    pub steps_max: u32,
    /// Tokens read and written.
    #[serde(deserialize_with = "count")]
    pub tokens_max: u64,
    /// The time from the beginning to the answer, in milliseconds.
    #[serde(deserialize_with = "time_ms")]
    pub wall_ms_max: u64,
    /// How many agents may have asked one another in a row.
    pub depth_max: u32,
    /// The same call with the same result so many times is a loop.
    pub identical_calls_max: u32,
    /// How many calls one reply may ask for.
    #[serde(deserialize_with = "count")]
    pub calls_per_reply_max: u64,
    /// How many bytes of a result a model reads.
    #[serde(deserialize_with = "count")]
    pub result_bytes_max: u64,
}

/// How a tool may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// By whoever asks, at once.
    Open,
    /// After a person has approved the call.
    Approval,
    /// By whoever sent the message.
    Sender,
}

/// A tool as a model sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolDefinition {
    /// What it is called.
    pub name: String,
    /// What it does and when to use it.
    pub description: String,
    /// The JSON Schema of its arguments.
    pub parameters: JsonText,
}

/// What a turn has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnSpent {
    /// Model answers and calls.
    pub steps: u32,
    /// The tokens that it took.
    pub usage: Usage,
    /// Time, in milliseconds.
    #[serde(deserialize_with = "time_ms")]
    pub elapsed_ms: u64,
}

/// How often one call gave one result in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repetition {
    /// The digest of the result.
    pub result: Digest,
    /// How often it came.
    pub times: u32,
}

/// What a turn is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// The model is to answer.
    Thinking,
    /// Calls are under way, or wait for a person.
    Calling {
        /// The calls of one reply, in its order.
        #[serde(rename = "calls")]
        slots: Vec<Slot>,
    },
    /// It is over.
    Over {
        /// How it ended.
        outcome: Outcome,
    },
}

/// One call of a reply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Slot {
    /// The call that the slot is for.
    pub call: Call,
    /// The digest of the tool and its arguments.
    pub key: Digest,
    /// What became of it.
    pub state: SlotState,
}

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum SlotState {
    /// It can be made.
    Ready,
    /// A person has to decide first.
    WaitsForApproval,
    /// It was made.
    Returned {
        /// What came of it.
        #[serde(rename = "returned")]
        result: CallResult,
    },
}

/// A checked call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// Pairs it with its result; unique within the turn.
    pub id: String,
    /// What it does.
    pub action: Action,
}

/// What a call does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// It calls a tool.
    Tool {
        /// The tool's name.
        tool: String,
        /// The arguments, a JSON object.
        arguments: JsonText,
    },
    /// It asks whichever agent can do it.
    AskCapability(AskCapability),
    /// It lists what can be asked for.
    ListCapabilities(ListCapabilities),
    /// Nothing is to be done: the model is told what was wrong with its call.
    Refuse {
        /// The tool, as the model wrote it.
        tool: String,
        /// What was wrong.
        problem: String,
    },
}

/// A request to whichever agent can do it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskCapability {
    /// What is wanted.
    pub request: String,
    /// What the agent must be able to do; the request itself where this is absent.
    #[serde(default)]
    pub capability: Option<String>,
}

/// What is to be listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListCapabilities {
    /// Only what fits this; everything where it is absent.
    #[serde(default)]
    pub about: Option<String>,
}

/// How a turn ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// With an answer.
    Answered {
        /// What was answered, as text.
        text: String,
        /// Whether it stops where the longest reply allowed ended.
        #[serde(rename = "cut")]
        truncated: bool,
    },
    /// With calls that the sender is to make.
    SenderCalls {
        /// What the model said with them.
        text: String,
        /// The calls that the model asks for.
        calls: Vec<ToolCall>,
    },
    /// Without an answer.
    Failed {
        /// Why there is none.
        failure: Failure,
    },
}
