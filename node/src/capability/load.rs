//! How many turns each agent has under way on this node, to tell equals apart: the hint goes to whoever has least.
//!
//! It is a hint and no limit: nothing is refused for it, and it is forgotten with the process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use caxton_proto::{AgentName, WorkspaceId};

type Key = (WorkspaceId, AgentName);

/// Agents of which it is known when they last began a turn; beyond that all are forgotten.
const BEGUN_MAX: usize = 16_384;

/// Turns under way. A clone is a handle on the same.
#[derive(Debug, Clone, Default)]
pub struct Load(Arc<Mutex<Turns>>);

#[derive(Debug, Default)]
struct Turns {
    under_way: HashMap<Key, u32>,
    /// Which of all turns of this node an agent began last, counted from 1.
    begun: HashMap<Key, u64>,
    count: u64,
}

/// How much an agent has had to do: the turns that it has under way, and of two that have as many, who began one longer ago.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Busyness {
    under_way: u32,
    begun: u64,
}

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
        let mut turns = self.lock();
        *turns.under_way.entry(key.clone()).or_default() += 1;
        if turns.begun.len() >= BEGUN_MAX {
            turns.begun.clear();
        }
        turns.count += 1;
        let count = turns.count;
        turns.begun.insert(key.clone(), count);
        drop(turns);
        Underway { load: self.clone(), key }
    }

    /// The turns that an agent has under way.
    pub fn of(&self, workspace: &WorkspaceId, agent: &AgentName) -> u32 {
        self.busyness(workspace, agent).under_way
    }

    /// How busy an agent is beside others; the least of equals is taken.
    pub fn busyness(&self, workspace: &WorkspaceId, agent: &AgentName) -> Busyness {
        let (turns, key) = (self.lock(), (workspace.clone(), agent.clone()));
        Busyness {
            under_way: turns.under_way.get(&key).copied().unwrap_or(0),
            begun: turns.begun.get(&key).copied().unwrap_or(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Turns> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        let mut turns = self.load.lock();
        // Only those that have some are kept.
        match turns.under_way.get_mut(&self.key) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => _ = turns.under_way.remove(&self.key),
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
        assert!(load.lock().under_way.is_empty());
    }
}
