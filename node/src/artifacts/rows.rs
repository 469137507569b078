//! How the store lies in RocksDB: a row of facts and a content for each blob, under keys that start with the workspace's name.

use caxton_proto::{Digest, WorkspaceId};
use rocksdb::DB;
use tracing::warn;

/// Keys of rows: small, so that asking what is there reads no content.
pub(super) const ROW: u8 = b'i';
/// Keys of contents.
pub(super) const BLOB: u8 = b'b';

pub(super) fn prefix(kind: u8, workspace: &WorkspaceId) -> Vec<u8> {
    let name = workspace.as_str().as_bytes();
    // The length goes first, so that no workspace's keys lie among another's.
    let mut key = vec![kind, name.len() as u8];
    key.extend_from_slice(name);
    key
}

pub(super) fn key(kind: u8, workspace: &WorkspaceId, digest: &Digest) -> Vec<u8> {
    let mut key = prefix(kind, workspace);
    key.extend_from_slice(digest.as_bytes());
    key
}

/// Behind every key with this prefix: one byte more than a digest has.
pub(super) fn prefix_end(kind: u8, workspace: &WorkspaceId) -> Vec<u8> {
    let mut key = prefix(kind, workspace);
    key.extend_from_slice(&[0xff; 33]);
    key
}

pub(super) fn workspace_of(key: &[u8]) -> Option<WorkspaceId> {
    let (length, rest) = key.strip_prefix(&[ROW])?.split_first()?;
    std::str::from_utf8(rest.get(..usize::from(*length))?).ok()?.parse().ok()
}

/// What is known of a blob without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) uploaded_ms: u64,
    pub(super) bytes: u32,
    /// A read found that the content is not what the digest names.
    pub(super) damaged: bool,
}

impl Row {
    pub(super) fn encode(&self) -> [u8; 13] {
        let mut row = [0; 13];
        row[..8].copy_from_slice(&self.uploaded_ms.to_be_bytes());
        row[8..12].copy_from_slice(&self.bytes.to_be_bytes());
        row[12] = u8::from(self.damaged);
        row
    }

    pub(super) fn decode(row: &[u8]) -> Option<Row> {
        let (uploaded_ms, rest) = row.split_first_chunk::<8>()?;
        let (bytes, rest) = rest.split_first_chunk::<4>()?;
        let uploaded_ms = u64::from_be_bytes(*uploaded_ms);
        Some(Row { uploaded_ms, bytes: u32::from_be_bytes(*bytes), damaged: rest != [0] })
    }
}

pub(super) fn rows(db: &DB, workspace: &WorkspaceId, digests: &[Digest]) -> Result<Vec<Option<Row>>, rocksdb::Error> {
    let keys = digests.iter().map(|digest| key(ROW, workspace, digest));
    db.multi_get(keys).into_iter().map(|row| Ok(row?.and_then(|row| Row::decode(&row)))).collect()
}

/// Shows every blob of a workspace, with its row.
pub(super) fn each(db: &DB, workspace: &WorkspaceId, mut show: impl FnMut(Digest, Row)) -> Result<(), rocksdb::Error> {
    let prefix = prefix(ROW, workspace);
    let mut rows = db.raw_iterator();
    rows.seek(&prefix);
    while let Some((key, row)) = rows.item() {
        let Some(digest) = key.strip_prefix(&*prefix) else { break };
        if let (Ok(digest), Some(row)) = (Digest::try_from(digest), Row::decode(row)) {
            show(digest, row);
        }
        rows.next();
    }
    rows.status()
}

/// Makes a damaged blob count as absent, so that the next upload replaces it. Best effort: the disk may be failing.
pub(super) fn mark_damaged(db: &DB, workspace: &WorkspaceId, digest: &Digest) {
    if let Ok(rows) = rows(db, workspace, &[*digest])
        && let Some(Some(row)) = rows.first()
        && !row.damaged
        && let Err(error) = db.put(key(ROW, workspace, digest), Row { damaged: true, ..*row }.encode())
    {
        warn!(%error, %workspace, %digest, "the damage could not be noted");
    }
}
