//! The deploy log's state: what is deployed where, which tokens are known, the sealed secrets, and what was deleted. Everything is decided by the commands and
//! their order: no clock, no randomness, no settings, no file. "Now" is the time that the proposer stamped.

use std::collections::BTreeMap;
use std::sync::Arc;

use caxton_proto::log::{
    Command, DeleteWorkspace, DeletionTotals, Deploy, Deployment, IssueToken, Kind, Outcome, Revocation, RevokeToken,
    SnapshotRecord, Token, WorkspaceDeletion,
};
use caxton_proto::{Revision, WorkspaceId};

use super::cluster::Cluster;
pub use super::deletions::DELETIONS_MAX;
use super::deletions::Deletions;
use super::secrets::Secrets;
pub use super::secrets::{SECRETS_MAX, WORKSPACE_SECRETS_MAX};

/// How many deployments of a workspace are remembered. The history has no gap within them.
pub const DEPLOYMENTS_MAX: usize = 10_000;

/// How many workspaces there can be.
pub const WORKSPACES_MAX: usize = 10_000;

/// How many tokens there can be.
pub const TOKENS_MAX: usize = 10_000;

/// How long an idempotency key is remembered.
pub const KEY_KEPT_MS: u64 = 24 * 60 * 60 * 1000;

/// How long a token is listed after it expired, so that a clock that is off drops none that is still good.
pub const EXPIRED_KEPT_MS: u64 = 24 * 60 * 60 * 1000;

/// How long a token that never expires is listed after it was revoked.
pub const REVOKED_KEPT_MS: u64 = 90 * 24 * 60 * 60 * 1000;

/// What is deployed where, which tokens are known, and the sealed secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    applied: u64,
    forgotten: u64,
    workspaces: BTreeMap<WorkspaceId, Arc<Workspace>>,
    /// Where the deployment with an index is.
    log: BTreeMap<u64, (WorkspaceId, Revision)>,
    tokens: BTreeMap<String, Arc<Token>>,
    secrets: Secrets,
    deletions: Deletions,
    cluster: Arc<Cluster>,
}

/// A workspace's deployments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Workspace {
    live: Revision,
    oldest_kept: Revision,
    oldest_key: Revision,
    deployments: BTreeMap<Revision, Arc<Deployment>>,
    /// The revision that each idempotency key made.
    keys: BTreeMap<String, Revision>,
}

impl State {
    /// Takes the command with this index and says what becomes of it.
    pub fn apply(&mut self, index: u64, command: &Command) -> Outcome {
        self.applied = index;
        match command {
            Command::Deploy(deploy) => self.deploy(index, deploy),
            Command::IssueToken(issue) => self.issue_token(issue),
            Command::RevokeToken(revoke) => self.revoke_token(revoke),
            Command::SetSecret(set) => self.secrets.set(index, set),
            Command::RemoveSecret(remove) => self.secrets.remove(remove),
            Command::DeleteWorkspace(delete) => self.delete_workspace(index, delete),
            Command::Cluster(command) => {
                let cluster = Arc::make_mut(&mut self.cluster);
                Outcome::Cluster(if index == 1 { cluster.apply_first(command) } else { cluster.apply(command) })
            }
        }
    }

    /// What is known of the cluster's nodes.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The index of the last command in the state.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// The workspaces, in the order of their names.
    pub fn workspaces(&self) -> impl ExactSizeIterator<Item = (&WorkspaceId, &Workspace)> {
        self.workspaces.iter().map(|(id, workspace)| (id, &**workspace))
    }

    /// A workspace; nothing when it was never deployed to.
    pub fn workspace(&self, id: &WorkspaceId) -> Option<&Workspace> {
        self.workspaces.get(id).map(|workspace| &**workspace)
    }

    /// The remembered deployments with an index above `index`, in the log's order.
    pub fn deployments_after(&self, index: u64) -> impl Iterator<Item = &Arc<Deployment>> {
        let after = (std::ops::Bound::Excluded(index), std::ops::Bound::Unbounded);
        self.log.range(after).filter_map(|(_, (id, revision))| self.workspaces.get(id)?.deployments.get(revision))
    }

    /// The index of the newest deployment that has been forgotten. Whoever resumes below it misses something.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// The tokens, in the order of their ids; revoked and expired ones too, for a while.
    pub fn tokens(&self) -> impl ExactSizeIterator<Item = &Token> {
        self.tokens.values().map(|token| &**token)
    }

    /// The token with this id.
    pub fn token(&self, id: &str) -> Option<&Token> {
        self.tokens.get(id).map(|token| &**token)
    }

    /// The sealed secrets of all workspaces.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// The workspaces that were deleted, each with its newest deletion.
    pub fn deletions(&self) -> &Deletions {
        &self.deletions
    }

    fn deploy(&mut self, index: u64, deploy: &Deploy) -> Outcome {
        let workspace = self.workspaces.get(&deploy.workspace);
        if let Some(refusal) = workspace.map_or_else(|| refuse_first(deploy), |workspace| workspace.refuse(deploy)) {
            return refusal;
        }
        if workspace.is_none() && self.workspaces.len() >= WORKSPACES_MAX {
            return Outcome::TooManyWorkspaces;
        }
        // One that is made again under a name counts on, so that nobody takes its revisions for those of the one before.
        let before = self.deletions.revision(&deploy.workspace);
        let workspace = self.workspaces.entry(deploy.workspace.clone());
        let workspace = Arc::make_mut(workspace.or_insert_with(|| Arc::new(Workspace::after(before))));
        let deployment = workspace.accept(index, deploy);
        self.log.insert(index, (deploy.workspace.clone(), deployment.revision));
        for old in workspace.forget() {
            self.forgotten = self.forgotten.max(old.index);
            self.log.remove(&old.index);
        }
        Outcome::Deployed(deployment)
    }

    /// Takes a workspace away with its deployments, its secrets and its tokens, and notes that shards have to follow.
    fn delete_workspace(&mut self, index: u64, delete: &DeleteWorkspace) -> Outcome {
        let known = self.workspaces.get(&delete.workspace);
        let live_revision = known.map_or(Revision::NONE, |workspace| workspace.live);
        if delete.seen.is_some_and(|seen| seen != live_revision) {
            let live = known.and_then(|workspace| workspace.live_deployment().cloned());
            return Outcome::Conflict { live_revision, live };
        }
        // One that never was deployed may have secrets all the same, and its shard may keep something of it.
        let workspace = self.workspaces.remove(&delete.workspace);
        let secrets = self.secrets.remove_all(&delete.workspace);
        let gone = workspace.iter().flat_map(|workspace| workspace.deployments());
        gone.for_each(|deployment| _ = self.log.remove(&deployment.index));
        let deployments = workspace.as_ref().map_or(0, |workspace| workspace.deployments.len() as u64);
        let before = self.deletions.revision(&delete.workspace);
        let revision = workspace.map_or(before, |workspace| workspace.live);
        let deletion = WorkspaceDeletion { delete: delete.clone(), index, revision };
        self.deletions.put(deletion.clone());
        let totals = DeletionTotals { deployments, secrets, tokens: self.take_from_tokens(delete) };
        Outcome::WorkspaceDeleted { deletion, totals }
    }

    /// Revokes the tokens that are for a workspace alone, and takes it off the lists of the others; says how many were revoked.
    fn take_from_tokens(&mut self, delete: &DeleteWorkspace) -> u64 {
        let mut revoked = 0;
        for token in self.tokens.values_mut().filter(|it| it.issued.workspaces.contains(&delete.workspace)) {
            let token = Arc::make_mut(token);
            // Never down to an empty list, which stands for everywhere.
            if token.issued.workspaces.iter().any(|other| *other != delete.workspace) {
                token.issued.workspaces.retain(|other| *other != delete.workspace);
            } else if token.revoked.is_none() {
                token.revoked = Some(Revocation { time_ms: delete.time_ms, actor: delete.actor.clone() });
                revoked += 1;
            }
        }
        revoked
    }

    fn issue_token(&mut self, issue: &IssueToken) -> Outcome {
        if let Some(token) = self.tokens.get(&issue.id) {
            return if token.issued.hash == issue.hash { Outcome::TokenIssued } else { Outcome::TokenIdTaken };
        }
        self.tokens.retain(|_, token| !is_history(token, issue.time_ms));
        if self.tokens.len() >= TOKENS_MAX {
            return Outcome::TooManyTokens;
        }
        self.tokens.insert(issue.id.clone(), Arc::new(Token { issued: issue.clone(), revoked: None }));
        Outcome::TokenIssued
    }

    fn revoke_token(&mut self, revoke: &RevokeToken) -> Outcome {
        let Some(token) = self.tokens.get_mut(&revoke.id) else {
            return Outcome::NoSuchToken;
        };
        // Who revoked it first stays on record.
        if token.revoked.is_none() {
            let revoked = Revocation { time_ms: revoke.time_ms, actor: revoke.actor.clone() };
            Arc::make_mut(token).revoked = Some(revoked);
        }
        Outcome::TokenRevoked
    }

    /// The records of a snapshot.
    pub(super) fn records(&self) -> impl Iterator<Item = SnapshotRecord> {
        let workspaces = self.workspaces.iter().flat_map(|(id, it)| {
            let head = SnapshotRecord::Workspace {
                id: id.clone(),
                live: it.live,
                oldest_kept: it.oldest_kept,
                oldest_key: it.oldest_key,
            };
            std::iter::once(head).chain(it.deployments.values().cloned().map(SnapshotRecord::Deployment))
        });
        let tokens = self.tokens().cloned().map(SnapshotRecord::Token);
        let secrets = self.secrets.all().cloned().map(SnapshotRecord::Secret);
        let deletions = self.deletions.all().map(|deletion| SnapshotRecord::Deletion((**deletion).clone()));
        workspaces.chain(tokens).chain(secrets).chain(deletions).chain(self.cluster.records())
    }

    /// An empty state which [`State::put`] fills from a snapshot.
    pub(super) fn from_snapshot(applied: u64, forgotten: u64) -> State {
        State { applied, forgotten, ..State::default() }
    }

    /// Takes a snapshot's next record; says so if it cannot follow the one before.
    pub(super) fn put(&mut self, record: SnapshotRecord) -> Result<(), &'static str> {
        match record {
            SnapshotRecord::Workspace { id, live, oldest_kept, oldest_key } => {
                let workspace = Workspace { live, oldest_kept, oldest_key, ..Workspace::default() };
                match self.workspaces.insert(id, Arc::new(workspace)) {
                    None => Ok(()),
                    Some(_) => Err("a workspace is there twice"),
                }
            }
            SnapshotRecord::Deployment(deployment) => {
                let workspace = self.workspaces.get_mut(&deployment.workspace).map(Arc::make_mut);
                let workspace = workspace.ok_or("a deployment comes before its workspace")?;
                workspace.restore(&deployment)?;
                self.log.insert(deployment.index, (deployment.workspace.clone(), deployment.revision));
                Ok(())
            }
            SnapshotRecord::Token(token) => {
                self.tokens.insert(token.issued.id.clone(), Arc::new(token));
                Ok(())
            }
            SnapshotRecord::Secret(secret) => {
                self.secrets.restore(secret);
                Ok(())
            }
            SnapshotRecord::Deletion(deletion) => {
                self.deletions.put(deletion);
                Ok(())
            }
            SnapshotRecord::JoinToken(token) => {
                Arc::make_mut(&mut self.cluster).put_token(token);
                Ok(())
            }
            SnapshotRecord::Member(member) => {
                Arc::make_mut(&mut self.cluster).put_member(member);
                Ok(())
            }
            SnapshotRecord::Departed { node, time_ms } => {
                Arc::make_mut(&mut self.cluster).put_departed(node, time_ms);
                Ok(())
            }
            SnapshotRecord::Retirement(retirement) => {
                Arc::make_mut(&mut self.cluster).put_retirement(retirement);
                Ok(())
            }
            SnapshotRecord::RotatedKey(key) => {
                Arc::make_mut(&mut self.cluster).put_key(key);
                Ok(())
            }
            SnapshotRecord::Format(format) => {
                Arc::make_mut(&mut self.cluster).put_format(format);
                Ok(())
            }
            SnapshotRecord::Shards(count) => {
                Arc::make_mut(&mut self.cluster).put_shards(count);
                Ok(())
            }
        }
    }
}

impl Workspace {
    /// One whose next revision follows `before`.
    fn after(before: Revision) -> Workspace {
        if before == Revision::NONE {
            return Workspace::default();
        }
        let first = before.next();
        Workspace { live: before, oldest_kept: first, oldest_key: first, ..Workspace::default() }
    }

    /// The revision that is live; [`Revision::NONE`] before the first deployment.
    pub fn live(&self) -> Revision {
        self.live
    }

    /// The deployment that is live.
    pub fn live_deployment(&self) -> Option<&Arc<Deployment>> {
        self.deployments.get(&self.live)
    }

    /// The deployment of a revision, if it is remembered.
    pub fn deployment(&self, revision: Revision) -> Option<&Arc<Deployment>> {
        self.deployments.get(&revision)
    }

    /// The remembered deployments, from the oldest to the newest.
    pub fn deployments(&self) -> impl DoubleEndedIterator<Item = &Arc<Deployment>> {
        self.deployments.values()
    }

    /// The deployments whose content is kept, from the oldest to the newest.
    pub fn kept(&self) -> impl DoubleEndedIterator<Item = &Arc<Deployment>> {
        self.deployments.range(self.oldest_kept..).map(|(_, deployment)| deployment)
    }

    /// Why the command is not accepted, if it is not.
    fn refuse(&self, deploy: &Deploy) -> Option<Outcome> {
        // Before anything else: a retry's parent is long gone if its first attempt was accepted.
        if let Some(before) = self.by_key(deploy) {
            let same = before.root == deploy.root;
            let before = Arc::clone(before);
            return Some(if same { Outcome::Repeated(before) } else { Outcome::KeyReused(before) });
        }
        if deploy.parent != self.live {
            return Some(Outcome::Conflict { live_revision: self.live, live: self.live_deployment().cloned() });
        }
        let Kind::Rollback { to } = deploy.kind else {
            return None;
        };
        match self.deployments.get(&to).filter(|old| old.kept) {
            None => Some(Outcome::NoSuchRevision { to, oldest_kept: self.oldest_kept, live_revision: self.live }),
            Some(old) if old.root != deploy.root => Some(Outcome::RollbackDiffers(Arc::clone(old))),
            Some(_) => None,
        }
    }

    /// The deployment that carried the command's idempotency key, while the key is remembered.
    fn by_key(&self, deploy: &Deploy) -> Option<&Arc<Deployment>> {
        let before = self.deployments.get(self.keys.get(&deploy.idempotency_key)?)?;
        let forgotten = before.time_ms.saturating_add(KEY_KEPT_MS) < deploy.time_ms;
        (!forgotten).then_some(before)
    }

    fn accept(&mut self, index: u64, deploy: &Deploy) -> Arc<Deployment> {
        self.forget_keys(deploy.time_ms);
        let revision = self.live.next();
        let deployment = Arc::new(Deployment::accept(deploy.clone(), revision, index));
        self.live = revision;
        self.deployments.insert(revision, Arc::clone(&deployment));
        if !deploy.idempotency_key.is_empty() {
            self.keys.insert(deploy.idempotency_key.clone(), revision);
        }
        let kept = u64::from(deploy.revisions_kept.max(1));
        self.keep_from(Revision((revision.0 + 1).saturating_sub(kept).max(1)));
        deployment
    }

    /// Drops the content of everything before `oldest`. What is gone stays gone when the number kept grows again.
    fn keep_from(&mut self, oldest: Revision) {
        if oldest <= self.oldest_kept {
            return;
        }
        for deployment in self.deployments.range_mut(self.oldest_kept..oldest).map(|(_, deployment)| deployment) {
            Arc::make_mut(deployment).kept = false;
        }
        self.oldest_kept = oldest;
    }

    fn forget_keys(&mut self, now_ms: u64) {
        let mut expired = Vec::new();
        for (revision, deployment) in self.deployments.range(self.oldest_key..) {
            if deployment.time_ms.saturating_add(KEY_KEPT_MS) >= now_ms {
                break;
            }
            expired.push((*revision, deployment.idempotency_key.clone()));
        }
        for (revision, key) in expired {
            self.forget_key(revision, &key);
        }
    }

    fn forget_key(&mut self, revision: Revision, key: &str) {
        if self.keys.get(key) == Some(&revision) {
            self.keys.remove(key);
        }
        self.oldest_key = self.oldest_key.max(revision.next());
    }

    /// Forgets the deployments that are too many.
    fn forget(&mut self) -> Vec<Arc<Deployment>> {
        let mut forgotten = Vec::new();
        while self.deployments.len() > DEPLOYMENTS_MAX {
            let Some((revision, deployment)) = self.deployments.pop_first() else { break };
            self.forget_key(revision, &deployment.idempotency_key);
            self.keep_from(revision.next());
            forgotten.push(deployment);
        }
        forgotten
    }

    /// Takes the next deployment of a snapshot.
    fn restore(&mut self, deployment: &Arc<Deployment>) -> Result<(), &'static str> {
        let revision = deployment.revision;
        let follows = self.deployments.last_key_value().is_none_or(|(last, _)| last.next() == revision);
        if !follows || revision > self.live {
            return Err("a workspace's revisions have a gap");
        }
        self.deployments.insert(revision, Arc::clone(deployment));
        if revision >= self.oldest_key && !deployment.idempotency_key.is_empty() {
            self.keys.insert(deployment.idempotency_key.clone(), revision);
        }
        Ok(())
    }
}

/// Why a workspace's first command is not accepted, if it is not.
fn refuse_first(deploy: &Deploy) -> Option<Outcome> {
    let none = Revision::NONE;
    if deploy.parent != none {
        return Some(Outcome::Conflict { live_revision: none, live: None });
    }
    match deploy.kind {
        Kind::Deploy => None,
        Kind::Rollback { to } => Some(Outcome::NoSuchRevision { to, oldest_kept: none, live_revision: none }),
    }
}

/// Whether a token need not be listed any more.
fn is_history(token: &Token, now_ms: u64) -> bool {
    let expires_ms = token.issued.expires_ms;
    let expired = expires_ms != 0 && expires_ms.saturating_add(EXPIRED_KEPT_MS) < now_ms;
    let revoked = token
        .revoked
        .as_ref()
        .is_some_and(|revoked| expires_ms == 0 && revoked.time_ms.saturating_add(REVOKED_KEPT_MS) < now_ms);
    expired || revoked
}
