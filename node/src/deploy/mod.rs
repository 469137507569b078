//! THE DEPLOY WALK, from a request to the revision that this node serves; [`Deployer::walk`] is its table of contents.
//!
//! Nothing is proposed that cannot run, and nothing is stored under a digest that it does not have. The log alone
//! decides who comes first: what is looked up before is there to refuse early, and may be wrong.

mod draft;

pub mod assemble;

pub mod verify;

pub mod check;

mod propose;

pub mod reconcile;

pub mod collect;

pub mod pins;

mod error;

use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_proto::log::Deployment;
use caxton_proto::plan::ItemChange;
use caxton_proto::tree::Tree;
use caxton_proto::{Digest, Revision, WorkspaceId};
use caxton_raft::deploy_log::DeployLog;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{Instrument, info, info_span};

use crate::api::{self, DeployRequest, DeployResponse, RollbackRequest};
use crate::artifacts::Artifacts;
use crate::authz::{Deploy, Permit};
use crate::catalog::Catalogs;
use crate::replicas::Replicas;
use crate::tasks::{self, Jobs};
use crate::tools::Tools;
use collect::Collector;
use draft::Draft;
pub use error::DeployError;
use pins::Pins;
use propose::AcceptedDeployment;

/// How large what is deployed may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many files a workspace may have.
    pub files_max: u64,
    /// How large one of them may be.
    pub file_bytes_max: u64,
    /// How large all of them may be together.
    pub workspace_bytes_max: u64,
}

/// What a deployer goes by.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// How large what is deployed may be.
    pub limits: Limits,
    /// How many deployments are on their way at once.
    pub concurrent_max: usize,
    /// How many revisions of a workspace keep their content.
    pub revisions_kept: u32,
    /// How long a deployment may wait for this node to serve it.
    pub live_wait: Duration,
}

/// Deploys; clones are handles on the same deployer.
#[derive(Clone)]
pub struct Deployer {
    log: DeployLog,
    catalogs: Catalogs,
    artifacts: Artifacts,
    tools: Tools,
    pins: Pins,
    replicas: Replicas,
    places: Arc<Semaphore>,
    rules: Rules,
    jobs: Jobs,
}

/// A deployment, however it is asked for.
struct Intent {
    workspace: WorkspaceId,
    parent: Revision,
    content: Content,
    author: api::Author,
    actor: String,
    git: Option<api::Git>,
    message: String,
    idempotency_key: String,
    dry_run: bool,
}

/// What is to be live.
enum Content {
    /// The parent's files with changes.
    New(Box<DeployRequest>),
    /// The files of an older revision.
    Old(Revision),
}

/// What a deployment starts from.
enum Base {
    /// The parent's files.
    Parent(Arc<Tree>),
    /// Nothing to start: an attempt with this key was accepted before.
    Done(Arc<Deployment>),
}

impl Deployer {
    /// A deployer that proposes to `log` what `replicas` have brought to a majority, and waits for `catalogs`.
    pub fn new(
        log: DeployLog,
        catalogs: Catalogs,
        artifacts: Artifacts,
        tools: Tools,
        pins: Pins,
        replicas: Replicas,
        rules: Rules,
    ) -> Deployer {
        let places = Arc::new(Semaphore::new(rules.concurrent_max));
        Deployer { log, catalogs, artifacts, tools, pins, replicas, places, rules, jobs: Jobs::default() }
    }

    /// What removes the blobs that nothing names any more, and leaves alone what this deployer's walks need.
    pub fn collector(&self) -> Collector {
        Collector::new(self.log.clone(), self.catalogs.clone(), self.artifacts.clone(), self.pins.clone())
    }

    /// Makes the request's files live, or changes nothing. Returns when this node serves them.
    pub async fn deploy(
        &self,
        permit: &Permit<Deploy>,
        mut request: DeployRequest,
    ) -> Result<DeployResponse, DeployError> {
        let intent = Intent {
            workspace: permit.workspace().clone(),
            parent: request.parent,
            author: std::mem::take(&mut request.author),
            actor: permit.subject().to_owned(),
            git: request.git.take(),
            message: std::mem::take(&mut request.message),
            idempotency_key: std::mem::take(&mut request.idempotency_key),
            dry_run: request.dry_run,
            content: Content::New(Box::new(request)),
        };
        self.start(intent).await
    }

    /// Makes the files of an older revision live again, as a new revision.
    pub async fn rollback(
        &self,
        permit: &Permit<Deploy>,
        request: RollbackRequest,
    ) -> Result<DeployResponse, DeployError> {
        let intent = Intent {
            workspace: permit.workspace().clone(),
            parent: request.parent,
            content: Content::Old(request.to),
            author: request.author,
            actor: permit.subject().to_owned(),
            git: None,
            message: request.message,
            idempotency_key: request.idempotency_key,
            dry_run: false,
        };
        self.start(intent).await
    }

    /// Lets a deployment in, and sees it through even when whoever asked goes away: what is proposed cannot be taken
    /// back, and its blobs must stay pinned until the log has decided.
    async fn start(&self, intent: Intent) -> Result<DeployResponse, DeployError> {
        let place = self.admit(&intent)?;
        let span =
            info_span!("deployment", workspace = %intent.workspace, parent = %intent.parent, actor = intent.actor);
        let deployer = self.clone();
        let walk = async move {
            let _place = place;
            deployer.walk(intent).await
        };
        self.jobs.spawn("deploy", walk.instrument(span)).await.map_err(DeployError::Stopped)?
    }

    fn admit(&self, intent: &Intent) -> Result<OwnedSemaphorePermit, DeployError> {
        if intent.idempotency_key.is_empty() {
            return Err(DeployError::NoKey);
        }
        let busy = |_| DeployError::Busy { max: self.rules.concurrent_max };
        self.places.clone().try_acquire_owned().map_err(busy)
    }

    async fn walk(&self, intent: Intent) -> Result<DeployResponse, DeployError> {
        let mut steps = Steps::default();
        let (workspace, dry_run) = (intent.workspace.clone(), intent.dry_run);
        let pin = self.pins.hold(&workspace).await;
        let parent = match self.base(&intent).await? {
            Base::Parent(tree) => tree,
            Base::Done(deployment) => return Ok(self.live(AcceptedDeployment::repeated(deployment), steps).await),
        };
        let Draft { tree, nodes, changes, deploy } = steps.time("check", self.draft(intent, parent)).await?;
        if dry_run {
            return Ok(self.checked(&workspace, changes, steps));
        }
        steps.time("store", self.store(&workspace, nodes)).await?;
        steps.time("spread", self.spread(&workspace, deploy.root)).await?;
        let _at_hand = self.catalogs.expect(deploy.root, tree);
        let accepted = steps.time("propose", self.propose(deploy, changes)).await?;
        // From here on the log keeps what the deployment needs.
        drop(pin);
        Ok(self.live(accepted, steps).await)
    }

    /// Waits until a majority of those who vote on the deployment has all that it is made of.
    async fn spread(&self, workspace: &WorkspaceId, root: Digest) -> Result<(), DeployError> {
        let voters = self.log.group().members().borrow().voters.clone();
        Ok(self.replicas.spread(workspace, root, &voters).await?)
    }

    /// The answer to a deployment that the log has: once this node serves it, or cannot.
    async fn live(&self, accepted: AcceptedDeployment, mut steps: Steps) -> DeployResponse {
        let AcceptedDeployment { deployment, changes, repeated } = accepted;
        let (workspace, revision) = (&deployment.workspace, deployment.revision);
        let load = async { Ok::<_, Never>(self.catalogs.reach(workspace, revision, self.rules.live_wait).await) };
        let Ok(serving) = steps.time("load", load).await;
        info!(%workspace, %revision, root = %deployment.root, repeated, ms = steps.total_ms(), "deployed");
        let deployment = Some(api::Deployment::from(&*deployment));
        DeployResponse { deployment, changes, repeated, serving, steps_ms: steps.ms }
    }

    /// The answer to a dry run.
    fn checked(&self, workspace: &WorkspaceId, changes: Vec<ItemChange>, steps: Steps) -> DeployResponse {
        let serving = self.catalogs.serving(workspace, live_revision(&self.log, workspace));
        DeployResponse { deployment: None, changes, repeated: false, serving, steps_ms: steps.ms }
    }
}

/// The newest revision of a workspace that this node's log has.
pub fn live_revision(log: &DeployLog, workspace: &WorkspaceId) -> Revision {
    log.read(|state| state.workspace(workspace).map_or(Revision::NONE, |known| known.live()))
}

/// An error that cannot be.
type Never = std::convert::Infallible;

/// How long each step took, in order.
#[derive(Default)]
struct Steps {
    ms: Vec<(String, f64)>,
}

impl Steps {
    async fn time<T, E>(&mut self, name: &'static str, step: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let from = Instant::now();
        let done = step.instrument(info_span!("deployment.step", otel.name = name, step = name)).await;
        self.ms.push((name.to_owned(), from.elapsed().as_secs_f64() * 1_000.0));
        done
    }

    fn total_ms(&self) -> f64 {
        self.ms.iter().map(|(_, ms)| ms).sum()
    }
}

/// Runs what blocks, or takes longer than async threads may be held, where that does no harm.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DeployError> + Send + 'static,
) -> Result<T, DeployError> {
    let span = tracing::Span::current();
    tasks::blocking(move || span.in_scope(work)).await.map_err(DeployError::Stopped)?
}
