//! What an agent is given of its mailbox: `[messages]`.

use serde::{Serialize, Serializer};

use crate::acl::Performative;
use crate::manifest::read::Section;

/// The most messages that one agent handles at a time.
pub const CONCURRENCY_MAX: u32 = 64;
/// The priority of an agent whose file names none.
const PRIORITY: u32 = 4;
/// The most urgent priority.
const PRIORITY_MAX: u32 = 7;

/// Which messages an agent is given, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Messages {
    /// Whether its file has a `[messages]`: a language model has the tools for messages then.
    pub enabled: bool,
    /// The performatives that it takes; all of them where its file names none.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "names")]
    pub accepts: Option<Vec<Performative>>,
    /// How many messages it handles at a time.
    pub concurrency: u32,
    /// Whose messages are given out first where the node is busy: those of the agents with the highest, from 0 to 7.
    pub priority: u32,
}

impl Default for Messages {
    fn default() -> Messages {
        Messages { enabled: false, accepts: None, concurrency: 1, priority: PRIORITY }
    }
}

impl Messages {
    /// Whether the agent's file says nothing of messages.
    pub(super) fn is_absent(&self) -> bool {
        !self.enabled
    }

    /// Whether the agent takes what does this.
    pub fn takes(&self, performative: Performative) -> bool {
        self.accepts.as_ref().is_none_or(|accepts| accepts.contains(&performative))
    }

    pub(super) fn read(root: &mut Section<'_, '_>) -> Messages {
        let default = Messages::default();
        let Some(mut section) = root.section("messages") else { return default };
        let choices = Performative::ALL.map(|performative| (performative.name(), performative));
        let accepts = section.get("accepts").map(|value| {
            let mut accepts = Vec::new();
            for item in value.list_of(Performative::ALL.len()) {
                accepts.extend(item.choice(&choices).filter(|performative| !accepts.contains(performative)));
            }
            accepts
        });
        let concurrency = section.get("concurrency").and_then(|value| value.small(1..=CONCURRENCY_MAX));
        let priority = section.get("priority").and_then(|value| value.small(0..=PRIORITY_MAX));
        section.finish(&[]);
        Messages {
            enabled: true,
            accepts,
            concurrency: concurrency.unwrap_or(default.concurrency),
            priority: priority.unwrap_or(default.priority),
        }
    }
}

fn names<S: Serializer>(accepts: &Option<Vec<Performative>>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(accepts.iter().flatten().map(|performative| performative.name()))
}
