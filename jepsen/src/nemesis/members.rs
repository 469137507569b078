//! Faults of identity and membership: who is in the cluster, who was, and who only looks like it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{Nemesis, START_WAIT};
use crate::check::Finding;
use crate::cluster::{Cluster, SETTLE_WAIT};
use crate::drill::Backup;
use crate::fault::Who;
use crate::net::run;
use crate::node::State;

/// How long a command of the operator is tried again while the cluster elects.
const OPERATOR_WAIT: Duration = Duration::from_secs(90);
/// How long a node may take to leave, with others that leave before it and a node that is down for a while.
const LEAVE_WAIT: Duration = Duration::from_secs(150);
/// How long two copies of a data directory may run beside each other.
const COPIES_WAIT: Duration = Duration::from_secs(20);

impl Nemesis {
    /// A command line, on any member but `not`, until one does it.
    fn operator(&self, not: Option<usize>, args: &[&str]) -> Result<String> {
        let deadline = Instant::now() + OPERATOR_WAIT;
        let mut last = None;
        while Instant::now() < deadline {
            for index in self.cluster.members().into_iter().filter(|index| Some(*index) != not) {
                let node = &self.cluster.nodes[index];
                if node.state() != State::Up {
                    continue;
                }
                match node.cli(&self.cluster.binary.caxton, self.cluster.host(index), args) {
                    Ok(said) => return Ok(said),
                    Err(error) => last = Some(error),
                }
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("nobody could be asked")))
    }

    fn remove(&self, index: usize, id: &str) -> Result<()> {
        match self.operator(Some(index), &["cluster", "remove", id, "--yes"]) {
            Ok(_) => Ok(()),
            // An attempt that got no answer may have done it.
            Err(error) if format!("{error:#}").contains("no node") || format!("{error:#}").contains("not a member") => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// A node's disk is wiped; it comes back as a new node, and the old one is removed.
    pub(super) fn start_over(&mut self, index: usize) -> Result<()> {
        let cluster = Arc::clone(&self.cluster);
        let node = &cluster.nodes[index];
        let status = self.operator(Some(index), &["cluster", "status", "--json"])?;
        let status: serde_json::Value = serde_json::from_str(&status).context("what `cluster status` says")?;
        let address = cluster.host(index).peer_address();
        let old: Vec<String> = status["members"]
            .as_array()
            .context("no members")?
            .iter()
            .filter(|member| member["peer_address"] == address.as_str())
            .filter_map(|member| member["node"].as_str().map(str::to_owned))
            .collect();
        node.kill();
        std::fs::remove_dir_all(node.data()).context("cannot wipe the disk")?;
        cluster.start(index)?;
        let deadline = Instant::now() + START_WAIT;
        while node.id().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        let new = node.id().context("the wiped node got no identity")?;
        if old.contains(&new) {
            self.findings
                .push(Finding::new("id-reused", format!("node {index} came back as {new}, which it was before")));
        }
        for id in &old {
            self.remove(index, id)?;
        }
        Ok(())
    }

    /// Waits until what is on a majority is on a majority of nodes that still have their disks: no cluster survives the
    /// loss of a second disk before that.
    pub(super) fn redundant(&mut self) {
        if let Err(error) = self.cluster.settle_under_load(SETTLE_WAIT) {
            self.findings.push(Finding::new("converge", format!("after a disk was lost: {error:#}")));
        }
    }

    pub(super) fn wipe(&mut self, who: Who) -> Result<String> {
        let Some(index) = self.who(who).first().copied() else { return Ok("nobody to wipe".to_owned()) };
        self.start_over(index)?;
        self.redundant();
        Ok(format!("node {index} lost its disk and came back as a new node; the old one is removed"))
    }

    pub(super) fn take_backup(&mut self) -> Result<String> {
        let by = self.who(Who::Follower(0)).first().copied().context("no follower")?;
        let file = self.cluster.nodes[by].home.join("backup.archive");
        let asked = Instant::now();
        // Through a follower first, and through anybody while the cluster elects.
        let text = file.display().to_string();
        let (node, host) = (&self.cluster.nodes[by], self.cluster.host(by));
        let args = ["backup", &text, "--force"];
        if node.cli(&self.cluster.binary.caxton, host, &args).is_err() {
            self.operator(None, &args)?;
        }
        self.backup = Some(Backup { file, asked });
        Ok(format!("a backup was taken through node {by}"))
    }

    /// The first host that has no member.
    fn spare(&self) -> Result<usize> {
        let members = self.cluster.members();
        (0..self.cluster.nodes.len()).find(|index| !members.contains(index)).context("no host is left")
    }

    pub(super) fn clone_directory(&mut self, who: Who) -> Result<String> {
        let Some(index) = self.who(who).first().copied() else { return Ok("nobody to copy".to_owned()) };
        let cluster = Arc::clone(&self.cluster);
        let (node, spare) = (&cluster.nodes[index], self.spare()?);
        // A copy of files at rest, as a careful person would make one.
        node.kill();
        let copy = &cluster.nodes[spare];
        run(std::process::Command::new("cp").arg("-a").arg(node.data()).arg(copy.data()))?;
        cluster.start(index)?;
        cluster.start(spare)?;
        let deadline = Instant::now() + COPIES_WAIT;
        let (mut first, mut second) = (None, None);
        while Instant::now() < deadline && first.is_none() && second.is_none() {
            (first, second) = (node.reap(), copy.reap());
            std::thread::sleep(Duration::from_millis(20));
        }
        let how = match (first, second) {
            (None, Some(status)) => {
                self.is_told(spare, status);
                format!("the copy ended with {status}")
            }
            (Some(status), None) => {
                self.is_told(index, status);
                // The node is the copy now: it moves to the host where it is expected, as one process.
                copy.kill();
                std::fs::remove_dir_all(node.data())?;
                std::fs::rename(copy.data(), node.data())?;
                cluster.start(index)?;
                format!("the one before ended with {status}, and the copy takes its place")
            }
            (None, None) => {
                self.findings.push(Finding::new("copies-both", format!("node {index} and its copy both run")));
                "both run".to_owned()
            }
            (Some(first), Some(second)) => {
                let text = format!("node {index} ended with {first}, and its copy with {second}");
                self.findings.push(Finding::new("copies-none", text));
                "both ended".to_owned()
            }
        };
        Ok(format!("node {index} and a copy of its data directory on host {spare} are started: {how}"))
    }

    /// A process that may not take part says why, and what to do.
    fn is_told(&mut self, index: usize, status: std::process::ExitStatus) {
        let node = &self.cluster.nodes[index];
        let said = node.said_last(15);
        if status.success()
            || !said.contains("is a copy of a node")
            || !said.contains("never start this data directory")
        {
            let text = format!("node {index} ended with {status} and does not say why:\n{said}");
            self.findings.push(Finding::new("copies-unsaid", text));
        }
    }

    /// Three nodes: the leader, the one that forgets, and the one that is cut off meanwhile.
    pub(super) fn forget(&mut self) -> Result<String> {
        let cluster = Arc::clone(&self.cluster);
        let (leader, followers) = (self.who(Who::Leader), self.who(Who::Followers));
        let (&[leader], &[forgets, away]) = (&leader[..], &followers[..]) else { bail!("there are not three nodes") };
        let (node, kept) = (&cluster.nodes[forgets], cluster.nodes[forgets].home.join("kept"));
        node.kill();
        run(std::process::Command::new("cp").arg("-a").arg(node.data()).arg(&kept))?;
        cluster.start(forgets)?;
        let deadline = Instant::now() + START_WAIT;
        while !node.is_ready(cluster.host(forgets)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        for other in [leader, forgets] {
            cluster.hosts.cut(away, other)?;
            cluster.hosts.cut(other, away)?;
        }
        // The two that are left acknowledge.
        std::thread::sleep(Duration::from_secs(5));
        cluster.nodes[leader].kill();
        node.kill();
        self.down.extend([leader, forgets]);
        // What it forgot is to be noticed by nobody: an older list of its starts would be.
        std::fs::copy(node.data().join("lives"), kept.join("lives"))?;
        std::fs::remove_dir_all(node.data())?;
        std::fs::rename(&kept, node.data())?;
        cluster.hosts.heal()?;
        cluster.start(forgets)?;
        std::thread::sleep(Duration::from_secs(6));
        Ok(format!("node {forgets} came back with an older data directory and met node {away}; node {leader} is down"))
    }

    pub(super) fn found_again(&mut self) -> Result<String> {
        let cluster = Arc::clone(&self.cluster);
        let spare = self.spare()?;
        for member in cluster.members() {
            cluster.hosts.cut(member, spare)?;
            cluster.hosts.cut(spare, member)?;
        }
        let mut args = cluster.args(spare);
        args.push("--found".to_owned());
        let node = &cluster.nodes[spare];
        node.spawn(&cluster.binary.caxton, cluster.host(spare), &args)?;
        let deadline = Instant::now() + START_WAIT;
        while !node.is_ready(cluster.host(spare)) {
            if Instant::now() > deadline || node.state() == State::Down {
                bail!("the second founder did not found: {}", node.said_last(10));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        cluster.hosts.heal()?;
        std::thread::sleep(Duration::from_secs(3));
        let first = cluster.members().first().copied().context("no member")?;
        let own = cluster.nodes[first].status(cluster.host(first)).context("a member does not answer")?;
        let others = own["members"].as_array().map_or(0, Vec::len);
        if others != cluster.members().len() {
            self.findings.push(Finding::new(
                "founders-met",
                format!("the cluster has {others} members after a second one was founded: {own}"),
            ));
        }
        let theirs = node.status(cluster.host(spare)).context("the second founder does not answer")?;
        if theirs["cluster"] == own["cluster"] {
            self.findings.push(Finding::new("founders-same", format!("both clusters have the id {}", own["cluster"])));
        }
        Ok(format!("host {spare} founded another cluster behind a partition, and the network is whole again"))
    }

    pub(super) fn join(&mut self, count: usize) -> Result<String> {
        let cluster = Arc::clone(&self.cluster);
        let members = cluster.members();
        let spares = (0..cluster.nodes.len()).filter(|index| !members.contains(index));
        // Not one that was a member and kept its disk.
        let spares: Vec<usize> = spares.filter(|index| !cluster.nodes[*index].data().exists()).take(count).collect();
        let uses = spares.len().to_string();
        let token = self.operator(None, &["cluster", "token", "create", "--uses", &uses])?;
        // One that is alone has no follower.
        let via = self.who(Who::Follower(0)).first().or(members.first()).copied().context("no member")?;
        for index in &spares {
            let node = &cluster.nodes[*index];
            let file = node.home.join("join.token");
            std::fs::write(&file, &token)?;
            let mut args = vec!["--join".to_owned(), cluster.host(via).peer_address()];
            args.extend(["--token-file".to_owned(), file.display().to_string()]);
            args.extend(cluster.settings());
            node.spawn(&cluster.binary.caxton, cluster.host(*index), &args)?;
        }
        let deadline = Instant::now() + START_WAIT;
        for index in &spares {
            let node = &cluster.nodes[*index];
            while !node.is_ready(cluster.host(*index)) {
                if Instant::now() > deadline || node.state() == State::Down {
                    let text = format!("node {index} did not join through node {via}:\n{}", node.said_last(12));
                    self.findings.push(Finding::new("join-failed", text));
                    break;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            node.revive();
        }
        Ok(format!("hosts {spares:?} joined at once through node {via}"))
    }

    /// Grows or shrinks to so many members, all at once.
    pub(super) fn resize(&mut self, to: usize, seed: u64, kill_after_ms: Option<u64>) -> Result<String> {
        let cluster = Arc::clone(&self.cluster);
        let mut random = fastrand::Rng::with_seed(seed);
        let members = cluster.members();
        if to > members.len() {
            return self.join(to - members.len());
        }
        let mut leaving = members.clone();
        random.shuffle(&mut leaving);
        leaving.truncate(members.len() - to.max(1));
        let victim = members[random.usize(0..members.len())];
        let left: Vec<Result<(), Finding>> = std::thread::scope(|scope| {
            let leaves: Vec<_> = leaving.iter().map(|index| scope.spawn(|| leave_for_good(&cluster, *index))).collect();
            if let Some(after) = kill_after_ms.filter(|_| !leaving.is_empty()) {
                std::thread::sleep(Duration::from_millis(after));
                let node = &cluster.nodes[victim];
                if node.state() != State::Down {
                    node.kill();
                    std::thread::sleep(Duration::from_millis(random.u64(100..1_500)));
                    // Whoever leaves it may have started it already.
                    let _ = cluster.start(victim);
                }
            }
            let ended = leaves.into_iter().map(|leave| leave.join());
            ended.map(|left| left.unwrap_or_else(|_| Err(Finding::new("leave-failed", "a panic".to_owned())))).collect()
        });
        self.findings.extend(left.into_iter().filter_map(Result::err));
        let killed = kill_after_ms.map(|after| format!(", and node {victim} is killed after {after} ms"));
        Ok(format!("nodes {leaving:?} leave at once and lose their disks{}", killed.unwrap_or_default()))
    }

    pub(super) fn leave(&mut self, who: Who) -> Result<String> {
        let Some(index) = self.who(who).first().copied() else { return Ok("nobody to leave".to_owned()) };
        let cluster = Arc::clone(&self.cluster);
        let (node, host) = (&cluster.nodes[index], cluster.host(index));
        let deadline = Instant::now() + OPERATOR_WAIT;
        // Clients stop going there first.
        node.retire();
        while let Err(error) = node.cli(&cluster.binary.caxton, host, &["cluster", "leave", "--yes"]) {
            if node.state() == State::Down {
                break;
            }
            if Instant::now() > deadline {
                self.findings.push(Finding::new("leave-failed", format!("node {index}: {error:#}")));
                node.revive();
                return Ok(format!("node {index} could not leave"));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        if node.ended(START_WAIT).is_none() {
            let text = format!("node {index} left and runs on:\n{}", node.said_last(10));
            self.findings.push(Finding::new("leave-runs", text));
            node.kill();
        }
        Ok(format!("node {index} left"))
    }

    pub(super) fn replace(&mut self, who: Who) -> Result<String> {
        let Some(index) = self.who(who).first().copied() else { return Ok("nobody to replace".to_owned()) };
        let cluster = Arc::clone(&self.cluster);
        let node = &cluster.nodes[index];
        let id = node.id().context("it has no identity")?;
        node.kill();
        node.retire();
        self.remove(index, &id)?;
        Ok(format!("node {index} is dead for good and removed"))
    }
}

/// A member leaves, is started again where it was killed meanwhile, ends well, and loses its disk.
fn leave_for_good(cluster: &Cluster, index: usize) -> Result<(), Finding> {
    let (node, host) = (&cluster.nodes[index], cluster.host(index));
    let failed = |code, text: String| Err(Finding::new(code, format!("node {index}: {text}\n{}", node.said_last(12))));
    let deadline = Instant::now() + LEAVE_WAIT;
    // Clients stop going there first.
    node.retire();
    let mut last = None;
    let status = loop {
        if let Some(status) = node.reap() {
            break status;
        }
        if Instant::now() > deadline {
            node.revive();
            return failed("leave-failed", format!("it could not leave: {last:?}"));
        }
        if node.state() == State::Down {
            // It was killed.
            let _ = cluster.start(index);
        }
        match node.cli(&cluster.binary.caxton, host, &["cluster", "leave", "--yes", "--timeout", "60s"]) {
            Ok(_) => match node.ended(START_WAIT) {
                Some(status) => break status,
                // Killed at that very moment, it starts once more and hears that it is out.
                None if node.state() == State::Down => {
                    let _ = cluster.start(index);
                }
                None => return failed("leave-runs", "it left and runs on".to_owned()),
            },
            Err(error) => last = Some(format!("{error:#}")),
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let told = node.said_last(20);
    if !status.success() && !told.contains("was removed from the cluster") {
        return failed("leave-ended", format!("it ended with {status}"));
    }
    std::fs::remove_dir_all(node.data()).map_err(|error| Finding::new("leave-wipe", error.to_string()))
}
