//! `caxton conversations`: what was said to agents, and what they answered.

use std::path::{Path, PathBuf};

use caxton_messages::picture::{self, Arrow};
use clap::Subcommand;
use futures::{StreamExt, TryStreamExt};
use serde_json::json;

use crate::api::mailbox::{ConversationEvents, MessageEvent};
use crate::api::messages::{
    Approvals, ConversationDetail, ConversationSummary, Conversations, MessageAnswer, TurnRecord,
};
use crate::api::paths;
use crate::cli::live::Remote;
use crate::cli::output::{BAD, BOLD, DIM, Table, count, paint, size};
use crate::cli::{CliError, Context, steps, text};
use crate::llm::{Message, Usage};

/// How many conversations are asked for at once.
const ASKED_AT_ONCE: usize = 8;

/// Arguments of `caxton conversations`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  caxton conversations list
  caxton conversations show 0199f2c4...
  caxton conversations save 0199f2c4... --dir charts")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List conversations, the newest first.
    #[command(
        visible_alias = "ls",
        after_help = "\
Columns: CONVERSATION its id, STATE how its newest turn is (answered, failed, or waits for a person), LAST when that was, \
AGENT who had it, TURNS how many there are, BEGAN WITH its first words. JSON has them as id, state, updated, agent, turns \
and title.

Example:
  caxton conversations list --limit 10"
    )]
    List {
        /// How many, at most 500.
        #[arg(long, short = 'n', default_value_t = 20)]
        limit: u32,
    },
    /// Show what was said in one, or who said what to whom in one of agents' messages.
    #[command(after_help = "\
Examples:
  caxton conversations show 0199f2c4... --steps
  caxton conversations show c1 --sequence
  caxton conversations show c1 --mermaid > net.mmd")]
    Show {
        /// Its id; of agents' messages, their `conversation_id`.
        id: String,
        /// Show calls and their results too.
        #[arg(long)]
        steps: bool,
        /// Draw the messages of a conversation between agents as a sequence diagram in text.
        #[arg(long, conflicts_with = "steps")]
        sequence: bool,
        /// The same diagram in Mermaid's language.
        #[arg(long, conflicts_with_all = ["steps", "sequence"])]
        mermaid: bool,
    },
    /// Save the files that came of one: charts, tables, pictures.
    #[command(after_help = "Example:\n  caxton conversations save 0199f2c4... --dir charts")]
    Save {
        /// The id of the conversation.
        id: String,
        /// Where to; what is there is not overwritten.
        #[arg(long, value_name = "DIR", default_value = ".")]
        dir: PathBuf,
    },
    /// Forget one for good.
    #[command(after_help = "Example:\n  caxton conversations forget 0199f2c4...")]
    Forget {
        /// The id of the conversation.
        id: String,
    },
}

/// Lists, shows or forgets.
pub fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let id = context.workspace_id_or_default()?;
    let client = context.client()?;
    let remote = Remote { client: &client, id: &id };
    match args.command {
        Command::List { limit } => {
            let path = format!("{}?limit={limit}", remote.path(paths::CONVERSATIONS));
            let mut page: Conversations = context.block_on(async { Ok(client.get(&path).await?) })?;
            let waiting: Approvals =
                context.block_on(async { Ok(client.get(&remote.path(paths::APPROVALS)).await?) })?;
            add_waiting(&mut page, &waiting);
            let states = context.block_on(states(&remote, &page, &waiting))?;
            list(context, &page, &states)
        }
        Command::Show { id, sequence, mermaid, .. } if sequence || mermaid => {
            let found = context.block_on(messages(&remote, &id))?;
            draw(context, &found, mermaid)
        }
        Command::Show { id, steps, .. } => {
            let path = remote.path_of(paths::CONVERSATION, in_path(&id)?);
            let found: ConversationDetail = context.block_on(async { Ok(client.get(&path).await?) })?;
            show(context, &found, steps)
        }
        Command::Save { id, dir } => {
            let id = in_path(&id)?;
            let saved = context.block_on(save(&remote, id, &dir))?;
            if saved.is_empty() {
                context.out.line(format_args!("No files came of {id}."))?;
            }
            for path in &saved {
                context.out.line(format_args!("saved {}", paint(BOLD, path.display())))?;
            }
            context.out.json(&json!({ "conversation": id, "saved": saved }))
        }
        Command::Forget { id } => {
            let path = remote.path_of(paths::CONVERSATION, in_path(&id)?);
            let gone: ConversationSummary = context.block_on(async { Ok(client.delete(&path).await?) })?;
            context.out.line(format_args!("Forgot {}: {}", gone.id, text::one_line(&gone.title)))?;
            context.out.json(&gone)
        }
    }
}

/// A conversation of agents' messages with all of them that are kept, page after page.
async fn messages(remote: &Remote<'_>, id: &str) -> Result<ConversationEvents, CliError> {
    let path = remote.path_of(paths::CONVERSATION_EVENTS, id);
    let mut found: ConversationEvents = remote.client.get(&format!("{path}?limit=500")).await?;
    while let Some(next) = found.next {
        let page: ConversationEvents = remote.client.get(&format!("{path}?limit=500&after={next}")).await?;
        found.events.extend(page.events);
        found.next = page.next.filter(|further| *further > next);
    }
    Ok(found)
}

/// Who said what to whom in a conversation, as a diagram in text.
pub(super) async fn sequence(remote: &Remote<'_>, id: &str) -> Result<String, CliError> {
    let found = messages(remote, in_path(id)?).await?;
    let arrows: Vec<Arrow> = found.events.iter().flat_map(arrows).collect();
    Ok(picture::text(&arrows))
}

/// Draws who said what to whom.
fn draw(context: &Context, found: &ConversationEvents, mermaid: bool) -> Result<(), CliError> {
    let out = &context.out;
    let arrows: Vec<Arrow> = found.events.iter().flat_map(arrows).collect();
    let picture = if mermaid { picture::mermaid(&arrows) } else { picture::text(&arrows) };
    out.text(&picture)?;
    if found.missed > 0 {
        out.warn(format_args!("{} earlier are no longer kept", count(found.missed, "message")));
    }
    if !mermaid {
        let protocol = found.protocol.as_deref().map_or_else(|| "no protocol".to_owned(), text::one_line);
        let stands = found.participants.iter().map(|it| format!("{} {}", text::one_line(&it.participant), it.state));
        let stands: Vec<String> = std::iter::once(protocol).chain(stands).collect();
        let state = if found.open { "open" } else { "over" };
        out.line(paint(DIM, format!("{state}: {}", text::one_line(&stands.join(", ")))))?;
    }
    let mut document = json!(found);
    document["picture"] = json!(picture);
    out.json(&document)
}

/// The arrows of a message: one to each receiver.
fn arrows(event: &MessageEvent) -> impl Iterator<Item = Arrow> + '_ {
    let (from, label) = (text::one_line(&event.sender), text::one_line(&event.performative));
    event.receivers.iter().map(move |to| Arrow { from: from.clone(), to: text::one_line(to), label: label.clone() })
}

fn in_path(id: &str) -> Result<&str, CliError> {
    crate::conversations::check_id(id).map(|()| id).map_err(|problem| {
        CliError::usage(format!("`{}` is not a conversation: {problem}", text::one_line(id)))
            .help("`caxton conversations list` shows the ones there are")
    })
}

/// Puts conversations first whose first turn waits for a person: nothing of them is recorded before that is over.
fn add_waiting(page: &mut Conversations, waiting: &Approvals) {
    for approval in &waiting.approvals {
        if page.conversations.iter().all(|one| one.id != approval.conversation) {
            let first = ConversationSummary {
                id: approval.conversation.clone(),
                title: format!("waits for {}", approval.tool),
                agent: approval.agent.clone(),
                turns: 0,
                usage: Usage::default(),
                created: approval.since.clone(),
                updated: approval.since.clone(),
            };
            page.conversations.insert(0, first);
        }
    }
}

/// How each conversation of a page is: what waits for a person, and what ended without an answer.
async fn states(remote: &Remote<'_>, page: &Conversations, waiting: &Approvals) -> Result<Vec<&'static str>, CliError> {
    let state = |one: &ConversationSummary| {
        let waits = waiting.approvals.iter().any(|approval| approval.conversation == one.id);
        let path = remote.path_of(paths::CONVERSATION, &one.id);
        async move {
            if waits {
                return Ok("waits");
            }
            match remote.client.get::<ConversationDetail>(&path).await {
                Ok(found) => Ok(match found.turns_detail.last() {
                    Some(TurnRecord { failure: Some(_), .. }) => "failed",
                    Some(_) => "answered",
                    None => "begun",
                }),
                // It was forgotten meanwhile.
                Err(error) if error.code() == Some("not_found") => Ok("gone"),
                Err(error) => Err(CliError::from(error)),
            }
        }
    };
    futures::stream::iter(page.conversations.iter().map(state)).buffered(ASKED_AT_ONCE).try_collect().await
}

/// Saves the files of every turn of a conversation.
async fn save(remote: &Remote<'_>, id: &str, dir: &Path) -> Result<Vec<PathBuf>, CliError> {
    let found: ConversationDetail = remote.client.get(&remote.path_of(paths::CONVERSATION, id)).await?;
    let mut saved = Vec::new();
    for turn in found.turns_detail.iter().filter(|turn| !turn.attachments.is_empty() && turn.failure.is_none()) {
        let answer: MessageAnswer = remote.client.get(&remote.path_of(paths::TURN, &turn.turn)).await?;
        std::fs::create_dir_all(dir).map_err(|error| {
            CliError::new("io", format!("{} cannot be made", dir.display())).help("choose another --dir").source(error)
        })?;
        for path in steps::save_files(&answer.attachments, dir)? {
            if !saved.contains(&path) {
                saved.push(path);
            }
        }
    }
    Ok(saved)
}

fn list(context: &Context, page: &Conversations, states: &[&str]) -> Result<(), CliError> {
    let out = &context.out;
    if page.conversations.is_empty() {
        out.line("Nothing was asked yet. Try: caxton ask \"...\"")?;
    } else {
        let mut table = Table::new(["CONVERSATION", "STATE", "LAST", "AGENT", "TURNS", "BEGAN WITH"]);
        for (one, state) in page.conversations.iter().zip(states) {
            table.row([
                one.id.clone(),
                (*state).to_owned(),
                text::age(&one.updated),
                one.agent.to_string(),
                one.turns.to_string(),
                text::one_line(&one.title),
            ]);
        }
        out.table(table)?;
    }
    let mut document = json!(page);
    if let Some(all) = document["conversations"].as_array_mut() {
        for (one, state) in all.iter_mut().zip(states) {
            one["state"] = json!(state);
        }
    }
    out.json(&document)
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
    let request_at = turn.messages.iter().position(|message| matches!(message, Message::User { .. }));
    for (at, message) in turn.messages.iter().enumerate() {
        let (who, said) = match message {
            Message::User { .. } => {
                // As it was said, and not as the prompt puts it.
                let said = turn.request.clone().filter(|_| request_at == Some(at)).unwrap_or_else(|| message.text());
                (paint(BOLD, text::one_line(&turn.subject)).to_string(), said)
            }
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
