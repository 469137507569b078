//! Whatever can be written can be read, in both forms, and nothing that comes from elsewhere does harm.

use bytes::Bytes;
use proptest::prelude::*;

use super::strategies::{attachment, beginning, command, step};
use super::*;

const FORMATS: [Format; 3] = [Format::JSON, Format::PROTOBUF, Format::DELETION];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_command_that_is_written_reads_back(
        commands in (command(Format::JSON, 3), command(Format::PROTOBUF, 3), command(Format::DELETION, 0)),
    ) {
        let (json, termed, free) = commands;
        for (command, format) in [(json, Format::JSON), (termed, Format::PROTOBUF), (free, Format::DELETION)] {
            let bytes = command.encode(format).expect("written");
            prop_assert_eq!(&Command::decode(&bytes).expect("read"), &command);
            if format != Format::JSON {
                let Envelope { version, tenant, term, .. } = Envelope::decode(&bytes).expect("read");
                let needed = command.reader().max(Format::PROTOBUF);
                prop_assert!(needed <= format);
                prop_assert_eq!((version, tenant), (needed.number(), Envelope::CONVERSATIONS));
                prop_assert_eq!(term, command.term().unwrap_or_default());
            }
        }
    }

    #[test]
    fn every_document_that_is_written_reads_back(
        beginning in beginning(Format::JSON), later in beginning(Format::DELETION), step in step(), attachment in attachment(),
    ) {
        let bytes = later.encode(Format::DELETION).expect("written");
        prop_assert_eq!(&Beginning::decode(&bytes).expect("read"), &later);
        for format in FORMATS {
            let bytes = beginning.encode(format).expect("written");
            prop_assert_eq!(&Beginning::decode(&bytes).expect("read"), &beginning);
            let bytes = step.encode(format).expect("written");
            prop_assert_eq!(&Step::decode(&bytes).expect("read"), &step);
            let bytes = attachment.encode(format).expect("written");
            prop_assert_eq!(&Attachment::decode(&bytes).expect("read"), &attachment);
        }
    }

    #[test]
    fn bytes_that_were_changed_are_read_or_refused(
        command in command(Format::DELETION, 3), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = command.encode(Format::DELETION).expect("written").to_vec();
        let place = at.index(bytes.len());
        bytes[place] = byte;
        for bytes in [bytes[..cut.index(bytes.len())].to_vec(), bytes] {
            if let Ok(command) = Command::decode(&Bytes::from(bytes)) {
                // What reads keeps the limits of what is written.
                prop_assert!(command.encode(Format::DELETION).is_ok());
            }
        }
    }

    #[test]
    fn bytes_of_strangers_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let entry = Bytes::from(bytes.clone());
        _ = (Command::decode(&entry), Beginning::decode(&bytes), Step::decode(&bytes), Attachment::decode(&bytes));
        _ = (TurnRecord::decode_row(&bytes), Suspension::decode_row(&bytes));
    }
}

#[test]
fn numbers_that_an_older_build_wrote_too_large_are_capped_and_none_is_written() {
    let usage: Usage = serde_json::from_str(r#"{"input":4611686018427387904,"output":1}"#).expect("read");
    assert_eq!(usage, Usage { input: COUNT_MAX, output: 1 });
    let spent = Spent { tokens: COUNT_MAX + 1, cost: 0 };
    let reply = Reply {
        text: String::new(),
        calls: Vec::new(),
        usage: Usage::default(),
        finish: Finish::Stop,
        model: String::new(),
        echo: None,
    };
    let step = Step::Answered { way: Vec::new(), reply, spent, elapsed_ms: 0 };
    for format in FORMATS {
        let error = step.encode(format).expect_err("too many");
        assert!(
            matches!(error, EncodeError::Check(CheckError::TooLarge { found, .. }) if found > COUNT_MAX),
            "{error}"
        );
    }
}

#[test]
fn what_the_first_format_cannot_say_is_refused_and_said_in_the_next() {
    let piece = |content: &[u8]| {
        let pieces = vec![Piece { number: 0, last: true, content: content.to_vec() }];
        let (workspace, turn) = ("team".parse().expect("a name"), "t".to_owned());
        Command::Keep(Keep { workspace, turn, term: 1, kind: DocumentKind::Journal, pieces })
    };
    assert!(matches!(piece(&[0xff]).encode(Format::JSON), Err(EncodeError::Json(_))));
    assert!(piece(&[0xff]).encode(Format::PROTOBUF).is_ok() && piece(b"x").encode(Format::JSON).is_ok());
    let brought = Command::Keep(Keep {
        workspace: "team".parse().expect("a name"),
        turn: "t".to_owned(),
        term: 1,
        kind: DocumentKind::Brought,
        pieces: Vec::new(),
    });
    for format in [Format::JSON, Format::PROTOBUF] {
        assert!(matches!(brought.encode(format), Err(EncodeError::Newer { needed: Format::DELETION, .. })), "{format}");
    }
    let entry = Envelope::decode(&brought.encode(Format::DELETION).expect("written")).expect("read");
    assert_eq!(entry.version, Format::DELETION.number());
    // An older build took arguments as deep as JSON goes: with the levels of an entry around them they do not read back.
    let deep = JsonText::read(format!("{}{}", "[".repeat(JSON_DEPTH_READ), "]".repeat(JSON_DEPTH_READ))).expect("JSON");
    let approval = Approval {
        id: "t.1".into(),
        workspace: "team".parse().expect("a name"),
        conversation: "c".into(),
        agent: "a".parse().expect("a name"),
        tool: "x".into(),
        arguments: deep,
        since: String::new(),
    };
    let (workspace, turn, conversation) = (approval.workspace.clone(), "t".to_owned(), "c".to_owned());
    let suspension = Suspension { workspace, turn, conversation, term: 1, approvals: vec![approval] };
    let command = Command::Suspend(Box::new(suspension));
    assert!(matches!(command.encode(Format::JSON), Err(EncodeError::Unreadable(_))));
    assert_eq!(Command::decode(&command.encode(Format::PROTOBUF).expect("written")).expect("read"), command);
}
