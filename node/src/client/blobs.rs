//! Artifacts and tree nodes over the wire: framed bodies of bounded size.
//!
//! A frame is the blob's digest (32 bytes), its length (4 bytes, big-endian) and its bytes. What comes in is checked
//! against its digest before anyone sees it.

use bytes::{BufMut, Bytes, BytesMut};
use caxton_proto::{Digest, WorkspaceId};

use super::{Client, ClientError, Retry};
use crate::api::{Digests, Missing, Stored};

/// The largest body of one upload, in bytes, unless a single blob is larger.
pub const UPLOAD_BYTES_MAX: usize = 8 << 20;
/// The most digests that one request names.
pub const DIGESTS_MAX: usize = 4096;
const FRAME_HEAD: usize = 36;

/// Blobs framed for the wire, in bodies of at most [`UPLOAD_BYTES_MAX`].
#[derive(Default)]
pub struct Frames {
    full: Vec<Bytes>,
    current: BytesMut,
}

impl Frames {
    /// Adds a blob.
    pub fn push(&mut self, digest: &Digest, blob: &[u8]) {
        if !self.current.is_empty() && self.current.len() + FRAME_HEAD + blob.len() > UPLOAD_BYTES_MAX {
            self.full.push(std::mem::take(&mut self.current).freeze());
        }
        self.current.reserve(FRAME_HEAD + blob.len());
        self.current.put_slice(digest.as_bytes());
        self.current.put_u32(blob.len() as u32);
        self.current.put_slice(blob);
    }

    /// A body that is full, if there is one.
    pub fn take_full(&mut self) -> Option<Bytes> {
        self.full.pop()
    }

    /// The last body.
    pub fn finish(self) -> Vec<Bytes> {
        let mut bodies = self.full;
        if !self.current.is_empty() {
            bodies.push(self.current.freeze());
        }
        bodies
    }
}

/// Reads frames; every blob has the digest that it came with.
fn read_frames(url: &str, mut body: &[u8]) -> Result<Vec<(Digest, Vec<u8>)>, ClientError> {
    let damaged = |body: &[u8]| ClientError::Damaged { url: url.to_owned(), left: body.len() };
    let mut blobs = Vec::new();
    while !body.is_empty() {
        let Some((head, rest)) = body.split_at_checked(FRAME_HEAD) else { return Err(damaged(body)) };
        let (digest, bytes) = head.split_at(32);
        let (Ok(digest), Ok(bytes)) = (Digest::try_from(digest), <[u8; 4]>::try_from(bytes)) else {
            return Err(damaged(body));
        };
        let Some((blob, rest)) = rest.split_at_checked(u32::from_be_bytes(bytes) as usize) else {
            return Err(damaged(body));
        };
        if Digest::of(blob) != digest {
            return Err(ClientError::Forged { url: url.to_owned(), digest });
        }
        blobs.push((digest, blob.to_vec()));
        body = rest;
    }
    Ok(blobs)
}

impl Client {
    /// Which of `digests` the server does not have.
    pub async fn missing(&self, workspace: &WorkspaceId, digests: &[Digest]) -> Result<Vec<Digest>, ClientError> {
        let path = format!("/api/v1/workspaces/{workspace}/artifacts/missing");
        let mut all = Vec::new();
        for part in digests.chunks(DIGESTS_MAX) {
            let body = Digests { digests: part.to_vec() };
            let Missing { missing } = self.post(&path, &body, Retry::Once).await?;
            all.extend(missing);
        }
        Ok(all)
    }

    /// Stores the blobs of a framed body.
    pub async fn upload(&self, workspace: &WorkspaceId, body: Bytes) -> Result<Stored, ClientError> {
        self.put(&format!("/api/v1/workspaces/{workspace}/artifacts"), body).await
    }

    /// The blobs of `digests`, in any order.
    pub async fn fetch(
        &self,
        workspace: &WorkspaceId,
        digests: &[Digest],
    ) -> Result<Vec<(Digest, Vec<u8>)>, ClientError> {
        self.framed(&format!("/api/v1/workspaces/{workspace}/artifacts/fetch"), digests).await
    }

    /// The tree nodes of `digests`, in the same order.
    pub async fn nodes(&self, workspace: &WorkspaceId, digests: &[Digest]) -> Result<Vec<Vec<u8>>, ClientError> {
        let path = format!("/api/v1/workspaces/{workspace}/tree/nodes");
        let mut found: std::collections::HashMap<Digest, Vec<u8>> = Default::default();
        for part in digests.chunks(DIGESTS_MAX) {
            found.extend(self.framed(&path, part).await?);
        }
        let node = |digest: &Digest| {
            found.remove(digest).ok_or_else(|| ClientError::Withheld { url: self.url.clone(), digest: *digest })
        };
        digests.iter().map(node).collect()
    }

    async fn framed(&self, path: &str, digests: &[Digest]) -> Result<Vec<(Digest, Vec<u8>)>, ClientError> {
        let body = Digests { digests: digests.to_vec() };
        let answer = self.send(self.request(http::Method::POST, path).json(&body), Retry::Once).await?;
        let body = answer.bytes().await.map_err(|error| self.failed(error))?;
        read_frames(&self.url, &body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(blobs: &[&[u8]]) -> Vec<Bytes> {
        let mut frames = Frames::default();
        blobs.iter().for_each(|blob| frames.push(&Digest::of(blob), blob));
        frames.finish()
    }

    #[test]
    fn frames_read_back_and_bodies_stay_small() {
        let bodies = framed(&[b"one", b"", &vec![7; UPLOAD_BYTES_MAX - 200], b"four", &vec![9; 300]]);
        assert_eq!(bodies.len(), 2);
        let read: Vec<_> = bodies.iter().flat_map(|body| read_frames("x", body).expect("whole frames")).collect();
        assert_eq!(read.len(), 5);
        assert_eq!(read[3].1, b"four");
    }

    #[test]
    fn a_frame_that_was_cut_or_changed_is_refused() {
        let body = framed(&[b"one"]).remove(0);
        assert!(matches!(read_frames("x", &body[..body.len() - 1]), Err(ClientError::Damaged { .. })));
        assert!(matches!(read_frames("x", &body[..20]), Err(ClientError::Damaged { .. })));
        let mut changed = body.to_vec();
        changed[FRAME_HEAD] ^= 1;
        assert!(matches!(read_frames("x", &changed), Err(ClientError::Forged { .. })));
    }
}
