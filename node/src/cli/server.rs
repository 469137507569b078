//! `caxton server`: starts a node on this machine, or says what the server is doing.

use clap::Subcommand;
use serde_json::json;

use crate::api::{ServerInfo, paths};
use crate::cli::output::{BOLD, DIM, GOOD, WARN, paint};
use crate::cli::{CliError, Context, Exit, serve, text};
use crate::client::ClientError;

/// Arguments of `caxton server`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  caxton server start
  caxton server status")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node on this machine; the same as `caxton serve`.
    Start(Box<serve::Args>),
    /// Say whether the server runs, since when, and whether it is ready.
    #[command(after_help = "Examples:\n  caxton server status\n  caxton server status --json | jq .ready")]
    Status,
}

/// Starts or asks.
pub fn run(args: Args, context: &Context) -> Result<(), CliError> {
    match args.command {
        Command::Start(args) => serve::run(*args, context),
        Command::Status => status(context),
    }
}

fn status(context: &Context) -> Result<(), CliError> {
    let client = context.client()?;
    let out = &context.out;
    let (info, ready) = context.block_on(async {
        let info: ServerInfo = client.get(paths::SERVER.text()).await?;
        let request = client.request(http::Method::GET, paths::READY.text());
        Ok((info, client.send(request, crate::client::Retry::Once).await))
    })?;
    let waits_for = match ready {
        Ok(_) => None,
        Err(ClientError::Problem(problem)) => Some(problem),
        Err(error) => return Err(error.into()),
    };
    let state = match &waits_for {
        None => paint(GOOD, "ready".to_owned()),
        Some(problem) => paint(WARN, format!("not ready: {}", text::one_line(&problem.detail))),
    };
    out.line(format_args!("{} {state}", paint(BOLD, client.url())))?;
    let uptime = text::span(info.uptime_s);
    out.line(paint(DIM, format!("  version {}, node {}, up for {uptime}", info.version, info.node)))?;
    out.line(paint(DIM, format!("  cluster {}", info.cluster)))?;
    out.json(&json!({ "server": client.url(), "ready": waits_for.is_none(), "waits_for": waits_for, "info": info }))?;
    match waits_for {
        None => Ok(()),
        // Everything was printed; the exit code tells a script.
        Some(_) => Err(CliError::only(Exit::Refused, "not_ready")),
    }
}
