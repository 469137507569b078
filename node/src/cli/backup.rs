//! `caxton backup`: an archive of the whole cluster, from any running node, and a check of one.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Method;

use crate::api::cluster::BackupRequest;
use crate::api::paths;
use crate::backup::key::{KeyError, RecoveryKey};
use crate::backup::verify::{Verification, VerifyError, verify};
use crate::cli::output::{BOLD, DIM, GOOD, count, paint};
use crate::cli::workspace::SETTINGS_FILE;
use crate::cli::{CliError, Context, Exit};
use crate::client::Retry;

/// How long a whole backup may take.
const BACKUP_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// Arguments of `caxton backup`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "\
The keys in the archive are sealed with a recovery key, which is in a file of its own (FILE.key unless told) and never in
the archive. Keep it elsewhere: without it nothing can be restored, and with it the archive is as good as the cluster.

Examples:
  caxton backup ~/backups/monday.tar
  caxton backup ~/backups/monday.tar --key-file /safe/recovery.key
  caxton backup verify ~/backups/monday.tar")]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// The archive to write.
    #[arg(value_name = "FILE", required = true)]
    file: Option<PathBuf>,
    /// The recovery key; made when the file is not there [default: FILE.key].
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Write over an older archive.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Check every byte of an archive, without a server.
    #[command(
        after_help = "Examples:\n  caxton backup verify monday.tar\n  caxton backup verify monday.tar --key-file /safe/recovery.key"
    )]
    Verify(Verify),
}

#[derive(Debug, clap::Args)]
struct Verify {
    /// The archive to look at.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The recovery key that it was made with: says also whether somebody changed the archive since.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// Makes a backup, or checks one.
pub fn run(args: Args, context: &Context) -> Result<(), CliError> {
    match (args.command, args.file) {
        (Some(Command::Verify(Verify { file, key_file })), _) => check(&file, key_file.as_deref(), context),
        (None, Some(file)) => {
            let key = args.key_file.unwrap_or_else(|| key_beside(&file));
            backup(&file, &key, args.force, context)
        }
        (None, None) => Err(CliError::usage("name the archive to write")),
    }
}

/// Where the recovery key of an archive is unless told.
pub fn key_beside(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".key");
    file.with_file_name(name)
}

fn check(file: &Path, key_file: Option<&Path>, context: &Context) -> Result<(), CliError> {
    let verified = verify(file).map_err(verify_failed)?;
    let mut found = "whole";
    if let Some(key_file) = key_file {
        let key = RecoveryKey::read(key_file).map_err(key_failed)?;
        if key.id() != verified.header.key {
            let (wanted, given) = (verified.header.key, key.id());
            return Err(key_failed(KeyError::Another { wanted, given }));
        }
        match verified.is_authentic(&key) {
            Ok(true) => found = "whole, and what was written under this recovery key",
            Ok(false) => context.out.warn("an older caxton wrote it, which did not authenticate archives"),
            Err(error) => {
                return Err(
                    CliError::new("bad_backup", error.to_string()).help("take another copy, or an older backup")
                );
            }
        }
    }
    context.out.line(format_args!("{} is {}", file.display(), paint(GOOD, found)))?;
    describe(&verified, context)?;
    context.out.json(&document(&verified))
}

fn describe(verified: &Verification, context: &Context) -> Result<(), CliError> {
    let Verification { header, artifacts, workspaces, bytes, .. } = verified;
    let held = format!("{}, {}", count(*workspaces, "workspace"), count(*artifacts, "artifact"));
    context.out.line(format_args!("  {} {}, made {}", paint(DIM, "cluster"), header.cluster, header.created))?;
    context.out.line(format_args!("  {}, {}, {bytes} bytes", count(header.groups.len() as u64, "group"), held))?;
    context.out.line(format_args!("  {} {}", paint(DIM, "recovery key"), header.key))
}

fn document(verified: &Verification) -> serde_json::Value {
    serde_json::json!({
        "backup": verified.header,
        "workspaces": verified.workspaces,
        "artifacts": verified.artifacts,
        "bytes": verified.bytes,
    })
}

fn backup(file: &Path, key_file: &Path, force: bool, context: &Context) -> Result<(), CliError> {
    if file.exists() && !force {
        return Err(CliError::new("exists", format!("{} is there already", file.display()))
            .help("choose another name, or write over it with --force"));
    }
    outside_of_repositories(file)?;
    outside_of_repositories(key_file)?;
    let client = context.client()?;
    let new_key = !key_file.exists();
    let key = RecoveryKey::read_or_make(key_file).map_err(key_failed)?;
    let unfinished = UnfinishedFile(part_of(file));
    context.block_on(async {
        let request = client.request(Method::POST, paths::CLUSTER_BACKUP.text()).timeout(BACKUP_TIMEOUT);
        let body = serde_json::to_vec(&BackupRequest { key: key.reveal() });
        let body = body.map_err(|error| CliError::new("internal", "the request cannot be written").source(error))?;
        let request = request.header(http::header::CONTENT_TYPE, "application/json").body(body);
        // It reads: asking another server for it does no harm.
        let mut answer = client.send(request, Retry::Once).await?;
        let io = |error| CliError::new("io", format!("{} cannot be written", unfinished.0.display())).source(error);
        let new = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished.0);
        let mut out = BufWriter::new(new.map_err(io)?);
        let mut progress = context.out.progress("backing up", None);
        while let Some(piece) = answer.chunk().await.map_err(|error| client.failed(error))? {
            out.write_all(&piece).map_err(io)?;
            progress.advance(piece.len() as u64);
        }
        let out = out.into_inner().map_err(|error| io(error.into_error()))?;
        out.sync_all().map_err(io)
    })?;
    // Read back: a backup that was never looked at is a hope.
    let verified = verify(&unfinished.0).map_err(verify_failed)?;
    let named = std::fs::rename(&unfinished.0, file).and_then(|()| {
        let folder = std::path::absolute(file)?;
        File::open(folder.parent().unwrap_or(Path::new("/")))?.sync_all()
    });
    named.map_err(|error| CliError::new("io", format!("{} cannot be written", file.display())).source(error))?;
    context.out.line(format_args!("{} {}", paint(GOOD, "backed up to"), paint(BOLD, file.display())))?;
    describe(&verified, context)?;
    if new_key {
        context.out.warn(format_args!(
            "the recovery key is in {}: keep it in another place than the archive, which is of no use without it",
            key_file.display()
        ));
    }
    context.out.json(&document(&verified))
}

/// Refuses a place from which the next commit would take an archive, or the key of one, along.
fn outside_of_repositories(file: &Path) -> Result<(), CliError> {
    let failed = |error| CliError::new("io", format!("{} cannot be placed", file.display())).source(error);
    let absolute = std::path::absolute(file).map_err(failed)?;
    let folder = absolute.parent().unwrap_or(Path::new("/"));
    // Through links: what counts is where the file would lie.
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let holds = |folder: &&Path| folder.join(".git").exists() || folder.join(SETTINGS_FILE).is_file();
    match folder.ancestors().find(holds) {
        None => Ok(()),
        Some(around) => Err(CliError::new(
            "in_a_repository",
            format!("{} would lie in {}, where the next commit may take it along", file.display(), around.display()),
        )
        .exit(Exit::Usage)
        .help("name a place outside of it, as in `caxton backup ~/backups/monday.tar`")),
    }
}

fn part_of(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    file.with_file_name(name)
}

/// A file that goes unless it gets its name.
struct UnfinishedFile(PathBuf);

impl Drop for UnfinishedFile {
    fn drop(&mut self) {
        // It is not there once it has its name.
        _ = std::fs::remove_file(&self.0);
    }
}

fn key_failed(error: KeyError) -> CliError {
    CliError::new("bad_key", error.to_string())
        .help("name the file of a recovery key with --key-file FILE")
        .source(error)
}

/// An archive that is not used, as a person sees it.
pub fn verify_failed(error: VerifyError) -> CliError {
    CliError::new("bad_backup", error.to_string()).help(error.help()).source(error)
}
