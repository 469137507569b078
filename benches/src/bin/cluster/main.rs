//! What three processes on loopback do: how long the cluster is without a leader, what a hop costs, how soon a deployment is
//! live everywhere, and how many commands of 256 bytes its log takes, beside three etcd processes and a bare fdatasync in
//! the same run.
//!
//! `cargo run --release -p caxton-benches --bin cluster -- --dir DIR`, after `cargo build --release -p caxton`. DIR must be on
//! the disk that is meant. The machine has to be quiet: on a busy one every figure is the scheduler's.

mod etcd;
mod log;
mod soak;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use caxton_benches::cluster::{Cluster, PATIENCE};
use caxton_benches::figures::bare_fdatasync;
use clap::Parser;
use tokio::task::JoinSet;

use self::etcd::{Etcd, Putter};
use self::log::Voters;

/// The log's three processes are this program, and have what `caxton` has.
#[cfg(not(debug_assertions))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How long one of those that are compared puts before it is the next one's turn.
const TURN: Duration = Duration::from_millis(500);
/// Time between two requests while leadership is handed over: 100 in a second.
const BEAT: Duration = Duration::from_millis(10);

/// Failover, hand-over, deployments, hops and puts of three processes.
#[derive(Parser)]
struct Args {
    /// Where to write: a folder on the disk that is meant.
    #[arg(long, default_value = "target/bench-cluster")]
    dir: PathBuf,
    /// The program [default: the `caxton` beside this one].
    #[arg(long)]
    caxton: Option<PathBuf>,
    /// etcd's program; an empty text leaves etcd out.
    #[arg(long, default_value = "etcd")]
    etcd: String,
    /// How often the leader is killed.
    #[arg(long, default_value_t = 12)]
    kills: usize,
    /// How often leadership is handed over.
    #[arg(long, default_value_t = 12)]
    moves: usize,
    /// How many deployments.
    #[arg(long, default_value_t = 30)]
    deployments: usize,
    /// How long each measurement of puts takes, in seconds; whole turns of half a second.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Only lets messages come for so many minutes, by the clock, while one node is killed and comes back.
    #[arg(long, default_value_t = 0.0)]
    soak_minutes: f64,
    /// How many messages come in a second.
    #[arg(long, default_value_t = 1_000.0)]
    rate: f64,
    /// How many clients put at once, each waiting for its answer.
    #[arg(long, value_delimiter = ',', default_value = "1,64,256")]
    clients: Vec<usize>,
    /// Measure puts only.
    #[arg(long)]
    puts_only: bool,
    #[command(flatten)]
    serve: log::Serve,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    caxton::trust::install_provider();
    let args = Args::parse();
    if args.serve.voter.is_some() {
        return log::serve(&args.dir, args.serve).await;
    }
    let beside = std::env::current_exe()?.with_file_name("caxton");
    let program = args.caxton.clone().unwrap_or(beside);
    ensure!(program.exists(), "{} is not there: build it with `cargo build --release -p caxton`", program.display());
    std::fs::create_dir_all(&args.dir).with_context(|| format!("cannot make {}", args.dir.display()))?;
    let dir = tempfile::tempdir_in(&args.dir)?;
    let mut cluster = Cluster::start(&program, dir.path()).await?;
    if args.soak_minutes > 0.0 {
        row("control: append and fdatasync", bare_fdatasync(dir.path(), Duration::from_secs(1))?, "")?;
        return soak::run(&mut cluster, dir.path(), args.rate, args.soak_minutes).await;
    }
    let mut etcd = match args.etcd.as_str() {
        "" => None,
        program => Some(Etcd::start(program, &dir.path().join("etcd")).await?),
    };
    let appends = bare_fdatasync(dir.path(), Duration::from_secs_f64(args.seconds.min(2.0)))?;
    row("control: append and fdatasync", appends, "")?;
    if args.puts_only {
        return puts(&cluster, etcd.as_ref(), dir.path(), &args).await;
    }
    hops(&cluster).await?;
    deployments(&mut cluster, args.deployments).await?;
    puts(&cluster, etcd.as_ref(), dir.path(), &args).await?;
    hand_overs(&cluster, args.moves).await?;
    failovers(&mut cluster, etcd.as_mut(), args.kills).await
}

/// Prints a row of milliseconds.
fn row(what: &str, mut times: Vec<Duration>, more: &str) -> anyhow::Result<()> {
    ensure!(!times.is_empty(), "nothing was measured");
    times.sort_unstable();
    let ms = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    let (least, median, p99, most) = (ms(0.0), ms(0.5), ms(0.99), ms(1.0));
    let count = times.len();
    writeln!(
        std::io::stdout(),
        "{what:<44} {count:>7} times: median {median:>9.3} ms, least {least:>9.3}, p99 {p99:>9.3}, most {most:>9.3}{more}"
    )?;
    Ok(())
}

/// The same read at the leader and at a follower, one after the other, so that both meet the same machine.
async fn hops(cluster: &Cluster) -> anyhow::Result<()> {
    const READS: usize = 500;
    let leader = cluster.leader().await?;
    let follower = (leader + 1) % 3;
    let (mut at_leader, mut at_follower) = (Vec::new(), Vec::new());
    for _ in 0..READS {
        for (node, times) in [(leader, &mut at_leader), (follower, &mut at_follower)] {
            let before = Instant::now();
            cluster.get(node, "/api/v1/tokens").await?;
            times.push(before.elapsed());
        }
    }
    row("read at the leader", at_leader, "")?;
    row("the same read by way of a follower", at_follower, "")
}

/// From the start of `caxton deploy` at any node, the program's own start included, to live on all nodes.
async fn deployments(cluster: &mut Cluster, count: usize) -> anyhow::Result<()> {
    let mut times = Vec::new();
    for number in 1..=count {
        let began = Instant::now();
        let revision = cluster.deploy(number % 3, number).await?;
        for node in 0..3 {
            cluster.live(node, "bench", revision).await?;
        }
        times.push(began.elapsed());
    }
    row("deploy at any node to live on all", times, "")
}

/// Commands of 256 bytes: the replicated log's own behind etcd's protocol, etcd's, and the API's secrets of about that
/// length, each sealed, checked and replicated. They take turns, because a machine that is not ours alone changes its speed
/// within seconds.
async fn puts(cluster: &Cluster, etcd: Option<&Etcd>, dir: &Path, args: &Args) -> anyhow::Result<()> {
    let turns = (args.seconds / TURN.as_secs_f64()).ceil().max(1.0) as u32;
    let seconds = TURN * turns;
    let leader = cluster.leader().await?;
    for clients in args.clients.iter().copied() {
        let voters = Voters::start(&dir.join(format!("log-{clients}"))).await?;
        let log = voters.putters(clients).await?;
        let theirs = match etcd {
            Some(etcd) => etcd.putters(clients).await?,
            None => Vec::new(),
        };
        let api = cluster.putter(leader)?;
        let (mut in_log, mut in_etcd, mut by_api) = (Vec::new(), Vec::new(), Vec::new());
        for first in (0..turns).map(|turn| u64::from(turn) << 32) {
            in_log.extend(by(&log, clients, first).await?);
            if !theirs.is_empty() {
                in_etcd.extend(by(&theirs, clients, first).await?);
            }
            let api = api.clone();
            let put = move |client, number| {
                let api = api.clone();
                async move { api.put(client, number).await }
            };
            by_api.extend(drive(clients, TURN, put).await?);
        }
        rate(&format!("caxton's log, gRPC at the leader, c={clients}"), in_log, seconds)?;
        if !in_etcd.is_empty() {
            rate(&format!("etcd, gRPC at the leader, c={clients}"), in_etcd, seconds)?;
        }
        rate(&format!("caxton, API at the leader, c={clients}"), by_api, seconds)?;
    }
    Ok(())
}

/// Puts for one turn, under keys from `first` on.
async fn by(putters: &[Putter], clients: usize, first: u64) -> anyhow::Result<Vec<Duration>> {
    let putters = putters.to_vec();
    drive(clients, TURN, move |client, number| {
        let mut putter = putters[client % putters.len()].clone();
        async move { putter.put(client, first + number).await }
    })
    .await
}

fn rate(what: &str, times: Vec<Duration>, seconds: Duration) -> anyhow::Result<()> {
    let rate = times.len() as f64 / seconds.as_secs_f64();
    row(what, times, &format!("; {rate:.0}/s"))
}

/// Lets `clients` put for a while, each waiting for its answer before it puts again.
async fn drive<F, P>(clients: usize, seconds: Duration, put: F) -> anyhow::Result<Vec<Duration>>
where
    F: Fn(usize, u64) -> P + Clone + Send + 'static,
    P: Future<Output = anyhow::Result<()>> + Send,
{
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let put = put.clone();
        tasks.spawn(async move {
            let mut times = Vec::new();
            while start.elapsed() < seconds {
                let before = Instant::now();
                put(client, times.len() as u64).await?;
                times.push(before.elapsed());
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(done) = tasks.join_next().await {
        times.extend(done??);
    }
    Ok(times)
}

/// Hands leadership over again and again, under 100 writes a second that go to all nodes in turn.
async fn hand_overs(cluster: &Cluster, moves: usize) -> anyhow::Result<()> {
    let done = Arc::new(AtomicBool::new(false));
    let putters = (0..3).map(|node| cluster.putter(node)).collect::<anyhow::Result<Vec<_>>>()?;
    let stop = Arc::clone(&done);
    let load = tokio::spawn(async move {
        let (mut beat, mut under_way) = (tokio::time::interval(BEAT), JoinSet::new());
        for number in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            beat.tick().await;
            let putter = putters[number % 3].clone();
            under_way.spawn(async move {
                let before = Instant::now();
                let put = putter.put(number % 64, number as u64).await;
                (before.elapsed(), put.err())
            });
        }
        let mut all = Vec::new();
        while let Some(put) = under_way.join_next().await {
            all.push(put?);
        }
        anyhow::Ok(all)
    });
    let mut times = Vec::new();
    for _ in 0..moves {
        tokio::time::sleep(BEAT * 50).await;
        let leader = cluster.leader().await?;
        let before = Instant::now();
        cluster.hand_over(leader).await?;
        times.push(before.elapsed());
    }
    done.store(true, Ordering::Relaxed);
    let all = load.await??;
    let failed: Vec<_> = all.iter().filter_map(|(_, error)| error.as_ref()).collect();
    row("hand-over of the deploy log", times, "")?;
    row("writes meanwhile, 100/s", all.iter().map(|(time, _)| *time).collect(), &format!("; {} failed", failed.len()))?;
    if let Some(first) = failed.first() {
        writeln!(std::io::stdout(), "  the first failure: {first:#}")?;
    }
    Ok(())
}

/// Kills the leader, and waits for the next write that the rest acknowledges.
async fn failovers(cluster: &mut Cluster, mut etcd: Option<&mut Etcd>, kills: usize) -> anyhow::Result<()> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for number in 0..kills {
        let leader = cluster.leader().await?;
        let rest = [(leader + 1) % 3, (leader + 2) % 3];
        let putters = [cluster.putter(rest[0])?, cluster.putter(rest[1])?];
        for putter in &putters {
            putter.put(0, number as u64).await?;
        }
        let killed = cluster.kill(leader);
        let mut tries = 0;
        while putters[tries % 2].put(0, number as u64).await.is_err() {
            tries += 1;
            ensure!(killed.elapsed() < PATIENCE, "nobody took a write after the leader was killed");
        }
        ours.push(killed.elapsed());
        cluster.start_again(leader, 0).await?;
        if let Some(etcd) = etcd.as_deref_mut() {
            theirs.push(etcd.failover(number as u64).await?);
        }
    }
    row("caxton, kill -9 of the leader to the next write", ours, "")?;
    if !theirs.is_empty() {
        row("etcd, kill -9 of the leader to the next write", theirs, "")?;
    }
    Ok(())
}
