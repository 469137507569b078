//! The state of a shard, entry by entry: what is refused and what stops it, what a crash takes, and when it is on disk.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::envelope::Envelope;
use super::super::notes::{NOTES, newest, notes};
use super::*;

fn open(file: &Path) -> Arc<State> {
    State::open(file, GroupId(1), newest(), notes(1)).expect("opened")
}

fn in_folder() -> (tempfile::TempDir, Arc<State>) {
    let dir = tempfile::tempdir().expect("a folder");
    let state = open(&dir.path().join("one.db"));
    (dir, state)
}

fn envelope(body: &str) -> Envelope {
    Envelope { version: 1, tenant: NOTES, term: 0, body: body.to_owned().into() }
}

fn entry(index: u64, envelope: &Envelope) -> Entry {
    Entry { index, term: 1, command: envelope.encode() }
}

fn note(state: &State, index: u64) -> Result<Answer, Refusal> {
    let entry = entry(index, &envelope(&format!("{index} note")));
    refused::decode(&state.apply(&[entry]).expect("applied")[0])
}

fn numbers(state: &State, table: &str) -> Vec<i64> {
    let numbers = |rows: &Connection| -> rusqlite::Result<Vec<i64>> {
        let mut statement = rows.prepare(&format!("SELECT number FROM {table} ORDER BY number"))?;
        statement.query_map([], |row| row.get(0))?.collect()
    };
    state.database().read(numbers).expect("read")
}

#[test]
fn a_refused_entry_is_taken_back_and_what_is_around_it_stays() {
    let (dir, state) = in_folder();
    let bodies = ["1 one", "2 refused", "no number", "3 three", "3 again", "4 four"];
    let entries: Vec<Entry> = (1..).zip(bodies).map(|(index, body)| entry(index, &envelope(body))).collect();
    let answers: Vec<_> = state.apply(&entries).expect("applied").iter().map(refused::decode).collect();
    let applied =
        |body: &'static str| Ok(Answer { effect: Effect::Applied, body: Bytes::from_static(body.as_bytes()) });
    let why = |refused: &Result<Answer, Refusal>| refused.clone().expect_err("refused").reason().to_owned();
    assert_eq!((&answers[0], &answers[3], &answers[5]), (&applied("one"), &applied("three"), &applied("four")));
    assert_eq!((why(&answers[1]).as_str(), why(&answers[2]).as_str()), ("nobody wants it", "no number"));
    assert!(why(&answers[4]).contains("do not fit"), "the number is taken: {}", why(&answers[4]));
    assert!(!why(&answers[4]).contains("again"), "a value is nobody's business");
    for table in ["note", "words"] {
        assert_eq!(numbers(&state, table), [1, 3, 4], "{table}");
    }
    let rows = state.refused().expect("read");
    assert_eq!(rows.iter().map(|it| (it.index, it.tenant)).collect::<Vec<_>>(), [(2, NOTES), (3, NOTES), (5, NOTES)]);
    assert_eq!(rows[0].reason, "nobody wants it");
    drop(state);
    let state = open(&dir.path().join("one.db"));
    assert_eq!((state.applied(), state.refused().expect("read")), (6, rows));
}

#[test]
fn what_is_no_entry_is_refused_for_nobody() {
    let (_dir, state) = in_folder();
    for (index, command) in (1..).zip([&b""[..], b"\xff\xff", b"{\"v\":1}"]) {
        let entry = Entry { index, term: 1, command: Bytes::from_static(command) };
        assert!(refused::decode(&state.apply(&[entry]).expect("applied")[0]).is_err());
        assert!(matches!(state.check(&Bytes::from_static(command), 1), Err(ApplyError::Refused(_))));
    }
    assert_eq!(state.refused().expect("read").iter().map(|it| it.tenant).collect::<Vec<_>>(), [0, 0, 0]);
    assert_eq!(note(&state, 4).expect("applied").effect, Effect::Applied);
}

#[test]
fn refused_entries_raise_an_alarm() {
    let metrics = crate::telemetry::metrics();
    let count = || {
        let text = metrics.render();
        let line = text.lines().find(|line| line.starts_with("caxton_shard_refused_entries_total{tenant=\"notes\"}"));
        line.and_then(|line| line.rsplit(' ').next()).map_or(0, |count| count.parse::<u64>().expect("a number"))
    };
    let before = count();
    let (_dir, state) = in_folder();
    state.apply(&[entry(1, &envelope("1 refused"))]).expect("applied");
    assert!(count() > before);
}

#[test]
fn only_the_newest_refused_entries_are_kept() {
    let (_dir, state) = in_folder();
    let many: Vec<Entry> = (1..=1_100).map(|index| entry(index, &envelope("no number"))).collect();
    state.apply(&many).expect("applied");
    let refused = state.refused().expect("read");
    assert_eq!((refused.len(), refused[0].index), (1_000, 101));
}

#[test]
fn what_a_newer_program_wrote_stops_the_shard_and_says_what_to_do() {
    let newer = [Envelope { version: 2, ..envelope("1 one") }, Envelope { tenant: 77, ..envelope("1 one") }];
    for newer in newer {
        let (_dir, state) = in_folder();
        note(&state, 1).expect("applied");
        let stopped = state.apply(&[entry(2, &newer)]).expect_err("others may be able to apply it");
        assert!(crate::errors::chain(&stopped).contains("upgrade"), "{stopped:?}");
        state.apply(&[entry(3, &envelope("3 x"))]).expect_err("nothing may follow what is missing");
    }
}

#[test]
fn an_entry_of_another_term_changes_nothing() {
    let (_dir, state) = in_folder();
    for (index, term, effect) in [(1, 2, Effect::Fenced), (2, 1, Effect::Applied), (3, 0, Effect::Applied)] {
        let fenced = Envelope { term, ..envelope(&format!("{index} x")) };
        let answers = state.apply(&[entry(index, &fenced)]).expect("applied");
        assert_eq!(refused::decode(&answers[0]).expect("not refused").effect, effect);
    }
    assert_eq!(numbers(&state, "note"), [2, 3]);
}

#[test]
fn a_failure_of_the_database_stops_the_state_until_it_is_opened_again() {
    let (dir, state) = in_folder();
    note(&state, 1).expect("applied");
    state.database.writer().commit().expect("committed");
    let entries = [entry(2, &envelope("2 two")), entry(3, &envelope("3 broken"))];
    state.apply(&entries).expect_err("only this replica knows why");
    let stopped = state.apply(&[entry(4, &envelope("4 four"))]).expect_err("nothing may follow what is missing");
    let said = crate::errors::chain(&stopped);
    assert!(said.contains("start the node again"), "{said}");
    assert!(state.refused().is_err(), "and nothing is read of it");
    drop(state);
    let state = open(&dir.path().join("one.db"));
    assert_eq!((state.applied(), numbers(&state, "note")), (1, vec![1]));
}

#[test]
fn what_a_crash_takes_the_log_gives_again() {
    let (dir, state) = in_folder();
    let crashed = dir.path().join("crashed.db");
    for index in 1..=5 {
        note(&state, index).expect("applied");
        assert_eq!(numbers(&state, "note").len() as u64, index, "what was applied is read, committed or not");
        if index == 2 {
            state.database.writer().commit().expect("committed");
        }
    }
    // The files as a killed process leaves them.
    for end in ["db", "db-wal"] {
        std::fs::copy(dir.path().join("one").with_extension(end), crashed.with_extension(end)).expect("copied");
    }
    let copy = open(&crashed);
    let had = copy.applied();
    assert!((2..=5).contains(&had), "{had}");
    assert_eq!(numbers(&copy, "note").len() as u64, had, "what is there, and how far it goes, are of one moment");
    for index in had + 1..=5 {
        note(&copy, index).expect("applied");
    }
    assert_eq!(numbers(&copy, "note"), numbers(&state, "note"));
}

#[test]
fn what_was_written_is_committed_soon() {
    let (dir, state) = in_folder();
    let committed = || {
        let beside = Connection::open(dir.path().join("one.db")).expect("open");
        beside.query_row("SELECT number FROM applied", [], |row| row.get::<_, i64>(0)).expect("read").cast_unsigned()
    };
    for index in 1..=3 {
        note(&state, index).expect("applied");
        while committed() < index {
            std::thread::yield_now();
        }
    }
    note(&state, 4).expect("applied");
    drop(state);
    assert_eq!(committed(), 4, "closing commits");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever comes together with what, it is the same as one by one.
    #[test]
    fn batches_do_what_their_entries_do_one_by_one(
        bodies in vec("[1-6] (one|two words|refused|odd)|nothing", 1..12),
        cuts in vec(any::<prop::sample::Index>(), 0..3),
    ) {
        let entries: Vec<Entry> = (1..).zip(&bodies).map(|(index, body)| entry(index, &envelope(body))).collect();
        let dir = tempfile::tempdir().expect("a folder");
        let [one, other] = ["one.db", "other.db"].map(|name| open(&dir.path().join(name)));
        let alone: Vec<Bytes> = entries.iter().flat_map(|it| one.apply(std::slice::from_ref(it)).expect("applied")).collect();
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(entries.len())).chain([0, entries.len()]).collect();
        at.sort_unstable();
        let batches = at.windows(2).map(|pair| &entries[pair[0]..pair[1]]);
        let together: Vec<Bytes> = batches.flat_map(|batch| other.apply(batch).expect("applied")).collect();
        prop_assert_eq!(together, alone);
        prop_assert_eq!(one.refused().expect("read"), other.refused().expect("read"));
        for table in ["note", "words"] {
            prop_assert_eq!(numbers(&one, table), numbers(&other, table));
        }
    }
}
