//! Turns that wait, state that is kept with an outcome, messages that are delivered later, and what senders are told of failures.

mod support;

use caxton_messages::acl::{Content, Performative as P};
use caxton_messages::mailbox::{Action, Await, Fate, Outcome, Reason, Settlement, Submission, Verdict};
use caxton_messages::{Limits, Listing, Stage, ended_waits, parked, roster, state, waiting};
use support::{Store, address, message};

fn usual() -> Store {
    Store::new(Limits::default())
}

/// A wait of `owner` for all that it asks in one conversation.
fn wait(store: &mut Store, owner: &str, turn: &str, awaited: &str) -> Await {
    let mut said = message(P::Request, owner, awaited);
    said.conversation_id = Some(format!("talk-{turn}"));
    let submissions = vec![store.submission(said)];
    Await {
        owner: address(owner),
        turn: turn.to_owned(),
        way: "call_1_0".to_owned(),
        conversation: format!("talk-{turn}"),
        awaited: awaited.split(' ').map(address).collect(),
        until_ms: store.now_ms + 60_000,
        submissions,
    }
}

fn answer(store: &mut Store, performative: P, from: &str, to: &str, conversation: &str) {
    let mut said = message(performative, from, to);
    said.conversation_id = Some(conversation.to_owned());
    store.accepted(said);
}

fn ended(store: &Store) -> Vec<caxton_messages::EndedWait> {
    ended_waits(&store.db, store.now_ms, 10).expect("SQLite")
}

fn content(store: &Store, owner: &str) -> Vec<(P, String)> {
    let what = Listing { owner: Some(address(owner)), ..Listing::default() };
    let said = |it: caxton_messages::Listed| {
        let message = it.submission.message;
        (message.performative, format!("{:?}", message.content.expect("content").body))
    };
    store.list(what).into_iter().map(said).collect()
}

#[test]
fn a_wait_keeps_the_answers_for_its_turn_and_ends_when_all_have_answered() {
    let mut store = usual();
    let asked = wait(&mut store, "ann", "t1", "bob carl");
    assert!(matches!(store.run(Action::Await(asked.clone())), Outcome::Sent(_)));
    let rows = store.rows();
    let Outcome::Sent(again) = store.run(Action::Await(asked)) else { panic!() };
    assert!(matches!(again[0].fate, Fate::Duplicate(_)) && store.rows() == rows, "the same once more changes nothing");
    answer(&mut store, P::Agree, "bob", "ann", "talk-t1");
    answer(&mut store, P::Inform, "bob", "ann", "talk-t1");
    answer(&mut store, P::Inform, "eve", "ann", "another");
    assert!(ended(&store).is_empty(), "carl has not answered");
    assert_eq!(store.next("ann", 9).len(), 1, "what it waits for is given to nobody else");
    answer(&mut store, P::Refuse, "carl", "ann", "talk-t1");
    let over = ended(&store);
    let said: Vec<P> = over[0].answers.iter().map(|it| it.submission.message.performative).collect();
    assert_eq!((said, over[0].timed_out), (vec![P::Agree, P::Inform, P::Refuse], false));
    let what = Listing { owner: Some(address("ann")), ..Listing::default() };
    assert_eq!(store.list(what.clone()).iter().filter(|it| it.stage == Stage::Waiting).count(), 3);
    let resume =
        |taken| Action::Resume { owner: address("ann"), turn: "t1".to_owned(), way: "call_1_0".to_owned(), taken };
    let mut other = store.restored();
    assert!(matches!(store.run(resume(true)), Outcome::Moved(moved) if moved.len() == 3));
    assert_eq!(store.run(resume(true)), Outcome::Stale);
    assert_eq!((store.list(what.clone()).len(), ended(&store).len()), (1, 0));
    other.run(resume(false));
    assert_eq!(other.next("ann", 9).len(), 3, "one of each sender comes next");
    assert_eq!(other.list(what).len(), 4, "what the turn did not take is delivered");
}

#[test]
fn a_wait_ends_at_its_time_and_a_late_answer_is_an_ordinary_message() {
    let mut store = usual();
    let asked = wait(&mut store, "ann", "t1", "bob");
    store.run(Action::Await(asked));
    store.now_ms += 60_000;
    let now_ms = store.now_ms;
    let due = caxton_messages::due(&store.db, now_ms, 1, &store.limits).expect("SQLite");
    assert_eq!(due.len(), 1, "a tick is to end it");
    store.tick();
    let over = ended(&store);
    assert!(over.len() == 1 && over[0].timed_out && over[0].answers.is_empty());
    store.run(Action::Resume { owner: address("ann"), turn: "t1".into(), way: "call_1_0".into(), taken: true });
    answer(&mut store, P::Inform, "bob", "ann", "talk-t1");
    assert_eq!(store.next("ann", 9).len(), 1);
}

#[test]
fn agents_that_would_wait_for_each_other_are_told_and_nothing_is_sent() {
    let mut store = usual();
    let first = wait(&mut store, "ann", "t1", "bob");
    let second = wait(&mut store, "bob", "t2", "carl");
    store.run(Action::Await(first));
    store.run(Action::Await(second));
    let third = wait(&mut store, "carl", "t3", "dan ann");
    let rows = store.rows();
    let Outcome::Refused(Reason::Circle { agents }) = store.run(Action::Await(third)) else { panic!() };
    assert_eq!(agents, ["ann", "bob", "carl"]);
    assert_eq!(store.rows(), rows);
    answer(&mut store, P::Inform, "bob", "ann", "talk-t1");
    let third = wait(&mut store, "carl", "t3", "ann");
    assert!(matches!(store.run(Action::Await(third)), Outcome::Sent(_)), "who has an answer waits for nobody");
}

#[test]
fn what_a_wait_cannot_send_is_sent_to_nobody() {
    let mut store = usual();
    let mut asked = wait(&mut store, "ann", "t1", "bob");
    let mut wrong = message(P::Inform, "ann", "carl");
    (wrong.protocol, wrong.conversation_id) = (Some("fipa-request".to_owned()), Some("other".to_owned()));
    asked.submissions.push(store.submission(wrong));
    let rows = store.rows();
    assert!(matches!(store.run(Action::Await(asked)), Outcome::Refused(Reason::NotUnderstood { .. })));
    assert_eq!(store.rows(), rows);
}

#[test]
fn a_turn_that_is_put_down_holds_nothing_up_and_is_settled_once() {
    let mut store = usual();
    store.accepted(message(P::Request, "ann", "bob"));
    store.accepted(message(P::Inform, "ann", "bob"));
    let first = store.take("bob").expect("it waits");
    let (delivery, attempt) = (first.delivery, first.attempt);
    assert_eq!(store.run(Action::Park { delivery, attempt: 7 }), Outcome::Stale);
    assert_eq!(store.run(Action::Park { delivery, attempt }), Outcome::Started(vec![delivery]));
    assert_eq!(store.run(Action::Park { delivery, attempt }), Outcome::Stale);
    let found = parked(&store.db, 0, 10).expect("SQLite");
    assert_eq!((found[0].1.to_string(), &found[0].2), ("bob".to_owned(), &first));
    store.term += 1;
    store.tick();
    assert_eq!(parked(&store.db, 0, 10).expect("SQLite").len(), 1, "another leader leaves it where it is");
    store.done("bob");
    assert!(matches!(store.settle(&first, Verdict::Done("later".into())), Outcome::Settled { .. }));
    assert_eq!(store.settle(&first, Verdict::Done("twice".into())), Outcome::Stale);
    assert!(store.list(Listing::default()).is_empty());
}

#[test]
fn state_is_kept_with_the_outcome_and_only_with_it() {
    let mut store = usual();
    let kept = |store: &Store| state(&store.db, &"w".parse().expect("a name"), "bob").expect("SQLite");
    let settle = |ready: &caxton_messages::Ready, verdict, changes: &[(&str, Option<&str>)]| Action::Settle {
        delivery: ready.delivery,
        attempt: ready.attempt,
        verdict,
        submissions: Vec::new(),
        state: changes.iter().map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned))).collect(),
    };
    store.accepted(message(P::Inform, "ann", "bob"));
    let ready = store.take("bob").expect("it waits");
    let failed = settle(&ready, Verdict::Retry("no".into()), &[("a", Some("1"))]);
    assert!(matches!(store.run(failed), Outcome::Refused(_)));
    let done = || Verdict::Done("ok".into());
    let big = "x".repeat(200 << 10);
    store.run(settle(&ready, done(), &[("a", Some("1")), ("b", Some(&big))]));
    assert_eq!(store.run(settle(&ready, done(), &[("a", Some("2"))])), Outcome::Stale);
    assert_eq!(kept(&store).get("a").map(String::as_str), Some("1"));
    store.accepted(message(P::Inform, "ann", "bob"));
    let ready = store.take("bob").expect("it waits");
    let rows = store.rows();
    let full = store.run(settle(&ready, done(), &[("c", Some(&big))]));
    assert!(matches!(&full, Outcome::Refused(Reason::Limit { what, .. }) if what.contains("bytes")), "{full:?}");
    assert_eq!(store.rows(), rows);
    store.run(settle(&ready, done(), &[("b", None), ("c", Some(&big)), ("never", None)]));
    assert_eq!(kept(&store).into_keys().collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(kept(&store.restored()), kept(&store));
}

#[test]
fn a_message_with_a_delay_comes_later_and_holds_nothing_up() {
    let mut store = usual();
    let mut late = message(P::Inform, "ann", "bob");
    late.extensions.insert("X-Delay-Ms".to_owned(), "500".to_owned());
    store.accepted(late);
    store.accepted(message(P::Inform, "ann", "bob"));
    store.done("bob");
    assert!(store.next("bob", 9).is_empty() && waiting(&store.db, store.now_ms, 0, 9).expect("SQLite").is_empty());
    store.now_ms += 500;
    assert_eq!(waiting(&store.db, store.now_ms, 0, 9).expect("SQLite").len(), 1);
    assert_eq!(store.done("bob").attempt, 1);
}

#[test]
fn the_sender_of_a_request_that_is_a_dead_letter_is_told_and_its_conversation_ends() {
    let mut store = usual();
    let mut asked = message(P::Request, "ann", "bob");
    (asked.protocol, asked.conversation_id) = (Some("fipa-request".to_owned()), Some("c1".to_owned()));
    asked.reply_with = Some("r1".to_owned());
    store.accepted(asked);
    store.accepted(message(P::Inform, "ann", "bob"));
    let ready = store.take("bob").expect("it waits");
    let dead =
        Outcome::Settled { settlement: Settlement::Dead { reason: "it \"broke\"".into() }, receipts: Vec::new() };
    assert_eq!(store.settle(&ready, Verdict::Dead("it \"broke\"".into())), dead);
    let told = store.take("ann").expect("it is told").submission.message;
    assert_eq!((told.performative, told.in_reply_to.as_deref()), (P::Failure, Some("r1")));
    assert_eq!((told.conversation_id.as_deref(), told.sender), (Some("c1"), Some(address("platform:"))));
    let Some(Content { body: caxton_messages::acl::Body::Json(text), .. }) = told.content else { panic!() };
    assert!(text.contains("\"receiver\":\"bob\"") && text.contains("it \\\"broke\\\""), "{text}");
    let over = caxton_messages::conversation(&store.db, &"w".parse().expect("a name"), "c1", 0, 9).expect("SQLite");
    let over = over.expect("the conversation");
    assert_eq!((over.open, over.participants), (false, vec![("bob".to_owned(), "failed".to_owned())]));
    let ready = store.take("bob").expect("it waits");
    store.settle(&ready, Verdict::Dead("no".into()));
    assert_eq!(content(&store, "ann").len(), 1, "of what wants no answer nobody is told");
}

#[test]
fn a_bidder_that_breaks_counts_as_one_that_refuses() {
    let mut store = usual();
    let mut call = message(P::Cfp, "ann", "bob carl");
    (call.protocol, call.conversation_id) = (Some("fipa-contract-net".to_owned()), Some("talk-t1".to_owned()));
    let mut asked = wait(&mut store, "ann", "t1", "bob carl");
    asked.submissions = vec![Submission::new(asked.submissions[0].id, call)];
    store.run(Action::Await(asked));
    let ready = store.take("bob").expect("it waits");
    store.settle(&ready, Verdict::Dead("it broke".into()));
    let mut bid = message(P::Propose, "carl", "ann");
    (bid.protocol, bid.conversation_id) = (Some("fipa-contract-net".to_owned()), Some("talk-t1".to_owned()));
    store.accepted(bid);
    let over = ended(&store);
    assert_eq!((over.len(), over[0].timed_out), (1, false));
    assert_eq!(over[0].answers[0].submission.message.performative, P::Refuse);
}

#[test]
fn a_program_is_told_once_that_it_is_deployed_and_again_when_it_comes_back() {
    let mut store = usual();
    let names = |all: &[&str]| all.iter().map(|name| name.parse().expect("a name")).collect::<Vec<_>>();
    let note = |store: &mut Store, revision, all: &[&str]| store.run(Action::Roster { revision, programs: names(all) });
    assert_eq!(note(&mut store, 3, &["ping", "pong"]), Outcome::Ticked { changed: 2, more: false });
    assert_eq!(note(&mut store, 2, &[]), Outcome::Stale, "an older revision says nothing");
    assert_eq!(note(&mut store, 3, &["ping", "pong"]), Outcome::Stale);
    assert_eq!(note(&mut store, 4, &["ping"]), Outcome::Ticked { changed: 1, more: false });
    assert_eq!(note(&mut store, 5, &["ping", "pong"]), Outcome::Ticked { changed: 1, more: false });
    assert_eq!(content(&store, "ping").len(), 1);
    let told = content(&store, "pong");
    assert_eq!((told.len(), told[0].0), (2, P::Inform));
    assert!(told[1].1.contains("deployed") && told[1].1.contains("\\\"revision\\\":5"), "{told:?}");
    let (revision, known) = roster(&store.db, &"w".parse().expect("a name")).expect("SQLite");
    assert_eq!((revision, known.len()), (5, 2));
}

fn resume(store: &mut Store, turn: &str) {
    store.run(Action::Resume { owner: address("ann"), turn: turn.into(), way: "call_1_0".into(), taken: true });
}

#[test]
fn what_comes_after_the_end_of_a_wait_is_delivered_and_not_deleted_with_it() {
    let mut store = usual();
    let asked = wait(&mut store, "ann", "t1", "bob carl");
    store.run(Action::Await(asked));
    answer(&mut store, P::Inform, "bob", "ann", "talk-t1");
    store.now_ms += 60_000;
    store.tick();
    let told = ended(&store);
    assert_eq!((told[0].answers.len(), &told[0].awaited), (1, &vec![address("carl")]));
    // The clock of the next leader is behind, and the wait is over all the same.
    store.now_ms -= 30_000;
    answer(&mut store, P::Inform, "carl", "ann", "talk-t1");
    assert_eq!(ended(&store), told, "the turn is told what it was told");
    resume(&mut store, "t1");
    let waiting = store.next("ann", 9);
    assert_eq!(waiting.len(), 1, "carl's answer is there");
    assert_eq!(waiting[0].submission.message.sender, Some(address("carl")));
}

#[test]
fn the_second_answer_of_one_who_has_answered_is_an_ordinary_message() {
    let mut store = usual();
    let asked = wait(&mut store, "ann", "t1", "bob");
    store.run(Action::Await(asked));
    answer(&mut store, P::Inform, "bob", "ann", "talk-t1");
    answer(&mut store, P::Inform, "bob", "ann", "talk-t1");
    assert_eq!(ended(&store)[0].answers.len(), 1);
    resume(&mut store, "t1");
    assert_eq!(store.next("ann", 9).len(), 1);
}

#[test]
fn only_who_was_asked_answers_a_wait_and_a_question_is_no_answer() {
    let mut store = usual();
    let asked = wait(&mut store, "ann", "t1", "bob carl");
    store.run(Action::Await(asked));
    answer(&mut store, P::Inform, "eve", "ann", "talk-t1");
    answer(&mut store, P::Request, "bob", "ann", "talk-t1");
    answer(&mut store, P::Agree, "bob", "ann", "talk-t1");
    answer(&mut store, P::Agree, "bob", "ann", "talk-t1");
    answer(&mut store, P::Inform, "bob", "ann", "talk-t1");
    answer(&mut store, P::Inform, "bob", "ann", "talk-t1");
    assert!(ended(&store).is_empty(), "carl has not answered");
    let what = Listing { owner: Some(address("ann")), ..Listing::default() };
    let kept = store.list(what).iter().filter(|it| it.stage == Stage::Waiting).count();
    assert_eq!(kept, 2, "of each one agreement and one answer");
    answer(&mut store, P::Failure, "carl", "ann", "talk-t1");
    let said: Vec<P> = ended(&store)[0].answers.iter().map(|it| it.submission.message.performative).collect();
    assert_eq!(said, [P::Agree, P::Inform, P::Failure]);
}

#[test]
fn two_waits_in_one_conversation_get_an_answer_each() {
    let mut store = usual();
    let first = wait(&mut store, "ann", "t1", "bob");
    let mut second = wait(&mut store, "ann", "t2", "bob carl");
    second.conversation = "talk-t1".to_owned();
    store.run(Action::Await(first));
    store.run(Action::Await(second));
    answer(&mut store, P::Inform, "carl", "ann", "talk-t1");
    answer(&mut store, P::Inform, "bob", "ann", "talk-t1");
    let over: Vec<String> = ended(&store).into_iter().map(|it| it.turn).collect();
    assert_eq!(over, ["t1"], "carl's answer is not the one that it misses");
    answer(&mut store, P::Inform, "bob", "ann", "talk-t1");
    let over: Vec<(String, usize)> = ended(&store).into_iter().map(|it| (it.turn, it.answers.len())).collect();
    assert_eq!(over, [("t1".to_owned(), 1), ("t2".to_owned(), 2)]);
}

#[test]
fn who_has_answered_is_in_no_circle() {
    let mut store = usual();
    let first = wait(&mut store, "ann", "t1", "carl dan");
    store.run(Action::Await(first));
    answer(&mut store, P::Inform, "carl", "ann", "talk-t1");
    let second = wait(&mut store, "carl", "t2", "ann");
    assert!(matches!(store.run(Action::Await(second)), Outcome::Sent(_)), "ann waits for dan alone");
    let third = wait(&mut store, "dan", "t3", "ann");
    assert!(matches!(store.run(Action::Await(third)), Outcome::Refused(Reason::Circle { .. })));
}

#[test]
fn the_platform_answers_for_who_cannot_and_says_who_was_silent() {
    let mut store = usual();
    let mut asked = wait(&mut store, "ann", "t1", "bob carl");
    let message = &mut asked.submissions[0].message;
    (message.protocol, message.reply_by_ms) = (Some("fipa-request".to_owned()), Some(store.now_ms + 1_000));
    store.run(Action::Await(asked));
    let bob = store.take("bob").expect("it was asked");
    store.settle(&bob, Verdict::Dead("it broke".to_owned()));
    assert!(ended(&store).is_empty(), "carl has not answered");
    store.now_ms += 1_000;
    store.tick();
    let over = ended(&store);
    assert_eq!((over[0].answers.len(), over[0].timed_out), (2, true), "{over:?}");
    assert_eq!(over[0].awaited, [address("carl")]);
}

#[test]
fn what_a_turn_waits_with_is_not_dropped_and_the_sender_of_what_is_dropped_is_told() {
    let mut store = usual();
    let asked = wait(&mut store, "ann", "t1", "bob carl");
    store.run(Action::Await(asked));
    let bob = store.take("bob").expect("it was asked");
    store.run(Action::Park { delivery: bob.delivery, attempt: bob.attempt });
    answer(&mut store, P::Agree, "bob", "ann", "talk-t1");
    let waiting = store.list(Listing::default()).into_iter().filter(|it| it.stage == Stage::Waiting);
    let waiting: Vec<u64> = waiting.map(|it| it.delivery).collect();
    assert_eq!(waiting.len(), 2, "bob's turn, and its agreement");
    assert_eq!(store.run(Action::Drop(waiting)), Outcome::Moved(Vec::new()));
    let carl = store.next("carl", 1)[0].delivery;
    assert_eq!(store.run(Action::Drop(vec![carl])), Outcome::Moved(vec![carl]));
    let told = content(&store, "ann");
    assert!(told.iter().any(|(said, text)| *said == P::Failure && text.contains("it was dropped")), "{told:?}");
    store.now_ms += 60_000;
    store.tick();
    assert_eq!(ended(&store)[0].awaited, [address("bob")], "the wait misses carl no longer");
}
