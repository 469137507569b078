//! How long a deployment takes, from typing it to its being live, and what a node costs that has just started.
//!
//! Every figure is of real processes: the command line is spawned as a shell would, against a node on loopback. Beside
//! each run stands its control, an append of 350 bytes with fdatasync in the same directory, and what it costs to
//! spawn the program at all; without them a figure says more about the machine than about Caxton.
//!
//! ```text
//! cargo build --release -p caxton -p caxton-benches && target/release/deploy
//! ```

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use caxton_benches::node::Caxton;
use clap::Parser;

/// The size of the control's append, in bytes: about a deployment's entry in the log.
const CONTROL_BYTES: usize = 350;
/// The size of the large file, in bytes.
const LARGE_BYTES: usize = 20 << 20;

/// Measures deployments and starts of a node.
#[derive(Parser)]
struct Args {
    /// The program; else the one beside this benchmark.
    #[arg(long)]
    caxton: Option<PathBuf>,
    /// How often each deployment is repeated.
    #[arg(long, default_value_t = 40)]
    runs: usize,
    /// Where to keep the data directories; must be on a real disk.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// How many agents the large node has.
    #[arg(long, default_value_t = 10_000)]
    agents: usize,
}

/// Some measurements of one thing, in milliseconds.
struct Samples(Vec<f64>);

impl Samples {
    fn at(&self, part: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        sorted.get((last as f64 * part).round() as usize).copied().unwrap_or(f64::NAN)
    }
}

/// Where everything happens.
struct Bench {
    caxton: Caxton,
    dir: tempfile::TempDir,
    runs: usize,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let caxton = Caxton::find(args.caxton)?;
    let own = std::env::current_exe().context("this program's own path")?;
    let dir = match args.dir {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir_in(own.parent().unwrap_or(Path::new("."))),
    };
    let bench = Bench { caxton, dir: dir.context("a folder to work in")?, runs: args.runs };
    say(&["", "median ms", "p95 ms", "control: fdatasync median ms", "note"])?;
    say(&["---", "---", "---", "---", "---"])?;
    bench.spawn_cost()?;
    bench.deployments("one agent", 1, 1)?;
    bench.deployments("10 agents, all changed", 10, 10)?;
    bench.deployments("1,000 agents, one changed", 1000, 1)?;
    bench.large_file()?;
    bench.starts(args.agents)
}

impl Bench {
    /// What spawning the program costs when it does nothing.
    fn spawn_cost(&self) -> Result<()> {
        let (mut spawns, mut controls) = (Samples(Vec::new()), Samples(Vec::new()));
        for _ in 0..self.runs {
            controls.0.push(control(self.dir.path())?);
            let start = Instant::now();
            let done = self.caxton.command(self.dir.path(), self.dir.path()).args(["version", "--client"]).output()?;
            spawns.0.push(ms(start));
            ensure!(done.status.success());
        }
        row("`caxton version --client` (spawn alone)", &spawns, &controls, "")
    }

    /// Deploys a workspace of `agents` again and again, each time with `changed` of them changed.
    fn deployments(&self, what: &str, agents: usize, changed: usize) -> Result<()> {
        let place = self.dir.path().join(format!("deploy-{agents}"));
        let node = self.caxton.start(&place.join("data"))?;
        let workspace = place.join("work");
        write_workspace(&workspace, agents)?;
        let first = self.caxton.deploy(&workspace, &node.data)?;
        let (mut times, mut controls, mut sent) = (Samples(Vec::new()), Samples(Vec::new()), 0);
        for run in 0..self.runs {
            for agent in 0..changed {
                write_agent(&workspace, agent, run + 1)?;
            }
            controls.0.push(control(&node.data)?);
            let start = Instant::now();
            let answer = self.caxton.deploy(&workspace, &node.data)?;
            times.0.push(ms(start));
            ensure!(answer["revision"] == 2 + run, "not live: {answer:#}");
            sent = answer["sent"]["wire_bytes"].as_u64().unwrap_or(0);
        }
        let first_ms = first["ms"].as_f64().unwrap_or(f64::NAN);
        row(what, &times, &controls, &format!("{sent} bytes sent; the first deployment took {first_ms:.0} ms"))
    }

    /// Changes one byte of a large file again and again.
    fn large_file(&self) -> Result<()> {
        let place = self.dir.path().join("large");
        let node = self.caxton.start(&place.join("data"))?;
        let workspace = place.join("work");
        write_workspace(&workspace, 1)?;
        let mut content = noise(LARGE_BYTES);
        let file = workspace.join("prompts/large.bin");
        fs::create_dir_all(workspace.join("prompts"))?;
        fs::write(&file, &content)?;
        let first = self.caxton.deploy(&workspace, &node.data)?;
        let (mut times, mut controls, mut most) = (Samples(Vec::new()), Samples(Vec::new()), 0);
        for run in 0..self.runs {
            content[(run + 1) * LARGE_BYTES / (self.runs + 2)] ^= 1;
            fs::write(&file, &content)?;
            controls.0.push(control(&node.data)?);
            let start = Instant::now();
            let answer = self.caxton.deploy(&workspace, &node.data)?;
            times.0.push(ms(start));
            most = most.max(answer["sent"]["wire_bytes"].as_u64().unwrap_or(u64::MAX));
        }
        let first_sent = first["sent"]["wire_bytes"].as_u64().unwrap_or(0);
        let note = format!("at most {most} bytes sent; {first_sent} the first time");
        row("20 MB file, one byte changed", &times, &controls, &note)
    }

    /// Starts with an empty data directory and with many agents, and what both weigh.
    fn starts(&self, agents: usize) -> Result<()> {
        let place = self.dir.path().join("starts");
        let (mut empty, mut controls) = (Samples(Vec::new()), Samples(Vec::new()));
        let mut idle = 0;
        for run in 0..10 {
            controls.0.push(control(self.dir.path())?);
            let node = self.caxton.start(&place.join(format!("empty-{run}")))?;
            empty.0.push(node.ready_ms);
            idle = node.settled_rss()?;
        }
        row("start to /ready, empty data directory", &empty, &controls, &format!("idle RSS {:.1} MB", mb(idle)))?;

        let data = place.join("many");
        let workspace = place.join("work");
        write_workspace(&workspace, agents)?;
        let node = self.caxton.start(&data)?;
        // One agent has the node read its sentence model, which is no agent's weight.
        let one = place.join("one");
        write_workspace(&one, 1)?;
        fs::write(one.join("caxton.toml"), "[workspace]\nname = \"one\"\n")?;
        self.caxton.deploy(&one, &node.data)?;
        let before = node.settled_rss()?;
        let first = self.caxton.deploy(&workspace, &node.data)?;
        let after = node.settled_rss()?;
        let disk = disk_bytes(&data)?;
        node.stop()?;
        let (mut many, mut controls) = (Samples(Vec::new()), Samples(Vec::new()));
        let mut restarted = 0;
        for _ in 0..10 {
            controls.0.push(control(self.dir.path())?);
            let node = self.caxton.start(&data)?;
            many.0.push(node.ready_ms);
            restarted = node.settled_rss()?;
            node.stop()?;
        }
        let each = |bytes: u64| bytes as f64 / agents as f64 / 1e3;
        let note = format!(
            "a node with one agent weighs {:.1} MB with the sentence model; first deployment of all {:.1} s; per agent {:.1} KB of memory after it, {:.1} KB after a start, {:.1} KB on disk",
            mb(before),
            first["ms"].as_f64().unwrap_or(f64::NAN) / 1e3,
            each(after.saturating_sub(before)),
            each(restarted.saturating_sub(idle)),
            each(disk)
        );
        row(&format!("start to /ready, {agents} agents"), &many, &controls, &note)
    }
}

/// One append with fdatasync, in milliseconds.
fn control(dir: &Path) -> Result<f64> {
    let mut file = File::options().create(true).append(true).open(dir.join("control"))?;
    let start = Instant::now();
    file.write_all(&[7; CONTROL_BYTES])?;
    file.sync_data()?;
    Ok(ms(start))
}

fn disk_bytes(dir: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let metadata = entry.as_ref().map_err(|error| anyhow::anyhow!("{error}"))?.metadata()?;
        bytes += if metadata.is_dir() { disk_bytes(&entry?.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}

fn write_workspace(root: &Path, agents: usize) -> Result<()> {
    fs::create_dir_all(root.join("agents"))?;
    fs::write(root.join("caxton.toml"), "[workspace]\nname = \"bench\"\n")?;
    (0..agents).try_for_each(|agent| write_agent(root, agent, 0))
}

fn write_agent(root: &Path, agent: usize, version: usize) -> Result<()> {
    let text = format!(
        "[agent]\nname = \"agent-{agent}\"\nversion = \"1.0.{version}\"\n\
         description = \"Answers questions about subject number {agent}\"\n\n\
         [capabilities]\npatterns = [\"answer a question about subject {agent}\", \"explain subject {agent}\"]\n\n\
         [prompts]\nsystem = \"You know everything about subject {agent}. Answer briefly and say when you are not sure.\"\n"
    );
    Ok(fs::write(root.join(format!("agents/agent-{agent}.toml")), text)?)
}

/// Bytes that look random and are the same each time (xorshift64).
fn noise(bytes: usize) -> Vec<u8> {
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as u8
    };
    (0..bytes).map(|_| next()).collect()
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn row(what: &str, times: &Samples, controls: &Samples, note: &str) -> Result<()> {
    let number = |value: f64| format!("{value:.2}");
    say(&[what, &number(times.at(0.5)), &number(times.at(0.95)), &number(controls.at(0.5)), note])
}

/// A line of a Markdown table.
fn say(cells: &[&str]) -> Result<()> {
    writeln!(std::io::stdout(), "| {} |", cells.join(" | ")).context("stdout")
}
