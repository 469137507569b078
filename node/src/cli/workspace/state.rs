//! What the command line remembers between two commands: the revision that the work tree is based on, that
//! revision's tree, and the key of a deployment that was never answered.
//!
//! All of it is a cache in `.caxton/`: losing it costs a walk down the server's tree, and never content. A deployment
//! key is written before the request leaves, so that the same deployment, tried again, is applied once.

use std::collections::HashMap;

use caxton_proto::tree::{InvalidNode, Tree};
use caxton_proto::{Digest, Revision, WorkspaceId};
use serde::{Deserialize, Serialize};

use super::{Workspace, write_atomically};
use crate::api::Deployment;

const STATE_FILE: &str = "state.json";
const TREE_FILE: &str = "base.tree";
const VERSION: u32 = 1;

/// What is remembered of a workspace.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// The format's version; another one is not read.
    version: u32,
    /// Which workspace this is about.
    pub workspace: WorkspaceId,
    /// The server that was asked last.
    pub server: String,
    /// The deployment that the work tree is based on.
    #[serde(default)]
    pub base: Option<Deployment>,
    /// A deployment that was sent and not answered.
    #[serde(default)]
    pub pending: Option<Pending>,
}

/// A deployment that was sent and not answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Its idempotency key.
    pub key: String,
    /// What it would make live.
    pub root: Digest,
    /// On top of what.
    pub parent: Revision,
}

impl State {
    /// Nothing is known yet.
    pub fn new(workspace: WorkspaceId, server: &str) -> State {
        State { version: VERSION, workspace, server: server.to_owned(), base: None, pending: None }
    }

    /// What is remembered of `id`; nothing, when it was never deployed from here.
    pub fn load(workspace: &Workspace, id: &WorkspaceId) -> Option<State> {
        let text = std::fs::read(workspace.cache_folder().join(STATE_FILE)).ok()?;
        let state: State = serde_json::from_slice(&text).ok()?;
        (state.version == VERSION && state.workspace == *id).then_some(state)
    }

    /// Writes it, all or nothing.
    pub fn save(&self, workspace: &Workspace) -> std::io::Result<()> {
        let folder = workspace.make_cache_folder()?;
        let text = serde_json::to_vec_pretty(self).map_err(std::io::Error::other)?;
        write_atomically(&folder.join(STATE_FILE), &text)
    }

    /// The key for a deployment of `root` on top of `parent`: the one of an attempt that was never answered, or new.
    pub fn key_for(&mut self, root: Digest, parent: Revision) -> String {
        match &self.pending {
            Some(pending) if pending.root == root && pending.parent == parent => pending.key.clone(),
            _ => {
                let key = uuid::Uuid::new_v4().simple().to_string();
                self.pending = Some(Pending { key: key.clone(), root, parent });
                key
            }
        }
    }
}

/// The tree that was kept under `root`, checked node by node.
pub fn load_tree(workspace: &Workspace, root: Digest) -> Option<Tree> {
    let bytes = std::fs::read(workspace.cache_folder().join(TREE_FILE)).ok()?;
    let mut nodes = HashMap::new();
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let digest = Digest::try_from(rest.split_off(..32)?).ok()?;
        let length = u32::from_be_bytes(rest.split_off(..4)?.try_into().ok()?);
        nodes.insert(digest, rest.split_off(..length as usize)?);
    }
    Tree::load(root, |digest| {
        let node = nodes.get(digest).filter(|node| Digest::of(node) == *digest);
        node.map(|node| node.to_vec()).ok_or(InvalidNode(*digest))
    })
    .ok()
}

/// Keeps a tree for [`load_tree`]; the one kept before is forgotten.
pub fn save_tree(workspace: &Workspace, tree: &Tree) -> std::io::Result<()> {
    let folder = workspace.make_cache_folder()?;
    let mut bytes = Vec::new();
    for (digest, node) in tree.nodes().blobs {
        bytes.extend_from_slice(digest.as_bytes());
        bytes.extend_from_slice(&(node.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&node);
    }
    write_atomically(&folder.join(TREE_FILE), &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use caxton_proto::tree::File;

    #[test]
    fn a_kept_tree_reads_back_under_its_root_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        let workspace = Workspace { root: dir.path().to_owned() };
        let file = |n: u64| File { digest: Digest::of(&n.to_be_bytes()), bytes: n, chunks: None };
        let tree: Tree = (0..500).map(|n| (format!("agents/a{n}.toml").parse().expect("a path"), file(n))).collect();
        save_tree(&workspace, &tree).expect("saved");
        assert_eq!(load_tree(&workspace, tree.root()), Some(tree.clone()));
        assert_eq!(load_tree(&workspace, Digest::of(b"other")), None);

        let path = workspace.cache_folder().join(TREE_FILE);
        let mut bytes = std::fs::read(&path).expect("the file");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).expect("written");
        assert_eq!(load_tree(&workspace, tree.root()), None);
    }

    #[test]
    fn an_unanswered_deployment_keeps_its_key_and_another_gets_its_own() {
        let mut state = State::new("demo".parse().expect("a name"), "http://127.0.0.1:7411");
        let (root, other) = (Digest::of(b"1"), Digest::of(b"2"));
        let key = state.key_for(root, Revision(3));
        assert_eq!(state.key_for(root, Revision(3)), key);
        assert_ne!(state.key_for(root, Revision(4)), key);
        assert_ne!(state.key_for(other, Revision(3)), key);
    }
}
