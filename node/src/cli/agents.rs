//! `caxton agents list` and `caxton agents show NAME`: the agents that are live.

use caxton_proto::AgentName;
use clap::Subcommand;
use serde_json::json;

use crate::api::paths;
use crate::api::{AgentDetail, AgentSummary, Agents};
use crate::cli::live::Remote;
use crate::cli::output::{BOLD, DIM, Table, count, paint};
use crate::cli::{CliError, Context, text};
use crate::client::ClientError;

/// How many agents are asked for at once.
const PAGE: usize = 1000;
/// The most characters of a description in the list.
const DESCRIPTION_CHARS: usize = 60;

/// Arguments of `caxton agents`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  caxton agents list
  caxton agents show translator")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the live agents.
    #[command(
        visible_alias = "ls",
        after_help = "\
Columns: AGENT the name to call it by, VERSION, CAPABILITIES what it can do, DESCRIPTION with its name for people in front. \
JSON has them as name, version, capabilities, description and display_name.

Example:
  caxton agents list --json | jq '.agents[].name'"
    )]
    List,
    /// Show one agent as the server serves it.
    #[command(after_help = "Example:\n  caxton agents show translator")]
    Show {
        /// The agent's name.
        name: AgentName,
    },
}

/// Lists or shows.
pub fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let id = context.workspace_id()?;
    let client = context.client()?;
    let remote = Remote { client: &client, id: &id };
    match args.command {
        Command::List => {
            let agents = context.block_on(async { Ok(list(&remote).await?) })?;
            print_list(context, &remote, &agents)
        }
        Command::Show { name } => {
            let path = remote.path_of(paths::AGENT, name.as_str());
            let agent: AgentDetail = context.block_on(async { Ok(client.get(&path).await?) })?;
            show(context, &agent)
        }
    }
}

pub(super) async fn list(remote: &Remote<'_>) -> Result<Vec<AgentSummary>, ClientError> {
    let mut agents = Vec::new();
    let mut after = String::new();
    loop {
        let page: Agents = remote.client.get(&format!("{}?limit={PAGE}{after}", remote.path(paths::AGENTS))).await?;
        agents.extend(page.agents);
        match page.next {
            Some(next) => after = format!("&after={next}"),
            None => return Ok(agents),
        }
    }
}

fn print_list(context: &Context, remote: &Remote<'_>, agents: &[AgentSummary]) -> Result<(), CliError> {
    let out = &context.out;
    if agents.is_empty() {
        out.line(format_args!("No agent is live in {}.", paint(BOLD, remote.id)))?;
    } else {
        let mut table = Table::new(["AGENT", "VERSION", "CAPABILITIES", "DESCRIPTION"]);
        for agent in agents {
            table.row([
                agent.name.clone(),
                text::one_line(&agent.version),
                shorten(&agent.capabilities.join(", "), DESCRIPTION_CHARS),
                shorten(&described(agent), DESCRIPTION_CHARS),
            ]);
        }
        out.table(table)?;
        out.line(paint(DIM, count(agents.len() as u64, "agent")))?;
    }
    out.json(&json!({ "agents": agents }))
}

/// What a person knows it by: its display name, where it has one, and what it is for.
fn described(agent: &AgentSummary) -> String {
    match &agent.display_name {
        Some(name) if agent.description.is_empty() => name.clone(),
        Some(name) => format!("{name}: {}", agent.description),
        None => agent.description.clone(),
    }
}

fn show(context: &Context, agent: &AgentDetail) -> Result<(), CliError> {
    let out = &context.out;
    let summary = &agent.summary;
    out.line(format_args!("{} {}", paint(BOLD, &summary.name), text::one_line(&summary.version)))?;
    if let Some(name) = &summary.display_name {
        out.line(text::one_line(name))?;
    }
    if !summary.description.is_empty() {
        out.line(text::one_line(&summary.description))?;
    }
    let place = format!("{} of {}", summary.path, agent.revision);
    out.line(paint(DIM, place))?;
    for (what, names) in [("capabilities", &summary.capabilities), ("tools", &summary.tools)] {
        if !names.is_empty() {
            out.line(format_args!("{what}: {}", text::one_line(&names.join(", "))))?;
        }
    }
    for note in &summary.notes {
        out.line(format_args!("note: {}", text::one_line(note)))?;
    }
    let source: String = agent.source.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect();
    out.line(format_args!("\n{}", source.trim_end()))?;
    out.json(agent)
}

fn shorten(text: &str, chars: usize) -> String {
    let line = text::one_line(text);
    if line.chars().count() <= chars {
        return line;
    }
    let start: String = line.chars().take(chars - 3).collect();
    format!("{}...", start.trim_end())
}
