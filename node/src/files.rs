//! Files that are put in place whole or not at all: those with secrets are readable by their owner only, and made once.

pub mod audit;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ring::rand::SecureRandom;

/// A file of the data directory could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file system said no.
    #[error("{path} {what}")]
    Io {
        path: PathBuf,
        /// What was being done.
        what: &'static str,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// Others may read it.
    #[error(
        "{path} can be read by others (mode {mode:o}); run `chmod 600 {path}`, and make a new one if it may have leaked"
    )]
    Exposed { path: PathBuf, mode: u32 },
    /// The operating system gives no random bytes.
    #[error("the operating system gives no random bytes")]
    Random,
}

fn io(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError::Io { path, what, source }
}

/// Random bytes from the operating system.
pub fn random<const N: usize>() -> Result<[u8; N], FileError> {
    let mut bytes = [0; N];
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| FileError::Random)?;
    Ok(bytes)
}

/// Makes a folder that only its owner may look into, with all above it.
pub fn private_dir(path: &Path) -> Result<(), FileError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io(path, "cannot be made"))
}

/// Keeps everybody but the owner out of a folder and the folders directly in it, also where they were there before; links
/// are not followed. Gives those that belong to another user, whose mode stays as it is.
pub fn keep_private(path: &Path) -> Result<Vec<PathBuf>, FileError> {
    let mut folders = vec![path.to_owned()];
    for entry in fs::read_dir(path).map_err(io(path, "cannot be looked through"))? {
        let entry = entry.map_err(io(path, "cannot be looked through"))?;
        if entry.file_type().map_err(io(path, "cannot be looked through"))?.is_dir() {
            folders.push(entry.path());
        }
    }
    let mut of_others = Vec::new();
    for folder in folders {
        let mode = fs::metadata(&folder).map_err(io(&folder, "cannot be looked at"))?.permissions().mode();
        if mode & 0o077 == 0 {
            continue;
        }
        match fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => of_others.push(folder),
            Err(error) => return Err(io(&folder, "cannot be made private")(error)),
        }
    }
    Ok(of_others)
}

/// The file's bytes; when there is no file, it is made with what `mint` gives.
pub fn read_or_create(path: &Path, mint: impl FnOnce() -> Result<Vec<u8>, FileError>) -> Result<Vec<u8>, FileError> {
    match fs::read(path) {
        Ok(bytes) => {
            let mode = fs::metadata(path).map_err(io(path, "cannot be looked at"))?.permissions().mode() & 0o777;
            // A group may read it (a Kubernetes secret is mounted with the pod's group), the world may not.
            if mode & 0o007 != 0 {
                return Err(FileError::Exposed { path: path.to_owned(), mode });
            }
            Ok(bytes)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let bytes = mint()?;
            write_private(path, &bytes)?;
            Ok(bytes)
        }
        Err(error) => Err(io(path, "cannot be read")(error)),
    }
}

/// Puts a file in place whole, with mode 0600: a crash leaves the old one or the new one.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    // A name alone has an empty parent: the current folder.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    private_dir(parent)?;
    let temporary = path.with_extension("new");
    _ = fs::remove_file(&temporary);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(io(&temporary, "cannot be made"))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io(&temporary, "cannot be written"))?;
    fs::rename(&temporary, path).map_err(io(path, "cannot be put in place"))?;
    let folder = fs::File::open(parent).map_err(io(parent, "cannot be opened"))?;
    folder.sync_all().map_err(io(parent, "cannot be synced"))
}
