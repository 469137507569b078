//! Which agents failed lately when other agents asked them: they are left alone for a while.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use caxton_proto::{AgentName, WorkspaceId};

use crate::llm::breaker::Breaker;

/// Circuit breakers of agents that others ask; only those that failed lately are kept.
#[derive(Debug, Default)]
pub struct AgentHealth {
    breakers: Mutex<HashMap<HealthKey, Breaker>>,
    started: OnceLock<Instant>,
}

type HealthKey = (WorkspaceId, AgentName);

impl AgentHealth {
    /// Whether an agent may be asked; if not, after how long it may.
    pub(super) fn admit(&self, key: &HealthKey) -> Result<(), Duration> {
        let now = self.now_ms();
        let mut breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        breakers.get_mut(key).map_or(Ok(()), |breaker| breaker.admit(now))
    }

    /// Counts how it went.
    pub(super) fn learn(&self, key: &HealthKey, failed: bool) {
        let now = self.now_ms();
        let mut breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        if failed {
            breakers.entry(key.clone()).or_default().failed(now);
        } else {
            breakers.remove(key);
        }
    }

    fn now_ms(&self) -> u64 {
        let since = self.started.get_or_init(Instant::now).elapsed();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}
