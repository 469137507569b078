//! Secrets of workspaces: sealed with the node's data key before they go into the deploy log, and opened in memory when
//! a tool or a provider needs one.
//!
//! A value is a [`SecretValue`] from where it comes in to where it is used: its `Debug` shows nothing, it has no
//! `Display`, and no error of this module carries one.

mod keys;
mod message_keys;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use caxton_proto::WorkspaceId;
use caxton_proto::log::cluster::{KeyKind, RotateKey};
use caxton_proto::log::{Secret, SetSecret};
use caxton_proto::manifest::secret::SecretName;
use caxton_raft::deploy_log::DeployLog;

pub use keys::KeyError;
pub use message_keys::{SigningPair, is_signed};

use crate::trust::DATA_KEY_FILE;
use keys::{DataKeys, Place};

/// The longest value of a secret, in bytes.
pub const VALUE_BYTES_MAX: usize = 32 << 10;

/// A secret's value.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(String);

/// The text cannot be a secret's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidValue {
    /// There is nothing in it.
    #[error("the secret's value is empty")]
    Empty,
    /// It is too long.
    #[error("the secret's value has {bytes} bytes, and {VALUE_BYTES_MAX} is the most")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// No variable of an environment could hold it.
    #[error("the secret's value has a zero byte in it")]
    ZeroByte,
}

impl SecretValue {
    /// A value of 1 to [`VALUE_BYTES_MAX`] bytes without zero bytes.
    pub fn new(text: String) -> Result<SecretValue, InvalidValue> {
        match text.len() {
            0 => Err(InvalidValue::Empty),
            bytes if bytes > VALUE_BYTES_MAX => Err(InvalidValue::TooLong { bytes }),
            _ if text.contains('\0') => Err(InvalidValue::ZeroByte),
            _ => Ok(SecretValue(text)),
        }
    }

    /// The value itself, for whoever sends it where it belongs.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(..)")
    }
}

/// Why a secret cannot be had; `Display` ends in what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSecret {
    /// Nobody set it.
    #[error("the secret `{name}` is not set in workspace `{workspace}`; set it with `caxton secrets set {name}`")]
    NotSet {
        name: SecretName,
        /// Whose it would be.
        workspace: WorkspaceId,
    },
    /// It was sealed with another key.
    #[error(
        "the secret `{name}` was sealed with the data key {key}, which this node does not have; add that key's line to \
         {DATA_KEY_FILE} of its data directory, or set the secret again with `caxton secrets set {name}`"
    )]
    OtherKey {
        name: SecretName,
        /// The key's id.
        key: String,
    },
    /// Its bytes are not what was sealed under this name.
    #[error(
        "the secret `{name}` does not open, so its bytes were changed; set it again with `caxton secrets set {name}`"
    )]
    Damaged { name: SecretName },
}

/// Where tools and providers get secrets from.
pub trait Secrets: Send + Sync + 'static {
    /// Tells a secret's values apart: after each change another number, and 0 when it is not set.
    fn version(&self, workspace: &WorkspaceId, name: &SecretName) -> u64;

    /// A secret's value.
    fn value(&self, workspace: &WorkspaceId, name: &SecretName) -> Result<SecretValue, NoSecret>;
}

/// No secrets at all, for parts of a node that run by themselves.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSecrets;

impl Secrets for NoSecrets {
    fn version(&self, _: &WorkspaceId, _: &SecretName) -> u64 {
        0
    }

    fn value(&self, workspace: &WorkspaceId, name: &SecretName) -> Result<SecretValue, NoSecret> {
        Err(NoSecret::NotSet { name: name.clone(), workspace: workspace.clone() })
    }
}

/// The secrets that the deploy log holds, and the keys that open them. A clone is a handle on the same.
#[derive(Clone)]
pub struct SecretStore {
    log: DeployLog,
    keys: Arc<DataKeys>,
}

/// Draws the key that secrets are sealed with, of a node that has none, before its log begins.
pub fn draw_key(data_dir: &Path) -> Result<(), KeyError> {
    DataKeys::open(data_dir).map(drop)
}

impl SecretStore {
    /// Reads the data keys of a data directory, and makes the first one when there is none.
    pub fn open(data_dir: &Path, log: DeployLog) -> Result<SecretStore, KeyError> {
        Ok(SecretStore { log, keys: Arc::new(DataKeys::open(data_dir)?) })
    }

    /// The command that keeps a secret.
    pub fn seal(
        &self,
        workspace: &WorkspaceId,
        name: &SecretName,
        value: &SecretValue,
        actor: &str,
        time_ms: u64,
    ) -> Result<SetSecret, KeyError> {
        let (key, sealed) = self.keys.seal(Place { workspace, name }, value)?;
        Ok(SetSecret {
            workspace: workspace.clone(),
            name: name.clone(),
            key,
            sealed,
            time_ms,
            actor: actor.to_owned(),
        })
    }

    /// Seals a key of the cluster for the log: the data key's id, and the sealed bytes.
    pub fn seal_key(&self, kind: KeyKind, id: u64, plain: &[u8]) -> Result<(String, Vec<u8>), KeyError> {
        self.keys.seal_bytes(key_aad(kind, id), plain)
    }

    /// Opens one; nothing when it was sealed with a data key that this node does not have, or was changed.
    pub fn open_key(&self, rotated: &RotateKey) -> Option<Vec<u8>> {
        self.keys.open_bytes(key_aad(rotated.kind, rotated.id), &rotated.sealed_with, &rotated.sealed)
    }

    fn get(&self, workspace: &WorkspaceId, name: &SecretName) -> Option<Arc<Secret>> {
        self.log.read(|state| state.secrets().get(workspace, name).cloned())
    }
}

/// A sealed key opens as what it is, and as no secret of a workspace.
fn key_aad(kind: KeyKind, id: u64) -> Vec<u8> {
    format!("caxton cluster key 1\0{kind}\0{id:016x}").into_bytes()
}

impl Secrets for SecretStore {
    fn version(&self, workspace: &WorkspaceId, name: &SecretName) -> u64 {
        self.log.read(|state| state.secrets().get(workspace, name).map_or(0, |secret| secret.index))
    }

    fn value(&self, workspace: &WorkspaceId, name: &SecretName) -> Result<SecretValue, NoSecret> {
        let not_set = || NoSecret::NotSet { name: name.clone(), workspace: workspace.clone() };
        let secret = self.get(workspace, name).ok_or_else(not_set)?;
        self.keys.open_sealed(Place { workspace, name }, &secret.set.key, &secret.set.sealed)
    }
}
