//! What was said: conversations, turns that wait for a person, and what each day used, as a replicated log (group 1)
//! and the state that it makes.
//!
//! A turn is recorded before its answer is given: whoever got an answer finds it again, also after a power cut.

pub mod log;

mod machine;

use std::path::Path;
use std::sync::Arc;

use caxton_proto::WorkspaceId;
use caxton_raft::{Birth, Group, GroupId, Groups, OpenGroupError, ProposeError};

use crate::llm::Message;
pub use machine::{ReadError, State, Summary};

use self::log::{Command, Turn, Waiting};

/// The group of the conversations' log.
pub const GROUP: GroupId = GroupId(1);
/// An entry of the log is at most this long; the log itself takes 1 MiB.
const ENTRY_BYTES_MAX: usize = 900 << 10;
/// A stored result of a call is cut to this, when a turn's record would be too long otherwise.
const RESULT_BYTES_KEPT: usize = 2 << 10;
/// A piece of a turn that waits; JSON may double what is in it.
const PART_BYTES: usize = 256 << 10;
/// The longest id of a conversation, in bytes.
pub const ID_BYTES_MAX: usize = 64;

/// Why something was not recorded.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The log did not take it.
    #[error("the turn could not be recorded")]
    Propose(#[from] ProposeError),
    /// It cannot be written down.
    #[error("the turn cannot be written down")]
    Encode(#[from] serde_json::Error),
    /// Even without its calls' results it is too long.
    #[error("the turn's record has {bytes} bytes, and {ENTRY_BYTES_MAX} is the most; ask for less at once")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// The state could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why the conversations cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Their state.
    #[error("the conversations in {dir} cannot be opened")]
    State {
        /// Where.
        dir: String,
        /// Why not.
        #[source]
        source: rocksdb::Error,
    },
    /// Their log.
    #[error("the log of conversations cannot be opened")]
    Group(#[from] OpenGroupError),
}

/// A handle; clones share the log and the state.
#[derive(Clone)]
pub struct Conversations {
    state: Arc<State>,
    group: Group,
}

impl Conversations {
    /// Opens them in `dir`.
    pub async fn open(dir: &Path, groups: &Groups, birth: Birth) -> Result<Conversations, OpenError> {
        let at = dir.to_owned();
        let opened = tokio::task::spawn_blocking(move || {
            State::open(&at).map_err(|source| OpenError::State { dir: at.display().to_string(), source })
        });
        let state = match opened.await {
            Ok(opened) => opened?,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        let group = groups.open(GROUP, Arc::clone(&state) as Arc<dyn caxton_raft::Machine>, birth).await?;
        Ok(Conversations { state, group })
    }

    /// The group, for its status and its end.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Ends once the last handle is gone and the state is closed.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        self.state.closed()
    }

    /// Records a turn that is over; on disk on a majority when this returns.
    pub async fn record(&self, turn: Turn) -> Result<(), RecordError> {
        let mut command = Command::Record(Box::new(turn));
        let mut bytes = command.encode()?;
        if bytes.len() > ENTRY_BYTES_MAX {
            if let Command::Record(turn) = &mut command {
                turn.messages.iter_mut().for_each(shorten);
            }
            bytes = command.encode()?;
        }
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(RecordError::TooLong { bytes: bytes.len() });
        }
        self.group.propose(bytes).await?;
        Ok(())
    }

    /// Puts a turn down until a person has decided; on disk on a majority when this returns.
    pub async fn put_down(&self, mut waiting: Waiting, text: &str) -> Result<(), RecordError> {
        let pieces = pieces(text);
        waiting.parts = u32::try_from(pieces.len()).unwrap_or(u32::MAX);
        for (part, piece) in (0..).zip(pieces) {
            let (workspace, turn) = (waiting.workspace.clone(), waiting.turn.clone());
            let command = Command::Part { workspace, turn, part, text: piece.to_owned() };
            self.group.propose(command.encode()?).await?;
        }
        self.group.propose(Command::Wait(Box::new(waiting)).encode()?).await?;
        Ok(())
    }

    /// Forgets a conversation.
    pub async fn forget(&self, workspace: &WorkspaceId, conversation: &str) -> Result<(), RecordError> {
        let command = Command::Forget { workspace: workspace.clone(), conversation: conversation.to_owned() };
        self.group.propose(command.encode()?).await?;
        Ok(())
    }

    /// Reads from the state, away from the threads that serve.
    pub async fn read<R: Send + 'static>(
        &self,
        read: impl FnOnce(&State) -> Result<R, ReadError> + Send + 'static,
    ) -> Result<R, ReadError> {
        let state = Arc::clone(&self.state);
        match tokio::task::spawn_blocking(move || read(&state)).await {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// What was said before, for a model: requests and answers without the steps between them, the newest of at most
    /// `bytes_max` together.
    pub async fn history(
        &self,
        workspace: &WorkspaceId,
        conversation: &str,
        bytes_max: usize,
    ) -> Result<Vec<Message>, ReadError> {
        let (workspace, conversation) = (workspace.clone(), conversation.to_owned());
        self.read(move |state| {
            let mut bytes = 0;
            let turns = state.turns(&workspace, &conversation, |turn| {
                bytes += exchange(turn).map_or(0, |(asked, answered)| asked.text().len() + answered.text().len());
                bytes > bytes_max
            })?;
            let fit = if bytes > bytes_max { turns.len() - 1 } else { turns.len() };
            let newest = turns.iter().take(fit).rev().filter_map(exchange);
            Ok(newest.flat_map(|(asked, answered)| [asked, answered]).collect())
        })
        .await
    }
}

/// A moment for people and programs: RFC 3339 in UTC.
pub fn rfc3339(unix_ms: u64) -> String {
    let ms = i64::try_from(unix_ms).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX).to_string()
}

/// A conversation's id from outside; the error says what one looks like.
pub fn check_id(id: &str) -> Result<(), String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if (1..=ID_BYTES_MAX).contains(&id.len()) && id.chars().all(fine) {
        return Ok(());
    }
    Err(format!("a conversation's id has 1 to {ID_BYTES_MAX} letters, digits, `-`, `_` and `.`"))
}

/// The request and the answer of a turn that has one.
fn exchange(turn: &Turn) -> Option<(Message, Message)> {
    let asked = turn.messages.iter().find(|message| matches!(message, Message::User { .. }))?;
    match turn.messages.last()? {
        Message::Assistant { text, calls } if calls.is_empty() && turn.failure.is_none() => {
            Some((Message::user(asked.text()), Message::assistant(text.clone())))
        }
        _ => None,
    }
}

/// Cuts what a model was told by a tool, and says so.
fn shorten(message: &mut Message) {
    if let Message::Tool { text, .. } = message
        && text.len() > RESULT_BYTES_KEPT
    {
        let bytes = text.len();
        let mut end = RESULT_BYTES_KEPT;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(&format!("\n[{end} of {bytes} bytes kept]"));
    }
}

fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let mut end = rest.len().min(PART_BYTES);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let (piece, after) = rest.split_at(end);
        pieces.push(piece);
        rest = after;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_put_together_are_the_text() {
        let text = format!("x{}", "é".repeat(PART_BYTES));
        let cut = pieces(&text);
        assert!(cut.len() > 2 && cut.iter().all(|piece| piece.len() <= PART_BYTES));
        assert_eq!(cut.concat(), text);
        assert!(pieces("").is_empty());
    }

    #[test]
    fn an_id_is_a_plain_word() {
        for good in ["a", "0199-ab_c.d", &"x".repeat(64)] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a/b", "é", "a\0b", &"x".repeat(65)] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
    }
}
