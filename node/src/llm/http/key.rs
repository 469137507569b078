//! A provider's key: given to its provider and shown to nobody.

use std::fmt;
use std::sync::Arc;

use caxton_proto::WorkspaceId;
use caxton_proto::manifest::secret::SecretName;

use crate::secrets::{NoSecret, Secrets};

/// A provider's key, which never shows itself.
#[derive(Clone, Default)]
pub struct Key(KeySource);

#[derive(Clone, Default)]
enum KeySource {
    #[default]
    None,
    Text(Arc<str>),
    /// Looked up for each request, so that a secret that was set a moment ago counts.
    Secret {
        secrets: Arc<dyn Secrets>,
        workspace: WorkspaceId,
        name: SecretName,
    },
}

impl Key {
    /// No key at all, as local servers want it.
    pub fn none() -> Key {
        Key(KeySource::None)
    }

    /// A key; blank text is none.
    pub fn new(key: &str) -> Key {
        let key = key.trim();
        Key(if key.is_empty() { KeySource::None } else { KeySource::Text(key.into()) })
    }

    /// The secret of a workspace.
    pub fn secret(secrets: Arc<dyn Secrets>, workspace: WorkspaceId, name: SecretName) -> Key {
        Key(KeySource::Secret { secrets, workspace, name })
    }

    pub(super) fn is_set(&self) -> bool {
        !matches!(self.0, KeySource::None)
    }

    /// The key itself, for whoever sends it where it belongs.
    pub(crate) fn expose(&self) -> Result<Option<String>, NoSecret> {
        match &self.0 {
            KeySource::None => Ok(None),
            KeySource::Text(key) => Ok(Some(key.to_string())),
            KeySource::Secret { secrets, workspace, name } => {
                secrets.value(workspace, name).map(|value| Some(value.expose().trim().to_owned()))
            }
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_set() { "Key(set)" } else { "Key(none)" })
    }
}
