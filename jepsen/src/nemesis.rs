//! Carries a schedule out, puts everything right at the end, and writes down what was done to whom.

mod files;

mod members;

mod strangers;

mod sync;

use std::collections::{BTreeMap, BTreeSet};
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use self::strangers::Strangers;
use crate::check::Finding;
use crate::cluster::{Cluster, SETTLE_WAIT};
use crate::delay::{Kept, Wait};
use crate::disk::Disk;
use crate::drill::Backup;
use crate::fault::{Cut, Fault, Step, Who};
use crate::lock;
use crate::node::State;

/// How long a node may take to end after a sync failed.
const END_WAIT: Duration = Duration::from_secs(30);
/// How long a start may take to succeed or to be refused.
const START_WAIT: Duration = Duration::from_secs(60);

/// Something that was done.
#[derive(Debug, Clone, Serialize)]
pub struct Done {
    /// When it began, in milliseconds since the load began.
    pub at_ms: u64,
    /// How long it took.
    pub took_ms: u64,
    /// What it was, and whom it met.
    pub what: String,
}

/// What does things to nodes.
pub struct Nemesis {
    cluster: Arc<Cluster>,
    disks: BTreeMap<usize, Disk>,
    fillers: Vec<PathBuf>,
    /// What nodes gossiped.
    gossip: Kept,
    tracers: Vec<Child>,
    /// Those at the nodes' port for nodes.
    strangers: Option<Strangers>,
    /// Nodes that were killed, or that were made to end.
    down: BTreeSet<usize>,
    began: Instant,
    /// The last backup that was taken.
    pub backup: Option<Backup>,
    /// What was done, in order.
    pub timeline: Vec<Done>,
    /// What nodes did that they must not.
    pub findings: Vec<Finding>,
}

impl Nemesis {
    /// One for a cluster whose data directories lie on `disks`.
    pub fn new(cluster: &Arc<Cluster>, disks: BTreeMap<usize, Disk>) -> Nemesis {
        Nemesis {
            cluster: Arc::clone(cluster),
            disks,
            fillers: Vec::new(),
            gossip: Kept::default(),
            tracers: Vec::new(),
            strangers: None,
            down: BTreeSet::new(),
            began: Instant::now(),
            backup: None,
            timeline: Vec::new(),
            findings: Vec::new(),
        }
    }

    /// Carries the schedule out, each step at its time or as soon after it as the one before is done.
    pub fn run(&mut self, steps: &[Step], until: Duration) -> Result<()> {
        self.began = Instant::now();
        for step in steps {
            self.sleep_until(Duration::from_millis(step.at_ms));
            let what = format!("{:?}", step.fault);
            self.strike(&step.fault).with_context(|| format!("the harness could not do this: {what}"))?;
        }
        self.sleep_until(until);
        Ok(())
    }

    fn sleep_until(&self, at: Duration) {
        std::thread::sleep(at.saturating_sub(self.began.elapsed()));
    }

    /// Everything is whole again: the network, the disks, the clocks; everybody is started.
    pub fn put_right(&mut self) -> Result<()> {
        self.strangers = None;
        self.cluster.hosts.heal()?;
        self.make_room();
        for index in 0..self.cluster.nodes.len() {
            if self.cluster.nodes[index].home.join("clock").exists() {
                self.set_clock(index, 0)?;
            }
        }
        self.untrace();
        self.revive()?;
        self.note("everything is put right".to_owned(), Instant::now());
        Ok(())
    }

    fn note(&mut self, what: String, from: Instant) {
        let at_ms = from.saturating_duration_since(self.began).as_millis() as u64;
        self.timeline.push(Done { at_ms, took_ms: from.elapsed().as_millis() as u64, what });
    }

    /// Whom a fault meets now.
    fn who(&self, who: Who) -> Vec<usize> {
        let members = self.cluster.members();
        let leader = || self.cluster.leader().or_else(|| members.first().copied());
        let followers = || -> Vec<usize> {
            let leader = leader();
            members.iter().copied().filter(|index| Some(*index) != leader).collect()
        };
        match who {
            Who::Leader => leader().into_iter().collect(),
            Who::Follower(nth) => {
                let followers = followers();
                followers.get(nth % followers.len().max(1)).copied().into_iter().collect()
            }
            Who::Node(index) => vec![index],
            Who::Majority => leader().into_iter().chain(followers()).take(members.len() / 2 + 1).collect(),
            Who::All => members,
            Who::Followers => followers(),
        }
    }

    fn strike(&mut self, fault: &Fault) -> Result<()> {
        let from = Instant::now();
        let what = match fault {
            Fault::Kill { who } => self.each(*who, "kill -9 of", |nemesis, index| {
                nemesis.cluster.nodes[index].kill();
                nemesis.down.insert(index);
                Ok(())
            })?,
            Fault::KillAtSync { who, nth } => self.kill_at_sync(*who, *nth)?,
            Fault::SyncFails { who } => self.sync_fails(*who)?,
            Fault::SyncLies { who } => {
                self.each(*who, "syncs do nothing and say that they are done at", |nemesis, index| {
                    nemesis.trace(index, "retval=0")?;
                    Ok(())
                })?
            }
            Fault::Forget => self.forget()?,
            Fault::Revive => {
                self.untrace();
                self.revive()?;
                "everybody runs".to_owned()
            }
            Fault::Freeze { who } => self.each(*who, "SIGSTOP of", |nemesis, index| {
                nemesis.cluster.nodes[index].freeze();
                Ok(())
            })?,
            Fault::Thaw => {
                self.cluster.nodes.iter().filter(|node| node.state() == State::Frozen).for_each(|node| node.thaw());
                "SIGCONT".to_owned()
            }
            Fault::Restart { who } => self.restart(*who)?,
            Fault::PowerCut { who } => self.power_cut(*who)?,
            Fault::Partition { who, cut } => self.partition(*who, *cut)?,
            Fault::Worsen { who, loss_permille, kbit } => {
                let text = format!("{loss_permille} of 1000 packets lost, {kbit} kbit/s at");
                let (loss, kbit) = (f64::from(*loss_permille) / 1_000.0, *kbit);
                self.each(*who, &text, |nemesis, index| nemesis.cluster.hosts.worsen(index, loss, kbit))?
            }
            Fault::Delay { who, least_ms, most_ms } => {
                let text = format!("packets wait {least_ms} to {most_ms} ms at");
                let wait = Wait { least: Duration::from_millis(*least_ms), most: Duration::from_millis(*most_ms) };
                self.each(*who, &text, |nemesis, index| nemesis.cluster.hosts.delay(index, wait, None))?
            }
            Fault::Eavesdrop { who } => {
                self.each(*who, "copies are kept of what is gossiped to", |nemesis, index| {
                    let wait = Wait { least: Duration::ZERO, most: Duration::ZERO };
                    nemesis.cluster.hosts.delay(index, wait, Some(Arc::clone(&nemesis.gossip)))
                })?
            }
            Fault::Replay { rounds } => self.replay(*rounds)?,
            Fault::Heal => {
                self.strangers = None;
                self.cluster.hosts.heal()?;
                "the network is whole".to_owned()
            }
            Fault::Fill { who, left } => self.fill(*who, *left)?,
            Fault::MakeRoom => {
                self.make_room();
                "the disks have room".to_owned()
            }
            Fault::Clock { who, offset_s } => {
                let text = format!("wall clock off by {offset_s} s at");
                self.each(*who, &text, |nemesis, index| nemesis.set_clock(index, *offset_s))?
            }
            Fault::Flip { who, files, seed, truncate } => self.flip(*who, *files, *seed, *truncate)?,
            Fault::Wipe { who } => self.wipe(*who)?,
            Fault::Clone { who } => self.clone_directory(*who)?,
            Fault::FoundAgain => self.found_again()?,
            Fault::Join { count } => self.join(*count)?,
            Fault::Leave { who } => self.leave(*who)?,
            Fault::Resize { to, seed, kill_after_ms } => self.resize(*to, *seed, *kill_after_ms)?,
            Fault::Strangers { seed } => {
                self.strangers = Some(Strangers::come(&self.cluster, *seed));
                "strangers come to every node's port for nodes".to_owned()
            }
            Fault::ComeTogether => {
                if let Err(error) = self.cluster.settle_under_load(SETTLE_WAIT) {
                    self.findings.push(Finding::new("converge", format!("under load: {error:#}")));
                }
                "the nodes are together".to_owned()
            }
            Fault::Replace { who } => self.replace(*who)?,
            Fault::Transfer => self.transfer(),
            Fault::Backup => self.take_backup()?,
            Fault::Forge { packets, seed } => self.forge(*packets, *seed)?,
        };
        self.note(what, from);
        Ok(())
    }

    fn each(
        &mut self,
        who: Who,
        text: &str,
        mut work: impl FnMut(&mut Nemesis, usize) -> Result<()>,
    ) -> Result<String> {
        let met = self.who(who);
        for index in &met {
            work(self, *index)?;
        }
        Ok(format!("{text} {}", named(&met)))
    }

    /// Starts what is down. What ended without a reason that the harness knows is a finding.
    fn revive(&mut self) -> Result<()> {
        let cluster = Arc::clone(&self.cluster);
        for index in cluster.members() {
            let node = &cluster.nodes[index];
            if node.state() == State::Frozen {
                node.thaw();
            }
            if let Some(status) = node.reap()
                && !self.down.contains(&index)
            {
                let text = format!("node {index} ended by itself with {status}:\n{}", node.said_last(15));
                self.findings.push(Finding::new("node-ended", text));
            }
            if node.state() == State::Down {
                cluster.start(index)?;
            }
            self.down.remove(&index);
        }
        Ok(())
    }

    /// Restarts nodes with the version that is under test.
    fn restart(&mut self, who: Who) -> Result<String> {
        let cluster = Arc::clone(&self.cluster);
        let program = &cluster.binary.caxton;
        for index in self.who(who) {
            let node = &cluster.nodes[index];
            if node.state() != State::Up {
                continue;
            }
            if let Err(error) = node.terminate(START_WAIT) {
                self.findings.push(Finding::new("node-stop", format!("{error:#}\n{}", node.said_last(10))));
            }
            node.spawn(program, cluster.host(index), &cluster.args(index))?;
            let deadline = Instant::now() + START_WAIT;
            while !node.is_ready(cluster.host(index)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(format!("SIGTERM and start of {who:?} with {}", program.display()))
    }

    fn power_cut(&mut self, who: Who) -> Result<String> {
        let met = self.who(who);
        // All at one moment, before any process knows.
        for index in &met {
            self.disks[index].shut_down()?;
        }
        for index in &met {
            self.cluster.nodes[*index].kill();
            self.down.insert(*index);
        }
        for index in &met {
            self.disks[index].power_up()?;
        }
        Ok(format!("power cut of {}", named(&met)))
    }

    fn partition(&mut self, who: Who, cut: Cut) -> Result<String> {
        let hosts = &self.cluster.hosts;
        let Some(one) = self.who(who).first().copied() else { return Ok("nobody to cut off".to_owned()) };
        let others: Vec<usize> = self.cluster.members().into_iter().filter(|other| *other != one).collect();
        for (place, other) in others.iter().enumerate() {
            match cut {
                Cut::Alone => {
                    hosts.cut(one, *other)?;
                    hosts.cut(*other, one)?;
                }
                Cut::Deaf => hosts.cut(*other, one)?,
                Cut::Mute => hosts.cut(one, *other)?,
                // Two halves, and the one in between.
                Cut::Bridge => {
                    let half = others.len() / 2;
                    for far in others.iter().skip(half.max(place + 1)).filter(|_| place < half) {
                        hosts.cut(*other, *far)?;
                        hosts.cut(*far, *other)?;
                    }
                }
            }
        }
        Ok(format!("the network is cut around node {one}: {cut:?}"))
    }

    fn fill(&mut self, who: Who, left: u64) -> Result<String> {
        let text = format!("all but {left} bytes of the disk filled at");
        self.each(who, &text, |nemesis, index| {
            nemesis.fillers.push(nemesis.disks[&index].fill(left)?);
            // A node whose log cannot be written ends: what follows cannot be trusted.
            nemesis.down.insert(index);
            Ok(())
        })
    }

    fn make_room(&mut self) {
        self.fillers.drain(..).for_each(|filler| drop(std::fs::remove_file(filler)));
    }

    fn set_clock(&mut self, index: usize, offset_s: i64) -> Result<()> {
        let file = self.cluster.nodes[index].home.join("clock");
        let fresh = file.with_extension("new");
        std::fs::write(&fresh, format!("{offset_s:+}\n"))?;
        // At once: a half-written file would be another time.
        Ok(std::fs::rename(fresh, file)?)
    }

    fn transfer(&mut self) -> String {
        let cluster = &self.cluster;
        let asked = cluster.leader().and_then(|leader| {
            let answer = cluster.nodes[leader].ask(
                cluster.host(leader),
                "POST",
                "/api/v1/cluster/transfer",
                b"{}",
                Duration::from_secs(10),
            );
            Some(format!("node {leader}: {}", answer.ok()?.body["done"].as_str().unwrap_or("refused")))
        });
        format!("leadership is handed over: {}", asked.unwrap_or_else(|| "nobody could be asked".to_owned()))
    }

    /// Bytes of every length that no node sealed.
    fn forge(&mut self, packets: u32, seed: u64) -> Result<String> {
        let mut random = fastrand::Rng::with_seed(seed);
        let forged: Vec<Vec<u8>> =
            (0..packets).map(|_| (0..random.usize(0..1_400)).map(|_| random.u8(..)).collect()).collect();
        self.send(&forged)?;
        Ok(format!("{packets} forged packets at each gossip port"))
    }

    /// What nodes sealed themselves, a while ago and perhaps for another.
    fn replay(&mut self, rounds: u32) -> Result<String> {
        let kept = lock(&self.gossip).clone();
        for _ in 0..rounds {
            self.send(&kept)?;
        }
        Ok(format!("{} datagrams of the nodes sent again at each gossip port, {rounds} times", kept.len()))
    }

    /// Sends datagrams to every member's port for gossip, from a neighbour's address, which is one that is known.
    fn send(&self, datagrams: &[Vec<u8>]) -> Result<()> {
        let members = self.cluster.members();
        for (place, index) in members.iter().enumerate() {
            let to = self.cluster.host(*index).peer_address();
            let neighbour = self.cluster.host(members[(place + 1) % members.len()]);
            let from = neighbour.ip;
            neighbour.inside(|| -> std::io::Result<()> {
                let socket = UdpSocket::bind((from, 0))?;
                // The other end may be down.
                datagrams.iter().for_each(|packet| drop(socket.send_to(packet, &to)));
                Ok(())
            })??;
        }
        Ok(())
    }
}

impl Drop for Nemesis {
    fn drop(&mut self) {
        self.untrace();
        // Before their disks are unmounted.
        self.cluster.nodes.iter().for_each(|node| node.kill());
    }
}

fn named(met: &[usize]) -> String {
    match met {
        [] => "nobody".to_owned(),
        [one] => format!("node {one}"),
        many => format!("nodes {}", many.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")),
    }
}
