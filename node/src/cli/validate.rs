//! `caxton validate`: the check that a deployment makes, here and without a server.

use std::path::PathBuf;
use std::time::Instant;

use caxton_proto::diagnostic;
use serde_json::json;

use crate::cli::diagnostics;
use crate::cli::output::{DIM, GOOD, count, paint};
use crate::cli::workspace::Workspace;
use crate::cli::{CliError, Context, check};

/// Arguments of `caxton validate`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  caxton validate              check the workspace around the current directory
  caxton validate --strict     count warnings as mistakes (CI)
  caxton validate --json       the problems as data")]
pub struct Args {
    /// A folder in the workspace [default: the current directory].
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Fail on warnings too.
    #[arg(long)]
    strict: bool,
}

/// Checks every file, and fails with all mistakes if there are any.
pub fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let start = Instant::now();
    let from = args.dir.map_or_else(|| context.cwd.clone(), |dir| context.cwd.join(dir));
    let workspace = Workspace::find(&from)?;
    let scan = workspace.scan()?;
    let checked = check::check(&workspace, &scan.tree, None)?;
    if args.strict && !checked.warnings.is_empty() {
        return Err(diagnostics::failure(checked.warnings).help("put them right, or leave --strict out"));
    }
    let (out, warnings) = (&context.out, &checked.warnings);
    let ms = start.elapsed().as_secs_f64() * 1e3;
    if !warnings.is_empty() {
        out.line(diagnostics::render(warnings))?;
    }
    let (agents, tools) = (checked.agents.len() as u64, checked.tools.len() as u64);
    let verdict = match warnings.len() {
        0 => paint(GOOD, "no problems".to_owned()),
        _ => paint(GOOD, format!("can be deployed, with {}", diagnostic::count(warnings))),
    };
    let time = paint(DIM, format!("({ms:.0} ms)"));
    out.line(format_args!("{} and {}: {verdict} {time}", count(agents, "agent"), count(tools, "tool")))?;
    out.json(&json!({
        "ok": true,
        "workspace": checked.workspace.name,
        "agents": agents,
        "tools": tools,
        "diagnostics": warnings,
        "ms": ms,
    }))
}
