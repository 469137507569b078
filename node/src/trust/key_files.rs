//! The keys that every node of a cluster holds: whoever is let in gets them, because any node may come to lead, and then
//! lets nodes in, signs tokens, certifies and opens secrets by itself.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use caxton_gossip::Key;

use super::bearer::{ADMIN_TOKEN_FILE, mint_admin};
use super::signing::{TOKENS_KEY_FILE, mint};
use crate::files::{FileError, random, read_or_create, write_private};

/// The key that gossip is sealed with.
pub const GOSSIP_KEY_FILE: &str = "keys/gossip.key";
/// The keys that secrets are sealed with.
pub const DATA_KEY_FILE: &str = "keys/data.key";
/// The files, relative to the data directory. No other file is taken from a peer.
pub const FILES: [&str; 6] =
    ["tls/ca.key", "tls/ca.pem", "keys/tokens.key", GOSSIP_KEY_FILE, DATA_KEY_FILE, ADMIN_TOKEN_FILE];
/// Files that are there after a rotation of the authority, or while there is one.
pub const LATER_FILES: [&str; 2] = ["tls/ca-born.pin", "tls/succession.json"];
/// The largest of them, in bytes.
const FILE_BYTES_MAX: usize = 64 << 10;

/// Why the keys could not be taken over.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The cluster did not send all.
    #[error("the cluster did not send {file}, or sent something else")]
    Missing { file: &'static str },
    #[error("the cluster's keys cannot be written down")]
    File(#[from] FileError),
}

/// Reads all keys of a data directory.
pub fn collect(dir: &Path) -> std::io::Result<BTreeMap<String, Bytes>> {
    let later = LATER_FILES.into_iter().filter(|file| dir.join(file).exists());
    let all = FILES.into_iter().chain(later);
    all.map(|file| Ok((file.to_owned(), Bytes::from(std::fs::read(dir.join(file))?)))).collect()
}

/// The first file of those that a node with a log has to have, and that is missing: drawn anew it would be another key, which
/// opens nothing of what is there and which no other node knows.
pub fn lost(dir: &Path) -> Option<PathBuf> {
    // A node that stood alone since it began never gossiped.
    let needed = FILES.into_iter().filter(|file| *file != GOSSIP_KEY_FILE);
    needed.map(|file| dir.join(file)).find(|path| !path.exists())
}

/// Draws the keys that sign, of a node that has none, before its log begins: from then on they are never drawn again.
pub fn draw(dir: &Path) -> Result<(), FileError> {
    read_or_create(&dir.join("keys").join(TOKENS_KEY_FILE), mint)?;
    read_or_create(&dir.join(ADMIN_TOKEN_FILE), || Ok(mint_admin()?.into_bytes())).map(drop)
}

/// Reads the keys that a backup carries. A node that stands alone and never gossiped has no key for that yet.
pub fn collect_for_backup(dir: &Path) -> Result<BTreeMap<String, Bytes>, FileError> {
    gossip(dir)?;
    collect(dir).map_err(|source| FileError::Io { path: dir.to_owned(), what: "lacks a key", source })
}

/// Writes the keys of a cluster that has let this node in.
pub fn adopt(dir: &Path, keys: &HashMap<String, Bytes>) -> Result<(), KeysError> {
    for file in FILES {
        let bytes = keys.get(file).filter(|bytes| (1..=FILE_BYTES_MAX).contains(&bytes.len()));
        write_private(&dir.join(file), bytes.ok_or(KeysError::Missing { file })?)?;
    }
    for file in LATER_FILES {
        if let Some(bytes) = keys.get(file).filter(|bytes| (1..=FILE_BYTES_MAX).contains(&bytes.len())) {
            write_private(&dir.join(file), bytes)?;
        }
    }
    Ok(())
}

/// The key that gossip is sealed with; the founder of a cluster makes it.
pub fn gossip(dir: &Path) -> Result<Key, FileError> {
    let path = dir.join(GOSSIP_KEY_FILE);
    let bytes = read_or_create(&path, || Ok(random::<32>()?.to_vec()))?;
    let what = "does not hold a key of 32 bytes; put it back from another node's data directory";
    let damaged = || FileError::Io { path, what, source: std::io::ErrorKind::InvalidData.into() };
    Ok(Key(bytes.try_into().map_err(|_| damaged())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_known_files_are_taken_and_all_of_them_are_needed() {
        let (one, two) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        for file in FILES {
            write_private(&one.path().join(file), file.as_bytes()).expect("written");
        }
        let mut keys: HashMap<_, _> = collect(one.path()).expect("all are there").into_iter().collect();
        keys.insert("../evil".to_owned(), Bytes::from_static(b"x"));
        adopt(two.path(), &keys).expect("taken");
        assert_eq!(collect(two.path()).expect("all are there"), collect(one.path()).expect("all are there"));
        assert!(!two.path().join("../evil").exists());
        keys.remove("keys/tokens.key");
        assert!(matches!(adopt(two.path(), &keys), Err(KeysError::Missing { file: "keys/tokens.key" })));
    }
}
