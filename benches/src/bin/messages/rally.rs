//! A ball between two programs: each hop is a message that is started, handled, and settled in one entry with the next one.
//!
//! It is played twice. Unwatched, the times of its events, which are in milliseconds, give the mean; watched, the moments at which
//! a client that follows the conversation hears of them give the median and the 99th percentile, with what following costs.

use std::time::Duration;

use anyhow::{Context, Result};
use caxton_benches::figures::Figures;
use serde_json::json;

use super::hear::{hear, ms_of_day};
use super::place::{Folder, Place};
use super::{Bench, row, say};

const WORKSPACE: &str = "rally";
/// A conversation keeps so many events.
const EVENTS_KEPT: usize = 1_000;
/// The entries of the log that follow each other in a round trip: each of two messages is started, and settled with the next.
const ENTRIES: f64 = 4.0;
/// Events that are not counted: what is compiled and opened once is not what is measured.
const WARM_UP: usize = 20;

/// Measures round trips, and says what is left of them without the disk's part.
pub async fn measure(bench: &Bench<'_>, sync: Figures) -> Result<()> {
    let place = Place::open(bench, "rally")?;
    let folder = Folder::new(bench.dir.join("rally").join(WORKSPACE), WORKSPACE)?;
    folder.add("left", "[messages]")?;
    folder.add("right", "[messages]")?;
    place.deploy(bench.caxton, &folder)?;
    let hits = (2 * bench.args.round_trips).min(EVENTS_KEPT - 10);
    play(&place, "warm", WARM_UP, bench.args.bytes).await?;

    play(&place, "alone", hits, bench.args.bytes).await?;
    let times = event_times(&place, "alone").await?;
    let (first, last) = (times.get(WARM_UP).context("events")?, times.last().context("events")?);
    let trips = (times.len() - 1 - WARM_UP) as f64 / 2.0;
    let mean = (*last - *first) / trips;
    let rest = mean - ENTRIES * sync.ms().0;
    say(&[
        "a ball between two programs and back, mean",
        &format!("{:.0}", 1e3 / mean),
        &format!("{mean:.3}"),
        "",
        &format!("{rest:.3} ms less four fsyncs"),
    ])?;

    let token = place.node.token()?;
    let address = place.node.address.clone();
    let path = format!("/api/v1/workspaces/{WORKSPACE}/conversations/watched/events?follow=true&after=0");
    let (watched, heard) = tokio::join!(
        play(&place, "watched", hits, bench.args.bytes),
        tokio::task::spawn_blocking(move || hear(&address, &token, &path, |heard| heard.len() == events(hits))),
    );
    watched?;
    let heard = heard??;
    let heard = heard.get(WARM_UP..).context("events")?;
    let trips: Vec<Duration> = heard.windows(3).map(|three| three[2].at - three[0].at).collect();
    let took = heard[heard.len() - 1].at - heard[0].at;
    // They overlap: each hop begins one.
    let figures = Figures::of(trips, took * 2)?;
    let rest = figures.ms().0 - ENTRIES * sync.ms().0;
    row("the same, as somebody hears who follows it", &figures, &format!("p50 {rest:.3} ms less four fsyncs"))?;
    place.node.stop()
}

/// Has the ball played, and waits until the game is over.
async fn play(place: &Place, conversation: &str, hits: usize, bytes: usize) -> Result<()> {
    let before = place.admin.newest(WORKSPACE).await?;
    let content = format!("serve {hits} right {}", "x".repeat(bytes));
    let message =
        json!({ "performative": "request", "receiver": "left", "content": content, "conversation_id": conversation });
    place.admin.post(&format!("/api/v1/workspaces/{WORKSPACE}/mailbox"), &json!({ "message": message })).await?;
    // Whoever looked all the time would disturb the game.
    tokio::time::sleep(Duration::from_micros(100) * u32::try_from(hits)?).await;
    place.admin.reaches(WORKSPACE, before + events(hits) as u64).await
}

/// The service, the ball with which it begins and one for each hit, and that it is over.
fn events(hits: usize) -> usize {
    hits + 3
}

/// When each message of a conversation was taken in, in milliseconds.
async fn event_times(place: &Place, conversation: &str) -> Result<Vec<f64>> {
    let (mut times, mut after) = (Vec::new(), 0);
    loop {
        let path =
            format!("/api/v1/workspaces/{WORKSPACE}/conversations/{conversation}/events?after={after}&limit=500");
        let page = place.admin.get(&path).await?;
        let events = page["events"].as_array().context("events")?;
        for event in events {
            times.push(ms_of_day(event)?);
        }
        match page["next"].as_u64() {
            Some(next) => after = next,
            None => return Ok(times),
        }
    }
}
