//! A snapshot of the deploy log's state as a series of records, so that neither side ever holds it whole.

use std::io::{self, Read, Write};
use std::num::NonZeroU32;
use std::sync::Arc;

use prost::Message;

use super::cluster::{count, raised};
use super::convert::workspace;
use super::pb::{self, snapshot_record::Body};
use super::{DecodeError, field, known};
use crate::log::cluster::{JoinToken, Member, Retirement, RotatedKey};
use crate::log::{Deployment, Secret, Token, WorkspaceDeletion};
use crate::{Format, NodeId, Revision, WorkspaceId};

/// The most bytes of one record: far above what the limits of a command allow.
const RECORD_BYTES_MAX: u64 = 1 << 20;

/// One record of a snapshot. The deployments of a workspace follow it, from the oldest to the newest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotRecord {
    /// A workspace, in front of its deployments.
    Workspace {
        /// The workspace's name.
        id: WorkspaceId,
        /// Its newest revision.
        live: Revision,
        /// The oldest revision whose content is kept.
        oldest_kept: Revision,
        /// The oldest revision whose idempotency key still counts.
        oldest_key: Revision,
    },
    /// A deployment of the workspace before it.
    Deployment(Arc<Deployment>),
    /// A token, with whoever revoked it.
    Token(Token),
    /// A workspace's secret, sealed.
    Secret(Secret),
    /// A workspace that was deleted.
    Deletion(WorkspaceDeletion),
    /// A token by which nodes join.
    JoinToken(JoinToken),
    /// A node of the cluster.
    Member(Member),
    /// A node that is not to come back.
    Departed {
        /// The node that was taken out.
        node: NodeId,
        /// When it was removed, in milliseconds since 1970.
        time_ms: u64,
    },
    /// The node that is being taken out, if there is one.
    Retirement(Retirement),
    /// How many shards the cluster has; absent where nobody ever said so.
    Shards(NonZeroU32),
    /// A key that was rotated.
    RotatedKey(RotatedKey),
    /// The format in which nodes write; absent while it is the first.
    Format(Format),
}

/// Writes a snapshot.
pub struct SnapshotWriter<'a> {
    out: &'a mut dyn Write,
    records: u64,
    buffer: Vec<u8>,
}

impl<'a> SnapshotWriter<'a> {
    /// Begins a snapshot of everything up to the index `applied`, for readers of `format`; `forgotten` is the index of the
    /// newest deployment that has been forgotten.
    pub fn new(out: &'a mut dyn Write, format: Format, applied: u64, forgotten: u64) -> io::Result<Self> {
        let mut writer = Self { out, records: 0, buffer: Vec::new() };
        writer.put(Body::Header(pb::SnapshotHeader { version: format.number(), applied, forgotten }))?;
        Ok(writer)
    }

    /// Adds a record.
    pub fn write(&mut self, record: &SnapshotRecord) -> io::Result<()> {
        self.put(match record {
            SnapshotRecord::Workspace { id, live, oldest_kept, oldest_key } => Body::Workspace(pb::SnapshotWorkspace {
                id: id.to_string(),
                live: live.0,
                oldest_kept: oldest_kept.0,
                oldest_key: oldest_key.0,
            }),
            SnapshotRecord::Deployment(deployment) => Body::Deployment((&**deployment).into()),
            SnapshotRecord::Token(token) => Body::Token(token.into()),
            SnapshotRecord::Secret(secret) => Body::Secret(secret.into()),
            SnapshotRecord::Deletion(deletion) => Body::Deletion(deletion.into()),
            SnapshotRecord::JoinToken(token) => Body::JoinToken(token.into()),
            SnapshotRecord::Member(member) => Body::Member(member.into()),
            SnapshotRecord::Departed { node, time_ms } => {
                Body::Departed(pb::Departed { node: node.0, time_ms: *time_ms })
            }
            SnapshotRecord::Retirement(retirement) => Body::Retirement(retirement.into()),
            SnapshotRecord::Shards(count) => Body::Shards(pb::Shards { count: count.get() }),
            SnapshotRecord::RotatedKey(key) => Body::RotatedKey(key.into()),
            SnapshotRecord::Format(format) => Body::Format(pb::FormatInForce { format: format.number() }),
        })
    }

    /// Ends the snapshot. One that was not ended does not read back.
    pub fn finish(mut self) -> io::Result<()> {
        let records = self.records;
        self.put(Body::End(pb::SnapshotEnd { records }))?;
        self.out.flush()
    }

    fn put(&mut self, body: Body) -> io::Result<()> {
        self.buffer.clear();
        let record = pb::SnapshotRecord { body: Some(body) };
        record.encode_length_delimited(&mut self.buffer).map_err(io::Error::other)?;
        self.out.write_all(&self.buffer)?;
        self.records += 1;
        Ok(())
    }
}

/// Reads a snapshot.
pub struct SnapshotReader<'a> {
    from: &'a mut dyn Read,
    applied: u64,
    forgotten: u64,
    records: u64,
    buffer: Vec<u8>,
}

impl<'a> SnapshotReader<'a> {
    /// Reads a snapshot's header.
    pub fn new(from: &'a mut dyn Read) -> Result<Self, DecodeError> {
        let mut reader = Self { from, applied: 0, forgotten: 0, records: 0, buffer: Vec::new() };
        let Body::Header(header) = reader.take()? else {
            return Err(DecodeError::Order { what: "the header is not first" });
        };
        known(header.version)?;
        (reader.applied, reader.forgotten) = (header.applied, header.forgotten);
        Ok(reader)
    }

    /// The index of the last command in the snapshot.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// The index of the newest deployment that has been forgotten.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// The next record, or nothing at the snapshot's end.
    pub fn next_record(&mut self) -> Result<Option<SnapshotRecord>, DecodeError> {
        let before = self.records;
        Ok(Some(match self.take()? {
            Body::Header(_) => return Err(DecodeError::Order { what: "a second header" }),
            Body::Workspace(pb::SnapshotWorkspace { id, live, oldest_kept, oldest_key }) => SnapshotRecord::Workspace {
                id: workspace(id)?,
                live: Revision(live),
                oldest_kept: Revision(oldest_kept),
                oldest_key: Revision(oldest_key),
            },
            Body::Deployment(deployment) => SnapshotRecord::Deployment(Arc::new(deployment.try_into()?)),
            Body::Token(token) => SnapshotRecord::Token(token.try_into()?),
            Body::Secret(secret) => SnapshotRecord::Secret(secret.try_into()?),
            Body::Deletion(deletion) => SnapshotRecord::Deletion(deletion.try_into()?),
            Body::JoinToken(token) => SnapshotRecord::JoinToken(token.try_into()?),
            Body::Member(member) => SnapshotRecord::Member(member.try_into()?),
            Body::RotatedKey(key) => SnapshotRecord::RotatedKey(key.try_into()?),
            Body::Departed(pb::Departed { node, time_ms }) => SnapshotRecord::Departed { node: NodeId(node), time_ms },
            Body::Retirement(retirement) => SnapshotRecord::Retirement(retirement.into()),
            Body::Shards(shards) => SnapshotRecord::Shards(count(shards)?),
            Body::Format(pb::FormatInForce { format }) => SnapshotRecord::Format(raised(format)?),
            Body::End(pb::SnapshotEnd { records }) if records == before => return Ok(None),
            Body::End(_) => return Err(DecodeError::Order { what: "the end counts other records" }),
        }))
    }

    fn take(&mut self) -> Result<Body, DecodeError> {
        let len = self.length()?;
        if len > RECORD_BYTES_MAX {
            return Err(DecodeError::Order { what: "a record is longer than one may be" });
        }
        self.buffer.resize(len as usize, 0);
        self.from.read_exact(&mut self.buffer)?;
        self.records += 1;
        pb::SnapshotRecord::decode(self.buffer.as_slice())?.body.ok_or(field("body"))
    }

    fn length(&mut self) -> Result<u64, DecodeError> {
        let mut len = 0;
        for shift in (0..35).step_by(7) {
            let mut byte = [0];
            self.from.read_exact(&mut byte)?;
            len |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] & 0x80 == 0 {
                return Ok(len);
            }
        }
        Err(DecodeError::Order { what: "a record's length does not end" })
    }
}
