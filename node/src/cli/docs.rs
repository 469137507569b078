//! `caxton docs`: the manual that belongs to this binary.

use serde_json::json;

use crate::cli::output::{BOLD, DIM, paint};
use crate::cli::{CliError, Context};

/// Arguments of `caxton docs`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  caxton docs                list the pages
  caxton docs first-agent | less
  caxton docs agents --json | jq -r .text")]
pub struct Args {
    /// The page; without one, the list of them.
    page: Option<String>,
}

/// The pages by their names, in the order in which a person reads them, each with what it answers.
pub const PAGES: [(&str, &str, &str); 19] = [
    ("first-agent", "your first agent, in ten minutes", include_str!("../../../docs/first-agent.md")),
    (
        "call-agents",
        "calling agents: curl, event streams, OpenAI's client, approvals",
        include_str!("../../../docs/call-agents.md"),
    ),
    ("agents", "how to write an agent, and every key of its file", include_str!("../../../docs/agents.md")),
    ("providers", "language models of every maker", include_str!("../../../docs/providers.md")),
    ("tools", "how to write a tool, and what one may do", include_str!("../../../docs/tools.md")),
    ("memory", "what a workspace remembers, and who reads it", include_str!("../../../docs/memory.md")),
    ("clients", "clients of OpenAI and Anthropic, as they are", include_str!("../../../docs/clients.md")),
    ("messages", "messages between agents, mailboxes, topics", include_str!("../../../docs/messages.md")),
    ("grpc", "gRPC: services, streams that go on, errors", include_str!("../../../docs/grpc.md")),
    ("websocket", "WebSocket: follow, ask and send on one connection", include_str!("../../../docs/websocket.md")),
    ("wasm-agents", "agents that are programs of your own", include_str!("../../../docs/wasm-agents.md")),
    ("operators", "metrics, a systemd unit, sizing", include_str!("../../../docs/operators.md")),
    (
        "operations",
        "running a node and a cluster: backup, a full disk, damage",
        include_str!("../../../docs/OPERATIONS.md"),
    ),
    ("commands", "every command, with its flags and its JSON", include_str!("../../../docs/commands.md")),
    ("config", "every setting of a node", include_str!("../../../docs/config.md")),
    ("errors", "every code, what it means and what to do", include_str!("../../../docs/errors.md")),
    ("security", "what is safe by default, tokens, TLS", include_str!("../../../docs/SECURITY.md")),
    ("architecture", "the floors, the two walks, the invariants", include_str!("../../../docs/ARCHITECTURE.md")),
    ("benchmarks", "what was measured, and how", include_str!("../../../docs/benchmarks.md")),
];

/// Prints a page, or the list of them.
pub fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let out = &context.out;
    let Some(wanted) = args.page else {
        let width = PAGES.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
        for (name, what, _) in PAGES {
            out.line(format_args!("{}{}  {what}", paint(BOLD, name), " ".repeat(width - name.len())))?;
        }
        out.line(paint(DIM, "read one with `caxton docs PAGE`"))?;
        let pages: Vec<_> = PAGES.iter().map(|(name, what, _)| json!({ "page": name, "what": what })).collect();
        return out.json(&json!({ "pages": pages }));
    };
    let name = wanted.to_ascii_lowercase();
    let name = name.trim_start_matches("docs/").trim_end_matches(".md");
    let Some((name, what, text)) = PAGES.iter().find(|(page, ..)| *page == name) else {
        let near = caxton_proto::diagnostic::closest(name, PAGES.iter().map(|(page, ..)| *page));
        let error = CliError::usage(format!("there is no page `{}`", crate::cli::text::one_line(&wanted)));
        return Err(match near {
            Some(near) => error.help(format!("did you mean `caxton docs {near}`?")),
            None => error.help("`caxton docs` lists them"),
        });
    };
    out.text(text)?;
    out.json(&json!({ "page": name, "what": what, "text": text }))
}
