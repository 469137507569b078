//! What each protocol allows, as rows of a table: in this state, this role may say this, and that is the state after it.

use caxton_proto::acl::Performative::{self as P};

use super::Role::{Initiator as I, Participant as R};
use super::State::{self as S};
use super::{Protocol, Role};

type Row = (State, Role, P, State);
type State = S;

/// The participant answers a request, with or without agreeing first.
const ANSWERS: [Row; 6] = [
    (S::Requested, R, P::Refuse, S::Refused),
    (S::Requested, R, P::Agree, S::Agreed),
    (S::Requested, R, P::Failure, S::Failed),
    (S::Requested, R, P::Inform, S::Done),
    (S::Agreed, R, P::Failure, S::Failed),
    (S::Agreed, R, P::Inform, S::Done),
];
const REQUEST: [Row; 1] = [(S::Start, I, P::Request, S::Requested)];
const QUERY: [Row; 2] = [(S::Start, I, P::QueryIf, S::Requested), (S::Start, I, P::QueryRef, S::Requested)];
const REQUEST_WHEN: [Row; 5] = [
    (S::Start, I, P::RequestWhen, S::Requested),
    (S::Requested, R, P::Refuse, S::Refused),
    (S::Requested, R, P::Agree, S::Agreed),
    (S::Agreed, R, P::Failure, S::Failed),
    (S::Agreed, R, P::Inform, S::Done),
];
const PROPOSE: [Row; 3] = [
    (S::Start, I, P::Propose, S::Proposed),
    (S::Proposed, R, P::AcceptProposal, S::Done),
    (S::Proposed, R, P::RejectProposal, S::Rejected),
];
const SUBSCRIBE: [Row; 7] = [
    (S::Start, I, P::Subscribe, S::Requested),
    (S::Requested, R, P::Refuse, S::Refused),
    (S::Requested, R, P::Agree, S::Agreed),
    (S::Requested, R, P::Inform, S::Agreed),
    (S::Requested, R, P::Failure, S::Failed),
    (S::Agreed, R, P::Inform, S::Agreed),
    (S::Agreed, R, P::Failure, S::Failed),
];
const CONTRACT_NET: [Row; 8] = [
    (S::Start, I, P::Cfp, S::Called),
    (S::Called, R, P::Refuse, S::Refused),
    (S::Called, R, P::Propose, S::Proposed),
    (S::Lapsed, R, P::Propose, S::Rejected),
    (S::Proposed, I, P::AcceptProposal, S::Accepted),
    (S::Proposed, I, P::RejectProposal, S::Rejected),
    (S::Accepted, R, P::Failure, S::Failed),
    (S::Accepted, R, P::Inform, S::Done),
];
/// Instead of an answer, a participant may get another call.
const ITERATED: [Row; 1] = [(S::Proposed, I, P::Cfp, S::Called)];
const BROKERING: [Row; 8] = [
    (S::Start, I, P::Proxy, S::Requested),
    (S::Requested, R, P::Refuse, S::Refused),
    (S::Requested, R, P::Agree, S::Agreed),
    (S::Agreed, R, P::Failure, S::Failed),
    (S::Agreed, R, P::Inform, S::Forwarded),
    (S::Forwarded, R, P::Refuse, S::Refused),
    (S::Forwarded, R, P::Failure, S::Failed),
    (S::Forwarded, R, P::Inform, S::Done),
];
/// The agents that were found answer by themselves.
const RECRUITING: [Row; 5] = [
    (S::Start, I, P::Proxy, S::Requested),
    (S::Requested, R, P::Refuse, S::Refused),
    (S::Requested, R, P::Agree, S::Agreed),
    (S::Agreed, R, P::Failure, S::Failed),
    (S::Agreed, R, P::Inform, S::Done),
];
/// What both auctions have: the announcement, calls, bids, and what the winner is asked to do.
const AUCTION: [Row; 13] = [
    (S::Start, I, P::Inform, S::Announced),
    (S::Announced, I, P::Cfp, S::Called),
    (S::Announced, I, P::Inform, S::Done),
    (S::Called, I, P::Cfp, S::Called),
    (S::Called, I, P::Inform, S::Done),
    (S::Called, R, P::Propose, S::Proposed),
    (S::Proposed, I, P::RejectProposal, S::Outbid),
    (S::Outbid, I, P::Cfp, S::Called),
    (S::Outbid, I, P::Inform, S::Done),
    (S::Requested, R, P::Refuse, S::Refused),
    (S::Requested, R, P::Agree, S::Agreed),
    (S::Requested, R, P::Inform, S::Done),
    (S::Requested, R, P::Failure, S::Failed),
];
const AUCTION_END: [Row; 2] = [(S::Agreed, R, P::Inform, S::Done), (S::Agreed, R, P::Failure, S::Failed)];
/// A bid that stands is only the best so far.
const ENGLISH: [Row; 4] = [
    (S::Proposed, I, P::AcceptProposal, S::Leading),
    (S::Leading, I, P::Cfp, S::Called),
    (S::Leading, I, P::Inform, S::Done),
    (S::Leading, I, P::Request, S::Requested),
];
/// The first bid that is accepted wins.
const DUTCH: [Row; 3] = [
    (S::Proposed, I, P::AcceptProposal, S::Accepted),
    (S::Accepted, I, P::Inform, S::Done),
    (S::Accepted, I, P::Request, S::Requested),
];

/// The tables of a protocol.
fn rows(protocol: Protocol) -> [&'static [Row]; 3] {
    match protocol {
        Protocol::Request => [&REQUEST, &ANSWERS, &[]],
        Protocol::Query => [&QUERY, &ANSWERS, &[]],
        Protocol::RequestWhen => [&REQUEST_WHEN, &[], &[]],
        Protocol::Propose => [&PROPOSE, &[], &[]],
        Protocol::Subscribe => [&SUBSCRIBE, &[], &[]],
        Protocol::ContractNet => [&CONTRACT_NET, &[], &[]],
        Protocol::IteratedContractNet => [&CONTRACT_NET, &ITERATED, &[]],
        Protocol::Brokering => [&BROKERING, &[], &[]],
        Protocol::Recruiting => [&RECRUITING, &[], &[]],
        Protocol::EnglishAuction => [&AUCTION, &AUCTION_END, &ENGLISH],
        Protocol::DutchAuction => [&AUCTION, &AUCTION_END, &DUTCH],
    }
}

/// The state after an act, if the protocol allows it.
pub(super) fn next(protocol: Protocol, state: State, role: Role, performative: P) -> Option<State> {
    let rows = rows(protocol).into_iter().flatten();
    rows.copied().find(|row| (row.0, row.1, row.2) == (state, role, performative)).map(|row| row.3)
}
