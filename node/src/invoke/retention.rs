//! What was said and is remembered goes when the workspace's file says so (`[retention]`): the leader of the workspace's shard
//! proposes the removals, and every replica applies the same ones.
//!
//! A conversation goes whole. One with a turn under way or an approval that waits stays until that is over, however old it is.

use std::collections::HashSet;
use std::time::Duration;

use caxton_proto::WorkspaceId;
use caxton_raft::Role;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::Invoker;
use crate::catalog::LoadError;
use crate::conversations::{ReadError, RecordError};
use crate::llm::reasons;
use crate::memory::MemoryError;
use crate::shard::Shard;
use crate::tasks;

/// How often the workspaces of a shard are looked through.
const INTERVAL: Duration = Duration::from_secs(5 * 60);
/// The pause after something was deployed, so that many deployments are one pass.
const PAUSE: Duration = Duration::from_secs(1);
/// How many conversations of a workspace go in one pass; the others follow in the next.
const CONVERSATIONS_MAX: usize = 1_000;

/// Why what is beyond a workspace's retention is still there.
#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    /// The workspace's file could not be read.
    #[error("the workspace's file cannot be read")]
    Manifest(#[from] LoadError),
    /// The work was broken off.
    #[error("the pass was broken off")]
    Stopped(#[from] tokio::task::JoinError),
    /// The conversations could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A removal could not be recorded.
    #[error("a removal could not be recorded")]
    Record(#[from] RecordError),
    /// What is remembered could not be changed.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// What went in one pass over a workspace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetentionTotals {
    /// How many conversations, each with its turns.
    pub conversations: u64,
    /// How many memories.
    pub memories: u64,
    /// The bytes of the memories' texts and metadata.
    pub memory_bytes: u64,
}

/// Sees that one shard keeps no more than its workspaces' files say.
pub struct Retention {
    invoker: Invoker,
    shard: Shard,
}

impl Retention {
    /// For one shard.
    pub fn new(invoker: Invoker, shard: &Shard) -> Retention {
        Retention { invoker, shard: shard.clone() }
    }

    /// Works until it is stopped: at intervals, when something was deployed, and when this node is elected.
    pub async fn run(self, stop: CancellationToken) {
        let (mut changed, mut status) = (self.invoker.catalogs().changed(), self.shard.group().status());
        loop {
            changed.borrow_and_update();
            let leads = status.borrow_and_update().role == Role::Leader;
            if leads && stop.run_until_cancelled(self.pass()).await.is_none() {
                return;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(INTERVAL), if leads => {}
                changed = changed.changed(), if leads => if changed.is_err() { return },
                changed = status.changed() => if changed.is_err() { return },
            }
            if stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
                return;
            }
        }
    }

    async fn pass(&self) {
        let shards = self.invoker.conversations().shards();
        let all = self.invoker.catalogs().all();
        let own = all.into_iter().map(|catalog| catalog.workspace.clone());
        for workspace in own.filter(|workspace| shards.of(workspace).id() == self.shard.id()) {
            match self.invoker.retain(&workspace, crate::time::now_ms()).await {
                Ok(RetentionTotals { conversations: 0, memories: 0, memory_bytes: _ }) => {}
                Ok(RetentionTotals { conversations, memories, memory_bytes }) => {
                    info!(%workspace, conversations, memories, memory_bytes, "removed what is beyond the workspace's retention");
                }
                Err(error) => {
                    warn!(%workspace, reason = %reasons(&error), "what is beyond the workspace's retention stays for now");
                }
            }
        }
    }
}

impl Invoker {
    /// Removes what is beyond the retention of a workspace whose shard this node leads, at most a thousand conversations.
    pub async fn retain(&self, workspace: &WorkspaceId, now_ms: u64) -> Result<RetentionTotals, RetentionError> {
        let Some(catalog) = self.catalogs().get(workspace) else { return Ok(RetentionTotals::default()) };
        let manifest = tasks::blocking(move || catalog.manifest()).await??;
        let retention = &manifest.retention;
        if retention.keeps_all() {
            return Ok(RetentionTotals::default());
        }
        let before_ms = retention.conversations_age_ms_max.map(|age| now_ms.saturating_sub(age));
        let (name, newest) = (workspace.clone(), retention.conversations_max);
        let conversations = self.conversations().of(workspace);
        let beyond = if before_ms.is_some() || newest.is_some() {
            conversations.read(move |state| state.beyond(&name, before_ms, newest, CONVERSATIONS_MAX)).await?
        } else {
            Vec::new()
        };
        let mut totals = RetentionTotals::default();
        for conversation in beyond {
            // A turn that begins waits for this short while, and begins a conversation of that name anew.
            let Ok(_alone) = self.lock_of(workspace, &conversation).try_lock_owned() else { continue };
            if self.is_busy(workspace, &conversation).await? {
                continue;
            }
            conversations.forget(workspace, &conversation).await?;
            debug!(%workspace, conversation, "a conversation is beyond the workspace's retention");
            totals.conversations += 1;
        }
        if !retention.memory.is_empty() {
            let memories = self.memories().of(workspace);
            (totals.memories, totals.memory_bytes) = memories.retain(workspace, retention.memory.clone()).await?;
        }
        Ok(totals)
    }

    /// Whether a turn of the conversation waits for a person, or was left by another leader and is not taken up yet.
    async fn is_busy(&self, workspace: &WorkspaceId, conversation: &str) -> Result<bool, ReadError> {
        let (name, wanted) = (workspace.clone(), conversation.to_owned());
        let read = move |state: &crate::conversations::State| {
            let waits = state.waiting(&name)?.iter().any(|waiting| waiting.conversation == wanted);
            let begun: HashSet<String> = state
                .underway()?
                .into_iter()
                .filter(|(workspace, _)| *workspace == name)
                .map(|(_, turn)| turn)
                .collect();
            Ok((waits, begun))
        };
        let (waits, begun) = self.conversations().of(workspace).read(read).await?;
        // Which conversation a turn belongs to that this node does not run is only in what it kept: it is waited for.
        Ok(waits || begun.iter().any(|turn| !self.shared.running.has(workspace, turn)))
    }
}
