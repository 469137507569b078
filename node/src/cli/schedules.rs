//! `caxton schedules list`: when agents are sent messages next.

use clap::Subcommand;

use crate::api::paths;
use crate::api::schedules::Schedules;
use crate::cli::live::Remote;
use crate::cli::output::Table;
use crate::cli::{CliError, Context, text};

/// Bytes of a message in the list.
const MESSAGE_SHOWN: usize = 60;

/// Arguments of `caxton schedules`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  caxton schedules list")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the schedules of the live agents, with the last tick and the next one.
    #[command(
        visible_alias = "ls",
        after_help = "\
Columns: AGENT whose it is, NAME in the agent's file, WHEN it ticks, NEXT the next tick and LAST the one before, or when it \
began, in UTC, MESSAGE what the agent is told. JSON has them as agent, name, when, next, reached and message.

Example:
  caxton schedules list --json | jq '.schedules[].next'"
    )]
    List,
}

pub fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let Command::List = args.command;
    let id = context.workspace_id()?;
    let client = context.client()?;
    let remote = Remote { client: &client, id: &id };
    let path = remote.path(paths::SCHEDULES);
    let found: Schedules = context.block_on(async { Ok(client.get(&path).await?) })?;
    let out = &context.out;
    if found.schedules.is_empty() {
        out.line("No agent has a schedule. Add [[schedule]] to an agent's file: caxton docs messages")?;
    } else {
        let mut table = Table::new(["AGENT", "NAME", "WHEN", "NEXT", "LAST", "MESSAGE"]);
        for one in &found.schedules {
            let time = |time: &Option<String>| time.as_deref().map_or_else(|| "-".to_owned(), text::time);
            table.row([
                text::one_line(&one.agent),
                text::one_line(&one.name),
                text::one_line(&one.when),
                time(&one.next),
                time(&one.reached),
                crate::text::preview(&text::one_line(&one.message), MESSAGE_SHOWN),
            ]);
        }
        out.table(table)?;
    }
    out.json(&found)
}
