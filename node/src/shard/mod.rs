//! A shard is one group of the replicated log, one SQLite file, and one snapshot. What is in it belongs to its tenants, which
//! it knows by number alone: each has tables in the file and commands in the log.
//!
//! - [`tenant`]: what a shard asks of a tenant.
//! - [`envelope`]: how an entry says whose command it is.
//! - [`machine`]: what entries do, in one transaction with the index of the last of them.
//! - [`refused`]: what becomes of an entry that no replica can apply.
//! - [`db`], [`writer`]: the file, and who commits what was written.
//! - [`snapshot`]: the rows of all tenants as a stream.
//! - [`clearing`]: what becomes of a workspace's rows when the deploy log has deleted it.
//! - [`placement`]: which shard a workspace belongs to, and how many there are.
//!
//! The node that leads a shard's group owns its workspaces. One that was just elected has taken a shard over only when it has
//! applied all that was acknowledged before, and knows what today used; no turn runs in the shard before that.

pub mod clearing;
mod db;
pub mod envelope;
mod machine;
pub mod placement;
mod refused;
mod snapshot;
pub mod tenant;
mod writer;

#[cfg(test)]
mod notes;

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use caxton_proto::{Format, NodeId, WorkspaceId};
use caxton_raft::{Birth, Group, GroupId, Groups, Machine, OpenGroupError, ProposeError, Role};
use futures::future::{join_all, try_join_all};
use tokio::sync::{RwLock, watch};

use self::clearing::Deletions;
pub use self::db::{Database, OpenError as DatabaseError};
pub use self::machine::State;
pub use self::refused::Refused;
use self::tenant::{Answer, ApplyError, Misfit, Refusal, Stop, Tenants};
use crate::tasks;

/// Says in which format this node writes what others have to read: entries, documents and snapshots. It is one that every
/// member of the cluster reads, and never goes back.
#[derive(Clone)]
pub struct WrittenFormat {
    says: Arc<dyn Fn() -> Format + Send + Sync>,
    changes: Arc<dyn Fn() -> Option<watch::Receiver<u64>> + Send + Sync>,
}

impl WrittenFormat {
    /// What this says, which nobody waits for to change.
    pub fn new(says: impl Fn() -> Format + Send + Sync + 'static) -> WrittenFormat {
        WrittenFormat { says: Arc::new(says), changes: Arc::new(|| None) }
    }

    /// The same, and it may say something else whenever what `changes` gives is told of a change.
    pub fn that_changes(
        self,
        changes: impl Fn() -> Option<watch::Receiver<u64>> + Send + Sync + 'static,
    ) -> WrittenFormat {
        WrittenFormat { changes: Arc::new(changes), ..self }
    }

    /// The format, as of now.
    pub fn now(&self) -> Format {
        (self.says)()
    }

    /// Waits for at most so long until the format is this one or a newer one; says whether it is.
    pub async fn reaches(&self, format: Format, wait: Duration) -> bool {
        let changes = (self.changes)();
        let reached = async {
            let Some(mut changes) = changes else { return self.now() >= format };
            while self.now() < format {
                if changes.changed().await.is_err() {
                    return false;
                }
            }
            true
        };
        tokio::time::timeout(wait, reached).await.unwrap_or(false)
    }
}

/// Why the shards cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file of one of them cannot be used.
    #[error(transparent)]
    State(#[from] DatabaseError),
    /// The log of one of them cannot be used.
    #[error("the log of a shard cannot be opened")]
    Group(#[from] OpenGroupError),
    /// The tenants do not fit together: a defect of the program.
    #[error(transparent)]
    Tenants(#[from] Misfit),
}

/// Why a command was not applied, as far as is known.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The log did not take it, or nobody knows whether it did.
    #[error("the shard's log did not take it")]
    Propose(#[from] ProposeError),
    /// The workspace was deleted, or what it had before is not gone yet. Nothing was changed.
    #[error("the workspace was deleted")]
    Deleted,
    /// It cannot be applied by any replica, and changed nothing.
    #[error("no replica can apply it")]
    Refused(#[from] Refusal),
    /// This program cannot read it itself.
    #[error("it cannot be read by this program")]
    Unreadable(#[source] Stop),
    /// The tables could not be read.
    #[error("the shard's tables cannot be read")]
    Read(#[from] rusqlite::Error),
}

/// Another node leads the shard, or nobody does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this node does not lead the workspace's shard")]
pub struct NotHere {
    /// Who does, if that is known.
    pub leader: Option<NodeId>,
}

/// All shards of this node. A clone is a handle on the same.
#[derive(Clone)]
pub struct Shards(Arc<[Shard]>);

impl Shards {
    /// Opens `count` shards at once, with their files in `dir`. `tenants` makes the tenants of a shard.
    pub async fn open(
        dir: &Path,
        groups: &Groups,
        birth: Birth,
        count: NonZeroU32,
        (format, deletions): (WrittenFormat, Deletions),
        tenants: impl Fn(GroupId) -> Result<Tenants, Misfit>,
    ) -> Result<Shards, OpenError> {
        let open = placement::groups(count).map(|id| {
            let (tenants, says) = (tenants(id), (format.clone(), deletions.clone()));
            async move { Shard::open(dir, groups, id, birth, says, tenants?).await }
        });
        Ok(Shards(try_join_all(open).await?.into()))
    }

    /// How many shards there are.
    pub fn count(&self) -> NonZeroU32 {
        let count = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN)
    }

    /// Every shard, in the order of their groups.
    pub fn all(&self) -> &[Shard] {
        &self.0
    }

    /// The shard of a workspace.
    pub fn of(&self, workspace: &WorkspaceId) -> &Shard {
        let group = placement::owner_of(workspace, self.count());
        // The shards are opened in the order of their groups, from 1.
        &self.0[group.0 as usize - 1]
    }

    /// Stops taking part in every shard's log.
    pub async fn shutdown(&self) {
        join_all(self.0.iter().map(|shard| shard.group().shutdown())).await;
    }

    /// Ends once the last handle is gone and every state is closed.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let all = join_all(self.0.iter().map(|shard| shard.state.closed()).collect::<Vec<_>>());
        async move { _ = all.await }
    }
}

/// One shard: its group of the log, its state, and the term under which this node leads it. A clone is a handle on the same.
#[derive(Clone)]
pub struct Shard {
    id: GroupId,
    state: Arc<State>,
    group: Group,
    /// The term in which this node took it over last.
    taken: watch::Sender<u64>,
    format: WrittenFormat,
    deletions: Deletions,
    /// Held by whoever writes, from the look whether the workspace was deleted until it is known what became of the entry.
    writing: Arc<RwLock<()>>,
}

impl Shard {
    async fn open(
        dir: &Path,
        groups: &Groups,
        id: GroupId,
        birth: Birth,
        (format, deletions): (WrittenFormat, Deletions),
        tenants: Tenants,
    ) -> Result<Shard, OpenError> {
        let file = dir.join(format!("shard-{}.db", id.0));
        let written = format.clone();
        let state = away(move || State::open(&file, id, written, tenants)).await?;
        let group = groups.open(id, Arc::clone(&state) as Arc<dyn Machine>, birth).await?;
        Ok(Shard { id, state, group, taken: watch::Sender::default(), format, deletions, writing: Arc::default() })
    }

    /// The number of its group.
    pub fn id(&self) -> GroupId {
        self.id
    }

    /// The format in which entries and documents are written now.
    pub fn format(&self) -> Format {
        self.format.now()
    }

    /// Waits for at most so long until entries are written in this format or a newer one; says whether they are.
    pub async fn writes(&self, format: Format, wait: Duration) -> bool {
        self.format.reaches(format, wait).await
    }

    /// The group, for its status and its members.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// This node has taken the shard over in this term.
    pub fn taken_over(&self, term: u64) {
        self.taken.send_replace(term);
    }

    /// The term under which this node leads the shard; waits for an election and for what follows it, at most `wait`.
    pub async fn lead(&self, wait: Duration) -> Result<u64, NotHere> {
        let (mut status, mut taken) = (self.group.status(), self.taken.subscribe());
        let until = tokio::time::Instant::now() + wait;
        loop {
            let (role, leader, term) = {
                let status = status.borrow_and_update();
                (status.role, status.leader, status.term)
            };
            let led = role == Role::Leader;
            if led && *taken.borrow_and_update() == term {
                return Ok(term);
            }
            if !led && leader.is_some() {
                return Err(NotHere { leader });
            }
            let changed = async {
                tokio::select! {
                    changed = status.changed() => changed.is_ok(),
                    changed = taken.changed() => changed.is_ok(),
                }
            };
            if tokio::time::timeout_at(until, changed).await != Ok(true) {
                return Err(NotHere { leader: leader.filter(|_| !led) });
            }
        }
    }

    /// Reads from the state, away from the threads that serve.
    pub async fn read<R: Send + 'static>(&self, read: impl FnOnce(&Arc<State>) -> R + Send + 'static) -> R {
        let state = Arc::clone(&self.state);
        away(move || read(&state)).await
    }

    /// Reads a few rows: on the spot where that is quick, because two threads that wake each other take longer.
    pub async fn read_few<R: Send + 'static>(&self, read: impl FnOnce(&Arc<State>) -> R + Send + 'static) -> R {
        if self.state.is_quick() { read(&self.state) } else { self.read(read).await }
    }

    /// Proposes an entry of a tenant about a workspace; it is on disk on a majority, and applied here, when this returns. What
    /// the tenant cannot read is not proposed, and nothing is of a workspace that was deleted.
    pub async fn propose(&self, workspace: &WorkspaceId, entry: Bytes) -> Result<Answer, WriteError> {
        let _writing = self.writing.read().await;
        let cleared = self.cleared(workspace).await?;
        // The shard is clear of a deletion that this node has not heard of: what is written now would outlive it.
        if cleared > self.deletions.known() {
            return Err(ProposeError::NotLeader { leader: None }.into());
        }
        if self.deletions.of(workspace).is_some_and(|deletion| !deletion.live || cleared < deletion.index) {
            return Err(WriteError::Deleted);
        }
        self.append(entry).await
    }

    /// Up to which deletion in the deploy log this node's copy is clear of a workspace; 0 where it never was cleared of it.
    pub async fn cleared(&self, workspace: &WorkspaceId) -> Result<u64, WriteError> {
        let workspace = workspace.clone();
        Ok(self.read_few(move |state| state.database().read(|rows| clearing::cleared(rows, &workspace))).await?)
    }

    /// Clears the shard of a workspace that the deploy log deleted at this index; this node has to lead it. It takes as many
    /// entries as there is to be cleared, and goes on where an earlier attempt ended.
    pub async fn clear(&self, workspace: &WorkspaceId, deletion: u64) -> Result<(), WriteError> {
        // Whoever looked before the deletion was known here has proposed by then, and its entry comes before these.
        drop(self.writing.write().await);
        while clearing::goes_on(&self.append(clearing::entry(workspace, deletion)).await?) {}
        Ok(())
    }

    async fn append(&self, entry: Bytes) -> Result<Answer, WriteError> {
        let term = self.group.status().borrow().term;
        match self.state.check(&entry, term) {
            Ok(()) => {}
            Err(ApplyError::Refused(refusal)) => return Err(refusal.into()),
            Err(ApplyError::Stop(stop)) => return Err(WriteError::Unreadable(stop)),
        }
        let applied = self.group.propose(entry).await?;
        Ok(refused::decode(&applied.response)?)
    }
}

/// Does something on a thread for what blocks.
async fn away<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tasks::blocking(work).await {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}
