//! A reader that knows the digest of what was read of it.

use std::io::{self, Read};

use sha2::{Digest, Sha256};

/// Reads on, and knows the digest of what was read.
pub(super) struct Digesting<R> {
    from: R,
    sha: Sha256,
    bytes: u64,
}

impl<R: Read> Digesting<R> {
    pub(super) fn new(from: R) -> Digesting<R> {
        Digesting { from, sha: Sha256::new(), bytes: 0 }
    }

    /// How many bytes were read, and their digest.
    pub(super) fn finish(self) -> (u64, [u8; 32]) {
        (self.bytes, self.sha.finalize().into())
    }
}

impl<R: Read> Read for Digesting<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let bytes = self.from.read(out)?;
        self.sha.update(&out[..bytes]);
        self.bytes += bytes as u64;
        Ok(bytes)
    }
}
