//! The history of a run: what every client asked for, what it was told, and when.
//!
//! Times are nanoseconds of one monotonic clock since the run began. An operation whose outcome nobody knows stays
//! `info`: it may have happened at any time after it was asked for, also long after the run's end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// What is live in a workspace: the revision and the number that was deployed. `(0, 0)` before the first deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Live {
    /// The revision.
    pub rev: u64,
    /// The number that this run gave to what was deployed; each is used once.
    pub value: u64,
}

/// What a client asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "f", rename_all = "snake_case")]
pub enum Ask {
    /// What is live?
    Read,
    /// Put `to` live on top of `from`, and not if anything else is live.
    Cas {
        /// What the client saw live.
        from: Live,
        /// The number to put live.
        to: u64,
    },
    /// The whole history of the workspace.
    Log,
    /// A message to the agent.
    Say {
        /// In which conversation.
        conversation: String,
        /// The number in its text; each is used once.
        value: u64,
    },
    /// A message into an agent's mailbox. What was acknowledged has in `live` 1 for a message that is new and 2 for one that was
    /// known by its key, and the lower half of the message's id.
    Mail {
        /// What it is for.
        errand: Errand,
        /// How urgent it is.
        priority: u8,
        /// The number by which its answer is known; each is used for one message.
        value: u64,
        /// It had been acknowledged, and was sent once more with the same key.
        again: bool,
    },
    /// Three looks at the mailboxes, one after the other: dead letters, what the platform told their sender, dead letters once more.
    /// What was read has in `log` the look, from 1, and the message's number.
    Look,
    /// A text to be remembered, whose first value is its own number.
    Remember {
        /// The number of the memory; a text of each is remembered for the first time once.
        memory: u64,
        /// The number of the id that the client drew.
        id: u64,
    },
    /// Another value for a memory.
    Edit {
        /// Which memory.
        memory: u64,
        /// The value; each is used once.
        to: u64,
    },
    /// A memory to be forgotten.
    Forget {
        /// Which memory.
        memory: u64,
    },
    /// A memory by its id. What was read has in `live` the revision 1 and the value, or nothing.
    Recall {
        /// Which memory.
        memory: u64,
    },
    /// A memory by its words; the same as of [`Ask::Recall`], and in `log` all that was found of that number.
    Search {
        /// Which memory.
        memory: u64,
    },
}

impl Ask {
    /// The memory that it is about.
    pub fn memory(&self) -> Option<u64> {
        match self {
            Ask::Remember { memory, .. }
            | Ask::Edit { memory, .. }
            | Ask::Forget { memory }
            | Ask::Recall { memory }
            | Ask::Search { memory } => Some(*memory),
            Ask::Read | Ask::Cas { .. } | Ask::Log | Ask::Say { .. } | Ask::Mail { .. } | Ask::Look => None,
        }
    }

    /// Whether it writes.
    pub fn is_write(&self) -> bool {
        match self {
            Ask::Cas { .. } | Ask::Say { .. } | Ask::Mail { .. } => true,
            Ask::Remember { .. } | Ask::Edit { .. } | Ask::Forget { .. } => true,
            Ask::Read | Ask::Log | Ask::Look | Ask::Recall { .. } | Ask::Search { .. } => false,
        }
    }
}

/// What a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Errand {
    /// A program counts it, and answers with the count.
    Count,
    /// A program counts it and answers, and fails then, each time.
    Poison,
    /// A model answers it.
    Note,
    /// Nobody is there to take it, and it expires.
    Expire,
}

impl Errand {
    /// Whose mailbox it goes to.
    pub fn receiver(self) -> &'static str {
        match self {
            Errand::Count | Errand::Poison => crate::model::COUNTER,
            Errand::Note => crate::model::AGENT,
            Errand::Expire => crate::model::NOBODY,
        }
    }
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Outcome {
    /// It happened. What was read, or put live.
    Ok {
        /// What is live by this answer.
        live: Live,
        /// For a deployment, the log's index.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        event: Option<u64>,
        /// For a log read, all of it, from the oldest.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        log: Vec<Live>,
    },
    /// It did not happen and never will.
    Fail {
        /// For a conflict, what was live instead.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seen: Option<Live>,
        /// Why.
        why: String,
    },
    /// Nobody knows.
    Info {
        /// Why not.
        why: String,
    },
}

/// One operation from its beginning to its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Op {
    /// Who asked. One whose operation ended as `info` asks nothing more.
    pub process: u64,
    /// Which workspace.
    pub key: String,
    /// Which node the last attempt went to.
    pub node: usize,
    /// What was asked for.
    pub ask: Ask,
    /// When.
    pub start: u64,
    /// When it ended; for `info`, when the client gave up.
    pub end: u64,
    /// How.
    pub outcome: Outcome,
    /// How many requests it took.
    pub attempts: u32,
}

impl Op {
    /// When it had happened at the latest.
    pub fn happened_by(&self) -> u64 {
        match self.outcome {
            Outcome::Info { .. } => u64::MAX,
            Outcome::Ok { .. } | Outcome::Fail { .. } => self.end,
        }
    }

    /// Whether it was acknowledged.
    pub fn is_ok(&self) -> bool {
        matches!(self.outcome, Outcome::Ok { .. })
    }
}

/// Takes down operations as they end, from any thread.
pub struct Recorder {
    began: Instant,
    ops: Mutex<Vec<Op>>,
}

impl Recorder {
    /// Begins now.
    pub fn new() -> Recorder {
        Recorder { began: Instant::now(), ops: Mutex::default() }
    }

    /// Nanoseconds since the run began.
    pub fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// When the run began.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Takes one down.
    pub fn add(&self, op: Op) {
        crate::lock(&self.ops).push(op);
    }

    /// All of them, in the order in which they began.
    pub fn history(&self) -> Vec<Op> {
        let mut ops = crate::lock(&self.ops).clone();
        ops.sort_by_key(|op| op.start);
        ops
    }
}

/// The operations of each workspace.
pub fn by_key(history: &[Op]) -> BTreeMap<&str, Vec<&Op>> {
    let mut keys: BTreeMap<&str, Vec<&Op>> = BTreeMap::new();
    for op in history {
        keys.entry(&op.key).or_default().push(op);
    }
    keys
}

/// The reads and deployments of one workspace as EDN, one event a line, as Knossos takes them for a `cas-register`.
///
/// The register's value is the deployed number; every number is deployed once, so it stands for its revision too.
pub fn edn(ops: &[&Op]) -> String {
    let mut events = Vec::new();
    for op in ops {
        let (f, asked, told) = match (&op.ask, &op.outcome) {
            (Ask::Read, Outcome::Ok { live, .. }) => (":read", "nil".to_owned(), number(live.value)),
            (Ask::Read, Outcome::Fail { .. } | Outcome::Info { .. }) => (":read", "nil".to_owned(), "nil".to_owned()),
            (Ask::Cas { from, to }, _) => {
                let pair = format!("[{} {to}]", number(from.value));
                (":cas", pair.clone(), pair)
            }
            _ => continue,
        };
        let end = match op.outcome {
            Outcome::Ok { .. } => ":ok",
            Outcome::Fail { .. } => ":fail",
            Outcome::Info { .. } => ":info",
        };
        events.push((op.start, 0, op.process, ":invoke", f, asked));
        events.push((op.end, 1, op.process, end, f, told));
    }
    events.sort();
    let mut out = String::new();
    for (index, (time, _, process, kind, f, value)) in events.iter().enumerate() {
        let _ =
            writeln!(out, "{{:index {index}, :time {time}, :process {process}, :type {kind}, :f {f}, :value {value}}}");
    }
    out
}

fn number(value: u64) -> String {
    if value == 0 { "nil".to_owned() } else { value.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edn_has_an_event_a_line_in_the_order_of_time() {
        let op = |process, ask, start, end, outcome| Op {
            process,
            key: "w".to_owned(),
            node: 0,
            ask,
            start,
            end,
            outcome,
            attempts: 1,
        };
        let ok = |rev, value| Outcome::Ok { live: Live { rev, value }, event: None, log: Vec::new() };
        let ops = [
            op(0, Ask::Cas { from: Live::default(), to: 7 }, 1, 5, ok(1, 7)),
            op(1, Ask::Read, 2, 3, ok(0, 0)),
            op(2, Ask::Cas { from: Live { rev: 1, value: 7 }, to: 8 }, 6, 9, Outcome::Info { why: String::new() }),
        ];
        let edn = edn(&ops.iter().collect::<Vec<_>>());
        let expected = "\
            {:index 0, :time 1, :process 0, :type :invoke, :f :cas, :value [nil 7]}\n\
            {:index 1, :time 2, :process 1, :type :invoke, :f :read, :value nil}\n\
            {:index 2, :time 3, :process 1, :type :ok, :f :read, :value nil}\n\
            {:index 3, :time 5, :process 0, :type :ok, :f :cas, :value [nil 7]}\n\
            {:index 4, :time 6, :process 2, :type :invoke, :f :cas, :value [7 8]}\n\
            {:index 5, :time 9, :process 2, :type :info, :f :cas, :value [7 8]}\n";
        assert_eq!(edn, expected);
    }
}
