//! Signed messages: where a workspace asks for it, what its senders send is signed before it goes into the log, and looked at
//! before it is given to anybody.
//!
//! The nodes hold the keys of agents, and those of people who registered none of their own. A key is made when its sender first
//! sends something. What the platform says by itself is signed by nobody: every replica makes it from the log.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use caxton_messages::acl::Address;
use caxton_messages::mailbox::{Action, KeyId, SetKey, Signature, Submission};
use caxton_messages::{MessageKey, message_key, signing_key};
use caxton_proto::WorkspaceId;

use super::{MailboxError, ShardMailboxes};
use crate::catalog::Catalogs;
use crate::errors::chain;
use crate::secrets::{SecretStore, SigningPair, is_signed};
use crate::time::rfc3339_of;

/// How long it is waited for what is deployed, to know whether a workspace asks for signatures.
const SETTLED_WAIT: Duration = Duration::from_secs(5);
/// The most open keys that are kept in memory.
const OPEN_MAX: usize = 4_096;

/// Signs and verifies. A clone is a handle on the same.
#[derive(Clone)]
pub struct Signer(Arc<Inner>);

struct Inner {
    catalogs: Catalogs,
    secrets: SecretStore,
    /// Keys that were opened, by what was sealed.
    open: Mutex<HashMap<SealedKey, Option<Arc<SigningPair>>>>,
}

/// Everything that a sealed key is bound to: a row in which any of it is another is opened anew.
#[derive(PartialEq, Eq, Hash)]
struct SealedKey {
    workspace: WorkspaceId,
    owner: Address,
    key: KeyId,
    held: bool,
    sealed: Vec<u8>,
}

/// Who signed a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signatory {
    /// The sender of the message.
    pub by: Address,
    /// With which key.
    pub key: KeyId,
    /// When, in milliseconds since 1970.
    pub signed_ms: i64,
    /// The nodes hold the key; else its owner does.
    pub held: bool,
}

/// Why a message is not what its sender sent, or nobody can know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Forgery {
    /// Nobody signed it.
    #[error("it has no signature, and the workspace asks for one")]
    Unsigned,
    /// The key is not known, or no longer.
    #[error("it is signed with the key {key}, which the workspace does not know (any more)")]
    UnknownKey {
        /// The key that its signature names.
        key: KeyId,
    },
    /// The key's row was changed.
    #[error("the key {key} does not open with the data key of this node, so that it counts for nothing")]
    DamagedKey {
        /// The key that its signature names.
        key: KeyId,
    },
    /// The key is another sender's.
    #[error("it says that {sender} sent it, and is signed with the key {key} of {owner}")]
    OthersKey {
        /// Who is said to have sent it.
        sender: String,
        /// The key that its signature names.
        key: KeyId,
        /// Whose key it is.
        owner: Address,
    },
    /// The key's time was over.
    #[error("the key {key} was rotated, and its overlap ended at {at}, before the message was taken in", at = rfc3339_of(*.ends_ms))]
    EndedKey {
        /// The key that its signature names.
        key: KeyId,
        /// When its time was over, in milliseconds since 1970.
        ends_ms: i64,
    },
    /// It is not what was signed.
    #[error("it is not what {sender} signed with the key {key}: it was altered, or the signature is forged")]
    Altered {
        /// Who is said to have sent it.
        sender: String,
        /// The key that its signature names.
        key: KeyId,
    },
    /// It lies in a mailbox that it was not sent to.
    #[error("it was not sent to {owner}, in whose mailbox it lies")]
    Misplaced {
        /// Whose mailbox that is.
        owner: Address,
    },
}

impl Signer {
    /// A signer for the workspaces of these catalogs, with keys that these secrets seal.
    pub fn new(catalogs: Catalogs, secrets: SecretStore) -> Signer {
        Signer(Arc::new(Inner { catalogs, secrets, open: Mutex::default() }))
    }

    /// Whether a workspace asks for signatures. It is not known before what is deployed was loaded.
    pub async fn is_asked(&self, workspace: &WorkspaceId) -> Result<bool, MailboxError> {
        let catalogs = &self.0.catalogs;
        if catalogs.get(workspace).is_none() {
            let mut settled = catalogs.settled();
            let waited = tokio::time::timeout(SETTLED_WAIT, settled.wait_for(|settled| *settled)).await.is_ok();
            if !waited && !*settled.borrow() {
                return Err(MailboxError::Unsettled);
            }
        }
        let Some(catalog) = catalogs.get(workspace) else { return Ok(false) };
        let manifest = catalog.manifest().map_err(|error| MailboxError::Signing { why: chain(&error).to_string() })?;
        Ok(manifest.messages.signed)
    }

    /// A new key for a sender, which the nodes hold.
    pub fn draw(
        &self,
        workspace: &WorkspaceId,
        owner: &Address,
        overlap_ms: Option<i64>,
    ) -> Result<SetKey, MailboxError> {
        let drawn = self.0.secrets.draw_message_key(workspace, owner, overlap_ms);
        drawn.map_err(|error| MailboxError::Signing { why: chain(&error).to_string() })
    }

    /// The public key of a sender who signs.
    pub fn note(
        &self,
        workspace: &WorkspaceId,
        owner: &Address,
        public: [u8; 32],
        overlap_ms: i64,
    ) -> Result<SetKey, MailboxError> {
        let noted = self.0.secrets.note_message_key(workspace, owner, public, Some(overlap_ms));
        noted.map_err(|error| MailboxError::Signing { why: chain(&error).to_string() })
    }

    /// The pair of a key that is kept; nothing where its owner holds the other half. The error says that it counts for nothing.
    fn open(&self, workspace: &WorkspaceId, key: &MessageKey) -> Result<Option<Arc<SigningPair>>, Forgery> {
        let MessageKey { owner, id, public, held, sealed_with, sealed, .. } = key.clone();
        if id != KeyId::of(&public) {
            return Err(Forgery::DamagedKey { key: id });
        }
        let name =
            SealedKey { workspace: workspace.clone(), owner: owner.clone(), key: id, held, sealed: sealed.clone() };
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = open.get(&name) {
            return Ok(known.clone());
        }
        let sealed = SetKey { owner, public, held, sealed_with, sealed, overlap_ms: None };
        let opened = self.0.secrets.open_message_key(workspace, &sealed).ok_or(Forgery::DamagedKey { key: id })?;
        let opened = opened.map(Arc::new);
        if open.len() >= OPEN_MAX {
            open.clear();
        }
        open.insert(name, opened.clone());
        Ok(opened)
    }

    /// Who signed a message that was taken in at a time, by the key that its signature names.
    pub fn verify(
        &self,
        workspace: &WorkspaceId,
        submission: &Submission,
        sent_ms: i64,
        key: Option<&MessageKey>,
    ) -> Result<Signatory, Forgery> {
        let Some(signature) = &submission.signature else { return Err(Forgery::Unsigned) };
        let key = key.filter(|key| key.id == signature.key).ok_or(Forgery::UnknownKey { key: signature.key })?;
        let sender = submission.message.sender.as_ref();
        let named = || sender.map(Address::to_string).unwrap_or_default();
        self.open(workspace, key)?;
        if sender != Some(&key.owner) {
            return Err(Forgery::OthersKey { sender: named(), key: key.id, owner: key.owner.clone() });
        }
        if let Some(ends_ms) = key.ends_ms.filter(|ends_ms| *ends_ms <= sent_ms) {
            return Err(Forgery::EndedKey { key: key.id, ends_ms });
        }
        let form = submission.signed_form(workspace, signature.key, signature.signed_ms);
        if !is_signed(&key.public, &form, &signature.bytes) {
            return Err(Forgery::Altered { sender: named(), key: key.id });
        }
        Ok(Signatory { by: key.owner.clone(), key: key.id, signed_ms: signature.signed_ms, held: key.held })
    }
}

/// What an action sends.
fn sent(action: &mut Action) -> Vec<&mut Submission> {
    match action {
        Action::Send(submissions) | Action::Settle { submissions, .. } => submissions.iter_mut().collect(),
        Action::Await(wait) => wait.submissions.iter_mut().collect(),
        Action::Fire { submission, .. } => submission.as_deref_mut().into_iter().collect(),
        Action::Receive { submission, .. } => vec![&mut **submission],
        Action::Start(_)
        | Action::Park { .. }
        | Action::Resume { .. }
        | Action::Roster { .. }
        | Action::SetKey(_)
        | Action::Tick { .. }
        | Action::Redrive(_)
        | Action::Drop(_)
        | Action::Subscribe { .. }
        | Action::Unschedule(_)
        | Action::Unsubscribe { .. } => Vec::new(),
    }
}

impl ShardMailboxes {
    /// Signs what an action sends, where the workspace asks for it. What is signed already stays as it is.
    pub(super) async fn sign(
        &self,
        workspace: &WorkspaceId,
        term: u64,
        action: &mut Action,
    ) -> Result<(), MailboxError> {
        let Some(signer) = &self.signer else { return Ok(()) };
        let unsigned = sent(action).into_iter().filter(|one| one.signature.is_none());
        let mut unsigned: Vec<&mut Submission> = unsigned.collect();
        if unsigned.is_empty() || !signer.is_asked(workspace).await? {
            return Ok(());
        }
        for submission in &mut unsigned {
            let owner = match &submission.message.sender {
                Some(owner @ (Address::Agent(_) | Address::Elsewhere { .. } | Address::Subject(_))) => owner.clone(),
                Some(_) | None => continue,
            };
            let (key, pair) = self.pair(signer, workspace, term, &owner).await?;
            let signed_ms = i64::try_from(crate::time::now_ms()).unwrap_or(i64::MAX);
            let bytes = pair.sign(&submission.signed_form(workspace, key, signed_ms));
            submission.signature = Some(Signature { key, signed_ms, bytes });
        }
        Ok(())
    }

    /// The pair with which the nodes sign for a sender, which is made where there is none.
    async fn pair(
        &self,
        signer: &Signer,
        workspace: &WorkspaceId,
        term: u64,
        owner: &Address,
    ) -> Result<(KeyId, Arc<SigningPair>), MailboxError> {
        let read = || {
            let (of, whose) = (workspace.clone(), owner.clone());
            self.read(move |rows| signing_key(rows, &of, &whose))
        };
        let mut found = read().await?;
        if found.is_none() {
            let drawn = signer.draw(workspace, owner, None)?;
            self.propose(workspace, term, Action::SetKey(drawn)).await?;
            found = read().await?;
        }
        let key = found.ok_or_else(|| MailboxError::Signing { why: format!("no key could be made for {owner}") })?;
        let opened = signer.open(workspace, &key).map_err(|error| MailboxError::Signing { why: error.to_string() })?;
        match opened {
            Some(pair) => Ok((key.id, pair)),
            None => Err(MailboxError::OwnKey { owner: owner.clone() }),
        }
    }

    /// Who signed a message that lies in a mailbox, or nobody where the workspace asks for no signature. What the platform says by
    /// itself has none. A signature that is there has to hold, whether it is asked for or not.
    pub async fn verify(
        &self,
        workspace: &WorkspaceId,
        owner: Option<&Address>,
        submission: &Submission,
        sent_ms: i64,
    ) -> Result<Result<Option<Signatory>, Forgery>, MailboxError> {
        let Some(signer) = &self.signer else { return Ok(Ok(None)) };
        let of_platform = submission.message.sender == Some(Address::Platform);
        if submission.signature.is_none() && (of_platform || !signer.is_asked(workspace).await?) {
            return Ok(Ok(None));
        }
        let key = match &submission.signature {
            None => None,
            Some(signature) => {
                let (of, id) = (workspace.clone(), signature.key);
                self.read(move |rows| message_key(rows, &of, id)).await?
            }
        };
        let signed = match signer.verify(workspace, submission, sent_ms, key.as_ref()) {
            Ok(signed) => signed,
            Err(forgery) => return Ok(Err(forgery)),
        };
        let receivers = &submission.message.receivers;
        let published = receivers.iter().any(|to| matches!(to, Address::Topic(_)));
        Ok(match owner {
            Some(owner) if !published && !receivers.contains(owner) => Err(Forgery::Misplaced { owner: owner.clone() }),
            Some(_) | None => Ok(Some(signed)),
        })
    }

    /// Signs and verifies for these; nothing where nobody does.
    pub fn signer(&self) -> Option<&Signer> {
        self.signer.as_ref()
    }
}
