//! Is each memory one register, whether it is read by its id or found by its words? And is a text that was remembered twice one
//! memory?

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Finding, Seen, linear};
use crate::history::{Ask, Live, Op, Outcome};

/// A memory, as a node lists it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Kept {
    /// The number of the memory, by its text.
    pub memory: u64,
    /// Its value, by its text.
    pub value: u64,
    /// The number of its id; 0 where no client drew it.
    pub id: u64,
}

/// Checks the memories of all workspaces; the second part says what could not be decided.
pub fn check(history: &[Op], seen: &Seen) -> (Vec<Finding>, Vec<String>) {
    let (mut findings, mut undecided) = (Vec::new(), Vec::new());
    let mut registers: BTreeMap<(&str, u64), Vec<&Op>> = BTreeMap::new();
    for op in history {
        if let Some(memory) = op.ask.memory() {
            registers.entry((&op.key, memory)).or_default().push(op);
        }
    }
    for node in &seen.nodes {
        for (key, kept) in &node.memories {
            let at = format!("{key} on node {}", node.node);
            let mut before: BTreeSet<u64> = BTreeSet::new();
            for it in kept {
                if !before.insert(it.memory) {
                    let text = format!("{at}: memory {} is there more than once", it.memory);
                    findings.push(Finding::new("memory-twice", text));
                }
                if !registers.contains_key(&(key.as_str(), it.memory)) {
                    findings.push(Finding::new("memory-alien", format!("{at}: nobody remembered {it:?}")));
                }
            }
        }
    }
    let Some(first) = seen.nodes.first() else { return (findings, undecided) };
    for ((key, memory), ops) in &registers {
        let last = first.memories.get(*key).and_then(|kept| kept.iter().find(|kept| kept.memory == *memory));
        one(key, *memory, ops, last, &mut findings, &mut undecided);
    }
    (findings, undecided)
}

/// One memory from its beginning to what is left of it.
fn one(
    key: &str,
    memory: u64,
    ops: &[&Op],
    last: Option<&Kept>,
    findings: &mut Vec<Finding>,
    undecided: &mut Vec<String>,
) {
    let at = format!("{key}: memory {memory}");
    let mut acknowledged = false;
    for op in ops {
        match (&op.ask, &op.outcome) {
            (Ask::Remember { id, .. }, Outcome::Ok { live, .. }) => {
                acknowledged = true;
                if live.value != memory {
                    let text = format!("{at} was remembered as {id} and is kept as {}", live.value);
                    findings.push(Finding::new("memory-twice", text));
                }
            }
            (Ask::Search { .. }, Outcome::Ok { log, .. }) if log.len() > 1 => {
                let text = format!("{at} was found {} times at {} ms: {log:?}", log.len(), op.start / 1_000_000);
                findings.push(Finding::new("memory-twice", text));
            }
            _ => {}
        }
    }
    let forgets = || ops.iter().filter(|op| matches!(op.ask, Ask::Forget { .. }));
    let perhaps = |op: &&&Op| !matches!(op.outcome, Outcome::Fail { .. });
    if acknowledged && last.is_none() && !forgets().any(|op| perhaps(&op)) {
        findings.push(Finding::new("memory-lost", format!("{at} was acknowledged, nobody forgot it, and it is gone")));
    }
    if let Some(last) = last
        && forgets().any(|op| op.is_ok())
    {
        findings.push(Finding::new("memory-back", format!("{at} was forgotten, and is there: {last:?}")));
    }
    // What is left is what a reader after everybody sees.
    let end = ops.iter().map(|op| op.end).max().unwrap_or_default();
    let live = last.map_or_else(Live::default, |kept| Live { rev: 1, value: kept.value });
    let left = Op {
        process: u64::MAX,
        key: key.to_owned(),
        node: 0,
        ask: Ask::Recall { memory },
        start: end + 1,
        end: end + 2,
        outcome: Outcome::Ok { live, event: None, log: Vec::new() },
        attempts: 1,
    };
    let by_id = ops.iter().copied().filter(|op| !matches!(op.ask, Ask::Search { .. })).chain([&left]);
    let all = ops.iter().copied().chain([&left]);
    for (code, ops) in [("memory-linear", by_id.collect::<Vec<_>>()), ("memory-search", all.collect())] {
        match linear::check(&ops) {
            linear::Verdict::Linearizable => continue,
            linear::Verdict::Broken { placed, held, stuck } => {
                let stuck: Vec<String> = stuck.iter().take(4).map(|op| format!("{op:?}")).collect();
                let text =
                    format!("{at}: no order after {placed} operations with {held:?}; one of {}", stuck.join(" | "));
                findings.push(Finding::new(code, text));
            }
            linear::Verdict::Unknown => {
                let most = linear::CONFIGURATIONS_MAX;
                undecided.push(format!("{at}: more than {most} configurations for {} operations", ops.len()));
            }
        }
        break;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::samples::{self, Sample};

    fn codes(sample: &Sample) -> BTreeSet<&'static str> {
        let (findings, undecided) = check(&sample.history, &sample.seen);
        assert_eq!(undecided, Vec::<String>::new());
        findings.iter().map(|finding| finding.code).collect()
    }

    fn kept(sample: &mut Sample) -> &mut Vec<Kept> {
        sample.seen.nodes[0].memories.get_mut("w0").expect("memories")
    }

    fn outcome(sample: &mut Sample, is: impl Fn(&Ask) -> bool) -> &mut Outcome {
        &mut sample.history.iter_mut().rfind(|op| is(&op.ask)).expect("the operation").outcome
    }

    fn read(value: u64) -> Outcome {
        let live = if value == 0 { Live::default() } else { Live { rev: 1, value } };
        Outcome::Ok { live, event: None, log: Vec::new() }
    }

    #[test]
    fn a_good_history_passes() {
        assert_eq!(check(&samples::memories().history, &samples::memories().seen), (vec![], vec![]));
    }

    #[test]
    fn what_nobody_knows_of_may_have_happened_or_not() {
        let info = || Outcome::Info { why: String::new() };
        for (change, left) in [
            // An edit without an answer: either value may be left, and none may not.
            (Ask::Edit { memory: 31, to: 41 }, vec![(41, true), (31, true), (0, false)]),
            // The same of forgetting.
            (Ask::Forget { memory: 32 }, vec![(0, true), (32, true), (41, false)]),
        ] {
            for (value, good) in left {
                let mut sample = samples::memories();
                let memory = change.memory().expect("it is about one");
                sample.history.retain(|op| op.ask.is_write() || op.ask.memory() != Some(memory));
                *outcome(&mut sample, |ask| *ask == change) = info();
                kept(&mut sample).retain(|kept| kept.memory != memory);
                if value > 0 {
                    kept(&mut sample).push(Kept { memory, value, id: memory });
                }
                assert_eq!(codes(&sample).is_empty(), good, "{change:?} and {value} is left: {:?}", codes(&sample));
            }
        }
    }

    #[test]
    fn each_defect_is_found_and_named() {
        let recall = |ask: &Ask| matches!(ask, Ask::Recall { memory: 31 });
        let search = |ask: &Ask| matches!(ask, Ask::Search { memory: 31 });
        let change: &[(&str, &dyn Fn(&mut Sample))] = &[
            ("memory-linear", &|s| *outcome(s, recall) = read(31)),
            ("memory-linear", &|s| *outcome(s, recall) = read(0)),
            ("memory-linear", &|s| *outcome(s, recall) = read(404)),
            ("memory-search", &|s| *outcome(s, search) = read(31)),
            ("memory-search", &|s| *outcome(s, search) = read(0)),
            ("memory-search", &|s| *outcome(s, |ask| *ask == Ask::Search { memory: 32 }) = read(32)),
            ("memory-linear", &|s| kept(s).iter_mut().for_each(|kept| kept.value = 31)),
            ("memory-lost", &|s| kept(s).retain(|kept| kept.memory != 33)),
            ("memory-lost", &|s| s.seen.nodes[0].memories.clear()),
            ("memory-back", &|s| kept(s).push(Kept { memory: 32, value: 32, id: 32 })),
            ("memory-twice", &|s| kept(s).push(Kept { memory: 31, value: 41, id: 7 })),
            ("memory-twice", &|s| {
                let kept_as = |ask: &Ask| matches!(ask, Ask::Remember { memory: 33, id } if *id != 33);
                *outcome(s, kept_as) = Outcome::Ok { live: Live { rev: 1, value: 34 }, event: None, log: Vec::new() };
            }),
            ("memory-twice", &|s| {
                let live = Live { rev: 1, value: 41 };
                *outcome(s, search) = Outcome::Ok { live, event: None, log: vec![live, live] };
            }),
            ("memory-alien", &|s| kept(s).push(Kept { memory: 404, value: 404, id: 404 })),
        ];
        for (code, change) in change {
            let mut sample = samples::memories();
            change(&mut sample);
            let found = codes(&sample);
            assert!(found.contains(code), "{code}: {found:?}");
        }
    }
}
