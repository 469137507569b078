//! docs/commands.md: every command as clap knows it, and what each prints with `--json`.

use std::fmt::Write as _;

use clap::{Arg, Command};

/// What an answer has.
const ANSWER: &[&str] = &[
    "conversation",
    "turn",
    "agent",
    "route",
    "text",
    "cut",
    "attachments",
    "attachments_omitted",
    "usage",
    "steps",
    "duration_ms",
    "revision",
];
/// What is known of a conversation in a list.
const CONVERSATION: &[&str] = &["id", "agent", "title", "turns", "usage", "created", "updated"];
/// What there is of a message that was sent or published.
const SENT: &[&str] = &["id", "conversation", "deliveries", "position", "event", "duplicate", "notes"];
/// A key with which messages are signed.
const MESSAGE_KEY: &[&str] = &["owner", "key", "public_key", "held_by", "made", "ends"];
/// What was kept of memories.
const KEPT: &[&str] = &["memories", "entities", "relations"];
/// What the cluster is.
const CLUSTER: &[&str] = &["cluster", "node", "peer_address", "format", "members", "groups", "keys"];
/// What an archive holds.
const ARCHIVE: &[&str] = &["backup", "workspaces", "artifacts", "bytes"];

/// Commands without one document: they run until they are stopped, or print a script, or documents one a line.
const WITHOUT_DOCUMENT: [(&str, &str); 5] = [
    ("serve", "none while it runs; with `--print-config` each setting by its name"),
    ("server start", "none while it runs; with `--print-config` each setting by its name"),
    ("completions", "none; it prints a script"),
    ("memory export", "one document a line, the same without `--json`"),
    ("messages tail", "one document a line for each event"),
];

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
    ("ask", ANSWER),
    ("send", ANSWER),
    ("demo", &["answer", "later", "saved", "workspace", "contract"]),
    ("pull", &["live", "taken", "removed", "conflicts", "dry_run"]),
    ("rollback", &["revision", "deployment", "changes", "repeated", "serving", "ms"]),
    (
        "agents show",
        &[
            "name",
            "display_name",
            "version",
            "description",
            "capabilities",
            "tools",
            "notes",
            "path",
            "revision",
            "manifest",
            "source",
        ],
    ),
    ("tools list", &["revision", "tools"]),
    (
        "tools inspect",
        &[
            "name",
            "version",
            "description",
            "kind",
            "sandboxed",
            "grants",
            "path",
            "notes",
            "limits",
            "functions",
            "problem",
        ],
    ),
    ("tools call", &["result", "report"]),
    ("route", &["revision", "chosen", "candidates", "cached", "took_us"]),
    ("conversations list", &["conversations"]),
    ("conversations show", &["id", "agent", "title", "turns", "usage", "created", "updated", "turns_detail"]),
    ("conversations save", &["conversation", "saved"]),
    ("conversations forget", CONVERSATION),
    ("messages list", &["deliveries"]),
    ("messages show", &["id", "owner", "state", "delivery", "message", "priority", "attempts", "due", "reason"]),
    ("messages send", SENT),
    ("messages verify", &["id", "holds", "sender", "key", "signed", "held_by", "reason"]),
    ("messages keys list", &["keys", "next"]),
    ("messages keys rotate", MESSAGE_KEY),
    ("messages keys register", MESSAGE_KEY),
    ("messages retry", &["deliveries", "dry_run"]),
    ("messages drop", &["deliveries", "dry_run"]),
    ("messages subscribe", &["change", "subscriber", "name", "position"]),
    ("messages unsubscribe", &["change", "subscriber", "name", "position"]),
    ("messages publish", SENT),
    ("messages topics", &["topics"]),
    ("messages replay", &["publications", "reached", "more", "missed"]),
    ("schedules list", &["schedules"]),
    ("memory list", &["memories", "next"]),
    ("memory search", &["hits", "words", "meaning", "searched", "without_vector", "backend"]),
    (
        "memory show",
        &[
            "id",
            "scope",
            "kind",
            "name",
            "entity",
            "text",
            "metadata",
            "importance",
            "pinned",
            "valid_from",
            "valid_to",
            "created",
            "changed",
            "replaces",
            "untrusted",
            "sources",
            "history",
        ],
    ),
    ("memory add", KEPT),
    ("memory edit", &["memory", "number"]),
    ("memory forget", &["memories", "entities", "relations", "bytes", "ids", "dry_run"]),
    ("memory relate", KEPT),
    ("memory graph", &["entities", "relations", "more"]),
    ("memory stats", &["scopes", "loading", "pending_vectors", "index_bytes", "backend"]),
    (
        "memory sync",
        &["name", "state", "behind", "position", "applied", "compared", "to_compare", "last_error", "last_error_at"],
    ),
    ("memory import", &["stored", "known", "refused", "mistakes", "unknown_fields"]),
    ("approvals list", &["approvals"]),
    ("approvals approve", ANSWER),
    ("approvals deny", ANSWER),
    ("stop", &["turn", "conversation", "agent", "outcome"]),
    ("health", &["server", "ms", "health", "ready"]),
    ("token create", &["token", "id", "subject", "role", "workspaces", "issued", "expires", "revoked"]),
    ("token list", &["tokens"]),
    ("token revoke", &["id", "subject", "role", "workspaces", "issued", "expires", "revoked"]),
    ("secrets set", &["name", "set", "actor", "key"]),
    ("secrets list", &["secrets"]),
    ("secrets remove", &["removed"]),
    ("cluster token create", &["id", "token", "join", "uses", "expires"]),
    ("cluster members", CLUSTER),
    ("cluster status", CLUSTER),
    ("cluster remove", &["done"]),
    ("cluster leave", &["done"]),
    ("cluster transfer", &["done"]),
    ("cluster rotate", &["done"]),
    ("backup", ARCHIVE),
    ("backup verify", ARCHIVE),
    ("restore", &["data_dir", "cluster", "node", "from", "workspaces", "artifacts"]),
    ("recover", &["changed", "has", "cluster_before", "node_before", "cluster", "node"]),
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
    if let Some((_, says)) = WITHOUT_DOCUMENT.iter().find(|(words, _)| *words == path) {
        let _ = writeln!(page, "\nJSON: {says}.");
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
    use std::collections::BTreeSet;
    use std::path::Path;

    use serde_json::Value;

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
    fn every_command_says_what_it_prints_as_json() {
        let mut root = crate::cli::structure();
        root.build();
        let mut said: Vec<&str> = super::JSON.iter().map(|(words, _)| *words).collect();
        said.extend(super::WITHOUT_DOCUMENT.iter().map(|(words, _)| *words));
        for words in &said {
            let mut command = &root;
            for word in words.split(' ') {
                command = command.find_subcommand(word).unwrap_or_else(|| panic!("there is no `caxton {words}`"));
            }
        }
        let unique: BTreeSet<&str> = said.iter().copied().collect();
        assert_eq!(unique.len(), said.len(), "a command is there twice");
        assert!(super::JSON.iter().all(|(_, names)| !names.is_empty()));
        let mut left: Vec<(String, &clap::Command)> =
            root.get_subcommands().map(|command| (command.get_name().to_owned(), command)).collect();
        left.retain(|(words, _)| words != "help");
        while let Some((words, command)) = left.pop() {
            let below: Vec<_> = command.get_subcommands().filter(|sub| sub.get_name() != "help").collect();
            assert!(!below.is_empty() || unique.contains(words.as_str()), "nothing is said of `caxton {words} --json`");
            left.extend(below.into_iter().map(|sub| (format!("{words} {}", sub.get_name()), sub)));
        }
    }

    /// Commands that print a body of the HTTP API as it is, and which.
    const BODIES: [(&str, &str); 40] = [
        ("memory sync", "MemoryBackendInfo"),
        ("ask", "MessageAnswer"),
        ("send", "MessageAnswer"),
        ("approvals approve", "MessageAnswer"),
        ("approvals deny", "MessageAnswer"),
        ("approvals list", "Approvals"),
        ("agents show", "AgentDetail"),
        ("route", "RouteResponse"),
        ("conversations show", "ConversationDetail"),
        ("conversations forget", "ConversationSummary"),
        ("messages show", "Delivery"),
        ("messages send", "SendResponse"),
        ("messages publish", "SendResponse"),
        ("messages subscribe", "SubscriptionChange"),
        ("messages unsubscribe", "SubscriptionChange"),
        ("messages replay", "PublicationPage"),
        ("schedules list", "Schedules"),
        ("memory list", "MemoryPage"),
        ("memory search", "SearchResponse"),
        ("memory show", "MemoryDetail"),
        ("memory add", "KeepResponse"),
        ("memory edit", "EditResponse"),
        ("memory forget", "ForgetResponse"),
        ("memory relate", "KeepResponse"),
        ("memory graph", "GraphResponse"),
        ("memory stats", "MemoryStats"),
        ("memory import", "ImportResponse"),
        ("stop", "TurnOver"),
        ("token create", "TokenIssued"),
        ("token list", "Tokens"),
        ("token revoke", "TokenInfo"),
        ("secrets set", "SecretInfo"),
        ("secrets list", "SecretList"),
        ("secrets remove", "SecretRemoved"),
        ("cluster token create", "JoinTokenIssued"),
        ("cluster members", "ClusterStatus"),
        ("cluster status", "ClusterStatus"),
        ("cluster leave", "ClusterChanged"),
        ("cluster remove", "ClusterChanged"),
        ("workspaces delete", "WorkspaceDeleted"),
    ];

    /// The names of a schema, with those of the schemas that it is made of.
    fn names_of(schemas: &Value, schema: &Value, names: &mut BTreeSet<String>) {
        if let Some(other) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
            names_of(schemas, &schemas[other], names);
        }
        schema["allOf"].as_array().into_iter().flatten().for_each(|part| names_of(schemas, part, names));
        names.extend(schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.clone()));
    }

    #[test]
    fn what_a_command_prints_of_the_api_has_the_names_of_its_description() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
        let api: Value = serde_json::from_str(&std::fs::read_to_string(path).expect("the description")).expect("JSON");
        let schemas = &api["components"]["schemas"];
        for (words, schema) in BODIES {
            let mut expected = BTreeSet::new();
            names_of(schemas, &schemas[schema], &mut expected);
            assert!(!expected.is_empty(), "there is no schema {schema}");
            let (_, names) = super::JSON.iter().find(|(command, _)| *command == words).expect(words);
            let found: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(found, expected, "caxton {words} --json");
        }
    }
}
