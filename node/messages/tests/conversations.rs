//! Conversations follow their protocols, end at their deadlines, and topics reach those who subscribed.

mod support;

use caxton_messages::acl::{Message, Performative as P};
use caxton_messages::mailbox::{Action, Fate, Outcome, Reason, Verdict};
use caxton_messages::{Limits, arrows, conversation, picture};
use support::{Store, address, message};

fn usual() -> Store {
    Store::new(Limits::default())
}

fn within(protocol: &str, performative: P, from: &str, to: &str) -> Message {
    let mut message = message(performative, from, to);
    message.protocol = Some(protocol.to_owned());
    message.conversation_id = Some("c".to_owned());
    message
}

fn net(performative: P, from: &str, to: &str) -> Message {
    within("fipa-contract-net", performative, from, to)
}

fn states(store: &Store) -> Vec<(String, String)> {
    let workspace = "w".parse().expect("a name");
    conversation(&store.db, &workspace, "c", 0, 100).expect("SQLite").expect("it is there").participants
}

fn said_to(store: &mut Store, owner: &str) -> Vec<P> {
    std::iter::from_fn(|| {
        let ready = store.take(owner)?;
        store.settle(&ready, Verdict::Done("ok".to_owned()));
        Some(ready.submission.message.performative)
    })
    .collect()
}

#[test]
fn what_the_protocol_does_not_allow_is_not_understood_and_changes_nothing() {
    let mut store = usual();
    store.accepted(within("fipa-request", P::Request, "ann", "bob"));
    let before = store.rows();
    for (performative, from, to) in [
        (P::Propose, "bob", "ann"),
        (P::Request, "ann", "bob"),
        (P::Inform, "eve", "ann"),
        (P::Agree, "bob", "eve"),
        (P::AcceptProposal, "ann", "bob"),
    ] {
        let reason = store.refused(within("fipa-request", performative, from, to));
        assert!(matches!(reason, Reason::NotUnderstood { .. }), "{performative} {from}: {reason:?}");
        assert_eq!(store.rows(), before, "{performative} {from}");
    }
    assert!(matches!(store.refused(net(P::Agree, "bob", "ann")), Reason::NotUnderstood { .. }), "another protocol");
    let mut reply = message(P::Agree, "bob", "ann");
    reply.conversation_id = Some("c".to_owned());
    store.accepted(reply);
    assert_eq!(states(&store), [("bob".to_owned(), "agreed".to_owned())]);
}

#[test]
fn an_agent_that_says_what_it_may_not_is_told_and_its_message_is_a_dead_letter() {
    let mut store = usual();
    store.accepted(within("fipa-request", P::Request, "ann", "bob"));
    let ready = store.take("bob").expect("it waits");
    let submissions = vec![store.submission(within("fipa-request", P::Propose, "bob", "ann"))];
    let (delivery, attempt, verdict) = (ready.delivery, ready.attempt, Verdict::Done("ok".to_owned()));
    store.run(Action::Settle { delivery, attempt, verdict, submissions, state: Default::default() });
    assert_eq!(said_to(&mut store, "bob"), [P::NotUnderstood]);
    assert_eq!(store.dead().len(), 1);
    assert_eq!(states(&store), [("bob".to_owned(), "requested".to_owned())]);
}

#[test]
fn in_a_contract_net_every_proposer_gets_one_answer_and_a_late_one_too() {
    let mut store = usual();
    let mut call = net(P::Cfp, "ann", "bob carl dan eve");
    call.reply_by_ms = Some(store.now_ms + 100);
    store.accepted(call);
    store.accepted(net(P::Propose, "bob", "ann"));
    store.accepted(net(P::Propose, "carl", "ann"));
    store.accepted(net(P::Refuse, "dan", "ann"));
    store.now_ms += 100;
    store.tick();
    store.accepted(net(P::Propose, "eve", "ann"));
    for name in ["bob", "carl", "dan", "eve"] {
        let said = said_to(&mut store, name);
        let late = if name == "eve" { vec![P::Cfp, P::RejectProposal] } else { vec![P::Cfp] };
        assert_eq!(said, late, "{name}");
    }
    store.accepted(net(P::AcceptProposal, "ann", "bob"));
    assert!(matches!(store.refused(net(P::RejectProposal, "ann", "bob")), Reason::NotUnderstood { .. }));
    store.accepted(net(P::RejectProposal, "ann", "carl"));
    store.accepted(net(P::Inform, "bob", "ann"));
    let ends: Vec<String> = states(&store).into_iter().map(|(_, state)| state).collect();
    assert_eq!(ends, ["done", "rejected", "refused", "rejected"]);
    let said = said_to(&mut store, "ann");
    assert!(said.contains(&P::Inform) && said.iter().filter(|it| **it == P::Propose).count() == 3, "{said:?}");
    let found = conversation(&store.db, &"w".parse().expect("a name"), "c", 0, 100).expect("SQLite").expect("there");
    assert!(!found.open && found.deadline_ms.is_none());
    assert!(found.events.iter().map(|event| event.number).eq(1..=found.events.len() as u64));
    let drawn = picture::mermaid(&arrows(&found));
    assert!(drawn.contains("p0->>p4: cfp") && drawn.contains(": accept-proposal"), "{drawn}");
}

#[test]
fn no_bids_are_a_normal_end_and_bids_that_nobody_awards_are_rejected_once() {
    let mut store = usual();
    let mut call = net(P::Cfp, "ann", "bob carl");
    call.reply_by_ms = Some(store.now_ms + 100);
    store.accepted(call);
    store.accepted(net(P::Propose, "bob", "ann"));
    store.now_ms += 100;
    store.tick();
    assert_eq!(states(&store)[1].1, "lapsed");
    store.now_ms += store.limits.award_ms;
    store.tick();
    store.tick();
    assert_eq!(said_to(&mut store, "bob"), [P::Cfp, P::RejectProposal]);
    assert_eq!(said_to(&mut store, "carl"), [P::Cfp]);
    assert_eq!(states(&store)[0].1, "rejected");
    assert!(matches!(store.refused(net(P::AcceptProposal, "ann", "bob")), Reason::NotUnderstood { .. }));

    let mut store = usual();
    let mut call = net(P::Cfp, "ann", "bob");
    call.reply_by_ms = Some(store.now_ms);
    store.accepted(call);
    store.tick();
    assert_eq!(said_to(&mut store, "ann"), [P::Inform], "that nobody bid is no failure");
    assert!(store.dead().is_empty());
}

#[test]
fn a_request_that_is_not_answered_in_time_fails_and_one_that_is_cancelled_ends() {
    let mut store = usual();
    let mut request = within("fipa-request", P::Request, "ann", "bob");
    request.reply_by_ms = Some(store.now_ms + 1);
    store.accepted(request);
    store.now_ms += 1;
    store.tick();
    assert_eq!(said_to(&mut store, "ann"), [P::Failure]);
    assert!(matches!(store.refused(within("fipa-request", P::Inform, "bob", "ann")), Reason::NotUnderstood { .. }));

    let mut store = usual();
    store.accepted(within("fipa-request", P::Request, "ann", "bob"));
    let mut cancel = within("fipa-request", P::Cancel, "ann", "bob");
    cancel.reply_with = Some("cancel-1".to_owned());
    store.accepted(cancel);
    let mut answer = within("fipa-request", P::Inform, "bob", "ann");
    answer.in_reply_to = Some("cancel-1".to_owned());
    store.accepted(answer);
    assert_eq!(states(&store), [("bob".to_owned(), "cancelled".to_owned())]);
}

fn subscribe(store: &mut Store, who: &str, pattern: &str, after: Option<u64>) -> Outcome {
    let (subscriber, name) = (address(who), "s".to_owned());
    store.run(Action::Subscribe { subscriber, name, pattern: pattern.parse().expect("a pattern"), after })
}

#[test]
fn what_is_published_reaches_those_who_subscribed_and_can_be_replayed() {
    let mut store = Store::new(Limits { mailbox_messages_max: 2, publications_kept: 4, ..Limits::default() });
    assert_eq!(subscribe(&mut store, "bob", "orders/+", None), Outcome::Subscribed { position: 0 });
    assert_eq!(subscribe(&mut store, "carl", "#", None), Outcome::Subscribed { position: 0 });
    for topic in ["topic:orders/new", "topic:weather", "topic:orders/new/x"] {
        store.accepted(message(P::Inform, "ann", topic));
    }
    store.tick();
    assert_eq!(said_to(&mut store, "bob").len(), 1);
    assert_eq!(store.next("carl", 9).len(), 1, "a full mailbox holds what is published back");
    assert_eq!(said_to(&mut store, "carl").len(), 1);
    store.tick();
    store.tick();
    assert_eq!(said_to(&mut store, "carl").len(), 1);
    store.tick();
    assert_eq!(said_to(&mut store, "carl").len(), 1, "and nothing of it is lost");
    assert_eq!(subscribe(&mut store, "bob", "#", Some(0)), Outcome::Subscribed { position: 0 });
    store.tick();
    assert_eq!(said_to(&mut store, "bob").len(), 1, "replayed from the first on");
    (0..4).for_each(|_| store.accepted(message(P::Inform, "ann", "topic:weather")));
    assert_eq!(subscribe(&mut store, "dan", "#", Some(0)), Outcome::Subscribed { position: 0 });
    store.tick();
    let missed = "SELECT missed FROM topic_subscription WHERE subscriber = 'dan'";
    assert_eq!(store.db.query_row(missed, [], |row| row.get::<_, i64>(0)), Ok(3), "what is no longer kept is counted");
    let (subscriber, name) = (address("dan"), "s".to_owned());
    assert!(matches!(store.run(Action::Unsubscribe { subscriber, name }), Outcome::Subscribed { .. }));
}

#[test]
fn limits_are_kept_and_said() {
    let limits = Limits { conversations_max: 2, subscriptions_max: 1, events_kept: 2, ..Limits::default() };
    let mut store = Store::new(limits);
    subscribe(&mut store, "bob", "#", None);
    assert!(matches!(subscribe(&mut store, "carl", "#", None), Outcome::Refused(Reason::Limit { most: 1, .. })));
    let mut first = message(P::Inform, "ann", "bob");
    first.conversation_id = Some("c".to_owned());
    (0..3).for_each(|_| store.accepted(first.clone()));
    store.accepted(message(P::Inform, "ann", "bob"));
    assert!(matches!(store.refused(message(P::Inform, "ann", "bob")), Reason::Limit { most: 2, .. }));
    let found = conversation(&store.db, &"w".parse().expect("a name"), "c", 0, 100).expect("SQLite").expect("there");
    assert_eq!(found.events.iter().map(|event| event.number).collect::<Vec<_>>(), [2, 3], "numbers go on");
    store.now_ms += store.limits.conversation_ms + 1;
    store.tick();
    assert!(matches!(store.say(message(P::Inform, "ann", "bob")), Fate::Accepted { .. }));
}
