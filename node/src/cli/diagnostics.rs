//! Problems with the workspace's files: the check that the server makes, made here first, and printed as rustc prints.

use bytes::Bytes;
use caxton_proto::Digest;
use caxton_proto::diagnostic::{self, Color, Diagnostic};
use caxton_proto::tree::{File, Tree, TreePath};

use crate::cli::workspace::Workspace;
use crate::cli::{CliError, Exit};
use crate::deploy::check::{self, Before, CheckError, Checked};

/// Checks the workspace's files; what is as in `before`, a tree that was deployed, is not read again.
pub fn check(workspace: &Workspace, tree: &Tree, before: Option<&Tree>) -> Result<Checked, CliError> {
    let read = |path: &TreePath, _: &File| Ok(Bytes::from(std::fs::read(workspace.root.join(path.as_str()))?));
    // The manifests of an earlier check are not at hand, so they are read; they are small.
    let agent = |_: &TreePath, _: &Digest| None;
    let before = before.map(|tree| Before { tree, agent: &agent });
    check::check(check::Workspace { tree, read: &read, before, prove: None }).map_err(|error| match error {
        CheckError::Problems(problems) => failure(problems),
        CheckError::Read { path, source } => CliError::new("io", format!("{path} cannot be read"))
            .help("make the file readable and try again")
            .source(source),
    })
}

/// The failure that shows every problem.
pub fn failure(mut problems: Vec<Diagnostic>) -> CliError {
    diagnostic::sort(&mut problems);
    CliError::new("check_failed", format!("the workspace has mistakes: {}", diagnostic::count(&problems)))
        .exit(Exit::Check)
        .body(format!("{}\n", render(&problems)))
        .help("put them right, and try again")
        .fact("diagnostics", &problems)
}

/// The problems as text, an empty line between two. The output takes the colours out where they do not belong.
pub fn render(problems: &[Diagnostic]) -> String {
    let texts: Vec<String> = problems.iter().map(|problem| problem.render(Color::Always)).collect();
    texts.join("\n")
}
