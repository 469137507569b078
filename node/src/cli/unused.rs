//! Refuses global flags that were typed for a command that does not use them: whoever types one expects it to matter.
//!
//! What the environment says (CAXTON_SERVER, ...) is for all commands, and no command has to use it.

use clap::ArgMatches;
use clap::parser::ValueSource;

use crate::cli::CliError;

/// The global flags that say what a command is about, by clap's names for them.
const FLAGS: [&str; 5] = ["server", "token_file", "ca_file", "data_dir", "workspace"];
/// Those that lead to a server.
const TO_A_SERVER: &[&str] = &["server", "token_file", "ca_file", "data_dir"];

/// Which of [`FLAGS`] a command uses. A command that is not here uses all of them.
fn used(command: &[&str]) -> &'static [&'static str] {
    match command {
        ["init" | "validate" | "demo" | "completions" | "docs" | "errors", ..] | ["backup", "verify"] => &[],
        ["serve"] | ["server", "start"] => &["data_dir", "token_file"],
        ["restore" | "recover", ..] => &["data_dir"],
        ["token", "create"] => &FLAGS,
        ["health" | "version" | "server" | "workspaces" | "cluster" | "backup" | "token", ..] => TO_A_SERVER,
        _ => &FLAGS,
    }
}

/// Fails where a flag was typed that the command makes nothing of.
pub fn refuse(matches: &ArgMatches) -> Result<(), CliError> {
    let (mut path, mut leaf) = (Vec::new(), matches);
    while let Some((name, below)) = leaf.subcommand() {
        path.push(name);
        leaf = below;
    }
    let used = used(&path);
    let typed = |flag: &&&str| {
        // A command may have a flag of its own under the name of a global one, or none: then there is nothing to refuse.
        leaf.try_contains_id(flag).unwrap_or(false) && leaf.value_source(flag) == Some(ValueSource::CommandLine)
    };
    match FLAGS.iter().filter(|flag| !used.contains(flag)).find(typed) {
        None => Ok(()),
        Some(flag) => {
            let shown = flag.replace('_', "-");
            Err(CliError::usage(format!("`caxton {}` makes nothing of --{shown}", path.join(" "))).help("leave it out"))
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::structure;

    use super::*;

    fn typed(line: &str) -> Result<(), String> {
        let matches = structure().try_get_matches_from(line.split(' ')).expect("a command line");
        refuse(&matches).map_err(|error| error.message)
    }

    #[test]
    fn a_flag_that_changes_nothing_is_refused_wherever_it_stands() {
        for fine in [
            "caxton deploy --workspace w --server http://a",
            "caxton --workspace w token create ci",
            "caxton token list --server http://a",
            "caxton serve --data-dir d",
            "caxton cluster status --token-file f",
            "caxton validate --json",
        ] {
            assert_eq!(typed(fine), Ok(()), "{fine}");
        }
        for (line, flag) in [
            ("caxton --workspace w token list", "--workspace"),
            ("caxton cluster status --workspace w", "--workspace"),
            ("caxton --server http://a validate", "--server"),
            ("caxton serve --ca-file f", "--ca-file"),
            ("caxton backup verify x.tar --server http://a", "--server"),
        ] {
            let refused = typed(line).expect_err(line);
            assert!(refused.contains(flag), "{line}: {refused}");
        }
    }
}
