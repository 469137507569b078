//! Many schedules that tick in the same moment: how late each message is, by the node's clock and by that of a client who follows.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use caxton_benches::figures::Figures;

use super::hear::{hear, ms_of_day};
use super::place::{Folder, Place};
use super::{Bench, row};

const WORKSPACE: &str = "ticks";
/// The most schedules of one agent is 32; so many of them are taken.
const OF_ONE_AGENT: usize = 25;
/// Time between two ticks of each, in milliseconds.
const EVERY_MS: f64 = 10_000.0;
/// How many times all of them tick.
const ROUNDS: usize = 2;

pub async fn measure(bench: &Bench<'_>) -> Result<()> {
    let wanted = bench.args.schedules;
    let place = Place::open(bench, "schedules")?;
    let folder = Folder::new(bench.dir.join("schedules").join(WORKSPACE), WORKSPACE)?;
    for agent in 0..wanted.div_ceil(OF_ONE_AGENT) {
        let own = OF_ONE_AGENT.min(wanted - agent * OF_ONE_AGENT);
        let schedule = |number: usize| {
            format!("[[schedule]]\nname = \"tick-{number}\"\nevery = \"10s\"\nmessage = \"Look after it.\"\n")
        };
        let all: Vec<String> = (0..own).map(schedule).collect();
        folder.add(&format!("clock-{agent}"), &format!("[messages]\n\n{}", all.join("\n")))?;
    }
    place.deploy(bench.caxton, &folder)?;
    let before = place.admin.newest(WORKSPACE).await?;
    let path = format!("/api/v1/workspaces/{WORKSPACE}/mailbox/events?follow=true&after={before}");
    let (address, token) = (place.node.address.clone(), place.node.token()?);
    // The schedules that begin in between may tick one by one: whole rounds are taken.
    let heard = tokio::task::spawn_blocking(move || {
        hear(&address, &token, &path, |heard| heard.len() >= (ROUNDS + 1) * wanted)
    })
    .await??;
    let heard = heard.get(heard.len() - ROUNDS * wanted..).context("ticks")?;
    let (mut sent, mut told) = (Vec::new(), Vec::new());
    for one in heard {
        let wall = one.wall.duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64() * 1e3;
        sent.push(Duration::from_secs_f64(ms_of_day(&one.event()?)? % EVERY_MS / 1e3));
        told.push(Duration::from_secs_f64(wall % EVERY_MS / 1e3));
    }
    let (first, last) = (sent.iter().max().copied(), told.iter().max().copied());
    let latest = |of: Option<Duration>| format!("the latest {:.1} ms", of.unwrap_or_default().as_secs_f64() * 1e3);
    let took = Duration::from_secs_f64(EVERY_MS / 1e3 * ROUNDS as f64);
    row(
        &format!("{wanted} schedules, after their time, as the node proposes them"),
        &Figures::of(sent, took)?,
        &latest(first),
    )?;
    row("the same, as somebody hears who follows them", &Figures::of(told, took)?, &latest(last))?;
    place.node.stop()
}
