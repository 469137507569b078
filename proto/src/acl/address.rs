//! Who sends and who receives. An agent is its name; what is no agent has a colon, which no agent's name can have.

use std::fmt;
use std::str::FromStr;

use crate::{AgentName, CapabilityName, WorkspaceId};

/// The longest subject of a token or name of a topic, in bytes.
pub const ADDRESS_BYTES_MAX: usize = 256;
/// The most levels of a topic.
pub const TOPIC_LEVELS_MAX: usize = 16;

/// Who sends or receives a message within a workspace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// An agent, by its name: `analyst`.
    Agent(AgentName),
    /// An agent of another workspace, by both names: `analyst@reports`. Only agents write there.
    Elsewhere {
        /// The name of the agent.
        agent: AgentName,
        /// The workspace that it is in.
        workspace: WorkspaceId,
    },
    /// Whichever agent offers a capability: `capability:charts`.
    Capability(CapabilityName),
    /// A person, by the subject of their token: `subject:ann`.
    Subject(Subject),
    /// Everybody who subscribed to a pattern that the topic matches: `topic:orders/new`.
    Topic(Topic),
    /// Every agent of the workspace but the sender: `broadcast:`.
    Broadcast,
    /// The agent platform itself, which answers for those that cannot: `platform:`. Nobody can write to it.
    Platform,
}

/// The subject of a person's token: text without control characters, of 1 to 256 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject(String);

/// The name of a topic: levels between slashes, of which none is empty, `+` or `#`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(String);

/// A pattern of topics: levels between slashes, where `+` stands for one level and a last `#` for any number of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(String);

/// Why a text is no address, topic or pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// It is none of the forms.
    #[error(
        "`{text}` is no address: {why}; write an agent's name, AGENT@WORKSPACE, capability:NAME, subject:NAME, topic:A/B or \
         broadcast:"
    )]
    Address {
        /// The first characters of the text.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// It is neither a topic nor a pattern.
    #[error("`{text}` is no {what}: {why}")]
    Topic {
        /// The first characters of the text.
        text: String,
        /// What it should have been.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(40).collect()
}

fn levels(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > ADDRESS_BYTES_MAX {
        return Err("it has 1 to 256 bytes");
    }
    if text.chars().any(char::is_control) {
        return Err("it has a control character");
    }
    let levels: Vec<&str> = text.split('/').collect();
    if levels.len() > TOPIC_LEVELS_MAX {
        return Err("it has more than 16 levels");
    }
    match levels.iter().any(|level| level.is_empty()) {
        true => Err("it has an empty level"),
        false => Ok(()),
    }
}

impl Subject {
    /// The subject as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Subject {
    type Err = InvalidAddress;
    fn from_str(text: &str) -> Result<Subject, InvalidAddress> {
        let fits = !text.trim().is_empty() && text.len() <= ADDRESS_BYTES_MAX && !text.chars().any(char::is_control);
        let why = || "a subject has 1 to 256 bytes and no control characters".to_owned();
        fits.then(|| Subject(text.to_owned())).ok_or_else(|| InvalidAddress::Address { text: shown(text), why: why() })
    }
}

impl Topic {
    /// The topic as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Topic {
    type Err = InvalidAddress;
    fn from_str(text: &str) -> Result<Topic, InvalidAddress> {
        let wrong = |why| InvalidAddress::Topic { text: shown(text), what: "topic", why };
        levels(text).map_err(wrong)?;
        match text.contains(['+', '#']) {
            true => Err(wrong("`+` and `#` are for the patterns of subscriptions")),
            false => Ok(Topic(text.to_owned())),
        }
    }
}

impl Pattern {
    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a topic is one of those that it stands for.
    pub fn matches(&self, topic: &Topic) -> bool {
        let mut topic = topic.0.split('/');
        for level in self.0.split('/') {
            match (level, topic.next()) {
                ("#", _) => return true,
                ("+", Some(_)) => {}
                (level, Some(named)) if level == named => {}
                _ => return false,
            }
        }
        topic.next().is_none()
    }
}

impl FromStr for Pattern {
    type Err = InvalidAddress;
    fn from_str(text: &str) -> Result<Pattern, InvalidAddress> {
        let wrong = |why| InvalidAddress::Topic { text: shown(text), what: "pattern of topics", why };
        levels(text).map_err(wrong)?;
        let count = text.split('/').count();
        for (at, level) in text.split('/').enumerate() {
            if level == "#" && at + 1 < count {
                return Err(wrong("`#` is its last level"));
            }
            if level.len() > 1 && level.contains(['+', '#']) {
                return Err(wrong("`+` and `#` are levels of their own"));
            }
        }
        Ok(Pattern(text.to_owned()))
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;
    fn from_str(text: &str) -> Result<Address, InvalidAddress> {
        let wrong = |why: String| InvalidAddress::Address { text: shown(text), why };
        let Some((kind, name)) = text.split_once(':') else {
            if let Some((agent, workspace)) = text.split_once('@') {
                let agent = agent.parse().map_err(|error: crate::InvalidId| wrong(error.to_string()))?;
                let workspace = workspace.parse().map_err(|error: crate::InvalidId| wrong(error.to_string()))?;
                return Ok(Address::Elsewhere { agent, workspace });
            }
            return text.parse().map(Address::Agent).map_err(|error: crate::InvalidId| wrong(error.to_string()));
        };
        match (kind, name) {
            ("agent", name) => {
                name.parse().map(Address::Agent).map_err(|error: crate::InvalidId| wrong(error.to_string()))
            }
            ("capability", name) => {
                name.parse().map(Address::Capability).map_err(|error: crate::InvalidId| wrong(error.to_string()))
            }
            ("subject", name) => name.parse().map(Address::Subject),
            ("topic", name) => name.parse().map(Address::Topic),
            ("broadcast", "") => Ok(Address::Broadcast),
            ("platform", "") => Ok(Address::Platform),
            _ => Err(wrong("what is before its colon is no kind of address".to_owned())),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Agent(name) => f.write_str(name.as_str()),
            Address::Elsewhere { agent, workspace } => write!(f, "{agent}@{workspace}"),
            Address::Capability(name) => write!(f, "capability:{name}"),
            Address::Subject(Subject(name)) => write!(f, "subject:{name}"),
            Address::Topic(Topic(name)) => write!(f, "topic:{name}"),
            Address::Broadcast => f.write_str("broadcast:"),
            Address::Platform => f.write_str("platform:"),
        }
    }
}
