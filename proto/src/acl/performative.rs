//! What a message does: the performatives that travel. FIPA has two more, which an agent plans and never sends.

use std::fmt;

/// What a message does, by the name that FIPA's communicative act library gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Performative {
    /// Accepts a proposal that was made before.
    AcceptProposal,
    /// Agrees to do what was requested.
    Agree,
    /// Takes back a request that was made before.
    Cancel,
    /// Calls for proposals to do something.
    Cfp,
    /// Says that something is true, of which the receiver is not certain.
    Confirm,
    /// Says that something is false, which the receiver believes.
    Disconfirm,
    /// Says that something was attempted and failed.
    Failure,
    /// Says that something is true.
    Inform,
    /// Says that a message was not understood, and why.
    NotUnderstood,
    /// Asks to pass the embedded message on to the agents that are described, and further.
    Propagate,
    /// Proposes to do something under certain conditions.
    Propose,
    /// Asks to choose agents and to send them the embedded message.
    Proxy,
    /// Asks whether something is true.
    QueryIf,
    /// Asks for what something refers to.
    QueryRef,
    /// Refuses to do what was requested, and says why.
    Refuse,
    /// Rejects a proposal that was made before.
    RejectProposal,
    /// Requests to do something.
    Request,
    /// Requests to do something once a condition is true.
    RequestWhen,
    /// Requests to do something each time that a condition becomes true.
    RequestWhenever,
    /// Asks to be told what something refers to, now and whenever it changes.
    Subscribe,
}

/// Why a text is no performative.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPerformative {
    /// It is planned and never sent: its message on the wire is an `inform`.
    #[error("`{name}` is planned by an agent and never sent as such; send `inform`")]
    Planned {
        /// The performative's name.
        name: String,
    },
    /// It is none.
    #[error("`{name}` is no performative; use one of {}", Performative::names())]
    Unknown {
        /// The first characters of the text.
        name: String,
    },
}

/// The longest name that an error repeats, in characters.
const SHOWN_MAX: usize = 40;

impl Performative {
    /// All of them, in the order of their names.
    pub const ALL: [Performative; 20] = [
        Performative::AcceptProposal,
        Performative::Agree,
        Performative::Cancel,
        Performative::Cfp,
        Performative::Confirm,
        Performative::Disconfirm,
        Performative::Failure,
        Performative::Inform,
        Performative::NotUnderstood,
        Performative::Propagate,
        Performative::Propose,
        Performative::Proxy,
        Performative::QueryIf,
        Performative::QueryRef,
        Performative::Refuse,
        Performative::RejectProposal,
        Performative::Request,
        Performative::RequestWhen,
        Performative::RequestWhenever,
        Performative::Subscribe,
    ];

    /// Its name as FIPA spells it.
    pub fn name(self) -> &'static str {
        match self {
            Performative::AcceptProposal => "accept-proposal",
            Performative::Agree => "agree",
            Performative::Cancel => "cancel",
            Performative::Cfp => "cfp",
            Performative::Confirm => "confirm",
            Performative::Disconfirm => "disconfirm",
            Performative::Failure => "failure",
            Performative::Inform => "inform",
            Performative::NotUnderstood => "not-understood",
            Performative::Propagate => "propagate",
            Performative::Propose => "propose",
            Performative::Proxy => "proxy",
            Performative::QueryIf => "query-if",
            Performative::QueryRef => "query-ref",
            Performative::Refuse => "refuse",
            Performative::RejectProposal => "reject-proposal",
            Performative::Request => "request",
            Performative::RequestWhen => "request-when",
            Performative::RequestWhenever => "request-whenever",
            Performative::Subscribe => "subscribe",
        }
    }

    /// The number under which it is written, from 1, for ever.
    pub fn number(self) -> u32 {
        self as u32 + 1
    }

    /// The performative that a number stands for.
    pub fn from_number(number: u32) -> Option<Performative> {
        Performative::ALL.get(number.checked_sub(1)? as usize).copied()
    }

    /// Reads a name, whatever the case and with `_` or `-`. The second value is the name that was given, where it is one of
    /// the older short names that FIPA does not have.
    pub fn read(text: &str) -> Result<(Performative, Option<String>), InvalidPerformative> {
        let shown = || text.chars().take(SHOWN_MAX).collect::<String>();
        if text.len() > SHOWN_MAX {
            return Err(InvalidPerformative::Unknown { name: shown() });
        }
        let name = text.to_ascii_lowercase().replace('_', "-");
        let short = match name.as_str() {
            "accept" => Some(Performative::AcceptProposal),
            "reject" => Some(Performative::RejectProposal),
            "query" => Some(Performative::QueryRef),
            "inform-if" | "inform-ref" => return Err(InvalidPerformative::Planned { name }),
            _ => None,
        };
        if let Some(performative) = short {
            return Ok((performative, Some(text.to_owned())));
        }
        let found = Performative::ALL.into_iter().find(|performative| performative.name() == name);
        found.map(|performative| (performative, None)).ok_or_else(|| InvalidPerformative::Unknown { name: shown() })
    }

    fn names() -> String {
        Performative::ALL.map(Performative::name).join(", ")
    }
}

impl fmt::Display for Performative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
