//! Step two of a deployment: every blob that it needs is here, and makes the file that the tree says.
//!
//! Only what the parent does not have is looked at: the parent's blobs were verified when it was deployed, and are
//! kept as long as it is.

use std::collections::HashSet;

use caxton_proto::chunk::ChunkList;
use caxton_proto::plan::Plan;
use caxton_proto::tree::{File, Tree, TreePath};
use caxton_proto::{Digest, WorkspaceId};
use sha2::{Digest as _, Sha256};

use crate::api::frame::DIGESTS_MAX;
use crate::artifacts::{Artifacts, GetError};

/// Why the blobs do not make the files.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Blobs have to be sent first.
    #[error("{total} artifacts of this deployment were not sent yet")]
    Missing {
        /// The first of them, at most [`DIGESTS_MAX`].
        missing: Vec<Digest>,
        /// How many there are, as far as is known: chunks are known when their list is there.
        total: usize,
    },
    /// The content is not as large as the tree says.
    #[error("{path} has {found} bytes, and the request says {bytes}")]
    Size {
        path: TreePath,
        /// What the request says.
        bytes: u64,
        /// What it has.
        found: u64,
    },
    /// The chunks do not join to the file that the tree names.
    #[error("the chunks of {path} join to a file with the digest {found}, and the request says {digest}")]
    Join {
        path: TreePath,
        /// What the request says.
        digest: Digest,
        /// What they join to.
        found: Digest,
    },
    /// The blob that should list a file's chunks does not.
    #[error("{digest}, which should list the chunks of {path}, is not a chunk list")]
    List { path: TreePath, digest: Digest },
    /// A blob could not be read.
    #[error("an artifact of {path} could not be read")]
    Read {
        path: TreePath,
        #[source]
        source: GetError,
    },
    /// The store could not say what it has.
    #[error("the artifact store could not be asked")]
    Store(#[source] GetError),
}

/// Checks the files that `plan` puts in on top of `parent`.
pub fn verify(artifacts: &Artifacts, workspace: &WorkspaceId, parent: &Tree, plan: &Plan) -> Result<(), VerifyError> {
    let known: HashSet<&File> = parent.files().values().collect();
    let new: Vec<_> = plan.upserts.iter().filter(|(_, file)| !known.contains(file)).collect();
    let (chunked, whole): (Vec<_>, Vec<_>) = new.into_iter().partition(|(_, file)| file.chunks.is_some());
    let mut missing = Missing::default();

    let digests: Vec<_> = whole.iter().map(|(_, file)| file.digest).collect();
    let sizes = artifacts.sizes(workspace, &digests).map_err(VerifyError::Store)?;
    for ((path, file), size) in whole.iter().zip(sizes) {
        match size {
            None => missing.add(file.digest),
            Some(found) => sized(path, file.bytes, u64::from(found))?,
        }
    }
    let mut lists = Vec::new();
    for (path, file) in chunked {
        if let Some(list) = list(artifacts, workspace, path, file, &mut missing)? {
            lists.push((path, file, list));
        }
    }
    missing.none()?;
    for (path, file, list) in lists {
        joined(artifacts, workspace, path, file, &list)?;
    }
    Ok(())
}

#[derive(Default)]
struct Missing {
    digests: Vec<Digest>,
    seen: HashSet<Digest>,
}

impl Missing {
    fn add(&mut self, digest: Digest) {
        if self.seen.insert(digest) {
            self.digests.push(digest);
        }
    }

    fn none(mut self) -> Result<(), VerifyError> {
        let total = self.digests.len();
        if total == 0 {
            return Ok(());
        }
        self.digests.truncate(DIGESTS_MAX);
        Err(VerifyError::Missing { missing: self.digests, total })
    }
}

fn sized(path: &TreePath, bytes: u64, found: u64) -> Result<(), VerifyError> {
    if bytes == found { Ok(()) } else { Err(VerifyError::Size { path: path.clone(), bytes, found }) }
}

/// The file's chunk list; `None` when it, or a chunk in it, is missing.
fn list(
    artifacts: &Artifacts,
    workspace: &WorkspaceId,
    path: &TreePath,
    file: &File,
    missing: &mut Missing,
) -> Result<Option<ChunkList>, VerifyError> {
    let Some(digest) = file.chunks else { return Ok(None) };
    let read = |source| VerifyError::Read { path: path.clone(), source };
    let Some(blob) = artifacts.get(workspace, &digest).map_err(read)? else {
        missing.add(digest);
        return Ok(None);
    };
    let list = ChunkList::decode(&blob).map_err(|_| VerifyError::List { path: path.clone(), digest })?;
    sized(path, file.bytes, list.bytes())?;
    let digests: Vec<_> = list.0.iter().map(|chunk| chunk.digest).collect();
    let absent = artifacts.missing(workspace, &digests).map_err(VerifyError::Store)?;
    let whole = absent.is_empty();
    absent.into_iter().for_each(|digest| missing.add(digest));
    Ok(whole.then_some(list))
}

/// The chunks join to what the tree names. Once per file: from then on its list's digest stands for its content.
fn joined(
    artifacts: &Artifacts,
    workspace: &WorkspaceId,
    path: &TreePath,
    file: &File,
    list: &ChunkList,
) -> Result<(), VerifyError> {
    let mut sha = Sha256::new();
    for chunk in &list.0 {
        let read = |source| VerifyError::Read { path: path.clone(), source };
        let blob = artifacts.need(workspace, &chunk.digest).map_err(read)?;
        sized(path, u64::from(chunk.bytes), blob.len() as u64)?;
        sha.update(&blob);
    }
    let found = Digest::from_bytes(sha.finalize().into());
    if found == file.digest {
        Ok(())
    } else {
        Err(VerifyError::Join { path: path.clone(), digest: file.digest, found })
    }
}
