//! How many whole turns a node takes, and what one costs beside the model: messages to scripted agents over HTTP.
//!
//! ```text
//! cargo build --release -p caxton -p caxton-benches && target/release/turns --dir DIR
//! ```
//!
//! A turn is everything: HTTP, the token, the agent (named, or found by what it can do), the model's script, the record
//! in the replicated log with its fsync, the answer. The controls, in the same run: an append with fdatasync, and the same
//! client getting `/health`, which is HTTP alone. Where messages come by the clock, each is timed twice: from when it was due,
//! which has the client's own lateness in it, and from when it was sent.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use caxton_benches::figures::{Figures, bare_fdatasync, drive, drive_at};
use caxton_benches::http::{Pool, Wire};
use caxton_benches::node::Caxton;
use clap::Parser;
use serde_json::json;

const MESSAGES: &str = "/api/v1/workspaces/bench/messages";
/// How long the capabilities of the agents may take to be prepared.
const PREPARED_WAIT: Duration = Duration::from_secs(300);
/// Capabilities that are prepared within this are not worth a measurement.
const PREPARED_SOON: Duration = Duration::from_millis(200);
/// Different messages, so that finding an agent is not always a matter of the cache.
const TEXTS: u64 = 1_000;
const SCRIPT: &str = "[[rule]]\nsay = \"That is all that there is to say about it.\"\n";

/// Measures turns of scripted agents.
#[derive(Parser)]
struct Args {
    /// The program; else the one beside this benchmark.
    #[arg(long)]
    caxton: Option<PathBuf>,
    /// Where to keep the data directories; must be on a real disk.
    #[arg(long, default_value = "target/bench-turns")]
    dir: PathBuf,
    /// How long each measurement takes.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// How many clients wait for an answer at once, where as many turns as possible are wanted.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Messages in a second, where the time of each is wanted.
    #[arg(long, default_value_t = 1_000.0)]
    rate: f64,
    /// Connections that take turns in sending those.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// How many agents are deployed, one run each.
    #[arg(long, value_delimiter = ',', default_value = "10,10000")]
    agents: Vec<usize>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    fs::create_dir_all(&args.dir)?;
    let dir = tempfile::tempdir_in(&args.dir)?;
    let caxton = Caxton::find(args.caxton.clone())?;
    say(&["", "agents", "in a second", "p50 ms", "p99 ms"])?;
    say(&["---", "---", "---", "---", "---"])?;
    for agents in &args.agents {
        let home = dir.path().join(agents.to_string());
        run(&args, &caxton, &home, *agents).await?;
    }
    Ok(())
}

async fn run(args: &Args, caxton: &Caxton, home: &Path, agents: usize) -> Result<()> {
    let workspace = home.join("workspace");
    write_workspace(&workspace, agents)?;
    let node = caxton.start(&home.join("data"))?;
    caxton.deploy(&workspace, &node.data)?;
    let pool = Pool::open(&node.address, args.clients, &node.token()?).await?;
    let seconds = Duration::from_secs_f64(args.seconds);
    print("control: fdatasync, one after another", agents, &Figures::of(bare_fdatasync(home, seconds)?, seconds)?)?;
    let health = {
        let pool = pool.clone();
        move |client, _| {
            let pool = pool.clone();
            async move { pool.get(client, "/health").await.map(drop) }
        }
    };
    print("control: GET /health, one client", agents, &drive(1, seconds, health.clone()).await?)?;
    print("control: GET /health, all clients", agents, &drive(args.clients, seconds, health).await?)?;
    let clock = Clock {
        rate: args.rate,
        seconds,
        connections: args.connections,
        address: &node.address,
        token: &node.token()?,
    };
    clock.measure("control: GET /health", agents, |wire, _| wire.get("/health").map(drop))?;
    let turns = |pool: &Pool, named| {
        let pool = pool.clone();
        move |client: usize, number: u64| {
            let pool = pool.clone();
            let body = message(named, agents, client as u64 * 7_919 + number);
            async move { pool.post(client, MESSAGES, body).await.map(drop) }
        }
    };
    let mut prepared = tokio::spawn(prepared(Pool::open(&node.address, 1, &node.token()?).await?));
    if tokio::time::timeout(PREPARED_SOON, &mut prepared).await.is_err() {
        let figures = drive(args.clients, seconds, turns(&pool, true)).await?;
        print("to a named agent, all clients, while capabilities are being prepared", agents, &figures)?;
        prepared.await??;
    }
    // The node has closed those that waited for long.
    let pool = Pool::open(&node.address, args.clients, &node.token()?).await?;
    for (how, named) in [("to a named agent", true), ("found by capability", false)] {
        let turn = turns(&pool, named);
        // Each text is embedded once before it counts.
        drive(args.clients, seconds / 2, turn.clone()).await?;
        print(&format!("{how}, one client"), agents, &drive(1, seconds, turn.clone()).await?)?;
        print(&format!("{how}, {} clients", args.clients), agents, &drive(args.clients, seconds, turn.clone()).await?)?;
        clock
            .measure(how, agents, move |wire, number| wire.post(MESSAGES, &message(named, agents, number)).map(drop))?;
    }
    node.stop()
}

/// Waits until messages find the agents by what they can do.
async fn prepared(pool: Pool) -> Result<()> {
    let until = Instant::now() + PREPARED_WAIT;
    let question = json!({ "text": "are you there" }).to_string();
    while let Err(error) = pool.post(0, "/api/v1/workspaces/bench/route", question.clone()).await {
        anyhow::ensure!(Instant::now() < until, "the capabilities are still not prepared: {error:#}");
        tokio::time::sleep(PREPARED_SOON).await;
    }
    Ok(())
}

/// How calls are made by the clock.
struct Clock<'a> {
    rate: f64,
    seconds: Duration,
    connections: usize,
    address: &'a str,
    token: &'a str,
}

impl Clock<'_> {
    fn measure<F>(&self, how: &str, agents: usize, call: F) -> Result<()>
    where
        F: Fn(&mut Wire, u64) -> Result<()> + Clone + Send + 'static,
    {
        let callers = (0..self.connections).map(|_| {
            let (mut wire, call) = (Wire::open(self.address, self.token)?, call.clone());
            anyhow::Ok(move |number| call(&mut wire, number))
        });
        let times = drive_at(self.rate, self.seconds, callers.collect::<Result<_>>()?)?;
        print(&format!("{how}, {} in a second, from when each was due", self.rate), agents, &times.due)?;
        print(&format!("{how}, {} in a second, from when each was sent", self.rate), agents, &times.made)
    }
}

fn message(named: bool, agents: usize, number: u64) -> String {
    let subject = number % TEXTS.min(agents as u64);
    let text = format!("Please explain subject {subject} to me");
    match named {
        true => json!({ "text": text, "agent": format!("agent-{subject}") }).to_string(),
        false => json!({ "text": text }).to_string(),
    }
}

fn write_workspace(root: &Path, agents: usize) -> Result<()> {
    for folder in ["agents", "prompts"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::write(
        root.join("caxton.toml"),
        "[workspace]\nname = \"bench\"\n\n[providers.script]\nkind = \"scripted\"\nscript = \"prompts/script.toml\"\n",
    )?;
    fs::write(root.join("prompts/script.toml"), SCRIPT)?;
    for agent in 0..agents {
        let text = format!(
            "[agent]\nname = \"agent-{agent}\"\ndescription = \"Answers questions about subject number {agent}\"\n\n\
             [capabilities]\npatterns = [\"answer a question about subject {agent}\", \"explain subject {agent}\"]\n"
        );
        fs::write(root.join(format!("agents/agent-{agent}.toml")), text)?;
    }
    Ok(())
}

fn print(what: &str, agents: usize, figures: &Figures) -> Result<()> {
    let (p50, p99) = figures.ms();
    say(&[what, &agents.to_string(), &format!("{:.0}", figures.rate), &format!("{p50:.3}"), &format!("{p99:.3}")])
}

/// A line of a Markdown table.
fn say(cells: &[&str]) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "| {} |", cells.join(" | "))?)
}
