//! `caxton serve`: runs a node until it is told to stop.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::cli::output::{BOLD, DIM, GOOD, paint};
use crate::cli::{CliError, Context};
use crate::config::{self, Config, Draft, Home, Problems, environment};
use crate::node::{Node, StartError};
use crate::tasks::{self, Jobs};
use crate::telemetry::{Telemetry, TelemetryError};

/// The exit code after a second signal: what a shell gives a program that was interrupted.
const INTERRUPTED: i32 = 130;
/// How long the first screen waits for the node to be ready.
const READY_WAIT: Duration = Duration::from_secs(5);
/// More threads than this answer no more requests.
const THREADS_MAX: usize = 16;
/// How many threads may do what blocks: stores, files, checks.
const BLOCKING_THREADS_MAX: usize = 64;
/// A thread that does what blocks ends when it had nothing to do for this long.
const BLOCKING_IDLE: Duration = Duration::from_secs(2);

/// Arguments of `caxton serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Every setting can be given in a file, in a variable CAXTON_SECTION_NAME, or with --set; docs/config.md lists them all.

Examples:
  caxton serve
  caxton serve --bind 0.0.0.0:7411            reachable from elsewhere, with TLS
  caxton serve --config node.toml --set stop.grace=30s
  CAXTON_HTTP_BIND=127.0.0.1:0 caxton serve   on a free port
  CAXTON_CONFIG_PATH=node.toml caxton serve   the same as --config node.toml
  caxton serve --peers 10.0.0.1:7412          take other nodes
  caxton serve --join 10.0.0.1:7412 --token-file join.token
                                              join a cluster
  caxton serve --print-config                 the settings in effect")]
pub struct Args {
    /// A TOML file with settings.
    #[arg(long, value_name = "FILE", env = "CAXTON_CONFIG")]
    config: Option<PathBuf>,
    /// The address to listen on (http.bind) [default: 127.0.0.1:7411].
    #[arg(long, value_name = "ADDRESS")]
    bind: Option<String>,
    /// The address for other nodes (cluster.bind).
    #[arg(long, value_name = "ADDRESS")]
    peers: Option<String>,
    /// Where other nodes reach this one (cluster.advertise) [default: the address for other nodes].
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Nodes of a cluster to join (cluster.join), with --token-file or --secret-file. A node that has joined needs it no
    /// more.
    #[arg(long, value_name = "HOST:PORT,...")]
    join: Option<String>,
    /// A file with the secret that all nodes of the cluster share (cluster.secret_file).
    #[arg(long, value_name = "FILE")]
    secret_file: Option<String>,
    /// Found the cluster, unless a node after --join already belongs to one (cluster.found).
    #[arg(long)]
    found: bool,
    /// When to speak TLS (tls.mode): auto or always.
    #[arg(long, value_name = "WHEN")]
    tls: Option<String>,
    /// Which log lines to write (telemetry.filter) [default: info].
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// How to write log lines (telemetry.log_format): auto, pretty or json.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Record what real language models answer into this directory, to play it back (llm.record).
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// Any setting, as in `--set http.timeout=10s`.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print the settings in effect, and start nothing.
    #[arg(long)]
    print_config: bool,
}

/// Runs the node.
pub fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let print = args.print_config;
    let config = settings(args, context)?;
    if print {
        let shown: serde_json::Map<_, _> =
            config.shown().into_iter().map(|(setting, value)| (setting.key.to_owned(), value.into())).collect();
        context.out.text(config::print(&config))?;
        return context.out.json(&shown);
    }
    let threads = match config.runtime.threads as usize {
        0 => std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX),
        threads => threads,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_keep_alive(BLOCKING_IDLE)
        .thread_name("caxton")
        .enable_all()
        .build()
        .map_err(|error| CliError::new("io", "this process may not start more threads").source(error))?;
    let result = runtime.block_on(serve(config, context));
    // Work that blocks and was not waited for must not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// What the file, the environment and the flags say together.
fn settings(args: Args, context: &Context) -> Result<Config, CliError> {
    let mut draft = Draft::default();
    let path = environment::variable("CAXTON_CONFIG_PATH").map(PathBuf::from);
    if let Some(file) = args.config.as_ref().or(path.as_ref()) {
        draft.file(file);
    }
    draft.environment(environment::variables());
    if let Some(dir) = &context.global.data_dir {
        draft.flag("--data-dir", "data.dir", dir.display().to_string());
    }
    if let Some(join) = args.join {
        draft.flag("--join", "cluster.join", join);
        // The one token that a node shows is the one to join by.
        if let Some(file) = context.global.token_file.as_ref().filter(|_| args.secret_file.is_none()) {
            draft.flag("--token-file", "cluster.token_file", file.display().to_string());
        }
    }
    let short = [
        ("--bind", "http.bind", args.bind),
        ("--peers", "cluster.bind", args.peers),
        ("--advertise", "cluster.advertise", args.advertise),
        ("--secret-file", "cluster.secret_file", args.secret_file),
        ("--found", "cluster.found", args.found.then(|| "true".to_owned())),
        ("--tls", "tls.mode", args.tls),
        ("--log", "telemetry.filter", args.log),
        ("--log-format", "telemetry.log_format", args.log_format),
        ("--record", "llm.record", args.record.map(|dir| dir.display().to_string())),
    ];
    for (flag, key, value) in short {
        if let Some(value) = value {
            draft.flag(flag, key, value);
        }
    }
    args.set.iter().for_each(|set| draft.set(set));
    // On a terminal the first screen says what there is to say; what goes on is for logs.
    if std::io::stderr().is_terminal() && !args.print_config && !draft.is_given("telemetry.filter") {
        draft.flag("a terminal", "telemetry.filter", "warn".to_owned());
    }
    draft.warnings().iter().for_each(|warning| context.out.warn(warning));
    draft.check(&Home::here()).map_err(|problems| {
        let list = problems.list();
        CliError::usage(problems.to_string()).body(list).help(Problems::HELP)
    })
}

async fn serve(config: Config, context: &Context) -> Result<(), CliError> {
    let signals = "this process may not listen for signals";
    let io = |error| CliError::new("io", signals).source(error);
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate()).map_err(io)?, signal(SignalKind::interrupt()).map_err(io)?);
    let telemetry = Telemetry::start(&config.telemetry).map_err(telemetry_failed)?;
    // A node that waits for its cluster ends at once: nothing of it serves anybody yet.
    let started = tokio::select! {
        started = Node::start(config) => Some(started),
        name = either(&mut terminate, &mut interrupt) => {
            info!(signal = name, "stopped before it was started");
            None
        }
    };
    let Some(started) = started else {
        _ = tasks::blocking(move || telemetry.stop()).await;
        return Ok(());
    };
    let node = started.map_err(start_failed)?;
    if std::io::stderr().is_terminal() && node.ready(READY_WAIT).await {
        first_screen(&node, context);
    }
    let failed = tokio::select! {
        name = either(&mut terminate, &mut interrupt) => {
            info!(signal = name, "stopping; a second signal ends at once");
            None
        }
        failed = node.failed() => Some(failed),
        () = node.left() => {
            info!("this node has left the cluster: no group counts it any more, and others lead what it led; it ends, and its data directory can be emptied");
            None
        }
    };
    Jobs::default().spawn("second-signal", async move {
        either(&mut terminate, &mut interrupt).await;
        warn!("a second signal: the node ends at once");
        std::process::exit(INTERRUPTED);
    });
    node.stop().await;
    // Exporting blocks, and must not hold a thread that others wait for.
    _ = tasks::blocking(move || telemetry.stop()).await;
    match failed {
        None => Ok(()),
        Some(failed) => Err(CliError::new("node_failed", "the node stopped, because a part of it failed")
            .help("the log above says more; start it again, and report it if it comes back")
            .source(failed)),
    }
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

/// What a person sees first.
fn first_screen(node: &Node, context: &Context) {
    let config = &node.parts().config;
    let dir = config.data.dir.display().to_string();
    let at_home = Home::here().data_dir().is_some_and(|home| home == config.data.dir);
    let flag = if at_home { String::new() } else { format!(" --data-dir {dir}") };
    let peers = node.peer_address().map_or_else(String::new, |peers| format!(", peers at {peers}"));
    let lines = [
        format!("{} {} serves at {}{peers}", paint(BOLD, "caxton"), env!("CARGO_PKG_VERSION"), paint(GOOD, node.url())),
        format!("  data in {dir}"),
        format!("  next, in another terminal: caxton init hello && cd hello && caxton deploy{flag}"),
        format!("  the manual: caxton docs, and {}/docs for the API", node.url()),
        paint(DIM, "  Ctrl-C stops it; --log info shows what goes on").to_string(),
    ];
    context.out.note(lines.join("\n"));
}

fn start_failed(error: StartError) -> CliError {
    let cli = CliError::new("start_failed", error.to_string());
    let cli = match error.help() {
        Some(help) => cli.help(help),
        None => cli,
    };
    cli.source(error)
}

fn telemetry_failed(error: TelemetryError) -> CliError {
    CliError::new("telemetry", error.to_string()).help("check the settings below [telemetry]").source(error)
}
