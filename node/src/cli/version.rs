//! `caxton version`: what runs here, and what runs at the other end.

use serde_json::json;

use crate::api::ServerInfo;
use crate::api::paths;
use crate::cli::output::{DIM, paint};
use crate::cli::{CliError, Context};

/// Arguments of `caxton version`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  caxton version --json")]
pub struct Args {
    /// Do not ask the server.
    #[arg(long)]
    client: bool,
}

/// Prints both versions. A server that does not answer is said and is not a failure: the question was about versions.
pub fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let own = env!("CARGO_PKG_VERSION");
    let server: Option<Result<ServerInfo, CliError>> = (!args.client).then(|| {
        let client = context.client()?;
        context.block_on(async { Ok(client.get(paths::SERVER.text()).await?) })
    });
    context.out.line(format_args!("client  {own}"))?;
    match &server {
        Some(Ok(info)) => {
            let place = format!("node {}, cluster {}", info.node, info.cluster);
            context.out.hanging("server  ", format_args!("{}  {}", info.version, paint(DIM, place)))?;
        }
        Some(Err(error)) => context.out.hanging("server  ", format_args!("unknown: {}", error.message))?,
        None => {}
    }
    let server = match server {
        Some(Ok(info)) => json!(info),
        Some(Err(error)) => error.to_json(),
        None => json!(null),
    };
    context.out.json(&json!({ "client": own, "server": server }))
}
