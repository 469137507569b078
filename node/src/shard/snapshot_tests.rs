//! Snapshots of a shard: what one format wrote every later program restores, and what a newer program wrote is refused.

use std::path::Path;
use std::sync::Arc;

use caxton_raft::{Entry, GroupId, Machine};
use proptest::collection::vec;
use proptest::prelude::*;

use super::super::WrittenFormat;
use super::super::envelope::Envelope;
use super::super::machine::State;
use super::super::notes::{NOTES, newest, notes, notes_beside};
use super::*;
use crate::conversations::ConversationsTenant;

/// What this program writes for the notes of [`noted`]. Whatever changes these bytes needs a new format, and a reader for this
/// one.
const GOLDEN: &str = include_str!("golden/snapshot-2.hex");

fn open(dir: &Path, name: &str, layout: u32) -> Arc<State> {
    State::open(&dir.join(name), GroupId(1), newest(), notes(layout)).expect("opened")
}

fn apply(state: &State, index: u64, body: &str) {
    let envelope = Envelope { version: 1, tenant: NOTES, term: 0, body: body.to_owned().into() };
    state.apply(&[Entry { index, term: 1, command: envelope.encode() }]).expect("applied");
}

fn noted(state: &State) {
    for (index, body) in (1..).zip(["7 seven", "8 odd", "9 refused", "-1 three words é"]) {
        apply(state, index, body);
    }
}

fn frozen(state: &State) -> Vec<u8> {
    let mut bytes = Vec::new();
    state.freeze().expect("frozen")(&mut bytes).expect("written");
    bytes
}

fn golden() -> Vec<u8> {
    hex::decode(GOLDEN.split_whitespace().collect::<String>()).expect("hexadecimal")
}

fn rows(state: &State, sql: &str) -> Vec<Vec<Value>> {
    let read = |db: &Connection| -> rusqlite::Result<Vec<Vec<Value>>> {
        let mut statement = db.prepare(sql)?;
        let columns = statement.column_count();
        statement.query_map([], |row| (0..columns).map(|column| row.get(column)).collect())?.collect()
    };
    state.database().scan(read).expect("read")
}

fn restore(state: &State, bytes: &[u8]) -> Result<(), String> {
    state.restore(&mut &*bytes).map_err(|error| crate::errors::chain(&error))
}

#[test]
fn a_snapshot_has_the_bytes_that_it_always_had_and_is_restored() {
    let dir = tempfile::tempdir().expect("a folder");
    let [state, copy] = ["one.db", "other.db"].map(|name| open(dir.path(), name, 1));
    noted(&state);
    assert_eq!(hex::encode(frozen(&state)), hex::encode(golden()));
    apply(&copy, 1, "5 goes");
    restore(&copy, &golden()).expect("restored");
    assert_eq!((copy.applied(), copy.refused().expect("read")), (4, state.refused().expect("read")));
    let odd = vec![Value::Real(0.1), Value::Null, Value::Blob(vec![0, 255])];
    assert_eq!(rows(&copy, "SELECT * FROM odd"), [odd]);
    let words = [(-1, 3), (7, 1), (8, 1)].map(|(number, words)| vec![Value::Integer(number), Value::Integer(words)]);
    assert_eq!(rows(&copy, "SELECT * FROM words ORDER BY number"), words, "what is derived is made again");
    assert_eq!(frozen(&copy), golden());
    for cut in [0, 1, 20, golden().len() / 2, golden().len() - 3] {
        restore(&copy, &golden()[..cut]).expect_err("a cut one is noticed");
        assert_eq!((copy.applied(), frozen(&copy)), (4, golden()), "and changes nothing");
    }
}

/// A node that just started may not know yet that all members read a newer format.
#[test]
fn what_only_a_newer_form_can_hold_is_written_in_it_whatever_the_format_in_force() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = |name: &str| {
        let older = WrittenFormat::new(|| Format::JSON);
        State::open(&dir.path().join(name), GroupId(1), older, notes_beside(ConversationsTenant)).expect("opened")
    };
    let state = opened("one.db");
    assert_ne!(frozen(&state).first(), Some(&FORMAT), "nothing but what older members know");
    apply(&state, 1, "7 seven");
    let copy = opened("other.db");
    restore(&copy, &frozen(&state)).expect("restored");
    assert_eq!(rows(&copy, "SELECT number FROM note"), [[Value::Integer(7)]]);
}

#[test]
fn a_column_that_was_added_gets_its_default_out_of_an_older_snapshot() {
    let dir = tempfile::tempdir().expect("a folder");
    let newer = open(dir.path(), "newer.db", 2);
    restore(&newer, &golden()).expect("restored");
    let notes = rows(&newer, "SELECT number, color, text FROM note ORDER BY number");
    let text = |text: &str| Value::Text(text.to_owned());
    assert_eq!(notes[0], [Value::Integer(-1), text("plain"), text("three words é")]);
    assert_eq!(notes.len(), 3);
}

#[test]
fn what_a_newer_program_wrote_is_refused_as_a_whole_and_says_what_to_do() {
    let dir = tempfile::tempdir().expect("a folder");
    let [state, none] = ["one.db", "none.db"].map(|name| open(dir.path(), name, 1));
    noted(&state);
    let changed = |from: &[u8], to: &[u8]| {
        let bytes = golden();
        let at = bytes.windows(from.len()).position(|window| window == from).expect("there");
        [&bytes[..at], to, &bytes[at + from.len()..]].concat()
    };
    let newer = open(dir.path(), "newer.db", 2);
    noted(&newer);
    for (bytes, what) in [
        (frozen(&newer), "tables of a newer version"),
        (changed(b"T\0\0\0\x09", b"T\0\0\0\x4d"), "a tenant"),
        (changed(b"\0\0\0\x04note", b"\0\0\0\x04nota"), "a table"),
        (changed(b"\0\0\0\x04text", b"\0\0\0\x04tint"), "a column"),
        ([&[9][..], &golden()[1..]].concat(), "a format"),
    ] {
        let said = restore(&none, &bytes).expect_err(what);
        assert!(said.contains("upgrade"), "{what}: {said}");
        assert_eq!((none.applied(), rows(&none, "SELECT * FROM note").len()), (0, 0), "{what}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_but_a_snapshot_are_restored(at in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let dir = tempfile::tempdir().expect("a folder");
        let state = open(dir.path(), "one.db", 1);
        let mut bytes = golden();
        for (at, byte) in at {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        // Whatever it says, it is restored as a whole or not at all, and nothing ends.
        let restored = restore(&state, &bytes);
        prop_assert_eq!(restored.is_ok(), state.applied() != 0 || rows(&state, "SELECT * FROM note").len() == 3);
    }
}
