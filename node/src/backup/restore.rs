//! Makes a data directory from an archive: a new node that is the first of a new cluster, with all that the old one knew.
//!
//! Everything is checked before anything is written, and the directory gets its name last: it is whole or not there.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use caxton_proto::log::cluster::{BeginAgain, Command, Origin};
use caxton_proto::{Digest, WorkspaceId, log};
use caxton_raft::archive::Beginning;
use caxton_raft::{ArchiveError, ClaimError, IdentityError, NodeIdentity, mint_node};
use uuid::Uuid;

use super::actor;
use super::digesting::Digesting;
use super::key::{KeyError, RecoveryKey};
use super::verify::{BLOB_BYTES_MAX, Part, Verification, VerifyError, verify};
use crate::artifacts::{Artifacts, PutError, Space};
use crate::files::audit::{self, Entry};
use crate::files::{FileError, private_dir, write_private};
use crate::time::{now_ms, rfc3339};
use crate::trust::key_files;

/// How much content is written at once, in bytes.
const WRITE_BYTES: usize = 8 << 20;

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error(transparent)]
    Archive(#[from] VerifyError),
    /// The recovery key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// It is not what was written under the recovery key.
    #[error("{} is damaged, or was changed after it was written: its digests are not those that the recovery key authenticates", .path.display())]
    Forged { path: PathBuf },
    /// Nothing says whether somebody changed it.
    #[error(
        "the archive was written by an older caxton, which did not authenticate archives: nothing says whether it was changed since"
    )]
    Unauthenticated,
    /// There is something already.
    #[error("{} is not empty", .dir.display())]
    NotEmpty { dir: PathBuf },
    /// A folder or a file of it.
    #[error("{} cannot be used", .dir.display())]
    Folder {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
    /// What is copied is not what was verified a moment before.
    #[error("{} was changed while it was being restored", .path.display())]
    Changed { path: PathBuf },
    /// The archive could not be read a second time.
    #[error("the archive cannot be read any more")]
    Read(#[source] io::Error),
    /// The keys that are in it.
    #[error("the archive does not have the key file {file}")]
    KeyMissing { file: &'static str },
    /// A file with a key.
    #[error(transparent)]
    Secret(#[from] FileError),
    #[error(transparent)]
    Log(#[from] ArchiveError),
    /// The log's mark.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The content's store.
    #[error(transparent)]
    Artifacts(#[from] crate::artifacts::OpenError),
    #[error("content cannot be written")]
    Put(#[from] PutError),
    /// The node's identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl RestoreError {
    /// What to do.
    pub fn help(&self) -> Option<&'static str> {
        Some(match self {
            RestoreError::Archive(error) => error.help(),
            RestoreError::Key(KeyError::Another { .. }) => {
                "pass the key file that this backup was made with: --key-file FILE"
            }
            RestoreError::Forged { .. } | RestoreError::Changed { .. } => {
                "nothing was done with it: take another copy of it, or an older backup, and find out who could write to this one"
            }
            RestoreError::Unauthenticated => {
                "if you know where it was kept, and trust that place, say so with --unauthenticated"
            }
            RestoreError::Key(_) => "pass the key file that `caxton backup` made beside the archive: --key-file FILE",
            RestoreError::NotEmpty { .. } => {
                "a restore never writes over anything: name a folder that is empty, or not there, with --data-dir DIR"
            }
            RestoreError::Folder { .. } => "check that the folder above it can be written",
            RestoreError::Put(_) | RestoreError::Read(_) | RestoreError::Log(_) | RestoreError::KeyMissing { .. } => {
                "nothing was left behind: look at the cause and try again"
            }
            RestoreError::Secret(_)
            | RestoreError::Claim(_)
            | RestoreError::Artifacts(_)
            | RestoreError::Identity(_) => return None,
        })
    }
}

/// What was restored.
#[derive(Debug, Clone)]
pub struct Restoration {
    /// What the archive is of.
    pub archive: Verification,
    /// Who the new node is.
    pub identity: NodeIdentity,
}

/// What is done with an archive that nothing authenticates, because an older program wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unauthenticated {
    /// It is not restored.
    Refused,
    /// It is: somebody says that they know where it was kept.
    Accepted,
}

/// Makes `dir` from the archive at `path`, if it is what was written under the recovery key.
pub async fn restore(
    path: &Path,
    key_file: &Path,
    dir: &Path,
    unauthenticated: Unauthenticated,
) -> Result<Restoration, RestoreError> {
    let archive = verify(path)?;
    let key = RecoveryKey::read(key_file)?;
    if key.id() != archive.header.key {
        return Err(KeyError::Another { wanted: archive.header.key, given: key.id() }.into());
    }
    let is_authentic = archive.is_authentic(&key).map_err(|_| RestoreError::Forged { path: path.to_owned() })?;
    if !is_authentic && unauthenticated == Unauthenticated::Refused {
        return Err(RestoreError::Unauthenticated);
    }
    let keys = key.open(&archive.header_bytes, &archive.sealed)?;
    for file in key_files::FILES {
        if !keys.contains_key(file) {
            return Err(RestoreError::KeyMissing { file });
        }
    }
    free(dir)?;
    let staging = Staging::beside(dir)?;
    for file in key_files::FILES {
        write_private(&staging.0.join(file), keys.get(file).map(Vec::as_slice).unwrap_or_default())?;
    }
    for (file, bytes) in keys.iter().filter(|(file, _)| key_files::LATER_FILES.contains(&file.as_str())) {
        write_private(&staging.0.join(file), bytes)?;
    }
    let identity = fill(path, &staging.0, &archive).await?;
    staging.name(dir)?;
    Ok(Restoration { archive, identity })
}

/// Refuses a folder with something in it.
fn free(dir: &Path) -> Result<(), RestoreError> {
    let folder = |source| RestoreError::Folder { dir: dir.to_owned(), source };
    match std::fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            Some(_) => Err(RestoreError::NotEmpty { dir: dir.to_owned() }),
            None => Ok(()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(folder(source)),
    }
}

/// A folder beside the one that is meant, which goes unless it gets that name.
struct Staging(PathBuf);

impl Staging {
    fn beside(dir: &Path) -> Result<Staging, RestoreError> {
        let dir = std::path::absolute(dir).map_err(|source| RestoreError::Folder { dir: dir.to_owned(), source })?;
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        let staging = dir.with_file_name(format!(".{name}.restoring-{}", std::process::id()));
        private_dir(&staging)?;
        Ok(Staging(staging))
    }

    fn name(self, dir: &Path) -> Result<(), RestoreError> {
        let name = || {
            std::fs::rename(&self.0, dir)?;
            let above = std::path::absolute(dir)?;
            File::open(above.parent().unwrap_or(Path::new("/")))?.sync_all()
        };
        name().map_err(|source| RestoreError::Folder { dir: dir.to_owned(), source })
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // It is not there once it has its name.
        _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Writes the log, the content and the identity.
async fn fill(path: &Path, dir: &Path, archive: &Verification) -> Result<NodeIdentity, RestoreError> {
    let mut beginning = Beginning::empty(&dir.join("raft"))?;
    let artifacts = Artifacts::open(&dir.join("artifacts"), Space::new(dir, 0))?;
    copy(path, &archive.digests, &mut beginning, &artifacts)?;
    artifacts.flush();
    let closed = artifacts.closed();
    drop(artifacts);
    closed.await;
    let (node, cluster, time_ms, actor) = (mint_node(), Uuid::new_v4(), now_ms(), actor());
    let before = archive.header.cluster.clone();
    let again = BeginAgain {
        node,
        before: before.clone(),
        now: cluster.to_string(),
        from: Origin::Backup,
        time_ms,
        actor: actor.clone(),
    };
    let store = beginning.with(node, log::Command::Cluster(Command::BeginAgain(again)).encode().into()).await?;
    store.claim(&dir.join(crate::cluster::LOG_MARK_FILE)).await?;
    let closed = store.closed();
    drop(store);
    closed.await;
    let entry = Entry {
        time: rfc3339(time_ms),
        what: "restored".to_owned(),
        actor,
        cluster_before: before,
        cluster: cluster.to_string(),
        node: node.to_string(),
        detail: format!("from {}, which was made {}", path.display(), archive.header.created),
    };
    audit::append(dir, &entry).map_err(|source| RestoreError::Folder { dir: dir.to_owned(), source })?;
    Ok(caxton_raft::begin_again(dir, node, cluster)?)
}

/// Copies what the archive holds, byte for byte what was verified: whoever can write to it may have put another in its place.
fn copy(
    path: &Path,
    verified: &BTreeMap<String, [u8; 32]>,
    beginning: &mut Beginning,
    artifacts: &Artifacts,
) -> Result<(), RestoreError> {
    let changed = || RestoreError::Changed { path: path.to_owned() };
    let mut left = verified.clone();
    let file = File::open(path).map_err(RestoreError::Read)?;
    let mut tar = tar::Archive::new(BufReader::new(file));
    let mut blobs = Blobs { artifacts, workspace: None, waiting: Vec::new(), bytes: 0 };
    for entry in tar.entries().map_err(RestoreError::Read)? {
        let mut entry = entry.map_err(RestoreError::Read)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let part = Part::of(&name).ok_or_else(changed)?;
        if matches!(part, Part::Sums) {
            continue;
        }
        let digest_verified = left.remove(&name).ok_or_else(changed)?;
        let most = entry.size();
        let mut reader = Digesting::new(&mut entry);
        let taken = match part {
            Part::Group(group) => beginning.take(group, &mut reader).map_err(RestoreError::from),
            Part::Artifact(workspace, digest) if most <= BLOB_BYTES_MAX => {
                let mut content = Vec::new();
                let read = reader.read_to_end(&mut content).map_err(RestoreError::Read);
                read.and_then(|_| blobs.push(workspace, digest, content.into()))
            }
            Part::Artifact(..) => return Err(changed()),
            Part::Header | Part::Keys | Part::Sums => Ok(()),
        };
        io::copy(&mut reader, &mut io::sink()).map_err(RestoreError::Read)?;
        // What does not read back because it is another archive is told as that.
        if reader.finish().1 != digest_verified {
            return Err(changed());
        }
        taken?;
    }
    if !left.is_empty() {
        return Err(changed());
    }
    blobs.write()
}

/// Content of one workspace that waits to be written together.
struct Blobs<'a> {
    artifacts: &'a Artifacts,
    workspace: Option<WorkspaceId>,
    waiting: Vec<(Digest, Bytes)>,
    bytes: usize,
}

impl Blobs<'_> {
    fn push(&mut self, workspace: WorkspaceId, digest: Digest, content: Bytes) -> Result<(), RestoreError> {
        if self.workspace.as_ref() != Some(&workspace) || self.bytes >= WRITE_BYTES {
            self.write()?;
            self.workspace = Some(workspace);
        }
        self.bytes += content.len();
        self.waiting.push((digest, content));
        Ok(())
    }

    fn write(&mut self) -> Result<(), RestoreError> {
        self.bytes = 0;
        let waiting = std::mem::take(&mut self.waiting);
        match &self.workspace {
            Some(workspace) => Ok(self.artifacts.put(workspace, waiting)?),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::HEADER_FILE;
    use super::*;

    /// An archive of these files.
    fn archive(path: &Path, files: &[(&str, &str)]) {
        let mut tar = tar::Builder::new(File::create(path).expect("a file"));
        for (name, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            tar.append_data(&mut header, name, text.as_bytes()).expect("written");
        }
        tar.finish().expect("written");
    }

    #[test]
    fn an_archive_that_is_changed_after_it_was_verified_is_not_copied() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("archive.tar");
        let artifacts = Artifacts::open(&dir.path().join("artifacts"), Space::new(dir.path(), 0)).expect("a store");
        let verified = BTreeMap::from([(HEADER_FILE.to_owned(), *Digest::of(b"one").as_bytes())]);
        for (number, (files, is_same)) in [
            (&[(HEADER_FILE, "one")][..], true),
            (&[(HEADER_FILE, "two")], false),
            (&[(HEADER_FILE, "one"), ("more", "")], false),
            (&[], false),
        ]
        .into_iter()
        .enumerate()
        {
            archive(&path, files);
            let mut beginning = Beginning::empty(&dir.path().join(number.to_string())).expect("a log");
            let copied = copy(&path, &verified, &mut beginning, &artifacts);
            assert_eq!(copied.is_ok(), is_same, "{files:?}");
            assert!(is_same || matches!(copied, Err(RestoreError::Changed { .. })), "{copied:?}");
        }
    }
}
