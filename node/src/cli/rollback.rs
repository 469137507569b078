//! `caxton rollback REV`: a new deployment with the content of an old one.

use std::time::Instant;

use caxton_proto::Revision;
use caxton_proto::plan::Plan;
use caxton_proto::tree::Tree;
use serde_json::json;

use crate::api::paths;
use crate::api::{DeployResponse, Deployment, RollbackRequest};
use crate::cli::deploy::DEPLOY_TIMEOUT;
use crate::cli::live::{self, Remote};
use crate::cli::output::{BOLD, DIM, count, paint};
use crate::cli::{CliError, Context, git, text};
use crate::client::Retry;

/// Arguments of `caxton rollback`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  caxton rollback r3              show what it changes, ask, go back
  caxton rollback 3 --yes -m \"the new prompt is wrong\"")]
pub struct Args {
    /// The revision whose content becomes live again; `caxton log` lists them.
    #[arg(value_name = "REV")]
    revision: Revision,
    /// Show what it would change, and send nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
    /// Why, for those who read the log.
    #[arg(long, short, value_name = "MESSAGE", default_value = "", hide_default_value = true)]
    message: String,
}

/// Goes back, forwards: the history only grows.
pub fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let start = Instant::now();
    let id = context.workspace_id()?;
    let client = context.client()?;
    let remote = Remote { client: &client, id: &id };
    context.block_on(rollback(args, context, remote, start))
}

async fn rollback(args: Args, context: &Context, remote: Remote<'_>, start: Instant) -> Result<(), CliError> {
    let out = &context.out;
    let (status, target) = tokio::join!(remote.status(), remote.deployment(args.revision));
    let status = status?;
    let (Some(live), Some(target)) = (&status.deployment, target?) else {
        return Err(CliError::new("not_found", format!("{} has no revision {}", remote.id, args.revision))
            .help("`caxton log` lists the revisions"));
    };
    if target.root == live.root {
        out.line(format_args!("Nothing to do: {} already has the content of {}.", live.revision, target.revision))?;
        return out.json(&json!({ "changes": [], "revision": live.revision, "deployment": live }));
    }
    if !target.kept {
        return Err(CliError::new("not_kept", format!("the content of {} is no longer kept", target.revision))
            .help("go back to a newer revision, or deploy the files from git"));
    }
    let plan = plan(context, &remote, live, &target).await?;
    out.line(format_args!(
        "Back from {} to {} of {} {}",
        paint(BOLD, live.revision),
        paint(BOLD, target.revision),
        paint(BOLD, remote.id),
        paint(DIM, format_args!("({}: {})", text::time(&target.time), text::purpose(&target)))
    ))?;
    out.text(text::changes(&plan.items, plan.items.len() as u64))?;
    out.line(text::counts(&plan.items))?;
    if args.dry_run {
        out.line(paint(DIM, "Dry run: nothing was sent."))?;
        return out.json(&json!({ "dry_run": true, "changes": plan.items, "live": live.revision }));
    }
    agree(&args, context, &plan, &target)?;
    let answer = send(args, context, &remote, live, &target).await?;
    report(context, &remote, &answer, &plan, &target, start)
}

async fn plan(
    context: &Context,
    remote: &Remote<'_>,
    live: &Deployment,
    target: &Deployment,
) -> Result<Plan, CliError> {
    let workspace = context.workspace().ok();
    let live = remote.tree(live.root, workspace.as_ref(), &Tree::default(), &context.out).await?;
    let target = remote.tree(target.root, workspace.as_ref(), &live, &context.out).await?;
    Ok(Plan::between(&live, &target))
}

fn agree(args: &Args, context: &Context, plan: &Plan, target: &Deployment) -> Result<(), CliError> {
    if args.yes {
        return Ok(());
    }
    if !context.out.can_ask() {
        return Err(CliError::usage("nobody is there to agree to it")
            .help("agree beforehand with --yes, or look at what it changes with --dry-run"));
    }
    let changes = count(plan.items.len() as u64, "change");
    if context.out.confirm(format_args!("\nGo back to {} ({changes})?", target.revision))? {
        return Ok(());
    }
    Err(CliError::new("not_agreed", "nothing was changed").help("run it again when you are ready"))
}

async fn send(
    args: Args,
    context: &Context,
    remote: &Remote<'_>,
    live: &Deployment,
    target: &Deployment,
) -> Result<DeployResponse, CliError> {
    let request = RollbackRequest {
        to: target.revision,
        parent: live.revision,
        author: git::author(&context.cwd).await,
        message: args.message,
        idempotency_key: uuid::Uuid::new_v4().simple().to_string(),
    };
    let mut progress = context.out.progress("going back", None);
    let path = remote.path(paths::ROLLBACK);
    let answer = progress.during(remote.client.post_within(&path, &request, Retry::Once, DEPLOY_TIMEOUT)).await;
    answer.map_err(|error| {
        if error.is_ambiguous() {
            return CliError::from(error).help("it is not known whether it was done: look at `caxton log`");
        }
        let other = match &error {
            crate::client::ClientError::Problem(problem) if problem.code == "conflict" => problem
                .extra
                .get("conflict")
                .cloned()
                .and_then(|other| serde_json::from_value::<Deployment>(other).ok()),
            _ => None,
        };
        match other {
            Some(other) => live::conflict(&other, None)
                .help("look at it with `caxton log`, and go back again if you still want to"),
            None => error.into(),
        }
    })
}

fn report(
    context: &Context,
    remote: &Remote<'_>,
    answer: &DeployResponse,
    plan: &Plan,
    target: &Deployment,
    start: Instant,
) -> Result<(), CliError> {
    let out = &context.out;
    let Some(deployment) = &answer.deployment else {
        return Err(CliError::new("not_caxton", "the server answered without a deployment")
            .help("check that client and server are of the same version with `caxton version`"));
    };
    live::check_serving(answer, deployment)?;
    out.line(format_args!(
        "{} of {} is live, with the content of {}",
        paint(BOLD, deployment.revision),
        paint(BOLD, remote.id),
        target.revision
    ))?;
    out.line(paint(
        DIM,
        format_args!("{}; the files here were not touched: `caxton pull` brings them back too", live::took(start)),
    ))?;
    out.json(&json!({
        "revision": deployment.revision,
        "deployment": deployment,
        "changes": plan.items,
        "repeated": answer.repeated,
        "serving": answer.serving,
        "ms": start.elapsed().as_secs_f64() * 1e3,
    }))
}
