//! What agents used, and how they did lately.

use caxton_proto::AgentName;
use caxton_raft::ReadError as GroupError;

use crate::agent::health::AgentState;
use crate::authz::{Permit, ReadActivity};
use crate::chat::Spent;
use crate::conversations::ReadError;
use crate::invoke::{Freshness, Invoker};
use crate::llm::models::today;

/// The days whose use is kept.
pub const DAYS_MAX: u64 = 400;

/// Why it cannot be said what agents used.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// What was acknowledged is not known here.
    #[error(transparent)]
    Current(#[from] GroupError),
    /// The tables could not be read.
    #[error("what agents used cannot be read")]
    Read(#[from] ReadError),
}

/// What the agents of a workspace used, since a day.
#[derive(Debug, Clone)]
pub struct UsedSince {
    /// The first day that is counted, from 1970.
    pub since: u64,
    /// Day, agent and what it used, the newest day first.
    pub used: Vec<(u64, AgentName, Spent)>,
}

/// What agents used, for whoever may follow what happens.
pub struct Usage {
    invoker: Invoker,
}

impl Usage {
    /// Of the agents of `invoker`.
    pub fn new(invoker: Invoker) -> Usage {
        Usage { invoker }
    }

    /// What each agent used on each of the last `days` days, today among them.
    pub async fn since(
        &self,
        permit: &Permit<ReadActivity>,
        days: u64,
        freshness: Freshness,
    ) -> Result<UsedSince, UsageError> {
        self.invoker.current(permit.workspace(), freshness).await?;
        let since = today().saturating_sub(days.clamp(1, DAYS_MAX) - 1);
        let workspace = permit.workspace().clone();
        let read = move |state: &crate::conversations::State| state.spent_since(&workspace, since);
        let used = self.invoker.conversations().read(permit.workspace(), read).await?;
        Ok(UsedSince { since, used })
    }

    /// How the agents did lately on this node.
    pub fn health(&self, permit: &Permit<ReadActivity>) -> Vec<AgentState> {
        self.invoker.health(permit.workspace())
    }
}
