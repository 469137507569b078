//! The state of a shard, entry by entry: what each does, what none does twice, and that snapshots bring it back.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use caxton_proto::shard::{
    Approval, COUNT_MAX, ClearWorkspace, JSON_DEPTH_READ, JsonText, Message, Part, Spent, Usage as Tokens,
};
use caxton_proto::{Revision, WorkspaceId};
use caxton_raft::{Entry, GroupId, Machine};
use rusqlite::types::Value;

use super::super::State;
use super::super::log::Piece;
use super::*;
use crate::shard::clearing::{self, WorkspacesTenant};
use crate::shard::tenant::Tenants;
use crate::shard::{State as ShardState, WrittenFormat};

/// A shard's state with the conversations in it.
pub(super) struct Bench {
    pub(super) shard: Arc<ShardState>,
    conversations: State,
}

impl Bench {
    pub(super) fn open(file: &Path) -> Bench {
        Bench::of(file, Format::PROTOBUF)
    }

    /// One that writes snapshots in `format`.
    pub(super) fn of(file: &Path, format: Format) -> Bench {
        let tenants = Tenants::new([Box::new(ConversationsTenant) as Box<dyn Tenant>]).expect("alone");
        let shard = ShardState::open(file, GroupId(1), WrittenFormat::new(move || format), tenants).expect("open");
        Bench { conversations: State::of(&shard), shard }
    }

    /// Applies one entry, which must not stop the shard.
    pub(super) fn answer(&self, index: u64, term: u64, command: Bytes) -> Result<Effect, String> {
        let answers = self.shard.apply(&[Entry { index, term, command }]).expect("applied");
        match answers[0].as_ref() {
            b"" => Ok(Effect::Applied),
            b"r" => Ok(Effect::Repeated),
            b"f" => Ok(Effect::Fenced),
            refused => Err(String::from_utf8_lossy(refused).into_owned()),
        }
    }

    /// The state as a snapshot.
    pub(super) fn frozen(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.shard.freeze().expect("frozen")(&mut bytes).expect("written");
        bytes
    }

    /// Every row of every table.
    pub(super) fn rows(&self) -> Vec<(&'static str, Vec<Value>)> {
        let tables = TABLES.iter().map(|table| table.name).chain(["applied", "refused"]);
        let read = |db: &Connection| -> rusqlite::Result<_> {
            let mut all = Vec::new();
            for table in tables {
                let mut statement = db.prepare(&format!("SELECT * FROM {table}"))?;
                let columns = statement.column_count();
                let rows = statement.query_map([], |row| (0..columns).map(|column| row.get(column)).collect())?;
                for row in rows {
                    all.push((table, row?));
                }
            }
            Ok(all)
        };
        self.shard.database().scan(read).expect("read")
    }
}

impl Deref for Bench {
    type Target = State;

    fn deref(&self) -> &State {
        &self.conversations
    }
}

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
            Message::Assistant { text: "hi".into(), calls: Vec::new(), echo: None },
        ],
        attachments: vec![],
        usage: Tokens { input: 1, output: 2 },
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

fn apply_in(state: &Bench, index: u64, term: u64, command: &Command) -> Effect {
    // One format after the other, as in a cluster whose last node was just upgraded.
    let format = if index.is_multiple_of(2) { Format::PROTOBUF } else { Format::JSON };
    state.answer(index, term, command.encode(format).expect("written")).expect("not refused")
}

fn apply(state: &Bench, index: u64, command: &Command) -> Effect {
    apply_in(state, index, 1, command)
}

fn ids(state: &Bench) -> Vec<String> {
    let listed = state.list(&workspace(), None, 100).expect("a list");
    listed.into_iter().map(|(_, id, _)| id).collect()
}

#[test]
fn conversations_are_listed_newest_first_and_survive_reopening_and_snapshots() {
    let dir = tempfile::tempdir().expect("a folder");
    let (file, other) = (dir.path().join("one.db"), dir.path().join("other.db"));
    let workspace = workspace();
    let state = Bench::open(&file);
    apply(&state, 1, &turn("a", "r1", 100));
    apply(&state, 2, &turn("b", "t2", 200));
    assert_eq!(apply(&state, 3, &turn("a", "t3", 300)), Effect::Applied);
    assert_eq!(apply(&state, 4, &turn("a", "t3", 300)), Effect::Repeated);
    assert_eq!(ids(&state), ["a", "b"]);
    let pages = state.list(&workspace, None, 1).expect("a page");
    let rest = state.list(&workspace, Some(&pages[0].0), 9).expect("the next page");
    assert_eq!((pages[0].1.as_str(), rest.len(), rest[0].1.as_str()), ("a", 1, "b"));
    let summary = state.summary(&workspace, "a").expect("read").expect("there");
    assert_eq!((summary.turns, summary.usage.total(), summary.title.as_str()), (2, 6, "hello r1"));
    let spent = Spent::from(state.spent(0).expect("read")[0].2);
    assert_eq!(spent, Spent { tokens: 9, cost: 12 }, "the repeated turn counts once");

    let copy = Bench::open(&other);
    apply(&copy, 1, &turn("stale", "t9", 1));
    apply(&state, 5, &keep(1, DocumentKind::Journal, &[(0, true, "é")]));
    let frozen = state.shard.freeze().expect("frozen");
    apply(&state, 6, &turn("late", "t4", 400));
    let mut bytes = Vec::new();
    frozen(&mut bytes).expect("written");
    copy.shard.restore(&mut bytes.as_slice()).expect("restored");
    assert_eq!(
        (ids(&copy), copy.shard.applied()),
        (vec!["a".to_owned(), "b".to_owned()], 5),
        "as it was when it was frozen"
    );
    assert_eq!(copy.kept(&workspace, "t1", DocumentKind::Journal).expect("read").whole, ["é".as_bytes()]);
    for cut in [0, 1, bytes.len() / 2, bytes.len() - 3] {
        assert!(copy.shard.restore(&mut &bytes[..cut]).is_err(), "a snapshot cut after {cut} bytes is noticed");
        assert_eq!((ids(&copy).len(), copy.shard.applied()), (2, 5), "and changes nothing");
    }

    drop((state, copy));
    let state = Bench::open(&file);
    assert_eq!(state.shard.applied(), 6);
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
    let state = Bench::open(&dir.path().join("one.db"));
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
    assert_eq!(apply(&state, 8, &keep(1, DocumentKind::Journal, &[(0, true, "late")])), Effect::Repeated);
    assert!(state.underway().expect("read").is_empty());
    assert_eq!(apply(&state, 9, &wait(1)), Effect::Repeated);
    apply(&state, 10, &Command::Forget(Forget { workspace: workspace.clone(), conversation: "a".into() }));
    assert!(documents(DocumentKind::Files).0.is_empty());
}

#[test]
fn what_a_turn_writes_counts_in_its_own_term_only() {
    let dir = tempfile::tempdir().expect("a folder");
    let workspace = workspace();
    let state = Bench::open(&dir.path().join("one.db"));
    let Command::Record(mut record) = turn("a", "t1", 5) else { panic!("a record") };
    record.term = 4;
    let record = Command::Record(record);
    let abandon = Command::Abandon(Abandon { workspace: workspace.clone(), turn: "t1".into(), term: 4 });
    for (index, command) in (1..).zip([&keep(4, DocumentKind::Journal, &[(0, true, "x")]), &wait(4), &record, &abandon])
    {
        for term in [3, 5] {
            assert_eq!(apply_in(&state, index, term, command), Effect::Fenced);
        }
    }
    assert!(state.underway().expect("read").is_empty() && ids(&state).is_empty());
    assert_eq!(apply_in(&state, 9, 4, &keep(4, DocumentKind::Journal, &[(0, true, "x")])), Effect::Applied);
    assert_eq!(apply_in(&state, 10, 4, &abandon), Effect::Applied);
    assert!(state.underway().expect("read").is_empty());
    assert_eq!(apply_in(&state, 11, 4, &record), Effect::Applied);
}

#[test]
fn arguments_that_are_nested_too_deep_are_refused_and_the_shard_goes_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("one.db");
    let state = Bench::open(&file);
    // What the first format wrote of a call whose arguments are 125 levels deep, and what nobody can read.
    let nested = format!("{}{}", "[".repeat(125), "]".repeat(125));
    let deep = format!(
        "{{\"v\":1,\"command\":\"wait\",\"workspace\":\"team\",\"turn\":\"t1\",\"conversation\":\"c\",\"term\":1,\
         \"approvals\":[{{\"id\":\"t1.c\",\"workspace\":\"team\",\"conversation\":\"c\",\"agent\":\"worker\",\"tool\":\"wipe\",\
         \"arguments\":{nested},\"since\":\"now\"}}]}}"
    );
    let deep = Bytes::from(deep);
    let said = state.answer(1, 1, deep.clone()).expect_err("it cannot be read");
    assert!(said.contains("JSON"), "{said}");
    assert_eq!(apply(&state, 2, &turn("a", "t2", 2)), Effect::Applied);
    assert!(state.waiting(&workspace()).expect("read").is_empty());
    let refused = state.shard.refused().expect("read");
    assert_eq!((refused.len(), refused[0].index, refused[0].tenant), (1, 1, 1));
    drop(state);
    // What a restart applies once more is refused once more.
    let state = Bench::open(&dir.path().join("two.db"));
    state.answer(1, 1, deep).expect_err("it cannot be read");
    assert_eq!((apply(&state, 2, &turn("a", "t2", 2)), state.shard.applied()), (Effect::Applied, 2));
    // It is not even written any more; and in the next format it would be read.
    let Command::Suspend(mut suspension) = wait(1) else { panic!("a suspension") };
    let deepest = format!("{}{}", "[".repeat(JSON_DEPTH_READ), "]".repeat(JSON_DEPTH_READ));
    suspension.approvals.push(Approval {
        id: "t1.c".into(),
        workspace: workspace(),
        conversation: "c".into(),
        agent: "worker".parse().expect("a name"),
        tool: "wipe".into(),
        arguments: JsonText::read(deepest).expect("JSON"),
        since: "now".into(),
    });
    let command = Command::Suspend(suspension);
    command.encode(Format::JSON).expect_err("it would not read back");
    assert_eq!(state.answer(3, 1, command.encode(Format::PROTOBUF).expect("written")), Ok(Effect::Applied));
    assert_eq!(state.waiting(&workspace()).expect("read").len(), 1);
}

#[test]
fn counts_that_add_up_to_too_much_stay_at_the_most_and_snapshots_hold_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let state = Bench::open(&dir.path().join("one.db"));
    for index in 1..=2_050 {
        let Command::Record(mut record) = turn("a", &format!("t{index}"), 5) else { panic!("a record") };
        record.usage = Tokens { input: COUNT_MAX, output: COUNT_MAX };
        record.spent[0].1 = Spent { tokens: COUNT_MAX, cost: COUNT_MAX };
        assert_eq!(apply(&state, index, &Command::Record(record)), Effect::Applied);
    }
    let most = i64::MAX.cast_unsigned();
    let copy = Bench::open(&dir.path().join("other.db"));
    copy.shard.restore(&mut state.frozen().as_slice()).expect("restored");
    for state in [state, copy] {
        let summary = state.summary(&workspace(), "a").expect("read").expect("there");
        assert_eq!((summary.turns, summary.usage), (2_050, Usage { input: most, output: most }));
        assert_eq!(Spent::from(state.spent(0).expect("read")[0].2), Spent { tokens: COUNT_MAX, cost: COUNT_MAX });
        assert_eq!(state.spent(0).expect("read")[0].2.tokens, most);
    }
}

#[test]
fn an_old_entry_with_more_tokens_than_can_be_said_counts_as_many_as_can_be() {
    let dir = tempfile::tempdir().expect("a folder");
    let state = Bench::open(&dir.path().join("one.db"));
    let entry = |turn: &str| {
        let entry = format!(
            "{{\"v\":1,\"command\":\"record\",\"workspace\":\"team\",\"conversation\":\"a\",\"turn\":\"{turn}\",\
             \"agent\":\"worker\",\"subject\":\"admin\",\"time_ms\":5,\"messages\":[],\"attachments\":[],\
             \"usage\":{{\"input\":4611686018427387904,\"output\":1}},\
             \"spent\":[[\"worker\",{{\"tokens\":4611686018427387904,\"cost\":18446744073709551615}}]],\
             \"duration_ms\":1,\"revision\":1,\"failure\":null}}"
        );
        Bytes::from(entry)
    };
    assert_eq!(state.answer(1, 1, entry("t1")), Ok(Effect::Applied));
    assert_eq!(state.answer(2, 1, entry("t2")), Ok(Effect::Applied));
    let spent = state.spent(0).expect("read")[0].2;
    assert_eq!((spent.tokens, spent.cost), (2 * COUNT_MAX, 2 * COUNT_MAX));
}

#[test]
fn a_newer_command_stops_the_shard_and_says_what_to_do() {
    let json = turn("a", "t1", 1).encode(Format::JSON).expect("JSON");
    let json = String::from_utf8(json.into()).expect("UTF-8").replacen("\"v\":1", "\"v\":2", 1);
    let version = Format::NEWEST.number() + 1;
    let newer = Envelope { version, tenant: Envelope::CONVERSATIONS, term: 0, body: Bytes::new() };
    for command in [Bytes::from(json), newer.encode()] {
        // One that has stopped reads nothing more.
        let dir = tempfile::tempdir().expect("a folder");
        let state = Bench::open(&dir.path().join("one.db"));
        let stopped = state.shard.apply(&[Entry { index: 1, term: 1, command }]).expect_err("a newer program wrote it");
        let said = crate::errors::chain(&stopped);
        assert!(said.contains("upgrade"), "{said}");
    }
}

/// A snapshot that the first format holds, as the program wrote it that knew no tenants.
const POSITIONAL: &str = include_str!("golden/snapshot-1.hex");

#[test]
fn a_snapshot_of_the_first_format_is_restored() {
    let dir = tempfile::tempdir().expect("a folder");
    let state = Bench::open(&dir.path().join("one.db"));
    let bytes = hex::decode(POSITIONAL.split_whitespace().collect::<String>()).expect("hexadecimal");
    state.shard.restore(&mut bytes.as_slice()).expect("restored");
    let expected = Bench::open(&dir.path().join("other.db"));
    golden(&expected);
    assert_eq!(state.shard.applied(), 6);
    assert_eq!(state.frozen(), expected.frozen());
    // As long as a node reads no other, it is what is written.
    let old = Bench::of(&dir.path().join("old.db"), Format::JSON);
    golden(&old);
    assert_eq!(old.frozen(), bytes);
    for cut in [0, 1, bytes.len() / 2, bytes.len() - 3] {
        assert!(state.shard.restore(&mut &bytes[..cut]).is_err(), "a snapshot cut after {cut} bytes is noticed");
        assert_eq!(state.shard.applied(), 6, "and changes nothing");
    }
}

/// What the snapshot of the first format was made of.
fn golden(state: &Bench) {
    let commands = [
        turn("a", "r1", 100),
        turn("b", "t2", 200),
        turn("a", "t3", DAY_MS),
        keep(1, DocumentKind::Journal, &[(0, false, "one "), (1, true, "two")]),
        keep(1, DocumentKind::Files, &[(0, true, "é")]),
        wait(1),
    ];
    for (index, command) in (1..).zip(&commands) {
        let entry = command.encode(Format::JSON).expect("written");
        assert_eq!(state.answer(index, 1, entry), Ok(Effect::Applied));
    }
}

/// A shard with the conversations that can be cleared of a workspace.
fn clearable(file: &Path, format: Format) -> Arc<ShardState> {
    let tenants = [Box::new(ConversationsTenant) as Box<dyn Tenant>, Box::new(WorkspacesTenant)];
    let tenants = Tenants::new(tenants).expect("two numbers");
    ShardState::open(file, GroupId(1), WrittenFormat::new(move || format), tenants).expect("open")
}

#[test]
fn a_workspace_is_cleared_part_by_part_also_across_a_snapshot_and_once_for_each_deletion() {
    let dir = tempfile::tempdir().expect("a folder");
    let state = clearable(&dir.path().join("one.db"), Format::NEWEST);
    let answer = |state: &ShardState, index: u64, command: Bytes| {
        state.apply(&[Entry { index, term: 1, command }]).expect("applied").remove(0)
    };
    let of = |workspace: &str, command: Command| {
        let command = match command {
            Command::Record(turn) => {
                Command::Record(Box::new(TurnRecord { workspace: workspace.parse().expect("a name"), ..*turn }))
            }
            Command::Keep(keep) => Command::Keep(Keep { workspace: workspace.parse().expect("a name"), ..keep }),
            Command::Suspend(waits) => {
                Command::Suspend(Box::new(Suspension { workspace: workspace.parse().expect("a name"), ..*waits }))
            }
            other @ (Command::Abandon(_) | Command::Forget(_)) => other,
        };
        command.encode(Format::PROTOBUF).expect("written")
    };
    let mut index = 0;
    let mut next = || {
        index += 1;
        index
    };
    for workspace in ["gone", "stays"] {
        for id in ["t2", "t3", "t4"] {
            answer(&state, next(), of(workspace, turn(&format!("c-{id}"), id, DAY_MS)));
        }
        let pieces = keep(1, DocumentKind::Journal, &[(0, true, "a"), (1, true, "b"), (2, true, "c")]);
        answer(&state, next(), of(workspace, pieces));
        answer(&state, next(), of(workspace, wait(1)));
    }
    let counts = |state: &ShardState, workspace: &str| {
        let count = |rows: &Connection| -> rusqlite::Result<Vec<i64>> {
            let all = TABLES.iter().map(|table| {
                let count = format!("SELECT count(*) FROM {} WHERE workspace = ?1", table.name);
                rows.query_row(&count, [workspace], |row| row.get(0))
            });
            all.collect()
        };
        state.database().scan(count).expect("read")
    };
    let full = [3, 3, 1, 3, 1];
    assert_eq!((counts(&state, "gone").as_slice(), counts(&state, "stays").as_slice()), (&full[..], &full[..]));

    let clear = |deletion: u64| {
        let body = ClearWorkspace { workspace: "gone".parse().expect("a name"), deletion, rows_max: 2 }.encode();
        let (version, tenant) = (Format::DELETION.number(), Envelope::WORKSPACES);
        Envelope { version, tenant, term: 0, body: body.into() }.encode()
    };
    let more = answer(&state, next(), clear(70));
    assert_eq!(more.as_ref(), b"amore", "three rows do not go at once");
    assert_eq!(counts(&state, "gone"), [1, 1, 0, 1, 0]);
    // Another replica comes from a snapshot in the middle, and goes on alike.
    let mut bytes = Vec::new();
    state.freeze().expect("frozen")(&mut bytes).expect("written");
    let copy = clearable(&dir.path().join("two.db"), Format::NEWEST);
    copy.restore(&mut bytes.as_slice()).expect("restored");
    let at = next();
    assert_eq!(answer(&state, at, clear(70)).as_ref(), b"");
    assert_eq!(answer(&copy, at, clear(70)).as_ref(), b"");
    let at = next();
    for state in [&state, &copy] {
        assert_eq!(counts(state, "gone"), [0; 5]);
        assert_eq!(counts(state, "stays"), full, "others lose nothing");
        let cleared = |rows: &Connection| clearing::cleared(rows, &"gone".parse().expect("a name"));
        assert_eq!(state.database().read(cleared).expect("read"), 70);
    }
    // A workspace of the name is made again; the same deletion takes nothing of it, and a later one does.
    for state in [&state, &copy] {
        answer(state, at, of("gone", turn("c", "t9", DAY_MS)));
        assert_eq!(answer(state, at + 1, clear(70)).as_ref(), b"r", "it was done");
        assert_eq!(counts(state, "gone"), [1, 1, 0, 0, 1]);
        assert_eq!(answer(state, at + 2, clear(90)).as_ref(), b"");
        assert_eq!(counts(state, "gone"), [0; 5]);
    }
}

#[test]
fn snapshots_for_older_readers_know_nothing_of_cleared_workspaces() {
    let dir = tempfile::tempdir().expect("a folder");
    let names = |state: &ShardState| {
        let mut bytes = Vec::new();
        state.freeze().expect("frozen")(&mut bytes).expect("written");
        bytes.windows(b"workspace_cleared".len()).any(|at| at == b"workspace_cleared")
    };
    let record = |state: &ShardState| {
        let command = turn("c", "t1", 1).encode(Format::PROTOBUF).expect("written");
        state.apply(&[Entry { index: 1, term: 1, command }]).expect("applied");
    };
    let older = clearable(&dir.path().join("older.db"), Format::PROTOBUF);
    record(&older);
    assert!(!names(&older), "they would refuse a tenant that they do not know");
    let newer = clearable(&dir.path().join("newer.db"), Format::DELETION);
    record(&newer);
    assert!(names(&newer));
}
