//! The workspace around the current directory: where it is, and what its caxton.toml says.

pub mod scan;

pub mod stat_cache;

mod strays;

pub mod state;

pub mod place;

use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use caxton_proto::WorkspaceId;
use caxton_proto::manifest::WorkspaceManifest;

use crate::cli::{CliError, diagnostics};

/// The file that makes a folder a workspace.
pub use caxton_proto::manifest::workspace::WORKSPACE_FILE as SETTINGS_FILE;

/// The folder beside it in which the command line keeps what it can do without.
const CACHE_FOLDER: &str = ".caxton";

/// A workspace on disk.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// The folder that holds caxton.toml.
    pub root: PathBuf,
}

/// What the command line needs of caxton.toml.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The workspace's name.
    pub name: WorkspaceId,
    /// The server to deploy to.
    pub server: Option<String>,
}

impl Workspace {
    /// The workspace that `from` is in: the nearest folder upwards with a caxton.toml.
    pub fn find(from: &Path) -> Result<Workspace, CliError> {
        from.ancestors()
            .find(|folder| folder.join(SETTINGS_FILE).is_file())
            .map(|root| Workspace { root: root.to_owned() })
            .ok_or_else(|| {
                CliError::new("no_workspace", format!("there is no caxton.toml in {} or above it", from.display()))
                    .help("make a workspace here with `caxton init`, or change to one")
            })
    }

    /// What caxton.toml says.
    pub fn settings(&self) -> Result<Settings, CliError> {
        let file = self.root.join(SETTINGS_FILE);
        let text = std::fs::read_to_string(&file)
            .map_err(|error| CliError::new("io", format!("{} cannot be read", file.display())).source(error))?;
        let path = SETTINGS_FILE.parse().map_err(|error| CliError::new("internal", format!("{error}")))?;
        let manifest = WorkspaceManifest::parse(&path, &text).map_err(diagnostics::failure)?;
        let name = manifest.name.ok_or_else(|| {
            CliError::new("no_name", format!("{} does not name the workspace", file.display()))
                .help("write `name = \"...\"` under [workspace]")
        })?;
        Ok(Settings { name, server: manifest.server.map(|url| url.as_str().to_owned()) })
    }

    /// Where caches are kept; it may not exist.
    pub fn cache_folder(&self) -> PathBuf {
        self.root.join(CACHE_FOLDER)
    }

    /// The folder for caches, which git does not see.
    pub fn make_cache_folder(&self) -> io::Result<PathBuf> {
        let folder = self.cache_folder();
        match std::fs::symlink_metadata(&folder) {
            Ok(there) if there.is_dir() => {}
            // A checkout may bring a link with it: nothing is written to where it leads.
            Ok(_) => return Err(io::Error::other(format!("{CACHE_FOLDER} is not a folder: remove it"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::create_dir_all(&folder)?;
                std::fs::write(folder.join(".gitignore"), "*\n")?;
            }
            Err(error) => return Err(error),
        }
        Ok(folder)
    }

    /// Keeps other commands from changing the workspace or its state until the guard is dropped.
    pub fn lock(&self) -> Result<std::fs::File, CliError> {
        let open = || {
            let folder = self.make_cache_folder()?;
            let mut options = std::fs::File::options();
            options
                .create(true)
                .truncate(false)
                .write(true)
                .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
            options.open(folder.join("lock"))
        };
        let failed = |error: io::Error| {
            CliError::new("io", format!("{} cannot be written", self.cache_folder().display()))
                .help("make the workspace's folder writable")
                .source(error)
        };
        let file = open().map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => {
                Err(CliError::new("locked", format!("another caxton works in {}", self.root.display()))
                    .help("wait until it is done, and try again"))
            }
            Err(std::fs::TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

/// Writes a file so that a reader sees the old content or the new, never a part.
pub fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut file = tempfile::Builder::new().prefix(".caxton-").tempfile_in(folder)?;
    io::Write::write_all(&mut file, content)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}
