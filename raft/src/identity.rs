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
    /// The node's id, drawn once for a data directory.
    pub node: NodeId,
    /// The cluster that it belongs to; the first node of a cluster mints it.
    pub cluster: Uuid,
    /// How it came to it.
    pub origin: Origin,
}

/// How a node came to its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The cluster began with it.
    Founded,
    /// The nodes of the cluster let it in.
    Joined,
}

/// Why a node does not know who it is.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read.
    #[error("cannot read the node's identity in {}", file.display())]
    Read {
        /// The file that could not be read or written.
        file: PathBuf,
        /// What the file system answered.
        #[source]
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write the node's identity to {}", file.display())]
    Write {
        /// The file that could not be written.
        file: PathBuf,
        /// What the file system answered.
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
        /// The file that does not hold an identity.
        file: PathBuf,
    },
    /// A node that has an identity was about to get another.
    #[error("the node's identity in {} is there already, and is for life", file.display())]
    Taken {
        /// The file with the identity that is there already.
        file: PathBuf,
    },
}

/// The identity of the node whose data directory is `dir`, if it has one.
pub fn known_identity(dir: &Path) -> Result<Option<NodeIdentity>, IdentityError> {
    let file = dir.join(IDENTITY_FILE);
    match fs::read(&file) {
        Ok(bytes) => decode(&bytes).map(Some).ok_or(IdentityError::Damaged { file }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(IdentityError::Read { file, source }),
    }
}

/// Makes `dir` the data directory of a node that a cluster has let in. Before that, it has no identity.
pub fn adopt_identity(dir: &Path, node: NodeId, cluster: Uuid) -> Result<NodeIdentity, IdentityError> {
    let file = dir.join(IDENTITY_FILE);
    if known_identity(dir)?.is_some() {
        return Err(IdentityError::Taken { file });
    }
    let joined = NodeIdentity { node, cluster, origin: Origin::Joined };
    write(dir, &file, &joined).map_err(|source| IdentityError::Write { file, source })?;
    Ok(joined)
}

/// Makes `dir` the data directory of a new node that is the first of a new cluster, whatever it was before. Only for a
/// node that does not run, and whose log was made that node's too.
pub fn begin_again(dir: &Path, node: NodeId, cluster: Uuid) -> Result<NodeIdentity, IdentityError> {
    let file = dir.join(IDENTITY_FILE);
    let again = NodeIdentity { node, cluster, origin: Origin::Founded };
    write(dir, &file, &again).map_err(|source| IdentityError::Write { file, source })?;
    Ok(again)
}

/// The identity of the node whose data directory is `dir`: read, or minted when there is none yet.
pub fn identity(dir: &Path) -> Result<NodeIdentity, IdentityError> {
    if let Some(known) = known_identity(dir)? {
        return Ok(known);
    }
    let minted = NodeIdentity { node: mint_node(), cluster: Uuid::new_v4(), origin: Origin::Founded };
    let file = dir.join(IDENTITY_FILE);
    write(dir, &file, &minted).map_err(|source| IdentityError::Write { file, source })?;
    Ok(minted)
}

/// A new node's id: random, and neither 0 nor the largest, which would read as "no node".
pub fn mint_node() -> NodeId {
    let (high, low) = Uuid::new_v4().as_u64_pair();
    NodeId((high ^ low).clamp(1, u64::MAX - 1))
}

fn encode(identity: &NodeIdentity) -> String {
    let origin = match identity.origin {
        Origin::Founded => "",
        Origin::Joined => "joined\n",
    };
    let text = format!("{FORMAT}\nnode {:016x}\ncluster {}\n{origin}", identity.node.0, identity.cluster);
    let sum = crc32fast::hash(text.as_bytes());
    format!("{text}crc32 {sum:08x}\n")
}

fn decode(bytes: &[u8]) -> Option<NodeIdentity> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.lines().skip(1);
    let node = NodeId(u64::from_str_radix(lines.next()?.strip_prefix("node ")?, 16).ok()?);
    let cluster = lines.next()?.strip_prefix("cluster ")?.parse().ok()?;
    let origin = if lines.next()? == "joined" { Origin::Joined } else { Origin::Founded };
    let identity = NodeIdentity { node, cluster, origin };
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
    fn a_node_that_joined_knows_that_it_did_and_joins_once() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(known_identity(dir.path()).unwrap(), None);
        let (node, cluster) = (mint_node(), Uuid::new_v4());
        let joined = adopt_identity(dir.path(), node, cluster).unwrap();
        assert_eq!(joined, NodeIdentity { node, cluster, origin: Origin::Joined });
        assert_eq!(identity(dir.path()).unwrap(), joined);
        assert!(matches!(adopt_identity(dir.path(), node, cluster), Err(IdentityError::Taken { .. })));
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
