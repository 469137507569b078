//! What a person is told of a message that was not answered, and what they can do about it.

use serde_json::json;

use crate::agent::turn::Failure;
use crate::agent::world::NotFound;
use crate::app::agents::{AskError, NothingDeployed};
use crate::app::conversations::ConversationsError;
use crate::app::tools::DirectCallError;
use crate::app::turns::TurnError;
use crate::app::usage::UsageError;
use crate::capability::RouteError;
use crate::conversations::RecordError;
use crate::edge::problem::{Code, Problem};
use crate::invoke::InvokeError;
use crate::tasks::JobError;
use crate::tools::Unusable;

impl From<TurnError> for Problem {
    fn from(error: TurnError) -> Problem {
        match error {
            TurnError::Invoke(error) => error.into(),
            TurnError::CutOff(JobError::CutOff) => Problem::new(Code::Unavailable, "the node is stopping")
                .help("ask for the turn in a moment, or send the message again with its idempotency key")
                .retry_with_key(1),
            TurnError::CutOff(error @ JobError::Panicked) => Problem::internal(&error),
        }
    }
}

fn nobody(none: NotFound, detail: String) -> Problem {
    match none {
        NotFound::Nobody { nearest } => {
            let nearest: Vec<_> = nearest
                .iter()
                .map(|it| json!({ "agent": it.agent, "capability": it.capability, "score": it.score }))
                .collect();
            Problem::new(Code::NoCapableAgent, detail)
                .with("nearest", nearest)
                .help("`caxton route \"...\" --explain` shows why; name an agent to ask it anyway")
        }
        NotFound::NoAgents { .. } => Problem::new(Code::NoCapableAgent, detail)
            .help("`caxton init agent NAME` makes one, and `caxton deploy` puts it live"),
        NotFound::OtherVersions { offered, .. } => {
            let offered: Vec<_> =
                offered.iter().map(|(agent, version)| json!({ "agent": agent, "version": version })).collect();
            Problem::new(Code::NoCapableAgent, detail)
                .with("offered", offered)
                .help("ask for a version that there is, leave it out, or name the agent")
        }
        NotFound::NoVersion(_) => Problem::new(Code::InvalidRequest, detail)
            .help("a version is a requirement as in Cargo: `^1.2`, `~1.2.3`, `>=1, <3`"),
        NotFound::Preparing { .. } => {
            Problem::new(Code::Unavailable, detail).help("nothing was done: try again in a moment").retry_after(1)
        }
    }
}

impl From<ConversationsError> for Problem {
    fn from(error: ConversationsError) -> Problem {
        let detail = error.to_string();
        match error {
            ConversationsError::None { .. } => {
                Problem::new(Code::NotFound, detail).help("`caxton conversations list` shows the ones there are")
            }
            ConversationsError::Current(error) => error.into(),
            ConversationsError::Read(error) => Problem::internal(&error),
            ConversationsError::Record(error) => InvokeError::from(error).into(),
            ConversationsError::Memory(error) => error.into(),
        }
    }
}

impl From<UsageError> for Problem {
    fn from(error: UsageError) -> Problem {
        match error {
            UsageError::Current(error) => error.into(),
            error @ UsageError::Read(_) => Problem::internal(&error),
        }
    }
}

impl From<NothingDeployed> for Problem {
    fn from(error: NothingDeployed) -> Problem {
        Problem::new(Code::NotFound, error.to_string()).help("run `caxton deploy`, or name another workspace")
    }
}

impl From<AskError> for Problem {
    fn from(error: AskError) -> Problem {
        match error {
            AskError::Nothing(error) => error.into(),
            AskError::Route(error) => error.into(),
        }
    }
}

impl From<DirectCallError> for Problem {
    fn from(error: DirectCallError) -> Problem {
        let detail = error.to_string();
        match error {
            DirectCallError::Nothing(error) => error.into(),
            DirectCallError::Unusable(error) => error.into(),
            DirectCallError::Ambiguous { functions, .. } => Problem::new(Code::InvalidRequest, detail)
                .help(format!("name one of them as `function`: {}", functions.join(", "))),
        }
    }
}

impl From<InvokeError> for Problem {
    fn from(error: InvokeError) -> Problem {
        let detail = error.to_string();
        match error {
            InvokeError::Current(error) => error.into(),
            InvokeError::OthersConversation { .. } => {
                Problem::new(Code::Forbidden, detail).help("leave `conversation` out to begin one of your own")
            }
            InvokeError::NoConversation { .. } => Problem::new(Code::NotFound, detail)
                .help("`caxton conversations list` shows the ones there are; leave `conversation` out to begin one, or set `create`"),
            InvokeError::Options { options, .. } => {
                let param = options.first().copied().unwrap_or_default();
                Problem::new(Code::InvalidRequest, detail)
                    .with("param", param)
                    .with("params", options)
                    .help("send it again without them, or ask an agent whose provider takes them")
            }
            InvokeError::Invalid { problems } => {
                Problem::new(Code::InvalidRequest, detail).with("problems", problems).help("put right what is named, and send it again")
            }
            InvokeError::NoWorkspace { .. } => Problem::new(Code::NotFound, detail)
                .help("deploy it with `caxton deploy`, or name another one with --workspace"),
            InvokeError::Agent(_) => {
                Problem::new(Code::NotFound, detail).help("`caxton agents list` shows the agents that are live")
            }
            InvokeError::Nobody(none) => nobody(none, detail),
            InvokeError::Elsewhere { leader } => Problem::new(Code::Unavailable, detail)
                .help("nothing was done: try again in a moment")
                .retry_after(1)
                .led_by(leader),
            InvokeError::Full(full) => full.into(),
            InvokeError::Busy { .. } => {
                Problem::new(Code::TooManyRequests, detail).help("try again in a moment").retry_after(1)
            }
            InvokeError::Turn { agent, failure } => Problem::new(Code::TurnFailed, detail)
                .with("agent", agent)
                .with("failure", failure.code())
                .help(help_after(&failure)),
            InvokeError::NoApproval { .. } => {
                Problem::new(Code::NotFound, detail).help("`caxton approvals list` shows what waits")
            }
            InvokeError::KeyReused { .. } => {
                Problem::new(Code::Conflict, detail).help("draw a new idempotency key for another message")
            }
            InvokeError::NoTurn { .. } => Problem::new(Code::NotFound, detail)
                .help("if it never began to be kept, nothing was done: send the message again"),
            InvokeError::Underway { .. } | InvokeError::Adrift { .. } => Problem::new(Code::Unavailable, detail)
                .help("ask for the turn in a moment, or send the message again with its idempotency key")
                .retry_with_key(1),
            InvokeError::Record(RecordError::Deleted) => Problem::new(Code::NotFound, "the workspace was deleted")
                .help("deploy it again; what it had before has to be gone by then, which takes a moment"),
            InvokeError::Record(source) => {
                tracing::error!(reason = %crate::llm::reasons(&source), "a turn could not be recorded");
                Problem::new(Code::Unavailable, detail).help("try again in a moment").retry_with_key(1)
            }
            InvokeError::Mailbox(error) => (*error).into(),
            error @ (InvokeError::PutDown(_)
            | InvokeError::Replay(_)
            | InvokeError::History(_)
            | InvokeError::Unfinished) => Problem::internal(&error),
        }
    }
}

impl From<RouteError> for Problem {
    fn from(error: RouteError) -> Problem {
        let (code, help) = match error {
            RouteError::Empty => (Code::InvalidRequest, "send a `text` that says what is to be done"),
            RouteError::Preparing { .. } => (Code::Unavailable, "try again in a few seconds"),
            RouteError::Stopped => (Code::Unavailable, "try again; if it stays so, the server's log says why"),
        };
        Problem::new(code, error.to_string()).help(help)
    }
}

impl From<Unusable> for Problem {
    fn from(unusable: Unusable) -> Problem {
        let code = match &unusable {
            Unusable::Absent { .. } => Code::NotFound,
            Unusable::NotAllowed { .. } => Code::Forbidden,
            Unusable::NoSecret { .. }
            | Unusable::Broken { .. }
            | Unusable::Away { .. }
            | Unusable::Busy { .. }
            | Unusable::NoProcesses { .. } => Code::Unavailable,
        };
        Problem::new(code, unusable.to_string())
    }
}

/// What is to be done after a turn that gave no answer. Why no model answered ends in what mends it already.
fn help_after(failure: &Failure) -> &'static str {
    match failure {
        Failure::Model { .. } => {
            "ask again once that is mended; `caxton status` shows what else keeps an agent from answering"
        }
        Failure::StepsSpent { .. }
        | Failure::TokensSpent { .. }
        | Failure::TimeSpent { .. }
        | Failure::Loop { .. }
        | Failure::Silent
        | Failure::Withheld
        | Failure::Stopped
        | Failure::GivenUp { .. } => "`caxton conversations list` has the turn with everything that was said",
    }
}
