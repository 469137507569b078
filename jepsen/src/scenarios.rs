//! The scenarios: a name, what it needs, how the cluster is made, and the schedule that a seed draws.

use std::time::Duration;

use crate::disk::Kind;
use crate::fault::{Cut, Fault, Files, Plan, Who};
use crate::work::Load;

/// What a scenario takes that not every machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Namespaces with iptables.
    Namespaces,
    /// A disk of a kind.
    Disk(Kind),
    /// strace, and the right to attach it.
    Strace,
    /// A kernel that hands packets over.
    Queue,
    /// libfaketime.
    Faketime,
    /// A program that knows backups.
    Backup,
    /// Another version of the program.
    Other,
}

/// One scenario.
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// Its number in the list of what loses data in systems like this one.
    pub number: u32,
    /// What it does, in a few words.
    pub about: &'static str,
    /// What it takes.
    pub needs: &'static [Need],
    /// How many nodes there are at first, and how many hosts.
    pub nodes: (usize, usize),
    /// Settings of the nodes.
    pub settings: &'static [&'static str],
    /// Draws the schedule.
    pub plan: fn(&mut Plan),
    /// Changes the load.
    pub load: fn(&mut Load),
}

/// Three nodes on which nothing is done.
pub const PLAIN: Scenario =
    Scenario { name: "", number: 0, about: "", needs: &[], nodes: (3, 3), settings: &[], plan: |_| {}, load: |_| {} };

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario { name: "calm", about: "nothing is done: the control of all others", ..PLAIN },
    Scenario {
        name: "kill",
        number: 1,
        about: "kill -9 of the leader, of a follower, of all at once",
        plan: |plan| {
            while plan.goes_on() {
                let who = match plan.random.u8(0..4) {
                    0 | 1 => Who::Leader,
                    2 => Who::Follower(plan.random.usize(0..2)),
                    _ => Who::All,
                };
                plan.then(Fault::Kill { who });
                plan.wait(500, 3_500);
                plan.then(Fault::Revive);
                plan.wait(3_000, 6_000);
            }
        },
        ..PLAIN
    },
    Scenario {
        name: "kill-at-sync",
        number: 1,
        about: "kill -9 at the n-th sync of a node",
        needs: &[Need::Strace],
        plan: |plan| {
            while plan.goes_on() {
                let (who, nth) = (plan.anyone(), plan.random.u32(1..6));
                plan.then(Fault::KillAtSync { who, nth });
                plan.wait(3_000, 5_000);
                plan.then(Fault::Revive);
                plan.wait(3_000, 5_000);
            }
        },
        ..PLAIN
    },
    Scenario {
        name: "power-cut",
        number: 2,
        about: "the power of one node, of a majority, of all goes; what was not synced is gone",
        needs: &[Need::Disk(Kind::Power)],
        plan: |plan| {
            let mut round = plan.random.usize(0..3);
            while plan.goes_on() {
                let who = [Who::Leader, Who::Majority, Who::All][round % 3];
                round += 1;
                plan.then(Fault::PowerCut { who });
                plan.wait(500, 2_000);
                plan.then(Fault::Revive);
                plan.wait(4_000, 7_000);
            }
        },
        ..PLAIN
    },
    Scenario {
        name: "power-cut-alone",
        number: 2,
        about: "the power of a node that stands alone goes",
        needs: &[Need::Disk(Kind::Power)],
        nodes: (1, 1),
        plan: |plan| {
            while plan.goes_on() {
                plan.then(Fault::PowerCut { who: Who::All });
                plan.wait(100, 800);
                plan.then(Fault::Revive);
                plan.wait(2_500, 5_000);
            }
        },
        ..PLAIN
    },
    Scenario {
        name: "partition",
        number: 3,
        about: "a node, often the leader, is cut off on both sides",
        needs: &[Need::Namespaces],
        plan: |plan| partitions(plan, &[Cut::Alone], (3_000, 7_000)),
        ..PLAIN
    },
    Scenario {
        name: "partition-one-way",
        number: 3,
        about: "a node is heard and hears nothing, or hears and is not heard",
        needs: &[Need::Namespaces],
        plan: |plan| partitions(plan, &[Cut::Deaf, Cut::Mute], (3_000, 7_000)),
        ..PLAIN
    },
    Scenario {
        name: "partition-bridge",
        number: 3,
        about: "one of five reaches all others, which do not reach each other",
        needs: &[Need::Namespaces],
        nodes: (5, 5),
        plan: |plan| partitions(plan, &[Cut::Bridge, Cut::Alone], (3_000, 7_000)),
        ..PLAIN
    },
    Scenario {
        name: "partition-flapping",
        number: 3,
        about: "the network is cut and whole again, many times a minute",
        needs: &[Need::Namespaces],
        plan: |plan| partitions(plan, &[Cut::Alone, Cut::Deaf, Cut::Mute], (300, 1_800)),
        ..PLAIN
    },
    Scenario {
        name: "slow-links",
        number: 3,
        about: "lines that lose packets and carry little",
        needs: &[Need::Namespaces],
        plan: |plan| {
            while plan.goes_on() {
                let who = if plan.random.bool() { Who::All } else { plan.anyone() };
                let (loss_permille, kbit) = (plan.random.u32(20..250), plan.random.u32(300..3_000));
                plan.then(Fault::Worsen { who, loss_permille, kbit });
                plan.wait(4_000, 7_000);
                plan.then(Fault::Heal);
                plan.wait(1_000, 3_000);
            }
        },
        ..PLAIN
    },
    Scenario {
        name: "delayed-links",
        number: 3,
        about: "packets wait up to half a second and overtake each other, at one node or at all",
        needs: &[Need::Namespaces, Need::Queue],
        plan: |plan| {
            while plan.goes_on() {
                let who = if plan.random.bool() { Who::All } else { plan.anyone() };
                let least_ms = plan.random.u64(0..120);
                let most_ms = least_ms + plan.random.u64(10..400);
                plan.then(Fault::Delay { who, least_ms, most_ms });
                plan.wait(4_000, 7_000);
                plan.then(Fault::Heal);
                plan.wait(1_000, 3_000);
            }
        },
        ..PLAIN
    },
    Scenario {
        name: "freeze-leader",
        number: 4,
        about: "SIGSTOP of the leader for 5 to 12 s; both sides are read all the time",
        plan: |plan| {
            while plan.goes_on() {
                plan.then(Fault::Freeze { who: Who::Leader });
                plan.wait(5_000, 12_000);
                plan.then(Fault::Thaw);
                plan.wait(2_000, 5_000);
            }
        },
        ..PLAIN
    },
    Scenario {
        name: "grow-shrink",
        number: 5,
        about: "two join at once through a follower, the seed leaves, one joins without it, one is replaced; under load",
        nodes: (3, 6),
        plan: |plan| {
            plan.then(Fault::Join { count: 2 });
            plan.wait(500, 2_000);
            let who = plan.anyone();
            plan.then(Fault::Kill { who });
            plan.wait(500, 2_000);
            plan.then(Fault::Revive);
            plan.wait(2_000, 4_000);
            plan.then(Fault::Leave { who: Who::Node(0) });
            plan.wait(2_000, 4_000);
            plan.then(Fault::Join { count: 1 });
            plan.wait(2_000, 4_000);
            plan.then(Fault::Replace { who: Who::Follower(0) });
            plan.wait(2_000, 4_000);
        },
        ..PLAIN
    },
    Scenario {
        name: "resize",
        number: 5,
        about: "between one and five nodes at random, two and more at a time, with a kill in the middle; who leaves loses its disk",
        nodes: (3, 5),
        plan: |plan| {
            let mut size = 3;
            while plan.goes_on() {
                let others: Vec<usize> = (1..=5).filter(|to| *to != size).collect();
                size = others[plan.random.usize(0..others.len())];
                let seed = plan.random.u64(..);
                let kill_after_ms = plan.random.bool().then(|| plan.random.u64(50..2_500));
                plan.then(Fault::Resize { to: size, seed, kill_after_ms });
                plan.wait(500, 3_000);
            }
            // To the last one, from as many as there are, as an operator who closes down would.
            let seed = plan.random.u64(..);
            plan.then(Fault::Resize { to: 5, seed, kill_after_ms: None });
            plan.wait(500, 1_500);
            plan.then(Fault::Resize { to: 1, seed, kill_after_ms: None });
        },
        ..PLAIN
    },
    Scenario {
        name: "strangers",
        number: 12,
        about: "strangers hold more connections to every node's port for nodes than it has, while nodes die and come back",
        plan: |plan| {
            while plan.goes_on() {
                let seed = plan.random.u64(..);
                plan.then(Fault::Strangers { seed });
                plan.wait(1_000, 3_000);
                let who = plan.anyone();
                plan.then(Fault::Kill { who });
                plan.wait(500, 2_000);
                plan.then(Fault::Revive);
                plan.wait(500, 1_000);
                plan.then(Fault::ComeTogether);
                plan.wait(1_000, 3_000);
                plan.then(Fault::Heal);
                plan.wait(500, 1_500);
            }
        },
        ..PLAIN
    },
    Scenario {
        name: "snapshot-race",
        number: 6,
        about: "a node comes back after the log was purged, and it or its leader is killed in the middle of the install",
        settings: &["raft.snapshot_entries=20"],
        plan: |plan| {
            while plan.goes_on() {
                // Long enough for more entries than are kept beside a snapshot.
                plan.then(Fault::Kill { who: Who::Node(2) });
                plan.wait(20_000, 24_000);
                plan.then(Fault::Revive);
                plan.wait(50, 1_200);
                let who = if plan.random.bool() { Who::Node(2) } else { Who::Leader };
                plan.then(Fault::Kill { who });
                plan.wait(50, 400);
                plan.then(Fault::Revive);
                plan.wait(50, 800);
                plan.then(Fault::Kill { who: Who::Node(2) });
                plan.wait(50, 400);
                plan.then(Fault::Revive);
                plan.wait(2_000, 4_000);
            }
        },
        load: |load| {
            load.clients = 12;
            load.workspaces = 24;
            load.think = Duration::from_millis(20);
        },
        ..PLAIN
    },
    Scenario {
        name: "rolling-restart",
        number: 7,
        about: "SIGTERM and start of one node after the other",
        plan: |plan| {
            while plan.goes_on() {
                for node in 0..3 {
                    plan.then(Fault::Restart { who: Who::Node(node) });
                    plan.wait(1_000, 2_500);
                }
            }
        },
        ..PLAIN
    },
    Scenario {
        name: "rolling-upgrade",
        number: 7,
        about: "the same from another version to this one, which run side by side",
        needs: &[Need::Other],
        plan: |plan| {
            for node in 0..3 {
                plan.then(Fault::Restart { who: Who::Node(node) });
                plan.wait(2_000, 4_000);
            }
        },
        ..PLAIN
    },
    Scenario {
        name: "disk-full",
        number: 8,
        about: "the disk of a node fills up, to below the reserve and to the last byte",
        needs: &[Need::Disk(Kind::Small(160))],
        settings: &["disk.reserve_bytes=16MiB"],
        plan: |plan| {
            while plan.goes_on() {
                let left = if plan.random.bool() { 0 } else { 8 << 20 };
                let who = if plan.random.u8(0..4) == 0 { Who::All } else { plan.anyone() };
                plan.then(Fault::Fill { who, left });
                plan.wait(3_000, 6_000);
                plan.then(Fault::MakeRoom);
                plan.wait(500, 1_000);
                plan.then(Fault::Revive);
                plan.wait(3_000, 5_000);
            }
        },
        ..PLAIN
    },
    Scenario {
        name: "sync-fails",
        number: 8,
        about: "a sync fails with EIO: the node ends and does not try again",
        needs: &[Need::Strace],
        plan: |plan| {
            while plan.goes_on() {
                let who = plan.anyone();
                plan.then(Fault::SyncFails { who });
                plan.wait(2_000, 4_000);
                plan.then(Fault::Revive);
                plan.wait(4_000, 6_000);
            }
        },
        ..PLAIN
    },
    Scenario {
        name: "flip",
        number: 9,
        about: "a flipped bit or a cut end in each kind of file, on a minority",
        settings: &["raft.snapshot_entries=20"],
        plan: |plan| {
            let kinds = [
                Files::RaftWal,
                Files::RaftTables,
                Files::Snapshots,
                Files::Artifacts,
                Files::Identity,
                Files::Conversations,
            ];
            let mut round = plan.random.usize(0..kinds.len());
            while plan.goes_on() {
                let (files, seed) = (kinds[round % kinds.len()], plan.random.u64(..));
                let (who, truncate) = (plan.anyone(), plan.random.bool());
                round += 1;
                plan.then(Fault::Flip { who, files, seed, truncate });
                plan.wait(2_000, 4_000);
            }
        },
        ..PLAIN
    },
    Scenario {
        name: "clock",
        number: 10,
        about: "the wall clock of a node is an hour off and steps forward and back; it restarts with it",
        needs: &[Need::Faketime],
        plan: |plan| {
            while plan.goes_on() {
                let offset_s = [3_600, -3_600, 90, -90, 86_400, 0][plan.random.usize(0..6)];
                let who = plan.anyone();
                plan.then(Fault::Clock { who, offset_s });
                plan.wait(2_000, 4_000);
                if plan.random.bool() {
                    plan.then(Fault::Kill { who });
                    plan.wait(500, 1_500);
                    plan.then(Fault::Revive);
                    plan.wait(2_000, 4_000);
                }
            }
        },
        ..PLAIN
    },
    Scenario {
        name: "wiped-disk",
        number: 11,
        about: "a node loses its disk and comes back as a new one",
        plan: |plan| {
            for _ in 0..2 {
                let who = plan.anyone();
                plan.then(Fault::Wipe { who });
                plan.wait(5_000, 8_000);
            }
        },
        ..PLAIN
    },
    Scenario {
        name: "cloned-directory",
        number: 11,
        about: "a copy of a member's data directory runs beside it",
        needs: &[Need::Namespaces],
        nodes: (3, 4),
        plan: |plan| {
            let who = plan.anyone();
            plan.then(Fault::Clone { who });
            plan.wait(6_000, 9_000);
            plan.then(Fault::Kill { who: Who::Leader });
            plan.wait(1_000, 2_000);
            plan.then(Fault::Revive);
        },
        ..PLAIN
    },
    Scenario {
        name: "two-founders",
        number: 11,
        about: "a second cluster is founded behind a partition, and then they meet",
        needs: &[Need::Namespaces],
        nodes: (3, 4),
        plan: |plan| {
            plan.wait(500, 3_000);
            plan.then(Fault::FoundAgain);
            plan.wait(4_000, 8_000);
        },
        ..PLAIN
    },
    Scenario {
        name: "gossip",
        number: 12,
        about: "restarts, a clock that steps back over them, and forged packets at the gossip ports",
        needs: &[Need::Faketime],
        plan: |plan| {
            while plan.goes_on() {
                let (packets, seed) = (plan.random.u32(200..2_000), plan.random.u64(..));
                plan.then(Fault::Forge { packets, seed });
                let who = Who::Follower(plan.random.usize(0..2));
                plan.then(Fault::Clock { who, offset_s: -3_600 });
                plan.wait(500, 1_000);
                plan.then(Fault::Kill { who });
                plan.wait(500, 3_000);
                plan.then(Fault::Revive);
                plan.wait(4_000, 6_000);
            }
        },
        ..PLAIN
    },
    Scenario {
        name: "gossip-replayed",
        number: 12,
        about: "what nodes gossiped is sent again, to all, also after the node that said it was restarted",
        needs: &[Need::Namespaces, Need::Queue],
        plan: |plan| {
            while plan.goes_on() {
                plan.then(Fault::Eavesdrop { who: Who::All });
                plan.wait(2_000, 3_000);
                plan.then(Fault::Heal);
                let who = plan.anyone();
                plan.then(Fault::Kill { who });
                plan.wait(500, 2_000);
                plan.then(Fault::Revive);
                plan.wait(1_000, 2_000);
                let rounds = plan.random.u32(1..20);
                plan.then(Fault::Replay { rounds });
                plan.wait(2_000, 4_000);
            }
        },
        ..PLAIN
    },
    Scenario {
        name: "ambiguous",
        number: 15,
        about: "clients break off half of their deployments and try again with the same key; leaders are killed",
        plan: |plan| {
            while plan.goes_on() {
                plan.wait(2_000, 4_000);
                plan.then(Fault::Kill { who: Who::Leader });
                plan.wait(500, 2_000);
                plan.then(Fault::Revive);
                plan.wait(1_000, 3_000);
            }
        },
        load: |load| load.abandon = 50,
        ..PLAIN
    },
    Scenario {
        name: "streams",
        number: 16,
        about: "followers of the event stream go from node to node every second, while nodes die and leaders change",
        plan: |plan| {
            while plan.goes_on() {
                let fault = match plan.random.u8(0..3) {
                    0 => Fault::Transfer,
                    1 => Fault::Kill { who: Who::Leader },
                    _ => Fault::Restart { who: Who::Follower(plan.random.usize(0..2)) },
                };
                plan.then(fault);
                plan.wait(1_500, 3_000);
                plan.then(Fault::Revive);
                plan.wait(2_000, 3_000);
            }
        },
        load: |load| {
            load.followers = 5;
            load.follow = Duration::from_secs(1);
        },
        ..PLAIN
    },
    Scenario {
        name: "backup-recover",
        number: 18,
        about: "a backup under load and a crash is restored elsewhere; then all disks but one are lost, and that node goes on",
        needs: &[Need::Backup],
        nodes: (3, 4),
        plan: |plan| {
            plan.wait(2_000, 4_000);
            let who = plan.anyone();
            plan.then(Fault::Kill { who });
            plan.wait(500, 2_000);
            plan.then(Fault::Backup);
            plan.wait(500, 1_000);
            plan.then(Fault::Revive);
        },
        ..PLAIN
    },
];

/// The two that every change runs: no mounts, no tracing, and many times green.
pub const SMOKE: &[&str] = &["kill", "partition"];

/// The handful that one waits for.
pub const SHORT: &[&str] = &["kill", "partition", "power-cut", "sync-fails", "ambiguous"];

/// A scenario by its name.
pub fn named(name: &str) -> Option<&'static Scenario> {
    ALL.iter().find(|scenario| scenario.name == name)
}

fn partitions(plan: &mut Plan, cuts: &[Cut], hold_ms: (u64, u64)) {
    while plan.goes_on() {
        let cut = cuts[plan.random.usize(0..cuts.len())];
        let who = plan.anyone();
        plan.then(Fault::Partition { who, cut });
        plan.wait(hold_ms.0, hold_ms.1);
        plan.then(Fault::Heal);
        plan.wait(hold_ms.0 / 2, hold_ms.1 / 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_schedule_again_and_another_seed_another() {
        for scenario in ALL {
            let draw = |seed| {
                let mut plan = Plan::new(seed, 60);
                (scenario.plan)(&mut plan);
                plan.steps
            };
            assert_eq!(draw(7), draw(7), "{}", scenario.name);
            if scenario.number > 0 {
                assert!(!draw(7).is_empty(), "{} does nothing", scenario.name);
                assert_ne!(draw(7), draw(8), "{}", scenario.name);
            }
        }
    }

    #[test]
    fn names_are_different_and_the_short_run_has_known_ones() {
        let mut names: Vec<&str> = ALL.iter().map(|scenario| scenario.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(SHORT.iter().chain(SMOKE).all(|name| named(name).is_some()));
    }
}
