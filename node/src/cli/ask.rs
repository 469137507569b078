//! `caxton ask` and `caxton send`: a message, every step on the way, and the answer.

use std::path::PathBuf;

use caxton_proto::AgentName;

use crate::api::messages::{MessageAnswer, MessageRequest};
use crate::api::paths;
use crate::cli::live::Remote;
use crate::cli::output::{BOLD, DIM, count, paint};
use crate::cli::steps::{self, Show};
use crate::cli::{CliError, Context};
use crate::client::Retry;

/// Arguments of `caxton ask`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  caxton ask \"Draw a chart of sales by quarter\" --file sales.csv
  caxton ask \"And the mean?\" --conversation 0199...     go on with a conversation
  caxton ask \"Translate: good morning\" --capability translate-text")]
pub struct Args {
    /// What you want; the agent that can do it is found by what it can do.
    text: String,
    /// Ask this agent instead.
    #[arg(long, value_name = "NAME")]
    agent: Option<AgentName>,
    /// Find the agent by this instead of by the text.
    #[arg(long, value_name = "WORDS", conflicts_with = "agent")]
    capability: Option<String>,
    #[command(flatten)]
    more: More,
}

/// Arguments of `caxton send`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  caxton send data-fetcher \"How many rows has this?\" --file sales.csv
  caxton send translator \"good morning\" --json | jq -r .text")]
pub struct SendArgs {
    /// The agent.
    agent: AgentName,
    /// What you want.
    text: String,
    #[command(flatten)]
    more: More,
}

#[derive(Debug, clap::Args)]
struct More {
    /// Send a file along; agents hand it to their tools. Can be repeated.
    #[arg(long, short, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// The address of an image, for models that see. Can be repeated.
    #[arg(long, value_name = "URL")]
    image: Vec<String>,
    /// Go on with this conversation; it stays with its agent unless the text clearly belongs to another's capability.
    #[arg(long, short, value_name = "ID")]
    conversation: Option<String>,
    /// Find the agent by the text alone, also where a conversation goes on.
    #[arg(long)]
    reroute: bool,
    /// Where files of the answer are saved.
    #[arg(long, value_name = "DIR", default_value = ".")]
    save: PathBuf,
    /// Print the answer only.
    #[arg(long, short)]
    quiet: bool,
}

/// Asks whoever can do it.
pub fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let Args { text, agent, capability, more } = args;
    send(context, MessageRequest { text, agent, capability, ..MessageRequest::default() }, more)
}

/// Asks one agent.
pub fn run_send(args: SendArgs, context: &Context) -> Result<(), CliError> {
    let SendArgs { agent, text, more } = args;
    send(context, MessageRequest { text, agent: Some(agent), ..MessageRequest::default() }, more)
}

fn send(context: &Context, mut request: MessageRequest, more: More) -> Result<(), CliError> {
    let id = context.workspace_id()?;
    let client = context.client()?;
    let remote = Remote { client: &client, id: &id };
    request.attachments = more.file.iter().map(|path| steps::read_file(path)).collect::<Result<_, _>>()?;
    request.images = more.image;
    request.conversation = more.conversation;
    request.reroute = more.reroute;
    // Whichever node gets it first, there is one answer.
    request.idempotency_key = Some(uuid::Uuid::new_v4().simple().to_string());
    if context.out.is_json() {
        let path = remote.path(paths::MESSAGES);
        let answer = async { Ok(client.post_within(&path, &request, Retry::Once, steps::TURN_TIMEOUT).await?) };
        let answer: serde_json::Value = context.block_on(answer)?;
        return context.out.json(&answer);
    }
    let show = if more.quiet { Show::Answer } else { Show::Steps };
    match context.block_on(steps::watch(context, &remote, request, show))? {
        Some(answer) => report(context, &answer, &more.save, show),
        None => Ok(()),
    }
}

fn report(context: &Context, answer: &MessageAnswer, folder: &std::path::Path, show: Show) -> Result<(), CliError> {
    let out = &context.out;
    if answer.cut {
        out.warn(
            "the answer stops where the longest reply allowed ended; raise max_tokens under [llm] in the agent's file",
        );
    }
    for path in steps::save_files(&answer.attachments, folder)? {
        out.line(format_args!("saved {}", paint(BOLD, path.display())))?;
    }
    if show == Show::Steps {
        let steps = count(u64::from(answer.steps), "step");
        let facts = format!("{steps}, {} tokens, {} ms", answer.usage.total(), answer.duration_ms);
        out.note(paint(DIM, format!("{facts}; go on with --conversation {}", answer.conversation)));
    }
    Ok(())
}
