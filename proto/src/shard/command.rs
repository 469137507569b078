//! The commands of a shard's conversations.

use serde::{Deserialize, Serialize};

use super::message::{Approval, Attachment, AttachmentInfo, Failure, Message, Route, Spent, Usage, is_zero};
use crate::{AgentName, Format, Revision, WorkspaceId};

/// One command. Every command can be repeated without being applied twice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// A turn is over.
    Record(Box<TurnRecord>),
    /// Pieces of the documents that a turn keeps.
    Keep(Keep),
    /// A turn waits for a person; all that it needs was kept before.
    #[serde(rename = "wait")]
    Suspend(Box<Suspension>),
    /// A turn ended without anything to record: what it kept can go.
    Abandon(Abandon),
    /// A conversation is to be forgotten.
    Forget(Forget),
}

impl Command {
    /// The oldest format whose readers understand it.
    pub fn reader(&self) -> Format {
        match self {
            Command::Record(record) if record.ending.as_ref().is_some_and(|it| it.request.is_some()) => {
                Format::DELETION
            }
            Command::Keep(keep) if keep.kind == DocumentKind::Brought => Format::DELETION,
            Command::Record(_) | Command::Keep(_) | Command::Suspend(_) | Command::Abandon(_) | Command::Forget(_) => {
                Format::JSON
            }
        }
    }

    /// The workspace that it is about.
    pub fn workspace(&self) -> &WorkspaceId {
        match self {
            Command::Record(record) => &record.workspace,
            Command::Keep(keep) => &keep.workspace,
            Command::Suspend(suspension) => &suspension.workspace,
            Command::Abandon(abandon) => &abandon.workspace,
            Command::Forget(forget) => &forget.workspace,
        }
    }

    /// The term without which it counts for nothing, if there is one.
    pub fn term(&self) -> Option<u64> {
        let term = match self {
            Command::Record(record) => record.term,
            Command::Keep(keep) => keep.term,
            Command::Suspend(suspension) => suspension.term,
            Command::Abandon(abandon) => abandon.term,
            Command::Forget(_) => 0,
        };
        (term != 0).then_some(term)
    }
}

/// A turn that is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TurnRecord {
    /// The workspace that it belongs to.
    pub workspace: WorkspaceId,
    /// The conversation that it belongs to.
    pub conversation: String,
    /// The turn's id, drawn by the proposer.
    pub turn: String,
    /// The agent that answered.
    pub agent: AgentName,
    /// Who asked, as the token says.
    pub subject: String,
    /// When it was over, in milliseconds since 1970, stamped by the proposer.
    #[serde(deserialize_with = "super::message::time_ms")]
    pub time_ms: u64,
    /// What was said: the request first, the answer last.
    pub messages: Vec<Message>,
    /// The files that travelled with it.
    pub attachments: Vec<AttachmentInfo>,
    /// The tokens that it took.
    pub usage: Usage,
    /// The tokens and the money that each agent used.
    pub spent: Vec<(AgentName, Spent)>,
    /// How long it took, in milliseconds.
    #[serde(deserialize_with = "super::message::time_ms")]
    pub duration_ms: u64,
    /// The revision of the workspace that answered.
    pub revision: Revision,
    /// Why there is no answer, in words.
    pub failure: Option<String>,
    /// How it ended, for whoever asks again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    /// The term under which it ran; 0 for none.
    #[serde(default, skip_serializing_if = "no_term")]
    pub term: u64,
}

fn no_term(term: &u64) -> bool {
    *term == 0
}

/// What the answer of a turn says beyond what was said in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    /// Why that agent answered.
    pub route: Route,
    /// Whether the answer stops where the longest reply allowed ended.
    #[serde(default, rename = "cut", skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// How many model answers and calls it took.
    pub steps: u32,
    /// Why there is no answer, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The files that came of it, unless they are among the documents that were kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<Attachment>,
    /// How many files came of it that are too large to be kept.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub files_omitted: u32,
    /// A digest of the request, where the sender gave it a key.
    #[serde(default, rename = "asked", skip_serializing_if = "Option::is_none")]
    pub request_digest: Option<String>,
    /// What the sender said, as it was said: the first message has it as the agent's prompt puts it. Since
    /// [`Format::DELETION`](crate::Format::DELETION); none in what was written before.
    #[serde(skip)]
    pub request: Option<String>,
}

/// Which documents of a turn are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentKind {
    /// The journal of a turn that is not over; gone when it is recorded.
    Journal,
    /// The files of its answer; there as long as the turn is.
    Files,
    /// The files that came with its request; there as long as the turn is. Since
    /// [`Format::DELETION`](crate::Format::DELETION).
    Brought,
}

/// Pieces of the documents that a turn keeps, without a gap.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Keep {
    /// The workspace that it belongs to.
    pub workspace: WorkspaceId,
    /// The turn that it belongs to.
    pub turn: String,
    /// The term under which it runs.
    pub term: u64,
    /// Which of its documents.
    #[serde(rename = "of")]
    pub kind: DocumentKind,
    /// The pieces, in the order of their numbers.
    pub pieces: Vec<Piece>,
}

/// A piece of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Its place among all pieces of its turn and kind.
    pub number: u32,
    /// Whether the document ends with it.
    #[serde(rename = "ends")]
    pub last: bool,
    /// The bytes of the piece. In [`Format::JSON`](super::Format::JSON) they are text.
    #[serde(rename = "text", with = "super::json::utf8")]
    pub content: Vec<u8>,
}

/// A turn that waits for a person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Suspension {
    /// The workspace that it belongs to.
    pub workspace: WorkspaceId,
    /// The turn that it belongs to.
    pub turn: String,
    /// The conversation that it belongs to.
    pub conversation: String,
    /// The term under which it ran.
    pub term: u64,
    /// What there is to decide.
    pub approvals: Vec<Approval>,
}

/// A turn that leaves nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abandon {
    /// The workspace that it belongs to.
    pub workspace: WorkspaceId,
    /// The turn that it belongs to.
    pub turn: String,
    /// The term under which it ran.
    pub term: u64,
}

/// A conversation that is to be forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forget {
    /// The workspace that it belongs to.
    pub workspace: WorkspaceId,
    /// The conversation that it belongs to.
    pub conversation: String,
}
