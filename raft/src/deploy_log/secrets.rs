//! The secrets of the deploy log's state. They are sealed: the state holds bytes, and nothing here could open them.

use std::collections::BTreeMap;
use std::sync::Arc;

use caxton_proto::WorkspaceId;
use caxton_proto::log::{Outcome, RemoveSecret, Secret, SetSecret};
use caxton_proto::manifest::secret::SecretName;

/// How many secrets a workspace can have.
pub const WORKSPACE_SECRETS_MAX: usize = 256;

/// How many secrets there can be in all workspaces together.
pub const SECRETS_MAX: usize = 10_000;

/// The secrets of every workspace, those that were never deployed to among them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Secrets {
    workspaces: BTreeMap<WorkspaceId, BTreeMap<SecretName, Arc<Secret>>>,
}

impl Secrets {
    /// The secrets of a workspace, in the order of their names.
    pub fn of(&self, workspace: &WorkspaceId) -> impl Iterator<Item = &Arc<Secret>> {
        self.workspaces.get(workspace).into_iter().flat_map(BTreeMap::values)
    }

    /// The secret of that name in that workspace, sealed.
    pub fn get(&self, workspace: &WorkspaceId, name: &SecretName) -> Option<&Arc<Secret>> {
        self.workspaces.get(workspace)?.get(name)
    }

    /// The secrets of all workspaces, in order.
    pub(super) fn all(&self) -> impl Iterator<Item = &Secret> {
        self.workspaces.values().flat_map(BTreeMap::values).map(|secret| &**secret)
    }

    pub(super) fn set(&mut self, index: u64, set: &SetSecret) -> Outcome {
        let known = self.get(&set.workspace, &set.name).is_some();
        let full = || {
            let total: usize = self.workspaces.values().map(BTreeMap::len).sum();
            self.of(&set.workspace).count() >= WORKSPACE_SECRETS_MAX || total >= SECRETS_MAX
        };
        if !known && full() {
            return Outcome::TooManySecrets;
        }
        self.restore(Secret { set: set.clone(), index });
        Outcome::SecretSet
    }

    pub(super) fn remove(&mut self, remove: &RemoveSecret) -> Outcome {
        let Some(secrets) = self.workspaces.get_mut(&remove.workspace) else { return Outcome::NoSuchSecret };
        if secrets.remove(&remove.name).is_none() {
            return Outcome::NoSuchSecret;
        }
        if secrets.is_empty() {
            self.workspaces.remove(&remove.workspace);
        }
        Outcome::SecretRemoved
    }

    /// Forgets all secrets of a workspace; says how many there were.
    pub(super) fn remove_all(&mut self, workspace: &WorkspaceId) -> u64 {
        self.workspaces.remove(workspace).map_or(0, |secrets| secrets.len() as u64)
    }

    /// Puts a secret in its place.
    pub(super) fn restore(&mut self, secret: Secret) {
        let secrets = self.workspaces.entry(secret.set.workspace.clone()).or_default();
        secrets.insert(secret.set.name.clone(), Arc::new(secret));
    }
}
