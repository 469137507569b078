//! `caxton recover --unsafe-new-cluster`: goes on with what one node has, when a majority is gone for good.

use std::io::IsTerminal;

use crate::backup::recover::{Remains, describe};
use crate::cli::output::{BOLD, DIM, GOOD, paint};
use crate::cli::{CliError, Context};
use crate::node;

/// Arguments of `caxton recover`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
For a stopped node whose cluster lost a majority of its voters for good. The node becomes the first of a new cluster with
what it has. Lost is what was acknowledged by others and never reached this node: choose the node that has the most
entries (`caxton recover --data-dir DIR` without --unsafe-new-cluster shows them and changes nothing). The other nodes
must never start again with their old data directories: empty them, and let them join.

Examples:
  caxton recover --data-dir /var/lib/caxton
  caxton recover --unsafe-new-cluster --data-dir /var/lib/caxton")]
pub struct Args {
    /// Begin a new cluster with this node; without it, only show what the node has.
    #[arg(long)]
    unsafe_new_cluster: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

/// Shows what the node has, asks, and begins again.
pub fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let dir = context.data_dir()?;
    if !dir.is_dir() {
        return Err(CliError::new("recover_failed", format!("{} is not there", dir.display()))
            .help("name the data directory of a stopped node with --data-dir DIR"));
    }
    // Until the end, so that no node starts on it meanwhile.
    let _lock = node::lock(&dir).map_err(|error| {
        let help = error.help().unwrap_or_default();
        CliError::new("recover_failed", error.to_string()).help(help).source(error)
    })?;
    let failed = |error: crate::backup::recover::RecoverError| {
        CliError::new("recover_failed", error.to_string())
            .help("nothing was changed; `caxton restore` makes a data directory from a backup")
            .source(error)
    };
    let remains = context.block_on(async { Remains::of(&dir).await.map_err(failed) })?;
    let out = &context.out;
    let before = remains.before.clone();
    out.line(format_args!("{} {} of cluster {} has", paint(BOLD, "node"), before.node, before.cluster))?;
    let groups: Vec<String> = remains.groups().map(describe).collect();
    for group in &groups {
        out.line(format_args!("  {group}"))?;
    }
    if !args.unsafe_new_cluster {
        out.note("Nothing was changed. To begin a new cluster with this, add --unsafe-new-cluster.");
        return out.json(&serde_json::json!({ "changed": false, "has": groups }));
    }
    out.warn("what was acknowledged by other nodes and never reached this one is lost for good");
    out.warn("what this node was still asking the others about will be applied");
    out.warn("the other nodes must never start again with their old data directories");
    if !args.yes {
        let refused = |help: &str| Err(CliError::new("not_confirmed", "nothing was changed").help(help));
        if context.global.json || !std::io::stdin().is_terminal() {
            return refused("say that you mean it with --yes");
        }
        if !out.confirm("Begin a new cluster with this node alone?")? {
            return refused("the node is as it was");
        }
    }
    let now = context.block_on(async { remains.recover().await.map_err(failed) })?;
    out.line(format_args!("{} {}", paint(GOOD, "recovered:"), dir.display()))?;
    out.line(format_args!("  {} {}", paint(DIM, "cluster"), now.cluster))?;
    out.line(format_args!("  {} {}", paint(DIM, "node"), now.node))?;
    out.note(
        "It is written down in audit.jsonl of the data directory. Start the node; others join it with empty ones.",
    );
    out.json(&serde_json::json!({
        "changed": true,
        "has": groups,
        "cluster_before": before.cluster.to_string(),
        "node_before": before.node.to_string(),
        "cluster": now.cluster.to_string(),
        "node": now.node.to_string(),
    }))
}
