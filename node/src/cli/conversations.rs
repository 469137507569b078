//! `caxton conversations`: what was said to agents, and what they answered.

use clap::Subcommand;

use crate::api::messages::{ConversationDetail, ConversationSummary, Conversations, TurnRecord};
use crate::api::paths;
use crate::cli::live::Remote;
use crate::cli::output::{BAD, BOLD, DIM, Table, count, paint, size};
use crate::cli::{CliError, Context, steps, text};
use crate::llm::Message;

/// Arguments of `caxton conversations`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  caxton conversations list
  caxton conversations show 0199f2c4...")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List conversations, the newest first.
    #[command(visible_alias = "ls", after_help = "Example:\n  caxton conversations list --limit 10")]
    List {
        /// How many, at most 500.
        #[arg(long, short = 'n', default_value_t = 20)]
        limit: u32,
    },
    /// Show what was said in one.
    #[command(after_help = "Example:\n  caxton conversations show 0199f2c4... --steps")]
    Show {
        /// Its id.
        id: String,
        /// Show calls and their results too.
        #[arg(long)]
        steps: bool,
    },
    /// Forget one for good.
    #[command(after_help = "Example:\n  caxton conversations forget 0199f2c4...")]
    Forget {
        /// Its id.
        id: String,
    },
}

/// Lists, shows or forgets.
pub fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let id = context.workspace_id()?;
    let client = context.client()?;
    let remote = Remote { client: &client, id: &id };
    match args.command {
        Command::List { limit } => {
            let path = format!("{}?limit={limit}", remote.path(paths::CONVERSATIONS));
            let page: Conversations = context.block_on(async { Ok(client.get(&path).await?) })?;
            list(context, &page)
        }
        Command::Show { id, steps } => {
            let path = remote.path_of(paths::CONVERSATION, in_path(&id)?);
            let found: ConversationDetail = context.block_on(async { Ok(client.get(&path).await?) })?;
            show(context, &found, steps)
        }
        Command::Forget { id } => {
            let path = remote.path_of(paths::CONVERSATION, in_path(&id)?);
            let gone: ConversationSummary = context.block_on(async { Ok(client.delete(&path).await?) })?;
            context.out.line(format_args!("Forgot {}: {}", gone.id, text::one_line(&gone.title)))?;
            context.out.json(&gone)
        }
    }
}

fn in_path(id: &str) -> Result<&str, CliError> {
    crate::conversations::check_id(id).map(|()| id).map_err(|problem| {
        CliError::usage(format!("`{}` is not a conversation: {problem}", text::one_line(id)))
            .help("`caxton conversations list` shows the ones there are")
    })
}

fn list(context: &Context, page: &Conversations) -> Result<(), CliError> {
    let out = &context.out;
    if page.conversations.is_empty() {
        out.line("Nothing was asked yet. Try: caxton ask \"...\"")?;
    } else {
        let mut table = Table::new(["CONVERSATION", "ANSWERED", "AGENT", "TURNS", "BEGAN WITH"]);
        for one in &page.conversations {
            table.row([
                one.id.clone(),
                text::age(&one.updated),
                one.agent.to_string(),
                one.turns.to_string(),
                text::one_line(&one.title),
            ]);
        }
        out.line(table)?;
    }
    out.json(page)
}

fn show(context: &Context, found: &ConversationDetail, steps: bool) -> Result<(), CliError> {
    let out = &context.out;
    let summary = &found.summary;
    let facts = format!(
        "{}, {} tokens, began {}",
        count(summary.turns, "turn"),
        summary.usage.total(),
        text::time(&summary.created)
    );
    out.line(format_args!("{}  {}", paint(BOLD, &summary.id), paint(DIM, facts)))?;
    for turn in &found.turns_detail {
        show_turn(context, turn, steps)?;
    }
    out.json(found)
}

fn show_turn(context: &Context, turn: &TurnRecord, steps: bool) -> Result<(), CliError> {
    let out = &context.out;
    let head = format!("{}  {}  {} ms", text::time(&turn.time), turn.revision, turn.duration_ms);
    out.line(format_args!("\n{}", paint(DIM, head)))?;
    for message in &turn.messages {
        let (who, said) = match message {
            Message::User { .. } => (paint(BOLD, text::one_line(&turn.subject)).to_string(), message.text()),
            Message::Assistant { text, calls, .. } if !text.is_empty() && (steps || calls.is_empty()) => {
                (paint(BOLD, turn.agent.to_string()).to_string(), text.clone())
            }
            Message::Tool { tool, text, .. } if steps => {
                (paint(DIM, format!("  {}", text::one_line(tool))).to_string(), text.clone())
            }
            Message::System { .. } | Message::Assistant { .. } | Message::Tool { .. } => continue,
        };
        out.line(format_args!("{who}: {}", steps::printable(said.trim_end())))?;
    }
    for file in &turn.attachments {
        let facts = format!("{}, {}", text::one_line(&file.media_type), size(file.bytes as u64));
        out.line(paint(DIM, format!("  {} ({facts})", text::one_line(&file.name))))?;
    }
    match &turn.failure {
        Some(failure) => out.line(format_args!("{} {}", paint(BAD, "no answer:"), text::one_line(failure))),
        None => Ok(()),
    }
}
