//! What a person is told whose token does not open what they want, or whose tokens and secrets were not changed.

use crate::app::secrets::SecretsError;
use crate::app::tokens::TokensError;
use crate::authn::AuthError;
use crate::authz::Denied;
use crate::edge::problem::{Code, Problem};

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Problem {
        Problem::new(Code::Unauthorized, error.to_string()).help(error.help())
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Problem {
        Problem::new(Code::Forbidden, denied.to_string())
            .help("use a token that allows it; an admin makes one with `caxton token create`")
    }
}

impl From<SecretsError> for Problem {
    fn from(error: SecretsError) -> Problem {
        let detail = error.to_string();
        match error {
            SecretsError::Read(error) => error.into(),
            SecretsError::Full(full) => full.into(),
            SecretsError::Propose(error) => error.into(),
            SecretsError::Seal(error) => Problem::internal(&error),
            SecretsError::TooMany => Problem::new(Code::TooManyRequests, detail)
                .help("remove those that nothing uses: `caxton secrets list` shows them"),
            SecretsError::None { .. } => {
                Problem::new(Code::NotFound, detail).help("`caxton secrets list` shows the names there are")
            }
            SecretsError::Unexpected => unexpected(detail),
        }
    }
}

impl From<TokensError> for Problem {
    fn from(error: TokensError) -> Problem {
        let detail = error.to_string();
        match error {
            TokensError::NoSubject => {
                Problem::new(Code::InvalidRequest, detail).help("say who or what will use it, as in `ci`")
            }
            TokensError::Ttl { .. } => Problem::new(Code::InvalidRequest, detail),
            TokensError::TooMany => Problem::new(Code::TooManyRequests, detail)
                .help("wait until some expire, or give new ones a shorter life"),
            TokensError::None => {
                Problem::new(Code::NotFound, detail).help("`caxton token list` shows the ids there are")
            }
            TokensError::Sign(error) => Problem::internal(&error),
            TokensError::Read(error) => error.into(),
            TokensError::Full(full) => full.into(),
            TokensError::Propose(error) => error.into(),
            TokensError::Unexpected => unexpected(detail),
        }
    }
}

/// What was wrong is in the log already.
fn unexpected(detail: String) -> Problem {
    Problem::new(Code::Internal, detail).help("look for the request id in the server's log")
}
