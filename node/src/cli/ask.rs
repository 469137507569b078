//! `caxton ask` and `caxton send`: a message, every step on the way, and the answer.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use caxton_proto::AgentName;

use crate::api::messages::{MessageAnswer, MessageRequest, TEXT_BYTES_MAX};
use crate::cli::live::Remote;
use crate::cli::output::{BOLD, DIM, count, paint};
use crate::cli::steps::{self, Show, TurnOutcome};
use crate::cli::{CliError, Context, Exit};

/// Arguments of `caxton ask`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  caxton ask \"Draw a chart of sales by quarter\" --file sales.csv
  caxton ask \"And the mean?\" --conversation 0199...     go on with a conversation
  git diff | caxton ask - --agent code-reviewer          the message comes through a pipe
  caxton ask \"Translate: good morning\" --capability translate-text
  caxton ask \"Analyze it\" --file sales.csv --param format=table --param requirements=\"one page\"")]
pub struct Args {
    /// What you want, or - to read it from standard input; the agent that can do it is found by what it can do.
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
    /// The agent that is asked, by its name.
    agent: AgentName,
    /// What you want, or - to read it from standard input.
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
    /// A value for a placeholder of the agent's prompts, as in `--param format=table`. Can be repeated.
    #[arg(long = "param", short, value_name = "NAME=VALUE", value_parser = parameter)]
    param: Vec<(String, String)>,
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

/// `NAME=VALUE`, where the value may be anything.
fn parameter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.to_owned())),
        Some(_) | None => Err("write it as NAME=VALUE".to_owned()),
    }
}

/// The parameters of a message. The same name twice would lose one of its values.
fn parameters(given: Vec<(String, String)>) -> Result<BTreeMap<String, serde_json::Value>, CliError> {
    let mut all = BTreeMap::new();
    for (name, value) in given {
        if all.insert(name.clone(), value.into()).is_some() {
            return Err(CliError::usage(format!("the parameter `{name}` is given twice"))
                .help("give each one once; several values go into one, with commas between"));
        }
    }
    Ok(all)
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
    if request.text == "-" {
        request.text = standard_input(context)?;
    }
    request.attachments = more.file.iter().map(|path| steps::read_file(path)).collect::<Result<_, _>>()?;
    request.images = more.image;
    request.parameters = parameters(more.param)?;
    request.conversation = more.conversation;
    request.reroute = more.reroute;
    // Whichever node gets it first, there is one answer.
    request.idempotency_key = Some(uuid::Uuid::new_v4().simple().to_string());
    if context.out.is_json() {
        // Through the stream too: who presses Ctrl-C is told which turn goes on.
        let outcome = context.block_on(steps::outcome(context, &remote, request, Show::Answer))?;
        return print_document(context, outcome);
    }
    let show = if more.quiet { Show::Answer } else { Show::Steps };
    match context.block_on(steps::watch(context, &remote, request, show))? {
        Some(answer) => report(context, &answer, &more.save, show),
        None => Err(CliError::only(Exit::Waiting, "waiting")),
    }
}

/// Prints what the server said of a turn's ending: an answer, or what there is to decide of a turn that waits.
fn print_document(context: &Context, outcome: TurnOutcome) -> Result<(), CliError> {
    let read = |data: &str| {
        serde_json::from_str::<serde_json::Value>(data)
            .map_err(|error| CliError::new("bad_answer", "the server's answer cannot be read").source(error))
    };
    match outcome {
        TurnOutcome::Answered { data, .. } => {
            let mut document = read(&data)?;
            // The event's name is no part of an answer.
            document.as_object_mut().map(|names| names.remove("event"));
            context.out.json(&document)
        }
        TurnOutcome::Waiting { data } => {
            context.out.json(&read(&data)?)?;
            Err(CliError::only(Exit::Waiting, "waiting"))
        }
    }
}

/// The message that is piped in, or typed until Ctrl-D.
fn standard_input(context: &Context) -> Result<String, CliError> {
    if std::io::stdin().is_terminal() {
        context.out.note("Type the message, and Ctrl-D on a line of its own:");
    }
    let mut text = String::new();
    let mut input = std::io::stdin().lock().take(TEXT_BYTES_MAX as u64 + 1);
    input.read_to_string(&mut text).map_err(|error| {
        CliError::new("io", "standard input cannot be read as text").help("send other files with --file").source(error)
    })?;
    if text.len() > TEXT_BYTES_MAX {
        return Err(CliError::usage(format!("the message has more than {TEXT_BYTES_MAX} bytes"))
            .help("send it as a file: caxton ask \"...\" --file NAME"));
    }
    Ok(text.trim_end().to_owned())
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
