//! How agents did lately, in turns of their own and when others asked them: those that fail again and again are left alone by
//! other agents for a while.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use caxton_proto::{AgentName, WorkspaceId};

use crate::llm::breaker::{Breaker, FAILURES_MAX};
use crate::text::preview;
use crate::time::now_ms;

/// Agents of which something is kept; when there are more, those that did well are forgotten first.
const KEPT_MAX: usize = 10_000;
/// The longest error that is kept, in bytes.
const ERROR_BYTES_MAX: usize = 500;

/// How the agents of this node did lately.
#[derive(Debug, Default)]
pub struct AgentHealth {
    records: Mutex<HashMap<HealthKey, Record>>,
    started: OnceLock<Instant>,
}

type HealthKey = (WorkspaceId, AgentName);

#[derive(Debug, Default)]
struct Record {
    breaker: Breaker,
    last_error: Option<LastError>,
    answered_ms: Option<u64>,
}

/// What went wrong the last time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastError {
    /// The reason, cut where it is long.
    pub reason: String,
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
}

/// What is known of one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentState {
    /// The agent that did so.
    pub agent: AgentName,
    /// Failures in a row.
    pub failures: u32,
    /// Others leave it alone: it failed too often.
    pub rests: bool,
    /// What went wrong the last time, also if it did well since.
    pub last_error: Option<LastError>,
    /// When it last answered, in milliseconds since 1970.
    pub answered_ms: Option<u64>,
}

impl AgentHealth {
    /// Whether an agent may be asked by another one; if not, after how long it may.
    pub(super) fn admit(&self, key: &HealthKey) -> Result<(), Duration> {
        let now = self.now_ms();
        self.lock().get_mut(key).map_or(Ok(()), |record| record.breaker.admit(now))
    }

    /// Notes how it went: the error says why not.
    pub fn learn(&self, workspace: &WorkspaceId, agent: &AgentName, went: Result<(), &str>) {
        let (now, time_ms) = (self.now_ms(), now_ms());
        let mut records = self.lock();
        let key = (workspace.clone(), agent.clone());
        if records.len() >= KEPT_MAX && !records.contains_key(&key) {
            records.retain(|_, record| record.breaker.failures() > 0);
            if records.len() >= KEPT_MAX {
                records.clear();
            }
        }
        let record = records.entry(key).or_default();
        match went {
            Ok(()) => {
                record.breaker.succeeded();
                record.answered_ms = Some(time_ms);
            }
            Err(reason) => {
                record.breaker.failed(now);
                record.last_error = Some(LastError { reason: preview(reason, ERROR_BYTES_MAX), time_ms });
            }
        }
    }

    /// What is known of the agents of a workspace, in the order of their names: of those that had something to do since this
    /// node was started.
    pub fn of(&self, workspace: &WorkspaceId) -> Vec<AgentState> {
        let records = self.lock();
        let own = records.iter().filter(|((of, _), _)| of == workspace);
        let mut states: Vec<AgentState> = own
            .map(|((_, agent), record)| AgentState {
                agent: agent.clone(),
                failures: record.breaker.failures(),
                rests: record.breaker.failures() >= FAILURES_MAX,
                last_error: record.last_error.clone(),
                answered_ms: record.answered_ms,
            })
            .collect();
        states.sort_by(|a, b| a.agent.cmp(&b.agent));
        states
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<HealthKey, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        let since = self.started.get_or_init(Instant::now).elapsed();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_fails_again_and_again_rests_and_its_last_error_stays_after_it_did_well() {
        let health = AgentHealth::default();
        let (demo, other) = ("demo".parse().expect("a name"), "other".parse().expect("a name"));
        let agent: AgentName = "talker".parse().expect("a name");
        assert!(health.of(&demo).is_empty());
        for _ in 0..FAILURES_MAX {
            health.learn(&demo, &agent, Err("no model answered"));
        }
        health.learn(&other, &agent, Ok(()));
        let states = health.of(&demo);
        assert_eq!(states.len(), 1, "another workspace's are not shown");
        assert!(states[0].rests && states[0].failures == FAILURES_MAX && states[0].answered_ms.is_none());
        assert!(health.admit(&(demo.clone(), agent.clone())).is_err());
        health.learn(&demo, &agent, Ok(()));
        let states = health.of(&demo);
        assert!(!states[0].rests && states[0].answered_ms.is_some());
        assert_eq!(states[0].last_error.as_ref().map(|error| error.reason.as_str()), Some("no model answered"));
        let long = "x".repeat(10_000);
        health.learn(&demo, &agent, Err(&long));
        assert!(
            health.of(&demo)[0].last_error.as_ref().is_some_and(|error| error.reason.len() <= ERROR_BYTES_MAX + 16)
        );
    }
}
