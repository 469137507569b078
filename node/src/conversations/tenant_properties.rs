//! Properties of the conversations' commands, whatever they say: what can be written can be read and applied, and what was
//! applied comes back out of a snapshot.

use bytes::Bytes;
use caxton_proto::WorkspaceId;
use caxton_proto::shard::{Beginning, Step, strategies};
use caxton_raft::{Entry, Machine};
use proptest::collection::vec;
use proptest::prelude::*;

use super::super::log::Piece;
use super::tests::Bench;
use super::*;

/// An entry in either format: few workspaces, turns and conversations, so that commands meet.
fn entry() -> impl Strategy<Value = (Command, Bytes)> {
    let any = prop_oneof![Just(Format::JSON), Just(Format::PROTOBUF)].prop_flat_map(|format| {
        (0..3_u64).prop_flat_map(move |term| strategies::command(format, term)).prop_map(move |it| (format, it))
    });
    (any, 0..2_u8, 0..3_u8, 0..2_u8).prop_map(|((format, mut command), place, id, talk)| {
        let (name, id, talk) = (format!("w{place}").parse().expect("a name"), format!("t{id}"), format!("c{talk}"));
        match &mut command {
            Command::Record(it) => (it.workspace, it.turn, it.conversation) = (name, id, talk),
            Command::Keep(it) => (it.workspace, it.turn) = (name, id),
            Command::Suspend(it) => (it.workspace, it.turn, it.conversation) = (name, id, talk),
            Command::Abandon(it) => (it.workspace, it.turn) = (name, id),
            Command::Forget(it) => (it.workspace, it.conversation) = (name, talk),
        }
        let bytes = command.encode(format).expect("it can be written");
        (command, bytes)
    })
}

/// Bytes that look like entries more often than chance would have it.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let mangled = (entry(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|((_, bytes), at, byte)| {
        let mut bytes = bytes.to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes
    });
    let braced = vec(any::<u8>(), 0..40).prop_map(|rest| [b"{".as_slice(), &rest].concat());
    let body = vec(any::<u8>(), 0..40).prop_map(|body| {
        let (version, tenant) = (Format::PROTOBUF.number(), Envelope::CONVERSATIONS);
        Envelope { version, tenant, term: 0, body: body.into() }.encode().to_vec()
    });
    prop_oneof![vec(any::<u8>(), 0..60), braced, body, mangled]
}

/// Whether a shard may stop at an entry: a newer program may have written it.
fn is_newer(entry: &Bytes) -> bool {
    let newer = |envelope: Envelope| envelope.tenant > 1 || envelope.version > Format::NEWEST.number();
    Command::decode(entry).is_err_and(|error| error.is_newer()) || Envelope::decode(entry).is_ok_and(newer)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn commands_are_applied_and_come_back_out_of_a_snapshot(entries in vec(entry(), 1..12)) {
        let dir = tempfile::tempdir().expect("a folder");
        let state = Bench::open(&dir.path().join("one.db"));
        for (index, (_, bytes)) in (1..).zip(&entries) {
            prop_assert!(state.answer(index, 1, bytes.clone()).is_ok());
        }
        prop_assert_eq!(state.shard.refused().expect("read").len(), 0);
        let copy = Bench::open(&dir.path().join("other.db"));
        copy.shard.restore(&mut state.frozen().as_slice()).expect("restored");
        prop_assert_eq!(copy.shard.applied(), entries.len() as u64);
        prop_assert_eq!(copy.rows(), state.rows());
        for name in ["w0", "w1"] {
            let workspace = name.parse().expect("a name");
            for (_, conversation, _) in state.list(&workspace, None, 100).expect("listed") {
                let turns = copy.turns(&workspace, &conversation, |_| false).expect("what was taken can be read");
                prop_assert_eq!(&turns, &state.turns(&workspace, &conversation, |_| false).expect("read"));
                for turn in turns {
                    let said = entries.iter().any(|(command, _)| {
                        matches!(command, Command::Record(record) if TurnRecord { term: turn.term, ..(**record).clone() } == turn)
                    });
                    prop_assert!(said, "what is read is what was written");
                }
            }
            prop_assert_eq!(copy.waiting(&workspace).expect("read"), state.waiting(&workspace).expect("read"));
        }
    }

    /// The documents of a turn, cut into pieces of any size and kept in either format, are read as they were written.
    #[test]
    fn documents_are_read_as_they_were_written(
        first in strategies::beginning(Format::JSON), newest in strategies::beginning(Format::NEWEST),
        steps in vec(strategies::step(), 0..4), size in 1..200_usize, later: bool,
    ) {
        let dir = tempfile::tempdir().expect("a folder");
        let state = Bench::open(&dir.path().join("one.db"));
        let (format, beginning) = if later { (Format::NEWEST, newest) } else { (Format::JSON, first) };
        let mut documents = vec![beginning.encode(format).expect("written")];
        documents.extend(steps.iter().map(|step| step.encode(format).expect("written")));
        let mut pieces = Vec::new();
        for document in &documents {
            // Text is cut into no pieces here: where a character ends is the writer's to know.
            let size = if later { size } else { document.len() };
            let last = document.len().div_ceil(size) - 1;
            for (at, content) in document.chunks(size).enumerate() {
                pieces.push(Piece { number: pieces.len() as u32, last: at == last, content: content.to_vec() });
            }
        }
        let workspace: WorkspaceId = "team".parse().expect("a name");
        let (kind, turn) = (DocumentKind::Journal, "t1".to_owned());
        let keep = Command::Keep(Keep { workspace: workspace.clone(), turn, term: 1, kind, pieces });
        prop_assert_eq!(state.answer(1, 1, keep.encode(format).expect("written")), Ok(Effect::Applied));
        let copy = Bench::open(&dir.path().join("other.db"));
        copy.shard.restore(&mut state.frozen().as_slice()).expect("restored");
        for state in [state, copy] {
            let kept = state.kept(&workspace, "t1", kind).expect("read").whole;
            prop_assert_eq!(&Beginning::decode(&kept[0]).expect("read"), &beginning);
            let read: Vec<Step> = kept[1..].iter().map(|step| Step::decode(step).expect("read")).collect();
            prop_assert_eq!(&read, &steps);
        }
    }

    #[test]
    fn no_bytes_end_a_shard(entries in vec(bytes().prop_map(Bytes::from), 1..20)) {
        let dir = tempfile::tempdir().expect("a folder");
        let state = Bench::open(&dir.path().join("one.db"));
        let entries: Vec<Bytes> = entries.into_iter().filter(|entry| !is_newer(entry)).collect();
        let entries: Vec<Entry> =
            (1..).zip(entries).map(|(index, command)| Entry { index, term: 1, command }).collect();
        let answers = state.shard.apply(&entries).expect("applied");
        prop_assert_eq!(answers.len(), entries.len());
        prop_assert_eq!(state.shard.applied(), entries.len() as u64);
    }
}
