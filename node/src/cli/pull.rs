//! `caxton pull`: brings what is live into the work tree, and never overwrites what was changed here.
//!
//! A file is one of four: the same on both sides, changed only there (taken), changed only here (kept), or changed on
//! both sides (a conflict, left alone until someone says whose it is). Nothing is written outside the workspace, or
//! through a symlink, or before its digest was checked.

use std::collections::BTreeSet;

use caxton_proto::tree::{File, Tree, TreePath};
use serde_json::json;

use crate::api::Deployment;
use crate::cli::live::{self, Remote, Standing};
use crate::cli::output::{BAD, BOLD, DIM, GOOD, WARN, count, paint};
use crate::cli::workspace::Workspace;
use crate::cli::workspace::place::{self, WriteOutcome};
use crate::cli::workspace::state::{self, State};
use crate::cli::{CliError, Context, Exit};

/// How many files are fetched with one question.
const BATCH_FILES: usize = 256;
/// How many bytes are fetched with one question, unless one file is larger.
const BATCH_BYTES: u64 = 8 << 20;

/// Arguments of `caxton pull`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  caxton pull               take what others deployed
  caxton pull --workspace demo
                            into an empty folder: everything that is live
  caxton pull --theirs      where both sides changed a file, take theirs
  caxton pull --ours        where both sides changed a file, keep ours")]
pub struct Args {
    /// Where a file was changed here and there, take the live one.
    #[arg(long, conflicts_with = "ours")]
    theirs: bool,
    /// Where a file was changed here and there, keep the one here.
    #[arg(long)]
    ours: bool,
    /// Show what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

/// What happens to the files of the work tree.
#[derive(Debug, Default, PartialEq, Eq)]
struct Merge {
    /// Written: new here, or with other content.
    take: Vec<(TreePath, File)>,
    remove: Vec<TreePath>,
    /// Changed on both sides.
    conflicts: Vec<TreePath>,
}

impl Merge {
    /// What brings `live` into `work`, which was `base` once.
    fn between(base: &Tree, live: &Tree, work: &Tree) -> Merge {
        let mut merge = Merge::default();
        let paths: BTreeSet<&TreePath> = live.files().keys().chain(base.files().keys()).collect();
        for path in paths {
            let [base, live, work] = [base, live, work].map(|tree| tree.files().get(path));
            // Only the content counts: how a file is cut into chunks follows from it.
            let content = |file: Option<&File>| file.map(|file| file.digest);
            if content(live) == content(work) || content(live) == content(base) {
                continue;
            }
            match live {
                _ if content(work) != content(base) => merge.conflicts.push(path.clone()),
                Some(file) => merge.take.push((path.clone(), *file)),
                None => merge.remove.push(path.clone()),
            }
        }
        merge
    }

    fn is_empty(&self) -> bool {
        self.take.is_empty() && self.remove.is_empty() && self.conflicts.is_empty()
    }

    /// Settles the conflicts in favour of `live`.
    fn settle_theirs(&mut self, live: &Tree) {
        for path in std::mem::take(&mut self.conflicts) {
            match live.files().get(&path) {
                Some(file) => self.take.push((path, *file)),
                None => self.remove.push(path),
            }
        }
    }
}

/// Whether there was a workspace here before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Folder {
    Workspace,
    Empty,
}

/// The workspace around the current directory; an empty folder becomes the one that --workspace names.
fn here(context: &Context) -> Result<(Workspace, Folder), CliError> {
    let missing = match context.workspace() {
        Ok(workspace) => return Ok((workspace, Folder::Workspace)),
        Err(missing) => missing,
    };
    let entries = std::fs::read_dir(&context.cwd);
    let empty = entries
        .is_ok_and(|entries| entries.flatten().all(|entry| entry.file_name().as_encoded_bytes().starts_with(b".")));
    match (&context.global.workspace, empty) {
        (Some(_), true) => Ok((Workspace { root: context.cwd.clone() }, Folder::Empty)),
        (Some(_), false) => {
            Err(missing.help("pull a workspace into an empty folder, or change to the one that it is in"))
        }
        (None, true) => Err(missing
            .help("name the one to bring here: `caxton pull --workspace NAME`; `caxton workspaces list` shows them")),
        (None, false) => Err(missing),
    }
}

/// Pulls into the workspace around the current directory.
pub fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let (workspace, folder) = here(context)?;
    let id = context.workspace_id()?;
    let client = context.client()?;
    let remote = Remote { client: &client, id: &id };
    // A name with a slip in it must not look like a workspace without files, nor leave anything behind.
    let is_live = || context.block_on(async { Ok(remote.status().await?.deployment.is_some()) });
    if folder == Folder::Empty && !is_live()? {
        return Err(CliError::new(
            "not_found",
            format!("nothing is live in a workspace `{id}`, and nothing was made here"),
        )
        .help("`caxton workspaces list` shows the ones there are; one goes live with `caxton deploy`"));
    }
    let _lock = workspace.lock()?;
    context.block_on(pull(args, context, &workspace, remote))
}

async fn pull(args: Args, context: &Context, workspace: &Workspace, remote: Remote<'_>) -> Result<(), CliError> {
    let out = &context.out;
    let scan = workspace.scan()?;
    let status = remote.status().await?;
    let Some(live) = &status.deployment else {
        out.line(format_args!("Nothing is live in {} yet.", paint(BOLD, remote.id)))?;
        return out
            .json(&json!({ "live": null, "taken": [], "removed": [], "conflicts": [], "dry_run": args.dry_run }));
    };
    let mut state =
        State::load(workspace, remote.id).unwrap_or_else(|| State::new(remote.id.clone(), remote.client.url()));
    let live_tree = remote.tree(live.root, Some(workspace), &scan.tree, out).await?;
    let standing = live::standing(&remote, &status, &state).await?;
    let base = match (standing, &state.base) {
        (Standing::Current, _) => live_tree.clone(),
        (Standing::Behind, Some(base)) => remote.tree(base.root, Some(workspace), &live_tree, out).await?,
        (Standing::Behind | Standing::Unknown, _) => Tree::default(),
    };
    let mut merge = Merge::between(&base, &live_tree, &scan.tree);
    if args.theirs {
        merge.settle_theirs(&live_tree);
    } else if args.ours {
        merge.conflicts.clear();
    }
    check_places(&merge)?;
    if !args.dry_run {
        carry_out(context, workspace, &remote, &merge, &scan.tree).await?;
        if merge.conflicts.is_empty() {
            state.base = Some(live.clone());
            state.pending = None;
            state.server = remote.client.url().to_owned();
            let saved = state::save_tree(workspace, &live_tree).and_then(|()| state.save(workspace));
            saved.map_err(|error| {
                CliError::new("io", format!("{} cannot be written", workspace.cache_folder().display())).source(error)
            })?;
        } else {
            keep_theirs(workspace, &remote, &merge.conflicts, &live_tree).await?;
        }
    }
    report(args, context, live, &merge)
}

/// A server does not get to name files that no deployment has.
fn check_places(merge: &Merge) -> Result<(), CliError> {
    let taken = merge.take.iter().map(|(path, _)| path);
    match taken.chain(&merge.remove).chain(&merge.conflicts).find(|path| !place::is_deployable(path)) {
        None => Ok(()),
        Some(path) => Err(CliError::new("bad_path", format!("the live deployment has a file at {path}")).help(
            "a workspace's files are caxton.toml and what is in agents/, tools/ and prompts/; nothing was pulled",
        )),
    }
}

/// Fetches and writes, a batch of files at a time.
async fn carry_out(
    context: &Context,
    workspace: &Workspace,
    remote: &Remote<'_>,
    merge: &Merge,
    work: &Tree,
) -> Result<(), CliError> {
    let mut progress = context.out.progress("pulling", Some(merge.take.iter().map(|(_, file)| file.bytes).sum()));
    let mut rest = merge.take.as_slice();
    while !rest.is_empty() {
        let (batch, after) = rest.split_at(batch_of(rest));
        rest = after;
        let contents = progress.during(contents(remote, batch)).await?;
        for ((path, file), content) in batch.iter().zip(contents) {
            changed_underway(place::write(workspace, path, work.files().get(path), &content)?, path)?;
            progress.advance(file.bytes);
        }
    }
    for path in &merge.remove {
        changed_underway(place::remove(workspace, path, work.files().get(path))?, path)?;
    }
    Ok(())
}

fn batch_of(files: &[(TreePath, File)]) -> usize {
    let mut bytes = 0;
    let fits = |(_, file): &&(TreePath, File)| {
        bytes += file.bytes;
        bytes <= BATCH_BYTES
    };
    files.iter().take(BATCH_FILES).take_while(fits).count().max(1)
}

fn changed_underway(placed: WriteOutcome, path: &TreePath) -> Result<(), CliError> {
    match placed {
        WriteOutcome::Done => Ok(()),
        WriteOutcome::ChangedMeanwhile => {
            Err(CliError::new("changed_underway", format!("{path} was changed while it was being pulled"))
                .help("it was left alone; run `caxton pull` again"))
        }
    }
}

/// The contents of the files, each checked against its digest.
async fn contents(remote: &Remote<'_>, files: &[(TreePath, File)]) -> Result<Vec<Vec<u8>>, CliError> {
    let names: Vec<_> = files.iter().map(|(_, file)| file.chunks.unwrap_or(file.digest)).collect();
    let blobs = remote.client.fetch(remote.id, &names).await?;
    let mut contents = Vec::new();
    for ((path, file), blob) in files.iter().zip(blobs) {
        let damaged = || {
            CliError::new("damaged_answer", format!("the live content of {path} is damaged"))
                .help("the server's log names what is damaged; it was not written here")
        };
        if file.chunks.is_none() {
            contents.push(blob.to_vec());
            continue;
        }
        let list = caxton_proto::chunk::ChunkList::decode(&blob).map_err(|error| damaged().source(error))?;
        let mut content = Vec::with_capacity(usize::try_from(file.bytes.min(BATCH_BYTES)).unwrap_or_default());
        for part in list.0.chunks(BATCH_FILES / 2) {
            let names: Vec<_> = part.iter().map(|chunk| chunk.digest).collect();
            for chunk in remote.client.fetch(remote.id, &names).await? {
                content.extend_from_slice(&chunk);
            }
        }
        if caxton_proto::Digest::of(&content) != file.digest {
            return Err(damaged());
        }
        contents.push(content);
    }
    Ok(contents)
}

/// Puts the live content of the files in conflict where a person can compare it.
async fn keep_theirs(
    workspace: &Workspace,
    remote: &Remote<'_>,
    conflicts: &[TreePath],
    live: &Tree,
) -> Result<(), CliError> {
    let files: Vec<(TreePath, File)> =
        conflicts.iter().filter_map(|path| live.files().get(path).map(|file| (path.clone(), *file))).collect();
    for batch in files.chunks(BATCH_FILES) {
        let contents = contents(remote, batch).await?;
        for ((path, _), content) in batch.iter().zip(contents) {
            place::keep_aside(workspace, path, &content)?;
        }
    }
    Ok(())
}

fn report(args: Args, context: &Context, live: &Deployment, merge: &Merge) -> Result<(), CliError> {
    let out = &context.out;
    for (path, _) in &merge.take {
        out.line(format_args!("  {} {path}", paint(GOOD, "<")))?;
    }
    for path in &merge.remove {
        out.line(format_args!("  {} {path}", paint(BAD, "-")))?;
    }
    for path in &merge.conflicts {
        out.line(format_args!("  {} {path}", paint(WARN, "!")))?;
    }
    let taken: Vec<_> = merge.take.iter().map(|(path, _)| path).collect();
    let document = json!({
        "live": live, "taken": taken, "removed": merge.remove, "conflicts": merge.conflicts, "dry_run": args.dry_run,
    });
    if merge.conflicts.is_empty() {
        let what = match (merge.is_empty(), args.dry_run) {
            (true, _) => format!("Up to date with {}.", paint(BOLD, live.revision)),
            (false, true) => paint(DIM, "Dry run: nothing was changed.").to_string(),
            (false, false) => format!(
                "Now at {}: {} taken, {} removed.",
                paint(BOLD, live.revision),
                count(merge.take.len() as u64, "file"),
                merge.remove.len()
            ),
        };
        out.line(what)?;
        return out.json(&document);
    }
    let number = count(merge.conflicts.len() as u64, "file");
    Err(CliError::new("pull_conflict", format!("{number} changed here and in {}, and left alone", live.revision))
        .exit(Exit::Conflict)
        .help(format!(
            "the live versions are in {}/: merge them by hand and say `caxton pull --ours`, \
             or take them all with `caxton pull --theirs`",
            place::ASIDE
        ))
        .fact("pull", document))
}

#[cfg(test)]
mod tests {
    use super::*;
    use caxton_proto::Digest;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let file = |text: &str| File { digest: Digest::of(text.as_bytes()), bytes: text.len() as u64, chunks: None };
        files.iter().map(|(path, text)| (path.parse().expect("a path"), file(text))).collect()
    }

    #[test]
    fn each_kind_of_file_is_merged_in_its_own_way() {
        // (path, base, live, here) and what happens.
        let rows = [
            ("same", "1", "1", "1", "keep"),
            ("there", "1", "2", "1", "take"),
            ("here", "1", "1", "2", "keep"),
            ("both", "1", "2", "3", "conflict"),
            ("both-alike", "1", "2", "2", "keep"),
            ("new-there", "", "1", "", "take"),
            ("new-here", "", "", "1", "keep"),
            ("new-both", "", "1", "2", "conflict"),
            ("gone-there", "1", "", "1", "remove"),
            ("gone-here", "1", "1", "", "keep"),
            ("gone-there-changed-here", "1", "", "2", "conflict"),
            ("changed-there-gone-here", "1", "2", "", "conflict"),
        ];
        let side =
            |pick: fn(&(&'static str, &'static str, &'static str, &'static str, &'static str)) -> &'static str| {
                let files: Vec<_> =
                    rows.iter().map(|row| (row.0, pick(row))).filter(|(_, text)| !text.is_empty()).collect();
                tree(&files)
            };
        let (base, live, work) = (side(|row| row.1), side(|row| row.2), side(|row| row.3));
        let mut merge = Merge::between(&base, &live, &work);
        for row in rows {
            let path: TreePath = row.0.parse().expect("a path");
            let done = if merge.take.iter().any(|(taken, _)| *taken == path) {
                "take"
            } else if merge.remove.contains(&path) {
                "remove"
            } else if merge.conflicts.contains(&path) {
                "conflict"
            } else {
                "keep"
            };
            assert_eq!(done, row.4, "{}", row.0);
        }
        merge.settle_theirs(&live);
        assert_eq!((merge.take.len(), merge.remove.len(), merge.conflicts.len()), (5, 2, 0));
    }
}
