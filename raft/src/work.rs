//! Where work goes that blocks: to a thread for it. In a simulation it is done on the spot, because threads finish in an
//! order that no seed decides.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncSeek, AsyncWrite, ReadBuf};
use tokio::task::{JoinError, spawn_blocking};

/// Who does what blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// A thread for it.
    OnThreads,
    /// Whoever asks, before going on.
    OnTheSpot,
}

impl Work {
    /// Does it. The error says that it panicked.
    pub async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
        match self {
            Work::OnThreads => spawn_blocking(work).await,
            Work::OnTheSpot => Ok(work()),
        }
    }
}

/// A file whose reads and writes are such work.
#[derive(Debug)]
pub enum WorkFile {
    OnThreads(tokio::fs::File),
    OnTheSpot(File),
}

impl WorkFile {
    pub fn new(work: Work, file: File) -> WorkFile {
        match work {
            Work::OnThreads => WorkFile::OnThreads(file.into()),
            Work::OnTheSpot => WorkFile::OnTheSpot(file),
        }
    }

    /// The file itself, once what was under way is done.
    pub async fn into_std(self) -> File {
        match self {
            WorkFile::OnThreads(file) => file.into_std().await,
            WorkFile::OnTheSpot(file) => file,
        }
    }
}

impl AsyncRead for WorkFile {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            WorkFile::OnThreads(file) => Pin::new(file).poll_read(cx, buf),
            WorkFile::OnTheSpot(file) => {
                Poll::Ready(file.read(buf.initialize_unfilled()).map(|bytes| buf.advance(bytes)))
            }
        }
    }
}

impl AsyncWrite for WorkFile {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            WorkFile::OnThreads(file) => Pin::new(file).poll_write(cx, bytes),
            WorkFile::OnTheSpot(file) => Poll::Ready(file.write(bytes)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            WorkFile::OnThreads(file) => Pin::new(file).poll_flush(cx),
            WorkFile::OnTheSpot(file) => Poll::Ready(file.flush()),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            WorkFile::OnThreads(file) => Pin::new(file).poll_shutdown(cx),
            WorkFile::OnTheSpot(file) => Poll::Ready(file.flush()),
        }
    }
}

impl AsyncSeek for WorkFile {
    fn start_seek(self: Pin<&mut Self>, position: io::SeekFrom) -> io::Result<()> {
        match self.get_mut() {
            WorkFile::OnThreads(file) => Pin::new(file).start_seek(position),
            WorkFile::OnTheSpot(file) => file.seek(position).map(drop),
        }
    }

    fn poll_complete(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        match self.get_mut() {
            WorkFile::OnThreads(file) => Pin::new(file).poll_complete(cx),
            WorkFile::OnTheSpot(file) => Poll::Ready(file.stream_position()),
        }
    }
}
