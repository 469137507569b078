//! Problems with the workspace's files, printed the way rustc prints.

use caxton_proto::diagnostic::{self, Color, Diagnostic, Severity};

use crate::cli::{CliError, Exit};

/// The failure that shows every problem. Colours are taken out again where they do not belong.
pub fn failure(mut problems: Vec<Diagnostic>) -> CliError {
    diagnostic::sort(&mut problems);
    let body = render(&problems);
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    let message = format!("nothing was deployed: {}", diagnostic::count(&problems));
    let help = if errors == 1 { "put it right, and try again" } else { "put them right, and try again" };
    CliError::new("check_failed", message).exit(Exit::Check).body(body).help(help).fact("diagnostics", &problems)
}

/// The problems as text, an empty line between two.
pub fn render(problems: &[Diagnostic]) -> String {
    let texts: Vec<String> = problems.iter().map(|problem| problem.render(Color::Always)).collect();
    texts.join("\n")
}

/// Checks what the tree holds.
pub fn check(_workspace: &crate::cli::workspace::Workspace, _tree: &caxton_proto::tree::Tree) -> Result<(), CliError> {
    Ok(())
}
