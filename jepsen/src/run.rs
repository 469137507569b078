//! One run of one scenario: form, load and harm, put right, look, check, report.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::check::{self, Evidence, Finding};
use crate::cluster::{Cluster, SETTLE_WAIT, Shape};
use crate::delay;
use crate::disk::{self, Disk, Kind};
use crate::drill;
use crate::fault::{Plan, Step};
use crate::lock;
use crate::nemesis::Nemesis;
use crate::net;
use crate::node::Binary;
use crate::report::{Report, Verdict};
use crate::scenarios::{Need, Scenario};
use crate::work::{self, Load, Quirk};

/// How long clients go on after everything was put right, so that the end of a history is not its fault.
const CALM: Duration = Duration::from_secs(3);
/// Fewer acknowledged writes than this prove nothing.
const WRITES_MIN: usize = 10;
/// Where Debian and Fedora put libfaketime.
const FAKETIME: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

/// What a run goes by.
#[derive(Debug, Clone)]
pub struct Options {
    /// What is run.
    pub binary: Binary,
    /// Draws the schedule and the clients' choices.
    pub seed: u64,
    /// How long the load runs.
    pub seconds: u64,
    /// Where reports go.
    pub out: PathBuf,
    /// Plain loopback, also where namespaces can be made.
    pub loopback: bool,
    /// A defect in the clients.
    pub quirk: Quirk,
}

/// Why a scenario cannot run here.
pub fn lacks(scenario: &Scenario, options: &Options) -> Option<String> {
    let missing = |need: &Need| match need {
        Need::Namespaces if options.loopback => Some("plain loopback was asked for".to_owned()),
        Need::Namespaces => net::no_namespaces(),
        Need::Disk(kind) => disk::cannot(*kind, &options.out),
        Need::Strace => no_strace(),
        Need::Queue => delay::cannot(),
        Need::Faketime => no_faketime(&options.binary.caxton),
        Need::Backup => drill::cannot(&options.binary.caxton),
        Need::Other => options.binary.old.is_none().then(|| "no other version was given (--other PATH)".to_owned()),
    };
    scenario.needs.iter().find_map(missing)
}

fn no_strace() -> Option<String> {
    // It has to be able to attach to a process that it did not start.
    let Ok(mut child) = Command::new("sleep").arg("5").spawn() else { return Some("`sleep` is not there".to_owned()) };
    let mut strace = Command::new("timeout");
    strace.args(["1", "strace", "-p", &child.id().to_string(), "-e", "inject=fsync:error=EIO", "-o", "/dev/null"]);
    let said = strace.output().map(|ran| String::from_utf8_lossy(&ran.stderr).into_owned()).unwrap_or_default();
    let _ = child.kill();
    let _ = child.wait();
    (!said.contains("attached")).then(|| format!("strace is not installed or may not attach: {}", said.trim()))
}

/// Whether the clock of this binary can be turned. One with jemalloc, as release builds are, waits for libfaketime at its
/// start, which waits for it.
fn no_faketime(caxton: &Path) -> Option<String> {
    let Some(library) = faketime() else { return Some("libfaketime is not installed".to_owned()) };
    let mut version = Command::new("timeout");
    version.args(["5"]).arg(caxton).args(["version", "--client"]).env("LD_PRELOAD", library).env("FAKETIME", "+0");
    let came_up = version.output().is_ok_and(|ran| ran.status.success());
    (!came_up).then(|| "this caxton does not come up under libfaketime: give the path of a debug build".to_owned())
}

fn faketime() -> Option<&'static str> {
    FAKETIME.into_iter().find(|path| Path::new(path).exists())
}

/// The steps that a seed draws for a scenario.
pub fn schedule(scenario: &Scenario, seed: u64, seconds: u64) -> Vec<Step> {
    let mut plan = Plan::new(seed, seconds);
    (scenario.plan)(&mut plan);
    plan.steps
}

/// Runs a scenario and writes its report.
pub fn run(scenario: &Scenario, options: &Options) -> Result<Report> {
    let folder = options.out.join(format!("{}-{}", scenario.name, options.seed));
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut report = Report::new(scenario, options);
    if let Some(reason) = lacks(scenario, options) {
        report.verdict = Verdict::NotRun { reason };
        report.write(&folder, None)?;
        return Ok(report);
    }
    let steps = schedule(scenario, options.seed, options.seconds);
    let began = Instant::now();
    let place = Place::new(scenario, options)?;
    report.hosts = if place.cluster.hosts.can_cut() {
        "network namespaces, a veth each, one bridge".to_owned()
    } else {
        "plain loopback addresses: the network between nodes cannot be harmed".to_owned()
    };
    let evidence = drive(scenario, options, &steps, place, &mut report);
    report.took_s = began.elapsed().as_secs_f64();
    match evidence {
        Ok(evidence) => {
            judge(&evidence, &mut report);
            report.measure(&evidence.history);
            report.write(&folder, Some(&evidence))?;
        }
        Err(error) => {
            report.verdict = Verdict::Broken { reason: format!("{error:#}") };
            report.write(&folder, None)?;
        }
    }
    Ok(report)
}

/// A cluster with its disks, in a folder that is removed with it.
struct Place {
    disks: BTreeMap<usize, Disk>,
    cluster: Arc<Cluster>,
    home: Home,
}

/// A folder that is removed when it is dropped, and after everything that lies in it.
struct Home(PathBuf);

impl Drop for Home {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Place {
    fn new(scenario: &Scenario, options: &Options) -> Result<Place> {
        let home = Home(options.out.join(format!("data-{}-{}", scenario.name, options.seed)));
        let _ = std::fs::remove_dir_all(&home.0);
        std::fs::create_dir_all(&home.0).context("the folder of the run")?;
        let settings = scenario.settings.iter().map(|setting| (*setting).to_owned());
        // The machine's own disk is not what is under test, unless a scenario says so.
        let reserve =
            (!scenario.settings.iter().any(|s| s.starts_with("disk."))).then(|| "disk.reserve_bytes=0B".to_owned());
        let shape = Shape {
            hosts: scenario.nodes.1,
            nodes: scenario.nodes.0,
            settings: settings.chain(reserve).collect(),
            namespaces: !options.loopback && net::no_namespaces().is_none(),
            begins_with_other: scenario.needs.contains(&Need::Other),
        };
        let cluster = Cluster::new(&options.binary, shape, &home.0)?;
        let kind = scenario.needs.iter().find_map(|need| if let Need::Disk(kind) = need { Some(*kind) } else { None });
        let mut disks = BTreeMap::new();
        for node in &cluster.nodes {
            if let Some(kind) = kind.filter(|kind| *kind != Kind::Plain) {
                let at = node.home.join("disk");
                disks.insert(node.index, Disk::mount(kind, &at)?);
                std::fs::create_dir(at.join("data"))?;
                std::os::unix::fs::symlink(at.join("data"), node.data())?;
            }
            if scenario.needs.contains(&Need::Faketime)
                && let Some(library) = faketime()
            {
                let clock = node.home.join("clock");
                std::fs::write(&clock, "+0\n")?;
                let env = [
                    ("LD_PRELOAD", library.to_owned()),
                    ("FAKETIME_TIMESTAMP_FILE", clock.display().to_string()),
                    ("FAKETIME_CACHE_DURATION", "1".to_owned()),
                    ("DONT_FAKE_MONOTONIC", "1".to_owned()),
                    ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
                ];
                node.set_env(env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
            }
        }
        Ok(Place { disks, cluster: Arc::new(cluster), home })
    }
}

/// Everything between the birth of the cluster and the last look at it.
fn drive(
    scenario: &Scenario,
    options: &Options,
    steps: &[Step],
    place: Place,
    report: &mut Report,
) -> Result<Evidence> {
    let Place { disks, cluster, home } = place;
    let mut nemesis = Nemesis::new(&cluster, disks);
    let done = harm(scenario, options, steps, &cluster, &mut nemesis, report);
    report.timeline = std::mem::take(&mut nemesis.timeline);
    report.findings.append(&mut nemesis.findings);
    for node in &cluster.nodes {
        let said = node.said();
        if let Some(line) = said.lines().find(|line| line.contains("panicked")) {
            report.findings.push(Finding::new("node-panic", format!("node {}: {line}", node.index)));
        }
        report.logs.push((format!("n{}.log", node.index), said));
    }
    drop(nemesis);
    drop(cluster);
    drop(home);
    done
}

fn harm(
    scenario: &Scenario,
    options: &Options,
    steps: &[Step],
    cluster: &Arc<Cluster>,
    nemesis: &mut Nemesis,
    report: &mut Report,
) -> Result<Evidence> {
    cluster.form().context("the cluster did not form")?;
    let mut load = Load { quirk: options.quirk, ..Load::default() };
    (scenario.load)(&mut load);
    let mut running = work::start(cluster, &load, options.seed);
    let shared = Arc::clone(&running.shared);
    nemesis.run(steps, Duration::from_secs(options.seconds))?;
    nemesis.put_right()?;
    report.healed_ns = shared.recorder.now();
    // Clients go on, so that somebody is always a little behind.
    if let Err(error) = cluster.settle_under_load(SETTLE_WAIT) {
        report.findings.push(Finding::new("converge", format!("{error:#}")));
    }
    report.settled_ns = shared.recorder.now();
    std::thread::sleep(CALM);
    let panicked = running.stop_clients();
    if panicked > 0 {
        bail!("{panicked} of the harness's own clients panicked: what the others saw proves nothing");
    }
    // What was proposed last may still be on its way to somebody. Who did not come together before will not now.
    let whole = !report.findings.iter().any(|finding| finding.code == "converge");
    if let Err(error) = cluster.settle(if whole { SETTLE_WAIT } else { CALM }) {
        report.findings.push(Finding::new("converge", format!("{error:#}")));
    }
    let roots = lock(&shared.roots).clone();
    let (seen, found) = cluster.see(&shared.workspaces(), &roots);
    report.findings.extend(found);
    let last = seen.nodes.iter().flat_map(|node| node.logs.values().flatten()).map(|entry| entry.event).max();
    running.stop_followers(last.unwrap_or(0), Duration::from_secs(60));
    let followers = lock(&shared.followed).clone();
    let history = shared.recorder.history();
    if let (Some(backup), Some(last)) = (&nemesis.backup, seen.nodes.first()) {
        match drill::both(cluster, backup, shared.recorder.began(), &history, last) {
            Ok(findings) => report.findings.extend(findings),
            Err(error) => report.findings.push(Finding::new("drill", format!("{error:#}"))),
        }
    }
    Ok(Evidence { history, followers, seen })
}

fn judge(evidence: &Evidence, report: &mut Report) {
    let (findings, undecided) = check::all(evidence);
    report.findings.extend(findings);
    let writes = evidence.history.iter().filter(|op| op.ask.is_write() && op.is_ok()).count();
    report.verdict = if !report.findings.is_empty() {
        Verdict::Failed
    } else if !undecided.is_empty() {
        Verdict::Undecided { reason: undecided.join("; ") }
    } else if writes < WRITES_MIN {
        Verdict::Undecided { reason: format!("only {writes} writes were acknowledged: that proves nothing") }
    } else {
        Verdict::Passed
    };
}
