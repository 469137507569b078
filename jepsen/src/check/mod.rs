//! What a history has to hold, whatever was done to the nodes. Checkers are pure: the same input, the same findings.

pub mod linear;

pub mod log;

pub mod events;

pub mod turns;

pub mod mail;

pub mod memories;

#[cfg(test)]
pub mod samples;

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use self::mail::{Letter, Said};
use self::memories::Kept;
use crate::history::{Op, by_key};

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which rule is broken.
    pub code: &'static str,
    /// How.
    pub text: String,
}

impl Finding {
    /// A broken rule.
    pub fn new(code: &'static str, text: impl Into<String>) -> Finding {
        Finding { code, text: text.into() }
    }
}

/// What one node shows after everything was put right.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSeen {
    /// The node.
    pub node: usize,
    /// The deployments of each workspace, from the oldest, by its own event stream.
    pub logs: BTreeMap<String, Vec<log::Entry>>,
    /// The numbers of the messages in each `workspace/conversation`, from the oldest.
    pub conversations: BTreeMap<String, Vec<u64>>,
    /// What lies in the mailboxes of each workspace.
    #[serde(default)]
    pub mail: BTreeMap<String, Vec<Letter>>,
    /// What agents and people of each workspace sent, in the order of its positions.
    #[serde(default)]
    pub said: BTreeMap<String, Vec<Said>>,
    /// The memories of each workspace.
    #[serde(default)]
    pub memories: BTreeMap<String, Vec<Kept>>,
}

/// What all nodes show after everything was put right.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Each node that belongs to the cluster in the end.
    pub nodes: Vec<NodeSeen>,
    /// The root of the files that each number was deployed with.
    pub roots: HashMap<u64, String>,
    /// How often, at most, a message that was under way may have been taken up again: the newest term of any shard, and how often
    /// nodes were started.
    #[serde(default)]
    pub upsets: u64,
}

/// All that a run leaves behind for the checkers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// What the clients did.
    pub history: Vec<Op>,
    /// What the followers of the event stream got.
    pub followers: Vec<events::Followed>,
    /// What the nodes show in the end.
    pub seen: Seen,
}

/// Every checker over a run; the second part says what could not be decided.
pub fn all(evidence: &Evidence) -> (Vec<Finding>, Vec<String>) {
    let mut findings = log::check(&evidence.history, &evidence.seen);
    findings.extend(events::check(&evidence.followers, &evidence.seen));
    findings.extend(turns::check(&evidence.history, &evidence.seen));
    findings.extend(mail::check(&evidence.history, &evidence.seen));
    let (of_memories, mut undecided) = memories::check(&evidence.history, &evidence.seen);
    findings.extend(of_memories);
    for (key, mut ops) in by_key(&evidence.history) {
        ops.retain(|op| op.ask.memory().is_none());
        match linear::check(&ops) {
            linear::Verdict::Linearizable => {}
            linear::Verdict::Broken { placed, held, stuck } => {
                let stuck: Vec<String> = stuck.iter().take(4).map(|op| format!("{op:?}")).collect();
                let text =
                    format!("{key}: no order after {placed} operations with {held:?}; one of {}", stuck.join(" | "));
                findings.push(Finding::new("linear", text));
            }
            linear::Verdict::Unknown => undecided.push(format!(
                "{key}: more than {} configurations for {} operations",
                linear::CONFIGURATIONS_MAX,
                ops.len()
            )),
        }
    }
    (findings, undecided)
}
