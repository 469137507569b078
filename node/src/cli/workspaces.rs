//! `caxton workspaces`: the workspaces of a server.

use clap::Subcommand;

use crate::api::{Serving, Workspaces, paths};
use crate::cli::output::{DIM, Table, count, paint};
use crate::cli::{CliError, Context, text};

/// Arguments of `caxton workspaces`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  caxton workspaces list
  caxton workspaces list --server https://caxton.example.com:7411 --json")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the workspaces that the token is for, and what each has live.
    #[command(
        visible_alias = "ls",
        after_help = "\
Columns: WORKSPACE its name, LIVE the revision that is live, AGENTS and TOOLS how many it has, DEPLOYED when and by whom.

Example:
  caxton workspaces list --json | jq '.workspaces[].workspace'"
    )]
    List,
}

/// Lists them.
pub fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let Command::List = args.command;
    let client = context.client()?;
    let found: Workspaces = context.block_on(async { Ok(client.get(paths::WORKSPACES.text()).await?) })?;
    let out = &context.out;
    if found.workspaces.is_empty() {
        out.line("There is no workspace yet: `caxton init` makes one, and `caxton deploy` puts it live.")?;
        return out.json(&found);
    }
    let mut table = Table::new(["WORKSPACE", "LIVE", "AGENTS", "TOOLS", "DEPLOYED"]);
    for one in &found.workspaces {
        let live = match &one.serving {
            Serving::Failed { revision, .. } => format!("{revision} (not {})", one.revision),
            Serving::Nothing => "-".to_owned(),
            Serving::Live { .. } | Serving::Loading { .. } => one.revision.to_string(),
        };
        let deployed = one.deployment.as_ref().map_or_else(
            || "-".to_owned(),
            |live| format!("{} by {}", text::age(&live.time), text::author(&live.author)),
        );
        table.row([one.workspace.to_string(), live, one.agents.to_string(), one.tools.to_string(), deployed]);
    }
    out.table(table)?;
    out.line(paint(DIM, count(found.workspaces.len() as u64, "workspace")))?;
    out.json(&found)
}
