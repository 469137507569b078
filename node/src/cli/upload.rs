//! Sends what the server does not have of a plan's files, and nothing else.

use std::collections::HashMap;
use std::ops::Range;

use caxton_proto::Digest;
use caxton_proto::chunk::ChunkList;
use caxton_proto::plan::Plan;
use caxton_proto::tree::{File, TreePath};

use crate::cli::CliError;
use crate::cli::live::Remote;
use crate::cli::output::{Output, Progress};
use crate::cli::workspace::Workspace;
use crate::cli::workspace::scan::Scan;
use crate::client::blobs::Bodies;

/// Where a blob's bytes are.
enum Source<'a> {
    /// A whole file.
    Whole(&'a TreePath),
    /// A chunk of a large file.
    Part(&'a TreePath, Range<usize>),
    /// A list of chunks.
    List(Vec<u8>),
}

/// What was sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct UploadTotals {
    /// How many blobs.
    pub blobs: u64,
    /// How many bytes they have.
    pub bytes: u64,
}

/// Sends the missing blobs of the files that `plan` puts in.
pub async fn send_missing(
    remote: &Remote<'_>,
    workspace: &Workspace,
    scan: &Scan,
    plan: &Plan,
    out: &Output,
) -> Result<UploadTotals, CliError> {
    let mut sources = HashMap::new();
    for (path, file) in &plan.upserts {
        add_sources(workspace, scan, path, file, &mut sources)?;
    }
    let mut names: Vec<Digest> = sources.keys().copied().collect();
    names.sort_unstable();
    let mut progress = out.progress("asking what is missing", None);
    let missing = progress.during(remote.client.missing(remote.id, &names)).await?;
    drop(progress);
    let mut wanted: Vec<(Digest, &Source<'_>)> =
        missing.iter().filter_map(|digest| sources.get(digest).map(|source| (*digest, source))).collect();
    // A file's chunks one after the other, so that it is read once.
    wanted.sort_by(|(_, a), (_, b)| place(a).cmp(&place(b)));
    let total = wanted.iter().map(|(_, source)| bytes_of(source, scan)).sum();
    send(remote, workspace, &wanted, out.progress("sending", Some(total))).await
}

async fn send(
    remote: &Remote<'_>,
    workspace: &Workspace,
    wanted: &[(Digest, &Source<'_>)],
    mut progress: Progress,
) -> Result<UploadTotals, CliError> {
    let mut sent = UploadTotals::default();
    let mut bodies = Bodies::default();
    let mut reader = Reader { workspace, last: None };
    for (digest, source) in wanted {
        let blob = reader.read(digest, source)?;
        sent.blobs += 1;
        sent.bytes += blob.len() as u64;
        if let Some(full) = bodies.push(digest, blob) {
            let bytes = full.len() as u64;
            progress.during(remote.client.upload(remote.id, full)).await?;
            progress.advance(bytes);
        }
    }
    if let Some(last) = bodies.finish() {
        progress.during(remote.client.upload(remote.id, last)).await?;
    }
    Ok(sent)
}

/// Notes where each blob of a file is.
fn add_sources<'a>(
    workspace: &Workspace,
    scan: &Scan,
    path: &'a TreePath,
    file: &File,
    sources: &mut HashMap<Digest, Source<'a>>,
) -> Result<(), CliError> {
    let Some(list) = file.chunks else {
        sources.insert(file.digest, Source::Whole(path));
        return Ok(());
    };
    let recut;
    let cut = match scan.cuts.get(&list) {
        Some(cut) => cut,
        None => {
            // The scan took the file's digest from its cache.
            recut = ChunkList::cut(&read(workspace, path)?).0;
            &recut
        }
    };
    let mut start = 0;
    for chunk in &cut.0 {
        let end = start + chunk.bytes as usize;
        sources.insert(chunk.digest, Source::Part(path, start..end));
        start = end;
    }
    sources.insert(list, Source::List(cut.encode()));
    Ok(())
}

fn place<'a>(source: &Source<'a>) -> (Option<&'a TreePath>, usize) {
    match source {
        Source::List(_) => (None, 0),
        Source::Whole(path) => (Some(path), 0),
        Source::Part(path, range) => (Some(path), range.start),
    }
}

fn bytes_of(source: &Source<'_>, scan: &Scan) -> u64 {
    match source {
        Source::List(list) => list.len() as u64,
        Source::Whole(path) => scan.tree.files().get(*path).map_or(0, |file| file.bytes),
        Source::Part(_, range) => range.len() as u64,
    }
}

/// Reads blobs from files, and keeps the last file at hand for its next chunk.
struct Reader<'a> {
    workspace: &'a Workspace,
    last: Option<(TreePath, Vec<u8>)>,
}

impl Reader<'_> {
    fn read<'s>(&'s mut self, digest: &Digest, source: &'s Source<'_>) -> Result<&'s [u8], CliError> {
        let (path, range) = match source {
            Source::List(list) => return Ok(list),
            Source::Whole(path) => (*path, None),
            Source::Part(path, range) => (*path, Some(range.clone())),
        };
        if self.last.as_ref().is_none_or(|(last, _)| last != path) {
            self.last = Some((path.clone(), read(self.workspace, path)?));
        }
        let content = self.last.as_ref().map_or(&[][..], |(_, content)| content.as_slice());
        let blob = content.get(range.unwrap_or(0..content.len()));
        blob.filter(|blob| Digest::of(blob) == *digest).ok_or_else(|| {
            CliError::new("changed_underway", format!("{path} changed while it was being deployed"))
                .help("nothing was deployed; run `caxton deploy` again")
        })
    }
}

fn read(workspace: &Workspace, path: &TreePath) -> Result<Vec<u8>, CliError> {
    std::fs::read(workspace.root.join(path.as_str())).map_err(|error| {
        CliError::new("io", format!("{path} cannot be read"))
            .help("nothing was deployed; make the file readable and try again")
            .source(error)
    })
}
