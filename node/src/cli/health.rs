//! `caxton health`: does the server answer, and is it ready to serve?

use std::time::Instant;

use http::Method;
use serde_json::{Value, json};

use crate::api::paths;
use crate::cli::output::{BAD, DIM, GOOD, paint};
use crate::cli::{CliError, Context, Exit, text};
use crate::client::{Client, ClientError, Retry};

/// Arguments of `caxton health`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each part has a line of its own: `log` (the deploy log has a leader), `shards` (each has a leader), `membership` (the node \
belongs to its cluster), `deployments` (what was live when it started is loaded). JSON has them under ready.components; where \
the server is not ready, in the error.

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
            let mut body = vec![problem.detail.clone()];
            body.extend(components(problem.extra.get("components")));
            return Err(CliError::new("not_ready", format!("{} answers and is not ready", client.url()))
                .exit(Exit::Refused)
                .body(body.join("\n"))
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
    for line in components(ready.get("components")) {
        out.line(line)?;
    }
    out.json(&json!({ "server": client.url(), "ms": ms, "health": health, "ready": ready }))
}

/// A line for each part of the node that has to be well for it to serve: its name, and `ok` or what it lacks.
fn components(found: Option<&Value>) -> Vec<String> {
    let found: Vec<(&String, String)> = found
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(name, state)| (name, state.as_str().map_or_else(|| state.to_string(), text::one_line)))
        .collect();
    let room = found.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let line = |(name, state): (&String, String)| {
        let style = if state == "ok" { GOOD } else { BAD };
        format!("  {:room$}  {}", text::one_line(name), paint(style, state))
    };
    found.into_iter().map(line).collect()
}

async fn ask(client: &Client, path: &str) -> Result<Value, ClientError> {
    let answer = client.send(client.request(Method::GET, path), Retry::Once).await?;
    let body = answer.bytes().await.map_err(|error| client.failed(error))?;
    // A plain `ok` is an answer too.
    Ok(serde_json::from_slice(&body).unwrap_or(Value::Null))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_has_a_line_and_what_is_not_well_says_why() {
        let found = json!({ "log": "ok", "shards": "shard 3 has no leader", "membership": "ok", "deployments": "ok" });
        let lines = components(Some(&found)).join("\n");
        let plain = anstream::adapter::strip_str(&lines).to_string();
        assert_eq!(
            plain,
            "  deployments  ok\n  log          ok\n  membership   ok\n  shards       shard 3 has no leader"
        );
        assert!(components(None).is_empty() && components(Some(&Value::Null)).is_empty());
    }
}
