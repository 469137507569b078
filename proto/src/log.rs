//! The deploy log's commands and what becomes of them. Everything that the log's state depends on is in the command:
//! the proposer stamps the time, because the state may read no clock.
//!
//! The bytes of [`Command`], [`Outcome`] and [`Snapshot`] stay on disk for years: change them only by adding fields to
//! the .proto file, and keep the golden files of every version that was ever written.

mod check;
pub mod cluster;
mod deletion;
mod secret;
#[cfg(any(test, feature = "strategies"))]
pub mod strategies;
mod wire;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

pub use check::{CheckError, KEY_BYTES_MAX, MESSAGE_BYTES_MAX, SEALED_BYTES_MAX, TEXT_BYTES_MAX, TOKEN_WORKSPACES_MAX};
pub use deletion::{DeleteWorkspace, DeletionTotals, WorkspaceDeletion};
pub use secret::{RemoveSecret, Secret, SetSecret};
use serde::{Deserialize, Serialize};
pub use wire::{DecodeError, SnapshotReader, SnapshotRecord, SnapshotWriter};

use crate::plan::ItemChange;
use crate::{Digest, Revision, WorkspaceId};

/// The most item changes that a deployment lists by name; `changes_total` counts them all.
pub const CHANGES_MAX: usize = 64;

/// One entry of the deploy log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Put new content live, if nobody else did first.
    Deploy(Deploy),
    /// Make a token known.
    IssueToken(IssueToken),
    /// Stop honouring a token.
    RevokeToken(RevokeToken),
    /// Keep a secret, in the place of an older one of the same name.
    SetSecret(SetSecret),
    /// Forget a secret.
    RemoveSecret(RemoveSecret),
    /// Take a workspace away with all that is its own.
    DeleteWorkspace(DeleteWorkspace),
    /// Change what is known of the cluster's nodes.
    Cluster(cluster::Command),
}

/// Puts new content live, if `parent` still is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deploy {
    /// The workspace that is deployed to.
    pub workspace: WorkspaceId,
    /// The revision that the proposer saw live.
    pub parent: Revision,
    /// The digest of the content's Merkle trie.
    pub root: Digest,
    /// New content, or old content again.
    pub kind: Kind,
    /// Who wrote it.
    pub author: Author,
    /// The subject of the token that proposed it.
    pub actor: String,
    /// When it was proposed, in milliseconds since 1970.
    pub time_ms: u64,
    /// The git commit that it was deployed from.
    pub git: Option<Git>,
    /// What the author says about it.
    pub message: String,
    /// What it changes: the first [`CHANGES_MAX`] items.
    pub changes: Vec<ItemChange>,
    /// How many items it changes.
    pub changes_total: u32,
    /// How many files the content has.
    pub files: u64,
    /// How many bytes the content has.
    pub bytes: u64,
    /// Names this attempt, so that a retry applies once; may be empty.
    pub idempotency_key: String,
    /// How many revisions keep their content from here on, this one included.
    pub revisions_kept: u32,
}

/// Whether a deployment brings new content or old content again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Kind {
    /// The files were sent by whoever deployed.
    Deploy,
    /// The content of an older revision.
    Rollback {
        /// The revision whose content is live again.
        to: Revision,
    },
}

/// Who wrote a deployment's content, as git knows them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    /// Their name, as git has it.
    pub name: String,
    /// Their e-mail address, as git has it.
    pub email: String,
}

/// Where in git a deployment's content came from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Git {
    /// The commit's id.
    pub commit: String,
    /// The branch that was checked out, or nothing.
    pub branch: String,
    /// There were changes that the commit does not have.
    pub dirty: bool,
}

/// A deployment that the log accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// The workspace that the deployment changed.
    pub workspace: WorkspaceId,
    /// Counts the workspace's deployments.
    pub revision: Revision,
    /// Its index in the log, by which event streams resume.
    pub index: u64,
    /// The revision that was live before.
    pub parent: Revision,
    /// The digest of the content's Merkle trie.
    pub root: Digest,
    /// New content, or old content again.
    pub kind: Kind,
    /// Who wrote it.
    pub author: Author,
    /// The subject of the token that proposed it.
    pub actor: String,
    /// When it was proposed, in milliseconds since 1970.
    pub time_ms: u64,
    /// The git commit that it was deployed from.
    pub git: Option<Git>,
    /// What the author says about it.
    pub message: String,
    /// What it changed: the first [`CHANGES_MAX`] items.
    pub changes: Vec<ItemChange>,
    /// How many items it changed.
    pub changes_total: u32,
    /// How many files the content has.
    pub files: u64,
    /// How many bytes the content has.
    pub bytes: u64,
    /// The key that a retry of the same attempt carries; may be empty.
    pub idempotency_key: String,
    /// Its content is still there to read, pull and roll back to.
    pub kept: bool,
}

impl Deployment {
    /// What `deploy` becomes as revision `revision`, at `index` of the log.
    pub fn accept(deploy: Deploy, revision: Revision, index: u64) -> Deployment {
        Deployment {
            workspace: deploy.workspace,
            revision,
            index,
            parent: deploy.parent,
            root: deploy.root,
            kind: deploy.kind,
            author: deploy.author,
            actor: deploy.actor,
            time_ms: deploy.time_ms,
            git: deploy.git,
            message: deploy.message,
            changes: deploy.changes,
            changes_total: deploy.changes_total,
            files: deploy.files,
            bytes: deploy.bytes,
            idempotency_key: deploy.idempotency_key,
            kept: true,
        }
    }
}

/// Makes a token known. The log holds its hash only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssueToken {
    /// Names the token; it is in the token's claims.
    pub id: String,
    /// The digest of the whole token.
    pub hash: Digest,
    /// Who or what it is for.
    pub subject: String,
    /// What it may do.
    pub role: Role,
    /// Where it may do it; empty for everywhere.
    pub workspaces: Vec<WorkspaceId>,
    /// When it stops being honoured, in milliseconds since 1970; 0 for never.
    pub expires_ms: u64,
    /// When it was issued, in milliseconds since 1970.
    pub time_ms: u64,
    /// The subject of the token that issued it.
    pub actor: String,
}

/// Stops honouring a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokeToken {
    /// The id of the token that is good no more.
    pub id: String,
    /// When it was revoked, in milliseconds since 1970.
    pub time_ms: u64,
    /// The subject of the token that revoked it.
    pub actor: String,
}

/// A token that the log knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// How it was issued.
    pub issued: IssueToken,
    /// When and by whom it was revoked.
    pub revoked: Option<Revocation>,
}

impl Token {
    /// Whether it is to be honoured at `now_ms`.
    pub fn is_good(&self, now_ms: u64) -> bool {
        self.revoked.is_none() && (self.issued.expires_ms == 0 || now_ms < self.issued.expires_ms)
    }
}

/// When and by whom a token was revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// In milliseconds since 1970.
    pub time_ms: u64,
    /// The subject of the token that revoked it.
    pub actor: String,
}

/// What a token's bearer may do. Each role may do what those before it may.
///
/// [`Role::Metrics`] came with [`Format::DELETION`](crate::Format::DELETION): no token has it before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Read what nodes measure, and nothing else.
    Metrics,
    /// Read what is deployed.
    Viewer,
    /// Send messages to agents.
    Caller,
    /// Deploy to workspaces, and roll back.
    Deployer,
    /// Everything, tokens included.
    Admin,
}

impl Role {
    /// Every role, the least first.
    pub const ALL: [Role; 5] = [Role::Metrics, Role::Viewer, Role::Caller, Role::Deployer, Role::Admin];

    /// The role's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Metrics => "metrics",
            Role::Viewer => "viewer",
            Role::Caller => "caller",
            Role::Deployer => "deployer",
            Role::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no role `{0}`; the roles are metrics, viewer, caller, deployer and admin")]
pub struct InvalidRole(pub String);

impl FromStr for Role {
    type Err = InvalidRole;
    fn from_str(name: &str) -> Result<Role, InvalidRole> {
        let found = Role::ALL.into_iter().find(|role| role.as_str() == name);
        found.ok_or_else(|| InvalidRole(name.chars().take(24).collect()))
    }
}

/// What became of a command. All but `Deployed`, `TokenIssued`, `TokenRevoked`, `SecretSet`, `SecretRemoved`,
/// `WorkspaceDeleted` and some of `Cluster` left the state as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is live.
    Deployed(Arc<Deployment>),
    /// The same attempt was accepted before, as this deployment.
    Repeated(Arc<Deployment>),
    /// Somebody else deployed first.
    Conflict {
        /// The revision that is live.
        live_revision: Revision,
        /// What is live; nothing when the workspace has no deployment.
        live: Option<Arc<Deployment>>,
    },
    /// The idempotency key belongs to this deployment, which has other content.
    KeyReused(Arc<Deployment>),
    /// The revision to roll back to is not there, or its content no longer is.
    NoSuchRevision {
        /// The revision that was to be live again.
        to: Revision,
        /// The oldest revision whose content is kept.
        oldest_kept: Revision,
        /// The revision that is live.
        live_revision: Revision,
    },
    /// The rollback carries other content than this revision, which it names.
    RollbackDiffers(Arc<Deployment>),
    /// The log holds as many workspaces as it may.
    TooManyWorkspaces,
    /// The token is known.
    TokenIssued,
    /// The token is no longer honoured.
    TokenRevoked,
    /// No token has this id.
    NoSuchToken,
    /// Another token has this id.
    TokenIdTaken,
    /// The log holds as many tokens as it may.
    TooManyTokens,
    /// The secret is kept.
    SecretSet,
    /// The secret is forgotten.
    SecretRemoved,
    /// The workspace has no secret of this name.
    NoSuchSecret,
    /// The workspace, or the log, holds as many secrets as it may.
    TooManySecrets,
    /// The workspace is gone from the log. What shards keep of it goes next.
    WorkspaceDeleted {
        /// When, by whom, and at which revision.
        deletion: WorkspaceDeletion,
        /// What went with it.
        totals: DeletionTotals,
    },
    /// What became of a command about the cluster's nodes.
    Cluster(cluster::Outcome),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_ordered_and_read_back_as_they_are_written() {
        assert!(Role::Metrics < Role::Viewer && Role::Viewer < Role::Caller);
        assert!(Role::Caller < Role::Deployer && Role::Deployer < Role::Admin);
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        assert!("root".parse::<Role>().is_err());
    }
}
