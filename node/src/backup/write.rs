//! Writes an archive of a running cluster, piece by piece as somebody reads it. Nothing is held in memory but one blob.
//!
//! All that was acknowledged before the backup began is in it. The shards come before the deploy log and the artifacts
//! after it, so that whatever a conversation or a revision names is there as well.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use caxton_proto::{Digest, WorkspaceId};
use caxton_raft::deploy_log::{self, DeployLog};
use caxton_raft::{ArchiveError, ReadError, StateArchive};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::digesting::Digesting;
use super::key::{KeyError, RecoveryKey};
use super::{AUTHENTICATED, FORMAT, GroupHeader, HEADER_FILE, Header, KEYS_FILE, SUMS_FILE, WHOLE, group_file};
use crate::artifacts::{Artifacts, GetError, RemovalHold};
use crate::cluster::Cluster;
use crate::errors::chain;
use crate::files::FileError;
use crate::replicas::{EnsureError, Replicas};
use crate::tasks::Jobs;
use crate::time::{now_ms, rfc3339};
use crate::trust::key_files;

/// How much is gathered before it is sent, in bytes.
const PIECE_BYTES: usize = 256 << 10;
/// How many pieces wait for a slow reader.
const PIECES_MAX: usize = 8;

/// Why no backup was begun.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// What was acknowledged is not known.
    #[error("group {group} cannot be read")]
    Read {
        group: u32,
        #[source]
        source: ReadError,
    },
    /// A group's state could not be written down.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Content of a revision that is kept is not on this node and could not be fetched.
    #[error("content of workspace `{workspace}` is missing")]
    Content {
        workspace: WorkspaceId,
        #[source]
        source: EnsureError,
    },
    /// The cluster's keys.
    #[error("the cluster's keys cannot be read")]
    Keys(#[source] FileError),
    /// The recovery key.
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("the header cannot be written")]
    Header(#[source] serde_json::Error),
}

/// Why an archive ended too early.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Artifacts(#[from] GetError),
}

/// What a backup is made of.
#[derive(Clone)]
pub struct Source {
    /// The data directory.
    pub dir: PathBuf,
    pub cluster: Cluster,
    /// The deploy log.
    pub log: DeployLog,
    pub artifacts: Artifacts,
    /// Brings content here that only others have.
    pub replicas: Replicas,
}

impl Source {
    /// Begins a backup; the pieces of the archive follow. An archive that breaks off ends with an error, or without an end.
    pub async fn begin(self, key: RecoveryKey) -> Result<mpsc::Receiver<io::Result<Bytes>>, BackupError> {
        let held = self.artifacts.hold();
        let mut groups = Vec::new();
        // The deploy log, which is group 0, last.
        for (id, group) in self.cluster.groups().iter().rev() {
            group.catch_up().await.map_err(|source| BackupError::Read { group: id.0, source })?;
            groups.push(group.archive().await?);
        }
        groups.sort_by_key(|archived| archived.group);
        let kept: Vec<_> = self.log.read(|state| {
            let roots = |(name, workspace): (&WorkspaceId, &deploy_log::Workspace)| {
                workspace.kept().map(|kept| (name.clone(), kept.root)).collect::<Vec<_>>()
            };
            state.workspaces().flat_map(roots).collect()
        });
        for (workspace, root) in kept {
            let whole = self.replicas.fetch_all(&workspace, root).await;
            whole.map_err(|source| BackupError::Content { workspace, source })?;
        }
        let header = Header {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster: self.cluster.status().cluster,
            node: self.cluster.own().to_string(),
            created: rfc3339(now_ms()),
            key: key.id(),
            groups: groups.iter().map(|it| GroupHeader { group: it.group.0, commands: it.commands }).collect(),
        };
        let header = serde_json::to_vec_pretty(&header).map_err(BackupError::Header)?;
        let sealed = key.seal(&header, &key_files::collect_for_backup(&self.dir).map_err(BackupError::Keys)?)?;
        let (pieces, read) = mpsc::channel(PIECES_MAX);
        let whole = Whole { header, groups, sealed, artifacts: self.artifacts, held, key };
        Jobs::default().spawn_blocking("backup", move || {
            let failed = pieces.clone();
            match whole.write(Pieces { waiting: BytesMut::new(), pieces }) {
                Ok(bytes) => info!(target: "caxton::audit", bytes, "a backup was written"),
                Err(error) => {
                    warn!(error = chain(&error), "a backup broke off");
                    // Whoever read it may be gone.
                    _ = failed.blocking_send(Err(io::Error::other(chain(&error))));
                }
            }
        });
        Ok(read)
    }
}

struct Whole {
    header: Vec<u8>,
    groups: Vec<StateArchive>,
    sealed: Vec<u8>,
    artifacts: Artifacts,
    held: RemovalHold,
    key: RecoveryKey,
}

impl Whole {
    fn write(self, out: Pieces) -> Result<u64, WriteError> {
        let Whole { header, groups, sealed, artifacts, held, key } = self;
        let mut tar = Archive::new(out);
        tar.add(HEADER_FILE, header.len() as u64, header.as_slice())?;
        for StateArchive { group, bytes, file, .. } in groups {
            tar.add(&group_file(group.0), bytes, file)?;
        }
        for workspace in artifacts.workspaces()? {
            for digest in artifacts.names(&workspace)? {
                // A damaged one is marked as such by this read, and is in no archive; what needs it names it.
                if let Some(blob) = artifacts.get(&workspace, &digest)? {
                    let name = format!("artifacts/{workspace}/{}", hex::encode(digest.as_bytes()));
                    tar.add(&name, blob.len() as u64, &*blob)?;
                }
            }
        }
        drop(held);
        tar.add(KEYS_FILE, sealed.len() as u64, sealed.as_slice())?;
        Ok(tar.finish(&key)?)
    }
}

/// A tar archive that keeps the digests of what goes in.
struct Archive {
    tar: tar::Builder<CountingWriter>,
    sums: String,
}

impl Archive {
    fn new(out: Pieces) -> Archive {
        Archive { tar: tar::Builder::new(CountingWriter { out, sha: Sha256::new(), bytes: 0 }), sums: String::new() }
    }

    fn add(&mut self, name: &str, bytes: u64, from: impl Read) -> io::Result<()> {
        let mut digest = Digesting::new(from.take(bytes));
        append(&mut self.tar, name, bytes, &mut digest)?;
        self.sums.push_str(&format!("{}  {name}\n", hex::encode(digest.finish().1)));
        Ok(())
    }

    /// Writes the digests, authenticated, and the end; says how many bytes there are.
    fn finish(mut self, key: &RecoveryKey) -> io::Result<u64> {
        let whole = hex::encode(self.tar.get_ref().sha.clone().finalize());
        let sums = format!("{WHOLE}{whole}\n{}", self.sums);
        let proof = key.authenticate(&Digest::of(sums.as_bytes()));
        let sums = format!("{AUTHENTICATED}{proof}\n{sums}");
        append(&mut self.tar, SUMS_FILE, sums.len() as u64, sums.as_bytes())?;
        let mut out = self.tar.into_inner()?;
        out.out.send()?;
        Ok(out.bytes)
    }
}

fn append(tar: &mut tar::Builder<CountingWriter>, name: &str, bytes: u64, from: impl Read) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(bytes);
    header.set_mode(0o600);
    header.set_mtime(now_ms() / 1000);
    tar.append_data(&mut header, name, from)
}

struct CountingWriter {
    out: Pieces,
    sha: Sha256,
    bytes: u64,
}

impl Write for CountingWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.out.write(bytes)?;
        self.sha.update(&bytes[..taken]);
        self.bytes += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends what is written, in pieces, to whoever reads.
struct Pieces {
    waiting: BytesMut,
    pieces: mpsc::Sender<io::Result<Bytes>>,
}

impl Pieces {
    fn send(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "nobody reads the archive any more");
        self.pieces.blocking_send(Ok(self.waiting.split().freeze())).map_err(gone)
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= PIECE_BYTES {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}
