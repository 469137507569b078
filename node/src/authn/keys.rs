//! The Ed25519 key that signs this cluster's tokens, and the JWTs that it signs (RFC 8037: `EdDSA`).

use std::path::{Path, PathBuf};

use caxton_proto::WorkspaceId;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde::{Deserialize, Serialize};

use super::Wanted;
use super::secret::{SecretError, read_or_create};

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Its file.
    #[error("the key's file cannot be read or made")]
    File(#[from] SecretError),
    /// The file holds something else.
    #[error(
        "{path} does not hold an Ed25519 key in PKCS#8; put it back from a backup, or remove it, which makes all tokens invalid"
    )]
    NotAKey {
        /// The file.
        path: PathBuf,
    },
    /// There is none.
    #[error("there is no key to sign with")]
    NoKey,
    /// Signing failed.
    #[error("a token cannot be signed")]
    Sign(#[source] jsonwebtoken::errors::Error),
}

/// What a token says. The deploy log has the last word on all of it.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    jti: String,
    sub: String,
    iat: u64,
    exp: u64,
    role: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    workspaces: Vec<WorkspaceId>,
}

/// The file of the folder `keys` with the signing key.
pub(super) const TOKENS_KEY_FILE: &str = "tokens.key";

/// A new key, in PKCS#8.
pub(super) fn mint() -> Result<Vec<u8>, SecretError> {
    let key = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new());
    key.map(|key| key.as_ref().to_vec()).map_err(|_| SecretError::Random)
}

pub(super) struct Keys {
    cluster: String,
    signing: EncodingKey,
    verifying: DecodingKey,
    rules: Validation,
}

impl Keys {
    pub(super) fn open(dir: &Path, cluster: &str) -> Result<Keys, KeyError> {
        let path = dir.join(TOKENS_KEY_FILE);
        let pkcs8 = read_or_create(&path, mint)?;
        Keys::of(&pkcs8, cluster).ok_or(KeyError::NotAKey { path })
    }

    /// Nothing when the bytes are no key.
    pub(super) fn of(pkcs8: &[u8], cluster: &str) -> Option<Keys> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).ok()?;
        let mut rules = Validation::new(Algorithm::EdDSA);
        // Not the issuer: a cluster that was restored under a new id has the same key, and its log the same tokens.
        rules.set_required_spec_claims(&["iss", "exp", "sub"]);
        // The deploy log says when a token ends, to the millisecond and the same on every node.
        rules.validate_exp = false;
        Some(Keys {
            cluster: cluster.to_owned(),
            signing: EncodingKey::from_ed_der(pkcs8),
            verifying: DecodingKey::from_ed_der(pair.public_key().as_ref()),
            rules,
        })
    }

    pub(super) fn sign(&self, id: &str, wanted: &Wanted, iat: u64, exp: u64) -> Result<String, KeyError> {
        let claims = Claims {
            iss: self.cluster.clone(),
            jti: id.to_owned(),
            sub: wanted.subject.clone(),
            iat,
            exp,
            role: wanted.role.to_string(),
            workspaces: wanted.workspaces.clone(),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &self.signing).map_err(KeyError::Sign)
    }

    /// The id of a token that this cluster signed.
    pub(super) fn verify(&self, token: &str) -> Option<String> {
        let claims = jsonwebtoken::decode::<Claims>(token, &self.verifying, &self.rules).ok()?;
        Some(claims.claims.jti)
    }
}
