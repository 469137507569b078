//! Messages between agents and people, for whoever may send them and for those who look after what was not delivered.
//!
//! Whoever holds [`Converse`] sends under their own name, and reads and drops what lies in their own mailbox; with
//! [`ReadConversations`] it is every mailbox of the workspace, and with [`ForgetConversations`] what lies there can be dropped
//! and tried again.

use caxton_messages::acl::{Address, InvalidAddress, Message, MessageId};
use caxton_messages::mailbox::{Action, Fate, Outcome, Reason, Submission};
use caxton_messages::{Conversation, Event, Listed, Listing, list, numbers};
use caxton_proto::WorkspaceId;
use tokio::sync::watch;

use crate::authz::{Converse, Denied, ForgetConversations, Permit, ReadConversations};
use crate::invoke::mail::resolve;
use crate::invoke::{Freshness, InvokeError, Invoker};
use crate::mailbox::{Forgery, MailboxError};

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
    Nobody { workspace: WorkspaceId, receiver: Address },
    /// There is no such delivery, or none that the asker may see.
    #[error("there is no delivery {delivery} in workspace `{workspace}` for you to see or change")]
    NoDelivery { workspace: WorkspaceId, delivery: u64 },
    /// There is no such conversation, or none that the asker is part of.
    #[error("there is no conversation `{id}` of messages in workspace `{workspace}` for you to see")]
    NoConversation {
        workspace: WorkspaceId,
        /// The id that was asked for.
        id: String,
    },
    /// There is no such subscription.
    #[error("{subscriber} has no subscription `{name}` in workspace `{workspace}`")]
    NoSubscription {
        workspace: WorkspaceId,
        /// Whose it would be.
        subscriber: Address,
        /// The name that was asked for.
        name: String,
    },
    /// A key or a signature does not count.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// Only somebody with more rights may do this to others.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Another node has come to lead the shard meanwhile.
    #[error("another node leads the workspace's shard now; nothing was changed")]
    Stale,
}

/// Why a key or a signature does not count.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// A signature without the sender's own key for the message, from which its id comes.
    #[error("a message that its sender signs has a `key`, from which its id is made")]
    NoKey,
    /// Whom it is for is decided by the node, which the sender cannot have signed.
    #[error("a message that its sender signs names agents, people or topics, and {receiver} is none")]
    Receiver { receiver: Address },
    /// It was signed too long ago, or in the future.
    #[error("it was signed more than five minutes before or after now, by the clock of this node: it may be a replay")]
    Time,
    /// The workspace signs nothing, as its node is put together.
    #[error("this node signs no messages")]
    NoSigner,
    /// The signature does not hold.
    #[error(transparent)]
    Forged(#[from] Forgery),
    /// There is no such message.
    #[error(
        "there is no message {id} in workspace `{workspace}` for you to see; one that was dealt with is no longer kept"
    )]
    NoMessage {
        workspace: WorkspaceId,
        /// What was asked for.
        id: String,
    },
}

/// What is done to dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposal {
    /// They wait once more, as if they had just come.
    Retry,
    /// They are deleted.
    Drop,
}

/// What was done to dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disposed {
    /// How many of them.
    pub deliveries: u64,
    /// The number after which there are more.
    pub next: Option<u64>,
}

/// What was said in a workspace, as somebody may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub events: Vec<Event>,
    /// Everything up to this position was looked at.
    pub reached: u64,
    /// There are more after it.
    pub more: bool,
}

/// A message that was taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acceptance {
    /// The message's id.
    pub id: MessageId,
    /// What became of it: accepted, or known from before.
    pub fate: Fate,
}

/// The dead letters that one command names at most.
const DISPOSED_MAX: usize = 4_096;
/// The commands that one request to dispose of dead letters makes at most.
const DISPOSALS_MAX: usize = 16;

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
        put(&self.mailboxes, workspace, term, with(Submission::new(id, message))).await
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

    /// Tries all dead letters of a workspace again or drops them: those of one mailbox, or of all. Whoever may not do so to
    /// everybody's drops those in their own mailbox. One request takes 65,536 at most, and says after which there are more.
    pub async fn dispose(
        &self,
        permit: &Permit<Converse>,
        disposal: Disposal,
        owner: Option<Address>,
        after: u64,
        dry_run: bool,
    ) -> Result<Disposed, MailboxesError> {
        let workspace = permit.workspace();
        let owner = match (permit.also(ForgetConversations), disposal, owner) {
            (Ok(_), _, owner) => owner,
            (Err(denied), Disposal::Retry, _) => return Err(denied.into()),
            (Err(denied), Disposal::Drop, Some(other)) if other != own(permit)? => return Err(denied.into()),
            (Err(_), Disposal::Drop, _) => Some(own(permit)?),
        };
        let term = self.invoker.lead(workspace).await?;
        let mailboxes = self.mailboxes.of(workspace);
        let mut disposed = Disposed { deliveries: 0, next: None };
        let mut what = Listing { owner, dead: Some(true), delivery: None, after, most: DISPOSED_MAX };
        for _ in 0..DISPOSALS_MAX {
            let (of, wanted) = (workspace.clone(), what.clone());
            let found = mailboxes.read(move |rows| numbers(rows, &of, &wanted)).await?;
            disposed.next = (found.len() == DISPOSED_MAX).then(|| found.last().copied()).flatten();
            let action = match disposal {
                _ if found.is_empty() => return Ok(disposed),
                _ if dry_run => None,
                Disposal::Retry => Some(Action::Redrive(found.clone())),
                Disposal::Drop => Some(Action::Drop(found.clone())),
            };
            disposed.deliveries += match action {
                None => found.len() as u64,
                Some(action) => match mailboxes.write(workspace, term, action).await? {
                    Outcome::Moved(moved) => moved.len() as u64,
                    _ => return Err(MailboxesError::Stale),
                },
            };
            let Some(next) = disposed.next else { break };
            what.after = next;
        }
        Ok(disposed)
    }

    /// What was said in a workspace after a position, of `most` messages: those that somebody sent or received themselves, or
    /// everybody's for whoever may read them.
    pub async fn events(
        &self,
        permit: &Permit<Converse>,
        after: u64,
        most: usize,
        freshness: Freshness,
    ) -> Result<Said, MailboxesError> {
        self.invoker.current(permit.workspace(), freshness).await?;
        let workspace = permit.workspace().clone();
        let readable = Readable::by(permit)?;
        let read = move |rows: &rusqlite::Connection| caxton_messages::events(rows, &workspace, after, most);
        let mut events = self.mailboxes.of(permit.workspace()).read(read).await?;
        let (reached, more) = (events.last().map_or(after, |last| last.position), events.len() >= most);
        events.retain(|event| readable.has(event));
        Ok(Said { events, reached, more })
    }

    /// The position of the newest message of a workspace, from which somebody can follow what is said from now on.
    pub async fn newest_event(&self, permit: &Permit<Converse>, freshness: Freshness) -> Result<u64, MailboxesError> {
        self.invoker.current(permit.workspace(), freshness).await?;
        let workspace = permit.workspace().clone();
        let read = move |rows: &rusqlite::Connection| caxton_messages::newest_event(rows, &workspace);
        Ok(self.mailboxes.of(permit.workspace()).read(read).await?)
    }

    /// A conversation with `most` of its messages after a number: those that the asker sent or received, or all of them for
    /// whoever may read them.
    pub async fn conversation(
        &self,
        permit: &Permit<Converse>,
        id: &str,
        after: u64,
        most: usize,
        freshness: Freshness,
    ) -> Result<Conversation, MailboxesError> {
        self.invoker.current(permit.workspace(), freshness).await?;
        let readable = Readable::by(permit)?;
        let (workspace, wanted) = (permit.workspace().clone(), id.to_owned());
        let read = move |rows: &rusqlite::Connection| {
            let found = caxton_messages::conversation(rows, &workspace, &wanted, after, most)?;
            let Some(mut found) = found else { return Ok(None) };
            let Some(own) = &readable.0 else { return Ok(Some(found)) };
            let is_part = |it: &Conversation| {
                it.initiator == *own
                    || it.participants.iter().any(|(who, _)| who == own)
                    || it.events.iter().any(|event| readable.has(event))
            };
            let all = |rows| caxton_messages::conversation(rows, &workspace, &wanted, 0, usize::MAX >> 1);
            if !is_part(&found) && !all(rows)?.is_some_and(|all| is_part(&all)) {
                return Ok(None);
            }
            found.events.retain(|event| readable.has(event));
            let begun = found.initiator == *own;
            found.participants.retain(|(who, _)| begun || who == own);
            Ok(Some(found))
        };
        let found = self.mailboxes.of(permit.workspace()).read(read).await?;
        let workspace = || permit.workspace().clone();
        found.ok_or_else(|| MailboxesError::NoConversation { workspace: workspace(), id: id.to_owned() })
    }

    /// Changes with everything that this node learns of the workspace's shard.
    pub fn applied(&self, permit: &Permit<Converse>) -> watch::Receiver<u64> {
        self.mailboxes.of(permit.workspace()).shard().group().applied()
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

/// Sends a message, and says what became of it.
pub(super) async fn put(
    mailboxes: &crate::mailbox::Mailboxes,
    workspace: &WorkspaceId,
    term: u64,
    submission: Submission,
) -> Result<Acceptance, MailboxesError> {
    let id = submission.id;
    let outcome = mailboxes.of(workspace).write(workspace, term, Action::Send(vec![submission])).await?;
    let fate = match outcome {
        Outcome::Sent(receipts) => receipts.into_iter().next().map(|receipt| receipt.fate),
        Outcome::Refused(reason) => Some(Fate::Refused(reason)),
        Outcome::Started(_)
        | Outcome::Settled { .. }
        | Outcome::Stale
        | Outcome::Ticked { .. }
        | Outcome::Moved(_)
        | Outcome::Keyed(_)
        | Outcome::Subscribed { .. } => None,
    };
    match fate {
        None => Err(MailboxesError::Stale),
        Some(Fate::Refused(reason)) => Err(MailboxesError::Refused(reason)),
        Some(Fate::Duplicate(known)) => Ok(Acceptance { id: known, fate: Fate::Duplicate(known) }),
        Some(fate @ Fate::Accepted { .. }) => Ok(Acceptance { id, fate }),
    }
}

fn none(permit: &Permit<Converse>, delivery: u64) -> MailboxesError {
    MailboxesError::NoDelivery { workspace: permit.workspace().clone(), delivery }
}

/// Whose messages somebody may read: everybody's, or those of one address.
struct Readable(Option<String>);

impl Readable {
    fn by(permit: &Permit<Converse>) -> Result<Readable, InvalidAddress> {
        Ok(Readable(match permit.also(ReadConversations) {
            Ok(_) => None,
            Err(_) => Some(own(permit)?.to_string()),
        }))
    }

    fn has(&self, event: &Event) -> bool {
        self.0.as_ref().is_none_or(|own| event.sender == *own || event.receivers.contains(own))
    }
}

/// The address of whoever asks.
pub(super) fn own(permit: &Permit<Converse>) -> Result<Address, InvalidAddress> {
    permit.subject().parse().map(Address::Subject)
}
