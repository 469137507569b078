//! A small run without a fault, for tests that break it in one place each.

use std::collections::{BTreeMap, HashMap};

use super::events::{Event, Followed};
use super::log::Entry;
use super::mail::{Letter, Said};
use super::memories::Kept;
use super::{NodeSeen, Seen};
use crate::history::{Ask, Errand, Live, Op, Outcome};

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
    let node =
        |node| NodeSeen { node, logs: logs.clone(), conversations: conversations.clone(), ..NodeSeen::default() };
    let event = |id, key: &str, rev, value| Event { id, key: key.to_owned(), live: live(rev, value), node: 0 };
    let events = vec![event(5, "w0", 1, 1), event(6, "w0", 2, 2), event(8, "w0", 3, 3), event(9, "w1", 1, 4)];
    let roots: HashMap<u64, String> = (1..=4).map(|value| (value, format!("root-{value}"))).collect();
    Sample {
        history,
        followers: vec![Followed { follower: 0, connections: 3, events }],
        seen: Seen { nodes: vec![node(0), node(1)], roots, upsets: 0 },
    }
}

fn op(key: &str, ask: Ask, start: u64, end: u64, outcome: Outcome) -> Op {
    Op { process: 0, key: key.to_owned(), node: 0, ask, start, end, outcome, attempts: 1 }
}

/// Two messages that a program counted, one that a model answered, one that failed and one that expired.
pub fn mail() -> Sample {
    let errands =
        [(21, Errand::Count), (22, Errand::Count), (23, Errand::Note), (24, Errand::Poison), (25, Errand::Expire)];
    let ok = |rev, value, log| Outcome::Ok { live: Live { rev, value }, event: None, log };
    let send = |value, errand, again| Ask::Mail { errand, priority: 4, value, again };
    let mut history: Vec<Op> = errands
        .into_iter()
        .map(|(value, errand)| {
            op("w0", send(value, errand, false), value * 10, value * 10 + 5, ok(1, value + 1_000, vec![]))
        })
        .collect();
    history.push(op("w0", send(21, Errand::Count, true), 300, 305, ok(2, 1_021, vec![])));
    let looked = [1, 2, 3].into_iter().flat_map(|rev| [24, 25].map(|value| Live { rev, value })).collect();
    history.push(op("w0", Ask::Look, 400, 410, ok(0, 0, looked)));
    let answer = |number, sender: &str, about, count| Letter {
        number,
        owner: "subject:admin".to_owned(),
        state: "ready".to_owned(),
        performative: "inform".to_owned(),
        sender: sender.to_owned(),
        about: Some(about),
        count,
        reason: None,
    };
    let dead = |number, owner: &str, about| Letter {
        owner: owner.to_owned(),
        state: "dead".to_owned(),
        performative: "request".to_owned(),
        reason: Some("it failed".to_owned()),
        ..answer(number, "subject:admin", about, None)
    };
    let letters = vec![
        answer(6, "tally", 21, Some(1)),
        answer(7, "tally", 22, Some(2)),
        answer(8, "clerk", 23, None),
        dead(4, "tally", 24),
        answer(9, "platform:", 24, None),
        dead(5, "nobody", 25),
        answer(10, "platform:", 25, None),
    ];
    let said = (1..=5).map(|position| Said { position, id: 1_020 + position }).collect();
    let node = NodeSeen {
        mail: BTreeMap::from([("w0".to_owned(), letters)]),
        said: BTreeMap::from([("w0".to_owned(), said)]),
        ..NodeSeen::default()
    };
    Sample { history, followers: Vec::new(), seen: Seen { nodes: vec![node], ..Seen::default() } }
}

/// A memory that was changed, one that was forgotten, and one that was remembered twice.
pub fn memories() -> Sample {
    let ok = |rev, value| Outcome::Ok { live: Live { rev, value }, event: None, log: Vec::new() };
    let keep = |memory, id| Ask::Remember { memory, id };
    let history = vec![
        op("w0", keep(31, 31), 10, 20, ok(1, 31)),
        op("w0", Ask::Search { memory: 31 }, 21, 22, ok(1, 31)),
        op("w0", Ask::Edit { memory: 31, to: 41 }, 30, 40, ok(0, 0)),
        op("w0", Ask::Recall { memory: 31 }, 41, 45, ok(1, 41)),
        op("w0", Ask::Search { memory: 31 }, 46, 49, ok(1, 41)),
        op("w0", keep(32, 32), 50, 60, ok(1, 32)),
        op("w0", Ask::Forget { memory: 32 }, 61, 65, ok(0, 0)),
        op("w0", Ask::Recall { memory: 32 }, 66, 67, ok(0, 0)),
        op("w0", Ask::Search { memory: 32 }, 68, 69, ok(0, 0)),
        op("w0", keep(33, 33), 70, 80, ok(1, 33)),
        op("w0", keep(33, 34), 81, 85, ok(2, 33)),
    ];
    let kept = vec![Kept { memory: 31, value: 41, id: 31 }, Kept { memory: 33, value: 33, id: 33 }];
    let node = NodeSeen { memories: BTreeMap::from([("w0".to_owned(), kept)]), ..NodeSeen::default() };
    Sample { history, followers: Vec::new(), seen: Seen { nodes: vec![node], ..Seen::default() } }
}
