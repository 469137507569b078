//! Workspaces: what is live, its history, the content that it is made of, and the two ways to change it.

use std::sync::Arc;

use bytes::Bytes;
use caxton_proto::log::Deployment;
use caxton_proto::{Digest, Revision, WorkspaceId};
use caxton_raft::ReadError;
use caxton_raft::deploy_log::{DeployLog, State as LogState};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinError;

use super::blocking;
use super::keys::Keys;
use crate::api::{DeployRequest, DeployResponse, RollbackRequest, Serving};
use crate::artifacts::{Artifacts, GetError, PutError};
use crate::authz::{Deploy, Permit, ReadDeployed, UnscopedToken};
use crate::catalog::{Catalog, Catalogs};
use crate::deploy::{DeployError, Deployer};
use crate::invoke::Freshness;

/// What is live in a workspace, and what this node serves of it.
pub struct Live {
    pub workspace: WorkspaceId,
    /// The deployment that is live; none where nothing was deployed.
    pub deployment: Option<Arc<Deployment>>,
    /// Whether this node serves it.
    pub serving: Serving,
    /// What this node serves, which may be an older revision.
    pub served: Option<Arc<Catalog>>,
    /// What its files name and nobody has set: a sentence each.
    pub lacking: Vec<String>,
}

impl Live {
    /// The revision that is live.
    pub fn revision(&self) -> Revision {
        self.deployment.as_ref().map_or(Revision::NONE, |live| live.revision)
    }
}

/// Part of a history, the newest deployment first.
pub struct HistoryPage {
    pub deployments: Vec<Arc<Deployment>>,
    /// Before which revision the next page begins, if there is one.
    pub next: Option<Revision>,
}

/// Why content cannot be read or stored.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// As many uploads as may be are being read.
    #[error("as many uploads as `deploy.uploads_max` allows are being read")]
    Busy,
    /// The workspace does not have some of it.
    #[error("{} artifacts are not on the server", missing.len())]
    Missing {
        /// What it does not have.
        missing: Vec<Digest>,
    },
    /// It could not be read.
    #[error(transparent)]
    Get(#[from] GetError),
    /// It could not be stored.
    #[error(transparent)]
    Put(#[from] PutError),
    /// The work was cut off, because the node stops.
    #[error("the work was cut off")]
    Stopped(#[from] JoinError),
}

/// Workspaces and their content.
pub struct Deployments {
    log: DeployLog,
    catalogs: Catalogs,
    artifacts: Artifacts,
    deployer: Deployer,
    uploads: Semaphore,
    keys: Keys,
}

impl Deployments {
    /// Deployments of `log`, served from `catalogs`, with at most `uploads_max` uploads in memory at once.
    pub fn new(
        log: DeployLog,
        catalogs: Catalogs,
        artifacts: Artifacts,
        deployer: Deployer,
        uploads_max: usize,
        keys: Keys,
    ) -> Deployments {
        Deployments { log, catalogs, artifacts, deployer, uploads: Semaphore::new(uploads_max), keys }
    }

    /// What is live in each workspace that the token is for, as this node knows it.
    pub fn all(&self, unscoped: &UnscopedToken<ReadDeployed>) -> Vec<Live> {
        let live: Vec<(WorkspaceId, Option<Arc<Deployment>>)> = self.log.read(|state| {
            let permitted = state.workspaces().filter(|(id, _)| unscoped.permit(id).is_ok());
            permitted.map(|(id, workspace)| (id.clone(), workspace.live_deployment().cloned())).collect()
        });
        live.into_iter().map(|(id, live)| self.live(id, live)).collect()
    }

    /// What is live.
    pub async fn one(&self, permit: &Permit<ReadDeployed>, freshness: Freshness) -> Result<Live, ReadError> {
        let live = |state: &LogState| state.workspace(permit.workspace())?.live_deployment().cloned();
        let live = match freshness {
            Freshness::Stale => self.log.read(live),
            Freshness::Current => self.log.current(live).await?,
        };
        let mut live = self.live(permit.workspace().clone(), live);
        if let Some(catalog) = live.served.clone() {
            let keys = self.keys.clone();
            // Advice only: a node that stops gives none.
            live.lacking = blocking(move || keys.lacking(&catalog)).await.unwrap_or_default();
        }
        Ok(live)
    }

    fn live(&self, workspace: WorkspaceId, deployment: Option<Arc<Deployment>>) -> Live {
        let revision = deployment.as_ref().map_or(Revision::NONE, |live| live.revision);
        let serving = self.catalogs.serving(&workspace, revision);
        let served = self.catalogs.get(&workspace);
        Live { workspace, deployment, serving, served, lacking: Vec::new() }
    }

    /// At most `limit` deployments before a revision, the newest first.
    pub async fn history(
        &self,
        permit: &Permit<ReadDeployed>,
        before: Revision,
        limit: usize,
    ) -> Result<HistoryPage, ReadError> {
        let page = |state: &LogState| {
            let all = state.workspace(permit.workspace()).into_iter().flat_map(|known| known.deployments().rev());
            all.skip_while(|deployment| deployment.revision >= before).take(limit + 1).cloned().collect()
        };
        let mut deployments: Vec<_> = self.log.current(page).await?;
        let more = deployments.len() > limit;
        deployments.truncate(limit);
        let next = deployments.last().filter(|_| more).map(|last| last.revision);
        Ok(HistoryPage { deployments, next })
    }

    /// One deployment, if it is remembered.
    pub async fn deployment(
        &self,
        permit: &Permit<ReadDeployed>,
        revision: Revision,
    ) -> Result<Option<Arc<Deployment>>, ReadError> {
        self.log.current(|state| state.workspace(permit.workspace())?.deployment(revision).cloned()).await
    }

    /// Makes files live, all or nothing. Returns when this node serves them.
    pub async fn deploy(&self, permit: &Permit<Deploy>, request: DeployRequest) -> Result<DeployResponse, DeployError> {
        self.deployer.deploy(permit, request).await
    }

    /// Makes the files of an older revision live again, as a new revision.
    pub async fn roll_back(
        &self,
        permit: &Permit<Deploy>,
        request: RollbackRequest,
    ) -> Result<DeployResponse, DeployError> {
        self.deployer.rollback(permit, request).await
    }

    /// Which content the workspace does not have.
    pub async fn missing(&self, permit: &Permit<Deploy>, digests: Vec<Digest>) -> Result<Vec<Digest>, ContentError> {
        let (artifacts, workspace) = (self.artifacts.clone(), permit.workspace().clone());
        Ok(blocking(move || artifacts.missing(&workspace, &digests)).await??)
    }

    /// A place to read an upload into memory, to be held as long as it is there.
    pub fn upload_place(&self, _permit: &Permit<Deploy>) -> Result<SemaphorePermit<'_>, ContentError> {
        self.uploads.try_acquire().map_err(|_| ContentError::Busy)
    }

    /// Stores content, all of it or nothing.
    pub async fn store(&self, permit: &Permit<Deploy>, blobs: Vec<(Digest, Bytes)>) -> Result<(), ContentError> {
        let (artifacts, workspace) = (self.artifacts.clone(), permit.workspace().clone());
        Ok(blocking(move || artifacts.put(&workspace, blobs)).await??)
    }

    /// Content of the workspace, to be read piece by piece where blocking does no harm. Refused unless all of it is there.
    pub async fn content(&self, permit: &Permit<ReadDeployed>, digests: Vec<Digest>) -> Result<Content, ContentError> {
        let content = Content { artifacts: self.artifacts.clone(), workspace: permit.workspace().clone() };
        blocking(move || {
            let Content { artifacts, workspace } = &content;
            let missing = artifacts.missing(workspace, &digests)?;
            if !missing.is_empty() {
                // One that is there and damaged counts as missing too, and says so when it is read.
                missing.iter().try_for_each(|digest| artifacts.get(workspace, digest).map(drop))?;
                return Err(ContentError::Missing { missing });
            }
            Ok(content)
        })
        .await?
    }
}

/// The content of one workspace, for whoever was permitted to read it.
#[derive(Clone)]
pub struct Content {
    artifacts: Artifacts,
    workspace: WorkspaceId,
}

impl Content {
    /// What has this digest. Blocks on the disk.
    pub fn read(&self, digest: &Digest) -> Result<Bytes, GetError> {
        self.artifacts.need(&self.workspace, digest)
    }
}
