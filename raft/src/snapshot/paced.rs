//! A file that is written at half of what the disk and a core can do, and synced as it grows. Written and synced at once, a
//! long snapshot keeps the fsyncs of the log waiting for as long as the disk takes for all of it.

use std::fs::File;
use std::io::{self, Write};
use std::thread;
use std::time::Instant;

/// So much is written before it is synced, in bytes.
const STEP_BYTES: usize = 1 << 20;

/// A file, and how far into its step it is.
pub struct PacedFile {
    file: File,
    bytes: usize,
    began: Instant,
}

impl PacedFile {
    pub fn new(file: File) -> PacedFile {
        PacedFile { file, bytes: 0, began: Instant::now() }
    }

    /// The file itself.
    pub fn into_file(self) -> File {
        self.file
    }
}

impl Write for PacedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.bytes += written;
        if self.bytes >= STEP_BYTES {
            self.file.sync_data()?;
            // As long as making, writing and syncing the step took.
            thread::sleep(self.began.elapsed());
            (self.bytes, self.began) = (0, Instant::now());
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
