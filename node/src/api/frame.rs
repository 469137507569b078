//! How blobs stand in a body: 32 bytes of SHA-256, 4 bytes of length (big-endian), the blob, and the next one.
//!
//! The same frame carries uploads, fetched artifacts and tree nodes. A reader checks each blob against its digest
//! before it hands it out, so what came through a [`Decoder`] is what was named.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use caxton_proto::Digest;

/// The `Content-Type` of a framed body.
pub const MEDIA_TYPE: &str = "application/vnd.caxton.blobs";
/// The largest blob, in bytes: a chunk has 64 KiB, and the chunk list of a 512 MiB file still fits.
pub const BLOB_BYTES_MAX: usize = 1 << 20;
/// The largest framed body that a server takes, in bytes; a client with more to send sends several.
pub const UPLOAD_BYTES_MAX: usize = 32 << 20;
/// The most digests in one [`Digests`](super::Digests), and the most that an `artifacts_missing` error lists.
pub const DIGESTS_MAX: usize = 4_096;
/// What stands before each blob, in bytes.
pub const HEAD_BYTES: usize = 36;

/// Why a framed body is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The body ends inside a frame.
    #[error("the body ends in the middle of a blob, {missing} bytes before its end")]
    Truncated {
        /// How many bytes are missing, as far as is known.
        missing: usize,
    },
    /// A frame announces more than [`BLOB_BYTES_MAX`].
    #[error("the blob {digest} would have {bytes} bytes, and {BLOB_BYTES_MAX} is the most")]
    TooLarge {
        /// The digest of the blob.
        digest: Digest,
        /// Its announced size.
        bytes: u32,
    },
    /// The blob's content is not what its digest names.
    #[error("a blob was sent as {digest}, and its content has the digest {found}")]
    Mismatch {
        /// What it was sent as.
        digest: Digest,
        /// What it is.
        found: Digest,
    },
}

/// Appends a frame to `out`. A blob has at most [`BLOB_BYTES_MAX`] bytes.
pub fn push(out: &mut impl BufMut, digest: &Digest, blob: &[u8]) {
    out.put_slice(digest.as_bytes());
    out.put_u32(blob.len() as u32);
    out.put_slice(blob);
}

/// Takes a body in pieces of any size and gives its blobs, each checked.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// Takes the next piece of the body.
    pub fn feed(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next blob; `None` when more of the body is needed.
    pub fn next_blob(&mut self) -> Result<Option<(Digest, Bytes)>, FrameError> {
        let Some((digest, bytes)) = self.head() else { return Ok(None) };
        if bytes as usize > BLOB_BYTES_MAX {
            return Err(FrameError::TooLarge { digest, bytes });
        }
        if self.buffer.len() < HEAD_BYTES + bytes as usize {
            self.buffer.reserve(HEAD_BYTES + bytes as usize - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(HEAD_BYTES);
        // Copied, so that one small blob that is kept does not keep its whole body in memory.
        let blob = Bytes::copy_from_slice(&self.buffer.split_to(bytes as usize));
        let found = Digest::of(&blob);
        if found != digest {
            return Err(FrameError::Mismatch { digest, found });
        }
        Ok(Some((digest, blob)))
    }

    /// Says that the body has ended; what is left over is half a frame.
    pub fn finish(self) -> Result<(), FrameError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let whole = self.head().map_or(HEAD_BYTES, |(_, bytes)| HEAD_BYTES + bytes as usize);
        Err(FrameError::Truncated { missing: whole.saturating_sub(self.buffer.len()) })
    }

    fn head(&self) -> Option<(Digest, u32)> {
        let (digest, rest) = self.buffer.split_first_chunk::<32>()?;
        let bytes = rest.first_chunk::<4>()?;
        Some((Digest::from_bytes(*digest), u32::from_be_bytes(*bytes)))
    }
}

/// Reads a whole body that is at hand.
pub fn decode(body: &[u8]) -> Result<Vec<(Digest, Bytes)>, FrameError> {
    let mut decoder = Decoder::default();
    decoder.feed(body);
    let mut blobs = Vec::new();
    while let Some(blob) = decoder.next_blob()? {
        blobs.push(blob);
    }
    decoder.finish()?;
    Ok(blobs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn body(blobs: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        blobs.iter().for_each(|blob| push(&mut out, &Digest::of(blob), blob));
        out
    }

    #[test]
    fn a_body_that_ends_early_says_how_much_is_missing() {
        let whole = body(&[b"one".to_vec(), b"three".to_vec()]);
        assert_eq!(decode(&whole[..whole.len() - 2]), Err(FrameError::Truncated { missing: 2 }));
        assert_eq!(decode(&whole[..10]), Err(FrameError::Truncated { missing: 26 }));
        assert_eq!(decode(&[]), Ok(vec![]));
    }

    #[test]
    fn a_blob_under_a_wrong_name_is_refused_and_named() {
        let mut out = Vec::new();
        push(&mut out, &Digest::of(b"a"), b"b");
        let (digest, found) = (Digest::of(b"a"), Digest::of(b"b"));
        assert_eq!(decode(&out), Err(FrameError::Mismatch { digest, found }));
    }

    #[test]
    fn an_enormous_blob_is_refused_at_its_head() {
        let mut out = Digest::of(b"").as_bytes().to_vec();
        out.extend_from_slice(&u32::MAX.to_be_bytes());
        assert!(matches!(decode(&out), Err(FrameError::TooLarge { bytes: u32::MAX, .. })));
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_give_the_same_blobs(
            blobs in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..8),
            piece in 1usize..64,
        ) {
            let mut decoder = Decoder::default();
            let mut read = Vec::new();
            for piece in body(&blobs).chunks(piece) {
                decoder.feed(piece);
                while let Some((_, blob)) = decoder.next_blob().expect("a whole frame") {
                    read.push(blob.to_vec());
                }
            }
            prop_assert_eq!(decoder.finish(), Ok(()));
            prop_assert_eq!(read, blobs);
        }
    }
}
