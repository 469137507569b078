//! From what was asked for to a command that may be proposed: the parent, the proposed tree, its blobs and its check.

use std::sync::Arc;

use bytes::Bytes;
use caxton_proto::log::{Author, CHANGES_MAX, Command, Deploy, Deployment, Git, Kind};
use caxton_proto::manifest::{AgentManifest, ToolManifest};
use caxton_proto::plan::{ItemChange, Plan};
use caxton_proto::tree::{File, Nodes, Tree, TreePath};
use caxton_proto::{Digest, Revision, WorkspaceId};
use caxton_raft::deploy_log::State;

use super::assemble::{AssembledTree, assemble};
use super::{Base, Content, DeployError, Deployer, Intent, blocking, check, verify};
use crate::catalog::load_tree;

/// A deployment that was found good.
pub(super) struct Draft {
    pub tree: Arc<Tree>,
    /// The trie over them.
    pub nodes: Nodes,
    /// What it changes.
    pub changes: Vec<ItemChange>,
    /// What to propose.
    pub deploy: Deploy,
}

/// Where a deployment stands before anything was looked at.
enum Start {
    /// Its parent is live and has these files.
    Parent(Option<Digest>),
    /// It was accepted before.
    Done(Arc<Deployment>),
    /// Its parent is not live.
    Conflict { live: Option<Arc<Deployment>> },
}

impl Deployer {
    /// What the deployment starts from. Refuses early what the log would refuse.
    pub(super) async fn base(&self, intent: &Intent) -> Result<Base, DeployError> {
        let start = match self.log.read(|state| start(state, intent)) {
            found @ Start::Parent(_) => found,
            // This node may be behind: ask again when it has everything that was acknowledged.
            Start::Done(_) | Start::Conflict { .. } => self.log.current(|state| start(state, intent)).await?,
        };
        match start {
            Start::Parent(None) => Ok(Base::Parent(Arc::default())),
            Start::Parent(Some(root)) => self.tree(&intent.workspace, root).await.map(Base::Parent),
            Start::Done(deployment) => Ok(Base::Done(deployment)),
            Start::Conflict { live } => {
                Err(DeployError::Conflict { workspace: intent.workspace.clone(), parent: intent.parent, live })
            }
        }
    }

    /// The tree `root`: the one at hand when this node serves it, else read from the store.
    async fn tree(&self, workspace: &WorkspaceId, root: Digest) -> Result<Arc<Tree>, DeployError> {
        if let Some(catalog) = self.catalogs.get(workspace).filter(|catalog| catalog.root == root) {
            return Ok(catalog.tree.clone());
        }
        let (artifacts, workspace) = (self.artifacts.clone(), workspace.clone());
        blocking(move || Ok(Arc::new(load_tree(&artifacts, &workspace, root)?))).await
    }

    /// Makes and checks what is to be proposed.
    pub(super) async fn draft(&self, intent: Intent, parent: Arc<Tree>) -> Result<Draft, DeployError> {
        let old = match &intent.content {
            Content::New(_) => None,
            Content::Old(to) => Some(self.old(&intent.workspace, *to).await?),
        };
        let deployer = self.clone();
        blocking(move || deployer.examine(intent, &parent, old)).await
    }

    /// The tree of a revision whose content is kept.
    async fn old(&self, workspace: &WorkspaceId, to: Revision) -> Result<Arc<Tree>, DeployError> {
        let root = self.log.read(|state| {
            let known = state.workspace(workspace);
            let kept = known.and_then(|known| known.kept().find(|kept| kept.revision == to));
            kept.map(|kept| kept.root).ok_or_else(|| DeployError::NoSuchRevision {
                workspace: workspace.clone(),
                to,
                oldest_kept: known.and_then(|known| known.kept().next()).map_or(Revision::NONE, |kept| kept.revision),
                live: known.map_or(Revision::NONE, |known| known.live()),
            })
        })?;
        self.tree(workspace, root).await
    }

    fn examine(&self, intent: Intent, parent: &Tree, old: Option<Arc<Tree>>) -> Result<Draft, DeployError> {
        let assembled = match (&intent.content, old) {
            (Content::New(request), _) => assemble(parent, request, &self.rules.limits)?,
            (Content::Old(_), old) => as_it_was(parent, &old.unwrap_or_default()),
        };
        verify::verify(&self.artifacts, &intent.workspace, parent, &assembled.plan)?;
        let revisions_kept = self.check(&intent.workspace, parent, &assembled.tree)?;
        let deploy = command(intent, &assembled, revisions_kept);
        // The log checks its limits too, but a dry run never gets there.
        Command::Deploy(deploy.clone()).check()?;
        let AssembledTree { tree, nodes, plan, bytes: _ } = assembled;
        Ok(Draft { tree: Arc::new(tree), nodes, changes: plan.items, deploy })
    }

    /// Whether the proposed tree can run. What did not change since the parent, which was checked, is not read again.
    /// Gives how many revisions keep their content: what its file says, and what the node's settings allow.
    fn check(&self, workspace: &WorkspaceId, parent: &Tree, tree: &Tree) -> Result<u32, DeployError> {
        let served = self.catalogs.get(workspace);
        let agent = |path: &TreePath, digest: &Digest| {
            let name = AgentManifest::name_of(path)?;
            let entry = served.as_ref()?.agents().get(name)?;
            (entry.path == *path && entry.file.digest == *digest).then(|| entry.manifest().ok())?
        };
        let read = |_: &TreePath, file: &File| Ok(self.artifacts.read_file(workspace, file)?);
        let before = check::Before { tree: parent, agent: &agent };
        let prove = |manifest: &ToolManifest, wasm: Option<Bytes>| self.tools.prove(manifest, wasm);
        let prove_agent = |manifest: &AgentManifest, wasm: Bytes| match &manifest.module {
            Some(module) => self.tools.prove_agent(&manifest.name, module, &wasm),
            None => Ok(()),
        };
        let (prove, prove_agent) = (Some::<check::Prove<'_>>(&prove), Some::<check::ProveAgent<'_>>(&prove_agent));
        let whole = check::check(check::Workspace { tree, read: &read, before: Some(before), prove, prove_agent })?;
        let wanted = whole.workspace.retention.revisions_kept;
        Ok(wanted.unwrap_or(u32::MAX).min(self.rules.revisions_kept))
    }

    /// Puts the nodes of the proposed tree on the disk; its files are there.
    pub(super) async fn store(&self, workspace: &WorkspaceId, nodes: Nodes) -> Result<(), DeployError> {
        let (artifacts, workspace) = (self.artifacts.clone(), workspace.clone());
        blocking(move || {
            let digests: Vec<_> = nodes.blobs.iter().map(|(digest, _)| *digest).collect();
            let sizes = artifacts.sizes(&workspace, &digests)?;
            let new = nodes.blobs.into_iter().zip(sizes).filter(|(_, size)| size.is_none());
            let new = new.map(|((digest, node), _)| (digest, node.into())).collect();
            Ok(artifacts.put(&workspace, new)?)
        })
        .await
    }
}

fn start(state: &State, intent: &Intent) -> Start {
    let known = state.workspace(&intent.workspace);
    let live = known.and_then(|known| known.live_deployment());
    if live.map_or(Revision::NONE, |live| live.revision) == intent.parent {
        return Start::Parent(live.map(|live| live.root));
    }
    // A retry's parent is not live any more when its first attempt was accepted.
    let mut newest_first = known.into_iter().flat_map(|known| known.deployments().rev());
    match newest_first.find(|deployment| deployment.idempotency_key == intent.idempotency_key) {
        Some(done) if !intent.dry_run && is_attempt(done, &intent.content) => Start::Done(done.clone()),
        // A key that was used for something else is refused as the conflict that it is as well.
        Some(_) | None => Start::Conflict { live: live.cloned() },
    }
}

fn is_attempt(done: &Deployment, content: &Content) -> bool {
    match (content, done.kind) {
        (Content::New(request), Kind::Deploy) => request.root == done.root,
        (Content::Old(to), Kind::Rollback { to: before }) => *to == before,
        (Content::New(_), Kind::Rollback { .. }) | (Content::Old(_), Kind::Deploy) => false,
    }
}

/// A revision's files as a proposal. They were within the limits when they were deployed.
fn as_it_was(parent: &Tree, old: &Tree) -> AssembledTree {
    let bytes = old.files().values().map(|file| file.bytes).sum();
    AssembledTree { tree: old.clone(), nodes: old.nodes(), plan: Plan::between(parent, old), bytes }
}

/// What goes into the log, but for the time, which the proposal stamps.
fn command(intent: Intent, assembled: &AssembledTree, revisions_kept: u32) -> Deploy {
    let items = &assembled.plan.items;
    Deploy {
        workspace: intent.workspace,
        parent: intent.parent,
        root: assembled.nodes.root,
        kind: match intent.content {
            Content::New(_) => Kind::Deploy,
            Content::Old(to) => Kind::Rollback { to },
        },
        author: Author { name: intent.author.name, email: intent.author.email },
        actor: intent.actor,
        time_ms: 0,
        git: intent.git.map(|git| Git { commit: git.commit, branch: git.branch, dirty: git.dirty }),
        message: intent.message,
        changes: items.iter().take(CHANGES_MAX).cloned().collect(),
        changes_total: u32::try_from(items.len()).unwrap_or(u32::MAX),
        files: assembled.tree.files().len() as u64,
        bytes: assembled.bytes,
        idempotency_key: intent.idempotency_key,
        revisions_kept,
    }
}
