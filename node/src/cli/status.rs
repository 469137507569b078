//! `caxton status`: the files on disk against what is live, also when the server is out of reach.

use caxton_proto::plan::Plan;

use caxton_proto::plan::{Change, Item};
use caxton_proto::{Revision, WorkspaceId};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;

use crate::api::cluster::ClusterStatus;
use crate::api::paths;
use crate::api::{Deployment, Deployments, Serving, WorkspaceStatus};
use crate::cli::live::{self, Remote, Standing};
use crate::cli::output::{BOLD, DIM, WARN, count, paint};
use crate::cli::workspace::Workspace;
use crate::cli::workspace::scan::Scan;
use crate::cli::workspace::state::{self, State};
use crate::cli::{CliError, Context, Exit, agents, check, cluster, diagnostics, text};
use crate::client::ClientError;
use crate::tasks;

/// How many agents are listed, the newest first.
const AGENTS_SHOWN: usize = 20;
/// How many deployments are looked through at once for when an agent was last deployed, and how often.
const HISTORY_PAGE: usize = 200;
const HISTORY_PAGES_MAX: usize = 5;

/// Arguments of `caxton status`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  caxton status
  caxton status --cluster             the nodes, also outside of a workspace
  caxton status --json | jq '.local'")]
pub struct Args {
    /// Compare with what was live when the server was last asked, and do not ask it.
    #[arg(long)]
    offline: bool,
    /// Show the cluster instead: its nodes, who votes and who leads.
    #[arg(long, conflicts_with = "offline")]
    cluster: bool,
}

/// Prints what a deployment would change, and what others changed meanwhile.
pub fn run(args: Args, context: &Context) -> Result<(), CliError> {
    if args.cluster {
        return cluster::status(context);
    }
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
            // A server that a person names has a state of its own, which is not that of another one.
            let named = !context.global.server.is_empty();
            if named && state.as_ref().is_some_and(|state| state.server != client.url()) {
                return Err(error);
            }
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
    let deployed = print_live(context, remote, &status).await?;
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
    advise(context, workspace, &scan);
    let mut document = json!({
        "workspace": remote.id,
        "server": remote.client.url(),
        "offline": false,
        "live": status.deployment,
        "serving": status.serving,
        "agents": status.agents,
        "tools": status.tools,
        "deployed": deployed,
        "lacking": status.lacking,
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

/// What is live: by whom it was deployed, whether it is served, when each agent came, and what it lacks.
async fn print_live(
    context: &Context,
    remote: &Remote<'_>,
    status: &WorkspaceStatus,
) -> Result<Vec<Deployed>, CliError> {
    let out = &context.out;
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
    let deployed = match &status.deployment {
        Some(live) => last_deployed(remote, live).await?,
        None => Vec::new(),
    };
    print_deployed(context, &deployed)?;
    for lack in &status.lacking {
        out.line(format_args!("  {} {}", paint(WARN, "warning:"), text::one_line(lack)))?;
    }
    Ok(deployed)
}

/// The cluster, where there is more than one node and the token may see it.
async fn cluster(remote: &Remote<'_>) -> Option<ClusterStatus> {
    let cluster: ClusterStatus = remote.client.get(&format!("{}?stale=true", paths::CLUSTER.text())).await.ok()?;
    (cluster.members.len() > 1).then_some(cluster)
}

/// When an agent got the content that is live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Deployed {
    agent: String,
    /// The revision that brought it; nothing where that is too long ago to be found.
    revision: Option<Revision>,
    time: Option<String>,
    commit: Option<String>,
}

/// When each live agent was last deployed, the newest first. It is looked for in so many deployments at most.
async fn last_deployed(remote: &Remote<'_>, live: &Deployment) -> Result<Vec<Deployed>, ClientError> {
    let agents = agents::list(remote).await?;
    let mut left: BTreeSet<String> = agents.into_iter().map(|agent| agent.name).collect();
    let mut found: Vec<Deployed> = Vec::new();
    let mut before = live.revision.next();
    for _ in 0..HISTORY_PAGES_MAX {
        if left.is_empty() {
            break;
        }
        let path = format!("{}?limit={HISTORY_PAGE}&before={}", remote.path(paths::DEPLOYMENTS), before.0);
        let page: Deployments = remote.client.get(&path).await?;
        for deployment in &page.deployments {
            for change in deployment.changes.iter().filter(|change| change.change != Change::Removed) {
                if let Item::Agent(name) = &change.item
                    && left.remove(name)
                {
                    found.push(Deployed {
                        agent: name.clone(),
                        revision: Some(deployment.revision),
                        time: Some(deployment.time.clone()),
                        commit: deployment.git.as_ref().map(|git| git.commit.clone()),
                    });
                }
            }
            // What a deployment of very many changes does not list may have been in it.
            if deployment.changes_total as usize > deployment.changes.len() {
                break;
            }
        }
        let cut = page.deployments.iter().any(|it| it.changes_total as usize > it.changes.len());
        match page.next.filter(|_| !cut) {
            Some(next) => before = next,
            None => break,
        }
    }
    let unknown = left.into_iter().map(|agent| Deployed { agent, revision: None, time: None, commit: None });
    found.extend(unknown);
    Ok(found)
}

fn print_deployed(context: &Context, deployed: &[Deployed]) -> Result<(), CliError> {
    let out = &context.out;
    let width = deployed.iter().take(AGENTS_SHOWN).map(|one| one.agent.chars().count()).max().unwrap_or(0);
    for one in deployed.iter().take(AGENTS_SHOWN) {
        let pad = " ".repeat(width - one.agent.chars().count());
        let when = match (&one.revision, &one.time) {
            (Some(revision), Some(time)) => {
                let commit = one.commit.as_deref().map(|commit| format!(", commit {}", text::short_commit(commit)));
                format!("{revision}, {}{}", text::age(time), commit.unwrap_or_default())
            }
            _ => "longer ago than was looked for".to_owned(),
        };
        out.line(format_args!("  {}{pad}  {}", text::one_line(&one.agent), paint(DIM, when)))?;
    }
    if deployed.len() > AGENTS_SHOWN {
        let more = deployed.len() - AGENTS_SHOWN;
        out.line(format_args!("  {}", paint(DIM, format!("... and {more} more (--json lists them all)"))))?;
    }
    Ok(())
}

/// What `caxton validate` would say, on stderr: warnings as they are, mistakes by their number.
fn advise(context: &Context, workspace: &Workspace, scan: &Scan) {
    match check::check(workspace, &scan.tree, None) {
        Ok(checked) if checked.warnings.is_empty() => {}
        Ok(checked) => context.out.note(diagnostics::render(&checked.warnings)),
        Err(error) => context.out.warn(format_args!("{}; `caxton validate` shows where", error.message)),
    }
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
