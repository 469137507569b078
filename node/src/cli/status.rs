//! `caxton status`: the files on disk against what is live, also when the server is out of reach.

use caxton_proto::plan::Plan;

use caxton_proto::WorkspaceId;
use serde_json::{Value, json};

use crate::api::cluster::ClusterStatus;
use crate::api::{Deployment, Serving, WorkspaceStatus};
use crate::cli::live::{self, Remote, Standing};
use crate::cli::output::{BOLD, DIM, WARN, count, paint};
use crate::cli::workspace::Workspace;
use crate::cli::workspace::scan::Scan;
use crate::cli::workspace::state::{self, State};
use crate::cli::{CliError, Context, Exit, cluster, text};
use crate::tasks;

/// Arguments of `caxton status`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  caxton status
  caxton status --json | jq '.local'")]
pub struct Args {
    /// Compare with what was live when the server was last asked, and do not ask it.
    #[arg(long)]
    offline: bool,
}

/// Prints what a deployment would change, and what others changed meanwhile.
pub fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let workspace = context.workspace()?;
    let id = context.workspace_id()?;
    let state = State::load(&workspace, &id);
    if args.offline {
        return offline(context, &workspace, &id, state, None);
    }
    let client = match context.client() {
        Ok(client) => client,
        Err(error) if is_absence(&error) => return offline(context, &workspace, &id, state, Some(error)),
        Err(error) => return Err(error),
    };
    let remote = Remote { client: &client, id: &id };
    let scanned = workspace.clone();
    let looked = context.block_on(async {
        let scan = tasks::blocking(move || scanned.scan());
        let (scan, status) = tokio::join!(scan, remote.status());
        let scan = scan.map_err(|error| CliError::new("internal", "reading the workspace failed").source(error))??;
        Ok((scan, status.map_err(CliError::from)))
    })?;
    let (scan, status) = match looked {
        (scan, Ok(status)) => (scan, status),
        (_, Err(error)) if is_absence(&error) => {
            return offline(context, &workspace, &id, state, Some(error));
        }
        (_, Err(error)) => return Err(error),
    };
    context.block_on(online(context, &workspace, &remote, state, scan, status))
}

/// Nobody answers. A server whose certificate is wrong is not absent, and that has to be said.
fn is_absence(error: &CliError) -> bool {
    error.exit == Exit::Unreachable && error.code != "tls"
}

async fn online(
    context: &Context,
    workspace: &Workspace,
    remote: &Remote<'_>,
    state: Option<State>,
    scan: Scan,
    status: WorkspaceStatus,
) -> Result<(), CliError> {
    let out = &context.out;
    let live = remote.tree(live::root_of(&status), Some(workspace), &scan.tree, out).await?;
    let state = state.unwrap_or_else(|| State::new(remote.id.clone(), remote.client.url()));
    let standing = live::standing(remote, &status, &state).await?;
    // When others deployed in between, what they changed is not what these files change.
    let base = match (standing, &state.base) {
        (Standing::Behind, Some(base)) => Some((base.clone(), remote.tree(base.root, None, &live, out).await?)),
        _ => None,
    };
    let local = Plan::between(base.as_ref().map_or(&live, |(_, tree)| tree), &scan.tree);
    let theirs = base.as_ref().map(|(_, tree)| Plan::between(tree, &live)).unwrap_or_default();
    if scan.tree == live
        && let Some(deployment) = &status.deployment
        && state.base.as_ref() != Some(deployment)
    {
        // These files are what is live, wherever they came from: a cache that cannot be written loses only time.
        let mut next = state.clone();
        next.base = Some(deployment.clone());
        next.pending = None;
        let _ = state::save_tree(workspace, &live).and_then(|()| next.save(workspace));
    }
    out.line(format_args!("{} at {}", paint(BOLD, remote.id), remote.client.url()))?;
    out.line(describe(status.deployment.as_ref()))?;
    let what = format!("{}, {}", count(status.agents, "agent"), count(status.tools, "tool"));
    if status.deployment.is_some() {
        out.line(format_args!("  {}", paint(DIM, what)))?;
    }
    match &status.serving {
        Serving::Loading { revision } => out.line(format_args!("  {} until it is loaded", paint(WARN, revision)))?,
        Serving::Failed { revision, error } => out.line(format_args!(
            "  {} {revision} is served, because the newest cannot be loaded: {}",
            paint(WARN, "warning:"),
            text::one_line(error)
        ))?,
        Serving::Live { .. } | Serving::Nothing => {}
    }
    if let Some((base, _)) = &base {
        let deployments = count(status.revision.0 - base.revision.0, "deployment");
        out.line(format_args!("\n{deployments} since {}, which these files are based on:", base.revision))?;
        out.text(text::changes(&theirs.items, theirs.items.len() as u64))?;
        out.line(paint(DIM, "get them with `caxton pull`"))?;
    }
    let cluster = cluster(remote).await;
    if let Some(cluster) = &cluster {
        out.line(format_args!("  {}", cluster::summary(cluster)))?;
    }
    print_local(context, &local)?;
    let mut document = json!({
        "workspace": remote.id,
        "server": remote.client.url(),
        "offline": false,
        "live": status.deployment,
        "serving": status.serving,
        "agents": status.agents,
        "tools": status.tools,
        "base": base.as_ref().map(|(base, _)| base.revision).or(status.deployment.as_ref().map(|live| live.revision)),
        "behind": base.is_some(),
        "local": local.items,
        "theirs": theirs.items,
        "files": files(&local),
    });
    if let Some(cluster) = cluster {
        document["cluster"] = json!(cluster);
    }
    out.json(&document)
}

/// The cluster, where there is more than one node and the token may see it.
async fn cluster(remote: &Remote<'_>) -> Option<ClusterStatus> {
    let cluster: ClusterStatus = remote.client.get("/api/v1/cluster?stale=true").await.ok()?;
    (cluster.members.len() > 1).then_some(cluster)
}

/// The comparison with what was live when the server was last asked.
fn offline(
    context: &Context,
    workspace: &Workspace,
    id: &WorkspaceId,
    state: Option<State>,
    why: Option<CliError>,
) -> Result<(), CliError> {
    let out = &context.out;
    let known = state.as_ref().and_then(|state| state.base.as_ref());
    let tree = known.and_then(|base| state::load_tree(workspace, base.root));
    let (Some(state), Some(base), Some(tree)) = (&state, known, tree) else {
        return Err(why.unwrap_or_else(|| {
            CliError::new("nothing_cached", format!("{id} was never deployed or pulled from here"))
                .help("ask the server once: `caxton status` without --offline")
        }));
    };
    let scan = workspace.scan()?;
    let local = Plan::between(&tree, &scan.tree);
    if let Some(why) = &why {
        out.warn(format_args!("{}; what follows is from the last time it was asked", why.message));
    }
    out.line(format_args!("{} at {} {}", paint(BOLD, id), state.server, paint(DIM, "(offline)")))?;
    out.line(describe(Some(base)))?;
    print_local(context, &local)?;
    out.json(&json!({
        "workspace": id,
        "server": state.server,
        "offline": true,
        "live": base,
        "base": base.revision,
        "behind": Value::Null,
        "local": local.items,
        "theirs": [],
        "files": files(&local),
    }))
}

fn describe(live: Option<&Deployment>) -> String {
    match live {
        None => "nothing is live yet".to_owned(),
        Some(live) => format!(
            "{} is live, deployed by {} {}: {}",
            paint(BOLD, live.revision),
            text::author(&live.author),
            text::age(&live.time),
            text::purpose(live)
        ),
    }
}

fn print_local(context: &Context, local: &Plan) -> Result<(), CliError> {
    let out = &context.out;
    if local.is_empty() {
        return out.line("\nno changes here");
    }
    out.line("\nchanges here that are not deployed:")?;
    out.text(text::changes(&local.items, local.items.len() as u64))?;
    out.line(paint(DIM, "put them live with `caxton deploy`"))
}

fn files(plan: &Plan) -> Value {
    let upserts: Vec<_> = plan.upserts.iter().map(|(path, _)| path).collect();
    json!({ "upserts": upserts, "removals": plan.removals })
}
