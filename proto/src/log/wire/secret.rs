//! Between the log's secrets and the messages of the .proto file.

use super::convert::workspace;
use super::{DecodeError, field, pb};
use crate::log::{RemoveSecret, Secret, SetSecret};
use crate::manifest::secret::SecretName;

impl From<&SetSecret> for pb::SetSecret {
    fn from(set: &SetSecret) -> Self {
        Self {
            workspace: set.workspace.to_string(),
            name: set.name.to_string(),
            key: set.key.clone(),
            sealed: set.sealed.clone(),
            time_ms: set.time_ms,
            actor: set.actor.clone(),
        }
    }
}

impl TryFrom<pb::SetSecret> for SetSecret {
    type Error = DecodeError;
    fn try_from(set: pb::SetSecret) -> Result<Self, DecodeError> {
        let (workspace, name) = (workspace(set.workspace)?, name(&set.name)?);
        Ok(Self { workspace, name, key: set.key, sealed: set.sealed, time_ms: set.time_ms, actor: set.actor })
    }
}

impl From<&RemoveSecret> for pb::RemoveSecret {
    fn from(it: &RemoveSecret) -> Self {
        let (workspace, name) = (it.workspace.to_string(), it.name.to_string());
        Self { workspace, name, time_ms: it.time_ms, actor: it.actor.clone() }
    }
}

impl TryFrom<pb::RemoveSecret> for RemoveSecret {
    type Error = DecodeError;
    fn try_from(it: pb::RemoveSecret) -> Result<Self, DecodeError> {
        let (workspace, name) = (workspace(it.workspace)?, name(&it.name)?);
        Ok(Self { workspace, name, time_ms: it.time_ms, actor: it.actor })
    }
}

impl From<&Secret> for pb::Secret {
    fn from(secret: &Secret) -> Self {
        Self { set: Some((&secret.set).into()), index: secret.index }
    }
}

impl TryFrom<pb::Secret> for Secret {
    type Error = DecodeError;
    fn try_from(secret: pb::Secret) -> Result<Self, DecodeError> {
        Ok(Self { set: secret.set.ok_or(field("set"))?.try_into()?, index: secret.index })
    }
}

fn name(name: &str) -> Result<SecretName, DecodeError> {
    name.parse().map_err(|_| field("name"))
}
