//! What messages between agents cost: how many a second a node takes and settles, what a hop takes, what a contract net, many open
//! conversations, a full mailbox and many schedules take, and three nodes.
//!
//! ```text
//! cargo build --release -p caxton -p caxton-benches && target/release/messages --dir DIR
//! ```
//!
//! DIR must be on the disk that is meant. The agents are programs: benches/guest, which answers what it is asked. Each row has a
//! node and a data directory of its own, and the controls are in the same run: an append with fdatasync, GET /health by the same
//! clients, and NATS JetStream where `--nats` names its server and benches/peers/nats was built.

mod flow;
mod hear;
mod net;
mod place;
mod rally;
mod schedules;
mod stock;
mod tables;
mod three;
mod ways;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use caxton_benches::figures::{Figures, bare_fdatasync};
use caxton_benches::node::Caxton;
use clap::{Parser, ValueEnum};

use self::ways::Way;

/// As `caxton` has it: the tables are applied in this process.
#[cfg(not(debug_assertions))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Topic {
    /// Messages to programs that answer, by each way in.
    Throughput,
    /// The tables alone.
    Tables,
    /// A ball between two programs.
    Rally,
    /// NATS JetStream.
    Nats,
    /// Three nodes.
    Cluster,
    /// A contract net with many participants.
    Net,
    /// Many conversations that are open.
    Conversations,
    /// A mailbox with very many messages.
    Mailbox,
    /// Many schedules that tick at once.
    Schedules,
}

/// Measures messages between agents.
#[derive(Parser)]
struct Args {
    /// The program; else the one beside this benchmark.
    #[arg(long)]
    caxton: Option<PathBuf>,
    /// Where to keep the data directories; must be on a real disk.
    #[arg(long, default_value = "target/bench-messages")]
    dir: PathBuf,
    /// What to measure; everything unless told.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Topic>,
    /// How long each measurement of many messages takes.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// How many senders wait for an acknowledgement at once.
    #[arg(long, default_value_t = 64)]
    senders: usize,
    /// How many agents they send to, by turns.
    #[arg(long, default_value_t = 8)]
    agents: usize,
    /// How many messages an agent handles at a time.
    #[arg(long, default_value_t = 8)]
    concurrency: usize,
    /// How many workspaces the senders are spread over.
    #[arg(long, default_value_t = 1)]
    workspaces: usize,
    /// Bytes of a message's content.
    #[arg(long, default_value_t = 350)]
    bytes: usize,
    /// The ways in that are measured; all of them unless told.
    #[arg(long, value_enum, value_delimiter = ',')]
    ways: Vec<Way>,
    /// Begin a conversation with each message.
    #[arg(long)]
    conversation_each: bool,
    /// How many round trips a ball makes between two agents.
    #[arg(long, default_value_t = 400)]
    round_trips: usize,
    /// How many agents bid.
    #[arg(long, default_value_t = 100)]
    bidders: usize,
    /// How many conversations are open.
    #[arg(long, default_value_t = 10_000)]
    conversations: usize,
    /// How many messages lie in the mailbox.
    #[arg(long, default_value_t = 1_000_000)]
    stock: usize,
    /// How many schedules tick at once.
    #[arg(long, default_value_t = 1_000)]
    schedules: usize,
    /// The program `nats-server`; without one, NATS is left out.
    #[arg(long)]
    nats: Option<PathBuf>,
    /// The peer that drives it, built from benches/peers/nats.
    #[arg(long, default_value = "benches/peers/nats/target/release/nats-peer")]
    nats_peer: PathBuf,
}

impl Args {
    fn wants(&self, topic: Topic) -> bool {
        self.only.is_empty() || self.only.contains(&topic)
    }

    fn time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    std::fs::create_dir_all(&args.dir)?;
    let dir = tempfile::tempdir_in(std::fs::canonicalize(&args.dir)?)?;
    let caxton = Caxton::find(args.caxton.clone())?;
    // A node runs in a folder of its own, and finds the program from there too.
    let caxton = Caxton::find(Some(std::fs::canonicalize(caxton.path())?))?;
    say(&["", "a second", "p50 ms", "p99 ms", ""])?;
    say(&["---", "---", "---", "---", "---"])?;
    let bench = Bench { args: &args, caxton: &caxton, dir: dir.path() };
    let sync = bench.control()?;
    if args.wants(Topic::Throughput) {
        flow::measure(&bench).await?;
    }
    if args.wants(Topic::Tables) {
        tables::measure(&bench)?;
    }
    if args.wants(Topic::Nats) {
        bench.nats()?;
    }
    if args.wants(Topic::Rally) {
        rally::measure(&bench, sync).await?;
    }
    if args.wants(Topic::Cluster) {
        three::measure(&bench).await?;
    }
    if args.wants(Topic::Net) {
        net::contract_net(&bench).await?;
    }
    if args.wants(Topic::Conversations) {
        net::open_conversations(&bench).await?;
    }
    if args.wants(Topic::Mailbox) {
        stock::measure(&bench).await?;
    }
    if args.wants(Topic::Schedules) {
        schedules::measure(&bench).await?;
    }
    bench.control()?;
    Ok(())
}

/// What every topic has.
struct Bench<'a> {
    args: &'a Args,
    caxton: &'a Caxton,
    dir: &'a Path,
}

impl Bench<'_> {
    /// The control: what an append with fdatasync takes.
    fn control(&self) -> Result<Figures> {
        let seconds = self.args.time().min(Duration::from_secs(2));
        let figures = Figures::of(bare_fdatasync(self.dir, seconds)?, seconds)?;
        row("control: append and fdatasync, one after another", &figures, "")?;
        Ok(figures)
    }

    /// The peer, in a process of its own that prints its own rows.
    fn nats(&self) -> Result<()> {
        let Some(server) = &self.args.nats else { return Ok(()) };
        let (seconds, senders) = (self.args.seconds.to_string(), self.args.senders.to_string());
        let done = Command::new(&self.args.nats_peer)
            .arg(server)
            .arg(self.dir.join("nats"))
            .args([&seconds, &senders, &self.args.bytes.to_string()])
            .output()
            .with_context(|| format!("cannot run {}; build benches/peers/nats", self.args.nats_peer.display()))?;
        ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        std::io::stdout().write_all(&done.stdout)?;
        Ok(())
    }
}

fn row(what: &str, figures: &Figures, note: &str) -> Result<()> {
    let (p50, p99) = figures.ms();
    say(&[what, &format!("{:.0}", figures.rate), &format!("{p50:.3}"), &format!("{p99:.3}"), note])
}

/// A line of a Markdown table.
fn say(cells: &[&str]) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "| {} |", cells.join(" | "))?)
}
