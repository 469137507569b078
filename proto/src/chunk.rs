//! Content-defined chunking: how a large file is cut, so that one changed byte means one changed chunk.
//!
//! The cut points are those of FastCDC (Xia et al., "The Design of Fast Content-Defined Chunking for Data
//! Deduplication Based Storage Systems", 2020). They are part of the format: changing one of the three sizes makes
//! every large file's chunks new.

use crate::digest::Digest;

/// No chunk but a file's last is smaller, in bytes.
pub const CHUNK_BYTES_MIN: usize = 16 << 10;
/// What a chunk has on average, in bytes.
pub const CHUNK_BYTES_AVERAGE: usize = 32 << 10;
/// No chunk is larger, in bytes; a file of at most this size is one blob and is not cut.
pub const CHUNK_BYTES_MAX: usize = 64 << 10;

/// One chunk of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// The chunk's name in the artifact store.
    pub digest: Digest,
    /// How many bytes it has, at most [`CHUNK_BYTES_MAX`].
    pub bytes: u32,
}

/// The bytes are not a chunk list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the chunk list is damaged")]
pub struct InvalidChunkList;

/// A file's chunks in order: what the blob that [`File::chunks`](crate::tree::File::chunks) names holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkList(pub Vec<Chunk>);

const TAG: &[u8] = b"caxton-chunks-1\n";
const ROW: usize = 36;

impl ChunkList {
    /// Cuts `content`, and gives each chunk with the range it covers.
    pub fn cut(content: &[u8]) -> (ChunkList, Vec<std::ops::Range<usize>>) {
        let cuts = fastcdc::v2020::FastCDC::new(
            content,
            CHUNK_BYTES_MIN as u32,
            CHUNK_BYTES_AVERAGE as u32,
            CHUNK_BYTES_MAX as u32,
        );
        let ranges: Vec<_> = cuts.map(|cut| cut.offset..cut.offset + cut.length).collect();
        let chunk = |range: &std::ops::Range<usize>| Chunk {
            digest: Digest::of(&content[range.clone()]),
            bytes: range.len() as u32,
        };
        (ChunkList(ranges.iter().map(chunk).collect()), ranges)
    }

    /// The size of the whole file, in bytes.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|chunk| u64::from(chunk.bytes)).sum()
    }

    /// The list as a blob: a tag, then 32 bytes of digest and 4 of length (big-endian) for each chunk.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(TAG.len() + self.0.len() * ROW);
        out.extend_from_slice(TAG);
        for chunk in &self.0 {
            out.extend_from_slice(chunk.digest.as_bytes());
            out.extend_from_slice(&chunk.bytes.to_be_bytes());
        }
        out
    }

    /// Reads what [`ChunkList::encode`] wrote.
    pub fn decode(blob: &[u8]) -> Result<ChunkList, InvalidChunkList> {
        let rows = blob.strip_prefix(TAG).ok_or(InvalidChunkList)?;
        if rows.len() % ROW != 0 {
            return Err(InvalidChunkList);
        }
        let row = |row: &[u8]| {
            let (digest, bytes) = row.split_at(32);
            let digest = Digest::try_from(digest).map_err(|_| InvalidChunkList)?;
            let bytes = u32::from_be_bytes(bytes.try_into().map_err(|_| InvalidChunkList)?);
            let fits = (1..=CHUNK_BYTES_MAX as u32).contains(&bytes);
            if fits { Ok(Chunk { digest, bytes }) } else { Err(InvalidChunkList) }
        };
        rows.chunks_exact(ROW).map(row).collect::<Result<_, _>>().map(ChunkList)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// Bytes that look random and are the same each time (xorshift64).
    fn noise(bytes: usize) -> Vec<u8> {
        let mut x = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x as u8
        };
        (0..bytes).map(|_| next()).collect()
    }

    #[test]
    fn one_changed_byte_in_20_mb_changes_less_than_200_kb_of_chunks() {
        let before = noise(20 << 20);
        let mut after = before.clone();
        after[10 << 20] ^= 1;
        let known: HashSet<_> = ChunkList::cut(&before).0.0.iter().map(|chunk| chunk.digest).collect();
        let (list, _) = ChunkList::cut(&after);
        let sent: u32 = list.0.iter().filter(|chunk| !known.contains(&chunk.digest)).map(|chunk| chunk.bytes).sum();
        assert!(sent > 0 && sent < 200_000, "{sent}");
        assert!(list.encode().len() < 40_000);
    }

    #[test]
    fn a_list_reads_back_as_it_was_written() {
        let content = noise(1 << 20);
        let (list, ranges) = ChunkList::cut(&content);
        assert_eq!(list.bytes(), content.len() as u64);
        assert_eq!(ranges.last().map(|range| range.end), Some(content.len()));
        assert_eq!(ChunkList::decode(&list.encode()), Ok(list));
    }

    #[test]
    fn a_damaged_list_is_refused() {
        let blob = ChunkList::cut(&noise(200_000)).0.encode();
        assert_eq!(ChunkList::decode(&blob[..blob.len() - 1]), Err(InvalidChunkList));
        assert_eq!(ChunkList::decode(&blob[1..]), Err(InvalidChunkList));
        let mut zero = blob.clone();
        let end = zero.len();
        zero[end - 4..].fill(0);
        assert_eq!(ChunkList::decode(&zero), Err(InvalidChunkList));
    }
}
