//! What is live on the server, and how the work tree stands to it.

use std::time::Instant;

use caxton_proto::plan::ItemChange;
use caxton_proto::tree::{Descent, Tree};
use caxton_proto::{Digest, Revision, WorkspaceId};

use crate::api::paths::{self, PathTemplate};
use crate::api::{DeployResponse, Deployment, Deployments, Serving, WorkspaceStatus};
use crate::cli::output::Output;
use crate::cli::workspace::Workspace;
use crate::cli::workspace::state::{self, State};
use crate::cli::{CliError, Exit, text};
use crate::client::{Client, ClientError};

/// One workspace of one server.
pub struct Remote<'a> {
    pub client: &'a Client,
    pub id: &'a WorkspaceId,
}

impl Remote<'_> {
    /// A path of the API for this workspace.
    pub fn path(&self, template: PathTemplate<1>) -> String {
        template.with([self.id.as_str()])
    }

    /// A path of the API for one thing in this workspace.
    pub fn path_of(&self, template: PathTemplate<2>, name: &str) -> String {
        template.with([self.id.as_str(), name])
    }

    /// What is live.
    pub async fn status(&self) -> Result<WorkspaceStatus, ClientError> {
        self.client.get(&self.path(paths::WORKSPACE)).await
    }

    /// One deployment of the history, if the server still knows it.
    pub async fn deployment(&self, revision: Revision) -> Result<Option<Deployment>, ClientError> {
        let path = format!("{}?before={}&limit=1", self.path(paths::DEPLOYMENTS), revision.next().0);
        let page: Deployments = self.client.get(&path).await?;
        Ok(page.deployments.into_iter().find(|deployment| deployment.revision == revision))
    }

    /// The tree of `root`: the kept one, else what `known` does not have of it is asked for, level by level.
    pub async fn tree(
        &self,
        root: Digest,
        workspace: Option<&Workspace>,
        known: &Tree,
        out: &Output,
    ) -> Result<Tree, CliError> {
        if let Some(kept) = workspace.and_then(|workspace| state::load_tree(workspace, root)) {
            return Ok(kept);
        }
        let mut progress = out.progress("finding what is live", None);
        let mut descent = Descent::new(root, known);
        while !descent.wanted().is_empty() {
            let blobs = progress.during(self.client.nodes(self.id, descent.wanted())).await?;
            let blobs: Vec<Vec<u8>> = blobs.into_iter().map(Vec::from).collect();
            descent.supply(&blobs).map_err(|error| {
                CliError::new("damaged_answer", "the server's tree cannot be read")
                    .help("the server's log names what is damaged; deploying again writes it anew")
                    .source(error)
            })?;
        }
        Ok(descent.finish())
    }
}

/// The live deployment's root; the empty tree's when nothing is live.
pub fn root_of(status: &WorkspaceStatus) -> Digest {
    status.deployment.as_ref().map_or_else(|| Tree::default().root(), |deployment| deployment.root)
}

/// How the work tree's base stands to what is live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It was never deployed or pulled here, or the server's history is another one.
    Unknown,
    /// What is live has the base's content.
    Current,
    /// Something else was deployed since.
    Behind,
}

/// Says how the base stands to what is live.
///
/// A deployment of our own that was never answered counts as ours when what it would have made is live.
pub async fn standing(remote: &Remote<'_>, status: &WorkspaceStatus, state: &State) -> Result<Standing, ClientError> {
    let Some(base) = &state.base else { return Ok(Standing::Unknown) };
    let Some(live) = &status.deployment else { return Ok(Standing::Unknown) };
    let ours = state.pending.as_ref().is_some_and(|p| p.root == live.root && p.parent.next() == live.revision);
    if ours || base.root == live.root {
        return Ok(Standing::Current);
    }
    if live.revision <= base.revision {
        return Ok(Standing::Unknown);
    }
    let known = remote.deployment(base.revision).await?;
    let same = known.is_some_and(|known| known.root == base.root && known.time == base.time);
    Ok(if same { Standing::Behind } else { Standing::Unknown })
}

/// The failure that names the other deployment.
pub fn conflict(live: &Deployment, base: Option<Revision>) -> CliError {
    let on = base.map(|base| format!("; your files are based on {base}")).unwrap_or_default();
    let what = if live.message.is_empty() { String::new() } else { format!(": {}", text::one_line(&live.message)) };
    let mut body =
        format!("{} was deployed by {} {}{what}\n", live.revision, text::author(&live.author), text::age(&live.time));
    body.push_str(&text::changes(&live.changes, u64::from(live.changes_total)));
    CliError::new("conflict", format!("{} is live{on}", live.revision))
        .exit(Exit::Conflict)
        .body(body)
        .help("get it with `caxton pull`, look at what it changes, and run `caxton deploy` again")
        .fact("conflict", live)
}

/// The failure of a deployment that would take away what nobody here has seen.
pub fn would_lose(live: &Deployment, lost: &[ItemChange]) -> CliError {
    let from = match &live.git {
        Some(git) if git.dirty => format!("from files that differ from commit {}", text::short_commit(&git.commit)),
        Some(git) => format!("from commit {}, which is no ancestor of this one", text::short_commit(&git.commit)),
        None => "from no commit".to_owned(),
    };
    let mut body = format!(
        "{} was deployed by {} {} {from}. These files would change or remove of it:\n",
        live.revision,
        text::author(&live.author),
        text::age(&live.time)
    );
    body.push_str(&text::changes(lost, lost.len() as u64));
    CliError::new("no_base", "nothing was deployed or pulled from here, and what is live is not older")
        .exit(Exit::Conflict)
        .body(body)
        .help("get it with `caxton pull`, bring this checkout up to date, or say that it may go with `caxton deploy --replace`")
        .fact("conflict", live)
        .fact("lost", lost)
}

/// Fails when the node holds the deployment and cannot serve it.
pub fn check_serving(answer: &DeployResponse, deployment: &Deployment) -> Result<(), CliError> {
    match &answer.serving {
        Serving::Failed { revision, error } => {
            let message = format!("{} is deployed and cannot be loaded", deployment.revision);
            Err(CliError::new("not_live", message)
                .body(format!("{revision} is still served: {}", text::one_line(error)))
                .help(format!("put it right and deploy again, or go back with `caxton rollback {revision}`"))
                .fact("deployment", deployment))
        }
        Serving::Live { .. } | Serving::Loading { .. } | Serving::Nothing => Ok(()),
    }
}

/// Milliseconds since `start`, for people.
pub fn took(start: Instant) -> String {
    let ms = start.elapsed().as_secs_f64() * 1e3;
    if ms < 1000.0 { format!("{ms:.0} ms") } else { format!("{:.1} s", ms / 1e3) }
}
