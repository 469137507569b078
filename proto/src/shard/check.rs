//! The limits of what is written down, which the writer keeps: a reader takes what it finds.

use super::message::{COUNT_MAX, TIME_MS_MAX};
use super::{
    Attachment, Beginning, Command, Ending, Limits, Phase, Reply, Route, Run, SlotState, Spent, Step, TurnRecord,
    TurnState, Usage,
};

/// How many runs may wait for one another in a row.
pub const RUN_DEPTH_MAX: usize = 32;

/// Why something may not be written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// A number is larger than its limit.
    #[error("{field} is {found}, and {max} is the most")]
    TooLarge {
        /// What the number counts.
        field: &'static str,
        /// The number that was found.
        found: u64,
        /// The most that it may be.
        max: u64,
    },
    /// A score is no finite number.
    #[error("the score of a route is not a finite number")]
    Score,
}

fn most(field: &'static str, found: u64, max: u64) -> Result<(), CheckError> {
    if found > max { Err(CheckError::TooLarge { field, found, max }) } else { Ok(()) }
}

fn count(field: &'static str, found: u64) -> Result<(), CheckError> {
    most(field, found, COUNT_MAX)
}

fn time(field: &'static str, found: u64) -> Result<(), CheckError> {
    most(field, found, TIME_MS_MAX)
}

impl Usage {
    fn check(self) -> Result<(), CheckError> {
        count("a count of tokens", self.input)?;
        count("a count of tokens", self.output)
    }
}

impl Spent {
    fn check(self) -> Result<(), CheckError> {
        count("a count of tokens", self.tokens)?;
        count("an amount of money", self.cost)
    }
}

impl Route {
    fn check(&self) -> Result<(), CheckError> {
        match self {
            Route::Capability { score, .. } if !score.is_finite() => Err(CheckError::Score),
            Route::Capability { .. } | Route::Address | Route::Conversation => Ok(()),
        }
    }
}

impl Command {
    pub(super) fn check(&self) -> Result<(), CheckError> {
        match self {
            Command::Record(record) => record.check(),
            Command::Keep(_) | Command::Suspend(_) | Command::Abandon(_) | Command::Forget(_) => Ok(()),
        }
    }
}

impl TurnRecord {
    fn check(&self) -> Result<(), CheckError> {
        time("the time of a turn", self.time_ms)?;
        time("the duration of a turn", self.duration_ms)?;
        count("the revision of a turn", self.revision.0)?;
        self.usage.check()?;
        self.spent.iter().try_for_each(|(_, spent)| spent.check())?;
        self.attachments.iter().try_for_each(|file| count("the size of a file", file.bytes))?;
        self.ending.as_ref().map_or(Ok(()), Ending::check)
    }
}

impl Ending {
    fn check(&self) -> Result<(), CheckError> {
        self.route.check()?;
        self.failure.as_ref().map_or(Ok(()), super::Failure::check)
    }
}

impl super::Failure {
    fn check(&self) -> Result<(), CheckError> {
        use super::Failure;
        match self {
            Failure::TokensSpent { used, tokens_max } => {
                count("a count of tokens", *used)?;
                count("a limit of tokens", *tokens_max)
            }
            Failure::TimeSpent { wall_ms_max } => time("a limit of time", *wall_ms_max),
            Failure::StepsSpent { .. }
            | Failure::Loop { .. }
            | Failure::Silent
            | Failure::Withheld
            | Failure::Model { .. }
            | Failure::Stopped
            | Failure::GivenUp { .. } => Ok(()),
        }
    }
}

impl Attachment {
    pub(super) fn check(&self) -> Result<(), CheckError> {
        Ok(())
    }
}

impl Beginning {
    pub(super) fn check(&self) -> Result<(), CheckError> {
        self.route.check()?;
        time("the beginning of a turn", self.time_ms)?;
        self.run.check(1)
    }
}

impl Step {
    pub(super) fn check(&self) -> Result<(), CheckError> {
        match self {
            Step::Answered { reply: Reply { usage, .. }, spent, elapsed_ms, .. } => {
                usage.check()?;
                spent.check()?;
                time("the time of a step", *elapsed_ms)
            }
            Step::Delegated { run, .. } => run.check(1),
            Step::Returned { result, .. } => result.usage.check(),
            Step::Decided { .. } | Step::TakenUp { .. } => Ok(()),
        }
    }
}

impl Run {
    fn check(&self, depth: usize) -> Result<(), CheckError> {
        most("the number of runs that wait for one another", depth as u64, RUN_DEPTH_MAX as u64)?;
        count("the place of a request", self.request_at)?;
        self.turn.check()?;
        self.waiting.values().try_for_each(|run| run.check(depth + 1))
    }
}

impl TurnState {
    fn check(&self) -> Result<(), CheckError> {
        let Limits { tokens_max, wall_ms_max, calls_per_reply_max, result_bytes_max, .. } = self.limits;
        count("a limit of tokens", tokens_max)?;
        time("a limit of time", wall_ms_max)?;
        count("a limit of calls", calls_per_reply_max)?;
        count("a limit of bytes", result_bytes_max)?;
        count("the place of a beginning", self.begun_at)?;
        self.spent.usage.check()?;
        time("the time of a turn", self.spent.elapsed_ms)?;
        match &self.phase {
            Phase::Calling { slots } => slots.iter().try_for_each(|slot| match &slot.state {
                SlotState::Returned { result } => result.usage.check(),
                SlotState::Ready | SlotState::WaitsForApproval => Ok(()),
            }),
            Phase::Over { outcome: super::Outcome::Failed { failure } } => failure.check(),
            Phase::Thinking | Phase::Over { .. } => Ok(()),
        }
    }
}
