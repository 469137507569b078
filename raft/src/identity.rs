//! Who a node is: minted once per data directory and never again, because a node that forgot its votes and came back
//! under its old id could elect a second leader. A wiped disk is a new node.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use caxton_proto::NodeId;
use uuid::Uuid;

/// The file's name in the data directory.
pub const IDENTITY_FILE: &str = "identity";

const FORMAT: &str = "caxton-identity 1";

/// Who a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIdentity {
    /// The node.
    pub node: NodeId,
    /// The cluster that it belongs to; the first node of a cluster mints it.
    pub cluster: Uuid,
}

/// Why a node does not know who it is.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read.
    #[error("cannot read the node's identity in {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write the node's identity to {}", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file is not what this crate wrote.
    #[error(
        "the node's identity in {} is damaged; restore that file from a backup (never write one by hand: a node that \
         takes another's id can lose acknowledged data), or move the whole data directory away to start as a new node",
        file.display()
    )]
    Damaged {
        /// The file.
        file: PathBuf,
    },
}

/// The identity of the node whose data directory is `dir`: read, or minted when there is none yet.
pub fn identity(dir: &Path) -> Result<NodeIdentity, IdentityError> {
    let file = dir.join(IDENTITY_FILE);
    match fs::read(&file) {
        Ok(bytes) => decode(&bytes).ok_or(IdentityError::Damaged { file }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let minted = NodeIdentity { node: mint(), cluster: Uuid::new_v4() };
            write(dir, &file, &minted).map_err(|source| IdentityError::Write { file, source })?;
            Ok(minted)
        }
        Err(source) => Err(IdentityError::Read { file, source }),
    }
}

/// A random id that is not 0, which would read as "no node".
fn mint() -> NodeId {
    let (high, low) = Uuid::new_v4().as_u64_pair();
    NodeId((high ^ low).max(1))
}

fn encode(identity: &NodeIdentity) -> String {
    let text = format!("{FORMAT}\nnode {:016x}\ncluster {}\n", identity.node.0, identity.cluster);
    let sum = crc32fast::hash(text.as_bytes());
    format!("{text}crc32 {sum:08x}\n")
}

fn decode(bytes: &[u8]) -> Option<NodeIdentity> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.lines().skip(1);
    let node = NodeId(u64::from_str_radix(lines.next()?.strip_prefix("node ")?, 16).ok()?);
    let cluster = lines.next()?.strip_prefix("cluster ")?.parse().ok()?;
    let identity = NodeIdentity { node, cluster };
    // Comparing with what would be written checks the format, the checksum and that nothing follows.
    (encode(&identity) == text).then_some(identity)
}

fn write(dir: &Path, file: &Path, identity: &NodeIdentity) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let temporary = file.with_extension("tmp");
    let mut out = File::create(&temporary)?;
    out.write_all(encode(identity).as_bytes())?;
    out.sync_all()?;
    fs::rename(&temporary, file)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_minted_once() {
        let dir = tempfile::tempdir().unwrap();
        let first = identity(dir.path()).unwrap();
        assert_eq!(identity(dir.path()).unwrap(), first);
        assert_ne!(identity(tempfile::tempdir().unwrap().path()).unwrap(), first);
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        identity(dir.path()).unwrap();
        let file = dir.path().join(IDENTITY_FILE);
        let good = fs::read(&file).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&file, bad).unwrap();
            let error = identity(dir.path()).expect_err("a flipped bit");
            assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
        }
        fs::write(&file, &good[..good.len() - 1]).unwrap();
        assert!(matches!(identity(dir.path()), Err(IdentityError::Damaged { .. })));
    }
}
