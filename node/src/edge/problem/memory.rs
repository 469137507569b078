//! What a person is told of what could not be remembered, found or forgotten, and what they can do about it.

use caxton_proto::memory::{Reason, Refusal};

use caxton_raft::ProposeError;

use crate::app::memory::MemoriesError;
use crate::edge::problem::{Code, Problem};
use crate::memory::MemoryError;

impl From<MemoryError> for Problem {
    fn from(error: MemoryError) -> Problem {
        let detail = error.to_string();
        match error {
            MemoryError::Propose(ProposeError::NotLeader { leader }) => Problem::new(Code::Unavailable, detail)
                .help("nothing was done: try again in a moment")
                .retry_after(1)
                .led_by(leader),
            MemoryError::Propose(source) => {
                tracing::error!(reason = %crate::llm::reasons(&source), "what is to be remembered could not be recorded");
                Problem::new(Code::Unavailable, detail)
                    .help("look whether it happened before you send it again: nothing is kept twice, but each undo takes one edit back")
            }
            MemoryError::TooLong { .. } => {
                Problem::new(Code::BodyTooLarge, detail).help("send fewer or shorter memories at once")
            }
            MemoryError::Deleted => Problem::new(Code::NotFound, detail)
                .help("deploy it again; what it had before has to be gone by then, which takes a moment"),
            MemoryError::OlderMembers => {
                Problem::new(Code::Unavailable, detail).help("`caxton cluster status` shows the version of each node")
            }
            MemoryError::Backend { .. } => Problem::new(Code::Unavailable, detail).help(
                "`caxton memory stats` says how far it is; with fallback = \"embedded\" under [memory] in caxton.toml the node's \
                 own index answers meanwhile",
            ),
            error @ (MemoryError::Read(_)
            | MemoryError::Refused(_)
            | MemoryError::Unreadable(_)
            | MemoryError::Outcome(_)) => Problem::internal(&error),
        }
    }
}

impl From<MemoriesError> for Problem {
    fn from(error: MemoriesError) -> Problem {
        let detail = error.to_string();
        match error {
            MemoriesError::Memory(error) => error.into(),
            MemoriesError::Current(error) => error.into(),
            MemoriesError::Full(full) => full.into(),
            MemoriesError::Busy => {
                Problem::new(Code::TooManyRequests, detail).help("try again when one of them is over").retry_after(5)
            }
            MemoriesError::None { .. } => {
                Problem::new(Code::NotFound, detail).help("`caxton memory list` shows what there is")
            }
            MemoriesError::Refused(refusal) => refused(&refusal),
            MemoriesError::Invalid { help, .. } => Problem::new(Code::InvalidRequest, detail).help(help),
            MemoriesError::Global => Problem::new(Code::Forbidden, detail)
                .help("use the scope `workspace`, or have the operator set memory.share = true"),
        }
    }
}

fn refused(refusal: &Refusal) -> Problem {
    let (code, help) = match &refusal.reason {
        Reason::NotFound | Reason::NoEdit => (Code::NotFound, "`caxton memory list` shows what there is"),
        Reason::Conflict => (Code::Conflict, "`caxton memory search` finds the other one"),
        Reason::Limit { .. } => (Code::InvalidRequest, "make it smaller, or split it"),
        Reason::Field { .. } => (Code::InvalidRequest, "docs/memory.md says what each field takes"),
        Reason::NotPermitted => {
            (Code::Forbidden, "leave the scope out for your own; a deployer may change every scope")
        }
    };
    Problem::new(code, refusal.to_string()).help(help)
}
