//! A call's own directory: made for it, held to a quota while the call runs, and removed with everything in it when the
//! call ends. Those that a crash left behind go at the next start.

use crate::limits::Quota;
use crate::tool::CallError;
use std::cell::Cell;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// What the directories of calls and of processes begin with.
const PREFIXES: [&str; 2] = ["call-", "mcp-"];
/// How often a running call's directory is looked at, and how much of its time that may take at most.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const LOOK_SHARE: u32 = 20;

/// The directory; dropping it removes it.
pub(crate) struct Scratch {
    directory: tempfile::TempDir,
}

impl Scratch {
    /// A new, empty one below `parent`.
    pub(crate) fn new(parent: &Path) -> io::Result<Scratch> {
        Ok(Scratch { directory: directory(parent, PREFIXES[0])? })
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// A new directory for a process outside of the sandbox.
pub(crate) fn for_process(parent: &Path) -> io::Result<tempfile::TempDir> {
    directory(parent, PREFIXES[1])
}

fn directory(parent: &Path, prefix: &str) -> io::Result<tempfile::TempDir> {
    fs::create_dir_all(parent)?;
    tempfile::Builder::new().prefix(prefix).tempdir_in(parent)
}

/// Where calls' directories are, unless told: below the system's own.
pub(crate) fn default_parent() -> PathBuf {
    std::env::temp_dir().join("caxton-scratch")
}

/// Removes what calls left below `parent` that a crash ended. Only for whoever has it alone.
pub fn clear(parent: &Path) {
    let entries = match fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => {
            warn!(path = %parent.display(), %error, "scratch directories of an earlier start cannot be looked for");
            return;
        }
    };
    let mut removed = 0_usize;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| PREFIXES.iter().any(|prefix| name.starts_with(prefix)));
        if !ours || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        match fs::remove_dir_all(entry.path()) {
            Ok(()) => removed += 1,
            Err(error) => warn!(path = %entry.path().display(), %error, "a scratch directory cannot be removed"),
        }
    }
    if removed > 0 {
        info!(removed, "scratch directories of an earlier start removed");
    }
}

/// Looks at a directory now and then, on the thread of the call that has it.
pub(crate) struct Watch {
    directory: PathBuf,
    quota: Quota,
    next: Cell<Instant>,
}

impl Watch {
    pub(crate) fn new(directory: &Path, quota: Quota) -> Watch {
        Watch { directory: directory.to_owned(), quota, next: Cell::new(Instant::now() + LOOK_EVERY) }
    }

    /// Whether the call may go on; looks only if it is time to.
    pub(crate) fn check(&self) -> Result<(), CallError> {
        let began = Instant::now();
        if began < self.next.get() {
            return Ok(());
        }
        let held = self.held();
        let pause = (began.elapsed() * LOOK_SHARE).max(LOOK_EVERY);
        self.next.set(Instant::now() + pause);
        held
    }

    fn held(&self) -> Result<(), CallError> {
        let Quota { bytes, files } = self.quota;
        let full = || CallError::ScratchFull { bytes, files };
        let mut used = ScratchUsage { bytes: 0, files: 0 };
        // What is too deep for a path is too much as well: the quota of files is far below.
        used.below(&self.directory, self.quota).map_err(|_| full())?;
        used.bytes += removed_bytes(&self.directory);
        if used.bytes > bytes || used.files > files { Err(full()) } else { Ok(()) }
    }
}

struct ScratchUsage {
    bytes: u64,
    files: u64,
}

impl ScratchUsage {
    /// Counts what is below a directory, as far as the quota goes.
    fn below(&mut self, directory: &Path, quota: Quota) -> io::Result<()> {
        let mut open = vec![directory.to_owned()];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(&directory)? {
                let entry = entry?;
                let metadata = entry.metadata()?;
                self.files += 1;
                self.bytes += metadata.blocks() * 512;
                if self.files > quota.files || self.bytes > quota.bytes {
                    return Ok(());
                }
                if metadata.is_dir() {
                    open.push(entry.path());
                }
            }
        }
        Ok(())
    }
}

/// Bytes of files that were removed from a directory and are still open, which only the system knows.
fn removed_bytes(directory: &Path) -> u64 {
    let Ok(open) = fs::read_dir("/proc/self/fd") else { return 0 };
    let removed =
        |link: &Path| link.starts_with(directory) && link.as_os_str().as_encoded_bytes().ends_with(b" (deleted)");
    let mut seen = Vec::new();
    for entry in open.flatten() {
        if fs::read_link(entry.path()).is_ok_and(|link| removed(&link))
            && let Ok(metadata) = fs::metadata(entry.path())
        {
            seen.push((metadata.ino(), metadata.blocks() * 512));
        }
    }
    seen.sort_unstable();
    seen.dedup_by_key(|(file, _)| *file);
    seen.iter().map(|(_, bytes)| bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn bytes_files_and_removed_files_count() {
        let parent = tempfile::tempdir().unwrap();
        let quota = Quota { bytes: 1 << 20, files: 5 };
        let fresh = || Scratch::new(parent.path()).unwrap();
        let holds = |scratch: &Scratch| Watch::new(scratch.path(), quota).held();
        let full = Err(CallError::ScratchFull { bytes: 1 << 20, files: 5 });

        let scratch = fresh();
        assert_eq!(holds(&scratch), Ok(()));
        fs::create_dir(scratch.path().join("a")).unwrap();
        fs::write(scratch.path().join("a/b"), vec![1; 900 << 10]).unwrap();
        assert_eq!(holds(&scratch), Ok(()));
        fs::write(scratch.path().join("a/c"), vec![1; 900 << 10]).unwrap();
        assert_eq!(holds(&scratch), full);

        let scratch = fresh();
        for n in 0..6 {
            fs::write(scratch.path().join(n.to_string()), "").unwrap();
        }
        assert_eq!(holds(&scratch), full);

        let scratch = fresh();
        let mut open = fs::File::create(scratch.path().join("gone")).unwrap();
        fs::remove_file(scratch.path().join("gone")).unwrap();
        assert_eq!(holds(&scratch), Ok(()));
        open.write_all(&vec![1; 2 << 20]).unwrap();
        assert_eq!(holds(&scratch), full, "a file that was removed and is open takes as much");

        // A hole takes nothing.
        let scratch = fresh();
        fs::File::create(scratch.path().join("hole")).unwrap().set_len(1 << 30).unwrap();
        assert_eq!(holds(&scratch), Ok(()));
    }

    #[test]
    fn what_a_crash_left_goes_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        for folder in ["call-abc/deep", "mcp-xyz", "other"] {
            fs::create_dir_all(parent.path().join(folder)).unwrap();
        }
        fs::write(parent.path().join("call-abc/deep/file"), "left").unwrap();
        fs::write(parent.path().join("call-file"), "no directory").unwrap();
        clear(parent.path());
        let mut left: Vec<_> = fs::read_dir(parent.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["call-file", "other"]);
        clear(&parent.path().join("nowhere"));
    }
}
