//! What a tool call costs: `cargo run --release -p caxton-benches --bin tools`.
//!
//! Each figure stands beside its control, the same computation called natively with the same JSON in and out. The peer,
//! Extism, is benches/peers/extism. `--guests FOLDER` adds the tools of other languages that
//! `node/tools/examples/LANGUAGE/build.sh FOLDER` built.

#[path = "../../../node/tools/examples/rust/stats/src/table.rs"]
#[expect(dead_code, reason = "the tool's own file, of which only the summary is compared")]
mod table;

use anyhow::{Context, ensure};
use caxton_tools::{
    CallContext, FinishedCall, Grants, Kind, Limits, Sandbox, SandboxedTool, Settings, Spec, Tool, examples,
};
use clap::Parser;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const SERVERS: usize = 1_000;
const COLD_LOADS: usize = 50;
const WARM_UP_CALLS: usize = 200;

/// Tools that are measured if they were built: their file, what they are, and a call. `greeter` is the one of
/// docs/tools.md, which does next to nothing, so that the host's own share shows.
const GUESTS: [(&str, Kind, &str, &str); 6] = [
    ("greeter", Kind::Component, "greeter", r#"{"name":"Ada"}"#),
    ("stats", Kind::Component, "describe", r#"{"columns":["x","y"],"rows":[[1,2.5],[2,3.5],[3,null],[4,10]]}"#),
    ("checksum", Kind::Command, "checksum", r#"{"text":"abc"}"#),
    ("timezone", Kind::Command, "timezone", r#"{"time":"2026-11-21 15:04","zones":["Asia/Tokyo"]}"#),
    ("extract", Kind::Component, "extract", r#"{"text":"2024-05, 2023-11","pattern":"\\d{4}"}"#),
    ("calculator", Kind::Component, "calculator", r#"{"expression":"(1 + 1/3) * 3"}"#),
];

#[derive(Parser)]
struct Args {
    /// How long each row is measured, in seconds.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// A folder with tools of other languages, or with other builds.
    #[arg(long, value_name = "FOLDER")]
    guests: Option<PathBuf>,
}

/// A sandbox, and how long each row is measured in it.
struct Bench {
    sandbox: Sandbox,
    runtime: tokio::runtime::Runtime,
    budget: Duration,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let cache = tempfile::tempdir()?;
    let settings = Settings { cache: Some(cache.path().to_owned()), ..Settings::default() };
    let sandbox = Sandbox::new(settings, runtime.handle().clone());
    let bench = Bench { sandbox, runtime, budget: Duration::from_secs_f64(args.seconds) };
    println!("load average before: {}", std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());

    bench.loading("stats", Kind::Component, examples::STATS)?;
    bench.calls()?;
    bench.throughput()?;
    bench.memory()?;
    if let Some(folder) = &args.guests {
        for (name, kind, function, arguments) in GUESTS {
            bench.guest(folder, name, kind, function, serde_json::from_str(arguments)?)?;
        }
    }
    Ok(())
}

impl Bench {
    fn load(&self, name: &str, kind: Kind, wasm: &[u8], reuse: bool) -> anyhow::Result<SandboxedTool> {
        let spec = Spec {
            name: name.into(),
            kind,
            grants: Grants { reuse, ..Grants::default() },
            limits: Limits { concurrent_calls: 64, memory_bytes: 128 << 20, ..Limits::default() },
        };
        Ok(self.sandbox.load(spec, wasm)?)
    }

    /// Once compiled, then from the cache: code is read, its tag checked, linked, and the tool asked what it has.
    fn loading(&self, name: &str, kind: Kind, wasm: &[u8]) -> anyhow::Result<()> {
        let started = Instant::now();
        drop(self.load(name, kind, wasm, false)?);
        let compiled = started.elapsed();
        let mut loads = Vec::new();
        for _ in 0..COLD_LOADS {
            let started = Instant::now();
            drop(self.load(name, kind, wasm, false)?);
            loads.push(started.elapsed());
        }
        let (p50, p99) = quantiles(loads);
        println!(
            "\n{name}, {} KB: compiled and loaded in {compiled:.0?}, from the cache p50 {p50:.0?} p99 {p99:.0?}",
            wasm.len() >> 10
        );
        Ok(())
    }

    fn calls(&self) -> anyhow::Result<()> {
        let arguments = table_arguments();
        let text = arguments.to_string();
        let fresh = self.load("stats", Kind::Component, examples::STATS, false)?;
        let reused = self.load("stats", Kind::Component, examples::STATS, true)?;
        let here = |tool: &SandboxedTool, arguments| tool.call_here("describe", arguments, CallContext::default());
        let there = |tool: &SandboxedTool, arguments| {
            self.runtime.block_on(tool.call("describe", arguments, CallContext::default()))
        };
        println!("\none call, microseconds                 p50      p99");
        self.row("native (control)", || text.clone(), |text| native(&text).context("it is a table"))?;
        self.row("fresh instance, same thread", || arguments.clone(), |arguments| well(here(&fresh, arguments)))?;
        self.row("reused instance, same thread", || arguments.clone(), |arguments| well(here(&reused, arguments)))?;
        self.row("fresh instance, guest thread", || arguments.clone(), |arguments| well(there(&fresh, arguments)))?;
        self.row("reused instance, guest thread", || arguments.clone(), |arguments| well(there(&reused, arguments)))
    }

    /// Measures a call and not what is made for it or dropped after it.
    fn row<I, O>(
        &self,
        name: &str,
        mut input: impl FnMut() -> I,
        mut run: impl FnMut(I) -> anyhow::Result<O>,
    ) -> anyhow::Result<()> {
        for _ in 0..WARM_UP_CALLS {
            run(input())?;
        }
        let (started, mut times) = (Instant::now(), Vec::new());
        while started.elapsed() < self.budget {
            let input = input();
            let at = Instant::now();
            let output = run(input)?;
            times.push(at.elapsed());
            drop(output);
        }
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        let (p50, p99) = quantiles(times);
        println!("{name:<34} {:>8.2} {:>8.2}", micros(p50), micros(p99));
        Ok(())
    }

    fn throughput(&self) -> anyhow::Result<()> {
        println!("\ncalls a second");
        for (what, reuse) in [("fresh instances", false), ("reused instances", true)] {
            let tool = self.load("stats", Kind::Component, examples::STATS, reuse)?;
            for threads in [1, 2] {
                println!(
                    "{what}, {threads} thread(s): {:.0}",
                    self.on_threads(&tool, "describe", &table_arguments(), threads)
                );
            }
            let queued = self.runtime.block_on(through_the_pool(&tool, self.budget));
            println!("{what}, 16 callers through the guest threads: {queued:.0}");
        }
        Ok(())
    }

    fn on_threads(&self, tool: &SandboxedTool, function: &str, arguments: &Value, threads: usize) -> f64 {
        let calls = AtomicU64::new(0);
        let started = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while started.elapsed() < self.budget {
                        let called = tool.call_here(function, arguments.clone(), CallContext::default());
                        calls.fetch_add(u64::from(called.result.is_ok()), Ordering::Relaxed);
                    }
                });
            }
        });
        calls.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64()
    }

    fn memory(&self) -> anyhow::Result<()> {
        let before = resident_kb();
        let started = Instant::now();
        let servers = (0..SERVERS)
            .map(|n| self.load(&format!("stats-{n}"), Kind::Component, examples::STATS, false))
            .collect::<Result<Vec<_>, _>>()?;
        let (took, after) = (started.elapsed(), resident_kb());
        let each = |now: u64| now.saturating_sub(before) / SERVERS as u64;
        println!("\n{SERVERS} servers loaded from the cache in {took:.0?}, {} KB each", each(after));
        for server in &servers {
            well(server.call_here("describe", table_arguments(), CallContext::default()))?;
        }
        println!("after a call of each: {} KB each", each(resident_kb()));
        Ok(())
    }

    fn guest(&self, folder: &Path, name: &str, kind: Kind, function: &str, arguments: Value) -> anyhow::Result<()> {
        let path = folder.join(format!("{name}.wasm"));
        let Ok(wasm) = std::fs::read(&path) else {
            println!("\n{name}: not measured, {} is not there", path.display());
            return Ok(());
        };
        self.loading(name, kind, &wasm)?;
        let fresh = self.load(name, kind, &wasm, false)?;
        let here = |tool: &SandboxedTool, arguments| well(tool.call_here(function, arguments, CallContext::default()));
        self.row(&format!("{name}, fresh instance"), || arguments.clone(), |arguments| here(&fresh, arguments))?;
        let rate = |what: &str, tool: &SandboxedTool| {
            let [one, two] = [1, 2].map(|threads| self.on_threads(tool, function, &arguments, threads));
            println!("{name}, {what}: {one:.0} calls a second on one thread, {two:.0} on two");
        };
        rate("fresh instances", &fresh);
        if kind == Kind::Component {
            let reused = self.load(name, kind, &wasm, true)?;
            self.row(&format!("{name}, reused instance"), || arguments.clone(), |arguments| here(&reused, arguments))?;
            rate("reused instances", &reused);
        }
        Ok(())
    }
}

/// A figure for calls that fail would be worth nothing.
fn well(called: FinishedCall) -> anyhow::Result<FinishedCall> {
    ensure!(called.result.as_ref().is_ok_and(|result| !result.is_error), "{:?}", called.result);
    Ok(called)
}

fn table_arguments() -> Value {
    json!({ "columns": ["x", "y"], "rows": [[1, 2.5], [2, 3.5], [3, null], [4, 10]] })
}

/// What the tool does, without the sandbox.
fn native(text: &str) -> Option<String> {
    let table: table::Table = serde_json::from_str(text).ok()?;
    let columns: Vec<Value> = table
        .columns
        .iter()
        .enumerate()
        .map(|(index, name)| {
            let numbers = table.numbers(index);
            let s = table::Summary::of(&numbers);
            json!({ "column": name, "count": numbers.len(), "sum": s.sum, "mean": s.mean, "deviation": s.deviation,
                "min": s.min, "median": s.median, "max": s.max })
        })
        .collect();
    Some(json!({ "rows": table.rows.len(), "columns": columns }).to_string())
}

fn quantiles(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    (at(0.5), at(0.99))
}

async fn through_the_pool(tool: &SandboxedTool, budget: Duration) -> f64 {
    let calls = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let callers: Vec<_> = (0..16)
        .map(|_| {
            let (tool, arguments, calls) = (tool.clone(), table_arguments(), calls.clone());
            tokio::spawn(async move {
                while started.elapsed() < budget {
                    let called = tool.call("describe", arguments.clone(), CallContext::default()).await;
                    calls.fetch_add(u64::from(called.result.is_ok()), Ordering::Relaxed);
                }
            })
        })
        .collect();
    for caller in callers {
        let _ = caller.await;
    }
    calls.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64()
}

fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}
