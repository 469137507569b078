//! Join tokens as people carry them: `caxton-join-1.ID.SECRET.PIN`. The pin is the digest of the public key of the
//! cluster's authority, so that a node shows the secret to nobody else.

use std::fmt;
use std::str::FromStr;

use caxton_proto::Digest;

use crate::files::{FileError, random};

/// What a join token begins with; the number is the version.
const PREFIX: &str = "caxton-join-1";
/// The bytes of a token's secret.
const SECRET_BYTES: usize = 32;
/// The bytes of a token's id.
const ID_BYTES: usize = 8;

/// A join token.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Names it; the log knows it by this.
    pub id: String,
    secret: [u8; SECRET_BYTES],
    /// The cluster's authority.
    pub pin: Digest,
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The text is no join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is no join token; one is printed by `caxton cluster token create`, begins with `{PREFIX}.` and is copied whole"
)]
pub struct InvalidJoinToken;

impl JoinToken {
    /// A new token for the cluster with this pin.
    pub fn mint(pin: Digest) -> Result<JoinToken, FileError> {
        Ok(JoinToken { id: hex::encode(random::<ID_BYTES>()?), secret: random()?, pin })
    }

    /// Whether a text could be a token's id.
    pub fn is_id(text: &str) -> bool {
        text.len() == 2 * ID_BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    }

    /// What a node shows.
    pub fn secret(&self) -> &[u8] {
        &self.secret
    }

    /// What the log holds of the secret.
    pub fn hash(&self) -> Digest {
        Digest::of(&self.secret)
    }

    /// The whole token, secret and all, to be printed once.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}.{}.{}.{}", self.id, hex::encode(self.secret), hex::encode(self.pin.as_bytes()))
    }
}

impl FromStr for JoinToken {
    type Err = InvalidJoinToken;
    fn from_str(text: &str) -> Result<JoinToken, InvalidJoinToken> {
        let mut parts = text.trim().split('.');
        let mut part = || parts.next().ok_or(InvalidJoinToken);
        let (prefix, id, secret, pin) = (part()?, part()?, part()?, part()?);
        let bytes = |text: &str| <[u8; 32]>::try_from(hex::decode(text).ok()?).ok();
        if prefix != PREFIX || !JoinToken::is_id(id) || parts.next().is_some() {
            return Err(InvalidJoinToken);
        }
        let (secret, pin) = (bytes(secret).ok_or(InvalidJoinToken)?, bytes(pin).ok_or(InvalidJoinToken)?);
        Ok(JoinToken { id: id.to_owned(), secret, pin: Digest::from_bytes(pin) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_and_does_not_show_its_secret_by_accident() {
        let token = JoinToken::mint(Digest::of(b"a key")).expect("random");
        let text = token.reveal();
        assert_eq!(format!("{text}\n").parse(), Ok(token.clone()));
        assert!(!format!("{token:?}").contains(&hex::encode(token.secret())));
        for bad in ["", "caxton-join-1", &text[1..], &text[..text.len() - 1], &format!("{text}.x")] {
            assert_eq!(bad.parse::<JoinToken>(), Err(InvalidJoinToken), "{bad}");
        }
    }
}
