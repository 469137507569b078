//! Messages read back as they were written, and what strangers write is refused clearly.

use proptest::prelude::*;

use super::strategies::{address, message};
use super::wire::pb;
use super::*;

fn read(text: &str) -> Result<Message, String> {
    Message::from_json(text.as_bytes()).map(|(message, _)| message).map_err(|error| error.to_string())
}

proptest! {
    #[test]
    fn every_message_reads_back_from_its_json_as_it_was(message in message()) {
        prop_assert_eq!(message.check(), Ok(()));
        let json = message.to_json().expect("it can be written");
        prop_assert_eq!(read(&json), Ok(message), "{}", json);
    }

    #[test]
    fn every_message_reads_back_from_its_protobuf_as_it_was(message in message()) {
        prop_assert_eq!(Message::try_from(pb::Message::from(&message)).expect("it was written"), message);
    }

    #[test]
    fn every_address_reads_back_as_it_is_shown(address in address()) {
        prop_assert_eq!(address.to_string().parse(), Ok(address));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        _ = Message::from_json(&bytes);
    }

    #[test]
    fn json_that_was_cut_or_changed_is_a_message_or_an_error(message in message(), at in any::<usize>(), with in any::<u8>()) {
        let mut bytes = message.to_json().expect("it can be written").into_bytes();
        let at = at % bytes.len();
        bytes[at] ^= with;
        if let Ok((message, _)) = Message::from_json(&bytes) {
            prop_assert_eq!(message.check(), Ok(()));
        }
        bytes.truncate(at);
        prop_assert!(Message::from_json(&bytes).is_err());
    }
}

#[test]
fn the_older_form_is_read_and_its_names_are_noted() {
    let text = r#"{"performative": "request", "sender": "ann", "receiver": "bob", "content": "hi", "reply_with": "r1",
        "in_reply_to": "r0", "language": "en", "ontology": "o", "reply_by": "2026-03-01T12:00:00Z", "X-cost": 3}"#;
    let message = read(text).expect("a message");
    assert_eq!(message.performative, Performative::Request);
    assert_eq!((message.reply_with.as_deref(), message.in_reply_to.as_deref()), (Some("r1"), Some("r0")));
    assert_eq!(message.reply_by_ms, Some(1_772_366_400_000));
    assert_eq!(message.extensions["X-cost"], "3");
    assert_eq!(read(&text.replace("reply_with", "reply-with").replace("in_reply_to", "In-Reply-To")), Ok(message));
    for (short, meant) in [
        ("ACCEPT", Performative::AcceptProposal),
        ("REJECT", Performative::RejectProposal),
        ("QUERY", Performative::QueryRef),
    ] {
        let text = format!(r#"{{"performative": "{short}", "receiver": "bob"}}"#);
        let (message, notes) = Message::from_json(text.as_bytes()).expect("a message");
        assert_eq!((message.performative, notes.len()), (meant, 1));
        assert!(notes[0].to_string().contains(meant.name()), "{}", notes[0]);
    }
    for usual in ["REQUEST", "QUERY_REF", "query-ref"] {
        let text = format!(r#"{{"performative": "{usual}", "receiver": "bob"}}"#);
        assert!(Message::from_json(text.as_bytes()).expect("a message").1.is_empty());
    }
}

#[test]
fn what_a_stranger_writes_wrongly_is_refused_with_what_to_do() {
    let cases = [
        ("{}", "`performative` is absent"),
        ("[]", "not a JSON object"),
        ("", "not a JSON object"),
        (r#"{"performative": "inform"}"#, "say who receives it"),
        (r#"{"performative": "inform-ref", "receiver": "b"}"#, "send `inform`"),
        (r#"{"performative": "shout", "receiver": "b"}"#, "use one of accept-proposal, agree"),
        (r#"{"performative": "inform", "performative": "agree", "receiver": "b"}"#, "`performative` is there twice"),
        (r#"{"performative": "inform", "receiver": "B!"}"#, "write an agent's name"),
        (r#"{"performative": "inform", "receiver": "b@Other!"}"#, "AGENT@WORKSPACE"),
        (r#"{"performative": "inform", "receiver": "@other"}"#, "AGENT@WORKSPACE"),
        (r#"{"performative": "inform", "receiver": "platform:"}"#, "nobody can write"),
        (r#"{"performative": "inform", "receiver": "topic:a//b"}"#, "empty level"),
        (r#"{"performative": "inform", "receiver": "topic:a/#"}"#, "patterns of subscriptions"),
        (r#"{"performative": "inform", "receiver": 7}"#, "an address or a list"),
        (r#"{"performative": "inform", "receiver": "b", "colour": 1}"#, "begins with X-"),
        (r#"{"performative": "inform", "receiver": "b", "X-a b": 1}"#, "letters, digits"),
        (r#"{"performative": "inform", "receiver": "b", "reply_by": "soon"}"#, "a time such as"),
        (r#"{"performative": "inform", "receiver": "b", "reply_by": -1}"#, "between 1970 and 9999"),
        (r#"{"performative": "inform", "receiver": "b", "reply_with": "a\u0007"}"#, "control character"),
        (r#"{"performative": "inform", "receiver": "b", "protocol": " "}"#, "leave it out"),
        (r#"{"performative": "inform", "receiver": "b", "content": "%", "content_encoding": "base64"}"#, "base64"),
        (
            r#"{"performative": "inform", "receiver": "b", "content": {}, "content_type": "text/plain"}"#,
            "does not say JSON",
        ),
        (r#"{"performative": "inform", "receiver": "b", "content": 1, "content_type": "x"}"#, "no media type"),
        (r#"{"performative": "inform", "receiver": "b", "content_type": "text/plain"}"#, "is absent"),
    ];
    for (text, expected) in cases {
        let error = read(text).expect_err(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
    let invalid = Message::from_json(b"{\"performative\": \"inform\", \"receiver\": \"b\", \"content\": \"\xff\"}");
    assert!(invalid.is_err(), "text that is no UTF-8");
}

#[test]
fn what_is_deep_or_large_is_refused_before_it_is_parsed() {
    let deep = |levels| {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        format!(r#"{{"performative": "inform", "receiver": "b", "content": {open}{close}}}"#)
    };
    assert!(read(&deep(CONTENT_DEPTH_MAX)).is_ok());
    let error = read(&deep(CONTENT_DEPTH_MAX + 1)).expect_err("too deep");
    assert!(error.contains("levels deep"), "{error}");
    assert!(read(&deep(1_000_000)).expect_err("far too deep").contains("levels deep"));
    let large = |bytes| format!(r#"{{"performative": "inform", "receiver": "b", "content": "{}"}}"#, "x".repeat(bytes));
    assert!(read(&large(CONTENT_BYTES_MAX)).is_ok());
    let error = read(&large(CONTENT_BYTES_MAX + 1)).expect_err("too large");
    assert!(error.contains("artifact"), "{error}");
    assert!(read(&large(10 << 20)).expect_err("10 MB").contains("artifact"));
    let many: Vec<String> = (0..=RECEIVERS_MAX).map(|at| format!("\"a{at}\"")).collect();
    let error = read(&format!(r#"{{"performative": "inform", "receiver": [{}]}}"#, many.join(","))).expect_err("many");
    assert!(error.contains("65 receivers, and 64 is the most"), "{error}");
}

#[test]
fn the_largest_message_reads_back_though_every_character_is_escaped() {
    let mut message = Message::new(Performative::Inform, ["b".parse().expect("an address")]);
    message.content = Some(Content::text("\u{1}".repeat(CONTENT_BYTES_MAX)));
    message.extensions = (0..EXTENSIONS_MAX).map(|at| (format!("X-{at}"), "\u{1}".repeat(VALUE_BYTES_MAX))).collect();
    assert_eq!(read(&message.to_json().expect("written")), Ok(message));
}

#[test]
fn a_reply_copies_what_it_has_to_and_goes_where_it_should() {
    let text = r#"{"performative": "request", "sender": "ann", "receiver": "bob", "protocol": "fipa-request",
        "conversation_id": "c", "reply_with": "r"}"#;
    let mut message = read(text).expect("a message");
    let reply = message.reply(Performative::Agree, None);
    assert_eq!(reply.receivers, message.sender.clone().into_iter().collect::<Vec<_>>());
    assert_eq!((reply.in_reply_to.as_deref(), reply.conversation_id.as_deref()), (Some("r"), Some("c")));
    assert_eq!(reply.protocol, message.protocol);
    message.reply_to = vec!["carl".parse().expect("an address")];
    assert_eq!(message.reply(Performative::Agree, None).receivers, message.reply_to);
    let forged = message.stamped("eve".parse().expect("an address"));
    assert_eq!(forged.sender, Some("eve".parse().expect("an address")));
}

#[test]
fn patterns_match_the_topics_that_they_stand_for() {
    let cases = [
        ("a/b", "a/b", true),
        ("a/b", "a", false),
        ("a", "a/b", false),
        ("+/b", "a/b", true),
        ("a/+", "a", false),
        ("a/#", "a", true),
        ("a/#", "a/b/c", true),
        ("#", "a/b", true),
        ("a/+/c", "a/b/c", true),
        ("a/+/c", "a/b/d", false),
    ];
    for (pattern, topic, expected) in cases {
        let (pattern, topic): (Pattern, Topic) = (pattern.parse().expect("one"), topic.parse().expect("one"));
        assert_eq!(pattern.matches(&topic), expected, "{pattern:?} {topic:?}");
    }
    for bad in ["", "a/#/b", "a/b+", "a//b", "#/a"] {
        assert!(bad.parse::<Pattern>().is_err(), "{bad}");
    }
}

#[test]
fn numbers_of_performatives_and_priorities_stay() {
    assert!(Performative::ALL.is_sorted_by_key(|it| it.name()));
    for performative in Performative::ALL {
        assert_eq!(Performative::from_number(performative.number()), Some(performative));
        assert_eq!(Performative::read(performative.name()), Ok((performative, None)));
    }
    assert_eq!((Performative::from_number(0), Performative::from_number(21)), (None, None));
    assert_eq!((Performative::AcceptProposal.number(), Performative::Subscribe.number()), (1, 20));
    assert_eq!((Priority::new(7), Priority::new(8)), (Some(Priority::MOST), None));
}
