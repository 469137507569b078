//! `caxton usage`: what agents used, in tokens and money, by day.

use std::collections::BTreeMap;

use caxton_proto::AgentName;

use crate::api::paths;
use crate::api::paths::with_query;
use crate::api::usage::{AgentUsage, Usage, Used};
use crate::cli::live::Remote;
use crate::cli::output::{BOLD, DIM, Table, paint};
use crate::cli::{CliError, Context};

/// Arguments of `caxton usage`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Columns: DAY in UTC, AGENT, TOKENS read and written, COST by the prices under [providers]. JSON has them as day, agent, tokens
and cost_microusd, in millionths of a dollar.

Examples:
  caxton usage
  caxton usage --days 30 --by agent
  caxton usage --json | jq '.total.tokens'")]
pub struct Args {
    /// How many days, today among them.
    #[arg(long, default_value_t = 7, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(1..=400))]
    days: u64,
    /// What is summed up.
    #[arg(long, value_enum, default_value_t = By::Both, value_name = "WHAT")]
    by: By,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum By {
    /// Nothing: a line for each agent and day.
    Both,
    /// Each day of all agents.
    Day,
    /// Each agent in all days.
    Agent,
}

pub fn run(args: &Args, context: &Context) -> Result<(), CliError> {
    let id = context.workspace_id()?;
    let client = context.client()?;
    let remote = Remote { client: &client, id: &id };
    let path = with_query(remote.path(paths::USAGE), &[("days", args.days.to_string())]);
    let usage: Usage = context.block_on(async { Ok(client.get(&path).await?) })?;
    let out = &context.out;
    if usage.usage.is_empty() {
        out.line(format_args!("No agent of {} used anything since {}.", paint(BOLD, &id), usage.since))?;
        return out.json(&usage);
    }
    out.table(table(&usage.usage, args.by))?;
    let Used { tokens, cost_microusd } = usage.total;
    out.hanging("", paint(DIM, format_args!("{tokens} tokens and {} since {}", dollars(cost_microusd), usage.since)))?;
    out.json(&usage)
}

fn table(usage: &[AgentUsage], by: By) -> Table {
    match by {
        By::Both => {
            let mut table = Table::new(["DAY", "AGENT", "TOKENS", "COST"]);
            for AgentUsage { day, agent, used } in usage {
                table.row([day.clone(), agent.to_string(), used.tokens.to_string(), dollars(used.cost_microusd)]);
            }
            table
        }
        By::Day => {
            let mut days: BTreeMap<&str, Used> = BTreeMap::new();
            usage.iter().for_each(|one| add(days.entry(&one.day).or_default(), one.used));
            sums("DAY", days.into_iter().rev().map(|(day, used)| (day.to_owned(), used)))
        }
        By::Agent => {
            let mut agents: BTreeMap<&AgentName, Used> = BTreeMap::new();
            usage.iter().for_each(|one| add(agents.entry(&one.agent).or_default(), one.used));
            sums("AGENT", agents.into_iter().map(|(agent, used)| (agent.to_string(), used)))
        }
    }
}

fn sums(head: &str, sums: impl Iterator<Item = (String, Used)>) -> Table {
    let mut table = Table::new([head, "TOKENS", "COST"]);
    sums.for_each(|(name, used)| table.row([name, used.tokens.to_string(), dollars(used.cost_microusd)]));
    table
}

fn add(sum: &mut Used, more: Used) {
    sum.tokens = sum.tokens.saturating_add(more.tokens);
    sum.cost_microusd = sum.cost_microusd.saturating_add(more.cost_microusd);
}

/// Money as people write it; with as many places as it takes to show that something was paid.
fn dollars(microusd: u64) -> String {
    let (whole, rest) = (microusd / 1_000_000, microusd % 1_000_000);
    if rest % 10_000 == 0 { format!("${whole}.{:02}", rest / 10_000) } else { format!("${whole}.{rest:06}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_shown_to_the_last_millionth_where_there_is_one() {
        let shown = [0, 10_000, 1_000_000, 1_234_567, 5].map(dollars);
        assert_eq!(shown, ["$0.00", "$0.01", "$1.00", "$1.234567", "$0.000005"]);
    }

    #[test]
    fn days_and_agents_are_summed_up() {
        let one = |day: &str, agent: &str, tokens| AgentUsage {
            day: day.to_owned(),
            agent: agent.parse().expect("a name"),
            used: Used { tokens, cost_microusd: tokens * 10_000 },
        };
        let usage = [one("2026-02-01", "a", 3), one("2026-02-01", "b", 4), one("2026-01-31", "a", 5)];
        let shown = |by| anstream::adapter::strip_str(&table(&usage, by).to_string()).to_string();
        let lines = |text: String| {
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
        };
        assert_eq!(lines(shown(By::Day)), ["DAY TOKENS COST", "2026-02-01 7 $0.07", "2026-01-31 5 $0.05"]);
        assert_eq!(lines(shown(By::Agent)), ["AGENT TOKENS COST", "a 8 $0.08", "b 4 $0.04"]);
        assert_eq!(lines(shown(By::Both))[1], "2026-02-01 a 3 $0.03");
    }
}
