//! What the node that leads a shard writes of its conversations. It is on disk on a majority when it returns.

use bytes::Bytes;
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
/// So much of each text is kept where all of it together is too long for an entry: the first of these with which it fits.
const TEXT_BYTES_KEPT: [usize; 3] = [256 << 10, 32 << 10, 2 << 10];
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
    /// Even with its texts cut it is too long: the arguments of its calls are.
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
        let workspace = turn.workspace.clone();
        let bytes = entry_of(turn, self.format())?;
        Ok(self.shard().propose(&workspace, bytes).await?.effect)
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

/// The entry that records a turn. What it cannot hold is cut, and says so: a turn that was answered has to be found again.
fn entry_of(turn: TurnRecord, format: Format) -> Result<Bytes, RecordError> {
    let mut command = Command::Record(Box::new(turn));
    let mut bytes = command.encode(format)?;
    for kept in TEXT_BYTES_KEPT {
        if bytes.len() <= ENTRY_BYTES_MAX {
            return Ok(bytes);
        }
        if let Command::Record(turn) = &mut command {
            turn.messages.iter_mut().for_each(|message| shorten(message, kept));
        }
        bytes = command.encode(format)?;
    }
    if bytes.len() > ENTRY_BYTES_MAX {
        return Err(RecordError::TooLong { bytes: bytes.len() });
    }
    Ok(bytes)
}

/// Cuts what a model was told by a tool, and each text to `kept` bytes, and takes out images and what only a provider reads. Calls
/// stay whole: what a turn sends when its message is settled is read from them.
fn shorten(message: &mut Message, kept: usize) {
    match message {
        Message::Tool { text, .. } => cut(text, RESULT_BYTES_KEPT),
        Message::System { text } => cut(text, kept),
        Message::Assistant { text, echo, .. } => {
            cut(text, kept);
            if echo.as_ref().is_some_and(|echo| echo.len() > RESULT_BYTES_KEPT) {
                *echo = None;
            }
        }
        Message::User { parts } => parts.iter_mut().for_each(|part| match part {
            Part::Text { text } => cut(text, kept),
            Part::Image { url } if url.len() > RESULT_BYTES_KEPT => {
                let bytes = url.len();
                *part = Part::Text { text: format!("[an image of {bytes} bytes came with this, and is not kept]") };
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
    use caxton_proto::shard::ToolCall;
    use proptest::prelude::*;

    use super::*;

    /// A turn in which this was said.
    fn turn(messages: Vec<Message>) -> TurnRecord {
        TurnRecord {
            workspace: "team".parse().expect("a name"),
            conversation: "c".to_owned(),
            turn: "t".to_owned(),
            agent: "bob".parse().expect("a name"),
            subject: "ann".to_owned(),
            time_ms: 1,
            messages,
            attachments: Vec::new(),
            usage: Default::default(),
            spent: Vec::new(),
            duration_ms: 1,
            revision: caxton_proto::Revision(1),
            failure: None,
            ending: None,
            term: 1,
        }
    }

    /// What was said, as it is recorded.
    fn recorded(messages: Vec<Message>, format: Format) -> Vec<Message> {
        let bytes = entry_of(turn(messages), format).expect("it fits");
        assert!(bytes.len() <= ENTRY_BYTES_MAX);
        match Command::decode(&bytes).expect("it is read back") {
            Command::Record(turn) => turn.messages,
            other => panic!("{other:?}"),
        }
    }

    fn said(text: String) -> Message {
        Message::Assistant { text, calls: Vec::new(), echo: None }
    }

    #[test]
    fn what_is_too_long_for_an_entry_is_cut_and_says_so() {
        let (long, picture) =
            ("é".repeat(TEXT_BYTES_KEPT[0]), format!("data:image/png;base64,{}", "A".repeat(6 << 20)));
        let small = Part::Image { url: "https://example.com/a.png".to_owned() };
        let parts = vec![Part::Text { text: long.clone() }, Part::Image { url: picture.clone() }, small.clone()];
        let answer = said("It is red.".to_owned());
        for format in [Format::JSON, Format::PROTOBUF] {
            let found = recorded(vec![Message::User { parts: parts.clone() }, answer.clone()], format);
            let [Message::User { parts }, last] = &found[..] else { panic!("{}", found.len()) };
            let note = format!("[an image of {} bytes came with this, and is not kept]", picture.len());
            assert_eq!((&parts[1..], last), (&[Part::Text { text: note }, small.clone()][..], &answer));
            let Part::Text { text } = &parts[0] else { panic!("it is still text") };
            assert!(
                text.ends_with(&format!("\n[{} of {} bytes kept]", TEXT_BYTES_KEPT[0], long.len())),
                "{}",
                text.len()
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
        /// Whatever people, models and tools said, the record fits and is read back, with all calls as they were.
        #[test]
        fn every_turn_that_was_answered_is_recorded(
            sizes in proptest::collection::vec((0..600_000_usize, 0..8_usize), 0..12),
            answer in 0..2_000_000_usize,
            format in prop_oneof![Just(Format::JSON), Just(Format::PROTOBUF)],
        ) {
            let text = |bytes: usize| "x\"".repeat(bytes / 2);
            let mut messages = vec![Message::User { parts: vec![Part::Text { text: text(answer) }] }];
            for (number, (size, calls)) in sizes.into_iter().enumerate() {
                let call = |at| ToolCall { id: format!("{number}-{at}"), tool: "t".to_owned(), arguments: text(2_000) };
                let echo = Some(text(size));
                messages.push(Message::Assistant { text: text(size), calls: (0..calls).map(call).collect(), echo });
                let (call, tool, failed) = (format!("{number}-0"), "t".to_owned(), false);
                messages.push(Message::Tool { call, tool, text: text(size), failed });
            }
            messages.push(said(text(answer)));
            let found = recorded(messages.clone(), format);
            let calls = |all: &[Message]| -> Vec<ToolCall> {
                let of = |message: &Message| match message {
                    Message::Assistant { calls, .. } => calls.clone(),
                    _ => Vec::new(),
                };
                all.iter().flat_map(of).collect()
            };
            prop_assert_eq!(found.len(), messages.len());
            prop_assert_eq!(calls(&found), calls(&messages), "what a turn sends is read from its calls");
        }
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
