//! Mailboxes lose nothing, keep order, are fair, refuse what has no room, and give each delivery one outcome.

mod support;

use caxton_messages::acl::{Performative as P, Priority};
use caxton_messages::mailbox::{Action, Fate, Outcome, Reason, Settlement, Submission, Verdict};
use caxton_messages::{Depth, Limits, Listing, Stage, depths, due, numbers, old, schedules, waiting};
use support::{Store, address, message};

fn usual() -> Store {
    Store::new(Limits::default())
}

fn urgent(store: &mut Store, from: &str, priority: u64) -> Submission {
    let submission = store.submission(message(P::Inform, from, "bob"));
    Submission { priority: Priority::new(priority).expect("from 0 to 7"), ..submission }
}

#[test]
fn a_message_is_delivered_in_order_and_has_one_outcome() {
    let mut store = usual();
    let sent: Vec<_> = (0..5).map(|_| store.submission(message(P::Inform, "ann", "bob"))).collect();
    sent.iter().cloned().for_each(|one| drop(store.send(one)));
    for one in &sent {
        let ready = store.take("bob").expect("it waits");
        assert_eq!((&ready.submission, ready.attempt), (one, 1));
        assert!(store.next("bob", 9).is_empty(), "the next of this sender waits for it");
        let done = Outcome::Settled { settlement: Settlement::Done, receipts: Vec::new() };
        assert_eq!(store.settle(&ready, Verdict::Done("ok".to_owned())), done);
        assert_eq!(store.settle(&ready, Verdict::Dead("again".to_owned())), Outcome::Stale);
    }
    assert!(store.list(Listing::default()).is_empty());
}

#[test]
fn a_message_is_taken_in_once_under_the_key_of_its_sender_also_after_it_is_done() {
    let mut store = usual();
    let keyed = |one: Submission| Submission { key: Some("k".to_owned()), ..one };
    let (first, second, other) =
        (urgent(&mut store, "ann", 4), urgent(&mut store, "ann", 4), urgent(&mut store, "eve", 4));
    let id = first.id;
    assert!(matches!(store.send(keyed(first.clone())), Fate::Accepted { .. }));
    assert_eq!(store.send(keyed(second.clone())), Fate::Duplicate(id));
    assert!(matches!(store.send(keyed(other)), Fate::Accepted { .. }), "another sender's key is another one");
    assert_eq!(store.send(first), Fate::Duplicate(id), "the same entry again");
    store.done("bob");
    store.done("bob");
    assert_eq!(store.send(keyed(second.clone())), Fate::Duplicate(id));
    store.now_ms += store.limits.key_ms + 1;
    assert_eq!(old(&store.db, store.now_ms, &store.limits).expect("SQLite").len(), 1);
    store.tick();
    assert!(old(&store.db, store.now_ms, &store.limits).expect("SQLite").is_empty());
    assert!(matches!(store.send(keyed(second)), Fate::Accepted { .. }));
}

#[test]
fn a_full_mailbox_refuses_says_when_and_drops_nothing() {
    let mut store = Store::new(Limits { mailbox_messages_max: 4, ..Limits::default() });
    store.accepted(message(P::Inform, "ann", "bob"));
    store.accepted(message(P::Inform, "ann", "bob"));
    let full = store.refused(message(P::Inform, "ann", "bob"));
    assert!(
        matches!(&full, Reason::Full { retry_after_ms: 5_000, dead: 0, .. }),
        "half of it is the most for one sender"
    );
    assert!(full.to_string().contains("send it again in 5000 ms"), "{full}");
    store.accepted(message(P::Inform, "eve", "bob"));
    store.accepted(message(P::Inform, "eve", "bob"));
    let before = store.rows();
    assert!(matches!(store.refused(message(P::Inform, "carl", "dan bob")), Reason::Full { .. }));
    assert_eq!(store.rows(), before, "a message goes to all of its receivers or to none");
    let ready = store.take("bob").expect("it waits");
    store.settle(&ready, Verdict::Dead("no".to_owned()));
    let full = store.refused(message(P::Inform, "carl", "bob"));
    assert!(full.to_string().contains("1 dead letters take up room"), "{full}");
    assert_eq!(store.run(Action::Drop(vec![ready.delivery])), Outcome::Moved(vec![ready.delivery]));
    store.accepted(message(P::Inform, "carl", "bob"));
}

#[test]
fn a_workspace_has_as_many_mailboxes_as_its_proposer_says_and_empty_ones_make_room() {
    let mut store = usual();
    store.mailboxes_max = Some(2);
    store.accepted(message(P::Inform, "ann", "bob"));
    store.accepted(message(P::Inform, "ann", "carl"));
    store.accepted(message(P::Inform, "eve", "bob"));
    let before = store.rows();
    let refused = store.refused(message(P::Inform, "ann", "dan"));
    assert!(matches!(&refused, Reason::Limit { found: 3, most: 2, .. }), "{refused:?}");
    assert!(refused.to_string().contains("limits.workspace_mailboxes_max"), "{refused}");
    let refused = store.refused(message(P::Inform, "ann", "bob subject:x subject:y"));
    assert!(matches!(&refused, Reason::Limit { found: 4, most: 2, .. }), "all of its receivers count: {refused:?}");
    assert_eq!(store.rows(), before, "and nothing was changed");
    store.done("carl");
    store.accepted(message(P::Inform, "ann", "dan"));
    assert!(matches!(store.refused(message(P::Inform, "ann", "carl")), Reason::Limit { .. }));
    let mut restored = store.restored();
    assert!(matches!(restored.refused(message(P::Inform, "ann", "carl")), Reason::Limit { .. }));
    restored.db.execute("DELETE FROM mailbox_counter WHERE name LIKE 'mailboxes/%'", []).expect("SQLite");
    caxton_messages::count_mailboxes(&restored.db).expect("SQLite");
    assert!(matches!(restored.refused(message(P::Inform, "ann", "carl")), Reason::Limit { .. }), "counted anew");
    // Entries of older programs say no limit, and are applied as they were.
    restored.mailboxes_max = None;
    restored.accepted(message(P::Inform, "ann", "carl"));
}

#[test]
fn one_that_fails_is_tried_again_later_holds_nothing_up_and_ends_as_a_dead_letter() {
    let mut store = Store::new(Limits { attempts_max: 3, ..Limits::default() });
    store.accepted(message(P::Inform, "ann", "bob"));
    store.accepted(message(P::Inform, "ann", "bob"));
    let poisoned = store.take("bob").expect("it waits");
    let at_ms = store.now_ms + 1_000;
    let retry = |verdict: &Outcome| match verdict {
        Outcome::Settled { settlement, .. } => settlement.clone(),
        other => panic!("{other:?}"),
    };
    let outcome = store.settle(&poisoned, Verdict::Retry("broken".to_owned()));
    assert_eq!(retry(&outcome), Settlement::Retry { at_ms });
    assert_ne!(store.done("bob").delivery, poisoned.delivery, "the next one goes on");
    assert!(store.next("bob", 1).is_empty());
    store.now_ms = at_ms;
    let second = store.take("bob").expect("it is due");
    assert_eq!((second.delivery, second.attempt, second.round), (poisoned.delivery, 2, 1));
    assert_eq!(store.settle(&poisoned, Verdict::Done("late".to_owned())), Outcome::Stale, "the first attempt is over");
    assert_eq!(
        retry(&store.settle(&second, Verdict::Retry("x".to_owned()))),
        Settlement::Retry { at_ms: at_ms + 2_000 }
    );
    store.now_ms += 2_000;
    let last = store.take("bob").expect("it is due");
    let dead = retry(&store.settle(&last, Verdict::Retry("broken".to_owned())));
    assert_eq!(dead, Settlement::Dead { reason: "3 attempts failed; the last: broken".to_owned() });
    let letters = store.dead();
    assert_eq!((letters.len(), letters[0].attempts, letters[0].stage), (1, 3, Stage::Dead));
    assert_eq!(store.run(Action::Redrive(vec![last.delivery, 999])), Outcome::Moved(vec![last.delivery]));
    assert_eq!(store.take("bob").expect("once more").attempt, 1);
    assert_eq!(store.run(Action::Drop(vec![last.delivery])), Outcome::Moved(vec![]), "it is under way");
}

#[test]
fn what_an_older_term_had_started_is_tried_again() {
    let mut store = usual();
    store.accepted(message(P::Inform, "ann", "bob"));
    let ready = store.take("bob").expect("it waits");
    assert!(due(&store.db, store.now_ms, 1, &store.limits).expect("SQLite").is_empty());
    store.term = 2;
    assert_eq!(due(&store.db, store.now_ms, 2, &store.limits).expect("SQLite").len(), 1);
    assert_eq!(store.tick(), Outcome::Ticked { changed: 1, more: false });
    assert_eq!(store.settle(&ready, Verdict::Done("late".to_owned())), Outcome::Stale);
    let again = store.done("bob");
    assert_eq!((again.attempt, again.round), (2, 0), "the same round: what was begun is gone on with");
}

#[test]
fn what_expires_is_a_dead_letter_and_is_not_started() {
    let mut store = usual();
    let expires_ms = Some(store.now_ms + 10);
    let short = Submission { expires_ms, ..urgent(&mut store, "ann", 4) };
    store.send(short.clone());
    store.now_ms += 10;
    assert!(store.next("bob", 9).is_empty());
    assert_eq!(store.tick(), Outcome::Ticked { changed: 1, more: false });
    assert_eq!(store.dead()[0].reason.as_deref(), Some("it expired"));
    let late = Submission { id: caxton_messages::acl::MessageId::from_bytes([9; 16]), ..short };
    assert_eq!(store.send(late), Fate::Refused(Reason::Expired));
}

#[test]
fn a_message_of_the_least_priority_waits_no_longer_than_ageing_allows() {
    let mut store = usual();
    let least = urgent(&mut store, "ann", 0);
    store.send(least.clone());
    let began_ms = store.now_ms;
    for _ in 0..1_000 {
        store.now_ms += 1_000;
        let most = urgent(&mut store, "eve", 7);
        store.send(most);
        if store.done("bob").submission.id == least.id {
            let waited_ms = store.now_ms - began_ms;
            assert!(waited_ms > store.limits.ageing_ms, "the urgent ones come first: {waited_ms}");
            assert!(waited_ms <= 8 * store.limits.ageing_ms, "{waited_ms}");
            return;
        }
    }
    panic!("it starved");
}

#[test]
fn senders_take_turns_and_urgent_messages_come_first() {
    let mut store = usual();
    (0..10).for_each(|_| store.accepted(message(P::Inform, "ann", "bob")));
    (0..2).for_each(|_| store.accepted(message(P::Inform, "eve", "bob")));
    let most = urgent(&mut store, "ann", 7);
    store.send(most.clone());
    assert_eq!(store.done("bob").submission.id, most.id);
    let senders: Vec<_> = (0..4).map(|_| store.done("bob").submission.message.sender.expect("stamped")).collect();
    let turns = |name: &str| senders.iter().filter(|sender| **sender == address(name)).count();
    assert_eq!((turns("ann"), turns("eve")), (2, 2), "{senders:?}");
}

#[test]
fn what_a_receiver_sends_goes_out_with_its_outcome_and_what_is_refused_is_kept() {
    let mut store = Store::new(Limits { mailbox_messages_max: 1, ..Limits::default() });
    store.accepted(message(P::Inform, "ann", "bob"));
    store.accepted(message(P::Inform, "ann", "carl"));
    let ready = store.take("bob").expect("it waits");
    let submissions =
        vec![store.submission(message(P::Inform, "bob", "dan")), store.submission(message(P::Inform, "bob", "carl"))];
    let (delivery, attempt, verdict) = (ready.delivery, 1, Verdict::Done("ok".to_owned()));
    let settle = Action::Settle { delivery, attempt, verdict, submissions, state: Default::default() };
    let Outcome::Settled { settlement: Settlement::Done, receipts } = store.run(settle.clone()) else { panic!() };
    assert!(matches!(receipts[0].fate, Fate::Accepted { .. }) && matches!(receipts[1].fate, Fate::Refused(_)));
    let dead = store.dead();
    assert!(dead.len() == 1 && dead[0].owner == address("carl"), "{dead:?}");
    assert!(dead[0].reason.as_deref().is_some_and(|reason| reason.contains("is full")), "{dead:?}");
    assert_eq!(store.run(settle), Outcome::Stale, "nothing is sent twice");
    let at = waiting(&store.db, store.now_ms, 0, 9).expect("SQLite");
    assert_eq!(at.iter().map(|(.., owner)| owner.to_string()).collect::<Vec<_>>(), ["carl", "dan"]);
}

#[test]
fn a_schedule_sends_one_message_for_each_tick_however_often_it_is_proposed() {
    let mut store = usual();
    let fire = |store: &mut Store, words: &str, tick_ms: i64, send: bool| {
        let submission = send.then(|| Box::new(store.submission(message(P::Request, "platform:", "bob"))));
        let (schedule, words) = ("bob/daily".to_owned(), words.to_owned());
        store.run(Action::Fire { schedule, words, tick_ms, submission })
    };
    assert_eq!(fire(&mut store, "every 1m", 60_000, true), Outcome::Stale, "it has not begun");
    assert_eq!(fire(&mut store, "every 1m", 60_000, false), Outcome::Sent(Vec::new()));
    assert_eq!(fire(&mut store, "every 1m", 90_000, false), Outcome::Stale, "it goes on from where it is");
    assert!(matches!(fire(&mut store, "every 1m", 120_000, true), Outcome::Sent(sent) if sent.len() == 1));
    assert_eq!(fire(&mut store, "every 1m", 120_000, true), Outcome::Stale, "another leader proposes the same tick");
    assert_eq!(fire(&mut store, "every 1m", 60_000, true), Outcome::Stale, "a tick before it");
    let mut store = store.restored();
    assert_eq!(fire(&mut store, "every 1m", 120_000, true), Outcome::Stale, "after a restore");
    assert_eq!(fire(&mut store, "every 2m", 120_000, true), Outcome::Stale, "other words have not begun");
    assert_eq!(fire(&mut store, "every 2m", 130_000, false), Outcome::Sent(Vec::new()));
    let reached = schedules(&store.db).expect("SQLite");
    assert_eq!((reached.len(), reached[0].words.as_str(), reached[0].reached_ms), (1, "every 2m", 130_000));
    assert_eq!(store.list(Listing::default()).len(), 1);
    assert_eq!(store.run(Action::Unschedule(vec!["bob/daily".to_owned()])), Outcome::Sent(Vec::new()));
    assert!(schedules(&store.db).expect("SQLite").is_empty());
}

#[test]
fn what_lies_in_mailboxes_is_counted_by_workspace() {
    let mut store = Store::new(Limits { attempts_max: 1, ..Limits::default() });
    assert!(depths(&store.db, store.now_ms).expect("SQLite").is_empty());
    let short = store.submission(message(P::Inform, "ann", "carl"));
    store.send(Submission { expires_ms: Some(store.now_ms + 1), ..short });
    (0..3).for_each(|_| store.accepted(message(P::Inform, "ann", "bob")));
    for verdict in [Verdict::Retry("no".to_owned()), Verdict::Dead("never".to_owned())] {
        let ready = store.take("bob").expect("it waits");
        store.settle(&ready, verdict);
    }
    store.now_ms += 5_000;
    store.tick();
    store.accepted(message(P::Inform, "eve", "bob"));
    let found = depths(&store.db, store.now_ms).expect("SQLite");
    let Depth { workspace, waiting, bytes, oldest_ms, dead } = &found[0];
    assert_eq!((found.len(), workspace.as_str(), *waiting, *oldest_ms, *dead), (1, "w", 2, 5_000, [1, 1, 1]));
    let kept: i64 = store.db.query_row("SELECT sum(bytes) FROM mailbox", [], |row| row.get(0)).expect("SQLite");
    assert_eq!(*bytes, kept as u64);
    let dead = Listing { dead: Some(true), most: 9, ..Listing::default() };
    let all = numbers(&store.db, &"w".parse().expect("a name"), &dead).expect("SQLite");
    assert_eq!(all, store.dead().iter().map(|it| it.delivery).collect::<Vec<_>>());
    let after = Listing { after: all[0], ..dead };
    assert_eq!(numbers(&store.db, &"w".parse().expect("a name"), &after).expect("SQLite"), all[1..]);
}

#[test]
fn one_sender_fills_half_of_a_mailbox_whatever_its_messages_wait_for() {
    let mut store = Store::new(Limits { mailbox_messages_max: 8, mailbox_bytes_max: 4_000, ..Limits::default() });
    let mut later = message(P::Inform, "ann", "bob");
    later.extensions.insert("X-Delay-Ms".to_owned(), "1000".to_owned());
    (0..4).for_each(|_| store.accepted(later.clone()));
    assert!(matches!(store.refused(later), Reason::Full { .. }), "what is delayed counts as well");
    let mut long = message(P::Inform, "eve", "bob");
    long.content = Some(caxton_messages::acl::Content::text("x".repeat(1_500)));
    store.accepted(long.clone());
    assert!(matches!(store.refused(long), Reason::Full { .. }), "and so do bytes");
    store.accepted(message(P::Inform, "dan", "bob"));
}

#[test]
fn a_full_mailbox_keeps_a_tenth_more_of_what_agents_send_to_it_in_vain() {
    let mut store = Store::new(Limits { mailbox_messages_max: 10, ..Limits::default() });
    (0..5).for_each(|_| store.accepted(message(P::Inform, "ann", "carl")));
    (0..5).for_each(|_| store.accepted(message(P::Inform, "eve", "carl")));
    store.accepted(message(P::Inform, "ann", "bob"));
    let ready = store.take("bob").expect("it waits");
    let submissions = (0..4).map(|_| store.submission(message(P::Inform, "bob", "carl"))).collect();
    let (delivery, attempt, verdict) = (ready.delivery, 1, Verdict::Done("ok".to_owned()));
    let settle = Action::Settle { delivery, attempt, verdict, submissions, state: Default::default() };
    let Outcome::Settled { receipts, .. } = store.run(settle) else { panic!() };
    assert!(receipts.iter().all(|it| matches!(it.fate, Fate::Refused(Reason::Full { .. }))), "all of them are told");
    assert_eq!(store.dead().len(), 1);
}

#[test]
fn every_mailbox_comes_up_however_many_of_others_nobody_empties() {
    let mut store = usual();
    for number in 0..7 {
        store.accepted(message(P::Inform, "ann", &format!("nobody{number}")));
    }
    store.accepted(message(P::Inform, "ann", "bob"));
    let (mut after, mut seen) = (0, Vec::new());
    for _ in 0..4 {
        let page = waiting(&store.db, store.now_ms, after, 3).expect("SQLite");
        assert_eq!(page.len(), 3);
        after = page[2].0;
        seen.extend(page.into_iter().map(|(.., owner)| owner.to_string()));
    }
    let names: Vec<String> = (0..7).map(|number| format!("nobody{number}")).chain(["bob".to_owned()]).collect();
    assert_eq!((&seen[..8], &seen[8..]), (&names[..], &names[..4]), "the next begins where the last one ended");
    assert_eq!(waiting(&store.db, store.now_ms, after, 99).expect("SQLite").len(), 8, "each once");
}

#[test]
fn a_leader_whose_clock_was_ahead_holds_nothing_up_for_longer_than_the_longest_pause() {
    const DAY_MS: i64 = 86_400_000;
    let mut store = Store::new(Limits::default());
    store.accepted(message(P::Request, "ann", "bob"));
    store.accepted(message(P::Inform, "ann", "bob"));
    let mut delayed = message(P::Inform, "eve", "carl");
    delayed.extensions.insert("X-Delay-Ms".to_owned(), (2 * DAY_MS).to_string());
    store.accepted(delayed);
    store.now_ms += DAY_MS;
    let failed = store.take("bob").expect("it waits");
    store.settle(&failed, Verdict::Retry("not now".to_owned()));
    let left = store.take("bob").expect("what comes next");
    store.term += 1;
    store.tick();
    // The next leader's clock is right.
    (store.now_ms, store.term) = (store.now_ms - DAY_MS, store.term + 1);
    let all: Vec<_> = due(&store.db, store.now_ms, store.term, &store.limits).expect("SQLite");
    assert_eq!(all.len(), 1, "a tick has something to do");
    store.tick();
    assert_eq!(store.next("bob", 9).iter().map(|it| it.delivery).collect::<Vec<_>>(), [left.delivery], "due as it was");
    assert!(due(&store.db, store.now_ms, store.term, &store.limits).expect("SQLite").is_empty(), "once");
    store.now_ms += store.limits.retry_ms_max;
    let again = store.take("bob").map(|it| it.delivery);
    assert!([Some(failed.delivery), Some(left.delivery)].contains(&again), "{again:?}");
    assert_eq!(store.next("bob", 9).len(), 1);
    assert_eq!(store.take("carl"), None, "what is to be delayed is delayed");
}
