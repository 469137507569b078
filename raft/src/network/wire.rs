//! What the nodes of a cluster say to each other about a group, as bytes. Each message starts with a CRC-32 of the rest
//! and the version of the format: bytes from a network are compared before they are believed, and never make a node panic.

use bytes::Bytes;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};

use crate::codec::{self, Damage, Fields};
use crate::entries;
use crate::group_id::GroupId;
use crate::type_config::{RaftEntry, TypeConfig};
use crate::types::{LogId, SnapshotMeta, Vote};

/// The most bytes of one message: the longest entry of a log with the entries before it that are sent along.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// The version of every message. In version 1 an entry's id had the leader's node beside the term: a node that knows only one
/// of the two would find the other's entries to differ from its own, and cut them off.
const VERSION: u8 = 2;

const APPEND: u8 = 1;
const VOTE: u8 = 2;
const CHUNK: u8 = 3;
const TAKE_OVER: u8 = 4;
const READ: u8 = 5;
const CANVASS: u8 = 6;

const SUCCESS: u8 = 0;
const PARTIAL: u8 = 1;
const CONFLICT: u8 = 2;
const HIGHER_VOTE: u8 = 3;

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("the message has {bytes} bytes, and {MESSAGE_BYTES_MAX} is the most")]
    TooLong { bytes: usize },
    #[error("the checksum of the message does not match")]
    Checksum,
    #[error(
        "the message has version {found}, and this build speaks {VERSION}; bring the nodes of the cluster to versions \
         that are one minor apart at most"
    )]
    Version { found: u8 },
    #[error("the message has a shape that no node sends")]
    Shape,
}

/// The fields were checked before, so that whatever is wrong with them is their shape.
impl From<Damage> for WireError {
    fn from(damage: Damage) -> WireError {
        match damage {
            Damage::Checksum | Damage::Version { .. } | Damage::Shape => WireError::Shape,
        }
    }
}

/// What one node asks of another.
#[derive(Debug)]
pub enum Request {
    /// A leader's entries, or that it is there.
    Append(AppendEntriesRequest<TypeConfig>),
    /// A candidate asks for a vote, with the leave of the leader whose vote this is.
    Vote { request: VoteRequest<u64>, leave: Option<Vote> },
    /// A part of a snapshot.
    Chunk(Chunk),
    /// The leader with this vote asks the receiver to lead, once it has the log up to there.
    TakeOver { vote: Vote, last: Option<LogId> },
    /// A follower asks up to where it has to apply to know all that was acknowledged.
    Read,
    /// A voter that would stand for election asks whether the receiver hears a leader.
    Canvass,
}

/// A part of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The leader's vote.
    pub vote: Vote,
    /// Which snapshot it is a part of.
    pub meta: SnapshotMeta,
    /// How many bytes the snapshot has.
    pub total: u64,
    /// Where in it the data begin.
    pub offset: u64,
    pub data: Bytes,
}

/// What came of a [`Chunk`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkAnswer {
    /// The receiver's vote.
    pub vote: Vote,
    /// How many bytes it has, from the first on. With all of them, the snapshot is installed.
    pub have: u64,
}

/// What came of a request to lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakeOverAnswer {
    /// The receiver stands for election.
    Stands = 0,
    /// It lacks entries.
    Behind = 1,
    /// It does not follow this leader, or has no vote.
    Declines = 2,
}

fn sealed(kind: u8, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut message = vec![0, 0, 0, 0, VERSION, kind];
    write(&mut message);
    let sum = crc32fast::hash(&message[4..]);
    message[..4].copy_from_slice(&sum.to_le_bytes());
    message.into()
}

/// The kind of a message and its fields, once it has been checked.
fn opened(message: &[u8]) -> Result<(u8, Fields<'_>), WireError> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(WireError::TooLong { bytes: message.len() });
    }
    let (sum, rest) = message.split_first_chunk::<4>().ok_or(WireError::Checksum)?;
    if u32::from_le_bytes(*sum) != crc32fast::hash(rest) {
        return Err(WireError::Checksum);
    }
    match rest {
        [VERSION, kind, rest @ ..] => Ok((*kind, Fields::of(rest))),
        [VERSION] | [] => Err(WireError::Shape),
        [found, ..] => Err(WireError::Version { found: *found }),
    }
}

fn request_to(group: GroupId, kind: u8, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    sealed(kind, |out| {
        out.extend(group.0.to_le_bytes());
        write(out);
    })
}

pub fn append(group: GroupId, request: &AppendEntriesRequest<TypeConfig>) -> Bytes {
    request_to(group, APPEND, |out| {
        codec::put_vote(out, &request.vote);
        codec::put_optional_log_id(out, request.prev_log_id.as_ref());
        codec::put_optional_log_id(out, request.leader_commit.as_ref());
        out.extend((request.entries.len() as u32).to_le_bytes());
        for entry in &request.entries {
            let start = out.len();
            out.extend([0; 4]);
            entries::put_entry(out, entry);
            let bytes = (out.len() - start - 4) as u32;
            out[start..start + 4].copy_from_slice(&bytes.to_le_bytes());
        }
    })
}

pub fn vote(group: GroupId, request: &VoteRequest<u64>, leave: Option<&Vote>) -> Bytes {
    request_to(group, VOTE, |out| {
        codec::put_vote(out, &request.vote);
        codec::put_optional_log_id(out, request.last_log_id.as_ref());
        out.push(u8::from(leave.is_some()));
        if let Some(leave) = leave {
            codec::put_vote(out, leave);
        }
    })
}

pub fn chunk(group: GroupId, chunk: &Chunk) -> Bytes {
    request_to(group, CHUNK, |out| {
        codec::put_vote(out, &chunk.vote);
        codec::put_text(out, &chunk.meta.snapshot_id);
        codec::put_optional_log_id(out, chunk.meta.last_log_id.as_ref());
        codec::put_stored_membership(out, &chunk.meta.last_membership);
        out.extend(chunk.total.to_le_bytes());
        out.extend(chunk.offset.to_le_bytes());
        codec::put_bytes(out, &chunk.data);
    })
}

pub fn take_over(group: GroupId, vote: &Vote, last: Option<&LogId>) -> Bytes {
    request_to(group, TAKE_OVER, |out| {
        codec::put_vote(out, vote);
        codec::put_optional_log_id(out, last);
    })
}

pub fn read(group: GroupId) -> Bytes {
    request_to(group, READ, |_| {})
}

pub fn canvass(group: GroupId) -> Bytes {
    request_to(group, CANVASS, |_| {})
}

/// What a message asks, and of which group.
pub fn request(message: &[u8]) -> Result<(GroupId, Request), WireError> {
    let (kind, mut fields) = opened(message)?;
    let group = GroupId(fields.u32()?);
    let request = match kind {
        APPEND => Request::Append(take_append(&mut fields)?),
        VOTE => {
            let vote = codec::next_vote(&mut fields)?;
            let request = VoteRequest::new(vote, codec::take_optional_log_id(&mut fields)?);
            let leave = match fields.u8()? {
                0 => None,
                1 => Some(codec::next_vote(&mut fields)?),
                _ => return Err(WireError::Shape),
            };
            Request::Vote { request, leave }
        }
        CHUNK => Request::Chunk(take_chunk(&mut fields)?),
        TAKE_OVER => {
            let vote = codec::next_vote(&mut fields)?;
            Request::TakeOver { vote, last: codec::take_optional_log_id(&mut fields)? }
        }
        READ => Request::Read,
        CANVASS => Request::Canvass,
        _ => return Err(WireError::Shape),
    };
    fields.end()?;
    Ok((group, request))
}

fn take_append(fields: &mut Fields) -> Result<AppendEntriesRequest<TypeConfig>, Damage> {
    let vote = codec::next_vote(fields)?;
    let prev_log_id = codec::take_optional_log_id(fields)?;
    let leader_commit = codec::take_optional_log_id(fields)?;
    let entries = (0..fields.u32()?).map(|_| entries::take_entry(Fields::of(fields.bytes()?)));
    let entries: Vec<RaftEntry> = entries.collect::<Result<_, _>>()?;
    Ok(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
}

fn take_chunk(fields: &mut Fields) -> Result<Chunk, Damage> {
    let vote = codec::next_vote(fields)?;
    let meta = SnapshotMeta {
        snapshot_id: codec::take_text(fields)?,
        last_log_id: codec::take_optional_log_id(fields)?,
        last_membership: codec::take_stored_membership(fields)?,
    };
    let (total, offset) = (fields.u64()?, fields.u64()?);
    Ok(Chunk { vote, meta, total, offset, data: Bytes::copy_from_slice(fields.bytes()?) })
}

pub fn append_answer(answer: &AppendEntriesResponse<u64>) -> Bytes {
    sealed(APPEND, |out| match answer {
        AppendEntriesResponse::Success => out.push(SUCCESS),
        AppendEntriesResponse::PartialSuccess(matching) => {
            out.push(PARTIAL);
            codec::put_optional_log_id(out, matching.as_ref());
        }
        AppendEntriesResponse::Conflict => out.push(CONFLICT),
        AppendEntriesResponse::HigherVote(vote) => {
            out.push(HIGHER_VOTE);
            codec::put_vote(out, vote);
        }
    })
}

/// The fields of an answer of one kind.
fn answer_of(kind: u8, message: &[u8]) -> Result<Fields<'_>, WireError> {
    let (found, fields) = opened(message)?;
    if found == kind { Ok(fields) } else { Err(WireError::Shape) }
}

pub fn take_append_answer(message: &[u8]) -> Result<AppendEntriesResponse<u64>, WireError> {
    let mut fields = answer_of(APPEND, message)?;
    let answer = match fields.u8()? {
        SUCCESS => AppendEntriesResponse::Success,
        PARTIAL => AppendEntriesResponse::PartialSuccess(codec::take_optional_log_id(&mut fields)?),
        CONFLICT => AppendEntriesResponse::Conflict,
        HIGHER_VOTE => AppendEntriesResponse::HigherVote(codec::next_vote(&mut fields)?),
        _ => return Err(WireError::Shape),
    };
    fields.end()?;
    Ok(answer)
}

pub fn vote_answer(answer: &VoteResponse<u64>) -> Bytes {
    sealed(VOTE, |out| {
        codec::put_vote(out, &answer.vote);
        codec::put_optional_log_id(out, answer.last_log_id.as_ref());
        out.push(u8::from(answer.vote_granted));
    })
}

pub fn take_vote_answer(message: &[u8]) -> Result<VoteResponse<u64>, WireError> {
    let mut fields = answer_of(VOTE, message)?;
    let vote = codec::next_vote(&mut fields)?;
    let last_log_id = codec::take_optional_log_id(&mut fields)?;
    let vote_granted = match fields.u8()? {
        0 => false,
        1 => true,
        _ => return Err(WireError::Shape),
    };
    fields.end()?;
    Ok(VoteResponse { vote, vote_granted, last_log_id })
}

pub fn chunk_answer(answer: &ChunkAnswer) -> Bytes {
    sealed(CHUNK, |out| {
        codec::put_vote(out, &answer.vote);
        out.extend(answer.have.to_le_bytes());
    })
}

pub fn take_chunk_answer(message: &[u8]) -> Result<ChunkAnswer, WireError> {
    let mut fields = answer_of(CHUNK, message)?;
    let answer = ChunkAnswer { vote: codec::next_vote(&mut fields)?, have: fields.u64()? };
    fields.end()?;
    Ok(answer)
}

pub fn take_over_answer(answer: TakeOverAnswer) -> Bytes {
    sealed(TAKE_OVER, |out| out.push(answer as u8))
}

pub fn take_take_over_answer(message: &[u8]) -> Result<TakeOverAnswer, WireError> {
    let mut fields = answer_of(TAKE_OVER, message)?;
    let all = [TakeOverAnswer::Stands, TakeOverAnswer::Behind, TakeOverAnswer::Declines];
    let found = fields.u8()?;
    fields.end()?;
    all.into_iter().find(|answer| *answer as u8 == found).ok_or(WireError::Shape)
}

/// Up to where a follower has to apply; nothing from a node that does not lead.
pub fn read_answer(upto: Option<u64>) -> Bytes {
    sealed(READ, |out| {
        out.push(u8::from(upto.is_some()));
        out.extend(upto.unwrap_or(0).to_le_bytes());
    })
}

pub fn take_read_answer(message: &[u8]) -> Result<Option<u64>, WireError> {
    let mut fields = answer_of(READ, message)?;
    let (leads, upto) = (fields.u8()?, fields.u64()?);
    fields.end()?;
    match leads {
        0 => Ok(None),
        1 => Ok(Some(upto)),
        _ => Err(WireError::Shape),
    }
}

/// Whether the node hears a leader, or is one that has a majority.
pub fn canvass_answer(hears_a_leader: bool) -> Bytes {
    sealed(CANVASS, |out| out.push(u8::from(hears_a_leader)))
}

pub fn take_canvass_answer(message: &[u8]) -> Result<bool, WireError> {
    let mut fields = answer_of(CANVASS, message)?;
    let hears_a_leader = fields.u8()?;
    fields.end()?;
    match hears_a_leader {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(WireError::Shape),
    }
}
