//! A workspace's files as a Merkle trie: equal roots mean equal workspaces, and two sides find what differs by
//! walking down only where digests differ.
//!
//! The trie is over SHA-256 of each path, so its shape depends on the set of files alone and not on the order in
//! which they came: a node with more than [`LEAF_FILES_MAX`] files is a branch of 16 by the next nibble. One changed
//! file among 10,000 rewrites three small nodes.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// A leaf holds at most this many files.
pub const LEAF_FILES_MAX: usize = 32;
/// The longest path, in bytes.
pub const PATH_BYTES_MAX: usize = 512;

/// Why a path cannot be in a workspace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    /// Nothing, or more than [`PATH_BYTES_MAX`] bytes.
    #[error("a path has 1 to {PATH_BYTES_MAX} bytes, and this one {bytes}")]
    Length {
        /// How many it has.
        bytes: usize,
    },
    /// An empty, `.` or `..` part, or an absolute path: it could lead out of the workspace.
    #[error("the path {path:?} could lead out of the workspace; write it relative to caxton.toml, without `.` or `..`")]
    Escapes {
        /// The path as it was given.
        path: String,
    },
    /// A backslash or a control character.
    #[error("the path {path:?} has a backslash or a control character in it; rename the file")]
    Character {
        /// The path as it was given.
        path: String,
    },
}

/// A file's place in its workspace: relative, `/` between the parts, none of them empty, `.` or `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TreePath(Arc<str>);

impl TreePath {
    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its parts, from the top.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

impl FromStr for TreePath {
    type Err = InvalidPath;
    fn from_str(path: &str) -> Result<Self, InvalidPath> {
        if path.is_empty() || path.len() > PATH_BYTES_MAX {
            return Err(InvalidPath::Length { bytes: path.len() });
        }
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(InvalidPath::Escapes { path: path.to_owned() });
        }
        if path.chars().any(|c| c.is_control() || c == '\\') {
            return Err(InvalidPath::Character { path: path.to_owned() });
        }
        Ok(TreePath(path.into()))
    }
}

impl TryFrom<String> for TreePath {
    type Error = InvalidPath;
    fn try_from(path: String) -> Result<Self, InvalidPath> {
        path.parse()
    }
}

impl From<TreePath> for String {
    fn from(path: TreePath) -> String {
        path.0.as_ref().to_owned()
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl std::borrow::Borrow<str> for TreePath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// What a tree knows of a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct File {
    /// SHA-256 of the whole content.
    pub digest: Digest,
    /// The size of the content.
    pub bytes: u64,
    /// Names the [`ChunkList`](crate::chunk::ChunkList) blob of a file larger than
    /// [`CHUNK_BYTES_MAX`](crate::chunk::CHUNK_BYTES_MAX); a smaller file is one blob named by `digest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunks: Option<Digest>,
}

/// The bytes are not a tree node, or a node is not where it belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the tree node {0:?} is damaged")]
pub struct InvalidNode(pub Digest);

/// A workspace's files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    files: BTreeMap<TreePath, File>,
}

impl FromIterator<(TreePath, File)> for Tree {
    fn from_iter<I: IntoIterator<Item = (TreePath, File)>>(files: I) -> Tree {
        Tree { files: files.into_iter().collect() }
    }
}

impl Tree {
    /// The files in the order of their paths.
    pub fn files(&self) -> &BTreeMap<TreePath, File> {
        &self.files
    }

    /// Puts a file in, or in the place of another.
    pub fn insert(&mut self, path: TreePath, file: File) {
        self.files.insert(path, file);
    }

    /// Takes a file out; says whether it was there.
    pub fn remove(&mut self, path: &TreePath) -> bool {
        self.files.remove(path).is_some()
    }

    /// The trie's root and all its nodes as blobs, each under its digest, the root last.
    pub fn nodes(&self) -> Nodes {
        let mut rows: Vec<Row<'_>> =
            self.files.iter().map(|(path, file)| (Digest::of(path.0.as_bytes()), path, file)).collect();
        rows.sort_unstable_by_key(|row| row.0);
        let mut blobs = Vec::new();
        let root = build(&rows, 0, &mut blobs);
        Nodes { root, blobs }
    }

    /// The digest that names exactly this set of files.
    pub fn root(&self) -> Digest {
        self.nodes().root
    }

    /// Reads a tree whose nodes are at hand.
    ///
    /// `node` gives the blob of a digest; it has checked that the blob has that digest.
    pub fn load<E: From<InvalidNode>>(
        root: Digest,
        mut node: impl FnMut(&Digest) -> Result<Vec<u8>, E>,
    ) -> Result<Tree, E> {
        let mut tree = Tree::default();
        let mut wanted = vec![(root, 0)];
        while let Some((digest, depth)) = wanted.pop() {
            match Node::decode(&digest, depth, &node(&digest)?)? {
                Node::Leaf(files) => tree.files.extend(files),
                Node::Branch(children) => wanted.extend(children.into_iter().map(|child| (child, depth + 1))),
            }
        }
        Ok(tree)
    }
}

type Row<'a> = (Digest, &'a TreePath, &'a File);

/// A trie's nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nodes {
    /// The root's digest.
    pub root: Digest,
    /// Every node's blob under its digest, children before parents.
    pub blobs: Vec<(Digest, Vec<u8>)>,
}

const LEAF: u8 = b'L';
const BRANCH: u8 = b'B';
/// SHA-256 has 64 nibbles, so no trie is deeper.
const DEPTH_MAX: usize = 64;

fn nibble(digest: &Digest, depth: usize) -> u8 {
    let byte = digest.as_bytes()[depth / 2];
    if depth.is_multiple_of(2) { byte >> 4 } else { byte & 15 }
}

/// Builds the node of `rows` (sorted by the digest of their paths, so that a child's rows are a run) and all below.
fn build(rows: &[Row<'_>], depth: usize, blobs: &mut Vec<(Digest, Vec<u8>)>) -> Digest {
    let mut out;
    if rows.len() <= LEAF_FILES_MAX || depth == DEPTH_MAX {
        out = vec![LEAF];
        for (_, path, file) in rows {
            out.extend_from_slice(&(path.0.len() as u16).to_be_bytes());
            out.extend_from_slice(path.0.as_bytes());
            out.extend_from_slice(file.digest.as_bytes());
            out.extend_from_slice(&file.bytes.to_be_bytes());
            out.push(u8::from(file.chunks.is_some()));
            file.chunks.iter().for_each(|chunks| out.extend_from_slice(chunks.as_bytes()));
        }
    } else {
        let mut present = 0u16;
        let mut children = Vec::new();
        for run in rows.chunk_by(|a, b| nibble(&a.0, depth) == nibble(&b.0, depth)) {
            present |= 1 << nibble(&run[0].0, depth);
            children.extend_from_slice(build(run, depth + 1, blobs).as_bytes());
        }
        out = vec![BRANCH];
        out.extend_from_slice(&present.to_be_bytes());
        out.extend_from_slice(&children);
    }
    let digest = Digest::of(&out);
    blobs.push((digest, out));
    digest
}

/// A node of a trie, as its blob says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// The files themselves.
    Leaf(Vec<(TreePath, File)>),
    /// The nodes below.
    Branch(Vec<Digest>),
}

impl Node {
    /// Reads the blob of `digest`, a node `depth` levels below the root. Whoever has the blob checks its digest.
    pub fn decode(digest: &Digest, depth: usize, blob: &[u8]) -> Result<Node, InvalidNode> {
        let node = match blob.split_first() {
            Some((&LEAF, rows)) => leaf(rows).map(Node::Leaf),
            Some((&BRANCH, rest)) if depth < DEPTH_MAX => branch(rest).map(Node::Branch),
            _ => None,
        };
        node.ok_or(InvalidNode(*digest))
    }
}

fn leaf(mut rest: &[u8]) -> Option<Vec<(TreePath, File)>> {
    let mut files = Vec::new();
    while !rest.is_empty() {
        let bytes = u16::from_be_bytes(*rest.split_off(..2)?.first_chunk()?);
        let path = std::str::from_utf8(rest.split_off(..usize::from(bytes))?).ok()?.parse().ok()?;
        let digest = Digest::try_from(rest.split_off(..32)?).ok()?;
        let bytes = u64::from_be_bytes(*rest.split_off(..8)?.first_chunk()?);
        let chunks = match rest.split_off_first()? {
            0 => None,
            1 => Some(Digest::try_from(rest.split_off(..32)?).ok()?),
            _ => return None,
        };
        files.push((path, File { digest, bytes, chunks }));
    }
    Some(files)
}

fn branch(rest: &[u8]) -> Option<Vec<Digest>> {
    let (present, children) = rest.split_first_chunk::<2>()?;
    let count = u16::from_be_bytes(*present).count_ones() as usize;
    let children: Vec<_> = children.chunks(32).map(Digest::try_from).collect::<Result<_, _>>().ok()?;
    (children.len() == count && count > 0).then_some(children)
}

/// The client's side of finding out what a server has: which nodes to ask for, level by level.
///
/// It stops wherever the other side's digest is one of its own, so the number of exchanges is the depth of the
/// deepest difference: none when the roots agree, two or three for one change among 10,000 files.
pub struct Descent<'a> {
    own: HashMap<Digest, Vec<(&'a TreePath, &'a File)>>,
    wanted: Vec<Digest>,
    depth: usize,
    found: Tree,
}

impl<'a> Descent<'a> {
    /// Sets out for the tree `root`, knowing `own`.
    pub fn new(root: Digest, own: &'a Tree) -> Descent<'a> {
        let mut own = subtrees(own);
        // Nobody stores the empty tree, and everybody knows it.
        own.entry(Tree::default().root()).or_default();
        let mut descent = Descent { own, wanted: Vec::new(), depth: 0, found: Tree::default() };
        descent.visit(root);
        descent
    }

    /// The nodes to ask for next; empty when the tree is known.
    pub fn wanted(&self) -> &[Digest] {
        &self.wanted
    }

    /// Takes the blobs of [`Descent::wanted`] in the same order, and checks each against its digest.
    pub fn supply(&mut self, blobs: &[Vec<u8>]) -> Result<(), InvalidNode> {
        let wanted = std::mem::take(&mut self.wanted);
        if let Some(missing) = wanted.get(blobs.len()) {
            return Err(InvalidNode(*missing));
        }
        for (digest, blob) in wanted.iter().zip(blobs) {
            if Digest::of(blob) != *digest {
                return Err(InvalidNode(*digest));
            }
            match Node::decode(digest, self.depth, blob)? {
                Node::Leaf(files) => self.found.files.extend(files),
                Node::Branch(children) => children.into_iter().for_each(|child| self.visit(child)),
            }
        }
        self.depth += 1;
        Ok(())
    }

    /// The other side's tree, once nothing more is wanted.
    pub fn finish(self) -> Tree {
        self.found
    }

    fn visit(&mut self, digest: Digest) {
        match self.own.get(&digest) {
            Some(files) => {
                self.found.files.extend(files.iter().map(|(path, file)| ((*path).clone(), **file)));
            }
            None => self.wanted.push(digest),
        }
    }
}

/// Every node's digest with the files below it.
fn subtrees(tree: &Tree) -> HashMap<Digest, Vec<(&TreePath, &File)>> {
    fn walk<'a>(
        rows: &[Row<'a>],
        depth: usize,
        out: &mut HashMap<Digest, Vec<(&'a TreePath, &'a File)>>,
        blobs: &mut Vec<(Digest, Vec<u8>)>,
    ) {
        blobs.clear();
        let digest = build(rows, depth, blobs);
        out.insert(digest, rows.iter().map(|row| (row.1, row.2)).collect());
        if rows.len() > LEAF_FILES_MAX && depth < DEPTH_MAX {
            for run in rows.chunk_by(|a, b| nibble(&a.0, depth) == nibble(&b.0, depth)) {
                walk(run, depth + 1, out, blobs);
            }
        }
    }
    let mut rows: Vec<Row<'_>> =
        tree.files.iter().map(|(path, file)| (Digest::of(path.0.as_bytes()), path, file)).collect();
    rows.sort_unstable_by_key(|row| row.0);
    let mut out = HashMap::new();
    walk(&rows, 0, &mut out, &mut Vec::new());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(content: u64) -> File {
        File { digest: Digest::of(&content.to_be_bytes()), bytes: content, chunks: None }
    }

    fn tree(files: u64) -> Tree {
        (0..files).map(|n| (format!("agents/a{n}.toml").parse().expect("a path"), file(n))).collect()
    }

    fn store(tree: &Tree) -> (Digest, HashMap<Digest, Vec<u8>>) {
        let nodes = tree.nodes();
        (nodes.root, nodes.blobs.into_iter().collect())
    }

    /// Walks to `theirs` from `ours`; gives the number of exchanges and of nodes sent.
    fn descend(ours: &Tree, theirs: &Tree) -> (usize, usize) {
        let (root, blobs) = store(theirs);
        let mut descent = Descent::new(root, ours);
        let (mut exchanges, mut sent) = (0, 0);
        while !descent.wanted().is_empty() {
            let answer: Vec<_> = descent.wanted().iter().map(|digest| blobs[digest].clone()).collect();
            exchanges += 1;
            sent += answer.len();
            descent.supply(&answer).expect("whole nodes");
        }
        assert_eq!(&descent.finish(), theirs);
        (exchanges, sent)
    }

    #[test]
    fn one_change_among_10_000_files_takes_few_exchanges_and_few_nodes() {
        let theirs = tree(10_000);
        let mut ours = theirs.clone();
        ours.insert("agents/a77.toml".parse().expect("a path"), file(1));
        assert_eq!(descend(&theirs, &theirs), (0, 0));
        let (exchanges, sent) = descend(&ours, &theirs);
        assert!(exchanges <= 4 && sent <= 4, "{exchanges} exchanges, {sent} nodes");
    }

    #[test]
    fn the_empty_tree_is_known_to_everybody() {
        let ours = tree(3);
        assert_eq!(descend(&ours, &Tree::default()), (0, 0));
    }

    #[test]
    fn a_forged_node_is_refused() {
        let (theirs, empty) = (tree(3), Tree::default());
        let forged: [&[Vec<u8>]; 2] = [&[b"L".to_vec()], &[]];
        for blobs in forged {
            let mut descent = Descent::new(theirs.root(), &empty);
            assert_eq!(descent.supply(blobs), Err(InvalidNode(theirs.root())));
        }
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        for bad in ["", "/etc/passwd", "a//b", "../a", "a/../b", "./a", "a/", "a\\b", "a\nb", &"x".repeat(513)] {
            assert!(bad.parse::<TreePath>().is_err(), "{bad:?}");
        }
        for good in ["caxton.toml", "agents/ü/agent.toml", "a..b/c", "a b"] {
            assert!(good.parse::<TreePath>().is_ok(), "{good:?}");
        }
    }

    proptest! {
        #[test]
        fn a_tree_reads_back_and_its_root_names_it(
            ours in proptest::collection::btree_map("[a-c]{1,3}", 0u64..4, 0..120),
            theirs in proptest::collection::btree_map("[a-c]{1,3}", 0u64..4, 0..120),
        ) {
            let build = |files: &BTreeMap<String, u64>| -> Tree {
                files.iter().map(|(path, n)| (path.parse().expect("a path"), file(*n))).collect()
            };
            let (ours, theirs) = (build(&ours), build(&theirs));
            let (root, blobs) = store(&theirs);
            let read = Tree::load(root, |digest| Ok::<_, InvalidNode>(blobs[digest].clone()));
            prop_assert_eq!(read.as_ref(), Ok(&theirs));
            prop_assert_eq!(ours.root() == theirs.root(), ours == theirs);
            descend(&ours, &theirs);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(blob in proptest::collection::vec(any::<u8>(), 0..200)) {
            for tag in [LEAF, BRANCH] {
                let blob: Vec<u8> = std::iter::once(tag).chain(blob.iter().copied()).collect();
                let _ = Node::decode(&Digest::of(&blob), 0, &blob);
            }
        }
    }
}
