//! A call's own directory: made for it, and removed with everything in it when the call ends.

use std::io;
use std::path::{Path, PathBuf};

/// The directory; dropping it removes it.
pub(crate) struct Scratch {
    directory: tempfile::TempDir,
}

impl Scratch {
    /// A new, empty one below `parent`.
    pub(crate) fn new(parent: &Path) -> io::Result<Scratch> {
        std::fs::create_dir_all(parent)?;
        let directory = tempfile::Builder::new().prefix("call-").tempdir_in(parent)?;
        Ok(Scratch { directory })
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Where calls' directories are, unless told: below the system's own.
pub(crate) fn default_parent() -> PathBuf {
    std::env::temp_dir().join("caxton-scratch")
}
