//! `caxton completions SHELL`.

use crate::cli::{CliError, Context};

/// Arguments of `caxton completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  caxton completions bash > ~/.local/share/bash-completion/completions/caxton")]
pub struct Args {
    /// The shell that completes.
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

/// Prints the script.
pub fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::structure(), "caxton", &mut script);
    context.out.raw(String::from_utf8_lossy(&script))
}
