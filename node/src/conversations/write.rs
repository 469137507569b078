//! What the node that leads a shard writes of its conversations. It is on disk on a majority when it returns.

use caxton_proto::shard::{Message, Part};
use caxton_proto::{Format, WorkspaceId};
use caxton_raft::ProposeError;

use super::log::{Abandon, Command, DocumentKind, EncodeError, Forget, Keep, Piece, Suspension, TurnRecord};
use super::{ReadError, ShardConversations};
use crate::shard::WriteError;
use crate::shard::tenant::{Effect, Refusal, Stop};

/// An entry of the log is at most this long; the log itself takes 1 MiB.
const ENTRY_BYTES_MAX: usize = 900 << 10;
/// A stored result of a call is cut to this, when a turn's record would be too long otherwise.
const RESULT_BYTES_KEPT: usize = 2 << 10;
/// So much of what a person or a model said, where all of it together is too long for an entry.
const TEXT_BYTES_KEPT: usize = 256 << 10;
/// What the pieces of one entry hold together; JSON may double it.
const PIECES_BYTES_MAX: usize = 256 << 10;

/// Why something was not recorded.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The log did not take it.
    #[error("the turn could not be recorded")]
    Propose(#[from] ProposeError),
    /// The workspace was deleted meanwhile; nothing was changed.
    #[error("the workspace was deleted")]
    Deleted,
    /// It cannot be written down.
    #[error("the turn cannot be written down")]
    Encode(#[from] EncodeError),
    /// Even without its calls' results it is too long.
    #[error("the turn's record has {bytes} bytes, and {ENTRY_BYTES_MAX} is the most; ask for less at once")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// No replica can apply it; nothing was changed.
    #[error("the turn cannot be recorded as it is")]
    Refused(#[source] Refusal),
    /// This program cannot read what it wrote: a defect.
    #[error("the turn's record cannot be read by this program")]
    Unreadable(#[source] Stop),
    /// The state could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<WriteError> for RecordError {
    fn from(error: WriteError) -> RecordError {
        match error {
            WriteError::Propose(error) => RecordError::Propose(error),
            WriteError::Refused(refusal) => RecordError::Refused(refusal),
            WriteError::Unreadable(stop) => RecordError::Unreadable(stop),
            WriteError::Deleted => RecordError::Deleted,
            WriteError::Read(error) => RecordError::Read(error.into()),
        }
    }
}

impl ShardConversations {
    /// The format in which documents are to be written.
    pub fn format(&self) -> Format {
        self.shard().format()
    }

    /// Records a turn that is over.
    pub async fn record(&self, turn: TurnRecord) -> Result<Effect, RecordError> {
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
        Ok(self.shard().propose(command.workspace(), bytes).await?.effect)
    }

    /// Keeps documents for a turn, after the pieces before `next`.
    pub async fn keep(&self, of: &Keeping<'_>, documents: &[Vec<u8>], next: u32) -> Result<(Effect, u32), RecordError> {
        let mut next = next;
        for pieces in entries(documents, &mut next) {
            let (workspace, turn) = (of.workspace.clone(), of.turn.to_owned());
            let outcome =
                self.send(&Command::Keep(Keep { workspace, turn, term: of.term, kind: of.kind, pieces })).await?;
            if outcome != Effect::Applied {
                return Ok((outcome, next));
            }
        }
        Ok((Effect::Applied, next))
    }

    /// Lets a turn wait for a person.
    pub async fn suspend(&self, suspension: Suspension) -> Result<Effect, RecordError> {
        self.send(&Command::Suspend(Box::new(suspension))).await
    }

    /// Forgets a turn that has nothing to record.
    pub async fn abandon(&self, abandon: Abandon) -> Result<Effect, RecordError> {
        self.send(&Command::Abandon(abandon)).await
    }

    /// Forgets a conversation.
    pub async fn forget(&self, workspace: &WorkspaceId, conversation: &str) -> Result<(), RecordError> {
        let (workspace, conversation) = (workspace.clone(), conversation.to_owned());
        self.send(&Command::Forget(Forget { workspace, conversation })).await.map(drop)
    }

    async fn send(&self, command: &Command) -> Result<Effect, RecordError> {
        let bytes = command.encode(self.format())?;
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(RecordError::TooLong { bytes: bytes.len() });
        }
        Ok(self.shard().propose(command.workspace(), bytes).await?.effect)
    }
}

/// What documents belong to.
#[derive(Debug, Clone, Copy)]
pub struct Keeping<'a> {
    pub workspace: &'a WorkspaceId,
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
        let (piece, after) = rest.split_at(cut_of(rest));
        pieces.push(piece);
        rest = after;
        if rest.is_empty() {
            return pieces;
        }
    }
}

/// Where the first piece of bytes ends: before the byte with which a character begins, if it is text.
fn cut_of(rest: &[u8]) -> usize {
    let most = rest.len().min(PIECES_BYTES_MAX);
    let goes_on = |at: &usize| rest.get(*at).is_some_and(|byte| byte & 0xc0 == 0x80);
    // A character has four bytes at most.
    (most.saturating_sub(3)..=most).rev().find(|at| !goes_on(at)).unwrap_or(most)
}

/// Cuts what one entry cannot hold, and says so: what a model was told by a tool, long texts, and images that came with a request.
fn shorten(message: &mut Message) {
    match message {
        Message::Tool { text, .. } => cut(text, RESULT_BYTES_KEPT),
        Message::System { text } | Message::Assistant { text, .. } => cut(text, TEXT_BYTES_KEPT),
        Message::User { parts } => parts.iter_mut().for_each(|part| match part {
            Part::Text { text } => cut(text, TEXT_BYTES_KEPT),
            Part::Image { url } if url.len() > RESULT_BYTES_KEPT => {
                *part =
                    Part::Text { text: format!("[an image of {} bytes came with this, and is not kept]", url.len()) };
            }
            Part::Image { .. } => {}
        }),
    }
}

fn cut(text: &mut String, kept: usize) {
    let bytes = text.len();
    if bytes > kept {
        let end = text.floor_char_boundary(kept);
        text.truncate(end);
        text.push_str(&format!("\n[{end} of {bytes} bytes kept]"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_for_an_entry_is_cut_and_says_so() {
        let (long, picture) = ("é".repeat(TEXT_BYTES_KEPT), format!("data:image/png;base64,{}", "A".repeat(6 << 20)));
        let small = Part::Image { url: "https://example.com/a.png".to_owned() };
        let parts = vec![Part::Text { text: long.clone() }, Part::Image { url: picture.clone() }, small.clone()];
        let mut message = Message::User { parts };
        shorten(&mut message);
        let Message::User { parts } = message else { panic!("it is still a person's") };
        let note = format!("[an image of {} bytes came with this, and is not kept]", picture.len());
        assert_eq!(parts[1..], [Part::Text { text: note }, small]);
        let Part::Text { text } = &parts[0] else { panic!("it is still text") };
        assert!(text.ends_with(&format!("\n[{TEXT_BYTES_KEPT} of {} bytes kept]", long.len())), "{}", text.len());
    }

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
