//! `caxton agents list` and `caxton agents show NAME`: the agents that are live.

use caxton_proto::AgentName;
use clap::Subcommand;
use serde_json::json;

use crate::api::paths;
use crate::api::usage::{AgentHealthInfo, WorkspaceHealth};
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
Columns: AGENT the name to call it by, STATE how it did lately (ok, failing, or resting: then other agents leave it alone; - \
where it had nothing to do), VERSION, CAPABILITIES what it can do, DESCRIPTION with its name for people in front. JSON has them as \
name, version, capabilities, description and display_name, and the states with last_error beside them as health.

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
            let (agents, health) = context.block_on(async { Ok((list(&remote).await?, health(&remote).await)) })?;
            print_list(context, &remote, &agents, &health)
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

/// How they did lately, as far as somebody says: a list of agents is good without it.
async fn health(remote: &Remote<'_>) -> Vec<AgentHealthInfo> {
    let health: Result<WorkspaceHealth, ClientError> = remote.client.get(&remote.path(paths::AGENTS_HEALTH)).await;
    health.map(|health| health.agents).unwrap_or_default()
}

fn print_list(
    context: &Context,
    remote: &Remote<'_>,
    agents: &[AgentSummary],
    health: &[AgentHealthInfo],
) -> Result<(), CliError> {
    let out = &context.out;
    if agents.is_empty() {
        out.line(format_args!("No agent is live in {}.", paint(BOLD, remote.id)))?;
    } else {
        let mut table = Table::new(["AGENT", "STATE", "VERSION", "CAPABILITIES", "DESCRIPTION"]);
        let state = |agent: &AgentSummary| health.iter().find(|it| it.agent.as_str() == agent.name);
        for agent in agents {
            table.row([
                agent.name.clone(),
                state(agent).map_or_else(|| "-".to_owned(), |it| text::one_line(&it.state)),
                text::one_line(&agent.version),
                shorten(&agent.capabilities.join(", "), DESCRIPTION_CHARS),
                shorten(&described(agent), DESCRIPTION_CHARS),
            ]);
        }
        out.table(table)?;
        out.line(paint(DIM, count(agents.len() as u64, "agent")))?;
        for failed in health.iter().filter(|it| it.state != "ok") {
            let (why, when) = (failed.last_error.as_deref().unwrap_or_default(), failed.last_error_at.as_deref());
            let when = when.map(text::age).unwrap_or_default();
            let failures = times(failed.failures);
            out.hanging("", format_args!("{} failed {failures}, {when}: {}", failed.agent, text::one_line(why)))?;
        }
    }
    out.json(&json!({ "agents": agents, "health": health }))
}

/// `once`, `twice in a row`, `7 times in a row`.
fn times(failures: u32) -> String {
    match failures {
        0 | 1 => "once".to_owned(),
        2 => "twice in a row".to_owned(),
        more => format!("{more} times in a row"),
    }
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
