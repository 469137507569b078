//! From files on disk to a [`Tree`]: a walk that leaves out what is hidden or ignored, a cache of what was hashed
//! before, and all that is wrong said at once.
//!
//! Nothing outside the workspace is ever read: a symlink is followed only to a file that is inside.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use caxton_proto::Digest;
use caxton_proto::chunk::{CHUNK_BYTES_MAX, ChunkList};
use caxton_proto::diagnostic::Diagnostic;
use caxton_proto::tree::{File, Tree, TreePath};
use ignore::{DirEntry, WalkBuilder};

use super::stat_cache::{Stat, StatCache};
use super::{SETTINGS_FILE, Workspace};
use crate::cli::{CliError, diagnostics};

/// The folders of a workspace whose files are deployed, beside caxton.toml.
pub const FOLDERS: [&str; 3] = ["agents", "tools", "prompts"];
/// A file of patterns, as in .gitignore, for what git keeps and a deployment leaves out.
pub const IGNORE_FILE: &str = ".caxtonignore";
/// More files than this are a mistake: a dependency folder, or a data set.
pub const FILES_MAX: usize = 100_000;
/// No file may be larger, in bytes.
pub const FILE_BYTES_MAX: u64 = 256 << 20;
/// A file of this size is hashed by two threads: one for the whole, one for its chunks.
const SPLIT_HASH_BYTES: usize = 1 << 20;
/// Fewer files than this are hashed on the calling thread: a thread costs about as much as that.
const THREAD_FILES_MIN: usize = 16;

/// What a workspace holds.
#[derive(Debug, Default)]
pub struct Scan {
    pub tree: Tree,
    /// How many of them had to be read.
    pub hashed: usize,
    /// The chunks of the large files among those, by the digest of their list.
    pub cuts: HashMap<Digest, ChunkList>,
}

/// A file that the walk found.
struct WalkedFile {
    path: TreePath,
    on_disk: PathBuf,
    stat: Stat,
}

/// A file that was read.
struct FileReading {
    file: File,
    cut: Option<ChunkList>,
}

impl Workspace {
    /// Reads the workspace's files, or says everything that keeps them from being deployed.
    pub fn scan(&self) -> Result<Scan, CliError> {
        let now = crate::time::system_now();
        let mut cache = StatCache::load(&self.cache_folder());
        let (found, mut problems) = self.walk()?;
        let mut scan = Scan::default();
        let mut fresh = Vec::new();
        for file in found {
            match cache.get(&file.path, &file.stat) {
                Some(known) => scan.tree.insert(file.path, known),
                None => fresh.push(file),
            }
        }
        scan.hashed = fresh.len();
        let mut changed = cache.len() != scan.tree.files().len();
        for (file, hashed) in fresh.iter().zip(hash_all(&fresh)) {
            match hashed {
                Ok(hashed) => {
                    changed |= cache.put(file.path.clone(), file.stat, hashed.file, now);
                    scan.tree.insert(file.path.clone(), hashed.file);
                    if let (Some(list), Some(cut)) = (hashed.file.chunks, hashed.cut) {
                        scan.cuts.insert(list, cut);
                    }
                }
                Err(error) => problems.push(unreadable(file.path.as_str(), &error)),
            }
        }
        if !problems.is_empty() {
            return Err(diagnostics::failure(problems));
        }
        if changed {
            cache.retain(|path| scan.tree.files().contains_key(path));
            // The cache only saves time: what cannot be written is hashed again.
            let _ = self.make_cache_folder().map(|folder| cache.save(&folder));
        }
        Ok(scan)
    }

    /// The files that a deployment takes, and what is wrong with the others.
    fn walk(&self) -> Result<(Vec<WalkedFile>, Vec<Diagnostic>), CliError> {
        let root = self
            .root
            .canonicalize()
            .map_err(|error| CliError::new("io", format!("{} cannot be read", self.root.display())).source(error))?;
        let in_repository = self.root.ancestors().any(|folder| folder.join(".git").exists());
        let top = self.root.clone();
        let walk = WalkBuilder::new(&self.root)
            .hidden(true)
            .follow_links(false)
            .git_global(false)
            .git_exclude(false)
            .ignore(false)
            // Patterns above the workspace count inside a repository alone: a ~/.gitignore of `*` is not meant for it.
            .parents(in_repository)
            .require_git(in_repository)
            .add_custom_ignore_filename(IGNORE_FILE)
            .filter_entry(move |entry| belongs(&top, entry))
            .build();
        let (mut found, mut problems) = (Vec::new(), Vec::new());
        for entry in walk {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    problems.push(Diagnostic::error("unreadable", ".", format!("the walk failed: {error}")));
                    continue;
                }
            };
            match self.look(&root, &entry) {
                Ok(Some(file)) => found.push(file),
                Ok(None) => {}
                Err(problem) => problems.push(*problem),
            }
            if found.len() > FILES_MAX {
                return Err(CliError::new(
                    "too_many_files",
                    format!("{} has more than {FILES_MAX} files to deploy", self.root.display()),
                )
                .help(format!("leave out what the agents do not need with a {IGNORE_FILE} file, as in .gitignore")));
            }
        }
        Ok((found, problems))
    }

    /// One entry of the walk: a file to deploy, nothing, or a problem.
    fn look(&self, root: &Path, entry: &DirEntry) -> Result<Option<WalkedFile>, Box<Diagnostic>> {
        let Some(kind) = entry.file_type().filter(|kind| !kind.is_dir()) else { return Ok(None) };
        let relative = entry.path().strip_prefix(&self.root).unwrap_or(entry.path());
        let Some(name) = relative.to_str() else {
            let shown = relative.to_string_lossy();
            return Err(Box::new(
                Diagnostic::error("not_utf8", &shown, "the file's name is not UTF-8").help("rename the file"),
            ));
        };
        let path: TreePath =
            name.parse().map_err(|error| Box::new(Diagnostic::error("bad_path", name, format!("{error}"))))?;
        if kind.is_symlink() {
            inside(root, entry.path(), name)?;
        }
        let metadata = std::fs::metadata(entry.path()).map_err(|error| Box::new(unreadable(name, &error)))?;
        check_kind(name, &metadata)?;
        Ok(Some(WalkedFile { path, on_disk: entry.path().to_owned(), stat: Stat::of(&metadata) }))
    }
}

/// Everything at the top but caxton.toml and the three folders is left out; all below is walked.
fn belongs(top: &Path, entry: &DirEntry) -> bool {
    match entry.depth() {
        0 => true,
        1 => {
            let name = entry.path().strip_prefix(top).unwrap_or(entry.path());
            let is_folder = entry.file_type().is_some_and(|kind| kind.is_dir() || kind.is_symlink());
            name == Path::new(SETTINGS_FILE) || (is_folder && FOLDERS.iter().any(|folder| name == Path::new(folder)))
        }
        _ => true,
    }
}

/// Refuses a symlink whose end is not a file inside the workspace.
fn inside(root: &Path, link: &Path, name: &str) -> Result<(), Box<Diagnostic>> {
    let refuse =
        |message: String, help: &str| Err(Box::new(Diagnostic::error("bad_symlink", name, message).help(help)));
    match link.canonicalize() {
        Err(_) => refuse("the symlink leads nowhere".into(), "remove it"),
        Ok(end) if !end.starts_with(root) => {
            refuse("the symlink leads out of the workspace".into(), "copy the file into the workspace instead")
        }
        Ok(end) if !same_folder(root, &end, name) => {
            let help = "copy the file: what lies elsewhere in the repository may be a secret";
            refuse("the symlink leads out of the folder that is deployed".into(), help)
        }
        Ok(end) if end.is_dir() => {
            refuse("the symlink leads to a folder, and those are not followed".into(), "copy the folder instead")
        }
        Ok(_) => Ok(()),
    }
}

/// Whether `end` lies below the same one of the deployed folders as the file `name`, and not in a hidden place there.
fn same_folder(root: &Path, end: &Path, name: &str) -> bool {
    let Ok(inside) = end.strip_prefix(root) else { return false };
    let hidden = |part: &std::ffi::OsStr| part.as_encoded_bytes().starts_with(b".");
    let top = |path: &Path| path.components().next().map(|part| part.as_os_str().to_owned());
    top(inside) == top(Path::new(name)) && !inside.iter().any(hidden)
}

fn check_kind(name: &str, metadata: &Metadata) -> Result<(), Box<Diagnostic>> {
    if !metadata.is_file() {
        let problem = Diagnostic::error("not_a_file", name, "this is a socket, a pipe or a device");
        return Err(Box::new(problem.help(format!("move it away, or name it in {IGNORE_FILE}"))));
    }
    if metadata.len() > FILE_BYTES_MAX {
        let message = format!("the file has {} bytes, and {FILE_BYTES_MAX} is the most", metadata.len());
        let help = format!("make it smaller, or name it in {IGNORE_FILE}");
        return Err(Box::new(Diagnostic::error("too_large", name, message).help(help)));
    }
    Ok(())
}

fn unreadable(name: &str, error: &std::io::Error) -> Diagnostic {
    let help = format!("make it readable, or name it in {IGNORE_FILE}");
    Diagnostic::error("unreadable", name, format!("the file cannot be read: {error}")).help(help)
}

/// Hashes the files on as many threads as there are processors; the answers are in the files' order.
fn hash_all(files: &[WalkedFile]) -> Vec<Result<FileReading, std::io::Error>> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(files.len() / THREAD_FILES_MIN);
    if threads <= 1 {
        return files.iter().map(|file| hash(&file.on_disk)).collect();
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(file) = files.get(at) else { return done };
            done.push((at, hash(&file.on_disk)));
        }
    };
    let mut all: Vec<_> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        let joined = others.into_iter().flat_map(|other| other.join().unwrap_or_default());
        own.into_iter().chain(joined).collect()
    });
    all.sort_unstable_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, hashed)| hashed).collect()
}

fn hash(path: &Path) -> Result<FileReading, std::io::Error> {
    let content = std::fs::read(path)?;
    Ok(hash_bytes(&content))
}

/// What a tree knows of `content`.
fn hash_bytes(content: &[u8]) -> FileReading {
    let bytes = content.len() as u64;
    if content.len() <= CHUNK_BYTES_MAX {
        return FileReading { file: File { digest: Digest::of(content), bytes, chunks: None }, cut: None };
    }
    let (digest, cut) = if content.len() < SPLIT_HASH_BYTES {
        (Digest::of(content), ChunkList::cut(content).0)
    } else {
        std::thread::scope(|scope| {
            let whole = scope.spawn(|| Digest::of(content));
            let cut = ChunkList::cut(content).0;
            (whole.join().unwrap_or_else(|_| Digest::of(content)), cut)
        })
    };
    let chunks = Some(Digest::of(&cut.encode()));
    FileReading { file: File { digest, bytes, chunks }, cut: Some(cut) }
}

/// What a tree knows of `content`, for files that did not come from a scan.
pub fn file_of(content: &[u8]) -> File {
    hash_bytes(content).file
}

impl Stat {
    /// What changes when a file's content does.
    fn of(metadata: &Metadata) -> Stat {
        let nanos = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
        Stat {
            bytes: metadata.size(),
            inode: metadata.ino(),
            modified: nanos(metadata.mtime(), metadata.mtime_nsec()),
            changed: nanos(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn workspace(files: &[(&str, &str)]) -> (tempfile::TempDir, Workspace) {
        let dir = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        }
        let root = dir.path().to_owned();
        (dir, Workspace { root })
    }

    fn names(scan: &Scan) -> Vec<&str> {
        scan.tree.files().keys().map(TreePath::as_str).collect()
    }

    #[test]
    fn only_a_workspaces_own_files_are_taken() {
        let (_dir, workspace) = workspace(&[
            ("caxton.toml", ""),
            ("README.md", ""),
            ("agents/a.toml", ""),
            ("agents/.secret", ""),
            ("agents/a.log", ""),
            ("agents/big.bin", ""),
            ("tools/t/tool.toml", ""),
            ("prompts/p.md", ""),
            ("agents/a/agent.toml", ""),
            ("other/x", ""),
            (".gitignore", "*.log"),
            (".caxtonignore", "*.bin"),
        ]);
        let scan = workspace.scan().expect("a scan");
        let expected = ["agents/a.toml", "agents/a/agent.toml", "caxton.toml", "prompts/p.md", "tools/t/tool.toml"];
        assert_eq!(names(&scan), expected);
    }

    #[test]
    fn a_changed_file_is_read_again_and_the_others_are_not() {
        let (_dir, workspace) = workspace(&[("caxton.toml", ""), ("agents/a.toml", "1"), ("agents/b.toml", "1")]);
        let first = workspace.scan().expect("a scan");
        assert_eq!(first.hashed, 3);
        // What is younger than the clock's grain is not trusted; older files are.
        let old = std::fs::FileTimes::new().set_modified(SystemTime::now() - std::time::Duration::from_secs(60));
        for name in ["caxton.toml", "agents/a.toml", "agents/b.toml"] {
            let file = std::fs::File::options().write(true).open(workspace.root.join(name)).expect("the file");
            file.set_times(old).expect("times");
        }
        let wait = std::time::Instant::now();
        while workspace.scan().expect("a scan").hashed > 0 {
            assert!(wait.elapsed().as_secs() < 10, "the cache is never used");
        }
        std::fs::write(workspace.root.join("agents/a.toml"), "2").expect("a file");
        let second = workspace.scan().expect("a scan");
        assert_eq!(second.hashed, 1);
        assert_ne!(second.tree.root(), first.tree.root());
    }

    #[test]
    fn a_symlink_that_leads_out_and_a_bad_name_are_both_named() {
        use std::os::unix::ffi::OsStrExt;
        let (dir, workspace) = workspace(&[("caxton.toml", ""), ("agents/a.toml", "1")]);
        std::os::unix::fs::symlink("/etc/hostname", dir.path().join("agents/out.toml")).expect("a symlink");
        std::os::unix::fs::symlink("a.toml", dir.path().join("agents/in.toml")).expect("a symlink");
        std::os::unix::fs::symlink("/etc", dir.path().join("tools")).expect("a symlink");
        std::fs::write(dir.path().join(".env"), "KEY=secret").expect("a file");
        std::fs::create_dir(dir.path().join("prompts")).expect("a folder");
        std::os::unix::fs::symlink("../.env", dir.path().join("prompts/env.md")).expect("a symlink");
        std::fs::write(dir.path().join("agents").join(std::ffi::OsStr::from_bytes(b"\xff.toml")), "").expect("a file");
        let error = workspace.scan().expect_err("refused");
        let body = error.body.unwrap_or_default();
        for part in [
            "agents/out.toml",
            "leads out of the workspace",
            "prompts/env.md",
            "out of the folder",
            "tools",
            "not UTF-8",
        ] {
            assert!(body.contains(part), "{part} is missing in:\n{body}");
        }
        assert!(!body.contains("in.toml"), "{body}");
    }
}
