//! Writes pulled content into the workspace: inside it, around symlinks, all of a file or nothing, and only over what
//! the scan saw there.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use caxton_proto::Digest;
use caxton_proto::tree::{File, TreePath};

use super::scan::FOLDERS;
use super::{SETTINGS_FILE, Workspace, write_atomically};
use crate::cli::CliError;

/// Where the live versions of files in conflict are kept.
pub const ASIDE: &str = ".caxton/theirs";

/// What became of a write.
#[derive(Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// It is done.
    Done,
    /// The file is not what the scan saw, so it was left alone.
    ChangedMeanwhile,
}

/// A file that a deployment can have: caxton.toml, or below one of the three folders and not hidden.
pub fn is_deployable(path: &TreePath) -> bool {
    let mut parts = path.parts();
    let top = parts.next().unwrap_or_default();
    let below = FOLDERS.contains(&top) && path.as_str().len() > top.len();
    (below || path.as_str() == SETTINGS_FILE) && path.parts().all(|part| !part.starts_with('.'))
}

/// Writes `content`, if what is there is still `expected`.
pub fn write(
    workspace: &Workspace,
    path: &TreePath,
    expected: Option<&File>,
    content: &[u8],
) -> Result<WriteOutcome, CliError> {
    let target = target(workspace, path, true)?;
    if !is_still(&target, expected) {
        return Ok(WriteOutcome::ChangedMeanwhile);
    }
    write_atomically(&target, content).map_err(|error| failed(path, error))?;
    Ok(WriteOutcome::Done)
}

/// Removes the file, if it is still `expected`, and the folders that it leaves empty.
pub fn remove(workspace: &Workspace, path: &TreePath, expected: Option<&File>) -> Result<WriteOutcome, CliError> {
    let target = target(workspace, path, false)?;
    if !is_still(&target, expected) {
        return Ok(WriteOutcome::ChangedMeanwhile);
    }
    std::fs::remove_file(&target).map_err(|error| failed(path, error))?;
    let mut folder = target.parent();
    while let Some(empty) = folder.filter(|folder| *folder != workspace.root) {
        // Fails for a folder that still holds something, and that is where this ends.
        if std::fs::remove_dir(empty).is_err() {
            break;
        }
        folder = empty.parent();
    }
    Ok(WriteOutcome::Done)
}

/// Keeps content beside the workspace's own, for a person to compare.
pub fn keep_aside(workspace: &Workspace, path: &TreePath, content: &[u8]) -> Result<(), CliError> {
    workspace.make_cache_folder().map_err(|error| failed(path, error))?;
    let aside = Path::new(ASIDE).join(path.as_str());
    let target = place(workspace, &aside, path, true)?;
    write_atomically(&target, content).map_err(|error| failed(path, error))
}

/// The file's place, whose folders are real folders of the workspace.
fn target(workspace: &Workspace, path: &TreePath, make: bool) -> Result<PathBuf, CliError> {
    place(workspace, Path::new(path.as_str()), path, make)
}

/// `relative` below the workspace, through real folders only; errors name the file `path`.
fn place(workspace: &Workspace, relative: &Path, path: &TreePath, make: bool) -> Result<PathBuf, CliError> {
    let mut folder = workspace.root.clone();
    let mut parts: Vec<&std::ffi::OsStr> = relative.iter().collect();
    let name = parts.pop().unwrap_or_default();
    for part in parts {
        folder.push(part);
        match std::fs::symlink_metadata(&folder) {
            Ok(there) if there.is_dir() => {}
            Ok(_) => {
                return Err(CliError::new("bad_symlink", format!("{} is not a folder", folder.display()))
                    .help(format!("{path} has to go below it: move it away, and pull again")));
            }
            Err(error) if error.kind() == ErrorKind::NotFound && make => {
                std::fs::create_dir(&folder).map_err(|error| failed(path, error))?;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed(path, error)),
        }
    }
    Ok(folder.join(name))
}

fn is_still(target: &Path, expected: Option<&File>) -> bool {
    match (std::fs::read(target), expected) {
        (Ok(content), Some(file)) => Digest::of(&content) == file.digest,
        (Err(error), None) => error.kind() == ErrorKind::NotFound,
        (Ok(_), None) | (Err(_), Some(_)) => false,
    }
}

fn failed(path: &TreePath, error: io::Error) -> CliError {
    CliError::new("io", format!("{path} cannot be written"))
        .help("make it writable, and run `caxton pull` again: it goes on where it stopped")
        .source(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::workspace::scan::file_of;

    fn path(text: &str) -> TreePath {
        text.parse().expect("a path")
    }

    #[test]
    fn only_a_deployments_own_files_have_a_place() {
        for good in ["caxton.toml", "agents/a.toml", "tools/t/x/y.wasm", "prompts/p.md"] {
            assert!(is_deployable(&path(good)), "{good}");
        }
        for bad in [".git/hooks/pre-commit", "agents", "agents/.env", "README.md", ".caxton/state.json", "a/agents/b"] {
            assert!(!is_deployable(&path(bad)), "{bad}");
        }
    }

    #[test]
    fn nothing_is_kept_aside_through_a_link_that_a_checkout_brought() {
        let (dir, outside) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let workspace = Workspace { root: dir.path().to_owned() };
        std::os::unix::fs::symlink(outside.path(), dir.path().join(".caxton")).expect("a symlink");
        keep_aside(&workspace, &path("agents/a.toml"), b"theirs").expect_err("a link");
        std::fs::remove_file(dir.path().join(".caxton")).expect("removed");
        std::fs::create_dir(dir.path().join(".caxton")).expect("a folder");
        std::os::unix::fs::symlink(outside.path(), dir.path().join(".caxton/theirs")).expect("a symlink");
        keep_aside(&workspace, &path("agents/a.toml"), b"theirs").expect_err("a link");
        assert_eq!(std::fs::read_dir(outside.path()).expect("a folder").count(), 0, "nothing was written there");
    }

    #[test]
    fn a_file_that_changed_meanwhile_is_left_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        let workspace = Workspace { root: dir.path().to_owned() };
        let name = path("agents/a/agent.toml");
        assert_eq!(write(&workspace, &name, None, b"1").expect("written"), WriteOutcome::Done);
        assert_eq!(write(&workspace, &name, None, b"2").expect("seen"), WriteOutcome::ChangedMeanwhile);
        assert_eq!(write(&workspace, &name, Some(&file_of(b"1")), b"2").expect("written"), WriteOutcome::Done);
        assert_eq!(remove(&workspace, &name, Some(&file_of(b"1"))).expect("seen"), WriteOutcome::ChangedMeanwhile);
        assert_eq!(remove(&workspace, &name, Some(&file_of(b"2"))).expect("removed"), WriteOutcome::Done);
        assert!(!dir.path().join("agents").exists() && dir.path().exists());
    }

    #[test]
    fn nothing_is_written_through_a_symlink() {
        let (dir, outside) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let workspace = Workspace { root: dir.path().to_owned() };
        std::os::unix::fs::symlink(outside.path(), dir.path().join("agents")).expect("a symlink");
        assert!(write(&workspace, &path("agents/a.toml"), None, b"1").is_err());
        assert_eq!(std::fs::read_dir(outside.path()).expect("the folder").count(), 0);
    }
}
