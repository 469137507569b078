//! What bearers are checked against: the admin token and the keys that sign tokens, with their successors while both are
//! good.
//!
//! A node signs with the successor, and writes the new admin token into its data directory, only once every node knows
//! it: before that, a node that a token comes to might take it for a stranger's.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use caxton_proto::Digest;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::Stage;
use super::signing::{Grant, KeyError, SigningKey, TOKENS_KEY_FILE, mint};
use crate::files::{FileError, random, read_or_create, write_private};

/// The file of the data directory that holds the admin token.
pub const ADMIN_TOKEN_FILE: &str = "admin-token";
/// An admin token has at least so many bytes.
const ADMIN_TOKEN_BYTES_MIN: usize = 32;
/// Of so many tokens it is remembered that their signature is good. Beyond that all are forgotten and checked again.
const VERIFIED_MAX: usize = 4_096;

/// What bearers are checked against could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The admin token's file.
    #[error("the admin token cannot be read or made")]
    AdminToken(#[source] FileError),
    /// The admin token's file has something else in it.
    #[error("{path} does not hold an admin token; remove it, and the node makes a new one")]
    NotAToken { path: PathBuf },
    /// The signing key's file.
    #[error("the signing key cannot be read or made")]
    Key(#[from] KeyError),
}

/// What bearers are checked against.
pub struct BearerKeys {
    /// The digests of the admin tokens: two while they are rotated.
    admins: Vec<Digest>,
    /// The keys that tokens may be signed with; the first signs.
    signing: Vec<SigningKey>,
    /// The ids of tokens whose signature was checked, by the digest of the whole token: a client sends the same one with every
    /// request, and checking it costs more than the rest of a small request. Other keys are other `BearerKeys`, which know none.
    verified: Mutex<HashMap<Digest, Arc<str>>>,
}

impl BearerKeys {
    fn new(admins: Vec<Digest>, signing: Vec<SigningKey>) -> BearerKeys {
        BearerKeys { admins, signing, verified: Mutex::default() }
    }

    /// Reads the admin token and the signing key of a data directory, and makes them when there are none.
    pub fn open(data_dir: &Path, cluster: &str) -> Result<BearerKeys, OpenError> {
        let path = data_dir.join(ADMIN_TOKEN_FILE);
        let bytes = read_or_create(&path, || Ok(mint_admin()?.into_bytes())).map_err(OpenError::AdminToken)?;
        let token = std::str::from_utf8(&bytes).map(str::trim).unwrap_or_default();
        if token.len() < ADMIN_TOKEN_BYTES_MIN || token.contains(char::is_whitespace) {
            return Err(OpenError::NotAToken { path });
        }
        let signing = SigningKey::open(&data_dir.join("keys"), cluster)?;
        Ok(BearerKeys::new(vec![Digest::of(token.as_bytes())], vec![signing]))
    }

    /// Whether this is the digest of an admin token.
    pub fn is_admin(&self, digest: &Digest) -> bool {
        // All of them are compared, whichever it is.
        self.admins.iter().fold(false, |found, admin| found | bool::from(digest.as_bytes().ct_eq(admin.as_bytes())))
    }

    /// The id of a token that this cluster signed; `digest` is the token's.
    pub fn verify(&self, digest: &Digest, bearer: &str) -> Option<Arc<str>> {
        let known = || self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = known().get(digest) {
            return Some(Arc::clone(id));
        }
        let id: Arc<str> = self.signing.iter().find_map(|key| key.verify(bearer))?.into();
        let mut known = known();
        if known.len() >= VERIFIED_MAX {
            known.clear();
        }
        known.insert(*digest, Arc::clone(&id));
        Some(id)
    }

    /// Signs a token.
    pub fn sign(&self, grant: &Grant<'_>) -> Result<String, KeyError> {
        self.signing.first().ok_or(KeyError::NoKey)?.sign(grant)
    }
}

/// A new signing key and a new admin token.
#[derive(Clone, Serialize, Deserialize)]
pub struct SigningSuccession {
    /// In PKCS#8, in hexadecimal digits.
    key: String,
    admin: String,
    /// The digest of the admin token before.
    admin_before: Digest,
}

impl SigningSuccession {
    /// Makes successors of what a data directory holds.
    pub fn of(data_dir: &Path) -> Result<SigningSuccession, OpenError> {
        let path = data_dir.join(ADMIN_TOKEN_FILE);
        let read = |source| FileError::Io { path: path.clone(), what: "cannot be read", source };
        let before = fs::read_to_string(&path).map_err(|error| OpenError::AdminToken(read(error)))?;
        Ok(SigningSuccession {
            key: hex::encode(mint().map_err(KeyError::File)?),
            admin: mint_admin().map_err(OpenError::AdminToken)?,
            admin_before: Digest::of(before.trim().as_bytes()),
        })
    }

    /// Writes into a data directory what the rotation's stage asks for, and says what bearers are checked against from now
    /// on. Blocks on the disk.
    pub fn follow(&self, data_dir: &Path, cluster: &str, stage: Stage) -> Result<BearerKeys, OpenError> {
        let (dir, admin_path) = (data_dir.join("keys"), data_dir.join(ADMIN_TOKEN_FILE));
        let not_a_key = || KeyError::NotAKey { path: dir.join(TOKENS_KEY_FILE) };
        let key = hex::decode(&self.key).map_err(|_| not_a_key())?;
        let new = || SigningKey::of(&key, cluster).ok_or_else(not_a_key);
        if stage == Stage::Finished && fs::read(dir.join(TOKENS_KEY_FILE)).ok().as_ref() != Some(&key) {
            write_private(&dir.join(TOKENS_KEY_FILE), &key).map_err(KeyError::File)?;
        }
        if stage != Stage::Known && fs::read_to_string(&admin_path).ok().as_ref() != Some(&self.admin) {
            write_private(&admin_path, self.admin.as_bytes()).map_err(OpenError::AdminToken)?;
        }
        let admin = Digest::of(self.admin.trim().as_bytes());
        let (admins, signing) = match stage {
            Stage::Known => (vec![admin, self.admin_before], vec![SigningKey::open(&dir, cluster)?, new()?]),
            Stage::Everywhere => (vec![admin, self.admin_before], vec![new()?, SigningKey::open(&dir, cluster)?]),
            Stage::Finished => (vec![admin], vec![new()?]),
        };
        Ok(BearerKeys::new(admins, signing))
    }
}

pub(super) fn mint_admin() -> Result<String, FileError> {
    Ok(format!("caxton_admin_{}\n", hex::encode(random::<32>()?)))
}

#[cfg(test)]
mod tests {
    use caxton_proto::log::Role;

    use super::*;

    fn signed(keys: &BearerKeys, id: &str) -> String {
        let grant = Grant { id, subject: "ada", role: Role::Viewer, workspaces: &[], issued_s: 1, expires_s: 2 };
        keys.sign(&grant).expect("signs")
    }

    #[test]
    fn what_was_verified_once_is_known_by_all_of_its_bytes_and_to_these_keys_alone() {
        let dirs = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
        let [keys, others] = dirs.each_ref().map(|dir| BearerKeys::open(dir.path(), "c").expect("opens"));
        let token = signed(&keys, "one");
        let verify = |keys: &BearerKeys, token: &str| keys.verify(&Digest::of(token.as_bytes()), token);
        for _ in 0..2 {
            assert_eq!(verify(&keys, &token).as_deref(), Some("one"));
            assert_eq!(verify(&others, &token), None);
        }
        for at in 0..token.len() {
            let mut forged = token.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).expect("still text");
            // The last character's unused bits may be other ones and the bytes the same.
            let accepted = verify(&keys, &forged);
            assert!(accepted.is_none() || at == token.len() - 1, "{at}: {accepted:?}");
        }
    }

    #[test]
    fn no_more_are_remembered_than_may_be() {
        let dir = tempfile::tempdir().expect("a folder");
        let keys = BearerKeys::open(dir.path(), "c").expect("opens");
        for number in 0..VERIFIED_MAX + 10 {
            let token = signed(&keys, &number.to_string());
            assert_eq!(keys.verify(&Digest::of(token.as_bytes()), &token).as_deref(), Some(&*number.to_string()));
        }
        assert_eq!(keys.verified.lock().expect("free").len(), 10);
    }
}
