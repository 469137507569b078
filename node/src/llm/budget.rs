//! Budgets of tokens and money by day, for an agent and for a workspace.
//!
//! What a request may need is set aside before it is made, and the rest given back when it is known. That is not the
//! day's rest: requests at the same time have to fit beside each other. A request that names no longest reply is
//! expected to write [`REPLY_TOKENS_EXPECTED`] and may write more, so a budget can be overdrawn by what the last
//! replies of a day wrote beyond that; as soon as less than that is left, replies are limited to what is.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use caxton_proto::manifest::provider::{Budget, MicroUsd, Price};
use caxton_proto::{AgentName, WorkspaceId};
use tokio::sync::Notify;

use super::{Error, Spent, Usage};

/// The least that a reply needs to be worth asking for.
const REPLY_TOKENS_MIN: u64 = 16;
/// What is set aside for the reply to a request that names no longest one.
const REPLY_TOKENS_EXPECTED: u64 = 8_192;

/// What the requests of one call used, by and by.
#[derive(Debug, Default)]
pub struct Charges(Mutex<Spent>);

impl Charges {
    /// Adds what a request used.
    pub(super) fn add(&self, spent: Spent) {
        let mut sum = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *sum = sum.and(spent);
    }

    /// All of it.
    pub fn total(&self) -> Spent {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What costs nothing.
pub const FREE: Price = Price { input: MicroUsd(0), output: MicroUsd(0) };

fn cost(price: Price, usage: Usage) -> u64 {
    price.of(usage.input, usage.output).0
}

/// Who uses it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Purse {
    Workspace(WorkspaceId),
    Agent(WorkspaceId, AgentName),
    Memory(WorkspaceId, AgentName),
}

/// For what of an agent a request is made: each has a budget of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Payer {
    /// The turns of the agent.
    #[default]
    Turns,
    /// Drawing facts out of what was said in them.
    Memory,
}

/// On whose account a request is made, and what each may use in a day.
#[derive(Debug, Clone)]
pub struct Account {
    pub workspace: WorkspaceId,
    pub agent: AgentName,
    /// For what of the agent.
    pub payer: Payer,
    /// What the workspace may use.
    pub workspace_budget: Budget,
    /// What the agent may use for that.
    pub agent_budget: Budget,
}

impl Account {
    fn purses(&self) -> [Purse; 2] {
        let (workspace, agent) = (self.workspace.clone(), self.agent.clone());
        let own = match self.payer {
            Payer::Turns => Purse::Agent(workspace.clone(), agent),
            Payer::Memory => Purse::Memory(workspace.clone(), agent),
        };
        [Purse::Workspace(workspace), own]
    }
}

/// What was set aside for one request.
#[derive(Debug)]
pub struct Reservation {
    purses: [Purse; 2],
    day: u64,
    spent: Spent,
    price: Price,
    /// The longest reply that the budgets leave room for, where that is less than what was wanted or expected.
    pub output_max: Option<u64>,
}

/// Why nothing was set aside.
#[derive(Debug)]
enum NoReserve {
    /// The budget is spent.
    Spent(Error),
    /// There is room, and requests that are under way hold it.
    Held,
}

/// All that was used on this node today.
#[derive(Debug, Default)]
pub struct Budgets {
    ledger: Mutex<Ledger>,
    /// Told whenever what was set aside is given back.
    settled: Notify,
}

#[derive(Debug, Default)]
struct Ledger {
    day: u64,
    /// What was used and what is set aside.
    spent: HashMap<Purse, Spent>,
    /// Of that, what is set aside for requests under way.
    held: HashMap<Purse, Spent>,
}

impl Budgets {
    fn ledger(&self, day: u64) -> MutexGuard<'_, Ledger> {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        if ledger.day < day {
            *ledger = Ledger { day, ..Ledger::default() };
        }
        ledger
    }

    /// Puts back what the store remembers of `day` (days since 1970) for a workspace, when this node begins to answer for
    /// it. What this node knows to have been used already is not forgotten, and not counted twice.
    pub fn remember(&self, day: u64, workspace: &WorkspaceId, agents: &[(AgentName, Spent)]) {
        let mut ledger = self.ledger(day);
        let mut whole = Spent::default();
        for (agent, spent) in agents {
            whole = whole.and(*spent);
            let held = ledger.spent.entry(Purse::Agent(workspace.clone(), agent.clone())).or_default();
            *held = held.or(*spent);
        }
        let held = ledger.spent.entry(Purse::Workspace(workspace.clone())).or_default();
        *held = held.or(whole);
    }

    /// Adds what another node used for a turn that goes on here.
    pub fn take_over(&self, day: u64, workspace: &WorkspaceId, agents: &[(AgentName, Spent)]) {
        let mut ledger = self.ledger(day);
        for (agent, spent) in agents {
            for purse in [Purse::Workspace(workspace.clone()), Purse::Agent(workspace.clone(), agent.clone())] {
                let held = ledger.spent.entry(purse).or_default();
                *held = held.and(*spent);
            }
        }
    }

    /// What the workspace used today.
    pub fn spent(&self, day: u64, workspace: &WorkspaceId) -> Spent {
        self.ledger(day).spent.get(&Purse::Workspace(workspace.clone())).copied().unwrap_or_default()
    }

    /// Sets aside what a request of `input` tokens and `wanted` tokens of reply may use, or refuses. Where requests that
    /// are under way hold what is needed, it waits for them: they end, and give back what they did not use.
    pub async fn reserve(
        &self,
        day: u64,
        account: &Account,
        price: Price,
        input: u64,
        wanted: Option<u64>,
    ) -> Result<Reservation, Error> {
        loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            // From here on nothing that is given back goes unheard.
            settled.as_mut().enable();
            match self.try_reserve(day, account, price, input, wanted) {
                Ok(reserved) => return Ok(reserved),
                Err(NoReserve::Spent(error)) => return Err(error),
                Err(NoReserve::Held) => settled.await,
            }
        }
    }

    fn try_reserve(
        &self,
        day: u64,
        account: &Account,
        price: Price,
        input: u64,
        wanted: Option<u64>,
    ) -> Result<Reservation, NoReserve> {
        let purses = account.purses();
        let budgets = [account.workspace_budget, account.agent_budget];
        let expected = wanted.unwrap_or(REPLY_TOKENS_EXPECTED);
        let mut ledger = self.ledger(day);
        let mut output_max: Option<u64> = None;
        for (purse, budget) in purses.iter().zip(budgets) {
            let taken = ledger.spent.get(purse).copied().unwrap_or_default();
            let held = ledger.held.get(purse).copied().unwrap_or_default();
            let used = taken.without(held);
            let at_most = room(purse, used, budget, price, input).map_err(NoReserve::Spent)?;
            let now = room(purse, taken, budget, price, input).ok();
            // Less than is expected, and more once others have given back what they do not need.
            let enough = |room: Option<u64>| room.is_none_or(|room| room >= expected);
            if held != Spent::default() && !now.is_some_and(enough) && now != Some(at_most) {
                return Err(NoReserve::Held);
            }
            output_max = [output_max, at_most].into_iter().flatten().min();
        }
        let output = output_max.map_or(0, |room| room.min(expected)); // No limit: nothing need be set aside.
        let usage = if output_max.is_some() { Usage { input, output } } else { Usage::default() };
        let spent = Spent { tokens: usage.total(), cost: cost(price, usage) };
        let ledger_now = &mut *ledger;
        for purse in &purses {
            for sums in [&mut ledger_now.spent, &mut ledger_now.held] {
                let sum = sums.entry(purse.clone()).or_default();
                *sum = sum.and(spent);
            }
        }
        drop(ledger);
        let output_max = output_max.map(|_| output).filter(|output| *output < expected);
        Ok(Reservation { purses, day, spent, price, output_max })
    }

    /// Replaces what was set aside by what was used.
    pub fn settle(&self, reserved: Reservation, usage: Usage) -> Spent {
        let used = Spent { tokens: usage.total(), cost: cost(reserved.price, usage) };
        let mut ledger = self.ledger(reserved.day);
        if ledger.day == reserved.day {
            for purse in &reserved.purses {
                let sum = ledger.spent.entry(purse.clone()).or_default();
                *sum = sum.without(reserved.spent).and(used);
                let held = ledger.held.entry(purse.clone()).or_default();
                *held = held.without(reserved.spent);
            }
        }
        drop(ledger);
        self.settled.notify_waiters();
        used
    }
}

/// How many tokens of reply one purse leaves room for, or that it does not.
fn room(purse: &Purse, used: Spent, budget: Budget, price: Price, input: u64) -> Result<Option<u64>, Error> {
    let refuse = |used: String, limit: String| {
        let whose = match purse {
            Purse::Workspace(workspace) => format!("workspace `{workspace}`"),
            Purse::Agent(_, agent) => format!("agent `{agent}`"),
            Purse::Memory(_, agent) => format!("the memory of agent `{agent}`"),
        };
        Err(Error::BudgetSpent { whose, used, limit })
    };
    let mut room: Option<u64> = None;
    if let Some(limit) = budget.tokens_per_day {
        let left = limit.saturating_sub(used.tokens).saturating_sub(input);
        if left < REPLY_TOKENS_MIN {
            return refuse(format!("{} tokens", used.tokens), format!("{limit} tokens"));
        }
        room = Some(left);
    }
    if let Some(limit) = budget.usd_per_day.map(|usd| usd.0) {
        let left = limit.saturating_sub(used.cost).saturating_sub(cost(price, Usage { input, output: 0 }));
        if left == 0 || left < cost(price, Usage { input: 0, output: REPLY_TOKENS_MIN }) {
            return refuse(MicroUsd(used.cost).to_string(), MicroUsd(limit).to_string());
        }
        if price.output.0 > 0 {
            let affordable = (u128::from(left) * 1_000_000 / u128::from(price.output.0)) as u64;
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
            payer: Payer::Turns,
            workspace_budget: Budget { tokens_per_day: workspace_tokens, usd_per_day: None },
            agent_budget: Budget { tokens_per_day: agent_tokens, usd_per_day: None },
        }
    }

    #[tokio::test]
    async fn a_spent_budget_names_its_owner_and_the_next_day_starts_anew() {
        let budgets = Budgets::default();
        let account = account(Some(1_000), Some(100));
        let reserved = budgets.reserve(1, &account, FREE, 40, Some(1_000)).await.expect("room");
        assert_eq!(reserved.output_max, Some(60));
        budgets.settle(reserved, Usage { input: 40, output: 50 });
        let refused = budgets.reserve(1, &account, FREE, 1, None).await.expect_err("spent");
        assert!(refused.to_string().contains("agent `worker`"), "{refused}");
        assert!(budgets.reserve(2, &account, FREE, 1, None).await.is_ok());
    }

    #[tokio::test]
    async fn what_draws_facts_out_takes_nothing_of_what_the_turns_have() {
        let budgets = Budgets::default();
        let turns = account(None, Some(1_000));
        let memory = Account { payer: Payer::Memory, ..turns.clone() };
        let reserved = budgets.reserve(1, &memory, FREE, 100, Some(900)).await.expect("room");
        budgets.settle(reserved, Usage { input: 100, output: 900 });
        let refused = budgets.reserve(1, &memory, FREE, 1, None).await.expect_err("spent");
        assert!(refused.to_string().contains("the memory of agent `"), "{refused}");
        let reserved = budgets.reserve(1, &turns, FREE, 100, Some(800)).await.expect("room");
        budgets.settle(reserved, Usage { input: 100, output: 800 });
        assert_eq!(budgets.spent(1, &turns.workspace).tokens, 1_900, "the workspace pays for both");
    }

    #[tokio::test]
    async fn a_large_budget_limits_no_reply_and_holds_many_requests_at_once() {
        let budgets = Budgets::default();
        let account = account(Some(2_000_000), None);
        let mut open = Vec::new();
        for _ in 0..100 {
            let reserved = budgets.reserve(1, &account, FREE, 100, None).await.expect("room");
            assert_eq!(reserved.output_max, None, "a day's budget is no longest reply");
            open.push(reserved);
        }
        for reserved in open {
            budgets.settle(reserved, Usage { input: 100, output: 10 });
        }
        assert_eq!(budgets.spent(1, &account.workspace).tokens, 11_000);
    }

    #[tokio::test]
    async fn who_finds_a_small_budget_held_by_others_waits_for_what_they_give_back() {
        let budgets = std::sync::Arc::new(Budgets::default());
        let account = account(None, Some(10_000));
        let first = budgets.reserve(1, &account, FREE, 100, None).await.expect("room");
        let (others, same) = (budgets.clone(), account.clone());
        let mut second = tokio::spawn(async move { others.reserve(1, &same, FREE, 100, None).await });
        let waits = tokio::time::timeout(std::time::Duration::from_millis(20), &mut second).await;
        assert!(waits.is_err(), "what is left is held and not spent");
        budgets.settle(first, Usage { input: 100, output: 50 });
        let second = second.await.expect("no panic").expect("room");
        assert_eq!(second.output_max, None);
        budgets.settle(second, Usage { input: 100, output: 9_700 });
        let third = budgets.reserve(1, &account, FREE, 10, None).await.expect("a little");
        assert_eq!(third.output_max, Some(40), "what is left is the longest reply");
        budgets.settle(third, Usage { input: 10, output: 40 });
        assert!(budgets.reserve(1, &account, FREE, 10, None).await.is_err());
    }

    #[test]
    fn what_is_remembered_counts_once_and_what_is_taken_over_counts_on_top() {
        let budgets = Budgets::default();
        let account = account(None, None);
        let spent = |tokens| Spent { tokens, cost: 0 };
        let known = [(account.agent.clone(), spent(10)), ("other".parse().expect("a name"), spent(5))];
        budgets.remember(1, &account.workspace, &known);
        budgets.remember(1, &account.workspace, &known);
        assert_eq!(budgets.spent(1, &account.workspace), spent(15));
        budgets.take_over(1, &account.workspace, &known[..1]);
        budgets.remember(1, &account.workspace, &known);
        assert_eq!(budgets.spent(1, &account.workspace), spent(25));
    }

    #[tokio::test]
    async fn money_runs_out_as_tokens_do() {
        let budgets = Budgets::default();
        let price = Price { input: MicroUsd(1_000_000), output: MicroUsd(2_000_000) };
        let mut account = account(None, None);
        account.workspace_budget.usd_per_day = Some(MicroUsd(1_000));
        let reserved = budgets.reserve(1, &account, price, 200, None).await.expect("room");
        assert_eq!(reserved.output_max, Some(400), "800 millionths are left, and a token costs 2");
        assert_eq!(budgets.settle(reserved, Usage { input: 200, output: 400 }), Spent { tokens: 600, cost: 1_000 });
        let refused = budgets.reserve(1, &account, price, 1, None).await.expect_err("spent");
        assert!(refused.to_string().contains("$0.001"), "{refused}");
    }

    proptest! {
        /// However requests interleave, a provider that keeps to what was wanted never overdraws a budget, and what was
        /// set aside and not used is given back.
        #[test]
        fn a_budget_is_never_overdrawn(limit in 1u64..20_000, asks in prop::collection::vec((1u64..200, 0u64..400, any::<bool>()), 1..60)) {
            let budgets = Budgets::default();
            let account = account(Some(limit), None);
            let mut open = Vec::new();
            for (input, output, close) in asks {
                if let Ok(reserved) = budgets.try_reserve(7, &account, FREE, input, None) {
                    let output = output.min(reserved.output_max.unwrap_or(REPLY_TOKENS_EXPECTED));
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
            prop_assert!(budgets.ledger(7).held.values().all(|held| *held == Spent::default()));
        }
    }
}
