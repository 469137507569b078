//! What is for agents of other workspaces lies in the sender's until it is carried; what comes from them is taken in once. And the
//! keys with which senders sign.

mod support;

use std::collections::BTreeMap;

use caxton_messages::acl::{Body, Content, Message, Performative as P};
use caxton_messages::mailbox::{Action, Fate, KeyId, Outcome, Reason, SetKey, Settlement, Submission, Verdict};
use caxton_messages::{Limits, Stage, message_keys, signing_key, waiting};
use support::{Store, address, message};

fn usual() -> Store {
    Store::new(Limits::default())
}

fn key(owner: &str, number: u8, overlap_ms: Option<i64>) -> SetKey {
    let (sealed_with, sealed) = ("k".to_owned(), vec![number; 60]);
    SetKey { owner: address(owner), public: [number; 32], held: true, sealed_with, sealed, overlap_ms }
}

fn receive(store: &mut Store, submission: &Submission) -> Fate {
    let source = "other".parse().expect("a name");
    match store.run(Action::Receive { source, submission: Box::new(submission.clone()) }) {
        Outcome::Sent(receipts) => receipts.into_iter().next().expect("one").fate,
        Outcome::Refused(reason) => Fate::Refused(reason),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_a_turn_sends_to_another_workspace_is_in_the_outbox_with_the_turns_outcome() {
    let mut store = usual();
    store.accepted(message(P::Request, "subject:eve", "ann"));
    let ready = store.take("ann").expect("it waits");
    let sent = store.submission(message(P::Request, "ann", "bob@other carl"));
    let settle = |submissions, attempt| Action::Settle {
        delivery: ready.delivery,
        attempt,
        verdict: Verdict::Done("ok".to_owned()),
        submissions,
        state: BTreeMap::new(),
    };
    let before = store.rows();
    assert_eq!(store.run(settle(vec![sent.clone()], 9)), Outcome::Stale);
    assert_eq!(store.rows(), before, "nothing goes out without the outcome");
    let outcome = store.run(settle(vec![sent.clone()], ready.attempt));
    assert!(matches!(&outcome, Outcome::Settled { settlement: Settlement::Done, receipts } if receipts.len() == 1));
    let owners: Vec<String> = waiting(&store.db, store.now_ms, 0, 9)
        .expect("SQLite")
        .into_iter()
        .map(|(_, _, owner)| owner.to_string())
        .collect();
    assert_eq!(owners, ["bob@other", "carl"]);
    let carried = store.take("bob@other").expect("it is to be carried");
    assert_eq!(carried.submission, sent);
    assert_eq!(store.take("bob@other"), None);
    store.settle(&carried, Verdict::Dead("workspace `other` does not receive from `w`".to_owned()));
    let dead = store.dead();
    assert_eq!((dead.len(), dead[0].owner.to_string()), (1, "bob@other".to_owned()));
    let told = store.take("ann").expect("its sender is told");
    let Some(content) = &told.submission.message.content else { panic!("{told:?}") };
    assert_eq!(told.submission.message.performative, P::Failure);
    assert!(format!("{:?}", content.body).contains("does not receive from"), "{content:?}");
    assert_eq!(store.run(Action::Redrive(vec![carried.delivery])), Outcome::Moved(vec![carried.delivery]));
    assert_eq!(store.take("bob@other").expect("once more").submission.id, sent.id);
    assert_eq!(dead[0].stage, Stage::Dead);
}

#[test]
fn nodes_that_end_while_they_carry_a_message_use_up_none_of_its_attempts() {
    let mut store = usual();
    store.accepted(message(P::Request, "ann", "bob@other"));
    store.accepted(message(P::Request, "ann", "carl"));
    for _ in 0..store.limits.attempts_max {
        for owner in ["bob@other", "carl"] {
            store.take(owner).expect("it waits");
        }
        store.term += 1;
        store.tick();
    }
    assert_eq!(store.dead().iter().map(|dead| dead.owner.to_string()).collect::<Vec<_>>(), ["carl"]);
    let carried = store.take("bob@other").expect("it is carried once more");
    assert_eq!(carried.attempt, 1);
    let done = store.settle(&carried, Verdict::Done("workspace `other` has it".to_owned()));
    assert!(matches!(done, Outcome::Settled { settlement: Settlement::Done, .. }), "{done:?}");
}

#[test]
fn only_agents_write_elsewhere_and_artifacts_stay() {
    let mut store = usual();
    let person = store.refused(message(P::Inform, "subject:ann", "bob@other"));
    assert!(person.to_string().contains("only agents write"), "{person}");
    let mut with_artifact = message(P::Inform, "ann", "bob@other");
    let body = Body::Artifact { digest: caxton_proto::Digest::of(b"x"), bytes: 3 };
    with_artifact.content = Some(Content { media_type: "image/png".to_owned(), body });
    assert!(store.refused(with_artifact).to_string().contains("stays in its workspace"));
    store.accepted(message(P::Inform, "ann", "bob@other"));
}

#[test]
fn what_another_workspace_sends_is_taken_in_once_also_after_it_is_done() {
    let mut store = usual();
    let sent = store.submission(message(P::Request, "ann@other", "bob"));
    assert!(matches!(receive(&mut store, &sent), Fate::Accepted { deliveries: 1, .. }));
    assert_eq!(receive(&mut store, &sent), Fate::Duplicate(sent.id));
    store.done("bob");
    store.now_ms += store.limits.key_ms * 2;
    store.tick();
    assert_eq!(receive(&mut store, &sent), Fate::Duplicate(sent.id), "long after it was dealt with");
    assert_eq!(receive(&mut store.restored(), &sent), Fate::Duplicate(sent.id), "and at another replica");
    assert!(store.take("bob").is_none());
    store.now_ms += store.limits.received_ms + 1;
    let next = store.submission(message(P::Inform, "ann@other", "bob"));
    receive(&mut store, &next);
    assert_eq!(store.rows().iter().find(|(name, _)| *name == "mailbox_received").expect("a table").1.len(), 1);

    let local = store.submission(message(P::Request, "ann", "bob"));
    assert!(matches!(receive(&mut store, &local), Fate::Refused(Reason::Field { .. })), "it is of no other workspace");
    let forged = store.submission(message(P::Request, "ann@third", "bob"));
    assert!(matches!(receive(&mut store, &forged), Fate::Refused(Reason::Field { .. })), "nor of this one");
}

#[test]
fn one_that_is_refused_is_not_known_and_may_come_again() {
    let mut store = Store::new(Limits { mailbox_messages_max: 2, ..Limits::default() });
    store.accepted(message(P::Inform, "eve", "bob"));
    let sent = store.submission(message(P::Inform, "ann@other", "bob"));
    let another = store.submission(message(P::Inform, "ann@other", "bob"));
    assert!(matches!(receive(&mut store, &sent), Fate::Accepted { .. }));
    assert!(matches!(receive(&mut store, &another), Fate::Refused(Reason::Full { .. })));
    store.done("bob");
    store.done("bob");
    assert!(matches!(receive(&mut store, &another), Fate::Accepted { .. }));
}

#[test]
fn a_failure_is_told_to_a_sender_elsewhere_and_deadlines_are_each_workspaces_own() {
    let mut store = Store::new(Limits { attempts_max: 1, ..Limits::default() });
    let mut asked = message(P::Request, "ann@other", "bob");
    asked.protocol = Some("fipa-request".to_owned());
    asked.conversation_id = Some("c@other".to_owned());
    asked.reply_by_ms = Some(store.now_ms + 50);
    let sent = store.submission(asked);
    receive(&mut store, &sent);
    let ready = store.take("bob").expect("it waits");
    store.settle(&ready, Verdict::Retry("broken".to_owned()));
    let failure = store.take("ann@other").expect("an answer on its way").submission.message;
    assert_eq!((failure.performative, failure.sender), (P::Failure, Some(address("platform:"))));
    assert_eq!(failure.conversation_id.as_deref(), Some("c@other"));

    let mut late = message(P::Request, "ann@other", "carl");
    (late.protocol, late.conversation_id) = (Some("fipa-request".to_owned()), Some("d@other".to_owned()));
    late.reply_by_ms = Some(store.now_ms + 50);
    let late: Message = late;
    let sent = store.submission(late);
    receive(&mut store, &sent);
    store.now_ms += 60;
    store.tick();
    assert!(store.take("ann@other").is_none(), "the sender's own workspace knows its deadline");
}

#[test]
fn a_workspace_that_is_deleted_takes_its_outbox_its_keys_and_what_it_knows_along() {
    let mut store = usual();
    store.accepted(message(P::Inform, "ann", "bob@other"));
    let sent = store.submission(message(P::Inform, "ann@other", "bob"));
    receive(&mut store, &sent);
    store.run(Action::SetKey(key("ann", 1, None)));
    let workspace = "w".parse().expect("a name");
    while !caxton_messages::clear(&store.db, &workspace, 1).expect("SQLite") {}
    for (name, rows) in store.rows() {
        let left = rows.len();
        assert!(left == 0 || name == "mailbox_counter", "{name} has {left} rows left");
    }
}

#[test]
fn a_key_is_made_once_rotated_with_an_overlap_and_bounded() {
    let mut store = usual();
    let workspace = "w".parse().expect("a name");
    let id = |number: u8| KeyId::of(&[number; 32]);
    assert_eq!(store.run(Action::SetKey(key("ann", 1, None))), Outcome::Keyed(id(1)));
    assert_eq!(store.run(Action::SetKey(key("ann", 2, None))), Outcome::Keyed(id(1)), "two nodes made one at once");
    assert_eq!(store.run(Action::SetKey(key("ann", 2, Some(100)))), Outcome::Keyed(id(2)));
    assert_eq!(store.run(Action::SetKey(key("ann", 2, Some(7)))), Outcome::Keyed(id(2)), "the same again");
    let keys = message_keys(&store.db, &workspace, None, (0, 9)).expect("SQLite");
    let ends: Vec<Option<i64>> = keys.iter().map(|key| key.ends_ms).collect();
    assert_eq!(ends, [Some(store.now_ms + 100), None]);
    assert_eq!(signing_key(&store.db, &workspace, &address("ann")).expect("SQLite").map(|key| key.id), Some(id(2)));
    assert!(
        matches!(store.run(Action::SetKey(key("eve", 1, Some(0)))), Outcome::Refused(Reason::Field { .. })),
        "ann's"
    );
    assert!(matches!(store.run(Action::SetKey(key("topic:a", 9, None))), Outcome::Refused(Reason::Field { .. })));
    for number in 3..=8 {
        assert_eq!(store.run(Action::SetKey(key("ann", number, Some(1_000)))), Outcome::Keyed(id(number)));
    }
    let full = store.run(Action::SetKey(key("ann", 9, Some(1_000))));
    assert!(
        matches!(full, Outcome::Refused(Reason::Limit { found: 8, most: 8, .. })),
        "all of them still count: {full:?}"
    );
    store.now_ms += 101;
    assert_eq!(store.run(Action::SetKey(key("ann", 9, Some(1_000)))), Outcome::Keyed(id(9)));
    let keys = message_keys(&store.db, &workspace, Some(&address("ann")), (0, 99)).expect("SQLite");
    assert!(keys.len() == 8 && keys.iter().all(|key| key.id != id(1)), "the oldest whose time was over is gone");
}
