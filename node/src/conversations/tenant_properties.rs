//! Properties of the conversations' commands, whatever they say: what can be written can be read and applied, and what was
//! applied comes back out of a snapshot.

use bytes::Bytes;
use caxton_proto::{Revision, WorkspaceId};
use caxton_raft::{Entry, Machine};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message as _;
use serde_json::Value;

use super::super::log::{Ending, Piece};
use super::tests::{Bench, nested};
use super::*;
use crate::agent::turn::Failure;
use crate::api::messages::{ApprovalInfo, Attachment, AttachmentInfo, Content as FileContent, Route};
use crate::llm::budget::Spent;
use crate::llm::{Message, Part, ToolCall};
use crate::shard::envelope::Envelope;

/// Few, so that commands meet.
fn workspace() -> impl Strategy<Value = WorkspaceId> {
    prop_oneof![Just("team"), Just("other")].prop_map(|name| name.parse().expect("a name"))
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![3 => "[ab]", 1 => any::<String>()]
}

fn usage() -> impl Strategy<Value = Usage> {
    (count(), count()).prop_map(|(input, output)| Usage { input, output })
}

fn count() -> impl Strategy<Value = u64> {
    prop_oneof![0..1_000_u64, any::<u64>(), Just(1 << 62), Just(u64::MAX)]
}

/// JSON of any shape, some of it deeper than can be read.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    let tree = leaf.prop_recursive(4, 16, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::from),
            vec((any::<String>(), inner), 0..3).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    });
    prop_oneof![5 => tree, 1 => (0..200_usize).prop_map(nested)]
}

fn message() -> impl Strategy<Value = Message> {
    let call = any::<[String; 3]>().prop_map(|[id, tool, arguments]| ToolCall { id, tool, arguments });
    prop_oneof![
        any::<String>().prop_map(Message::system),
        any::<String>().prop_map(Message::user),
        any::<String>().prop_map(|url| Message::User { parts: vec![Part::Image { url }] }),
        (any::<String>(), vec(call, 0..3), option::of(any::<String>()))
            .prop_map(|(text, calls, echo)| Message::Assistant { text, calls, echo }),
        (any::<[String; 3]>(), any::<bool>()).prop_map(|([call, tool, text], failed)| Message::Tool {
            call,
            tool,
            text,
            failed
        }),
    ]
}

fn ending() -> impl Strategy<Value = Ending> {
    let route = prop_oneof![
        Just(Route::Address),
        Just(Route::Conversation),
        (any::<String>(), any::<f32>()).prop_map(|(capability, score)| Route::Capability { capability, score }),
    ];
    let failure = option::of(any::<String>().prop_map(|reason| Failure::Model { reason }));
    let content =
        prop_oneof![any::<String>().prop_map(FileContent::Text), any::<String>().prop_map(FileContent::Base64),];
    let file = (any::<[String; 2]>(), content).prop_map(|([name, media_type], content)| Attachment {
        name,
        media_type,
        content,
    });
    (route, any::<bool>(), any::<[u32; 2]>(), failure, vec(file, 0..2), option::of(any::<String>())).prop_map(
        |(route, cut, [steps, files_omitted], failure, files, asked)| Ending {
            route,
            cut,
            steps,
            failure,
            files,
            files_omitted,
            asked,
        },
    )
}

fn record() -> impl Strategy<Value = Command> {
    let who = (workspace(), name(), name(), any::<String>(), count(), count());
    let attachment = (any::<[String; 2]>(), any::<usize>()).prop_map(|([name, media_type], bytes)| AttachmentInfo {
        name,
        media_type,
        bytes,
    });
    let spent = (0..2_u8, count(), count())
        .prop_map(|(agent, tokens, cost)| (format!("agent{agent}").parse().expect("a name"), Spent { tokens, cost }));
    let said = (vec(message(), 0..4), vec(attachment, 0..2), vec(spent, 0..3), usage());
    let rest = (any::<[u64; 2]>(), option::of(any::<String>()), option::of(ending()), 0..3_u64);
    (who, said, rest).prop_map(|(who, said, rest)| {
        let (workspace, conversation, turn, subject, time_ms, _) = who;
        let (messages, attachments, spent, usage) = said;
        let ([duration_ms, revision], failure, ending, term) = rest;
        Command::Record(Box::new(Turn {
            workspace,
            conversation,
            turn,
            agent: "worker".parse().expect("a name"),
            subject,
            time_ms,
            messages,
            attachments,
            usage,
            spent,
            duration_ms,
            revision: Revision(revision),
            failure,
            ending,
            term,
        }))
    })
}

fn keep() -> impl Strategy<Value = Command> {
    let piece = (prop_oneof![0..4_u32, any::<u32>()], any::<bool>(), any::<String>())
        .prop_map(|(number, ends, text)| Piece { number, ends, text });
    let of = prop_oneof![Just(Kept::Journal), Just(Kept::Files)];
    (workspace(), name(), 0..3_u64, of, vec(piece, 0..4))
        .prop_map(|(workspace, turn, term, of, pieces)| Command::Keep(Keep { workspace, turn, term, of, pieces }))
}

fn wait() -> impl Strategy<Value = Command> {
    let approval = (workspace(), any::<[String; 4]>(), json()).prop_map(|(workspace, texts, arguments)| {
        let [id, conversation, tool, since] = texts;
        let agent = "worker".parse().expect("a name");
        ApprovalInfo { id, workspace, conversation, agent, tool, arguments, since }
    });
    (workspace(), name(), name(), 0..3_u64, vec(approval, 0..3)).prop_map(
        |(workspace, turn, conversation, term, approvals)| {
            Command::Wait(Box::new(Waiting { workspace, turn, conversation, term, approvals }))
        },
    )
}

fn command() -> impl Strategy<Value = Command> {
    let abandon = (workspace(), name(), 0..3_u64)
        .prop_map(|(workspace, turn, term)| Command::Abandon(Abandon { workspace, turn, term }));
    let forget =
        (workspace(), name()).prop_map(|(workspace, conversation)| Command::Forget { workspace, conversation });
    prop_oneof![4 => record(), 2 => keep(), 2 => wait(), 1 => abandon, 1 => forget]
}

/// Bytes that look like entries more often than chance would have it.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let mangled =
        (command(), any::<prop::sample::Index>(), any::<u8>()).prop_filter_map("written", |(command, at, byte)| {
            let mut bytes = command.encode().ok()?.to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            Some(bytes)
        });
    let braced = vec(any::<u8>(), 0..40).prop_map(|rest| [b"{".as_slice(), &rest].concat());
    prop_oneof![vec(any::<u8>(), 0..60), braced, json().prop_map(|it| it.to_string().into_bytes()), mangled]
}

/// Whether a shard may stop at an entry: a newer program may have written it.
fn is_newer(entry: &Bytes) -> bool {
    let bare = matches!(Command::decode(entry), Err(DecodeError::Version { found: 2.. }));
    bare || Envelope::decode(entry.as_ref()).is_ok_and(|it| it.tenant > 1 || it.version > 1)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn commands_are_applied_and_come_back_out_of_a_snapshot(commands in vec(command(), 1..12)) {
        let dir = tempfile::tempdir().expect("a folder");
        let state = Bench::open(&dir.path().join("one.db"));
        let mut refused = 0;
        for (index, command) in (1..).zip(&commands) {
            let bytes = command.encode().expect("it can be written");
            match Command::decode(&bytes) {
                Ok(_) => {
                    prop_assert!(state.answer(index, 1, bytes).is_ok());
                }
                Err(_) => {
                    refused += 1;
                    prop_assert!(state.answer(index, 1, bytes).is_err());
                }
            }
        }
        prop_assert_eq!(state.shard.refused().expect("read").len(), refused);
        let copy = Bench::open(&dir.path().join("other.db"));
        copy.shard.restore(&mut state.frozen().as_slice()).expect("restored");
        prop_assert_eq!(copy.shard.applied(), commands.len() as u64);
        prop_assert_eq!(copy.rows(), state.rows());
        for name in ["team", "other"] {
            let workspace = name.parse().expect("a name");
            for (_, conversation, _) in state.list(&workspace, None, 100).expect("listed") {
                let turns = copy.turns(&workspace, &conversation, |_| false).expect("what was taken can be read");
                prop_assert_eq!(turns, state.turns(&workspace, &conversation, |_| false).expect("read"));
            }
            prop_assert_eq!(copy.waiting(&workspace).expect("read"), state.waiting(&workspace).expect("read"));
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
