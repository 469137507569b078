//! A mailbox with very many messages, whose agent was away: how long after the node was started something of it can be read, and
//! how long after its agent came the first message is given to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use caxton_benches::figures::Figures;
use caxton_benches::http::Pool;

use super::place::{Folder, PATIENCE, Place};
use super::ways::Letter;
use super::{Bench, row, say};

const WORKSPACE: &str = "stock";
/// A sender may have half of a mailbox.
const SENDERS: usize = 64;
const POLL: Duration = Duration::from_millis(1);

pub async fn measure(bench: &Bench<'_>) -> Result<()> {
    let args = bench.args;
    let place = Place::open(bench, "stock")?;
    let data = place.node.data.clone();
    let folder = Folder::new(bench.dir.join("stock").join(WORKSPACE), WORKSPACE)?;
    folder.add("echo", "[messages]")?;
    place.deploy(bench.caxton, &folder)?;
    let figures = fill(&place, args.stock, args.bytes).await?;
    let what = format!("{} messages into the mailbox of an agent that is away, {SENDERS} senders", args.stock);
    row(&what, &figures, &format!("{:.1} MB of memory", place.node.rss()? as f64 / 1e6))?;
    // Nothing of what was just acknowledged may wait in memory alone.
    place.node.kill()?;

    let place = Place::start(bench.caxton, &data)?;
    let ready_ms = place.node.ready_ms;
    let began = Instant::now();
    let page = list(&place, "away", 50).await?;
    let listed_ms = ready_ms + began.elapsed().as_secs_f64() * 1e3;
    ensure!(page == 50.min(args.stock), "{page} messages are listed");
    say(&["from its start after kill -9 to /ready", "", &format!("{ready_ms:.1}"), "", ""])?;
    let note = format!("{:.1} MB of memory", place.node.rss()? as f64 / 1e6);
    say(&["from its start to the first 50 messages listed", "", &format!("{listed_ms:.1}"), "", &note])?;

    let before = place.admin.newest(WORKSPACE).await.context("what was said")?;
    folder.add("away", "[messages]")?;
    bench.caxton.deploy(&folder.path, &data)?;
    let live = Instant::now();
    place.admin.reaches(WORKSPACE, before + 1).await?;
    let first_ms = live.elapsed().as_secs_f64() * 1e3;
    say(&["from its agent's deployment to its first answer", "", &format!("{first_ms:.1}"), "", ""])?;
    place.node.stop()
}

async fn fill(place: &Place, wanted: usize, bytes: usize) -> Result<Figures> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = Vec::new();
    let began = Instant::now();
    for sender in 0..SENDERS {
        let token = place.admin.token(&format!("sender-{sender}")).await?;
        let pool = Pool::open(&place.node.address, 1, &token).await?;
        let conversation = Some(format!("stock-{sender}"));
        let letter = Letter {
            workspace: WORKSPACE.to_owned(),
            receiver: "away".to_owned(),
            text: "x".repeat(bytes),
            conversation,
        };
        let (body, next) = (letter.body(), Arc::clone(&next));
        tasks.push(tokio::spawn(async move {
            let mut times = Vec::new();
            while next.fetch_add(1, Ordering::Relaxed) < wanted {
                let before = Instant::now();
                pool.post(0, &format!("/api/v1/workspaces/{WORKSPACE}/mailbox"), body.clone()).await?;
                times.push(before.elapsed());
            }
            anyhow::Ok(times)
        }));
    }
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    Figures::of(times, began.elapsed())
}

/// How many messages are listed of a mailbox, once the node answers.
async fn list(place: &Place, owner: &str, most: usize) -> Result<usize> {
    let (path, began) = (format!("/api/v1/workspaces/{WORKSPACE}/mailbox?owner={owner}&limit={most}"), Instant::now());
    loop {
        match place.admin.get(&path).await {
            Ok(page) => return Ok(page["deliveries"].as_array().context("deliveries")?.len()),
            Err(error) => ensure!(began.elapsed() < PATIENCE, "nothing is listed: {error:#}"),
        }
        tokio::time::sleep(POLL).await;
    }
}
