//! Artifacts and tree nodes over the wire, in framed bodies of bounded size ([`frame`](crate::api::frame)).
//!
//! What comes in is checked against its digest before anyone sees it.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use caxton_proto::{Digest, WorkspaceId};
use http::Method;
use http::header::ACCEPT;

use super::{Client, ClientError, Retry};
use crate::api::frame::{self, DIGESTS_MAX, HEAD_BYTES};
use crate::api::paths;
use crate::api::{Digests, Missing, StoredBlobs};

/// The largest body of one upload, in bytes: small enough to be sent again without regret.
pub const BODY_BYTES_MAX: usize = 8 << 20;

/// Blobs framed for the wire, in bodies of at most [`BODY_BYTES_MAX`].
#[derive(Default)]
pub struct Bodies {
    current: BytesMut,
}

impl Bodies {
    /// Adds a blob; gives the body before it when that one is full.
    pub fn push(&mut self, digest: &Digest, blob: &[u8]) -> Option<Bytes> {
        let bytes = HEAD_BYTES + blob.len();
        let full = !self.current.is_empty() && self.current.len() + bytes > BODY_BYTES_MAX;
        let body = full.then(|| std::mem::take(&mut self.current).freeze());
        self.current.reserve(bytes);
        frame::push(&mut self.current, digest, blob);
        body
    }

    /// The last body, unless it is empty.
    pub fn finish(self) -> Option<Bytes> {
        (!self.current.is_empty()).then(|| self.current.freeze())
    }
}

impl Client {
    /// Which of `digests` the server does not have.
    pub async fn missing(&self, workspace: &WorkspaceId, digests: &[Digest]) -> Result<Vec<Digest>, ClientError> {
        let path = paths::ARTIFACTS_MISSING.with([workspace.as_str()]);
        let mut all = Vec::new();
        for part in digests.chunks(DIGESTS_MAX) {
            let body = Digests { digests: part.to_vec() };
            let Missing { missing } = self.post(&path, &body, Retry::Once).await?;
            all.extend(missing);
        }
        Ok(all)
    }

    /// Stores the blobs of a framed body. Sent again, it stores the same.
    pub async fn upload(&self, workspace: &WorkspaceId, body: Bytes) -> Result<StoredBlobs, ClientError> {
        let path = paths::ARTIFACTS.with([workspace.as_str()]);
        self.json(self.with_body(self.request(Method::PUT, &path), frame::MEDIA_TYPE, body), Retry::Once).await
    }

    /// The blobs of `digests`, in the same order.
    pub async fn fetch(&self, workspace: &WorkspaceId, digests: &[Digest]) -> Result<Vec<Bytes>, ClientError> {
        self.framed(&paths::ARTIFACTS_FETCH.with([workspace.as_str()]), digests).await
    }

    /// The tree nodes of `digests`, in the same order.
    pub async fn nodes(&self, workspace: &WorkspaceId, digests: &[Digest]) -> Result<Vec<Bytes>, ClientError> {
        self.framed(&paths::TREE_NODES.with([workspace.as_str()]), digests).await
    }

    async fn framed(&self, path: &str, digests: &[Digest]) -> Result<Vec<Bytes>, ClientError> {
        let mut found = HashMap::new();
        for part in digests.chunks(DIGESTS_MAX) {
            let body = Digests { digests: part.to_vec() };
            let request = self.request(Method::POST, path).header(ACCEPT, frame::MEDIA_TYPE);
            let answer = self.send(self.with_json(request, &body)?, Retry::Once).await?;
            let body = answer.bytes().await.map_err(|error| self.failed(error))?;
            let blobs = frame::decode(&body);
            found.extend(blobs.map_err(|source| ClientError::Damaged { url: self.url.clone(), source })?);
        }
        // A digest may be asked for twice, so the blob stays.
        let blob = |digest: &Digest| {
            let withheld = || ClientError::Withheld { url: self.url.clone(), digest: *digest };
            found.get(digest).cloned().ok_or_else(withheld)
        };
        digests.iter().map(blob).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_stay_small_and_lose_nothing() {
        let large = vec![7; 1 << 20];
        let mut bodies = Bodies::default();
        let mut sent: Vec<Bytes> = (0..10).filter_map(|_| bodies.push(&Digest::of(&large), &large)).collect();
        sent.extend(bodies.push(&Digest::of(b""), b""));
        sent.extend(bodies.finish());
        assert_eq!(sent.len(), 2);
        assert!(sent.iter().all(|body| body.len() <= BODY_BYTES_MAX));
        let blobs: usize = sent.iter().map(|body| frame::decode(body).expect("whole frames").len()).sum();
        assert_eq!(blobs, 11);
        assert!(Bodies::default().finish().is_none());
    }
}
