//! What people type: one file per command, each with its `Args` and a `run(args, &Context)`.
//!
//! Commands print through [`Context::out`] and nothing else, and fail with a [`CliError`], whose exit code scripts
//! rely on: the codes are listed in [`Exit`] and in `caxton --help`.

pub mod output;

pub mod error;

pub mod context;

mod known_servers;

mod unused;

pub mod workspace;

pub mod diagnostics;

pub mod check;

pub mod git;

pub mod live;

pub mod text;

pub mod upload;

mod init;

mod validate;

mod deploy;

mod program;

mod status;

mod pull;

mod log;

mod logs;

mod rollback;

mod agents;

mod tools;

mod route;

mod demo;

mod ask;

mod steps;

mod conversations;

mod memory;

mod messages;

mod schedules;

mod stream;

mod approvals;

mod stop;

mod health;

mod serve;

mod server;

mod token;

mod cluster;

mod backup;

mod restore;

mod recover;

mod secrets;

mod workspaces;

mod usage;

mod docs;

mod errors;

#[cfg(test)]
mod commands;

mod version;

mod completions;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{FromArgMatches, Parser, Subcommand};

pub use context::{Context, Global};
pub use error::{CliError, Exit};
pub use output::Output;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  wrong usage
  3  the workspace has mistakes (each is printed with its file and line)
  4  conflict: someone else deployed in between
  5  the token is missing, wrong, or does not allow this
  6  the server cannot be reached
  7  the server refuses for now (its disk is full, or it is busy)
  8  the turn waits for a person (see `caxton approvals list`)

Examples:
  caxton demo                       the whole thing in one command
  caxton serve                      start a node on this machine
  caxton init hello                 make a workspace
  caxton deploy -m \"first agents\"   put it live";

/// An agent server: agents are files, and `caxton deploy` puts them live.
#[derive(Debug, Parser)]
#[command(name = "caxton", version, about, after_help = EXIT_CODES, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Commands in the order in which a person meets them.
#[derive(Debug, Subcommand)]
enum Command {
    /// Make a workspace, or add an agent to one.
    Init(init::Args),
    /// Run a node on this machine.
    Serve(serve::Args),
    /// Start the server on this machine, or ask how it is.
    Server(server::Args),
    /// Check every file here, without a server.
    Validate(validate::Args),
    /// Put the workspace live: show the plan, ask, send what changed.
    Deploy(deploy::Args),
    /// Compare the files here with what is live.
    Status(status::Args),
    /// Bring what is live into the files here.
    Pull(pull::Args),
    /// Show who deployed what, when, and from which commit.
    Log(log::Args),
    /// Put the content of an earlier revision live again.
    Rollback(rollback::Args),
    /// List and show the live agents.
    Agents(agents::Args),
    /// List, show and call the live tools.
    Tools(tools::Args),
    /// Ask which agent a message would go to, and why.
    Route(route::Args),
    /// See the whole thing in one command: a node, two agents, a question and its answer.
    Demo(demo::Args),
    /// Ask whoever can do it, and watch every step.
    Ask(ask::Args),
    /// Ask one agent.
    Send(ask::SendArgs),
    /// List and show what was said.
    Conversations(conversations::Args),
    /// See, send and look after what agents and people send each other, and topics.
    Messages(messages::Args),
    /// List when agents are sent messages next.
    Schedules(schedules::Args),
    /// Find, keep and forget what is remembered.
    Memory(memory::Args),
    /// Show what happens: messages, steps, calls, deployments.
    Logs(logs::Args),
    /// Show what agents used by day, in tokens and money.
    Usage(usage::Args),
    /// Decide on calls that wait for a person.
    Approvals(approvals::Args),
    /// Stop a turn of an agent.
    Stop(stop::Args),
    /// Ask whether the server is alive and ready.
    Health(health::Args),
    /// Make, list and revoke tokens.
    Token(token::Args),
    /// Set, list and remove what tools and providers are given by name.
    Secrets(secrets::Args),
    /// Grow, show and shrink the cluster.
    Cluster(cluster::Args),
    /// Write the whole cluster to an archive, or check one.
    Backup(backup::Args),
    /// Make a data directory from a backup.
    Restore(restore::Args),
    /// Go on with one node when a majority is lost for good.
    Recover(recover::Args),
    /// List the workspaces of a server, or delete one.
    Workspaces(workspaces::Args),
    /// Read the manual that belongs to this binary.
    Docs(docs::Args),
    /// Say what an error's code means and what to do.
    Errors(errors::Args),
    /// Print the version of this program and of the server.
    Version(version::Args),
    /// Print a script that completes commands in a shell.
    Completions(completions::Args),
}

impl Command {
    fn run(self, context: &Context) -> Result<(), CliError> {
        match self {
            Command::Init(args) => init::run(args, context),
            Command::Validate(args) => validate::run(args, context),
            Command::Deploy(args) => deploy::run(args, context),
            Command::Status(args) => status::run(args, context),
            Command::Pull(args) => pull::run(args, context),
            Command::Log(args) => log::run(args, context),
            Command::Rollback(args) => rollback::run(args, context),
            Command::Agents(args) => agents::run(args, context),
            Command::Tools(args) => tools::run(args, context),
            Command::Route(args) => route::run(args, context),
            Command::Demo(args) => demo::run(args, context),
            Command::Ask(args) => ask::run(args, context),
            Command::Send(args) => ask::run_send(args, context),
            Command::Conversations(args) => conversations::run(args, context),
            Command::Messages(args) => messages::run(args, context),
            Command::Schedules(args) => schedules::run(args, context),
            Command::Memory(args) => memory::run(args, context),
            Command::Logs(args) => logs::run(args, context),
            Command::Usage(args) => usage::run(&args, context),
            Command::Approvals(args) => approvals::run(args, context),
            Command::Stop(args) => stop::run(args, context),
            Command::Health(args) => health::run(args, context),
            Command::Serve(args) => serve::run(args, context),
            Command::Server(args) => server::run(args, context),
            Command::Token(args) => token::run(args, context),
            Command::Secrets(args) => secrets::run(args, context),
            Command::Cluster(args) => cluster::run(args, context),
            Command::Backup(args) => backup::run(args, context),
            Command::Restore(args) => restore::run(args, context),
            Command::Recover(args) => recover::run(args, context),
            Command::Workspaces(args) => workspaces::run(args, context),
            Command::Docs(args) => docs::run(args, context),
            Command::Errors(args) => errors::run(args, context),
            Command::Version(args) => version::run(args, context),
            Command::Completions(args) => completions::run(args, context),
        }
    }
}

/// Runs the command that the program's arguments name, and prints its error if it fails.
pub fn main() -> ExitCode {
    let parsed = structure().try_get_matches().and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches)));
    let (Cli { global, command }, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(wrong) => {
            let wrong = as_typed(wrong, structure(), std::env::args_os());
            return usage(&wrong, std::env::args_os().any(|arg| arg == "--json"));
        }
    };
    let out = Output::new(global.json, global.color);
    if let Err(error) = unused::refuse(&matches) {
        return out.fail(&error);
    }
    let result = Context::new(global, out.clone()).and_then(|context| command.run(&context));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => out.fail(&error),
    }
}

/// The same mistake without what the environment says: its usage line would show options that nobody typed.
fn as_typed(wrong: clap::Error, structure: clap::Command, typed: impl Iterator<Item = OsString>) -> clap::Error {
    if !wrong.use_stderr() {
        return wrong;
    }
    let first = |error: &clap::Error| error.render().to_string().split("\n\n").next().map(str::to_owned);
    match without_environment(structure).try_get_matches_from(typed) {
        Err(bare) if bare.kind() == wrong.kind() && first(&bare) == first(&wrong) => bare,
        // What the environment says is the mistake, or fills in for what is missing.
        Err(_) | Ok(_) => wrong,
    }
}

fn without_environment(command: clap::Command) -> clap::Command {
    command.mut_args(|arg| arg.env(None::<&'static str>)).mut_subcommands(without_environment)
}

/// Prints clap's own message: help on stdout, mistakes on stderr, and as a document where one is wanted.
fn usage(wrong: &clap::Error, json: bool) -> ExitCode {
    if wrong.use_stderr() && json {
        let text = wrong.render().to_string();
        let mut parts = text.split("\n\n");
        let message = parts.next().unwrap_or_default().trim_start_matches("error: ").trim();
        let rest: Vec<&str> = parts.map(str::trim).filter(|part| !part.is_empty()).collect();
        let error = CliError::usage(message.split_whitespace().collect::<Vec<_>>().join(" ")).help(rest.join("; "));
        return Output::new(true, output::ColorWhen::Never).fail(&error);
    }
    match wrong.print() {
        Ok(()) if wrong.use_stderr() => Exit::Usage.into(),
        Ok(()) => ExitCode::SUCCESS,
        // A reader that went away has what it wanted; a full disk is a failure.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let failure = CliError::new("io", "the output cannot be written").source(error);
            Output::new(json, output::ColorWhen::Auto).fail(&failure)
        }
    }
}

/// The command line's structure, for completions and tests.
pub(crate) fn structure() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_is_explained_where_its_command_is() {
        let mut root = structure();
        for words in [
            "agents list",
            "tools list",
            "secrets list",
            "token list",
            "conversations list",
            "workspaces list",
            "usage",
            "messages list",
            "messages topics",
            "messages keys list",
            "schedules list",
            "cluster members",
            "cluster status",
            "log",
            "route",
            "memory list",
            "memory stats",
        ] {
            let mut command = &mut root;
            for word in words.split(' ') {
                command = command.find_subcommand_mut(word).unwrap_or_else(|| panic!("there is no `caxton {words}`"));
            }
            let help = command.render_long_help().to_string();
            assert!(help.contains("Columns"), "`caxton {words} --help` does not explain its columns");
        }
    }

    #[test]
    fn a_usage_line_shows_what_was_typed_and_not_what_the_environment_says() {
        // A variable that is there in every environment that builds this.
        let tool = || {
            let text = clap::Arg::new("text").required(true);
            let home = clap::Arg::new("place").long("place").env("PATH").global(true);
            clap::Command::new("tool").arg(home).subcommand(clap::Command::new("ask").arg(text))
        };
        let typed = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let words = typed(&["tool", "ask"]);
        let wrong = tool().try_get_matches_from(&words).expect_err("a text is missing");
        assert!(wrong.render().to_string().contains("--place"), "clap shows it: {wrong}");
        let said = as_typed(wrong, tool(), words.into_iter()).render().to_string();
        assert!(said.contains("<text>") && !said.contains("--place"), "{said}");
        let words = typed(&["tool", "ask", "--place", "here"]);
        let wrong = tool().try_get_matches_from(&words).expect_err("a text is missing");
        let said = as_typed(wrong, tool(), words.into_iter()).render().to_string();
        assert!(said.contains("--place"), "it was typed: {said}");
    }

    #[test]
    fn the_structure_is_sound_and_each_command_shows_an_example() {
        structure().debug_assert();
        let mut left: Vec<clap::Command> = structure().get_subcommands().cloned().collect();
        while let Some(mut command) = left.pop() {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Example"), "`caxton {}` has no example in its help", command.get_name());
            assert!(command.get_about().is_some(), "`caxton {}` does not say what it does", command.get_name());
            left.extend(command.get_subcommands().filter(|sub| sub.get_name() != "help").cloned());
        }
    }
}
