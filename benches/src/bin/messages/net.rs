//! Conversations: a contract net with many who bid, and many that are open.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use caxton_benches::figures::Figures;
use caxton_benches::http::Pool;
use serde_json::{Value, json};

use super::hear::{Heard, hear};
use super::place::{Folder, Place};
use super::{Bench, row, say};

/// How many receivers one message has at most.
const RECEIVERS_MAX: usize = 64;
/// How often the work is given away.
const NETS: usize = 5;
/// Conversations that are begun at once.
const BEGUN_AT_ONCE: usize = 16;

/// Gives work away: a person calls for proposals, hears each bid, and awards one of them once the last is there.
pub async fn contract_net(bench: &Bench<'_>) -> Result<()> {
    let (workspace, bidders) = ("net", bench.args.bidders);
    let place = Place::open(bench, "net")?;
    let folder = Folder::new(bench.dir.join("net").join(workspace), workspace)?;
    for number in 0..bidders {
        folder.add(&format!("bidder-{number}"), "[messages]")?;
    }
    place.deploy(bench.caxton, &folder)?;
    let (mut decided, mut whole) = (Vec::new(), Vec::new());
    for number in 0..NETS {
        let (took, of) = one(&place, workspace, &format!("net-{number}"), bidders).await?;
        decided.push(took);
        whole.push(of);
    }
    let spent = whole.iter().sum();
    let what = format!("a contract net with {bidders} bidders, from its first message until all were told");
    row(&what, &Figures::of(whole, spent)?, "")?;
    let spent = decided.iter().sum();
    row("from the last bid until all were told", &Figures::of(decided, spent)?, &format!("of {NETS} nets"))?;
    place.node.stop()
}

/// One net: how long it took from its last bid on, and from its beginning.
async fn one(place: &Place, workspace: &str, conversation: &str, bidders: usize) -> Result<(Duration, Duration)> {
    let (address, token) = (place.node.address.clone(), place.node.token()?);
    let path = format!("/api/v1/workspaces/{workspace}/conversations/{conversation}/events?follow=true&after=0");
    let is = |heard: &Heard, what: &str| heard.event().is_ok_and(|event| event["performative"] == what);
    let (told, bids) = tokio::sync::oneshot::channel();
    let hearing = tokio::task::spawn_blocking(move || {
        let heard = hear(&address, &token, &path, |heard| {
            heard.len() > bidders && heard.iter().filter(|one| is(one, "propose")).count() == bidders
        })?;
        // Nobody hears it only where the rest has failed.
        let _ = told.send(heard.last().map(|last| last.at));
        anyhow::Ok(())
    });
    let began = std::time::Instant::now();
    let receivers: Vec<String> = (0..bidders).map(|number| format!("bidder-{number}")).collect();
    for some in receivers.chunks(RECEIVERS_MAX) {
        say_to(place, workspace, conversation, "cfp", some).await?;
    }
    let last = bids.await.ok().flatten();
    hearing.await??;
    let last = last.context("no bid came")?;
    say_to(place, workspace, conversation, "accept-proposal", &receivers[..1]).await?;
    for some in receivers[1..].chunks(RECEIVERS_MAX) {
        say_to(place, workspace, conversation, "reject-proposal", some).await?;
    }
    Ok((last.elapsed(), began.elapsed()))
}

async fn say_to(place: &Place, workspace: &str, conversation: &str, what: &str, to: &[String]) -> Result<()> {
    let mut message = json!({
        "performative": what, "receiver": to, "protocol": "fipa-contract-net", "conversation_id": conversation,
        "content": { "task": "carry a parcel" },
    });
    if what == "cfp" {
        // Far enough away to end nothing here.
        message["reply_by"] = json!("2100-01-01T00:00:00Z");
    }
    place.admin.post(&format!("/api/v1/workspaces/{workspace}/mailbox"), &json!({ "message": message })).await?;
    Ok(())
}

/// What a node has in memory for each conversation that is open: requests to a person who never answers.
pub async fn open_conversations(bench: &Bench<'_>) -> Result<()> {
    let (workspace, wanted) = ("open", bench.args.conversations);
    let place = Place::open(bench, "open")?;
    let folder = Folder::new(bench.dir.join("open").join(workspace), workspace)?;
    folder.add("echo", "[messages]")?;
    place.deploy(bench.caxton, &folder)?;
    let pool = Pool::open(&place.node.address, BEGUN_AT_ONCE, &place.node.token()?).await?;
    begin(&pool, workspace, 0..100).await?;
    let before = place.node.settled_rss()?;
    let figures = begin(&pool, workspace, 100..100 + wanted).await?;
    let after = place.node.settled_rss()?;
    let each = after.saturating_sub(before) as f64 / wanted as f64;
    let last: Value =
        place.admin.get(&format!("/api/v1/workspaces/{workspace}/conversations/open-{}/events", 99 + wanted)).await?;
    ensure!(last["open"] == true, "the last conversation is not open: {last}");
    row(
        &format!("{wanted} conversations begun and open, {BEGUN_AT_ONCE} clients"),
        &figures,
        &format!("{each:.0} bytes of memory each, {:.1} MB before", before as f64 / 1e6),
    )?;
    say(&["", "", "", "", &format!("{:.1} MB after", after as f64 / 1e6)])?;
    place.node.stop()
}

async fn begin(pool: &Pool, workspace: &str, numbers: std::ops::Range<usize>) -> Result<Figures> {
    let path: std::sync::Arc<str> = format!("/api/v1/workspaces/{workspace}/mailbox").into();
    let next = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(numbers.start));
    let began = std::time::Instant::now();
    let tasks = (0..BEGUN_AT_ONCE).map(|client| {
        let (pool, path, next) = (pool.clone(), path.clone(), next.clone());
        tokio::spawn(async move {
            let mut times = Vec::new();
            loop {
                let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if number >= numbers.end {
                    return anyhow::Ok(times);
                }
                let message = json!({
                    "performative": "request", "receiver": "subject:silent", "content": "Are you there?",
                    "protocol": "fipa-request", "conversation_id": format!("open-{number}"),
                });
                let before = std::time::Instant::now();
                pool.post(client, &path, json!({ "message": message }).to_string()).await?;
                times.push(before.elapsed());
            }
        })
    });
    let mut times = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        times.extend(task.await??);
    }
    Figures::of(times, began.elapsed())
}
