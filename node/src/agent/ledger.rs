//! What the agents of one message used of their models.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use caxton_proto::AgentName;

use crate::chat::Spent;

/// What each agent used of its models, in one message and all that it led to.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Mutex<BTreeMap<AgentName, Spent>>>);

impl Ledger {
    /// One that goes on from what was used before.
    pub fn of(spent: Vec<(AgentName, Spent)>) -> Ledger {
        Ledger(Arc::new(Mutex::new(spent.into_iter().collect())))
    }

    /// Adds what an agent used.
    pub fn add(&self, agent: &AgentName, spent: Spent) {
        let mut ledger = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let held = ledger.entry(agent.clone()).or_default();
        *held = held.and(spent);
    }

    /// Every agent with what it used.
    pub fn all(&self) -> Vec<(AgentName, Spent)> {
        let ledger = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.iter().map(|(agent, spent)| (agent.clone(), *spent)).collect()
    }
}
