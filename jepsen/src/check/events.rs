//! Did a follower of the event stream see everything once and in order, over however many connections it took?

use serde::{Deserialize, Serialize};

use super::{Finding, Seen};
use crate::history::Live;

/// One event as a follower got it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The id in the stream, the log's index.
    pub id: u64,
    /// The workspace.
    pub key: String,
    /// What went live.
    pub live: Live,
    /// From which node it came.
    pub node: usize,
}

/// What one follower got, in the order in which it came.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Followed {
    /// The follower.
    pub follower: usize,
    /// How often it connected.
    pub connections: u64,
    /// All events.
    pub events: Vec<Event>,
}

/// Checks each follower against the log that the nodes have in the end. Each began before the first deployment.
pub fn check(followers: &[Followed], seen: &Seen) -> Vec<Finding> {
    let Some(node) = seen.nodes.first() else {
        return vec![Finding::new("events", "no node was read in the end")];
    };
    let mut log: Vec<(u64, &str, Live)> = Vec::new();
    for (key, entries) in &node.logs {
        log.extend(entries.iter().map(|e| (e.event, key.as_str(), Live { rev: e.rev, value: e.value })));
    }
    log.sort_unstable();
    followers.iter().filter_map(|followed| one(followed, &log)).collect()
}

fn one(followed: &Followed, log: &[(u64, &str, Live)]) -> Option<Finding> {
    let who = format!("follower {} ({} connections)", followed.follower, followed.connections);
    if let Some(pair) = followed.events.windows(2).find(|pair| pair[0].id >= pair[1].id) {
        return Some(Finding::new("events-order", format!("{who} got {:?} before {:?}", pair[0], pair[1])));
    }
    for (place, expected) in log.iter().enumerate() {
        match followed.events.get(place) {
            None => {
                let text = format!("{who} got {} of {} events", followed.events.len(), log.len());
                return Some(Finding::new("events-end", text));
            }
            Some(event) if (event.id, event.key.as_str(), event.live) == *expected => {}
            Some(event) if event.id > expected.0 => {
                return Some(Finding::new("events-gap", format!("{who} missed {expected:?} and got {event:?}")));
            }
            Some(event) => {
                return Some(Finding::new(
                    "events-alien",
                    format!("{who} got {event:?}, and the log has {expected:?}"),
                ));
            }
        }
    }
    let more = followed.events.get(log.len())?;
    Some(Finding::new("events-alien", format!("{who} got {more:?}, which is not in the log")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::samples;

    #[test]
    fn a_whole_stream_passes_and_each_defect_is_named() {
        let sample = samples::good();
        assert_eq!(check(&sample.followers, &sample.seen), vec![]);
        let change: [(&str, fn(&mut Vec<Event>)); 5] = [
            ("events-gap", |events| drop(events.remove(1))),
            ("events-end", |events| drop(events.pop())),
            ("events-order", |events| events.swap(0, 1)),
            ("events-order", |events| events.insert(1, events[0].clone())),
            ("events-alien", |events| events[1].live.value = 404),
        ];
        for (code, change) in change {
            let mut sample = samples::good();
            change(&mut sample.followers[0].events);
            let found = check(&sample.followers, &sample.seen);
            assert_eq!(found.first().map(|finding| finding.code), Some(code), "{found:?}");
        }
    }
}
