//! Budgets of tokens and money by day, for an agent and for a workspace: exact, because what a request may use at most
//! is set aside before it is made, and the rest given back when it is known.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use caxton_proto::{AgentName, WorkspaceId};
use serde::{Deserialize, Serialize};

use super::{Error, Usage};

/// The least that a reply needs to be worth asking for.
const REPLY_TOKENS_MIN: u64 = 16;

/// A model's price, in millionths of a currency unit for a million tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// For tokens read.
    pub input: u64,
    /// For tokens written.
    pub output: u64,
}

impl Price {
    /// What `usage` costs, in millionths, rounded up: a budget is never overdrawn by rounding.
    pub fn cost(self, usage: Usage) -> u64 {
        let of = |tokens: u64, price: u64| (u128::from(tokens) * u128::from(price)).div_ceil(1_000_000) as u64;
        of(usage.input, self.input).saturating_add(of(usage.output, self.output))
    }
}

/// What may be used in one day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowance {
    /// Tokens; without limit when absent.
    #[serde(default)]
    pub tokens: Option<u64>,
    /// Millionths of a currency unit; without limit when absent.
    #[serde(default)]
    pub cost: Option<u64>,
}

/// What was used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// Tokens read and written.
    pub tokens: u64,
    /// Millionths.
    pub cost: u64,
}

/// Who uses it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Purse {
    Workspace(WorkspaceId),
    Agent(WorkspaceId, AgentName),
}

/// On whose account a request is made, and what each may use in a day.
#[derive(Debug, Clone)]
pub struct Account {
    /// The workspace.
    pub workspace: WorkspaceId,
    /// The agent.
    pub agent: AgentName,
    /// What the workspace may use.
    pub workspace_allowance: Allowance,
    /// What the agent may use.
    pub agent_allowance: Allowance,
}

/// What was set aside for one request.
#[derive(Debug)]
pub struct Reserved {
    purses: [Purse; 2],
    day: u64,
    spent: Spent,
    price: Price,
    /// The longest reply that the budgets leave room for; without limit when absent.
    pub output_max: Option<u64>,
}

/// All that was used on this node today.
#[derive(Debug, Default)]
pub struct Budgets {
    ledger: Mutex<Ledger>,
}

#[derive(Debug, Default)]
struct Ledger {
    day: u64,
    spent: HashMap<Purse, Spent>,
}

impl Budgets {
    fn ledger(&self, day: u64) -> MutexGuard<'_, Ledger> {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        if ledger.day < day {
            *ledger = Ledger { day, spent: HashMap::new() };
        }
        ledger
    }

    /// Puts back what the store remembers of `day` (days since 1970), at the start of a node.
    pub fn remember(&self, day: u64, workspace: &WorkspaceId, agent: &AgentName, spent: Spent) {
        let mut ledger = self.ledger(day);
        for purse in [Purse::Workspace(workspace.clone()), Purse::Agent(workspace.clone(), agent.clone())] {
            let held = ledger.spent.entry(purse).or_default();
            held.tokens = held.tokens.saturating_add(spent.tokens);
            held.cost = held.cost.saturating_add(spent.cost);
        }
    }

    /// What the workspace used today.
    pub fn spent(&self, day: u64, workspace: &WorkspaceId) -> Spent {
        self.ledger(day).spent.get(&Purse::Workspace(workspace.clone())).copied().unwrap_or_default()
    }

    /// Sets aside what a request of `input` tokens and `wanted` tokens of reply may use, or refuses.
    pub fn reserve(
        &self,
        day: u64,
        account: &Account,
        price: Price,
        input: u64,
        wanted: Option<u64>,
    ) -> Result<Reserved, Error> {
        let purses = [
            Purse::Workspace(account.workspace.clone()),
            Purse::Agent(account.workspace.clone(), account.agent.clone()),
        ];
        let allowances = [account.workspace_allowance, account.agent_allowance];
        let mut ledger = self.ledger(day);
        let mut output_max: Option<u64> = None;
        for (purse, allowance) in purses.iter().zip(allowances) {
            let used = ledger.spent.get(purse).copied().unwrap_or_default();
            let room = room(purse, used, allowance, price, input)?;
            output_max = [output_max, room].into_iter().flatten().min();
        }
        let output = match (output_max, wanted) {
            (Some(room), Some(wanted)) => room.min(wanted),
            (Some(room), None) => room,
            (None, _) => 0, // No limit: nothing need be set aside.
        };
        let usage = if output_max.is_some() { Usage { input, output } } else { Usage::default() };
        let spent = Spent { tokens: usage.total(), cost: price.cost(usage) };
        for purse in &purses {
            let held = ledger.spent.entry(purse.clone()).or_default();
            held.tokens = held.tokens.saturating_add(spent.tokens);
            held.cost = held.cost.saturating_add(spent.cost);
        }
        Ok(Reserved { purses, day, spent, price, output_max: output_max.map(|_| output) })
    }

    /// Replaces what was set aside by what was used; a request that failed used nothing that anyone counted.
    pub fn settle(&self, reserved: Reserved, usage: Usage) -> Spent {
        let used = Spent { tokens: usage.total(), cost: reserved.price.cost(usage) };
        let mut ledger = self.ledger(reserved.day);
        if ledger.day == reserved.day {
            for purse in &reserved.purses {
                let held = ledger.spent.entry(purse.clone()).or_default();
                held.tokens = held.tokens.saturating_sub(reserved.spent.tokens).saturating_add(used.tokens);
                held.cost = held.cost.saturating_sub(reserved.spent.cost).saturating_add(used.cost);
            }
        }
        used
    }
}

/// How many tokens of reply one purse leaves room for, or that it does not.
fn room(purse: &Purse, used: Spent, allowance: Allowance, price: Price, input: u64) -> Result<Option<u64>, Error> {
    let refuse = |used: String, limit: String| {
        let whose = match purse {
            Purse::Workspace(workspace) => format!("workspace `{workspace}`"),
            Purse::Agent(_, agent) => format!("agent `{agent}`"),
        };
        Err(Error::BudgetSpent { whose, used, limit })
    };
    let mut room: Option<u64> = None;
    if let Some(limit) = allowance.tokens {
        let left = limit.saturating_sub(used.tokens).saturating_sub(input);
        if left < REPLY_TOKENS_MIN {
            return refuse(format!("{} tokens", used.tokens), format!("{limit} tokens"));
        }
        room = Some(left);
    }
    if let Some(limit) = allowance.cost {
        let left = limit.saturating_sub(used.cost).saturating_sub(price.cost(Usage { input, output: 0 }));
        if left == 0 || left < price.cost(Usage { input: 0, output: REPLY_TOKENS_MIN }) {
            let money = |millionths: u64| format!("{:.4}", millionths as f64 / 1e6);
            return refuse(money(used.cost), money(limit));
        }
        if price.output > 0 {
            let affordable = (u128::from(left) * 1_000_000 / u128::from(price.output)) as u64;
            room = Some(room.map_or(affordable, |room| room.min(affordable)));
        }
    }
    Ok(room)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn account(workspace_tokens: Option<u64>, agent_tokens: Option<u64>) -> Account {
        Account {
            workspace: "team".parse().expect("a name"),
            agent: "worker".parse().expect("a name"),
            workspace_allowance: Allowance { tokens: workspace_tokens, cost: None },
            agent_allowance: Allowance { tokens: agent_tokens, cost: None },
        }
    }

    #[test]
    fn a_spent_budget_names_its_owner_and_the_next_day_starts_anew() {
        let budgets = Budgets::default();
        let account = account(Some(1_000), Some(100));
        let reserved = budgets.reserve(1, &account, Price::default(), 40, Some(1_000)).expect("room");
        assert_eq!(reserved.output_max, Some(60));
        budgets.settle(reserved, Usage { input: 40, output: 50 });
        let refused = budgets.reserve(1, &account, Price::default(), 1, None).expect_err("spent");
        assert!(refused.to_string().contains("agent `worker`"), "{refused}");
        assert!(budgets.reserve(2, &account, Price::default(), 1, None).is_ok());
    }

    #[test]
    fn money_is_rounded_against_the_spender() {
        let price = Price { input: 3_000_000, output: 15_000_000 };
        assert_eq!(price.cost(Usage { input: 1, output: 0 }), 3);
        assert_eq!(Price { input: 1, output: 0 }.cost(Usage { input: 1, output: 0 }), 1);
    }

    proptest! {
        /// However requests interleave, a provider that keeps to `output_max` never overdraws a budget.
        #[test]
        fn a_budget_is_never_overdrawn(limit in 1u64..5_000, asks in prop::collection::vec((1u64..200, 0u64..400, any::<bool>()), 1..60)) {
            let budgets = Budgets::default();
            let account = account(Some(limit), None);
            let mut open = Vec::new();
            for (input, output, close) in asks {
                if let Ok(reserved) = budgets.reserve(7, &account, Price::default(), input, None) {
                    let output = output.min(reserved.output_max.expect("limited"));
                    open.push((reserved, Usage { input, output }));
                }
                prop_assert!(budgets.spent(7, &account.workspace).tokens <= limit);
                if close && let Some((reserved, usage)) = open.pop() {
                    budgets.settle(reserved, usage);
                }
            }
            for (reserved, usage) in open {
                budgets.settle(reserved, usage);
            }
            prop_assert!(budgets.spent(7, &account.workspace).tokens <= limit);
        }
    }
}
