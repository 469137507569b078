//! What was ever written, kept in proto/golden/shard-v1: each value as protobuf (`.bin`), as JSON (`.json`), and for
//! people to read (`.txt`). They must mean the same for ever. To add files, put a value below and run this once with
//! CAXTON_WRITE_GOLDEN=1, which writes only files that are missing; JSON is written for values of the first format only.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::{Digest, Revision};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/shard-v1").join(name)
}

fn golden(name: &str, bytes: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    let file = file(name);
    if std::env::var_os("CAXTON_WRITE_GOLDEN").is_some() && !file.exists() {
        fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        fs::write(&file, bytes()).expect("written");
    }
    fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// What only a later format can say reads as it, and is what is written of it now.
fn holds_since<T: Debug + PartialEq>(
    name: &str,
    value: &T,
    encode: impl Fn(&T) -> Vec<u8>,
    decode: impl Fn(&[u8]) -> T,
) {
    let bytes = golden(&format!("{name}.bin"), || encode(value));
    assert_eq!(&decode(&bytes), value, "{name}.bin");
    assert_eq!(encode(value), bytes, "{name}.bin is written in other bytes now");
    let text = format!("{value:#?}\n");
    assert_eq!(String::from_utf8(golden(&format!("{name}.txt"), || text.clone().into())).expect("text"), text);
}

/// Both forms of a value read as it, and are what is written of it now.
fn holds<T: Debug + PartialEq>(
    name: &str,
    value: &T,
    encode: impl Fn(&T, Format) -> Vec<u8>,
    decode: impl Fn(&[u8]) -> T,
) {
    for (end, format) in [("bin", Format::PROTOBUF), ("json", Format::JSON)] {
        let bytes = golden(&format!("{name}.{end}"), || encode(value, format));
        assert_eq!(&decode(&bytes), value, "{name}.{end}");
        assert_eq!(encode(value, format), bytes, "{name}.{end} is written in other bytes now");
    }
    let text = format!("{value:#?}\n");
    assert_eq!(String::from_utf8(golden(&format!("{name}.txt"), || text.clone().into())).expect("text"), text);
}

fn name<T: std::str::FromStr<Err: Debug>>(name: &str) -> T {
    name.parse().expect("a name")
}

fn json(text: &str) -> JsonText {
    JsonText::take(text).expect("JSON")
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

fn chart() -> Attachment {
    Attachment {
        name: "chart.svg".into(),
        media_type: "image/svg+xml".into(),
        content: Content::Text("<svg>\n\"ü\"</svg>".into()),
    }
}

fn messages() -> Vec<Message> {
    vec![
        Message::System { text: "Be brief.".into() },
        Message::User {
            parts: vec![
                Part::Text { text: "What is in it?\n\u{0}".into() },
                Part::Image { url: "data:image/png;base64,AAAA".into() },
            ],
        },
        Message::Assistant {
            text: String::new(),
            calls: vec![ToolCall { id: "call_1".into(), tool: "csv-read".into(), arguments: "{\"rows\": 3".into() }],
            echo: None,
        },
        Message::Tool { call: "call_1".into(), tool: "csv-read".into(), text: "no such file".into(), failed: true },
        Message::Assistant { text: "Nothing.".into(), calls: Vec::new(), echo: None },
    ]
}

fn record() -> TurnRecord {
    TurnRecord {
        workspace: name("team"),
        conversation: "c-1".into(),
        turn: "0198a5".into(),
        agent: name("analyst"),
        subject: "admin".into(),
        time_ms: 1_700_000_000_123,
        messages: messages(),
        attachments: vec![AttachmentInfo { name: "x.csv".into(), media_type: "text/csv".into(), bytes: 17 }],
        usage: Usage { input: 120, output: 34 },
        spent: vec![
            (name("analyst"), Spent { tokens: 150, cost: 12 }),
            (name("reader"), Spent { tokens: 4, cost: COUNT_MAX }),
        ],
        duration_ms: 1_234,
        revision: Revision(7),
        failure: None,
        ending: Some(Ending {
            route: Route::Capability { capability: "read-csv".into(), score: 0.8125 },
            truncated: true,
            steps: 3,
            failure: None,
            files: vec![chart()],
            files_omitted: 2,
            request_digest: Some("0a1b".into()),
            request: None,
        }),
        term: 9,
    }
}

fn failures() -> [(&'static str, Failure); 9] {
    let reason = || "the provider is away".to_owned();
    [
        ("steps", Failure::StepsSpent { steps_max: 32 }),
        ("tokens", Failure::TokensSpent { used: 200_001, tokens_max: 200_000 }),
        ("time", Failure::TimeSpent { wall_ms_max: 120_000 }),
        ("loop", Failure::Loop { tool: "csv-read".into(), times: 3 }),
        ("silent", Failure::Silent),
        ("withheld", Failure::Withheld),
        ("model", Failure::Model { reason: reason() }),
        ("stopped", Failure::Stopped),
        ("given-up", Failure::GivenUp { reason: reason() }),
    ]
}

fn commands() -> Vec<(String, Command)> {
    let approval = Approval {
        id: "0198a5.0123456789ab".into(),
        workspace: name("team"),
        conversation: "c-1".into(),
        agent: name("analyst"),
        tool: "mail-send".into(),
        arguments: json(r#"{"after":12.5,"to":["a@example.org"],"urgent":true}"#),
        since: "2026-01-02T03:04:05.678Z".into(),
    };
    let piece = |number, last, text: &str| Piece { number, last, content: text.into() };
    let keep =
        |kind, pieces| Command::Keep(Keep { workspace: name("team"), turn: "0198a5".into(), term: 9, kind, pieces });
    let suspension = Suspension {
        workspace: name("team"),
        turn: "0198a5".into(),
        conversation: "c-1".into(),
        term: 9,
        approvals: vec![approval],
    };
    let short = TurnRecord { ending: None, term: 0, messages: Vec::new(), failure: Some("none".into()), ..record() };
    let mut commands = vec![
        ("record".to_owned(), Command::Record(Box::new(record()))),
        ("record-short".to_owned(), Command::Record(Box::new(short))),
        ("keep-journal".to_owned(), keep(DocumentKind::Journal, vec![piece(0, false, "one é"), piece(1, true, "two")])),
        ("keep-files".to_owned(), keep(DocumentKind::Files, vec![piece(7, true, "")])),
        ("suspend".to_owned(), Command::Suspend(Box::new(suspension))),
        ("abandon".to_owned(), Command::Abandon(Abandon { workspace: name("team"), turn: "0198a5".into(), term: 9 })),
        ("forget".to_owned(), Command::Forget(Forget { workspace: name("team"), conversation: "c-1".into() })),
    ];
    for (what, failure) in failures() {
        let ending = Ending {
            route: Route::Address,
            truncated: false,
            steps: 1,
            failure: Some(failure),
            files: Vec::new(),
            files_omitted: 0,
            request_digest: None,
            request: None,
        };
        let failed = TurnRecord { ending: Some(ending), failure: Some("in words".into()), ..record() };
        commands.push((format!("record-failed-{what}"), Command::Record(Box::new(failed))));
    }
    commands
}

fn state(phase: Phase) -> TurnState {
    let seen = Repetition { result: Digest::of(b"result"), times: 2 };
    TurnState {
        limits: Limits {
            steps_max: 32,
            tokens_max: 200_000,
            wall_ms_max: 120_000,
            depth_max: 4,
            identical_calls_max: 3,
            calls_per_reply_max: 16,
            result_bytes_max: 65_536,
        },
        depth: 1,
        tools: vec![ToolDefinition {
            name: "csv-read".into(),
            description: "Reads rows.".into(),
            parameters: json(r#"{"properties":{"rows":{"type":"integer"}},"type":"object"}"#),
        }],
        gates: BTreeMap::from([
            ("ask_user".to_owned(), Gate::Sender),
            ("csv-read".to_owned(), Gate::Open),
            ("mail-send".to_owned(), Gate::Approval),
        ]),
        messages: messages(),
        begun_at: 2,
        spent: TurnSpent { steps: 3, usage: Usage { input: 120, output: 34 }, elapsed_ms: 900 },
        repetitions: BTreeMap::from([(Digest::of(b"call"), seen)]),
        phase,
    }
}

fn run(phase: Phase, waiting: BTreeMap<String, Run>) -> Run {
    Run {
        agent: name("analyst"),
        turn: state(phase),
        path: vec![name("front"), name("analyst")],
        request_at: 1,
        way: words(&["call_0"]),
        visible: set(&["chart.svg", "x.csv"]),
        options: None,
        waiting,
    }
}

fn slots() -> Vec<Slot> {
    let result =
        CallResult { text: "three rows".into(), failed: false, usage: Usage { input: 5, output: 6 }, truncated: true };
    let slot = |id: &str, action, state| Slot { call: Call { id: id.into(), action }, key: Digest::of(b"call"), state };
    let tool = |arguments: &str| Action::Tool { tool: "mail-send".into(), arguments: json(arguments) };
    vec![
        slot("1", tool(r#"{"b":[1,{"c":null}]}"#), SlotState::WaitsForApproval),
        slot(
            "2",
            Action::AskCapability(AskCapability { request: "sum it".into(), capability: Some("sums".into()) }),
            SlotState::Ready,
        ),
        slot(
            "3",
            Action::ListCapabilities(ListCapabilities { about: Some("rows".into()) }),
            SlotState::Returned { result: result.clone() },
        ),
        slot(
            "4",
            Action::Refuse { tool: "nothing".into(), problem: "there is no such tool".into() },
            SlotState::Returned { result: CallResult { failed: true, truncated: false, ..result } },
        ),
    ]
}

fn beginnings() -> Vec<(&'static str, Beginning)> {
    let beginning = |run| Beginning {
        workspace: name("team"),
        conversation: "c-1".into(),
        turn: "0198a5".into(),
        subject: "admin".into(),
        route: Route::Capability { capability: "read-csv".into(), score: 0.8125 },
        brought: set(&["x.csv"]),
        files: vec![Arc::new(chart())],
        time_ms: 1_700_000_000_123,
        request_digest: Some("0a1b".into()),
        request: None,
        run,
    };
    let over = |outcome| Phase::Over { outcome };
    let calls = vec![ToolCall { id: "1".into(), tool: "ask_user".into(), arguments: "{}".into() }];
    let below = run(over(Outcome::Failed { failure: Failure::Silent }), BTreeMap::new());
    let answered = Outcome::Answered { text: "Nothing.".into(), truncated: true };
    vec![
        ("beginning", beginning(run(Phase::Thinking, BTreeMap::new()))),
        ("beginning-calling", beginning(run(Phase::Calling { slots: slots() }, BTreeMap::from([("2".into(), below)])))),
        ("beginning-answered", beginning(run(over(answered), BTreeMap::new()))),
        ("beginning-sender", beginning(run(over(Outcome::SenderCalls { text: "ask".into(), calls }), BTreeMap::new()))),
        (
            "beginning-short",
            Beginning {
                request_digest: None,
                route: Route::Address,
                files: Vec::new(),
                ..beginning(run(Phase::Thinking, BTreeMap::new()))
            },
        ),
    ]
}

fn steps() -> Vec<(&'static str, Step)> {
    let way = || words(&["call_0", "call_1"]);
    let reply = |finish| Reply {
        text: "I look.".into(),
        calls: vec![ToolCall { id: "1".into(), tool: "csv-read".into(), arguments: "{}".into() }],
        usage: Usage { input: 100, output: 20 },
        finish,
        model: "model-1".into(),
        echo: None,
    };
    let answered = |finish| Step::Answered {
        way: way(),
        reply: reply(finish),
        spent: Spent { tokens: 120, cost: 9 },
        elapsed_ms: 800,
    };
    let result = CallResult { text: "rows".into(), failed: false, usage: Usage::default(), truncated: false };
    vec![
        ("step-answered", answered(Finish::Calls)),
        (
            "step-answered-echo",
            Step::Answered {
                way: way(),
                reply: Reply { echo: Some("{\"reasoning\":\"I should look.\"}".into()), ..reply(Finish::Calls) },
                spent: Spent { tokens: 120, cost: 9 },
                elapsed_ms: 800,
            },
        ),
        ("step-answered-stop", answered(Finish::Stop)),
        ("step-answered-length", answered(Finish::Length)),
        ("step-answered-refused", answered(Finish::Refused)),
        (
            "step-delegated",
            Step::Delegated { way: way(), call: "1".into(), run: Box::new(run(Phase::Thinking, BTreeMap::new())) },
        ),
        (
            "step-returned",
            Step::Returned {
                way: way(),
                call: "1".into(),
                result: result.clone(),
                files: vec![chart()],
                visible: set(&["chart.svg"]),
            },
        ),
        (
            "step-returned-short",
            Step::Returned { way: Vec::new(), call: "1".into(), result, files: Vec::new(), visible: set(&[]) },
        ),
        ("step-approved", Step::Decided { way: way(), decision: Decision::Approved }),
        ("step-denied", Step::Decided { way: way(), decision: Decision::Denied { reason: "too dear".into() } }),
        ("step-taken-up", Step::TakenUp { term: 12 }),
    ]
}

#[test]
fn every_command_means_what_it_meant() {
    for (name, command) in commands() {
        let decode = |bytes: &[u8]| Command::decode(&Bytes::copy_from_slice(bytes)).expect("read");
        holds(&name, &command, |command, format| command.encode(format).expect("written").to_vec(), decode);
    }
}

#[test]
fn every_document_of_a_turn_means_what_it_meant() {
    for (name, beginning) in beginnings() {
        let decode = |bytes: &[u8]| Beginning::decode(bytes).expect("read");
        holds(name, &beginning, |it, format| it.encode(format).expect("written"), decode);
    }
    for (name, step) in steps() {
        let decode = |bytes: &[u8]| Step::decode(bytes).expect("read");
        holds(name, &step, |it, format| it.encode(format).expect("written"), decode);
    }
    let binary = Attachment { content: Content::Base64("AAECAw==".into()), ..chart() };
    for (name, attachment) in [("file-text", chart()), ("file-base64", binary)] {
        let decode = |bytes: &[u8]| Attachment::decode(bytes).expect("read");
        holds(name, &attachment, |it, format| it.encode(format).expect("written"), decode);
    }
}

#[test]
fn what_the_third_format_adds_means_what_it_meant() {
    let mut said = record();
    if let Some(ending) = &mut said.ending {
        ending.request = Some("What is in it?\nPlease.".into());
    }
    let pieces = vec![Piece { number: 3, last: true, content: b"a file".to_vec() }];
    let (workspace, turn, kind) = (name("team"), "0198a5".to_owned(), DocumentKind::Brought);
    let brought = Command::Keep(Keep { workspace, turn, term: 9, kind, pieces });
    for (name, command) in [("record-request", Command::Record(Box::new(said))), ("keep-brought", brought)] {
        let decode = |bytes: &[u8]| Command::decode(&Bytes::copy_from_slice(bytes)).expect("read");
        holds_since(name, &command, |it| it.encode(Format::DELETION).expect("written").to_vec(), decode);
    }
    let (_, first) = beginnings().swap_remove(0);
    let beginning = Beginning { request: Some("What is in it?".into()), ..first };
    let decode = |bytes: &[u8]| Beginning::decode(bytes).expect("read");
    holds_since("beginning-request", &beginning, |it| it.encode(Format::DELETION).expect("written"), decode);
}

/// Entries as the builds before there was another format wrote them, each on a line.
const ENTRIES: &str = include_str!("../../golden/shard-v1/entries.jsonl");

#[test]
fn what_older_builds_wrote_is_read_and_written_the_same() {
    for line in ENTRIES.lines() {
        let command = Command::decode(&Bytes::from(line)).expect("read");
        assert_eq!(command.encode(Format::JSON).expect("written"), line);
        let protobuf = command.encode(Format::PROTOBUF).expect("written");
        assert_eq!(Command::decode(&protobuf).expect("read"), command, "the next format says the same");
    }
}

/// Rows and documents in a data directory that the build before there was another format left, each on a line with its kind.
const ROWS: &str = include_str!("../../golden/shard-v1/rows.txt");

#[test]
fn the_rows_and_documents_of_an_older_data_directory_are_read_and_written_the_same() {
    fn same<T: serde::Serialize>(value: &T, line: &str) {
        assert_eq!(serde_json::to_string(value).expect("JSON"), line);
    }
    let mut kinds = BTreeSet::new();
    for line in ROWS.lines() {
        let (kind, row) = line.split_once(' ').expect("a kind and a row");
        kinds.insert(kind);
        match kind {
            "turn" => same(&TurnRecord::decode_row(row.as_bytes()).expect("read"), row),
            "waiting" => same(&Suspension::decode_row(row.as_bytes()).expect("read"), row),
            "beginning" => {
                let beginning = Beginning::decode(row.as_bytes()).expect("read");
                let later = beginning.encode(Format::PROTOBUF).expect("written");
                assert_eq!(Beginning::decode(&later).expect("read"), beginning);
                same(&beginning, row);
            }
            "step" => {
                let step = Step::decode(row.as_bytes()).expect("read");
                let later = step.encode(Format::PROTOBUF).expect("written");
                assert_eq!(Step::decode(&later).expect("read"), step);
                same(&step, row);
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!(kinds.len(), 4, "{kinds:?}");
}

#[test]
fn rows_of_either_format_read_back() {
    let suspension = commands().into_iter().find_map(|(_, command)| match command {
        Command::Suspend(suspension) => Some(*suspension),
        Command::Record(_) | Command::Keep(_) | Command::Abandon(_) | Command::Forget(_) => None,
    });
    let (record, suspension) = (record(), suspension.expect("one"));
    for format in [Format::JSON, Format::PROTOBUF] {
        let entry = Command::Record(Box::new(record.clone())).encode(format).expect("written");
        let row = record.encode_row(written(&entry)).expect("a row");
        assert_eq!(TurnRecord::decode_row(&row).expect("read"), record);
        // A node of the first format reads its rows: the record alone.
        assert_eq!(row.starts_with(br#"{"workspace":"team","conversation":"#), format == Format::JSON);
        assert!(Suspension::decode_row(&row).is_err(), "it is a record");
        let entry = Command::Suspend(Box::new(suspension.clone())).encode(format).expect("written");
        let row = suspension.encode_row(written(&entry)).expect("a row");
        assert_eq!(Suspension::decode_row(&row).expect("read"), suspension);
        let piece = Piece { number: 0, last: true, content: b"text".to_vec() };
        assert_eq!(piece.row_text(written(&entry)).is_some(), format == Format::JSON);
    }
}

#[test]
fn a_route_that_older_builds_do_not_know_is_said_so_that_they_can_read_it() {
    let json = serde_json::to_string(&Route::Conversation).expect("JSON");
    assert_eq!(json, r#"{"by":"address"}"#);
    assert_eq!(serde_json::from_str::<Route>(&json).expect("read"), Route::Address);
    let record = TurnRecord {
        ending: record().ending.map(|ending| Ending { route: Route::Conversation, ..ending }),
        ..record()
    };
    let command = Command::Record(Box::new(record));
    let bytes = command.encode(Format::PROTOBUF).expect("written");
    assert_eq!(Command::decode(&bytes).expect("read"), command);
}

/// An entry as its tenant gets it.
fn written(entry: &Bytes) -> Written<'_> {
    match Envelope::decode(entry) {
        Ok(envelope) => Written {
            version: envelope.version,
            term: envelope.term,
            body: &entry[entry.len() - envelope.body.len()..],
        },
        Err(_) => Written { version: 0, term: 0, body: entry },
    }
}
