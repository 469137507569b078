//! The Ed25519 key that signs this cluster's tokens, and the JWTs that it signs (RFC 8037: `EdDSA`).

use std::path::{Path, PathBuf};

use caxton_proto::WorkspaceId;
use caxton_proto::log::Role;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde::{Deserialize, Serialize};

use crate::files::{FileError, read_or_create};

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the key's file cannot be read or made")]
    File(#[from] FileError),
    /// The file holds something else.
    #[error(
        "{path} does not hold an Ed25519 key in PKCS#8; put it back from a backup, or remove it, which makes all tokens invalid"
    )]
    NotAKey { path: PathBuf },
    /// There is none.
    #[error("there is no key to sign with")]
    NoKey,
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
pub(super) fn mint() -> Result<Vec<u8>, FileError> {
    let key = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new());
    key.map(|key| key.as_ref().to_vec()).map_err(|_| FileError::Random)
}

/// What a token is to say.
#[derive(Debug, Clone)]
pub struct Grant<'a> {
    /// The token's id, under which the deploy log knows it.
    pub id: &'a str,
    /// Who will use it.
    pub subject: &'a str,
    /// What it allows.
    pub role: Role,
    /// The workspaces that it is limited to; none for all.
    pub workspaces: &'a [WorkspaceId],
    /// When it is made, in seconds since 1970.
    pub issued_s: u64,
    /// When it ends, in seconds since 1970.
    pub expires_s: u64,
}

/// A key that signs tokens, and tells those that it signed.
pub struct SigningKey {
    cluster: String,
    signing: EncodingKey,
    verifying: DecodingKey,
    rules: Validation,
}

impl SigningKey {
    /// Reads the key of the folder `keys`, and makes it when there is none.
    pub(super) fn open(dir: &Path, cluster: &str) -> Result<SigningKey, KeyError> {
        let path = dir.join(TOKENS_KEY_FILE);
        let pkcs8 = read_or_create(&path, mint)?;
        SigningKey::of(&pkcs8, cluster).ok_or(KeyError::NotAKey { path })
    }

    /// Nothing when the bytes are no key.
    pub(super) fn of(pkcs8: &[u8], cluster: &str) -> Option<SigningKey> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).ok()?;
        let mut rules = Validation::new(Algorithm::EdDSA);
        // Not the issuer: a cluster that was restored under a new id has the same key, and its log the same tokens.
        rules.set_required_spec_claims(&["iss", "exp", "sub"]);
        // The deploy log says when a token ends, to the millisecond and the same on every node.
        rules.validate_exp = false;
        Some(SigningKey {
            cluster: cluster.to_owned(),
            signing: EncodingKey::from_ed_der(pkcs8),
            verifying: DecodingKey::from_ed_der(pair.public_key().as_ref()),
            rules,
        })
    }

    /// Signs a token.
    pub(super) fn sign(&self, grant: &Grant<'_>) -> Result<String, KeyError> {
        let claims = Claims {
            iss: self.cluster.clone(),
            jti: grant.id.to_owned(),
            sub: grant.subject.to_owned(),
            iat: grant.issued_s,
            exp: grant.expires_s,
            role: grant.role.to_string(),
            workspaces: grant.workspaces.to_vec(),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &self.signing).map_err(KeyError::Sign)
    }

    /// The id of a token that this cluster signed.
    pub(super) fn verify(&self, token: &str) -> Option<String> {
        let claims = jsonwebtoken::decode::<Claims>(token, &self.verifying, &self.rules).ok()?;
        Some(claims.claims.jti)
    }
}
