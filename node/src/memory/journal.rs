//! What changed of the workspaces whose memories a backend follows, from when on that is noted without a gap, until the backend
//! has it.
//!
//! It is kept in memory, and lost with the process: whoever finds a gap between what the backend has and where the notes begin
//! compares everything instead.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use caxton_memory::Touched;
use caxton_memory::proto::MemoryId;
use caxton_proto::WorkspaceId;
use tokio::sync::Notify;

/// When more changed than this, comparing everything is no dearer than feeding it thing by thing.
pub const NOTED_MAX: usize = 10_000;

/// The notes on one workspace.
#[derive(Default)]
struct Notes {
    /// Whatever entries after this one of the shard's log changed is noted; nothing where there is a gap.
    since: Option<u64>,
    /// Tells one beginning of the notes from another.
    beginning: u64,
    /// What changed and was not taken yet.
    waiting: HashSet<Touched>,
    /// What was taken, of which nobody has said yet that the backend has it.
    taken: HashSet<Touched>,
}

impl Notes {
    fn begin(&mut self) {
        self.since = None;
        self.beginning += 1;
        self.waiting.clear();
        self.taken.clear();
    }
}

/// The notes on the workspaces of one shard that a backend follows.
#[derive(Default)]
pub struct Journal {
    followed: Mutex<HashMap<WorkspaceId, Notes>>,
    /// The tables were replaced, and no command has been applied to what is in them now.
    replaced: AtomicBool,
    wake: Notify,
}

/// A beginning of the notes on a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beginning(u64);

impl Journal {
    fn followed(&self) -> MutexGuard<'_, HashMap<WorkspaceId, Notes>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what a command touched, where a backend follows its workspace.
    pub(super) fn note(&self, touched: &[Touched]) {
        self.replaced.store(false, Ordering::Release);
        let mut followed = self.followed();
        if followed.is_empty() {
            return;
        }
        let mut news = false;
        for it in touched {
            let (Touched::Entity(workspace, _) | Touched::Memory(workspace, _) | Touched::Relation(workspace, _)) = it;
            let Some(notes) = followed.get_mut(workspace) else { continue };
            news = true;
            notes.waiting.insert(it.clone());
            if notes.waiting.len() > NOTED_MAX {
                notes.begin();
            }
        }
        drop(followed);
        if news {
            self.wake.notify_one();
        }
    }

    /// The tables hold something else now.
    pub(super) fn reset(&self) {
        self.replaced.store(true, Ordering::Release);
        self.followed().values_mut().for_each(Notes::begin);
        self.wake.notify_one();
    }

    /// Waits until something changed of a workspace that is followed.
    pub async fn news(&self) {
        self.wake.notified().await;
    }

    /// Wakes whoever waits for news.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Forgets workspaces that are followed no longer.
    pub fn keep_only(&self, workspaces: &HashSet<WorkspaceId>) {
        self.followed().retain(|workspace, _| workspaces.contains(workspace));
    }

    /// Begins the notes on a workspace anew. Whoever has read afterwards which entry is the last says so with
    /// [`Journal::begun`].
    pub fn begin(&self, workspace: &WorkspaceId) -> Beginning {
        let mut followed = self.followed();
        let notes = followed.entry(workspace.clone()).or_default();
        notes.begin();
        Beginning(notes.beginning)
    }

    /// The notes that began then have everything since this entry. Whoever does not lead the shard may have read its number
    /// while the tables were being replaced: then they count as having a gap.
    pub fn begun(&self, workspace: &WorkspaceId, beginning: Beginning, (since, leads): (u64, bool)) {
        if !leads && self.replaced.load(Ordering::Acquire) {
            return;
        }
        if let Some(notes) = self.followed().get_mut(workspace).filter(|notes| notes.beginning == beginning.0) {
            notes.since = Some(since);
        }
    }

    /// Whether there are notes on a workspace, with a gap or without.
    pub fn follows(&self, workspace: &WorkspaceId) -> bool {
        self.followed().contains_key(workspace)
    }

    /// From which entry on the notes have no gap; nothing where they have one.
    pub fn since(&self, workspace: &WorkspaceId) -> Option<u64> {
        self.followed().get(workspace)?.since
    }

    /// How much changed of a workspace that its backend does not have for certain; nothing where that is not known.
    pub fn behind(&self, workspace: &WorkspaceId) -> Option<usize> {
        let followed = self.followed();
        let notes = followed.get(workspace)?;
        notes.since.map(|_| notes.waiting.len() + notes.taken.len())
    }

    /// The memories that changed and that the backend does not have for certain; nothing where that is not known, or where
    /// they are more than `most`.
    pub fn memories(&self, workspace: &WorkspaceId, most: usize) -> Option<Vec<MemoryId>> {
        let followed = self.followed();
        let notes = followed.get(workspace)?;
        notes.since?;
        let ids = notes.waiting.iter().chain(&notes.taken).filter_map(|touched| match touched {
            Touched::Memory(_, id) => Some(*id),
            Touched::Entity(..) | Touched::Relation(..) => None,
        });
        let ids: Vec<MemoryId> = ids.take(most + 1).collect();
        (ids.len() <= most).then_some(ids)
    }

    /// Takes at most so many of the changes, to be given to the backend; nothing where the notes have a gap. They count as
    /// not given until [`Journal::given`].
    pub fn take(&self, workspace: &WorkspaceId, most: usize) -> Option<Vec<Touched>> {
        let mut followed = self.followed();
        let notes = followed.get_mut(workspace)?;
        notes.since?;
        let some: Vec<Touched> = notes.waiting.iter().take(most).cloned().collect();
        for it in &some {
            notes.waiting.remove(it);
        }
        notes.taken.extend(some.iter().cloned());
        Some(some)
    }

    /// The backend has what was taken.
    pub fn given(&self, workspace: &WorkspaceId) {
        if let Some(notes) = self.followed().get_mut(workspace) {
            notes.taken.clear();
        }
    }

    /// The backend may not have what was taken: it is to be taken again.
    pub fn put_back(&self, workspace: &WorkspaceId) {
        if let Some(notes) = self.followed().get_mut(workspace) {
            let taken = std::mem::take(&mut notes.taken);
            notes.waiting.extend(taken);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(workspace: &WorkspaceId, number: u32) -> Touched {
        Touched::Memory(workspace.clone(), MemoryId::imported("test", &number.to_string()))
    }

    #[test]
    fn what_changed_waits_until_it_was_given_and_a_gap_is_never_taken_for_none() {
        let (journal, team) = (Journal::default(), "team".parse::<WorkspaceId>().expect("a name"));
        let other: WorkspaceId = "other".parse().expect("a name");
        journal.note(&[memory(&team, 1)]);
        assert_eq!((journal.behind(&team), journal.take(&team, 9)), (None, None), "nobody follows it");
        let begun = journal.begin(&team);
        assert_eq!((journal.follows(&team), journal.since(&team)), (true, None));
        journal.note(&[memory(&team, 2), memory(&other, 3)]);
        journal.begun(&team, begun, (7, false));
        assert_eq!((journal.since(&team), journal.behind(&team)), (Some(7), Some(1)));
        assert_eq!(journal.take(&team, 9).map(|it| it.len()), Some(1));
        assert_eq!(journal.memories(&team, 9).map(|it| it.len()), Some(1), "it is not there for certain");
        journal.put_back(&team);
        assert_eq!(journal.take(&team, 9).map(|it| it.len()), Some(1), "it is given again");
        journal.note(&[memory(&team, 2)]);
        journal.given(&team);
        assert_eq!(journal.behind(&team), Some(1), "it changed once more meanwhile");
        let many: Vec<Touched> = (0..=NOTED_MAX as u32).map(|number| memory(&team, number)).collect();
        journal.note(&many);
        assert_eq!((journal.since(&team), journal.take(&team, 9)), (None, None), "too many to be told one by one");
        journal.begun(&team, begun, (8, true));
        assert_eq!(journal.since(&team), None, "that was another beginning");
        let begun = journal.begin(&team);
        journal.begun(&team, begun, (9, true));
        journal.reset();
        assert_eq!((journal.since(&team), journal.memories(&team, 9)), (None, None), "the tables were replaced");
        let begun = journal.begin(&team);
        journal.begun(&team, begun, (9, false));
        assert_eq!(journal.since(&team), None, "they may be replaced just now");
        journal.note(&[memory(&other, 1)]);
        journal.begun(&team, begun, (9, false));
        assert_eq!(journal.since(&team), Some(9));
        journal.keep_only(&HashSet::new());
        assert!(!journal.follows(&team));
    }
}
