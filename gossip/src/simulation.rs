//! Four members in one simulated network that loses, delays and cuts, among strangers and somebody who sends again what
//! was sent: the same seed gives the same trace, to the byte, and what a member believes is what the others said.
//!
//! All of it is the real thing, sealing and chitchat's wire format included; only the sockets are turmoil's.
//! To see one run: `CAXTON_SIMULATION=7 CAXTON_SIMULATION_TRACE=/tmp/trace cargo test -p caxton-gossip --lib -- --exact
//! simulation::one_run`.

mod wire;

mod host;

mod belief;

mod schedule;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use self::host::{EAVESDROPPER, MEMBERS, OTHER_KEY, UNSEALED, name};
use self::schedule::{END_MS, Schedule};
use self::wire::Coder;
use crate::seed::{self, Run};
use crate::trace::{self, find};

/// What is wrong on purpose in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// A node that starts again is in the generation that it was in before.
    OneGeneration,
    /// Members take what does not open for what a member said.
    Unsealed,
}

impl Wrong {
    fn of(text: &str) -> Wrong {
        match text {
            "" => Wrong::Nothing,
            "one-generation" => Wrong::OneGeneration,
            "unsealed" => Wrong::Unsealed,
            _ => panic!("nothing is wrong in the way of {text:?}"),
        }
    }
}

/// What all hosts of a run share.
struct World {
    addresses: BTreeMap<u64, IpAddr>,
    /// Where a member keeps its generation.
    folder: PathBuf,
    coder: Coder,
    wrong: Wrong,
}

/// Runs one seed to its end; one in which something is wrong on purpose, until that is found.
fn simulate(seed: u64, wrong: Wrong) -> Run {
    let mut settings = turmoil::Builder::new();
    settings.rng_seed(seed).epoch(SystemTime::UNIX_EPOCH).tick_duration(Duration::from_millis(1));
    settings.max_message_latency(schedule::LATENCY_MAX).udp_capacity(1_024).enable_random_order();
    settings.simulation_duration(Duration::from_millis(END_MS * 2));
    let coder = Coder::start();
    let mut sim = settings.build();
    let folder = seed::folder_in(std::env::temp_dir()).expect("a folder");
    let all = || MEMBERS.into_iter().chain([OTHER_KEY, UNSEALED, EAVESDROPPER]);
    let addresses = all().map(|node| (node, sim.lookup(name(node)))).collect();
    let world = Rc::new(World { addresses, folder: folder.path().to_owned(), coder, wrong });
    for node in all().filter(|node| *node != EAVESDROPPER) {
        let world = Rc::clone(&world);
        sim.host(name(node), move || host::run(node, Rc::clone(&world)));
    }
    sim.host(name(EAVESDROPPER), move || host::eavesdrop(Rc::clone(&world)));
    let mut schedule = Schedule::draw();
    while sim.elapsed() < Duration::from_millis(END_MS) && (wrong == Wrong::Nothing || belief::is_right()) {
        schedule.play(&mut sim);
        if let Err(error) = sim.step() {
            find(format!("a node ended: {error}"));
            break;
        }
    }
    trace::end()
}

#[test]
fn one_run() {
    let (seed, wrong) = seed::chosen();
    let run = seed::on_a_seeded_thread(seed, || simulate(seed, Wrong::of(&wrong)));
    println!("seed {seed}: {} events, {} findings", run.trace.lines().count(), run.findings.len());
    run.tell();
}

#[test]
fn one_seed_gives_one_trace_and_members_believe_what_the_others_said() {
    // The 49th found that members went back to an earlier life of one when its datagrams were sent again.
    let runs = ["1", "2", "49"].map(|seed| {
        let (run, again) = std::thread::scope(|scope| {
            let again = scope.spawn(|| Run::of("simulation::one_run", seed));
            (Run::of("simulation::one_run", seed), again.join().expect("it runs"))
        });
        assert!(run.findings.is_empty(), "seed {seed}: {:#?}", run.findings);
        assert!(run.trace == again.trace, "seed {seed}, {}", seed::first_difference(&run.trace, &again.trace));
        run
    });
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        assert!(runs[one].trace != runs[other].trace, "two seeds have one trace");
    }
    // The control of the schedule: a run in which nothing happens would pass as well.
    for happened in ["Kill(", "Start(", "Part(", "Mute(", "Slow(", "Farewell(", " joined as", " restarted as", " gone"]
    {
        let seen: usize = runs.iter().map(|run| run.trace.matches(happened).count()).sum();
        assert!(seen > 0, "{happened} did not happen in any of the runs");
    }
}

#[test]
fn generations_that_do_not_grow_are_found_out() {
    let run = Run::of("simulation::one_run", "1:one-generation");
    assert!(!run.findings.is_empty(), "nothing was found");
}

#[test]
fn a_transport_that_takes_unsealed_datagrams_is_found_out() {
    let run = Run::of("simulation::one_run", "1:unsealed");
    assert!(run.findings.iter().any(|it| it.contains("no member")), "{:#?}", run.findings);
}
