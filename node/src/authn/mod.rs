//! Who is asking. Only this module makes an [`Access`]; what one may do is the matter of [`authz`](crate::authz).
//!
//! A bearer is either the admin token of the data directory, or a JWT that this cluster signed *and* that the deploy
//! log holds: a signature alone opens nothing, so that revoking works at once.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use caxton_proto::log::{IssueToken, Role, Token};
use caxton_proto::{Digest, WorkspaceId};
use subtle::ConstantTimeEq;

pub use crate::time::now_ms;
use crate::trust::Stage;
use crate::trust::bearer::{BearerKeys, OpenError, SigningSuccession};
use crate::trust::signing::{Grant, KeyError};

/// The subject of the admin token.
pub const ADMIN_SUBJECT: &str = "admin";
/// A bearer longer than this is refused unread, in bytes.
pub const BEARER_BYTES_MAX: usize = 4096;

/// Whose token a request carries, with the role and the workspaces that it is for. A value of this type is the proof that
/// the bearer was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    subject: Arc<str>,
    role: Role,
    /// Nothing stands for every workspace.
    workspaces: Option<Arc<[WorkspaceId]>>,
    /// Nothing for the admin token, which neither expires nor can be revoked.
    token: Option<Arc<str>>,
    expires_ms: Option<u64>,
    bearer: Bearer,
}

/// What was shown, to be looked at again after a rotation of keys. It is never printed.
#[derive(Clone, PartialEq, Eq)]
struct Bearer(Arc<str>);

impl std::fmt::Debug for Bearer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bearer(..)")
    }
}

impl Access {
    /// Whose token it is.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// What it allows.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether the workspace is one of its own.
    pub fn may(&self, workspace: &WorkspaceId) -> bool {
        self.workspaces.as_ref().is_none_or(|own| own.contains(workspace))
    }

    /// The workspaces that it is limited to; nothing stands for every one.
    pub fn workspaces(&self) -> Option<&[WorkspaceId]> {
        self.workspaces.as_deref()
    }

    /// What a message carries on with that was taken in under a permit: whoever it came from may have agents of its workspace
    /// answer it, also once their token is gone. It allows what a caller may do there and nothing more.
    pub fn of_message(subject: &str, workspace: &WorkspaceId) -> Access {
        Access {
            subject: subject.into(),
            role: Role::Caller,
            workspaces: Some([workspace.clone()].into()),
            token: None,
            expires_ms: None,
            bearer: Bearer("".into()),
        }
    }

    /// An access for a unit test of another module.
    #[cfg(test)]
    pub fn for_test(subject: &str, role: Role, workspaces: Option<&[&str]>) -> Access {
        let names = |names: &[&str]| names.iter().map(|name| name.parse().expect("a name")).collect();
        Access {
            subject: subject.into(),
            role,
            workspaces: workspaces.map(names),
            token: None,
            expires_ms: None,
            bearer: Bearer("".into()),
        }
    }
}

/// Why a bearer is not let in. Says nothing that helps to guess, and never holds the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// There is none.
    #[error("the request carries no token")]
    Missing,
    /// It is not the admin token, and no JWT of this cluster.
    #[error("the token is not valid here")]
    Invalid,
    /// It was good once.
    #[error("the token has expired")]
    Expired,
    /// Somebody took it back.
    #[error("the token was revoked")]
    Revoked,
}

impl AuthError {
    /// What to do.
    pub fn help(self) -> &'static str {
        match self {
            AuthError::Missing => {
                "send `Authorization: Bearer TOKEN`; the command line reads CAXTON_TOKEN, --token-file, or the admin-token file of the node's data directory"
            }
            AuthError::Invalid => {
                "check that the token belongs to this server; the node's own is in the file admin-token of its data directory"
            }
            AuthError::Expired | AuthError::Revoked => "ask an admin for a new one: `caxton token create`",
        }
    }
}

/// The tokens that the deploy log holds.
pub trait KnownTokens: Send + Sync + 'static {
    /// The one with this id.
    fn token(&self, id: &str) -> Option<Token>;
}

/// Checks bearers and signs tokens.
pub struct Auth {
    data_dir: PathBuf,
    cluster: String,
    good: RwLock<Arc<BearerKeys>>,
    known: Box<dyn KnownTokens>,
}

impl Auth {
    /// Reads the admin token and the signing key of a data directory, and makes them when there are none.
    pub fn open(data_dir: &Path, cluster: &str, known: impl KnownTokens) -> Result<Auth, OpenError> {
        let good = BearerKeys::open(data_dir, cluster)?;
        let (data_dir, cluster) = (data_dir.to_owned(), cluster.to_owned());
        Ok(Auth { data_dir, cluster, good: RwLock::new(Arc::new(good)), known: Box::new(known) })
    }

    fn good(&self) -> Arc<BearerKeys> {
        self.good.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes successors of the signing key and of the admin token.
    pub fn successor(&self) -> Result<SigningSuccession, OpenError> {
        SigningSuccession::of(&self.data_dir)
    }

    /// Goes by the successors as far as the rotation has come. Blocks on the disk.
    pub fn succeed(&self, next: &SigningSuccession, stage: Stage) -> Result<(), OpenError> {
        let good = next.follow(&self.data_dir, &self.cluster, stage)?;
        *self.good.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(good);
        Ok(())
    }

    /// Checks the value of an `Authorization` header at the time `now_ms`.
    pub fn authenticate(&self, header: Option<&str>, now_ms: u64) -> Result<Access, AuthError> {
        let header = header.ok_or(AuthError::Missing)?;
        let (scheme, bearer) = header.split_once(' ').ok_or(AuthError::Missing)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(AuthError::Missing);
        }
        self.check(bearer.trim(), now_ms)
    }

    /// Whether this cluster made the bearer of an `Authorization` header. What it allows, and whether it still does, is
    /// not asked: the node that answers the request knows that best.
    pub fn vouches_for(&self, header: Option<&str>) -> bool {
        let Some((scheme, bearer)) = header.and_then(|header| header.split_once(' ')) else { return false };
        let bearer = bearer.trim();
        if !scheme.eq_ignore_ascii_case("bearer") || bearer.len() > BEARER_BYTES_MAX {
            return false;
        }
        let (known, digest) = (self.good(), Digest::of(bearer.as_bytes()));
        known.is_admin(&digest) || known.verify(&digest, bearer).is_some()
    }

    fn check(&self, bearer: &str, now_ms: u64) -> Result<Access, AuthError> {
        if bearer.len() > BEARER_BYTES_MAX {
            return Err(AuthError::Invalid);
        }
        // Both sides are digests, so neither the time nor the length tells how much of a guess was right.
        let (digest, shown) = (Digest::of(bearer.as_bytes()), Bearer(bearer.into()));
        let known = self.good();
        if known.is_admin(&digest) {
            let (subject, bearer) = (ADMIN_SUBJECT.into(), shown);
            return Ok(Access { subject, role: Role::Admin, workspaces: None, token: None, expires_ms: None, bearer });
        }
        let id = known.verify(&digest, bearer).ok_or(AuthError::Invalid)?;
        let token = self.known.token(&id).ok_or(AuthError::Invalid)?;
        if !same(&digest, &token.issued.hash) {
            return Err(AuthError::Invalid);
        }
        good(&token, now_ms)?;
        let Token { issued, revoked: _ } = token;
        let workspaces = if issued.workspaces.is_empty() { None } else { Some(issued.workspaces.into()) };
        Ok(Access {
            subject: issued.subject.into(),
            role: issued.role,
            workspaces,
            token: Some(id),
            expires_ms: Some(issued.expires_ms).filter(|ms| *ms != 0),
            bearer: shown,
        })
    }

    /// Whether an access that was given earlier still stands: long streams ask again and again. One by a key that was taken out
    /// of use does not.
    pub fn still(&self, access: &Access, now_ms: u64) -> Result<(), AuthError> {
        let (known, bearer) = (self.good(), &*access.bearer.0);
        let Some(id) = &access.token else {
            return if known.is_admin(&Digest::of(bearer.as_bytes())) { Ok(()) } else { Err(AuthError::Revoked) };
        };
        if known.verify(&Digest::of(bearer.as_bytes()), bearer).is_none() {
            return Err(AuthError::Revoked);
        }
        let token = self.known.token(id).ok_or(AuthError::Revoked)?;
        // A workspace that was deleted went off the list: one that is made again under its name is another one.
        if token.issued.workspaces[..] != *access.workspaces().unwrap_or_default() {
            return Err(AuthError::Revoked);
        }
        good(&token, now_ms)
    }

    /// How long an access stands if nobody revokes it; nothing for ever.
    pub fn remaining(&self, access: &Access, now_ms: u64) -> Option<Duration> {
        access.expires_ms.map(|expires| Duration::from_millis(expires.saturating_sub(now_ms)))
    }

    /// Signs a token. It opens nothing before the deploy log holds the command that comes with it.
    pub fn mint(&self, wanted: TokenDraft, now_ms: u64) -> Result<(String, IssueToken), KeyError> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let expires_ms = now_ms.saturating_add(wanted.ttl.as_millis() as u64);
        let grant = Grant {
            id: &id,
            subject: &wanted.subject,
            role: wanted.role,
            workspaces: &wanted.workspaces,
            issued_s: now_ms / 1000,
            expires_s: expires_ms / 1000,
        };
        let token = self.good().sign(&grant)?;
        let command = IssueToken {
            id,
            hash: Digest::of(token.as_bytes()),
            subject: wanted.subject,
            role: wanted.role,
            workspaces: wanted.workspaces,
            expires_ms,
            time_ms: now_ms,
            actor: wanted.actor,
        };
        Ok((token, command))
    }
}

/// A token to be made.
#[derive(Debug, Clone)]
pub struct TokenDraft {
    /// Who will use it.
    pub subject: String,
    /// What it allows.
    pub role: Role,
    /// Where; none for everywhere.
    pub workspaces: Vec<WorkspaceId>,
    /// For how long.
    pub ttl: Duration,
    /// Who makes it.
    pub actor: String,
}

fn same(a: &Digest, b: &Digest) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

fn good(token: &Token, now_ms: u64) -> Result<(), AuthError> {
    if token.revoked.is_some() {
        return Err(AuthError::Revoked);
    }
    if token.is_good(now_ms) { Ok(()) } else { Err(AuthError::Expired) }
}

#[cfg(test)]
mod tests;
