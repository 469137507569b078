//! The check that the server makes of a workspace's files, made here first.

use bytes::Bytes;
use caxton_proto::Digest;
use caxton_proto::tree::{File, Tree, TreePath};

use crate::cli::CliError;
use crate::cli::diagnostics::failure;
use crate::cli::workspace::Workspace;
use crate::deploy::check::{self, Before, CheckError, CheckedWorkspace};

/// Checks the workspace's files; what is as in `before`, a tree that was deployed, is not read again.
pub fn check(workspace: &Workspace, tree: &Tree, before: Option<&Tree>) -> Result<CheckedWorkspace, CliError> {
    let read = |path: &TreePath, _: &File| Ok(Bytes::from(std::fs::read(workspace.root.join(path.as_str()))?));
    // The manifests of an earlier check are not at hand, so they are read; they are small.
    let agent = |_: &TreePath, _: &Digest| None;
    let before = before.map(|tree| Before { tree, agent: &agent });
    let input = check::Workspace { tree, read: &read, before, prove: None };
    let strays = workspace.strays();
    let checked = check::check(input).map_err(|error| match error {
        CheckError::Problems(mut problems) => {
            problems.extend(strays.clone());
            failure(problems)
        }
        CheckError::Read { path, source } => CliError::new("io", format!("{path} cannot be read"))
            .help("make the file readable and try again")
            .source(source),
    });
    let mut checked = checked?;
    checked.warnings.extend(check::advice(&input, &checked));
    checked.warnings.extend(strays);
    Ok(checked)
}
