//! The successor of the key that signs tokens, and of the admin token, while both are good.
//!
//! A node signs with the successor, and writes the new admin token into its data directory, only once every node knows
//! it: before that, a node that a token comes to might take it for a stranger's.

use caxton_proto::Digest;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, PoisonError};

use super::keys::{KeyError, Keys, TOKENS_KEY_FILE, mint};
use super::{ADMIN_TOKEN_FILE, Auth, Good, OpenError, SecretError, mint_admin, write_private};

/// How far a rotation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// This node knows the successor, and others may not.
    Known,
    /// All nodes know it.
    Everywhere,
    /// What was before is not good any more.
    Finished,
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

impl Auth {
    /// Makes successors.
    pub fn successor(&self) -> Result<SigningSuccession, OpenError> {
        let path = self.data_dir.join(ADMIN_TOKEN_FILE);
        let read = |source| SecretError::Io { path: path.clone(), what: "cannot be read", source };
        let before = std::fs::read_to_string(&path).map_err(|error| OpenError::AdminToken(read(error)))?;
        Ok(SigningSuccession {
            key: hex::encode(mint().map_err(KeyError::File)?),
            admin: mint_admin().map_err(OpenError::AdminToken)?,
            admin_before: Digest::of(before.trim().as_bytes()),
        })
    }

    /// Goes by the successors as far as the rotation has come. Blocks on the disk.
    pub fn succeed(&self, next: &SigningSuccession, stage: Stage) -> Result<(), OpenError> {
        let (dir, admin_path) = (self.data_dir.join("keys"), self.data_dir.join(ADMIN_TOKEN_FILE));
        let not_a_key = || KeyError::NotAKey { path: dir.join(TOKENS_KEY_FILE) };
        let key = hex::decode(&next.key).map_err(|_| not_a_key())?;
        let new = || Keys::of(&key, &self.cluster).ok_or_else(not_a_key);
        if stage == Stage::Finished && std::fs::read(dir.join(TOKENS_KEY_FILE)).ok().as_ref() != Some(&key) {
            write_private(&dir.join(TOKENS_KEY_FILE), &key).map_err(KeyError::File)?;
        }
        if stage != Stage::Known && std::fs::read_to_string(&admin_path).ok().as_ref() != Some(&next.admin) {
            write_private(&admin_path, next.admin.as_bytes()).map_err(OpenError::AdminToken)?;
        }
        let admin = Digest::of(next.admin.trim().as_bytes());
        let (admins, keys) = match stage {
            Stage::Known => (vec![admin, next.admin_before], vec![Keys::open(&dir, &self.cluster)?, new()?]),
            Stage::Everywhere => (vec![admin, next.admin_before], vec![new()?, Keys::open(&dir, &self.cluster)?]),
            Stage::Finished => (vec![admin], vec![new()?]),
        };
        *self.good.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Good { admins, keys });
        Ok(())
    }
}
