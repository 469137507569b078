//! `caxton errors`: what a code means, wherever it came from, and what to do about it.

#[cfg(test)]
use std::fmt::Write as _;

use serde_json::json;

use crate::cli::output::{BOLD, DIM, paint};
use crate::cli::{CliError, Context, text};
use crate::edge::problem::Code;

/// Arguments of `caxton errors`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  caxton errors                      list every code
  caxton errors no_capable_agent     what it means and what to do
  caxton errors --json | jq -r '.errors[].code'")]
pub struct Args {
    /// The code, as in `error[unknown_key]`, in `\"code\"` of a JSON answer, or an exit code.
    code: Option<String>,
}

/// Where a code comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The HTTP API; the command line hands it on.
    Api,
    /// How a turn ended without an answer.
    Turn,
    /// A mistake in a file of the workspace.
    File,
    /// The command line itself.
    Cli,
}

impl Origin {
    fn title(self) -> &'static str {
        match self {
            Origin::Api => "From the server",
            Origin::Turn => "Of a turn that gave no answer",
            Origin::File => "In a file of the workspace",
            Origin::Cli => "From the command line",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Origin::Api => "api",
            Origin::Turn => "turn",
            Origin::File => "file",
            Origin::Cli => "cli",
        }
    }
}

/// A code: where it comes from, what it means, and what to do.
type Row = (&'static str, Origin, &'static str, &'static str);

const ROWS: &[Row] = &[
    (
        "unauthorized",
        Origin::Api,
        "no token came with the request, or one that is not valid any more",
        "pass one with --token-file FILE or CAXTON_TOKEN; `caxton token create` makes one",
    ),
    (
        "forbidden",
        Origin::Api,
        "the token's role or workspaces do not allow this",
        "ask for a token with the role that the message names; docs/SECURITY.md has the table",
    ),
    (
        "not_found",
        Origin::Api,
        "there is no workspace, agent, tool, conversation or path of that name",
        "list what there is, as the help says, and look at --workspace",
    ),
    (
        "method_not_allowed",
        Origin::Api,
        "the path is right and the method is not",
        "GET /docs of the server shows each path with its methods",
    ),
    (
        "conflict",
        Origin::Api,
        "somebody else deployed in between",
        "`caxton pull`, look at what changed, and deploy again",
    ),
    (
        "check_failed",
        Origin::Api,
        "the files have mistakes, so nothing was deployed",
        "put each one right; `caxton validate` shows them with file and line",
    ),
    (
        "artifacts_missing",
        Origin::Api,
        "the deployment names content that was not sent before",
        "send what `missing` lists to .../artifacts, and the deployment again; `caxton deploy` does both",
    ),
    (
        "root_mismatch",
        Origin::Api,
        "the files of the request do not add up to its `root`",
        "compute the root anew from all files; a client of another version may be the cause",
    ),
    (
        "invalid_request",
        Origin::Api,
        "the request cannot be understood, or says what may not be",
        "read `detail` and `problems`: they name each field",
    ),
    (
        "unsupported_media_type",
        Origin::Api,
        "the body has another content type than the path takes",
        "send `Content-Type: application/json`, or what GET /docs says",
    ),
    (
        "digest_mismatch",
        Origin::Api,
        "bytes arrived that do not have the digest they were sent under",
        "send them again; if it stays, something between client and server changes them",
    ),
    (
        "body_too_large",
        Origin::Api,
        "the body has more bytes than the setting that the message names allows",
        "send less, or have the operator raise the setting",
    ),
    (
        "no_capable_agent",
        Origin::Api,
        "no agent's capabilities fit the message well enough",
        "`caxton route \"...\" --explain` shows how near each one is; add examples, or name an agent with --agent",
    ),
    (
        "turn_failed",
        Origin::Api,
        "the agent ended without an answer; `failure` says how",
        "look up the code in `failure` with `caxton errors`",
    ),
    (
        "approval_needed",
        Origin::Api,
        "the turn waits for a person, which this protocol cannot say in any other way",
        "decide with `caxton approvals`, and ask for the turn",
    ),
    (
        "too_many_requests",
        Origin::Api,
        "as much is under way as the limit allows",
        "wait as long as Retry-After says; the operator can raise the limit that is named",
    ),
    ("timeout", Origin::Api, "it took longer than the limit", "try again; look at `caxton health`"),
    (
        "events_compacted",
        Origin::Api,
        "the events after the given id are not kept any more",
        "read the state anew, and follow from now on",
    ),
    (
        "disk_full",
        Origin::Api,
        "less is free on the node's disk than `disk.reserve_bytes`",
        "make room; everything but deployments goes on, and those do once there is room",
    ),
    (
        "corrupt",
        Origin::Api,
        "stored bytes are not what they were when they were written",
        "the node's log names them; docs/OPERATIONS.md says how damage is repaired",
    ),
    (
        "unavailable",
        Origin::Api,
        "the node starts, stops, or knows no leader right now",
        "try again in a moment; `caxton cluster status` shows who leads",
    ),
    (
        "internal",
        Origin::Api,
        "a defect of the program, or a broken machine",
        "the node's log has the whole chain under the request's id; please report it",
    ),
    (
        "steps_spent",
        Origin::Turn,
        "the turn used all its steps",
        "raise `steps_max` under [limits] of the agent's file if it needs more",
    ),
    (
        "tokens_spent",
        Origin::Turn,
        "the turn used all its tokens",
        "raise `tokens_max` under [limits] of the agent's file if it needs more",
    ),
    (
        "time_spent",
        Origin::Turn,
        "the turn used all its time",
        "raise `wall_time` under [limits] of the agent's file if it needs more",
    ),
    (
        "call_loop",
        Origin::Turn,
        "the model made the same call again and again, and got the same result",
        "say in the prompt or the tool's description what it has to do otherwise",
    ),
    (
        "model_silent",
        Origin::Turn,
        "the model answered with neither text nor a call",
        "ask again; another model of `fallback` may do better",
    ),
    (
        "answer_withheld",
        Origin::Turn,
        "the provider withheld the answer by its own rules",
        "ask for something else, or another provider",
    ),
    (
        "model_failed",
        Origin::Turn,
        "no model of the agent's chain answered",
        "the message says who and why: a key, a name, an address; `caxton status` shows what is not set",
    ),
    ("stopped", Origin::Turn, "somebody stopped the turn", "send the message again if it was by mistake"),
    (
        "given_up",
        Origin::Turn,
        "a node that took the turn over could not finish it",
        "send the message again; calls that were perhaps made are named in the conversation",
    ),
    (
        "syntax",
        Origin::File,
        "the file is not TOML",
        "the mark stands where it cannot be read on; text is in double quotes",
    ),
    (
        "unknown_key",
        Origin::File,
        "nothing reads this key",
        "write the one that is meant; docs/agents.md lists them all",
    ),
    (
        "misplaced_key",
        Origin::File,
        "a warning: a key of the file's top stands below a table, and was read as it was meant",
        "move it above the first [table]",
    ),
    ("missing_key", Origin::File, "a key that has to be there is not", "add it as the help says"),
    (
        "wrong_type",
        Origin::File,
        "text where a number belongs, and the like",
        "write the value in the type that is named",
    ),
    ("bad_value", Origin::File, "the type is right, and the value means nothing", "write one of those that are named"),
    (
        "out_of_range",
        Origin::File,
        "a number, time, size or length beyond its limits",
        "stay within the two that are named",
    ),
    ("duplicate", Origin::File, "the same name, id or entry twice", "keep one of them"),
    (
        "name_mismatch",
        Origin::File,
        "the name in the file is not the one that the agent or tool is called by, which is the file's",
        "rename one of the two",
    ),
    (
        "bad_prompt",
        Origin::File,
        "a placeholder that nothing fills, or a prompt that is only the name of a file",
        "write one of the placeholders that are named, or { file = \"...\" }",
    ),
    (
        "secret_in_file",
        Origin::File,
        "a key or password where only its name may be; its value is not shown",
        "make a new key, set it with `caxton secrets set NAME`, and name it as \"secret:NAME\"",
    ),
    (
        "unknown_tool",
        Origin::File,
        "the workspace has no such tool, or the agent does not name it",
        "add tools/NAME/tool.toml, or write the name that is meant",
    ),
    (
        "unknown_provider",
        Origin::File,
        "caxton.toml has no such provider",
        "describe it under [providers.NAME], or write the name that is meant",
    ),
    ("fallback_cycle", Origin::File, "providers fall back on each other in a circle", "take one out of a `fallback`"),
    (
        "grant_not_allowed",
        Origin::File,
        "a tool asks for what caxton.toml does not allow",
        "add the line that is named under [grants], if the tool may have it",
    ),
    (
        "missing_file",
        Origin::File,
        "a prompt, module or script that is named is not there",
        "write its path from the workspace's top, or with ./ beside the file; see .caxtonignore",
    ),
    (
        "tool_broken",
        Origin::File,
        "the tool's module cannot be loaded: it does not compile, or wants what it is not given",
        "build it again as docs/tools.md says",
    ),
    (
        "no_chat",
        Origin::File,
        "a tool in the place of a model has no function `chat`",
        "docs/tools.md says what such a tool answers",
    ),
    (
        "no_backend_function",
        Origin::File,
        "a tool in the place of a memory backend lacks a function",
        "docs/memory.md says which it needs, and what they are asked and answer",
    ),
    (
        "processes_off",
        Origin::File,
        "an mcp-stdio tool, where the node's operator has not set `tools.processes`",
        "have it set, or use a tool in WebAssembly",
    ),
    ("not_utf8", Origin::File, "a text file, or the name of a file, is not UTF-8", "save it as UTF-8"),
    ("too_large", Origin::File, "a file is larger than what is taken", "make it smaller, or name it in .caxtonignore"),
    ("unexpected_file", Origin::File, "a warning: nothing reads this file", "move it where the help says, or leave it"),
    (
        "no_capabilities",
        Origin::File,
        "a warning: no message finds this agent by what it can do",
        "describe what it can do with [[capability]], or ask it by name only",
    ),
    ("no_agents", Origin::File, "a warning: the workspace has no agent", "`caxton init agent NAME` adds one"),
    (
        "no_model",
        Origin::File,
        "a warning: an agent has no model to ask, so it cannot answer",
        "name one under [providers.NAME] in caxton.toml",
    ),
    (
        "no_default_provider",
        Origin::File,
        "a warning: several providers, and none is the default for agents that name none",
        "write `provider` under [llm] of caxton.toml",
    ),
    (
        "not_set",
        Origin::File,
        "a warning: a secret or a variable of the node is named and not set",
        "`caxton secrets set NAME`, or set the variable and start the node again",
    ),
    ("too_many_problems", Origin::File, "more than 1,000 problems; the rest is not shown", "put these right first"),
    ("unreadable", Origin::File, "a file cannot be read from here", "make it readable, or name it in .caxtonignore"),
    ("bad_path", Origin::File, "the name of a file cannot be deployed", "rename the file"),
    (
        "bad_symlink",
        Origin::File,
        "a symlink leads nowhere, or out of the folder that is deployed",
        "copy the file instead",
    ),
    ("not_a_file", Origin::File, "a socket, a pipe or a device where a file belongs", "move it away"),
    (
        "usage",
        Origin::Cli,
        "the command was called in a way that it does not understand",
        "`caxton COMMAND --help` has examples",
    ),
    (
        "io",
        Origin::Cli,
        "a file, a folder, the terminal or the output cannot be read or written",
        "the cause is in the next line; make room, or change the permissions",
    ),
    (
        "unreachable",
        Origin::Cli,
        "nobody answers at the server's address",
        "start one with `caxton serve`, or name another with --server URL",
    ),
    (
        "tls",
        Origin::Cli,
        "the server's certificate is not trusted",
        "name its CA with --ca-file FILE; on the server it is tls/ca.pem in the data directory",
    ),
    (
        "connection_broken",
        Origin::Cli,
        "the connection broke off before the answer was there",
        "try again; nothing is applied twice",
    ),
    ("broken_off", Origin::Cli, "a stream of the server ended too early", "look whether it runs with `caxton health`"),
    (
        "clear_text",
        Origin::Cli,
        "a token would have gone over the network without TLS",
        "write the server's address with https://",
    ),
    (
        "not_caxton",
        Origin::Cli,
        "what answers at the address is no Caxton server, or one of another version",
        "check --server, and `caxton version`",
    ),
    (
        "damaged_answer",
        Origin::Cli,
        "an answer does not have the content that it claims",
        "try again; if it stays, the server's log names what is damaged",
    ),
    (
        "bad_answer",
        Origin::Cli,
        "an answer of the server cannot be understood",
        "check that both are of one version with `caxton version`",
    ),
    ("setup", Origin::Cli, "the connection cannot be set up as the flags say", "check --server and --ca-file"),
    (
        "no_workspace",
        Origin::Cli,
        "there is no caxton.toml in this folder or above it",
        "change to a workspace, or make one with `caxton init`",
    ),
    ("no_name", Origin::Cli, "caxton.toml does not name the workspace", "write `name = \"...\"` under [workspace]"),
    (
        "nested_workspace",
        Origin::Cli,
        "a new workspace would lie inside of another one, where nothing reads it",
        "add an agent with `caxton init agent NAME`, or go elsewhere",
    ),
    ("exists", Origin::Cli, "something is there already, and nothing is overwritten", "choose another name"),
    ("no_data_dir", Origin::Cli, "there is no data directory, because HOME is not set", "pass --data-dir DIR"),
    ("bad_token", Origin::Cli, "the file or variable does not hold a token", "make one with `caxton token create`"),
    (
        "unconfirmed_server",
        Origin::Cli,
        "caxton.toml names a server that never had your token",
        "if the address is right, name it once yourself with --server URL",
    ),
    ("locked", Origin::Cli, "another caxton works in this workspace", "wait until it is done"),
    (
        "too_many_files",
        Origin::Cli,
        "the workspace has more than 100,000 files to deploy",
        "leave out what agents do not need with a .caxtonignore file",
    ),
    (
        "forged",
        Origin::Cli,
        "the signature of a message does not hold, or is missing where messages are signed",
        "drop it, and find out who could write to the disks or the log of the node",
    ),
    ("not_agreed", Origin::Cli, "you did not say yes, so nothing was done", "run it again when you are ready"),
    (
        "not_confirmed",
        Origin::Cli,
        "what was typed is not what was asked for, so nothing was done",
        "run it again and type the name",
    ),
    (
        "no_base",
        Origin::Cli,
        "what is live was not deployed or pulled from here, and would be lost",
        "`caxton pull`, or say that it may go with `caxton deploy --replace`",
    ),
    (
        "pull_conflict",
        Origin::Cli,
        "files were changed here and in what is live",
        "merge them and say `caxton pull --ours`, or take all with --theirs",
    ),
    ("changed_underway", Origin::Cli, "a file was changed while it was being read or written", "run the command again"),
    (
        "not_live",
        Origin::Cli,
        "the deployment is in the log and cannot be loaded, so the one before is served",
        "put it right and deploy again, or go back with `caxton rollback`",
    ),
    (
        "not_kept",
        Origin::Cli,
        "the content of that revision is not kept any more",
        "`caxton log` shows in bold what can be put back",
    ),
    (
        "nothing_cached",
        Origin::Cli,
        "the server was never asked from here, so there is nothing to compare with",
        "`caxton status` without --offline",
    ),
    ("not_ready", Origin::Cli, "the server answers and is not ready", "the message says what it waits for"),
    ("tool_failed", Origin::Cli, "the tool answered that it could not do what it was asked", "its answer says why"),
    (
        "waiting",
        Origin::Cli,
        "the turn waits until a person has decided on a call (exit code 8)",
        "`caxton approvals list`",
    ),
    (
        "interrupted",
        Origin::Cli,
        "you pressed Ctrl-C; the turn goes on at the server (exit code 130)",
        "`caxton stop --turn ID` stops it",
    ),
    ("bad_key", Origin::Cli, "the name or value of a secret cannot be one", "use letters, digits and `_` for names"),
    ("in_a_repository", Origin::Cli, "a secret file would be written into a git repository", "write it somewhere else"),
    (
        "not_written",
        Origin::Cli,
        "the archive is not complete",
        "make room, and write it again; what is there is not valid",
    ),
    ("bad_backup", Origin::Cli, "the archive is damaged or not one", "check another one with `caxton backup verify`"),
    (
        "restore_failed",
        Origin::Cli,
        "the archive was not restored",
        "the cause is in the next line; the data directory has to be empty",
    ),
    (
        "recover_failed",
        Origin::Cli,
        "the node cannot go on alone",
        "the cause is in the next line; docs/OPERATIONS.md has the steps",
    ),
    (
        "start_failed",
        Origin::Cli,
        "the node did not start",
        "the help says what to change; `caxton serve --print-config` shows the settings",
    ),
    (
        "node_failed",
        Origin::Cli,
        "a part of the node failed, so it stopped",
        "its log says more; start it again, and report it if it comes back",
    ),
    ("telemetry", Origin::Cli, "logs or traces cannot be set up", "check the settings below [telemetry]"),
    ("demo", Origin::Cli, "the demo did not get to its end", "the cause is in the next line"),
];

/// The exit codes, as `caxton --help` lists them.
const EXITS: [(u8, &str); 10] = [
    (0, "done"),
    (1, "failed"),
    (2, "wrong usage"),
    (3, "the workspace has mistakes"),
    (4, "somebody else deployed in between"),
    (5, "the token is missing, wrong, or does not allow this"),
    (6, "the server cannot be reached"),
    (7, "the server refuses for now"),
    (8, "the turn waits for a person"),
    (130, "interrupted with Ctrl-C"),
];

/// Prints what a code means, or all of them.
pub fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let out = &context.out;
    let document = |row: &Row| {
        let status = status(row.0).filter(|_| row.1 == Origin::Api);
        json!({ "code": row.0, "from": row.1.name(), "status": status, "means": row.2, "help": row.3 })
    };
    let Some(code) = args.code else {
        for origin in [Origin::Api, Origin::Turn, Origin::File, Origin::Cli] {
            out.line(paint(BOLD, origin.title()))?;
            for (code, _, means, _) in ROWS.iter().filter(|row| row.1 == origin) {
                out.hanging(format_args!("  {code:<24} "), means)?;
            }
        }
        out.line(paint(DIM, "what to do: `caxton errors CODE`"))?;
        return out.json(&json!({ "errors": ROWS.iter().map(document).collect::<Vec<_>>() }));
    };
    if let Ok(number) = code.parse::<u8>()
        && let Some((number, means)) = EXITS.iter().find(|(exit, _)| *exit == number)
    {
        out.line(format_args!("{} {means}", paint(BOLD, format_args!("exit {number}"))))?;
        return out.json(&json!({ "exit": number, "means": means }));
    }
    let bare = code.trim_start_matches("error[").trim_start_matches("warning[").trim_end_matches(']');
    let Some(row) = ROWS.iter().find(|row| row.0 == bare) else {
        let near = caxton_proto::diagnostic::closest(bare, ROWS.iter().map(|row| row.0));
        let error = CliError::usage(format!("there is no code `{}`", text::one_line(&code)));
        return Err(match near {
            Some(near) => error.help(format!("did you mean `caxton errors {near}`?")),
            None => error.help("`caxton errors` lists them all"),
        });
    };
    let (code, origin, means, help) = row;
    let from = match status(code).filter(|_| *origin == Origin::Api) {
        Some(status) => format!("{} (HTTP {status})", origin.title().to_lowercase()),
        None => origin.title().to_lowercase(),
    };
    out.line(format_args!("{} {}", paint(BOLD, code), paint(DIM, from)))?;
    out.hanging("  ", means)?;
    out.hanging("  ", help)?;
    out.json(&document(row))
}

fn status(code: &str) -> Option<u16> {
    Code::ALL.into_iter().find(|known| known.name() == code).map(|known| known.status().as_u16())
}

/// What docs/errors.md says.
#[cfg(test)]
fn page() -> String {
    let mut page = "# Errors\n\nGenerated from the binary: `caxton errors` prints the same, and `caxton errors CODE` one of them. A code \
                    never changes its\nmeaning. `--json` and the HTTP API carry it as `code`, mistakes in files in `diagnostics`.\n"
        .to_owned();
    for origin in [Origin::Api, Origin::Turn, Origin::File, Origin::Cli] {
        let status_head = if origin == Origin::Api { " Status |" } else { "" };
        let status_rule = if origin == Origin::Api { "---|" } else { "" };
        let _ = write!(
            page,
            "\n## {}\n\n| Code |{status_head} What it means | What to do |\n|---|{status_rule}---|---|\n",
            origin.title()
        );
        for (code, _, means, help) in ROWS.iter().filter(|row| row.1 == origin) {
            let status = match status(code).filter(|_| origin == Origin::Api) {
                Some(status) => format!(" {status} |"),
                None => String::new(),
            };
            let _ = writeln!(page, "| `{code}` |{status} {means} | {help} |");
        }
    }
    page.push_str("\n## Exit codes\n\n| Code | What it means |\n|---|---|\n");
    for (exit, means) in EXITS {
        let _ = writeln!(page, "| {exit} | {means} |");
    }
    page
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn known() -> BTreeSet<&'static str> {
        ROWS.iter().map(|row| row.0).collect()
    }

    /// The first text in quotes behind each `before` in a source text.
    fn quoted<'s>(source: &'s str, before: &str) -> Vec<&'s str> {
        let after = source.split(before).skip(1);
        after.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next()).collect()
    }

    fn sources(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push(std::fs::read_to_string(&path).expect("a file"));
            }
        }
    }

    #[test]
    fn every_code_that_can_be_met_is_explained_once() {
        let known = known();
        assert_eq!(known.len(), ROWS.len(), "a code is there twice");
        for code in Code::ALL {
            assert!(known.contains(code.name()), "`{}` of the API is missing", code.name());
        }
        let (_, codes) = include_str!("../../../proto/src/diagnostic.rs").split_once("pub mod code {").expect("codes");
        let (codes, _) = codes.split_once("\n}").expect("their end");
        for code in quoted(codes, "&str =") {
            assert!(known.contains(code), "`{code}` of files is missing");
        }
        for code in quoted(include_str!("../agent/turn/words.rs"), "=> ") {
            assert!(known.contains(code), "`{code}` of turns is missing");
        }
        let mut files = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli"), &mut files);
        for text in &files {
            let own = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            let made =
                ["CliError::new(", "Diagnostic::error(", "Diagnostic::warning("].map(|before| quoted(own, before));
            for code in made.into_iter().flatten() {
                assert!(known.contains(code), "`{code}` of the command line is missing");
            }
        }
    }

    #[test]
    fn the_page_of_errors_is_what_the_binary_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/errors.md");
        let expected = page();
        if crate::config::environment::variable("UPDATE_DOCS").is_some() {
            std::fs::write(&path, &expected).expect("written");
        }
        let found = std::fs::read_to_string(&path).expect("the page");
        assert!(found == expected, "docs/errors.md is old: run UPDATE_DOCS=1 cargo test -p caxton --lib cli::");
    }
}
