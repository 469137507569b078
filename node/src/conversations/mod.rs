//! What was said: conversations, turns that are under way or wait for a person, and what each day used. They are a tenant of
//! the shards, and every node that follows a shard's group has them.
//!
//! - [`log`]: the commands.
//! - [`tenant`]: the tables, and what the commands do to them.
//! - [`read`]: what can be read, on any node.
//! - [`write`]: what the node that leads a shard writes.
//!
//! A turn is recorded before its answer is given: whoever got an answer finds it again, also after a power cut.

pub mod log;
mod read;
mod rows;
mod tenant;
mod write;

use caxton_proto::shard::{Attachment, AttachmentInfo};
use caxton_proto::{AgentName, WorkspaceId, shard};

use self::log::TurnRecord;
use crate::chat::Message;
use crate::recalled::without_blocks;
use crate::shard::{Shard, Shards};
pub use crate::time::rfc3339;
pub use read::{Documents, ReadError, State};
pub use rows::Summary;
pub use tenant::ConversationsTenant;
pub use write::{Keeping, RecordError};

/// The longest id of a conversation, in bytes.
pub const ID_BYTES_MAX: usize = 64;

/// What was said before in a conversation.
#[derive(Debug, Default)]
pub struct History {
    /// The subject of its newest turn, to whom it belongs; none for a conversation that has no turn yet.
    pub owner: Option<String>,
    /// Who answered last.
    pub agent: Option<AgentName>,
    /// Requests and answers, the oldest first.
    pub messages: Vec<Message>,
    /// What files there were in these turns, the newest first.
    pub files: Vec<TurnFiles>,
}

/// The files of a turn, those that came with it and those that came of it.
#[derive(Debug, Clone)]
pub struct TurnFiles {
    /// The turn, whose documents hold the others.
    pub turn: String,
    /// When it was over, in milliseconds since 1970.
    pub time_ms: u64,
    /// What they are called, and how large they are.
    pub infos: Vec<AttachmentInfo>,
    /// Those that are in the turn's record.
    pub inline: Vec<Attachment>,
}

impl TurnFiles {
    /// The files that a turn names, with those that are in its record; nothing where it names none.
    fn of(turn: &TurnRecord) -> Option<TurnFiles> {
        let infos = turn.attachments.clone();
        let inline = turn.ending.as_ref().map(|ending| ending.files.clone()).unwrap_or_default();
        (!infos.is_empty()).then(|| TurnFiles { turn: turn.turn.clone(), time_ms: turn.time_ms, infos, inline })
    }
}

/// The conversations of all shards. A clone is a handle on the same.
#[derive(Clone)]
pub struct Conversations(Shards);

/// The conversations of one shard. A clone is a handle on the same.
#[derive(Clone)]
pub struct ShardConversations(Shard);

impl Conversations {
    /// Those in these shards, of which [`ConversationsTenant`] is a tenant.
    pub fn new(shards: Shards) -> Conversations {
        Conversations(shards)
    }

    /// The shards that they are in.
    pub fn shards(&self) -> &Shards {
        &self.0
    }

    /// Those of a workspace's shard.
    pub fn of(&self, workspace: &WorkspaceId) -> ShardConversations {
        ShardConversations::new(self.0.of(workspace).clone())
    }

    /// Reads from the state of a workspace's shard, away from the threads that serve.
    pub async fn read<R: Send + 'static>(
        &self,
        workspace: &WorkspaceId,
        read: impl FnOnce(&State) -> Result<R, ReadError> + Send + 'static,
    ) -> Result<R, ReadError> {
        self.of(workspace).read(read).await
    }

    /// What was said before, for a model: requests and answers without the steps between them, the newest of at most
    /// `bytes_max` together.
    pub async fn history(
        &self,
        workspace: &WorkspaceId,
        conversation: &str,
        bytes_max: usize,
    ) -> Result<History, ReadError> {
        let (name, conversation) = (workspace.clone(), conversation.to_owned());
        self.read(workspace, move |state| {
            let mut bytes = 0;
            let turns = state.turns(&name, &conversation, |turn| {
                bytes += exchange(turn).map_or(0, |(asked, answered)| asked.text().len() + answered.text().len());
                bytes > bytes_max
            })?;
            let fit = if bytes > bytes_max { turns.len() - 1 } else { turns.len() };
            let owner = turns.first().map(|turn| turn.subject.clone());
            let agent = turns.first().map(|turn| turn.agent.clone());
            let files = turns.iter().take(fit.max(1)).filter_map(TurnFiles::of).collect();
            let newest = turns.iter().take(fit).rev().filter_map(exchange);
            let messages = newest.flat_map(|(asked, answered)| [asked, answered]).collect();
            Ok(History { owner, agent, messages, files })
        })
        .await
    }
}

impl ShardConversations {
    /// Those in this shard.
    pub fn new(shard: Shard) -> ShardConversations {
        ShardConversations(shard)
    }

    /// The shard that they are in.
    pub fn shard(&self) -> &Shard {
        &self.0
    }

    /// Reads from the shard's state, away from the threads that serve.
    pub async fn read<R: Send + 'static>(
        &self,
        read: impl FnOnce(&State) -> Result<R, ReadError> + Send + 'static,
    ) -> Result<R, ReadError> {
        self.0.read(move |state| read(&State::of(state))).await
    }

    /// Reads a few rows: on the spot where that is quick, because two threads that wake each other take longer.
    pub async fn read_few<R: Send + 'static>(
        &self,
        read: impl FnOnce(&State) -> Result<R, ReadError> + Send + 'static,
    ) -> Result<R, ReadError> {
        self.0.read_few(move |state| read(&State::of(state))).await
    }
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
fn exchange(turn: &TurnRecord) -> Option<(Message, Message)> {
    let asked = turn.messages.iter().find(|message| matches!(message, shard::Message::User { .. }))?;
    match turn.messages.last()? {
        shard::Message::Assistant { text, calls, .. } if calls.is_empty() && turn.failure.is_none() => {
            // What was recalled for that turn is recalled anew, or not.
            let asked = Message::from(asked.clone()).text();
            Some((Message::user(without_blocks(&asked)), Message::assistant(text.clone())))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
