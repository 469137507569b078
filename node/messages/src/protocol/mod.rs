//! FIPA's interaction protocols as pure machines: one for each participant of a conversation.
//!
//! A machine takes what its table lists for its state and refuses everything else without a change; whoever drives it answers
//! that with not-understood. An initiator may cancel in every state that is not an end, and until the participant answers
//! that, the state of before stands.

mod table;

use caxton_proto::acl::Performative;

/// An interaction protocol that is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Request: a participant does what it is asked to (SC00026H).
    Request,
    /// Query: a participant says whether something is true, or what (SC00027H).
    Query,
    /// Request-when: it is done once a condition is true (SC00028H).
    RequestWhen,
    /// Propose: a participant accepts or rejects a proposal (SC00036H).
    Propose,
    /// Subscribe: the participant says so whenever something changes (SC00035H).
    Subscribe,
    /// Contract net: proposals are called for, and one or more are accepted (SC00029H).
    ContractNet,
    /// Iterated contract net: proposers may be called again (SC00030H).
    IteratedContractNet,
    /// Brokering: a broker chooses who does it, and passes the answer on (SC00033H).
    Brokering,
    /// Recruiting: a recruiter chooses who does it, and those answer (SC00034H).
    Recruiting,
    /// English auction: the price rises until nobody bids more (XC00031F).
    EnglishAuction,
    /// Dutch auction: the price falls until somebody bids (XC00032F).
    DutchAuction,
}

/// Who speaks in a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Whoever began the conversation.
    Initiator,
    /// Whoever was spoken to.
    Participant,
}

/// How far a conversation with one participant is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Nothing was said.
    Start,
    /// An auction was announced.
    Announced,
    /// The participant was asked, and has not answered.
    Requested,
    /// The participant agreed, and owes the result.
    Agreed,
    /// A broker has passed the request on, and owes what comes of it.
    Forwarded,
    /// Proposals were called for.
    Called,
    /// There was no answer to the call by its deadline: a proposal that still comes is rejected.
    Lapsed,
    /// The participant made a proposal, or the initiator did, and the other has to answer it.
    Proposed,
    /// The proposal was accepted, and its result is owed.
    Accepted,
    /// The bid stands; a higher one may come.
    Leading,
    /// The bid does not stand.
    Outbid,
    /// It ended with a result.
    Done,
    /// It ended with a refusal.
    Refused,
    /// It ended with the rejection of a proposal.
    Rejected,
    /// It ended with a failure.
    Failed,
    /// It ended because the initiator took it back.
    Cancelled,
    /// It ended because the participant did not understand.
    Misunderstood,
    /// It ended because its deadline passed without a result.
    TimedOut,
}

/// What is said, as a machine sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Act {
    /// Who says it.
    pub role: Role,
    /// What it does.
    pub performative: Performative,
    /// It answers the initiator's cancel, by its `in_reply_to`.
    pub answers_cancel: bool,
}

/// A conversation with one participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Machine {
    /// The protocol that it follows.
    pub protocol: Protocol,
    /// How far it is.
    pub state: State,
    /// The initiator wants to take it back, and the participant has not answered that.
    pub cancelling: bool,
}

/// What the deadline of a conversation does to one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lapse {
    /// It had ended, or has a result to come that no deadline ends.
    Nothing,
    /// The call for proposals has no answer, which is one.
    NoBid,
    /// There is a proposal, which the initiator has to answer.
    Bid,
    /// The answer is missing: the initiator is told of the failure.
    Failure,
}

/// The protocol does not allow an act now; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{performative} from the {} is not what {} allows when it is {}{}", role.name(), protocol.name(), state.name(), listed(allowed))]
pub struct NotUnderstood {
    /// The protocol that was broken.
    pub protocol: Protocol,
    /// How far it is.
    pub state: State,
    /// Whose act it was.
    pub role: Role,
    /// What was said.
    pub performative: Performative,
    /// What that role may say now.
    pub allowed: Vec<Performative>,
}

fn listed(allowed: &[Performative]) -> String {
    match allowed {
        [] => String::new(),
        all => format!("; it may say {}", all.iter().map(|it| it.name()).collect::<Vec<_>>().join(", ")),
    }
}

impl Role {
    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Role::Initiator => "initiator",
            Role::Participant => "participant",
        }
    }
}

impl Protocol {
    /// All of them.
    pub const ALL: [Protocol; 11] = [
        Protocol::Request,
        Protocol::Query,
        Protocol::RequestWhen,
        Protocol::Propose,
        Protocol::Subscribe,
        Protocol::ContractNet,
        Protocol::IteratedContractNet,
        Protocol::Brokering,
        Protocol::Recruiting,
        Protocol::EnglishAuction,
        Protocol::DutchAuction,
    ];

    /// Its name as FIPA spells it.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Request => "fipa-request",
            Protocol::Query => "fipa-query",
            Protocol::RequestWhen => "fipa-request-when",
            Protocol::Propose => "fipa-propose",
            Protocol::Subscribe => "fipa-subscribe",
            Protocol::ContractNet => "fipa-contract-net",
            Protocol::IteratedContractNet => "fipa-iterated-contract-net",
            Protocol::Brokering => "fipa-brokering",
            Protocol::Recruiting => "fipa-recruiting",
            Protocol::EnglishAuction => "fipa-auction-english",
            Protocol::DutchAuction => "fipa-auction-dutch",
        }
    }

    /// The protocol of a name, with or without `fipa-`, whatever the case. Others are not checked.
    pub fn from_name(name: &str) -> Option<Protocol> {
        let name = name.to_ascii_lowercase().replace('_', "-");
        let short = name.strip_prefix("fipa-").unwrap_or(&name);
        Protocol::ALL.into_iter().find(|protocol| protocol.name().strip_prefix("fipa-") == Some(short))
    }

    /// Whether proposals are called for until a deadline.
    pub fn calls_for_proposals(self) -> bool {
        match self {
            Protocol::ContractNet | Protocol::IteratedContractNet => true,
            Protocol::Request
            | Protocol::Query
            | Protocol::RequestWhen
            | Protocol::Propose
            | Protocol::Subscribe
            | Protocol::Brokering
            | Protocol::Recruiting
            | Protocol::EnglishAuction
            | Protocol::DutchAuction => false,
        }
    }
}

impl State {
    /// All of them, in the order of their numbers.
    pub const ALL: [State; 18] = [
        State::Start,
        State::Announced,
        State::Requested,
        State::Agreed,
        State::Forwarded,
        State::Called,
        State::Lapsed,
        State::Proposed,
        State::Accepted,
        State::Leading,
        State::Outbid,
        State::Done,
        State::Refused,
        State::Rejected,
        State::Failed,
        State::Cancelled,
        State::Misunderstood,
        State::TimedOut,
    ];

    /// Its name in pictures, in the API and in tables, for ever.
    pub fn name(self) -> &'static str {
        match self {
            State::Start => "not begun",
            State::Announced => "announced",
            State::Requested => "requested",
            State::Agreed => "agreed",
            State::Forwarded => "forwarded",
            State::Called => "called",
            State::Lapsed => "lapsed",
            State::Proposed => "proposed",
            State::Accepted => "accepted",
            State::Leading => "leading",
            State::Outbid => "outbid",
            State::Done => "done",
            State::Refused => "refused",
            State::Rejected => "rejected",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
            State::Misunderstood => "misunderstood",
            State::TimedOut => "timed out",
        }
    }

    /// The state of a name.
    pub fn from_name(name: &str) -> Option<State> {
        State::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether nothing more is to come. A call that lapsed is over too, though a late proposal still gets its answer.
    pub fn is_end(self) -> bool {
        match self {
            State::Lapsed
            | State::Done
            | State::Refused
            | State::Rejected
            | State::Failed
            | State::Cancelled
            | State::Misunderstood
            | State::TimedOut => true,
            State::Start
            | State::Announced
            | State::Requested
            | State::Agreed
            | State::Forwarded
            | State::Called
            | State::Proposed
            | State::Accepted
            | State::Leading
            | State::Outbid => false,
        }
    }
}

impl Machine {
    /// A conversation that has not begun.
    pub fn new(protocol: Protocol) -> Machine {
        Machine { protocol, state: State::Start, cancelling: false }
    }

    /// The machine after an act, or why the act changes nothing.
    pub fn after(self, act: Act) -> Result<Machine, NotUnderstood> {
        let Act { role, performative, answers_cancel } = act;
        let refused = || NotUnderstood {
            protocol: self.protocol,
            state: self.state,
            role,
            performative,
            allowed: self.allowed(role),
        };
        let open = self.state != State::Start && !self.state.is_end();
        match (role, performative) {
            (Role::Initiator, Performative::Cancel) if open && !self.cancelling => {
                return Ok(Machine { cancelling: true, ..self });
            }
            (Role::Participant, Performative::NotUnderstood) if open => {
                return Ok(Machine { state: State::Misunderstood, cancelling: false, ..self });
            }
            (Role::Participant, Performative::Inform) if self.cancelling && answers_cancel => {
                return Ok(Machine { state: State::Cancelled, cancelling: false, ..self });
            }
            // It could not be taken back: the state of before stands.
            (Role::Participant, Performative::Failure) if self.cancelling && answers_cancel => {
                return Ok(Machine { cancelling: false, ..self });
            }
            _ => {}
        }
        let next = table::next(self.protocol, self.state, role, performative).ok_or_else(refused)?;
        Ok(Machine { state: next, cancelling: self.cancelling && !next.is_end(), ..self })
    }

    /// What a role may say now.
    pub fn allowed(self, role: Role) -> Vec<Performative> {
        let open = self.state != State::Start && !self.state.is_end();
        let everywhere = match role {
            Role::Initiator => (open && !self.cancelling).then_some(Performative::Cancel),
            Role::Participant => open.then_some(Performative::NotUnderstood),
        };
        let listed = Performative::ALL.into_iter().filter(|&performative| {
            Some(performative) == everywhere || table::next(self.protocol, self.state, role, performative).is_some()
        });
        listed.collect()
    }

    /// The machine once its deadline has passed, and what that means.
    pub fn lapsed(self) -> (Machine, Lapse) {
        let to = |state| Machine { state, cancelling: false, ..self };
        match self.state {
            State::Called if self.protocol.calls_for_proposals() => (to(State::Lapsed), Lapse::NoBid),
            State::Proposed if self.protocol.calls_for_proposals() => (self, Lapse::Bid),
            State::Requested | State::Agreed | State::Forwarded | State::Proposed
                if self.protocol != Protocol::Subscribe =>
            {
                (to(State::TimedOut), Lapse::Failure)
            }
            State::Requested => (to(State::TimedOut), Lapse::Failure),
            _ => (self, Lapse::Nothing),
        }
    }

    /// Who has to speak next, if anybody has to.
    pub fn owes(self) -> Option<Role> {
        match self.state {
            State::Requested | State::Agreed | State::Forwarded | State::Accepted | State::Called => {
                let subscribed = self.protocol == Protocol::Subscribe && self.state == State::Agreed;
                (!subscribed).then_some(Role::Participant)
            }
            State::Proposed if self.protocol == Protocol::Propose => Some(Role::Participant),
            State::Proposed => Some(Role::Initiator),
            _ => None,
        }
    }
}

/// What every proposer of a contract net is told when these are the winners: exactly one answer each, in their order.
pub fn award<A: PartialEq + Clone>(machines: &[(A, Machine)], winners: &[A]) -> Vec<(A, Performative)> {
    let proposers = machines
        .iter()
        .filter(|(_, machine)| machine.state == State::Proposed && machine.protocol.calls_for_proposals());
    let answer = |(participant, _): &(A, Machine)| match winners.contains(participant) {
        true => (participant.clone(), Performative::AcceptProposal),
        false => (participant.clone(), Performative::RejectProposal),
    };
    proposers.map(answer).collect()
}

#[cfg(test)]
mod tests;
