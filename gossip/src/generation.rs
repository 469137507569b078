//! Tells one life of a node from the next: a number that grows at every start, whatever the clock does.
//!
//! A member whose generation does not grow is taken for its own past and stays dead to the others, so the last one is kept
//! on disk and the next is `max(previous + 1, now)`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use caxton_proto::NodeId;
use tokio::time::Instant;

use crate::member::Members;

/// Which life of a node this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

/// Why no generation could be drawn.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// The file holds something else than a number: it was written by nobody we know.
    #[error("{path} does not hold a generation; remove it if no other program owns it, and start again")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read or written.
    #[error("cannot keep the gossip generation in {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Generation {
    /// Draws the generation of this start and keeps it in `path` before it is used.
    ///
    /// `now_ms` is the time since the Unix epoch in milliseconds; a clock that stepped back does no harm.
    pub fn next(path: &Path, now_ms: u64) -> Result<Generation, GenerationError> {
        let io = |source| GenerationError::Io { path: path.to_owned(), source };
        let previous = match fs::read_to_string(path) {
            Ok(text) => text.trim().parse().map_err(|_| GenerationError::Damaged { path: path.to_owned() })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(io(error)),
        };
        let next = now_ms.max(previous + 1);
        keep(path, next).map_err(io)?;
        Ok(Generation(next))
    }
}

/// The last life in which each member was seen. What is heard of an earlier one came late, or somebody sends it again.
pub(crate) struct LastLives {
    seen: BTreeMap<NodeId, (Generation, Instant)>,
    forget_after: Duration,
}

impl LastLives {
    /// Of nobody yet. A member that was not seen for `forget_after` may come in any life.
    pub fn new(forget_after: Duration) -> LastLives {
        LastLives { seen: BTreeMap::new(), forget_after }
    }

    /// Leaves out of `members` who is in an earlier life than it was seen in before.
    pub fn only(&mut self, mut members: Members, now: Instant) -> Members {
        self.seen.retain(|_, (_, at)| now.duration_since(*at) < self.forget_after);
        members.retain(|node, member| {
            let (last, at) = self.seen.entry(*node).or_insert((member.generation, now));
            let counts = member.generation >= *last;
            if counts {
                (*last, *at) = (member.generation, now);
            }
            counts
        });
        members
    }
}

/// Replaces the file in one move, so that a crash leaves the old number or the new one.
fn keep(path: &Path, generation: u64) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh)?;
    writeln!(file, "{generation}")?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::Member;

    #[test]
    fn a_generation_grows_also_when_the_clock_steps_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("generation");
        let drawn = [1_000, 2_000, 500, 500, 3_000].map(|now| Generation::next(&path, now).expect("drawn").0);
        assert_eq!(drawn, [1_000, 2_000, 2_001, 2_002, 3_000]);
    }

    #[test]
    fn a_member_does_not_go_back_to_an_earlier_life() {
        let in_life = |generation| {
            let address = ([127, 0, 0, 1], 1).into();
            let member =
                Member { node: NodeId(1), generation: Generation(generation), address, facts: BTreeMap::new() };
            Members::from([(NodeId(1), member)])
        };
        let (start, forget_after) = (Instant::now(), Duration::from_secs(10));
        let mut last = LastLives::new(forget_after);
        for (after_s, generation, counts) in [(0, 5, true), (1, 6, true), (2, 5, false), (9, 6, true), (18, 5, false)] {
            let now = start + Duration::from_secs(after_s);
            assert_eq!(!last.only(in_life(generation), now).is_empty(), counts, "life {generation} after {after_s} s");
        }
        // Nobody knows of the sixth any more.
        assert_eq!(last.only(in_life(5), start + Duration::from_secs(19)).len(), 1);
    }

    #[test]
    fn a_damaged_file_is_named_and_not_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("generation");
        fs::write(&path, "twelve").expect("written");
        let error = Generation::next(&path, 1).expect_err("refused").to_string();
        assert!(error.contains("generation does not") || error.contains("does not hold a generation"), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("still there"), "twelve");
    }
}
