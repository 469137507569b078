//! Is every acknowledged deployment in the log, once, in its place? One pass over the history and the logs of all nodes.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::{Finding, Seen};
use crate::history::{Ask, Live, Op, Outcome, by_key};

/// One deployment of a final log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its revision.
    pub rev: u64,
    /// The revision that it stands on.
    pub parent: u64,
    /// The number that was deployed.
    pub value: u64,
    /// The root of its files.
    pub root: String,
    /// Its index in the log of all workspaces.
    pub event: u64,
}

/// Checks the deployments of all workspaces against what the nodes have in the end.
pub fn check(history: &[Op], seen: &Seen) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Some(first) = seen.nodes.first() else {
        return vec![Finding::new("log", "no node was read in the end")];
    };
    for node in &seen.nodes[1..] {
        if node.logs != first.logs {
            findings.push(Finding::new("log-agree", differ(first, node)));
        }
    }
    let keys = by_key(history);
    let empty = Vec::new();
    for (key, log) in &first.logs {
        whole(key, log, &seen.roots, &mut findings);
        let ops = keys.get(key.as_str()).unwrap_or(&empty);
        against(key, log, ops, &mut findings);
    }
    for (key, ops) in &keys {
        if !first.logs.contains_key(*key) && ops.iter().any(|op| op.is_ok() && matches!(op.ask, Ask::Cas { .. })) {
            findings.push(Finding::new("log-lost", format!("{key}: acknowledged, and the workspace is not there")));
        }
    }
    one_order(&first.logs, history, &mut findings);
    findings
}

fn differ(one: &super::NodeSeen, other: &super::NodeSeen) -> String {
    for (key, log) in &one.logs {
        let theirs = other.logs.get(key).map_or(&[][..], Vec::as_slice);
        if theirs == log.as_slice() {
            continue;
        }
        let at = log.iter().zip(theirs).position(|(a, b)| a != b).unwrap_or(log.len().min(theirs.len()));
        return format!(
            "{key}: node {} has {} deployments and node {} has {}; the first difference is at place {at}: {:?} and {:?}",
            one.node,
            log.len(),
            other.node,
            theirs.len(),
            log.get(at),
            theirs.get(at)
        );
    }
    format!("nodes {} and {} have other workspaces", one.node, other.node)
}

/// No gap, no number twice, each with the files that it was deployed with.
fn whole(key: &str, log: &[Entry], roots: &HashMap<u64, String>, findings: &mut Vec<Finding>) {
    let mut before: Option<&Entry> = None;
    let mut at: HashMap<u64, u64> = HashMap::new();
    for entry in log {
        let expected = before.map_or(1, |before| before.rev + 1);
        if entry.rev != expected || entry.parent + 1 != entry.rev {
            findings.push(Finding::new("log-gap", format!("{key}: expected r{expected}, found {entry:?}")));
        }
        if before.is_some_and(|before| before.event >= entry.event) {
            findings.push(Finding::new(
                "log-order",
                format!("{key}: r{} has a lower index than the one before", entry.rev),
            ));
        }
        if let Some(first) = at.insert(entry.value, entry.rev) {
            let text = format!("{key}: number {} was applied twice, as r{first} and as r{}", entry.value, entry.rev);
            findings.push(Finding::new("log-twice", text));
        }
        match roots.get(&entry.value) {
            Some(root) if *root == entry.root => {}
            Some(root) => findings.push(Finding::new(
                "log-content",
                format!(
                    "{key}: r{} has the root {} and number {} was deployed as {root}",
                    entry.rev, entry.root, entry.value
                ),
            )),
            None => findings.push(Finding::new("log-alien", format!("{key}: nobody deployed {entry:?}"))),
        }
        before = Some(entry);
    }
}

/// What was acknowledged is there in its place, what was refused is not, and nothing is older than what came before it.
fn against(key: &str, log: &[Entry], ops: &[&Op], findings: &mut Vec<Finding>) {
    let place: HashMap<u64, &Entry> = log.iter().map(|entry| (entry.value, entry)).collect();
    for op in ops {
        let Ask::Cas { from, to } = &op.ask else { continue };
        match (&op.outcome, place.get(to)) {
            (Outcome::Ok { live, .. }, None) => findings.push(Finding::new(
                "log-lost",
                format!(
                    "{key}: number {to} was acknowledged as r{} at {} ms and is lost",
                    live.rev,
                    op.end / 1_000_000
                ),
            )),
            (Outcome::Ok { live, event, .. }, Some(entry)) => {
                let moved = entry.rev != live.rev || event.is_some_and(|event| event != entry.event);
                if moved || entry.parent != from.rev {
                    let text = format!("{key}: number {to} was acknowledged as {live:?} ({event:?}), and is {entry:?}");
                    findings.push(Finding::new("log-moved", text));
                }
            }
            (Outcome::Fail { why, .. }, Some(entry)) => findings.push(Finding::new(
                "log-refused",
                format!("{key}: number {to} was refused ({why}) and is r{}", entry.rev),
            )),
            (Outcome::Info { .. }, Some(entry)) if entry.parent != from.rev => {
                findings.push(Finding::new("log-moved", format!("{key}: number {to} stands on r{}", entry.parent)));
            }
            (Outcome::Fail { .. }, None) | (Outcome::Info { .. }, _) => {}
        }
    }
    reads(key, log, ops, findings);
}

/// What a client read of the log is the beginning of it, and all that was acknowledged before the read began.
fn reads(key: &str, log: &[Entry], ops: &[&Op], findings: &mut Vec<Finding>) {
    // The newest revision acknowledged by each moment, in the order of time.
    let mut acknowledged: Vec<(u64, u64)> = Vec::new();
    for op in ops {
        if let (Ask::Cas { .. }, Outcome::Ok { live, .. }) = (&op.ask, &op.outcome) {
            acknowledged.push((op.end, live.rev));
        }
    }
    acknowledged.sort_unstable();
    let mut newest = 0;
    for row in &mut acknowledged {
        newest = newest.max(row.1);
        row.1 = newest;
    }
    for op in ops {
        let (Ask::Log, Outcome::Ok { log: read, .. }) = (&op.ask, &op.outcome) else { continue };
        let begins = read.iter().zip(log).all(|(live, entry)| *live == Live { rev: entry.rev, value: entry.value });
        if !begins || read.len() > log.len() {
            findings.push(Finding::new(
                "log-read",
                format!("{key}: a read at {} ms is not the log's beginning", op.start / 1_000_000),
            ));
        }
        let known = acknowledged.partition_point(|row| row.0 < op.start);
        let must = known.checked_sub(1).map_or(0, |at| acknowledged[at].1);
        if (read.len() as u64) < must {
            let text = format!(
                "{key}: a read at {} ms had {} deployments, and r{must} was acknowledged",
                op.start / 1_000_000,
                read.len()
            );
            findings.push(Finding::new("log-stale", text));
        }
    }
}

/// The log of all workspaces has an order that real time allows: what ended before another began comes first.
fn one_order(logs: &BTreeMap<String, Vec<Entry>>, history: &[Op], findings: &mut Vec<Finding>) {
    let mut all: Vec<(u64, u64)> = logs.values().flatten().map(|entry| (entry.event, entry.value)).collect();
    all.sort_unstable();
    let ops: HashMap<u64, &Op> =
        history.iter().filter_map(|op| if let Ask::Cas { to, .. } = op.ask { Some((to, op)) } else { None }).collect();
    let mut latest: Option<&Op> = None;
    let mut before = None;
    for (event, value) in all {
        if before == Some(event) {
            findings.push(Finding::new("log-order", format!("two deployments have the index {event}")));
        }
        before = Some(event);
        let Some(op) = ops.get(&value) else { continue };
        if let Some(latest) = latest.filter(|latest| latest.start > op.happened_by()) {
            findings.push(Finding::new(
                "log-real-time",
                format!(
                    "number {value} ({}) was over at {} ms and comes in the log after {:?}, which began at {} ms",
                    op.key,
                    op.end / 1_000_000,
                    latest.ask,
                    latest.start / 1_000_000
                ),
            ));
        }
        if latest.is_none_or(|latest| latest.start < op.start) {
            latest = Some(op);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::samples::{self, Sample};

    fn codes(sample: &Sample) -> Vec<&'static str> {
        check(&sample.history, &sample.seen).iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn a_good_history_passes() {
        assert_eq!(check(&samples::good().history, &samples::good().seen), vec![]);
    }

    #[test]
    fn each_defect_is_found_and_named() {
        let change: [(&str, fn(&mut Sample)); 12] = [
            ("log-lost", |s| s.each(|logs| drop(logs.get_mut("w0").map(Vec::pop)))),
            ("log-lost", |s| s.each(|logs| drop(logs.remove("w0")))),
            ("log-twice", |s| {
                s.each(|logs| {
                    let log = logs.get_mut("w0").expect("a log");
                    let mut again = log[0].clone();
                    (again.rev, again.parent, again.event) = (4, 3, 90);
                    log.push(again);
                });
            }),
            ("log-gap", |s| s.each(|logs| drop(logs.get_mut("w0").expect("a log").remove(1)))),
            ("log-agree", |s| drop(s.seen.nodes[1].logs.get_mut("w0").map(Vec::pop))),
            ("log-content", |s| s.each(|logs| logs.get_mut("w0").expect("a log")[2].root = "other".to_owned())),
            ("log-alien", |s| s.each(|logs| logs.get_mut("w0").expect("a log")[2].value = 404)),
            ("log-moved", |s| {
                s.each(|logs| {
                    let log = logs.get_mut("w0").expect("a log");
                    (log[1].value, log[2].value) = (log[2].value, log[1].value);
                    (log[1].root, log[2].root) = (log[2].root.clone(), log[1].root.clone());
                });
            }),
            ("log-refused", |s| {
                let op = s.history.iter_mut().find(|op| matches!(op.ask, Ask::Cas { to: 3, .. })).expect("the op");
                op.outcome = Outcome::Fail { seen: None, why: "said so".to_owned() };
            }),
            ("log-stale", |s| {
                let op = s.history.iter_mut().find(|op| op.ask == Ask::Log).expect("a log read");
                let Outcome::Ok { log, .. } = &mut op.outcome else { panic!("it was answered") };
                log.truncate(1);
            }),
            ("log-read", |s| {
                let op = s.history.iter_mut().find(|op| op.ask == Ask::Log).expect("a log read");
                let Outcome::Ok { log, .. } = &mut op.outcome else { panic!("it was answered") };
                log.swap(0, 1);
            }),
            ("log-real-time", |s| {
                // The other workspace's deployment, which came last, has the lowest index.
                s.each(|logs| logs.get_mut("w1").expect("a log")[0].event = 1);
                let op = s.history.iter_mut().find(|op| op.key == "w1").expect("the op");
                let Outcome::Ok { event, .. } = &mut op.outcome else { panic!("it was answered") };
                *event = Some(1);
            }),
        ];
        for (code, change) in change {
            let mut sample = samples::good();
            change(&mut sample);
            let found = codes(&sample);
            assert!(found.contains(&code), "{code}: {found:?}");
        }
    }
}
