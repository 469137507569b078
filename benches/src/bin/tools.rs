//! What a tool call costs: `cargo run --release -p caxton-benches --bin tools`.
//!
//! Each figure stands beside its control, the same computation called natively with the same JSON in and out.

#[path = "../../../node/tools/examples/rust/stats/src/table.rs"]
#[allow(dead_code)]
mod table;

use caxton_tools::{CallContext, Grants, Kind, Limits, Sandbox, SandboxedTool, Settings, Spec, Tool, examples};
use serde_json::{Value, json};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const BUDGET: Duration = Duration::from_secs(3);
const SERVERS: usize = 1_000;

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let cache = tempfile::tempdir()?;
    let settings = Settings { cache: Some(cache.path().to_owned()), ..Settings::default() };
    let sandbox = Sandbox::new(settings, runtime.handle().clone());
    let arguments = json!({ "columns": ["x", "y"], "rows": [[1, 2.5], [2, 3.5], [3, null], [4, 10]] });

    let started = Instant::now();
    let stats = load(&sandbox, "stats")?;
    println!("stats, {} KB: compiled and loaded in {:?}", examples::STATS.len() >> 10, started.elapsed());
    let started = Instant::now();
    drop(load(&sandbox, "stats")?);
    println!("loaded from the cache in {:?}", started.elapsed());

    println!("\none call, microseconds         p50      p99");
    let text = arguments.to_string();
    row("native (control)", || drop(black_box(native(black_box(&text)))));
    row("fresh instance, same thread", || drop(stats.call_here("describe", arguments.clone(), CallContext::default())));
    let call = || async { stats.call("describe", arguments.clone(), CallContext::default()).await };
    row("fresh instance, guest thread", || drop(runtime.block_on(call())));

    println!("\ncalls a second, fresh instances");
    for threads in [1, 2] {
        println!("{threads} threads: {:.0}", throughput(&stats, &arguments, threads));
    }
    println!("through the guest threads, 16 callers: {:.0}", runtime.block_on(async_throughput(&stats, &arguments)));

    let before = resident_kb();
    let started = Instant::now();
    let servers: Vec<_> = (0..SERVERS).map(|n| load(&sandbox, &format!("stats-{n}"))).collect::<Result<_, _>>()?;
    let (took, after) = (started.elapsed(), resident_kb());
    println!("\n{SERVERS} servers loaded from the cache in {took:?}, {} KB each", (after - before) / SERVERS as u64);
    for server in &servers {
        drop(server.call_here("describe", arguments.clone(), CallContext::default()));
    }
    println!("after a call of each: {} KB each", (resident_kb() - before) / SERVERS as u64);
    Ok(())
}

fn load(sandbox: &Sandbox, name: &str) -> anyhow::Result<SandboxedTool> {
    let spec = Spec {
        name: name.into(),
        kind: Kind::Component,
        grants: Grants::default(),
        limits: Limits { concurrent_calls: 64, ..Limits::default() },
    };
    Ok(sandbox.load(spec, examples::STATS)?)
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

fn row(name: &str, mut run: impl FnMut()) {
    for _ in 0..100 {
        run();
    }
    let (started, mut times) = (Instant::now(), Vec::new());
    while started.elapsed() < BUDGET {
        let at = Instant::now();
        run();
        times.push(at.elapsed());
    }
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
    println!("{name:<28} {:>7.2} {:>8.2}", at(0.5), at(0.99));
}

fn throughput(tool: &SandboxedTool, arguments: &Value, threads: usize) -> f64 {
    let calls = AtomicU64::new(0);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while started.elapsed() < BUDGET {
                    drop(tool.call_here("describe", arguments.clone(), CallContext::default()));
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    calls.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64()
}

async fn async_throughput(tool: &SandboxedTool, arguments: &Value) -> f64 {
    let calls = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let callers: Vec<_> = (0..16)
        .map(|_| {
            let (tool, arguments, calls) = (tool.clone(), arguments.clone(), calls.clone());
            tokio::spawn(async move {
                while started.elapsed() < BUDGET {
                    tool.call("describe", arguments.clone(), CallContext::default()).await;
                    calls.fetch_add(1, Ordering::Relaxed);
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
