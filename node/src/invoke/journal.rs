//! The journal of one turn: its beginning and its steps, as entries of the shard's log.
//!
//! The beginning is written with the first step that has to be kept, or after [`BEGIN_AFTER`], whichever comes first: a
//! turn whose only reply comes at once costs no entry but its record, and one that was lost before it began to be kept has
//! done nothing that its sender could not simply ask for again.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use caxton_proto::Format;
use caxton_proto::shard::{self, DocumentKind, EncodeError};
use caxton_raft::ProposeError;
use futures::future::BoxFuture;

use super::kept::Beginning;
use crate::agent::journal::{Journal, Lost, Step};
use crate::conversations::{Keeping, RecordError, ShardConversations};
use crate::shard::tenant::Effect;

/// How long a turn may run before its beginning is kept, when no step wants it earlier.
pub(super) const BEGIN_AFTER: Duration = Duration::from_millis(20);

/// Keeps the steps of one turn.
pub(super) struct TurnJournal {
    shard: ShardConversations,
    beginning: Beginning,
    term: u64,
    buffer: Mutex<Buffer>,
    /// Held while entries are under way, so that they are in the log in the order of the steps.
    sent: tokio::sync::Mutex<LogProgress>,
    trouble: Mutex<Option<Trouble>>,
}

/// Steps that are not in the log yet.
#[derive(Default)]
struct Buffer {
    waiting: VecDeque<Vec<u8>>,
    /// How many steps there were before the first that waits.
    before: u64,
}

#[derive(Default)]
struct LogProgress {
    /// The beginning is in the log.
    begun: bool,
    /// Something may be in the log: it was proposed, and it is not known what became of it.
    perhaps: bool,
    /// The number of the next piece.
    next: u32,
}

/// Why steps can be kept no more.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The log did not take them.
    Log(RecordError),
    /// Another leader came in between, or has finished the turn.
    Overtaken,
}

impl TurnJournal {
    /// For a turn that begins.
    pub(super) fn new(shard: ShardConversations, beginning: Beginning, term: u64) -> TurnJournal {
        let (buffer, sent, trouble) = (Mutex::default(), tokio::sync::Mutex::default(), Mutex::default());
        TurnJournal { shard, beginning, term, buffer, sent, trouble }
    }

    /// For a turn whose beginning is in the log, with `next` pieces.
    pub(super) fn resumed(shard: ShardConversations, beginning: Beginning, term: u64, next: u32) -> TurnJournal {
        let sent = tokio::sync::Mutex::new(LogProgress { begun: true, perhaps: true, next });
        TurnJournal { sent, ..TurnJournal::new(shard, beginning, term) }
    }

    /// Keeps everything that waits to be kept, the beginning too.
    pub(super) async fn all(&self) -> Result<(), Lost> {
        let upto = {
            let buffer = self.buffer();
            buffer.before + buffer.waiting.len() as u64
        };
        self.upto(upto).await
    }

    /// Whether another node may know of the turn.
    pub(super) async fn is_known(&self) -> bool {
        let sent = self.sent.lock().await;
        sent.begun || sent.perhaps
    }

    /// Why nothing more is kept.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn buffer(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, step: &Step) -> Result<u64, EncodeError> {
        let document = shard::Step::from(step).encode(self.shard.format())?;
        let mut buffer = self.buffer();
        buffer.waiting.push_back(document);
        Ok(buffer.before + buffer.waiting.len() as u64)
    }

    /// Keeps the first `upto` steps. What fails is kept for the next attempt under the same numbers, so that an attempt
    /// that was given up half-way does no harm.
    async fn upto(&self, upto: u64) -> Result<(), Lost> {
        let mut sent = self.sent.lock().await;
        let mut documents = Vec::new();
        {
            let buffer = self.buffer();
            if sent.begun && buffer.before >= upto {
                return Ok(()); // They went along with an earlier one.
            }
            if !sent.begun {
                let mut beginning = shard::Beginning::from(&self.beginning);
                // A node of an older program may have to read it.
                beginning.request = beginning.request.filter(|_| self.shard.format() >= Format::DELETION);
                let beginning = beginning.encode(self.shard.format());
                documents.push(beginning.map_err(|error| self.failed(error.into()))?);
            }
            documents.extend(buffer.waiting.iter().cloned());
        }
        let steps = documents.len() - usize::from(!sent.begun);
        let Beginning { workspace, turn, .. } = &self.beginning;
        let keeping = Keeping { workspace, turn, term: self.term, kind: DocumentKind::Journal };
        let before = std::mem::replace(&mut sent.perhaps, true);
        match self.shard.keep(&keeping, &documents, sent.next).await {
            Ok((Effect::Applied, next)) => {
                (sent.begun, sent.next) = (true, next);
                let mut buffer = self.buffer();
                buffer.waiting.drain(..steps);
                buffer.before += steps as u64;
                Ok(())
            }
            Ok((Effect::Repeated | Effect::Fenced, _)) => {
                // What is refused is not in the log.
                sent.perhaps = before;
                Err(self.is_lost(Trouble::Overtaken))
            }
            Err(error) => {
                if let RecordError::Propose(ProposeError::NotLeader { .. }) = &error {
                    sent.perhaps = before;
                }
                Err(self.failed(error))
            }
        }
    }

    fn failed(&self, error: RecordError) -> Lost {
        self.is_lost(Trouble::Log(error))
    }

    fn is_lost(&self, trouble: Trouble) -> Lost {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(trouble);
        Lost
    }
}

impl Journal for TurnJournal {
    fn later(&self, step: Step) {
        if let Err(error) = self.push(&step) {
            self.failed(error.into());
        }
    }

    fn now(&self, step: Step) -> BoxFuture<'_, Result<(), Lost>> {
        Box::pin(async move {
            let upto = self.push(&step).map_err(|error| self.failed(error.into()))?;
            self.upto(upto).await
        })
    }
}
