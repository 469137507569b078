//! What the log of conversations says. Written as JSON with a version, because what it carries is JSON already; a
//! version that this program does not know stops the group instead of being guessed at.
//!
//! What a turn writes carries the term under which it runs, and counts for nothing in another one: a node that lost the
//! shard's lead, and even one that got it back, records nothing of a turn that the next leader took up.

use bytes::Bytes;
use caxton_proto::{AgentName, Revision, WorkspaceId};
use serde::{Deserialize, Serialize};

use crate::agent::turn::Failure;
use crate::api::messages::{ApprovalInfo, Attachment, AttachmentInfo, Route};
use crate::llm::budget::Spent;
use crate::llm::{Message, Usage};

/// The version that this program writes.
const VERSION: u32 = 1;

/// One entry of the log. Every entry can be repeated without being applied twice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// A turn is over.
    Record(Box<Turn>),
    /// Pieces of what a turn that is under way keeps.
    Keep(Keep),
    /// A turn waits for a person; all that it needs was kept before.
    Wait(Box<Waiting>),
    /// A turn ended without anything to record: what it kept can go.
    Abandon(Abandon),
    /// A conversation is to be forgotten.
    Forget {
        /// Where.
        workspace: WorkspaceId,
        /// Which.
        conversation: String,
    },
}

/// A turn that is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// Where.
    pub workspace: WorkspaceId,
    /// In which conversation.
    pub conversation: String,
    /// Its id, drawn by the proposer.
    pub turn: String,
    /// Who answered.
    pub agent: AgentName,
    /// Who asked.
    pub subject: String,
    /// When it was over, in milliseconds since 1970, stamped by the proposer.
    pub time_ms: u64,
    /// What was said.
    pub messages: Vec<Message>,
    /// The files that travelled with it.
    pub attachments: Vec<AttachmentInfo>,
    /// Tokens.
    pub usage: Usage,
    /// Tokens and money that each agent used.
    pub spent: Vec<(AgentName, Spent)>,
    /// Milliseconds.
    pub duration_ms: u64,
    /// The revision that answered.
    pub revision: Revision,
    /// Why there is no answer.
    pub failure: Option<String>,
    /// How it ended, for whoever asks again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    /// The term under which it ran; 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub term: u64,
}

/// What the answer of a turn says beyond what was said in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    /// Why that agent.
    pub route: Route,
    /// The answer stops where the longest reply allowed ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
    /// Model answers and calls.
    pub steps: u32,
    /// Why there is no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The files that came of it, unless they are among the pieces that were kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<Attachment>,
    /// How many files came of it that are too large to be kept.
    #[serde(default, skip_serializing_if = "is_zero_32")]
    pub files_omitted: u32,
    /// A digest of what was asked, where the sender gave it a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<String>,
}

/// What pieces belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// The journal of a turn that is under way; gone when it is recorded.
    Journal,
    /// The files of its answer; there as long as the turn is.
    Files,
}

/// Pieces of what a turn keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Keep {
    /// Where.
    pub workspace: WorkspaceId,
    /// The turn.
    pub turn: String,
    /// The term under which it runs.
    pub term: u64,
    /// Of what.
    pub of: Kept,
    /// They, without a gap.
    pub pieces: Vec<Piece>,
}

/// A piece of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Its place among all pieces of its turn.
    pub number: u32,
    /// The document ends with it.
    pub ends: bool,
    /// It.
    pub text: String,
}

/// A turn that waits for a person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    /// Where.
    pub workspace: WorkspaceId,
    /// The turn.
    pub turn: String,
    /// The conversation.
    pub conversation: String,
    /// The term under which it ran.
    pub term: u64,
    /// What there is to decide.
    pub approvals: Vec<ApprovalInfo>,
}

/// A turn that leaves nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abandon {
    /// Where.
    pub workspace: WorkspaceId,
    /// The turn.
    pub turn: String,
    /// The term under which it ran.
    pub term: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_zero_32(number: &u32) -> bool {
    *number == 0
}

/// Why an entry cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It is not JSON of this form.
    #[error("an entry of the conversations' log cannot be read")]
    Form(#[from] serde_json::Error),
    /// A newer program wrote it.
    #[error("an entry of the conversations' log has version {found}, and this program knows {VERSION}; upgrade it")]
    Version {
        /// Its version.
        found: u32,
    },
}

#[derive(Serialize)]
struct Written<'a> {
    v: u32,
    #[serde(flatten)]
    command: &'a Command,
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

impl Command {
    /// The entry's bytes.
    pub fn encode(&self) -> Result<Bytes, serde_json::Error> {
        serde_json::to_vec(&Written { v: VERSION, command: self }).map(Bytes::from)
    }

    /// Reads an entry.
    pub fn decode(bytes: &[u8]) -> Result<Command, DecodeError> {
        let Version { v } = serde_json::from_slice(bytes)?;
        if v != VERSION {
            return Err(DecodeError::Version { found: v });
        }
        Ok(serde_json::from_slice(bytes)?)
    }

    /// The term without which it counts for nothing, if there is one.
    pub fn term(&self) -> Option<u64> {
        let term = match self {
            Command::Record(turn) => turn.term,
            Command::Keep(keep) => keep.term,
            Command::Wait(waiting) => waiting.term,
            Command::Abandon(abandon) => abandon.term,
            Command::Forget { .. } => 0,
        };
        (term != 0).then_some(term)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What version 1 wrote has to be readable for ever.
    const GOLDEN: &str = r#"{"v":1,"command":"record","workspace":"team","conversation":"c","turn":"t","agent":"a","subject":"admin","time_ms":5,"messages":[{"role":"user","parts":[{"type":"text","text":"hi"}]},{"role":"assistant","text":"hello"}],"attachments":[{"name":"x.svg","media_type":"image/svg+xml","bytes":3}],"usage":{"input":1,"output":2},"spent":[["a",{"tokens":3,"cost":4}]],"duration_ms":6,"revision":7,"failure":null}"#;
    const GOLDEN_ENDING: &str = r#","ending":{"route":{"by":"address"},"steps":1,"files":[{"name":"x.svg","media_type":"image/svg+xml","text":"<s>"}],"asked":"0a"},"term":9}"#;
    const GOLDEN_KEEP: &str = r#"{"v":1,"command":"keep","workspace":"team","turn":"t","term":9,"of":"journal","pieces":[{"number":0,"ends":true,"text":"{}"}]}"#;
    const GOLDEN_WAIT: &str =
        r#"{"v":1,"command":"wait","workspace":"team","turn":"t","conversation":"c","term":9,"approvals":[]}"#;
    const GOLDEN_ABANDON: &str = r#"{"v":1,"command":"abandon","workspace":"team","turn":"t","term":9}"#;

    #[test]
    fn what_version_1_wrote_is_read_and_written_the_same() {
        let ended = format!("{}{GOLDEN_ENDING}", GOLDEN.strip_suffix('}').expect("an object"));
        for golden in [GOLDEN, &ended, GOLDEN_KEEP, GOLDEN_WAIT, GOLDEN_ABANDON] {
            let command = Command::decode(golden.as_bytes()).expect("version 1");
            assert_eq!(command.encode().expect("JSON"), golden);
            assert_eq!(command.term(), (golden != GOLDEN).then_some(9));
        }
        let Ok(Command::Record(turn)) = Command::decode(GOLDEN.as_bytes()) else { panic!("a record") };
        assert_eq!((turn.agent.as_str(), turn.revision, turn.messages.len()), ("a", Revision(7), 2));
    }

    #[test]
    fn a_newer_version_is_refused() {
        let newer = GOLDEN.replacen("\"v\":1", "\"v\":2", 1);
        assert!(matches!(Command::decode(newer.as_bytes()), Err(DecodeError::Version { found: 2 })));
        assert!(matches!(Command::decode(b"{}"), Err(DecodeError::Form(_))));
    }
}
