//! `caxton workspaces`: the workspaces of a server.

use caxton_proto::WorkspaceId;
use clap::Subcommand;

use crate::api::paths::with_query;
use crate::api::workspaces::{WorkspaceContents, WorkspaceDeleted};
use crate::api::{Serving, Workspaces, paths};
use crate::cli::output::{BAD, BOLD, DIM, Table, count, paint, size};
use crate::cli::{CliError, Context, text};

/// How often a deletion whose rows are not gone yet is waited for again; the server waits for seconds each time.
const WAITS_MAX: usize = 30;

/// Arguments of `caxton workspaces`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  caxton workspaces list
  caxton workspaces list --server https://caxton.example.com:7411 --json
  caxton workspaces delete old-demo")]
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
    /// Delete a workspace with all that is its own, for good.
    ///
    /// Its deployments, secrets, conversations, memories, mailboxes and files go, and tokens that are for it alone are
    /// revoked. What would go is shown first, and the name is asked for. The folder that it was deployed from stays as it is.
    #[command(after_help = "\
Examples:
  caxton workspaces delete old-demo
  caxton workspaces delete old-demo --yes --json")]
    Delete(Delete),
}

#[derive(Debug, clap::Args)]
struct Delete {
    /// The workspace's name.
    #[arg(value_name = "NAME")]
    name: WorkspaceId,
    /// Do not ask for the name again.
    #[arg(long, short)]
    yes: bool,
}

/// Does what the subcommand says.
pub fn run(args: Args, context: &Context) -> Result<(), CliError> {
    match args.command {
        Command::List => list(context),
        Command::Delete(what) => delete(&what, context),
    }
}

fn list(context: &Context) -> Result<(), CliError> {
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

fn delete(what: &Delete, context: &Context) -> Result<(), CliError> {
    let name = &what.name;
    if !what.yes && !context.out.can_ask() {
        return Err(CliError::usage(format!(
            "`caxton workspaces delete {name}` asks for the name, and nobody is there"
        ))
        .help(format!("agree beforehand: `caxton workspaces delete {name} --yes`")));
    }
    let client = context.client()?;
    let path = paths::CONTENTS.with([name.as_str()]);
    let contents: WorkspaceContents = context.block_on(async { Ok(client.get(&path).await?) })?;
    let goes = if what.yes { "goes" } else { "would go" };
    context.out.note(format_args!("{} {goes} for good: {}", paint(BOLD, name), losses(&contents).join(", ")));
    if !what.yes {
        let typed = context.out.ask(format_args!("Type the workspace's name to delete it:"))?;
        if typed != name.as_str() {
            return Err(CliError::new("not_confirmed", "nothing was deleted")
                .help(format!("run it again and type {name}, or say --yes")));
        }
    }
    // What was shown goes, and nothing else that somebody deploys meanwhile.
    let path = with_query(paths::WORKSPACE.with([name.as_str()]), &[("revision", contents.revision.0.to_string())]);
    let deleted: WorkspaceDeleted = context.block_on(async {
        let first: WorkspaceDeleted = client.delete(&path).await?;
        let mut cleared = first.cleared;
        for _ in 0..WAITS_MAX {
            if cleared {
                break;
            }
            cleared = client.delete::<WorkspaceDeleted>(&path).await?.cleared;
        }
        Ok(WorkspaceDeleted { cleared, ..first })
    })?;
    context.out.line(format_args!("{} workspace {name}", paint(BAD, "deleted")))?;
    if !deleted.cleared {
        context.out.warn("its conversations, memories and mailboxes are still being removed, which goes on by itself");
    }
    context.out.json(&deleted)
}

/// What would go with a workspace, as a person reads it.
fn losses(contents: &WorkspaceContents) -> Vec<String> {
    let mut lost = vec![count(contents.deployments, "deployment")];
    if contents.files > 0 {
        lost.push(format!("{} of {}", size(contents.bytes), count(contents.files, "file")));
    }
    let own = [("secrets", contents.secrets), ("tokens", contents.tokens)];
    let kept = contents.kept.iter().map(|(name, number)| (name.as_str(), *number));
    lost.extend(own.into_iter().chain(kept).filter(|(_, number)| *number > 0).map(|(name, number)| {
        match name.strip_suffix("ies") {
            Some(stem) => format!("{number} {}", if number == 1 { format!("{stem}y") } else { name.to_owned() }),
            None => count(number, name.strip_suffix('s').unwrap_or(name)),
        }
    }));
    lost
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_go_is_said_in_words() {
        let kept = [("conversations", 1), ("turns", 3), ("memories", 1), ("entities", 2), ("messages", 0)];
        let contents = WorkspaceContents {
            workspace: "demo".parse().expect("a name"),
            revision: caxton_proto::Revision(4),
            deployments: 4,
            files: 2,
            bytes: 2048,
            secrets: 1,
            tokens: 0,
            kept: kept.map(|(name, number)| (name.to_owned(), number)).into(),
        };
        let expected =
            ["4 deployments", "2.0 KB of 2 files", "1 secret", "1 conversation", "2 entities", "1 memory", "3 turns"];
        assert_eq!(losses(&contents), expected);
    }
}
