//! `caxton log`: who deployed what, when, and from which commit.

use caxton_proto::Revision;
use serde_json::json;

use crate::api::paths;
use crate::api::{Deployment, Deployments};
use crate::cli::live::Remote;
use crate::cli::output::{BOLD, DIM, Table, paint};
use crate::cli::{CliError, Context, text};
use crate::client::ClientError;
use anstyle::Style;

/// The most that the server gives at once.
const PAGE: usize = 1000;

/// Arguments of `caxton log`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Columns: REV the revision, bold where it can be put back, TIME when it was deployed, WHO wrote it, COMMIT where it came from \
with a * for changes that were not committed, WHAT it was for. JSON has them as revision and kept, time, author, git and \
message.

Examples:
  caxton log
  caxton log -n 3 --json | jq '.deployments[].author'")]
pub struct Args {
    /// How many deployments, the newest first.
    #[arg(short = 'n', long, value_name = "N", default_value = "20")]
    number: std::num::NonZeroUsize,
    /// Start below this revision.
    #[arg(long, value_name = "REV")]
    before: Option<Revision>,
}

/// Prints the history.
pub fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let id = context.workspace_id()?;
    let client = context.client()?;
    let remote = Remote { client: &client, id: &id };
    let (deployments, more) = context.block_on(async { Ok(read(&remote, args.number.get(), args.before).await?) })?;
    let out = &context.out;
    if deployments.is_empty() {
        out.line(format_args!("Nothing was deployed to {} yet.", paint(BOLD, &id)))?;
    } else {
        out.table(table(&deployments))?;
    }
    if let Some(next) = more {
        out.line(paint(DIM, format_args!("older ones: caxton log --before {next}")))?;
    }
    out.json(&json!({ "deployments": deployments, "next": more }))
}

/// The newest `number` deployments below `before`, and where to read on.
async fn read(
    remote: &Remote<'_>,
    number: usize,
    mut before: Option<Revision>,
) -> Result<(Vec<Deployment>, Option<Revision>), ClientError> {
    let mut all = Vec::new();
    loop {
        let limit = (number - all.len()).min(PAGE);
        let from = before.map(|before| format!("&before={}", before.0)).unwrap_or_default();
        let page: Deployments =
            remote.client.get(&format!("{}?limit={limit}{from}", remote.path(paths::DEPLOYMENTS))).await?;
        before = page.next;
        all.extend(page.deployments);
        if before.is_none() || all.len() >= number {
            all.truncate(number);
            return Ok((all, before));
        }
    }
}

fn table(deployments: &[Deployment]) -> Table {
    let mut table = Table::new(["REV", "TIME (UTC)", "WHO", "COMMIT", "WHAT"]);
    for deployment in deployments {
        let revision = if deployment.kept { BOLD } else { DIM };
        table.styled([
            (revision, deployment.revision.to_string()),
            (Style::new(), text::time(&deployment.time)),
            (Style::new(), text::author(&deployment.author)),
            (DIM, deployment.git.as_ref().map_or_else(|| "-".to_owned(), text::git)),
            (Style::new(), text::purpose(deployment)),
        ]);
    }
    table
}
