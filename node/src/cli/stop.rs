//! `caxton stop`: a turn ends now, whatever it waits for.

use crate::api::messages::TurnOver;
use crate::api::paths;
use crate::cli::live::Remote;
use crate::cli::output::{BOLD, paint};
use crate::cli::{CliError, Context, text};

/// The outcome of a turn that was stopped, as the server names it.
const STOPPED: &str = "stopped";

/// Arguments of `caxton stop`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  caxton stop --turn 0199f2c45d6e7a81b2c3d4e5f6071829
  caxton stop --turn 0199f2c45d6e7a81b2c3d4e5f6071829 --json")]
pub struct Args {
    /// The turn, as `caxton ask --json` and `caxton logs` show it. Your own, or anybody's for deployers.
    #[arg(long, value_name = "ID")]
    turn: String,
}

/// Stops, and says how the turn is over.
pub fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let plain = !args.turn.is_empty() && args.turn.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if !plain {
        return Err(CliError::usage(format!("`{}` is not a turn", text::one_line(&args.turn)))
            .help("`caxton logs --json` shows the turns that run"));
    }
    let id = context.workspace_id()?;
    let client = context.client()?;
    let path = Remote { client: &client, id: &id }.path_of(paths::TURN, &args.turn);
    let over: TurnOver = context.block_on(async { Ok(client.delete(&path).await?) })?;
    let turn = paint(BOLD, &over.turn);
    match over.outcome.as_str() {
        STOPPED => context.out.line(format_args!("Stopped the turn {turn} of {}.", over.agent))?,
        other => context.out.line(format_args!("The turn {turn} of {} was over: {other}.", over.agent))?,
    }
    context.out.json(&over)
}
