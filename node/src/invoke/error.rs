//! Why a message was not answered.

use caxton_proto::{AgentName, NodeId, WorkspaceId};
use caxton_raft::ReadError as GroupError;

use crate::agent::turn::{Failure, UnknownCall};
use crate::agent::world::{AgentProblem, NotFound};
use crate::artifacts::DiskFull;
use crate::conversations::{ReadError, RecordError};
use crate::mailbox::MailboxError;

/// Why a message was not answered.
#[derive(Debug, thiserror::Error)]
pub enum InvokeError {
    /// Whether this node is up to date is not known.
    #[error(transparent)]
    Current(#[from] GroupError),
    /// The conversation that the message goes on with belongs to somebody else.
    #[error("the conversation `{conversation}` belongs to somebody else")]
    OthersConversation { conversation: String },
    /// The conversation that the message goes on with is not there.
    #[error("there is no conversation `{id}` in workspace `{workspace}`")]
    NoConversation { workspace: WorkspaceId, id: String },
    /// No model of the agent takes what the sender asks of its replies.
    #[error("the provider `{provider}` of agent `{agent}` does not take {}", options.join(", "))]
    Options {
        agent: AgentName,
        /// The first of its providers.
        provider: String,
        /// What that one does not take.
        options: Vec<&'static str>,
    },
    /// The message is not one.
    #[error("the message is not valid: {}", problems.join("; "))]
    Invalid {
        /// Everything that is wrong with it.
        problems: Vec<String>,
    },
    /// Nothing is deployed there.
    #[error("nothing is served in workspace `{workspace}`")]
    NoWorkspace { workspace: WorkspaceId },
    /// The agent that was named cannot be used.
    #[error(transparent)]
    Agent(#[from] AgentProblem),
    /// Nobody can do what was asked.
    #[error(transparent)]
    Nobody(#[from] NotFound),
    /// Another node leads the workspace's shard, or nobody does; nothing was done.
    #[error("this node does not lead the workspace's shard")]
    Elsewhere {
        /// Who does, if that is known.
        leader: Option<NodeId>,
    },
    /// Too many turns at once.
    #[error("{turns_max} turns are under way, and no more fit (`limits.turns_max`)")]
    Busy { turns_max: u64 },
    /// The disk has too little space for new work; nothing was begun.
    #[error(transparent)]
    Full(#[from] DiskFull),
    /// The turn ended without an answer.
    #[error("the agent `{agent}` has no answer: {failure}")]
    Turn { agent: AgentName, failure: Failure },
    /// No such approval waits.
    #[error("no approval `{id}` waits in workspace `{workspace}`")]
    NoApproval { workspace: WorkspaceId, id: String },
    /// Another message had the same key.
    #[error("the idempotency key belongs to turn {turn}, which was asked something else")]
    KeyReused { turn: String },
    /// There is no such turn.
    #[error("there is no turn `{turn}` in workspace `{workspace}`")]
    NoTurn { workspace: WorkspaceId, turn: String },
    /// The turn is not over.
    #[error("the turn {turn} is under way")]
    Underway { turn: String },
    /// Another node goes on with the turn, or has ended it.
    #[error("another node goes on with turn {turn}")]
    Adrift {
        turn: String,
        /// The term under which it ran here, if nothing of it was kept but perhaps its record. Then no other node goes on with
        /// it, and where the record is in no log either it was not done.
        unkept: Option<u64>,
        /// What the log said, if it said something.
        #[source]
        why: Option<Box<RecordError>>,
    },
    /// What was kept of the turn does not fit together: a defect, or damage.
    #[error("the turn cannot be taken up again")]
    Replay(#[source] UnknownCall),
    /// The turn was put down by a version that this one cannot read.
    #[error("the turn cannot be taken up again")]
    PutDown(#[source] caxton_proto::shard::DecodeError),
    /// What came of it could not be recorded, so it is not given.
    #[error("the answer was not given because it could not be recorded")]
    Record(#[from] RecordError),
    /// What agents send each other could not be read or written.
    #[error(transparent)]
    Mailbox(Box<MailboxError>),
    /// What was said before could not be read.
    #[error(transparent)]
    History(#[from] ReadError),
    /// The driver stopped before the turn was over: a defect.
    #[error("the turn was left unfinished")]
    Unfinished,
}

impl InvokeError {
    /// Whether the node is at fault, and not the message, the agent or a model.
    pub fn is_ours(&self) -> bool {
        match self {
            InvokeError::PutDown(_)
            | InvokeError::Replay(_)
            | InvokeError::Record(_)
            | InvokeError::History(_)
            | InvokeError::Mailbox(_)
            | InvokeError::Unfinished => true,
            InvokeError::Current(_)
            | InvokeError::OthersConversation { .. }
            | InvokeError::NoConversation { .. }
            | InvokeError::Options { .. }
            | InvokeError::Invalid { .. }
            | InvokeError::NoWorkspace { .. }
            | InvokeError::Agent(_)
            | InvokeError::Nobody(_)
            | InvokeError::Elsewhere { .. }
            | InvokeError::KeyReused { .. }
            | InvokeError::NoTurn { .. }
            | InvokeError::Underway { .. }
            | InvokeError::Adrift { .. }
            | InvokeError::Busy { .. }
            | InvokeError::Full(_)
            | InvokeError::Turn { .. }
            | InvokeError::NoApproval { .. } => false,
        }
    }
}
