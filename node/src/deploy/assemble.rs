//! Step one of a deployment: the tree that it proposes, which must be the one that the client means.
//!
//! Pure: the parent's tree and the request in, the proposed tree out. Nothing is believed of the request but what
//! adds up to its root.

use std::collections::HashSet;
use std::ops::Bound;

use caxton_proto::Digest;
use caxton_proto::chunk::CHUNK_BYTES_MAX;
use caxton_proto::plan::Plan;
use caxton_proto::tree::{File, Nodes, Tree, TreePath};

use super::Limits;
use crate::api::DeployRequest;

/// What a deployment proposes.
#[derive(Debug)]
pub struct AssembledTree {
    pub tree: Tree,
    /// The trie over them.
    pub nodes: Nodes,
    /// What differs from the parent.
    pub plan: Plan,
    /// What all files have together, in bytes.
    pub bytes: u64,
}

/// Why a request does not make a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssembleError {
    /// One path in two places of the request.
    #[error("the request names {path} twice")]
    Twice { path: TreePath },
    /// A file is taken out that the parent does not have.
    #[error("the request removes {path}, which the parent revision does not have")]
    Absent { path: TreePath },
    /// A path is a file and a folder at once.
    #[error("{path} is a file, and {below} would lie in it as in a folder")]
    FileAndFolder {
        path: TreePath,
        /// What lies below.
        below: TreePath,
    },
    /// A large file without chunks, or a small one with them.
    #[error("{path} has {bytes} bytes, and exactly the files of more than {CHUNK_BYTES_MAX} are cut into chunks")]
    Chunking {
        path: TreePath,
        /// The file's size.
        bytes: u64,
    },
    /// A file is too large.
    #[error("{path} has {bytes} bytes, and a file has {max} at most (deploy.file_bytes_max)")]
    FileTooLarge {
        path: TreePath,
        /// The file's size.
        bytes: u64,
        max: u64,
    },
    /// Too many files.
    #[error("the workspace would have {files} files, and {max} is the most (deploy.files_max)")]
    TooManyFiles { files: u64, max: u64 },
    /// Too many bytes.
    #[error("the workspace would have {bytes} bytes, and {max} is the most (deploy.workspace_bytes_max)")]
    TooManyBytes { bytes: u64, max: u64 },
    /// The files do not add up to the root.
    #[error("the files add up to the root {found}, and the request says {sent}")]
    RootMismatch {
        /// What the request says.
        sent: Digest,
        /// What it adds up to.
        found: Digest,
    },
}

/// The tree that `request` makes of its parent's.
pub fn assemble(parent: &Tree, request: &DeployRequest, limits: &Limits) -> Result<AssembledTree, AssembleError> {
    let named = request.upserts.iter().map(|upsert| &upsert.path).chain(&request.removals);
    let mut seen = HashSet::new();
    if let Some(path) = named.into_iter().find(|path| !seen.insert(*path)) {
        return Err(AssembleError::Twice { path: path.clone() });
    }
    let mut tree = parent.clone();
    for path in &request.removals {
        if !tree.remove(path) {
            return Err(AssembleError::Absent { path: path.clone() });
        }
    }
    for upsert in &request.upserts {
        fits(&upsert.path, &upsert.file, limits)?;
        tree.insert(upsert.path.clone(), upsert.file);
    }
    for upsert in &request.upserts {
        stands_alone(&tree, &upsert.path)?;
    }
    let files = tree.files().len() as u64;
    if files > limits.files_max {
        return Err(AssembleError::TooManyFiles { files, max: limits.files_max });
    }
    let bytes = tree.files().values().fold(0u64, |sum, file| sum.saturating_add(file.bytes));
    if bytes > limits.workspace_bytes_max {
        return Err(AssembleError::TooManyBytes { bytes, max: limits.workspace_bytes_max });
    }
    let nodes = tree.nodes();
    if nodes.root != request.root {
        return Err(AssembleError::RootMismatch { sent: request.root, found: nodes.root });
    }
    let plan = Plan::between(parent, &tree);
    Ok(AssembledTree { tree, nodes, plan, bytes })
}

fn fits(path: &TreePath, file: &File, limits: &Limits) -> Result<(), AssembleError> {
    if file.bytes > limits.file_bytes_max {
        return Err(AssembleError::FileTooLarge { path: path.clone(), bytes: file.bytes, max: limits.file_bytes_max });
    }
    // One way to cut a file, so that equal files have equal trees.
    if file.chunks.is_some() != (file.bytes > CHUNK_BYTES_MAX as u64) {
        return Err(AssembleError::Chunking { path: path.clone(), bytes: file.bytes });
    }
    Ok(())
}

/// No file is where `path` needs a folder, and nothing lies below it: else no file system could hold the tree.
fn stands_alone(tree: &Tree, path: &TreePath) -> Result<(), AssembleError> {
    let files = tree.files();
    for (at, _) in path.as_str().match_indices('/') {
        if let Some((above, _)) = files.get_key_value(&path.as_str()[..at]) {
            return Err(AssembleError::FileAndFolder { path: above.clone(), below: path.clone() });
        }
    }
    let folder = format!("{path}/");
    match files.range::<str, _>((Bound::Included(&*folder), Bound::Unbounded)).next() {
        Some((below, _)) if below.as_str().starts_with(&folder) => {
            Err(AssembleError::FileAndFolder { path: path.clone(), below: below.clone() })
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Author, Upsert};
    use caxton_proto::Revision;

    const LIMITS: Limits = Limits { files_max: 4, file_bytes_max: 100_000, workspace_bytes_max: 150_000 };

    fn path(path: &str) -> TreePath {
        path.parse().expect("a path")
    }

    fn file(bytes: u64) -> File {
        let chunks = (bytes > CHUNK_BYTES_MAX as u64).then(|| Digest::of(b"list"));
        File { digest: Digest::of(&bytes.to_be_bytes()), bytes, chunks }
    }

    fn tree(files: &[(&str, u64)]) -> Tree {
        files.iter().map(|(at, bytes)| (path(at), file(*bytes))).collect()
    }

    fn request(root: Digest, upserts: &[(&str, u64)], removals: &[&str]) -> DeployRequest {
        DeployRequest {
            parent: Revision::NONE,
            root,
            upserts: upserts.iter().map(|(at, bytes)| Upsert { path: path(at), file: file(*bytes) }).collect(),
            removals: removals.iter().map(|at| path(at)).collect(),
            author: Author::default(),
            git: None,
            message: String::new(),
            idempotency_key: "k".into(),
            dry_run: false,
        }
    }

    #[test]
    fn the_parent_and_the_changes_add_up_to_the_root() {
        let parent = tree(&[("a", 1), ("b", 2)]);
        let next = tree(&[("a", 3), ("c/d", 4)]);
        let made = assemble(&parent, &request(next.root(), &[("a", 3), ("c/d", 4)], &["b"]), &LIMITS).expect("a tree");
        assert_eq!((made.tree, made.bytes), (next, 7));
        assert_eq!((made.plan.upserts.len(), made.plan.removals.len()), (2, 1));
    }

    #[test]
    fn a_request_that_makes_no_tree_says_why() {
        let parent = tree(&[("a", 1), ("d/e", 1)]);
        let refused = |upserts: &[(&str, u64)], removals: &[&str]| {
            assemble(&parent, &request(Digest::of(b"?"), upserts, removals), &LIMITS).expect_err("refused").to_string()
        };
        for (upserts, removals, says) in [
            (&[("a", 2)][..], &["a"][..], "names a twice"),
            (&[], &["x"], "removes x, which the parent revision does not have"),
            (&[("a/b", 1)], &[], "a is a file, and a/b would lie in it"),
            (&[("d", 1)], &[], "d is a file, and d/e would lie in it"),
            (&[("f", 100_001)], &[], "deploy.file_bytes_max"),
            (&[("f", 90_000), ("g", 90_000)], &[], "deploy.workspace_bytes_max"),
            (&[("f", 1), ("g", 1), ("h", 1)], &[], "deploy.files_max"),
            (&[("f", 1)], &[], "the files add up to the root"),
        ] {
            let said = refused(upserts, removals);
            assert!(said.contains(says), "{said}");
        }
    }

    #[test]
    fn a_file_becomes_a_folder_when_it_is_removed() {
        let next = tree(&[("a/b", 1)]);
        assemble(&tree(&[("a", 1)]), &request(next.root(), &[("a/b", 1)], &["a"]), &LIMITS).expect("a tree");
    }

    #[test]
    fn exactly_the_large_files_are_chunked() {
        let mut wrong = request(Digest::of(b"?"), &[("f", 90_000)], &[]);
        wrong.upserts[0].file.chunks = None;
        let error = assemble(&Tree::default(), &wrong, &LIMITS).expect_err("refused");
        assert!(matches!(error, AssembleError::Chunking { .. }), "{error}");
    }
}
