//! Secrets as the deploy log has them: sealed by whoever proposes them, so that the log, its snapshots and its backups
//! hold nothing that opens anything without the data key of the nodes.

use crate::WorkspaceId;
use crate::manifest::secret::SecretName;

/// Keeps a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetSecret {
    /// The workspace that the secret belongs to.
    pub workspace: WorkspaceId,
    /// The secret's name, by which tools and providers ask for it.
    pub name: SecretName,
    /// Names the data key that it was sealed with.
    pub key: String,
    /// Nonce, ciphertext and tag.
    pub sealed: Vec<u8>,
    /// When it was proposed, in milliseconds since 1970.
    pub time_ms: u64,
    /// The subject of the token that proposed it.
    pub actor: String,
}

/// Forgets a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoveSecret {
    /// The workspace that the secret belongs to.
    pub workspace: WorkspaceId,
    /// The name of the secret that goes.
    pub name: SecretName,
    /// When it was proposed, in milliseconds since 1970.
    pub time_ms: u64,
    /// The subject of the token that proposed it.
    pub actor: String,
}

/// A secret that the log holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// How it was set.
    pub set: SetSecret,
    /// The index of the command that set it: another one is another value.
    pub index: u64,
}
