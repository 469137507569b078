//! What was said: conversations, turns that are under way or wait for a person, and what each day used. Each shard is a
//! replicated log (a group of its own) and the state that it makes, which every node that follows the group has.
//!
//! A turn is recorded before its answer is given: whoever got an answer finds it again, also after a power cut.

pub mod log;

mod db;

mod writer;

mod machine;

mod frozen;

mod read;

mod shard;

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

use caxton_proto::WorkspaceId;
use caxton_raft::deploy_log::DeployLog;
use caxton_raft::{Birth, Groups, OpenGroupError};
use futures::future::{join_all, try_join_all};

use self::log::TurnRecord;
use crate::affinity;
use crate::llm::Message;
pub use db::OpenError as DatabaseError;
pub use machine::State;
pub use read::{Documents, ReadError, Summary};
pub use shard::{Keeping, NotHere, RecordError, Shard};

/// The longest id of a conversation, in bytes.
pub const ID_BYTES_MAX: usize = 64;

/// Why the conversations cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Their state.
    #[error(transparent)]
    State(#[from] DatabaseError),
    /// Their log.
    #[error("the log of a shard's conversations cannot be opened")]
    Group(#[from] OpenGroupError),
}

/// A handle; clones share the shards.
#[derive(Clone)]
pub struct Conversations(Arc<[Shard]>);

impl Conversations {
    /// Opens them in `dir`, all shards at once.
    pub async fn open(
        dir: &Path,
        groups: &Groups,
        birth: Birth,
        shards: NonZeroU32,
    ) -> Result<Conversations, OpenError> {
        let open = affinity::groups(shards).map(|id| Shard::open(dir, groups, id, birth));
        Ok(Conversations(try_join_all(open).await?.into()))
    }

    /// How many shards there are.
    pub fn shards(&self) -> NonZeroU32 {
        let count = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN)
    }

    /// Writes in the format that this log says.
    pub fn follow(&self, log: &DeployLog) {
        self.0.iter().for_each(|shard| shard.follow(log.clone()));
    }

    /// Every shard.
    pub fn all(&self) -> &[Shard] {
        &self.0
    }

    /// The shard of a workspace.
    pub fn of(&self, workspace: &WorkspaceId) -> &Shard {
        let group = affinity::owner_of(workspace, self.shards());
        // The shards are opened in the order of their groups, from 1.
        &self.0[group.0 as usize - 1]
    }

    /// Stops taking part in every shard's log.
    pub async fn shutdown(&self) {
        join_all(self.0.iter().map(|shard| shard.group().shutdown())).await;
    }

    /// Ends once the last handle is gone and every state is closed.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let all = join_all(self.0.iter().map(Shard::closed).collect::<Vec<_>>());
        async move { _ = all.await }
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
    ) -> Result<Vec<Message>, ReadError> {
        let (name, conversation) = (workspace.clone(), conversation.to_owned());
        self.read(workspace, move |state| {
            let mut bytes = 0;
            let turns = state.turns(&name, &conversation, |turn| {
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
fn exchange(turn: &TurnRecord) -> Option<(Message, Message)> {
    let asked = turn.messages.iter().find(|message| matches!(message, caxton_proto::shard::Message::User { .. }))?;
    match turn.messages.last()? {
        caxton_proto::shard::Message::Assistant { text, calls } if calls.is_empty() && turn.failure.is_none() => {
            Some((Message::user(Message::from(asked.clone()).text()), Message::assistant(text.clone())))
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
