//! Agents in WebAssembly: what they are given, what comes of a message, and that a hostile one ends its own call and
//! nothing else.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use caxton_proto::acl::{Body, Content, Message, Performative};
use caxton_tools::{
    AgentCode, AgentHost, AgentLoadError, AgentOutcome, CallError, CallResult, Content as ToolContent, HandlingError,
    HostAnswer, HostRefusal, Incoming, Kind, Limits, MESSAGES_MAX, Question, STATE_KEY_BYTES_MAX, SandboxedAgent,
    Settings, agent_kind, examples,
};
use common::{Bench, componentize_as};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A node that does what it is asked and writes it down.
#[derive(Default)]
struct Desk {
    asked: Mutex<Vec<String>>,
}

impl Desk {
    fn note(&self, asked: String) {
        self.asked.lock().unwrap().push(asked);
    }
}

impl AgentHost for Desk {
    fn check(&self, message: &Message) -> Result<(), HostRefusal> {
        match message.receivers.iter().any(|address| address.to_string() == "stranger") {
            true => Err(HostRefusal::new("there is no agent `stranger`")),
            false => Ok(()),
        }
    }

    fn keeps_state(&self) -> bool {
        true
    }

    fn call_tool(&self, tool: String, arguments: Value) -> HostAnswer<CallResult> {
        self.note(format!("tool {tool} {arguments}"));
        Box::pin(async move {
            match tool.as_str() {
                "slow" => std::future::pending().await,
                "add" => Ok(CallResult {
                    content: vec![ToolContent::Text { text: "three".into() }],
                    structured: Some(json!({ "sum": 3 })),
                    is_error: false,
                }),
                _ => Err(HostRefusal::new("the agent's file does not name this tool")),
            }
        })
    }

    fn ask_model(&self, question: Question) -> HostAnswer<String> {
        self.note(format!("model {} {:?}", question.prompt, question.system));
        Box::pin(async { Ok("an answer".to_owned()) })
    }

    fn remember(&self, text: String) -> HostAnswer<()> {
        self.note(format!("remember {text}"));
        Box::pin(async { Ok(()) })
    }

    fn recall(&self, query: String, count: u32) -> HostAnswer<Vec<String>> {
        self.note(format!("recall {count} {query}"));
        Box::pin(async { Ok(vec!["a fact".to_owned()]) })
    }
}

fn request(text: &str) -> Message {
    Message {
        content: Some(Content::text(text)),
        reply_with: Some("r1".into()),
        conversation_id: Some("c1".into()),
        ..Message::new(Performative::Request, ["me".parse().unwrap()])
    }
    .stamped("subject:ann".parse().unwrap())
}

struct Agents {
    bench: Bench,
    desk: Arc<Desk>,
}

type Outcome = Result<AgentOutcome, HandlingError>;

impl Agents {
    fn new() -> Agents {
        Agents { bench: Bench::new(Settings::default()), desk: Arc::default() }
    }

    fn load(&self, kind: Kind, wasm: &[u8], limits: Limits) -> Result<SandboxedAgent, AgentLoadError> {
        self.bench.sandbox.load_agent(AgentCode { name: "me".into(), kind, limits }, wasm)
    }

    fn handle(&self, agent: &SandboxedAgent, message: Message, state: &[(&str, &str)]) -> Outcome {
        let state = state.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let incoming = Incoming { message, state, host: self.desk.clone(), workspace: "w".into(), deadline: None };
        self.bench.runtime.block_on(agent.handle(incoming)).result
    }

    /// What comes of a request to a module that is written as text.
    fn core(&self, wat: &str) -> Outcome {
        let agent = self.load(Kind::Core, &wat::parse_str(wat).unwrap(), quick()).unwrap();
        self.handle(&agent, request("hello"), &[("kept", "before")])
    }

    fn command(&self, wat: &str) -> Outcome {
        let agent = self.load(Kind::Command, &wat::parse_str(wat).unwrap(), quick()).unwrap();
        self.handle(&agent, request("hello"), &[("kept", "before")])
    }
}

/// Limits whose processor time an endless guest uses up, however busy the machine is.
fn quick() -> Limits {
    Limits { wall: Duration::from_secs(300), cpu: Duration::from_millis(300), ..Limits::default() }
}

fn call_error(outcome: Outcome) -> CallError {
    match outcome.unwrap_err() {
        HandlingError::Call(error) => error,
        other => panic!("{other}"),
    }
}

/// A core module that is given `imports`, keeps texts at 1,024 and handles a message with `body`. `$give` calls the import
/// `f` with the text and notes the answer's length.
fn module(imports: &[&str], texts: &[&str], body: &str) -> String {
    let mut written = String::new();
    for name in imports {
        written += &format!("(import \"caxton\" \"{name}\" (func ${name} (param i32 i32) (result i64)))");
    }
    let mut data = String::new();
    for (number, text) in texts.iter().enumerate() {
        let escaped: String = text.bytes().map(|byte| format!("\\{byte:02x}")).collect();
        data += &format!("(data (i32.const {}) \"{escaped}\")", 1024 * (number + 1));
    }
    format!(
        r#"(module {written}
  (import "caxton" "log" (func $log (param i32 i32 i32)))
  (import "caxton" "reason" (func $reason (param i32 i32)))
  (memory (export "memory") 8) {data}
  (global $free (mut i32) (i32.const 131072))
  (func (export "alloc") (param i32) (result i32)
    (global.get $free) (global.set $free (i32.add (global.get $free) (local.get 0))))
  (func (export "handle_message") (param i32 i32) (result i32) (local $answer i64) {body}))"#
    )
}

/// A call of an import with the text of that number.
fn call(name: &str, number: usize, text: &str) -> String {
    format!("(local.set $answer (call ${name} (i32.const {}) (i32.const {})))", 1024 * (number + 1), text.len())
}

#[test]
fn ping_and_pong_talk_and_the_state_goes_on() {
    let agents = Agents::new();
    let ping = agents.load(Kind::Component, examples::PING, Limits::default()).unwrap();
    let pong = agents.load(Kind::Component, examples::PONG, Limits::default()).unwrap();
    let begun = agents.handle(&ping, request("go"), &[]).unwrap();
    let [answer, sent] = begun.messages.as_slice() else { panic!("{begun:?}") };
    assert_eq!(answer.receivers, ["subject:ann".parse().unwrap()]);
    assert_eq!((answer.in_reply_to.as_deref(), answer.conversation_id.as_deref()), (Some("r1"), Some("c1")));
    assert_eq!(sent.content, Some(Content::text("ping 1")));
    assert_eq!(begun.state, BTreeMap::from([("sent".to_owned(), Some("1".to_owned()))]));

    let answered = agents.handle(&pong, sent.clone().stamped("ping".parse().unwrap()), &[]).unwrap();
    let [back] = answered.messages.as_slice() else { panic!("{answered:?}") };
    assert_eq!(back.content, Some(Content::text("pong 1")));
    assert_eq!((back.performative, back.in_reply_to.as_deref()), (Performative::Inform, Some("ping-1")));

    let next = agents.handle(&ping, back.clone().stamped("pong".parse().unwrap()), &[("sent", "1")]).unwrap();
    assert_eq!(next.messages[0].content, Some(Content::text("ping 2")));

    assert_eq!(next.messages[0].extensions.get("X-Delay-Ms").map(String::as_str), Some("500"), "it burns no machine");

    let mut deployed =
        Message::new(Performative::Inform, ["ping".parse().unwrap()]).stamped("platform:".parse().unwrap());
    deployed.content = Some(Content::json("{\"event\":\"deployed\"}"));
    let first = agents.handle(&ping, deployed.clone(), &[]).unwrap();
    assert_eq!(first.messages[0].content, Some(Content::text("ping 1")), "it begins by itself");
    let again = agents.handle(&ping, deployed, &[("sent", "7")]).unwrap();
    assert_eq!((again.messages.len(), again.state.len()), (0, 0), "what goes on is not begun twice");

    let odd = Message::new(Performative::Cfp, ["pong".parse().unwrap()]).stamped("ping".parse().unwrap());
    let refused = agents.handle(&pong, odd, &[]).unwrap_err();
    assert_eq!(refused, HandlingError::NotUnderstood { why: "pong takes request, not cfp".into() });
}

#[test]
fn a_core_module_uses_all_that_it_is_given() {
    let agents = Agents::new();
    let uses = [
        ("send", r#"{"performative":"inform","receiver":"pong","content":{"a":1}}"#, r#"{"ok":null}"#),
        ("send", r#"{"performative":"inform","receiver":"stranger"}"#, r#"{"error":"there is no agent `stranger`"}"#),
        (
            "call_tool",
            r#"{"name":"add","arguments":{"a":1}}"#,
            r#"{"ok":{"is_error":false,"structured":{"sum":3},"text":"three"}}"#,
        ),
        ("mcp_call", r#"{"name":"other"}"#, r#"{"error":"the agent's file does not name this tool"}"#),
        ("ask_model", r#"{"prompt":"why?","system":"wise"}"#, r#"{"ok":"an answer"}"#),
        ("remember", r#"{"text":"a fact"}"#, r#"{"ok":null}"#),
        ("recall", r#"{"query":"facts","limit":4000000000}"#, r#"{"ok":["a fact"]}"#),
        ("state_get", r#"{"key":"kept"}"#, r#"{"ok":"before"}"#),
        ("state_set", r#"{"key":"new","value":"v"}"#, r#"{"ok":null}"#),
        ("state_keys", r#"{}"#, r#"{"ok":["kept"]}"#),
        ("state_delete", r#"{"key":"kept"}"#, r#"{"ok":null}"#),
    ];
    for (name, text, answer) in uses {
        // It says how long the answer is, which tells one answer from another, and goes on from there.
        let body = format!(
            "{} (call $reason (i32.wrap_i64 (i64.shr_u (local.get $answer) (i64.const 32))) (i32.wrap_i64 (local.get $answer)))
             (i32.const 7)",
            call(name, 0, text)
        );
        let error = call_error(agents.core(&module(&[name], &[text], &body)));
        assert_eq!(error, CallError::Failed { what: format!("`handle_message` gave 7: {answer}") }, "{name}");
    }
    let asked = agents.desk.asked.lock().unwrap().clone();
    assert_eq!(
        asked,
        ["tool add {\"a\":1}", "tool other null", "model why? Some(\"wise\")", "remember a fact", "recall 32 facts"]
    );
    let (set, sent) = (r#"{"key":"new","value":"v"}"#, r#"{"performative":"inform","receiver":"pong","content":"x"}"#);
    let delete = r#"{"key":"kept"}"#;
    let body =
        [call("state_set", 0, set), call("send", 1, sent), call("state_delete", 2, delete), "(i32.const 0)".into()];
    let outcome =
        agents.core(&module(&["state_set", "send", "state_delete"], &[set, sent, delete], &body.concat())).unwrap();
    let changed = [("kept".to_owned(), None), ("new".to_owned(), Some("v".to_owned()))];
    assert_eq!(outcome.state, BTreeMap::from(changed));
    assert_eq!(
        outcome.messages[0].content,
        Some(Content { media_type: "text/plain".into(), body: Body::Text("x".into()) })
    );
}

#[test]
fn a_core_module_says_how_it_ended() {
    let agents = Agents::new();
    let ended = |status: i32| {
        agents.core(&module(
            &[],
            &["no"],
            &format!("(call $reason (i32.const 1024) (i32.const 2)) (i32.const {status})"),
        ))
    };
    assert_eq!(ended(0), Ok(AgentOutcome::default()));
    assert_eq!(ended(1), Err(HandlingError::NotUnderstood { why: "no".into() }));
    assert_eq!(ended(2), Err(HandlingError::Refused { why: "no".into() }));
    assert_eq!(call_error(ended(-1)), CallError::Failed { what: "`handle_message` gave -1: no".into() });
}

#[test]
fn hostile_core_modules_end_their_own_call() {
    let agents = Agents::new();
    let failed = |imports: &[&str], texts: &[&str], body: &str| call_error(agents.core(&module(imports, texts, body)));
    assert_eq!(failed(&[], &[], "(loop (br 0)) (i32.const 0)"), CallError::CpuSpent { limit: quick().cpu });
    let trapped = |error: CallError| matches!(error, CallError::Trapped { .. });
    assert!(trapped(failed(&[], &[], "unreachable")));
    let nonsense = |error: CallError| matches!(error, CallError::BadResult { .. });
    let outside = "(drop (call $send (i32.const -16) (i32.const 100))) (i32.const 0)";
    assert!(nonsense(failed(&["send"], &[], outside)));
    let far = "(call $log (i32.const 1) (i32.const 524280) (i32.const 100)) (i32.const 0)";
    assert!(nonsense(failed(&[], &[], far)));
    let much = "(drop (call $send (i32.const 0) (i32.const -1))) (i32.const 0)";
    assert_eq!(failed(&["send"], &[], much), CallError::OutputTooLarge { limit: quick().output_bytes });

    // 10 MB of log in lines of 100 KB, of which each is cut and most are dropped.
    let log = "(local.set $answer (i64.const 100)) (loop (call $log (i32.const 3) (i32.const 131072) (i32.const 100000))
        (br_if 0 (i64.ne (i64.const 0) (local.tee $answer (i64.sub (local.get $answer) (i64.const 1)))))) (i32.const 0)";
    assert_eq!(agents.core(&module(&[], &[], log)), Ok(AgentOutcome::default()));

    let message = r#"{"performative":"inform","receiver":"pong"}"#;
    let all = format!("(loop {} (br 0)) (i32.const 0)", call("send", 0, message));
    let limit = MESSAGES_MAX;
    assert_eq!(
        failed(&["send"], &[message], &all),
        CallError::TooMany { what: "messages sent for one that came in", limit }
    );
    let slow = r#"{"name":"slow"}"#;
    let waits = module(&["call_tool"], &[slow], &format!("{} (i32.const 0)", call("call_tool", 0, slow)));
    let limits = Limits { wall: Duration::from_secs(2), ..Limits::default() };
    let agent = agents.load(Kind::Core, &wat::parse_str(waits).unwrap(), limits).unwrap();
    let error = call_error(agents.handle(&agent, request("hello"), &[]));
    assert!(matches!(error, CallError::TimedOut { .. }), "{error}");
}

#[test]
fn what_is_no_message_is_refused_with_the_reason() {
    let agents = Agents::new();
    let deep = format!("{{\"performative\":\"inform\",\"receiver\":\"a\",\"content\":{}", "[".repeat(600));
    for (text, why) in [
        ("\u{1}", "not a JSON object"),
        (r#"{"performative":"inform"}"#, "say who receives it"),
        (r#"{"performative":"shout","receiver":"a"}"#, "no performative"),
        (r#"{"performative":"inform","receiver":"a","colour":"red"}"#, "none of its fields"),
        (deep.as_str(), "levels deep"),
    ] {
        let body = format!(
            "{} (call $reason (i32.wrap_i64 (i64.shr_u (local.get $answer) (i64.const 32))) (i32.wrap_i64 (local.get $answer)))
             (i32.const 7)",
            call("send", 0, text)
        );
        let error = call_error(agents.core(&module(&["send"], &[text], &body))).to_string();
        assert!(error.contains(why), "{why}: {error}");
    }
    // Bytes that are no UTF-8, in a message and in what is logged.
    let raw = "(i32.store8 (i32.const 1024) (i32.const 255)) (call $log (i32.const 1) (i32.const 1024) (i32.const 1))
        (drop (call $send (i32.const 1024) (i32.const 1))) (i32.const 0)";
    assert_eq!(agents.core(&module(&["send"], &[], raw)), Ok(AgentOutcome::default()));
}

#[test]
fn a_module_that_is_no_agent_is_not_loaded() {
    let agents = Agents::new();
    let link = |kind: Kind, wasm: &[u8]| match agents.load(kind, wasm, Limits::default()).unwrap_err() {
        AgentLoadError::Link { why, .. } => why,
        other => panic!("{other}"),
    };
    let core = |text: &str| wat::parse_str(text).unwrap();
    assert!(link(Kind::Core, &core("(module)")).contains("exports no `memory`"));
    let foreign =
        r#"(module (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32))))"#;
    assert!(link(Kind::Core, &core(foreign)).contains("call_tool, mcp_call, ask_model"));
    let wrong =
        module(&[], &[], "(i32.const 0)").replace("(func $reason (param i32 i32))", "(func $reason (param i64))");
    assert!(link(Kind::Core, &core(&wrong.replace("(call $reason", "(;"))).contains("incompatible import type"));
    assert!(link(Kind::Command, &core("(module)")).contains("exports no `_start`"));
    assert!(link(Kind::Component, examples::CSV_READER).contains("does not export `handle`"));
    assert!(link(Kind::Component, examples::HTTP_FETCH).contains("so it is not an agent"));
    let not = agents.load(Kind::Component, &core("(module)"), Limits::default()).unwrap_err();
    assert!(matches!(not, AgentLoadError::Compile { .. }), "{not}");
    let not = agents.load(Kind::Core, b"not wasm", Limits::default()).unwrap_err();
    assert!(matches!(not, AgentLoadError::Compile { .. }), "{not}");
}

#[test]
fn the_bytes_of_a_module_say_what_it_is() {
    let core = wat::parse_str(module(&[], &[], "(i32.const 0)")).unwrap();
    let command = wat::parse_str(command("", 0)).unwrap();
    for (wasm, kind) in [(examples::PING, Kind::Component), (&core, Kind::Core), (&command, Kind::Command)] {
        assert_eq!(agent_kind(wasm), Ok(kind));
    }
    assert!(agent_kind(&wat::parse_str("(module)").unwrap()).unwrap_err().contains("neither `handle_message`"));
    assert!(agent_kind(b"not wasm").unwrap_err().contains("not WebAssembly"));
}

#[test]
fn state_that_is_not_kept_or_is_too_large_is_refused() {
    let agents = Agents::new();
    let told = |text: &str| {
        let body = format!(
            "{} (call $reason (i32.wrap_i64 (i64.shr_u (local.get $answer) (i64.const 32))) (i32.wrap_i64 (local.get $answer)))
             (i32.const 7)",
            call("state_set", 0, text)
        );
        let wat = module(&["state_set"], &[], &body);
        let escaped: String = text.bytes().map(|byte| format!("\\{byte:02x}")).collect();
        let data = format!("(memory (export \"memory\") 8) (data (i32.const 1024) \"{escaped}\")");
        call_error(agents.core(&wat.replace("(memory (export \"memory\") 8)", &data))).to_string()
    };
    let long = format!("{{\"key\":\"{}\",\"value\":\"\"}}", "k".repeat(STATE_KEY_BYTES_MAX + 1));
    assert!(told(&long).contains("a key of the state has 1 to"), "{}", told(&long));
    assert!(told(r#"{"key":"","value":""}"#).contains("a key of the state has 1 to"));
    assert!(told(r#"{"key":"a"}"#).contains("missing field `value`"));
    assert!(told(r#"{"key":"a","value":"b"}"#).contains(r#"{"ok":null}"#));
}

/// A component whose `handle` is this body; it leaves the address of its result.
fn component(body: &str) -> Vec<u8> {
    componentize_as(
        examples::PONG,
        &format!(
            r#"(module (memory (export "memory") 2)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536))
  (func (export "cabi_post_caxton:agent/handler@0.1.0#handle") (param i32))
  (func (export "caxton:agent/handler@0.1.0#handle") (param i32) (result i32) {body}))"#
        ),
    )
}

#[test]
fn hostile_components_end_their_own_call() {
    let agents = Agents::new();
    let ends = |body: &str| {
        let agent = agents.load(Kind::Component, &component(body), quick()).unwrap();
        call_error(agents.handle(&agent, request("hello"), &[]))
    };
    assert_eq!(ends("(loop (br 0)) (i32.const 0)"), CallError::CpuSpent { limit: quick().cpu });
    for body in [
        "unreachable",
        "(i32.const -8)",
        // A result with a discriminant that is none, and a list that is longer than the memory.
        "(i32.store8 (i32.const 16) (i32.const 9)) (i32.const 16)",
        "(i32.store8 (i32.const 16) (i32.const 0)) (i32.store (i32.const 20) (i32.const 64))
         (i32.store (i32.const 24) (i32.const 100000000)) (i32.const 16)",
    ] {
        let error = ends(body);
        assert!(matches!(error, CallError::Trapped { .. } | CallError::OutputTooLarge { .. }), "{body}: {error}");
    }
    // The next message is handled as if nothing had been.
    let pong = agents.load(Kind::Component, examples::PONG, quick()).unwrap();
    assert_eq!(agents.handle(&pong, request("ping 1"), &[]).unwrap().messages.len(), 1);
}

/// A command that prints these bytes, or its input where there are none, and ends with this status.
fn command(printed: &str, status: u32) -> String {
    let escaped: String = printed.bytes().map(|byte| format!("\\{byte:02x}")).collect();
    format!(
        r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 4) (data (i32.const 1024) "{escaped}")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const {length}))
    (drop (call $write (i32.const {stream}) (i32.const 0) (i32.const 1) (i32.const 8)))
    (call $exit (i32.const {status}))))"#,
        length = printed.len(),
        stream = if status == 0 { 1 } else { 2 }
    )
}

#[test]
fn a_command_prints_what_it_sends() {
    let agents = Agents::new();
    let message = r#"{"performative":"inform","receiver":"pong","content":"x"}"#;
    for printed in [message.to_owned(), format!(" [{message}]\n"), format!("{{\"messages\":[{message}]}}")] {
        let outcome = agents.command(&command(&printed, 0)).unwrap();
        assert_eq!(outcome.messages.len(), 1, "{printed}");
        assert_eq!(outcome.messages[0].content, Some(Content::text("x")));
    }
    assert_eq!(agents.command(&command("", 0)), Ok(AgentOutcome::default()));
    let changed = agents.command(&command(r#"{"state":{"kept":null,"count":"2"}}"#, 0)).unwrap();
    let expected = [("count".to_owned(), Some("2".to_owned())), ("kept".to_owned(), None)];
    assert_eq!(changed.state, BTreeMap::from(expected));
    for (printed, why) in [
        ("nonsense", "not a message or a list"),
        ("[{\"performative\":\"inform\"}]", "message 1 that it returned"),
        ("{\"state\":{\"\":\"x\"}}", "a key of the state"),
        ("{\"other\":1}", "unknown field `other`"),
    ] {
        let error = call_error(agents.command(&command(printed, 0))).to_string();
        assert!(error.contains(why), "{printed}: {error}");
    }
    let not_understood = agents.command(&command("only numbers", 3)).unwrap_err();
    assert_eq!(not_understood, HandlingError::NotUnderstood { why: "only numbers".into() });
    let refused = agents.command(&command("not today", 4)).unwrap_err();
    assert_eq!(refused, HandlingError::Refused { why: "not today".into() });
    let failed = call_error(agents.command(&command("oh no", 1)));
    assert_eq!(failed, CallError::Failed { what: "it ended with status 1; the last it wrote: oh no".into() });
}

#[test]
fn a_command_is_given_the_message_and_the_state() {
    let agents = Agents::new();
    // It copies its input, or the second half of its one variable, to its standard error, and fails.
    let copy = |gather: &str| {
        format!(
            r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $environ (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 4)
  (func (export "_start") {gather}
    (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8))) (call $exit (i32.const 3))))"#
        )
    };
    let told = |wat: String| match agents.command(&wat).unwrap_err() {
        HandlingError::NotUnderstood { why } => why,
        other => panic!("{other}"),
    };
    let input = told(copy(
        "(i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const 8192))
         (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
         (i32.store (i32.const 4) (i32.load (i32.const 8)))",
    ));
    let given: Value = serde_json::from_str(&input).unwrap();
    assert_eq!(given, serde_json::from_str::<Value>(&request("hello").to_json().unwrap()).unwrap());
    let state = told(copy(
        "(drop (call $environ (i32.const 512) (i32.const 1024)))
         (i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const 30))",
    ));
    assert_eq!(state.trim_end_matches([' ', '\0']), "CAXTON_STATE={\"kept\":\"before\"}"[..30].trim_end());
}
