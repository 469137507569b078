//! Tokens of clients: made, listed and revoked by admins of the whole cluster.

use std::sync::Arc;
use std::time::Duration;

use caxton_proto::WorkspaceId;
use caxton_proto::log::{Command, Outcome, RevokeToken, Role, TEXT_BYTES_MAX, Token};
use caxton_raft::ReadError;
use caxton_raft::deploy_log::{DeployLog, ProposeError};
use tracing::info;

use crate::artifacts::{DiskFull, Space};
use crate::authn::{Auth, TokenDraft};
use crate::authz::{ClusterPermit, ManageTokens};
use crate::config;
use crate::time::now_ms;
use crate::trust::signing::KeyError;

/// The shortest life that a token can be given.
const TTL_MIN: Duration = Duration::from_secs(1);

/// A token to be made.
#[derive(Debug)]
pub struct TokenOrder {
    /// Who will use it.
    pub subject: String,
    /// The role that it has.
    pub role: Role,
    /// The workspaces that it is for; none for all of them.
    pub workspaces: Vec<WorkspaceId>,
    /// How long it is good; none for `tokens.ttl`.
    pub ttl: Option<Duration>,
}

/// Why a token was not made, listed or revoked.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// Nobody is said to use it.
    #[error("the token has no subject")]
    NoSubject,
    /// It would live too long, or not at all.
    #[error("a token can live for 1 to {max_s} seconds (`tokens.ttl_max`), and {asked_s} were asked for")]
    Ttl {
        /// Seconds that were asked for.
        asked_s: u64,
        /// Seconds that are the most.
        max_s: u64,
    },
    /// The cluster has as many tokens as it may have.
    #[error("there are as many tokens as there may be")]
    TooMany,
    /// The disk has too little space for new work.
    #[error(transparent)]
    Full(#[from] DiskFull),
    /// There is no token of this id.
    #[error("there is no token with this id")]
    None,
    /// The token could not be signed.
    #[error("the token cannot be signed")]
    Sign(#[from] KeyError),
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The log did not take the change.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// The log answered something that does not fit: a defect.
    #[error("the log answered something else")]
    Unexpected,
}

/// The tokens of the cluster.
pub struct Tokens {
    auth: Arc<Auth>,
    log: DeployLog,
    limits: config::Tokens,
    space: Space,
}

impl Tokens {
    /// Tokens that `auth` signs and `log` keeps, on a disk with this space.
    pub fn new(auth: Arc<Auth>, log: DeployLog, limits: config::Tokens, space: Space) -> Tokens {
        Tokens { auth, log, limits, space }
    }

    /// Makes a token. What is given first is the only copy of what opens anything.
    pub async fn create(
        &self,
        permit: &ClusterPermit<ManageTokens>,
        order: TokenOrder,
    ) -> Result<(String, Token), TokensError> {
        let subject = order.subject.trim().to_owned();
        if subject.is_empty() {
            return Err(TokensError::NoSubject);
        }
        let ttl = order.ttl.unwrap_or(self.limits.ttl);
        if ttl < TTL_MIN || ttl > self.limits.ttl_max {
            return Err(TokensError::Ttl { asked_s: ttl.as_secs(), max_s: self.limits.ttl_max.as_secs() });
        }
        self.space.check(0)?;
        let actor = permit.subject();
        let wanted =
            TokenDraft { subject, role: order.role, workspaces: order.workspaces, ttl, actor: actor.to_owned() };
        let (token, issued) = self.auth.mint(wanted, now_ms())?;
        match self.log.propose(&Command::IssueToken(issued.clone())).await?.outcome {
            Outcome::TokenIssued => {
                info!(id = issued.id, subject = issued.subject, role = %issued.role, actor, "token issued");
                Ok((token, Token { issued, revoked: None }))
            }
            Outcome::TooManyTokens => Err(TokensError::TooMany),
            other => Err(unexpected(&other)),
        }
    }

    /// The tokens that have not expired, the newest first.
    pub async fn list(&self, _permit: &ClusterPermit<ManageTokens>) -> Result<Vec<Token>, TokensError> {
        let now = now_ms();
        let alive = |token: &&Token| token.issued.expires_ms == 0 || now < token.issued.expires_ms;
        let tokens = self.log.current(|state| state.tokens().filter(alive).cloned().collect());
        let mut tokens: Vec<Token> = tokens.await?;
        tokens.sort_by(|a, b| (b.issued.time_ms, &b.issued.id).cmp(&(a.issued.time_ms, &a.issued.id)));
        Ok(tokens)
    }

    /// Revokes a token: it opens nothing from now on, and streams that it opened end.
    pub async fn revoke(&self, permit: &ClusterPermit<ManageTokens>, id: &str) -> Result<Token, TokensError> {
        if id.is_empty() || id.len() > TEXT_BYTES_MAX {
            return Err(TokensError::None);
        }
        let actor = permit.subject();
        let command = RevokeToken { id: id.to_owned(), time_ms: now_ms(), actor: actor.to_owned() };
        match self.log.propose(&Command::RevokeToken(command)).await?.outcome {
            Outcome::TokenRevoked => {
                info!(id, actor, "token revoked");
                self.log.read(|state| state.token(id).cloned()).ok_or(TokensError::None)
            }
            Outcome::NoSuchToken => Err(TokensError::None),
            other => Err(unexpected(&other)),
        }
    }
}

fn unexpected(outcome: &Outcome) -> TokensError {
    tracing::error!(?outcome, "the log answered a token's command with something else");
    TokensError::Unexpected
}
