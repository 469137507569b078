//! What agents and people send each other: a tenant of the shards.
//!
//! What is sent is on a majority's disk when it is acknowledged. The leader of a workspace's shard gives deliveries to their
//! receivers (`app/dispatch.rs`); what a delivery's receiver sends is in one entry with the delivery's outcome.

mod gauges;
mod signing;
mod tenant;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use caxton_messages::acl::Address;
use caxton_messages::mailbox::{Action, Command, DecodeError, Outcome, Settlement};
use caxton_proto::shard::Envelope;
use caxton_proto::{Format, WorkspaceId};
use caxton_raft::ProposeError;
use rusqlite::Connection;
use tokio::sync::Notify;

pub use self::signing::{Forgery, Signatory, Signer};
pub use self::tenant::MailboxTenant;
use crate::shard::tenant::{Refusal, Stop};
use crate::shard::{Shard, Shards, WriteError};

/// An entry of the log is at most this long, in bytes; the log itself takes 1 MiB.
const ENTRY_BYTES_MAX: usize = 900 << 10;
/// How long a command waits for the format that mailboxes need.
const RAISED_WAIT: Duration = Duration::from_secs(5);

/// Why a message could not be sent, read or settled.
#[derive(Debug, thiserror::Error)]
pub enum MailboxError {
    /// The tables could not be read.
    #[error("the mailboxes cannot be read")]
    Read(#[from] rusqlite::Error),
    /// The log did not take it, or nobody knows whether it did.
    #[error("the message could not be recorded")]
    Propose(#[from] ProposeError),
    /// No replica can apply it; nothing was changed.
    #[error("the message cannot be recorded as it is")]
    Refused(#[source] Refusal),
    /// This program cannot read what it wrote itself: a defect.
    #[error("the message cannot be read by this program")]
    Unreadable(#[source] Stop),
    /// What became of it cannot be read: a defect.
    #[error("what became of the message cannot be read")]
    Outcome(#[from] DecodeError),
    /// One entry of the log cannot hold it.
    #[error("the message has {bytes} bytes with all that is around it, and {ENTRY_BYTES_MAX} is the most")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// The workspace asks for signatures, and this one cannot be made.
    #[error("the message cannot be signed: {why}")]
    Signing {
        /// What stands in the way.
        why: String,
    },
    /// It is not known yet whether the workspace asks for signatures.
    #[error("what is deployed is still being loaded")]
    Unsettled,
    /// The sender has registered a key of their own, without which nothing is sent in their name.
    #[error("{owner} signs with a key of their own, and the message has no signature")]
    OwnKey {
        /// Who that is.
        owner: Address,
    },
    /// The workspace was deleted; nothing was changed.
    #[error("the workspace was deleted")]
    Deleted,
    /// A member of the cluster runs a program that knows no mailboxes.
    #[error("a node of the cluster runs an older program, which has no mailboxes; upgrade all of them first")]
    OlderMembers,
}

impl MailboxError {
    /// Whether only what was written, or its workspace, is at fault: what is written for other workspaces may go well.
    pub fn is_of_one(&self) -> bool {
        match self {
            MailboxError::Refused(_)
            | MailboxError::Unreadable(_)
            | MailboxError::Outcome(_)
            | MailboxError::TooLong { .. }
            | MailboxError::Signing { .. }
            | MailboxError::Unsettled
            | MailboxError::OwnKey { .. }
            | MailboxError::Deleted => true,
            MailboxError::Read(_) | MailboxError::Propose(_) | MailboxError::OlderMembers => false,
        }
    }
}

impl From<WriteError> for MailboxError {
    fn from(error: WriteError) -> MailboxError {
        match error {
            WriteError::Propose(error) => MailboxError::Propose(error),
            WriteError::Refused(refusal) => MailboxError::Refused(refusal),
            WriteError::Unreadable(stop) => MailboxError::Unreadable(stop),
            WriteError::Deleted => MailboxError::Deleted,
            WriteError::Read(error) => MailboxError::Read(error),
        }
    }
}

/// The mailboxes in all shards of this node. A clone is a handle on the same.
#[derive(Clone)]
pub struct Mailboxes(Arc<[ShardMailboxes]>);

/// The mailboxes in one shard. A clone is a handle on the same.
#[derive(Clone)]
pub struct ShardMailboxes {
    shard: Shard,
    changed: Arc<Notify>,
    /// The most mailboxes of a workspace.
    mailboxes_max: u64,
    signer: Option<Signer>,
}

impl Mailboxes {
    /// Those in these shards, of which [`MailboxTenant`] is a tenant. A workspace has at most `mailboxes_max`.
    pub fn new(shards: Shards, mailboxes_max: u64) -> Mailboxes {
        let of = |shard: &Shard| {
            let (shard, changed) = (shard.clone(), Arc::default());
            ShardMailboxes { shard, changed, mailboxes_max, signer: None }
        };
        Mailboxes(shards.all().iter().map(of).collect())
    }

    /// The same, and what workspaces send that ask for it is signed.
    pub fn signed_by(self, signer: &Signer) -> Mailboxes {
        let of = |one: &ShardMailboxes| ShardMailboxes { signer: Some(signer.clone()), ..one.clone() };
        Mailboxes(self.0.iter().map(of).collect())
    }

    /// Those of a workspace's shard.
    pub fn of(&self, workspace: &WorkspaceId) -> ShardMailboxes {
        let count = std::num::NonZeroU32::new(u32::try_from(self.0.len()).unwrap_or(u32::MAX));
        let group = crate::shard::placement::owner_of(workspace, count.unwrap_or(std::num::NonZeroU32::MIN));
        // The shards are in the order of their groups, from 1.
        self.0[group.0 as usize - 1].clone()
    }

    /// Those of every shard.
    pub fn all(&self) -> impl Iterator<Item = ShardMailboxes> + '_ {
        self.0.iter().cloned()
    }
}

impl ShardMailboxes {
    /// The shard that they are in.
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// Ends once something was written here since the last time, but a tick that leaves nothing to do.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Reads from the tables, away from the threads that serve.
    pub async fn read<R: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<R> + Send + 'static,
    ) -> Result<R, MailboxError> {
        Ok(self.shard.read(move |state| state.database().scan(read)).await?)
    }

    /// Has a command applied under the term in which this node leads the shard: it is on a majority's disk, and applied here,
    /// when this returns. What it refuses is in the outcome.
    pub async fn write(&self, workspace: &WorkspaceId, term: u64, mut action: Action) -> Result<Outcome, MailboxError> {
        self.sign(workspace, term, &mut action).await?;
        self.propose(workspace, term, action).await
    }

    async fn propose(&self, workspace: &WorkspaceId, term: u64, action: Action) -> Result<Outcome, MailboxError> {
        // Older members would neither apply it nor keep it in their snapshots. A cluster that has just begun says a moment later
        // that it has none.
        if !self.shard.writes(Format::DELETION, RAISED_WAIT).await {
            return Err(MailboxError::OlderMembers);
        }
        let time_ms = i64::try_from(crate::time::now_ms()).unwrap_or(i64::MAX);
        let mailboxes_max = Some(self.mailboxes_max);
        let command = Command { workspace: workspace.clone(), time_ms, mailboxes_max, action };
        let body = Bytes::from(command.encode());
        if body.len() > ENTRY_BYTES_MAX {
            return Err(MailboxError::TooLong { bytes: body.len() });
        }
        let version = Format::DELETION.number();
        let entry = Envelope { version, tenant: Envelope::MAILBOX, term, body }.encode();
        let answer = self.shard.propose(workspace, entry).await?;
        let outcome = match answer.effect {
            crate::shard::tenant::Effect::Fenced => Outcome::Stale,
            crate::shard::tenant::Effect::Applied | crate::shard::tenant::Effect::Repeated => {
                Outcome::decode(&answer.body)?
            }
        };
        match &outcome {
            Outcome::Settled { settlement: Settlement::Retry { .. }, .. } => {
                metrics::counter!("caxton_mailbox_redeliveries_total").increment(1);
            }
            Outcome::Settled { settlement: Settlement::Dead { .. }, .. } => {
                metrics::counter!("caxton_mailbox_dead_letters_total").increment(1);
            }
            _ => {}
        }
        // Whoever writes a tick looks at what came of it, and would be woken by its own ticks for ever.
        if !matches!(outcome, Outcome::Ticked { more: false, .. }) {
            self.changed.notify_one();
        }
        Ok(outcome)
    }
}
