//! What is written can be read back: by properties, and against the bytes of every version that was ever written.

use std::path::Path;

use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;

use super::*;
use crate::acl::strategies::{address, message};
use crate::acl::{Content, Performative};

const TEXT: &str = "\\PC{0,24}";

fn id() -> impl Strategy<Value = MessageId> {
    any::<[u8; 16]>().prop_map(MessageId::from_bytes)
}

fn submission() -> impl Strategy<Value = Submission> {
    let rest = (0..8_u64, of(TEXT), of(any::<i64>()), of(TEXT), of(signature()));
    (id(), message(), rest).prop_map(|(id, message, (priority, key, expires_ms, trace, signature))| {
        let priority = Priority::new(priority).expect("from 0 to 7");
        Submission { id, message, priority, key, expires_ms, trace, signature }
    })
}

fn signature() -> impl Strategy<Value = Signature> {
    (any::<[u8; 8]>(), any::<i64>(), any::<[u8; 32]>(), any::<[u8; 32]>()).prop_map(|(key, signed_ms, one, two)| {
        let mut bytes = [0; SIGNATURE_BYTES];
        bytes[..32].copy_from_slice(&one);
        bytes[32..].copy_from_slice(&two);
        Signature { key: KeyId::from_bytes(key), signed_ms, bytes }
    })
}

fn numbers() -> impl Strategy<Value = Vec<u64>> {
    vec(any::<u64>(), 0..4)
}

fn filter() -> impl Strategy<Value = Filter> {
    let condition = "(content(\\.[a-z0-9]{1,3}){0,2}|sender|X-[a-z]{1,3})(| ?(=|!=|<|<=|>|>=) ?[=!<> a-z0-9]{0,4})";
    vec(condition, 0..3).prop_map(|texts| Filter::of(texts).expect("conditions"))
}

fn action() -> impl Strategy<Value = Action> {
    let verdict =
        prop_oneof![TEXT.prop_map(Verdict::Done), TEXT.prop_map(Verdict::Retry), TEXT.prop_map(Verdict::Dead)];
    let pattern = "[a-z]{1,3}(/\\+|/[a-z]{1,3}){0,2}(/#)?".prop_map(|text| text.parse::<Pattern>().expect("a pattern"));
    prop_oneof![
        vec(submission(), 0..3).prop_map(Action::Send),
        numbers().prop_map(Action::Start),
        (any::<u64>(), any::<u32>(), verdict, vec(submission(), 0..2), btree_map(TEXT, of(TEXT), 0..3)).prop_map(
            |(delivery, attempt, verdict, submissions, state)| {
                Action::Settle { delivery, attempt, verdict, submissions, state }
            }
        ),
        (any::<u64>(), any::<u32>()).prop_map(|(delivery, attempt)| Action::Park { delivery, attempt }),
        (address(), [TEXT; 3], vec(address(), 0..3), any::<i64>(), vec(submission(), 0..2)).prop_map(
            |(owner, [turn, way, conversation], awaited, until_ms, submissions)| {
                Action::Await(Await { owner, turn, way, conversation, awaited, until_ms, submissions })
            }
        ),
        (address(), [TEXT; 2], any::<bool>()).prop_map(|(owner, [turn, way], taken)| Action::Resume {
            owner,
            turn,
            way,
            taken
        }),
        (any::<u64>(), vec("[a-z]{1,8}", 0..3)).prop_map(|(revision, names)| {
            let programs = names.iter().map(|name| name.parse().expect("a name")).collect();
            Action::Roster { revision, programs }
        }),
        any::<u64>().prop_map(|term| Action::Tick { term }),
        (address(), any::<[u8; 32]>(), any::<bool>(), TEXT, vec(any::<u8>(), 0..9), of(any::<i64>())).prop_map(
            |(owner, public, held, sealed_with, sealed, overlap_ms)| {
                Action::SetKey(SetKey { owner, public, held, sealed_with, sealed, overlap_ms })
            }
        ),
        submission().prop_map(|submission| Action::Receive {
            source: "other".parse().expect("a name"),
            submission: Box::new(submission)
        }),
        numbers().prop_map(Action::Redrive),
        numbers().prop_map(Action::Drop),
        (address(), TEXT, pattern, filter(), of(any::<u64>())).prop_map(
            |(subscriber, name, pattern, filter, after)| {
                Action::Subscribe { subscriber, name, pattern, filter, after }
            }
        ),
        (TEXT, TEXT, any::<i64>(), of(submission())).prop_map(|(schedule, words, tick_ms, submission)| {
            Action::Fire { schedule, words, tick_ms, submission: submission.map(Box::new) }
        }),
        vec(TEXT, 0..3).prop_map(Action::Unschedule),
        (address(), TEXT).prop_map(|(subscriber, name)| Action::Unsubscribe { subscriber, name }),
    ]
}

fn reason() -> impl Strategy<Value = Reason> {
    prop_oneof![
        (address(), any::<u64>(), any::<u64>()).prop_map(|(receiver, retry_after_ms, dead)| Reason::Full {
            receiver,
            retry_after_ms,
            dead
        }),
        TEXT.prop_map(|why| Reason::NotUnderstood { why }),
        (TEXT, any::<u64>(), any::<u64>()).prop_map(|(what, found, most)| Reason::Limit { what, found, most }),
        TEXT.prop_map(|field| Reason::Field { field }),
        Just(Reason::NotFound),
        Just(Reason::Expired),
        vec(TEXT, 0..3).prop_map(|agents| Reason::Circle { agents }),
    ]
}

fn receipts() -> impl Strategy<Value = Vec<Receipt>> {
    let fate = prop_oneof![
        (TEXT, any::<u64>(), any::<u32>(), of(any::<u64>())).prop_map(|(conversation, event, deliveries, position)| {
            Fate::Accepted { conversation, event, deliveries, position }
        }),
        id().prop_map(Fate::Duplicate),
        reason().prop_map(Fate::Refused),
    ];
    vec((id(), fate).prop_map(|(id, fate)| Receipt { id, fate }), 0..3)
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let settlement = prop_oneof![
        Just(Settlement::Done),
        any::<i64>().prop_map(|at_ms| Settlement::Retry { at_ms }),
        TEXT.prop_map(|reason| Settlement::Dead { reason }),
    ];
    prop_oneof![
        receipts().prop_map(Outcome::Sent),
        numbers().prop_map(Outcome::Started),
        (settlement, receipts()).prop_map(|(settlement, receipts)| Outcome::Settled { settlement, receipts }),
        Just(Outcome::Stale),
        (any::<u64>(), any::<bool>()).prop_map(|(changed, more)| Outcome::Ticked { changed, more }),
        numbers().prop_map(Outcome::Moved),
        any::<u64>().prop_map(|position| Outcome::Subscribed { position }),
        any::<[u8; 8]>().prop_map(|key| Outcome::Keyed(KeyId::from_bytes(key))),
        reason().prop_map(Outcome::Refused),
    ]
}

fn command(time_ms: i64, action: Action) -> Command {
    Command { workspace: "demo".parse().expect("a name"), time_ms, mailboxes_max: None, action }
}

proptest! {
    #[test]
    fn every_command_reads_back_as_it_was_written(
        time_ms in any::<i64>(), mailboxes_max in of(any::<u64>()), action in action()
    ) {
        let command = Command { mailboxes_max, ..command(time_ms, action) };
        prop_assert_eq!(Command::decode(&command.encode()).expect("it was written"), command);
    }

    #[test]
    fn every_outcome_reads_back_as_it_was_written(outcome in outcome()) {
        prop_assert_eq!(Outcome::decode(&outcome.encode()).expect("it was written"), outcome);
    }

    #[test]
    fn every_row_reads_back_as_it_was_written(submission in submission()) {
        prop_assert_eq!(decode_message(&encode_message(&submission)).expect("it was written"), submission);
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in vec(any::<u8>(), 0..200), action in action(), at in any::<usize>()) {
        _ = (Command::decode(&bytes), Outcome::decode(&bytes), decode_message(&bytes));
        let mut bytes = command(1, action).encode();
        let at = at % bytes.len();
        bytes[at] ^= 0x55;
        _ = Command::decode(&bytes).map(|command| command.check());
        bytes.truncate(at);
        _ = Command::decode(&bytes);
    }
}

/// One message with every field filled.
fn example() -> Submission {
    let bob: Address = "bob".parse().expect("an agent");
    let mut message = Message::new(Performative::Cfp, [bob, "topic:a/b".parse().expect("a topic")]);
    message.sender = Some("subject:ann".parse().expect("a subject"));
    message.reply_to = vec!["carl".parse().expect("an agent")];
    message.content = Some(Content::json("{\"task\": 1}"));
    message.language = Some("en".to_owned());
    message.encoding = Some("utf-8".to_owned());
    message.ontology = Some("work".to_owned());
    message.protocol = Some("fipa-contract-net".to_owned());
    message.conversation_id = Some("c1".to_owned());
    message.reply_with = Some("r1".to_owned());
    message.in_reply_to = Some("r0".to_owned());
    message.reply_by_ms = Some(1_700_000_060_000);
    message.extensions.insert("X-cost".to_owned(), "3".to_owned());
    Submission {
        id: MessageId::from_bytes([1; 16]),
        message,
        priority: Priority::MOST,
        key: Some("k1".to_owned()),
        expires_ms: Some(1_700_000_090_000),
        trace: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        signature: None,
    }
}

/// The commands and outcomes of which version 1 has a golden file each.
fn golden() -> Vec<(&'static str, Vec<u8>, fn(&[u8]) -> Option<Vec<u8>>)> {
    let again: fn(&[u8]) -> Option<Vec<u8>> = |bytes| Command::decode(bytes).ok().map(|it| it.encode());
    let outcome: fn(&[u8]) -> Option<Vec<u8>> = |bytes| Outcome::decode(bytes).ok().map(|it| it.encode());
    let bytes = |action| command(1_700_000_000_000, action).encode();
    let subscriber: Address = "bob".parse().expect("an agent");
    let pattern: Pattern = "orders/+/#".parse().expect("a pattern");
    let settle = Action::Settle {
        delivery: 7,
        attempt: 2,
        verdict: Verdict::Retry("the model did not answer".to_owned()),
        submissions: vec![example()],
        state: BTreeMap::new(),
    };
    let changed = Action::Settle {
        delivery: 7,
        attempt: 2,
        verdict: Verdict::Done("ok".to_owned()),
        submissions: Vec::new(),
        state: [("sent".to_owned(), Some("3".to_owned())), ("gone".to_owned(), None)].into(),
    };
    let wait = Action::Await(Await {
        owner: subscriber.clone(),
        turn: "mail-1".to_owned(),
        way: "call_2_0".to_owned(),
        conversation: "c1".to_owned(),
        awaited: vec!["ann".parse().expect("an agent")],
        until_ms: 1_700_000_060_000,
        submissions: vec![example()],
    });
    let resume = Action::Resume {
        owner: subscriber.clone(),
        turn: "mail-1".to_owned(),
        way: "call_2_0".to_owned(),
        taken: true,
    };
    let roster = Action::Roster { revision: 3, programs: vec!["ping".parse().expect("a name")] };
    let accepted = Fate::Accepted { conversation: "c1".to_owned(), event: 3, deliveries: 2, position: Some(9) };
    let full = Reason::Full { receiver: subscriber.clone(), retry_after_ms: 5_000, dead: 1 };
    let fates = [accepted, Fate::Duplicate(MessageId::from_bytes([2; 16])), Fate::Refused(full)];
    let receipts: Vec<_> = fates.map(|fate| Receipt { id: MessageId::from_bytes([1; 16]), fate }).into();
    let (name, settlement) = ("all".to_owned(), Settlement::Retry { at_ms: 1_700_000_001_000 });
    let subscribe = |filter| Action::Subscribe {
        subscriber: "bob".parse().expect("an agent"),
        name: "all".to_owned(),
        pattern: pattern.clone(),
        filter,
        after: Some(4),
    };
    let fire = |submission| Action::Fire {
        schedule: "analyst/daily".to_owned(),
        words: "cron 0 9 * * * UTC".to_owned(),
        tick_ms: 1_700_000_040_000,
        submission,
    };
    let set_key = SetKey {
        owner: "ann".parse().expect("an agent"),
        public: [4; KEY_BYTES],
        held: true,
        sealed_with: "0011223344556677".to_owned(),
        sealed: vec![5; 60],
        overlap_ms: Some(86_400_000),
    };
    let source: WorkspaceId = "other".parse().expect("a name");
    let made = Signature { key: KeyId::from_bytes([3; 8]), signed_ms: 1_700_000_000_001, bytes: [6; SIGNATURE_BYTES] };
    let mut signed = Submission { signature: Some(made), ..example() };
    signed.message.sender = Some("ann@other".parse().expect("an agent of another workspace"));
    let filter = Filter::of(["content.amount >= 100", "X-region=eu"]).expect("a filter");
    vec![
        ("send", bytes(Action::Send(vec![example()])), again),
        ("start", bytes(Action::Start(vec![7, 8])), again),
        ("settle", bytes(settle), again),
        ("tick", bytes(Action::Tick { term: 5 }), again),
        ("redrive", bytes(Action::Redrive(vec![7])), again),
        ("drop", bytes(Action::Drop(vec![7])), again),
        ("subscribe", bytes(subscribe(Filter::default())), again),
        ("subscribe-filtered", bytes(subscribe(filter)), again),
        ("fire", bytes(fire(Some(Box::new(example())))), again),
        ("fire-begin", bytes(fire(None)), again),
        ("unschedule", bytes(Action::Unschedule(vec!["analyst/daily".to_owned()])), again),
        ("unsubscribe", bytes(Action::Unsubscribe { subscriber, name }), again),
        ("settle-state", bytes(changed), again),
        ("park", bytes(Action::Park { delivery: 7, attempt: 2 }), again),
        ("await", bytes(wait), again),
        ("resume", bytes(resume), again),
        ("roster", bytes(roster), again),
        ("set-key", bytes(Action::SetKey(set_key)), again),
        ("receive", bytes(Action::Receive { source, submission: Box::new(signed) }), again),
        ("outcome-keyed", Outcome::Keyed(KeyId::from_bytes([3; 8])).encode(), outcome),
        ("outcome-sent", Outcome::Sent(receipts.clone()).encode(), outcome),
        ("outcome-settled", Outcome::Settled { settlement, receipts }.encode(), outcome),
        ("outcome-ticked", Outcome::Ticked { changed: 3, more: true }.encode(), outcome),
        ("outcome-refused", Outcome::Refused(Reason::NotFound).encode(), outcome),
    ]
}

#[test]
fn bytes_of_version_1_are_read_and_written_as_they_were() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/messages-v1");
    for (name, bytes, again) in golden() {
        let file = folder.join(format!("{name}.bin"));
        if std::env::var_os("CAXTON_WRITE_GOLDEN").is_some() && !file.exists() {
            std::fs::create_dir_all(&folder).expect("a folder");
            std::fs::write(&file, &bytes).expect("a new golden file");
        }
        let golden = std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert_eq!(golden, bytes, "{name}: it is written otherwise than it was");
        assert_eq!(again(&golden), Some(golden), "{name}: it is read otherwise than it was");
    }
}

#[test]
fn a_newer_version_is_refused_by_its_number() {
    let error = Command::decode(&[8, 9]).expect_err("version 9 is not known");
    assert!(matches!(error, DecodeError::Version { found: 9 }), "{error}");
    assert!(Command::decode(&[]).is_err() && Outcome::decode(&[8, 1]).is_err());
}

#[test]
fn what_breaks_a_limit_says_which() {
    assert_eq!(example().check(), Ok(()));
    let unstamped = Submission { message: Message { sender: None, ..example().message }, ..example() };
    assert!(unstamped.check().expect_err("no sender").to_string().contains("a node stamps it"));
    let key = Submission { key: Some("k".repeat(KEY_BYTES_MAX + 1)), ..example() };
    assert!(key.check().expect_err("long").to_string().contains("257 bytes of its key, and 256 is the most"));
    let many = command(1, Action::Send(vec![example(); SUBMISSIONS_MAX + 1]));
    assert!(matches!(many.check(), Err(Reason::Limit { found: 1_025, .. })));
    let subscriber = Address::Broadcast;
    let nobody = command(1, Action::Unsubscribe { subscriber, name: "x".to_owned() });
    assert!(matches!(nobody.check(), Err(Reason::Field { .. })));
    let mut late = example();
    late.message.extensions.insert("X-Delay-Ms".to_owned(), "500".to_owned());
    assert_eq!((late.check(), late.delay_ms(), example().delay_ms()), (Ok(()), 500, 0));
    late.message.extensions.insert("X-delay-ms".to_owned(), "soon".to_owned());
    assert!(late.check().expect_err("no number").to_string().contains("X-Delay-Ms"));
}
