//! Tells one life of a node from the next: a number that grows at every start, whatever the clock does.
//!
//! A member whose generation does not grow is taken for its own past and stays dead to the others, so the last one is kept
//! on disk and the next is `max(previous + 1, now)`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Which life of a node this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

/// Why no generation could be drawn.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// The file holds something else than a number: it was written by nobody we know.
    #[error("{path} does not hold a generation; remove it if no other program owns it, and start again")]
    Damaged {
        /// The file that holds something else.
        path: PathBuf,
    },
    /// The file cannot be read or written.
    #[error("cannot keep the gossip generation in {path}")]
    Io {
        /// The file that could not be read or written.
        path: PathBuf,
        /// What the file system answered.
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

    #[test]
    fn a_generation_grows_also_when_the_clock_steps_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("generation");
        let drawn = [1_000, 2_000, 500, 500, 3_000].map(|now| Generation::next(&path, now).expect("drawn").0);
        assert_eq!(drawn, [1_000, 2_000, 2_001, 2_002, 3_000]);
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
