//! Arbitrary values of everything that a shard keeps, for property tests: any text, any number within its limit, anything
//! absent that may be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option::of as maybe;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::{AgentName, Digest, Revision, WorkspaceId};

/// Any text, with what JSON has to escape and what takes more than a byte.
fn text() -> BoxedStrategy<String> {
    prop_oneof![8 => "\\PC{0,24}", 1 => any::<String>(), 1 => Just("\u{0}\"\\\u{2028}é".to_owned())].boxed()
}

fn names() -> impl Strategy<Value = BTreeSet<String>> {
    btree_set(text(), 0..3)
}

fn way() -> impl Strategy<Value = Vec<String>> {
    vec(text(), 0..3)
}

/// The name of a workspace.
pub fn workspace() -> impl Strategy<Value = WorkspaceId> {
    "[a-z0-9][a-z0-9_-]{0,62}".prop_filter_map("a name", |name| name.parse().ok())
}

fn agent() -> impl Strategy<Value = AgentName> {
    "[a-z0-9][a-z0-9_-]{0,62}".prop_filter_map("a name", |name| name.parse().ok())
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest::from_bytes)
}

fn count() -> impl Strategy<Value = u64> {
    prop_oneof![0..=COUNT_MAX, Just(0), Just(COUNT_MAX)]
}

fn time() -> impl Strategy<Value = u64> {
    prop_oneof![0..=TIME_MS_MAX, Just(0), Just(TIME_MS_MAX)]
}

fn usage() -> impl Strategy<Value = Usage> {
    (count(), count()).prop_map(|(input, output)| Usage { input, output })
}

fn spent() -> impl Strategy<Value = Spent> {
    (count(), count()).prop_map(|(tokens, cost)| Spent { tokens, cost })
}

fn plain_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(text(), inner, 0..4).prop_map(|fields| fields.into_iter().collect()),
        ]
    })
}

/// A JSON value, up to as deep as one that a model may write.
pub fn json() -> BoxedStrategy<JsonText> {
    let deep =
        (0..=JSON_DEPTH_MAX).prop_map(|depth| format!("{}{}", "[".repeat(depth.max(1)), "]".repeat(depth.max(1))));
    let plain = plain_json().prop_map(|value| value.to_string());
    prop_oneof![4 => plain, 1 => deep].prop_filter_map("JSON", |text| JsonText::take(&text).ok()).boxed()
}

fn call() -> BoxedStrategy<ToolCall> {
    (text(), text(), text()).prop_map(|(id, tool, arguments)| ToolCall { id, tool, arguments }).boxed()
}

fn message() -> BoxedStrategy<Message> {
    let part = prop_oneof![text().prop_map(|text| Part::Text { text }), text().prop_map(|url| Part::Image { url })];
    prop_oneof![
        text().prop_map(|text| Message::System { text }),
        vec(part, 0..3).prop_map(|parts| Message::User { parts }),
        (text(), vec(call(), 0..3), maybe(text())).prop_map(|(text, calls, echo)| Message::Assistant {
            text,
            calls,
            echo
        }),
        (text(), text(), text(), any::<bool>()).prop_map(|(call, tool, text, failed)| Message::Tool {
            call,
            tool,
            text,
            failed
        }),
    ]
    .boxed()
}

/// Any file, of text or of bytes.
pub fn attachment() -> BoxedStrategy<Attachment> {
    let content = prop_oneof![text().prop_map(Content::Text), text().prop_map(Content::Base64)];
    (text(), text(), content).prop_map(|(name, media_type, content)| Attachment { name, media_type, content }).boxed()
}

fn route() -> BoxedStrategy<Route> {
    let score = any::<f32>().prop_filter("finite", |score| score.is_finite());
    prop_oneof![
        Just(Route::Address),
        (text(), score).prop_map(|(capability, score)| Route::Capability { capability, score })
    ]
    .boxed()
}

fn failure() -> BoxedStrategy<Failure> {
    prop_oneof![
        any::<u32>().prop_map(|steps_max| Failure::StepsSpent { steps_max }),
        (count(), count()).prop_map(|(used, tokens_max)| Failure::TokensSpent { used, tokens_max }),
        time().prop_map(|wall_ms_max| Failure::TimeSpent { wall_ms_max }),
        (text(), any::<u32>()).prop_map(|(tool, times)| Failure::Loop { tool, times }),
        Just(Failure::Silent),
        Just(Failure::Withheld),
        text().prop_map(|reason| Failure::Model { reason }),
        Just(Failure::Stopped),
        text().prop_map(|reason| Failure::GivenUp { reason }),
    ]
    .boxed()
}

/// What the sender said, where `format` can say it.
fn request(format: Format) -> BoxedStrategy<Option<String>> {
    if format < Format::DELETION { Just(None).boxed() } else { maybe(text()).boxed() }
}

fn ending(format: Format) -> BoxedStrategy<Ending> {
    let files = (vec(attachment(), 0..3), any::<u32>());
    let asked = (maybe(text()), request(format));
    (route(), any::<bool>(), any::<u32>(), maybe(failure()), files, asked)
        .prop_map(|(route, truncated, steps, failure, (files, files_omitted), (request_digest, request))| Ending {
            route,
            truncated,
            steps,
            failure,
            files,
            files_omitted,
            request_digest,
            request,
        })
        .boxed()
}

/// A record of a turn that ran under `term`.
fn record(format: Format, term: u64) -> BoxedStrategy<TurnRecord> {
    let who = (workspace(), text(), text(), agent(), text());
    let info =
        (text(), text(), count()).prop_map(|(name, media_type, bytes)| AttachmentInfo { name, media_type, bytes });
    let said = (vec(message(), 0..4), vec(info, 0..3));
    let took = (time(), usage(), vec((agent(), spent()), 0..3), time(), count().prop_map(Revision));
    (who, said, took, maybe(text()), maybe(ending(format)))
        .prop_map(move |(who, said, took, failure, ending)| {
            let (workspace, conversation, turn, agent, subject) = who;
            let ((messages, attachments), (time_ms, usage, spent, duration_ms, revision)) = (said, took);
            TurnRecord {
                workspace,
                conversation,
                turn,
                agent,
                subject,
                time_ms,
                messages,
                attachments,
                usage,
                spent,
                duration_ms,
                revision,
                failure,
                ending,
                term,
            }
        })
        .boxed()
}

fn approval() -> BoxedStrategy<Approval> {
    (text(), workspace(), text(), agent(), text(), json(), text())
        .prop_map(|(id, workspace, conversation, agent, tool, arguments, since)| Approval {
            id,
            workspace,
            conversation,
            agent,
            tool,
            arguments,
            since,
        })
        .boxed()
}

/// Any command that can be said in `format`, under `term` where it has one.
pub fn command(format: Format, term: u64) -> BoxedStrategy<Command> {
    let content = if format == Format::JSON {
        text().prop_map(String::into_bytes).boxed()
    } else {
        vec(any::<u8>(), 0..48).boxed()
    };
    let piece =
        (any::<u32>(), any::<bool>(), content).prop_map(|(number, last, content)| Piece { number, last, content });
    let mut kinds = std::vec![DocumentKind::Journal, DocumentKind::Files];
    kinds.extend((format >= Format::DELETION).then_some(DocumentKind::Brought));
    let kind = proptest::sample::select(kinds);
    prop_oneof![
        record(format, term).prop_map(|record| Command::Record(Box::new(record))),
        (workspace(), text(), kind, vec(piece, 0..4)).prop_map(move |(workspace, turn, kind, pieces)| {
            Command::Keep(Keep { workspace, turn, term, kind, pieces })
        }),
        (workspace(), text(), text(), vec(approval(), 0..3)).prop_map(
            move |(workspace, turn, conversation, approvals)| {
                Command::Suspend(Box::new(Suspension { workspace, turn, conversation, term, approvals }))
            }
        ),
        (workspace(), text()).prop_map(move |(workspace, turn)| Command::Abandon(Abandon { workspace, turn, term })),
        (workspace(), text()).prop_map(|(workspace, conversation)| Command::Forget(Forget { workspace, conversation })),
    ]
    .boxed()
}

fn result() -> BoxedStrategy<CallResult> {
    (text(), any::<bool>(), usage(), any::<bool>())
        .prop_map(|(text, failed, usage, truncated)| CallResult { text, failed, usage, truncated })
        .boxed()
}

fn action() -> BoxedStrategy<Action> {
    prop_oneof![
        (text(), json()).prop_map(|(tool, arguments)| Action::Tool { tool, arguments }),
        (text(), maybe(text()))
            .prop_map(|(request, capability)| Action::AskCapability(AskCapability { request, capability })),
        maybe(text()).prop_map(|about| Action::ListCapabilities(ListCapabilities { about })),
        (text(), text()).prop_map(|(tool, problem)| Action::Refuse { tool, problem }),
    ]
    .boxed()
}

fn phase() -> BoxedStrategy<Phase> {
    let state = prop_oneof![
        Just(SlotState::Ready),
        Just(SlotState::WaitsForApproval),
        result().prop_map(|result| SlotState::Returned { result })
    ];
    let slot = (text(), action(), digest(), state).prop_map(|(id, action, key, state)| Slot {
        call: Call { id, action },
        key,
        state,
    });
    let outcome = prop_oneof![
        (text(), any::<bool>()).prop_map(|(text, truncated)| Outcome::Answered { text, truncated }),
        (text(), vec(call(), 0..3)).prop_map(|(text, calls)| Outcome::SenderCalls { text, calls }),
        failure().prop_map(|failure| Outcome::Failed { failure }),
    ];
    prop_oneof![
        Just(Phase::Thinking),
        vec(slot, 0..3).prop_map(|slots| Phase::Calling { slots }),
        outcome.prop_map(|outcome| Phase::Over { outcome }),
    ]
    .boxed()
}

fn state() -> BoxedStrategy<TurnState> {
    let limits = (any::<u32>(), count(), time(), any::<u32>(), any::<u32>(), count(), count()).prop_map(
        |(
            steps_max,
            tokens_max,
            wall_ms_max,
            depth_max,
            identical_calls_max,
            calls_per_reply_max,
            result_bytes_max,
        )| {
            Limits {
                steps_max,
                tokens_max,
                wall_ms_max,
                depth_max,
                identical_calls_max,
                calls_per_reply_max,
                result_bytes_max,
            }
        },
    );
    let tool = (text(), text(), json()).prop_map(|(name, description, parameters)| ToolDefinition {
        name,
        description,
        parameters,
    });
    let gate = prop_oneof![Just(Gate::Open), Just(Gate::Approval), Just(Gate::Sender)];
    let repetition = (digest(), any::<u32>()).prop_map(|(result, times)| Repetition { result, times });
    let spent =
        (any::<u32>(), usage(), time()).prop_map(|(steps, usage, elapsed_ms)| TurnSpent { steps, usage, elapsed_ms });
    let called = (vec(tool, 0..3), btree_map(text(), gate, 0..3), btree_map(digest(), repetition, 0..3));
    (limits, any::<u32>(), called, vec(message(), 0..4), count(), spent, phase())
        .prop_map(|(limits, depth, (tools, gates, repetitions), messages, begun_at, spent, phase)| TurnState {
            limits,
            depth,
            tools,
            gates,
            messages,
            begun_at,
            spent,
            repetitions,
            phase,
        })
        .boxed()
}

/// What a sender asks of replies: always an object.
fn options() -> BoxedStrategy<JsonText> {
    any::<i64>().prop_map(|seed| JsonText::of(&serde_json::json!({ "seed": seed }))).boxed()
}

/// A run, with runs that it waits for.
pub fn run() -> BoxedStrategy<Run> {
    let one = |waiting: BoxedStrategy<BTreeMap<String, Run>>| {
        (agent(), state(), vec(agent(), 0..3), count(), (way(), maybe(options())), names(), waiting).prop_map(
            |(agent, turn, path, request_at, (way, options), visible, waiting)| Run {
                agent,
                turn,
                path,
                request_at,
                way,
                visible,
                options,
                waiting,
            },
        )
    };
    let leaf = one(Just(BTreeMap::new()).boxed());
    leaf.prop_recursive(2, 4, 2, move |below| one(btree_map(text(), below, 0..2).boxed()).boxed()).boxed()
}

/// The beginning of a turn that can be said in `format`.
pub fn beginning(format: Format) -> BoxedStrategy<Beginning> {
    let who = (workspace(), text(), text(), text());
    let files = vec(attachment().prop_map(Arc::new), 0..3);
    let asked = (maybe(text()), request(format));
    (who, route(), names(), files, time(), asked, run())
        .prop_map(|(who, route, brought, files, time_ms, (request_digest, request), run)| {
            let (workspace, conversation, turn, subject) = who;
            Beginning {
                workspace,
                conversation,
                turn,
                subject,
                route,
                brought,
                files,
                time_ms,
                request_digest,
                request,
                run,
            }
        })
        .boxed()
}

/// A step of a turn.
pub fn step() -> BoxedStrategy<Step> {
    let finish = prop_oneof![Just(Finish::Stop), Just(Finish::Calls), Just(Finish::Length), Just(Finish::Refused)];
    let reply = (text(), vec(call(), 0..3), usage(), finish, text(), maybe(text()))
        .prop_map(|(text, calls, usage, finish, model, echo)| Reply { text, calls, usage, finish, model, echo });
    let decision = prop_oneof![Just(Decision::Approved), text().prop_map(|reason| Decision::Denied { reason })];
    prop_oneof![
        (way(), reply, spent(), time()).prop_map(|(way, reply, spent, elapsed_ms)| Step::Answered {
            way,
            reply,
            spent,
            elapsed_ms
        }),
        (way(), text(), run()).prop_map(|(way, call, run)| Step::Delegated { way, call, run: Box::new(run) }),
        (way(), text(), result(), vec(attachment(), 0..3), names())
            .prop_map(|(way, call, result, files, visible)| Step::Returned { way, call, result, files, visible }),
        (way(), decision).prop_map(|(way, decision)| Step::Decided { way, decision }),
        any::<u64>().prop_map(|term| Step::TakenUp { term }),
    ]
    .boxed()
}
