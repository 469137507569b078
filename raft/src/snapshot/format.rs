//! A snapshot's bytes, the same on disk and on the wire: a header, the state in chunks, and an end. The header and each
//! chunk have a CRC-32, so that no damaged byte reaches a machine; the end has the SHA-256 of everything, so that
//! nothing is missing or from elsewhere.

use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};

use crate::codec::{self, Fields};
use crate::types::{LogId, SnapshotMeta, StoredMembership};

const MAGIC: &[u8; 8] = b"CXSNAP1\n";
const CHUNK_BYTES: usize = 64 << 10;
const HEADER_BYTES_MAX: usize = 1 << 20;
const SHA_BYTES: usize = 32;

/// What a snapshot is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub group: u32,
    pub id: String,
    pub last: Option<LogId>,
    pub membership: StoredMembership,
    /// The index of the last command in it.
    pub commands: u64,
}

impl Header {
    pub fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.last, last_membership: self.membership.clone(), snapshot_id: self.id.clone() }
    }

    fn encode(&self) -> Vec<u8> {
        codec::seal(MAGIC, |out| {
            out.extend(u64::from(self.group).to_le_bytes());
            codec::put_text(out, &self.id);
            codec::put_optional_log_id(out, self.last.as_ref());
            codec::put_stored_membership(out, &self.membership);
            out.extend(self.commands.to_le_bytes());
        })
    }

    fn decode(bytes: &[u8]) -> Result<Header, codec::Damage> {
        let mut fields: Fields = codec::unseal(MAGIC, bytes)?;
        let header = Header {
            group: u32::try_from(fields.u64()?).map_err(|_| codec::Damage::Shape)?,
            id: codec::take_text(&mut fields)?,
            last: codec::take_optional_log_id(&mut fields)?,
            membership: codec::take_stored_membership(&mut fields)?,
            commands: fields.u64()?,
        };
        fields.end()?;
        Ok(header)
    }
}

/// Cuts what is written into chunks.
pub struct Writer<W: Write> {
    out: W,
    sha: Sha256,
    chunk: Vec<u8>,
}

impl<W: Write> Writer<W> {
    pub fn new(mut out: W, header: &Header) -> io::Result<Self> {
        let header = header.encode();
        let mut sha = Sha256::new();
        for part in [MAGIC.as_slice(), &(header.len() as u32).to_le_bytes(), &header] {
            out.write_all(part)?;
            sha.update(part);
        }
        Ok(Self { out, sha, chunk: Vec::with_capacity(CHUNK_BYTES) })
    }

    /// Writes the end and hands the file back.
    pub fn finish(mut self) -> io::Result<W> {
        self.put_chunk()?;
        self.out.write_all(&0u32.to_le_bytes())?;
        self.out.write_all(&self.sha.finalize())?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn put_chunk(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        self.sha.update(&self.chunk);
        self.out.write_all(&(self.chunk.len() as u32).to_le_bytes())?;
        self.out.write_all(&crc32fast::hash(&self.chunk).to_le_bytes())?;
        self.out.write_all(&self.chunk)?;
        self.chunk.clear();
        Ok(())
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = CHUNK_BYTES - self.chunk.len();
        let taken = &bytes[..bytes.len().min(room)];
        self.chunk.extend_from_slice(taken);
        if self.chunk.len() == CHUNK_BYTES {
            self.put_chunk()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Joins the chunks again and checks each before it hands it out.
pub struct Reader<R: Read> {
    from: R,
    sha: Sha256,
    chunk: Vec<u8>,
    at: usize,
    ended: bool,
}

impl<R: Read> Reader<R> {
    pub fn new(mut from: R) -> io::Result<(Self, Header)> {
        let mut sha = Sha256::new();
        let mut magic = [0; MAGIC.len()];
        read_exact(&mut from, &mut magic)?;
        if magic != *MAGIC {
            return Err(damaged("it does not start like a snapshot"));
        }
        let mut len = [0; 4];
        read_exact(&mut from, &mut len)?;
        let bytes = u32::from_le_bytes(len) as usize;
        if bytes > HEADER_BYTES_MAX {
            return Err(damaged("its header is too long"));
        }
        let mut header = vec![0; bytes];
        read_exact(&mut from, &mut header)?;
        for part in [magic.as_slice(), &len, &header] {
            sha.update(part);
        }
        let header = Header::decode(&header).map_err(|damage| damaged(&format!("its header: {damage}")))?;
        Ok((Self { from, sha, chunk: Vec::new(), at: 0, ended: false }, header))
    }

    /// Reads what is left, so that everything has been checked.
    pub fn finish(mut self) -> io::Result<()> {
        io::copy(&mut self, &mut io::sink()).map(drop)
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        let mut len = [0; 4];
        read_exact(&mut self.from, &mut len)?;
        let bytes = u32::from_le_bytes(len) as usize;
        if bytes == 0 {
            return self.end();
        }
        if bytes > CHUNK_BYTES {
            return Err(damaged("a chunk is too long"));
        }
        let mut sum = [0; 4];
        read_exact(&mut self.from, &mut sum)?;
        self.chunk.resize(bytes, 0);
        self.at = 0;
        read_exact(&mut self.from, &mut self.chunk)?;
        if crc32fast::hash(&self.chunk) != u32::from_le_bytes(sum) {
            return Err(damaged("the checksum of a chunk does not match"));
        }
        self.sha.update(&self.chunk);
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        let mut sha = [0; SHA_BYTES];
        read_exact(&mut self.from, &mut sha)?;
        if sha != *self.sha.clone().finalize() {
            return Err(damaged("the checksum of the whole does not match"));
        }
        if self.from.read(&mut [0])? != 0 {
            return Err(damaged("something follows its end"));
        }
        self.chunk.clear();
        self.at = 0;
        self.ended = true;
        Ok(())
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() && !self.ended {
            self.next_chunk()?;
        }
        let ready = &self.chunk[self.at..];
        let taken = ready.len().min(out.len());
        out[..taken].copy_from_slice(&ready[..taken]);
        self.at += taken;
        Ok(taken)
    }
}

fn read_exact(from: &mut impl Read, out: &mut [u8]) -> io::Result<()> {
    from.read_exact(out).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged("it ends too early"),
        _ => error,
    })
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header { group: 7, id: "x".into(), last: None, membership: StoredMembership::default(), commands: 3 }
    }

    fn written(state: &[u8]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new(), &header()).unwrap();
        writer.write_all(state).unwrap();
        writer.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let (mut reader, found) = Reader::new(bytes)?;
        assert_eq!(found, header());
        let mut state = Vec::new();
        reader.read_to_end(&mut state)?;
        reader.finish()?;
        Ok(state)
    }

    #[test]
    fn states_of_any_length_read_back() {
        for len in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES] {
            let state: Vec<u8> = (0..len).map(|at| at as u8).collect();
            assert_eq!(read(&written(&state)).unwrap(), state);
        }
    }

    #[test]
    fn a_flipped_bit_a_cut_and_an_addition_are_noticed() {
        let good = written(b"the state");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&bad).is_err(), "bit {bit}");
        }
        for len in 0..good.len() {
            assert!(read(&good[..len]).is_err(), "{len} bytes");
        }
        assert!(read(&[good.as_slice(), b"!"].concat()).is_err());
    }

    #[test]
    fn chunks_that_changed_places_are_noticed() {
        let state: Vec<u8> = (0..2 * CHUNK_BYTES).map(|at| (at / CHUNK_BYTES) as u8).collect();
        let mut bytes = written(&state);
        let start = bytes.len() - SHA_BYTES - 4 - 2 * (8 + CHUNK_BYTES);
        let (first, second) = bytes[start..][..2 * (8 + CHUNK_BYTES)].split_at_mut(8 + CHUNK_BYTES);
        first.swap_with_slice(second);
        assert!(read(&bytes).unwrap_err().to_string().contains("the whole"));
    }
}
