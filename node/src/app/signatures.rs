//! The keys with which messages are signed, and who signed what.
//!
//! Public keys are for everybody who may send. Whoever holds [`Deploy`] rotates the keys of agents and of people; people register
//! a key of their own, and send messages that they signed themselves.

use std::time::Duration;

use caxton_messages::acl::{Address, Message, MessageId};
use caxton_messages::mailbox::{Action, Outcome, Signature, Submission, signed_id};
use caxton_messages::{KeptMessage, Listing, MessageKey, kept_message, list, message_key, message_keys};
use caxton_proto::WorkspaceId;

use super::mailboxes::{Acceptance, MailboxesError, SignatureError, own, put};
use crate::authz::{Converse, Deploy, Permit, ReadConversations};
use crate::invoke::{Freshness, InvokeError, Invoker};
use crate::mailbox::{Forgery, Mailboxes, ShardMailboxes, Signatory};

/// How far from now a message may be signed that its sender signed.
const SIGNED_WITHIN_MS: u64 = 300_000;
/// For how long the keys before a new one go on, unless told otherwise.
pub const OVERLAP: Duration = Duration::from_secs(86_400);
/// The longest that they may go on.
pub const OVERLAP_MAX: Duration = Duration::from_secs(30 * 86_400);

/// What is known of a message's signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// The message's id.
    pub id: MessageId,
    /// Who is said to have sent it.
    pub sender: Option<Address>,
    /// Who signed it; nobody where none is asked for or the platform says it. Else why it does not hold.
    pub outcome: Result<Option<Signatory>, Forgery>,
}

/// The signatures of all workspaces.
pub struct Signatures {
    invoker: Invoker,
    mailboxes: Mailboxes,
}

impl Signatures {
    /// Those of the messages in these shards.
    pub fn new(invoker: Invoker, mailboxes: Mailboxes) -> Signatures {
        Signatures { invoker, mailboxes }
    }

    /// The keys of a workspace, or of one sender, `most` of them after so many.
    pub async fn keys(
        &self,
        permit: &Permit<Converse>,
        owner: Option<Address>,
        (after, most): (usize, usize),
        freshness: Freshness,
    ) -> Result<Vec<MessageKey>, MailboxesError> {
        let workspace = permit.workspace().clone();
        self.invoker.current(&workspace, freshness).await?;
        let of = workspace.clone();
        let read = move |rows: &rusqlite::Connection| message_keys(rows, &of, owner.as_ref(), (after, most));
        Ok(self.mailboxes.of(&workspace).read(read).await?)
    }

    /// Gives a sender a new key that the nodes hold. Those before verify for `overlap` what is taken in.
    pub async fn rotate(
        &self,
        permit: &Permit<Deploy>,
        owner: &Address,
        overlap: Duration,
    ) -> Result<MessageKey, MailboxesError> {
        let workspace = permit.workspace();
        let mailboxes = self.mailboxes.of(workspace);
        let signer = mailboxes.signer().ok_or(SignatureError::NoSigner)?;
        let key = signer.draw(workspace, owner, Some(overlap_ms(overlap)))?;
        self.set(workspace, &mailboxes, Action::SetKey(key)).await
    }

    /// Registers a public key of whoever asks, who signs with the other half from now on.
    pub async fn register(
        &self,
        permit: &Permit<Converse>,
        public: [u8; 32],
        overlap: Duration,
    ) -> Result<MessageKey, MailboxesError> {
        let workspace = permit.workspace();
        let mailboxes = self.mailboxes.of(workspace);
        let signer = mailboxes.signer().ok_or(SignatureError::NoSigner)?;
        let key = signer.note(workspace, &own(permit)?, public, overlap_ms(overlap))?;
        self.set(workspace, &mailboxes, Action::SetKey(key)).await
    }

    async fn set(
        &self,
        workspace: &WorkspaceId,
        mailboxes: &ShardMailboxes,
        action: Action,
    ) -> Result<MessageKey, MailboxesError> {
        self.invoker.has_space().map_err(InvokeError::from)?;
        let term = self.invoker.lead(workspace).await?;
        let id = match mailboxes.write(workspace, term, action).await? {
            Outcome::Keyed(id) => id,
            Outcome::Refused(reason) => return Err(MailboxesError::Refused(reason)),
            _ => return Err(MailboxesError::Stale),
        };
        let of = workspace.clone();
        let found = mailboxes.read(move |rows| message_key(rows, &of, id)).await?;
        found.ok_or(MailboxesError::Stale)
    }

    /// Who signed a message, by its id or the number of a delivery. Whoever sent or received it may know, and whoever may read
    /// everybody's messages.
    pub async fn verify(
        &self,
        permit: &Permit<Converse>,
        which: &str,
        freshness: Freshness,
    ) -> Result<Verification, MailboxesError> {
        let workspace = permit.workspace();
        self.invoker.current(workspace, freshness).await?;
        let mailboxes = self.mailboxes.of(workspace);
        let none = || SignatureError::NoMessage { workspace: workspace.clone(), id: which.chars().take(40).collect() };
        let (id, owner) = match (which.parse::<MessageId>(), which.parse::<u64>()) {
            (Ok(id), _) => (id, None),
            (Err(_), Ok(delivery)) => {
                let (of, what) =
                    (workspace.clone(), Listing { delivery: Some(delivery), most: 1, ..Listing::default() });
                let found = mailboxes.read(move |rows| list(rows, &of, &what)).await?;
                let found = found.into_iter().next().ok_or_else(none)?;
                (found.id, Some(found.owner))
            }
            (Err(_), Err(_)) => return Err(none().into()),
        };
        let of = workspace.clone();
        let found = mailboxes.read(move |rows| kept_message(rows, &of, id)).await?;
        let KeptMessage { submission, sent_ms } = found.ok_or_else(none)?;
        if permit.also(ReadConversations).is_err() && !concerns(&submission, owner.as_ref(), &own(permit)?) {
            return Err(none().into());
        }
        let outcome = mailboxes.verify(workspace, owner.as_ref(), &submission, sent_ms).await?;
        Ok(Verification { id, sender: submission.message.sender, outcome })
    }

    /// Sends a message that whoever asks has signed with a key that they registered. Its id comes from their key for it.
    pub async fn send(
        &self,
        permit: &Permit<Converse>,
        message: Message,
        signature: Signature,
        with: impl FnOnce(Submission) -> Submission,
    ) -> Result<Acceptance, MailboxesError> {
        let workspace = permit.workspace();
        self.invoker.has_space().map_err(InvokeError::from)?;
        let term = self.invoker.lead(workspace).await?;
        let submission = self.signed(permit, message, signature, with).await?;
        put(&self.mailboxes, workspace, term, submission).await
    }

    /// The submission of a message that its sender signed; the error says why it does not count.
    async fn signed(
        &self,
        permit: &Permit<Converse>,
        message: Message,
        signature: Signature,
        with: impl FnOnce(Submission) -> Submission,
    ) -> Result<Submission, MailboxesError> {
        let workspace = permit.workspace();
        let sender = own(permit)?;
        let message = message.stamped(sender.clone());
        let unnamed = |to: &&Address| matches!(to, Address::Capability(_) | Address::Broadcast | Address::Platform);
        if let Some(receiver) = message.receivers.iter().find(unnamed) {
            return Err(SignatureError::Receiver { receiver: receiver.clone() }.into());
        }
        let submission = with(Submission::new(MessageId::from_bytes([0; 16]), message));
        let key = submission.key.as_deref().ok_or(SignatureError::NoKey)?;
        let id = signed_id(&sender, key);
        let submission = Submission { id, signature: Some(signature), ..submission };
        let now_ms = i64::try_from(crate::time::now_ms()).unwrap_or(i64::MAX);
        let signed_ms = submission.signature.as_ref().map_or(0, |signature| signature.signed_ms);
        if now_ms.abs_diff(signed_ms) > SIGNED_WITHIN_MS {
            return Err(SignatureError::Time.into());
        }
        let mailboxes = self.mailboxes.of(workspace);
        mailboxes.verify(workspace, None, &submission, now_ms).await?.map_err(SignatureError::Forged)?;
        Ok(submission)
    }
}

fn overlap_ms(overlap: Duration) -> i64 {
    i64::try_from(overlap.min(OVERLAP_MAX).as_millis()).unwrap_or(i64::MAX)
}

/// Whether somebody sent a message, or receives it.
fn concerns(submission: &Submission, owner: Option<&Address>, who: &Address) -> bool {
    let message = &submission.message;
    message.sender.as_ref() == Some(who)
        || owner == Some(who)
        || message.receivers.iter().any(|to| to == who || matches!(to, Address::Topic(_)))
}
