//! `caxton logs`: what happens in the workspace, message by message and step by step.

use std::time::Duration;

use caxton_proto::AgentName;
use jiff::{SignedDuration, Timestamp};

use crate::api::logs::{LogLine, LogLines};
use crate::api::paths;
use crate::cli::live::Remote;
use crate::cli::output::{BAD, BOLD, DIM, GOOD, WARN, paint};
use crate::cli::{CliError, Context, stream, text};
use crate::config::{Raw, Value};

/// Arguments of `caxton logs`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The lines are those of all nodes, of each since it started. They say who did what, how long it took and how it ended;
what was said is in `caxton conversations`. Outside of a workspace they are those of `default`.

Examples:
  caxton logs --since 10m
  caxton logs --agents analyst,fetcher --since 1h
  caxton logs --follow --agent analyst
  caxton logs --follow --json | jq 'select(.failed)'")]
pub struct Args {
    /// Go on with every line as it is written, until Ctrl-C.
    #[arg(long, short)]
    follow: bool,
    /// Only the turns of these agents, and the messages that they send and receive; with commas between.
    #[arg(long, visible_alias = "agents", value_name = "NAME,...", value_delimiter = ',')]
    agent: Vec<AgentName>,
    /// Only what happened since: how long ago, as in 10m, or a time, as in 2026-11-21T08:00:00Z.
    #[arg(long, value_name = "WHEN", value_parser = since)]
    since: Option<Timestamp>,
    /// How many of the newest lines to begin with, 1,000 at most.
    #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u16).range(0..=1000))]
    lines: u16,
}

fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let ago = Duration::read(&Raw::Text(text.to_owned())).map_err(|wrong| format!("it {wrong}, or a time"))?;
    let ago = SignedDuration::try_from(ago).map_err(|_| "it is too long ago".to_owned())?;
    crate::time::now().checked_sub(ago).map_err(|_| "it is too long ago".to_owned())
}

/// Prints the lines.
pub fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let id = context.workspace_id_or_default()?;
    let client = context.client()?;
    let remote = Remote { client: &client, id: &id };
    let mut path = format!("{}?limit={}", remote.path(paths::LOGS), args.lines);
    if !args.agent.is_empty() {
        let names: Vec<&str> = args.agent.iter().map(AgentName::as_str).collect();
        path.push_str(&format!("&agent={}", names.join(",")));
    }
    if let Some(since) = args.since {
        path.push_str(&format!("&since={since}"));
    }
    if args.follow {
        return context.block_on(follow(context, &remote, &format!("{path}&follow=true")));
    }
    let found: LogLines = context.block_on(async { Ok(client.get(&path).await?) })?;
    if found.lines.is_empty() {
        context.out.note(format_args!("Nothing happened in {id} since the nodes started, or since you ask."));
    }
    for line in &found.lines {
        context.out.line(shown(line))?;
    }
    for node in &found.missing {
        context.out.warn(format_args!("node {node} does not answer: what happened on it is not shown"));
    }
    context.out.json(&found)
}

async fn follow(context: &Context, remote: &Remote<'_>, path: &str) -> Result<(), CliError> {
    let why = stream::read(remote, path, |event| {
        // Of a newer server, if it cannot be read.
        let Ok(line) = serde_json::from_str::<LogLine>(&event.data) else { return Ok(()) };
        if context.out.is_json() {
            return context.out.raw(format_args!("{}\n", serde_json::to_string(&line).unwrap_or_default()));
        }
        context.out.line(shown(&line))
    });
    Err(stream::ended(why.await?))
}

/// A line as a person reads it: when, whose turn, what.
fn shown(line: &LogLine) -> String {
    let time = line.time.parse::<Timestamp>();
    let time = time.map_or_else(|_| text::one_line(&line.time), |time| time.strftime("%H:%M:%S%.3f").to_string());
    let agent = text::one_line(line.agent.as_deref().unwrap_or("-"));
    let indent = "  ".repeat(line.depth.unwrap_or(0).min(8) as usize);
    let style = match line.event.as_str() {
        _ if line.failed => BAD,
        "answered" | "serving" => GOOD,
        "waiting" | "awaiting" => WARN,
        "message" => BOLD,
        _ => DIM,
    };
    let event = paint(style, format!("{indent}{}", what(&line.event, line.failed)));
    let mut out = format!("{} {:<16} {event}", paint(DIM, time), agent);
    if let Some(from) = &line.from {
        out.push_str(&format!(" {}:", text::one_line(from)));
    }
    if !line.detail.is_empty() {
        out.push_str(&format!(" {}", text::one_line(&line.detail)));
    }
    let facts = [
        line.tokens.filter(|tokens| *tokens > 0).map(|tokens| format!("{tokens} tokens")),
        line.duration_ms.map(|ms| format!("{ms} ms")),
        line.subject
            .as_ref()
            .filter(|_| line.turn.is_none() || line.event == "message")
            .map(|subject| format!("from {subject}")),
        line.turn.as_ref().filter(|_| line.event == "message").map(|turn| format!("turn {turn}")),
        line.node.as_ref().filter(|_| line.turn.is_none() || line.event == "message").map(|node| format!("on {node}")),
    ];
    let facts: Vec<String> = facts.into_iter().flatten().map(|fact| text::one_line(&fact)).collect();
    if !facts.is_empty() {
        out.push_str(&format!(" {}", paint(DIM, format!("({})", facts.join(", ")))));
    }
    out
}

/// An event in a person's words; one of a newer server as it is named.
fn what(event: &str, failed: bool) -> String {
    match (event, failed) {
        ("message", _) => "message",
        ("delivered", _) => "has a message of",
        ("model_asked", _) => "asks the model",
        ("model_answered", _) => "has the answer of",
        ("tool_called", _) => "calls",
        ("tool_returned", false) => "has the result of",
        ("tool_returned", true) => "failed:",
        ("delegated", _) => "asks",
        ("delegate_returned", false) => "has the answer of",
        ("delegate_returned", true) => "has no answer of",
        ("attached", _) => "has a file:",
        ("waiting", _) => "waits for a person:",
        ("awaiting", _) => "waits for answers",
        ("answered", _) => "answered",
        ("failed", _) => "failed:",
        ("serving", _) => "serves",
        ("secret_set", _) => "has the secret",
        ("secret_removed", _) => "lost the secret",
        ("not_serving", _) => "cannot serve",
        ("missed", _) => "missed:",
        (other, _) => return text::one_line(other),
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_as_a_sentence_and_cannot_move_the_cursor() {
        let line = LogLine {
            time: "2026-11-21T08:00:01.250Z".into(),
            event: "tool_returned".into(),
            agent: Some("analyst".into()),
            depth: Some(1),
            detail: "stats\u{1b}[2J".into(),
            duration_ms: Some(12),
            ..LogLine::default()
        };
        let text = anstream::adapter::strip_str(&shown(&line)).to_string();
        assert_eq!(text, "08:00:01.250 analyst            has the result of stats[2J (12 ms)");
    }

    #[test]
    fn a_message_that_was_delivered_says_whose_it_is() {
        let line = LogLine {
            time: "2026-11-21T08:00:01.250Z".into(),
            event: "delivered".into(),
            agent: Some("pong".into()),
            from: Some("ping".into()),
            detail: "request".into(),
            ..LogLine::default()
        };
        let text = anstream::adapter::strip_str(&shown(&line)).to_string();
        assert_eq!(text, "08:00:01.250 pong             has a message of ping: request");
    }

    #[test]
    fn since_is_a_time_or_how_long_ago() {
        assert!(since("2026-11-21T08:00:00Z").is_ok());
        let ago = Timestamp::now().as_second() - since("10m").expect("a time").as_second();
        assert!((599..=601).contains(&ago), "{ago}");
        assert!(since("soon").is_err());
    }
}
