//! Messages between agents and people, for whoever may send them and for those who look after what was not delivered.
//!
//! Whoever holds [`Converse`] sends under their own name, and reads and drops what lies in their own mailbox; with
//! [`ReadConversations`] it is every mailbox of the workspace, and with [`ForgetConversations`] what lies there can be dropped
//! and tried again.

use caxton_messages::acl::{Address, InvalidAddress, Message, MessageId};
use caxton_messages::mailbox::{Action, Fate, Outcome, Reason, Submission};
use caxton_messages::{Listed, Listing, list};

use crate::authz::{Converse, ForgetConversations, Permit, ReadConversations};
use crate::invoke::mail::resolve;
use crate::invoke::{Freshness, InvokeError, Invoker};
use crate::mailbox::MailboxError;

/// Why a message was not sent, or a delivery not found.
#[derive(Debug, thiserror::Error)]
pub enum MailboxesError {
    /// The shard's log or its tables.
    #[error(transparent)]
    Mailbox(#[from] MailboxError),
    /// This node does not lead the workspace's shard.
    #[error(transparent)]
    Invoke(#[from] InvokeError),
    /// Whether this node is up to date is not known.
    #[error(transparent)]
    Current(#[from] caxton_raft::ReadError),
    /// The message was refused, and nothing of it is kept.
    #[error("the message was refused: {0}")]
    Refused(Reason),
    /// Whoever sends has no name that a message can carry.
    #[error("the name of the token cannot be a sender")]
    Sender(#[from] InvalidAddress),
    /// Nobody offers the capability that the message is for.
    #[error("no agent of workspace `{workspace}` offers what {receiver} names")]
    Nobody {
        /// The workspace.
        workspace: caxton_proto::WorkspaceId,
        /// The receiver.
        receiver: Address,
    },
    /// There is no such delivery, or none that the asker may see.
    #[error("there is no delivery {delivery} in workspace `{workspace}` for you to see or change")]
    NoDelivery {
        /// The workspace.
        workspace: caxton_proto::WorkspaceId,
        /// Its number.
        delivery: u64,
    },
    /// Another node has come to lead the shard meanwhile.
    #[error("another node leads the workspace's shard now; nothing was changed")]
    Stale,
}

/// A message that was taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acceptance {
    /// The message's id.
    pub id: MessageId,
    /// What became of it: accepted, or known from before.
    pub fate: Fate,
}

/// The mailboxes of all workspaces.
pub struct Mailboxes {
    invoker: Invoker,
    mailboxes: crate::mailbox::Mailboxes,
}

impl Mailboxes {
    /// Those in these shards, for the agents that `invoker` knows.
    pub fn new(invoker: Invoker, mailboxes: crate::mailbox::Mailboxes) -> Mailboxes {
        Mailboxes { invoker, mailboxes }
    }

    /// Sends a message under the name of whoever asks. Its id is drawn here, and who it says it is from does not count.
    pub async fn send(
        &self,
        permit: &Permit<Converse>,
        message: Message,
        with: impl FnOnce(Submission) -> Submission,
    ) -> Result<Acceptance, MailboxesError> {
        let workspace = permit.workspace();
        self.invoker.has_space().map_err(InvokeError::from)?;
        let term = self.invoker.lead(workspace).await?;
        let sender = own(permit)?;
        let id = MessageId::from_bytes(uuid::Uuid::now_v7().into_bytes());
        let catalog = self.invoker.catalogs().get(workspace);
        let message = resolve(catalog.as_deref(), message.stamped(sender), id)
            .map_err(|receiver| MailboxesError::Nobody { workspace: workspace.clone(), receiver })?;
        let submission = with(Submission::new(id, message));
        let outcome = self.mailboxes.of(workspace).write(workspace, term, Action::Send(vec![submission])).await?;
        let fate = match outcome {
            Outcome::Sent(receipts) => receipts.into_iter().next().map(|receipt| receipt.fate),
            Outcome::Refused(reason) => Some(Fate::Refused(reason)),
            Outcome::Started(_)
            | Outcome::Settled { .. }
            | Outcome::Stale
            | Outcome::Ticked { .. }
            | Outcome::Moved(_)
            | Outcome::Subscribed { .. } => None,
        };
        match fate {
            None => Err(MailboxesError::Stale),
            Some(Fate::Refused(reason)) => Err(MailboxesError::Refused(reason)),
            Some(Fate::Duplicate(known)) => Ok(Acceptance { id: known, fate: Fate::Duplicate(known) }),
            Some(fate @ Fate::Accepted { .. }) => Ok(Acceptance { id, fate }),
        }
    }

    /// Deliveries in the order of their numbers: those in one's own mailbox, or everybody's for whoever may read them.
    pub async fn list(
        &self,
        permit: &Permit<Converse>,
        what: Listing,
        freshness: Freshness,
    ) -> Result<Vec<Listed>, MailboxesError> {
        self.invoker.current(permit.workspace(), freshness).await?;
        let what = match permit.also(ReadConversations) {
            Ok(_) => what,
            Err(_) => Listing { owner: Some(own(permit)?), ..what },
        };
        let workspace = permit.workspace().clone();
        Ok(self.mailboxes.of(permit.workspace()).read(move |rows| list(rows, &workspace, &what)).await?)
    }

    /// One delivery.
    pub async fn show(
        &self,
        permit: &Permit<Converse>,
        delivery: u64,
        freshness: Freshness,
    ) -> Result<Listed, MailboxesError> {
        let what = Listing { delivery: Some(delivery), most: 1, ..Listing::default() };
        let found = self.list(permit, what, freshness).await?;
        found.into_iter().next().ok_or_else(|| none(permit, delivery))
    }

    /// Drops a delivery that is not under way, from one's own mailbox or, for whoever may, from everybody's.
    pub async fn drop(&self, permit: &Permit<Converse>, delivery: u64) -> Result<(), MailboxesError> {
        let found = self.show(permit, delivery, Freshness::Current).await?;
        if permit.also(ForgetConversations).is_err() && found.owner != own(permit)? {
            return Err(none(permit, delivery));
        }
        self.move_one(permit, delivery, Action::Drop(vec![delivery])).await
    }

    /// Gives a dead letter another try.
    pub async fn retry(&self, permit: &Permit<ForgetConversations>, delivery: u64) -> Result<(), MailboxesError> {
        let permit = permit
            .also(Converse)
            .map_err(|_| MailboxesError::NoDelivery { workspace: permit.workspace().clone(), delivery })?;
        self.move_one(&permit, delivery, Action::Redrive(vec![delivery])).await
    }

    async fn move_one(&self, permit: &Permit<Converse>, delivery: u64, action: Action) -> Result<(), MailboxesError> {
        let workspace = permit.workspace();
        let term = self.invoker.lead(workspace).await?;
        match self.mailboxes.of(workspace).write(workspace, term, action).await? {
            Outcome::Moved(moved) if moved.contains(&delivery) => Ok(()),
            Outcome::Stale => Err(MailboxesError::Stale),
            _ => Err(none(permit, delivery)),
        }
    }
}

fn none(permit: &Permit<Converse>, delivery: u64) -> MailboxesError {
    MailboxesError::NoDelivery { workspace: permit.workspace().clone(), delivery }
}

/// The address of whoever asks.
fn own(permit: &Permit<Converse>) -> Result<Address, InvalidAddress> {
    permit.subject().parse().map(Address::Subject)
}
