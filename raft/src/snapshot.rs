//! A group's snapshots on disk. A snapshot has its name only once all of it is on disk, and the one before goes only after
//! that; so the newest file with a name is whole, or it is damaged and refused.

pub mod format;
mod paced;

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncSeek, AsyncWrite, AsyncWriteExt, ReadBuf};

use self::format::{Header, Reader, Writer};
use self::paced::PacedFile;
use crate::group_id::GroupId;
use crate::machine::{FrozenState, MachineError};
use crate::types::SnapshotMeta;
use crate::work::{Work, WorkFile};

const SUFFIX: &str = "snapshot";
const UNFINISHED_SUFFIX: &str = "unfinished";
/// How much of a snapshot is written at once, in bytes.
const WRITE_BYTES: usize = 128 << 10;

/// Why a snapshot cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error(
        "the snapshot {} is damaged, and is not used so that no half of it is served; keep a copy, then restore the \
         data directory from a backup",
        file.display()
    )]
    Damaged {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the snapshot {} is of another group or was meant to be another one", file.display())]
    Other { file: PathBuf },
    #[error("cannot restore the snapshot {}", file.display())]
    Restore {
        file: PathBuf,
        #[source]
        source: MachineError,
    },
    #[error("cannot read the snapshot {}", file.display())]
    Read {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write a snapshot in {}", dir.display())]
    Write {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The folder of one group's snapshots.
#[derive(Debug, Clone)]
pub struct Snapshots {
    dir: PathBuf,
    group: GroupId,
    work: Work,
}

/// A snapshot that is whole on disk.
#[derive(Debug, Clone)]
pub struct SavedSnapshot {
    pub header: Header,
    pub file: PathBuf,
}

impl SavedSnapshot {
    /// How long its file is.
    pub fn bytes(&self) -> Result<u64, SnapshotError> {
        let length = fs::metadata(&self.file).map(|file| file.len());
        length.map_err(|source| SnapshotError::Read { file: self.file.clone(), source })
    }
}

impl Snapshots {
    /// Opens the folder and takes away what a crash left unfinished.
    pub fn open(dir: &Path, group: GroupId) -> Result<Snapshots, SnapshotError> {
        let snapshots = Snapshots { dir: dir.join(format!("group-{}", group.0)), group, work: Work::OnThreads };
        let cleaned = fs::create_dir_all(&snapshots.dir).and_then(|()| {
            let unfinished = snapshots.files(UNFINISHED_SUFFIX)?;
            unfinished.iter().try_for_each(fs::remove_file)
        });
        cleaned.map_err(|source| snapshots.write_error(source))?;
        Ok(snapshots)
    }

    /// The same, read and written where `work` says.
    pub fn working(self, work: Work) -> Snapshots {
        Snapshots { work, ..self }
    }

    /// Where its files are read and written.
    pub fn work(&self) -> Work {
        self.work
    }

    /// The newest snapshot, whose bytes have not been checked yet.
    pub fn newest(&self) -> Result<Option<SavedSnapshot>, SnapshotError> {
        let files = self.files(SUFFIX).map_err(|source| self.write_error(source))?;
        // The names start with the index as hexadecimal digits of one length, so that their order is the snapshots'.
        let Some(file) = files.into_iter().max() else {
            return Ok(None);
        };
        let (_, header) = self.reader(&file)?;
        self.belongs(&header, &file)?;
        Ok(Some(SavedSnapshot { header, file }))
    }

    /// Writes a snapshot.
    pub fn save(&self, header: Header, state: FrozenState) -> Result<SavedSnapshot, SnapshotError> {
        let file = self.file_of(&header);
        let unfinished = file.with_extension(UNFINISHED_SUFFIX);
        let write = || {
            let out = PacedFile::new(File::create(&unfinished)?);
            let mut writer = Writer::new(BufWriter::with_capacity(WRITE_BYTES, out), &header)?;
            state(&mut writer)?;
            let out = writer.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
            out.into_file().sync_all()
        };
        write().map_err(|source| self.write_error(source))?;
        self.name(&unfinished, &file)?;
        Ok(SavedSnapshot { header, file })
    }

    /// A new file for a snapshot that arrives from elsewhere.
    pub async fn receive(&self) -> Result<SnapshotFile, SnapshotError> {
        let path = self.dir.join(format!("{}.{UNFINISHED_SUFFIX}", uuid::Uuid::new_v4()));
        let mut options = File::options();
        options.read(true).write(true).create_new(true);
        let unfinished = UnfinishedFile(path.clone());
        let file = self.work.run(move || options.open(&path)).await.unwrap_or_else(go_on_panicking);
        let file = file.map_err(|source| self.write_error(source))?;
        Ok(SnapshotFile { file: WorkFile::new(self.work, file), content: Content::Arriving(unfinished) })
    }

    /// Writes down a snapshot that comes from an archive, checks all of it and gives it its name.
    pub fn import(&self, from: &mut dyn Read) -> Result<SavedSnapshot, SnapshotError> {
        let unfinished = UnfinishedFile(self.dir.join(format!("{}.{UNFINISHED_SUFFIX}", uuid::Uuid::new_v4())));
        let mut write = || io::copy(from, &mut File::create(&unfinished.0)?).map(drop);
        write().map_err(|source| self.write_error(source))?;
        let (_, header) = self.reader(&unfinished.0)?;
        self.accept(&unfinished.0, &header.meta())
    }

    /// Checks all of a snapshot that has arrived and should be `meta`, and gives it its name.
    fn accept(&self, path: &Path, meta: &SnapshotMeta) -> Result<SavedSnapshot, SnapshotError> {
        let (reader, header) = self.reader(path)?;
        reader.finish().map_err(|source| read_error(path, source))?;
        self.belongs(&header, path)?;
        if header.meta() != *meta {
            return Err(SnapshotError::Other { file: path.to_owned() });
        }
        let sync = || File::open(path)?.sync_all();
        sync().map_err(|source| self.write_error(source))?;
        let file = self.file_of(&header);
        self.name(path, &file)?;
        Ok(SavedSnapshot { header, file })
    }

    /// Hands a snapshot's state to `restore` and checks all of it.
    pub fn load(
        &self,
        saved: &SavedSnapshot,
        restore: impl FnOnce(&mut dyn Read) -> Result<(), MachineError>,
    ) -> Result<(), SnapshotError> {
        let file = &saved.file;
        let (mut reader, _) = self.reader(file)?;
        let restored = restore(&mut reader);
        // A damaged file is why the machine could not read it, so that is said first.
        reader.finish().map_err(|source| read_error(file, source))?;
        restored.map_err(|source| SnapshotError::Restore { file: file.clone(), source })
    }

    fn reader(&self, file: &Path) -> Result<(Reader<BufReader<File>>, Header), SnapshotError> {
        let open = || Reader::new(BufReader::new(File::open(file)?));
        open().map_err(|source| read_error(file, source))
    }

    fn belongs(&self, header: &Header, file: &Path) -> Result<(), SnapshotError> {
        let other = || SnapshotError::Other { file: file.to_owned() };
        if header.group == self.group.0 { Ok(()) } else { Err(other()) }
    }

    fn file_of(&self, header: &Header) -> PathBuf {
        let index = header.last.map_or(0, |last| last.index);
        self.dir.join(format!("{index:016x}-{}.{SUFFIX}", header.id))
    }

    /// Gives a written file its name, for good.
    fn name(&self, unfinished: &Path, file: &Path) -> Result<(), SnapshotError> {
        let name = || {
            fs::rename(unfinished, file)?;
            File::open(&self.dir)?.sync_all()
        };
        name().map_err(|source| self.write_error(source))
    }

    /// Takes away the snapshots before `file`.
    fn remove_before(&self, file: &Path) -> Result<(), SnapshotError> {
        let remove = || {
            let older = self.files(SUFFIX)?.into_iter().filter(|other| other.as_path() < file);
            older.into_iter().try_for_each(fs::remove_file)
        };
        remove().map_err(|source| self.write_error(source))
    }

    fn files(&self, suffix: &str) -> io::Result<Vec<PathBuf>> {
        let files = fs::read_dir(&self.dir)?.map(|file| file.map(|file| file.path()));
        files
            .filter(|file| file.as_ref().map_or(true, |file| file.extension().is_some_and(|it| it == suffix)))
            .collect()
    }

    fn write_error(&self, source: io::Error) -> SnapshotError {
        SnapshotError::Write { dir: self.dir.clone(), source }
    }
}

/// Work that is never cancelled ends early only by a panic.
fn go_on_panicking<T>(panic: tokio::task::JoinError) -> T {
    std::panic::resume_unwind(panic.into_panic())
}

fn read_error(file: &Path, source: io::Error) -> SnapshotError {
    let file = file.to_owned();
    match source.kind() {
        io::ErrorKind::InvalidData => SnapshotError::Damaged { file, source },
        _ => SnapshotError::Read { file, source },
    }
}

/// The newest snapshot of a running group. Older ones are taken away under its lock alone, so that none goes between the
/// moment in which it is the newest and the moment in which it is opened.
#[derive(Debug)]
pub struct Newest {
    snapshots: Snapshots,
    saved: Mutex<Option<SavedSnapshot>>,
}

impl Newest {
    pub fn new(snapshots: Snapshots, saved: Option<SavedSnapshot>) -> Newest {
        Newest { snapshots, saved: Mutex::new(saved) }
    }

    /// Makes `saved` the newest, unless a newer one came while it was written, and opens the one that is the newest.
    pub fn replace(&self, saved: SavedSnapshot) -> Result<(SavedSnapshot, SnapshotFile), SnapshotError> {
        let mut newest = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = match &mut *newest {
            Some(newer) if newer.header.last > saved.header.last => newer,
            older => {
                self.snapshots.remove_before(&saved.file)?;
                older.insert(saved)
            }
        };
        Ok((newest.clone(), SnapshotFile::open(newest, self.snapshots.work)?))
    }

    /// Opens the newest, if there is one.
    pub fn open(&self) -> Result<Option<(SavedSnapshot, SnapshotFile)>, SnapshotError> {
        let newest = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        newest.as_ref().map(|saved| Ok((saved.clone(), SnapshotFile::open(saved, self.snapshots.work)?))).transpose()
    }
}

/// A snapshot's bytes as they are sent and received.
#[derive(Debug)]
pub struct SnapshotFile {
    file: WorkFile,
    content: Content,
}

/// How far a snapshot's file is.
#[derive(Debug)]
enum Content {
    /// It arrives, and has no name yet.
    Arriving(UnfinishedFile),
    /// It is whole, checked and on disk under its name.
    Whole(SavedSnapshot),
}

/// A file that goes unless it gets a name.
#[derive(Debug)]
struct UnfinishedFile(PathBuf);

impl Drop for UnfinishedFile {
    fn drop(&mut self) {
        // It is not there once it has its name. If it cannot be removed, the next start does that.
        let _ = fs::remove_file(&self.0);
    }
}

impl SnapshotFile {
    /// Opens a saved snapshot to be sent.
    fn open(saved: &SavedSnapshot, work: Work) -> Result<SnapshotFile, SnapshotError> {
        match File::open(&saved.file) {
            Ok(file) => Ok(SnapshotFile { file: WorkFile::new(work, file), content: Content::Whole(saved.clone()) }),
            Err(source) => Err(SnapshotError::Read { file: saved.file.clone(), source }),
        }
    }

    /// The file itself, at its beginning.
    pub async fn into_file(self) -> std::fs::File {
        self.file.into_std().await
    }

    /// The file once all of it was checked, is the snapshot that `meta` says, and has its name.
    pub async fn accepted(self, snapshots: &Snapshots, meta: &SnapshotMeta) -> Result<SnapshotFile, SnapshotError> {
        let saved = self.saved(snapshots, meta).await?;
        SnapshotFile::open(&saved, snapshots.work)
    }

    /// The snapshot that has arrived in the file, checked and under its name.
    pub async fn saved(mut self, snapshots: &Snapshots, meta: &SnapshotMeta) -> Result<SavedSnapshot, SnapshotError> {
        let unfinished = match self.content {
            Content::Whole(saved) => return Ok(saved),
            Content::Arriving(unfinished) => unfinished,
        };
        if let Err(source) = self.file.flush().await {
            return Err(snapshots.write_error(source));
        }
        let (snapshots, meta) = (snapshots.clone(), meta.clone());
        let accept = snapshots.work.run(move || snapshots.accept(&unfinished.0, &meta));
        accept.await.unwrap_or_else(go_on_panicking)
    }
}

impl AsyncRead for SnapshotFile {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.file).poll_read(cx, buf)
    }
}

impl AsyncWrite for SnapshotFile {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.file).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.file).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.file).poll_shutdown(cx)
    }
}

impl AsyncSeek for SnapshotFile {
    fn start_seek(mut self: Pin<&mut Self>, position: io::SeekFrom) -> io::Result<()> {
        Pin::new(&mut self.file).start_seek(position)
    }

    fn poll_complete(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Pin::new(&mut self.file).poll_complete(cx)
    }
}
