//! What a call costs in Extism: the same table described by the same code as in benches/src/bin/tools.rs.
//!
//! `cargo run --release -- GUEST.wasm [SECONDS]`; guest/ is the guest. A fresh plugin for each call is what Caxton does by
//! default, one plugin for all of them what it does where `reuse` is granted.

use anyhow::{Context, Result, ensure};
use extism::{CompiledPlugin, Manifest, Plugin, PluginBuilder, Wasm};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const INPUT: &str = r#"{"columns":["x","y"],"rows":[[1,2.5],[2,3.5],[3,null],[4,10]]}"#;
const WARM_UP_CALLS: usize = 200;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let wasm = std::fs::read(arguments.next().context("usage: extism-peer GUEST.wasm [SECONDS]")?)?;
    let budget = Duration::from_secs_f64(arguments.next().map_or(Ok(3.0), |seconds| seconds.parse())?);
    let kilobytes = wasm.len() >> 10;
    println!("load average before: {}", std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());
    let started = Instant::now();
    let compiled = CompiledPlugin::new(PluginBuilder::new(Manifest::new([Wasm::data(wasm)])))?;
    println!("guest, {kilobytes} KB: compiled in {:.0?}", started.elapsed());
    let fresh = || call(&mut Plugin::new_from_compiled(&compiled)?);
    let mut plugin = Plugin::new_from_compiled(&compiled)?;
    println!("\none call, microseconds                 p50      p99");
    row("extism, fresh plugin", budget, fresh)?;
    row("extism, reused plugin", budget, || call(&mut plugin))?;
    println!("\ncalls a second, fresh plugins");
    for threads in [1, 2] {
        println!("{threads} thread(s): {:.0}", throughput(threads, budget, &fresh));
    }
    Ok(())
}

fn call(plugin: &mut Plugin) -> Result<String> {
    let output: String = plugin.call("describe", INPUT)?;
    ensure!(output.contains(r#""rows":4"#), "{output}");
    Ok(output)
}

fn row(name: &str, budget: Duration, mut run: impl FnMut() -> Result<String>) -> Result<()> {
    for _ in 0..WARM_UP_CALLS {
        run()?;
    }
    let (started, mut times) = (Instant::now(), Vec::new());
    while started.elapsed() < budget {
        let at = Instant::now();
        let output = run()?;
        times.push(at.elapsed());
        drop(output);
    }
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
    println!("{name:<34} {:>8.2} {:>8.2}", at(0.5), at(0.99));
    Ok(())
}

fn throughput(threads: usize, budget: Duration, run: &(impl Fn() -> Result<String> + Sync)) -> f64 {
    let calls = AtomicU64::new(0);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while started.elapsed() < budget {
                    calls.fetch_add(u64::from(run().is_ok()), Ordering::Relaxed);
                }
            });
        }
    });
    calls.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64()
}
