//! Each protocol takes what its specification lists, and nothing else.

use proptest::prelude::*;

use super::Performative as P;
use super::*;

fn says(role: Role, performative: P) -> Act {
    Act { role, performative, answers_cancel: false }
}

/// Plays a course: `>` is the initiator, `<` the participant.
fn play(protocol: Protocol, course: &str) -> Result<Machine, NotUnderstood> {
    let mut machine = Machine::new(protocol);
    for word in course.split_whitespace() {
        let (role, name) = match word.split_at(1) {
            (">", name) => (Role::Initiator, name),
            (_, name) => (Role::Participant, name),
        };
        let performative = P::read(name).expect("a performative").0;
        machine = machine.after(says(role, performative))?;
    }
    Ok(machine)
}

#[test]
fn the_courses_of_the_specifications_end_where_they_say() {
    let cases = [
        (Protocol::Request, ">request <refuse", State::Refused),
        (Protocol::Request, ">request <agree <inform", State::Done),
        (Protocol::Request, ">request <agree <failure", State::Failed),
        (Protocol::Request, ">request <inform", State::Done),
        (Protocol::Query, ">query-if <inform", State::Done),
        (Protocol::Query, ">query-ref <agree <failure", State::Failed),
        (Protocol::RequestWhen, ">request-when <agree <inform", State::Done),
        (Protocol::Propose, ">propose <accept-proposal", State::Done),
        (Protocol::Propose, ">propose <reject-proposal", State::Rejected),
        (Protocol::Subscribe, ">subscribe <agree <inform <inform", State::Agreed),
        (Protocol::Subscribe, ">subscribe <agree <inform <failure", State::Failed),
        (Protocol::ContractNet, ">cfp <propose >accept-proposal <inform", State::Done),
        (Protocol::ContractNet, ">cfp <propose >reject-proposal", State::Rejected),
        (Protocol::ContractNet, ">cfp <refuse", State::Refused),
        (Protocol::IteratedContractNet, ">cfp <propose >cfp <propose >accept-proposal <failure", State::Failed),
        (Protocol::Brokering, ">proxy <agree <inform <inform", State::Done),
        (Protocol::Recruiting, ">proxy <agree <inform", State::Done),
        (Protocol::EnglishAuction, ">inform >cfp <propose >accept-proposal >cfp >inform", State::Done),
        (Protocol::EnglishAuction, ">inform >cfp <propose >accept-proposal >request <inform", State::Done),
        (Protocol::EnglishAuction, ">inform >cfp <propose >reject-proposal >cfp <propose", State::Proposed),
        (Protocol::DutchAuction, ">inform >cfp >cfp <propose >accept-proposal >request <agree <inform", State::Done),
        (Protocol::Request, ">request <not-understood", State::Misunderstood),
    ];
    for (protocol, course, end) in cases {
        assert_eq!(play(protocol, course).map(|machine| machine.state), Ok(end), "{protocol:?} {course}");
    }
}

#[test]
fn what_the_specifications_do_not_list_is_not_understood() {
    for (protocol, course) in [
        (Protocol::Request, "<request"),
        (Protocol::Request, ">request >request"),
        (Protocol::Request, ">request <inform <inform"),
        (Protocol::Request, ">request <refuse <agree"),
        (Protocol::Request, ">cfp"),
        (Protocol::RequestWhen, ">request-when <inform"),
        (Protocol::ContractNet, ">cfp >accept-proposal"),
        (Protocol::ContractNet, ">cfp <propose <propose"),
        (Protocol::ContractNet, ">cfp <propose >accept-proposal >reject-proposal"),
        (Protocol::ContractNet, ">cfp <propose >cfp"),
        (Protocol::ContractNet, ">cfp <propose >accept-proposal >accept-proposal"),
        (Protocol::DutchAuction, ">inform >cfp <propose >accept-proposal >cfp"),
        (Protocol::Request, ">cancel"),
        (Protocol::Request, ">request <inform >cancel"),
        (Protocol::Request, ">request <cancel"),
        (Protocol::Request, "<not-understood"),
    ] {
        assert!(play(protocol, course).is_err(), "{protocol:?} {course}");
    }
    let error = play(Protocol::Request, ">request <propose").expect_err("no proposal").to_string();
    assert!(error.contains("propose from the participant") && error.contains("it may say agree, failure"), "{error}");
}

#[test]
fn a_cancel_stands_until_it_is_answered_and_one_that_fails_changes_nothing() {
    for (protocol, course) in [
        (Protocol::Request, ">request <agree"),
        (Protocol::Subscribe, ">subscribe <agree <inform"),
        (Protocol::ContractNet, ">cfp <propose"),
        (Protocol::EnglishAuction, ">inform"),
    ] {
        let before = play(protocol, course).expect("a course");
        let cancelling = before.after(says(Role::Initiator, P::Cancel)).expect("cancel everywhere");
        assert_eq!((cancelling.state, cancelling.cancelling), (before.state, true));
        assert!(cancelling.after(says(Role::Initiator, P::Cancel)).is_err(), "once");
        let answer =
            |performative| cancelling.after(Act { answers_cancel: true, ..says(Role::Participant, performative) });
        assert_eq!(answer(P::Inform).map(|it| it.state), Ok(State::Cancelled));
        assert_eq!(answer(P::Failure), Ok(before), "{protocol:?}");
    }
    let result = play(Protocol::Request, ">request <agree >cancel <inform").expect("the result overtook the cancel");
    assert_eq!((result.state, result.cancelling), (State::Done, false));
}

#[test]
fn no_bid_is_a_normal_end_and_a_late_one_is_rejected() {
    let (machine, lapse) = play(Protocol::ContractNet, ">cfp").expect("called").lapsed();
    assert_eq!((machine.state, lapse), (State::Lapsed, Lapse::NoBid));
    assert!(machine.state.is_end());
    let late = machine.after(says(Role::Participant, P::Propose)).expect("it is taken, to be rejected");
    assert_eq!(late.state, State::Rejected);
    let (bid, lapse) = play(Protocol::ContractNet, ">cfp <propose").expect("a bid").lapsed();
    assert_eq!((bid.state, lapse), (State::Proposed, Lapse::Bid));
    let (late, lapse) = play(Protocol::Request, ">request").expect("asked").lapsed();
    assert_eq!((late.state, lapse), (State::TimedOut, Lapse::Failure));
    let running = play(Protocol::Subscribe, ">subscribe <agree").expect("subscribed");
    assert_eq!(running.lapsed(), (running, Lapse::Nothing));
}

fn machine() -> impl Strategy<Value = Machine> {
    (0..Protocol::ALL.len(), 0..State::ALL.len(), any::<bool>()).prop_map(|(protocol, state, cancelling)| Machine {
        protocol: Protocol::ALL[protocol],
        state: State::ALL[state],
        cancelling,
    })
}

#[test]
fn over_all_states_roles_and_performatives_only_what_is_listed_is_taken() {
    let mut taken = 0;
    for protocol in Protocol::ALL {
        assert_eq!(Protocol::from_name(protocol.name()), Some(protocol));
        for state in State::ALL {
            assert_eq!(State::from_name(state.name()), Some(state));
            for role in [Role::Initiator, Role::Participant] {
                let machine = Machine { protocol, state, cancelling: false };
                let allowed = machine.allowed(role);
                for performative in P::ALL {
                    let after = machine.after(says(role, performative));
                    assert_eq!(after.is_ok(), allowed.contains(&performative), "{machine:?} {role:?} {performative}");
                    taken += usize::from(after.is_ok());
                    if state.is_end() && state != State::Lapsed {
                        assert!(after.is_err(), "{machine:?} goes on after its end");
                    }
                }
            }
        }
    }
    // 97 rows of the tables; and in 9 states that are no end, cancel and not-understood in each of 11 protocols.
    assert_eq!(taken, 97 + 9 * 2 * 11, "a row came or went: look at the specification before this is changed");
}

proptest! {
    #[test]
    fn whatever_is_said_leads_to_a_state_or_changes_nothing(
        acts in proptest::collection::vec((any::<bool>(), 0..20_usize, any::<bool>()), 0..40),
        protocol in 0..Protocol::ALL.len(),
    ) {
        let mut machine = Machine::new(Protocol::ALL[protocol]);
        let mut answers = 0;
        for (initiator, performative, answers_cancel) in acts {
            let role = if initiator { Role::Initiator } else { Role::Participant };
            let performative = P::ALL[performative];
            match machine.after(Act { role, performative, answers_cancel }) {
                Ok(after) => {
                    let answered = matches!(performative, P::AcceptProposal | P::RejectProposal) && initiator;
                    answers += usize::from(answered);
                    machine = after;
                }
                Err(refused) => prop_assert_eq!((refused.state, refused.role), (machine.state, role)),
            }
        }
        if machine.protocol == Protocol::ContractNet {
            prop_assert!(answers <= 1, "a proposer had {} answers", answers);
        }
    }

    #[test]
    fn every_proposer_gets_exactly_one_answer(
        machines in proptest::collection::vec(machine(), 0..12), winners in proptest::collection::vec(0..12_usize, 0..4),
    ) {
        let mut all: Vec<(usize, Machine)> = machines.into_iter().enumerate().collect();
        let open = all.iter().filter(|(_, it)| it.state == State::Proposed && it.protocol.calls_for_proposals()).count();
        let answers = award(&all, &winners);
        prop_assert_eq!(answers.len(), open);
        for (to, performative) in answers {
            let machine = &mut all[to].1;
            *machine = machine.after(says(Role::Initiator, performative)).expect("a proposal takes an answer");
            prop_assert_eq!(machine.state == State::Accepted, winners.contains(&to));
        }
        prop_assert!(award(&all, &winners).is_empty(), "a second answer");
    }
}
