//! Is every answered message in its conversation, once, and in the order in which one client said them?

use std::collections::{BTreeMap, HashMap};

use super::{Finding, Seen};
use crate::history::{Ask, Op, Outcome};

/// Checks what was said against the conversations that each node shows in the end.
pub fn check(history: &[Op], seen: &Seen) -> Vec<Finding> {
    let mut findings = Vec::new();
    for node in &seen.nodes {
        for (name, turns) in &node.conversations {
            let mut times: HashMap<u64, usize> = HashMap::new();
            turns.iter().for_each(|value| *times.entry(*value).or_default() += 1);
            for (value, count) in times.into_iter().filter(|(_, count)| *count > 1) {
                let text = format!("{name}: message {value} is there {count} times on node {}", node.node);
                findings.push(Finding::new("turn-twice", text));
            }
        }
        said(history, node, &mut findings);
    }
    findings.sort_by(|a, b| a.text.cmp(&b.text));
    findings
}

fn said(history: &[Op], node: &super::NodeSeen, findings: &mut Vec<Finding>) {
    let mut place: HashMap<u64, (&str, usize)> = HashMap::new();
    for (name, turns) in &node.conversations {
        place.extend(turns.iter().enumerate().map(|(at, value)| (*value, (name.as_str(), at))));
    }
    // The furthest place that an answered message of a conversation has, by when it was answered.
    let mut answered: BTreeMap<String, Vec<(u64, u64, usize, u64)>> = BTreeMap::new();
    for op in history {
        let Ask::Say { conversation, value } = &op.ask else { continue };
        let name = format!("{}/{conversation}", op.key);
        match (&op.outcome, place.get(value)) {
            (Outcome::Ok { .. }, Some((found, at))) if *found == name => {
                answered.entry(name).or_default().push((op.start, op.end, *at, *value));
            }
            (Outcome::Ok { .. }, Some((found, _))) => {
                findings.push(Finding::new("turn-moved", format!("message {value} of {name} is in {found}")));
            }
            (Outcome::Ok { .. }, None) => {
                let text = format!("{name}: message {value} was answered and is lost on node {}", node.node);
                findings.push(Finding::new("turn-lost", text));
            }
            (Outcome::Fail { why, .. }, Some(_)) => {
                let text = format!("{name}: message {value} was refused ({why}) and is there");
                findings.push(Finding::new("turn-refused", text));
            }
            (Outcome::Fail { .. }, None) | (Outcome::Info { .. }, _) => {}
        }
    }
    for (name, mut rows) in answered {
        rows.sort_by_key(|row| row.2);
        let mut latest = 0;
        for (start, end, _, value) in rows {
            if end < latest {
                let text = format!("{name}: message {value} was answered before one that stands before it was said");
                findings.push(Finding::new("turn-order", text));
            }
            latest = latest.max(start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::samples::{self, Sample};

    #[test]
    fn answered_messages_are_found_again_and_each_defect_is_named() {
        let good = samples::good();
        assert_eq!(check(&good.history, &good.seen), vec![]);
        let change: [(&str, fn(&mut Vec<u64>)); 3] = [
            ("turn-lost", |turns| turns.truncate(1)),
            ("turn-twice", |turns| turns.push(turns[0])),
            ("turn-order", |turns| turns.swap(0, 1)),
        ];
        for (code, change) in change {
            let mut sample: Sample = samples::good();
            change(sample.seen.nodes[1].conversations.get_mut("w0/c").expect("a conversation"));
            let found = check(&sample.history, &sample.seen);
            assert!(found.iter().any(|finding| finding.code == code), "{code}: {found:?}");
        }
    }
}
