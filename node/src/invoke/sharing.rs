//! Memories of the scope `global` across workspaces: only where the node's operator allows it and both workspaces name each
//! other.
//!
//! What comes from another workspace is marked as a stranger's: it was not deployed and not said here.

use caxton_memory::Permit;
use caxton_memory::proto::Scope;
use caxton_proto::WorkspaceId;
use caxton_proto::manifest::agent::MemoryScope;
use futures::StreamExt;
use tracing::warn;

use super::Invoker;
use super::memory::AgentMemory;
use crate::catalog::{Catalog, Catalogs};
use crate::llm::reasons;
use crate::memory::{FoundMemories, MemoryError, SearchOrder};

/// How many workspaces are searched at a time.
const SEARCHES_MAX: usize = 8;

/// The workspaces that share with this one, and with which it shares.
fn partners(catalogs: &Catalogs, own: &Catalog) -> Vec<WorkspaceId> {
    let named = |catalog: &Catalog| catalog.manifest().map(|it| it.memory_shared_with.clone()).unwrap_or_default();
    let mutual = |other: &WorkspaceId| {
        *other != own.workspace && catalogs.get(other).is_some_and(|it| named(&it).contains(&own.workspace))
    };
    named(own).into_iter().filter(mutual).collect()
}

impl Invoker {
    /// Whether the node's operator allows that workspaces share what they remember.
    pub fn shares_memories(&self) -> bool {
        self.shared.parts.memory.share
    }
}

impl AgentMemory<'_> {
    /// Adds to what was found what partners share, the best of all first.
    pub(super) async fn with_partners(
        &self,
        own: FoundMemories,
        order: &SearchOrder,
    ) -> Result<FoundMemories, MemoryError> {
        let asks = self.manifest.memory.scope == MemoryScope::Global && self.share;
        let Some(catalog) = self.catalogs.get(self.workspace).filter(|_| asks) else { return Ok(own) };
        let catalogs = self.catalogs.clone();
        // Files may have to be read for it.
        let partners = crate::tasks::blocking(move || partners(&catalogs, &catalog)).await.unwrap_or_default();
        let FoundMemories { mut found, memories, backend } = own;
        let mut all: Vec<_> = std::mem::take(&mut found.hits).into_iter().zip(memories).collect();
        // One whose backend does not answer takes its time once, and not for each of them.
        let searches = partners.into_iter().map(|partner| async move {
            let permit = Permit::of(partner.clone(), [Scope::Global]);
            let theirs = self.backends.search(&partner, permit, order.clone()).await;
            (partner, theirs)
        });
        let searches: Vec<_> = futures::stream::iter(searches).buffered(SEARCHES_MAX).collect().await;
        for (partner, theirs) in searches {
            match theirs {
                Ok(theirs) => {
                    found.searched += theirs.found.searched;
                    all.extend(theirs.found.hits.into_iter().zip(theirs.memories).map(|(hit, mut memory)| {
                        memory.untrusted = true;
                        (hit, memory)
                    }));
                }
                // The agent's own memories are better than none.
                Err(error) => {
                    warn!(workspace = %self.workspace, %partner, reason = %reasons(&error), "what a workspace shares cannot be searched");
                }
            }
        }
        all.sort_by(|(a, _), (b, _)| b.score.total_cmp(&a.score).then_with(|| a.id.cmp(&b.id)));
        all.truncate(order.limit);
        let (hits, memories) = all.into_iter().unzip();
        found.hits = hits;
        Ok(FoundMemories { found, memories, backend })
    }
}
