//! What a turn says to its driver, what it is told, and how it ends.

use serde_json::{Map, Value};

#[cfg(doc)]
use super::Turn;
use crate::agent::builtin::{self, AskCapability, ListCapabilities};
use crate::llm::{ToolCall, Usage};

/// A checked call.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Pairs it with its result; unique within the turn.
    pub id: String,
    /// What to do.
    pub action: Action,
}

/// What a call does.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Calls a tool that the agent's file names.
    Tool {
        tool: String,
        /// The arguments, an object; its fields are not checked yet.
        arguments: Map<String, Value>,
    },
    /// Asks whichever agent can do it.
    AskCapability(AskCapability),
    /// Lists what can be asked for.
    ListCapabilities(ListCapabilities),
    /// Nothing is to be done: the model is told what was wrong with its call.
    Refuse {
        /// The tool, as the model wrote it.
        tool: String,
        /// What was wrong.
        problem: String,
    },
}

impl Action {
    /// The tool's name as the model knows it.
    pub fn tool(&self) -> &str {
        match self {
            Action::Tool { tool, .. } | Action::Refuse { tool, .. } => tool,
            Action::AskCapability(_) => builtin::ASK_CAPABILITY,
            Action::ListCapabilities(_) => builtin::LIST_CAPABILITIES,
        }
    }
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Returned {
    /// What the model reads.
    pub text: String,
    /// The call failed.
    pub failed: bool,
    /// What an agent that was asked used for it.
    pub usage: Usage,
    /// The text was cut to what a model reads, and says so.
    pub cut: bool,
}

impl Returned {
    pub fn good(text: impl Into<String>) -> Returned {
        Returned { text: text.into(), failed: false, usage: Usage::default(), cut: false }
    }

    /// A failure that the model can read and act on.
    pub fn failed(text: impl Into<String>) -> Returned {
        Returned { text: text.into(), failed: true, usage: Usage::default(), cut: false }
    }
}

/// A person's word on a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may be made.
    Approved,
    /// It may not.
    Denied {
        /// Why; the model reads it.
        reason: String,
    },
}

/// What the driver has to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Next<'a> {
    /// Ask the model, with [`Turn::messages`] and [`Turn::tools`].
    AskModel {
        /// The longest reply that the budget leaves room for.
        tokens_max: u64,
    },
    /// Make these calls, all at the same time, and report each with [`Turn::returned`].
    Call(Vec<&'a Call>),
    /// Nothing can be done before a person has decided on these.
    AwaitApproval(Vec<&'a Call>),
    /// It is over.
    Over(&'a Outcome),
}

/// How a turn ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// With an answer.
    Answered {
        text: String,
        /// The answer stops where the longest reply allowed ended.
        cut: bool,
    },
    /// With calls that the sender is to make.
    SenderCalls {
        /// What the model said with them.
        text: String,
        calls: Vec<ToolCall>,
    },
    /// Without an answer.
    Failed { failure: Failure },
}

/// Why a turn ended without an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Too many steps.
    #[error("the turn used its {steps_max} steps; raise steps_max under [limits] in the agent's file if it needs more")]
    StepsSpent { steps_max: u32 },
    /// Too many tokens.
    #[error(
        "the turn used {used} of its {tokens_max} tokens; raise tokens_max under [limits] in the agent's file if it needs more"
    )]
    TokensSpent {
        /// What was used.
        used: u64,
        tokens_max: u64,
    },
    /// Too much time.
    #[error("the turn used its {wall_ms_max} ms; raise wall_time under [limits] in the agent's file if it needs more")]
    TimeSpent { wall_ms_max: u64 },
    /// The same call again and again.
    #[error("the model called `{tool}` {times} times with the same arguments and got the same result each time")]
    Loop { tool: String, times: u32 },
    /// The model said nothing.
    #[error("the model answered with neither text nor a call")]
    Silent,
    /// The provider withheld the answer.
    #[error("the provider withheld the model's answer by its own rules")]
    Withheld,
    /// No model answered.
    #[error("no model answered: {reason}")]
    Model {
        /// The reasons, outermost first.
        reason: String,
    },
    /// Nobody waits for the answer any more.
    #[error("the turn was stopped")]
    Stopped,
    /// A node that went on with the turn of another one could not finish it either.
    #[error("the turn could not be finished: {reason}")]
    GivenUp { reason: String },
}

impl Failure {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Failure::StepsSpent { .. } => "steps_spent",
            Failure::TokensSpent { .. } => "tokens_spent",
            Failure::TimeSpent { .. } => "time_spent",
            Failure::Loop { .. } => "call_loop",
            Failure::Silent => "model_silent",
            Failure::Withheld => "answer_withheld",
            Failure::Model { .. } => "model_failed",
            Failure::Stopped => "stopped",
            Failure::GivenUp { .. } => "given_up",
        }
    }
}

/// A report that fits no question: the driver's mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the turn did not ask for {what}")]
pub struct UnknownCall {
    /// What was reported.
    pub what: String,
}
