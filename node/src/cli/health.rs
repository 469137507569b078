//! `caxton health`: does the server answer, and is it ready to serve?

use std::time::Instant;

use http::Method;
use serde_json::{Value, json};

use crate::api::paths;
use crate::cli::output::{BAD, DIM, GOOD, paint};
use crate::cli::{CliError, Context, Exit};
use crate::client::{Client, ClientError, Retry};

/// Arguments of `caxton health`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  caxton health
  caxton health --json && echo ready")]
pub struct Args {}

/// Asks, and fails unless the server is alive and ready.
pub fn run(_args: Args, context: &Context) -> Result<(), CliError> {
    let client = context.client()?;
    let out = &context.out;
    let (ms, health, ready) = context.block_on(async {
        let start = Instant::now();
        let health = ask(&client, paths::HEALTH.text()).await?;
        let ms = start.elapsed().as_secs_f64() * 1e3;
        Ok((ms, health, ask(&client, paths::READY.text()).await))
    })?;
    let ready = match ready {
        Ok(ready) => ready,
        Err(ClientError::Problem(problem)) => {
            return Err(CliError::new("not_ready", format!("{} answers and is not ready", client.url()))
                .exit(Exit::Refused)
                .body(problem.detail.clone())
                .help(problem.help.clone().unwrap_or_else(|| "wait a moment; its log says what it is doing".to_owned()))
                .fact("ready", &problem));
        }
        Err(error) => return Err(error.into()),
    };
    let verdict = |answer: &Value| match answer.get("status").and_then(Value::as_str) {
        Some("ok" | "ready" | "healthy" | "live") | None => paint(GOOD, "yes"),
        Some(_) => paint(BAD, "no"),
    };
    out.line(format_args!(
        "alive  {}  {}",
        verdict(&health),
        paint(DIM, format_args!("{} in {ms:.1} ms", client.url()))
    ))?;
    out.line(format_args!("ready  {}", verdict(&ready)))?;
    out.json(&json!({ "server": client.url(), "ms": ms, "health": health, "ready": ready }))
}

async fn ask(client: &Client, path: &str) -> Result<Value, ClientError> {
    let answer = client.send(client.request(Method::GET, path), Retry::Once).await?;
    let body = answer.bytes().await.map_err(|error| client.failed(error))?;
    // A plain `ok` is an answer too.
    Ok(serde_json::from_slice(&body).unwrap_or(Value::Null))
}
