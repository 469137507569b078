//! From the log to what this node serves: one path, at the start and after every deployment.
//!
//! For each workspace whose live revision is not the served one, a catalog is made and swapped in. One that cannot be
//! made leaves the last good one serving, and is tried again.

use std::sync::Arc;
use std::time::Duration;

use caxton_proto::WorkspaceId;
use caxton_proto::log::Deployment;
use caxton_raft::deploy_log::DeployLog;
use futures::StreamExt;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::activity::Activity;
use crate::api::Serving;
use crate::artifacts::Artifacts;
use crate::catalog::{Catalog, Catalogs, LoadError, load_tree};
use crate::edge::problem::chain;
use crate::replicas::Replicas;
use crate::tasks::{self, Jobs};

/// How many catalogs are made at once.
const LOADS_MAX: usize = 4;
/// What could not be loaded is tried again after this time.
const RETRY: Duration = Duration::from_secs(5);
/// How many of a catalog's broken manifests are logged.
const WARNINGS_MAX: usize = 5;

/// Follows the log.
pub struct Reconciler {
    log: DeployLog,
    catalogs: Catalogs,
    artifacts: Artifacts,
    activity: Activity,
    replicas: Replicas,
    warming: Arc<Semaphore>,
    jobs: Jobs,
    stop: CancellationToken,
}

impl Reconciler {
    /// A reconciler of `catalogs` that runs until `stop`; what is not in `artifacts`, `replicas` bring from elsewhere.
    pub fn new(
        log: DeployLog,
        catalogs: Catalogs,
        artifacts: Artifacts,
        activity: Activity,
        replicas: Replicas,
        stop: CancellationToken,
    ) -> Reconciler {
        let (warming, jobs) = (Arc::new(Semaphore::new(1)), Jobs::default());
        Reconciler { log, catalogs, artifacts, activity, replicas, warming, jobs, stop }
    }

    /// Follows the log until it is stopped.
    pub async fn run(self) {
        let mut applied = self.log.applied();
        loop {
            // Marked as seen before the state is read, so that what comes during the pass wakes the next one.
            applied.borrow_and_update();
            let failed = self.pass().await;
            self.catalogs.settle();
            let retry = async {
                if failed > 0 {
                    tokio::time::sleep(RETRY).await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => return,
                changed = applied.changed() => if changed.is_err() { return },
                () = retry => {}
            }
        }
    }

    /// Brings every workspace up to the log; says how many could not be.
    async fn pass(&self) -> usize {
        let served = self.catalogs.all();
        let gone: Vec<&WorkspaceId> = self.log.read(|state| {
            // Also where the name was deployed again and that cannot be loaded: what was deleted is no last good one.
            let is_gone = |catalog: &&Arc<Catalog>| {
                let deletion = state.deletions().of(&catalog.workspace);
                deletion.is_some_and(|deletion| catalog.revision <= deletion.revision)
            };
            served.iter().filter(is_gone).map(|catalog| &catalog.workspace).collect()
        });
        for workspace in gone {
            info!(%workspace, "a workspace was deleted and is served no more");
            self.catalogs.remove(workspace);
            self.activity.forget(workspace);
        }
        let behind: Vec<Arc<Deployment>> = self.log.read(|state| {
            let live = state.workspaces().filter_map(|(_, workspace)| workspace.live_deployment());
            live.filter(|live| !self.is_served(live)).cloned().collect()
        });
        let loads = futures::stream::iter(behind).map(|deployment| self.load(deployment)).buffer_unordered(LOADS_MAX);
        loads.filter(|loaded| std::future::ready(!loaded)).count().await
    }

    fn is_served(&self, live: &Deployment) -> bool {
        matches!(self.catalogs.serving(&live.workspace, live.revision), Serving::Live { .. })
    }

    async fn load(&self, deployment: Arc<Deployment>) -> bool {
        let (workspace, revision) = (deployment.workspace.clone(), deployment.revision);
        let previous = self.catalogs.get(&workspace);
        let expected = self.catalogs.expected(&deployment.root);
        let artifacts = self.artifacts.clone();
        if expected.is_none()
            && let Err(error) = self.replicas.fetch_all(&workspace, deployment.root).await
        {
            let why = chain(&error);
            error!(%workspace, %revision, error = why, "a deployment's content is not here; what was served before goes on");
            self.catalogs.fail(&workspace, revision, why);
            return false;
        }
        let made = tasks::blocking(move || {
            let tree = match (expected, &previous) {
                (Some(tree), _) => tree,
                (None, Some(previous)) if previous.root == deployment.root => previous.tree.clone(),
                (None, _) => Arc::new(load_tree(&artifacts, &deployment.workspace, deployment.root)?),
            };
            let (workspace, root) = (&deployment.workspace, deployment.root);
            Ok::<_, LoadError>(Catalog::new(workspace, revision, root, tree, previous.as_deref(), &artifacts))
        });
        let why = match made.await {
            Ok(Ok(catalog)) => {
                self.serve(Arc::new(catalog));
                return true;
            }
            Ok(Err(failed)) => chain(&failed),
            Err(broken) => chain(&broken),
        };
        error!(%workspace, %revision, error = why, "a deployment cannot be loaded; what was served before goes on");
        self.activity.not_serving(&workspace, revision, &why);
        self.catalogs.fail(&workspace, revision, why);
        false
    }

    fn serve(&self, catalog: Arc<Catalog>) {
        info!(workspace = %catalog.workspace, revision = %catalog.revision, agents = catalog.agents().len(), "serving");
        self.activity.serving(&catalog.workspace, catalog.revision);
        self.catalogs.swap(catalog.clone());
        let (warming, stop, catalogs) = (self.warming.clone(), self.stop.clone(), self.catalogs.clone());
        self.jobs.spawn("warm-catalog", async move {
            // One at a time: parsing must not take the processors from those who wait for an answer.
            let Ok(_turn) = warming.acquire_owned().await else { return };
            let warmed = tasks::blocking(move || {
                let over = || stop.is_cancelled() || !is_newest(&catalogs, &catalog);
                for failed in catalog.warm(over).iter().take(WARNINGS_MAX) {
                    warn!(error = chain(failed), "a deployed manifest cannot be used");
                }
            });
            let _ = warmed.await;
        });
    }
}

fn is_newest(catalogs: &Catalogs, catalog: &Arc<Catalog>) -> bool {
    let workspace: &WorkspaceId = &catalog.workspace;
    catalogs.get(workspace).is_some_and(|newest| Arc::ptr_eq(&newest, catalog))
}
