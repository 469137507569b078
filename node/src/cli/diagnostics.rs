//! Problems with the workspace's files, printed as rustc prints.

use caxton_proto::diagnostic::{self, Color, Diagnostic};

use crate::cli::{CliError, Exit};

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
