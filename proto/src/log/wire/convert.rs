//! Between the log's types and the messages of the .proto file, one pair of functions for each type.

use std::sync::Arc;

use super::pb::{self, command, outcome};
use super::{DecodeError, field};
use crate::log::{
    Author, Command, Deploy, Deployment, Git, IssueToken, Kind, Outcome, Revocation, RevokeToken, Role, Token,
};
use crate::plan::{Change, Item, ItemChange};
use crate::{Digest, Revision, WorkspaceId};

impl From<&Command> for command::Body {
    fn from(command: &Command) -> Self {
        match command {
            Command::Deploy(deploy) => Self::Deploy(deploy.into()),
            Command::IssueToken(issue) => Self::IssueToken(issue.into()),
            Command::RevokeToken(RevokeToken { id, time_ms, actor }) => {
                Self::RevokeToken(pb::RevokeToken { id: id.clone(), time_ms: *time_ms, actor: actor.clone() })
            }
            Command::SetSecret(set) => Self::SetSecret(set.into()),
            Command::RemoveSecret(remove) => Self::RemoveSecret(remove.into()),
            Command::DeleteWorkspace(delete) => Self::DeleteWorkspace(delete.into()),
            Command::Cluster(command) => Self::Cluster(command.into()),
        }
    }
}

impl TryFrom<command::Body> for Command {
    type Error = DecodeError;
    fn try_from(body: command::Body) -> Result<Self, DecodeError> {
        Ok(match body {
            command::Body::Deploy(deploy) => Command::Deploy(deploy.try_into()?),
            command::Body::IssueToken(issue) => Command::IssueToken(issue.try_into()?),
            command::Body::RevokeToken(pb::RevokeToken { id, time_ms, actor }) => {
                Command::RevokeToken(RevokeToken { id, time_ms, actor })
            }
            command::Body::SetSecret(set) => Command::SetSecret(set.try_into()?),
            command::Body::RemoveSecret(remove) => Command::RemoveSecret(remove.try_into()?),
            command::Body::DeleteWorkspace(delete) => Command::DeleteWorkspace(delete.try_into()?),
            command::Body::Cluster(command) => Command::Cluster(command.try_into()?),
        })
    }
}

impl From<&Deploy> for pb::Deploy {
    fn from(deploy: &Deploy) -> Self {
        Self {
            workspace: deploy.workspace.to_string(),
            parent: deploy.parent.0,
            root: deploy.root.as_bytes().to_vec(),
            rollback_to: rollback_to(deploy.kind),
            author: Some((&deploy.author).into()),
            actor: deploy.actor.clone(),
            time_ms: deploy.time_ms,
            git: deploy.git.as_ref().map(Into::into),
            message: deploy.message.clone(),
            changes: deploy.changes.iter().map(Into::into).collect(),
            changes_total: deploy.changes_total,
            files: deploy.files,
            bytes: deploy.bytes,
            idempotency_key: deploy.idempotency_key.clone(),
            revisions_kept: deploy.revisions_kept,
        }
    }
}

impl TryFrom<pb::Deploy> for Deploy {
    type Error = DecodeError;
    fn try_from(deploy: pb::Deploy) -> Result<Self, DecodeError> {
        Ok(Self {
            workspace: workspace(deploy.workspace)?,
            parent: Revision(deploy.parent),
            root: digest(&deploy.root, "root")?,
            kind: kind(deploy.rollback_to),
            author: deploy.author.map(Into::into).unwrap_or_default(),
            actor: deploy.actor,
            time_ms: deploy.time_ms,
            git: deploy.git.map(Into::into),
            message: deploy.message,
            changes: deploy.changes.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            changes_total: deploy.changes_total,
            files: deploy.files,
            bytes: deploy.bytes,
            idempotency_key: deploy.idempotency_key,
            revisions_kept: deploy.revisions_kept,
        })
    }
}

impl From<&Deployment> for pb::Deployment {
    fn from(it: &Deployment) -> Self {
        let deploy = pb::Deploy {
            workspace: it.workspace.to_string(),
            parent: it.parent.0,
            root: it.root.as_bytes().to_vec(),
            rollback_to: rollback_to(it.kind),
            author: Some((&it.author).into()),
            actor: it.actor.clone(),
            time_ms: it.time_ms,
            git: it.git.as_ref().map(Into::into),
            message: it.message.clone(),
            changes: it.changes.iter().map(Into::into).collect(),
            changes_total: it.changes_total,
            files: it.files,
            bytes: it.bytes,
            idempotency_key: it.idempotency_key.clone(),
            // It has done its work once a command is a deployment.
            revisions_kept: 0,
        };
        Self { deploy: Some(deploy), revision: it.revision.0, index: it.index, kept: it.kept }
    }
}

impl TryFrom<pb::Deployment> for Deployment {
    type Error = DecodeError;
    fn try_from(it: pb::Deployment) -> Result<Self, DecodeError> {
        let deploy: Deploy = it.deploy.ok_or(field("deploy"))?.try_into()?;
        if it.revision == 0 {
            return Err(field("revision"));
        }
        Ok(Deployment { kept: it.kept, ..Deployment::accept(deploy, Revision(it.revision), it.index) })
    }
}

impl From<&IssueToken> for pb::IssueToken {
    fn from(issue: &IssueToken) -> Self {
        Self {
            id: issue.id.clone(),
            hash: issue.hash.as_bytes().to_vec(),
            subject: issue.subject.clone(),
            role: pb::Role::from(issue.role).into(),
            workspaces: issue.workspaces.iter().map(ToString::to_string).collect(),
            expires_ms: issue.expires_ms,
            time_ms: issue.time_ms,
            actor: issue.actor.clone(),
        }
    }
}

impl TryFrom<pb::IssueToken> for IssueToken {
    type Error = DecodeError;
    fn try_from(issue: pb::IssueToken) -> Result<Self, DecodeError> {
        Ok(Self {
            role: role(issue.role())?,
            id: issue.id,
            hash: digest(&issue.hash, "hash")?,
            subject: issue.subject,
            workspaces: issue.workspaces.into_iter().map(workspace).collect::<Result<_, _>>()?,
            expires_ms: issue.expires_ms,
            time_ms: issue.time_ms,
            actor: issue.actor,
        })
    }
}

impl From<&Token> for pb::Token {
    fn from(token: &Token) -> Self {
        Self {
            issued: Some((&token.issued).into()),
            revoked_ms: token.revoked.as_ref().map(|revoked| revoked.time_ms),
            revoked_by: token.revoked.as_ref().map(|revoked| revoked.actor.clone()).unwrap_or_default(),
        }
    }
}

impl TryFrom<pb::Token> for Token {
    type Error = DecodeError;
    fn try_from(token: pb::Token) -> Result<Self, DecodeError> {
        let issued = token.issued.ok_or(field("issued"))?.try_into()?;
        let actor = token.revoked_by;
        Ok(Self { issued, revoked: token.revoked_ms.map(|time_ms| Revocation { time_ms, actor }) })
    }
}

impl From<&Outcome> for outcome::Body {
    fn from(outcome: &Outcome) -> Self {
        let message = |deployment: &Arc<Deployment>| pb::Deployment::from(&**deployment);
        match outcome {
            Outcome::Deployed(it) => Self::Deployed(message(it)),
            Outcome::Repeated(it) => Self::Repeated(message(it)),
            Outcome::Conflict { live_revision, live } => {
                Self::Conflict(pb::Conflict { live_revision: live_revision.0, live: live.as_ref().map(message) })
            }
            Outcome::KeyReused(it) => Self::KeyReused(message(it)),
            Outcome::NoSuchRevision { to, oldest_kept, live_revision } => Self::NoSuchRevision(pb::NoSuchRevision {
                to: to.0,
                oldest_kept: oldest_kept.0,
                live_revision: live_revision.0,
            }),
            Outcome::RollbackDiffers(it) => Self::RollbackDiffers(message(it)),
            Outcome::TooManyWorkspaces => Self::TooManyWorkspaces(pb::Empty {}),
            Outcome::TokenIssued => Self::TokenIssued(pb::Empty {}),
            Outcome::TokenRevoked => Self::TokenRevoked(pb::Empty {}),
            Outcome::NoSuchToken => Self::NoSuchToken(pb::Empty {}),
            Outcome::TokenIdTaken => Self::TokenIdTaken(pb::Empty {}),
            Outcome::TooManyTokens => Self::TooManyTokens(pb::Empty {}),
            Outcome::SecretSet => Self::SecretSet(pb::Empty {}),
            Outcome::SecretRemoved => Self::SecretRemoved(pb::Empty {}),
            Outcome::NoSuchSecret => Self::NoSuchSecret(pb::Empty {}),
            Outcome::TooManySecrets => Self::TooManySecrets(pb::Empty {}),
            Outcome::WorkspaceDeleted { deletion, totals } => Self::WorkspaceDeleted((deletion, *totals).into()),
            Outcome::Cluster(outcome) => Self::Cluster((*outcome).into()),
        }
    }
}

impl TryFrom<outcome::Body> for Outcome {
    type Error = DecodeError;
    fn try_from(body: outcome::Body) -> Result<Self, DecodeError> {
        use outcome::Body;
        let read = |message: pb::Deployment| message.try_into().map(Arc::new);
        Ok(match body {
            Body::Deployed(it) => Self::Deployed(read(it)?),
            Body::Repeated(it) => Self::Repeated(read(it)?),
            Body::Conflict(pb::Conflict { live_revision, live }) => {
                Self::Conflict { live_revision: Revision(live_revision), live: live.map(read).transpose()? }
            }
            Body::KeyReused(it) => Self::KeyReused(read(it)?),
            Body::NoSuchRevision(pb::NoSuchRevision { to, oldest_kept, live_revision }) => Self::NoSuchRevision {
                to: Revision(to),
                oldest_kept: Revision(oldest_kept),
                live_revision: Revision(live_revision),
            },
            Body::RollbackDiffers(it) => Self::RollbackDiffers(read(it)?),
            Body::TooManyWorkspaces(pb::Empty {}) => Self::TooManyWorkspaces,
            Body::TokenIssued(pb::Empty {}) => Self::TokenIssued,
            Body::TokenRevoked(pb::Empty {}) => Self::TokenRevoked,
            Body::NoSuchToken(pb::Empty {}) => Self::NoSuchToken,
            Body::TokenIdTaken(pb::Empty {}) => Self::TokenIdTaken,
            Body::TooManyTokens(pb::Empty {}) => Self::TooManyTokens,
            Body::SecretSet(pb::Empty {}) => Self::SecretSet,
            Body::SecretRemoved(pb::Empty {}) => Self::SecretRemoved,
            Body::NoSuchSecret(pb::Empty {}) => Self::NoSuchSecret,
            Body::TooManySecrets(pb::Empty {}) => Self::TooManySecrets,
            Body::WorkspaceDeleted(deleted) => {
                let (deletion, totals) = deleted.try_into()?;
                Self::WorkspaceDeleted { deletion, totals }
            }
            Body::Cluster(outcome) => Self::Cluster(outcome.try_into()?),
        })
    }
}

impl From<&Author> for pb::Author {
    fn from(author: &Author) -> Self {
        Self { name: author.name.clone(), email: author.email.clone() }
    }
}

impl From<pb::Author> for Author {
    fn from(pb::Author { name, email }: pb::Author) -> Self {
        Self { name, email }
    }
}

impl From<&Git> for pb::Git {
    fn from(git: &Git) -> Self {
        Self { commit: git.commit.clone(), branch: git.branch.clone(), dirty: git.dirty }
    }
}

impl From<pb::Git> for Git {
    fn from(pb::Git { commit, branch, dirty }: pb::Git) -> Self {
        Self { commit, branch, dirty }
    }
}

impl From<&ItemChange> for pb::ItemChange {
    fn from(it: &ItemChange) -> Self {
        let (item, name) = match &it.item {
            Item::Agent(name) => (pb::Item::Agent, name),
            Item::Tool(name) => (pb::Item::Tool, name),
            Item::File(path) => (pb::Item::File, path),
        };
        let change = match it.change {
            Change::New => pb::Change::New,
            Change::Changed => pb::Change::Changed,
            Change::Removed => pb::Change::Removed,
        };
        Self { item: item.into(), name: name.clone(), change: change.into() }
    }
}

impl TryFrom<pb::ItemChange> for ItemChange {
    type Error = DecodeError;
    fn try_from(it: pb::ItemChange) -> Result<Self, DecodeError> {
        let change = match it.change() {
            pb::Change::Unspecified => return Err(field("change")),
            pb::Change::New => Change::New,
            pb::Change::Changed => Change::Changed,
            pb::Change::Removed => Change::Removed,
        };
        let item = match it.item() {
            pb::Item::Unspecified => return Err(field("item")),
            pb::Item::Agent => Item::Agent(it.name),
            pb::Item::Tool => Item::Tool(it.name),
            pb::Item::File => Item::File(it.name),
        };
        Ok(Self { item, change })
    }
}

impl From<Role> for pb::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Metrics => Self::Metrics,
            Role::Viewer => Self::Viewer,
            Role::Caller => Self::Caller,
            Role::Deployer => Self::Deployer,
            Role::Admin => Self::Admin,
        }
    }
}

fn role(role: pb::Role) -> Result<Role, DecodeError> {
    match role {
        pb::Role::Unspecified => Err(field("role")),
        pb::Role::Metrics => Ok(Role::Metrics),
        pb::Role::Viewer => Ok(Role::Viewer),
        pb::Role::Caller => Ok(Role::Caller),
        pb::Role::Deployer => Ok(Role::Deployer),
        pb::Role::Admin => Ok(Role::Admin),
    }
}

fn rollback_to(kind: Kind) -> Option<u64> {
    match kind {
        Kind::Deploy => None,
        Kind::Rollback { to } => Some(to.0),
    }
}

fn kind(rollback_to: Option<u64>) -> Kind {
    rollback_to.map_or(Kind::Deploy, |to| Kind::Rollback { to: Revision(to) })
}

pub(super) fn workspace(name: String) -> Result<WorkspaceId, DecodeError> {
    name.try_into().map_err(|_| field("workspace"))
}

pub(super) fn digest(bytes: &[u8], name: &'static str) -> Result<Digest, DecodeError> {
    Digest::try_from(bytes).map_err(|_| field(name))
}
