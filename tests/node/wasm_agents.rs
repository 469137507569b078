//! Agents that are programs: asked like any other, with the models, tools and memory that their files give them.

use reqwest::Method;
use serde_json::{Value, json};

use crate::bench::{Bench, read, refused};
use crate::deploy::{Content, at};

const SETTINGS: &str = "[workspace]\nname = \"demo\"\n[llm]\nprovider = \"tool:plain-model\"\n";

/// A workspace with `pong`, the tools of the tests, and a core module `worker` that calls this import with this JSON, and
/// refuses with what it was answered.
fn workspace(import: &str, given: &str, more: &str) -> Content {
    let escaped: String = given.bytes().map(|byte| format!("\\{byte:02x}")).collect();
    let wat = format!(
        r#"(module (import "caxton" "{import}" (func $f (param i32 i32) (result i64)))
  (import "caxton" "reason" (func $reason (param i32 i32)))
  (memory (export "memory") 8) (data (i32.const 1024) "{escaped}") (global $free (mut i32) (i32.const 131072))
  (func (export "alloc") (param i32) (result i32)
    (global.get $free) (global.set $free (i32.add (global.get $free) (local.get 0))))
  (func (export "handle_message") (param i32 i32) (result i32) (local $answer i64)
    (local.set $answer (call $f (i32.const 1024) (i32.const {})))
    (call $reason (i32.wrap_i64 (i64.shr_u (local.get $answer) (i64.const 32))) (i32.wrap_i64 (local.get $answer)))
    (i32.const 2)))"#,
        given.len()
    );
    let tool = |name: &str| format!("[tool]\nname = \"{name}\"\nkind = \"component\"\nmodule = \"{name}.wasm\"\n");
    let worker = format!("[agent]\nname = \"worker\"\nkind = \"core\"\nmodule = \"worker.wasm\"\n{more}");
    Content::default()
        .file("caxton.toml", SETTINGS)
        .file("agents/pong.toml", "name = \"pong\"\nkind = \"component\"\nmodule = \"./pong.wasm\"\n")
        .file("agents/pong.wasm", caxton_tools::examples::PONG)
        .file("agents/worker.toml", worker)
        .file("agents/worker.wasm", wat::parse_str(&wat).expect("a module"))
        .file("tools/plain-model/tool.toml", tool("plain-model"))
        .file("tools/plain-model/plain-model.wasm", caxton_tools::examples::PLAIN_MODEL)
        .file("tools/csv-reader/tool.toml", tool("csv-reader"))
        .file("tools/csv-reader/csv-reader.wasm", caxton_tools::examples::CSV_READER)
}

async fn ask(bench: &Bench, agent: &str, text: &str) -> (u16, Value) {
    read(bench.post("/messages", &json!({ "agent": agent, "text": text }))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_answers_a_request_and_its_turn_is_recorded() {
    let bench = Bench::new(&[]).await;
    bench.deploy(&workspace("state_get", r#"{"key":"a"}"#, ""), 0, &Content::default(), "first").await;
    let (status, answer) = ask(&bench, "pong", "ping 7").await;
    assert_eq!((status, answer["text"].as_str()), (200, Some("pong 7")), "{answer}");
    let conversation = answer["conversation"].as_str().expect("a conversation");
    let next = json!({ "agent": "pong", "text": "ping 8", "conversation": conversation });
    let (status, again) = read(bench.post("/messages", &next)).await;
    assert_eq!((status, again["text"].as_str()), (200, Some("pong 8")), "{again}");
    let (status, kept) = read(bench.request(Method::GET, &at(&format!("/conversations/{conversation}")))).await;
    assert_eq!(status, 200, "{kept}");
    assert!(kept.to_string().contains("pong 7") && kept.to_string().contains("pong 8"), "{kept}");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_reaches_what_its_file_gives_it_and_nothing_else() {
    let bench = Bench::new(&[]).await;
    let named = "[tools]\nrequired = [\"csv-reader\"]\n";
    let gated = "[tools]\nrequired = [\"csv-reader\"]\n[approval]\ntools = [\"csv-reader\"]\n";
    let remembers = "[memory]\nenabled = true\n";
    let csv = r#"{"name":"csv-reader","arguments":{"text":"a,b\n1,2"}}"#;
    let mut before = Content::default();
    for (revision, (import, given, more, told)) in [
        ("call_tool", csv, named, "row_count"),
        ("call_tool", csv, "", "names no tool `csv-reader`"),
        ("mcp_call", csv, gated, "wait for a person"),
        ("ask_model", r#"{"prompt":"good morning"}"#, "", "You said: good morning"),
        ("remember", r#"{"text":"the sky is blue"}"#, remembers, r#"{"ok":null}"#),
        ("recall", r#"{"query":"what colour is the sky"}"#, remembers, "the sky is blue"),
        ("recall", r#"{"query":"what colour is the sky"}"#, "", "has no [memory]"),
        ("state_set", r#"{"key":"a","value":"b"}"#, "", "keeps no state"),
        ("send", r#"{"performative":"inform","receiver":"pong","content":"x"}"#, "", "and to nobody else"),
    ]
    .into_iter()
    .enumerate()
    {
        let next = workspace(import, given, more);
        bench.deploy(&next, revision as u64, &before, &format!("key-{revision}")).await;
        before = next;
        let (status, answer) = ask(&bench, "worker", "do it").await;
        let said = answer.to_string().replace("\\\"", "\"");
        assert!(status >= 400 && said.contains("the agent refuses"), "{import}: {status} {answer}");
        assert!(said.contains(told), "{import}: {said}");
    }
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_none_is_refused_where_it_is_named() {
    let bench = Bench::new(&[]).await;
    let fine = workspace("state_get", "{}", "");
    let empty = wat::parse_str("(module)").expect("a module");
    let missing = "[agent]\nname = \"worker\"\nkind = \"core\"\nmodule = \"absent.wasm\"\n";
    let no_module = "[agent]\nname = \"worker\"\nkind = \"core\"\n";
    let no_kind = "[agent]\nname = \"worker\"\nmodule = \"worker.wasm\"\n";
    for (content, code, line) in [
        (fine.clone().file("agents/worker.wasm", caxton_tools::examples::PONG), "tool_broken", 4),
        (fine.clone().file("agents/worker.wasm", "not a module"), "tool_broken", 4),
        (fine.clone().file("agents/worker.wasm", empty), "tool_broken", 4),
        (fine.clone().file("agents/worker.toml", missing), "missing_file", 4),
        (fine.clone().file("agents/worker.toml", no_module), "missing_key", 3),
        (fine.clone().file("agents/worker.toml", no_kind), "missing_key", 3),
    ] {
        bench.send(&content).await;
        let request = content.request(0, &Content::default(), "broken");
        let problem = refused(bench.post("/deployments", &request), 422, "check_failed").await;
        let errors = problem["diagnostics"].as_array().expect("a list");
        let found = errors.iter().find(|found| found["severity"] == "error").expect("an error");
        assert_eq!((&found["code"], &found["place"]["line"]), (&json!(code), &json!(line)), "{problem}");
        assert_eq!(found["path"], "agents/worker.toml", "{problem}");
    }
    bench.stop().await;
}
