//! `caxton restore`: a data directory from a backup. The node that starts on it is the first of a new cluster.

use std::path::PathBuf;

use crate::backup::restore::{self, Restoration, Unauthenticated};
use crate::cli::backup::key_beside;
use crate::cli::output::{BOLD, DIM, GOOD, count, paint};
use crate::cli::{CliError, Context};

/// Arguments of `caxton restore`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Everything is checked before anything is written, also that nobody changed the archive since it was made under its recovery
key, and nothing is ever written over. The cluster gets a new id, and keeps
its certificate authority, tokens and secrets; other nodes join it with empty data directories.

Example:
  caxton restore monday.tar --key-file /safe/recovery.key --data-dir /var/lib/caxton")]
pub struct Args {
    /// The archive to restore.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The recovery key that the archive was made with [default: FILE.key].
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Restore an archive of a caxton that did not authenticate archives yet, as it is.
    #[arg(long)]
    unauthenticated: bool,
}

pub fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let dir = context.data_dir()?;
    let key = args.key_file.unwrap_or_else(|| key_beside(&args.file));
    let unauthenticated = if args.unauthenticated { Unauthenticated::Accepted } else { Unauthenticated::Refused };
    let restored = context.block_on(async {
        restore::restore(&args.file, &key, &dir, unauthenticated).await.map_err(|error| {
            let cli = CliError::new("restore_failed", error.to_string());
            let cli = match error.help() {
                Some(help) => cli.help(help),
                None => cli,
            };
            cli.source(error)
        })
    })?;
    let Restoration { archive, identity } = restored;
    let out = &context.out;
    out.line(format_args!("{} {}", paint(GOOD, "restored to"), paint(BOLD, dir.display())))?;
    let held = format!("{}, {}", count(archive.workspaces, "workspace"), count(archive.artifacts, "artifact"));
    out.line(format_args!("  {held}, as they were {}", archive.header.created))?;
    out.line(format_args!(
        "  {} {}, before it was {}",
        paint(DIM, "cluster"),
        identity.cluster,
        archive.header.cluster
    ))?;
    out.line(format_args!("  {} {}", paint(DIM, "node"), identity.node))?;
    out.note(format_args!("Start it with `caxton serve --data-dir {}`; other nodes join it.", dir.display()));
    out.json(&serde_json::json!({
        "data_dir": dir,
        "cluster": identity.cluster.to_string(),
        "node": identity.node.to_string(),
        "from": archive.header,
        "workspaces": archive.workspaces,
        "artifacts": archive.artifacts,
    }))
}
