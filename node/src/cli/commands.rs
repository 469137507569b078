//! docs/commands.md: every command as clap knows it, and what each prints with `--json`.

use std::fmt::Write as _;

use clap::{Arg, Command};

/// The top-level names of the document that a command prints with `--json`, by the command's words.
pub const JSON: &[(&str, &[&str])] = &[
    ("init", &["workspace", "root", "provider", "files", "git"]),
    ("init agent", &["agent", "template", "root", "files"]),
    ("init tool", &["tool", "template", "root", "files"]),
    ("validate", &["ok", "workspace", "agents", "tools", "diagnostics", "ms"]),
    (
        "deploy",
        &[
            "revision",
            "deployment",
            "deployment_id",
            "commit",
            "changes",
            "repeated",
            "serving",
            "sent",
            "steps_ms",
            "ms",
        ],
    ),
    (
        "status",
        &[
            "workspace",
            "server",
            "offline",
            "live",
            "serving",
            "agents",
            "tools",
            "deployed",
            "lacking",
            "base",
            "behind",
            "local",
            "theirs",
            "files",
        ],
    ),
    ("log", &["deployments", "next"]),
    ("agents list", &["agents", "health"]),
    ("logs", &["lines"]),
    (
        "ask",
        &[
            "conversation",
            "turn",
            "agent",
            "route",
            "text",
            "cut",
            "attachments",
            "usage",
            "steps",
            "duration_ms",
            "revision",
        ],
    ),
    ("conversations list", &["conversations"]),
    ("messages list", &["deliveries"]),
    ("messages topics", &["topics"]),
    ("messages verify", &["id", "holds", "sender", "key", "signed", "held_by"]),
    ("messages keys list", &["keys", "next"]),
    ("schedules list", &["schedules"]),
    ("conversations save", &["conversation", "saved"]),
    ("approvals list", &["approvals"]),
    ("usage", &["workspace", "since", "usage", "total"]),
    ("workspaces list", &["workspaces"]),
    ("workspaces delete", &["workspace", "revision", "deployments", "secrets", "tokens", "cleared"]),
    ("server status", &["server", "ready", "waits_for", "info"]),
    ("docs", &["pages"]),
    ("errors", &["errors"]),
    ("version", &["client", "server"]),
];

/// The whole page.
pub fn page() -> String {
    let mut page = "# Command line\n\nGenerated from the binary: `caxton --help` and `caxton COMMAND --help` print the same. Every command \
                    takes the\n[global options](#global-options). With `--json` it prints one document, an error as `{\"error\": {\"code\", \
                    \"message\", \"exit\", \"help\"}}`;\n[errors](errors.md) has the codes and the exit codes.\n"
        .to_owned();
    let mut root = super::structure();
    root.build();
    for command in root.get_subcommands().filter(|command| command.get_name() != "help") {
        write_command(&mut page, command, command.get_name().to_owned());
    }
    page.push_str("\n## Global options\n\n");
    for arg in root.get_arguments().filter(|arg| arg.is_global_set()) {
        write_argument(&mut page, arg);
    }
    page
}

fn write_command(page: &mut String, command: &Command, path: String) {
    let level = if path.contains(' ') { "###" } else { "##" };
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
    let _ = writeln!(page, "\n{level} caxton {path}\n\n{}", about.trim());
    let below: Vec<&Command> = command.get_subcommands().filter(|sub| sub.get_name() != "help").collect();
    let own: Vec<&Arg> = command.get_arguments().filter(|arg| !arg.is_global_set() && is_shown(arg)).collect();
    if !own.is_empty() {
        page.push('\n');
        own.into_iter().for_each(|arg| write_argument(page, arg));
    }
    if let Some((_, names)) = JSON.iter().find(|(words, _)| *words == path) {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        let _ = writeln!(page, "\nJSON: {}.", names.join(", "));
    }
    if let Some(help) = command.get_after_help() {
        let help = help.to_string();
        let _ = writeln!(page, "\n```text\n{}\n```", help.trim_end());
    }
    for sub in below {
        write_command(page, sub, format!("{path} {}", sub.get_name()));
    }
}

fn is_shown(arg: &Arg) -> bool {
    !arg.is_hide_set() && !matches!(arg.get_id().as_str(), "help" | "version")
}

/// A line for an argument: how it is written, and what it says.
fn write_argument(page: &mut String, arg: &Arg) {
    let value = arg.get_value_names().map(|names| names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
    let takes = arg.get_num_args().is_none_or(|range| range.takes_values());
    let value = value.filter(|_| takes).map(|value| if arg.is_positional() { value } else { format!(" {value}") });
    let short = arg.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
    let name = arg.get_long().map(|long| format!("{short}--{long}")).unwrap_or_default();
    let written = format!("{name}{}", value.unwrap_or_default());
    let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let choices: Vec<String> = arg
        .get_possible_values()
        .iter()
        .filter(|_| takes && arg.get_num_args().is_none_or(|range| range.takes_values()))
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    let choices = if choices.is_empty() { String::new() } else { format!(" One of {}.", choices.join(", ")) };
    let default: Vec<String> =
        arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    let default = match default.as_slice() {
        [value] if takes && !value.is_empty() && !arg.is_hide_default_value_set() => format!(" Without it: `{value}`."),
        _ => String::new(),
    };
    let _ = writeln!(page, "- `{written}`: {help}{choices}{default}");
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_page_of_commands_is_what_clap_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/commands.md");
        let expected = super::page();
        if crate::config::environment::variable("UPDATE_DOCS").is_some() {
            std::fs::write(&path, &expected).expect("written");
        }
        let found = std::fs::read_to_string(&path).expect("the page");
        assert!(found == expected, "docs/commands.md is old: run UPDATE_DOCS=1 cargo test -p caxton --lib cli::");
    }

    #[test]
    fn every_command_with_a_document_is_one() {
        let mut root = crate::cli::structure();
        root.build();
        for (words, names) in super::JSON {
            let mut command = &root;
            for word in words.split(' ') {
                command = command.find_subcommand(word).unwrap_or_else(|| panic!("there is no `caxton {words}`"));
            }
            assert!(!names.is_empty(), "{words}");
        }
    }
}
