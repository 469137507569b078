//! Journals of turns as older builds wrote them, and what goes on from them.

use caxton_proto::Format;

use super::*;
use crate::agent::attachments::Visible;
use crate::agent::turn::{Action, Next};
use crate::invoke::kept::request_digest;

/// The journal of a turn that waits for a person, as the first format has it: a document a line.
const JOURNAL: &str = include_str!("golden/journal-1.jsonl");

fn documents(more: &[shard::Step]) -> Documents {
    let mut whole: Vec<Vec<u8>> = JOURNAL.lines().map(|line| line.as_bytes().to_vec()).collect();
    whole.extend(more.iter().map(|step| step.encode(Format::PROTOBUF).expect("written")));
    let next = whole.len() as u32;
    Documents { whole, next }
}

#[test]
fn a_turn_that_an_older_build_kept_waits_as_it_did() {
    assert_eq!(request_digest(&documents(&[])).expect("read").as_deref(), Some("0a1b"));
    let ReplayedTurn { beginning, run, shelf, ledger, taken_up, next } = replay(documents(&[])).expect("replayed");
    assert_eq!((beginning.turn.as_str(), beginning.conversation.as_str(), next), ("0198a5", "c-1", 6));
    let shard::Route::Capability { capability, score } = &beginning.route else { panic!("{:?}", beginning.route) };
    assert_eq!((capability.as_str(), *score), ("pay bills", 0.75));
    assert_eq!(shelf.get("bill.csv").expect("kept").content.len(), 14);
    let spent: Vec<_> = ledger.all().into_iter().map(|(agent, spent)| (agent.to_string(), spent.tokens)).collect();
    assert_eq!((spent, taken_up), (vec![("adder".to_owned(), 12), ("clerk".to_owned(), 120)], 1));
    assert_eq!(run.turn.spent().elapsed_ms, 800);
    let [pending] = run.pending().try_into().expect("one call waits");
    assert_eq!((pending.way, pending.agent.as_str()), (vec!["c2".to_owned()], "clerk"));
    let Action::Tool { tool, arguments } = pending.call.action else { panic!("{:?}", pending.call) };
    let arguments = serde_json::Value::Object(arguments);
    assert_eq!((tool.as_str(), arguments), ("bank_pay", serde_json::json!({ "sum": 3.5, "to": { "name": "ü" } })));
}

#[test]
fn it_goes_on_in_the_format_that_is_written_now() {
    let decided = shard::Step::Decided { way: vec!["c2".into()], decision: shard::Decision::Approved };
    let ReplayedTurn { run, .. } = replay(documents(std::slice::from_ref(&decided))).expect("replayed");
    assert!(matches!(run.turn.next(), Next::Call(calls) if calls[0].id == "c2"), "the call can be made");
    let result =
        shard::CallResult { text: "paid".into(), failed: false, usage: shard::Usage::default(), truncated: false };
    let (files, visible) = (Vec::new(), Visible::new());
    let returned = shard::Step::Returned { way: Vec::new(), call: "c2".into(), result, files, visible };
    let ReplayedTurn { run, .. } = replay(documents(&[decided, returned])).expect("replayed");
    assert!(matches!(run.turn.next(), Next::AskModel { .. }) && run.said().len() == 4, "{:?}", run.said());
}
