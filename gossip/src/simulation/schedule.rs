//! The faults of a run, drawn from its seed before it begins, and what has to be true when they are over.

use std::cell::Cell;
use std::time::Duration;

use turmoil::Sim;

use super::belief;
use super::host::{MEMBERS, name};
use crate::seed::{draw, once_in};
use crate::trace::note_at;

/// When faults begin, and when all is put right at the latest, in milliseconds.
const FAULTS_FROM_MS: u64 = 5_000;
const FAULTS_TO_MS: u64 = 40_000;
/// How long a fault lasts at most.
const FAULT_MAX_MS: u64 = 6_000;
/// How long members have at most, when all is put right, to find each other again.
const HEAL_MAX_MS: u64 = 5_000;
/// When one member ends for good: everybody has heard it for a while.
const FAREWELL_MS: u64 = FAULTS_TO_MS + 15_000;
/// How long the others may take to see that.
const DETECTION_MAX_MS: u64 = 3_000;
/// When a run is over.
pub const END_MS: u64 = FAREWELL_MS + DETECTION_MAX_MS + 7_000;
/// How long a datagram takes at most, as long as nothing slows it down.
pub const LATENCY_MAX: Duration = Duration::from_millis(10);

/// What has to be true now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Anybody may be out of reach.
    Faults,
    /// Everybody is there, and nobody may be taken for dead.
    Calm,
    /// One is about to be missed.
    Detection,
    /// One has ended, and nobody may believe it alive again.
    Without { gone: u64 },
}

thread_local! {
    static PHASE: Cell<Phase> = const { Cell::new(Phase::Faults) };
}

pub fn phase() -> Phase {
    PHASE.get()
}

/// What happens to hosts and lines.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// The process ends.
    Kill(u64),
    /// The node is started.
    Start(u64),
    /// Nothing passes between two nodes.
    Part(u64, u64),
    /// Nothing passes from one to the other.
    Mute(u64, u64),
    /// All passes again.
    Join(u64, u64),
    /// Datagrams between two nodes take up to so many milliseconds.
    Slow(u64, u64, u64),
    /// The process ends for good.
    Farewell(u64),
}

/// When what happens, in order.
pub struct Schedule {
    events: Vec<(u64, Event)>,
    /// When all is put right.
    right_at: u64,
    /// Whether all saw all after that.
    healed: bool,
    /// Which one ends for good.
    gone: u64,
}

impl Schedule {
    pub fn draw() -> Schedule {
        let (mut events, mut at, mut first) = (Vec::new(), FAULTS_FROM_MS, true);
        while at < FAULTS_TO_MS - FAULT_MAX_MS {
            let until = at + draw(100, FAULT_MAX_MS);
            let node = MEMBERS[draw(0, 4) as usize];
            let other = MEMBERS[(node as usize - 1 + draw(1, 4) as usize) % 4];
            let what = if std::mem::take(&mut first) { 0 } else { draw(0, 5) };
            match what {
                0 | 1 => events.extend([(at, Event::Kill(node)), (until, Event::Start(node))]),
                2 => {
                    for other in MEMBERS.into_iter().filter(|other| *other != node) {
                        events.extend([(at, Event::Part(node, other)), (until, Event::Join(node, other))]);
                    }
                }
                3 => events.extend([(at, Event::Mute(node, other)), (until, Event::Join(node, other))]),
                _ => {
                    let (slow, usual) = (draw(100, 1_500), LATENCY_MAX.as_millis() as u64);
                    events.extend([(at, Event::Slow(node, other, slow)), (until, Event::Slow(node, other, usual))]);
                }
            }
            // Some begin while the one before goes on.
            at = if once_in(3) { at + draw(100, 800) } else { until + draw(100, 2_000) };
        }
        events.sort_by_key(|(at, _)| *at);
        let right_at = events.last().map_or(FAULTS_FROM_MS, |(at, _)| *at);
        let gone = MEMBERS[draw(0, 4) as usize];
        events.push((FAREWELL_MS, Event::Farewell(gone)));
        Schedule { events, right_at, healed: false, gone }
    }

    /// Does what is due, and looks whether what is due is true.
    pub fn play(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed().as_millis() as u64;
        let left: Vec<u64> = MEMBERS.into_iter().filter(|node| *node != self.gone).collect();
        if now > self.right_at && !self.healed && belief::all_see_all(&MEMBERS).is_ok() {
            self.healed = true;
            note_at(now, "schedule", &format!("{} ms after all was put right all see all", now - self.right_at));
        }
        match now {
            _ if now == self.right_at + HEAL_MAX_MS => {
                belief::must_see_all(&MEMBERS, "when all had long been put right");
                PHASE.set(Phase::Calm);
            }
            FAREWELL_MS => {
                belief::must_see_all(&MEMBERS, "after a while in which nothing happened");
                PHASE.set(Phase::Detection);
            }
            _ if now == FAREWELL_MS + DETECTION_MAX_MS => {
                belief::must_see_all(&left, "when one had ended for good");
                PHASE.set(Phase::Without { gone: self.gone });
            }
            _ if now + 1 == END_MS => belief::must_see_all(&left, "in the end"),
            _ => (),
        }
        let due = self.events.iter().take_while(|(at, _)| *at <= now).count();
        for (_, event) in self.events.drain(..due).collect::<Vec<_>>() {
            note_at(now, "schedule", &format!("{event:?}"));
            happen(sim, event);
        }
    }
}

fn happen(sim: &mut Sim<'_>, event: Event) {
    match event {
        Event::Kill(node) | Event::Farewell(node) => sim.crash(name(node)),
        Event::Start(node) if sim.is_host_running(name(node)) => (),
        Event::Start(node) => sim.bounce(name(node)),
        Event::Part(one, other) => sim.partition(name(one), name(other)),
        Event::Mute(from, to) => sim.partition_oneway(name(from), name(to)),
        Event::Join(one, other) => {
            sim.repair_oneway(name(one), name(other));
            sim.repair_oneway(name(other), name(one));
            sim.repair(name(one), name(other));
        }
        Event::Slow(one, other, ms) => {
            sim.set_link_max_message_latency(name(one), name(other), Duration::from_millis(ms));
        }
    }
}
