//! The state of a shard, entry by entry: what each does, what none does twice, and that snapshots bring it back.

use caxton_proto::{Revision, WorkspaceId};

use super::super::log::Piece;
use super::*;
use caxton_proto::Format;
use caxton_proto::shard::{Message, Part, Spent, Usage};

fn turn(conversation: &str, id: &str, time_ms: u64) -> Command {
    Command::Record(Box::new(TurnRecord {
        workspace: workspace(),
        conversation: conversation.into(),
        turn: id.into(),
        agent: "worker".parse().expect("a name"),
        subject: "admin".into(),
        time_ms,
        messages: vec![
            Message::User { parts: vec![Part::Text { text: format!("\n  hello {id}\nmore") }] },
            Message::Assistant { text: "hi".into(), calls: Vec::new() },
        ],
        attachments: vec![],
        usage: Usage { input: 1, output: 2 },
        spent: vec![("worker".parse().expect("a name"), Spent { tokens: 3, cost: 4 })],
        duration_ms: 1,
        revision: Revision(1),
        failure: None,
        ending: None,
        term: 0,
    }))
}

fn workspace() -> WorkspaceId {
    "team".parse().expect("a name")
}

fn keep(term: u64, kind: DocumentKind, pieces: &[(u32, bool, &str)]) -> Command {
    let piece =
        |(number, last, text): &(u32, bool, &str)| Piece { number: *number, last: *last, content: (*text).into() };
    let pieces = pieces.iter().map(piece).collect();
    Command::Keep(Keep { workspace: workspace(), turn: "t1".into(), term, kind, pieces })
}

fn wait(term: u64) -> Command {
    let (turn, conversation) = ("t1".into(), "c".into());
    Command::Suspend(Box::new(Suspension { workspace: workspace(), turn, conversation, term, approvals: vec![] }))
}

fn apply_in(state: &State, index: u64, term: u64, command: &Command) -> Taken {
    let entry = Entry { index, term, command: command.encode(Format::PROTOBUF).expect("written") };
    Taken::decode(&Machine::apply(state, &[entry]).expect("applied")[0])
}

fn apply(state: &State, index: u64, command: &Command) -> Taken {
    apply_in(state, index, 1, command)
}

fn ids(state: &State) -> Vec<String> {
    let listed = state.list(&workspace(), None, 100).expect("a list");
    listed.into_iter().map(|(_, id, _)| id).collect()
}

#[test]
fn conversations_are_listed_newest_first_and_survive_reopening_and_snapshots() {
    let dir = tempfile::tempdir().expect("a folder");
    let (file, other) = (dir.path().join("one.db"), dir.path().join("other.db"));
    let workspace = workspace();
    let state = State::open(&file).expect("open");
    apply(&state, 1, &turn("a", "r1", 100));
    apply(&state, 2, &turn("b", "t2", 200));
    assert_eq!(apply(&state, 3, &turn("a", "t3", 300)), Taken::Applied);
    assert_eq!(apply(&state, 4, &turn("a", "t3", 300)), Taken::Repeated);
    assert_eq!(ids(&state), ["a", "b"]);
    let pages = state.list(&workspace, None, 1).expect("a page");
    let rest = state.list(&workspace, Some(&pages[0].0), 9).expect("the next page");
    assert_eq!((pages[0].1.as_str(), rest.len(), rest[0].1.as_str()), ("a", 1, "b"));
    let summary = state.summary(&workspace, "a").expect("read").expect("there");
    assert_eq!((summary.turns, summary.usage.total(), summary.title.as_str()), (2, 6, "hello r1"));
    assert_eq!(state.spent(0).expect("read")[0].2, Spent { tokens: 9, cost: 12 }, "the repeated turn counts once");

    let copy = State::open(&other).expect("open");
    apply(&copy, 1, &turn("stale", "t9", 1));
    apply(&state, 5, &keep(1, DocumentKind::Journal, &[(0, true, "é")]));
    let frozen = state.freeze().expect("frozen");
    apply(&state, 6, &turn("late", "t4", 400));
    let mut bytes = Vec::new();
    frozen(&mut bytes).expect("written");
    copy.restore(&mut bytes.as_slice()).expect("restored");
    assert_eq!((ids(&copy), copy.applied()), (vec!["a".to_owned(), "b".to_owned()], 5), "as it was when it was frozen");
    assert_eq!(copy.kept(&workspace, "t1", DocumentKind::Journal).expect("read").whole, ["é".as_bytes()]);
    for cut in [0, 1, bytes.len() / 2, bytes.len() - 3] {
        assert!(copy.restore(&mut &bytes[..cut]).is_err(), "a snapshot cut after {cut} bytes is noticed");
        assert_eq!((ids(&copy).len(), copy.applied()), (2, 5), "and changes nothing");
    }

    drop((state, copy));
    let state = State::open(&file).expect("open");
    assert_eq!(state.applied(), 6);
    let turns = state.turns(&workspace, "a", |_| false).expect("read");
    assert_eq!(turns.iter().map(|turn| turn.turn.as_str()).collect::<Vec<_>>(), ["t3", "r1"]);
    apply(&state, 7, &Command::Forget(Forget { workspace: workspace.clone(), conversation: "a".into() }));
    assert_eq!(ids(&state), ["late", "b"]);
    assert!(state.turns(&workspace, "a", |_| false).expect("read").is_empty());
    assert_eq!(state.turn(&workspace, "t3").expect("read"), None);
}

#[test]
fn what_a_turn_keeps_is_whole_documents_and_goes_when_it_is_recorded() {
    let dir = tempfile::tempdir().expect("a folder");
    let workspace = workspace();
    let state = State::open(&dir.path().join("one.db")).expect("open");
    let text = |document: Vec<u8>| String::from_utf8(document).expect("text");
    let documents = |of| {
        let kept = state.kept(&workspace, "t1", of).expect("read");
        (kept.whole.into_iter().map(text).collect::<Vec<_>>(), kept.next)
    };
    apply(&state, 1, &keep(1, DocumentKind::Journal, &[(0, false, "one "), (1, true, "two"), (2, true, "three")]));
    apply(&state, 2, &keep(1, DocumentKind::Journal, &[(3, false, "half")]));
    apply(&state, 3, &keep(1, DocumentKind::Journal, &[(5, true, "after a gap")]));
    apply(&state, 4, &keep(1, DocumentKind::Files, &[(0, true, "file")]));
    assert_eq!(documents(DocumentKind::Journal), (vec!["one two".to_owned(), "three".to_owned()], 3));
    assert_eq!(state.underway().expect("read"), [(workspace.clone(), "t1".to_owned())]);
    apply(&state, 5, &wait(1));
    assert_eq!((state.waiting(&workspace).expect("read").len(), state.underway().expect("read").len()), (1, 0));
    // Whoever decided goes on.
    apply(&state, 6, &keep(1, DocumentKind::Journal, &[(3, true, "decided")]));
    assert!(state.waits(&workspace, "t1").expect("read").is_none());
    assert_eq!(documents(DocumentKind::Journal).0[2], "decided");
    apply(&state, 7, &turn("a", "t1", 5));
    assert_eq!(
        (documents(DocumentKind::Journal), documents(DocumentKind::Files).0),
        ((vec![], 0), vec!["file".to_owned()])
    );
    assert_eq!(apply(&state, 8, &keep(1, DocumentKind::Journal, &[(0, true, "late")])), Taken::Repeated);
    assert!(state.underway().expect("read").is_empty());
    assert_eq!(apply(&state, 9, &wait(1)), Taken::Repeated);
    apply(&state, 10, &Command::Forget(Forget { workspace: workspace.clone(), conversation: "a".into() }));
    assert!(documents(DocumentKind::Files).0.is_empty());
}

#[test]
fn what_a_turn_writes_counts_in_its_own_term_only() {
    let dir = tempfile::tempdir().expect("a folder");
    let workspace = workspace();
    let state = State::open(&dir.path().join("one.db")).expect("open");
    let Command::Record(mut record) = turn("a", "t1", 5) else { panic!("a record") };
    record.term = 4;
    let record = Command::Record(record);
    let abandon = Command::Abandon(Abandon { workspace: workspace.clone(), turn: "t1".into(), term: 4 });
    for (index, command) in (1..).zip([&keep(4, DocumentKind::Journal, &[(0, true, "x")]), &wait(4), &record, &abandon])
    {
        for term in [3, 5] {
            assert_eq!(apply_in(&state, index, term, command), Taken::Fenced);
        }
    }
    assert!(state.underway().expect("read").is_empty() && ids(&state).is_empty());
    assert_eq!(apply_in(&state, 9, 4, &keep(4, DocumentKind::Journal, &[(0, true, "x")])), Taken::Applied);
    assert_eq!(apply_in(&state, 10, 4, &abandon), Taken::Applied);
    assert!(state.underway().expect("read").is_empty());
    assert_eq!(apply_in(&state, 11, 4, &record), Taken::Applied);
}

#[test]
fn what_a_crash_takes_the_log_gives_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let (file, crashed) = (dir.path().join("one.db"), dir.path().join("crashed.db"));
    let state = State::open(&file).expect("open");
    let log: Vec<Command> = (1..=5).map(|number| turn("a", &format!("t{number}"), number)).collect();
    let number = |state: &State| state.summary(&workspace(), "a").expect("read").map_or(0, |summary| summary.turns);
    for (index, command) in (1..).zip(&log) {
        apply(&state, index, command);
        assert_eq!(number(&state), index, "what was applied is read, committed or not");
        if index == 2 {
            state.database.writer().commit().expect("committed");
        }
    }
    // The files as a killed process leaves them.
    for end in ["db", "db-wal"] {
        std::fs::copy(file.with_extension(end), crashed.with_extension(end)).expect("copied");
    }
    let copy = State::open(&crashed).expect("open");
    let had = copy.applied();
    assert!((2..=5).contains(&had) && number(&copy) == had, "what is there, and how far it goes, are of one moment");
    for (index, command) in (1..).zip(&log).filter(|(index, _)| *index > had) {
        assert_eq!(apply(&copy, index, command), Taken::Applied);
    }
    assert_eq!(
        copy.turns(&workspace(), "a", |_| false).expect("read"),
        state.turns(&workspace(), "a", |_| false).expect("read")
    );
}

#[test]
fn what_was_written_is_committed_soon() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("one.db");
    let state = State::open(&file).expect("open");
    let committed = || {
        let beside = Connection::open(&file).expect("open");
        beside.query_row("SELECT number FROM applied", [], |row| row.get::<_, i64>(0)).expect("read").cast_unsigned()
    };
    for index in 1..=3 {
        apply(&state, index, &turn("a", &format!("t{index}"), index));
        while committed() < index {
            std::thread::yield_now();
        }
    }
    apply(&state, 4, &turn("a", "t4", 4));
    drop(state);
    assert_eq!(committed(), 4, "closing commits");
}

#[test]
fn an_entry_that_cannot_be_applied_stops_the_state_until_it_is_opened_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("one.db");
    let state = State::open(&file).expect("open");
    apply(&state, 1, &turn("a", "t1", 1));
    state.database.writer().commit().expect("committed");
    let [good, bad] =
        [turn("a", "t2", 2).encode(Format::PROTOBUF).expect("written"), Bytes::from_static(b"no command")];
    let entries = [good, bad].into_iter().zip(2..);
    let entries: Vec<Entry> = entries.map(|(command, index)| Entry { index, term: 1, command }).collect();
    assert!(Machine::apply(&*state, &entries).is_err());
    let again = Entry { index: 4, term: 1, command: turn("a", "t3", 3).encode(Format::PROTOBUF).expect("written") };
    let refused = Machine::apply(&*state, &[again]).expect_err("nothing may follow what is missing");
    let said = std::error::Error::source(&refused).map(ToString::to_string).unwrap_or_default();
    assert!(said.contains("start the node again"), "{said}");
    assert!(state.summary(&workspace(), "a").is_err() && state.list(&workspace(), None, 9).is_err());
    drop(state);
    let state = State::open(&file).expect("open");
    assert_eq!((state.applied(), state.summary(&workspace(), "a").expect("read").expect("there").turns), (1, 1));
}
