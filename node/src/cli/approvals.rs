//! `caxton approvals`: calls that wait for a person.

use clap::Subcommand;

use crate::api::messages::{ApprovalDecision, Approvals, TurnEvent};
use crate::api::paths;
use crate::cli::live::Remote;
use crate::cli::output::{BOLD, DIM, count, paint};
use crate::cli::{CliError, Context, Exit, steps, text};
use crate::client::Retry;

/// Arguments of `caxton approvals`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  caxton approvals list
  caxton approvals approve 0199f2c4....1a2b3c4d5e6f
  caxton approvals deny 0199f2c4....1a2b3c4d5e6f --reason \"wrong account\"")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the calls that wait.
    #[command(visible_alias = "ls", after_help = "Example:\n  caxton approvals list --json")]
    List,
    /// Let a call be made, and wait for what comes of its turn.
    #[command(after_help = "Example:\n  caxton approvals approve 0199f2c4....1a2b3c4d5e6f")]
    Approve {
        /// Its id, from the list.
        id: String,
    },
    /// Refuse a call; the agent is told, and goes on without it.
    #[command(after_help = "Example:\n  caxton approvals deny 0199f2c4....1a2b3c4d5e6f --reason \"not today\"")]
    Deny {
        /// Its id, from the list.
        id: String,
        /// Why; the model reads it.
        #[arg(long, short, default_value = "", hide_default_value = true)]
        reason: String,
    },
}

/// Lists or decides.
pub fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let id = context.workspace_id()?;
    let client = context.client()?;
    let remote = Remote { client: &client, id: &id };
    match args.command {
        Command::List => {
            let found: Approvals = context.block_on(async { Ok(client.get(&remote.path(paths::APPROVALS)).await?) })?;
            list(context, &found)
        }
        Command::Approve { id } => {
            decide(context, &remote, &id, ApprovalDecision { approve: true, reason: String::new() })
        }
        Command::Deny { id, reason } => decide(context, &remote, &id, ApprovalDecision { approve: false, reason }),
    }
}

fn list(context: &Context, found: &Approvals) -> Result<(), CliError> {
    let out = &context.out;
    if found.approvals.is_empty() {
        out.line("Nothing waits.")?;
    }
    for approval in &found.approvals {
        let age = paint(DIM, text::age(&approval.since));
        out.line(format_args!(
            "{}  {} wants to call {}  {age}",
            paint(BOLD, &approval.id),
            approval.agent,
            text::one_line(&approval.tool)
        ))?;
        // Whole: what is approved is what is seen.
        let arguments = serde_json::to_string_pretty(&approval.arguments).unwrap_or_default();
        for line in steps::printable(&arguments).lines() {
            out.line(format_args!("  {line}"))?;
        }
    }
    out.json(found)
}

fn decide(context: &Context, remote: &Remote<'_>, id: &str, decision: ApprovalDecision) -> Result<(), CliError> {
    let fine = id.chars().all(|c| c.is_ascii_alphanumeric() || c == '.');
    if !fine || id.is_empty() {
        return Err(CliError::usage(format!("`{}` is not an approval", text::one_line(id)))
            .help("`caxton approvals list` shows what waits"));
    }
    let path = remote.path_of(paths::APPROVAL, id);
    let ended: serde_json::Value = context.block_on(async {
        Ok(remote.client.post_within(&path, &decision, Retry::Never, steps::TURN_TIMEOUT).await?)
    })?;
    let out = &context.out;
    match serde_json::from_value::<TurnEvent>(ended.clone()) {
        Ok(TurnEvent::Waiting { approvals, .. }) => {
            for approval in approvals {
                out.line(format_args!("The turn waits for the next one: {}", paint(BOLD, &approval.id)))?;
            }
            out.json(&ended)?;
            return Err(CliError::only(Exit::Waiting, "waiting"));
        }
        _ => out.line(steps::printable(ended["text"].as_str().unwrap_or_default()))?,
    }
    let files = ended["attachments"].as_array().map_or(0, Vec::len);
    if let Some(conversation) = ended["conversation"].as_str().filter(|_| files > 0) {
        let conversation = text::one_line(conversation);
        out.note(format_args!("{}: caxton conversations save {conversation}", count(files as u64, "file")));
    }
    out.json(&ended)
}
