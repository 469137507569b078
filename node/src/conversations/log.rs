//! What the log of conversations says. Written as JSON with a version, because what it carries is JSON already; a
//! version that this program does not know stops the group instead of being guessed at.

use bytes::Bytes;
use caxton_proto::{AgentName, Revision, WorkspaceId};
use serde::{Deserialize, Serialize};

use crate::api::messages::{ApprovalInfo, AttachmentInfo};
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
    /// A piece of a turn that is to wait.
    Part {
        /// Where.
        workspace: WorkspaceId,
        /// The turn.
        turn: String,
        /// Its place among the pieces.
        part: u32,
        /// The piece.
        text: String,
    },
    /// A turn waits for a person; all its pieces came before.
    Wait(Box<Waiting>),
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
}

/// A turn that waits for a person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    /// Where.
    pub workspace: WorkspaceId,
    /// The turn.
    pub turn: String,
    /// In how many pieces it is stored.
    pub parts: u32,
    /// What there is to decide.
    pub approvals: Vec<ApprovalInfo>,
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
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What version 1 wrote has to be readable for ever.
    const GOLDEN: &str = r#"{"v":1,"command":"record","workspace":"team","conversation":"c","turn":"t","agent":"a","subject":"admin","time_ms":5,"messages":[{"role":"user","parts":[{"type":"text","text":"hi"}]},{"role":"assistant","text":"hello"}],"attachments":[{"name":"x.svg","media_type":"image/svg+xml","bytes":3}],"usage":{"input":1,"output":2},"spent":[["a",{"tokens":3,"cost":4}]],"duration_ms":6,"revision":7,"failure":null}"#;

    #[test]
    fn what_version_1_wrote_is_read_and_written_the_same() {
        let command = Command::decode(GOLDEN.as_bytes()).expect("version 1");
        assert_eq!(command.encode().expect("JSON"), GOLDEN);
        let Command::Record(turn) = command else { panic!("a record") };
        assert_eq!((turn.agent.as_str(), turn.revision, turn.messages.len()), ("a", Revision(7), 2));
    }

    #[test]
    fn a_newer_version_is_refused() {
        let newer = GOLDEN.replacen("\"v\":1", "\"v\":2", 1);
        assert!(matches!(Command::decode(newer.as_bytes()), Err(DecodeError::Version { found: 2 })));
        assert!(matches!(Command::decode(b"{}"), Err(DecodeError::Form(_))));
    }
}
