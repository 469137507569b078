//! `caxton deploy`: from the files on disk to what is live, all or nothing.
//!
//! The order is: read and hash the files, ask git, and ask the server what is live, all at once; check; show the plan;
//! ask; send what is missing; propose. Nothing is sent before the check passed and the plan was agreed to.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use caxton_proto::plan::{Change, Item, Plan};
use caxton_proto::{AgentName, WorkspaceId};
use serde_json::json;

use crate::api::paths;
use crate::api::{DeployRequest, DeployResponse, Deployment, Serving, Upsert, WorkspaceStatus};
use crate::cli::git::{self, Origin};
use crate::cli::live::{self, Remote, Standing};
use crate::cli::output::{BOLD, DIM, WARN, count, paint, size};
use crate::cli::program::Program;
use crate::cli::upload::{self, UploadTotals};
use crate::cli::workspace::scan::Scan;
use crate::cli::workspace::state::{self, State};
use crate::cli::workspace::{SETTINGS_FILE, Workspace};
use crate::cli::{CliError, Context, check, diagnostics, text};
use crate::client::{ClientError, Retry};
use crate::tasks;

/// The longest message, in bytes.
const MESSAGE_BYTES_MAX: usize = 4096;
/// How often blobs that the server lost between two questions are sent again.
const RESENDS_MAX: usize = 2;
/// How long a deployment is waited for: a tool that compiles takes its time, and the node answers whatever comes of it.
pub const DEPLOY_TIMEOUT: Duration = Duration::from_secs(1_800);

/// Arguments of `caxton deploy`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  caxton deploy                       show the plan, ask, deploy
  caxton deploy --dry-run             show the plan and stop
  caxton deploy --yes -m \"new tone\"   do not ask (scripts, CI)
  caxton deploy ping.wasm --name ping
                                      make an agent of a module, and deploy it
  caxton deploy --replace             put these files live whatever is live now")]
pub struct Args {
    /// A WebAssembly module to deploy as an agent: into the workspace at hand, or where there is none, as one more agent of
    /// the workspace that --workspace names (`default` unless told).
    #[arg(value_name = "FILE.wasm")]
    file: Option<PathBuf>,
    /// What the agent is called; as its file is, unless told.
    #[arg(long, requires = "file", value_name = "NAME")]
    name: Option<AgentName>,
    /// Show the plan and check everything, and send nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
    /// Put these files live also where what is live is no ancestor of them, and lose what only it has.
    #[arg(long)]
    replace: bool,
    /// What this deployment is for.
    #[arg(long, short, value_name = "MESSAGE", default_value = "", hide_default_value = true)]
    message: String,
}

impl Args {
    /// A deployment that was agreed to already.
    pub(crate) fn agreed(message: &str) -> Args {
        Args { file: None, name: None, dry_run: false, yes: true, replace: false, message: message.to_owned() }
    }
}

/// Deploys the workspace around the current directory.
pub fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let start = Instant::now();
    if args.message.len() > MESSAGE_BYTES_MAX {
        return Err(CliError::usage(format!("the message has {} bytes", args.message.len()))
            .help(format!("{MESSAGE_BYTES_MAX} bytes are the most; say it shorter")));
    }
    let read = |file: &PathBuf| Program::read(&context.cwd.join(file), args.name.clone());
    let program = args.file.as_ref().map(read).transpose()?;
    let (workspace, id, folder) = match (context.workspace(), program) {
        (Err(_), Some(program)) => {
            let id = context.workspace_id_or_default()?;
            let (workspace, folder) = alone(&program, &id)?;
            (workspace, id, Some(folder))
        }
        (workspace, program) => {
            let (workspace, id) = (workspace?, context.workspace_id()?);
            match program {
                Some(_) if args.dry_run => {
                    let message = "--dry-run writes nothing, and the module belongs into the workspace";
                    let help = "leave it out: the plan is shown and agreed to before anything is sent";
                    return Err(CliError::usage(message).help(help));
                }
                Some(program) => program.place(&workspace)?,
                None => {}
            }
            (workspace, id, None)
        }
    };
    let client = context.client()?;
    let _lock = workspace.lock()?;
    let remote = Remote { client: &client, id: &id };
    let adds = folder.is_some();
    context.block_on(Deploy { args, context, workspace: &workspace, remote, start, adds }.run())
}

/// A workspace of nothing but one agent, in a folder of its own that is gone with the value.
fn alone(program: &Program, id: &WorkspaceId) -> Result<(Workspace, tempfile::TempDir), CliError> {
    let unmade = |error| CliError::new("io", "a folder for the agent's files cannot be made").source(error);
    let folder = tempfile::tempdir().map_err(unmade)?;
    let workspace = Workspace { root: folder.path().to_owned() };
    std::fs::write(folder.path().join(SETTINGS_FILE), format!("[workspace]\nname = \"{id}\"\n")).map_err(unmade)?;
    program.place(&workspace)?;
    Ok((workspace, folder))
}

/// One run of the command.
struct Deploy<'a> {
    args: Args,
    context: &'a Context,
    workspace: &'a Workspace,
    remote: Remote<'a>,
    start: Instant,
    /// Its files are added to what is live, which loses none.
    adds: bool,
}

/// What the first step finds out.
struct Survey {
    scan: Scan,
    status: WorkspaceStatus,
    origin: Origin,
    /// The tools that do not run in the sandbox.
    unsandboxed: Vec<String>,
}

impl Deploy<'_> {
    async fn run(self) -> Result<(), CliError> {
        let out = &self.context.out;
        let mut found = self.look().await?;
        if self.adds {
            self.add_live(&mut found).await?;
        }
        let mut state = State::load(self.workspace, self.remote.id)
            .unwrap_or_else(|| State::new(self.remote.id.clone(), self.remote.client.url()));
        let root = found.scan.tree.root();
        if let Some(live) = found.status.deployment.as_ref().filter(|live| live.root == root) {
            self.remember(&mut state, live, &found.scan)?;
            return self.nothing_to_do(live);
        }
        let standing = match self.adds {
            true => Standing::Current,
            false => self.refuse_when_behind(&found.status, &state).await?,
        };
        let live = self.remote.tree(live::root_of(&found.status), Some(self.workspace), &found.scan.tree, out).await?;
        let plan = Plan::between(&live, &found.scan.tree);
        let unsandboxed = brought(&plan, &found.unsandboxed);
        self.show(&plan, &found.status, &unsandboxed)?;
        if standing == Standing::Unknown {
            self.refuse_without_a_base(&found.status, &plan).await?;
        }
        if self.args.dry_run {
            out.line(paint(DIM, "Dry run: everything was checked and nothing was sent."))?;
            return out.json(&json!({
                "dry_run": true, "changes": plan.items, "unsandboxed": unsandboxed, "live": found.status.revision, "root": root,
            }));
        }
        self.agree(&plan)?;
        let request = DeployRequest {
            parent: found.status.revision,
            root,
            upserts: plan.upserts.iter().map(|(path, file)| Upsert { path: path.clone(), file: *file }).collect(),
            removals: plan.removals.clone(),
            author: found.origin.author.clone(),
            git: found.origin.git.clone(),
            message: self.args.message.clone(),
            idempotency_key: state.key_for(root, found.status.revision),
            dry_run: false,
        };
        let (answer, sent) = self.propose(&request, &plan, &found.scan, &mut state).await?;
        if let Some(deployment) = &answer.deployment {
            self.remember(&mut state, deployment, &found.scan)?;
        }
        self.report(&answer, sent)?;
        // It is live; what cannot be asked now is said by `caxton status`.
        if let Ok(status) = self.remote.status().await {
            status.lacking.iter().for_each(|lack| out.warn(text::one_line(lack)));
        }
        Ok(())
    }

    /// Everything that can be found out at once.
    async fn look(&self) -> Result<Survey, CliError> {
        let (workspace, id) = (self.workspace.clone(), self.remote.id.clone());
        let scan = tasks::blocking(move || {
            let scan = workspace.scan()?;
            let base = State::load(&workspace, &id).and_then(|state| state.base);
            let before = base.and_then(|base| state::load_tree(&workspace, base.root));
            let checked = check::check(&workspace, &scan.tree, before.as_ref())?;
            let outside = checked.tools.iter().filter(|(_, tool)| !tool.manifest.kind.is_sandboxed());
            let outside = outside.map(|(name, _)| name.to_string()).collect();
            Ok::<_, CliError>((scan, checked.warnings, outside))
        });
        let mut progress = self.context.out.progress("reading the workspace", None);
        let all = async { tokio::join!(scan, self.remote.status(), Origin::find(&self.workspace.root)) };
        let (scan, status, origin) = progress.during(all).await;
        let scan = scan.map_err(|error| CliError::new("internal", "reading the workspace failed").source(error))??;
        let (scan, warnings, unsandboxed) = scan;
        if !warnings.is_empty() {
            self.context.out.note(diagnostics::render(&warnings));
        }
        Ok(Survey { scan, status: status?, origin, unsandboxed })
    }

    /// Joins what is live to the files here, of which the settings count only where there are none.
    async fn add_live(&self, found: &mut Survey) -> Result<(), CliError> {
        let root = live::root_of(&found.status);
        let live = self.remote.tree(root, Some(self.workspace), &found.scan.tree, &self.context.out).await?;
        for (path, file) in live.files() {
            if path.as_str() == SETTINGS_FILE || !found.scan.tree.files().contains_key(path) {
                found.scan.tree.insert(path.clone(), *file);
            }
        }
        Ok(())
    }

    /// Someone else's deployment must be pulled before it is deployed over.
    async fn refuse_when_behind(&self, status: &WorkspaceStatus, state: &State) -> Result<Standing, CliError> {
        let Some(live) = &status.deployment else { return Ok(Standing::Current) };
        match live::standing(&self.remote, status, state).await? {
            Standing::Behind => Err(live::conflict(live, state.base.as_ref().map(|base| base.revision))),
            Standing::Current => Ok(Standing::Current),
            Standing::Unknown => {
                if let Some(base) = &state.base {
                    let base = base.revision;
                    self.context.out.warn(format_args!(
                        "these files were last deployed as {base} of another history; the plan is against {} of {}",
                        live.revision,
                        self.remote.client.url()
                    ));
                }
                Ok(Standing::Unknown)
            }
        }
    }

    /// Where nothing was deployed or pulled here before, as in a fresh clone, only git can say whether what is live is
    /// older than these files. What is not known to be older is not lost without a word.
    async fn refuse_without_a_base(&self, status: &WorkspaceStatus, plan: &Plan) -> Result<(), CliError> {
        let Some(live) = &status.deployment else { return Ok(()) };
        let lost: Vec<_> = plan.items.iter().filter(|item| item.change != Change::New).cloned().collect();
        if self.args.replace || lost.is_empty() {
            return Ok(());
        }
        if let Some(git) = live.git.as_ref().filter(|git| !git.dirty)
            && git::is_ancestor(&self.workspace.root, &git.commit).await
        {
            return Ok(());
        }
        Err(live::would_lose(live, &lost))
    }

    fn show(&self, plan: &Plan, status: &WorkspaceStatus, unsandboxed: &[&str]) -> Result<(), CliError> {
        let out = &self.context.out;
        let now = match status.revision {
            caxton_proto::Revision::NONE => "nothing is live yet".to_owned(),
            revision => format!("{revision} is live"),
        };
        let place = format!("at {} ({now})", self.remote.client.url());
        out.line(format_args!("Plan for {} {}", paint(BOLD, self.remote.id), paint(DIM, place)))?;
        out.text(text::changes(&plan.items, plan.items.len() as u64))?;
        for tool in unsandboxed {
            let what = "is unsandboxed: it runs outside, where no grant limits it";
            out.line(format_args!("  {} tool {tool} {what}", paint(WARN, "!")))?;
        }
        out.line(text::counts(&plan.items))
    }

    /// The person's yes, one way or the other.
    fn agree(&self, plan: &Plan) -> Result<(), CliError> {
        if self.args.yes {
            return Ok(());
        }
        if !self.context.out.can_ask() {
            return Err(CliError::usage("nobody is there to agree to the plan")
                .help("agree beforehand with --yes, or look at the plan alone with --dry-run"));
        }
        let question = format!("\nDeploy {} to {}?", count(plan.items.len() as u64, "change"), self.remote.id);
        if self.context.out.confirm(question)? {
            return Ok(());
        }
        Err(CliError::new("not_agreed", "nothing was deployed").help("run `caxton deploy` again when you are ready"))
    }

    /// Sends what is missing and proposes; what the server lost in between is sent again.
    async fn propose(
        &self,
        request: &DeployRequest,
        plan: &Plan,
        scan: &Scan,
        state: &mut State,
    ) -> Result<(DeployResponse, UploadTotals), CliError> {
        let out = &self.context.out;
        let mut sent = UploadTotals::default();
        for attempt in 0.. {
            let more = upload::send_missing(&self.remote, self.workspace, scan, plan, out).await?;
            sent = UploadTotals { blobs: sent.blobs + more.blobs, bytes: sent.bytes + more.bytes };
            // Before it is sent: whatever happens to this process, the next one knows the key.
            self.save(state)?;
            let path = self.remote.path(paths::DEPLOYMENTS);
            let mut progress = out.progress("deploying", None);
            let answer =
                progress.during(self.remote.client.post_within(&path, request, Retry::Once, DEPLOY_TIMEOUT)).await;
            match answer {
                Ok(answer) => return Ok((answer, sent)),
                Err(error) if error.code() == Some("artifacts_missing") && attempt < RESENDS_MAX => {}
                Err(error) => return Err(self.refused(error, state)),
            }
        }
        Err(CliError::new("internal", "the deployment was never answered"))
    }

    fn refused(&self, error: ClientError, state: &mut State) -> CliError {
        if error.is_ambiguous() {
            return CliError::from(error).help(
                "it is not known whether it was deployed: run `caxton deploy` again, \
                 which goes on under the same key and applies nothing twice",
            );
        }
        state.pending = None;
        // The refusal is what has to be said; a state that keeps its key does no harm.
        let _ = state.save(self.workspace);
        match &error {
            ClientError::Problem(problem) if problem.code == "conflict" => {
                let other = problem.extra.get("conflict").cloned().map(serde_json::from_value::<Deployment>);
                match other {
                    Some(Ok(other)) => live::conflict(&other, state.base.as_ref().map(|base| base.revision)),
                    Some(Err(_)) | None => error.into(),
                }
            }
            ClientError::Problem(problem) if problem.code == "check_failed" => {
                let found = problem.extra.get("diagnostics").cloned().map(serde_json::from_value);
                match found {
                    Some(Ok(diagnostics)) => diagnostics::failure(diagnostics),
                    Some(Err(_)) | None => error.into(),
                }
            }
            _ => error.into(),
        }
    }

    /// What is live is what the files are now based on.
    fn remember(&self, state: &mut State, live: &Deployment, scan: &Scan) -> Result<(), CliError> {
        state.server = self.remote.client.url().to_owned();
        if state.base.as_ref() != Some(live) || state.pending.is_some() {
            state.base = Some(live.clone());
            state.pending = None;
            state::save_tree(self.workspace, &scan.tree).map_err(|error| unsaved(self.workspace, error))?;
            self.save(state)?;
        }
        Ok(())
    }

    fn save(&self, state: &State) -> Result<(), CliError> {
        state.save(self.workspace).map_err(|error| unsaved(self.workspace, error))
    }

    fn nothing_to_do(&self, live: &Deployment) -> Result<(), CliError> {
        let out = &self.context.out;
        out.line(format_args!("Nothing to deploy: {} is live and is the same.", paint(BOLD, live.revision)))?;
        out.json(&json!({ "changes": [], "deployment": live, "revision": live.revision, "sent": { "blobs": 0, "bytes": 0 } }))
    }

    fn report(&self, answer: &DeployResponse, sent: UploadTotals) -> Result<(), CliError> {
        let out = &self.context.out;
        let Some(deployment) = &answer.deployment else {
            return Err(CliError::new("not_caxton", "the server answered without a deployment")
                .help("check that client and server are of the same version with `caxton version`"));
        };
        let wire = self.remote.client.sent_bytes();
        let revision = paint(BOLD, deployment.revision);
        live::check_serving(answer, deployment)?;
        match &answer.serving {
            Serving::Loading { .. } => {
                out.line(format_args!("{revision} of {} is deployed and still loading", self.remote.id))?;
            }
            Serving::Live { .. } | Serving::Nothing | Serving::Failed { .. } => {
                out.line(format_args!("{revision} of {} is live", paint(BOLD, self.remote.id)))?;
            }
        }
        let what = format!("{}, {} sent, {}", count(deployment.files, "file"), size(wire), live::took(self.start));
        out.line(paint(DIM, what))?;
        out.line(paint(DIM, origin(deployment)))?;
        if answer.repeated {
            out.line(paint(DIM, "An earlier attempt had already deployed it."))?;
        }
        out.json(&json!({
            "revision": deployment.revision,
            "deployment": deployment,
            "deployment_id": deployment.event_id,
            "commit": deployment.git.as_ref().map(|git| &git.commit),
            "changes": answer.changes,
            "repeated": answer.repeated,
            "serving": answer.serving,
            "sent": { "blobs": sent.blobs, "bytes": sent.bytes, "wire_bytes": wire },
            "steps_ms": answer.steps_ms,
            "ms": self.start.elapsed().as_secs_f64() * 1e3,
        }))
    }
}

/// From which commit a deployment came, and its id.
fn origin(deployment: &Deployment) -> String {
    let from = match &deployment.git {
        Some(git) if git.dirty => format!("commit {}, with changes that are not committed", text::git(git)),
        Some(git) => format!("commit {}", text::git(git)),
        None => "no commit".to_owned(),
    };
    format!("{from}; deployment {}", deployment.event_id)
}

/// Those of the unsandboxed tools that the plan brings.
fn brought<'f>(plan: &Plan, unsandboxed: &'f [String]) -> Vec<&'f str> {
    let brings = |name: &&String| {
        plan.items.iter().any(|item| item.change != Change::Removed && item.item == Item::Tool((*name).clone()))
    };
    unsandboxed.iter().filter(brings).map(String::as_str).collect()
}

fn unsaved(workspace: &Workspace, error: std::io::Error) -> CliError {
    CliError::new("io", format!("{} cannot be written", workspace.cache_folder().display()))
        .help("make the workspace's folder writable")
        .source(error)
}
