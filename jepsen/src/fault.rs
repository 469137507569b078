//! What can be done to nodes, as values: a schedule is drawn from a seed before anything runs, so it can be had again.

use serde::{Deserialize, Serialize};

/// Whom a fault meets. Roles are looked up when it strikes, and the timeline says who it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// The leader of the deploy log.
    Leader,
    /// The n-th member that does not lead it.
    Follower(usize),
    /// A node by its index.
    Node(usize),
    /// More than half of the members, the leader among them.
    Majority,
    /// Every member.
    All,
    /// Every member but the leader.
    Followers,
}

/// A way to cut the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// One node hears and is heard by nobody.
    Alone,
    /// It is heard and hears nothing.
    Deaf,
    /// It hears and is not heard.
    Mute,
    /// All others hear it, and not each other.
    Bridge,
}

/// A kind of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Files {
    /// The write-ahead log of the raft log's store.
    RaftWal,
    /// Its tables.
    RaftTables,
    /// The snapshots.
    Snapshots,
    /// The artifacts' store: its tables and its write-ahead log.
    Artifacts,
    /// The node's identity.
    Identity,
    /// The conversations of its shards.
    Conversations,
}

/// One thing that is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Fault {
    /// kill -9.
    Kill {
        /// Whom.
        who: Who,
    },
    /// kill -9 at one of the next syncs.
    KillAtSync {
        /// Whom.
        who: Who,
        /// At which.
        nth: u32,
    },
    /// Every sync from now on fails with EIO: the node has to end, and not to try again.
    SyncFails {
        /// Whom.
        who: Who,
    },
    /// Every sync from now on says that it is done, and does nothing: a lie that a control puts in.
    SyncLies {
        /// Whom.
        who: Who,
    },
    /// A node comes back with an older copy of its data directory, as the same node, and elects a leader with one that
    /// had been cut off: it has forgotten what it voted for and what it acknowledged. A control puts this in.
    Forget,
    /// Starts what is down and wakes what is frozen.
    Revive,
    /// SIGSTOP.
    Freeze {
        /// Whom.
        who: Who,
    },
    /// SIGCONT.
    Thaw,
    /// SIGTERM, and a start when it has ended.
    Restart {
        /// Whom.
        who: Who,
    },
    /// The power of the node's disk goes, and the process with it.
    PowerCut {
        /// Whom.
        who: Who,
    },
    /// The network is cut.
    Partition {
        /// Around whom.
        who: Who,
        /// How.
        cut: Cut,
    },
    /// The line is slow and loses packets.
    Worsen {
        /// Whose.
        who: Who,
        /// How many of a thousand packets are lost.
        loss_permille: u32,
        /// How much it carries.
        kbit: u32,
    },
    /// Packets that come to a node wait, and overtake each other.
    Delay {
        /// Whose.
        who: Who,
        /// At least so many milliseconds.
        least_ms: u64,
        /// At most.
        most_ms: u64,
    },
    /// Copies are kept of what nodes gossip to a node.
    Eavesdrop {
        /// To whom.
        who: Who,
    },
    /// What was kept is sent again, to every node.
    Replay {
        /// How many times.
        rounds: u32,
    },
    /// The network is whole again.
    Heal,
    /// The disk is filled up.
    Fill {
        /// Whose.
        who: Who,
        /// How many bytes are left.
        left: u64,
    },
    /// The disks have room again.
    MakeRoom,
    /// The wall clock shows another time from now on.
    Clock {
        /// Whose.
        who: Who,
        /// By how many seconds it is off.
        offset_s: i64,
    },
    /// A node is killed, a bit of its files is flipped, and it is started: it has to refuse, or to be unharmed.
    Flip {
        /// Whose.
        who: Who,
        /// Of which files.
        files: Files,
        /// Draws the file and the bit.
        seed: u64,
        /// Cut off the file's end there instead.
        truncate: bool,
    },
    /// A node is killed, its disk is wiped, and it comes back: as a new node. The old one is removed.
    Wipe {
        /// Whose.
        who: Who,
    },
    /// A copy of a node's data directory is started on the spare host while the original runs.
    Clone {
        /// Whose.
        who: Who,
    },
    /// A spare host founds a cluster of its own with the same secret while it cannot see the others, then meets them.
    FoundAgain,
    /// Spare hosts join, all at once, by one token made on a follower.
    Join {
        /// How many of them.
        count: usize,
    },
    /// A member is asked to leave.
    Leave {
        /// Whom.
        who: Who,
    },
    /// A member is killed for good, and the others remove it.
    Replace {
        /// Whom.
        who: Who,
    },
    /// The cluster has so many members from now on: spare hosts join, or members leave, all at once. Whoever has left loses its
    /// disk at once.
    Resize {
        /// How many.
        to: usize,
        /// Draws who leaves, and who is killed.
        seed: u64,
        /// A member, perhaps one that leaves, is killed after so many milliseconds and started again.
        kill_after_ms: Option<u64>,
    },
    /// Strangers come to every node's port for nodes, and stay until the network is whole again.
    Strangers {
        /// Draws what they say.
        seed: u64,
    },
    /// The nodes have to come together, under load and whatever else goes on.
    ComeTogether,
    /// Leadership is handed over.
    Transfer,
    /// A backup is taken through a follower.
    Backup,
    /// Packets that no node sent arrive at every node's port for gossip.
    Forge {
        /// How many.
        packets: u32,
        /// Draws them.
        seed: u64,
    },
}

/// A fault and when it strikes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Milliseconds since the load began.
    pub at_ms: u64,
    /// What is done.
    pub fault: Fault,
}

/// Draws a schedule.
pub struct Plan {
    /// The steps so far, in the order of time.
    pub steps: Vec<Step>,
    /// The choices.
    pub random: fastrand::Rng,
    at_ms: u64,
    end_ms: u64,
}

impl Plan {
    /// An empty one for a load of `seconds`.
    pub fn new(seed: u64, seconds: u64) -> Plan {
        Plan { steps: Vec::new(), random: fastrand::Rng::with_seed(seed), at_ms: 1_500, end_ms: seconds * 1_000 }
    }

    /// Lets some time pass.
    pub fn wait(&mut self, from_ms: u64, to_ms: u64) {
        self.at_ms += self.random.u64(from_ms..=to_ms);
    }

    /// The next step.
    pub fn then(&mut self, fault: Fault) {
        self.steps.push(Step { at_ms: self.at_ms, fault });
    }

    /// Whether there is time left for more.
    pub fn goes_on(&self) -> bool {
        self.at_ms < self.end_ms
    }

    /// A member: the leader as often as a follower.
    pub fn anyone(&mut self) -> Who {
        if self.random.bool() { Who::Leader } else { Who::Follower(self.random.usize(0..2)) }
    }
}
