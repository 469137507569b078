//! Which keys the files of a workspace name that nobody has set: found before a message needs them.

use std::sync::Arc;

use caxton_proto::manifest::secret::{KeySource, SecretName};

use crate::catalog::Catalog;
use crate::errors;
use crate::llm::models::Models;
use crate::secrets::Secrets;

/// What knows which keys there are.
#[derive(Clone)]
pub struct Keys {
    /// The node's models, which know its variables.
    pub models: Arc<Models>,
    /// The secrets of all workspaces.
    pub secrets: Arc<dyn Secrets>,
}

impl Keys {
    /// What the files of a catalog name and nobody has set, a sentence each. Blocks on the disk.
    pub fn lacking(&self, catalog: &Catalog) -> Vec<String> {
        let workspace = &catalog.workspace;
        let unset = |name: &SecretName| self.secrets.version(workspace, name) == 0;
        let set =
            |secret: &SecretName| format!("needs the secret {secret}, which is not set: `caxton secrets set {secret}`");
        let mut lacking = Vec::new();
        let Ok(settings) = catalog.manifest() else { return lacking };
        for (name, provider) in &settings.providers {
            match provider.kind.api_key() {
                Some(KeySource::Secret(secret)) if unset(secret) => {
                    lacking.push(format!("the provider `{name}` {}", set(secret)));
                }
                Some(KeySource::Secret(_)) | None => {}
                Some(KeySource::Env(_)) => {
                    if let Err(error) = self.models.providers().of_workspace(workspace, name, provider) {
                        lacking.push(errors::chain(&error).to_string());
                    }
                }
            }
        }
        if let Some(backend) = &settings.memory_backend {
            let name = backend.kind.name();
            match backend.kind.key() {
                Some(KeySource::Secret(secret)) if unset(secret) => {
                    lacking.push(format!("the memory backend `{name}` {}", set(secret)));
                }
                Some(KeySource::Secret(_)) | None => {}
                Some(source @ KeySource::Env(_)) => {
                    let address = backend.kind.url().map_or("", |url| url.as_str());
                    if let Err(problem) = self.models.providers().workspace_key(workspace, source, address) {
                        lacking.push(format!("the memory backend `{name}` has no key: {problem}"));
                    }
                }
            }
        }
        for (name, tool) in catalog.tools() {
            let Ok(manifest) = tool.manifest() else { continue };
            let mut secrets: Vec<&SecretName> = manifest.secrets().filter(|secret| unset(secret)).collect();
            secrets.sort_unstable();
            secrets.dedup();
            lacking.extend(secrets.into_iter().map(|secret| format!("the tool `{name}` {}", set(secret))));
        }
        lacking
    }
}
