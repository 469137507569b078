//! Whatever commands come: a replica that was restored goes on in the same way, and nothing is lost.

mod support;

use std::collections::BTreeSet;

use caxton_messages::acl::{MessageId, Performative, Priority};
use caxton_messages::mailbox::{Action, Await, Fate, Filter, Outcome, SetKey, Settlement, Submission, Verdict};
use caxton_messages::{Limits, Listing, clear, ended_waits};
use proptest::prelude::*;
use support::{Store, address, message};

/// What happens, with numbers that choose among what there is.
#[derive(Debug, Clone)]
enum Event {
    Send { from: usize, to: usize, priority: u64, performative: usize, protocol: bool, key: Option<u8>, short: bool },
    Publish { from: usize },
    Start { of: usize },
    Settle { verdict: u8, at: usize, reply: bool },
    Tick { after_ms: i64, elected: bool },
    Redrive { at: usize },
    Drop { at: usize },
    Subscribe { of: usize, after: Option<u64> },
    Fire { tick: i64, begin: bool },
    Park { at: usize },
    Await { of: usize, to: usize },
    Resume { taken: bool },
    Receive { id: u8, to: usize },
    SetKey { of: usize, key: u8, held: bool, overlap_ms: Option<i64> },
    Restore,
}

const NAMES: [&str; 4] = ["ann", "bob", "carl", "subject:dan"];

fn event() -> impl Strategy<Value = Event> {
    let name = || 0..NAMES.len();
    prop_oneof![
        6 => (name(), name(), 0..8_u64, 0..20_usize, any::<bool>(), proptest::option::of(0..6_u8), any::<bool>()).prop_map(
            |(from, to, priority, performative, protocol, key, short)|
            Event::Send { from, to, priority, performative, protocol, key, short }),
        2 => name().prop_map(|from| Event::Publish { from }),
        5 => name().prop_map(|of| Event::Start { of }),
        5 => (0..3_u8, 0..8_usize, any::<bool>()).prop_map(|(verdict, at, reply)| Event::Settle { verdict, at, reply }),
        2 => (0..5_000_i64, any::<bool>()).prop_map(|(after_ms, elected)| Event::Tick { after_ms, elected }),
        1 => (0..8_usize).prop_map(|at| Event::Redrive { at }),
        1 => (0..8_usize).prop_map(|at| Event::Drop { at }),
        1 => (name(), proptest::option::of(0..4_u64)).prop_map(|(of, after)| Event::Subscribe { of, after }),
        2 => (0..12_i64, any::<bool>()).prop_map(|(tick, begin)| Event::Fire { tick, begin }),
        2 => (0..8_usize).prop_map(|at| Event::Park { at }),
        2 => (name(), name()).prop_map(|(of, to)| Event::Await { of, to }),
        1 => any::<bool>().prop_map(|taken| Event::Resume { taken }),
        2 => (0..6_u8, name()).prop_map(|(id, to)| Event::Receive { id, to }),
        1 => (name(), 0..6_u8, any::<bool>(), proptest::option::of(0..5_000_i64)).prop_map(
            |(of, key, held, overlap_ms)| Event::SetKey { of, key, held, overlap_ms }),
        1 => Just(Event::Restore),
    ]
}

/// A store with what has to be true of it.
struct Trial {
    store: Store,
    replica: Store,
    started: Vec<(u64, u32)>,
    accepted: BTreeSet<MessageId>,
    ended: BTreeSet<MessageId>,
}

impl Trial {
    fn new() -> Trial {
        let limits =
            Limits { mailbox_messages_max: 6, attempts_max: 2, publications_kept: 3, tick_max: 5, ..Limits::default() };
        let (store, replica) = (Store::new(limits), Store::new(limits));
        Trial { store, replica, started: Vec::new(), accepted: BTreeSet::new(), ended: BTreeSet::new() }
    }

    fn run(&mut self, action: Action) -> Outcome {
        (self.replica.now_ms, self.replica.term) = (self.store.now_ms, self.store.term);
        let outcome = self.store.run(action.clone());
        assert_eq!(self.replica.run(action), outcome, "a replica comes to something else");
        outcome
    }

    fn note(&mut self, receipts: Vec<caxton_messages::mailbox::Receipt>) {
        for receipt in receipts {
            if let Fate::Accepted { deliveries, .. } = receipt.fate
                && deliveries > 0
            {
                assert!(self.accepted.insert(receipt.id), "accepted twice");
            }
        }
    }

    fn submission(&mut self, of: &Event) -> Submission {
        let Event::Send { from, to, priority, performative, protocol, key, short } = of else { panic!() };
        let mut said = message(Performative::ALL[*performative], NAMES[*from], NAMES[*to]);
        if *protocol {
            said.protocol = Some("fipa-contract-net".to_owned());
            said.conversation_id = Some(format!("c{}", from.min(to)));
            said.reply_by_ms = Some(self.store.now_ms + 3_000);
        }
        let submission = self.store.submission(said);
        let expires_ms = short.then_some(self.store.now_ms + 2_000);
        let key = key.map(|key| key.to_string());
        Submission { priority: Priority::new(*priority).expect("from 0 to 7"), key, expires_ms, ..submission }
    }

    fn settle(&mut self, verdict: u8, at: usize, reply: bool) {
        if self.started.is_empty() {
            return;
        }
        let (delivery, attempt) = self.started.remove(at % self.started.len());
        let id = self.store.list(Listing { delivery: Some(delivery), ..Listing::default() }).first().map(|it| it.id);
        let verdict = [Verdict::Done, Verdict::Retry, Verdict::Dead][usize::from(verdict)]("why".to_owned());
        let reply = reply && matches!(verdict, Verdict::Done(_));
        let submissions: Vec<_> =
            reply.then(|| self.store.submission(message(Performative::Inform, "bob", "ann"))).into_iter().collect();
        let action = Action::Settle { delivery, attempt, verdict, submissions, state: Default::default() };
        match self.run(action.clone()) {
            Outcome::Settled { settlement, receipts } => {
                self.note(receipts);
                if settlement == Settlement::Done {
                    self.ended.extend(id);
                }
            }
            Outcome::Stale => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(self.run(action), Outcome::Stale, "a second outcome");
    }

    /// A step of one workspace of several, without a replica beside it.
    fn step_alone(&mut self, event: &Event) {
        self.replica = self.store.restored();
        self.step(event);
        self.started.retain(|(delivery, _)| {
            !self.store.list(Listing { delivery: Some(*delivery), ..Listing::default() }).is_empty()
        });
    }

    fn step(&mut self, event: &Event) {
        match event {
            Event::Send { .. } => {
                let submission = self.submission(event);
                let Outcome::Sent(receipts) = self.run(Action::Send(vec![submission])) else { panic!() };
                self.note(receipts);
            }
            Event::Publish { from } => {
                let submission = self.store.submission(message(Performative::Inform, NAMES[*from], "topic:a/b"));
                self.run(Action::Send(vec![submission]));
            }
            Event::Start { of } => {
                for ready in self.store.next(NAMES[*of], 2) {
                    let number = ready.delivery;
                    assert_eq!(self.run(Action::Start(vec![number])), Outcome::Started(vec![number]));
                    self.started.push((number, ready.attempt));
                }
            }
            Event::Settle { verdict, at, reply } => self.settle(*verdict, *at, *reply),
            Event::Tick { after_ms, elected } => {
                self.store.now_ms += after_ms;
                self.store.term += u64::from(*elected);
                let term = self.store.term;
                self.run(Action::Tick { term });
            }
            Event::Redrive { at } => {
                let letter = self.store.dead().get(*at).map(|letter| letter.delivery);
                self.run(Action::Redrive(letter.into_iter().collect()));
            }
            Event::Drop { at } => {
                let found = self.store.list(Listing::default());
                let Some(one) = found.get(*at) else { return };
                if let Outcome::Moved(moved) = self.run(Action::Drop(vec![one.delivery]))
                    && !moved.is_empty()
                {
                    self.ended.insert(one.id);
                }
            }
            Event::Subscribe { of, after } => {
                let (subscriber, name) = (address(NAMES[*of]), "s".to_owned());
                let pattern = "a/#".parse().expect("a pattern");
                let texts: &[&str] = if *of % 2 == 0 { &[] } else { &["sender!=ann"] };
                let filter = Filter::of(texts).expect("a filter");
                self.run(Action::Subscribe { subscriber, name, pattern, filter, after: *after });
            }
            Event::Fire { tick, begin } => {
                let submission = self.store.submission(message(Performative::Request, "platform:", "bob"));
                let submission = (!begin).then(|| Box::new(submission));
                let (schedule, words, tick_ms) = ("bob/s".to_owned(), "every 1s".to_owned(), tick * 1_000);
                if let Outcome::Sent(receipts) = self.run(Action::Fire { schedule, words, tick_ms, submission }) {
                    self.note(receipts);
                }
            }
            Event::Park { at } => {
                if let Some((delivery, attempt)) = self.started.get(*at).copied() {
                    // Settled, or tried again under a newer term: then it is under way in this attempt no longer.
                    self.run(Action::Park { delivery, attempt });
                }
            }
            Event::Await { of, to } => {
                let conversation = format!("c{}", of.min(to));
                let mut said = message(Performative::Request, NAMES[*of], NAMES[*to]);
                said.conversation_id = Some(conversation.clone());
                let submissions = vec![self.store.submission(said)];
                let wait = Await {
                    owner: address(NAMES[*of]),
                    turn: format!("t{of}{to}"),
                    way: "call".to_owned(),
                    conversation,
                    awaited: vec![address(NAMES[*to])],
                    until_ms: self.store.now_ms + 2_000,
                    submissions,
                };
                match self.run(Action::Await(wait)) {
                    Outcome::Sent(receipts) => self.note(receipts),
                    Outcome::Refused(_) => {}
                    other => panic!("{other:?}"),
                }
            }
            Event::Resume { taken } => {
                // Of all workspaces of the shard; this trial goes on with those of its own.
                let ended = ended_waits(&self.store.db, self.store.now_ms, 100).expect("SQLite");
                let own = |wait: &caxton_messages::EndedWait| wait.workspace.as_str() == self.store.workspace;
                let Some(wait) = ended.into_iter().find(own) else { return };
                let (owner, turn, way, taken) = (wait.owner, wait.turn, wait.way, *taken);
                if taken {
                    self.ended.extend(wait.answers.iter().map(|answer| answer.submission.id));
                }
                self.run(Action::Resume { owner, turn, way, taken });
            }
            Event::Receive { id, to } => {
                let said = message(Performative::Inform, "ann@other", NAMES[*to]);
                // A few ids, so that some come twice; others in each workspace.
                let mut bytes = [*id; 16];
                bytes[0] = self.store.workspace.len() as u8;
                let submission = Submission::new(MessageId::from_bytes(bytes), said);
                let source = "other".parse().expect("a name");
                match self.run(Action::Receive { source, submission: Box::new(submission) }) {
                    Outcome::Sent(receipts) => self.note(receipts),
                    Outcome::Refused(_) => assert!(NAMES[*to].contains(':'), "an agent may be written to"),
                    other => panic!("{other:?}"),
                }
            }
            Event::SetKey { of, key, held, overlap_ms } => {
                let set = SetKey {
                    owner: address(NAMES[*of]),
                    public: [*key; 32],
                    held: *held,
                    sealed_with: "k1".to_owned(),
                    sealed: vec![*key; 40],
                    overlap_ms: *overlap_ms,
                };
                let outcome = self.run(Action::SetKey(set));
                assert!(matches!(outcome, Outcome::Keyed(_) | Outcome::Refused(_)), "{outcome:?}");
            }
            Event::Restore => self.replica = self.store.restored(),
        }
    }

    /// Each message that was accepted is in a mailbox or has its outcome, and what is counted is there.
    fn check(&self) {
        let kept = self.store.list(Listing::default());
        let ids: BTreeSet<MessageId> = kept.iter().map(|it| it.id).collect();
        let lost: Vec<_> = self.accepted.iter().filter(|id| !ids.contains(id) && !self.ended.contains(id)).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        let wrong = "SELECT count(*) FROM mailbox b WHERE held <> (SELECT count(*) FROM mailbox_delivery d
                WHERE d.mailbox = b.mailbox)
            OR dead <> (SELECT count(*) FROM mailbox_delivery d WHERE d.mailbox = b.mailbox AND d.state = 3)
            OR bytes <> (SELECT coalesce(sum(bytes), 0) FROM mailbox_delivery d WHERE d.mailbox = b.mailbox)
            OR (SELECT count(*) FROM mailbox_delivery d WHERE d.mailbox = b.mailbox AND d.state = 0)
            <> (SELECT coalesce(sum(waiting), 0) FROM mailbox_lane l WHERE l.mailbox = b.mailbox)";
        assert_eq!(self.store.db.query_row(wrong, [], |row| row.get::<_, i64>(0)), Ok(0), "a count is wrong");
        let senders = "SELECT count(*) FROM (SELECT mailbox, sender, count(*), sum(bytes) FROM mailbox_delivery
            WHERE state <> 3 GROUP BY mailbox, sender EXCEPT SELECT mailbox, sender, held, bytes FROM mailbox_sender)";
        assert_eq!(
            self.store.db.query_row(senders, [], |row| row.get::<_, i64>(0)),
            Ok(0),
            "a sender's count is wrong"
        );
        let held = "SELECT count(*) FROM mailbox_message m WHERE held <> (SELECT count(*) FROM mailbox_delivery d
            WHERE d.message = m.message) + (SELECT count(*) FROM topic_publication p WHERE p.message = m.message)";
        assert_eq!(self.store.db.query_row(held, [], |row| row.get::<_, i64>(0)), Ok(0), "a hold is wrong");
        let keys = "SELECT count(*) FROM (SELECT owner FROM mailbox_key WHERE ends_ms IS NULL GROUP BY workspace, owner
            HAVING count(*) > 1)";
        assert_eq!(
            self.store.db.query_row(keys, [], |row| row.get::<_, i64>(0)),
            Ok(0),
            "two keys count for one sender"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_nothing_is_lost_and_replicas_agree(events in proptest::collection::vec(event(), 1..60)) {
        let mut trial = Trial::new();
        for event in &events {
            trial.step(event);
            trial.check();
        }
        prop_assert_eq!(trial.store.rows(), trial.replica.rows());
        let sorted = |store: &Store| {
            let (_, mut rows) = store.rows().into_iter().find(|(table, _)| *table == "mailbox_sender").expect("a table");
            rows.sort_by_key(|row| format!("{row:?}"));
            rows
        };
        let counted = sorted(&trial.store);
        caxton_messages::count_senders(&trial.store.db).expect("SQLite");
        prop_assert_eq!(sorted(&trial.store), counted, "counted anew");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, ..ProptestConfig::default() })]

    /// A workspace that is deleted leaves nothing, and its neighbour, whose name is the end of its own, loses nothing.
    #[test]
    fn a_workspace_that_is_cleared_leaves_nothing_and_takes_nothing_of_others(
        own in proptest::collection::vec(event(), 1..40), others in proptest::collection::vec(event(), 1..40),
        rows_max in 1..40_u32,
    ) {
        let no_restore = |event: &&Event| !matches!(event, Event::Restore);
        // What the neighbour would have without the other.
        let mut alone = Trial::new();
        alone.store.workspace = "x";
        let mut both = Trial::new();
        both.store.workspace = "a-x";
        own.iter().filter(no_restore).for_each(|event| both.step_alone(event));
        both.store.workspace = "x";
        others.iter().filter(no_restore).for_each(|event| both.step_alone(event));
        others.iter().filter(no_restore).for_each(|event| alone.step_alone(event));
        let cleared = "a-x".parse().expect("a name");
        let mut rounds = 0;
        while !clear(&both.store.db, &cleared, rows_max).expect("SQLite") {
            rounds += 1;
            prop_assert!(rounds < 10_000, "it ends");
        }
        for ((table, left), (_, expected)) in both.store.rows().iter().zip(alone.store.rows()) {
            let is_shared = *table == "mailbox_counter";
            prop_assert!(is_shared || left.len() == expected.len(), "{}: {:?} for {:?}", table, left, expected);
            let named = format!("{left:?}");
            prop_assert!(!named.contains("a-x"), "{}: {}", table, named);
        }
    }
}
