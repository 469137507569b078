//! The groups of three nodes in one simulated network, on disks that lose what was not synced: the same seed gives the same
//! trace, to the byte, and nothing acknowledged is lost.
//!
//! To see one run: `CAXTON_SIMULATION=7 CAXTON_SIMULATION_TRACE=/tmp/trace cargo test -p caxton-raft --test simulation
//! -- --exact one_run`.
#![allow(clippy::unwrap_used)]

mod seed;

mod trace;

mod disk;

mod history;

mod lines;

mod node;

mod schedule;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use self::disk::Platter;
use self::lines::name;
use self::node::NODES;
use self::schedule::{LOAD_TO_MS, Schedule};
use self::seed::Run;
use self::trace::find;

/// How long the nodes have at most to come together after the faults.
const CONVERGE_MAX: Duration = Duration::from_secs(60);

/// Runs one seed to its end.
fn simulate(seed: u64, lies: bool) -> Run {
    let mut settings = turmoil::Builder::new();
    settings.rng_seed(seed).epoch(SystemTime::UNIX_EPOCH).tick_duration(Duration::from_millis(1));
    settings.max_message_latency(schedule::LATENCY_MAX).tcp_capacity(4096).enable_random_order();
    settings.simulation_duration(Duration::from_millis(LOAD_TO_MS) + CONVERGE_MAX * 2);
    let mut sim = settings.build();
    let platters: Vec<_> = NODES.iter().map(|_| Arc::new(Platter::new(lies))).collect();
    for (node, platter) in NODES.into_iter().zip(&platters) {
        let platter = Arc::clone(platter);
        sim.host(name(node), move || node::run(node, Arc::clone(&platter)));
    }
    for number in [1, 2] {
        sim.client(format!("client-{number}"), schedule::client(number));
    }
    let mut schedule = Schedule::draw();
    let deadline = Duration::from_millis(LOAD_TO_MS) + CONVERGE_MAX;
    let (mut asked, mut together) = (false, false);
    while !(asked && together && schedule.is_over()) {
        schedule.play(&mut sim, &platters);
        if sim.elapsed() > deadline {
            find(format!("{CONVERGE_MAX:?} after the faults the nodes had not come together"));
            break;
        }
        match sim.step() {
            Ok(done) => asked = done,
            Err(error) => {
                find(format!("a node ended: {error}"));
                break;
            }
        }
        together = asked && {
            let logs = node::logs();
            logs.iter().all(|(_, log)| log.len() == logs[0].1.len())
        };
    }
    history::end(&node::logs())
}

#[test]
fn one_run() {
    let (seed, wrong) = seed::chosen();
    let run = seed::on_a_seeded_thread(seed, || simulate(seed, wrong == "lies"));
    println!("seed {seed}: {} events, {} findings", run.trace.lines().count(), run.findings.len());
    run.tell();
}

#[test]
fn one_seed_gives_one_trace_and_nothing_acknowledged_is_lost() {
    // The 13th found that a leader which was restarted read less than it had acknowledged, the 73rd two leaders of one term.
    // The 41st is one of twelve in 150 that find a leader which sent ahead and goes on in its term after a restart.
    let runs = ["1", "2", "13", "41", "73"].map(|seed| {
        let (run, again) = (Run::of("one_run", seed), Run::of("one_run", seed));
        assert!(run.findings.is_empty(), "seed {seed}: {:#?}", run.findings);
        assert!(run.trace == again.trace, "seed {seed}, {}", seed::first_difference(&run.trace, &again.trace));
        run
    });
    for (number, one) in runs.iter().enumerate() {
        assert!(runs[..number].iter().all(|other| one.trace != other.trace), "two seeds have one trace");
    }
    // The control of the schedule: a run in which nothing happens would pass as well.
    for happened in ["CutPower(", "Kill(", "Part(", "Mute(", "makes a snapshot", "takes a snapshot", "is Leader"] {
        let seen: usize = runs.iter().map(|run| run.trace.matches(happened).count()).sum();
        assert!(seen > 0, "{happened} did not happen in any of the runs");
    }
}

#[test]
fn a_disk_that_says_synced_and_is_not_is_found_out() {
    let run = Run::of("one_run", "1:lies");
    assert!(!run.findings.is_empty(), "nothing was found");
}
