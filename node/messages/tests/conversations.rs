//! Conversations follow their protocols, end at their deadlines, and topics reach those who subscribed.

mod support;

use caxton_messages::acl::{Content, Message, Performative as P};
use caxton_messages::mailbox::{Action, Fate, Filter, Outcome, Reason, Verdict};
use caxton_messages::{Limits, arrows, conversation, events, newest_event, picture, replay, subscriptions, topics};
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
    let (pattern, filter) = (pattern.parse().expect("a pattern"), Filter::default());
    store.run(Action::Subscribe { subscriber, name, pattern, filter, after })
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
    store.now_ms += store.limits.held_ms;
    store.tick();
    store.tick();
    assert_eq!(said_to(&mut store, "carl").len(), 1);
    store.now_ms += store.limits.held_ms;
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

fn published(store: &mut Store, topic: &str, content: &str) {
    let mut message = message(P::Inform, "ann", topic);
    message.content = Some(Content::json(content));
    store.accepted(message);
}

#[test]
fn a_subscription_with_a_filter_has_what_the_filter_takes_and_goes_on_when_it_is_made_again() {
    let mut store = Store::new(Limits { tick_max: 4, ..Limits::default() });
    let large = |store: &mut Store, conditions: &[&str], after| {
        let (subscriber, name, pattern) = (address("bob"), "s".to_owned(), "orders/#".parse().expect("a pattern"));
        let filter = Filter::of(conditions).expect("a filter");
        store.run(Action::Subscribe { subscriber, name, pattern, filter, after })
    };
    assert_eq!(large(&mut store, &["content.amount>=100"], None), Outcome::Subscribed { position: 0 });
    for amount in [1, 100, 2, 200] {
        published(&mut store, "topic:orders/new", &format!("{{\"amount\": {amount}}}"));
    }
    store.tick();
    assert_eq!(said_to(&mut store, "bob").len(), 2);
    published(&mut store, "topic:orders/new", "{\"amount\": 3}");
    assert_eq!(
        large(&mut store, &["content.amount<100"], None),
        Outcome::Subscribed { position: 4 },
        "from where it was"
    );
    store.tick();
    assert_eq!(said_to(&mut store, "bob").len(), 1, "with the new filter");
    assert_eq!(large(&mut store, &[], Some(u64::MAX)), Outcome::Subscribed { position: 5 }, "the newest there is");
    // Looking into large content counts for more than one publication, so that a tick stays short.
    for _ in 0..3 {
        published(&mut store, "topic:orders/new", &format!("{{\"text\": \"{}\"}}", "x".repeat(10_000)));
    }
    assert_eq!(large(&mut store, &["content.text"], None), Outcome::Subscribed { position: 5 });
    for (position, goes_on) in [(7, true), (8, false)] {
        let ticked = store.tick();
        assert!(matches!(ticked, Outcome::Ticked { more, .. } if more == goes_on), "{ticked:?}");
        let all = subscriptions(&store.db, &"w".parse().expect("a name"), None, 0, 9).expect("SQLite");
        assert_eq!(all[0].position, position);
    }
    assert_eq!(said_to(&mut store, "bob").len(), 3);
}

#[test]
fn subscriptions_topics_and_what_was_published_are_listed() {
    let mut store = Store::new(Limits { publications_kept: 3, ..Limits::default() });
    let workspace = "w".parse().expect("a name");
    subscribe(&mut store, "bob", "a/#", None);
    subscribe(&mut store, "carl", "#", None);
    for (topic, content) in [("a/x", "1"), ("b", "2"), ("a/x", "3"), ("a/y", "4")] {
        published(&mut store, &format!("topic:{topic}"), content);
    }
    let all = subscriptions(&store.db, &workspace, None, 0, 9).expect("SQLite");
    let names: Vec<_> = all.iter().map(|it| (it.subscriber.to_string(), it.pattern.as_str().to_owned())).collect();
    assert_eq!(names, [("bob".to_owned(), "a/#".to_owned()), ("carl".to_owned(), "#".to_owned())]);
    let carl = subscriptions(&store.db, &workspace, Some(&address("carl")), 0, 9).expect("SQLite");
    assert_eq!(carl, all[1..]);
    assert_eq!(subscriptions(&store.db, &workspace, None, all[0].number, 9).expect("SQLite"), all[1..]);
    let kept = topics(&store.db, &workspace, "", 9).expect("SQLite");
    let kept: Vec<_> = kept.iter().map(|it| (it.topic.as_str(), it.publications, it.first, it.last)).collect();
    assert_eq!(kept, [("a/x", 1, 3, 3), ("a/y", 1, 4, 4), ("b", 1, 2, 2)]);
    let from = |pattern: &str, conditions: &[&str], after, most| {
        let (pattern, filter) = (pattern.parse().expect("a pattern"), Filter::of(conditions).expect("a filter"));
        let replay = replay(&store.db, &workspace, (&pattern, &filter), after, most).expect("SQLite");
        let positions: Vec<u64> = replay.publications.iter().map(|it| it.position).collect();
        (positions, replay.reached, replay.more, replay.missed)
    };
    assert_eq!(from("#", &[], 0, 9), (vec![2, 3, 4], 4, false, 1));
    assert_eq!(from("#", &[], 1, 1), (vec![2], 2, true, 0));
    assert_eq!(from("a/+", &["content>3"], 2, 9), (vec![4], 4, false, 0));
    assert_eq!(from("#", &[], 9, 9), (vec![], 4, false, 0));
}

#[test]
fn what_was_said_can_be_followed_in_its_order_without_a_gap() {
    let mut store = usual();
    let workspace = "w".parse().expect("a name");
    store.accepted(net(P::Cfp, "ann", "bob carl"));
    store.accepted(message(P::Inform, "eve", "bob"));
    store.accepted(net(P::Propose, "bob", "ann"));
    let all = events(&store.db, &workspace, 0, 9).expect("SQLite");
    let told: Vec<_> = all.iter().map(|it| (it.position, it.number, it.sender.as_str(), it.performative)).collect();
    assert_eq!(told, [(1, 1, "ann", P::Cfp), (2, 1, "eve", P::Inform), (3, 2, "bob", P::Propose)]);
    assert_eq!(
        (all[0].receivers.as_slice(), all[0].conversation.as_str()),
        (&["bob".to_owned(), "carl".to_owned()][..], "c")
    );
    assert!(all.iter().all(|it| it.content == Some(Content::text("x"))));
    assert_eq!(events(&store.db, &workspace, 1, 1).expect("SQLite"), all[1..2]);
    assert_eq!(newest_event(&store.db, &workspace), Ok(3));
    assert_eq!(newest_event(&store.db, &"other".parse().expect("a name")), Ok(0));
    let (ready, _) = (store.done("bob"), store.done("carl"));
    assert_eq!(ready.submission.message.performative, P::Cfp);
    let again = events(&store.db, &workspace, 0, 1).expect("SQLite");
    assert_eq!(again[0].content, None, "what was dealt with is not kept");
    let restored = store.restored();
    assert_eq!(
        events(&restored.db, &workspace, 0, 9).expect("SQLite"),
        events(&store.db, &workspace, 0, 9).expect("SQLite")
    );
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
    let found = conversation(&store.db, &"w".parse().expect("a name"), "c", 0, 100).expect("SQLite").expect("there");
    assert_eq!(found.events.iter().map(|event| event.number).collect::<Vec<_>>(), [2, 3], "numbers go on");
}

fn kept(store: &Store) -> Vec<String> {
    let mut statement = store.db.prepare("SELECT id FROM agent_conversation ORDER BY conversation").expect("SQLite");
    let ids = statement.query_map([], |row| row.get(0)).expect("SQLite");
    ids.collect::<Result<_, _>>().expect("SQLite")
}

#[test]
fn the_conversation_that_is_over_for_longest_makes_room_for_one_more() {
    let mut store = Store::new(Limits { conversations_max: 2, ..Limits::default() });
    let say = |store: &mut Store, id: &str, protocol: Option<&str>| {
        let mut said = message(P::Request, "ann", "bob");
        (said.conversation_id, said.protocol) = (Some(id.to_owned()), protocol.map(str::to_owned));
        store.now_ms += 1;
        store.say(said)
    };
    for id in ["a", "b", "a", "c", "d"] {
        assert!(matches!(say(&mut store, id, None), Fate::Accepted { .. }), "{id}");
    }
    assert_eq!(kept(&store), ["c", "d"]);
    for id in ["e", "f"] {
        assert!(matches!(say(&mut store, id, Some("fipa-request")), Fate::Accepted { .. }), "{id}");
    }
    let full = say(&mut store, "g", None);
    assert!(
        matches!(full, Fate::Refused(Reason::Limit { most: 2, .. })),
        "those that go on are not forgotten: {full:?}"
    );
    // Nobody ever answers them, and they have no deadline.
    store.now_ms += store.limits.conversation_ms + 1;
    assert_eq!(caxton_messages::old(&store.db, store.now_ms, &store.limits).expect("SQLite").len(), 1);
    store.tick();
    assert!(kept(&store).is_empty());
    assert!(matches!(say(&mut store, "g", None), Fate::Accepted { .. }));
}

#[test]
fn what_is_long_over_goes_however_much_is_published() {
    let mut store = Store::new(Limits { tick_max: 4, ..Limits::default() });
    store.accepted(message(P::Inform, "ann", "bob"));
    let old = kept(&store);
    subscribe(&mut store, "carl", "#", None);
    store.now_ms += store.limits.conversation_ms + 1;
    (0..9).for_each(|_| store.accepted(message(P::Inform, "ann", "topic:weather")));
    assert!(matches!(store.tick(), Outcome::Ticked { more: true, .. }), "there is more to deliver");
    assert!(!kept(&store).contains(&old[0]));
}

#[test]
fn a_subscription_that_a_full_mailbox_holds_back_is_passed_over_for_a_while() {
    let mut store = Store::new(Limits { mailbox_messages_max: 2, ..Limits::default() });
    subscribe(&mut store, "carl", "#", None);
    (0..2).for_each(|_| store.accepted(message(P::Inform, "ann", "topic:weather")));
    let due = |store: &Store| caxton_messages::due(&store.db, store.now_ms, store.term, &store.limits).expect("SQLite");
    assert_eq!(due(&store).len(), 1);
    store.tick();
    assert!(due(&store).is_empty(), "no tick after a tick brings it further");
    subscribe(&mut store, "bob", "#", Some(0));
    assert_eq!(due(&store).len(), 1, "others are not held back with it");
    store.tick();
    let rows = store.rows();
    store.tick();
    assert_eq!(store.rows(), rows);
    said_to(&mut store, "carl");
    store.now_ms += store.limits.held_ms;
    assert_eq!(due(&store).len(), 1, "its time has come");
    store.tick();
    assert_eq!(said_to(&mut store, "carl").len(), 1, "and nothing was lost");
}
