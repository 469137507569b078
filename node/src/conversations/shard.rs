//! One shard: its group of the log, its state, and the term under which this node leads it.
//!
//! A node that was just elected has taken a shard over only when it has applied all that was acknowledged before, and
//! knows what today used; no turn runs in the shard before that.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use caxton_proto::shard::Message;
use caxton_proto::{Format, NodeId, WorkspaceId};
use caxton_raft::deploy_log::DeployLog;
use caxton_raft::{Birth, Group, GroupId, Groups, Machine, ProposeError, Role};
use tokio::sync::watch;

use super::log::{Abandon, Command, DocumentKind, EncodeError, Forget, Keep, Piece, Suspension, Taken, TurnRecord};
use super::{OpenError, ReadError, State};

/// An entry of the log is at most this long; the log itself takes 1 MiB.
const ENTRY_BYTES_MAX: usize = 900 << 10;
/// A stored result of a call is cut to this, when a turn's record would be too long otherwise.
const RESULT_BYTES_KEPT: usize = 2 << 10;
/// What the pieces of one entry hold together; JSON may double it.
const PIECES_BYTES_MAX: usize = 256 << 10;

/// Why something was not recorded.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The log did not take it.
    #[error("the turn could not be recorded")]
    Propose(#[from] ProposeError),
    /// It cannot be written down.
    #[error("the turn cannot be written down")]
    Encode(#[from] EncodeError),
    /// Even without its calls' results it is too long.
    #[error("the turn's record has {bytes} bytes, and {ENTRY_BYTES_MAX} is the most; ask for less at once")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// The state could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Another node leads the shard, or nobody does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this node does not lead the workspace's shard")]
pub struct NotHere {
    /// Who does, if that is known.
    pub leader: Option<NodeId>,
}

/// One shard. A clone is a handle on the same.
#[derive(Clone)]
pub struct Shard {
    id: GroupId,
    state: Arc<State>,
    group: Group,
    /// The term in which this node took it over last.
    taken: watch::Sender<u64>,
    /// The log that says in which format entries are written, once it is open.
    deploy_log: Arc<OnceLock<DeployLog>>,
}

impl Shard {
    /// Opens the shard's state in `dir`, and its group.
    pub async fn open(dir: &Path, groups: &Groups, id: GroupId, birth: Birth) -> Result<Shard, OpenError> {
        let file = dir.join(format!("shard-{}.db", id.0));
        let state = match tokio::task::spawn_blocking(move || State::open(&file)).await {
            Ok(opened) => opened?,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        let group = groups.open(id, Arc::clone(&state) as Arc<dyn Machine>, birth).await?;
        Ok(Shard { id, state, group, taken: watch::Sender::default(), deploy_log: Arc::default() })
    }

    /// The number of its group.
    pub fn id(&self) -> GroupId {
        self.id
    }

    /// Writes in the format that this log says. Before, and without one, it is the first.
    pub fn follow(&self, log: DeployLog) {
        _ = self.deploy_log.set(log);
    }

    /// The format in which entries and documents are written now.
    pub fn format(&self) -> Format {
        self.deploy_log.get().map_or(Format::JSON, DeployLog::format)
    }

    /// The group, for its status and its members.
    pub fn group(&self) -> &Group {
        &self.group
    }

    pub(super) fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        self.state.closed()
    }

    /// This node has taken the shard over in this term.
    pub fn taken_over(&self, term: u64) {
        self.taken.send_replace(term);
    }

    /// The term under which this node leads the shard; waits for an election and for what follows it, at most `wait`.
    pub async fn lead(&self, wait: Duration) -> Result<u64, NotHere> {
        let (mut status, mut taken) = (self.group.status(), self.taken.subscribe());
        let until = tokio::time::Instant::now() + wait;
        loop {
            let (role, leader, term) = {
                let status = status.borrow_and_update();
                (status.role, status.leader, status.term)
            };
            let led = role == Role::Leader;
            if led && *taken.borrow_and_update() == term {
                return Ok(term);
            }
            if !led && leader.is_some() {
                return Err(NotHere { leader });
            }
            let changed = async {
                tokio::select! {
                    changed = status.changed() => changed.is_ok(),
                    changed = taken.changed() => changed.is_ok(),
                }
            };
            if tokio::time::timeout_at(until, changed).await != Ok(true) {
                return Err(NotHere { leader: leader.filter(|_| !led) });
            }
        }
    }

    /// Reads from the state, away from the threads that serve.
    pub async fn read<R: Send + 'static>(
        &self,
        read: impl FnOnce(&State) -> Result<R, ReadError> + Send + 'static,
    ) -> Result<R, ReadError> {
        let state = Arc::clone(&self.state);
        match tokio::task::spawn_blocking(move || read(&state)).await {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// Reads a few rows: on the spot where that is quick, because two threads that wake each other take longer.
    pub async fn read_few<R: Send + 'static>(
        &self,
        read: impl FnOnce(&State) -> Result<R, ReadError> + Send + 'static,
    ) -> Result<R, ReadError> {
        if self.state.is_quick() { read(&self.state) } else { self.read(read).await }
    }

    /// Records a turn that is over; on disk on a majority when this returns.
    pub async fn record(&self, turn: TurnRecord) -> Result<Taken, RecordError> {
        let mut command = Command::Record(Box::new(turn));
        let format = self.format();
        let mut bytes = command.encode(format)?;
        if bytes.len() > ENTRY_BYTES_MAX {
            if let Command::Record(turn) = &mut command {
                turn.messages.iter_mut().for_each(shorten);
            }
            bytes = command.encode(format)?;
        }
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(RecordError::TooLong { bytes: bytes.len() });
        }
        Ok(Taken::decode(&self.group.propose(bytes).await?.response))
    }

    /// Keeps documents for a turn, after the pieces before `next`; on disk on a majority when this returns.
    pub async fn keep(&self, of: &Keeping<'_>, documents: &[Vec<u8>], next: u32) -> Result<(Taken, u32), RecordError> {
        let mut next = next;
        for pieces in entries(documents, &mut next) {
            let (workspace, turn) = (of.workspace.clone(), of.turn.to_owned());
            let taken =
                self.send(&Command::Keep(Keep { workspace, turn, term: of.term, kind: of.kind, pieces })).await?;
            if taken != Taken::Applied {
                return Ok((taken, next));
            }
        }
        Ok((Taken::Applied, next))
    }

    /// Lets a turn wait for a person.
    pub async fn wait(&self, suspension: Suspension) -> Result<Taken, RecordError> {
        self.send(&Command::Suspend(Box::new(suspension))).await
    }

    /// Forgets a turn that has nothing to record.
    pub async fn abandon(&self, abandon: Abandon) -> Result<Taken, RecordError> {
        self.send(&Command::Abandon(abandon)).await
    }

    /// Forgets a conversation.
    pub async fn forget(&self, workspace: &WorkspaceId, conversation: &str) -> Result<(), RecordError> {
        let (workspace, conversation) = (workspace.clone(), conversation.to_owned());
        self.send(&Command::Forget(Forget { workspace, conversation })).await.map(drop)
    }

    async fn send(&self, command: &Command) -> Result<Taken, RecordError> {
        let bytes = command.encode(self.format())?;
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(RecordError::TooLong { bytes: bytes.len() });
        }
        Ok(Taken::decode(&self.group.propose(bytes).await?.response))
    }
}

/// What documents belong to.
#[derive(Debug, Clone, Copy)]
pub struct Keeping<'a> {
    /// Where.
    pub workspace: &'a WorkspaceId,
    /// The turn.
    pub turn: &'a str,
    /// The term under which it runs.
    pub term: u64,
    /// Which documents of it.
    pub kind: DocumentKind,
}

/// The pieces of documents, as many in an entry as fit.
fn entries(documents: &[Vec<u8>], next: &mut u32) -> Vec<Vec<Piece>> {
    let (mut entries, mut entry, mut bytes) = (Vec::new(), Vec::new(), 0);
    for document in documents {
        let cut = pieces(document);
        let last = cut.len() - 1;
        for (at, content) in cut.into_iter().enumerate() {
            if bytes + content.len() > PIECES_BYTES_MAX && !entry.is_empty() {
                entries.push(std::mem::take(&mut entry));
                bytes = 0;
            }
            bytes += content.len();
            entry.push(Piece { number: *next, last: at == last, content: content.to_owned() });
            *next += 1;
        }
    }
    entries.extend((!entry.is_empty()).then_some(entry));
    entries
}

/// At least one, also of an empty document. Text is cut where a character ends: in the first format a piece is text.
fn pieces(document: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let mut rest = document;
    loop {
        let mut end = rest.len().min(PIECES_BYTES_MAX);
        // A byte that goes on with a character of at most four bytes.
        while end > rest.len().min(PIECES_BYTES_MAX).saturating_sub(4)
            && rest.get(end).is_some_and(|byte| byte & 0xc0 == 0x80)
        {
            end -= 1;
        }
        let (piece, after) = rest.split_at(end);
        pieces.push(piece);
        rest = after;
        if rest.is_empty() {
            return pieces;
        }
    }
}

/// Cuts what a model was told by a tool, and says so.
fn shorten(message: &mut Message) {
    if let Message::Tool { text, .. } = message
        && text.len() > RESULT_BYTES_KEPT
    {
        let bytes = text.len();
        let mut end = RESULT_BYTES_KEPT;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(&format!("\n[{end} of {bytes} bytes kept]"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_put_together_are_the_documents_and_entries_are_not_too_long() {
        let long = format!("x{}", "é\"".repeat(PIECES_BYTES_MAX));
        let documents = [String::new(), "short".to_owned(), long, "last".to_owned()].map(String::into_bytes);
        let mut next = 7;
        let entries = entries(&documents, &mut next);
        let pieces: Vec<&Piece> = entries.iter().flatten().collect();
        assert_eq!(pieces.iter().map(|piece| piece.number).collect::<Vec<_>>(), (7..next).collect::<Vec<_>>());
        let mut whole = vec![Vec::new()];
        for piece in pieces {
            whole.last_mut().expect("one").extend_from_slice(&piece.content);
            if piece.last {
                whole.push(Vec::new());
            }
        }
        assert_eq!(whole[..4], documents);
        for pieces in entries {
            let (workspace, turn) = ("team".parse().expect("a name"), "t".to_owned());
            let keep = Command::Keep(Keep { workspace, turn, term: 1, kind: DocumentKind::Journal, pieces });
            for format in [Format::JSON, Format::PROTOBUF] {
                assert!(keep.encode(format).expect("written").len() <= ENTRY_BYTES_MAX);
            }
        }
    }
}
