//! A small run without a fault, for tests that break it in one place each.

use std::collections::{BTreeMap, HashMap};

use super::events::{Event, Followed};
use super::log::Entry;
use super::{NodeSeen, Seen};
use crate::history::{Ask, Live, Op, Outcome};

/// A run.
#[derive(Debug, Clone)]
pub struct Sample {
    /// What the clients did.
    pub history: Vec<Op>,
    /// What the followers got.
    pub followers: Vec<Followed>,
    /// What the nodes show.
    pub seen: Seen,
}

impl Sample {
    /// Changes the logs of all nodes.
    pub fn each(&mut self, change: impl Fn(&mut BTreeMap<String, Vec<Entry>>)) {
        self.seen.nodes.iter_mut().for_each(|node| change(&mut node.logs));
    }
}

/// Three deployments of one workspace, one of another after them, a log read, and two messages.
pub fn good() -> Sample {
    let live = |rev, value| Live { rev, value };
    let op = |key: &str, ask, start, end, outcome| Op {
        process: 0,
        key: key.to_owned(),
        node: 0,
        ask,
        start,
        end,
        outcome,
        attempts: 1,
    };
    let ok = |live, event| Outcome::Ok { live, event, log: Vec::new() };
    let say = |value| Ask::Say { conversation: "c".to_owned(), value };
    let history = vec![
        op("w0", Ask::Cas { from: live(0, 0), to: 1 }, 10, 20, ok(live(1, 1), Some(5))),
        op("w0", Ask::Cas { from: live(1, 1), to: 2 }, 30, 40, ok(live(2, 2), Some(6))),
        op("w0", Ask::Cas { from: live(2, 2), to: 3 }, 50, 60, ok(live(3, 3), Some(8))),
        op(
            "w0",
            Ask::Log,
            65,
            69,
            Outcome::Ok { live: live(3, 3), event: None, log: vec![live(1, 1), live(2, 2), live(3, 3)] },
        ),
        op("w1", Ask::Cas { from: live(0, 0), to: 4 }, 70, 80, ok(live(1, 4), Some(9))),
        op("w0", say(11), 90, 95, ok(Live::default(), None)),
        op("w0", say(12), 96, 99, ok(Live::default(), None)),
    ];
    let entry = |rev, value, event| Entry { rev, parent: rev - 1, value, root: format!("root-{value}"), event };
    let logs = BTreeMap::from([
        ("w0".to_owned(), vec![entry(1, 1, 5), entry(2, 2, 6), entry(3, 3, 8)]),
        ("w1".to_owned(), vec![entry(1, 4, 9)]),
    ]);
    let conversations = BTreeMap::from([("w0/c".to_owned(), vec![11, 12])]);
    let node = |node| NodeSeen { node, logs: logs.clone(), conversations: conversations.clone() };
    let event = |id, key: &str, rev, value| Event { id, key: key.to_owned(), live: live(rev, value), node: 0 };
    let events = vec![event(5, "w0", 1, 1), event(6, "w0", 2, 2), event(8, "w0", 3, 3), event(9, "w1", 1, 4)];
    let roots: HashMap<u64, String> = (1..=4).map(|value| (value, format!("root-{value}"))).collect();
    Sample {
        history,
        followers: vec![Followed { follower: 0, connections: 3, events }],
        seen: Seen { nodes: vec![node(0), node(1)], roots },
    }
}
