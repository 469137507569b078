//! How far the backend of a workspace is, and what was wrong last.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use caxton_proto::WorkspaceId;
use caxton_proto::manifest::backend::{BackendKind, BackendSettings};

use super::{BackendError, MemoryBackend};
use crate::errors::chain;

/// The pause after a failure, and at most, after many.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// What is being done with a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// This node has not spoken to it since it leads the shard, or does not lead it.
    Waiting,
    /// It is compared with what is remembered, and told what it lacks.
    Filling,
    /// It has everything but the last changes.
    Following,
}

/// Why it was not fed the last time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastFailure {
    /// What was wrong, with its causes.
    pub problem: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

/// How far a backend is, for whoever looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendState {
    /// Its name, as the workspace's file has it.
    pub name: String,
    /// What is being done with it.
    pub stage: Stage,
    /// It was not reached the last time, or said no.
    pub failing: bool,
    /// Changes that it does not have for certain; nothing where that is not known before everything was compared.
    pub behind: Option<u64>,
    /// Everything up to this entry of the shard's log is in it; nothing where that is not known.
    pub position: Option<u64>,
    /// The last entry that is applied on this node.
    pub applied: u64,
    /// Memories that were compared so far, while it is filled.
    pub done: u64,
    /// Memories that there are to compare.
    pub total: u64,
    /// What was wrong the last time that something was.
    pub last_failure: Option<LastFailure>,
}

/// What is known of how far it is.
struct Known {
    stage: Stage,
    /// The term under which this node spoke to it and found where it stands.
    term: Option<u64>,
    /// It had everything up to some entry before: what is missing are changes since.
    had_everything: bool,
    position: Option<u64>,
    positioned: Option<Instant>,
    done: u64,
    total: u64,
    failures: u32,
    not_before: Option<Instant>,
    last_failure: Option<LastFailure>,
}

/// The backend of a workspace.
pub(super) struct Entry {
    pub workspace: WorkspaceId,
    pub settings: BackendSettings,
    backend: Result<Arc<dyn MemoryBackend>, String>,
    known: Mutex<Known>,
    /// Somebody wants it emptied and filled anew.
    sync: AtomicBool,
}

/// How long it is waited after so many failures in a row.
fn retry_after(failures: u32) -> Duration {
    (PAUSE * (1 << failures.saturating_sub(1).min(10))).min(PAUSE_MAX)
}

impl Entry {
    pub fn new(
        workspace: WorkspaceId,
        settings: BackendSettings,
        backend: Result<Arc<dyn MemoryBackend>, BackendError>,
    ) -> Entry {
        let known = Known {
            stage: Stage::Waiting,
            term: None,
            had_everything: false,
            position: None,
            positioned: None,
            done: 0,
            total: 0,
            failures: 0,
            not_before: None,
            last_failure: None,
        };
        let backend = backend.map_err(|error| chain(&error).to_string());
        Entry { workspace, settings, backend, known: Mutex::new(known), sync: AtomicBool::new(false) }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its name, as the workspace's file has it.
    pub fn name(&self) -> String {
        self.settings.kind.name()
    }

    /// Which system it is, for metrics.
    pub fn label(&self) -> &'static str {
        match self.settings.kind {
            BackendKind::Qdrant { .. } => "qdrant",
            BackendKind::Neo4j { .. } => "neo4j",
            BackendKind::Tool { .. } => "tool",
        }
    }

    /// The system itself, if it can be asked as the file has it.
    pub fn backend(&self) -> Result<&Arc<dyn MemoryBackend>, BackendError> {
        self.backend.as_ref().map_err(|problem| BackendError::Setup(problem.clone()))
    }

    /// Whether it can be searched on the node that feeds it: if not everything is in it for certain, it is said what that means.
    pub fn is_ready(&self) -> Result<Option<String>, BackendError> {
        let known = self.known();
        match known.stage {
            Stage::Following => Ok(None),
            Stage::Filling | Stage::Waiting if known.had_everything && !self.wants_sync() => {
                let note = "it is being compared with what is remembered, and may not have found the last changes";
                Ok(Some(note.to_owned()))
            }
            Stage::Waiting if let Some(failure) = &known.last_failure => {
                Err(BackendError::Setup(failure.problem.clone()))
            }
            Stage::Filling | Stage::Waiting => Err(BackendError::Filling { done: known.done, total: known.total }),
        }
    }

    pub fn state(&self, leads: bool, behind: Option<usize>, applied: u64) -> BackendState {
        let known = self.known();
        let stage = match known.stage {
            _ if !leads => Stage::Waiting,
            // It is about to be emptied.
            _ if self.wants_sync() => Stage::Filling,
            stage => stage,
        };
        BackendState {
            name: self.name(),
            stage,
            failing: known.failures > 0,
            behind: behind.filter(|_| stage == Stage::Following).map(|behind| behind as u64),
            position: known.position,
            applied,
            done: known.done,
            total: known.total,
            last_failure: known.last_failure.clone(),
        }
    }

    pub fn ask_for_sync(&self) {
        self.sync.store(true, Ordering::Relaxed);
        // Whoever asks waits for no pause after a failure, and is told of new failures only.
        let mut known = self.known();
        known.not_before = None;
        known.failures = 0;
    }

    pub fn wants_sync(&self) -> bool {
        self.sync.load(Ordering::Relaxed)
    }

    pub fn sync_begun(&self) {
        self.sync.store(false, Ordering::Relaxed);
    }

    /// Whether this node found out under this term where it stands.
    pub fn is_met(&self, term: u64) -> bool {
        self.known().term == Some(term)
    }

    /// It has everything up to an entry, found out under this term.
    pub fn follows(&self, term: u64, position: u64) {
        let mut known = self.known();
        known.stage = Stage::Following;
        known.term = Some(term);
        known.had_everything = true;
        known.position = Some(position);
        known.positioned = Some(Instant::now());
    }

    /// It is compared now. `had_everything` says that it did, up to some entry, and nothing where that is as it was.
    pub fn fills(&self, total: u64, had_everything: Option<bool>) {
        let mut known = self.known();
        known.stage = Stage::Filling;
        known.term = None;
        known.had_everything = had_everything.unwrap_or(known.had_everything);
        (known.done, known.total) = (0, total);
    }

    pub fn compared(&self, more: u64) {
        let mut known = self.known();
        known.done += more;
        known.total = known.total.max(known.done);
    }

    /// When its position was kept last.
    pub fn positioned(&self) -> Option<(u64, Instant)> {
        let known = self.known();
        known.position.zip(known.positioned)
    }

    /// This node does not feed it, or has to find out anew where it stands.
    pub fn waits(&self) {
        let mut known = self.known();
        known.stage = Stage::Waiting;
        known.term = None;
    }

    /// Whether it is too early to try again.
    pub fn rests(&self) -> Option<Duration> {
        self.known().not_before.and_then(|at| at.checked_duration_since(Instant::now()))
    }

    /// All went well.
    pub fn succeeded(&self) {
        let mut known = self.known();
        known.failures = 0;
        known.not_before = None;
    }

    /// Something went wrong. Says whether it is the first time in a row.
    pub fn failed(&self, problem: String) -> bool {
        let mut known = self.known();
        known.failures = known.failures.saturating_add(1);
        known.not_before = Some(Instant::now() + retry_after(known.failures));
        known.last_failure = Some(LastFailure { problem, at_ms: crate::time::now_ms() });
        known.failures == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end_growing() {
        let pauses: Vec<_> = (1..40).map(retry_after).collect();
        assert_eq!(pauses[0], PAUSE);
        assert!(pauses.is_sorted() && pauses.last() == Some(&PAUSE_MAX));
    }

    #[test]
    fn what_does_not_have_everything_is_not_searched_in_silence() {
        let kind = BackendKind::Tool { tool: "finder".parse().expect("a name") };
        let settings = BackendSettings { kind, timeout: Duration::from_secs(1), falls_back: false };
        let none = Err(BackendError::Setup("closed".to_owned()));
        let entry = Entry::new("team".parse().expect("a name"), settings, none);
        assert!(entry.backend().is_err_and(|error| error.to_string() == "closed"));
        assert!(entry.is_ready().is_err(), "nobody knows what it has");
        assert!(entry.failed("down".to_owned()) && !entry.failed("down".to_owned()));
        assert!(entry.rests().is_some());
        assert!(entry.is_ready().is_err_and(|error| error.to_string() == "down"));
        entry.fills(10, Some(false));
        entry.compared(3);
        assert!(matches!(entry.is_ready(), Err(BackendError::Filling { done: 3, total: 10 })));
        entry.follows(2, 7);
        entry.succeeded();
        assert!(matches!(entry.is_ready(), Ok(None)) && entry.is_met(2) && !entry.is_met(3));
        entry.waits();
        assert!(matches!(entry.is_ready(), Ok(Some(_))), "it has all but the last changes, which is said");
        entry.ask_for_sync();
        assert!(entry.is_ready().is_err(), "it is about to be emptied");
        let state = entry.state(true, Some(4), 9);
        assert_eq!((state.stage, state.failing, state.behind, state.position), (Stage::Filling, false, None, Some(7)));
    }
}
