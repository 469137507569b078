//! How many turns each agent has under way on this node, to tell equals apart: the hint goes to whoever has least.
//!
//! It is a hint and no limit: nothing is refused for it, and it is forgotten with the process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use caxton_proto::{AgentName, WorkspaceId};

type Key = (WorkspaceId, AgentName);

/// Turns under way. A clone is a handle on the same.
#[derive(Debug, Clone, Default)]
pub struct Load(Arc<Mutex<HashMap<Key, u32>>>);

/// A turn under way, for as long as this lives.
#[derive(Debug)]
pub struct Underway {
    load: Load,
    key: Key,
}

impl Load {
    /// Counts a turn of an agent until the answer is dropped.
    pub fn begin(&self, workspace: &WorkspaceId, agent: &AgentName) -> Underway {
        let key = (workspace.clone(), agent.clone());
        *self.lock().entry(key.clone()).or_default() += 1;
        Underway { load: self.clone(), key }
    }

    /// The turns that an agent has under way.
    pub fn of(&self, workspace: &WorkspaceId, agent: &AgentName) -> u32 {
        self.lock().get(&(workspace.clone(), agent.clone())).copied().unwrap_or(0)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        let mut turns = self.load.lock();
        // Only those that have some are kept.
        match turns.get_mut(&self.key) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => _ = turns.remove(&self.key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_counts_as_long_as_it_is_under_way() {
        let load = Load::default();
        let (demo, ada): (WorkspaceId, AgentName) = ("demo".parse().expect("a name"), "ada".parse().expect("a name"));
        let first = load.begin(&demo, &ada);
        let second = load.begin(&demo, &ada);
        assert_eq!((load.of(&demo, &ada), load.of(&demo, &"bob".parse().expect("a name"))), (2, 0));
        drop(first);
        assert_eq!(load.of(&demo, &ada), 1);
        drop(second);
        assert!(load.lock().is_empty());
    }
}
