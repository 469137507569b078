//! Sends a snapshot in chunks. The receiver says how much it has, and the sender goes on from there: so a connection that
//! breaks costs a chunk, and a leader that begins again with the same snapshot does not send again what has arrived.

use std::io::SeekFrom;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{Either, select};
use openraft::error::{Fatal, NetworkError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RaftNetwork;
use openraft::raft::SnapshotResponse;
use openraft::{ErrorSubject, ErrorVerb, Snapshot};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::wire::{self, Chunk, ChunkAnswer};
use super::{CallError, Peer, TransportError};
use crate::snapshot::SnapshotFile;
use crate::type_config::TypeConfig;
use crate::types::{Vote, storage_error};

/// The most bytes of a snapshot in one message.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;
/// How long one chunk may take.
const CHUNK_WAIT: Duration = Duration::from_secs(10);
/// How long the last chunk may take, after which the receiver checks and installs the whole.
const INSTALL_WAIT: Duration = Duration::from_secs(300);
/// How many chunks in a row may fail before the leader lets the receiver be for a while.
const FAILURES_MAX: u32 = 5;

type SendError = StreamingError<TypeConfig, Fatal<u64>>;

/// Sends a snapshot until the receiver has installed it, or follows a newer leader.
pub async fn snapshot(
    peer: &Peer,
    vote: Vote,
    snapshot: Snapshot<TypeConfig>,
    cancel: impl Future<Output = ReplicationClosed>,
) -> Result<SnapshotResponse<u64>, SendError> {
    let mut cancel = pin!(cancel);
    let Snapshot { meta, snapshot: mut file } = snapshot;
    let total = file.seek(SeekFrom::End(0)).await.map_err(|error| read_error(&error))?;
    let (mut offset, mut failures, mut waits) = (0, 0, peer.backoff());
    loop {
        if let Some(closed) = cancel.as_mut().now_or_never() {
            return Err(closed.into());
        }
        let data = read(&mut file, offset).await?;
        let within = if offset + data.len() as u64 == total { INSTALL_WAIT } else { CHUNK_WAIT };
        let chunk = Chunk { vote, meta: meta.clone(), total, offset, data };
        let error = match call(peer, &chunk, within).await {
            Ok(ChunkAnswer { vote: theirs, have }) if have == total || theirs > vote => {
                return Ok(SnapshotResponse::new(theirs));
            }
            Ok(ChunkAnswer { have, .. }) if have > offset => {
                (offset, failures, waits) = (have, 0, peer.backoff());
                continue;
            }
            // The receiver begins anew, because what it had was damaged or is gone.
            Ok(ChunkAnswer { have, .. }) => {
                offset = have;
                CallError::from(TransportError::Refused { why: format!("it has only {have} bytes") })
            }
            Err(error) => error,
        };
        failures += 1;
        tracing::debug!(node = %format_args!("{:x}", peer.node), offset, failures, %error, "a chunk did not arrive");
        if failures == FAILURES_MAX {
            return Err(send_error(error));
        }
        let wait = waits.next().unwrap_or(super::BACKOFF_MAX);
        if let Either::Left((closed, _)) = select(cancel.as_mut(), pin!(tokio::time::sleep(wait))).await {
            return Err(closed.into());
        }
    }
}

async fn call(peer: &Peer, chunk: &Chunk, within: Duration) -> Result<ChunkAnswer, CallError> {
    let message = wire::chunk(peer.links.group, chunk);
    let useful = |answer: &ChunkAnswer| answer.have <= chunk.total;
    let answer = peer.call(message, within, wire::take_chunk_answer, useful);
    let late = |_| TransportError::Refused { why: format!("no answer within {within:?}") };
    tokio::time::timeout(within, answer).await.map_err(late)?
}

async fn read(file: &mut SnapshotFile, offset: u64) -> Result<Bytes, SendError> {
    let read = async {
        file.seek(SeekFrom::Start(offset)).await?;
        let mut data = Vec::with_capacity(CHUNK_BYTES_MAX);
        file.take(CHUNK_BYTES_MAX as u64).read_to_end(&mut data).await?;
        Ok(data.into())
    };
    read.await.map_err(|error: std::io::Error| read_error(&error))
}

fn read_error(error: &std::io::Error) -> SendError {
    storage_error(ErrorSubject::Snapshot(None), ErrorVerb::Read, error).into()
}

fn send_error(error: CallError) -> SendError {
    match error {
        CallError::Transport(TransportError::Unreachable { .. }) => Unreachable::new(&error).into(),
        CallError::Transport(TransportError::Refused { .. }) | CallError::Answer { .. } => {
            NetworkError::new(&error).into()
        }
    }
}
