//! Which process a node is. Every start of a data directory is a *life*: a random number that is on disk, behind those of
//! the starts before, before anybody hears of it. A node remembers the life of every other node that counts.
//!
//! A later start of the same directory has the life that counts among its own, and may take its place; a start of a copy,
//! or of an older state, has not, and never may. Which of two copies that stood side by side counts is decided by who was
//! let in first ([`admission`](super::admission)).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use caxton_proto::{Digest, NodeId};
use tokio::sync::watch;
use tracing::warn;

use crate::errors::chain;
use crate::files::{FileError, random, write_private};

/// The lives of the data directory.
const OWN_FILE: &str = "lives";
/// The lives of the other nodes that count.
const KNOWN_FILE: &str = "lives-of-others.json";
/// How many lives of a data directory are kept. Whoever last heard of an older one refuses the node.
pub const LIVES_MAX: usize = 512;
const FORMAT: &str = "caxton-lives 1";

/// Why the lives of a data directory cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum LivesError {
    /// The file cannot be read.
    #[error("{} cannot be read", .path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{} is damaged", .path.display())]
    Damaged { path: PathBuf },
    /// The file cannot be written, or no life be drawn.
    #[error("the life of this start cannot be written down")]
    Write(#[from] FileError),
}

/// The lives of one data directory, the present one last. Empty for a build that has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lineage(Arc<[u64]>);

impl Lineage {
    /// What another node says of itself.
    pub fn of(lives: &[u64]) -> Lineage {
        let newest = &lives[lives.len().saturating_sub(LIVES_MAX)..];
        Lineage(newest.into())
    }

    /// The present life.
    pub fn life(&self) -> Option<u64> {
        self.0.last().copied()
    }

    /// All of them.
    pub fn lives(&self) -> &[u64] {
        &self.0
    }

    fn next(&self, life: u64) -> Lineage {
        let kept = self.0.len().saturating_sub(LIVES_MAX - 1);
        Lineage(self.0[kept..].iter().copied().chain([life]).collect())
    }

    fn text(&self) -> String {
        let lives: String = self.0.iter().map(|life| format!("{life:016x}\n")).collect();
        let text = format!("{FORMAT}\n{lives}");
        format!("{text}sha256 {}\n", Digest::of(text.as_bytes()))
    }

    fn read(path: &Path) -> Result<Lineage, LivesError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Lineage::default()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(LivesError::Damaged { path: path.to_owned() });
            }
            Err(source) => return Err(LivesError::Read { path: path.to_owned(), source }),
        };
        let lives = text.lines().skip(1).take_while(|line| !line.starts_with("sha256"));
        let lives: Option<Vec<u64>> = lives.map(|line| u64::from_str_radix(line, 16).ok()).collect();
        let read = lives.map(|lives| Lineage::of(&lives)).filter(|read| read.text() == text);
        read.ok_or(LivesError::Damaged { path: path.to_owned() })
    }
}

/// How a process stands to the one that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is the one.
    Counts,
    /// Its data directory is the one's, started later; or nothing is known of the node.
    Later {
        /// The life that counts now.
        before: Option<u64>,
    },
    /// It knows nothing of the one that counts.
    Forked,
}

/// How `lineage` stands to the life that counts.
fn standing(counts: Option<u64>, lineage: &Lineage) -> Standing {
    match (counts, lineage.life()) {
        // A build that has no lives is told from nobody.
        (_, None) => Standing::Counts,
        (Some(counts), Some(life)) if counts == life => Standing::Counts,
        (Some(counts), Some(_)) if !lineage.0.contains(&counts) => Standing::Forked,
        (before, Some(_)) => Standing::Later { before },
    }
}

/// What this node knows of lives, its own too. A clone is a handle on the same.
#[derive(Clone)]
pub struct Lives(Arc<Inner>);

struct Inner {
    node: NodeId,
    own: Lineage,
    dir: PathBuf,
    counts: watch::Sender<BTreeMap<NodeId, u64>>,
    /// Held while the file is written, and by nothing that waits for anybody.
    keeping: Mutex<()>,
    /// Held across awaits: one process is let in after the other.
    pub(super) turn: tokio::sync::Mutex<()>,
}

impl Lives {
    /// Begins the life of this start of the data directory of `node`, which is on disk when this returns.
    pub fn begin(dir: &Path, node: NodeId) -> Result<Lives, LivesError> {
        let path = dir.join(OWN_FILE);
        let own = Lineage::read(&path)?.next(u64::from_le_bytes(random()?).max(1));
        write_private(&path, own.text().as_bytes())?;
        let mut counts = read_known(&dir.join(KNOWN_FILE));
        counts.extend(own.life().map(|life| (node, life)));
        let (counts, keeping, turn) = (watch::Sender::new(counts), Mutex::default(), tokio::sync::Mutex::default());
        Ok(Lives(Arc::new(Inner { node, own, dir: dir.to_owned(), counts, keeping, turn })))
    }

    /// The lives of this node's data directory.
    pub fn own(&self) -> &Lineage {
        &self.0.own
    }

    /// The lives that count, by node, this one's too.
    pub fn counts(&self) -> watch::Receiver<BTreeMap<NodeId, u64>> {
        self.0.counts.subscribe()
    }

    /// How a process that says that it is `node` stands.
    pub fn standing(&self, node: NodeId, lineage: &Lineage) -> Standing {
        standing(self.0.counts.borrow().get(&node).copied(), lineage)
    }

    /// Lets one process in after the other.
    pub(super) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.0.turn.lock().await
    }

    /// From now on `node` is this process, unless it went on in another one that this knows nothing of. On disk when this
    /// returns; blocks on the disk.
    pub fn follow(&self, node: NodeId, lineage: &Lineage) -> Result<Standing, FileError> {
        let _keeping = self.0.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        let found = self.standing(node, lineage);
        let (Standing::Later { .. }, Some(life)) = (found, lineage.life()) else { return Ok(found) };
        let mut counts = self.0.counts.borrow().clone();
        counts.insert(node, life);
        let others = counts.iter().filter(|(node, _)| **node != self.0.node);
        let rows: BTreeMap<String, String> =
            others.map(|(node, life)| (format!("{:x}", node.0), format!("{life:x}"))).collect();
        write_private(&self.0.dir.join(KNOWN_FILE), &serde_json::to_vec(&rows).unwrap_or_default())?;
        self.0.counts.send_replace(counts);
        Ok(found)
    }

    /// Takes this start's life back, in which the node was refused: a copy that is started again and again must not push the
    /// lives out of its list that it shares with the node.
    pub fn disown(&self) {
        let before = Lineage::of(&self.0.own.0[..self.0.own.0.len().saturating_sub(1)]);
        if let Err(error) = write_private(&self.0.dir.join(OWN_FILE), before.text().as_bytes()) {
            warn!(error = chain(&error), "the life of this start could not be taken back");
        }
    }
}

/// What was known at the end of the last start. A file that is lost or damaged knows nothing: the other nodes are asked.
fn read_known(path: &Path) -> BTreeMap<NodeId, u64> {
    let Ok(bytes) = fs::read(path) else { return BTreeMap::new() };
    let rows: BTreeMap<String, String> = serde_json::from_slice(&bytes).unwrap_or_else(|error| {
        warn!(%error, path = %path.display(), "the lives of the other nodes cannot be read; they are asked for again");
        BTreeMap::new()
    });
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    rows.iter().filter_map(|(node, life)| Some((NodeId(hex(node)?), hex(life)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(1);
    const OTHER: NodeId = NodeId(2);

    fn lineage(lives: &[u64]) -> Lineage {
        Lineage::of(lives)
    }

    #[test]
    fn a_later_start_of_the_same_directory_follows_and_a_copy_does_not() {
        let later = |before| Standing::Later { before };
        for (counts, lives, expected) in [
            (None, &[1][..], later(None)),
            (Some(1), &[1], Standing::Counts),
            (Some(1), &[1, 2], later(Some(1))),
            (Some(1), &[1, 2, 3], later(Some(1))),
            // The process before, which does not know that it was followed.
            (Some(2), &[1], Standing::Forked),
            // A copy that was made before 2 began, and started after it.
            (Some(2), &[1, 3], Standing::Forked),
            (Some(2), &[3], Standing::Forked),
            // An earlier build.
            (Some(2), &[], Standing::Counts),
        ] {
            assert_eq!(standing(counts, &lineage(lives)), expected, "{counts:?} {lives:?}");
        }
    }

    #[test]
    fn every_start_is_a_life_of_its_own_behind_those_before() {
        let dir = tempfile::tempdir().expect("a folder");
        let first = Lives::begin(dir.path(), NODE).expect("begun").own().clone();
        let second = Lives::begin(dir.path(), NODE).expect("begun");
        assert_eq!(first.lives(), &second.own().lives()[..1]);
        assert_ne!(first.life(), second.own().life());
        second.disown();
        let third = Lives::begin(dir.path(), NODE).expect("begun").own().clone();
        assert_eq!((third.lives().len(), third.lives()[0]), (2, first.lives()[0]));
        assert!(!third.lives().contains(&second.own().life().expect("a life")));
        for _ in 0..LIVES_MAX {
            Lives::begin(dir.path(), NODE).expect("begun");
        }
        assert_eq!(Lives::begin(dir.path(), NODE).expect("begun").own().lives().len(), LIVES_MAX);
    }

    #[test]
    fn what_counts_is_remembered_over_a_restart() {
        let dir = tempfile::tempdir().expect("a folder");
        let lives = Lives::begin(dir.path(), NODE).expect("begun");
        assert_eq!(lives.follow(OTHER, &lineage(&[7])).expect("kept"), Standing::Later { before: None });
        assert_eq!(lives.follow(OTHER, &lineage(&[7, 8])).expect("kept"), Standing::Later { before: Some(7) });
        let again = Lives::begin(dir.path(), NODE).expect("begun");
        assert_eq!(again.standing(OTHER, &lineage(&[7, 8])), Standing::Counts);
        assert_eq!(again.follow(OTHER, &lineage(&[7, 9])).expect("kept"), Standing::Forked, "a copy from before 8");
        assert_eq!(again.standing(NODE, lives.own()), Standing::Forked, "its own start before this one");
        assert_eq!(again.standing(NODE, again.own()), Standing::Counts);
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let dir = tempfile::tempdir().expect("a folder");
        Lives::begin(dir.path(), NODE).expect("begun");
        let file = dir.path().join(OWN_FILE);
        let good = fs::read(&file).expect("read");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&file, bad).expect("written");
            assert!(matches!(Lives::begin(dir.path(), NODE), Err(LivesError::Damaged { .. })), "bit {bit}");
        }
    }
}
