//! The faults of a run, drawn from its seed before it begins, and the clients that go on asking meanwhile.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use turmoil::Sim;

use crate::disk::Platter;
use crate::history;
use crate::lines::{self, Lines, name};
use crate::node::NODES;
use crate::seed::{draw, once_in};
use crate::trace::{find, note, note_at};

/// When faults begin, when all is put right, and when clients stop, in milliseconds.
const FAULTS_FROM_MS: u64 = 2_500;
const FAULTS_TO_MS: u64 = 24_000;
pub const LOAD_TO_MS: u64 = 26_000;
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a message takes at most, as long as nothing slows it down.
pub const LATENCY_MAX: Duration = Duration::from_millis(6);

/// What happens to nodes and lines.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// The process ends; what it wrote stays with the system.
    Kill(u64),
    /// The machine ends: what was not on disk is gone.
    CutPower(u64),
    /// The node is started.
    Start(u64),
    /// Nothing passes between two nodes.
    Part(u64, u64),
    /// Nothing passes from one to the other.
    Mute(u64, u64),
    /// All passes again.
    Join(u64, u64),
    /// Messages between two nodes take up to so many milliseconds.
    Slow(u64, u64, u64),
}

/// When what happens, in order.
pub struct Schedule(Vec<(u64, Event)>);

impl Schedule {
    pub fn draw() -> Schedule {
        let mut events = Vec::new();
        let mut at = FAULTS_FROM_MS;
        let mut all_at = draw(8, 14) * 1_000;
        while at < FAULTS_TO_MS - 3_000 {
            let until = at + draw(200, 3_000);
            let node = NODES[draw(0, 3) as usize];
            let others = NODES.into_iter().filter(|other| *other != node);
            let other = NODES[(node as usize - 1 + draw(1, 3) as usize) % 3];
            if at > all_at {
                all_at = u64::MAX;
                events.extend(NODES.map(|node| (at, Event::CutPower(node))));
                events.extend(NODES.map(|node| (at + draw(200, 2_000), Event::Start(node))));
            } else {
                match draw(0, 6) {
                    0 => events.extend([(at, Event::Kill(node)), (until, Event::Start(node))]),
                    1 => events.extend([(at, Event::CutPower(node)), (until, Event::Start(node))]),
                    2 => others
                        .for_each(|it| events.extend([(at, Event::Part(node, it)), (until, Event::Join(node, it))])),
                    3 => events.extend([(at, Event::Part(node, other)), (until, Event::Join(node, other))]),
                    4 => others
                        .for_each(|it| events.extend([(at, Event::Mute(node, it)), (until, Event::Join(node, it))])),
                    _ => {
                        let (ms, usual) = (draw(100, 700), LATENCY_MAX.as_millis() as u64);
                        events.extend([(at, Event::Slow(node, other, ms)), (until, Event::Slow(node, other, usual))]);
                    }
                }
            }
            // Some begin while the one before goes on.
            at = if once_in(3) { at + draw(100, 800) } else { until + draw(100, 1_500) };
        }
        events.sort_by_key(|(at, _)| *at);
        Schedule(events)
    }

    /// Does what is due.
    pub fn play(&mut self, sim: &mut Sim<'_>, platters: &[Arc<Platter>]) {
        let now = sim.elapsed().as_millis() as u64;
        let due = self.0.iter().take_while(|(at, _)| *at <= now).count();
        for (_, event) in self.0.drain(..due).collect::<Vec<_>>() {
            note_at(now, "schedule", &format!("{event:?}"));
            match event {
                Event::Kill(node) => sim.crash(name(node)),
                Event::CutPower(node) => {
                    sim.crash(name(node));
                    platters[node as usize - 1].cut_power();
                }
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
    }

    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }
}

/// Proposes and reads until the load is over, and then until one last command was acknowledged.
pub async fn client(number: u64) -> turmoil::Result {
    let (who, lines) = (format!("client-{number}"), Lines::default());
    let (mut node, mut count) = (NODES[0], 0);
    loop {
        let over = turmoil::sim_elapsed().unwrap_or_default() >= Duration::from_millis(LOAD_TO_MS);
        let went_well = match draw(0, 40) {
            0 if !over => hand_over(&lines, node).await,
            1..8 if !over => read(&lines, &who, node).await,
            _ => {
                count += 1;
                propose(&lines, &who, node, format!("{who} says {count}")).await
            }
        };
        match went_well {
            true if over => return Ok(()),
            true => (),
            false => node = NODES[draw(0, 3) as usize],
        }
        tokio::time::sleep(Duration::from_millis(draw(1, 40))).await;
    }
}

async fn propose(lines: &Lines, who: &str, node: u64, command: String) -> bool {
    let answer = lines.ask(node, lines::PROPOSE, &[command.as_bytes()], PATIENCE).await;
    let Ok((lines::DONE, index)) = answer else { return false };
    let index = u64::from_le_bytes(index[..].try_into().expect("eight bytes"));
    note(who, &format!("was told by {} that {command:?} is at {index}", name(node)));
    history::acknowledge(index, Bytes::from(command));
    true
}

/// A read sees everything that anybody was told of before it began.
async fn read(lines: &Lines, who: &str, node: u64) -> bool {
    let before = history::last_acknowledged();
    let Ok((lines::DONE, index)) = lines.ask(node, lines::READ, &[], PATIENCE).await else { return false };
    let index = u64::from_le_bytes(index[..].try_into().expect("eight bytes"));
    note(who, &format!("reads up to {index} at {}", name(node)));
    if index < before {
        find(format!("node {node} read up to {index}, and {before} was acknowledged before"));
    }
    true
}

async fn hand_over(lines: &Lines, node: u64) -> bool {
    let to = NODES[draw(0, 3) as usize];
    let done = lines.ask(node, lines::HAND_OVER, &[&to.to_le_bytes()], PATIENCE).await;
    let done = matches!(done, Ok((lines::DONE, _)));
    if done {
        note(&name(node), &format!("handed over to {}", name(to)));
    }
    done
}
