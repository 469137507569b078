//! Many messages a second for minutes, through all three nodes, while one is killed and comes back: how long an answer takes,
//! and what the nodes' memory is at the start and at the end.
//!
//! Each message is counted from when it was due. One whose node is gone is sent to the next, with its idempotency key. The control is
//! the disk itself: for how long it completed nothing while something waited for it.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, ensure};
use caxton_benches::cluster::{Asker, Cluster, PATIENCE};
use caxton_benches::disk::{Standstill, Watch};
use serde_json::json;
use tokio::task::JoinSet;

use super::row;

/// How many workspaces the messages are spread over, so that every shard has some.
const WORKSPACES: u64 = 24;
/// How many messages can be under way; more would only wait in the client.
const UNDER_WAY_MAX: usize = 4_096;
/// How long a node that was killed stays away.
const AWAY: Duration = Duration::from_secs(10);
/// A node that came back has caught up when no group lacks more entries than this; under load there are always some.
const LAG_MAX: u64 = 500;
/// A message that took longer is said, with all that was tried.
const SLOW: Duration = Duration::from_secs(2);
/// How long to wait before the next node is tried.
const RETRY: Duration = Duration::from_millis(20);

/// A message that was answered.
#[derive(Debug, Clone, Copy)]
struct Answered {
    due: Instant,
    at: Instant,
}

/// Sends `rate` messages a second for `minutes`; the disk that is watched is that of `dir`.
pub async fn run(cluster: &mut Cluster, dir: &Path, rate: f64, minutes: f64) -> anyhow::Result<()> {
    for workspace in 0..WORKSPACES {
        cluster.deploy_script(&name(workspace)).await?;
    }
    // Memory grows while caches fill, so it is looked at after some of the load.
    let settled = Duration::from_secs_f64((minutes * 60.0 / 10.0).min(60.0));
    load(cluster, rate, settled, "messages before that, to fill what fills").await?;
    let before = cluster.memory_mib()?;
    let whole = Duration::from_secs_f64(minutes * 60.0);
    let third = whole / 3;
    let watch = Watch::start(dir)?;
    let mut all = load(cluster, rate, third, "messages, three nodes").await?;
    all.extend(load_without_one(cluster, rate, third).await?);
    all.extend(load(cluster, rate, third, "messages, three nodes again").await?);
    row("all of these messages", times(&all), "")?;
    if let Some(watch) = watch {
        beside_the_disk(&all, &watch.end()?)?;
    }
    let after = cluster.memory_mib()?;
    writeln!(std::io::stdout(), "memory of each node in MiB: {before:.0?} at the start, {after:.0?} at the end")?;
    Ok(())
}

/// Says how often and how long the disk stood still, and what the messages took that met none of it.
fn beside_the_disk(all: &[Answered], stills: &[Standstill]) -> anyhow::Result<()> {
    let lengths: Vec<Duration> = stills.iter().map(|still| still.until - still.from).collect();
    let (together, longest) = (lengths.iter().sum::<Duration>(), lengths.iter().max().copied().unwrap_or_default());
    writeln!(
        std::io::stdout(),
        "control: the disk completed nothing while something waited: {} times, {together:.2?} together, {longest:.2?} at most",
        stills.len()
    )?;
    if stills.is_empty() {
        return Ok(());
    }
    let meets = |message: &Answered| stills.iter().any(|still| message.due < still.until && still.from < message.at);
    let others: Vec<Answered> = all.iter().copied().filter(|message| !meets(message)).collect();
    row("messages that met none of that", times(&others), "")
}

fn times(messages: &[Answered]) -> Vec<Duration> {
    messages.iter().map(|message| message.at - message.due).collect()
}

/// A third of the time, in which a node is killed and comes back.
async fn load_without_one(cluster: &mut Cluster, rate: f64, seconds: Duration) -> anyhow::Result<Vec<Answered>> {
    let askers = cluster.askers();
    let sending = tokio::spawn(send(askers, rate, seconds));
    tokio::time::sleep(seconds / 4).await;
    let killed = cluster.leader().await?;
    cluster.kill(killed);
    tokio::time::sleep(AWAY.min(seconds / 4)).await;
    // It listens elsewhere now; the load goes on with the two others.
    cluster.start_again(killed, LAG_MAX).await?;
    let answered = sending.await??;
    row("messages, one node killed and back", times(&answered), "")?;
    Ok(answered)
}

async fn load(cluster: &Cluster, rate: f64, seconds: Duration, what: &str) -> anyhow::Result<Vec<Answered>> {
    let answered = send(cluster.askers(), rate, seconds).await?;
    let got = answered.len() as f64 / seconds.as_secs_f64();
    row(what, times(&answered), &format!("; {got:.0}/s"))?;
    Ok(answered)
}

async fn send(askers: Vec<Asker>, rate: f64, seconds: Duration) -> anyhow::Result<Vec<Answered>> {
    // Tells the messages of this load from those of the one before.
    let load = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos();
    let (start, mut under_way, mut answered) = (Instant::now(), JoinSet::new(), Vec::new());
    for number in 0..(rate * seconds.as_secs_f64()) as u64 {
        let due = start + Duration::from_secs_f64(number as f64 / rate);
        tokio::time::sleep_until(due.into()).await;
        while let Some(done) = under_way.try_join_next() {
            answered.push(done??);
        }
        if under_way.len() >= UNDER_WAY_MAX {
            let done = under_way.join_next().await.context("messages are under way")?;
            answered.push(done??);
        }
        let (askers, key) = (askers.clone(), format!("{load:x}-{number}"));
        under_way.spawn(async move { ask(&askers, number, key).await.map(|()| Answered { due, at: Instant::now() }) });
    }
    while let Some(done) = under_way.join_next().await {
        answered.push(done??);
    }
    Ok(answered)
}

/// Asks one node after the other until one answers. The key makes all of it one message.
async fn ask(askers: &[Asker], number: u64, key: String) -> anyhow::Result<()> {
    let (began, mut tried) = (Instant::now(), Vec::new());
    let message = json!({ "text": "hello", "agent": "greeter", "idempotency_key": key });
    for node in number as usize.. {
        let node = node % askers.len();
        let asked = Instant::now();
        let Err(error) = askers[node].ask(&name(number % WORKSPACES), &message).await else { break };
        ensure!(began.elapsed() < PATIENCE, "nobody answers: {error:#}");
        tried.push(format!("node {node} after {:.3} s: {error:#}", asked.elapsed().as_secs_f64()));
        tokio::time::sleep(RETRY).await;
    }
    if began.elapsed() > SLOW {
        writeln!(
            std::io::stderr(),
            "{} took {:.3} s: {tried:?}",
            name(number % WORKSPACES),
            began.elapsed().as_secs_f64()
        )?;
    }
    Ok(())
}

fn name(workspace: u64) -> String {
    format!("soak{workspace}")
}
